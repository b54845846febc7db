package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"dragonload/internal/piece"
)

// FuzzFile_recovery changes bytes of the journal and of the partial file with what it
// knows behind its bytes. What is claimed then has the bytes that were written.
func FuzzFile_recovery(f *testing.F) {
	first := newBed(f, 1<<20)
	begun := first.begun()
	first.write(begun, 0, 1, 2, 5, 7, 11, 15)
	if err := errors.Join(begun.Close(), first.journal.Close()); err != nil {
		f.Fatal(err)
	}
	journal, part := first.read(first.journalPath()), first.read(first.part())
	f.Add(uint32(0), []byte{}, uint32(0), []byte{}, uint32(0))
	f.Add(uint32(16), []byte{1, 2, 3}, uint32(1<<20), []byte{0, 0, 0}, uint32(0))
	f.Add(uint32(8192), make([]byte, 300), uint32(70_000), []byte("other bytes"), uint32(10))
	f.Fuzz(func(t *testing.T, at uint32, over []byte, at2 uint32, over2 []byte, cut uint32) {
		b := &bed{t: t, dir: t.TempDir(), data: first.data, pin: first.pin, layout: first.layout}
		if err := os.MkdirAll(filepath.Dir(b.journalPath()), 0o700); err != nil {
			t.Fatal(err)
		}
		changed, changed2 := append([]byte(nil), journal...), append([]byte(nil), part...)
		copy(changed[int(at)%len(changed):], over)
		copy(changed2[int(at2)%len(changed2):], over2)
		b.put(b.journalPath(), changed)
		b.put(b.part(), changed2[:len(changed2)-int(cut)%len(changed2)])
		j, err := OpenJournal(b.journalPath(), JournalOptions{})
		if err != nil {
			return // refused
		}
		defer j.Close()
		file, err := j.Open(t.Context(), b.options())
		if err != nil {
			return
		}
		defer file.Close()
		r, ok := file.Resumed()
		if !ok || r.Pin != b.pin {
			return
		}
		for i, ok := r.Have.Next(0); ok; i, ok = r.Have.Next(i + 1) {
			got := make([]byte, b.layout.Length(i))
			if r.Digests[i] != b.digest(i) {
				t.Errorf("piece %d is claimed with a digest that is not its own", i)
			} else if got, err := file.ReadPiece(i, got); err == nil && b.layout.Sum(i, got) != r.Digests[i] {
				t.Errorf("piece %d is claimed and has other bytes", i)
			}
		}
	})
}

// FuzzTree_recovery changes bytes of the journal, of what the part folder says of itself,
// of a file in it and of one that has its name. What is claimed then has the bytes that
// were written, and what has its name is never changed.
func FuzzTree_recovery(f *testing.F) {
	first := newGrove(f, someFiles).quick()
	begun := first.begun()
	some := append(first.pieces(6), first.pieces(3)[:10]...)
	first.write(begun, some...)
	first.settled(begun, len(some))
	if err := errors.Join(begun.Close(), first.journal.Close()); err != nil {
		f.Fatal(err)
	}
	paths := []string{filepath.Join("state", "journal.db"), filepath.Join("tree.part", ".dragonload"), filepath.Join("tree.part", "big"), filepath.Join("tree", "z", "last")}
	f.Add(byte(0), uint32(0), []byte{}, uint32(0))
	f.Add(byte(0), uint32(16), []byte{1, 2, 3}, uint32(0))
	f.Add(byte(1), uint32(10), []byte("other bytes"), uint32(10))
	f.Add(byte(2), uint32(70_000), make([]byte, 300), uint32(0))
	f.Add(byte(2), uint32(1), []byte("x"), uint32(100_000))
	f.Add(byte(3), uint32(5), []byte("x"), uint32(0))
	f.Add(byte(4), uint32(5), []byte("x"), uint32(70_000))
	f.Fuzz(func(t *testing.T, which byte, at uint32, over []byte, cut uint32) {
		g := &grove{t: t, dir: t.TempDir(), o: first.o, data: first.data}
		g.o.Target = filepath.Join(g.dir, "tree")
		copyTree(t, first.dir, g.dir)
		path := filepath.Join(g.dir, paths[int(which)%len(paths)])
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		copy(data[int(at)%len(data):], over)
		data = data[:len(data)-int(cut)%len(data)]
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		named, err := os.ReadFile(filepath.Join(g.o.Target, "z", "last"))
		if err != nil {
			t.Fatal(err)
		}
		j, err := OpenJournal(filepath.Join(g.dir, "state", "journal.db"), JournalOptions{})
		if err != nil {
			return // refused
		}
		defer j.Close()
		file, err := j.OpenTree(t.Context(), g.o)
		if err != nil {
			return
		}
		defer file.Close()
		r, ok := file.Resumed()
		if !ok {
			r.Have = piece.NewBitfield(g.o.Layout.Count())
		}
		if err := file.Begin(g.o.Pin, 0, false); err != nil {
			t.Fatal(err)
		}
		for i, ok := r.Have.Next(0); ok; i, ok = r.Have.Next(i + 1) {
			if got, err := file.ReadPiece(i, nil); err == nil && !bytes.Equal(got, g.bytes(i)) {
				t.Errorf("piece %d is claimed and has other bytes", i)
			}
		}
		g.write(file, g.pieces()...)
		if after, err := os.ReadFile(filepath.Join(g.o.Target, "z", "last")); err != nil || !bytes.Equal(after, named) {
			t.Errorf("a file that had its name was changed: %v", err)
		}
	})
}
