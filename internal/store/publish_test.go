package store

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFinish_neverReplacesAFileThatAppeared(t *testing.T) {
	t.Parallel()
	b := newBed(t, 300_000)
	f := b.begun()
	b.write(f, b.all()...)
	b.put(b.target(), []byte("mine"))
	if _, err := f.Finish(t.Context()); !errors.Is(err, ErrExists) {
		t.Fatalf("Finish: %v", err)
	}
	if got := b.read(b.target()); string(got) != "mine" {
		t.Errorf("the file that was there is now %q", got)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := b.read(b.part()); !bytes.Equal(got, b.data) {
		t.Error("the partial file has not been kept")
	}

	o := b.options()
	o.Overwrite = true
	f = b.openWith(o)
	if r, ok := f.Resumed(); !ok || !r.Have.All() {
		t.Fatalf("resumed %v: %+v", ok, r)
	}
	if err := f.Begin(b.pin, 0, false); err != nil {
		t.Fatal(err)
	}
	b.finish(f)
}

func TestFinish_saysThatThePartialFileIsGone(t *testing.T) {
	t.Parallel()
	b := newBed(t, 300_000)
	f := b.begun()
	b.write(f, b.all()...)
	if err := os.Remove(b.part()); err != nil {
		t.Skip(err)
	}
	if _, err := f.Finish(t.Context()); !errors.Is(err, ErrReplaced) || !strings.Contains(err.Error(), b.part()+" was removed or renamed") {
		t.Errorf("Finish: %v", err)
	}
}

func TestFinish_refusesAPartialFileThatWasReplaced(t *testing.T) {
	t.Parallel()
	b := newBed(t, 300_000)
	f := b.begun()
	b.write(f, b.all()...)
	if err := os.Remove(b.part()); err != nil {
		t.Skip(err)
	}
	b.put(b.part(), []byte("other"))
	if _, err := f.Finish(t.Context()); !errors.Is(err, ErrReplaced) {
		t.Errorf("Finish: %v", err)
	}
	if exists(b.target()) {
		t.Error("something has the final name")
	}
	f.Discard()
	if got := b.read(b.part()); string(got) != "other" {
		t.Error("Discard removed what is not its own")
	}
}

func TestFinish_tellsWhatIsMissing(t *testing.T) {
	t.Parallel()
	b := newBed(t, 300_000)
	f := b.begun()
	b.write(f, 0, 1, 3, 4)
	var missing *IncompleteError
	if _, err := f.Finish(t.Context()); !errors.As(err, &missing) || missing.Missing != 2 {
		t.Errorf("Finish: %v", err)
	}
}

func TestRename_withoutReplacingByEveryWay(t *testing.T) {
	t.Parallel()
	ways := map[string]func(from, to string) error{
		"in one step": renameExclusive, "by link": renameByLink, "over an empty file": renameOverEmpty,
	}
	for name, rename := range ways {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
			os.WriteFile(from, []byte("new"), 0o600)
			os.WriteFile(to, []byte("old"), 0o600)
			if err := rename(from, to); !errors.Is(err, fs.ErrExist) {
				t.Errorf("onto a taken name: %v", err)
			}
			if got, _ := os.ReadFile(to); string(got) != "old" {
				t.Errorf("the taken name now holds %q", got)
			}
			os.Remove(to)
			if err := rename(from, to); err != nil {
				t.Errorf("onto a free name: %v", err)
			}
			if got, _ := os.ReadFile(to); string(got) != "new" || exists(from) {
				t.Errorf("after renaming: %q", got)
			}
		})
	}
}

func TestFinish_copiesFromAPartialFileOnAnotherDisk(t *testing.T) {
	t.Parallel()
	b := newBed(t, 300_000)
	far, err := os.MkdirTemp("/dev/shm", "dragonload-test-")
	if err != nil {
		t.Skip("no second file system here")
	}
	t.Cleanup(func() { os.RemoveAll(far) })
	o := b.options()
	o.Part = filepath.Join(far, "file.iso.part")
	f := b.openWith(o)
	if err := f.Begin(b.pin, 0, false); err != nil {
		t.Fatal(err)
	}
	b.write(f, b.all()...)
	b.finish(f)
	if exists(o.Part) || exists(b.part()) {
		t.Error("a partial file is still there")
	}
}
