package swarm_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// TestNode_thatMayNotAskTheOriginDoesNot, whatever its tracker wants: the download may be
// one whose secrets it has not got.
func TestNode_thatMayNotAskTheOriginDoesNot(t *testing.T) {
	t.Parallel()
	opts := swarm.NodeOptions{Self: id("M"), Addr: "host:1", Wants: true, Linger: time.Minute}
	v := &victim{Node: swarm.NewNode(opts, rand.New(rand.NewPCG(1, 2))), now: swarm.Instant(time.Second)}
	out := v.hear(swarm.TrackerUp{}, swarm.TrackerSaid{Message: swarm.Probe{}}, swarm.TrackerSaid{Message: swarm.Pinned{Pin: hostilePin}})
	out = append(out, v.hear(swarm.TrackerSaid{Message: swarm.Lease{Extents: []piece.Extent{{Count: 9}}}})...)
	for range 100 {
		out = append(out, v.after(time.Second)...)
	}
	if n := len(only[swarm.ProbeOrigin](out)) + len(only[swarm.FetchOrigin](out)); n > 0 {
		t.Errorf("asks the origin %d times", n)
	}
	given := 0
	for _, a := range only[swarm.TellTracker](out) {
		if r, ok := a.Message.(swarm.Returned); ok {
			for _, e := range r.Extents {
				given += int(e.Count)
			}
		}
	}
	if given != 9 {
		t.Errorf("gives %d of 9 pieces back", given)
	}
}
