package store

import (
	"bytes"
	"context"
	"crypto"
	_ "crypto/md5" // one of Options.Hashes
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"dragonload/internal/piece"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimEnv); dir != "" {
		victim(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// bed is a folder with a journal and a file that the tests download.
type bed struct {
	t       testing.TB
	dir     string
	journal *Journal
	data    []byte
	pin     piece.Pin
	layout  piece.Layout
}

func newBed(t testing.TB, size int) *bed {
	t.Helper()
	b := &bed{t: t, dir: t.TempDir(), data: randomBytes(size, 1)}
	b.pin = piece.Pin{Size: int64(size), Kind: piece.StrongETag, Validator: `"v1"`}
	b.layout = b.pin.Layout()
	b.openJournal()
	return b
}

func randomBytes(size int, seed uint64) []byte {
	data := make([]byte, size)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}

func (b *bed) openJournal() {
	b.t.Helper()
	j, err := OpenJournal(b.journalPath(), JournalOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	b.journal = j
	b.t.Cleanup(func() { j.Close() })
}

func (b *bed) journalPath() string { return filepath.Join(b.dir, "state", "journal.db") }
func (b *bed) target() string      { return filepath.Join(b.dir, "file.iso") }
func (b *bed) part() string        { return b.target() + ".part" }

func (b *bed) options() Options { return Options{Target: b.target(), Source: "source"} }

func (b *bed) open() *File { b.t.Helper(); return b.openWith(b.options()) }

func (b *bed) openWith(o Options) *File {
	b.t.Helper()
	f, err := b.journal.Open(context.Background(), o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { f.Close() })
	return f
}

// begun opens the download and begins it.
func (b *bed) begun() *File {
	b.t.Helper()
	f := b.open()
	if err := f.Begin(b.pin, 0, false); err != nil {
		b.t.Fatal(err)
	}
	return f
}

func (b *bed) bytes(i piece.Index) []byte {
	r := b.layout.Range(i)
	return b.data[r.Start:r.End]
}

func (b *bed) digest(i piece.Index) piece.Digest { return b.layout.Sum(i, b.bytes(i)) }

func (b *bed) write(f *File, pieces ...piece.Index) {
	b.t.Helper()
	for _, i := range pieces {
		if err := f.Write(i, b.bytes(i), b.digest(i), i%2 == 0); err != nil {
			b.t.Fatalf("write piece %d: %v", i, err)
		}
	}
}

func (b *bed) all() []piece.Index {
	out := make([]piece.Index, b.layout.Count())
	for i := range out {
		out[i] = piece.Index(i)
	}
	return out
}

// recorded waits until the journal claims n pieces.
func (b *bed) recorded(f *File, n int) {
	b.t.Helper()
	err := f.p.await(b.t.Context(), func() bool { return f.p.durable.Count() >= n && len(f.p.stale) == 0 })
	if err != nil {
		b.t.Fatal(err)
	}
	// stale is cleared before the journal has the pieces; halting waits for that.
	f.p.halt()
	f.p.start()
}

// quick makes the journal record every piece at once.
func (b *bed) quick() *bed {
	b.journal.batchBytes, b.journal.batchDelay = 1, 0
	return b
}

// crash leaves the disk as a kill would: it copies journal and partial file, lets the
// File and the journal go, and puts the copies in their place.
func (b *bed) crash(f *File) {
	b.t.Helper()
	f.p.halt()
	journal, part := b.read(b.journalPath()), b.read(b.part())
	mark, _ := os.ReadFile(b.journal.markPath(b.target()))
	if err := errors.Join(f.Close(), b.journal.Close()); err != nil {
		b.t.Fatal(err)
	}
	b.put(b.journalPath(), journal)
	b.put(b.part(), part)
	if mark != nil {
		b.put(b.journal.markPath(b.target()), mark)
	}
	b.openJournal()
}

func (b *bed) read(path string) []byte {
	b.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}

func (b *bed) put(path string, data []byte) {
	b.t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) finish(f *File) Finished {
	b.t.Helper()
	done, err := f.Finish(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	if done.SHA256 != sha256.Sum256(b.data) {
		b.t.Errorf("Finish says SHA-256 %x, the file has another", done.SHA256)
	}
	if got := b.read(done.Path); !bytes.Equal(got, b.data) {
		b.t.Error("the finished file is not what was written")
	}
	return done
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestFile_finishesWhatWasWrittenInAnyOrderByManyWriters(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 16 << 10, 64<<10 - 1, 64 << 10, 64<<10 + 1, 5<<20 + 12345} {
		b := newBed(t, size)
		o := b.options()
		o.Hashes = []crypto.Hash{crypto.MD5}
		f := b.openWith(o)
		if err := f.Begin(b.pin, 0, false); err != nil {
			t.Fatal(err)
		}
		order := b.all()
		rand.Shuffle(len(order), func(i, k int) { order[i], order[k] = order[k], order[i] })
		var work sync.WaitGroup
		for w := range 4 {
			work.Go(func() {
				for k := w; k < len(order); k += 4 {
					if err := f.Write(order[k], b.bytes(order[k]), b.digest(order[k]), true); err != nil {
						t.Error(err)
					}
				}
			})
		}
		work.Wait()
		if exists(b.target()) {
			t.Error("the final name is taken before Finish")
		}
		done := b.finish(f)
		md5 := crypto.MD5.New()
		md5.Write(b.data)
		if !bytes.Equal(done.Sums[crypto.MD5], md5.Sum(nil)) || done.Reread || done.Path != b.target() {
			t.Errorf("size %d: Finish returned %+v", size, done)
		}
		if exists(b.part()) {
			t.Error("the partial file is still there")
		}
		if _, ok, err := b.journal.Record(b.target()); ok || err != nil {
			t.Errorf("the record of a finished file is still there (%v)", err)
		}
		for _, i := range b.all() {
			got, err := f.ReadPiece(i, nil)
			if err != nil || !bytes.Equal(got, b.bytes(i)) {
				t.Fatalf("after Finish, piece %d: %v", i, err)
			}
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if got := b.read(b.target()); !bytes.Equal(got, b.data) {
			t.Error("Close changed the finished file")
		}
	}
}

func TestFile_isPrivateUntilItIsFinished(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("modes are not kept there")
	}
	b := newBed(t, 100_000)
	f := b.begun()
	mode := func(path string) fs.FileMode {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	if got := mode(b.part()); got != 0o600 {
		t.Errorf("the partial file has mode %o", got)
	}
	if got := mode(b.journalPath()); got != 0o600 {
		t.Errorf("the journal has mode %o", got)
	}
	if got := mode(filepath.Dir(b.journalPath())); got != 0o700 {
		t.Errorf("the state folder has mode %o", got)
	}
	b.write(f, b.all()...)
	b.finish(f)
	plain := filepath.Join(b.dir, "plain")
	if err := os.WriteFile(plain, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if got, want := mode(b.target()), mode(plain); got != want {
		t.Errorf("the finished file has mode %o, others have %o", got, want)
	}
}

func TestFile_goesOnAfterClose(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1<<20)
	f := b.begun()
	b.write(f, 0, 1, 5, 15)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Write(2, b.bytes(2), b.digest(2), true); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}

	f = b.open()
	r, ok := f.Resumed()
	if !ok || r.Unclean || r.Dropped != 0 || r.Pin != b.pin || r.Have.Count() != 4 {
		t.Fatalf("resumed %v: %+v", ok, r)
	}
	for _, i := range []piece.Index{0, 1, 5, 15} {
		if !r.Have.Has(i) || r.Digests[i] != b.digest(i) || r.Origin.Has(i) != (i%2 == 0) {
			t.Errorf("piece %d: have %v, digest %v, origin %v", i, r.Have.Has(i), r.Digests[i], r.Origin.Has(i))
		}
	}
	if err := f.Begin(b.pin, 0, false); err != nil {
		t.Fatal(err)
	}
	b.write(f, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14)
	if done := b.finish(f); !done.Reread {
		t.Error("Finish does not say that bytes were read again")
	}
}

func TestFile_keepsNothingWithoutAPiece(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1<<20)
	f := b.begun()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if exists(b.part()) {
		t.Error("an empty partial file was left")
	}
}

func TestFile_afterAKillHasOnlyPiecesThatMatch(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1<<20).quick()
	f := b.begun()
	b.write(f, 0, 3, 7)
	b.recorded(f, 3)
	b.crash(f)
	part := b.read(b.part())
	part[3<<16+77] ^= 1 // inside piece 3
	b.put(b.part(), part)

	f = b.open()
	r, ok := f.Resumed()
	if !ok || !r.Unclean || r.Dropped != 1 || r.Have.Count() != 2 || r.Have.Has(3) {
		t.Fatalf("resumed %v: %+v", ok, r)
	}
	if err := f.Begin(b.pin, 0, false); err != nil {
		t.Fatal(err)
	}
	b.write(f, b.all()...)
	if done := b.finish(f); !done.Reread {
		t.Error("Finish does not say that bytes were read again")
	}
}

func TestFile_findsDamageDoneWhileItWasClosed(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1<<20)
	f := b.begun()
	b.write(f, 0, 1, 2)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(b.part())
	if err != nil {
		t.Fatal(err)
	}
	part := b.read(b.part())
	part[1<<16] ^= 1
	b.put(b.part(), part)

	t.Run("by its time", func(t *testing.T) {
		f := b.open()
		if r, ok := f.Resumed(); !ok || !r.Unclean || r.Dropped != 1 {
			t.Errorf("resumed %v: unclean %v, dropped %d", ok, r.Unclean, r.Dropped)
		}
		f.Close()
	})
	t.Run("by the file's hash", func(t *testing.T) {
		if err := os.Chtimes(b.part(), info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
		damaged := make(chan piece.Index, 1)
		o := b.options()
		o.Damaged = func(i piece.Index, _ error) { damaged <- i }
		f := b.openWith(o)
		if r, ok := f.Resumed(); !ok || r.Unclean || r.Have.Count() != 3 {
			t.Fatalf("resumed %v: %+v", ok, r)
		}
		if err := f.Begin(b.pin, 0, false); err != nil {
			t.Fatal(err)
		}
		if i := <-damaged; i != 1 {
			t.Errorf("piece %d is said to be damaged", i)
		}
		b.write(f, b.all()[3:]...)
		var missing *IncompleteError
		if _, err := f.Finish(t.Context()); !errors.As(err, &missing) || missing.Missing != 1 {
			t.Errorf("Finish without piece 1: %v", err)
		}
		b.write(f, 1)
		b.finish(f)
	})
}

func TestFile_startsOver(t *testing.T) {
	t.Parallel()
	other := piece.Pin{Size: 900_000, Kind: piece.StrongETag, Validator: `"v2"`}
	tests := map[string]struct {
		change      func(*bed, *Options)
		pin         *piece.Pin
		incarnation uint64
		anew        bool
		resumed     bool
	}{
		"for another source":      {change: func(_ *bed, o *Options) { o.Source, o.Restart = "other", true }},
		"when told to":            {change: func(_ *bed, o *Options) { o.Restart = true }},
		"without its file":        {change: func(b *bed, _ *Options) { os.Remove(b.part()) }},
		"for another generation":  {pin: &other, resumed: true},
		"for another incarnation": {incarnation: 7, resumed: true},
		"anew":                    {anew: true, resumed: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 1<<20)
			f := b.begun()
			b.write(f, 0, 1, 2)
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			o := b.options()
			if tt.change != nil {
				tt.change(b, &o)
			}
			f = b.openWith(o)
			if _, ok := f.Resumed(); ok != tt.resumed {
				t.Errorf("resumed: %v", ok)
			}
			if tt.pin != nil {
				b.pin, b.layout, b.data = *tt.pin, tt.pin.Layout(), randomBytes(int(tt.pin.Size), 2)
			}
			if err := f.Begin(b.pin, tt.incarnation, tt.anew); err != nil {
				t.Fatal(err)
			}
			if _, err := f.ReadPiece(0, nil); !errors.Is(err, ErrNotHeld) {
				t.Errorf("piece 0 of what was discarded: %v", err)
			}
			b.write(f, b.all()...)
			if done := b.finish(f); done.Reread {
				t.Error("Finish says that bytes of an earlier run were read")
			}
		})
	}
}

