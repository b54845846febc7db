package store

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
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
	f.Fuzz(func(t *testing.T, value []byte) {
		rec, err := decodeRecord(seal(value)) // past the checksum, to the decoder itself
		if err == nil && rec.layout.Validate() != nil {
			t.Errorf("accepted the layout %+v", rec.layout)
		}
	})
}
