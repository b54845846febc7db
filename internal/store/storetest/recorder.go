// Package storetest puts disks below the store that tests need: one that records every
// operation, so that each moment at which a process or the power may end can be made
// again, and one whose n-th call fails.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"dragonload/internal/store"
)

// Kind is what an operation does.
type Kind uint8

// The operations. Folder is of File 0; the others name the file by number, so that
// renaming changes nothing of what was written.
const (
	Create Kind = iota
	Write
	Truncate
	Sync
	Rename
	Remove
	SyncFolder
	SyncAll // of all files and folders
	Mkdir
	Mark // changes nothing: what the test has to say about this moment
)

// Op is one operation, complete where it stands in the log.
type Op struct {
	Kind   Kind
	File   int    // number of the file, from 1
	Path   string // relative to the root
	To     string // of Rename
	Offset int64
	Data   []byte
	Size   int64
	Upto   int // of a sync: it covers the operations before this one
	Mark   int
}

// Log is a history: what was there, and what was done.
type Log struct {
	Start Image
	Ops   []Op
}

// Image is the content of a folder: files by their paths relative to it, and folders, whose
// paths end in a slash.
type Image map[string][]byte

// Recorder is a store.Disk below root that does what it is told and records it.
type Recorder struct {
	store.Disk
	root string

	journal sync.Mutex // held while the journal changes, and until that is in the log

	mu      sync.Mutex
	changed *sync.Cond
	log     Log
	names   map[string]int
	files   int
}

// NewRecorder records what is done below root.
func NewRecorder(root string) (*Recorder, error) {
	start, err := Load(root)
	if err != nil {
		return nil, err
	}
	r := &Recorder{Disk: store.OS, root: root, log: Log{Start: start}, names: make(map[string]int)}
	r.changed = sync.NewCond(&r.mu)
	for _, path := range start.paths() {
		r.files++
		r.names[strings.TrimSuffix(path, "/")] = r.files
	}
	return r, nil
}

// Log returns what was recorded so far.
func (r *Recorder) Log() Log {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Log{Start: r.log.Start, Ops: append([]Op(nil), r.log.Ops...)}
}

// Mark puts n into the log, behind what is being done to the journal just then.
func (r *Recorder) Mark(n int) {
	r.journal.Lock()
	defer r.journal.Unlock()
	r.add(Op{Kind: Mark, Mark: n})
}

// Await waits until seen says yes of the operations so far.
func (r *Recorder) Await(ctx context.Context, seen func([]Op) bool) error {
	defer context.AfterFunc(ctx, func() { r.mu.Lock(); r.changed.Broadcast(); r.mu.Unlock() })()
	r.mu.Lock()
	defer r.mu.Unlock()
	for !seen(r.log.Ops) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r.changed.Wait()
	}
	return nil
}

func (r *Recorder) add(ops ...Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, op := range ops {
		switch op.Kind {
		case Create, Mkdir:
			r.files++
			op.File = r.files
			r.names[op.Path] = op.File
		case Rename:
			op.File = r.names[op.Path]
			delete(r.names, op.Path)
			r.names[op.To] = op.File
		case Remove:
			op.File = r.names[op.Path]
			delete(r.names, op.Path)
		}
		r.log.Ops = append(r.log.Ops, op)
	}
	r.changed.Broadcast()
}

func (r *Recorder) next() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.log.Ops)
}

func (r *Recorder) file(path string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.names[path]
}

func (r *Recorder) rel(path string) string {
	if p, err := filepath.Rel(r.root, path); err == nil {
		return p
	}
	return path
}

// Create implements store.Disk.
func (r *Recorder) Create(path string) (store.Handle, error) {
	h, err := r.Disk.Create(path)
	if err != nil {
		return nil, err
	}
	r.add(Op{Kind: Create, Path: r.rel(path)})
	return &recorded{Handle: h, r: r, file: r.file(r.rel(path))}, nil
}

// Open implements store.Disk.
func (r *Recorder) Open(path string, write bool) (store.Handle, error) {
	h, err := r.Disk.Open(path, write)
	if err != nil {
		return nil, err
	}
	return &recorded{Handle: h, r: r, file: r.file(r.rel(path))}, nil
}

