package storetest

import (
	"io/fs"
	"sync"
	"sync/atomic"

	"dragonload/internal/store"
)

// Faulty is a store.Disk whose n-th call, of those that change something or sync, fails.
type Faulty struct {
	store.Disk
	N     int64 // which call fails, from 1
	Calls int64 // how many there were

	// Fault says how the call fails. Nothing is done by it, but half of a write with
	// Half, and all of a change of the journal with Late.
	Fault      error
	Half, Late bool
	// SyncsOnly counts syncs of files alone. Each that fails drops what was written to
	// its file since the last good one, as systems do, and the next is called good.
	SyncsOnly bool

	mu sync.Mutex
}

func (f *Faulty) fails(sync bool) error {
	if f.SyncsOnly && !sync {
		return nil
	}
	if atomic.AddInt64(&f.Calls, 1) == f.N {
		return f.Fault
	}
	return nil
}

// Hit reports whether a call has failed.
func (f *Faulty) Hit() bool { return atomic.LoadInt64(&f.Calls) >= f.N }

func pathError(op, path string, err error) error {
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// Create implements store.Disk.
func (f *Faulty) Create(path string) (store.Handle, error) {
	if err := f.fails(false); err != nil {
		return nil, pathError("open", path, err)
	}
	h, err := f.Disk.Create(path)
	if err != nil {
		return nil, err
	}
	return &faultyHandle{Handle: h, f: f, path: path}, nil
}

// Open implements store.Disk.
func (f *Faulty) Open(path string, write bool) (store.Handle, error) {
	h, err := f.Disk.Open(path, write)
	if err != nil {
		return nil, err
	}
	return &faultyHandle{Handle: h, f: f, path: path}, nil
}

// Remove implements store.Disk.
func (f *Faulty) Remove(path string) error {
	if err := f.fails(false); err != nil {
		return pathError("remove", path, err)
	}
	return f.Disk.Remove(path)
}

// Rename implements store.Disk.
func (f *Faulty) Rename(from, to string) error {
	if err := f.fails(false); err != nil {
		return pathError("rename", from, err)
	}
	return f.Disk.Rename(from, to)
}

// RenameExclusive implements store.Disk.
func (f *Faulty) RenameExclusive(from, to string) error {
	if err := f.fails(false); err != nil {
		return pathError("rename", from, err)
	}
	return f.Disk.RenameExclusive(from, to)
}

// SyncFolder implements store.Disk.
func (f *Faulty) SyncFolder(folder string) error {
	if err := f.fails(false); err != nil {
		return pathError("sync", folder, err)
	}
	return f.Disk.SyncFolder(folder)
}

// Journal implements store.Disk.
func (f *Faulty) Journal(path string, change func() error) error {
	err := f.fails(false)
	if err == nil {
		return f.Disk.Journal(path, change)
	}
	if f.Late {
		if e := f.Disk.Journal(path, change); e != nil {
			return e
		}
	}
	return pathError("write", path, err)
}

// faultyHandle is an open file of a Faulty.
type faultyHandle struct {
	store.Handle
	f    *Faulty
	path string
	undo []change // since the last good sync; guarded by f.mu
}

type change struct {
	at  int64
	old []byte
}

func (h *faultyHandle) WriteAt(p []byte, off int64) (int, error) {
	if err := h.f.fails(false); err != nil {
		n := 0
		if h.f.Half {
			n, _ = h.Handle.WriteAt(p[:len(p)/2], off)
		}
		return n, pathError("write", h.path, err)
	}
	if h.f.SyncsOnly {
		old := make([]byte, len(p))
		_, _ = h.ReadAt(old, off) // zeros where there was nothing
		h.f.mu.Lock()
		h.undo = append(h.undo, change{off, old})
		h.f.mu.Unlock()
	}
	return h.Handle.WriteAt(p, off)
}

func (h *faultyHandle) Truncate(size int64) error {
	if err := h.f.fails(false); err != nil {
		return pathError("truncate", h.path, err)
	}
	return h.Handle.Truncate(size)
}

func (h *faultyHandle) Datasync() error {
	err := h.f.fails(true)
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	undo := h.undo
	h.undo = nil
	if err == nil {
		return h.Handle.Datasync()
	}
	if h.f.SyncsOnly {
		for k := len(undo) - 1; k >= 0; k-- {
			if _, e := h.Handle.WriteAt(undo[k].old, undo[k].at); e != nil {
				return e
			}
		}
	}
	return pathError("sync", h.path, err)
}
