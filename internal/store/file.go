package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"dragonload/internal/piece"
)

// File is one download on disk: of one file (Journal.Open) or of a content of several
// (Journal.OpenTree). Its methods may be called concurrently.
type File struct {
	journal *Journal
	o       Options
	tree    *tree       // of several files; else nil
	folder  fs.FileInfo // of the partial file, when Open looked
	left    *leftover   // what Open found; nil once Begin has used it or thrown it away

	// ops lets one of Begin, Finish, Close and Discard run at a time.
	ops sync.Mutex

	// life is held for reading while pieces are read and written, and for writing
	// while what they are read from changes: p, its handle, and whether it is closed.
	life   sync.RWMutex
	p      *partial // nil before Begin
	closed bool
}

var errNotBegun = errors.New("the download has no generation yet")

// Resumed returns what an earlier run left. The caller owns what it returns.
func (f *File) Resumed() (Resume, bool) {
	f.ops.Lock()
	defer f.ops.Unlock()
	l := f.left
	if l == nil || l.data == nil {
		return Resume{}, false
	}
	return Resume{
		Pin: l.rec.pin, Incarnation: l.rec.incarnation,
		Have: l.claims.have.Clone(), Origin: l.claims.origin.Clone(),
		Digests: append([]piece.Digest(nil), l.claims.digests...),
		Unclean: l.unclean, Dropped: l.dropped, Rebuilt: l.rebuilt, Again: l.again,
		Layout: l.rec.layout, Moved: l.moved,
	}, true
}

// Begin fixes which generation the File is of. What an earlier run, or an earlier
// Begin, stored of the same generation is gone on with; with anew, or if it is of
// another generation, it is discarded. Begin again with the same generation and
// without anew does nothing.
//
// The size of the pin must be known. ErrDiskFull is reported before anything on disk
// has changed; other errors: ErrCannotCreate, ErrInUse, ErrOtherSource.
func (f *File) Begin(pin piece.Pin, incarnation uint64, anew bool) error {
	f.ops.Lock()
	defer f.ops.Unlock()
	if err := pin.Validate(); err != nil {
		return fmt.Errorf("begin %s: %w", f.o.Target, err)
	}
	if pin.Size == piece.UnknownSize {
		return fmt.Errorf("begin %s: the size is not known", f.o.Target)
	}
	if f.closed {
		return f.closedError("begin")
	}
	if f.tree != nil {
		return f.beginTree(pin, anew)
	}
	layout, err := f.layoutOf(pin)
	if err != nil {
		return fmt.Errorf("begin %s: %w", f.o.Target, err)
	}
	same := func(r *record) bool { return r.pin == pin && r.incarnation == incarnation && r.layout == layout }
	if f.p != nil && !anew && same(&f.p.rec) {
		return nil
	}
	if l := f.left; f.p == nil && l != nil && l.data != nil && !anew && same(&l.rec) {
		return f.goOn(l)
	}
	if l := f.left; f.p == nil && l != nil && l.moved {
		return otherSource(f.o.Part)
	}
	return f.startOver(record{
		part: f.o.Part, source: f.o.Source, pin: pin, incarnation: incarnation, layout: layout,
	})
}

// layoutOf returns how the one partial file is cut.
func (f *File) layoutOf(pin piece.Pin) (piece.Layout, error) {
	layout := pin.Layout()
	if f.o.Cache && pin.Kind == piece.Manifest && f.o.Layout != (piece.Layout{}) {
		layout = f.o.Layout
		if layout.Size != pin.Size || layout.PieceLength != pin.PieceLength || layout.Count() != int(pin.Pieces) {
			return layout, fmt.Errorf("%v is not of %d pieces", pin, layout.Count())
		}
		return layout, nil
	}
	// Where the pieces of several files end is not in their pin.
	if one := (piece.Layout{Size: pin.Size, PieceLength: layout.PieceLength}); one != layout {
		return layout, fmt.Errorf("%v is of several files", pin)
	}
	return layout, nil
}