func TestFile_beginsAnewInTheMiddle(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1<<20).quick()
	f := b.begun()
	b.write(f, 0, 1, 2)
	b.recorded(f, 3)
	if err := f.Begin(b.pin, 0, false); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadPiece(0, nil); err != nil {
		t.Errorf("Begin with the same generation lost piece 0: %v", err)
	}
	b.pin.Validator = `"v2"`
	b.data = randomBytes(len(b.data), 3)
	if err := f.Begin(b.pin, 0, true); err != nil {
		t.Fatal(err)
	}
	b.write(f, 5)
	b.recorded(f, 1)
	b.crash(f)
	f = b.open()
	r, ok := f.Resumed()
	if !ok || r.Pin != b.pin || r.Have.Count() != 1 || !r.Have.Has(5) || r.Dropped != 0 {
		t.Errorf("resumed %v: %+v", ok, r)
	}
}

func TestOpen_refuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*bed, *Options)
		want   error
	}{
		"a taken name":              {func(b *bed, _ *Options) { b.put(b.target(), nil) }, ErrExists},
		"a taken name that is link": {func(b *bed, _ *Options) { os.Symlink("nowhere", b.target()) }, ErrExists},
		"to overwrite a folder":     {func(b *bed, o *Options) { o.Overwrite = true; os.Mkdir(b.target(), 0o700) }, ErrCannotCreate},
		"a missing folder":          {func(b *bed, o *Options) { o.Target = filepath.Join(b.dir, "no", "file") }, ErrCannotCreate},
		"a link as partial file": {func(b *bed, _ *Options) {
			b.put(filepath.Join(b.dir, "precious"), []byte("precious"))
			os.Symlink("precious", b.part())
		}, ErrReplaced},
		"a folder as partial file":        {func(b *bed, _ *Options) { os.Mkdir(b.part(), 0o700) }, ErrReplaced},
		"what is no partial file of ours": {func(b *bed, _ *Options) { b.put(b.part(), []byte("precious")) }, ErrReplaced},
		"the partial file of another source": {func(b *bed, o *Options) {
			f := b.begun()
			b.write(f, 0)
			f.Close()
			o.Source = "other"
		}, ErrOtherSource},
		"the partial file of another source, of a version by date": {func(b *bed, o *Options) {
			b.pin.Kind, b.pin.Validator = piece.LastModified, "Sat, 01 Jan 2000 00:00:00 GMT"
			f := b.begun()
			b.write(f, 0)
			f.Close()
			o.Source, o.Moved = "other", true
		}, ErrOtherSource},
		"what was just begun of another source": {func(b *bed, o *Options) {
			if err := b.journal.mark(&Options{Target: b.target(), Part: b.part(), Source: "source"}); err != nil {
				b.t.Fatal(err)
			}
			b.put(b.part(), make([]byte, 10))
			o.Source, o.Part = "other", b.part()
		}, ErrOtherSource},
		"the same target twice": {func(b *bed, _ *Options) { b.open() }, ErrInUse},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 1000)
			o := b.options()
			tt.change(b, &o)
			f, err := b.journal.Open(t.Context(), o)
			if !errors.Is(err, tt.want) {
				t.Errorf("Open: %v", err)
			}
			if err == nil {
				f.Close()
			}
		})
	}
}

