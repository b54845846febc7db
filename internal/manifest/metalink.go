package manifest

import (
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"dragonload/internal/piece"
)

// Bounds of a Metalink. What exceeds one of them is refused, not cut.
const (
	MaxMetalink      = 64 << 20 // bytes of the document
	MaxMetalinkFiles = 1 << 14
	maxMetalinkURLs  = 1000 // of one file
	maxMetalinkText  = 8 << 10
	maxMetalinkRun   = 1 << 20 // bytes of any text, comment or tag
	maxMetalinkDepth = 32
	maxMetalinkKinds = 32 // hashes of a file, containers of piece hashes

	// lastPriority is what a URL without a priority has, and the largest there is.
	lastPriority = 999_999
)

const (
	metalinkNS  = "urn:ietf:params:xml:ns:metalink"
	metalink3NS = "http://www.metalinker.org/"
)

// ErrMetalink is wrapped by every error of ReadMetalink that is about the document and
// not about reading it.
var ErrMetalink = errors.New("not a Metalink that can be used")

// Metalink is a document of RFC 5854: files, what they are and where they can be had.
type Metalink struct {
	Generator string    // the program that wrote it; "" if it does not say
	Published time.Time // zero if it does not say
	Files     []MetalinkFile
}

// MetalinkFile is one file of a Metalink.
type MetalinkFile struct {
	// Name is a path with slashes, below the folder that the user chose; each of its
	// elements has passed CleanName, and no two names of a document meet in a folder,
	// whether or not that tells upper from lower case.
	Name   string
	Size   int64  // piece.UnknownSize if the document does not say
	Hashes []Hash // of the whole file, the strongest first, one of an algorithm

	// Pieces are the SHA-256 of each PieceLength bytes; nil if there are none.
	PieceLength int64
	Pieces      [][32]byte

	URLs []string // of http and https, the best first
}

// Hash is a digest of a whole file.
type Hash struct {
	Algorithm string // sha-512, sha-256, sha-1 or md5
	Sum       []byte
}

// hashKinds are the algorithms that are read, the strongest first.
var hashKinds = []struct {
	name string
	size int
}{{"sha-512", 64}, {"sha-256", 32}, {"sha-1", 20}, {"md5", 16}}

func hashRank(algorithm string) int {
	for k, kind := range hashKinds {
		if kind.name == algorithm {
			return k
		}
	}
	return -1
}

// ReadMetalink reads a Metalink 4 document. It is strict where the bytes, their names
// or their places depend on it, and passes over what it does not know: signatures,
// other programs' elements, addresses that are not of http, weaker hashes of pieces.
func ReadMetalink(r io.Reader) (*Metalink, error) {
	limited := &io.LimitedReader{R: r, N: MaxMetalink + 1}
	runs := &runReader{r: limited}
	m, err := readMetalink(runs)
	switch {
	case runs.over:
		return nil, refuseMetalink("one of its texts or comments is longer than %d KiB", maxMetalinkRun>>10)
	case limited.N <= 0:
		return nil, fmt.Errorf("%w: it is longer than %d MiB", ErrMetalink, MaxMetalink>>20)
	case err != nil:
		return nil, err
	}
	return m, nil
}

// runReader ends a document in which one token is longer than maxMetalinkRun: the decoder
// holds all of it in memory, and in growing buffers.
type runReader struct {
	r    io.Reader
	run  int // bytes since the last token
	over bool
}

func (r *runReader) Read(p []byte) (int, error) {
	if r.over = r.over || r.run > maxMetalinkRun; r.over {
		return 0, io.EOF
	}
	n, err := r.r.Read(p)
	r.run += n
	return n, err
}

func readMetalink(r *runReader) (*Metalink, error) {
	x := &metalinkReader{decoder: xml.NewDecoder(r), run: r}
	root, err := x.root()
	if err != nil {
		return nil, err
	}
	switch {
	case root.Name.Space == metalink3NS:
		return nil, refuseMetalink("it is of the old version 3; ask for one of version 4 (.meta4), or give the addresses themselves with --mirror")
	case root.Name.Local != "metalink" || root.Name.Space != metalinkNS:
		return nil, refuseMetalink("its root element is not metalink of RFC 5854")
	}
	m := &Metalink{}
	err = x.children(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "generator":
			return x.text(&m.Generator)
		case "published":
			var text string
			err := x.text(&text)
			if at, bad := time.Parse(time.RFC3339, text); bad == nil {
				m.Published = at
			}
			return err
		case "file":
			if len(m.Files) == MaxMetalinkFiles {
				return refuseMetalink("it has more than %d files", MaxMetalinkFiles)
			}
			f, err := x.file(e)
			m.Files = append(m.Files, f)
			return err
		}
		return x.skip()
	})
	if err == nil {
		err = x.nothingElse()
	}
	if err != nil {
		return nil, err
	}
	if len(m.Files) == 0 {
		return nil, refuseMetalink("it names no file")
	}
	return m, m.checkNames()
}

