package boltstate_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/tracker"
	"dragonload/internal/tracker/boltstate"
)

// page is how much of a file is written at once or not at all.
const page = 4096

// cuts returns what a file may be after a crash while it was changed from before to
// after: any number of the changed pages is written, in order, or in the opposite order.
// The two pages at the start, by one of which bbolt finds everything else, are written
// after all others are synced.
func cuts(before, after []byte) (files [][]byte) {
	grown := make([]byte, len(after))
	copy(grown, before)
	var changed []int
	for at := 0; at < len(after); at += page {
		if !bytes.Equal(grown[at:at+page], after[at:at+page]) {
			changed = append(changed, at)
		}
	}
	var data, meta []int
	for _, at := range changed {
		if at < 2*page {
			meta = append(meta, at)
		} else {
			data = append(data, at)
		}
	}
	files = append(files, bytes.Clone(before), bytes.Clone(grown))
	for _, backwards := range []bool{false, true} {
		file := bytes.Clone(grown)
		for k := range data {
			at := data[k]
			if backwards {
				at = data[len(data)-1-k]
			}
			copy(file[at:at+page], after[at:])
			files = append(files, bytes.Clone(file))
		}
		for _, at := range meta {
			copy(file[at:at+page/8], after[at:]) // torn within the page
			files = append(files, bytes.Clone(file))
			copy(file[at:at+page], after[at:])
			files = append(files, bytes.Clone(file))
		}
	}
	return files
}

// Cut at each write, the file knows of a change or it does not, and never less than
// before; once the change was acknowledged it knows.
func TestState_survivesACutAtEachWrite(t *testing.T) {
	t.Parallel()
	lab, one, two, out := [32]byte{1}, piece.NodeID{1}, piece.NodeID{2}, piece.NodeID{3}
	invite, expires := [16]byte{7}, time.Now().Add(time.Hour)
	list := &room.Removals{Room: lab, Epoch: 1, List: []room.Removal{{Key: out, At: 1}}}
	for _, c := range []struct {
		name   string
		change func(context.Context, tracker.State) error
		known  func(context.Context, tracker.State) (bool, error)
	}{
		{
			"an invite is used",
			func(ctx context.Context, s tracker.State) error {
				return s.UseInvite(ctx, lab, invite, one, 1, expires)
			},
			func(ctx context.Context, s tracker.State) (bool, error) {
				err := s.UseInvite(ctx, lab, invite, two, 1, expires)
				if errors.Is(err, room.ErrInviteUsed) {
					return true, s.UseInvite(ctx, lab, invite, one, 1, expires) // the same key asks again
				}
				return false, err
			},
		},
		{
			"a member is removed",
			func(ctx context.Context, s tracker.State) error { return s.SetRemovals(ctx, list) },
			func(ctx context.Context, s tracker.State) (bool, error) {
				removed, err := s.Removed(ctx, lab, out)
				kept, again := s.Removals(ctx, lab)
				if err = errors.Join(err, again); err == nil && removed != kept.Equal(list) {
					err = errors.New("the list and the member's record differ")
				}
				return removed, err
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			place := t.TempDir()
			s := open(t, place)
			defer s.Close()
			if _, err := s.Number(t.Context(), lab, out); err != nil { // what must not be lost
				t.Fatal(err)
			}
			path := filepath.Join(place, "tracker.db")
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.change(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			after, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files := cuts(before, after)
			if len(files) < 8 {
				t.Fatalf("only %d states of the file", len(files))
			}
			old := 0
			for n, file := range append(files, after) {
				cut := t.TempDir()
				if err := os.WriteFile(filepath.Join(cut, "tracker.db"), file, 0o600); err != nil {
					t.Fatal(err)
				}
				again := open(t, cut)
				members, err := again.Members(t.Context(), lab)
				if err != nil || len(members) == 0 {
					t.Errorf("state %d: members %v, %v", n, members, err)
				}
				known, err := c.known(t.Context(), again)
				if err != nil {
					t.Errorf("state %d: %v", n, err)
				}
				if !known {
					old++
				}
				if n == len(files) && !known {
					t.Error("what was acknowledged is forgotten")
				}
				again.Close()
			}
			if old == 0 || old == len(files)+1 {
				t.Errorf("%d of %d states are the old one; the test cuts nothing", old, len(files)+1)
			}
		})
	}
}

// dying is a State whose process ends at a use of an invite: before it is counted, or
// after that and before the answer.
type dying struct {
	tracker.State
	counted bool
}

var errKilled = errors.New("killed")

func (d dying) UseInvite(ctx context.Context, id [32]byte, invite [16]byte, key piece.NodeID, uses int, expires time.Time) error {
	if d.counted {
		if err := d.State.UseInvite(ctx, id, invite, key, uses, expires); err != nil {
			return err
		}
	}
	return errKilled
}

// A tracker that is killed between the use of an invite and its answer gives the same
// key its answer later, and nobody else.
func TestAdmit_killedBeforeItsAnswer(t *testing.T) {
	t.Parallel()
	folder := func() *room.Folder {
		f, err := room.OpenFolder(filepath.Join(t.TempDir(), "state"))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	home := folder()
	lab, err := home.Create("lab", "127.0.0.1:1", home.Identity())
	if err != nil {
		t.Fatal(err)
	}
	for name, counted := range map[string]bool{"before it is counted": false, "after": true} {
		place := t.TempDir()
		i, err := lab.NewInvite(1, time.Hour, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		admit := func(f *room.Folder, s room.Admitter) ([]byte, error) {
			csr, err := i.Request(f.Identity(), "host")
			if err != nil {
				t.Fatal(err)
			}
			return lab.Admit(t.Context(), i.Token, csr, time.Now(), s)
		}
		first, second := folder(), folder()
		s, err := boltstate.Open(filepath.Join(place, "tracker.db"))
		if err != nil {
			t.Fatal(err)
		}
		if chain, err := admit(first, dying{s, counted}); !errors.Is(err, errKilled) || chain != nil {
			t.Fatalf("%s: %v", name, err)
		}
		copied := t.TempDir()
		data, err := os.ReadFile(filepath.Join(place, "tracker.db"))
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if err := os.WriteFile(filepath.Join(copied, "tracker.db"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		again := open(t, copied)
		if counted {
			if _, err := admit(second, again); !errors.Is(err, room.ErrInviteUsed) {
				t.Errorf("%s: another key: %v, want ErrInviteUsed", name, err)
			}
		}
		for range 2 {
			chain, err := admit(first, again)
			if err != nil {
				t.Fatalf("%s: the same key: %v", name, err)
			}
			if _, err := first.Join(i, chain, time.Now()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := admit(second, again); !errors.Is(err, room.ErrInviteUsed) {
			t.Errorf("%s: another key then: %v, want ErrInviteUsed", name, err)
		}
		again.Close()
	}
}
