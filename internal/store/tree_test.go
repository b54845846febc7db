package store

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dragonload/internal/piece"

	"pgregory.net/rapid"
)

// grove is a folder with a journal and a content of several files that the tests download.
type grove struct {
	t       testing.TB
	dir     string
	journal *Journal
	o       TreeOptions
	data    []byte
}

// someFiles are empty, small, of one piece, of several, in folders.
var someFiles = []TreeFile{
	{Path: "a/b/c/deep", Size: 5000}, {Path: "a/empty", Size: 0}, {Path: "a/one", Size: 1},
	{Path: "big", Size: 40<<16 + 77}, {Path: "piece", Size: 64 << 10}, {Path: "z/empty", Size: 0}, {Path: "z/last", Size: 200_000},
}

func newGrove(t testing.TB, files []TreeFile) *grove {
	t.Helper()
	g := contentOf(files)
	g.t, g.dir = t, t.TempDir()
	g.o.Target = filepath.Join(g.dir, "tree")
	g.openJournal()
	return g
}

// contentOf makes the content alone.
func contentOf(files []TreeFile) *grove {
	g := &grove{}
	sizes := make([]int64, len(files))
	for k, f := range files {
		sizes[k] = f.Size
	}
	layout, err := piece.LayoutOf(64<<10, sizes)
	if err != nil {
		panic(err)
	}
	g.data = randomBytes(int(layout.Size), 3)
	g.o = TreeOptions{
		Source: "source", Layout: layout, Files: files,
		Pin: piece.ManifestPin([32]byte{1, 2, 3}, layout), Folders: []string{"none/in/here"},
		Digests: make([]piece.Digest, layout.Count()),
	}
	for i := range g.o.Digests {
		g.o.Digests[i] = layout.Sum(piece.Index(i), g.bytes(piece.Index(i)))
	}
	return g
}

func (g *grove) openJournal() {
	g.t.Helper()
	j, err := OpenJournal(filepath.Join(g.dir, "state", "journal.db"), JournalOptions{})
	if err != nil {
		g.t.Fatal(err)
	}
	g.journal = j
	g.t.Cleanup(func() { j.Close() })
}

// quick makes the journal record, and name, everything at once.
func (g *grove) quick() *grove {
	g.journal.batchBytes, g.journal.batchDelay = 1, 0
	return g
}

func (g *grove) bytes(i piece.Index) []byte {
	r := g.o.Layout.Range(i)
	return g.data[r.Start:r.End]
}

func (g *grove) content(k int) []byte {
	r, _ := g.o.Layout.File(k)
	return g.data[r.Start:r.End]
}

func (g *grove) open() *File {
	g.t.Helper()
	f, err := g.journal.OpenTree(context.Background(), g.o)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { f.Close() })
	return f
}

func (g *grove) begun() *File {
	g.t.Helper()
	f := g.open()
	if err := f.Begin(g.o.Pin, 0, false); err != nil {
		g.t.Fatal(err)
	}
	return f
}

func (g *grove) write(f *File, pieces ...piece.Index) {
	g.t.Helper()
	for _, i := range pieces {
		if err := f.Write(i, g.bytes(i), g.o.Digests[i], false); err != nil {
			g.t.Fatalf("write piece %d: %v", i, err)
		}
	}
}

// pieces returns those of some files; of all without.
func (g *grove) pieces(files ...int) []piece.Index {
	var out []piece.Index
	for k := range g.o.Files {
		_, e := g.o.Layout.File(k)
		for i := e.First; i < e.End() && (len(files) == 0 || slices.Contains(files, k)); i++ {
			out = append(out, i)
		}
	}
	return out
}

// settled waits until what was written is recorded, and named if it is whole.
func (g *grove) settled(f *File, n int) {
	g.t.Helper()
	err := f.p.await(g.t.Context(), func() bool { return f.p.durable.Count() >= n && len(f.p.stale) == 0 })
	if err != nil {
		g.t.Fatal(err)
	}
	f.p.halt()
	f.p.start()
}

func (g *grove) finish(f *File) {
	g.t.Helper()
	done, err := f.Finish(g.t.Context(), "https://seed.example/tree/")
	if err != nil {
		g.t.Fatal(err)
	}
	if done.Path != g.o.Target {
		g.t.Errorf("saved as %s", done.Path)
	}
	g.check()
}

