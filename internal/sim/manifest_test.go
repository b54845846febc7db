package sim

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// shared is a room in which some hold a folder from the beginning and others get it, all
// over LANs of one rate, without web seeds.
func shared(holders, getters, files int, size, rate int64) World {
	w := World{
		Seed: 1, Size: size, Files: files, Origin: Origin{Up: gbit},
		LANDelay: 200 * time.Microsecond, ControlDelay: 300 * time.Microsecond,
	}
	for k := range holders + getters {
		w.Members = append(w.Members, Member{LANUp: rate, LANDown: rate, Holds: k < holders, Join: time.Duration(k) * time.Millisecond})
	}
	return w
}

// TestShared_staysNearTheBound is the promise for folders. The bound of few holders with
// many getters is loose: it takes every piece to leave the holder once and no more.
func TestShared_staysNearTheBound(t *testing.T) {
	for _, c := range []struct {
		holders, getters, files int
		size                    int64
		ratio                   float64
	}{
		{3, 5, 2000, 1 << 30, 1.15},
		{1, 1, 2000, 256 << 20, 1.15},
		{1, 20, 500, 256 << 20, 1.35},
		{3, 100, 100, 32 << 20, 2},
	} {
		result := Run(shared(c.holders, c.getters, c.files, c.size, 400*mbit))
		name := fmt.Sprintf("%d files for %d from %d", c.files, c.getters, c.holders)
		if result.Err != nil {
			t.Errorf("%s: %v", name, result.Err)
			continue
		}
		t.Logf("%s: %v", name, result)
		if result.Ratio() > c.ratio || result.OriginBytes > 0 || result.Finished != c.holders+c.getters {
			t.Errorf("%s: ratio %.3f, want at most %.2f; %d bytes of the origin, %d finished", name, result.Ratio(), c.ratio, result.OriginBytes, result.Finished)
		}
		if twice := float64(result.PeerBytes) / float64(c.size*int64(c.getters)); twice > 1.05 {
			t.Errorf("%s: %.3f times the bytes that were needed went from member to member", name, twice)
		}
	}
}

// TestShared_smallFiles is about ten thousand of 4 KiB, one to one: what a request costs
// must not be paid for each.
func TestShared_smallFiles(t *testing.T) {
	const files = 10_000
	w := shared(1, 1, files, files*4096, gbit)
	w.Alike = true
	result := Run(w)
	if result.Err != nil {
		t.Fatal(result.Err)
	}
	if rate := files / result.Last.Seconds(); rate < 10_000 || result.Pieces != files {
		t.Errorf("%.0f files a second, want at least 10000\n%v", rate, result)
	}
}

// TestManifest_invariants breaks by hand what no run of a manifest should ever break.
func TestManifest_invariants(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(r *run, p *proc)
		want string
	}{
		{"fetches where there are no web seeds", func(r *run, p *proc) {
			r.act(p, swarm.FetchOrigin{Request: 1, Extent: piece.Extent{Count: 1}}, nil)
		}, "asks the origin"},
		{"finishes without what it wants", func(r *run, p *proc) { r.finishFile(p, swarm.Basis{}) }, "not whole"},
		{"serves what has changed", func(r *run, p *proc) {
			h := r.members[0].proc
			r.step(h, swarm.PiecesLost{Extents: []piece.Extent{{First: 0, Count: 1}}})
			h.asked[7] = &fetch{asker: p, pieces: []piece.Index{0}}
			r.serve(h, 7)
		}, "not stored"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRun(shared(1, 1, 20, 4<<20, gbit))
			for _, m := range r.members {
				r.start(m)
				r.step(m.proc, nil)
			}
			if r.err != nil {
				t.Fatal(r.err)
			}
			c.do(r, r.members[1].proc)
			if r.err == nil || !strings.Contains(r.err.Error(), c.want) {
				t.Errorf("the check says %v, want something with %q", r.err, c.want)
			}
		})
	}
}

// TestManifest_changesReachTheGetters: what one holder loses comes from the other, and
// nothing false is finished with.
func TestManifest_changesReachTheGetters(t *testing.T) {
	w := shared(2, 4, 50, 64<<20, 100*mbit)
	for k := range 20 {
		w.Faults = append(w.Faults, Fault{Kind: ShareChanges, At: time.Duration(k+1) * 50 * time.Millisecond, Member: 1})
	}
	w.QuietFrom = time.Second
	result := Run(w)
	if result.Err != nil || result.Marks[ShareChanged] == 0 || result.Finished != 6 {
		t.Errorf("%v\n%v", result.Err, result)
	}
}

// BenchmarkShared measures what a step of a Node costs where pieces are many and short.
func BenchmarkShared(b *testing.B) {
	for _, getters := range []int{1, 5, 30} {
		b.Run(fmt.Sprintf("getters=%d", getters), func(b *testing.B) {
			var steps, tracker uint64
			var took, tracked time.Duration
			for b.Loop() {
				w := shared(1, getters, 10_000, 10_000*4096, gbit)
				w.Alike = true
				r := newRun(w)
				start := time.Now()
				r.clock = func() time.Duration { return time.Since(start) }
				result := r.play()
				if result.Err != nil {
					b.Fatal(result.Err)
				}
				steps, took = steps+result.NodeSteps, took+result.NodeTime
				tracker, tracked = tracker+result.TrackerSteps, tracked+result.TrackerTime
			}
			b.ReportMetric(float64(took.Nanoseconds())/float64(steps), "ns/step")
			b.ReportMetric(float64(tracked.Nanoseconds())/float64(tracker), "ns/tracker-step")
			b.ReportMetric(0, "ns/op")
		})
	}
}
