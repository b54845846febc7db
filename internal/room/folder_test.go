package room

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func reopen(t *testing.T, f *Folder) *Folder {
	t.Helper()
	again, err := OpenFolder(filepath.Dir(f.dir))
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func TestFolder_keepsWhatWasCreatedAndJoined(t *testing.T) {
	t.Parallel()
	here, there, a := place(t), place(t), newRegister()
	own := create(t, here, "lab")
	other := create(t, there, "home")
	i := invite(t, other, 0, time.Hour)
	chain, err := other.Admit(t.Context(), i.Token, csr(t, i, here), time.Now(), a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := here.Join(i, chain, time.Now()); err != nil {
		t.Fatal(err)
	}
	rooms, err := reopen(t, here).List()
	if err != nil || len(rooms) != 2 || rooms[0].Name != "home" || rooms[1].Name != "lab" {
		t.Fatalf("rooms %v, %v", rooms, err)
	}
	if home := rooms[0]; home.Created || home.ID != other.ID || !slices.Equal(home.Trackers, other.Trackers) || home.Valid(time.Now()) != nil {
		t.Errorf("joined room: %+v", home.Trackers)
	}
	lab := rooms[1]
	if !lab.Created || lab.ID != own.ID || lab.Valid(time.Now()) != nil {
		t.Error("created room came back changed")
	}
	// Its authority works still: what it signs is accepted by who knew it before.
	later := join(t, lab, a)
	if _, err := own.Authority.verify(later.Cert.Leaf, time.Now()); err != nil {
		t.Error(err)
	}
}

func TestFolder_filesArePrivate(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("mode bits mean nothing on Windows")
	}
	f := place(t)
	create(t, f, "lab")
	err := filepath.WalkDir(f.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFolder_namesTheNearestRoom(t *testing.T) {
	t.Parallel()
	f := place(t)
	create(t, f, "office")
	create(t, f, "lab")
	for name, near := range map[string]string{"ofice": "office", "lba": "", "lap": "lab", "offi": "office", "xyzzy": "", "../x": "", "Lab": "lab"} {
		_, err := f.Get(name)
		var missing *NoRoomError
		if !errors.Is(err, ErrNoRoom) || !errors.As(err, &missing) || missing.Near != near {
			t.Errorf("%s: %v, want %q as the nearest", name, err, near)
		}
	}
	if err := f.Leave("ofice"); !errors.Is(err, ErrNoRoom) {
		t.Errorf("Leave: %v", err)
	}
}

func TestFolder_createRefuses(t *testing.T) {
	t.Parallel()
	f := place(t)
	create(t, f, "lab")
	if _, err := f.Create("lab", "h:1", f.Identity()); !errors.Is(err, ErrExists) {
		t.Errorf("same name: %v", err)
	}
	if _, err := f.Create("La b", "h:1", f.Identity()); !errors.Is(err, ErrName) {
		t.Errorf("bad name: %v", err)
	}
	if _, err := f.Create("x", "nowhere", f.Identity()); err == nil || !strings.Contains(err.Error(), "HOST:PORT") {
		t.Errorf("bad address: %v", err)
	}
	if rooms, err := f.List(); err != nil || len(rooms) != 1 {
		t.Errorf("rooms %v, %v", rooms, err)
	}
}

func TestFolder_ofManyWhoCreateAtOnceOneDoes(t *testing.T) {
	t.Parallel()
	f := place(t)
	results := make([]error, 8)
	var wg sync.WaitGroup
	for n := range results {
		wg.Go(func() { _, results[n] = f.Create("lab", "h:1", f.Identity()) })
	}
	wg.Wait()
	won := 0
	for _, err := range results {
		if err == nil {
			won++
		} else if !errors.Is(err, ErrExists) {
			t.Errorf("%v, want ErrExists", err)
		}
	}
	if won != 1 {
		t.Errorf("%d created it", won)
	}
	if _, err := f.Get("lab"); err != nil {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(f.dir); len(entries) != 1 {
		t.Errorf("left over: %v", entries)
	}
}

func TestFolder_leaveForgetsEverything(t *testing.T) {
	t.Parallel()
	f := place(t)
	r := create(t, f, "lab")
	if err := f.Leave("lab"); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(f.dir); len(entries) != 0 {
		t.Errorf("left over: %v", entries)
	}
	if err := f.Save(r); !errors.Is(err, ErrNoRoom) {
		t.Errorf("saving a room that was left: %v", err)
	}
	if again := create(t, f, "lab"); again.ID == r.ID {
		t.Error("the same room again")
	}
}

func TestFolder_joinRefusesAnotherRoomOfTheName(t *testing.T) {
	t.Parallel()
	first, second, joiner, a := create(t, place(t), "lab"), create(t, place(t), "lab"), place(t), newRegister()
	admit := func(r *Room) (Invite, []byte) {
		i := invite(t, r, 0, time.Hour)
		chain, err := r.Admit(t.Context(), i.Token, csr(t, i, joiner), time.Now(), a)
		if err != nil {
			t.Fatal(err)
		}
		return i, chain
	}
	i1, chain1 := admit(first)
	i2, chain2 := admit(second)
	if _, err := joiner.Join(i2, chain1, time.Now()); !errors.Is(err, ErrInviteForeign) {
		t.Errorf("certificate of another room: %v", err)
	}
	renamed := i1
	renamed.Room = "home"
	if _, err := joiner.Join(renamed, chain1, time.Now()); !errors.Is(err, ErrInviteForeign) {
		t.Errorf("link that was given another name: %v", err)
	}
	if _, err := place(t).Join(i1, chain1, time.Now()); err == nil {
		t.Error("another node took the certificate")
	}
	for _, garbage := range [][]byte{nil, []byte("x"), chain1[:len(chain1)/2], make([]byte, 1<<20), append(slices.Clone(chain1), chain1...)} {
		if _, err := joiner.Join(i1, garbage, time.Now()); err == nil {
			t.Errorf("joined by %.20q", garbage)
		}
	}
	if _, err := joiner.Join(i1, chain1, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := joiner.Join(i2, chain2, time.Now()); !errors.Is(err, ErrExists) {
		t.Errorf("second room called lab: %v", err)
	}
	if r, err := joiner.Get("lab"); err != nil || r.ID != first.ID {
		t.Errorf("the first room is gone: %v", err)
	}
	// The same room by other addresses: known ones are kept.
	i1.Addrs = []string{"new.example:1"}
	r, err := joiner.Join(i1, chain1, time.Now())
	if err != nil || !slices.Equal(r.Trackers, []string{"new.example:1", "tracker.example:4100"}) {
		t.Errorf("addresses %v, %v", r.Trackers, err)
	}
}

func TestFolder_oneDamagedRoomHidesNoOther(t *testing.T) {
	t.Parallel()
	f := place(t)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		create(t, f, name)
	}
	damage := map[string]string{"a": roomFile, "b": authorityFile, "c": certFile, "d": authorityKey}
	for name, file := range damage {
		if err := os.WriteFile(filepath.Join(f.dir, name, file), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Get(name); err == nil || errors.Is(err, ErrNoRoom) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s of room %s damaged: %v", file, name, err)
		}
	}
	rooms, err := f.List()
	if err == nil || len(rooms) != 1 || rooms[0].Name != "e" {
		t.Errorf("%v, %v", rooms, err)
	}
	if err := os.Remove(filepath.Join(f.dir, "e", certFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Get("e"); err == nil || errors.Is(err, ErrNoRoom) {
		t.Errorf("a room without its certificate: %v", err)
	}
}

func TestFolder_refusesFilesOfAnotherRoom(t *testing.T) {
	t.Parallel()
	f := place(t)
	create(t, f, "a")
	create(t, f, "b")
	for _, file := range []string{authorityFile, authorityKey, roomFile} {
		own := filepath.Join(f.dir, "a", file)
		kept, err := os.ReadFile(own)
		if err != nil {
			t.Fatal(err)
		}
		foreign, err := os.ReadFile(filepath.Join(f.dir, "b", file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(own, foreign, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Get("a"); err == nil {
			t.Errorf("room a with %s of room b was opened", file)
		}
		if err := os.WriteFile(own, kept, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFolder_creatorRenewsItself(t *testing.T) {
	t.Parallel()
	f := place(t)
	r := create(t, f, "lab")
	// The machine was off for 40 days.
	leaf, err := r.Authority.sign(r.caKey, f.Identity().ID, "host", Use{}, time.Now().Add(-40*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(filepath.Join(f.dir, "lab", certFile), encodeCert(leaf)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		renewed, err := f.Get("lab")
		if err != nil {
			t.Fatal(err)
		}
		if err := renewed.Valid(time.Now()); err != nil {
			t.Error(err)
		}
		if !time.Now().Before(renewed.RenewAt()) {
			t.Error("is to be renewed at once")
		}
	}
}
