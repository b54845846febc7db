package store

import (
	"bytes"
	"errors"
	"io/fs"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dragonload/internal/piece"
)

// frozen is a disk that has become read-only while files are open for writing, as after an
// error in its own tables.
type frozen struct {
	Disk
	on     atomic.Bool
	writes atomic.Int32 // and syncs, that were refused
}

func (d *frozen) Create(path string) (Handle, error) {
	h, err := d.Disk.Create(path)
	return frozenHandle{h, d}, err
}

type frozenHandle struct {
	Handle
	d *frozen
}

func (h frozenHandle) refuses() error {
	if h.d.on.Load() {
		h.d.writes.Add(1)
		return &fs.PathError{Op: "change", Path: "part", Err: syscall.EROFS}
	}
	return nil
}

func (h frozenHandle) WriteAt(p []byte, off int64) (int, error) {
	if err := h.refuses(); err != nil {
		return 0, err
	}
	return h.Handle.WriteAt(p, off)
}

func (h frozenHandle) Truncate(size int64) error {
	if err := h.refuses(); err != nil {
		return err
	}
	return h.Handle.Truncate(size)
}

func (h frozenHandle) Datasync() error {
	if err := h.refuses(); err != nil {
		return err
	}
	return h.Handle.Datasync()
}

// Row 9: a file system that becomes read-only under a download pauses it, however long, and
// costs nothing of what came.
func TestSync_thatMeetsAReadOnlyDiskLosesNothing(t *testing.T) {
	t.Parallel()
	b := newBed(t, 4*piece.MinLength)
	b.journal.Close()
	disk := &frozen{Disk: OS}
	j, err := OpenJournal(b.journalPath(), JournalOptions{Disk: disk, BatchDelay: time.Millisecond, RetryDelay: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	b.journal = j
	t.Cleanup(func() { j.Close() })
	o := b.options()
	o.Damaged = func(i piece.Index, why error) { t.Errorf("piece %d is lost: %v", i, why) }
	o.Unsure = func(n int, why error) { t.Errorf("%d pieces are doubted: %v", n, why) }
	f := b.openWith(o)
	if err := f.Begin(b.pin, 0, false); err != nil {
		t.Fatal(err)
	}
	b.write(f, 0, 1)
	disk.on.Store(true)
	for f.Ready() == nil {
		runtime.Gosched()
	}
	if err := f.Ready(); !errors.Is(err, ErrReadOnly) || !Passing(err) {
		t.Errorf("it says %v", err)
	}
	for tries := disk.writes.Load(); disk.writes.Load() < tries+3; {
		runtime.Gosched() // it is tried again
	}
	if err := f.Write(2, b.bytes(2), b.digest(2), true); !errors.Is(err, ErrReadOnly) {
		t.Errorf("a write meanwhile: %v", err)
	}
	if got, err := f.ReadPiece(1, nil); err != nil || len(got) != len(b.bytes(1)) {
		t.Errorf("what came is not served: %v", err)
	}
	disk.on.Store(false)
	for f.Ready() != nil {
		runtime.Gosched()
	}
	b.write(f, 2, 3)
	if _, err := f.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.read(b.target()), b.data) {
		t.Error("the final name has wrong bytes")
	}
}
