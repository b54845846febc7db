package swarm

import (
	"encoding/binary"
	"time"

	"dragonload/internal/piece"
)

// Without a tracker members go on by themselves. Each tells its neighbours what it
// fetches from the origin (Claim), and takes next what nobody holds or claims: first
// the pieces for which it has the highest rank among the live members (rendezvous
// hashing: Thaler and Ravishankar, IEEE/ACM Transactions on Networking 6, 1998), so
// that two members seldom choose the same, then any other.

const (
	// orphanTime passes before a node fetches of its own choice: the neighbours'
	// claims must have come in, and the tracker may be back.
	orphanTime = 400 * time.Millisecond

	// isolatedTime is longer, for a node that has lost all its neighbours as well:
	// most likely its own link is down for a moment, and what it would fetch now the
	// others fetch too.
	isolatedTime = 3 * time.Second

	// unpinnedTime passes before a node that never heard of a generation asks the
	// origin itself.
	unpinnedTime = time.Second

	// streamTime is how long nothing may come before a node opens a stream of its own
	// where the origin gives no ranges.
	streamTime = 10 * time.Second

	// stuckTime is how long no piece may come before a node fetches some that others
	// are said to have.
	stuckTime = 5 * time.Second

	// claimTime is how far ahead a node claims.
	claimTime = 500 * time.Millisecond
)

// lostTracker tells the neighbours what this node is about to fetch.
func (n *Node) lostTracker() {
	if n.finished {
		return
	}
	if n.tracker.everUp {
		n.warn(WarnTrackerAway)
	}
	if n.pinned {
		n.claim()
	}
	n.checkAt = min(n.checkAt, n.now.Add(orphanTime))
}

// claim tells the neighbours all that this node fetches from the origin.
func (n *Node) claim() {
	extents := n.leased()
	for _, p := range n.swap.order {
		n.act(TellPeer{Peer: p.id, Message: Claim{Extents: extents}})
	}
}

// checkOrphan gives a node work that has no tracker to give it any, and one that is
// stuck.
func (n *Node) checkOrphan() {
	o, t := &n.origin, &n.tracker
	if !n.opts.Fetches || o.barred {
		if !t.up && !n.pinned && o.barred && len(n.swap.order) == 0 {
			n.fail(FailOrigin)
		}
		return
	}
	if n.pinned && n.missing() > 0 && n.now.Sub(n.lastStored) >= stuckTime && o.leases.Count() == 0 && len(o.requests) == 0 &&
		n.now >= o.holdUntil && !t.stream && n.now.Sub(n.lastProgress) >= stuckTime {
		n.rescue()
		return
	}
	if t.up {
		return
	}
	away := n.now.Sub(t.downSince)
	switch {
	case !n.pinned:
		if away >= unpinnedTime && !n.probing() && n.now >= max(o.notBefore, o.holdUntil) {
			n.probe()
		}
	case t.stream:
		if away >= streamTime && n.now.Sub(n.lastProgress) >= streamTime && !n.probing() && n.now >= max(o.notBefore, o.holdUntil) {
			t.asked = true
			n.probe()
		}
	case away >= orphanTime && (len(n.swap.order) > 0 || away >= isolatedTime || !n.swap.everMet):
		n.selfLease()
	}
}

// selfLease takes pieces that nobody holds or claims.
func (n *Node) selfLease() {
	o := &n.origin
	rate := o.line.rate(n.now)
	want := int(max(mulDiv(rate, int64(claimTime), int64(time.Second)), firstRequest)/n.layout.PieceLength) + 1
	want -= o.leases.Count()
	if want <= 0 {
		return
	}
	before := o.leases.Count()
	busy := n.taken()
	start := piece.Index(n.rng.IntN(n.have.Len()))
	for _, mine := range []bool{true, false} {
		for k := 0; k < n.have.Len() && want > 0; k++ {
			i := (start + piece.Index(k)) % piece.Index(n.have.Len())
			if n.have.Has(i) || n.avail[i] > 0 || busy.Has(i) || mine && !n.highestRank(i) {
				continue
			}
			busy.Set(i)
			o.leases.Add(piece.Extent{First: i, Count: 1})
			want--
		}
	}
	if o.leases.Count() > before {
		n.claim()
	}
}

// taken returns the pieces that this node or a live neighbour fetches already.
func (n *Node) taken() piece.Bitfield {
	b := piece.NewBitfield(n.have.Len())
	set := func(extents []piece.Extent) {
		for _, e := range extents {
			for i := e.First; i < e.End(); i++ {
				b.Set(i)
			}
		}
	}
	set(n.leased())
	for _, p := range n.swap.order {
		set(p.claims.Runs())
	}
	return b
}

// highestRank reports whether this node comes first among the live members for piece i.
func (n *Node) highestRank(i piece.Index) bool {
	mine := rank(i, n.opts.Self)
	for _, p := range n.swap.order {
		if !p.has.All() && rank(i, p.id) > mine {
			return false
		}
	}
	return true
}

// rank mixes a piece and a member into a number (the finaliser of SplitMix64: Steele,
// Lea and Flood, OOPSLA 2014).
func rank(i piece.Index, id piece.NodeID) uint64 {
	x := binary.LittleEndian.Uint64(id[:8]) ^ uint64(i)*0x9e3779b97f4a7c15
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// rescue fetches a few missing pieces that the origin was not to be asked for, since
// nobody brings them: their holders may be gone, silent, or lying. The choice is
// random, so that members in the same plight bring different ones.
func (n *Node) rescue() {
	n.lastStored = n.now // the next rescue comes after another stuckTime
	want := max(int(firstRequest/n.layout.PieceLength), 1)
	start := piece.Index(n.rng.IntN(n.have.Len()))
	for k := 0; k < n.have.Len() && want > 0; k++ {
		i := (start + piece.Index(k)) % piece.Index(n.have.Len())
		if !n.have.Has(i) {
			n.origin.leases.Add(piece.Extent{First: i, Count: 1})
			want--
		}
	}
}