func refuseMetalink(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMetalink, fmt.Sprintf(format, args...))
}

// metalinkReader walks over the elements of a document.
type metalinkReader struct {
	decoder *xml.Decoder
	run     *runReader
	depth   int
	pieces  int // of all files
}

// next returns the next token that is an element or text. Documents that declare a
// type are refused: nothing here needs one, and entities are best not begun with.
func (x *metalinkReader) next() (xml.Token, error) {
	for {
		token, err := x.decoder.Token()
		if err == nil {
			x.run.run = 0
		}
		var syntax *xml.SyntaxError
		switch {
		case errors.As(err, &syntax):
			return nil, refuseMetalink("line %d is not well-formed XML", syntax.Line)
		case errors.Is(err, io.EOF):
			return nil, err
		case err != nil && strings.HasPrefix(err.Error(), "xml: "):
			return nil, refuseMetalink("it is not XML in UTF-8")
		case err != nil:
			return nil, err
		}
		switch token.(type) {
		case xml.Directive:
			return nil, refuseMetalink("it declares a document type")
		case xml.StartElement, xml.EndElement, xml.CharData:
			return token, nil
		}
	}
}

func (x *metalinkReader) root() (xml.StartElement, error) {
	for {
		token, err := x.next()
		if errors.Is(err, io.EOF) {
			err = refuseMetalink("it is empty")
			if x.decoder.InputOffset() > 0 {
				err = refuseMetalink("it holds no XML element, so it may be another file; get it anew")
			}
		}
		if err != nil {
			return xml.StartElement{}, err
		}
		if e, ok := token.(xml.StartElement); ok {
			return e, nil
		}
	}
}

// nothingElse reads what is behind the root element.
func (x *metalinkReader) nothingElse() error {
	for {
		token, err := x.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, ok := token.(xml.StartElement); ok {
			return refuseMetalink("it has a second root element")
		}
	}
}

// children calls each for every Metalink element inside the present one; each reads it
// to its end. Elements of other namespaces are passed over.
func (x *metalinkReader) children(each func(xml.StartElement) error) error {
	if x.depth++; x.depth > maxMetalinkDepth {
		return refuseMetalink("its elements are nested more than %d deep", maxMetalinkDepth)
	}
	defer func() { x.depth-- }()
	for {
		token, err := x.next()
		if err != nil {
			return x.cutShort(err)
		}
		switch t := token.(type) {
		case xml.EndElement:
			return nil
		case xml.StartElement:
			if t.Name.Space != metalinkNS {
				err = x.skip()
			} else {
				err = each(t)
			}
			if err != nil {
				return err
			}
		}
	}
}

func (x *metalinkReader) cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return refuseMetalink("it is cut short")
	}
	return err
}

// skip passes over the present element.
func (x *metalinkReader) skip() error {
	return x.children(func(xml.StartElement) error { return x.skip() })
}

// text reads the present element as text, without the blanks around it.
func (x *metalinkReader) text(to *string) error {
	var text []byte
	for {
		token, err := x.next()
		if err != nil {
			return x.cutShort(err)
		}
		switch t := token.(type) {
		case xml.EndElement:
			*to = strings.TrimSpace(string(text))
			return nil
		case xml.StartElement:
			if err := x.skip(); err != nil {
				return err
			}
		case xml.CharData:
			if text = append(text, t...); len(text) > maxMetalinkText {
				return refuseMetalink("one of its texts is longer than %d bytes", maxMetalinkText)
			}
		}
	}
}

func attribute(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name && a.Name.Space == "" {
			return a.Value
		}
	}
	return ""
}

// rankedURL is an address and how good it is: 1 is the best.
type rankedURL struct {
	url      string
	priority int
}

