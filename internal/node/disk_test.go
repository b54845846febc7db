package node_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"dragonload/internal/node"
	"dragonload/internal/store"
)

// troubled is a disk whose trouble can be switched on and off.
type troubled struct {
	store.Disk
	writes  atomic.Pointer[error] // of pieces
	journal atomic.Pointer[error]
	reads   atomic.Int32 // so many fail, each of another place
	places  sync.Map
	syncs   atomic.Int32 // likewise
	free    atomic.Int64 // as told, if not 0
	tries   atomic.Int32 // calls that met trouble
}

func newTroubled() *troubled { return &troubled{Disk: store.OS} }

func (d *troubled) Free(folder string) (int64, bool) {
	if n := d.free.Load(); n != 0 {
		return n, true
	}
	return d.Disk.Free(folder)
}

func (d *troubled) Journal(path string, change func() error) error {
	if err := d.journal.Load(); err != nil {
		d.tries.Add(1)
		return &fs.PathError{Op: "write", Path: path, Err: *err}
	}
	return d.Disk.Journal(path, change)
}

func (d *troubled) Create(path string) (store.Handle, error) {
	h, err := d.Disk.Create(path)
	if err != nil || !strings.HasSuffix(path, ".part") {
		return h, err
	}
	return troubledFile{h, d}, nil
}

func (d *troubled) Open(path string, write bool) (store.Handle, error) {
	h, err := d.Disk.Open(path, write)
	if err != nil || !strings.HasSuffix(path, ".part") {
		return h, err
	}
	return troubledFile{h, d}, nil
}

type troubledFile struct {
	store.Handle
	d *troubled
}

func (f troubledFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.d.writes.Load(); err != nil {
		f.d.tries.Add(1)
		return 0, &fs.PathError{Op: "write", Path: "part", Err: *err}
	}
	return f.Handle.WriteAt(p, off)
}

func (f troubledFile) ReadAt(p []byte, off int64) (int, error) {
	if _, met := f.d.places.LoadOrStore(off>>16, true); !met && f.d.reads.Add(-1) >= 0 {
		return 0, &fs.PathError{Op: "read", Path: "part", Err: syscall.EIO}
	}
	return f.Handle.ReadAt(p, off)
}

func (f troubledFile) Datasync() error {
	if f.d.syncs.Add(-1) >= 0 {
		return &fs.PathError{Op: "fdatasync", Path: "part", Err: syscall.EIO}
	}
	return f.Handle.Datasync()
}

func errno(e syscall.Errno) *error {
	var err error = e
	return &err
}

// warned waits for a warning with code and returns its sentence.
func (r *run) warned(t *testing.T, code string) string {
	t.Helper()
	var sentence string
	r.awaits(t, func(ev node.Event) bool {
		if ev.Warning != nil && ev.Warning.Code == code {
			sentence = ev.Warning.Message
			return true
		}
		return false
	})
	return sentence
}

func TestFault06DiskFullAtStart(t *testing.T) {
	t.Parallel()
	s := newSite(t, 5<<20)
	disk := newTroubled()
	disk.free.Store(3 << 20)
	n := start(t, node.Options{Disk: disk})
	spec := s.spec(t)
	e := download(t, t.Context(), n, spec).failure(t, node.ExitDiskFull)
	if e.Code != "disk-full" || !strings.Contains(e.Message, "needs 5.24 MB, 3.15 MB free on") || !strings.Contains(e.Message, spec.Dir) {
		t.Errorf("got %s: %s", e.Code, e.Message)
	}
	if left, _ := os.ReadDir(spec.Dir); len(left) > 0 {
		t.Errorf("%s was made", left[0].Name())
	}
}

// Rows 7, 8, 9: the download pauses, says why, and goes on by itself.
func TestFault07_08_09PauseAndGoOn(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		trouble, mend func(*troubled)
		code, says    string
	}{
		"07 disk full midway": {
			func(d *troubled) { d.writes.Store(errno(syscall.ENOSPC)) }, func(d *troubled) { d.writes.Store(nil) },
			"disk-full", "paused: disk full, needs 6.29 MB more on the disk of ",
		},
		"08 disk of the journal full": {
			func(d *troubled) { d.journal.Store(errno(syscall.ENOSPC)) }, func(d *troubled) { d.journal.Store(nil) },
			"disk-full", "paused: disk full, needs 1.05 MB more on the disk of ",
		},
		"09 disk read-only": {
			func(d *troubled) { d.writes.Store(errno(syscall.EROFS)) }, func(d *troubled) { d.writes.Store(nil) },
			"disk-read-only", "the disk is read-only",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 6<<20)
			disk := newTroubled()
			n := start(t, node.Options{Disk: disk})
			spec := s.spec(t)
			spec.LimitRate = 4 << 20
			tt.trouble(disk)
			r := download(t, t.Context(), n, spec)
			if says := r.warned(t, tt.code); !strings.Contains(says, tt.says) {
				t.Errorf("said: %s", says)
			}
			before := s.sent.Load()
			tt.mend(disk)
			s.check(t, r.result(t))
			if sent := s.sent.Load(); sent > int64(len(s.data))*105/100 {
				t.Errorf("the origin sent %d bytes, %d of them before the disk was mended, for a file of %d", sent, before, len(s.data))
			}
		})
	}
}

