package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Finish gives the file its final name. All pieces must have been stored. It waits for
// the hash of the whole file, syncs the data, renames without replacing (with
// Overwrite: replacing), with the mode of the user's umask, syncs the folder and
// replaces the record by what is kept of finished downloads, in this order; from are
// the addresses that the file came from, which are kept too. On an error the File goes
// on as before: the partial file and its record are kept.
//
// Errors: IncompleteError, ErrExists, ErrReplaced, ErrDiskFull, ErrDiskFailing.
func (f *File) Finish(ctx context.Context, from ...string) (Finished, error) {
	f.ops.Lock()
	defer f.ops.Unlock()
	if f.tree != nil {
		return f.finishTree(ctx, from)
	}
	var p *partial
	var done Finished
	for named := false; !named; {
		var err error
		if done, err = f.Sums(ctx); err != nil {
			return Finished{}, fmt.Errorf("finish %s: %w", f.o.Target, err)
		}
		p = f.p
		if p.finished {
			return done, nil
		}
		p.halt()
		switch err = f.publish(ctx, p, done); {
		case err == nil:
			named = true
		case errors.Is(err, errUnsettled):
			p.start() // a piece was lost or forgotten: wait for it, or tell which
		default:
			p.start()
			return Finished{}, fmt.Errorf("finish %s: %w", f.o.Target, err)
		}
	}
	for _, folder := range slices.Compact([]string{filepath.Dir(f.o.Target), filepath.Dir(f.o.Part)}) {
		if err := f.journal.disk.SyncFolder(folder); err != nil {
			return Finished{}, fmt.Errorf("finish %s: sync the folder %s: %w", f.o.Target, folder, err)
		}
	}
	f.journal.unmark(f.o.Target)
	if err := f.journal.settle(f.o.Target, f.keep(done, from)); err != nil {
		f.o.Log.Warn("the journal does not know that a download is finished", "target", f.o.Target, "error", err)
	}
	p.recorded = false
	return done, nil
}

// errUnsettled: pieces have changed since the file was hashed.
var errUnsettled = errors.New("pieces have changed since the file was hashed")

// publish syncs and renames; the workers of p have ended.
func (f *File) publish(ctx context.Context, p *partial, done Finished) error {
	if err := p.placed(); err != nil {
		return err
	}
	if err := p.flush(); err != nil {
		return err
	}
	err := f.exchange(p, func() error { return f.rename(f.o.Part) })
	if !isOtherDisk(err) {
		return err
	}
	// The partial file is on another disk than the target.
	staged := f.o.Target + ".part"
	if err := f.stage(ctx, p, staged, done.SHA256); err != nil {
		return err
	}
	if err := f.exchange(p, func() error { return f.rename(staged) }); err != nil {
		return errors.Join(err, f.journal.disk.Remove(staged))
	}
	return f.journal.disk.Remove(f.o.Part)
}

// exchange closes the partial file, so that an error of closing shows before it has
// its name, renames it, and opens the finished one for reading. If rename fails, the
// partial file is opened again.
func (f *File) exchange(p *partial, rename func() error) error {
	f.life.Lock()
	defer f.life.Unlock()
	if !p.settled() {
		return errUnsettled
	}
	if p.meddled() {
		return errUnsettled
	}
	// The file was private while it was incomplete.
	err := p.data.Chmod(fileMode)
	if e := p.data.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = rename()
	}
	path := f.o.Target
	if err != nil {
		path = f.o.Part
	}
	data, e := f.journal.disk.Open(path, err != nil)
	if e != nil {
		return errors.Join(err, e)
	}
	p.mu.Lock()
	p.data = data
	p.mu.Unlock()
	if err != nil {
		data.Watch()
		_ = data.Chmod(0o600)
		return err
	}
	p.mu.Lock()
	p.finished = true
	p.mu.Unlock()
	return nil
}

// settled reports whether every piece is held, hashed and synced.
func (p *partial) settled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.have.All() && int(p.prefix) == p.layout.Count() && p.unsynced.Count() == 0 && p.trailed == trailNone
}

// rename gives the file at from the final name.
func (f *File) rename(from string) error {
	var err error
	if f.o.Overwrite {
		err = f.journal.disk.Rename(from, f.o.Target)
	} else {
		err = f.journal.disk.RenameExclusive(from, f.o.Target)
	}
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w; what was downloaded is kept in %s", ErrExists, f.o.Part)
	}
	return f.journal.writeError(f.o.Target, 1, err)
}

// renameExclusive renames a file to a name that must be free: in one step where there
// is one, else by a second link, else over an empty file that was made for it.
func renameExclusive(from, to string) error {
	err := renameNew(from, to)
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return renameByLink(from, to)
}

func renameByLink(from, to string) error {
	err := os.Link(from, to)
	switch {
	case err == nil:
		return os.Remove(from)
	case errors.Is(err, fs.ErrExist), isOtherDisk(err):
		return err
	}
	return renameOverEmpty(from, to)
}

func renameOverEmpty(from, to string) error {
	place, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = place.Close()
	if err == nil {
		err = os.Rename(from, to)
	}
	if err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}

// stage copies the partial file to path, on the disk of the target, and compares.
func (f *File) stage(ctx context.Context, p *partial, path string, want [sha256.Size]byte) error {
	disk := f.journal.disk
	if info, err := disk.Lstat(path); err == nil && info.Mode().IsRegular() {
		// Of a copy that was interrupted.
		if err := disk.Remove(path); err != nil {
			return f.journal.createError(path, err)
		}
	}
	if err := f.journal.checkRoom(path, p.layout.Size, 0); err != nil {
		return err
	}
	out, err := disk.Create(path)
	if err != nil {
		return f.journal.createError(path, err)
	}
	sum := sha256.New()
	err = copyAll(ctx, io.MultiWriter(io.NewOffsetWriter(out, 0), sum), io.NewSectionReader(p.data, 0, p.layout.Size))
	if err == nil && !bytes.Equal(sum.Sum(nil), want[:]) {
		err = ErrDamaged
	}
	if err == nil {
		err = out.Chmod(fileMode)
	}
	if err == nil {
		err = out.Datasync()
	}
	if e := out.Close(); err == nil {
		err = e
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("copy to %s: %w", path, f.journal.writeError(path, p.layout.Size, err))
	return errors.Join(err, disk.Remove(path))
}

func copyAll(ctx context.Context, w io.Writer, r io.Reader) error {
	buf := make([]byte, readBuffer)
	for ctx.Err() == nil {
		n, err := r.Read(buf)
		if _, e := w.Write(buf[:n]); e != nil {
			return e
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
	return context.Cause(ctx)
}
