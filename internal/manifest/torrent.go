package manifest

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"strings"

	"dragonload/internal/piece"
)

// Bounds of a torrent. What exceeds one of them is refused, not cut.
const (
	MaxTorrent      = 64 << 20 // bytes of the metainfo file
	MaxTorrentFiles = 1 << 20  // files and empty folders

	maxTorrentPaths = 128 << 20 // bytes of all paths
	maxTorrentURLs  = 1000
	maxTorrentText  = 8 << 10
)

// ErrTorrent is wrapped by every error of ReadTorrent that is about the metainfo and
// not about reading it.
var ErrTorrent = errors.New("not a torrent that can be used")

// Torrent is a BitTorrent v2 metainfo (BEP 52): files, their pieces' digests, and
// where the bytes may be had. A hybrid one can be used by programs that know version 1
// alone (BEP 3, with the pad files of BEP 47). A Torrent is what its info dictionary
// says: ReadTorrent and BuildTorrent make it, and nobody changes it.
type Torrent struct {
	Name        string // of the folder that the files lie in, or of the single file
	Folder      bool   // the files lie in a folder; else there is just one, called Name
	PieceLength int64
	Files       []TorrentFile // in the order of the file tree, which is that of the pieces
	Folders     []string      // the paths of empty folders; version 1 does not know them
	Size        int64         // of all files

	Hybrid    bool
	Private   bool     // members are found through the tracker alone (BEP 27)
	WebSeeds  []string // of http and https (BEP 19); not a part of what the info hash covers
	CreatedBy string

	info []byte // the info dictionary as it stood in the metainfo file
}

// TorrentFile is one file of a Torrent.
type TorrentFile struct {
	// Path has slashes and lies below the torrent's folder. Each of its elements has
	// passed CleanName, and no two meet in a folder, whether or not that tells upper
	// from lower case.
	Path   string
	Size   int64
	Root   piece.Digest   // of the Merkle tree over the whole file; zero if it is empty
	Pieces []piece.Digest // as piece.Layout.Sum makes them; none if it is empty
}

// InfoHash is what identifies the torrent: the SHA-256 of its info dictionary.
func (t *Torrent) InfoHash() [sha256.Size]byte { return sha256.Sum256(t.info) }

// InfoHashV1 is what programs that know version 1 alone identify it by; only a hybrid
// torrent has one.
func (t *Torrent) InfoHashV1() (hash [sha1.Size]byte, ok bool) {
	return sha1.Sum(t.info), t.Hybrid
}

// Layout returns how file i is cut into pieces; each file begins with a piece of its
// own.
func (t *Torrent) Layout(i int) piece.Layout {
	return piece.Layout{Size: t.Files[i].Size, PieceLength: t.PieceLength}
}

// PieceCount returns the number of pieces of all files.
func (t *Torrent) PieceCount() int {
	n := 0
	for i := range t.Files {
		n += len(t.Files[i].Pieces)
	}
	return n
}

// Write writes the metainfo file. Its info dictionary is the one that was read or
// built, to the byte.
func (t *Torrent) Write(w io.Writer) error {
	layers := make(map[string]any)
	for _, f := range t.Files {
		if len(f.Pieces) < 2 {
			continue
		}
		layer := make([]byte, 0, len(f.Pieces)*len(piece.Digest{}))
		for _, d := range f.Pieces {
			layer = append(layer, d[:]...)
		}
		layers[string(f.Root[:])] = layer
	}
	outer := map[string]any{"info": bencoded(t.info), "piece layers": layers}
	if t.CreatedBy != "" {
		outer["created by"] = t.CreatedBy
	}
	if len(t.WebSeeds) > 0 {
		seeds := make([]any, len(t.WebSeeds))
		for i, seed := range t.WebSeeds {
			seeds[i] = seed
		}
		outer["url-list"] = seeds
	}
	_, err := w.Write(appendBencode(nil, outer))
	return err
}

