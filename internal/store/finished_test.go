package store

import (
	"crypto"
	"crypto/md5"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"dragonload/internal/piece"

	"go.etcd.io/bbolt"
)

func TestKept_survivesWhatEndsTheDownload(t *testing.T) {
	t.Parallel()
	b := newBed(t, 5<<20+12345)
	o := b.options()
	o.Hashes = []crypto.Hash{crypto.MD5}
	f := b.openWith(o)
	if err := f.Begin(b.pin, 0, false); err != nil {
		t.Fatal(err)
	}
	if _, found, err := b.journal.Kept(b.target()); found || err != nil {
		t.Errorf("before it is finished: found %v, %v", found, err)
	}
	b.write(f, b.all()...)
	from := []string{"https://one.example/file.iso", "http://two.example/a?b=c"}
	done, err := f.Finish(t.Context(), from...)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Close(), b.journal.Close()); err != nil {
		t.Fatal(err)
	}
	b.openJournal()
	k, found, err := b.journal.Kept(b.target())
	if !found || err != nil {
		t.Fatalf("found %v, %v", found, err)
	}
	info, err := os.Stat(b.target())
	if err != nil {
		t.Fatal(err)
	}
	if !k.Modified.Equal(info.ModTime()) || time.Since(k.Finished) > time.Hour || k.Finished.After(time.Now()) {
		t.Errorf("times %v and %v, the file has %v", k.Modified, k.Finished, info.ModTime())
	}
	sum := md5.Sum(b.data)
	k.Modified, k.Finished = time.Time{}, time.Time{}
	want := Kept{
		Path: b.target(), Size: int64(len(b.data)), PieceLength: b.layout.PieceLength, SHA256: done.SHA256,
		Sums: []Sum{{"md5", sum[:]}}, From: from,
	}
	if !reflect.DeepEqual(k, want) {
		t.Errorf("got %+v, want %+v", k, want)
	}
	if _, found, err := b.journal.Record(b.target()); found || err != nil {
		t.Errorf("the finished download is among the unfinished: %v, %v", found, err)
	}
}

func TestKept_leavesOutWhatIsTooLong(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	f := b.begun()
	b.write(f, b.all()...)
	if _, err := f.Finish(t.Context(), "http://a/", "http://b/"+strings.Repeat("x", maxKeptBytes), "http://c/"); err != nil {
		t.Fatal(err)
	}
	k, found, err := b.journal.Kept(b.target())
	if !found || err != nil || len(k.From) != 1 || k.From[0] != "http://a/" {
		t.Errorf("found %v, %v: %q", found, err, k.From)
	}
}

func TestKept_forgetsTheOldest(t *testing.T) {
	t.Parallel()
	b := newBed(t, 1)
	put := func(paths ...string) {
		t.Helper()
		err := b.journal.db.Update(func(tx *bbolt.Tx) error {
			for _, p := range paths {
				k := Kept{Path: p, PieceLength: 64 << 10}
				if err := k.put(tx); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	has := func(path string) bool {
		t.Helper()
		_, found, err := b.journal.Kept(path)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	first := make([]string, MaxKept)
	for i := range first {
		first[i] = fmt.Sprintf("/%d", i)
	}
	put(first...)
	for _, p := range []string{"/0", "/1", "/9999"} {
		if !has(p) {
			t.Errorf("%s is forgotten while there is room", p)
		}
	}
	put("/1") // takes the place of the oldest, and its own lies later from now on
	put("/new", "/newer")
	for path, want := range map[string]bool{"/0": false, "/1": true, "/2": false, "/3": true, "/new": true, "/newer": true} {
		if has(path) != want {
			t.Errorf("%s: found %v, want %v", path, !want, want)
		}
	}
	err := b.journal.db.View(func(tx *bbolt.Tx) error {
		if n := tx.Bucket(keptBucket).Stats().KeyN; n > MaxKept {
			t.Errorf("%d are kept", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestKept_tornIsNone(t *testing.T) {
	t.Parallel()
	k := Kept{Path: "/a", Size: 1, PieceLength: 64 << 10, Sums: []Sum{{"md5", make([]byte, 16)}}, From: []string{"http://a/"}}
	good := k.encode(7)
	if _, number, err := decodeKept("/a", good); err != nil || number != 7 {
		t.Fatalf("%d, %v", number, err)
	}
	for n := range len(good) - 4 {
		if _, _, err := decodeKept("/a", seal(append([]byte(nil), good[:n]...))); err == nil {
			t.Errorf("cut to %d bytes: no error", n)
		}
		bad := append([]byte(nil), good...)
		bad[n] ^= 4
		if _, _, err := decodeKept("/a", bad); err == nil {
			t.Errorf("byte %d changed: no error", n)
		}
	}
}

// A single file of a manifest is cut as that says, and is known by it when it is finished.
func TestFile_ofAManifestWithItsOwnPieceLength(t *testing.T) {
	t.Parallel()
	for _, length := range []int64{16 << 10, 256 << 10, 32 << 20} {
		b := newBed(t, 700_001)
		b.layout = piece.Layout{Size: b.pin.Size, PieceLength: length}
		b.pin = piece.ManifestPin([32]byte{9}, b.layout)
		b.quick()
		f := b.begun()
		if f.Layout() != b.layout {
			t.Fatalf("layout %+v", f.Layout())
		}
		b.write(f, 0)
		b.recorded(f, 1)
		b.crash(f)
		f = b.open()
		if r, ok := f.Resumed(); !ok || r.Pin != b.pin || r.Layout != b.layout || r.Have.Count() != 1 {
			t.Fatalf("resumed %v, %+v", ok, r)
		}
		if err := f.Begin(b.pin, 0, false); err != nil {
			t.Fatal(err)
		}
		b.write(f, b.all()...)
		b.finish(f)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		all, err := b.journal.KeptManifests()
		if err != nil || len(all) != 1 || all[0].Pin != b.pin || all[0].Tree || all[0].Path != b.target() {
			t.Errorf("kept %+v, %v", all, err)
		}
		if _, found, err := b.journal.KeptFiles(b.target()); found || err != nil {
			t.Errorf("files of a file: %v", err)
		}
	}
}

func TestFile_refusesAManifestOfSeveralFiles(t *testing.T) {
	t.Parallel()
	b := newBed(t, 100)
	layout, err := piece.LayoutOf(64<<10, []int64{50, 50})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.open().Begin(piece.ManifestPin([32]byte{9}, layout), 0, false); err == nil {
		t.Error("begun")
	}
}