func TestOpen_saysThatANameIsTooLong(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1000)
	for _, length := range []int{252, 255, 256} {
		o := b.options()
		o.Target = filepath.Join(b.dir, strings.Repeat("n", length))
		f, err := b.journal.Open(t.Context(), o)
		if err == nil {
			f.Close()
			t.Skip("this file system takes longer names")
		}
		if text := err.Error(); !errors.Is(err, ErrCannotCreate) || strings.Contains(text, "lstat") || !strings.Contains(text, fmt.Sprintf("it has %d bytes", length)) || !strings.Contains(text, "-o") {
			t.Errorf("%d bytes: %v", length, err)
		}
	}
}

func TestFile_goesOnWithTheSameVersionFromAnotherSource(t *testing.T) {
	t.Parallel()
	for name, clean := range map[string]bool{"after a clean end": true, "after a kill": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 1<<20)
			f := b.begun()
			b.write(f, 0, 1, 2)
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if !clean {
				k, err := b.journal.load(b.target())
				if err != nil {
					t.Fatal(err)
				}
				k.rec.clean = false
				if err := b.journal.save(b.target(), false, &k.rec, nil); err != nil {
					t.Fatal(err)
				}
			}
			o := b.options()
			o.Source, o.Moved = "moved!", true
			f = b.openWith(o)
			left, ok := f.Resumed()
			if !ok || left.Have.Count() != 3 {
				t.Fatalf("resumed %v with %d pieces, want 3", ok, left.Have.Count())
			}
			changed := b.pin
			changed.Validator = `"v2"`
			for _, anew := range []bool{false, true} {
				if err := f.Begin(changed, 0, anew); !errors.Is(err, ErrOtherSource) {
					t.Fatalf("Begin with another version: %v", err)
				}
			}
			if err := f.Begin(b.pin, 0, false); err != nil {
				t.Fatal(err)
			}
			if r, ok, err := b.journal.Record(b.target()); err != nil || !ok || r.Source != "moved!" || r.Have.Count() != 3 {
				t.Errorf("recorded for %q: %v, %v", r.Source, ok, err)
			}
			b.write(f, b.all()...)
			b.finish(f)
		})
	}
}