// goOn makes what an earlier run left the present partial file.
func (f *File) goOn(l *leftover) error {
	info, err := l.data.Stat()
	if err != nil {
		return fmt.Errorf("begin %s: %w", f.o.Part, err)
	}
	p := newPartial(f.journal, &f.o, f.folder, l.rec, l.data)
	p.adopt(l)
	// A file system that compresses allocates less than it has taken in.
	stored := max(allocated(info), l.rec.layout.Size-p.missingBytes())
	if err := f.journal.checkRoom(f.o.Part, l.rec.layout.Size, stored); err != nil {
		return err
	}
	p.rec.source = f.o.Source
	return f.takeUp(p, p.rec.clean || l.moved)
}

// takeUp makes p the present partial file. From here on a stop without Close is not a
// clean one, which the journal is told where it says anything else.
func (f *File) takeUp(p *partial, tell bool) error {
	if tell {
		p.rec.clean = false
		if err := f.journal.save(f.o.Target, false, &p.rec, nil); err != nil {
			return err
		}
	}
	f.left = nil
	f.install(p)
	return nil
}

// startOver discards what there is and makes a new partial file.
func (f *File) startOver(rec record) error {
	var gone int64 // bytes of the disk that come free
	info, err := f.journal.disk.Lstat(f.o.Part)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return notRegular(f.o.Part)
	case err == nil:
		gone = allocated(info)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", ErrCannotCreate, err)
	}
	if !f.o.Cache {
		if err := f.journal.checkRoom(f.o.Part, rec.layout.Size, gone); err != nil {
			return err
		}
	}

	recorded := false
	switch {
	case f.p != nil:
		f.p.halt()
		recorded = f.p.recorded
		f.install(nil)
	case f.left != nil:
		if f.left.data != nil {
			f.left.data.Close()
		}
		recorded = f.left.recorded
		f.left = nil
	}
	// The record goes first: it must never claim pieces of a file that is not theirs.
	if recorded {
		if err := f.journal.remove(f.o.Target); err != nil {
			return err
		}
	}
	if info != nil {
		if err := f.removePart(); err != nil {
			return err
		}
	}
	if !f.o.Cache {
		if err := f.journal.mark(&f.o); err != nil {
			return f.journal.createError(f.journal.path, err)
		}
	}
	data, err := f.journal.disk.Create(f.o.Part)
	if err != nil {
		return f.journal.createError(f.o.Part, err)
	}
	f.install(newPartial(f.journal, &f.o, f.folder, rec, data))
	return nil
}

// removePart removes the partial file, unless another process fills it or it is no
// regular file.
func (f *File) removePart() error {
	old, err := f.journal.disk.Open(f.o.Part, true)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return f.journal.createError(f.o.Part, err)
	}
	// Windows removes nothing that is open; elsewhere the lock goes with the handle.
	old.Close()
	if err := f.journal.disk.Remove(f.o.Part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f.journal.createError(f.o.Part, err)
	}
	return nil
}

// install makes p the present partial file and closes the one before, whose workers
// have ended.
func (f *File) install(p *partial) {
	f.life.Lock()
	old := f.p
	f.p = p
	f.life.Unlock()
	if old != nil {
		old.end()
		old.data.Close()
	}
	if p != nil {
		p.start()
	}
}

// Layout returns how the present generation is cut; the zero Layout before Begin.
func (f *File) Layout() piece.Layout {
	f.life.RLock()
	defer f.life.RUnlock()
	if f.p == nil {
		return piece.Layout{}
	}
	return f.p.layout
}

// Write stores piece i, whose bytes the caller has checked against d; fromOrigin says
// that this member read them from the origin itself. The piece is held when Write
// returns. data is not kept. Calls for different pieces run side by side; of calls
// for the same piece one writes and the others wait for it.
//
// ErrDiskFull leaves the piece unstored and the File usable; ErrDiskFailing is final.
func (f *File) Write(i piece.Index, data []byte, d piece.Digest, fromOrigin bool) error {
	f.life.RLock()
	defer f.life.RUnlock()
	p, err := f.present("write")
	if err != nil {
		return err
	}
	return p.write(i, data, d, fromOrigin)
}