func (x *metalinkReader) file(e xml.StartElement) (MetalinkFile, error) {
	f := MetalinkFile{Name: attribute(e, "name"), Size: piece.UnknownSize}
	if err := cleanPath(f.Name); err != nil {
		return f, refuseMetalink("file %v", err)
	}
	var urls []rankedURL
	seen, containers := 0, 0
	err := x.children(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "size":
			return x.size(&f)
		case "hash":
			if seen++; seen > maxMetalinkKinds {
				return refuseMetalink("%q has more than %d hashes", f.Name, maxMetalinkKinds)
			}
			return x.hash(e, &f)
		case "pieces":
			if containers++; containers > maxMetalinkKinds {
				return refuseMetalink("%q has more than %d lists of pieces", f.Name, maxMetalinkKinds)
			}
			return x.pieceHashes(e, &f)
		case "url":
			if len(urls) == maxMetalinkURLs {
				return refuseMetalink("%q has more than %d addresses", f.Name, maxMetalinkURLs)
			}
			u, ok, err := x.url(e)
			if ok {
				urls = append(urls, u)
			}
			return err
		}
		return x.skip()
	})
	if err != nil {
		return f, err
	}
	slices.SortStableFunc(urls, func(a, b rankedURL) int { return a.priority - b.priority })
	for _, u := range urls {
		if !slices.Contains(f.URLs, u.url) {
			f.URLs = append(f.URLs, u.url)
		}
	}
	slices.SortFunc(f.Hashes, func(a, b Hash) int { return hashRank(a.Algorithm) - hashRank(b.Algorithm) })
	return f, f.checkPieces()
}

func (x *metalinkReader) size(f *MetalinkFile) error {
	var text string
	if err := x.text(&text); err != nil {
		return err
	}
	n, err := parseNumber(text, piece.MaxSize)
	switch {
	case err != nil:
		return refuseMetalink("the size of %q is no number of bytes up to %d", f.Name, int64(piece.MaxSize))
	case f.Size >= 0 && f.Size != n:
		return refuseMetalink("%q has two sizes", f.Name)
	}
	f.Size = n
	return nil
}

// parseNumber reads decimal digits and nothing else.
func parseNumber(s string, limit int64) (int64, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err == nil && n > limit {
		err = strconv.ErrRange
	}
	return n, err
}

func (x *metalinkReader) hash(e xml.StartElement, f *MetalinkFile) error {
	var text string
	if err := x.text(&text); err != nil {
		return err
	}
	algorithm := strings.ToLower(attribute(e, "type"))
	rank := hashRank(algorithm)
	if rank < 0 {
		return nil
	}
	sum, err := hex.DecodeString(text)
	if err != nil || len(sum) != hashKinds[rank].size {
		return refuseMetalink("the %s of %q has not %d hexadecimal digits", algorithm, f.Name, 2*hashKinds[rank].size)
	}
	for _, h := range f.Hashes {
		if h.Algorithm != algorithm {
			continue
		}
		if !slices.Equal(h.Sum, sum) {
			return refuseMetalink("%q has two different hashes %s", f.Name, algorithm)
		}
		return nil
	}
	f.Hashes = append(f.Hashes, Hash{algorithm, sum})
	return nil
}

func (x *metalinkReader) pieceHashes(e xml.StartElement, f *MetalinkFile) error {
	if strings.ToLower(attribute(e, "type")) != "sha-256" {
		return x.skip()
	}
	length, err := parseNumber(attribute(e, "length"), piece.MaxSize)
	switch {
	case f.Pieces != nil:
		return refuseMetalink("%q has two lists of pieces of the same type", f.Name)
	case err != nil || length == 0:
		return refuseMetalink("the pieces of %q have no length", f.Name)
	}
	f.PieceLength, f.Pieces = length, [][32]byte{}
	return x.children(func(e xml.StartElement) error {
		if e.Name.Local != "hash" {
			return x.skip()
		}
		if x.pieces++; x.pieces > piece.MaxCount {
			return refuseMetalink("it has more than %d pieces", piece.MaxCount)
		}
		var text string
		if err := x.text(&text); err != nil {
			return err
		}
		sum, err := hex.DecodeString(text)
		if err != nil || len(sum) != 32 {
			return refuseMetalink("the hash of piece %d of %q has not 64 hexadecimal digits", len(f.Pieces), f.Name)
		}
		f.Pieces = append(f.Pieces, [32]byte(sum))
		return nil
	})
}

// checkPieces compares the list of pieces with the size.
func (f *MetalinkFile) checkPieces() error {
	if f.Pieces == nil {
		return nil
	}
	if f.Size < 0 {
		return refuseMetalink("%q has hashes of its pieces and no size", f.Name)
	}
	want := f.Size / f.PieceLength
	if f.Size%f.PieceLength != 0 {
		want++
	}
	if int64(len(f.Pieces)) != want {
		return refuseMetalink("%q has %d pieces by its size, and hashes of %d", f.Name, want, len(f.Pieces))
	}
	return nil
}

