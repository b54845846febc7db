package room_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"dragonload/internal/room"
)

func TestFolder_adoptsASharedRoom(t *testing.T) {
	t.Parallel()
	open := func() *room.Folder {
		f, err := room.OpenFolder(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	first, second := open(), open()
	made, err := first.Create("lab", "tracker.example:4100", first.Identity())
	if err != nil {
		t.Fatal(err)
	}
	shared, err := made.Share()
	if err != nil {
		t.Fatal(err)
	}
	if said := fmt.Sprintf("%v %+v %s", shared, shared, shared); strings.Contains(said, string(shared.Key)) || said != "room lab room lab room lab" {
		t.Errorf("it prints as %q", said)
	}
	adopted, err := second.Adopt(shared, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if adopted.ID != made.ID || !adopted.Created || adopted.Valid(time.Now()) != nil {
		t.Errorf("adopted %v, made %v: %v", adopted.ID, made.ID, adopted.Valid(time.Now()))
	}
	if again, err := second.Adopt(shared, time.Now()); err != nil || again.ID != made.ID {
		t.Errorf("adopted again: %v", err)
	}
	// It admits and renews as the first does.
	csr, err := adopted.Request()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := adopted.Renew(csr, adopted.Cert.Leaf, time.Now()); err != nil {
		t.Error(err)
	}

	third := open()
	if _, err := third.Create("lab", "other.example:4100", third.Identity()); err != nil {
		t.Fatal(err)
	}
	if _, err := third.Adopt(shared, time.Now()); !errors.Is(err, room.ErrExists) {
		t.Errorf("a room of another authority is replaced: %v", err)
	}
	other, err := third.Get("lab")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.Share()
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*room.Shared){
		"another's key":       func(s *room.Shared) { s.Key = foreign.Key },
		"half a key":          func(s *room.Shared) { s.Key = s.Key[:16] },
		"another's authority": func(s *room.Shared) { s.Authority = foreign.Authority },
		"another name":        func(s *room.Shared) { s.Name = "home" },
		"no name":             func(s *room.Shared) { s.Name = "../lab" },
		"no tracker":          func(s *room.Shared) { s.Trackers = nil },
		"a bad address":       func(s *room.Shared) { s.Trackers = []string{"nowhere"} },
	} {
		bad := shared
		spoil(&bad)
		if _, err := open().Adopt(bad, time.Now()); err == nil {
			t.Errorf("%s: adopted", name)
		}
	}
}
