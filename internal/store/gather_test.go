package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"dragonload/internal/piece"
)

// become makes the content another version of itself: with other files, of which each has the
// bytes of the one of its name, or of the one that from names, as far as they go.
func (g *grove) become(files []TreeFile, from map[string]string) {
	g.t.Helper()
	before := *g
	data := func(path string, size int64) []byte {
		old, named := from[path]
		if !named {
			old = path
		}
		bytes := randomBytes(int(size), 17)
		for k, f := range before.o.Files {
			if f.Path == old {
				copy(bytes, before.content(k))
			}
		}
		return bytes
	}
	next := contentOf(files)
	next.data = nil
	for _, f := range files {
		next.data = append(next.data, data(f.Path, f.Size)...)
	}
	for i := range next.o.Digests {
		next.o.Digests[i] = next.o.Layout.Sum(piece.Index(i), next.bytes(piece.Index(i)))
	}
	next.o.Target, next.o.Folders = g.o.Target, g.o.Folders
	version := g.o.Pin.Validator[:62]
	next.o.Pin.Validator = string(version[0]+1) + version[1:] + next.o.Pin.Validator[62:]
	g.o, g.data = next.o, next.data
}

// secondVersion has a file that is gone, one that is new, one that has grown, one that has
// another name, and one that has changed in its middle.
var secondVersion = []TreeFile{
	{Path: "a/b/c/deep", Size: 5000}, {Path: "a/empty", Size: 0}, {Path: "big", Size: 40<<16 + 77},
	{Path: "fresh", Size: 300}, {Path: "moved/piece", Size: 64 << 10}, {Path: "z/last", Size: 250_000},
}

func secondFrom() map[string]string { return map[string]string{"moved/piece": "piece"} }

func TestTree_goesOnWithTheFolderOfAFormerVersion(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"closed", "killed", "without a journal", "stopped again"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			g := newGrove(t, slices.Clone(someFiles))
			f := g.begun()
			// big is incomplete, z/last lacks its end; whatever is whole gets its name.
			g.write(f, append(g.pieces(0, 2, 4), append(g.pieces(3)[5:], g.pieces(6)[:2]...)...)...)
			if how == "killed" || how == "without a journal" {
				if err := f.p.await(t.Context(), func() bool { return f.p.durable.Count() == f.p.have.Count() }); err != nil {
					t.Fatal(err)
				}
				g.crash(f)
			} else if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if how == "without a journal" {
				if err := errors.Join(g.journal.Close(), os.Remove(filepath.Join(g.dir, "state", "journal.db"))); err != nil {
					t.Fatal(err)
				}
				g.openJournal()
			}
			old := len(g.pieces(3)) - 5
			g.become(secondVersion, secondFrom())
			f = g.open()
			left, ok := f.Resumed()
			if want := len(g.pieces(0)) + old + 2; !ok || left.Have.Count() != want || left.Pin != g.o.Pin {
				t.Fatalf("of the former version %d pieces are found, not %d", left.Have.Count(), want)
			}
			if err := f.Begin(g.o.Pin, 0, false); err != nil {
				t.Fatal(err)
			}
			if how == "stopped again" {
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
				f = g.begun()
				if held := f.Held(); held.Count() != left.Have.Count() {
					t.Errorf("%d pieces are left, not %d", held.Count(), left.Have.Count())
				}
			}
			for _, i := range g.pieces() {
				if held := f.Held(); !held.Has(i) {
					g.write(f, i)
				}
			}
			for _, gone := range []string{"a/one", "piece"} { // had their names already, and are their user's
				if err := os.Remove(filepath.Join(g.o.Target, gone)); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
			}
			g.finish(f)
		})
	}
}

// complete writes what f lacks, and finishes it.
func (g *grove) complete(f *File) {
	g.t.Helper()
	for _, i := range g.pieces() {
		if held := f.Held(); !held.Has(i) {
			g.write(f, i)
		}
	}
	g.finish(f)
}

func TestTree_goesOnWithAFileThatHasBecomeShorter(t *testing.T) {
	t.Parallel()
	g := newGrove(t, []TreeFile{{Path: "big", Size: 40 << 16}})
	f := g.begun()
	g.write(f, 1, 2, 30, 39)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	g.become([]TreeFile{{Path: "big", Size: 20<<16 + 5}}, nil)
	f = g.begun()
	if held := f.Held(); held.Count() != 2 {
		t.Errorf("%d pieces are gone on with, not 2", held.Count())
	}
	g.complete(f)
}