// Bare returns the torrent without what the info hash does not vouch for: its web seeds
// and who made it. Of it Write writes the info dictionary first, after "d4:info".
func (t *Torrent) Bare() *Torrent {
	bare := *t
	bare.WebSeeds, bare.CreatedBy = nil, ""
	return &bare
}

// InfoLength returns the length of the info dictionary in bytes.
func (t *Torrent) InfoLength() int { return len(t.info) }

// LayoutAll returns how the content of all files is cut: one file after the other.
func (t *Torrent) LayoutAll() (piece.Layout, error) {
	sizes := make([]int64, len(t.Files))
	for i, f := range t.Files {
		sizes[i] = f.Size
	}
	return piece.LayoutOf(t.PieceLength, sizes)
}

// Digests returns the digests of all pieces in their order.
func (t *Torrent) Digests() []piece.Digest {
	all := make([]piece.Digest, 0, t.PieceCount())
	for _, f := range t.Files {
		all = append(all, f.Pieces...)
	}
	return all
}

// ReadTorrent reads a metainfo file of version 2 or a hybrid one, and refuses, with
// the reason, what contradicts itself, names files that harm or exceeds a bound.
// Trackers and other programs' additions are passed over.
func ReadTorrent(r io.Reader) (*Torrent, error) {
	var data bytes.Buffer
	if file, ok := r.(interface{ Stat() (fs.FileInfo, error) }); ok {
		// A buffer that grows holds twice what it has read, and more.
		if info, err := file.Stat(); err == nil && info.Size() > MaxTorrent {
			return nil, errTorrentLength
		} else if err == nil {
			data.Grow(int(info.Size()) + bytes.MinRead)
		}
	}
	if _, err := data.ReadFrom(io.LimitReader(r, MaxTorrent+1)); err != nil {
		return nil, err
	}
	return parseTorrent(data.Bytes())
}

func refuseTorrent(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrTorrent}, args...)...)
}

var errTorrentLength = refuseTorrent("it is longer than %d MiB", MaxTorrent>>20)

func parseTorrent(data []byte) (*Torrent, error) {
	if len(data) > MaxTorrent {
		return nil, errTorrentLength
	}
	doc := &bencodeReader{data: data}
	outer, err := doc.fields("created by", "info", "piece layers", "url-list")
	if err == nil {
		err = doc.end()
	}
	if err != nil {
		return nil, refuseTorrent("%w", err)
	}
	if outer["info"] == nil {
		return nil, refuseTorrent("it has no info dictionary")
	}
	p := &torrentParser{torrent: &Torrent{info: bytes.Clone(outer["info"].data)}}
	for _, step := range []func() error{
		func() error { return p.readInfo(outer["info"]) },
		func() error { return p.readLayers(outer["piece layers"]) },
		p.readVersion1,
		func() error { return p.readWebSeeds(outer["url-list"]) },
	} {
		if err := step(); errors.Is(err, ErrTorrent) {
			return nil, err
		} else if err != nil {
			return nil, refuseTorrent("%w", err)
		}
	}
	if by := outer["created by"]; by != nil {
		if s, err := by.str(); err == nil && len(s) <= maxTorrentText {
			p.torrent.CreatedBy = strings.ToValidUTF8(string(s), "\ufffd")
		}
	}
	return p.torrent, nil
}

// torrentParser puts a Torrent together from the values of its metainfo file. Those
// are valid bencode, since they have been passed over once, but any may be of another
// kind than it should.
type torrentParser struct {
	torrent *Torrent
	info    map[string]*bencodeReader
	tree    *bencodeReader
	paths   int // bytes
}