// url reads an address. One of another scheme is none; where it is said to be does not
// matter, for what it brings is measured.
func (x *metalinkReader) url(e xml.StartElement) (u rankedURL, ok bool, err error) {
	if err := x.text(&u.url); err != nil {
		return u, false, err
	}
	u.priority = lastPriority
	if text := attribute(e, "priority"); text != "" {
		n, err := parseNumber(strings.TrimSpace(text), lastPriority)
		if err != nil || n == 0 {
			return u, false, refuseMetalink("a priority is not between 1 and %d", lastPriority)
		}
		u.priority = int(n)
	}
	parsed, err := url.Parse(u.url)
	if err != nil {
		// Not quoted: it may hold a password.
		return u, false, refuseMetalink("an address in it cannot be read as a URL")
	}
	switch parsed.Scheme {
	case "http", "https":
		return u, parsed.Hostname() != "", nil
	}
	return u, false, nil
}

// maxPathDepth bounds the folders that a name may go through.
const maxPathDepth = 32

// cleanPath checks a path as CleanName does each of its elements.
func cleanPath(path string) error {
	elements := strings.Split(path, "/")
	if len(elements) > maxPathDepth {
		return fmt.Errorf("%w: it has more than %d levels", ErrName, maxPathDepth)
	}
	for _, element := range elements {
		if _, err := CleanName(element); err != nil {
			return err
		}
	}
	return nil
}

// checkNames refuses names that would meet in a folder: alike up to the case of their
// letters, or one the folder of another.
func (m *Metalink) checkNames() error {
	fold := func(s string) string { return strings.ToLower(strings.ToUpper(s)) }
	names, folders := make(map[string]bool), make(map[string]bool)
	for _, f := range m.Files {
		key := fold(f.Name)
		if names[key] {
			return refuseMetalink("two of its files are called %q", f.Name)
		}
		names[key] = true
		for i := strings.LastIndexByte(key, '/'); i > 0; i = strings.LastIndexByte(key[:i], '/') {
			folders[key[:i]] = true
		}
	}
	for _, f := range m.Files {
		if folders[fold(f.Name)] {
			return refuseMetalink("%q is a file and a folder", f.Name)
		}
	}
	return nil
}

// The elements in the order in which they are written.
type (
	xmlMetalink struct {
		XMLName   xml.Name  `xml:"urn:ietf:params:xml:ns:metalink metalink"`
		Generator string    `xml:"generator,omitempty"`
		Published string    `xml:"published,omitempty"`
		Files     []xmlFile `xml:"file"`
	}
	xmlFile struct {
		Name   string     `xml:"name,attr"`
		Size   *int64     `xml:"size"`
		Hashes []xmlHash  `xml:"hash"`
		Pieces *xmlPieces `xml:"pieces"`
		URLs   []xmlURL   `xml:"url"`
	}
	xmlHash struct {
		Type string `xml:"type,attr,omitempty"`
		Hex  string `xml:",chardata"`
	}
	xmlPieces struct {
		Length int64     `xml:"length,attr"`
		Type   string    `xml:"type,attr"`
		Hashes []xmlHash `xml:"hash"`
	}
	xmlURL struct {
		Priority int    `xml:"priority,attr"`
		URL      string `xml:",chardata"`
	}
)

// Write writes the document as ReadMetalink reads it. It holds at most one list of
// pieces a file, for some programs take two lists for one.
func (m *Metalink) Write(w io.Writer) error {
	x := xmlMetalink{Generator: m.Generator}
	if !m.Published.IsZero() {
		x.Published = m.Published.UTC().Format(time.RFC3339)
	}
	for _, f := range m.Files {
		if err := cleanPath(f.Name); err != nil {
			return err
		}
		out := xmlFile{Name: f.Name}
		if f.Size >= 0 {
			out.Size = &f.Size
		}
		for _, h := range f.Hashes {
			out.Hashes = append(out.Hashes, xmlHash{Type: h.Algorithm, Hex: hex.EncodeToString(h.Sum)})
		}
		if len(f.Pieces) > 0 {
			out.Pieces = &xmlPieces{Length: f.PieceLength, Type: "sha-256"}
			for _, sum := range f.Pieces {
				out.Pieces.Hashes = append(out.Pieces.Hashes, xmlHash{Hex: hex.EncodeToString(sum[:])})
			}
		}
		for k, u := range f.URLs {
			out.URLs = append(out.URLs, xmlURL{Priority: k + 1, URL: u})
		}
		x.Files = append(x.Files, out)
	}
	if err := m.checkNames(); err != nil {
		return err
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	encoder := xml.NewEncoder(w)
	encoder.Indent("", "  ")
	if err := encoder.Encode(x); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
