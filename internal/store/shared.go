package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"dragonload/internal/piece"
)

// ErrChanged: a file is no longer as it was when it was hashed. Nothing more of it is
// served.
var ErrChanged = errors.New("the file has changed since it was hashed")

// Stamp is what tells that a file is as it was, short of reading it.
type Stamp struct {
	Size     int64
	Modified int64 // nanoseconds since 1970
	// Changed is when anything of the file changed last, its names and owners too, and
	// Inode is its number; 0 where the system does not tell.
	Changed int64
	Inode   uint64
}

// StampOf returns the stamp of a file.
func StampOf(info fs.FileInfo) Stamp {
	s := Stamp{Size: info.Size(), Modified: info.ModTime().UnixNano()}
	s.Changed, s.Inode = changeOf(info)
	return s
}

// SharedFile is a file of a Shared content.
type SharedFile struct {
	Path string // below SharedOptions.Root, with slashes
	// Stamp is as it was when it was hashed. As long as all of it is the same the bytes are
	// believed to be so too, unless Changed is 0: then they are hashed again.
	Stamp Stamp
}

// SharedOptions say what a Shared content is.
type SharedOptions struct {
	Disk    Disk   // nil: OS
	Root    string // absolute path of a folder; may be a link
	Files   []SharedFile
	Layout  piece.Layout   // of Files, in their order
	Digests []piece.Digest // of its pieces; not changed

	// Missing are files, by their numbers, that are not there: of a content of which only
	// parts were wanted, say.
	Missing []int

	// Changed, if not nil, is told once of each file that is found to be no longer as it
	// was, with its pieces: they are not held any more. It is called by whoever
	// reads, and must neither block nor call the Shared.
	Changed func(file int, lost piece.Extent, why error)

	Log *slog.Logger // nil: no log
}

// Shared is a content that is read from its own files, wherever its user keeps them:
// nothing is copied and nothing is written. A file that changes ceases to be served.
type Shared struct {
	o        SharedOptions
	branch   *branch
	handles  *cache[int, *sharedHandle]
	life     sync.RWMutex // held for reading while something is read
	closed   bool
	again    time.Duration
	mu       sync.Mutex
	have     piece.Bitfield // guarded by mu
	memory   checks         // guarded by mu
	seen     map[int]Stamp  // of files some of whose pieces are in memory; guarded by mu
	changing map[int]error  // of the files that have changed; guarded by mu
}

// sharedHandle is an open file, as it was when it was opened.
type sharedHandle struct {
	Handle
	stamp Stamp
}

// checks remembers for a while which pieces were compared with their digests.
type checks struct {
	done  piece.Bitfield
	since time.Time
}

func (c *checks) note(i piece.Index, count int, again time.Duration) {
	if now := time.Now(); now.Sub(c.since) >= again {
		c.done, c.since = piece.NewBitfield(count), now
	}
	c.done.Set(i)
}

func (c *checks) has(i piece.Index, again time.Duration) bool {
	return c.done.Has(i) && time.Since(c.since) < again
}

// OpenShared opens a content that is served from where it lies. No file is looked at
// before it is read. Errors: ErrFolderGone, and those of options that contradict each other.
func OpenShared(o SharedOptions) (*Shared, error) {
	if o.Disk == nil {
		o.Disk = OS
	}
	o.Log = logger(o.Log)
	paths, sizes := make([]string, len(o.Files)), make([]int64, len(o.Files))
	for k, f := range o.Files {
		paths[k], sizes[k] = f.Path, f.Stamp.Size
	}
	missing := make(map[int]bool)
	for _, k := range o.Missing {
		if missing[k] = true; k >= 0 && k < len(sizes) {
			_, _, sizes[k] = fileOf(o.Layout, k)
		}
	}
	if err := checkFiles(o.Layout, o.Digests, paths, sizes); err != nil {
		return nil, fmt.Errorf("share %s: %w", o.Root, err)
	}
	top, err := o.Disk.Folder(o.Root)
	if err != nil {
		return nil, fmt.Errorf("share: %w: %w", ErrFolderGone, err)
	}
	s := &Shared{
		o: o, branch: newBranch(top), handles: newCache[int, *sharedHandle](maxHandles, idleFiles), again: checkAgain,
		have: piece.NewBitfield(o.Layout.Count()), seen: make(map[int]Stamp), changing: make(map[int]error),
	}
	for k := range o.Files {
		_, pieces, _ := fileOf(o.Layout, k)
		for i := pieces.First; i < pieces.End() && !missing[k]; i++ {
			s.have.Set(i)
		}
	}
	return s, nil
}

// fileOf returns where file k of a layout lies, its pieces and its size.
func fileOf(l piece.Layout, k int) (piece.Range, piece.Extent, int64) {
	if l.Files() <= k {
		return piece.Range{}, piece.Extent{}, -1
	}
	r, e := l.File(k)
	return r, e, r.Len()
}

// checkFiles refuses files that are not those of the layout.
func checkFiles(l piece.Layout, digests []piece.Digest, paths []string, sizes []int64) error {
	if err := l.Validate(); err != nil {
		return err
	}
	if l.Files() != len(paths) || l.Count() != len(digests) {
		return fmt.Errorf("%d files and %d digests for a content of %d files and %d pieces", len(paths), len(digests), l.Files(), l.Count())
	}
	for k, rel := range paths {
		if _, _, size := fileOf(l, k); size != sizes[k] {
			return fmt.Errorf("file %d has %d bytes, %d in the layout", k, sizes[k], size)
		}
		if err := checkRelative(rel); err != nil {
			return err
		}
	}
	return nil
}

