package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
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
