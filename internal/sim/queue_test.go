package sim

import (
	"testing"
	"time"
)

// TestQueue_keepsRunningDownloadsGoing lets ten thousand begin at one moment while a room
// is at work. They are taken in one after the other, and those who work keep at least 80 %
// of their rate, though the newcomers can give nothing: they do not reach the origin, and
// what they take from the others they take slowly.
func TestQueue_keepsRunningDownloadsGoing(t *testing.T) {
	t.Parallel()
	const running, newcomers = 8, 10_000
	finish := func(more int) time.Duration {
		w := Uniform(running, 640<<20, 1)
		for range more {
			w.Members = append(w.Members, Member{LANUp: 8 << 10, LANDown: 8 << 10, Join: 2 * time.Second, Rest: true})
		}
		r := newRun(w)
		deadline := time.Minute
		for r.waiting > 0 && r.err == nil && time.Duration(r.now) < deadline {
			e, ok := r.queue.pop()
			if !ok {
				break
			}
			r.now = e.at
			e.what.happen(r)
		}
		if r.err != nil || r.waiting > 0 {
			t.Fatalf("with %d newcomers: %v, %d have not finished after %v", more, r.err, r.waiting, time.Duration(r.now))
		}
		came := 0
		for _, m := range r.members[running:] {
			if m.proc.node.Pinned() {
				came++
			}
		}
		if came != more {
			t.Errorf("%d of %d newcomers came in while the others were at work", came, more)
		}
		return time.Duration(r.now)
	}
	alone, crowded := finish(0), finish(newcomers)
	t.Logf("%v alone, %v with %d newcomers", alone, crowded, newcomers)
	if crowded > alone*5/4 {
		t.Errorf("running downloads took %v instead of %v", crowded, alone)
	}
}