// check compares the folder with what it should be: nothing missing, nothing more.
func (g *grove) check() {
	g.t.Helper()
	want := map[string]bool{"none/in/here/": true}
	for k, file := range g.o.Files {
		if file.Skip {
			continue
		}
		want[file.Path] = true
		got, err := os.ReadFile(filepath.Join(g.o.Target, filepath.FromSlash(file.Path)))
		if err != nil || !bytes.Equal(got, g.content(k)) {
			g.t.Errorf("%s: %v, or other bytes", file.Path, err)
		}
	}
	for path := range want {
		for d := filepath.Dir(strings.TrimSuffix(path, "/")); d != "."; d = filepath.Dir(d) {
			want[d+"/"] = true
		}
	}
	err := filepath.WalkDir(g.o.Target, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == g.o.Target {
			return err
		}
		rel, _ := filepath.Rel(g.o.Target, path)
		rel = filepath.ToSlash(rel)
		if entry.IsDir() {
			rel += "/"
		}
		if !want[rel] {
			g.t.Errorf("%s should not be there", rel)
		}
		delete(want, rel)
		return nil
	})
	if err != nil || len(want) > 0 {
		g.t.Errorf("missing: %v, %v", want, err)
	}
	if exists(g.o.Target + ".part") {
		g.t.Error("the folder of incomplete files is left behind")
	}
}

func (g *grove) named(k int) bool {
	return exists(filepath.Join(g.o.Target, filepath.FromSlash(g.o.Files[k].Path)))
}

// copyTree copies a folder with the times of its files.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), info.Mode().Perm())
		}
		data, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, rel), data, info.Mode().Perm())
		}
		if err == nil {
			err = os.Chtimes(filepath.Join(to, rel), info.ModTime(), info.ModTime())
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

// crash leaves the disk as a kill would: what is there is kept, the File and the journal
// let go, and what was there put back.
func (g *grove) crash(f *File) {
	g.t.Helper()
	f.p.halt()
	kept := g.t.TempDir()
	copyTree(g.t, g.dir, kept)
	if err := errors.Join(f.Close(), g.journal.Close()); err != nil {
		g.t.Fatal(err)
	}
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		g.t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(g.dir, e.Name())); err != nil {
			g.t.Fatal(err)
		}
	}
	copyTree(g.t, kept, g.dir)
	g.openJournal()
}

func TestTree_finishesWhatWasWrittenInAnyOrderByManyWriters(t *testing.T) {
	t.Parallel()
	for _, files := range [][]TreeFile{nil, {{Path: "only", Size: 0}}, {{Path: "only", Size: 100_000}}, someFiles} {
		g := newGrove(t, files)
		f := g.begun()
		if f.Layout().Count() != g.o.Layout.Count() {
			t.Errorf("%d files: layout %+v", len(files), f.Layout())
		}
		order := g.pieces()
		rand.New(rand.NewPCG(5, 5)).Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
		var next atomic.Int64
		var work sync.WaitGroup
		for range 4 {
			work.Go(func() {
				for k := int(next.Add(1)) - 1; k < len(order); k = int(next.Add(1)) - 1 {
					i := order[k]
					if err := f.Write(i, g.bytes(i), g.o.Digests[i], true); err != nil {
						t.Error(err)
					}
					if got, err := f.ReadPiece(i, nil); err != nil || !bytes.Equal(got, g.bytes(i)) {
						t.Errorf("piece %d: %v", i, err)
					}
				}
			})
		}
		work.Wait()
		var all bytes.Buffer
		if err := f.Copy(t.Context(), &all); err != nil || !bytes.Equal(all.Bytes(), g.data) {
			t.Errorf("%d files: copied %d bytes, %v", len(files), all.Len(), err)
		}
		g.finish(f)
		for _, i := range order {
			if got, err := f.ReadPiece(i, nil); err != nil || !bytes.Equal(got, g.bytes(i)) {
				t.Errorf("piece %d after the end: %v", i, err)
			}
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if runtime.GOOS != "windows" && len(files) > 2 {
			info, err := os.Stat(filepath.Join(g.o.Target, "a"))
			if err != nil || info.Mode().Perm() != fileMode|0o111&(fileMode>>2) {
				t.Errorf("mode of a folder: %v, %v", info.Mode(), err)
			}
		}
	}
}

func TestTree_filesAppearAsTheyComplete(t *testing.T) {
	t.Parallel()
	g := newGrove(t, someFiles).quick()
	f := g.begun()
	if info, err := os.Stat(g.o.Target + ".part"); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
		t.Errorf("the folder of incomplete files: %v, %v", info, err)
	}
	big := g.pieces(3)
	g.write(f, append(big[1:], g.pieces(0, 6)...)...)
	g.settled(f, len(big)-1+len(g.pieces(0, 6)))
	for k, want := range []bool{true, false, false, false, false, false, true} {
		if g.named(k) != want {
			t.Errorf("%s is there: %v", g.o.Files[k].Path, !want)
		}
	}
	if _, err := f.ReadPiece(g.pieces(6)[1], nil); err != nil {
		t.Error(err)
	}
	if err := f.Write(big[0], g.bytes(big[1]), g.o.Digests[big[1]], true); err == nil {
		t.Error("took a piece that has not the manifest's digest")
	}
	_, err := f.Finish(t.Context())
	var lacks *IncompleteError
	if !errors.As(err, &lacks) || lacks.Missing != g.pieces(2)[0] {
		t.Errorf("finish: %v", err)
	}
	g.write(f, g.pieces()...)
	g.finish(f)
}

