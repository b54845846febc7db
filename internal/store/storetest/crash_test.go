package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/store"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// subject is the download that is cut: twelve pieces.
type subject struct {
	data   []byte
	pin    piece.Pin
	layout piece.Layout
}

const batch = 3 // pieces that are recorded together

func newSubject() *subject {
	s := &subject{data: make([]byte, 12*64<<10-777)}
	r := rand.New(rand.NewPCG(7, 7))
	for i := range s.data {
		s.data[i] = byte(r.Uint32())
	}
	s.pin = piece.Pin{Size: int64(len(s.data)), Kind: piece.StrongETag, Validator: `"v1"`}
	s.layout = s.pin.Layout()
	return s
}

func (s *subject) bytes(i piece.Index) []byte {
	r := s.layout.Range(i)
	return s.data[r.Start:r.End]
}

func (s *subject) digest(i piece.Index) piece.Digest { return s.layout.Sum(i, s.bytes(i)) }

// paths of a root.
func journalOf(root string) string { return filepath.Join(root, "state", "downloads.db") }
func targetOf(root string) string  { return filepath.Join(root, "home", "file.iso") }

func (s *subject) open(disk store.Disk, root string, restart bool) (*store.Journal, *store.File, error) {
	j, err := store.OpenJournal(journalOf(root), store.JournalOptions{
		Disk: disk, BatchBytes: batch * s.layout.PieceLength, BatchDelay: time.Hour, RetryDelay: time.Millisecond,
	})
	if err != nil {
		return nil, nil, err
	}
	f, err := j.Open(context.Background(), store.Options{Target: targetOf(root), Source: "source", Restart: restart})
	if err != nil {
		return nil, nil, errors.Join(err, j.Close())
	}
	return j, f, nil
}

// run downloads what is missing to the end, and marks in the log what is safe.
func (s *subject) run(ctx context.Context, rec *Recorder, root string, restart bool) error {
	j, f, err := s.open(rec, root, restart)
	if err != nil {
		return err
	}
	err = s.fill(ctx, rec, j, f, root)
	return errors.Join(err, f.Close(), j.Close())
}

func (s *subject) fill(ctx context.Context, rec *Recorder, j *store.Journal, f *store.File, root string) error {
	have := piece.NewBitfield(s.layout.Count())
	if left, ok := f.Resumed(); ok {
		have = left.Have.Clone()
	}
	if err := f.Begin(s.pin, 0, false); err != nil {
		return err
	}
	written := 0
	for i := range piece.Index(s.layout.Count()) {
		if have.Has(i) {
			continue
		}
		if err := f.Write(i, s.bytes(i), s.digest(i), true); err != nil {
			return err
		}
		have.Set(i)
		if written++; written%batch == 0 && !have.All() {
			if err := s.recorded(ctx, rec, j, root, have.Count()); err != nil {
				return err
			}
		}
	}
	_, err := f.Finish(ctx)
	return err
}

// recorded waits until the journal claims n pieces, and marks that.
func (s *subject) recorded(ctx context.Context, rec *Recorder, j *store.Journal, root string, n int) error {
	err := rec.Await(ctx, func([]Op) bool {
		record, ok, err := j.Record(targetOf(root))
		return err != nil || ok && record.Have.Count() >= n
	})
	rec.Mark(n)
	return err
}

// written returns which pieces were written, at least in part, in ops, or were there.
func (s *subject) written(start Image, ops []Op) piece.Bitfield {
	have := piece.NewBitfield(s.layout.Count())
	for i := range piece.Index(s.layout.Count()) {
		r := s.layout.Range(i)
		for _, data := range start {
			if int64(len(data)) >= r.End && bytes.Equal(data[r.Start:r.End], s.bytes(i)) {
				have.Set(i)
			}
		}
	}
	for _, op := range ops {
		if i := piece.Index(op.Offset / s.layout.PieceLength); op.Kind == Write && op.Offset < s.pin.Size && bytes.Equal(op.Data, s.bytes(i)) {
			have.Set(i)
		}
	}
	return have
}

