package swarm_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// failing answers each request to the origin with a failure for so long, and returns when
// they were made and what the user was told.
func (v *victim) failing(out []swarm.Action, until swarm.Instant) (asked []swarm.Instant, told []swarm.WarnCode) {
	for {
		for _, w := range only[swarm.Warn](out) {
			told = append(told, w.Code)
		}
		var next []swarm.Action
		for _, f := range only[swarm.FetchOrigin](out) {
			asked = append(asked, v.now)
			next = append(next, v.hear(swarm.OriginEnded{Request: f.Request, Failure: swarm.Passing})...)
		}
		for _, f := range only[swarm.TellTracker](out) {
			if m, ok := f.Message.(swarm.Returned); ok && len(m.Extents) > 0 {
				next = append(next, v.hear(swarm.TrackerSaid{Message: swarm.Lease{Extents: m.Extents}})...)
			}
		}
		if out = next; len(out) == 0 {
			if v.now >= until {
				return asked, told
			}
			out = v.after(250 * time.Millisecond)
		}
	}
}

// TestFault25_30OriginAwayForHours: the wait grows to minutes, the user is told once that
// the origin is away and once that what is missing is nowhere, and all is well when the
// origin is back.
func TestFault25_30OriginAwayForHours(t *testing.T) {
	t.Parallel()
	v := newVictim()
	v.Node = swarm.NewNode(swarm.NodeOptions{Self: id("M"), Fetches: true, Wants: true, GiveUpAfter: 24 * time.Hour}, rand.New(rand.NewPCG(1, 2)))
	v.hear(swarm.TrackerUp{}, swarm.TrackerSaid{Message: swarm.Pinned{Pin: smallPin}}, swarm.PeerUp{Peer: id("A")})
	most := holds(smallPin)
	most.Have.Unset(3)
	statement := stated("A", digestOf, 0, 1, 2)
	statement.Generation = smallPin.Generation(0)
	out := v.hear(said("A", most), said("A", statement))
	for have := v.Have(); have.Count() < 3; {
		fetches := only[swarm.FetchPeer](out)
		if len(fetches) == 0 {
			t.Fatal("what A holds is not asked for")
		}
		out = nil
		for _, f := range fetches {
			for _, i := range f.Pieces {
				out = append(out, v.hear(swarm.PeerStored{Request: f.Request, Piece: i})...)
			}
			out = append(out, v.hear(swarm.PeerEnded{Request: f.Request})...)
		}
	}
	began := v.now
	asked, told := v.failing(v.hear(swarm.TrackerSaid{Message: swarm.Lease{Extents: []piece.Extent{{First: 3, Count: 1}}}}), began.Add(4*time.Hour))
	count := map[swarm.WarnCode]int{}
	for _, code := range told {
		count[code]++
	}
	if count[swarm.WarnOriginAway] != 1 || count[swarm.WarnPartNowhere] != 1 || count[swarm.WarnNothingForAWhile] != 0 {
		t.Errorf("the user was told %v, want once each that the origin is away and that a part is nowhere", told)
	}
	if away := v.OriginAway(); away < 3*time.Hour+59*time.Minute || v.InPool() != 3 {
		t.Errorf("away for %v, %d pieces in the pool", away, v.InPool())
	}
	late := 0
	for k := 1; k < len(asked); k++ {
		gap := asked[k].Sub(asked[k-1])
		if gap > 3*time.Minute {
			t.Errorf("request %d came %v after the one before", k, gap)
		}
		if asked[k].Sub(began) > 10*time.Minute && gap < time.Minute {
			late++
		}
	}
	if late > 0 || len(asked) < 60 {
		t.Errorf("the origin had %d requests in 4 h, %d of them less than a minute after another", len(asked), late)
	}
	// The origin is back.
	for limit := v.now.Add(3 * time.Minute); v.now < limit && !v.Have().All(); {
		for _, f := range only[swarm.FetchOrigin](v.after(250 * time.Millisecond)) {
			v.hear(swarm.OriginStored{Request: f.Request, Piece: 3, Digest: digestOf(3)}, swarm.OriginEnded{Request: f.Request})
		}
	}
	if v.after(250 * time.Millisecond); !v.Have().All() || v.OriginAway() != 0 {
		t.Errorf("after the origin was back %d pieces are here, and it counts as away for %v", v.Have().Count(), v.OriginAway())
	}
}
