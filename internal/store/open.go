package store

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"dragonload/internal/piece"
)

// Options say what a File is for.
type Options struct {
	Target    string // absolute final path; its folder must exist
	Part      string // absolute path of the partial file; "" means Target + ".part"
	Source    string // names what is downloaded; what was stored for another Source is not continued, but see Moved
	Overwrite bool   // replace a file of the final name at Finish
	Restart   bool   // throw away what an earlier run left, at Begin

	// Moved says that what was stored for another Source is gone on with where Begin names
	// the very version that it is of, by a validator that holds at any address. Begin with
	// another one is ErrOtherSource then, and changes nothing.
	Moved bool

	// Cache says that the File holds some pieces for a while and is never finished:
	// nothing of it is synced, journaled or hashed as a whole, and it need not fit on the
	// disk whole.
	Cache bool
	// Layout, if it is not zero, is that of the content of several files whose pieces a
	// Cache holds. Journal.OpenTree is for those that are wanted.
	Layout piece.Layout

	// Hashes are computed over the whole file besides SHA-256. Their packages must be
	// linked in.
	Hashes []crypto.Hash

	// Damaged, if not nil, is told of each piece that is found to be no longer on disk
	// as it was written, outside of ReadPiece: while the file's hash reads it, or
	// after a failed sync. The piece is not held any more and should be fetched again.
	// Damaged is called from goroutines of the File, and must neither block nor call
	// the File.
	Damaged func(i piece.Index, why error)

	// Unsure, if not nil, is told that the disk failed to keep what was written last:
	// so many pieces are read again, compared, and written once more. As Damaged.
	Unsure func(pieces int, why error)

	Log *slog.Logger // nil: no log
}

func (o *Options) validate() error {
	if o.Part == "" {
		o.Part = o.Target + ".part"
	}
	if !filepath.IsAbs(o.Target) || !filepath.IsAbs(o.Part) || o.Target == o.Part {
		return fmt.Errorf("open %q with partial file %q: paths must be absolute and differ", o.Target, o.Part)
	}
	for _, h := range o.Hashes {
		if !h.Available() {
			return fmt.Errorf("open %s: hash %v is not available", o.Target, h)
		}
	}
	o.Log = logger(o.Log)
	return nil
}

// Resume is what an earlier run left of a download.
type Resume struct {
	Pin         piece.Pin
	Incarnation uint64
	Have        piece.Bitfield
	Digests     []piece.Digest // one for each piece, zero where it is not held; all, of a tree
	Origin      piece.Bitfield // pieces that this member read from the origin itself
	Unclean     bool           // the earlier run did not close; every piece was hashed again
	Dropped     int            // pieces that the journal claimed and that did not match
	Rebuilt     bool           // the journal did not know of it, or not all: the partial file did
	Again       int64          // bytes that were on disk already and are not held, about
	Layout      piece.Layout
	Moved       bool // it is of another Options.Source
}

// Open opens the download to o.Target and looks at what an earlier run left of it.
// After a run that was not closed every piece that it claims is hashed again, on two
// goroutines, which takes as long as reading the partial file; ctx ends that.
//
// Errors: ErrExists, ErrInUse, ErrCannotCreate, ErrReplaced, ErrOtherSource. Nothing on disk has changed until
// Begin.
func (j *Journal) Open(ctx context.Context, o Options) (*File, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if !j.claim(o.Target, o.Part) {
		return nil, fmt.Errorf("%s: %w", o.Target, ErrInUse)
	}
	f := &File{journal: j, o: o}
	err := f.checkTarget()
	if err == nil {
		f.left, err = f.leftover(ctx)
	}
	if err != nil {
		j.release(o.Target, o.Part)
		return nil, err
	}
	return f, nil
}

