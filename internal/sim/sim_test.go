package sim

import (
	"flag"
	"os"
	"testing"
	"time"
)

// defaultSeeds is how many worlds are drawn without -seeds; fewer than enoughSeeds do
// not come to everything.
var defaultSeeds = enoughSeeds

const enoughSeeds = 60

var (
	seeds     = flag.Int("seeds", 0, "how many worlds TestSeeds draws (default 60, with -race 15)")
	firstSeed = flag.Uint64("first-seed", 1, "the first of them")
	logSteps  = flag.Bool("log-steps", false, "write every step of the machines to standard error")
)

// TestSeeds_keepAllPromises plays drawn worlds; Run checks safety and liveness in each.
func TestSeeds_keepAllPromises(t *testing.T) {
	var reached [marks]int64
	failed := 0
	if *seeds == 0 {
		*seeds = defaultSeeds
	}
	for seed := *firstSeed; seed < *firstSeed+uint64(*seeds); seed++ {
		world := Draw(seed)
		if *logSteps {
			world.Log = os.Stderr
		}
		result := Run(world)
		for m, n := range result.Marks {
			reached[m] += n
		}
		if testing.Verbose() && result.Took > 3*time.Second {
			t.Logf("slow: %v", result)
		}
		if result.Err != nil {
			t.Errorf("seed %d: %v", seed, result.Err)
			if failed++; failed == 5 {
				t.Fatal("more than enough")
			}
		}
	}
	if *seeds < enoughSeeds {
		return
	}
	for m, n := range reached {
		if n == 0 {
			t.Errorf("no world came to %q", Mark(m))
		}
	}
}

// TestRun_isDeterminedByItsSeed plays worlds twice.
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
