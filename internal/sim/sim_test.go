package sim

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// enoughSeeds is how many worlds are drawn if TestSeeds alone is asked for, as in CI;
// fewer do not come to everything. Among all tests fewSeeds are drawn.
const enoughSeeds = 1000

var (
	fewSeeds = 60
	raced    = false // the race detector runs
)

var (
	seeds      = flag.Int("seeds", 0, "how many worlds TestSeeds draws (default 1000 with -run TestSeeds, else 60, with -race 15)")
	firstSeed  = flag.Uint64("first-seed", 1, "the first of them")
	oneSeed    = flag.Uint64("seed", 0, "the seed that TestSeed plays, tells of and shrinks")
	writeWorld = flag.Bool("write-scenario", false, "TestSeed: write the shrunk world into testdata, where TestKept plays it")
	logSteps   = flag.Bool("log-steps", false, "TestSeed: write every step of the machines to standard error")
)

// TestSeeds_keepAllPromises plays drawn worlds; Run checks safety and liveness in each.
func TestSeeds_keepAllPromises(t *testing.T) {
	n := *seeds
	if n == 0 {
		n = fewSeeds
		if run := flag.Lookup("test.run"); run != nil && strings.HasPrefix(run.Value.String(), "TestSeeds") {
			n = enoughSeeds
		}
	}
	s := &seedRun{t: t, started: time.Now(), last: *firstSeed + uint64(n) - 1}
	s.next.Store(*firstSeed)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(s.work)
	}
	workers.Wait()
	if n < enoughSeeds || t.Failed() {
		return
	}
	// The "sometimes" list: a set of runs that never comes to one of these tests less
	// than it seems to.
	for m, n := range s.marks {
		if n == 0 {
			t.Errorf("no world came to %q", Mark(m))
		}
	}
	for k, n := range s.faults {
		if n == 0 {
			t.Errorf("no world had the fault %q", FaultKind(k))
		}
	}
}

// seedRun plays worlds side by side, each on one thread.
type seedRun struct {
	t       *testing.T
	started time.Time
	next    atomic.Uint64
	last    uint64

	mu     sync.Mutex // guards what follows
	played int
	failed int
	marks  [marks]int64
	faults [faultKinds]int64
}

func (s *seedRun) work() {
	for {
		seed := s.next.Add(1) - 1
		if seed > s.last || s.tooMany() {
			return
		}
		result := Run(Draw(seed))
		if seed%50 == 0 { // S14
			if again := Run(Draw(seed)); again.Trace != result.Trace {
				s.t.Errorf("seed %d: trace %x, and the second time %x", seed, result.Trace, again.Trace)
			}
		}
		s.note(seed, &result)
	}
}

func (s *seedRun) tooMany() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed >= 5 || *seeds > enoughSeeds && s.failed > 0
}

func (s *seedRun) note(seed uint64, result *Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for m, n := range result.Marks {
		s.marks[m] += n
	}
	for k, n := range result.Faults {
		s.faults[k] += n
	}
	if s.played++; s.played%10_000 == 0 {
		fmt.Fprintf(os.Stderr, "%d worlds in %v\n", s.played, time.Since(s.started).Round(time.Second))
	}
	if testing.Verbose() && result.Took > 5*time.Second {
		s.t.Logf("slow: %v", result)
	}
	if result.Err != nil {
		s.failed++
		s.t.Errorf("seed %d: %v\nto see it in words, and smaller: go test ./internal/sim -run 'TestSeed$' -seed %d -v", seed, result.Err, seed)
	}
}

// TestSeed tells of one world: what was drawn, what happened, and if a promise was
// broken, the smallest world that breaks one.
func TestSeed(t *testing.T) {
	if *oneSeed == 0 {
		t.Skip("for -seed")
	}
	world := Draw(*oneSeed)
	if *logSteps {
		world.Log = os.Stderr
	}
	t.Logf("%s", world.Describe())
	result := Run(world)
	t.Logf("what happened:\n%s\n%v", result.Story, result)
	if result.Err == nil {
		return
	}
	t.Errorf("%v", result.Err)
	small := Shrink(world, 400)
	again := Run(small)
	var text bytes.Buffer
	fmt.Fprintf(&text, "# Shrunk from seed %d. When it was kept, it ended so:\n", *oneSeed)
	for line := range strings.Lines(firstOfLines(again.Err, 3)) {
		fmt.Fprintf(&text, "# %s\n", strings.TrimRight(line, "\n"))
	}
	if err := small.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	t.Logf("the smallest world that breaks a promise:\n%s\nin which this happens:\n%s\n%v", text.String(), again.Story, again.Err)
	if *writeWorld {
		name := filepath.Join("testdata", fmt.Sprintf("seed-%d.txt", *oneSeed))
		if err := os.WriteFile(name, text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Logf("written to %s", name)
	}
}

func firstOfLines(err error, n int) string {
	if err == nil {
		return ""
	}
	lines := strings.SplitAfterN(err.Error(), "\n", n+1)
	return strings.Join(lines[:min(n, len(lines))], "")
}

// TestKept plays the worlds that once broke a promise.
func TestKept(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			t.Parallel()
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			world, err := ReadWorld(f)
			if err != nil {
				t.Fatal(err)
			}
			if *logSteps {
				world.Log = os.Stderr
			}
			if result := Run(world); result.Err != nil {
				t.Errorf("%v\nwhat happened:\n%s", result.Err, result.Story)
			}
		})
	}
}

