package swarm

import (
	"slices"

	"dragonload/internal/piece"
)

// Serving: a neighbour's request waits until it is its turn. Those without one under
// way come first, then those that ask for what few hold, then those that got least:
// so rare pieces spread first, and the uplink is shared evenly.

const (
	// maxServing requests are served at a time: enough to fill an uplink through
	// several connections, few enough that a piece arrives soon and can be passed on.
	maxServing = 6

	// maxAsked bounds the requests of one neighbour that wait.
	maxAsked = 8
)

func (n *Node) asked(ev Asked) {
	if !n.pinned || len(ev.Pieces) == 0 || !n.holdsAll(ev.Pieces) || n.waitingFor(ev.Peer) >= maxAsked || n.trust.banned[ev.Peer] {
		n.act(Refuse{Request: ev.Request})
		return
	}
	n.swap.asked = append(n.swap.asked, &askedFor{id: ev.Request, peer: ev.Peer, pieces: ev.Pieces})
}

func (n *Node) holdsAll(pieces []piece.Index) bool {
	for _, i := range pieces {
		if !n.have.Has(i) {
			return false
		}
	}
	return true
}

func (n *Node) waitingFor(id piece.NodeID) (count int) {
	for _, a := range n.swap.asked {
		if a.peer == id {
			count++
		}
	}
	return count
}

func (n *Node) served(ev Served) {
	k := slices.IndexFunc(n.swap.asked, func(a *askedFor) bool { return a.id == ev.Request })
	if k < 0 {
		return
	}
	a := n.swap.asked[k]
	n.swap.asked = slices.Delete(n.swap.asked, k, k+1)
	if !a.active {
		return // it went away while it waited
	}
	n.swap.serving--
	if p := n.neighbour(a.peer); p != nil {
		p.serving = max(p.serving-1, 0)
		p.served += ev.Bytes
	}
}

// serveNext lets waiting requests go ahead.
func (n *Node) serveNext() {
	for n.swap.serving < n.servingLimit() {
		var best *askedFor
		var bestKey [3]int64
		for _, a := range n.swap.asked {
			if a.active {
				continue
			}
			key := n.servingKey(a)
			if best == nil || slices.Compare(key[:], bestKey[:]) < 0 {
				best, bestKey = a, key
			}
		}
		if best == nil {
			return
		}
		if !n.holdsAll(best.pieces) {
			n.swap.asked = slices.DeleteFunc(n.swap.asked, func(a *askedFor) bool { return a == best })
			n.act(Refuse{Request: best.id})
			continue
		}
		best.active = true
		n.swap.serving++
		if p := n.neighbour(best.peer); p != nil {
			p.serving++
		}
		n.act(Serve{Request: best.id})
	}
}

// servingLimit keeps the pieces in memory bounded where they are long.
func (n *Node) servingLimit() int {
	if !n.pinned {
		return 0
	}
	return max(min(maxServing, int(maxBuffered/2/n.layout.PieceLength)), 2)
}

// servingKey orders waiting requests, the least first.
func (n *Node) servingKey(a *askedFor) [3]int64 {
	rarest := int64(1) << 32
	for _, i := range a.pieces {
		rarest = min(rarest, int64(n.avail[i]))
	}
	if p := n.neighbour(a.peer); p != nil {
		return [3]int64{int64(p.serving), rarest, p.served}
	}
	return [3]int64{1, rarest, 0}
}