func TestTree_goesOnAfterAnyEnd(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"close", "kill", "kill, journal lost"} {
		g := newGrove(t, someFiles).quick()
		f := g.begun()
		some := append(g.pieces(0, 6), g.pieces(3)[:10]...)
		g.write(f, some...)
		g.settled(f, len(some))
		switch end {
		case "close":
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		case "kill":
			g.crash(f)
		default:
			g.crash(f)
			if err := errors.Join(g.journal.Close(), os.Remove(filepath.Join(g.dir, "state", "journal.db"))); err != nil {
				t.Fatal(err)
			}
			g.openJournal()
		}
		f = g.open()
		r, ok := f.Resumed()
		if !ok || r.Have.Count() != len(some) || r.Pin != g.o.Pin || r.Dropped != 0 {
			t.Fatalf("%s: resumed %v, %d of %d pieces, %d dropped", end, ok, r.Have.Count(), len(some), r.Dropped)
		}
		if r.Unclean != (end == "kill") || r.Rebuilt != (end == "kill, journal lost") {
			t.Errorf("%s: unclean %v, rebuilt %v", end, r.Unclean, r.Rebuilt)
		}
		for _, i := range some {
			if !r.Have.Has(i) {
				t.Errorf("%s: piece %d is not there", end, i)
			}
		}
		if err := f.Begin(g.o.Pin, 0, false); err != nil {
			t.Fatal(err)
		}
		g.write(f, g.pieces()...)
		g.finish(f)
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if _, known, err := g.journal.Record(g.o.Target); known || err != nil {
			t.Errorf("%s: the finished download is among the unfinished: %v", end, err)
		}
	}
}

func TestTree_makesOnlyWhatIsWanted(t *testing.T) {
	t.Parallel()
	g := newGrove(t, slices.Clone(someFiles))
	for _, k := range []int{0, 1, 3} {
		g.o.Files[k].Skip = true
	}
	wanted := g.o.Wanted()
	if wanted.Count() != len(g.pieces(2, 4, 5, 6)) {
		t.Errorf("%d pieces are wanted", wanted.Count())
	}
	f := g.begun()
	g.write(f, g.pieces(2, 4, 5, 6)...)
	g.finish(f)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	stamps, found, err := g.journal.KeptFiles(g.o.Target)
	if err != nil || !found || len(stamps) != len(someFiles) || stamps[3].Size != -1 || stamps[6].Size != someFiles[6].Size {
		t.Errorf("kept %v, %v, %+v", found, err, stamps)
	}

	// Later the rest: what is there is checked and counts.
	g.o.Files = someFiles
	f = g.open()
	r, ok := f.Resumed()
	if !ok || r.Have.Count() != wanted.Count() {
		t.Fatalf("resumed %v, %d of %d pieces", ok, r.Have.Count(), wanted.Count())
	}
	if err := f.Begin(g.o.Pin, 0, false); err != nil {
		t.Fatal(err)
	}
	g.write(f, g.pieces(0, 3)...)
	g.finish(f)
	if err := f.Close(); err != nil {
		t.Error(err)
	}

	// And once more: nothing is to be done.
	f = g.begun()
	g.finish(f)
}

