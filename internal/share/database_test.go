package share

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A list of shares that is damaged, before it is opened or while it is open, ends no process
// and holds up nobody: it is put aside, or an error says what to do.
func TestLibrary_outlivesItsDamagedList(t *testing.T) {
	b := newBench(t)
	for n := range 40 {
		path := b.write(fmt.Sprintf("set%d/file", n), strings.Repeat("x", 5000*n+1))
		if _, _, err := b.Add(t.Context(), Spec{Path: filepath.Dir(path), Room: "lab"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	b.close()
	good, err := os.ReadFile(b.db)
	if err != nil {
		t.Fatal(err)
	}
	aside, rng := 0, rand.New(rand.NewPCG(1, 1))
	for n := range 60 {
		bad := bytes.Clone(good)
		at := rng.IntN(len(bad))
		if n%3 == 0 {
			bad = bad[:at]
		} else {
			for k := range min(2000, len(bad)-at) {
				bad[at+k] = byte(rng.Uint32())
			}
		}
		path := filepath.Join(t.TempDir(), "shares.db")
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(Options{Path: path})
		if err != nil {
			t.Errorf("state %d: %v", n, err)
			continue
		}
		if l.List(); l.Close() != nil {
			t.Errorf("state %d is not closed", n)
		}
		if now, err := os.ReadFile(path + ".damaged"); err == nil {
			if aside++; len(now) < len(bad) {
				t.Errorf("state %d: %d of %d bytes were put aside", n, len(now), len(bad))
			}
		}
	}
	if aside < 5 {
		t.Errorf("only %d of 60 were put aside", aside)
	}
	if err := os.WriteFile(b.db, good, 0o600); err != nil {
		t.Fatal(err)
	}
	b.open()
	if err := os.Truncate(b.db, 9000); err != nil {
		t.Fatal(err)
	}
	for n := range 2 {
		path := b.write(fmt.Sprintf("other%d", n), "other")
		_, _, err := b.Add(t.Context(), Spec{Path: path, Room: "lab"}, nil)
		if !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), "start dragonload again") {
			t.Errorf("it says %v", err)
		}
	}
	if got := len(b.List()); got != 40 {
		t.Errorf("%d shares are listed still", got)
	}
}