// Layout returns how the content is cut.
func (s *Shared) Layout() piece.Layout { return s.o.Layout }

// Have returns the pieces of the files that have not been found changed.
func (s *Shared) Have() piece.Bitfield {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.have.Clone()
}

// Digest returns that of piece i.
func (s *Shared) Digest(i piece.Index) piece.Digest { return s.o.Digests[i] }

// ReadPiece returns the bytes of piece i, read into buf if it has room for them, else into
// new memory; they have its digest. If they have not, or the file is not as it was, all
// its pieces are lost and the error is ErrChanged. ErrNotHeld if the piece is of a file
// that is not there.
func (s *Shared) ReadPiece(i piece.Index, buf []byte) ([]byte, error) {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return nil, fmt.Errorf("read %s: %w", s.o.Root, fs.ErrClosed)
	}
	if int(i) >= s.o.Layout.Count() {
		return nil, fmt.Errorf("read %s, piece %d: %w", s.o.Root, i, ErrNotHeld)
	}
	k := s.o.Layout.FileOf(i)
	s.mu.Lock()
	held, why := s.have.Has(i), s.changing[k]
	s.mu.Unlock()
	switch {
	case why != nil:
		return nil, why
	case !held:
		return nil, fmt.Errorf("read %s, piece %d: %w", s.o.Root, i, ErrNotHeld)
	}
	if n := s.o.Layout.Length(i); int64(cap(buf)) < n {
		buf = make([]byte, n)
	} else {
		buf = buf[:n]
	}
	if err := s.read(k, i, buf); err != nil {
		return nil, s.change(k, err)
	}
	return buf, nil
}

// read fills buf with piece i of file k and compares it with its digest, unless the file
// is the same before and after as when that was done: a short while ago, or when all of it
// was hashed. Whoever writes moves the time of change before the first byte, so that what
// was read under the same time is what was hashed.
func (s *Shared) read(k int, i piece.Index, buf []byte) error {
	stamp, err := s.look(k)
	if err != nil {
		return err
	}
	it, err := s.handle(k, stamp)
	if err != nil {
		return err
	}
	defer func() { _ = s.handles.give(it) }()
	r, _, _ := fileOf(s.o.Layout, k)
	if n, err := it.value.ReadAt(buf, s.o.Layout.Range(i).Start-r.Start); n < len(buf) {
		return err
	}
	s.mu.Lock()
	known := s.memory.has(i, s.again) && s.seen[k] == stamp
	s.mu.Unlock()
	known = known || stamp.Changed != 0 && stamp == s.o.Files[k].Stamp && it.value.stamp == stamp
	if known {
		if after, err := s.look(k); err == nil && after == stamp {
			return nil
		}
	}
	if s.o.Layout.Sum(i, buf) != s.o.Digests[i] {
		return errors.New("its bytes are others")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[k] != stamp {
		// What was compared was another file, or this one before.
		_, pieces, _ := fileOf(s.o.Layout, k)
		for p := pieces.First; p < pieces.End() && s.memory.done.Len() > 0; p++ {
			s.memory.done.Unset(p)
		}
		s.seen[k] = stamp
	}
	s.memory.note(i, s.o.Layout.Count(), s.again)
	return nil
}

// look returns the present stamp of file k, if size and time are those that it had.
func (s *Shared) look(k int) (Stamp, error) {
	info, err := s.branch.lstat(s.o.Files[k].Path)
	if err != nil {
		return Stamp{}, err
	}
	now, then := StampOf(info), s.o.Files[k].Stamp
	switch {
	case !info.Mode().IsRegular():
		return now, errors.New("it is no file any more")
	case now.Size != then.Size:
		return now, fmt.Errorf("it has %d bytes, and had %d", now.Size, then.Size)
	case now.Modified != then.Modified:
		return now, errors.New("it was written to")
	}
	return now, nil
}

// handle returns file k, opened since it has this stamp.
func (s *Shared) handle(k int, stamp Stamp) (*cached[int, *sharedHandle], error) {
	for again := false; ; again = true {
		it, err := s.handles.take(k, func() (*sharedHandle, error) {
			h, err := s.branch.open(s.o.Files[k].Path, false)
			if err != nil {
				return nil, err
			}
			info, err := h.Stat()
			if err != nil {
				h.Close()
				return nil, err
			}
			return &sharedHandle{h, StampOf(info)}, nil
		})
		if err != nil || it.value.stamp == stamp || again {
			return it, err
		}
		_ = s.handles.drop(k)
		_ = s.handles.give(it)
	}
}

// change notes that file k is not what it was and tells of it, once.
func (s *Shared) change(k int, why error) error {
	err := fmt.Errorf("%s in %s: %w: %w", s.o.Files[k].Path, s.o.Root, ErrChanged, why)
	s.mu.Lock()
	if first := s.changing[k]; first != nil {
		s.mu.Unlock()
		return first
	}
	s.changing[k] = err
	_, pieces, _ := fileOf(s.o.Layout, k)
	for i := pieces.First; i < pieces.End(); i++ {
		s.have.Unset(i)
	}
	delete(s.seen, k)
	s.mu.Unlock()
	_ = s.handles.drop(k)
	s.o.Log.Info("a shared file has changed and is served no more", "root", s.o.Root, "file", s.o.Files[k].Path, "error", why)
	if s.o.Changed != nil {
		s.o.Changed(k, pieces, err)
	}
	return err
}

// Close ends the reading; it waits for who reads.
func (s *Shared) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return errors.Join(s.handles.clear(), s.branch.Close())
}
