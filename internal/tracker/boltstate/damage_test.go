package boltstate_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/tracker"
	"dragonload/internal/tracker/boltstate"
)

// A file that is damaged, before it is opened or while it is open, is an error that says what
// to do: no panic, no wait without end, and nothing is thrown away.
func TestState_damaged(t *testing.T) {
	t.Parallel()
	room := [32]byte{1}
	place := t.TempDir()
	path := filepath.Join(place, "tracker.db")
	s := open(t, place)
	for n := range 300 {
		if _, err := s.Number(t.Context(), room, piece.NodeID{byte(n), byte(n >> 8), 1}); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	look := func(name string, s tracker.State) {
		_, err1 := s.Members(t.Context(), room)
		_, err2 := s.Number(t.Context(), room, piece.NodeID{200, 200})
		_, err3 := s.Number(t.Context(), room, piece.NodeID{200, 201})
		for _, err := range []error{err1, err2, err3} {
			if err == nil || !strings.Contains(err.Error(), "damaged") {
				continue
			}
			told++
			if strings.Contains(err.Error(), path) && !strings.Contains(err.Error(), "move it away") {
				t.Errorf("%s: it does not say what to do: %v", name, err)
			}
		}
		if err := s.Close(); err != nil && !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: close: %v", name, err)
		}
	}
	rng := rand.New(rand.NewPCG(5, 5))
	for n := range 60 {
		bad := bytes.Clone(good)
		if at := rng.IntN(len(bad)); n%3 == 0 {
			bad = bad[:at]
		} else {
			rng := rand.New(rand.NewPCG(6, uint64(n)))
			for k := range min(512, len(bad)-at) {
				bad[at+k] = byte(rng.Uint32())
			}
		}
		cut := filepath.Join(t.TempDir(), "tracker.db")
		if err := os.WriteFile(cut, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		path = cut
		s, err := boltstate.OpenAt(cut, time.Now)
		if err == nil {
			look("before", s)
			continue
		}
		if told++; strings.Contains(err.Error(), "damaged") && !strings.Contains(err.Error(), "move it away") {
			t.Errorf("it does not say what to do: %v", err)
		}
		if now, err := os.ReadFile(cut); err != nil || len(now) < len(bad) {
			t.Errorf("the damaged file is not there any more: %v", err)
		}
	}
	for name, by := range map[string]func() error{
		"cut": func() error { return os.Truncate(path, 9000) },
		"overwritten": func() error {
			file, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = file.Write(bytes.Repeat([]byte{0xa5}, len(good)))
			return errors.Join(err, file.Close())
		},
	} {
		folder := t.TempDir()
		path = filepath.Join(folder, "tracker.db")
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, folder)
		if err := by(); err != nil {
			t.Fatal(err)
		}
		before := told
		if look(name+" while it is open", s); told == before {
			t.Errorf("%s while it is open: nothing is said", name)
		}
	}
	if told < 20 {
		t.Errorf("only %d errors", told)
	}
}
