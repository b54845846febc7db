package store

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"dragonload/internal/piece"

	"pgregory.net/rapid"
)

func TestOpenJournal_isForOneProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal.db")
	j, err := OpenJournal(path, JournalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenJournal(path, JournalOptions{}); !errors.Is(err, ErrLocked) {
		t.Errorf("a second time: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j, err = OpenJournal(path, JournalOptions{}); err != nil {
		t.Fatal(err)
	}
	j.Close()
}

// Row 13 of the fault table: whatever becomes of the journal, progress is rebuilt from
// the partial file.
func TestFault13JournalDamagedOrDeleted(t *testing.T) {
	t.Parallel()
	b := newBed(t, 40<<20)
	f := b.begun()
	b.write(f, b.all()[:600]...)
	if err := errors.Join(f.Close(), b.journal.Close()); err != nil {
		t.Fatal(err)
	}
	good, part := b.read(b.journalPath()), b.read(b.part())
	r := rand.New(rand.NewPCG(5, 6))
	damage := map[string]func() []byte{
		"empty":     func() []byte { return nil },
		"one byte":  func() []byte { return good[:1] },
		"metas cut": func() []byte { return good[:5000] },
		"half":      func() []byte { return good[:len(good)/2] },
		"zeros":     func() []byte { return make([]byte, len(good)) },
		"zero tail": func() []byte { return append(append([]byte(nil), good[:8192]...), make([]byte, len(good)-8192)...) },
		"deleted":   nil,
		"text":      func() []byte { return []byte("this is no journal\n") },
	}
	for range 16 {
		damage["flips "+string(rune('A'+len(damage)))] = func() []byte {
			bad := append([]byte(nil), good...)
			for range 1 + r.IntN(20) {
				bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
			}
			return bad
		}
	}
	for name, spoiled := range damage {
		t.Run(name, func(t *testing.T) {
			b := &bed{t: t, dir: t.TempDir(), data: b.data, pin: b.pin, layout: b.layout}
			if err := os.MkdirAll(filepath.Dir(b.journalPath()), 0o700); err != nil {
				t.Fatal(err)
			}
			if spoiled != nil {
				b.put(b.journalPath(), spoiled())
			}
			b.put(b.part(), part)
			b.openJournal()
			if spoiled == nil {
				if got := b.journal.Partials(b.dir, "source"); len(got) != 1 || got[0] != b.part() {
					t.Errorf("partial files of the source: %q", got)
				}
			}
			f := b.begun()
			if n := f.p.have.Count(); n != 600 {
				t.Errorf("%d of 600 pieces are rebuilt", n)
			}
			for i, ok := f.p.have.Next(0); ok; i, ok = f.p.have.Next(i + 1) {
				if f.p.digests[i] != b.digest(i) {
					t.Errorf("piece %d is claimed with a wrong digest", i)
				}
			}
			b.write(f, 620)
			f.Close()
		})
	}
}

// The journal's file is cut or overwritten while downloads run: what is recorded is lost,
// nothing waits for ever, the files become whole, and the next start begins a new journal.
func TestFault13JournalDamagedWhileItRuns(t *testing.T) {
	t.Parallel()
	spoil := map[string]func(path string) error{
		"cut": func(path string) error { return os.Truncate(path, 5000) },
		"overwritten": func(path string) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			file, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = file.Write(bytes.Repeat([]byte{0xa5}, int(info.Size())))
			return errors.Join(err, file.Close())
		},
	}
	for name, by := range spoil {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 8*piece.MinLength).quick()
			f := b.begun()
			b.write(f, 0, 1)
			b.recorded(f, 2)
			other := b.options()
			other.Target += "2"
			g := b.openWith(other)
			if err := g.Begin(b.pin, 0, false); err != nil {
				t.Fatal(err)
			}
			if err := by(b.journalPath()); err != nil {
				t.Fatal(err)
			}
			b.write(f, b.all()[2:]...)
			b.write(g, b.all()...)
			b.finish(f)
			b.finish(g)
			if err := errors.Join(f.Close(), g.Close()); err != nil {
				t.Error(err)
			}
			_, _, err := b.journal.Record(b.target())
			if !errors.Is(err, errJournalDamaged) || !strings.Contains(err.Error(), "start dragonload again") {
				t.Errorf("it says %v", err)
			}
			if err := b.journal.Close(); err != nil {
				t.Error(err)
			}
			b.openJournal()
			if b.journal.Aside() == "" {
				t.Error("the damaged journal was not put aside")
			}
		})
	}
}