func (p *torrentParser) readInfo(r *bencodeReader) (err error) {
	t := p.torrent
	p.info, err = r.fields("file tree", "files", "length", "meta version", "name", "piece length", "pieces", "private")
	if err != nil {
		return refuseTorrent("its info is no dictionary")
	}
	version, found := p.info["meta version"]
	switch n, err := integerOf(version); {
	case !found && p.info["pieces"] != nil:
		return refuseTorrent("it is of version 1 alone, whose pieces cannot be checked as dragonload does; ask for a hybrid one or one of version 2")
	case !found:
		return refuseTorrent("it does not say of which version it is")
	case err != nil || n != 2:
		return refuseTorrent("it is of a version that is not 2")
	}
	if t.PieceLength, err = integerOf(p.info["piece length"]); err != nil {
		return refuseTorrent("it has no piece length")
	}
	if err := (piece.Layout{PieceLength: t.PieceLength}).Validate(); err != nil {
		return refuseTorrent("its %w", err)
	}
	if t.Name, err = textOf(p.info["name"]); err != nil {
		return refuseTorrent("it has no name")
	}
	if _, err := CleanName(t.Name); err != nil {
		return refuseTorrent("its name %w", err)
	}
	if private := p.info["private"]; private != nil {
		n, err := integerOf(private)
		if err != nil {
			return refuseTorrent("whether it is private is no number")
		}
		t.Private = n != 0
	}
	if p.tree = p.info["file tree"]; p.tree == nil {
		return refuseTorrent("it has no file tree")
	}
	if err := p.readEntry("", 0); err != nil {
		return err
	}
	if len(t.Files) == 0 {
		return refuseTorrent("it names no file")
	}
	return nil
}

func integerOf(r *bencodeReader) (int64, error) {
	if r == nil {
		return 0, errBencode
	}
	return r.integer()
}

func textOf(r *bencodeReader) (string, error) {
	if r == nil {
		return "", errBencode
	}
	s, err := r.str()
	return string(s), err
}

// readEntry reads what the file tree has at path: a file, whose only key is empty, or
// a folder.
func (p *torrentParser) readEntry(path string, level int) error {
	var names nameSet
	isFile := false
	err := p.tree.dict(func(key []byte) error {
		switch {
		case isFile:
			return refuseTorrent("%q is a file and a folder", path)
		case len(key) == 0 && path == "":
			return refuseTorrent("it has a file without a name")
		case len(key) == 0:
			isFile = true
			return p.readFile(path)
		case level == maxPathDepth:
			return refuseTorrent("%q has more than %d levels", path, maxPathDepth)
		}
		name, err := CleanName(string(key))
		if err != nil {
			return refuseTorrent("file %w", err)
		}
		if names == nil {
			names = make(nameSet)
		}
		if other, meets := names.add(name); meets {
			return refuseTorrent("%q and %q in the folder %q are one file where upper and lower case are not told apart", other, name, path)
		}
		inner := joinPath(path, name)
		if p.paths += len(inner); p.paths > maxTorrentPaths {
			return refuseTorrent("its paths are longer than %d MiB together", maxTorrentPaths>>20)
		}
		return p.readEntry(inner, level+1)
	})
	if err == nil && !isFile && len(names) == 0 && path != "" {
		p.torrent.Folders = append(p.torrent.Folders, path)
		err = p.checkCount()
	}
	return err
}

func joinPath(folder, name string) string {
	if folder == "" {
		return name
	}
	return folder + "/" + name
}

func (p *torrentParser) checkCount() error {
	if len(p.torrent.Files)+len(p.torrent.Folders) > MaxTorrentFiles {
		return refuseTorrent("it has more than %d files", MaxTorrentFiles)
	}
	return nil
}

