package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dragonload/internal/piece"

	"pgregory.net/rapid"
)

// TestFile_recoversFromAnyHistory lets rapid draw histories of writes, forgets, orderly
// closes, kills and damage. What is recovered must always be a subset of what was
// written, every held piece must hash right, and the file must be right in the end.
func TestFile_recoversFromAnyHistory(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		b := newBed(t, rapid.IntRange(1, 40<<16).Draw(r, "size"))
		defer func() { b.journal.Close() }()
		b.journal.batchBytes, b.journal.batchDelay = 1, 0
		count := b.layout.Count()
		written, f := piece.NewBitfield(count), b.begun()
		ever := piece.NewBitfield(count) // a kill may bring back what was forgotten just before
		index := rapid.Custom(func(r *rapid.T) piece.Index { return piece.Index(rapid.IntRange(0, count-1).Draw(r, "piece")) })
		reopen := func(killed, damaged bool) {
			o := b.options()
			if _, known, err := b.journal.Record(b.target()); !known && err == nil && damaged {
				o.Restart = true // a partial file that nothing knows is not touched unasked
			}
			f = b.openWith(o)
			left, ok := f.Resumed()
			if !ok {
				left.Have = piece.NewBitfield(count)
			}
			for i, ok := left.Have.Next(0); ok; i, ok = left.Have.Next(i + 1) {
				if !ever.Has(i) || left.Digests[i] != b.digest(i) {
					r.Fatalf("recovered piece %d, written: %v", i, written.Has(i))
				}
			}
			if !killed && left.Have.Count() != written.Count() {
				r.Fatalf("an orderly close kept %d of %d pieces", left.Have.Count(), written.Count())
			}
			written = left.Have.Clone()
			if err := f.Begin(b.pin, 0, false); err != nil {
				r.Fatal(err)
			}
		}
		steps := rapid.IntRange(1, 30).Draw(r, "steps")
		for range steps {
			switch rapid.SampledFrom([]string{"write", "write", "write", "write", "forget", "close", "kill", "kill and damage"}).Draw(r, "step") {
			case "write":
				i := index.Draw(r, "write")
				b.write(f, i)
				written.Set(i)
				ever.Set(i)
			case "forget":
				i := index.Draw(r, "forget")
				if err := f.Forget(i); err != nil {
					r.Fatal(err)
				}
				written.Unset(i)
			case "close":
				if err := f.Close(); err != nil {
					r.Fatal(err)
				}
				reopen(false, false)
			case "kill":
				b.crash(f)
				b.journal.batchBytes, b.journal.batchDelay = 1, 0
				reopen(true, false)
			case "kill and damage":
				b.crash(f)
				b.journal.batchBytes, b.journal.batchDelay = 1, 0
				part := b.read(b.part())
				if len(part) > 0 {
					part[rapid.IntRange(0, len(part)-1).Draw(r, "at")] ^= 1
					b.put(b.part(), part[:rapid.IntRange(0, len(part)).Draw(r, "cut")])
				}
				reopen(true, true)
			}
		}
		for i, ok := written.Next(0); ok; i, ok = written.Next(i + 1) {
			if _, err := f.ReadPiece(i, nil); err != nil {
				r.Fatal(err)
			}
		}
		b.write(f, b.all()...)
		b.finish(f)
		if err := errors.Join(f.Close(), os.Remove(b.target())); err != nil {
			r.Fatal(err)
		}
	})
}

// flaky is a handle that fails when told to.
type flaky struct {
	Handle
	*faults
}

type faults struct {
	full      atomic.Bool  // writes find no room
	badSyncs  atomic.Int32 // so many syncs fail from now on
	dropped   atomic.Bool  // and the data of piece 1 was lost in the first
	unread    atomic.Int32 // so many reads fail from now on
	syncs     atomic.Int32
	hang      atomic.Bool   // the next sync waits
	entered   chan struct{} // closed when it has begun
	mayFinish chan struct{} // what it waits for
}

type flakyDisk struct {
	Disk
	*faults
}

