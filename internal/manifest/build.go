package manifest

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/url"
	"path"
	"runtime"
	"strings"
	"sync"
	"time"

	"dragonload/internal/piece"
)

// ErrFileChanged is wrapped when a file changed while BuildTorrent read it; trying
// again can help.
var ErrFileChanged = errors.New("it changed while it was read")

// BuildOptions say what BuildTorrent makes. Zero values mean the defaults.
type BuildOptions struct {
	Name        string // of the folder or file; the last element of its path
	PieceLength int64  // a power of two from piece.MinLength to piece.MaxLength; by the size
	Hybrid      bool   // for programs that know version 1 alone, too; costs a SHA-1 of all bytes
	Private     bool
	WebSeeds    []string // of http or https, without user-info; those of a folder end with a slash
	CreatedBy   string
	Workers     int // that read and hash at once; as many as there are cores

	// Enter is called with each folder before it is read, as its path in the torrent;
	// the outermost is "".
	Enter func(folder string)
	// Leave is called with each file and folder in a folder; one for which it says why is
	// skipped, and a folder with all that is in it.
	Leave func(path string, info fs.FileInfo) (why string)
	// Known is called with each file before any is hashed. One whose pieces' digests it
	// returns is not read, unless Hybrid.
	Known func(path string, info fs.FileInfo, pieceLength int64) []piece.Digest

	// Progress is called with the bytes that are hashed of all, one call at a time.
	Progress func(done, total int64)
}

// Skipped is something in a folder that is no part of a torrent.
type Skipped struct {
	Path string
	Why  string
}

// BuildTorrent makes the torrent of a file or folder of fsys, whose files must be
// io.ReaderAts. Two builds of the same bytes under the same names have the same info
// hash. Links, what is neither file nor folder, and folders inside that cannot be read are
// skipped and returned. A name
// that CleanName refuses, or two that meet on some system, are an error, for others
// could not hold the files.
//
// A folder with nothing but one file of its own name is not told from that file, unless
// Hybrid: so version 2 has it.
func BuildTorrent(ctx context.Context, fsys fs.FS, name string, o BuildOptions) (*Torrent, []Skipped, error) {
	b := &builder{fsys: fsys, o: o}
	t, err := b.build(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	return t, b.skipped, nil
}

type builder struct {
	fsys    fs.FS
	o       BuildOptions
	files   []*source
	folders []string // that are empty
	skipped []Skipped
	total   int64
	length  int64 // of a piece
	pieces  int
	sums    []byte // SHA-1 of each piece, if hybrid

	mu   sync.Mutex
	done int64 // bytes; guarded by mu
}

// source is a file that is hashed.
type source struct {
	fsys     fs.FS
	at       string // in the file system
	path     string // in the torrent
	info     fs.FileInfo
	size     int64
	modified time.Time
	layout   piece.Layout
	digests  []piece.Digest
	known    bool // the digests are
	first    int  // piece in the torrent

	mu     sync.Mutex
	handle fs.File // guarded by mu; open while some pieces are hashed and some not
	left   int     // pieces; guarded by mu
}

func (b *builder) build(ctx context.Context, name string) (*Torrent, error) {
	if b.o.Name == "" {
		b.o.Name = path.Base(name)
	}
	if _, err := CleanName(b.o.Name); err != nil {
		return nil, err
	}
	info, err := fs.Stat(b.fsys, name)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		err = b.scan(ctx, name, "", 0)
	case info.Mode().IsRegular():
		err = b.add(name, b.o.Name, info)
	default:
		err = fmt.Errorf("%s is neither a file nor a folder", name)
	}
	if err == nil && len(b.files) == 0 {
		err = fmt.Errorf("%s holds no file", named(name))
	}
	if err == nil {
		err = b.cut()
	}
	if err == nil {
		err = b.hashAll(ctx)
	}
	if err != nil {
		return nil, err
	}
	return b.torrent(info.IsDir())
}