// readFile reads the properties of a file.
func (p *torrentParser) readFile(path string) error {
	t := p.torrent
	properties, err := p.tree.fields("attr", "length", "pieces root", "symlink path")
	if err != nil {
		return err
	}
	attr, _ := textOf(properties["attr"])
	if properties["symlink path"] != nil || strings.ContainsAny(attr, "lp") {
		return refuseTorrent("%q is a link or padding, and no file", path)
	}
	f := TorrentFile{Path: path}
	f.Size, err = integerOf(properties["length"])
	if err != nil || f.Size < 0 || f.Size > piece.MaxSize-t.Size {
		return refuseTorrent("the length of %q is no number of bytes with which all files are at most %d", path, int64(piece.MaxSize))
	}
	t.Size += f.Size
	root, err := textOf(properties["pieces root"])
	switch {
	case f.Size == 0 && root == "":
	case err != nil || f.Size == 0 || len(root) != len(f.Root):
		return refuseTorrent("%q has not the one pieces root of %d bytes that a file of its length has", path, len(f.Root))
	}
	copy(f.Root[:], root)
	t.Files = append(t.Files, f)
	return p.checkCount()
}

// readLayers gives each file the digests of its pieces, and compares them with its
// root.
func (p *torrentParser) readLayers(r *bencodeReader) error {
	t := p.torrent
	layers := make(map[piece.Digest][]byte)
	if r != nil {
		err := r.dict(func(key []byte) error {
			layer, err := r.str()
			if err != nil || len(key) != len(piece.Digest{}) {
				return refuseTorrent("its piece layers are not lists of digests by roots")
			}
			layers[piece.Digest(key)] = layer
			return nil
		})
		if err != nil {
			return err
		}
	}
	// All lengths are compared before anything is allocated for the digests: so many
	// are there, and not only declared.
	count, used := 0, make(map[piece.Digest]bool)
	for i, f := range t.Files {
		if err := t.Layout(i).Validate(); err != nil {
			return refuseTorrent("%q: %w", f.Path, err)
		}
		n := t.Layout(i).Count()
		if count += n; count > piece.MaxCount {
			return refuseTorrent("it has more than %d pieces", piece.MaxCount)
		}
		if n < 2 {
			continue
		}
		if used[f.Root] = true; len(layers[f.Root]) != n*len(piece.Digest{}) {
			return refuseTorrent("%q has %d pieces, and its piece layer is missing or of another length", f.Path, n)
		}
	}
	if len(used) != len(layers) {
		return refuseTorrent("it has piece layers that belong to no file")
	}
	all := make([]piece.Digest, 0, count)
	for i := range t.Files {
		f, l, start := &t.Files[i], t.Layout(i), len(all)
		switch n := l.Count(); n {
		case 0:
			continue
		case 1:
			all = append(all, f.Root)
		default:
			for layer := layers[f.Root]; len(layer) > 0; layer = layer[len(piece.Digest{}):] {
				all = append(all, piece.Digest(layer[:len(piece.Digest{})]))
			}
		}
		if f.Pieces = all[start:len(all):len(all)]; l.Root(f.Pieces) != f.Root {
			return refuseTorrent("the piece layer of %q does not match its pieces root", f.Path)
		}
	}
	return nil
}

// readVersion1 reads what a hybrid torrent says besides, which must be the same, and
// whether there is a folder.
//
// A file tree of one file at its top is that of a single file if the torrent has its name
// (BEP 52), else that of a folder with one file in it, as version 1 says aloud. Some
// programs, libtorrent among them, take both for a single file: see alone.
func (p *torrentParser) readVersion1() error {
	t := p.torrent
	single := t.isOneFile()
	pieces, files, length := p.info["pieces"], p.info["files"], p.info["length"]
	t.Hybrid = pieces != nil
	if !t.Hybrid && files == nil && length == nil {
		t.Folder = !single || t.Name != t.Files[0].Path
		return nil
	}
	var end int64
	switch {
	case pieces == nil || (files == nil) == (length == nil):
		return refuseTorrent("it has parts of version 1 and not all that belong together")
	case files != nil:
		var err error
		if end, err = p.readVersion1Files(files); err != nil {
			return err
		}
		t.Folder = true
	default:
		n, err := length.integer()
		if err != nil || !single || n != t.Files[0].Size || t.Name != t.Files[0].Path {
			return refuseTorrent("its single file is another in version 1 than in version 2")
		}
		end = n
	}
	sums, err := pieces.str()
	if want := int64((piece.Layout{Size: end, PieceLength: t.PieceLength}).Count()); err != nil || int64(len(sums)) != want*sha1.Size {
		return refuseTorrent("it has not the %d hashes that its pieces have in version 1", want)
	}
	return nil
}