func (d flakyDisk) Open(path string, write bool) (Handle, error) {
	h, err := d.Disk.Open(path, write)
	if err != nil {
		return nil, err
	}
	return flaky{h, d.faults}, nil
}

func (d flakyDisk) Create(path string) (Handle, error) {
	h, err := d.Disk.Create(path)
	if err != nil {
		return nil, err
	}
	return flaky{h, d.faults}, nil
}

func (h flaky) WriteAt(p []byte, off int64) (int, error) {
	if h.full.Load() {
		return 0, &fs.PathError{Op: "write", Path: "part", Err: syscall.ENOSPC}
	}
	return h.Handle.WriteAt(p, off)
}

func (h flaky) ReadAt(p []byte, off int64) (int, error) {
	if h.unread.Add(-1) >= 0 {
		return 0, &fs.PathError{Op: "read", Path: "part", Err: syscall.EIO}
	}
	return h.Handle.ReadAt(p, off)
}

func (h flaky) Datasync() error {
	h.syncs.Add(1)
	if h.hang.CompareAndSwap(true, false) {
		close(h.entered)
		<-h.mayFinish
	}
	if h.badSyncs.Add(-1) >= 0 {
		if h.dropped.CompareAndSwap(true, false) {
			if _, err := h.Handle.WriteAt(make([]byte, 100), 64<<10); err != nil {
				return err
			}
		}
		return &fs.PathError{Op: "sync", Path: "part", Err: syscall.EIO}
	}
	return h.Handle.Datasync()
}

func (b *bed) flaky() *faults {
	fl := &faults{}
	b.journal.disk = flakyDisk{OS, fl}
	return fl
}

func TestWrite_toAFullDiskCanBeTriedAgain(t *testing.T) {
	t.Parallel()
	b := newBed(t, 300_000)
	fl := b.flaky()
	f := b.begun()
	b.write(f, 0)
	fl.full.Store(true)
	var full *DiskFullError
	err := f.Write(1, b.bytes(1), b.digest(1), true)
	if !errors.Is(err, ErrDiskFull) || !errors.As(err, &full) || full.Need != 300_000-64<<10 {
		t.Errorf("Write: %v", err)
	}
	if _, err := f.ReadPiece(0, nil); err != nil {
		t.Errorf("what is stored is no longer served: %v", err)
	}
	if _, err := f.ReadPiece(1, nil); !errors.Is(err, ErrNotHeld) {
		t.Errorf("piece 1: %v", err)
	}
	fl.full.Store(false)
	b.write(f, b.all()...)
	b.finish(f)
}

func TestSync_thatFailsOnceChecksWhatWasWritten(t *testing.T) {
	t.Parallel()
	b := newBed(t, 300_000)
	b.journal.batchBytes, b.journal.batchDelay = 3*64<<10, time.Hour
	fl := b.flaky()
	fl.badSyncs.Store(1)
	fl.dropped.Store(true)
	damaged := make(chan piece.Index, 1)
	o := b.options()
	o.Damaged = func(i piece.Index, _ error) { damaged <- i }
	f := b.openWith(o)
	if err := f.Begin(b.pin, 0, false); err != nil {
		t.Fatal(err)
	}
	b.write(f, 0, 1, 2)
	if i := <-damaged; i != 1 {
		t.Errorf("piece %d is said to be lost", i)
	}
	b.recorded(f, 2)
	if rec, _, err := b.journal.Record(b.target()); err != nil || rec.Have.Count() != 2 || rec.Have.Has(1) {
		t.Errorf("the journal claims %d pieces (%v)", rec.Have.Count(), err)
	}
	b.write(f, 1, 3, 4)
	b.finish(f)
}