func TestRecord_survivesEncoding(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := record{
			part: rapid.String().Draw(t, "part"), source: rapid.String().Draw(t, "source"),
			pin: piece.Pin{
				Size: rapid.Int64Range(0, 1<<40).Draw(t, "size"), Kind: piece.StrongETag,
				Validator: string(rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "validator")),
			},
			incarnation: rapid.Uint64().Draw(t, "incarnation"), clean: rapid.Bool().Draw(t, "clean"),
			size: rapid.Int64().Draw(t, "bytes"), modified: rapid.Int64().Draw(t, "modified"),
		}
		if rapid.Bool().Draw(t, "manifest") {
			size := want.pin.Size % (1 << 35) // in pieces of any length that is allowed
			layout := piece.Layout{Size: size, PieceLength: 16 << 10 << rapid.IntRange(0, 12).Draw(t, "length")}
			want.pin = piece.ManifestPin([32]byte{byte(size)}, layout)
		}
		want.layout = want.pin.Layout()
		encoded := want.encode()
		if got, err := decodeRecord(encoded); err != nil || got != want {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
		encoded[rapid.IntRange(0, len(encoded)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, err := decodeRecord(encoded); err == nil {
			t.Fatal("a flipped bit went unnoticed")
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	rec := record{part: "/a.part", source: "s", pin: piece.Pin{Size: 5}, layout: piece.LayoutFor(5)}
	f.Add(rec.encode()[:30])
	whole, err := unseal(rec.encode())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	noPieces := rec
	noPieces.layout.PieceLength = 0
	if whole, err = unseal(noPieces.encode()); err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	rec.pin = piece.ManifestPin([32]byte{1}, rec.layout)
	for _, rec.tree = range []bool{false, true} {
		if whole, err = unseal(rec.encode()); err != nil {
			f.Fatal(err)
		}
		f.Add(whole)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		rec, err := decodeRecord(seal(value)) // past the checksum, to the decoder itself
		if err != nil {
			return
		}
		if rec.layout.Validate() != nil || rec.pin.Validate() != nil {
			t.Errorf("accepted the layout %+v, the pin %+v", rec.layout, rec.pin)
		}
		if again, err := decodeRecord(rec.encode()); err != nil || again.pin != rec.pin || again.tree != rec.tree || again.layout.Count() != rec.layout.Count() {
			t.Errorf("%+v became %+v, %v", rec, again, err)
		}
	})
}

func TestRecord_ofATreeSurvivesEncoding(t *testing.T) {
	t.Parallel()
	layout, err := piece.LayoutOf(16<<10, []int64{5, 0, 100_000})
	if err != nil {
		t.Fatal(err)
	}
	want := record{part: "/a.part", source: "s", pin: piece.ManifestPin([32]byte{1}, layout), layout: layout, tree: true, clean: true, modified: 77}
	got, err := decodeRecord(want.encode())
	if err != nil || got.layout.Count() != layout.Count() || got.layout.Size != layout.Size {
		t.Fatalf("got %+v, %v", got, err)
	}
	if got.layout = layout; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func FuzzDecodeKept(f *testing.F) {
	k := Kept{Path: "/a", Size: 1, PieceLength: 64 << 10, Sums: []Sum{{"md5", make([]byte, 16)}}, From: []string{"http://a/"}}
	stamps := encodeStamps(7, []Stamp{{Size: 5, Modified: 7}, {Size: -1}})
	for _, k.Pin = range []piece.Pin{{}, piece.ManifestPin([32]byte{1}, piece.Layout{Size: 1, PieceLength: 64 << 10})} {
		whole, err := unseal(k.encode(7))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(whole, stamps[:len(stamps)-4])
	}
	f.Fuzz(func(t *testing.T, value, files []byte) {
		if k, number, err := decodeKept("/a", seal(value)); err == nil {
			again, n, err := decodeKept("/a", k.encode(number))
			if err != nil || n != number || !reflect.DeepEqual(again, k) {
				t.Errorf("%+v became %+v, %v", k, again, err)
			}
		}
		if stamps, number, err := decodeStamps(seal(files)); err == nil {
			again, n, err := decodeStamps(encodeStamps(number, stamps))
			if err != nil || n != number || !slices.Equal(again, stamps) {
				t.Errorf("%+v became %+v, %v", stamps, again, err)
			}
		}
	})
}
