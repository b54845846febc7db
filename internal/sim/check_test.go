package sim

import (
	"strings"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// TestChecks_seeBrokenPromises breaks each promise by hand: a check that cannot fail
// proves nothing.
func TestChecks_seeBrokenPromises(t *testing.T) {
	one := []piece.Extent{{First: 3, Count: 1}}
	for _, c := range []struct {
		name string
		do   func(r *run, p *proc)
		want string
	}{
		{"announces what is not stored", func(r *run, p *proc) { r.checkToPeer(p, swarm.Haves{Extents: one}) }, "not stored"},
		{"reports what is not stored", func(r *run, p *proc) { r.checkToTracker(p, swarm.Report{Stored: one}) }, "not stored"},
		{"reports itself whole", func(r *run, p *proc) { r.checkToTracker(p, swarm.Report{Whole: true}) }, "whole"},
		{"serves what is not stored", func(r *run, p *proc) {
			p.asked[7] = &fetch{asker: r.members[1].proc, pieces: []piece.Index{3}}
			r.serve(p, 7)
		}, "not stored"},
		{"mixes two versions", func(r *run, p *proc) {
			r.store(p, r.origin.current, 1, 0, true)
			r.store(p, r.origin.version(r), 2, 0, true)
		}, "beside pieces of"},
		{"asks during a pause", func(r *run, p *proc) {
			p.quiet[own] = r.now.Add(time.Second)
			r.pull(p, &pull{req: 1, end: 10})
		}, "pause"},
		{"finishes too early", func(r *run, p *proc) { r.finishFile(p, swarm.Basis{}) }, "not whole"},
		{"quits too early", func(r *run, p *proc) { r.quit(p) }, "before its file"},
		{"fails", func(r *run, p *proc) { r.failed(p, swarm.FailOrigin) }, "fails"},
		{"is told Complete too early", func(r *run, p *proc) {
			r.checkToMember(&r.tracker, swarm.TellMember{Member: p.m.id, Message: swarm.Complete{}})
		}, "complete"},
		{"takes another's bytes for this version's", func(r *run, p *proc) {
			p.m.disk.have.Set(1)
			pin := r.origin.version(r).pin
			r.setGeneration(p, swarm.SetGeneration{Pin: pin}, nil)
		}, "keeps pieces"},
		{"opens too much", func(r *run, p *proc) {
			for k := range maxPulls + 1 {
				p.pulls[swarm.Request(k)] = &pull{}
			}
			r.s10TablesStayBounded(p)
		}, "requests to the origin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRun(Uniform(2, 4<<20, 1))
			for _, m := range r.members {
				r.start(m)
				m.disk.begin(r.origin.current.pin, 0)
				m.disk.content = r.origin.current
				r.tracker.sessions[m.index] = &session{p: m.proc, said: true}
			}
			if r.err != nil {
				t.Fatal(r.err)
			}
			c.do(r, r.members[0].proc)
			if r.err == nil || !strings.Contains(r.err.Error(), c.want) {
				t.Errorf("the check says %v, want something with %q", r.err, c.want)
			}
		})
	}
}

func TestBudget_growsOnlyByWhatFaultsExplain(t *testing.T) {
	r := newRun(Uniform(2, 4<<20, 1))
	size := r.world.Size
	r.result.OriginBytes = size + size/50
	if r.s7OriginWithinItsBudget(); r.err != nil {
		t.Fatalf("within the budget: %v", r.err)
	}
	r.result.OriginBytes = size + 2*r.budget.piece
	if r.s7OriginWithinItsBudget(); r.err == nil {
		t.Fatal("two pieces too many go unseen")
	}
	r.err = nil
	// The only holder of three pieces leaves: they have to be fetched again.
	m := r.members[0]
	r.start(m)
	m.disk.begin(r.origin.current.pin, 0)
	for i := range piece.Index(3) {
		r.store(m.proc, r.origin.current, i, 0, true)
	}
	r.endProcess(m.proc, false)
	if r.s7OriginWithinItsBudget(); r.err != nil {
		t.Errorf("three pieces were lost: %v", r.err)
	}
}

// TestRun_seesThatSomebodyIsStuck lets the origin turn everybody away for good.
func TestRun_seesThatSomebodyIsStuck(t *testing.T) {
	w := Uniform(3, 4<<20, 1)
	w.Faults = []Fault{{Kind: OriginBusy, For: 100 * time.Hour, Wait: time.Second}}
	result := Run(w)
	if result.Err == nil || !strings.Contains(result.Err.Error(), "not all members have finished (0 of 3") {
		t.Errorf("got %v", result.Err)
	}
}

func TestDraw_coversWhatIsPromised(t *testing.T) {
	least, most, fewest, largest := 1<<30, 0, 1<<30, 0
	var kinds [faultKinds]int
	plain := 0
	for seed := range uint64(2000) {
		w := Draw(seed)
		least, most = min(least, len(w.Members)), max(most, len(w.Members))
		n := piece.LayoutFor(w.Size).Count()
		fewest, largest = min(fewest, n), max(largest, n)
		for _, f := range w.Faults {
			kinds[f.Kind]++
			if f.At+f.For > w.QuietFrom && !w.Members[f.Member].Rest {
				t.Fatalf("seed %d: %v lasts longer than %v", seed, f.Kind, w.QuietFrom)
			}
		}
		if len(w.Faults) == 0 {
			plain++
		}
	}
	if least > 2 || most < 190 || fewest > 1 || largest < 4500 || plain < 100 {
		t.Errorf("%d to %d members, %d to %d pieces, %d worlds without faults", least, most, fewest, largest, plain)
	}
	for k, n := range kinds {
		if n == 0 {
			t.Errorf("no world has the fault %v", FaultKind(k))
		}
	}
}

func TestBound_isThatOfTheLab(t *testing.T) {
	// lab.py: floor_once_seconds of the scenario origin-bound is 64 MiB at 80 Mbit/s.
	w := World{Size: 64 << 20, Origin: Origin{Up: 80 * mbit}}
	for range 6 {
		w.Members = append(w.Members, Member{WAN: 100 * mbit, LANUp: 400 * mbit, LANDown: 400 * mbit})
	}
	if got, want := w.Bound().Seconds(), 64*8*1.048576/80; got < want-0.001 || got > want+0.001 {
		t.Errorf("bound %.3f s, want %.3f s", got, want)
	}
	// lan-bound: 5 of 6 copies of 96 MiB leave through 80 Mbit/s each.
	w.Size, w.Origin.Up = 96<<20, 2000*mbit
	for k := range w.Members {
		w.Members[k] = Member{WAN: 200 * mbit, LANUp: 80 * mbit, LANDown: 80 * mbit}
	}
	if got, want := w.Bound().Seconds(), 5*96*8*1.048576/(6*80); got < want-0.001 || got > want+0.001 {
		t.Errorf("bound %.3f s, want %.3f s", got, want)
	}
}
