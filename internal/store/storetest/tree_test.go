package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/store"
)

// grove is the download of several files that is cut.
type grove struct {
	data []byte
	o    store.TreeOptions
}

func newGrove(files ...store.TreeFile) *grove {
	sizes := make([]int64, len(files))
	for k, f := range files {
		sizes[k] = f.Size
	}
	layout, err := piece.LayoutOf(16<<10, sizes)
	if err != nil {
		panic(err)
	}
	g := &grove{data: make([]byte, layout.Size)}
	r := rand.New(rand.NewPCG(8, 8))
	for i := range g.data {
		g.data[i] = byte(r.Uint32())
	}
	g.o = store.TreeOptions{
		Source: "source", Pin: piece.ManifestPin([32]byte{1}, layout), Layout: layout, Files: files,
		Digests: make([]piece.Digest, layout.Count()),
	}
	for i := range g.o.Digests {
		g.o.Digests[i] = layout.Sum(piece.Index(i), g.bytes(piece.Index(i)))
	}
	return g
}

// aFew files are empty, of one piece and of several, in folders.
func aFew() *grove {
	return newGrove(store.TreeFile{Path: "a/b", Size: 100}, store.TreeFile{Path: "a/empty"},
		store.TreeFile{Path: "c", Size: 2*16<<10 + 5}, store.TreeFile{Path: "d", Size: 16 << 10})
}

func (g *grove) bytes(i piece.Index) []byte {
	r := g.o.Layout.Range(i)
	return g.data[r.Start:r.End]
}

// pathOf returns where file k ends, relative to the root.
func (g *grove) pathOf(k int) string {
	return filepath.Join("home", "tree", filepath.FromSlash(g.o.Files[k].Path))
}

func (g *grove) content(k int) []byte {
	r, _ := g.o.Layout.File(k)
	return g.data[r.Start:r.End]
}

func treeOf(root string) string { return filepath.Join(root, "home", "tree") }

const treeBatch = 2 // pieces that are recorded together

func (g *grove) open(ctx context.Context, disk store.Disk, root string, o store.JournalOptions) (*store.Journal, *store.File, error) {
	o.Disk = disk
	j, err := store.OpenJournal(journalOf(root), o)
	if err != nil {
		return nil, nil, err
	}
	options := g.o
	options.Target = treeOf(root)
	f, err := j.OpenTree(ctx, options)
	if err != nil {
		return nil, nil, errors.Join(err, j.Close())
	}
	return j, f, nil
}

// calm is a journal that records when it is told to.
func (g *grove) calm() store.JournalOptions {
	return store.JournalOptions{BatchBytes: 1 << 40, BatchDelay: time.Millisecond, RetryDelay: time.Millisecond}
}

// run downloads what is missing to the end, and marks in the log what is safe.
func (g *grove) run(ctx context.Context, rec *Recorder, root string) error {
	j, f, err := g.open(ctx, rec, root, g.calm())
	if err != nil {
		return err
	}
	return errors.Join(g.fill(ctx, rec, j, f, root), f.Close(), j.Close())
}

func (g *grove) fill(ctx context.Context, rec *Recorder, j *store.Journal, f *store.File, root string) error {
	have := piece.NewBitfield(g.o.Layout.Count())
	if left, ok := f.Resumed(); ok {
		have = left.Have.Clone()
	}
	if err := f.Begin(g.o.Pin, 0, false); err != nil {
		return err
	}
	written := 0
	for i := piece.Index(g.o.Layout.Count()); i > 0; {
		if i--; have.Has(i) {
			continue
		}
		if err := f.Write(i, g.bytes(i), g.o.Digests[i], true); err != nil {
			return err
		}
		have.Set(i)
		if written++; written%treeBatch == 0 && !have.All() {
			err := rec.Await(ctx, func([]Op) bool {
				record, ok, err := j.Record(treeOf(root))
				return err != nil || ok && record.Have.Count() >= have.Count()
			})
			if err != nil {
				return err
			}
			rec.Mark(have.Count())
		}
	}
	_, err := f.Finish(ctx)
	return err
}

// named reports wrong or partial files under final names.
func (g *grove) named(image Image) error {
	for k := range g.o.Files {
		if data, ok := image[g.pathOf(k)]; ok && !bytes.Equal(data, g.content(k)) {
			return fmt.Errorf("%s has its name and wrong bytes", g.o.Files[k].Path)
		}
	}
	return nil
}

