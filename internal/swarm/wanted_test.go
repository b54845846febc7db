package swarm_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// audience is a pool of a manifest, member 0 of which holds everything.
type audience struct {
	tracker *swarm.Tracker
	now     swarm.Instant
	shown   map[piece.NodeID]int // how often each member was named to others
	most    int                  // members in one handout
}

func member(k int) (id piece.NodeID) {
	binary.BigEndian.PutUint32(id[:], uint32(k)+1)
	return id
}

func (c *audience) said(k int, m swarm.ToTracker) (handed int) {
	c.now++
	for _, a := range c.tracker.Step(c.now, swarm.MemberSaid{Member: member(k), Message: m}, nil) {
		tell, ok := a.(swarm.TellMember)
		if !ok || tell.Member != member(k) {
			continue
		}
		if h, ok := tell.Message.(swarm.Handout); ok {
			for _, p := range h.Peers {
				c.shown[p.ID]++
			}
			handed = len(h.Peers)
			c.most = max(c.most, handed)
		}
	}
	return handed
}

func (c *audience) announce(k int, m *swarm.Manifest, all bool) {
	have := piece.NewBitfield(m.Layout.Count())
	for i := range piece.Index(have.Len()) {
		if all {
			have.Set(i)
		}
	}
	c.said(k, swarm.Announce{Addr: "host:1", Pinned: true, Fresh: true, Wants: true, Pin: m.Pin, Have: have})
}

// TestHandouts_spreadTheLoad: of hundreds who come at once not all are sent to the one who
// has something; who is stuck is, and those who have got a part are sources too.
func TestHandouts_spreadTheLoad(t *testing.T) {
	c := &audience{tracker: swarm.NewTracker(swarm.TrackerOptions{}, rand.New(rand.NewPCG(1, 2))), now: swarm.Instant(time.Second), shown: map[piece.NodeID]int{}}
	m := manifestOf(1)
	c.announce(0, m, true)
	c.said(0, swarm.Report{Whole: true})
	const getters = 400
	for k := 1; k <= getters; k++ {
		c.announce(k, m, false)
	}
	if n := c.shown[member(0)]; n < 16 || n > 100 {
		t.Errorf("the holder was named to %d of %d newcomers", n, getters)
	}
	if c.most > 50 {
		t.Errorf("a handout names %d members", c.most)
	}
	before := c.shown[member(0)]
	for k := 1; k <= 20; k++ {
		c.said(k, swarm.Report{WantPeers: true})
	}
	if c.shown[member(0)] < before+15 {
		t.Errorf("20 who are stuck were shown the holder %d times", c.shown[member(0)]-before)
	}

	// Half of them have a piece by now: a newcomer needs nobody else.
	for k := 1; k <= getters; k += 2 {
		c.said(k, swarm.Report{Stored: []piece.Extent{{First: 0, Count: 1}}})
	}
	clear(c.shown)
	for k := getters + 1; k <= getters+100; k++ {
		c.announce(k, m, false)
	}
	if n := c.shown[member(0)]; n > 15 {
		t.Errorf("the holder was named to %d of 100 newcomers, where 200 others have something", n)
	}
}

// TestTracker_refusesAnotherContent: who has another content in mind, or none, does not
// get into the pool of a manifest, nor who has a manifest into another pool.
func TestTracker_refusesAnotherContent(t *testing.T) {
	manifest, other := manifestOf(1), manifestOf(2)
	plain := swarm.Announce{Addr: "host:1", Fetches: true, Wants: true}
	pinned := func(m *swarm.Manifest) swarm.Announce {
		a := plain
		a.Pinned, a.Fresh, a.Pin, a.Have = true, true, m.Pin, piece.NewBitfield(m.Layout.Count())
		return a
	}
	selected := pinned(manifest)
	selected.Wanted = piece.NewBitfield(manifest.Layout.Count() + 1)
	streamed := pinned(manifest)
	streamed.Stream = true
	for name, c := range map[string]struct{ first, second swarm.Announce }{
		"another manifest": {pinned(manifest), pinned(other)},
		"no manifest":      {pinned(manifest), plain},
		"a manifest late":  {plain, pinned(manifest)},
		"a wrong choice":   {pinned(manifest), selected},
		"one stream":       {pinned(manifest), streamed},
	} {
		t.Run(name, func(t *testing.T) {
			tracker := swarm.NewTracker(swarm.TrackerOptions{}, rand.New(rand.NewPCG(1, 2)))
			tracker.Step(swarm.Instant(time.Second), swarm.MemberSaid{Member: member(1), Message: c.first}, nil)
			out := tracker.Step(swarm.Instant(time.Second), swarm.MemberSaid{Member: member(2), Message: c.second}, nil)
			if len(out) != 1 || out[0] != (swarm.CutMember{Member: member(2)}) {
				t.Errorf("the second is answered with %v", out)
			}
		})
	}
}
