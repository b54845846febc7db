package swarm

import (
	"time"

	"dragonload/internal/piece"
)

// A whole file that is not what its digest says: a member has lied about some of it, or
// the digest is of another file. Every piece that only one member has read, another one,
// is read from the origin here and compared; who stated it otherwise is blamed as ever,
// and what rests on its word is fetched again. What nobody lied about is right: then it is
// the digest that is wrong.
//
// Where several members have the same digest, as they mostly do, each reads first what
// none of the others comes before it for, and tells what it has read. So all of them
// together cost the origin a copy more, not one each. But two who lie alike could make a
// right digest look wrong by that: if the file still is not what its digest says, what others
// have compared is read here as well before anybody is told so.

const (
	// compareBatch is how many pieces are chosen to be read at a time.
	compareBatch = 16

	// compareWait is how long no member may have told of a reading before a node also
	// reads what others come first for: they may have no digest to compare with.
	compareWait = time.Second
)

// mismatched takes in that the file, to be finished, is not what its digest says.
func (n *Node) mismatched() {
	t := &n.trust
	if !n.pinned || n.finished {
		return
	}
	n.finishing = false
	if n.own.All() || n.vouched() {
		return
	}
	if !t.mismatched {
		n.warn(WarnDoubted)
	}
	t.ownCompared = t.ownCompared || n.allCompared()
	t.mismatched, t.mended, t.secondedAt = true, false, n.now
	n.lastProgress, n.progressAt, n.trickle, n.warnedIdle = n.now, n.now, 0, false
}

// noteSeconds notes the pieces of a statement that another member has stated alike
// before: one of the two would do for each.
func (n *Node) noteSeconds(s *Statement) {
	t := &n.trust
	for k, i := range s.Pieces {
		first := n.stater[i]
		if first == 0 || s.Digests[k] != n.digests[i] || t.statements[first-1].By == s.By || s.By == n.opts.Self {
			continue
		}
		if _, known := t.seconds[i]; !known {
			if t.seconds == nil {
				t.seconds = make(map[piece.Index]piece.NodeID)
			}
			t.seconds[i], t.secondedAt = s.By, n.now
		}
	}
}

// compared reports whether piece i was read by this node itself or, unless that has led to
// nothing, by two others alike.
func (n *Node) compared(i piece.Index) bool {
	_, seconded := n.trust.seconds[i]
	return n.own.Has(i) || seconded && !n.trust.ownCompared
}

func (n *Node) allCompared() bool {
	for i, ok := n.own.NextUnset(0); ok; i, ok = n.own.NextUnset(i + 1) {
		if !n.compared(i) {
			return false
		}
	}
	return true
}

// comparing reports whether a whole file waits for its pieces to be compared with the
// origin, and fails where they cannot be.
func (n *Node) comparing() bool {
	t, o := &n.trust, &n.origin
	switch {
	case !t.mismatched:
		return false
	case t.mended || n.allCompared():
		// It may be right by now. What is under way would meet a file that gets its name.
		o.leases.Clear()
		return len(o.requests) > 0
	case !n.canRead():
		n.fail(FailMismatch)
	case o.leases.Count() == 0:
		n.compareMore()
	}
	return true
}

// compareMore chooses some pieces that are to be read here.
func (n *Node) compareMore() {
	o, count := &n.origin, piece.Index(n.have.Len())
	start := piece.Index(n.rng.IntN(n.have.Len()))
	all := n.trust.ownCompared || n.now.Sub(n.trust.secondedAt) >= compareWait
	left := compareBatch
	for k := piece.Index(0); k < count && left > 0; k++ {
		i := (start + k) % count
		if !n.compared(i) && !n.underWay(i) && (all || n.comesFirst(i)) {
			o.leases.Add(piece.Extent{First: i, Count: 1})
			left--
		}
	}
	if left == compareBatch && !all && len(o.requests) == 0 {
		n.checkAt = min(n.checkAt, n.trust.secondedAt.Add(compareWait))
	}
	n.fetchFromOrigin()
}

// comesFirst reports whether this node is to read piece i before the neighbours do; who
// has stated it is not among them.
func (n *Node) comesFirst(i piece.Index) bool {
	mine, first := rank(i, n.opts.Self), piece.NodeID{}
	if s := n.stater[i]; s != 0 {
		first = n.trust.statements[s-1].By
	}
	for _, p := range n.swap.order {
		if p.id != first && !n.trust.distrusted[p.id] && rank(i, p.id) > mine {
			return false
		}
	}
	return true
}

// blameSecond lets the word of the member count no more that has stated piece i as another
// one has, which the origin contradicts.
func (n *Node) blameSecond(i piece.Index) {
	if second, ok := n.trust.seconds[i]; ok && !n.trust.inconsistent {
		n.distrust(second)
	}
}

// forgetSeconds lets nobody's word count for a second one who has lied.
func (t *trustSide) forgetSeconds(liar piece.NodeID) {
	for i, id := range t.seconds {
		if id == liar {
			delete(t.seconds, i)
		}
	}
}