// present returns the partial file; f.life must be held.
func (f *File) present(op string) (*partial, error) {
	switch {
	case f.closed:
		return nil, f.closedError(op)
	case f.p == nil:
		return nil, fmt.Errorf("%s %s: %w", op, f.o.Part, errNotBegun)
	}
	return f.p, nil
}

func (f *File) closedError(op string) error {
	return fmt.Errorf("%s %s: %w", op, f.o.Target, os.ErrClosed)
}

// ReadAt reads bytes of stored pieces, before and after Finish; it is an io.ReaderAt.
// ErrNotHeld if one of the bytes is in a piece that is not stored. Nothing is checked
// against digests.
func (f *File) ReadAt(b []byte, off int64) (int, error) {
	f.life.RLock()
	defer f.life.RUnlock()
	p, err := f.present("read")
	if err != nil {
		return 0, err
	}
	return p.readAt(b, off)
}

// ReadPiece returns the bytes of piece i, read into buf if it has room for them, else
// into new memory. They are checked against the piece's digest: ErrDamaged if they do
// not match or cannot be read. ErrNotHeld if the piece is not stored.
func (f *File) ReadPiece(i piece.Index, buf []byte) ([]byte, error) {
	f.life.RLock()
	defer f.life.RUnlock()
	p, err := f.present("read")
	if err != nil {
		return nil, err
	}
	d, ok := p.digest(i)
	if !ok {
		return nil, fmt.Errorf("read %s, piece %d: %w", f.o.Target, i, ErrNotHeld)
	}
	if n := p.layout.Length(i); int64(cap(buf)) < n {
		buf = make([]byte, n)
	} else {
		buf = buf[:n]
	}
	if p.wasChecked(i) {
		if n, err := p.data.ReadAt(buf, p.layout.Range(i).Start); n < len(buf) {
			return nil, fmt.Errorf("read %s: piece %d: %w: %w", f.o.Target, i, ErrDamaged, err)
		}
		return buf, nil
	}
	if err := matches(p.data, p.layout, i, buf, d); err != nil {
		return nil, fmt.Errorf("read %s: %w", f.o.Target, err)
	}
	p.mu.Lock()
	p.noteChecked(i)
	p.mu.Unlock()
	return buf, nil
}

// Digests returns the digests of all pieces, zero of those that are not stored.
func (f *File) Digests() []piece.Digest {
	f.life.RLock()
	defer f.life.RUnlock()
	if f.p == nil {
		return nil
	}
	digests := make([]piece.Digest, f.p.layout.Count())
	for i := range digests {
		digests[i], _ = f.p.digest(piece.Index(i))
	}
	return digests
}

// Forget drops a piece: it is not held any more, and is not claimed after a restart.
func (f *File) Forget(i piece.Index) error {
	f.life.RLock()
	defer f.life.RUnlock()
	p, err := f.present("forget a piece of")
	if err != nil {
		return err
	}
	p.forget(i)
	return nil
}

// Copy writes the file to w in order, each piece as soon as all before it are stored,
// and returns when all are written, ctx ends, w fails or the File is closed. It does
// not interrupt a w that blocks.
func (f *File) Copy(ctx context.Context, w io.Writer) error {
	f.life.RLock()
	p, err := f.present("copy")
	f.life.RUnlock()
	if err != nil {
		return err
	}
	buf := make([]byte, min(readBuffer, max(p.layout.Size, 1)))
	for i := range piece.Index(p.layout.Count()) {
		if err := p.await(ctx, func() bool { return p.have.Has(i) }); err != nil {
			return fmt.Errorf("copy %s: %w", f.o.Target, err)
		}
		for r := p.layout.Range(i); r.Start < r.End; {
			chunk := buf[:min(int64(len(buf)), r.Len())]
			if err := f.readFrom(p, chunk, r.Start); err != nil {
				return fmt.Errorf("copy %s: %w", f.o.Target, err)
			}
			if _, err := w.Write(chunk); err != nil {
				return fmt.Errorf("copy %s: %w", f.o.Target, err)
			}
			r.Start += int64(len(chunk))
		}
	}
	return nil
}

