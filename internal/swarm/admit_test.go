package swarm_test

import (
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// crowd is a number of members that want to join a Tracker's pool at one moment.
type crowd struct {
	tracker *swarm.Tracker
	now     swarm.Instant
	waiting []comer // by at
	came    []swarm.Instant
	asked   int
	longest time.Duration
}

type comer struct {
	id piece.NodeID
	at swarm.Instant
}

func numbered(n int) (id piece.NodeID) {
	binary.BigEndian.PutUint32(id[:], uint32(n)+1)
	return id
}

// announce lets a member knock, and notes what it is told.
func (c *crowd) announce(id piece.NodeID, queued bool) {
	c.asked++
	for _, a := range c.tracker.Step(c.now, swarm.MemberSaid{Member: id, Message: swarm.Announce{Addr: "host:1", Wants: true, Queued: queued}}, nil) {
		tell, ok := a.(swarm.TellMember)
		if !ok || tell.Member != id {
			continue
		}
		switch m := tell.Message.(type) {
		case swarm.Welcome:
			c.came = append(c.came, c.now)
		case swarm.ComeBack:
			c.longest = max(c.longest, m.In)
			c.waiting = append(c.waiting, comer{id, c.now.Add(m.In)})
		}
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestTracker_pacesTenThousandJoins lets 10 000 members come at one moment. They are taken
// in at a bounded rate, all of them in time, and those who wait cost no memory.
func TestTracker_pacesTenThousandJoins(t *testing.T) {
	const many, rate, burst = 10_000, 1000, 1000
	c := &crowd{
		tracker: swarm.NewTracker(swarm.TrackerOptions{Silence: time.Hour}, rand.New(rand.NewPCG(1, 2))),
		now:     swarm.Instant(time.Second),
	}
	began := c.now
	for n := range burst {
		c.announce(numbered(n), false)
	}
	if len(c.came) != burst {
		t.Fatalf("%d of the first %d were taken in", len(c.came), burst)
	}
	c.waiting = make([]comer, 0, many)
	before := heap()
	for n := burst; n < many; n++ {
		c.announce(numbered(n), false)
	}
	if grown := int64(heap()) - int64(before); grown > 256<<10 {
		t.Errorf("%d members that wait cost the tracker %d bytes", len(c.waiting), grown)
	}
	if len(c.waiting) != many-burst || c.longest < 8*time.Second || c.longest > 12*time.Second {
		t.Errorf("%d are told to come back, the last in %v", len(c.waiting), c.longest)
	}
	for len(c.waiting) > 0 {
		slices.SortFunc(c.waiting, func(a, b comer) int { return cmp.Compare(a.at, b.at) })
		batch := c.waiting
		c.waiting = nil
		for k, w := range batch {
			if len(c.waiting) > 0 && k > 0 && w.at > batch[0].at.Add(200*time.Millisecond) {
				c.waiting = append(c.waiting, batch[k:]...) // who was put off may come before these
				break
			}
			c.now = max(c.now, w.at)
			c.announce(w.id, true)
		}
	}
	if len(c.came) != many {
		t.Fatalf("%d of %d were taken in", len(c.came), many)
	}
	if took := c.now.Sub(began); took > 15*time.Second {
		t.Errorf("the last was taken in after %v", took)
	}
	if c.asked > 3*many {
		t.Errorf("%d members asked %d times", many, c.asked)
	}
	for k := range c.came {
		if k >= rate+burst && c.came[k].Sub(c.came[k-rate-burst]) < time.Second {
			t.Fatalf("more than %d were taken in within one second, %v after the beginning", rate+burst, c.came[k].Sub(began))
		}
	}
}

// Who works on the pool already is not made to wait, and newcomers cannot keep it out.
func TestTracker_letsRunningDownloadsIn(t *testing.T) {
	t.Parallel()
	tracker := swarm.NewTracker(swarm.TrackerOptions{JoinRate: 1, JoinBurst: 1}, rand.New(rand.NewPCG(1, 2)))
	c := &crowd{tracker: tracker, now: swarm.Instant(time.Second)}
	for n := range 50 {
		c.announce(numbered(n), false)
	}
	if len(c.came) != 1 {
		t.Fatalf("%d newcomers were taken in, want 1", len(c.came))
	}
	a := swarm.Announce{Addr: "host:1", Wants: true, Pinned: true, Fresh: true, Pin: hostilePin, Have: piece.NewBitfield(hostilePin.Layout().Count())}
	for n := range 50 {
		out := tracker.Step(c.now, swarm.MemberSaid{Member: numbered(100 + n), Message: a}, nil)
		if tell, ok := out[0].(swarm.TellMember); !ok || tell.Message != (swarm.Welcome{Number: uint32(n + 2), Interval: 250 * time.Millisecond}) {
			t.Fatalf("a running download is answered with %+v", out[0])
		}
	}
}