// scan finds the files of a folder, in the order of the file tree.
func (b *builder) scan(ctx context.Context, at, in string, level int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.o.Enter != nil {
		b.o.Enter(in)
	}
	entries, err := fs.ReadDir(b.fsys, at)
	switch {
	case err != nil && (level == 0 || errors.Is(err, fs.ErrNotExist)):
		return err
	case err != nil:
		b.skipped = append(b.skipped, Skipped{in, "the folder cannot be read: " + reason(err)})
		return nil
	}
	if len(entries) > 0 && level == maxPathDepth {
		return fmt.Errorf("%s is more than %d folders deep", at, maxPathDepth)
	}
	names := make(nameSet)
	for _, e := range entries {
		from, to := path.Join(at, e.Name()), joinPath(in, e.Name())
		if kind := e.Type(); kind != 0 && !kind.IsDir() {
			why := "it is no file"
			if kind&fs.ModeSymlink != 0 {
				why = "it is a symbolic link"
			}
			b.skipped = append(b.skipped, Skipped{to, why})
			continue
		}
		if left, err := b.leavesFolder(e, to); err != nil || left {
			if err != nil {
				return err
			}
			continue
		}
		if _, err := CleanName(e.Name()); err != nil {
			return fmt.Errorf("%s%w; rename it", inside(at), err)
		}
		if b.o.Hybrid && to == padFolder {
			return fmt.Errorf("%s%q is where programs of version 1 put padding; rename it", inside(at), padFolder)
		}
		if other, meets := names.add(e.Name()); meets {
			return fmt.Errorf("%s%q and %q are one file where upper and lower case are not told apart; rename one", inside(at), other, e.Name())
		}
		if e.IsDir() {
			err = b.scan(ctx, from, to, level+1)
		} else {
			var info fs.FileInfo
			if info, err = e.Info(); err == nil {
				err = b.offer(from, to, info)
			}
		}
		if err != nil {
			return err
		}
	}
	if len(names) == 0 && in != "" {
		b.folders = append(b.folders, in)
	}
	return nil
}

// named is what a file or folder is called in an error; the whole is named by who tells of it.
func named(at string) string {
	if at == "." {
		return "it"
	}
	return at
}

// inside begins an error about something in a folder.
func inside(at string) string {
	if at == "." {
		return ""
	}
	return at + ": "
}

// leavesFolder reports whether e is a folder that is to be left, and notes that.
func (b *builder) leavesFolder(e fs.DirEntry, to string) (bool, error) {
	if !e.IsDir() || b.o.Leave == nil {
		return false, nil
	}
	info, err := e.Info()
	if err != nil {
		return false, err
	}
	why := b.o.Leave(to, info)
	if why != "" {
		b.skipped = append(b.skipped, Skipped{to, why})
	}
	return why != "", nil
}

// reason is an error without the path, which stands beside it.
func reason(err error) string {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err.Error()
	}
	return err.Error()
}

// offer adds a file of a folder, unless it is to be left.
func (b *builder) offer(at, to string, info fs.FileInfo) error {
	if b.o.Leave != nil {
		if why := b.o.Leave(to, info); why != "" {
			b.skipped = append(b.skipped, Skipped{to, why})
			return nil
		}
	}
	return b.add(at, to, info)
}

func (b *builder) add(at, to string, info fs.FileInfo) error {
	if info.Size() > piece.MaxSize-b.total {
		return fmt.Errorf("%s: all files are more than %d bytes", at, int64(piece.MaxSize))
	}
	if len(b.files)+len(b.folders) == MaxTorrentFiles {
		return fmt.Errorf("there are more than %d files", MaxTorrentFiles)
	}
	b.total += info.Size()
	b.files = append(b.files, &source{fsys: b.fsys, at: at, path: to, info: info, size: info.Size(), modified: info.ModTime()})
	return nil
}

// cut chooses the piece length and cuts the files into pieces.
func (b *builder) cut() error {
	if b.length = b.o.PieceLength; b.length == 0 {
		b.length = piece.LengthFor(b.total)
	}
	if b.length < piece.MinLength || b.length > piece.MaxLength || b.length&(b.length-1) != 0 {
		return fmt.Errorf("a piece length of %d is not a power of two from %d to %d", b.length, piece.MinLength, piece.MaxLength)
	}
	for _, f := range b.files {
		f.layout = piece.Layout{Size: f.size, PieceLength: b.length}
		if err := f.layout.Validate(); err != nil {
			return fmt.Errorf("%s: %w", f.at, err)
		}
		f.left, f.first = f.layout.Count(), b.pieces
		if b.o.Known != nil {
			known := b.o.Known(f.path, f.info, b.length)
			if len(known) == f.left && !b.o.Hybrid {
				f.digests, f.known = known, f.left > 0
			}
		}
		if !f.known {
			f.digests = make([]piece.Digest, f.left)
		}
		if b.pieces += f.left; b.pieces > piece.MaxCount {
			return fmt.Errorf("the files have more than %d pieces of %d bytes", piece.MaxCount, b.length)
		}
	}
	if b.o.Hybrid {
		b.sums = make([]byte, b.pieces*sha1.Size)
	}
	return nil
}