func TestBegin_refusesALinkPutInPlaceOfThePartialFile(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1000)
	precious := filepath.Join(b.dir, "precious")
	b.put(precious, []byte("precious"))
	f := b.open()
	if err := os.Symlink(precious, b.part()); err != nil {
		t.Skip(err)
	}
	if err := f.Begin(b.pin, 0, false); !errors.Is(err, ErrReplaced) {
		t.Errorf("Begin: %v", err)
	}
	if got := b.read(precious); string(got) != "precious" {
		t.Errorf("what the link leads to is now %q", got)
	}
}

func TestBegin_refusesWhatDoesNotFitBeforeAnythingIsWritten(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1000)
	if _, ok := freeSpace(b.dir); !ok {
		t.Skip("this system does not tell how much is free")
	}
	f := b.open()
	pin := piece.Pin{Size: piece.MaxSize / 1024, Kind: piece.StrongETag, Validator: `"v"`}
	var full *DiskFullError
	err := f.Begin(pin, 0, false)
	if !errors.Is(err, ErrDiskFull) || !errors.As(err, &full) || full.Need != pin.Size || full.Free <= 0 || full.Free >= full.Need {
		t.Errorf("Begin: %v", err)
	}
	if exists(b.part()) {
		t.Error("there is a partial file")
	}
}