// check is that of subject.
func (g *grove) check(dir string, image Image, ops []Op, start Image) (Log, error) {
	err := errors.Join(os.RemoveAll(dir), os.MkdirAll(filepath.Join(dir, "home"), 0o700), os.MkdirAll(filepath.Join(dir, "state"), 0o700), image.Store(dir))
	if err != nil {
		return Log{}, err
	}
	if err := g.named(image); err != nil {
		return Log{}, err
	}
	rec, err := NewRecorder(dir)
	if err != nil {
		return Log{}, err
	}
	if err := g.look(rec, dir, ops); err != nil {
		return Log{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := g.run(ctx, rec, dir); err != nil {
		return Log{}, fmt.Errorf("the next run: %w", err)
	}
	return rec.Log(), g.ended(dir)
}

// ended reports what is not as it should be at the end.
func (g *grove) ended(dir string) error {
	end, err := Load(dir)
	if err != nil {
		return err
	}
	want := map[string]bool{"state/": true}
	for k := range g.o.Files {
		want[g.pathOf(k)] = true
		for up := filepath.Dir(g.pathOf(k)); up != "."; up = filepath.Dir(up) {
			want[up+"/"] = true
		}
		if data, ok := end[g.pathOf(k)]; !ok || !bytes.Equal(data, g.content(k)) {
			return fmt.Errorf("%s is not there, or has wrong bytes", g.o.Files[k].Path)
		}
	}
	for path := range end {
		if filepath.Dir(path) != "state" && !want[path] {
			return fmt.Errorf("%s is left behind", path)
		}
	}
	return nil
}

// look opens what is left and compares the claims with what is there.
func (g *grove) look(rec *Recorder, dir string, ops []Op) (err error) {
	j, f, err := g.open(context.Background(), rec, dir, g.calm())
	if err != nil {
		return fmt.Errorf("the next run does not begin: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), j.Close()) }()
	left, ok := f.Resumed()
	if !ok {
		left.Have = piece.NewBitfield(g.o.Layout.Count())
	}
	there, err := Load(dir)
	if err != nil {
		return err
	}
	for i, ok := left.Have.Next(0); ok; i, ok = left.Have.Next(i + 1) {
		k := g.o.Layout.FileOf(i)
		data, named := there[g.pathOf(k)]
		if !named {
			data = there[filepath.Join("home", "tree.part", filepath.FromSlash(g.o.Files[k].Path))]
		}
		file, _ := g.o.Layout.File(k)
		r := g.o.Layout.Range(i)
		if int64(len(data)) < r.End-file.Start || !bytes.Equal(data[r.Start-file.Start:r.End-file.Start], g.bytes(i)) {
			return fmt.Errorf("piece %d is recovered and is not on disk", i)
		}
	}
	if n := safe(ops); left.Have.Count() < n {
		return fmt.Errorf("%d pieces are recovered, %d were recorded", left.Have.Count(), n)
	}
	return nil
}

// Rows 1, 4 and 5 of the fault table, of several files: as of one, and each file that has
// its name is whole.
func TestFault01_04_05CutAnywhereInATree(t *testing.T) {
	t.Parallel()
	var many []store.TreeFile
	for k := range 18 {
		many = append(many, store.TreeFile{Path: fmt.Sprintf("%d/%d", k%2, k), Size: int64(k)})
	}
	for name, c := range map[string]struct {
		g      *grove
		every  int
		former bool
	}{"a few": {aFew(), 1, false}, "many": {newGrove(many...), 13, false}, "another version": {aFew(), 1, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp(fastDir, "dragonload-cut-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			if err := os.Mkdir(filepath.Join(dir, "home"), 0o700); err != nil {
				t.Fatal(err)
			}
			if c.former {
				c.g.leaveFormer(t, dir)
			}
			rec, err := NewRecorder(dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.g.run(t.Context(), rec, dir); err != nil {
				t.Fatal(err)
			}
			log := rec.Log()
			if n := safe(log.Ops); n == 0 {
				t.Fatal("nothing was recorded before the end")
			}
			l := &lane{cuttable: c.g, t: t, dir: dir, rng: rand.New(rand.NewPCG(4, 9))}
			l.cut(log, 0, c.every)
			t.Logf("%d operations, %d states", len(log.Ops), l.states)
		})
	}
}

// leaveFormer leaves in dir what an earlier version of the content brought before it was
// stopped: some of file c, which both have, and files that this one has not, or not so.
func (g *grove) leaveFormer(t *testing.T, dir string) {
	former := newGrove(store.TreeFile{Path: "c", Size: 4 * 16 << 10}, store.TreeFile{Path: "d/old", Size: 2 * 16 << 10}, store.TreeFile{Path: "old", Size: 3 * 16 << 10})
	file, _ := g.o.Layout.File(2)
	copy(former.data, g.data[file.Start:file.End])
	for i := range former.o.Digests {
		former.o.Digests[i] = former.o.Layout.Sum(piece.Index(i), former.bytes(piece.Index(i)))
	}
	former.o.Pin = piece.ManifestPin([32]byte{2}, former.o.Layout)
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	j, f, err := former.open(t.Context(), store.OS, dir, former.calm())
	if err != nil {
		t.Fatal(err)
	}
	err = f.Begin(former.o.Pin, 0, false)
	for _, i := range []piece.Index{1, 3, 4, 8} {
		if err == nil {
			err = f.Write(i, former.bytes(i), former.o.Digests[i], true)
		}
	}
	if err = errors.Join(err, f.Close(), j.Close()); err != nil {
		t.Fatal(err)
	}
}

// A store that moves a file before its data is synced must be found out.
func TestCuts_findAMoveBeforeTheData(t *testing.T) {
	t.Parallel()
	g := aFew()
	log := Log{Start: Image{}, Ops: []Op{
		{Kind: Mkdir, File: 1, Path: "home/tree.part"},
		{Kind: Create, File: 2, Path: "home/tree.part/d"},
		{Kind: Write, File: 2, Data: g.content(3)},
		{Kind: Mkdir, File: 3, Path: "home/tree"},
		{Kind: Rename, File: 2, Path: "home/tree.part/d", To: "home/tree/d"},
	}}
	found := 0
	for _, image := range log.PowerCuts(len(log.Ops), 8, rand.New(rand.NewPCG(1, 1)), make(map[[32]byte]bool)) {
		if g.named(image) != nil {
			found++
		}
	}
	if found < 3 {
		t.Errorf("%d states with wrong bytes under a final name", found)
	}
	log.Ops = append(log.Ops, Op{Kind: SyncAll, Upto: 5})
	for _, image := range log.PowerCuts(len(log.Ops), 8, rand.New(rand.NewPCG(1, 1)), make(map[[32]byte]bool)) {
		if _, there := image["home/tree/d"]; !there || g.named(image) != nil {
			t.Error("what was synced with the volume is lost")
		}
	}
}

// attempt is that of subject.
func (g *grove) attempt(ctx context.Context, disk store.Disk, root string) (err error) {
	j, f, err := g.open(ctx, disk, root, store.JournalOptions{BatchBytes: 20_000, BatchDelay: time.Millisecond, RetryDelay: time.Millisecond})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), j.Close()) }()
	if err := f.Begin(g.o.Pin, 0, false); err != nil {
		return err
	}
	put := func(i piece.Index) error {
		for {
			err := f.Write(i, g.bytes(i), g.o.Digests[i], true)
			if !store.Passing(err) || ctx.Err() != nil {
				return err
			}
		}
	}
	for i := range piece.Index(g.o.Layout.Count()) {
		if err := put(i); err != nil {
			return err
		}
	}
	for {
		_, err := f.Finish(ctx)
		var missing *store.IncompleteError
		switch {
		case errors.As(err, &missing):
			err = put(missing.Missing)
		case store.Passing(err):
			err = ctx.Err()
		default:
			return err
		}
		if err != nil {
			return err
		}
	}
}

// Rows 6 to 11 and 13, of several files: as of one.
func TestFaultsOfEachCallInATree(t *testing.T) {
	t.Parallel()
	ways := map[string]*Faulty{
		"no space":     {Fault: syscall.ENOSPC, Half: true},
		"input/output": {Fault: syscall.EIO},
		"read-only":    {Fault: syscall.EROFS},
		"failed sync":  {Fault: syscall.EIO, SyncsOnly: true},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hit := 0
			for n := int64(1); ; n++ {
				faulty := &Faulty{Disk: store.OS, N: n, Fault: way.Fault, Half: way.Half, SyncsOnly: way.SyncsOnly}
				if err := aFew().survive(t, faulty); err != nil {
					t.Errorf("call %d: %v", n, err)
				}
				if !faulty.Hit() {
					break
				}
				hit++
			}
			if least := map[bool]int{false: 20, true: 3}[way.SyncsOnly]; hit < least {
				t.Errorf("only %d calls have failed", hit)
			}
		})
	}
}

