package swarm

import (
	"slices"

	"dragonload/internal/piece"
)

// What becomes of the word of a member that the origin contradicts, and of what rests on it.

// distrust lets nothing rest any more on the word of a member that the origin
// contradicts.
func (n *Node) distrust(liar piece.NodeID) {
	t := &n.trust
	if liar == n.opts.Self || t.distrusted[liar] {
		return
	}
	t.distrusted[liar] = true
	n.forgive()
	t.forgetSeconds(liar)
	n.act(Warn{Code: WarnWrongStatement, Peer: liar})
	defer n.tallyAll()
	if n.finishing || n.finished {
		return // the file is what it is; the user has been told
	}
	for k, st := range t.statements {
		if st.By != liar {
			continue
		}
		for _, j := range st.Pieces {
			if n.stater[j] == int32(k+1) {
				n.disbelieve(j)
			}
		}
	}
	n.refetchDoubtful()
}

// disbelieve forgets what others have said about a piece.
func (n *Node) disbelieve(i piece.Index) {
	n.stater[i] = 0
	delete(n.trust.seconds, i)
	if n.own.Has(i) {
		return
	}
	n.digests[i] = piece.Digest{}
	n.tally(i)
	if n.have.Has(i) {
		n.trust.mended = true
		n.drop(i)
		n.tellLess() // or they would ask for it, and leave it to this node to have it
	}
	t := &n.trust
	if t.doubtful.Count() == 0 {
		t.doubtfulSince = n.now
	}
	t.doubtful.Add(piece.Extent{First: i, Count: 1})
}

// refetchDoubtful has what rested on a liar's word read from the origin. Where others
// lack it too each reads a part.
func (n *Node) refetchDoubtful() {
	t := &n.trust
	if t.doubtful.Count() == 0 || n.finishing {
		return
	}
	if !n.opts.Fetches || n.origin.barred {
		t.doubtful.Clear() // others will
		return
	}
	// While pieces come they may be those that others take upon themselves.
	since := max(t.doubtfulSince, n.lastStored)
	wait := sharedTime
	if n.tracker.up {
		wait = leasedTime
	}
	waited := n.now.Sub(since)
	all := t.ownOnly || waited >= wait+unsharedTime || !n.sharers()
	if !all && waited < wait {
		n.checkAt = min(n.checkAt, since.Add(wait))
		return
	}
	for _, e := range slices.Clone(t.doubtful.Runs()) {
		for i := e.First; i < e.End(); i++ {
			one := piece.Extent{First: i, Count: 1}
			switch {
			case n.have.Has(i), !t.ownOnly && !n.digests[i].IsZero() && n.avail[i] > 0:
				t.doubtful.Remove(one) // it is here, or somebody is believed to hold it
			case n.asking[i] > 0 || n.underWay(i):
			case all || n.highestRank(i):
				t.doubtful.Remove(one)
				n.origin.leases.Add(one)
			}
		}
	}
}

// sharers reports whether a neighbour may take its part of what is to be read again.
func (n *Node) sharers() bool {
	return slices.ContainsFunc(n.swap.order, func(p *neighbour) bool { return !n.trust.distrusted[p.id] })
}

// ban shuts a member out.
func (n *Node) ban(id piece.NodeID) {
	t := &n.trust
	if id == n.opts.Self || t.banned[id] || t.inconsistent {
		return
	}
	t.banned[id] = true
	n.act(Warn{Code: WarnBanned, Peer: id})
	for _, d := range t.disputes {
		d.sides = slices.DeleteFunc(d.sides, func(s side) bool { return s.statement.By == id })
	}
	t.disputes = slices.DeleteFunc(t.disputes, func(d *dispute) bool { return len(d.sides) == 0 })
	n.swap.asked = slices.DeleteFunc(n.swap.asked, func(a *askedFor) bool {
		if a.peer != id || a.active {
			return false
		}
		n.act(Refuse{Request: a.id})
		return true
	})
	if n.neighbour(id) != nil {
		n.act(HangUp{Peer: id})
	}
}