func TestSync_thatFailsTwiceEndsTheDownload(t *testing.T) {
	t.Parallel()
	b := newBed(t, 300_000).quick()
	fl := b.flaky()
	f := b.begun()
	b.write(f, 0)
	b.recorded(f, 1)
	fl.badSyncs.Store(2)
	b.write(f, 1)
	never := func() bool { return false }
	if err := f.p.await(t.Context(), never); !errors.Is(err, ErrDiskFailing) {
		t.Fatalf("the download's end: %v", err)
	}
	syncs := fl.syncs.Load()
	if err := f.Write(2, b.bytes(2), b.digest(2), true); !errors.Is(err, ErrDiskFailing) {
		t.Errorf("Write: %v", err)
	}
	if err := f.Close(); !errors.Is(err, ErrDiskFailing) {
		t.Errorf("Close: %v", err)
	}
	if fl.syncs.Load() != syncs {
		t.Error("a failing disk was synced again")
	}
	b.journal.disk = OS
	f = b.open()
	if r, _ := f.Resumed(); !r.Unclean || !r.Have.Has(0) || r.Have.Has(1) {
		t.Errorf("resumed %+v", r)
	}
}

func TestWrite_doesNotWaitForASync(t *testing.T) {
	t.Parallel()
	b := newBed(t, 300_000).quick()
	fl := b.flaky()
	fl.entered, fl.mayFinish = make(chan struct{}), make(chan struct{})
	fl.hang.Store(true)
	f := b.begun()
	b.write(f, 0)
	<-fl.entered
	b.write(f, 1, 2, 3) // while the sync hangs
	if rec, ok, err := b.journal.Record(b.target()); ok || err != nil {
		t.Errorf("the journal claims %d pieces before they are synced (%v)", rec.Have.Count(), err)
	}
	close(fl.mayFinish)
	b.write(f, 4)
	b.recorded(f, b.layout.Count())
}

func TestHash_ofAPieceThatCannotBeReadDropsIt(t *testing.T) {
	t.Parallel()
	b := newBed(t, 300_000)
	fl := b.flaky()
	damaged := make(chan piece.Index, 1)
	o := b.options()
	o.Damaged = func(i piece.Index, _ error) { damaged <- i }
	f := b.openWith(o)
	if err := f.Begin(b.pin, 0, false); err != nil {
		t.Fatal(err)
	}
	fl.unread.Store(1)
	b.write(f, 0)
	if i := <-damaged; i != 0 {
		t.Errorf("piece %d is said to be damaged", i)
	}
	b.write(f, b.all()...)
	b.finish(f)

	// The same place fails again and again.
	o.Target = filepath.Join(b.dir, "other")
	f = b.openWith(o)
	if err := f.Begin(b.pin, 0, false); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		fl.unread.Store(1)
		b.write(f, 0)
		<-damaged
	}
	if err := f.Write(1, b.bytes(1), b.digest(1), true); !errors.Is(err, ErrDiskFailing) {
		t.Errorf("Write after three times: %v", err)
	}
}

const victimEnv = "DRAGONLOAD_STORE_VICTIM"

// victim downloads until it is killed: this test binary, run again.
func victim(dir string) {
	die := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	j, err := OpenJournal(filepath.Join(dir, "state", "journal.db"), JournalOptions{BatchBytes: 1 << 20})
	die(err)
	if os.Getenv(victimEnv+"_KIND") == "tree" {
		die(treeVictim(j, dir))
	}
	f, err := j.Open(context.Background(), Options{Target: filepath.Join(dir, "file.iso"), Source: "source"})
	die(err)
	data := randomBytes(8<<20, 1)
	pin := piece.Pin{Size: int64(len(data)), Kind: piece.StrongETag, Validator: `"v1"`}
	die(f.Begin(pin, 0, false))
	layout := pin.Layout()
	for i := range piece.Index(layout.Count()) {
		if i*2 == piece.Index(layout.Count()) {
			die(f.p.await(context.Background(), func() bool { return f.p.durable.Count() >= 16 && len(f.p.stale) == 0 }))
			f.p.halt() // waits until the journal has them
			f.p.start()
		}
		if i*4 == piece.Index(layout.Count())*3 {
			die(killSelf())
		}
		r := layout.Range(i)
		die(f.Write(i, data[r.Start:r.End], layout.Sum(i, data[r.Start:r.End]), true))
	}
}