func TestBegin_needsASize(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1000)
	f := b.open()
	if err := f.Begin(piece.Pin{Size: piece.UnknownSize}, 1, false); err == nil {
		t.Error("Begin took a pin without a size")
	}
}

func TestReadPiece_findsDamage(t *testing.T) {
	t.Parallel()
	b := newBed(t, 300_000)
	b.journal.checkAgain = 0 // as if what was written had been checked long ago
	f := b.begun()
	b.write(f, 0, 1)
	file, err := os.OpenFile(b.part(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt([]byte{b.data[70_000] ^ 1}, 70_000); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadPiece(0, nil); err != nil {
		t.Errorf("piece 0: %v", err)
	}
	if _, err := f.ReadPiece(1, make([]byte, 64<<10)); !errors.Is(err, ErrDamaged) {
		t.Errorf("piece 1: %v", err)
	}
	if _, err := f.ReadPiece(2, nil); !errors.Is(err, ErrNotHeld) {
		t.Errorf("piece 2: %v", err)
	}
	if err := f.Forget(1); err != nil {
		t.Fatal(err)
	}
	b.write(f, b.all()...)
	b.finish(f)
}

func TestReadAt_readsStoredPiecesOnly(t *testing.T) {
	t.Parallel()
	b := newBed(t, 300_000)
	f := b.begun()
	b.write(f, 1, 2, 4)
	got := make([]byte, 128<<10)
	if n, err := f.ReadAt(got, 64<<10); err != nil || !bytes.Equal(got[:n], b.data[64<<10:192<<10]) {
		t.Errorf("pieces 1 and 2: %d bytes, %v", n, err)
	}
	if _, err := f.ReadAt(got, 64<<10+1); !errors.Is(err, ErrNotHeld) {
		t.Errorf("into piece 3: %v", err)
	}
	if n, err := f.ReadAt(got, 256<<10); !errors.Is(err, io.EOF) || !bytes.Equal(got[:n], b.data[256<<10:]) {
		t.Errorf("the last piece: %d bytes, %v", n, err)
	}
	if n, err := f.ReadAt(got, 1<<20); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("behind the end: %d bytes, %v", n, err)
	}
}

func TestForget_ofAHashedPieceHashesWhatReplacesIt(t *testing.T) {
	t.Parallel()
	b := newBed(t, 300_000)
	f := b.begun()
	wrong := randomBytes(64<<10, 9)
	if err := f.Write(0, wrong, b.layout.Sum(0, wrong), false); err != nil {
		t.Fatal(err)
	}
	b.write(f, b.all()[1:]...)
	if done, err := f.Sums(t.Context()); err != nil || done.SHA256 == sha256.Sum256(b.data) {
		t.Fatalf("sums of the wrong bytes: %x, %v", done.SHA256, err)
	}
	if err := f.Forget(0); err != nil {
		t.Fatal(err)
	}
	b.write(f, 0)
	if done := b.finish(f); !done.Reread {
		t.Error("Finish does not say that bytes were read again")
	}
}

func TestForget_isNotClaimedAfterAKill(t *testing.T) {
	t.Parallel()
	b := newBed(t, 300_000).quick()
	f := b.begun()
	b.write(f, 0, 1, 2)
	b.recorded(f, 3)
	if err := f.Forget(1); err != nil {
		t.Fatal(err)
	}
	b.write(f, 3)
	b.recorded(f, 3)
	b.crash(f)
	f = b.open()
	if r, _ := f.Resumed(); r.Have.Has(1) || r.Have.Count() != 3 || r.Dropped != 0 {
		t.Errorf("resumed %+v", r)
	}
}

func TestCopy_followsTheGrowingPrefix(t *testing.T) {
	t.Parallel()
	b := newBed(t, 3<<20+5)
	f := b.begun()
	read, write := io.Pipe()
	copied := make(chan error, 1)
	go func() {
		err := f.Copy(t.Context(), write)
		write.CloseWithError(err)
		copied <- err
	}()
	b.write(f, 1, 2, 0)
	got := make([]byte, 3*b.layout.PieceLength)
	if _, err := io.ReadFull(read, got); err != nil || !bytes.Equal(got, b.data[:len(got)]) {
		t.Fatalf("the first pieces: %v", err)
	}
	go b.write(f, b.all()[3:]...)
	rest, err := io.ReadAll(read)
	if err != nil || !bytes.Equal(rest, b.data[len(got):]) {
		t.Errorf("the rest: %d bytes, %v", len(rest), err)
	}
	if err := <-copied; err != nil {
		t.Error(err)
	}
}

func TestCopyAndSums_endWithTheirContextAndWithTheFile(t *testing.T) {
	t.Parallel()
	b := newBed(t, 300_000)
	f := b.begun()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- f.Copy(ctx, io.Discard) }()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Copy with a cancelled context: %v", err)
	}
	go func() { ended <- f.Copy(t.Context(), io.Discard) }()
	b.write(f, 0)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Copy of a closed file: %v", err)
	}
}