func TestTree_servedAgainFromWhatIsKept(t *testing.T) {
	t.Parallel()
	g := newGrove(t, slices.Clone(someFiles))
	g.o.Files[0].Skip = true
	f := g.begun()
	g.write(f, g.pieces(2, 3, 4, 6)...)
	g.finish(f)
	if err := errors.Join(f.Close(), g.journal.Close()); err != nil {
		t.Fatal(err)
	}
	g.openJournal()
	all, err := g.journal.KeptManifests()
	if err != nil || len(all) != 1 || all[0].Path != g.o.Target || all[0].Pin != g.o.Pin || !all[0].Tree || all[0].Size != g.o.Layout.Size {
		t.Fatalf("kept %+v, %v", all, err)
	}
	if k, found, err := g.journal.Kept(g.o.Target); found || err != nil {
		t.Errorf("kept as one file: %+v, %v", k, err)
	}
	stamps, found, err := g.journal.KeptFiles(g.o.Target)
	if err != nil || !found {
		t.Fatal(found, err)
	}
	o := SharedOptions{Root: g.o.Target, Layout: g.o.Layout, Digests: g.o.Digests}
	for k, stamp := range stamps {
		if stamp.Size < 0 {
			o.Missing = append(o.Missing, k)
		}
		o.Files = append(o.Files, SharedFile{g.o.Files[k].Path, stamp})
	}
	s, err := OpenShared(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, i := range g.pieces(2, 3, 4, 6) {
		if got, err := s.ReadPiece(i, nil); err != nil || !bytes.Equal(got, g.bytes(i)) {
			t.Errorf("piece %d: %v", i, err)
		}
	}
}

func TestTree_neverTouchesWhatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	put := func(g *grove, rel, text string) string {
		path := filepath.Join(g.dir, filepath.FromSlash(rel))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	same := func(g *grove, path, text string) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	refused := func(g *grove, want error) {
		t.Helper()
		if f, err := g.journal.OpenTree(t.Context(), g.o); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
			if err == nil {
				f.Close()
			}
		}
	}
	g := newGrove(t, someFiles) // a folder of the final name
	path := put(g, "tree/a/one", "x")
	refused(g, ErrExists)
	other := put(g, "tree/other", "y")
	if err := os.WriteFile(filepath.Join(g.o.Target, "z"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g.o.Overwrite = true
	if err := os.Remove(filepath.Join(g.o.Target, "z")); err != nil {
		t.Fatal(err)
	}
	put(g, "tree/big", string(g.content(3)))
	f := g.open()
	if r, ok := f.Resumed(); !ok || r.Have.Count() != len(g.pieces(3)) {
		t.Errorf("with overwrite, of a folder with one whole file: %v, %d pieces", ok, r.Have.Count())
	}
	if err := f.Begin(g.o.Pin, 0, false); err != nil {
		t.Fatal(err)
	}
	same(g, path, "x")
	g.write(f, g.pieces()...)
	if _, err := f.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	same(g, path, string(g.content(2)))
	same(g, other, "y")
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	g.check()

	g = newGrove(t, someFiles) // a file of the final name
	put(g, "tree", "x")
	refused(g, ErrExists)
	g.o.Overwrite = true
	refused(g, ErrCannotCreate)

	g = newGrove(t, someFiles) // a folder of the part's name
	path = put(g, "tree.part/a/one", "x")
	refused(g, ErrReplaced)
	g.o.Restart = true
	refused(g, ErrReplaced)
	same(g, path, "x")

	g = newGrove(t, someFiles).quick() // a file that comes in the way
	f = g.begun()
	path = put(g, "tree/a/one", "x")
	g.write(f, g.pieces()...)
	if _, err := f.Finish(t.Context()); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), path) {
		t.Errorf("a file in the way: %v", err)
	}
	same(g, path, "x")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	g.finish(f)

	g = newGrove(t, someFiles).quick() // a finished file that its user has changed meanwhile
	f = g.begun()
	g.write(f, g.pieces(0, 3)...)
	g.settled(f, len(g.pieces(0, 3)))
	path = put(g, "tree/big", "mine")
	i := g.pieces(3)[0]
	if _, err := f.ReadPiece(i, nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("served what has changed: %v", err)
	}
	if err := f.Forget(i); err != nil {
		t.Fatal(err)
	}
	if err := f.Write(i, g.bytes(i), g.o.Digests[i], false); !errors.Is(err, ErrReplaced) {
		t.Errorf("wrote into it: %v", err)
	}
	same(g, path, "mine")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	refused(g, ErrExists)
	same(g, path, "mine")
}