// Remove implements store.Disk.
func (r *Recorder) Remove(path string) error {
	err := r.Disk.Remove(path)
	if err == nil {
		r.add(Op{Kind: Remove, Path: r.rel(path)})
	}
	return err
}

// Rename implements store.Disk.
func (r *Recorder) Rename(from, to string) error {
	return r.rename(from, to, r.Disk.Rename)
}

// RenameExclusive implements store.Disk.
func (r *Recorder) RenameExclusive(from, to string) error {
	return r.rename(from, to, r.Disk.RenameExclusive)
}

func (r *Recorder) rename(from, to string, rename func(from, to string) error) error {
	err := rename(from, to)
	if err == nil {
		r.add(Op{Kind: Rename, Path: r.rel(from), To: r.rel(to)})
	}
	return err
}

// SyncFolder implements store.Disk.
func (r *Recorder) SyncFolder(folder string) error {
	upto := r.next()
	err := r.Disk.SyncFolder(folder)
	if err == nil {
		r.add(Op{Kind: SyncFolder, Path: r.rel(folder), Upto: upto})
	}
	return err
}

const page = 4096

// Journal implements store.Disk. The database writes by its own means, so that what it
// did is told from what has changed in its file, and the order from its design: the file
// grows and is synced; pages are written and synced; the meta pages, which are the first
// two and make the others valid, are written and synced.
func (r *Recorder) Journal(path string, change func() error) error {
	r.journal.Lock()
	defer r.journal.Unlock()
	before, had := read(path)
	err := r.Disk.Journal(path, change)
	after, has := read(path)
	name := r.rel(path)
	if !has {
		return err
	}
	if !had {
		r.add(Op{Kind: Create, Path: name})
	}
	file := r.file(name)
	sync := func() { r.add(Op{Kind: Sync, File: file, Upto: r.next()}) }
	if len(before) > 0 && len(after) != len(before) {
		r.add(Op{Kind: Truncate, File: file, Size: int64(len(after))})
		sync()
	}
	write := func(from, to int) (wrote bool) {
		to = min(to, len(after))
		for at := from; at < to; at += page {
			end := min(at+page, to)
			if at < len(before) && end <= len(before) && bytes.Equal(before[at:end], after[at:end]) {
				continue
			}
			r.add(Op{Kind: Write, File: file, Offset: int64(at), Data: after[at:end]})
			wrote = true
		}
		return wrote
	}
	if len(before) == 0 {
		// The first pages are written at once.
		if write(0, len(after)) {
			sync()
		}
		return err
	}
	if write(2*page, len(after)) {
		sync()
	}
	if write(0, 2*page) {
		sync()
	}
	return err
}

func read(path string) ([]byte, bool) {
	data, err := os.ReadFile(path)
	return data, err == nil
}

// recorded is an open file of a Recorder.
type recorded struct {
	store.Handle
	r    *Recorder
	file int
}

func (h *recorded) WriteAt(p []byte, off int64) (int, error) {
	n, err := h.Handle.WriteAt(p, off)
	if n > 0 {
		h.r.add(Op{Kind: Write, File: h.file, Offset: off, Data: bytes.Clone(p[:n])})
	}
	return n, err
}

func (h *recorded) Truncate(size int64) error {
	err := h.Handle.Truncate(size)
	if err == nil {
		h.r.add(Op{Kind: Truncate, File: h.file, Size: size})
	}
	return err
}

func (h *recorded) Datasync() error {
	upto := h.r.next()
	err := h.Handle.Datasync()
	if err == nil {
		h.r.add(Op{Kind: Sync, File: h.file, Upto: upto})
	}
	return err
}

// Load returns the regular files and the folders below root.
func Load(root string) (Image, error) {
	image := make(Image)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && path != root {
			path, err = filepath.Rel(root, path)
			image[path+"/"] = nil
			return err
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		image[rel] = data
		return err
	})
	return image, err
}

// Store makes root, which must be empty, hold the files of the image.
func (i Image) Store(root string) error {
	for path, data := range i {
		full := filepath.Join(root, path)
		if strings.HasSuffix(path, "/") {
			if err := os.MkdirAll(full, 0o700); err != nil {
				return err
			}
			continue
		}
		err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o700), os.WriteFile(full, data, 0o600))
		if err != nil {
			return err
		}
	}
	return nil
}
