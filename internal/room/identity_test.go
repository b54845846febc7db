package room

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"dragonload/internal/piece"
)

func TestLoadIdentity_isMadeOnceAndStays(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "state")
	first, err := LoadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := LoadIdentity(dir)
	if err != nil || first.ID != second.ID || !first.Key.Equal(second.Key) {
		t.Fatalf("%v, then %v, %v", first, second, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("files in the state folder: %v", entries)
	}
}

func TestLoadIdentity_isTheSameForAllWhoStartAtOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	ids := make([]piece.NodeID, 16)
	var wg sync.WaitGroup
	for n := range ids {
		wg.Go(func() {
			id, err := LoadIdentity(dir)
			if err != nil {
				t.Error(err)
				return
			}
			ids[n] = id.ID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("identities differ: %v", ids)
		}
	}
}

// A folder that was made by hand has the mode of the user's umask.
func TestLoadIdentity_closesAnEmptyFolder(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("mode bits mean nothing on Windows")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadIdentity(dir); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v, want that nobody else may look in", info.Mode(), err)
	}
}

func TestLoadIdentity_keepsOthersOut(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("mode bits mean nothing on Windows")
	}
	dir := filepath.Join(t.TempDir(), "state")
	if _, err := LoadIdentity(dir); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, identityFile)
	for path, want := range map[string]os.FileMode{dir: 0o700, key: 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Fatalf("%s has mode %v, %v, want %v", path, info.Mode(), err, want)
		}
		if err := os.Chmod(path, want|0o040); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadIdentity(dir); err == nil || !strings.Contains(err.Error(), "chmod") {
			t.Errorf("%s open to a group: %v, want the fix in the message", path, err)
		}
		if err := os.Chmod(path, want); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 4100, -1); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadIdentity(dir); err == nil || !strings.Contains(err.Error(), "another user") {
			t.Errorf("another user's folder: %v", err)
		}
	}
}

func TestLoadIdentity_refusesADamagedKey(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	if _, err := LoadIdentity(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, identityFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{"", "garbage", string(whole[:len(whole)/2]), strings.Repeat("x", maxFile+1),
		"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if id, err := LoadIdentity(dir); err == nil {
			t.Errorf("%.20q gave identity %v", data, id)
		}
		if after, _ := os.ReadFile(path); string(after) != data {
			t.Errorf("%.20q was replaced", data)
		}
	}
}