func TestTree_followsNoLinks(t *testing.T) {
	t.Parallel()
	outside := func(t *testing.T) string {
		dir := t.TempDir()
		if err := os.Symlink(dir, filepath.Join(dir, "probe")); err != nil {
			t.Skip(err)
		}
		return dir
	}
	empty := func(t *testing.T, dir string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("%d names outside, %v", len(entries), err)
		}
	}
	for _, c := range []struct {
		name, at string
	}{{"part folder", "tree.part"}, {"final folder", "tree"}} {
		t.Run(c.name, func(t *testing.T) {
			g, dir := newGrove(t, someFiles), outside(t)
			g.o.Overwrite, g.o.Restart = true, true
			if err := os.Symlink(dir, filepath.Join(g.dir, c.at)); err != nil {
				t.Fatal(err)
			}
			if f, err := g.journal.OpenTree(t.Context(), g.o); err == nil {
				f.Close()
				t.Error("accepted")
			}
			empty(t, dir)
		})
	}
	for _, at := range []string{"tree.part/a", "tree.part/big"} {
		t.Run(at, func(t *testing.T) {
			g, dir := newGrove(t, someFiles), outside(t)
			f := g.begun()
			if err := os.Symlink(filepath.Join(dir, "probe"), filepath.Join(g.dir, at)); err != nil {
				t.Fatal(err)
			}
			i := g.pieces(0)[0]
			if strings.HasSuffix(at, "big") {
				i = g.pieces(3)[0]
			}
			if err := f.Write(i, g.bytes(i), g.o.Digests[i], false); !errors.Is(err, ErrReplaced) {
				t.Errorf("write: %v", err)
			}
			empty(t, dir)
		})
	}
	t.Run("tree/a", func(t *testing.T) {
		g, dir := newGrove(t, someFiles), outside(t)
		f := g.begun()
		g.write(f, g.pieces()...)
		if err := errors.Join(os.MkdirAll(g.o.Target, 0o700), os.Symlink(dir, filepath.Join(g.o.Target, "a"))); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Finish(t.Context()); err == nil {
			t.Error("finished")
		}
		empty(t, dir)
	})
}

// As TestFile_recoversFromAnyHistory, with files that have their names already, which
// nothing takes back.
func TestTree_recoversFromAnyHistory(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		files := []TreeFile{{Path: "d/a", Size: 3 << 16}, {Path: "d/b", Size: 10}, {Path: "d/none"}, {Path: "e", Size: 5<<16 - 3}}
		g := newGrove(t, files).quick()
		defer func() { g.journal.Close() }()
		count := g.o.Layout.Count()
		f, written, ever := g.begun(), piece.NewBitfield(count), piece.NewBitfield(count)
		index := rapid.Custom(func(r *rapid.T) piece.Index { return piece.Index(rapid.IntRange(0, count-1).Draw(r, "piece")) })
		reopen := func(orderly bool) {
			g.quick()
			f = g.open()
			left, ok := f.Resumed()
			if !ok {
				left.Have = piece.NewBitfield(count)
			}
			for i, ok := left.Have.Next(0); ok; i, ok = left.Have.Next(i + 1) {
				if !ever.Has(i) {
					r.Fatalf("recovered piece %d, which was never written", i)
				}
			}
			if orderly && left.Have.Count() < written.Count() {
				r.Fatalf("an orderly close kept %d of %d pieces", left.Have.Count(), written.Count())
			}
			written = left.Have.Clone()
			if err := f.Begin(g.o.Pin, 0, false); err != nil {
				r.Fatal(err)
			}
		}
		for range rapid.IntRange(1, 20).Draw(r, "steps") {
			switch rapid.SampledFrom([]string{"write", "write", "write", "write", "forget", "close", "kill", "lose the journal"}).Draw(r, "step") {
			case "write":
				i := index.Draw(r, "write")
				g.write(f, i)
				written.Set(i)
				ever.Set(i)
			case "forget":
				i := index.Draw(r, "forget")
				if err := f.Forget(i); err != nil {
					r.Fatal(err)
				}
				written.Unset(i)
			case "close":
				if err := f.Close(); err != nil {
					r.Fatal(err)
				}
				reopen(true)
			case "kill":
				g.crash(f)
				reopen(false)
			case "lose the journal":
				g.crash(f)
				if err := errors.Join(g.journal.Close(), os.Remove(filepath.Join(g.dir, "state", "journal.db"))); err != nil {
					r.Fatal(err)
				}
				g.openJournal()
				reopen(false)
			}
		}
		for i, ok := written.Next(0); ok; i, ok = written.Next(i + 1) {
			if got, err := f.ReadPiece(i, nil); err != nil || !bytes.Equal(got, g.bytes(i)) {
				r.Fatal(err)
			}
		}
		g.write(f, g.pieces()...)
		g.finish(f)
		if err := errors.Join(f.Close(), os.RemoveAll(g.dir)); err != nil {
			r.Fatal(err)
		}
	})
}