func (g *grove) survive(t *testing.T, faulty *Faulty) error {
	root, err := os.MkdirTemp(fastDir, "dragonload-fault-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := os.Mkdir(filepath.Join(root, "home"), 0o700); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	first := g.attempt(ctx, faulty, root)
	image, err := Load(root)
	if err != nil {
		return err
	}
	switch err := g.named(image); {
	case err != nil:
		return fmt.Errorf("%w (the run said %w)", err, first)
	case first == nil:
		return g.ended(root)
	case errors.Is(first, store.ErrDiskFailing) && atomic.LoadInt64(&faulty.Calls) > 0 && !errors.Is(faulty.Fault, syscall.EIO):
		return fmt.Errorf("one failure was taken for a failing disk: %w", first)
	case errors.Is(faulty.Fault, syscall.ENOSPC) && !errors.Is(first, store.ErrDiskFull):
		return fmt.Errorf("the disk was full, and the run said: %w", first)
	case errors.Is(faulty.Fault, syscall.EROFS) && !errors.Is(first, store.ErrReadOnly):
		return fmt.Errorf("the disk was read-only, and the run said: %w", first)
	}
	if err := g.attempt(ctx, store.OS, root); err != nil {
		return fmt.Errorf("the next run, after %w: %w", first, err)
	}
	return g.ended(root)
}