// job is a piece that is to be hashed.
type job struct {
	file  *source
	index piece.Index
}

// hashAll hashes all pieces. Reading is part of a worker's job, a few leaves at a
// time, so that memory does not grow with the piece length.
func (b *builder) hashAll(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	workers := b.o.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	jobs := make(chan job)
	var group sync.WaitGroup
	for range min(workers, b.pieces) {
		group.Go(func() {
			buf := make([]byte, 16*piece.LeafSize)
			for j := range jobs {
				if ctx.Err() != nil {
					continue
				}
				if err := b.hash(ctx, j, buf); err != nil {
					stop(fmt.Errorf("read %s: %w", j.file.at, err))
				}
			}
		})
	}
	b.order(ctx, jobs)
	close(jobs)
	group.Wait()
	for _, f := range b.files {
		if f.handle != nil { // only after an error
			_ = f.handle.Close()
		}
	}
	return context.Cause(ctx)
}

func (b *builder) order(ctx context.Context, jobs chan<- job) {
	for _, f := range b.files {
		if f.known {
			b.tell(f.size)
			continue
		}
		for i := range f.layout.Count() {
			select {
			case jobs <- job{f, piece.Index(i)}:
			case <-ctx.Done():
				return
			}
		}
	}
}

// padFolder is where programs that do not know padding put it (BEP 47).
const padFolder = ".pad"

var zeros [piece.LeafSize]byte

// hash reads a piece and hashes it, in both ways at once if hybrid.
func (b *builder) hash(ctx context.Context, j job, buf []byte) error {
	r, err := j.file.open()
	if err != nil {
		return err
	}
	var old hash.Hash
	to := j.file.layout.Hasher(j.index)
	at := j.file.layout.Range(j.index)
	for at.Len() > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := buf[:min(int64(len(buf)), at.Len())]
		if n, err := r.ReadAt(part, at.Start); n < len(part) {
			if err == nil || errors.Is(err, io.EOF) {
				err = ErrFileChanged
			}
			return err
		}
		_, _ = to.Write(part)
		if b.o.Hybrid {
			if old == nil {
				old = sha1.New()
			}
			_, _ = old.Write(part)
		}
		at.Start += int64(len(part))
	}
	j.file.digests[j.index] = to.Sum()
	if b.o.Hybrid {
		number := j.file.first + int(j.index)
		if number < b.pieces-1 {
			for pad := b.length - j.file.layout.Length(j.index); pad > 0; pad -= min(pad, int64(len(zeros))) {
				_, _ = old.Write(zeros[:min(pad, int64(len(zeros)))])
			}
		}
		old.Sum(b.sums[number*sha1.Size : number*sha1.Size : (number+1)*sha1.Size])
	}
	if err := j.file.ended(); err != nil {
		return err
	}
	b.tell(j.file.layout.Length(j.index))
	return nil
}

// tell reports progress, about a thousand times in all.
func (b *builder) tell(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.done
	b.done += n
	step := max(1, b.total/1000)
	if b.o.Progress != nil && (before/step != b.done/step || b.done == b.total) {
		b.o.Progress(b.done, b.total)
	}
}

// open opens the file for its first piece.
func (f *source) open() (io.ReaderAt, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.handle == nil {
		handle, err := f.fsys.Open(f.at)
		if err != nil {
			return nil, err
		}
		f.handle = handle
	}
	r, ok := f.handle.(io.ReaderAt)
	if !ok {
		return nil, errors.New("it cannot be read at any place")
	}
	return r, nil
}

// ended closes the file after its last piece, and looks whether it is still the one
// that was found.
func (f *source) ended() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left--; f.left > 0 {
		return nil
	}
	info, err := f.handle.Stat()
	_ = f.handle.Close()
	f.handle = nil
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Size() != f.size || !info.ModTime().Equal(f.modified):
		return ErrFileChanged
	}
	return nil
}