func TestFault10DiskErrorsOnRead(t *testing.T) {
	t.Parallel()
	s := newSite(t, 5<<20)
	disk := newTroubled()
	disk.reads.Store(3)
	n := start(t, node.Options{Disk: disk})
	r := download(t, t.Context(), n, s.spec(t))
	if says := r.warned(t, "disk-read"); !strings.Contains(says, "disk error in part ") {
		t.Errorf("said: %s", says)
	}
	if says := r.warned(t, "repaired"); !strings.Contains(says, "damaged on this disk and repaired") {
		t.Errorf("said: %s", says)
	}
	s.check(t, r.result(t))
}

func TestFault11FailedSync(t *testing.T) {
	t.Parallel()
	s := newSite(t, 5<<20)
	disk := newTroubled()
	disk.syncs.Store(1)
	n := start(t, node.Options{Disk: disk})
	r := download(t, t.Context(), n, s.spec(t))
	if says := r.warned(t, "disk-write"); !strings.Contains(says, "the disk reported a write failure") || !strings.Contains(says, "re-checking") {
		t.Errorf("said: %s", says)
	}
	s.check(t, r.result(t))

	disk.syncs.Store(2)
	if e := download(t, t.Context(), n, s.spec(t)).failure(t, node.ExitFile); e.Code != "disk-failing" || !strings.Contains(e.Message, "the disk is failing") {
		t.Errorf("after the second: %s: %s", e.Code, e.Message)
	}
}

func TestFault14PartialFileReplaced(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1<<20)
	n := start(t, node.Options{})
	spec := s.spec(t)
	part := filepath.Join(spec.Dir, "image.iso.part")
	precious := filepath.Join(t.TempDir(), "precious")
	for name, put := range map[string]func() error{
		"file": func() error { return os.WriteFile(part, []byte("precious"), 0o600) },
		"link": func() error { return os.Symlink(precious, part) },
	} {
		if err := os.WriteFile(precious, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := put(); err != nil {
			t.Skip(err)
		}
		e := download(t, t.Context(), n, spec).failure(t, node.ExitCannotCreate)
		if e.Code != "part-replaced" || !strings.Contains(e.Message, "the partial file was replaced; not touching it") {
			t.Errorf("a %s: %s: %s", name, e.Code, e.Message)
		}
		for _, path := range []string{part, precious} {
			if got, err := os.ReadFile(path); string(got) != "precious" {
				t.Errorf("a %s: %s now holds %q (%v)", name, path, got, err)
			}
		}
		os.Remove(part)
	}
	if err := os.WriteFile(part, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec.Restart = true // by choice
	s.check(t, download(t, t.Context(), n, spec).result(t))
}

func TestFault42FolderMovedAway(t *testing.T) {
	t.Parallel()
	s := newSite(t, 12<<20)
	n := start(t, node.Options{})
	spec := s.spec(t)
	spec.LimitRate = 3 << 20
	spec.Dir = filepath.Join(spec.Dir, "disk")
	away := spec.Dir + "-away"
	if err := os.Mkdir(spec.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := download(t, t.Context(), n, spec)
	r.awaits(t, func(ev node.Event) bool { return ev.Progress != nil && ev.Progress.Have > 0 })
	if err := os.Rename(spec.Dir, away); err != nil {
		t.Skip(err)
	}
	if err := os.Mkdir(spec.Dir, 0o700); err != nil { // as an empty mount point
		t.Fatal(err)
	}
	if says := r.warned(t, "folder-gone"); !strings.Contains(says, "the folder is gone") {
		t.Errorf("said: %s", says)
	}
	if left, _ := os.ReadDir(spec.Dir); len(left) > 0 {
		t.Errorf("%s was made in the empty folder", left[0].Name())
	}
	if err := os.Remove(spec.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(away, spec.Dir); err != nil {
		t.Fatal(err)
	}
	s.check(t, r.result(t))
}

func TestKilledRuns_leaveNothingOfStandardOutput(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	left := filepath.Join(state, "stdout-0123456789abcdef-1.part")
	if err := os.WriteFile(left, []byte("left"), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, node.Options{StateDir: state})
	if _, err := os.Lstat(left); !os.IsNotExist(err) {
		t.Errorf("%s is still there (%v)", left, err)
	}
}
