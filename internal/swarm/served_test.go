package swarm_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// A file that was finished in an earlier run is served from the beginning; it is never
// fetched again, whatever the origin has by now.
func TestNode_servesWhatWasFinishedBefore(t *testing.T) {
	t.Parallel()
	have, digests := piece.NewBitfield(smallPin.Layout().Count()), []piece.Digest{}
	for i := range piece.Index(have.Len()) {
		have.Set(i)
		digests = append(digests, digestOf(i))
	}
	v := newVictim()
	v.Node = swarm.NewNode(swarm.NodeOptions{
		Self: id("M"), Wants: true, KeepServing: true, Served: true, Sign: func([]byte) []byte { return make([]byte, 64) },
		Resume: &swarm.Resume{Pin: smallPin, Have: have, Digests: digests, Origin: have.Clone()},
	}, rand.New(rand.NewPCG(1, 2)))
	out := v.hear(swarm.TrackerUp{}, swarm.PeerUp{Peer: id("A")})
	if set := only[swarm.SetGeneration](out); len(set) != 1 || set[0].Pin != smallPin || set[0].Anew {
		t.Errorf("it begins with %+v", set)
	}
	if len(only[swarm.Finish](out)) != 1 {
		t.Error("the file is not finished")
	}
	v.hear(swarm.Finished{})
	announced := false
	for _, f := range only[swarm.TellTracker](out) {
		if a, ok := f.Message.(swarm.Announce); ok {
			announced = a.Pinned && !a.Fresh && a.Pin == smallPin && a.Have.All() && !a.Fetches
		}
	}
	if !announced {
		t.Error("the tracker is not told what is here")
	}

	other := smallPin
	other.Validator = `"another"`
	out = v.hear(swarm.TrackerSaid{Message: swarm.GiveUp{}}, swarm.TrackerSaid{Message: swarm.Probe{}}, swarm.TrackerSaid{Message: swarm.Pinned{Pin: other}})
	out = append(out, v.after(time.Hour)...)
	if len(only[swarm.SetGeneration](out)) != 0 || len(only[swarm.ProbeOrigin](out)) != 0 || len(only[swarm.Fail](out)) != 0 || len(only[swarm.Quit](out)) != 0 {
		t.Errorf("it does %+v", out)
	}
	if v.Have().Count() != have.Len() {
		t.Error("it has lost what it had")
	}
}