// readFrom fills b from p, if that is still the present partial file.
func (f *File) readFrom(p *partial, b []byte, off int64) error {
	f.life.RLock()
	defer f.life.RUnlock()
	if f.closed || f.p != p {
		return os.ErrClosed
	}
	_, err := p.readAt(b, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return err
}

// Close ends the work on the download and keeps what is stored: data and journal are
// synced and the record is marked clean. Without a single piece there is nothing to
// keep, and the partial file is removed. After Finish, Close only ends reading. It
// waits for a Finish that is under way. A second Close does nothing.
func (f *File) Close() error {
	f.ops.Lock()
	defer f.ops.Unlock()
	p, ok := f.shut()
	if !ok || p == nil {
		return nil
	}
	defer f.journal.release(f.o.Target, f.o.Part)
	if p.finished {
		return p.data.Close()
	}
	if p.empty() && (p.tree == nil || !p.tree.anyNamed()) {
		return f.drop(p)
	}
	err := p.flush()
	if err == nil {
		err = p.record(true)
	}
	if e := p.data.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("close %s: %w", f.o.Part, err)
	}
	return nil
}

// Discard ends the work on the download and removes the partial file and its record.
// After Finish it is Close: the finished file stays.
func (f *File) Discard() error {
	f.ops.Lock()
	defer f.ops.Unlock()
	left := f.left
	if f.tree != nil && f.p == nil && !f.closed {
		return f.discardTree()
	}
	p, ok := f.shut()
	if !ok {
		return nil
	}
	defer f.journal.release(f.o.Target, f.o.Part)
	switch {
	case p != nil && p.finished:
		return p.data.Close()
	case p != nil:
		return f.drop(p)
	case left.data == nil:
		return nil
	}
	if err := f.journal.remove(f.o.Target); err != nil {
		return err
	}
	return f.removePart()
}

// drop removes the partial file and its record; its workers have ended.
func (f *File) drop(p *partial) error {
	var err error
	f.journal.unmark(f.o.Target)
	if p.recorded {
		err = f.journal.remove(f.o.Target)
	}
	same := p.samePart()
	if same && p.tree != nil {
		err = errors.Join(err, p.tree.remove(true))
	}
	p.data.Close()
	if same && p.tree == nil {
		if e := f.journal.disk.Remove(f.o.Part); err == nil {
			err = e
		}
	}
	if err != nil {
		return fmt.Errorf("discard %s: %w", f.o.Part, err)
	}
	return nil
}

// shut lets nobody in any more and waits for who is in, and for the workers. It
// reports false if that was done before. If nothing was begun, everything is released
// and p is nil.
func (f *File) shut() (p *partial, ok bool) {
	if f.closed {
		return nil, false
	}
	if f.p != nil {
		f.p.halt()
	}
	f.life.Lock()
	f.closed = true
	p = f.p
	f.life.Unlock()
	if p != nil {
		p.end()
		return p, true
	}
	switch {
	case f.tree != nil:
		_ = f.tree.Close()
	case f.left != nil && f.left.data != nil:
		f.left.data.Close()
	}
	f.left = nil
	f.journal.release(f.o.Target, f.o.Part)
	return nil, true
}

// Ready reports whether pieces can be stored: nil, or why not. While it is Passing,
// nothing is lost by asking again later. A disk that was full must have some room to
// spare.
func (f *File) Ready() error {
	f.life.RLock()
	defer f.life.RUnlock()
	p, err := f.present("look at")
	if err != nil {
		return err
	}
	p.mu.Lock()
	err = p.err
	if err == nil {
		err = p.stuck
	}
	missing := p.missingBytes()
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if free, ok := f.journal.disk.Free(filepath.Dir(f.o.Part)); ok && free < min(missing, roomToSpare) {
		return f.journal.diskFull(f.o.Part, missing)
	}
	return p.placed()
}

// roomToSpare is how much must be free before a disk that was full is written to again,
// if so much is missing.
const roomToSpare = 64 << 20