// checkTarget refuses names that Finish could not give.
func (f *File) checkTarget() error {
	for _, folder := range []string{filepath.Dir(f.o.Target), filepath.Dir(f.o.Part)} {
		info, err := f.journal.disk.Stat(folder)
		switch {
		case err != nil:
			return fmt.Errorf("%w: %w", ErrCannotCreate, err)
		case !info.IsDir():
			return fmt.Errorf("%w: %s is not a folder", ErrCannotCreate, folder)
		}
		f.folder = info // the last is the partial file's
	}
	switch info, err := f.journal.disk.Lstat(f.o.Target); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return f.nameError(err)
	case !f.o.Overwrite:
		return fmt.Errorf("%s: %w; choose another name, or --overwrite it", f.o.Target, ErrExists)
	case info.IsDir():
		return fmt.Errorf("%w: %s is a folder", ErrCannotCreate, f.o.Target)
	}
	return nil
}

// nameError is why there is nothing to be learned of a name.
func (f *File) nameError(err error) error {
	if name := filepath.Base(f.o.Target); errors.Is(err, syscall.ENAMETOOLONG) {
		return fmt.Errorf("%w: the name of the file, %.20s..., is too long: it has %d bytes, and its partial file's name %d, where the system of %s takes 255 mostly; choose a shorter one with -o",
			ErrCannotCreate, name, len(name), len(filepath.Base(f.o.Part)), filepath.Dir(f.o.Part))
	}
	return fmt.Errorf("%w: %w", ErrCannotCreate, err)
}

// leftover is what an earlier run left: its partial file, open, and what of it holds.
type leftover struct {
	data     Handle
	rec      record
	claims   claims
	unclean  bool
	dropped  int
	recorded bool // the journal has something under the target
	rebuilt  bool // from the partial file's trail
	again    int64
	moved    bool // it is of another Source

	// Of a tree.
	part   bool // its part folder is there
	former bool // that is of an earlier version
	anew   bool // what has its name is to be removed first
	found  bool // there is more than the journal knows of

	unread piece.Bitfield // claimed, and not hashed now
}

// leftover finds what can be continued; its data is nil if there is nothing.
func (f *File) leftover(ctx context.Context) (*leftover, error) {
	k, err := f.journal.load(f.o.Target)
	if err != nil {
		return nil, fmt.Errorf("read journal %s: %w", f.journal.path, err)
	}
	none := &leftover{recorded: k.exists}
	info, err := f.journal.disk.Lstat(f.o.Part)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if k.exists && !f.o.Restart {
			f.o.Log.Warn("the partial file is gone; starting over", "part", f.o.Part)
		}
		return none, nil
	case err != nil:
		return nil, f.nameError(err)
	case !info.Mode().IsRegular():
		return nil, notRegular(f.o.Part)
	case f.o.Restart:
		return none, nil
	}
	data, err := f.journal.disk.Open(f.o.Part, true)
	if err != nil {
		return nil, f.journal.createError(f.o.Part, err)
	}
	l := &leftover{data: data, recorded: k.exists, rebuilt: f.rebuild(&k, data)}
	l.rec, l.claims = k.rec, k.claims
	switch {
	case !k.readable && (info.Size() == 0 || f.journal.marked(&f.o)):
		// Nothing was recorded yet.
		data.Close()
		return none, nil
	case !k.readable && f.journal.begun(&f.o),
		k.readable && !k.rec.tree && k.rec.part == f.o.Part && k.rec.source != f.o.Source && !(f.o.Moved && movable(k.rec.pin)):
		data.Close()
		return nil, otherSource(f.o.Part)
	case !k.readable || k.rec.tree || k.rec.part != f.o.Part:
		err = fmt.Errorf("%w: %s is not known to be of this download; pass --restart to begin anew in its place, or name another file", ErrReplaced, f.o.Part)
		data.Close()
		return nil, err
	}
	l.moved = l.rec.source != f.o.Source
	if info, err = data.Stat(); err == nil {
		l.unclean = !l.rec.clean || l.rec.size != info.Size() || l.rec.modified != info.ModTime().UnixNano()
		if l.unclean {
			l.dropped, err = rehash(ctx, data, l.rec.layout, &l.claims, &l.claims.have, l.claims.digests)
			l.again = max(0, min(allocated(info), l.rec.layout.Size)-l.claims.bytes(l.rec.layout))
		}
	}
	if err != nil {
		data.Close()
		return nil, fmt.Errorf("check %s: %w", f.o.Part, err)
	}
	if l.dropped > 0 {
		f.o.Log.Warn("pieces of the partial file did not match and are fetched again", "part", f.o.Part, "pieces", l.dropped)
	}
	return l, nil
}

