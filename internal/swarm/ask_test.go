package swarm_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// Where a neighbour brings a MiB in an instant a request is for more, and elsewhere it is
// not, so that what is asked of one can soon be asked of another.
func TestNode_asksForMoreWhereItComesInAnInstant(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		rate int64 // bytes per second
		want int64 // bytes of the longest request
	}{
		{"400 Mbit/s", 50e6, 1 << 20},
		{"the machine itself", 800e6, 4 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := longestRequest(t, c.rate); got != c.want {
				t.Errorf("the longest request is for %d bytes, want %d", got, c.want)
			}
		})
	}
}

// longestRequest plays the download of 512 MiB from one neighbour, which answers requests
// one after the other at a rate, and returns how much the longest was for.
func longestRequest(t *testing.T, rate int64) (longest int64) {
	layout, err := piece.LayoutOf(512<<10, []int64{512 << 20})
	if err != nil {
		t.Fatal(err)
	}
	m := &swarm.Manifest{Layout: layout, Pin: piece.ManifestPin([32]byte{1}, layout)}
	for i := range layout.Count() {
		m.Digests = append(m.Digests, piece.Digest{1, byte(i), byte(i >> 8)})
	}
	v := &victim{now: swarm.Instant(time.Second), Node: swarm.NewNode(
		swarm.NodeOptions{Self: id("M"), Addr: "host:1", Wants: true, Manifest: m}, rand.New(rand.NewPCG(1, 2)))}
	waiting := only[swarm.FetchPeer](v.hear(swarm.TrackerUp{}, swarm.PeerUp{Peer: id("A")}, said("A", holds(m.Pin))))
	for ; len(waiting) > 0 && !v.Have().All(); waiting = waiting[1:] {
		bytes := int64(0)
		for _, i := range waiting[0].Pieces {
			length := layout.Length(i)
			bytes += length
			v.now = v.now.Add(time.Duration(length * int64(time.Second) / rate))
			waiting = append(waiting, only[swarm.FetchPeer](v.hear(swarm.PeerStored{Request: waiting[0].Request, Piece: i}))...)
		}
		longest = max(longest, bytes)
		waiting = append(waiting, only[swarm.FetchPeer](v.hear(swarm.PeerEnded{Request: waiting[0].Request}))...)
	}
	if !v.Have().All() {
		t.Fatalf("only %d of %d pieces were asked for", v.Have().Count(), layout.Count())
	}
	return longest
}