// After an orderly end only what somebody has written to since is hashed at once, and
// nothing gets its name unread.
func TestTree_findsDamageDoneWhileItWasClosed(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"part", "part, same time", "part, same time, and more is there", "named"} {
		g := newGrove(t, someFiles).quick()
		var damaged []piece.Index
		var mu sync.Mutex
		g.o.Damaged = func(i piece.Index, _ error) { mu.Lock(); damaged = append(damaged, i); mu.Unlock() }
		f := g.begun()
		some := append(g.pieces(6), g.pieces(3)[:10]...)
		g.write(f, some...)
		g.settled(f, len(some))
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(g.o.Target+".part", "big")
		if where == "named" {
			path = filepath.Join(g.o.Target, "z", "last")
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[70_000] ^= 1
		modified := info.ModTime().Add(time.Hour)
		if strings.HasPrefix(where, "part, same time") {
			modified = info.ModTime()
		}
		if strings.HasSuffix(where, "more is there") {
			if err := os.WriteFile(filepath.Join(g.o.Target, "piece"), g.content(4), 0o600); err != nil {
				t.Fatal(err)
			}
			some = append(some, g.pieces(4)...)
		}
		if err := errors.Join(os.WriteFile(path, data, 0o600), os.Chtimes(path, modified, modified)); err != nil {
			t.Fatal(err)
		}
		if where == "named" {
			if _, err := g.journal.OpenTree(t.Context(), g.o); !errors.Is(err, ErrExists) {
				t.Errorf("a file that its user has changed: %v", err)
			}
			continue
		}
		f = g.open()
		r, _ := f.Resumed()
		if want := len(some); where == "part" && (r.Dropped != 1 || r.Have.Count() != want-1) || where != "part" && r.Have.Count() != want {
			t.Errorf("%s: %d pieces, %d dropped", where, r.Have.Count(), r.Dropped)
		}
		if err := f.Begin(g.o.Pin, 0, false); err != nil {
			t.Fatal(err)
		}
		bad := g.pieces(3)[1]
		if where == "part" {
			g.write(f, bad)
		}
		g.write(f, g.pieces()...)
		_, err = f.Finish(t.Context())
		if where != "part" {
			var lacks *IncompleteError
			mu.Lock()
			if !errors.As(err, &lacks) || lacks.Missing != bad || !slices.Equal(damaged, []piece.Index{bad}) || g.named(3) {
				t.Errorf("%s: finish %v, told of %v", where, err, damaged)
			}
			mu.Unlock()
			g.write(f, bad)
			_, err = f.Finish(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		g.check()
	}
}

func TestTree_waitsForItsFolder(t *testing.T) {
	t.Parallel()
	g := newGrove(t, someFiles)
	g.dir = filepath.Join(g.dir, "home")
	if err := os.Mkdir(g.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	g.o.Target = filepath.Join(g.dir, "tree")
	f := g.begun()
	g.write(f, g.pieces(0, 1, 2, 3)...)
	if err := os.Rename(g.dir, g.dir+".moved"); err != nil {
		t.Skip(err)
	}
	if err := f.Ready(); !errors.Is(err, ErrFolderGone) {
		t.Errorf("ready: %v", err)
	}
	g.write(f, g.pieces()...)
	if _, err := f.Finish(t.Context()); !errors.Is(err, ErrFolderGone) || !Passing(err) {
		t.Errorf("finish: %v", err)
	}
	if err := os.Rename(g.dir+".moved", g.dir); err != nil {
		t.Fatal(err)
	}
	if err := f.Ready(); err != nil {
		t.Error(err)
	}
	g.finish(f)
}

// What somebody removes of it costs the pieces in it and nothing more.
func TestTree_bringsBackWhatIsRemovedMeanwhile(t *testing.T) {
	t.Parallel()
	g := newGrove(t, someFiles)
	f := g.begun()
	g.write(f, g.pieces(0, 3)[:20]...)
	f.p.halt()
	if err := errors.Join(f.p.flush(), f.p.record(false), f.tree.handles.clear(), f.tree.branch.folders.clear()); err != nil {
		t.Fatal(err)
	}
	f.p.start()
	for _, gone := range []string{"a", "big"} {
		if err := os.RemoveAll(filepath.Join(g.o.Target+".part", gone)); err != nil {
			t.Skip(err)
		}
	}
	last := g.pieces(3)[40]
	g.write(f, last) // makes the file anew, long enough
	if _, err := f.ReadPiece(g.pieces(3)[0], nil); !errors.Is(err, ErrNotHeld) {
		t.Errorf("a piece of what was removed: %v", err)
	}
	g.write(f, g.pieces()...)
	for range 3 {
		_, err := f.Finish(t.Context())
		var lacks *IncompleteError
		if !errors.As(err, &lacks) {
			if err != nil {
				t.Error(err)
			}
			break
		}
		g.write(f, lacks.Missing)
	}
	g.check()
}

func TestTree_discardLeavesNothingIncomplete(t *testing.T) {
	t.Parallel()
	for _, begun := range []bool{true, false} {
		g := newGrove(t, someFiles).quick()
		f := g.begun()
		g.write(f, append(g.pieces(6), g.pieces(3)[1:]...)...)
		g.settled(f, len(g.pieces(6))+len(g.pieces(3))-1)
		if !begun {
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if r, known, err := g.journal.Record(g.o.Target); !known || !r.Tree || r.Pin != g.o.Pin || err != nil {
				t.Errorf("the journal does not know it: %+v, %v", r, err)
			}
			f = g.open()
		}
		if err := f.Discard(); err != nil {
			t.Error(err)
		}
		if exists(g.o.Target + ".part") {
			t.Error("the folder of incomplete files is left")
		}
		if !g.named(6) {
			t.Error("a file that had its name is gone")
		}
		if _, known, err := g.journal.Record(g.o.Target); known || err != nil {
			t.Errorf("the journal still knows it: %v", err)
		}
	}
	g := newGrove(t, someFiles)
	if err := g.begun().Close(); err != nil {
		t.Fatal(err)
	}
	if exists(g.o.Target+".part") || exists(g.o.Target) {
		t.Error("something is left of a download without a piece")
	}
}

func TestTree_beginsAnew(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"restart", "anew", "anew in the middle", "another manifest"} {
		g := newGrove(t, slices.Clone(someFiles)).quick()
		f := g.begun()
		g.write(f, append(g.pieces(6), g.pieces(3)[1:]...)...)
		g.settled(f, len(g.pieces(6))+len(g.pieces(3))-1)
		if how != "anew in the middle" {
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if how == "another manifest" {
				if err := os.RemoveAll(g.o.Target); err != nil {
					t.Fatal(err)
				}
				g.become(slices.Clone(someFiles), map[string]string{"big": "", "z/last": "", "a/b/c/deep": "", "a/one": "", "piece": ""})
				if _, err := g.journal.OpenTree(t.Context(), g.o); !errors.Is(err, ErrReplaced) {
					t.Errorf("the folder of another content: %v", err)
				}
			}
			g.o.Restart = how != "anew"
			f = g.open()
		}
		if err := f.Begin(g.o.Pin, 0, how != "restart" && how != "another manifest"); err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		if held := f.Held(); held.Count() > 0 && how == "another manifest" {
			t.Errorf("%s: pieces are there", how)
		}
		if _, err := f.ReadPiece(g.pieces(3)[1], nil); !errors.Is(err, ErrNotHeld) {
			t.Errorf("%s: a piece is still there: %v", how, err)
		}
		g.write(f, g.pieces()...)
		g.finish(f)
	}
}

func TestCache_ofSeveralFiles(t *testing.T) {
	t.Parallel()
	g := newGrove(t, someFiles)
	f, err := g.journal.Open(t.Context(), Options{Target: g.o.Target, Source: "s", Cache: true, Layout: g.o.Layout})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Begin(g.o.Pin, 0, false); err != nil {
		t.Fatal(err)
	}
	g.write(f, g.pieces()...)
	for _, i := range g.pieces() {
		if got, err := f.ReadPiece(i, nil); err != nil || !bytes.Equal(got, g.bytes(i)) {
			t.Errorf("piece %d: %v", i, err)
		}
	}
	if err := f.Discard(); err != nil {
		t.Error(err)
	}
}

func TestOpenTree_refusesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(o *TreeOptions){
		"digests":     func(o *TreeOptions) { o.Digests = o.Digests[1:] },
		"a size":      func(o *TreeOptions) { o.Files[0].Size++ },
		"escape":      func(o *TreeOptions) { o.Files[0].Path = "a/../../b" },
		"an absolute": func(o *TreeOptions) { o.Files[0].Path = "/b" },
		"a folder":    func(o *TreeOptions) { o.Folders = []string{".."} },
		"pin":         func(o *TreeOptions) { o.Pin.Pieces++ },
		"other pin":   func(o *TreeOptions) { o.Pin = piece.Pin{Size: o.Pin.Size, Kind: piece.StrongETag, Validator: `"x"`} },
		"relative":    func(o *TreeOptions) { o.Target = "tree" },
		"no folder":   func(o *TreeOptions) { o.Target = filepath.Join(o.Target, "in", "nothing") },
	} {
		g := newGrove(t, slices.Clone(someFiles))
		change(&g.o)
		if f, err := g.journal.OpenTree(t.Context(), g.o); err == nil {
			f.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	g := newGrove(t, someFiles)
	f := g.open()
	if _, err := g.journal.OpenTree(t.Context(), g.o); !errors.Is(err, ErrInUse) {
		t.Errorf("twice: %v", err)
	}
	other := g.o.Pin
	other.Validator = "22" + other.Validator[2:]
	if err := f.Begin(other, 0, false); err == nil {
		t.Error("begun with another pin")
	}
}

// Another file that somebody puts in the place of an incomplete one is neither written to
// nor given the final name.
func TestTree_refusesAnotherFileInThePlaceOfAnIncompleteOne(t *testing.T) {
	t.Parallel()
	if _, inode := changeOf(must(os.Stat(t.TempDir()))); inode == 0 {
		t.Skip("the system has no inodes")
	}
	g := newGrove(t, someFiles)
	f := g.begun()
	i := g.pieces(3)[0]
	g.write(f, i)
	if err := f.tree.handles.clear(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(g.o.Target+".part", "big")
	if err := errors.Join(os.WriteFile(path+".new", make([]byte, someFiles[3].Size), 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
	if err := f.Write(i+1, g.bytes(i+1), g.o.Digests[i+1], true); !errors.Is(err, ErrReplaced) {
		t.Errorf("write: %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, make([]byte, someFiles[3].Size)) {
		t.Errorf("it was written to: %v", err)
	}
	g = newGrove(t, someFiles)
	f = g.begun()
	g.write(f, g.pieces()...)
	path = filepath.Join(g.o.Target+".part", "big")
	if err := errors.Join(os.WriteFile(path+".new", make([]byte, someFiles[3].Size), 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Finish(t.Context()); !errors.Is(err, ErrReplaced) || g.named(3) {
		t.Errorf("finish: %v", err)
	}
}

func must(info os.FileInfo, err error) os.FileInfo {
	if err != nil {
		panic(err)
	}
	return info
}

// However many contents are open, what they keep open that nobody uses is bounded, and
// what they let go is opened anew.
func TestCache_isBoundedForAllTogether(t *testing.T) {
	budgets := []*idleBudget{idleFiles, idleFolders}
	before := make([]int64, len(budgets))
	for k, b := range budgets {
		most, held := b.most, b.count.Load()
		defer func() { b.most = most }()
		b.most, before[k] = func() int64 { return held + 2 }, held
	}
	var all []*Shared
	for range 4 {
		all = append(all, newGrove(t, someFiles).shared(nil))
	}
	for _, s := range all {
		for i := range piece.Index(s.Layout().Count()) {
			if _, err := s.ReadPiece(i, nil); err != nil {
				t.Fatal(err)
			}
			for k, b := range budgets {
				if n := b.count.Load(); n > before[k]+2 {
					t.Fatalf("%d are idle, from %d on", n, before[k])
				}
			}
		}
	}
	for _, s := range all {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for k, b := range budgets {
		if n := b.count.Load(); n != before[k] {
			t.Errorf("%d are idle in the end, %d were before", n, before[k])
		}
	}
}