// movable reports whether pin tells a version of a file at any address: a date is that of
// many files.
func movable(pin piece.Pin) bool {
	return pin.Kind == piece.StrongETag || pin.Kind == piece.ReprDigest
}

func otherSource(part string) error {
	return fmt.Errorf("%s: %w, for the file at this address is not known to be the same; --continue cannot change that: "+
		"pass --restart to begin anew in its place, or name another file with -o", part, ErrOtherSource)
}

// rebuild adds to what the journal knows what the partial file knows of itself, if the
// journal's part is missing or torn. It reports whether there was something.
func (f *File) rebuild(k *known, data Handle) bool {
	if k.readable && (!k.torn || k.rec.tree || k.rec.source != f.o.Source) {
		return false
	}
	said, ok := readTrail(data)
	switch {
	case !ok || said.rec.source != f.o.Source:
		return false
	case !k.readable:
		k.rec, k.claims, k.readable = said.rec, said.claims, true
		k.rec.part = f.o.Part
	case k.rec.pin == said.rec.pin && k.rec.incarnation == said.rec.incarnation && k.rec.layout == said.rec.layout:
		k.claims.add(&said.claims)
	default:
		return false
	}
	f.o.Log.Warn("rebuilding progress from the partial file: the journal does not know it", "part", f.o.Part, "pieces", k.claims.have.Count())
	return true
}

// bytes returns how many bytes the claimed pieces have.
func (c *claims) bytes(layout piece.Layout) int64 {
	n := int64(0)
	for i, ok := c.have.Next(0); ok; i, ok = c.have.Next(i + 1) {
		n += layout.Length(i)
	}
	return n
}

// rehash reads the pieces of which, all of them claimed, and drops those that do not match
// their digest or cannot be read. It returns how many those were.
func rehash(ctx context.Context, data io.ReaderAt, layout piece.Layout, c *claims, which *piece.Bitfield, digests []piece.Digest) (int, error) {
	var (
		work    sync.WaitGroup
		next    atomic.Int64
		mu      sync.Mutex
		dropped []piece.Index // guarded by mu
	)
	count := int64(layout.Count())
	for range min(2, which.Count()) {
		work.Go(func() {
			buf := make([]byte, layout.Longest())
			for ctx.Err() == nil {
				k := next.Add(1) - 1
				if k >= count {
					return
				}
				i := piece.Index(k)
				if !which.Has(i) {
					continue
				}
				if matches(data, layout, i, buf, digests[i]) != nil {
					mu.Lock()
					dropped = append(dropped, i)
					mu.Unlock()
				}
			}
		})
	}
	work.Wait()
	for _, i := range dropped {
		c.have.Unset(i)
		c.origin.Unset(i)
		if c.digests != nil {
			c.digests[i] = piece.Digest{}
		}
	}
	return len(dropped), ctx.Err()
}

// matches reads piece i into buf, which has room for it, and reports ErrDamaged if it
// cannot be read or has not the digest d.
func matches(data io.ReaderAt, layout piece.Layout, i piece.Index, buf []byte, d piece.Digest) error {
	r := layout.Range(i)
	buf = buf[:r.Len()]
	if n, err := data.ReadAt(buf, r.Start); n < len(buf) {
		return fmt.Errorf("piece %d: %w: %w", i, ErrDamaged, err)
	}
	if layout.Sum(i, buf) != d {
		return fmt.Errorf("piece %d: %w", i, ErrDamaged)
	}
	return nil
}
