//go:build unix

package share

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dragonload/internal/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a library over files of a test.
type bench struct {
	*Library
	t       *testing.T
	dir     string
	db      string
	changed chan struct{}
	stop    func()
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir(), db: filepath.Join(t.TempDir(), "shares.db")}
	b.open()
	t.Cleanup(func() { b.close() })
	return b
}

func (b *bench) open() {
	b.t.Helper()
	b.changed = make(chan struct{}, 1000)
	changed := b.changed
	l, err := Open(Options{Path: b.db, Quiet: 20 * time.Millisecond, Changed: func() { changed <- struct{}{} }})
	if err != nil {
		b.t.Fatal(err)
	}
	b.Library, b.stop = l, func() {}
}

// run starts the keeper.
func (b *bench) run() {
	ctx, cancel := context.WithCancel(b.t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		b.Run(ctx)
	}()
	b.stop = func() { cancel(); <-over }
}

func (b *bench) close() {
	b.stop()
	if err := b.Library.Close(); err != nil {
		b.t.Error(err)
	}
}

func (b *bench) write(path, content string) string {
	b.t.Helper()
	at := filepath.Join(b.dir, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(content), 0o644); err != nil {
		b.t.Fatal(err)
	}
	return at
}

// replace changes a file in one step: one that is written in place is empty for a moment, and
// may be seen so.
func (b *bench) replace(path, content string) {
	b.t.Helper()
	beside := b.write("beside", content)
	if err := os.Rename(beside, filepath.Join(b.dir, filepath.FromSlash(path))); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) add(path string) Share {
	b.t.Helper()
	s, _, err := b.Add(b.t.Context(), Spec{Path: filepath.Join(b.dir, path), Room: "lab"}, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// await waits until the only share is as want says.
func (b *bench) await(want func(Share) bool) Share {
	b.t.Helper()
	for {
		if all := b.List(); len(all) == 1 && want(all[0]) {
			return all[0]
		}
		select {
		case <-b.changed:
		case <-time.After(20 * time.Second):
			b.t.Fatalf("nothing changed any more; there are %+v", b.List())
		}
	}
}

// age makes a file one that nobody has written to for long.
func (b *bench) age(path string) {
	b.t.Helper()
	old := time.Now().Add(-24 * time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		b.t.Fatal(err)
	}
}

// poison changes a file's bytes but not what it is known by: who hashes it again shows.
func poison(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{'!'}, 0)
	if err := errors.Join(err, f.Close(), os.Chtimes(path, time.Time{}, info.ModTime())); err != nil {
		t.Fatal(err)
	}
}

// fileRoot is what the manifest says of a file.
func (b *bench) fileRoot(s Share, path string) string {
	b.t.Helper()
	m, err := b.Torrent(s)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range m.Files {
		if f.Path == path {
			return f.Root.String()
		}
	}
	return ""
}

func TestLibrary_remembersAndDoesNotHashAgain(t *testing.T) {
	b := newBench(t)
	b.write("set/a", "first")
	file := b.write("set/in/b", "second")
	before := b.add("set")
	if before.Files != 2 || before.Size != 11 || before.Spec.Name != "set" {
		t.Fatalf("shared %+v", before)
	}
	b.close()
	poison(t, file)

	b.open()
	if all := b.List(); len(all) != 1 || all[0].State != Checking {
		t.Fatalf("after the start there are %+v", all)
	}
	b.run()
	after := b.await(func(s Share) bool { return s.State == Offered })
	if after.Manifest != before.Manifest || after.Added.Unix() != before.Added.Unix() {
		t.Errorf("it was %v and is %v after a restart", before.Manifest, after.Manifest)
	}
	if _, ok := b.Offered(before.Manifest, "lab"); !ok {
		t.Error("it is not found by its manifest")
	}
	if _, ok := b.Offered(before.Manifest, "other"); ok {
		t.Error("it is offered to a room for which it is not")
	}
}

func TestLibrary_hashesWhatChangedWhileItWasAway(t *testing.T) {
	b := newBench(t)
	kept, changed := b.write("set/kept", "stays"), b.write("set/changed", "before")
	before := b.add("set")
	root := b.fileRoot(before, "kept")
	b.close()
	poison(t, kept)
	if err := os.Remove(changed); err != nil {
		t.Fatal(err)
	}
	b.write("set/changed", "after it all")

	b.open()
	b.run()
	after := b.await(func(s Share) bool { return s.State == Offered && s.Manifest != before.Manifest })
	if got := b.fileRoot(after, "kept"); got != root {
		t.Error("a file that had not changed was read again")
	}
	if b.fileRoot(after, "changed") == b.fileRoot(before, "changed") && after.Size == before.Size {
		t.Error("a file that had changed was not")
	}
}

func TestLibrary_noticesWhatHappens(t *testing.T) {
	b := newBench(t)
	b.write("set/a", "first")
	b.run()
	s := b.add("set")
	next := func(what string, files int) {
		t.Helper()
		old := s.Manifest
		s = b.await(func(s Share) bool { return s.Manifest != old && s.State == Offered })
		if s.Files != files {
			t.Errorf("after %s there are %d files, not %d", what, s.Files, files)
		}
	}
	b.write("set/b", "second")
	next("an addition", 2)
	b.write("set/deep/er/c", "third")
	next("an addition in new folders", 3)
	b.write("set/deep/er/d", "fourth")
	next("an addition in a folder that was new", 4)
	b.replace("set/a", "first, but longer")
	next("a change", 4)
	if err := os.RemoveAll(filepath.Join(b.dir, "set", "deep")); err != nil {
		t.Fatal(err)
	}
	next("a removal", 2)
	if s.Problem != "" {
		t.Errorf("with folders gone it says %q", s.Problem)
	}
	old := s.Manifest
	if err := os.Rename(filepath.Join(b.dir, "set"), filepath.Join(b.dir, "gone")); err != nil {
		t.Fatal(err)
	}
	b.await(func(s Share) bool { return s.State == Missing })
	if _, ok := b.Offered(old, "lab"); ok {
		t.Error("what is not there is offered")
	}
	if err := os.Rename(filepath.Join(b.dir, "gone"), filepath.Join(b.dir, "set")); err != nil {
		t.Fatal(err)
	}
	if s = b.await(func(s Share) bool { return s.State == Offered }); s.Manifest != old {
		t.Error("what came back is another")
	}
}

// The system goes on watching a folder that has been renamed, under its former name: one
// that is made in its place is another.
// The addresses that a file came from have what it was, not what somebody makes of it.
func TestLibrary_forgetsWebSeedsOfWhatHasChanged(t *testing.T) {
	b := newBench(t)
	b.run()
	seeds := []string{"https://example.org/film"}
	s, _, err := b.Add(t.Context(), Spec{Path: b.write("film", "first"), Room: "lab", WebSeeds: seeds}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if torrent, err := b.Torrent(s); err != nil || len(torrent.WebSeeds) != 1 {
		t.Fatalf("the web seeds are not in its manifest: %v", err)
	}
	old := s.Manifest
	b.write("film", "second, longer")
	s = b.await(func(s Share) bool { return s.Manifest != old && s.State == Offered })
	if torrent, err := b.Torrent(s); err != nil || len(torrent.WebSeeds) != 0 || len(s.Spec.WebSeeds) != 0 {
		t.Errorf("the web seeds of what it was are in the manifest of what it is: %v", err)
	}
}

func TestLibrary_watchesWhatTakesTheNameOfARenamedFolder(t *testing.T) {
	b := newBench(t)
	b.write("set/old/in/a", "first")
	b.run()
	s := b.add("set")
	step := func(what, path, content string, files int) {
		t.Helper()
		old := s.Manifest
		b.write(path, content)
		s = b.await(func(s Share) bool { return s.Manifest != old && s.State == Offered && s.Files == files })
		if s.Problem != "" {
			t.Errorf("after %s it says %q", what, s.Problem)
		}
	}
	old := s.Manifest
	if err := os.Rename(filepath.Join(b.dir, "set", "old"), filepath.Join(b.dir, "set", "new")); err != nil {
		t.Fatal(err)
	}
	s = b.await(func(s Share) bool { return s.Manifest != old && s.State == Offered })
	step("making the name again", "set/old/in/b", "second", 2)
	step("a change under that name", "set/old/in/c", "third", 3)
	step("a change in what was renamed", "set/new/in/d", "fourth", 4)
}

func TestLibrary_hashesAgainWhatIsSuspected(t *testing.T) {
	b := newBench(t)
	film, other := b.write("set/film", strings.Repeat("film", 1000)), b.write("set/other", "other")
	b.age(film)
	b.age(other)
	b.run()
	s := b.add("set")
	was, untouched := b.fileRoot(s, "film"), b.fileRoot(s, "other")
	poison(t, film)
	poison(t, other)
	b.Suspect(s.Number, Manifest{}, 1) // of what it is no more
	b.Suspect(s.Number, s.Manifest, 0)
	old := s.Manifest
	s = b.await(func(s Share) bool { return s.Manifest != old && s.State == Offered })
	if b.fileRoot(s, "film") == was {
		t.Error("it was not hashed again")
	}
	if b.fileRoot(s, "other") != untouched {
		t.Error("what nobody suspects was hashed again")
	}
}

func TestLibrary_hashesAFileOfTwoSharesOnce(t *testing.T) {
	b := newBench(t)
	file := b.write("one/film", strings.Repeat("film", 100_000))
	one := b.add("one/film")
	root := b.fileRoot(one, "film")
	if err := os.MkdirAll(filepath.Join(b.dir, "two"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(file, filepath.Join(b.dir, "two", "same")); err != nil {
		t.Skip("no hard links here:", err)
	}
	b.write("two/other", "other")
	poison(t, file)
	if two := b.add("two"); b.fileRoot(two, "same") != root {
		t.Error("it was read again")
	}
	// And what has another name now.
	if err := os.Rename(file, filepath.Join(b.dir, "two", "renamed")); err != nil {
		t.Fatal(err)
	}
	if two := b.add("two"); b.fileRoot(two, "renamed") != root {
		t.Error("it was read again when it had another name")
	}
}

func TestLibrary_removes(t *testing.T) {
	b := newBench(t)
	b.write("a", "content")
	s := b.add("a")
	if got := b.Match(s.Manifest.String()[:8]); len(got) != 1 {
		t.Errorf("an id finds %d shares", len(got))
	}
	if got := b.Match(filepath.Join(b.dir, "a")); len(got) != 1 {
		t.Errorf("a path finds %d shares", len(got))
	}
	if _, err := b.Remove(s.Number); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Remove(s.Number); !errors.Is(err, ErrNoShare) {
		t.Errorf("to remove it twice is %v", err)
	}
	if _, ok := b.Offered(s.Manifest, "lab"); ok || len(b.List()) > 0 {
		t.Error("it is there still")
	}
	b.close()
	b.open()
	if len(b.List()) > 0 {
		t.Error("it came back")
	}
	if len(b.watcher.folders) > 0 {
		t.Errorf("still watched: %v", b.watcher.folders)
	}
}

func TestLibrary_refuses(t *testing.T) {
	b := newBench(t)
	b.write("bad/a:b", "colon")
	if err := os.MkdirAll(filepath.Join(b.dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(b.dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		is   error
	}{{"none", fs.ErrNotExist}, {"bad", manifest.ErrName}, {"empty", nil}, {"pipe", nil}} {
		_, _, err := b.Add(t.Context(), Spec{Path: filepath.Join(b.dir, c.path), Room: "lab"}, nil)
		if err == nil || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v", c.path, err)
		}
	}
	if len(b.List()) > 0 || len(b.watcher.folders) > 0 {
		t.Errorf("something was kept of it: %v, %v", b.List(), b.watcher.folders)
	}
}

func TestLibrary_leavesOutWhatCannotBeRead(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root reads everything")
	}
	b := newBench(t)
	b.write("set/a", "first")
	if err := os.Chmod(b.write("set/secret", "mine"), 0); err != nil {
		t.Fatal(err)
	}
	s, skipped, err := b.Add(t.Context(), Spec{Path: filepath.Join(b.dir, "set"), Room: "lab"}, nil)
	if err != nil || s.Files != 1 || len(skipped) != 1 || skipped[0].Path != "secret" {
		t.Errorf("%+v, left out %v: %v", s, skipped, err)
	}
}

func TestLibrary_givesUpWatchingAndSaysSo(t *testing.T) {
	b := newBench(t)
	var said strings.Builder
	b.watcher.log = slog.New(slog.NewTextHandler(&said, nil))
	b.watcher.add = func(string) error { return syscall.ENOSPC }
	b.write("set/a", "first")
	b.write("set/b/c", "second")
	s := b.add("set")
	if n := strings.Count(said.String(), "max_user_watches"); n != 1 {
		t.Errorf("said %d times: %s", n, said.String())
	}
	if !strings.Contains(s.Problem, "max_user_watches") || b.List()[0].Problem != s.Problem {
		t.Errorf("the share says %q", s.Problem)
	}
	e := b.entry(s.Number)
	b.again(e, 0)
	if wait := time.Until(e.next); wait > b.o.Rescan/5 {
		t.Errorf("it is looked at in %v", wait)
	}
	b.again(e, time.Hour)
	if wait := time.Until(e.next); wait < 19*time.Hour {
		t.Errorf("what took an hour is looked at again in %v", wait)
	}
	b.age(b.write("set/d", "third"))
	b.look(t.Context(), e)
	if now := b.List()[0]; now.Manifest == s.Manifest {
		t.Error("looking does not find what is new")
	}
}

func TestLibrary_leavesOutWhatIsBeingWritten(t *testing.T) {
	b := newBench(t)
	b.age(b.write("set/a", "first"))
	s := b.add("set")
	b.o.Quiet = time.Hour
	b.age(b.write("set/b", "second"))
	b.write("set/c", "unfinished")
	e := b.entry(s.Number)
	b.look(t.Context(), e)
	now := b.List()[0]
	if now.Files != 2 || b.fileRoot(now, "c") != "" {
		t.Errorf("%d files are offered while one is written", now.Files)
	}
	if e.touched.IsZero() {
		t.Error("it is not looked at again soon")
	}
	if err := os.Remove(filepath.Join(b.dir, "set", "a")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(b.dir, "set", "b")); err != nil {
		t.Fatal(err)
	}
	b.look(t.Context(), e)
	if now := b.List()[0]; now.State != Offered || e.touched.IsZero() {
		t.Errorf("while its only file is written it is %v", now.State)
	}
}

func TestLibrary_refusesASecondProcess(t *testing.T) {
	b := newBench(t)
	if _, err := Open(Options{Path: b.db}); !errors.Is(err, ErrLocked) {
		t.Errorf("to open it twice is %v", err)
	}
}

func TestLibrary_putsADamagedFileAside(t *testing.T) {
	db := filepath.Join(t.TempDir(), "shares.db")
	if err := os.WriteFile(db, []byte(strings.Repeat("no database ", 2000)), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Open(Options{Path: db})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := os.Stat(db + ".damaged"); err != nil {
		t.Error(err)
	}
}

// What was hashed is known to be unchanged by its time of change, for a day, also to the
// next process; not what was written just before, and not what was changed since.
func TestLibrary_provesThatFilesHaveNotChanged(t *testing.T) {
	b := newBench(t)
	later := time.Duration(0)
	add := func() map[string]File {
		t.Helper()
		b.now = func() time.Time { return time.Now().Add(later) }
		s, _, err := b.Add(t.Context(), Spec{Path: b.dir, Room: "r", Name: "n"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _, files, err := b.Content(s)
		if err != nil {
			t.Fatal(err)
		}
		found := make(map[string]File)
		for _, f := range files {
			found[f.Path] = f
		}
		return found
	}
	at := b.write("a", "one")
	info, err := os.Stat(at)
	if err != nil {
		t.Fatal(err)
	}
	want := changedOf(info)
	if want == 0 {
		t.Skip("the system does not tell when a file has changed")
	}
	later = -time.Hour // as if it had been written this very moment
	if got := add()["a"].Changed; got != 0 {
		t.Errorf("what was written just now is proved by %d", got)
	}
	later = time.Hour
	b.write("b", "two")
	files := add()
	if files["a"].Changed != 0 || files["b"].Changed == 0 {
		t.Errorf("of two files the second was hashed later than it was written: %+v", files)
	}
	proved := files["b"].Changed
	b.close()
	b.open()
	if got := add()["b"].Changed; got != proved {
		t.Errorf("the next process has %d instead of %d", got, proved)
	}
	later = proofLasts + 2*time.Hour
	if got := add()["b"].Changed; got != 0 {
		t.Errorf("after a day it is still %d", got)
	}
}

func TestProofs_areReadAsTheyWereWritten(t *testing.T) {
	all := []proof{{}, {changed: 1_700_000_000_123_456_789, at: 1_700_000_100}, {changed: 5, at: 6}}
	data := encodeProofs(all)
	if got := decodeProofs(data, len(all)); !slices.Equal(got, all) {
		t.Errorf("%v", got)
	}
	nothing := make([]proof, len(all))
	for name, bad := range map[string][]byte{"none": nil, "cut short": data[:len(data)-1], "too long": append(data[:len(data):len(data)], 0)} {
		if got := decodeProofs(bad, len(all)); !slices.Equal(got, nothing) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestSurvey_isReadAsItWasWritten(t *testing.T) {
	s := &survey{files: []seen{{"a/b", identity{1, 2, 3, -4}}, {"c", identity{}}}, folders: []string{"d", "e/f"}}
	data := s.encode()
	got, err := decodeSurvey(data)
	if err != nil || len(got.files) != 2 || got.files[0] != s.files[0] || got.files[1] != s.files[1] || len(got.folders) != 2 {
		t.Fatalf("%+v: %v", got, err)
	}
	for n := range data {
		if _, err := decodeSurvey(data[:n]); err == nil {
			t.Errorf("%d of %d bytes are taken", n, len(data))
		}
	}
}

func TestLibrary_triesAgainWhatChangesWhileItIsHashed(t *testing.T) {
	for _, c := range []struct {
		changes int
		ok      bool
	}{{1, true}, {2, true}, {100, false}} {
		b := newBench(t)
		at := b.write("set/a", strings.Repeat("first", 100_000))
		left := c.changes
		s, _, err := b.Add(t.Context(), Spec{Path: filepath.Dir(at), Room: "lab"}, func(done, total int64) {
			if left > 0 && done < total {
				left--
				b.write("set/a", strings.Repeat("other", 100_000+left))
			}
		})
		switch {
		case c.ok && (err != nil || s.Size != 500_000):
			t.Errorf("after %d changes: %+v, %v", c.changes, s, err)
		case !c.ok && !errors.Is(err, manifest.ErrFileChanged):
			t.Errorf("what changes all the time is %v", err)
		}
	}
}

func TestLibrary_endsWithItsCaller(t *testing.T) {
	b := newBench(t)
	b.write("set/a", strings.Repeat("first", 1_000_000))
	ctx, cancel := context.WithCancel(t.Context())
	_, _, err := b.Add(ctx, Spec{Path: filepath.Join(b.dir, "set"), Room: "lab"}, func(int64, int64) { cancel() })
	if !errors.Is(err, context.Canceled) || len(b.List()) > 0 || len(b.watcher.folders) > 0 {
		t.Errorf("stopped: %v; there are %v", err, b.List())
	}
}

func TestLibrary_contentIsWhereItLies(t *testing.T) {
	b := newBench(t)
	b.write("set/in/a", "first")
	b.write("one/only", "second")
	for _, c := range []struct{ share, folder, file string }{
		{"set", "set", "in/a"}, {"one", "one", "only"}, {"one/only", "one", "only"},
	} {
		s := b.add(c.share)
		_, folder, files, err := b.Content(s)
		if err != nil || folder != filepath.Join(b.dir, c.folder) || len(files) != 1 || files[0].Path != c.file {
			t.Errorf("%s lies in %s as %+v: %v", c.share, folder, files, err)
		}
		s.Manifest[0]++
		if _, _, _, err := b.Content(s); !errors.Is(err, ErrChanged) {
			t.Errorf("another manifest is %v", err)
		}
	}
}

// What the program keeps for itself, and what usually holds secrets, is in no share.
func TestLibrary_keepsSecretsOut(t *testing.T) {
	b := newBench(t)
	own := filepath.Dir(b.write("home/.local/state/dragonload/identity.key", "mine"))
	b.o.Own = []string{own, b.write("home/settings.toml", "password")}
	b.o.Filling = func(path string) bool { return path == filepath.Join(b.dir, "home", "film.part") }
	b.write("home/film.part", "half")
	b.write("home/other.part", "mine")
	b.write("home/notes", "for all")
	for _, secret := range []string{".ssh/config", "work/.netrc", "Keys/ID_RSA", ".config/gcloud/token"} {
		b.write("home/"+secret, "secret")
	}
	b.write("home/gcloud/notes", "for all")
	home := filepath.Join(b.dir, "home")
	s, skipped, err := b.Add(t.Context(), Spec{Path: home, Room: "lab"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := b.Torrent(s)
	if err != nil {
		t.Fatal(err)
	}
	var files, left []string
	for _, f := range m.Files {
		files = append(files, f.Path)
	}
	for _, one := range skipped {
		left = append(left, one.Path)
	}
	slices.Sort(left)
	if want := []string{"gcloud/notes", "notes", "other.part"}; !slices.Equal(files, want) {
		t.Errorf("shared are %q", files)
	}
	if want := []string{".config/gcloud", ".local/state/dragonload", ".ssh", "Keys/ID_RSA", "film.part", "settings.toml", "work/.netrc"}; !slices.Equal(left, want) {
		t.Errorf("left out are %q", left)
	}
	survey, err := b.loadSurvey(s.Number)
	if err != nil {
		t.Fatal(err)
	}
	if same, err := b.unchanged(t.Context(), home, survey); !same || err != nil {
		t.Errorf("looked at again it is another: %v", err)
	}

	// Whatever name leads there.
	link := filepath.Join(b.dir, "link")
	if err := os.Symlink(own, link); err != nil {
		t.Fatal(err)
	}
	b.write("home/.local/state/dragonload/rooms/lab/ca.key", "mine")
	for _, path := range []string{own, link, filepath.Join(own, "rooms"), filepath.Join(own, "identity.key"), filepath.Join(home, "settings.toml")} {
		if s, _, err := b.Add(t.Context(), Spec{Path: path, Room: "lab"}, nil); !errors.Is(err, ErrOwn) {
			t.Errorf("%s is shared as %+v: %v", path, s, err)
		}
	}
	if s := b.add("home/.ssh"); s.Files != 1 {
		t.Errorf("what is named itself is %+v", s)
	}
}

// A link that takes a share's place, or that of a folder above, leads nowhere.
func TestLibrary_followsNoLinkToAShare(t *testing.T) {
	for _, c := range []struct{ name, share, at, to string }{
		{"folder", "top/set", "top/set", "outside/set"},
		{"above", "top/set", "top", "outside"},
		{"file", "top/one", "top/one", "top/neighbour"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.write("top/set/a", "mine")
			b.write("top/one", "mine")
			b.write("top/neighbour", "longer than that")
			b.write("outside/set/stolen", "of somebody else")
			s := b.add(c.share)
			at := filepath.Join(b.dir, c.at)
			if err := os.Rename(at, at+".old"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join(b.dir, c.to), at); err != nil {
				t.Fatal(err)
			}
			if _, folder, files, err := b.Content(s); err == nil {
				t.Errorf("its content is %v in %s", files, folder)
			}
			b.run()
			b.touchAll()
			b.nudge()
			now := b.await(func(s Share) bool { return s.State != Checking && s.State != Offered })
			if now.State != Broken || !strings.Contains(now.Problem, "its path is a link now") || now.Manifest != s.Manifest || now.Size != s.Size {
				t.Errorf("it is %+v", now)
			}
			if err := errors.Join(os.Remove(at), os.Rename(at+".old", at)); err != nil {
				t.Fatal(err)
			}
			b.touchAll()
			b.nudge()
			if back := b.await(func(s Share) bool { return s.State == Offered }); back.Manifest != s.Manifest {
				t.Errorf("put back it is %+v", back)
			}
		})
	}
}

// A folder inside that cannot be read is left out, and what is beside it is shared.
func TestLibrary_leavesOutFoldersThatCannotBeRead(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root reads everything")
	}
	b := newBench(t)
	b.write("set/a", "first")
	b.write("set/locked/b", "mine")
	locked := filepath.Join(b.dir, "set", "locked")
	if err := os.Chmod(locked, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(locked, 0o700) }) // so that it can be removed
	s, skipped, err := b.Add(t.Context(), Spec{Path: filepath.Join(b.dir, "set"), Room: "lab"}, nil)
	if err != nil || s.Files != 1 || s.Problem != "" || len(skipped) != 1 || skipped[0].Path != "locked" {
		t.Fatalf("%+v, left out %v: %v", s, skipped, err)
	}
	survey, err := b.loadSurvey(s.Number)
	if err != nil {
		t.Fatal(err)
	}
	if same, err := b.unchanged(t.Context(), filepath.Join(b.dir, "set"), survey); !same || err != nil {
		t.Errorf("looked at again it is another: %v", err)
	}
	// Served it stays, whatever is locked later.
	b.run()
	if err := os.Mkdir(filepath.Join(b.dir, "set", "later"), 0); err != nil {
		t.Fatal(err)
	}
	b.write("set/new", "second")
	b.await(func(s Share) bool { return s.State == Offered && s.Files == 2 })
}