// torrent puts together what was found, and reads it as it will be read.
func (b *builder) torrent(folder bool) (*Torrent, error) {
	t := &Torrent{
		Name: b.o.Name, Folder: folder, PieceLength: b.length, Folders: b.folders, Private: b.o.Private,
		CreatedBy: b.o.CreatedBy, Hybrid: b.o.Hybrid,
	}
	for _, f := range b.files {
		file := TorrentFile{Path: f.path, Size: f.size, Pieces: f.digests}
		if f.size > 0 {
			file.Root = f.layout.Root(f.digests)
		}
		t.Files = append(t.Files, file)
	}
	for _, seed := range b.o.WebSeeds {
		if u, err := url.Parse(seed); err != nil || u.User != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
			return nil, errors.New("a web seed is no address of http or https, or has a user's name in it")
		}
		if folder && !strings.HasSuffix(seed, "/") {
			return nil, errors.New("the web seed of a folder must end with a slash")
		}
		switch {
		case !folder:
			seed = seedFolder(seed, t.Name)
		case !t.Hybrid && t.isOneFile():
			seed += url.PathEscape(t.Name) + "/" // others do not tell it from a single file
		}
		t.WebSeeds = append(t.WebSeeds, seed)
	}
	t.info = t.encodeInfo(b.sums)
	var out strings.Builder
	if err := t.Write(&out); err != nil {
		return nil, err
	}
	return parseTorrent([]byte(out.String()))
}

// OfFile makes the torrent of one file whose pieces' digests are known already, as
// BuildTorrent does that reads it. It can be had at the web seeds.
func OfFile(name string, l piece.Layout, digests []piece.Digest, createdBy string, webSeeds ...string) (*Torrent, error) {
	if _, err := CleanName(name); err != nil {
		return nil, err
	}
	if err := l.Validate(); err != nil {
		return nil, err
	}
	if l.Files() > 1 || l.Size <= 0 || l.Count() != len(digests) {
		return nil, fmt.Errorf("%d digests are not those of a file of %d bytes", len(digests), l.Size)
	}
	b := &builder{o: BuildOptions{Name: name, CreatedBy: createdBy, WebSeeds: webSeeds}, length: l.PieceLength}
	b.files = []*source{{path: name, size: l.Size, layout: l, digests: digests}}
	return b.torrent(false)
}

// seedFolder returns the address of the folder that a single file's web seed lies in,
// if that and the file's name make the address: BEP 19 has both forms, but libtorrent
// 2.0.8 adds the name to the address of a file of version 2, too, if its last piece is
// a short one.
func seedFolder(seed, name string) string {
	for _, last := range []string{url.PathEscape(name), name} {
		if in, found := strings.CutSuffix(seed, "/"+last); found && !strings.HasSuffix(in, "/") && !strings.ContainsAny(seed, "?#") {
			return in + "/"
		}
	}
	return seed
}

// encodeInfo writes the info dictionary, with the given hashes of version 1 if hybrid.
func (t *Torrent) encodeInfo(sums []byte) []byte {
	info := map[string]any{
		"file tree": t.fileTree(), "meta version": int64(2), "name": t.Name, "piece length": t.PieceLength,
	}
	if t.Private {
		info["private"] = int64(1)
	}
	if t.Hybrid {
		info["pieces"] = sums
		if t.Folder {
			info["files"] = t.version1Files()
		} else {
			info["length"] = t.Files[0].Size
		}
	}
	return appendBencode(nil, info)
}

func (t *Torrent) fileTree() map[string]any {
	top := make(map[string]any)
	folder := func(path string) map[string]any {
		at := top
		for more := path != ""; more; {
			var name string
			name, path, more = strings.Cut(path, "/")
			if at[name] == nil {
				at[name] = make(map[string]any)
			}
			at = at[name].(map[string]any)
		}
		return at
	}
	for _, f := range t.Files {
		properties := map[string]any{"length": f.Size}
		if f.Size > 0 {
			properties["pieces root"] = f.Root[:]
		}
		folder(f.Path)[""] = properties
	}
	for _, path := range t.Folders {
		folder(path)
	}
	return top
}

// version1Files lists the files, each but the last padded to the end of its last
// piece, so that the next starts with a piece (BEP 47).
func (t *Torrent) version1Files() []any {
	var list []any
	var left int64 // bytes of the files that are to come
	for _, f := range t.Files {
		left += f.Size
	}
	for _, f := range t.Files {
		var elements []any
		for element := range strings.SplitSeq(f.Path, "/") {
			elements = append(elements, element)
		}
		list = append(list, map[string]any{"length": f.Size, "path": elements})
		left -= f.Size
		if pad := (t.PieceLength - f.Size%t.PieceLength) % t.PieceLength; pad > 0 && left > 0 {
			list = append(list, map[string]any{"attr": "p", "length": pad, "path": []any{padFolder, fmt.Sprint(pad)}})
		}
	}
	return list
}