// safe returns how many pieces were recorded by the end of ops.
func safe(ops []Op) int {
	n := 0
	for _, op := range ops {
		if op.Kind == Mark {
			n = max(n, op.Mark)
		}
	}
	return n
}

// check makes dir hold the image, for the journal knows files by where they are,
// recovers from that, and goes on to the end. It returns the log of that.
func (s *subject) check(dir string, image Image, ops []Op, start Image) (Log, error) {
	err := errors.Join(os.RemoveAll(dir), os.MkdirAll(filepath.Join(dir, "home"), 0o700), os.MkdirAll(filepath.Join(dir, "state"), 0o700), image.Store(dir))
	if err != nil {
		return Log{}, err
	}
	final, named := image[filepath.Join("home", "file.iso")]
	if named && !bytes.Equal(final, s.data) {
		return Log{}, errors.New("the final name has wrong bytes")
	}
	rec, err := NewRecorder(dir)
	if err != nil {
		return Log{}, err
	}
	if named {
		// The command that is run again finds the file.
		if _, _, err := s.open(rec, dir, false); !errors.Is(err, store.ErrExists) {
			return Log{}, fmt.Errorf("the file is there, and the next run says %w", err)
		}
		return rec.Log(), nil
	}
	restart, err := s.look(rec, dir, image, ops, start)
	if err != nil {
		return Log{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.run(ctx, rec, dir, restart); err != nil {
		return Log{}, fmt.Errorf("the next run: %w", err)
	}
	end, err := Load(dir)
	if err != nil {
		return Log{}, err
	}
	if !bytes.Equal(end[filepath.Join("home", "file.iso")], s.data) {
		return Log{}, errors.New("the finished file has wrong bytes")
	}
	for path := range end {
		if path != "home/" && filepath.Dir(path) == "home" && filepath.Base(path) != "file.iso" {
			return Log{}, fmt.Errorf("%s is left behind", path)
		}
	}
	return rec.Log(), nil
}

// look opens what is left and compares the claims with what was written.
func (s *subject) look(rec *Recorder, dir string, image Image, ops []Op, start Image) (restart bool, err error) {
	j, f, err := s.open(rec, dir, false)
	if errors.Is(err, store.ErrReplaced) && safe(ops) == 0 {
		return true, nil // nothing was recorded: whose file it is cannot be told
	}
	if err != nil {
		return false, fmt.Errorf("the next run does not begin: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), j.Close()) }()
	left, _ := f.Resumed()
	written := s.written(start, ops)
	part := image[filepath.Join("home", "file.iso.part")]
	for i, ok := left.Have.Next(0); ok; i, ok = left.Have.Next(i + 1) {
		switch r := s.layout.Range(i); {
		case !written.Has(i):
			return false, fmt.Errorf("piece %d is recovered and was not written", i)
		case left.Digests[i] != s.digest(i):
			return false, fmt.Errorf("piece %d is recovered with a wrong digest", i)
		case int64(len(part)) < r.End || !bytes.Equal(part[r.Start:r.End], s.bytes(i)):
			return false, fmt.Errorf("piece %d is recovered and is not on disk", i)
		}
	}
	if n := safe(ops); left.Have.Count() < n {
		return false, fmt.Errorf("%d pieces are recovered, %d were recorded", left.Have.Count(), n)
	}
	return false, nil
}

// fastDir is where states are made again: in memory, where there is such a place.
var fastDir = func() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}()

// cuttable is a download that can be cut.
type cuttable interface {
	check(dir string, image Image, ops []Op, start Image) (Log, error)
}

// lane goes through moments of its own log, in a folder of its own.
type lane struct {
	cuttable
	t      *testing.T
	dir    string
	rng    *rand.Rand
	states int
	failed int
}

func (l *lane) report(format string, args ...any) {
	if l.failed++; l.failed <= 5 {
		l.t.Errorf(format, args...)
	}
}

// cut goes through the moments of log whose number is first, first+every, ...
func (l *lane) cut(log Log, first, every int) {
	seen, recorded := make(map[[32]byte]bool), 0
	for n := first; n <= len(log.Ops); n += every {
		if k := safe(log.Ops[:n]); k > recorded {
			clear(seen) // the same state may hold too little by now
			recorded = k
		}
		killed := log.Killed(n)
		if sum := killed.sum(); !seen[sum] {
			seen[sum] = true
			l.state(log, n, "killed", killed)
		}
		for _, image := range log.PowerCuts(n, samples, l.rng, seen) {
			l.state(log, n, "power cut", image)
		}
	}
}

// Of each moment so many states are drawn at random, besides those that are always
// tried; of the recoveries one in so many is cut itself.
const (
	samples    = 4
	cutsAgain  = 4
	deepestCut = 3
)

func (l *lane) state(log Log, n int, how string, image Image) {
	where := fmt.Sprintf("%s after %d of %d operations", how, n, len(log.Ops))
	l.states++
	recovery, err := l.check(l.dir, image, log.Ops[:n], log.Start)
	switch {
	case err != nil:
		l.report("%s: %v", where, err)
	case l.states%cutsAgain == 0:
		l.again(recovery, 2, where)
	}
}

// again cuts a recovery once, anywhere, and then what recovers from that.
func (l *lane) again(log Log, depth int, where string) {
	n := l.rng.IntN(len(log.Ops) + 1)
	image, how := log.Killed(n), "killed"
	if l.rng.IntN(3) > 0 {
		if images := log.PowerCuts(n, 1, l.rng, make(map[[32]byte]bool)); len(images) > 0 {
			image, how = images[l.rng.IntN(len(images))], "power cut"
		}
	}
	where += fmt.Sprintf(", then %s after %d of %d", how, n, len(log.Ops))
	l.states++
	recovery, err := l.check(l.dir, image, log.Ops[:n], log.Start)
	switch {
	case err != nil:
		l.report("%s: %v", where, err)
	case depth < deepestCut:
		l.again(recovery, depth+1, where)
	}
}

// Rows 1, 4 and 5 of the fault table: whenever the process is killed or the power goes,
// what is recovered was written, what was recorded is recovered, no wrong byte has the
// final name, and the next run makes the file whole; also if it is cut itself, and the
// one after that.
func TestFault01_04_05CutAnywhere(t *testing.T) {
	t.Parallel()
	const lanes = 2
	for first := range lanes {
		t.Run(fmt.Sprintf("lane %d", first), func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp(fastDir, "dragonload-cut-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			if err := os.Mkdir(filepath.Join(dir, "home"), 0o700); err != nil {
				t.Fatal(err)
			}
			rec, err := NewRecorder(dir)
			if err != nil {
				t.Fatal(err)
			}
			s := newSubject()
			if err := s.run(t.Context(), rec, dir, false); err != nil {
				t.Fatal(err)
			}
			log := rec.Log()
			if n := safe(log.Ops); n != 9 {
				t.Fatalf("%d pieces were recorded before the end", n)
			}
			l := &lane{cuttable: s, t: t, dir: dir, rng: rand.New(rand.NewPCG(4, uint64(first)))}
			l.cut(log, first, lanes)
			t.Logf("%d operations, %d states", len(log.Ops), l.states)
		})
	}
}

// A log of the product's own is needed, or the test of the test proves nothing: a store
// that renames before it syncs must be found out.
func TestCuts_findARenameBeforeTheData(t *testing.T) {
	t.Parallel()
	s := newSubject()
	log := Log{Start: Image{}, Ops: []Op{
		{Kind: Create, File: 1, Path: "home/file.iso.part"},
		{Kind: SyncFolder, Path: "home", Upto: 1},
		{Kind: Write, File: 1, Data: s.data},
		{Kind: Rename, File: 1, Path: "home/file.iso.part", To: "home/file.iso"},
	}}
	rng := rand.New(rand.NewPCG(1, 1))
	found := 0
	for _, image := range log.PowerCuts(len(log.Ops), 8, rng, make(map[[32]byte]bool)) {
		if data, named := image["home/file.iso"]; named && sha256.Sum256(data) != sha256.Sum256(s.data) {
			found++
		}
	}
	if found < 3 {
		t.Errorf("%d states with wrong bytes under the final name", found)
	}
}