// Finished files that have changed in the new version are not replaced unasked, and a folder
// that has nothing of it is none of a former version.
func TestTree_leavesWhatIsNoFormerVersion(t *testing.T) {
	t.Parallel()
	g := newGrove(t, slices.Clone(someFiles)).quick()
	f := g.begun()
	g.write(f, append(g.pieces(0), g.pieces(3)[5:]...)...)
	g.settled(f, len(g.pieces(0, 3))-5)
	if !g.named(0) {
		t.Fatal("a whole file has not got its name")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	deep := filepath.Join(g.o.Target, "a", "b", "c", "deep")
	mine, err := os.ReadFile(deep)
	if err != nil {
		t.Fatal(err)
	}
	first := *g
	g.become(secondVersion, map[string]string{"a/b/c/deep": "", "big": "", "z/last": ""})
	if _, err := g.journal.OpenTree(t.Context(), g.o); !errors.Is(err, ErrExists) {
		t.Errorf("a finished file that has changed: %v", err)
	}
	g.o.Overwrite = true
	if _, err := g.journal.OpenTree(t.Context(), g.o); !errors.Is(err, ErrReplaced) {
		t.Errorf("nothing in common: %v", err)
	}
	if now, err := os.ReadFile(deep); err != nil || string(now) != string(mine) {
		t.Errorf("a finished file was touched: %v", err)
	}
	g.o, g.data = first.o, first.data
	g.become(secondVersion, map[string]string{"a/b/c/deep": ""})
	g.o.Overwrite = true
	f = g.begun()
	g.complete(f)
}

// A finished folder is its user's, also where an unfinished version lies beside it.
func TestTree_asksBeforeItGoesIntoAFinishedFolder(t *testing.T) {
	t.Parallel()
	g := newGrove(t, slices.Clone(someFiles))
	f := g.begun()
	g.write(f, g.pieces()...)
	g.finish(f)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	g.become(secondVersion, secondFrom())
	g.o.Overwrite = true
	f = g.begun()
	i := g.pieces(5)[0]
	g.write(f, i)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	g.become(append(slices.Clone(secondVersion), TreeFile{Path: "zz", Size: 5}), nil)
	g.o.Overwrite = false
	if _, err := g.journal.OpenTree(t.Context(), g.o); !errors.Is(err, ErrExists) {
		t.Errorf("into a finished folder: %v", err)
	}
}

func TestGather(t *testing.T) {
	t.Parallel()
	g := newGrove(t, slices.Clone(someFiles))
	f := g.begun()
	g.write(f, g.pieces()...)
	g.finish(f)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	// Its user has changed one piece of a file, which nobody notices before it is read.
	big := filepath.Join(g.o.Target, "big")
	h, err := os.OpenFile(big, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.WriteAt([]byte("mine"), 7<<16); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(big, past, past); err != nil {
		t.Fatal(err)
	}
	before := t.TempDir()
	copyTree(t, g.o.Target, before)

	g.become(secondVersion, secondFrom())
	g.o.Target = filepath.Join(g.dir, "second")
	f = g.begun()
	folders, err := f.Beside()
	if err != nil || !slices.Equal(folders, []string{"tree"}) {
		t.Fatalf("beside it are %v, %v", folders, err)
	}
	bytes, from, err := f.Gather(t.Context(), folders)
	// All of deep and of piece, under its new name, big but for a piece, the first three of last.
	if want := int64(5000 + 64<<10 + 39<<16 + 77 + 3<<16); err != nil || bytes != want || len(from) != 1 {
		t.Fatalf("gathered %d bytes, not %d, from %v: %v", bytes, want, from, err)
	}
	held := f.Held()
	if i := g.pieces(2)[7]; held.Has(i) {
		t.Error("a piece that was changed is taken")
	}
	for i, ok := held.Next(0); ok; i, ok = held.Next(i + 1) {
		if _, err := f.ReadPiece(i, nil); err != nil {
			t.Error(err)
		}
	}
	for _, i := range g.pieces() {
		if !held.Has(i) {
			g.write(f, i)
		}
	}
	g.finish(f)
	g.same(before, filepath.Join(g.dir, "tree"))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g.o.Target = filepath.Join(g.dir, "third")
	f = g.begun()
	if folders, err = f.Beside(); err != nil || !slices.Equal(folders, []string{"second", "tree"}) {
		t.Errorf("beside it are %v, %v", folders, err)
	}
	if _, _, err := f.Gather(ctx, folders); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
}

// same compares two folders, with the times of their files.
func (g *grove) same(want, got string) {
	g.t.Helper()
	for _, f := range someFiles {
		a, errA := os.Stat(filepath.Join(want, f.Path))
		b, errB := os.Stat(filepath.Join(got, f.Path))
		x, errX := os.ReadFile(filepath.Join(want, f.Path))
		y, errY := os.ReadFile(filepath.Join(got, f.Path))
		if err := errors.Join(errA, errB, errX, errY); err != nil || !a.ModTime().Equal(b.ModTime()) || string(x) != string(y) {
			g.t.Errorf("%s was changed: %v", f.Path, err)
		}
	}
}

// A folder of links leads nowhere.
func TestGather_followsNoLinks(t *testing.T) {
	t.Parallel()
	g := newGrove(t, slices.Clone(someFiles))
	f := g.begun()
	g.write(f, g.pieces()...)
	g.finish(f)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	away := filepath.Join(t.TempDir(), "away")
	if err := os.Rename(g.o.Target, away); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(away, g.o.Target); err != nil {
		t.Skip(err)
	}
	g.o.Target = filepath.Join(g.dir, "second")
	f = g.begun()
	if bytes, _, err := f.Gather(t.Context(), []string{"tree"}); bytes != 0 || err != nil {
		t.Errorf("%d bytes came through a link: %v", bytes, err)
	}
}
