package swarm

import (
	"slices"

	"dragonload/internal/piece"
)

// An origin with two faces: members, or one member at two times, read different bytes of one version.

// inconsistent: members read different bytes of one version of the file. Nobody is to
// blame for it.
func (n *Node) inconsistent() {
	t := &n.trust
	if t.inconsistent {
		return
	}
	t.inconsistent = true
	clear(t.banned)
	clear(t.convicted)
	n.warn(WarnInconsistent)
}

// selfContradicted: the origin has given this node two answers for one piece.
func (n *Node) selfContradicted(i piece.Index) {
	t := &n.trust
	if d := t.disputeOf(i); d != nil {
		t.close(d)
	}
	n.inconsistent()
	if n.finishing || n.finished {
		return
	}
	if t.ownOnly {
		n.fail(FailInconsistent)
		return
	}
	n.own.Unset(i)
	n.tally(i)
	n.relyOnSelf()
	if !n.ended {
		t.recheck = append(t.recheck, i)
	}
}

// relyOnSelf takes nobody's word any more: every piece is read from the origin here.
func (n *Node) relyOnSelf() {
	t := &n.trust
	if t.ownOnly || n.finishing || n.finished {
		return
	}
	if !n.canRead() {
		n.fail(FailInconsistent)
		return
	}
	t.ownOnly = true
	for _, d := range t.disputes {
		t.recheck = append(t.recheck, d.piece)
	}
	t.disputes = nil
	for i := range piece.Index(n.have.Len()) {
		if !n.own.Has(i) {
			n.disbelieve(i)
		}
	}
	n.planRechecks()
	n.refetchDoubtful()
}

// planRechecks chooses pieces to be read again before the file is believed to be whole.
func (n *Node) planRechecks() {
	t := &n.trust
	t.planned = true
	for range min(rechecks, n.have.Len()) {
		t.recheck = append(t.recheck, piece.Index(n.rng.IntN(n.have.Len())))
	}
	slices.Sort(t.recheck)
	t.recheck = slices.Compact(t.recheck)
}

// rechecking reports whether a whole file waits for pieces to be read again.
func (n *Node) rechecking() bool {
	t, o := &n.trust, &n.origin
	if slices.ContainsFunc(o.requests, func(r *originRequest) bool { return r.check && !r.stale }) {
		return true
	}
	if t.inconsistent && !t.planned {
		n.planRechecks()
	}
	if len(t.recheck) == 0 {
		return false
	}
	if !n.canRead() {
		n.fail(FailInconsistent)
		return true
	}
	if at := max(n.restsUntil(), o.notBefore); n.now < at {
		n.checkAt = min(n.checkAt, at)
	} else {
		n.readOnce(t.recheck[0])
	}
	return true
}