func TestDiscard_leavesNothing(t *testing.T) {
	t.Parallel()
	for _, begin := range []bool{true, false} {
		b := newBed(t, 300_000).quick()
		f := b.begun()
		b.write(f, 0, 1)
		b.recorded(f, 2)
		if !begin {
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			f = b.open()
		}
		if err := f.Discard(); err != nil {
			t.Fatal(err)
		}
		if _, ok, err := b.journal.Record(b.target()); ok || err != nil || exists(b.part()) {
			t.Errorf("left: record %v (%v), partial file %v", ok, err, exists(b.part()))
		}
		if err := f.Discard(); err != nil {
			t.Errorf("a second time: %v", err)
		}
		b.open()
	}
}

// A cache takes pieces of a file that would not fit on the disk, and leaves no trace of
// them in the journal, nor of itself at the end.
func TestCache_holdsPiecesAndLeavesNothing(t *testing.T) {
	t.Parallel()
	b := newBed(t, 300_000)
	o := b.options()
	o.Cache = true
	f := b.openWith(o)
	if err := f.Begin(piece.Pin{Size: piece.MaxSize / 1024, Kind: piece.StrongETag, Validator: `"v"`}, 0, false); err != nil {
		t.Fatal(err)
	}
	if err := f.Begin(b.pin, 0, true); err != nil {
		t.Fatal(err)
	}
	b.write(f, 0, 2)
	if got, err := f.ReadPiece(2, nil); err != nil || !bytes.Equal(got, b.bytes(2)) {
		t.Errorf("read piece 2: %d bytes, %v", len(got), err)
	}
	if err := f.Forget(0); err != nil {
		t.Error(err)
	}
	if _, err := f.ReadPiece(0, nil); !errors.Is(err, ErrNotHeld) {
		t.Errorf("read a forgotten piece: %v", err)
	}
	if err := f.Discard(); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := b.journal.Record(b.target()); ok || err != nil || exists(b.part()) || b.journal.marked(&o) {
		t.Errorf("left: record %v (%v), partial file %v, mark %v", ok, err, exists(b.part()), b.journal.marked(&o))
	}
}