func killSelf() error {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err == nil {
		select {}
	}
	return err
}

// treeVictim downloads several files until it is killed: some have their names by then,
// some are whole and have not, one is not whole.
func treeVictim(j *Journal, dir string) error {
	g := contentOf(victimFiles)
	g.o.Target = filepath.Join(dir, "tree")
	f, err := j.OpenTree(context.Background(), g.o)
	if err == nil {
		err = f.Begin(g.o.Pin, 0, false)
	}
	for i := piece.Index(0); err == nil; i++ {
		if i == piece.Index(g.o.Layout.Count()/2) {
			err = f.p.await(context.Background(), func() bool { return f.p.durable.Count() == int(i) && len(f.p.stale) == 0 })
			f.p.halt() // waits until the journal has them
			f.p.start()
		}
		if i == piece.Index(g.o.Layout.Count()*3/4) {
			return killSelf()
		}
		if err == nil {
			err = f.Write(i, g.bytes(i), g.o.Digests[i], true)
		}
	}
	return err
}

var victimFiles = []TreeFile{{Path: "a/1", Size: 2 << 20}, {Path: "a/2", Size: 1}, {Path: "b", Size: 3 << 20}, {Path: "c", Size: 3 << 20}}

// Not in parallel, as below.
func TestTree_goesOnAfterKill9(t *testing.T) {
	g := newGrove(t, victimFiles)
	g.journal.Close()
	g.o.Folders = nil
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"="+g.dir, victimEnv+"_KIND=tree")
	out, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	if !errors.As(err, &ended) || len(out) > 0 || runtime.GOOS != "windows" && ended.Exited() {
		t.Fatalf("the victim ended with %v: %s", err, out)
	}
	g.openJournal()
	f := g.open()
	r, ok := f.Resumed()
	if !ok || !r.Unclean || r.Dropped != 0 || r.Have.Count() < g.o.Layout.Count()/2 || r.Have.Count() > g.o.Layout.Count()*3/4 || !g.named(0) || g.named(3) {
		t.Fatalf("resumed %v: unclean %v, %d pieces, %d dropped", ok, r.Unclean, r.Have.Count(), r.Dropped)
	}
	if err := f.Begin(g.o.Pin, 0, false); err != nil {
		t.Fatal(err)
	}
	for _, i := range g.pieces() {
		if !r.Have.Has(i) {
			g.write(f, i)
		}
	}
	done, err := f.Finish(t.Context())
	if err != nil || done.Path != g.o.Target {
		t.Fatal(done.Path, err)
	}
	for k, file := range g.o.Files {
		if got, err := os.ReadFile(filepath.Join(g.o.Target, file.Path)); err != nil || !bytes.Equal(got, g.content(k)) {
			t.Errorf("%s: %v, or other bytes", file.Path, err)
		}
	}
}

// Not in parallel: between fork and exec the child holds the locks of other tests' files.
func TestFile_goesOnAfterKill9(t *testing.T) {
	b := newBed(t, 8<<20)
	b.journal.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"="+b.dir)
	out, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	if !errors.As(err, &ended) || len(out) > 0 || runtime.GOOS != "windows" && ended.Exited() {
		t.Fatalf("the victim ended with %v: %s", err, out)
	}
	b.openJournal()
	f := b.open()
	r, ok := f.Resumed()
	if !ok || !r.Unclean || r.Dropped != 0 || r.Have.Count() == 0 || r.Have.Count() > 96 {
		t.Fatalf("resumed %v: unclean %v, %d pieces, %d dropped", ok, r.Unclean, r.Have.Count(), r.Dropped)
	}
	if err := f.Begin(b.pin, 0, false); err != nil {
		t.Fatal(err)
	}
	for _, i := range b.all() {
		if !r.Have.Has(i) {
			b.write(f, i)
		}
	}
	if done := b.finish(f); !done.Reread {
		t.Error("Finish does not say that bytes were read again")
	}
}