// isOneFile reports whether the file tree has one file at its top and nothing else.
func (t *Torrent) isOneFile() bool {
	return len(t.Files) == 1 && len(t.Folders) == 0 && !strings.Contains(t.Files[0].Path, "/")
}

// alone reports whether the torrent is one of a single file for programs that look only at
// how many files there are. What web seeds are of goes by that.
func (t *Torrent) alone() bool { return !t.Folder || !t.Hybrid && t.isOneFile() }

// readVersion1Files compares version 1's list with the files: the same in the same
// order, each that is not empty at the start of a piece, thanks to padding. It returns
// where the last one ends.
func (p *torrentParser) readVersion1Files(r *bencodeReader) (end int64, err error) {
	t := p.torrent
	next, padding := 0, int64(0) // padding since the last file that is not empty
	err = r.list(func() error {
		fields, err := r.fields("attr", "length", "path")
		if err != nil {
			return refuseTorrent("its list of files of version 1 is none")
		}
		length, err := integerOf(fields["length"])
		if err != nil || length < 0 || length > piece.MaxSize {
			return refuseTorrent("a length in version 1 is no number of bytes")
		}
		if attr, _ := textOf(fields["attr"]); strings.Contains(attr, "p") {
			if padding += length; padding >= t.PieceLength || length >= t.PieceLength {
				return refuseTorrent("its padding in version 1 is a piece or more")
			}
			return nil
		}
		if next == len(t.Files) {
			return refuseTorrent("it has more files in version 1 than in version 2")
		}
		f := &t.Files[next]
		next++
		if length != f.Size || fields["path"] == nil || !samePath(fields["path"], f.Path) {
			return refuseTorrent("%q is another file in version 1, or not at the same place", f.Path)
		}
		if length == 0 {
			return nil
		}
		if end += padding; end%t.PieceLength != 0 {
			return refuseTorrent("%q does not start with a piece in version 1", f.Path)
		}
		end, padding = end+length, 0
		return nil
	})
	switch {
	case err != nil:
		return 0, err
	case next < len(t.Files):
		return 0, refuseTorrent("%q is not there in version 1", t.Files[next].Path)
	}
	if end += padding; padding > 0 && end%t.PieceLength != 0 {
		return 0, refuseTorrent("its padding in version 1 does not end with a piece")
	}
	return end, nil
}

// samePath reports whether a list holds the elements of path.
func samePath(r *bencodeReader, path string) bool {
	more := true
	err := r.list(func() error {
		element, err := r.str()
		var want string
		if want, path, _ = strings.Cut(path, "/"); err == nil && (!more || string(element) != want) {
			err = errBencode
		}
		more = path != ""
		return err
	})
	return err == nil && !more
}

// readWebSeeds reads a string or a list of them. Addresses of other schemes are none.
func (p *torrentParser) readWebSeeds(r *bencodeReader) error {
	if r == nil {
		return nil
	}
	one := func() error {
		s, err := r.str()
		switch {
		case err != nil:
			return refuseTorrent("its web seeds are no addresses")
		case len(s) > maxTorrentText || len(p.torrent.WebSeeds) == maxTorrentURLs:
			return refuseTorrent("its web seeds are more than %d or longer than %d bytes", maxTorrentURLs, maxTorrentText)
		}
		u, err := url.Parse(string(s))
		if err != nil {
			// Not quoted: it may hold a password.
			return refuseTorrent("an address in it cannot be read as a URL")
		}
		if (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" {
			p.torrent.WebSeeds = append(p.torrent.WebSeeds, string(s))
		}
		return nil
	}
	if r.peek() == 'l' {
		return r.list(one)
	}
	return one()
}