// Whoever waits for a file waits for its last sync. Most of the end is synced before that.
func TestSyncer_syncsTheEndInEverSmallerBatches(t *testing.T) {
	t.Parallel()
	b := newBed(t, 4*lastBatch)
	b.journal.batchDelay = time.Hour
	f := b.begun()
	half := b.all()[:b.layout.Count()/2]
	b.write(f, half...)
	b.recorded(f, len(half)) // never, if it waited for the hour or for 64 MiB
	rest := b.all()[len(half):]
	b.write(f, rest[:len(rest)/2]...)
	b.recorded(f, len(half)+len(rest)/2)
	b.write(f, rest[len(rest)/2:]...)
	b.finish(f)
}

func TestSyncer_recordsWithinASecondWithoutHoldingWritersUp(t *testing.T) {
	t.Parallel()
	b := newBed(t, 300_000)
	f := b.begun()
	began := time.Now()
	b.write(f, 0, 1)
	b.recorded(f, 2)
	if took := time.Since(began); took < b.journal.batchDelay || took > 10*b.journal.batchDelay {
		t.Errorf("recorded after %v", took)
	}
	rec, ok, err := b.journal.Record(b.part())
	if err != nil || !ok || rec.Target != b.target() || rec.Have.Count() != 2 || !rec.Origin.Has(0) || rec.Origin.Has(1) || rec.Clean || rec.Pin != b.pin {
		t.Errorf("record %v, %v: %+v", ok, err, rec)
	}
	if got, err := b.journal.Targets("source"); err != nil || len(got) != 1 || got[0] != b.target() {
		t.Errorf("targets of the source: %q, %v", got, err)
	}
	if got, err := b.journal.Targets("other"); err != nil || len(got) != 0 {
		t.Errorf("targets of another source: %q, %v", got, err)
	}
}