// TestText_isReadAsItWasWritten also finds fields that cannot be written.
func TestText_isReadAsItWasWritten(t *testing.T) {
	for seed := range uint64(300) {
		world := Draw(seed)
		var text, again bytes.Buffer
		if err := world.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		read, err := ReadWorld(bytes.NewReader(text.Bytes()))
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, text.String())
		}
		if err := read.WriteText(&again); err != nil {
			t.Fatal(err)
		}
		if text.String() != again.String() {
			t.Fatalf("seed %d: written\n%s\nread\n%s", seed, text.String(), again.String())
		}
		if seed < 3 {
			if a, b := Run(world), Run(read); a.Trace != b.Trace {
				t.Errorf("seed %d: the world that was read goes otherwise", seed)
			}
		}
	}
}

// TestShrink_keepsWhatMatters hides one fault that cannot be borne among many others.
func TestShrink_keepsWhatMatters(t *testing.T) {
	w := Uniform(12, 4<<20, 1)
	w.QuietFrom = 5 * time.Second
	for k := range 6 {
		w.Faults = append(w.Faults, Fault{Kind: SlowLAN, Member: k, At: time.Second, For: time.Second, Factor: 2})
	}
	w.Faults = append(w.Faults, Fault{Kind: OriginBusy, For: 100 * time.Hour, Wait: time.Second})
	if Run(w).Err == nil {
		t.Fatal("the world breaks no promise")
	}
	small := Shrink(w, 200)
	if len(small.Faults) != 1 || small.Faults[0].Kind != OriginBusy || len(small.Members) > 2 || small.Size > 128<<10 || Run(small).Err == nil {
		t.Errorf("shrunk to %s", small.Describe())
	}
}

// TestRun_isDeterminedByItsSeed plays worlds twice (S14).
func TestRun_isDeterminedByItsSeed(t *testing.T) {
	for seed := uint64(1000); seed < 1006; seed++ {
		a, b := Run(Draw(seed)), Run(Draw(seed))
		if a.Trace != b.Trace || a.Events != b.Events || a.Last != b.Last {
			t.Errorf("seed %d: trace %x, %d events, last %v; again: %x, %d, %v", seed, a.Trace, a.Events, a.Last, b.Trace, b.Events, b.Last)
		}
	}
	if a, b := Run(Uniform(8, 32<<20, 1)), Run(Uniform(8, 32<<20, 2)); a.Trace == b.Trace {
		t.Error("two seeds give one trace")
	}
}

// TestUniform_staysNearTheBound is the promise of the quiet office.
// In a large pool a piece goes through many hands, of which smaller ones show nothing.
func TestUniform_ofAThousandStaysNearTheBound(t *testing.T) {
	if testing.Short() || raced {
		t.Skip("takes about a minute, and ten with the race detector")
	}
	result := Run(Uniform(1000, 2000*64<<10, 1))
	if result.Err != nil {
		t.Fatal(result.Err)
	}
	t.Logf("%v", result)
	if result.Ratio() > 1.15 || result.Copies() > 1.02 {
		t.Errorf("ratio %.3f, want at most 1.15; %.4f copies, want at most 1.02", result.Ratio(), result.Copies())
	}
}

func TestUniform_staysNearTheBound(t *testing.T) {
	for _, c := range []struct {
		members int
		size    int64
		ratio   float64
	}{
		{1, 64 << 20, 1.10},
		{4, 64 << 20, 1.15},
		{16, 256 << 20, 1.15},
		{64, 256 << 20, 1.20},
	} {
		result := Run(Uniform(c.members, c.size, 1))
		if result.Err != nil {
			t.Errorf("%d members: %v", c.members, result.Err)
			continue
		}
		t.Logf("%v", result)
		if result.Ratio() > c.ratio || result.Copies() > 1.02 {
			t.Errorf("%d members: ratio %.3f, want at most %.2f; %.4f copies, want at most 1.02", c.members, result.Ratio(), c.ratio, result.Copies())
		}
	}
}
