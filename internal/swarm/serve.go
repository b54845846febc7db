package swarm

import (
	"slices"
	"time"

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

	// A request is slow, for its neighbour takes it slowly, if it lasts at least slowServe
	// and overtakenBy times its bytes have gone out meanwhile in requests that began later:
	// with even shares it would be at most maxServing-1 times as many. It does not count
	// towards maxServing, or a few neighbours on bad lines would keep all others from being
	// served; there are at most maxSlow of them, and one of each neighbour.
	slowServe   = time.Second
	overtakenBy = 2 * maxServing
	maxSlow     = 42
)

func (n *Node) asked(ev Asked) {
	if !n.pinned || len(ev.Pieces) == 0 || !n.holdsAll(ev.Pieces) || n.waitingFor(ev.Peer) >= maxAsked || n.trust.banned[ev.Peer] {
		n.act(Refuse{Request: ev.Request})
		return
	}
	a := &askedFor{id: ev.Request, peer: ev.Peer, pieces: ev.Pieces}
	for _, i := range ev.Pieces {
		a.bytes += n.layout.Length(i)
	}
	n.swap.asked = append(n.swap.asked, a)
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
	if a.since <= n.swap.servedAt {
		n.swap.servedAt = n.now
	}
	for _, o := range n.swap.asked {
		if o.active && o.since < a.since {
			o.overtaken += ev.Bytes
		}
	}
	if p := n.neighbour(a.peer); p != nil {
		p.serving = max(p.serving-1, 0)
		p.served += ev.Bytes
		if ev.Bytes > 0 {
			p.tried, p.slow = true, n.isSlow(a)
		}
	}
}

func (n *Node) isSlow(a *askedFor) bool {
	return n.now.Sub(a.since) >= slowServe && a.overtaken >= overtakenBy*a.bytes
}

// serveNext lets waiting requests go ahead.
func (n *Node) serveNext() {
	for len(n.swap.asked) > n.swap.serving && n.pinned {
		best := n.nextServed()
		if best == nil {
			if n.swap.serving > 0 {
				n.checkAt = min(n.checkAt, n.now.Add(slowServe/2)) // some may turn out to be slow
			}
			return
		}
		if !n.holdsAll(best.pieces) {
			n.swap.asked = slices.DeleteFunc(n.swap.asked, func(a *askedFor) bool { return a == best })
			n.act(Refuse{Request: best.id})
			continue
		}
		if n.swap.serving == 0 {
			n.swap.servedAt = n.now
		}
		best.active, best.since = true, n.now
		n.swap.serving++
		if p := n.neighbour(best.peer); p != nil {
			p.serving++
		}
		n.act(Serve{Request: best.id})
	}
}

// nextServed returns the waiting request whose turn it is, if there is a place for one.
// Some places are kept for neighbours that are known to be quick.
func (n *Node) nextServed() (best *askedFor) {
	limit, most := n.servingLimit()
	places := min(limit+n.slowRequests()+int(n.now.Sub(n.swap.servedAt)/slowServe), most)
	if n.swap.serving >= places {
		return nil
	}
	quick := slices.ContainsFunc(n.swap.order, func(p *neighbour) bool { return p.tried && !p.slow })
	full := quick && (n.untriedRequests() >= limit-keptFree(limit) || n.swap.serving >= most-keptFree(most))
	var bestKey [3]int64
	for _, a := range n.swap.asked {
		if a.active || full && !n.isQuick(a.peer) {
			continue
		}
		if p := n.neighbour(a.peer); p != nil && p.slow && p.serving > 0 {
			continue
		}
		key := n.servingKey(a)
		if best == nil || slices.Compare(key[:], bestKey[:]) < 0 {
			best, bestKey = a, key
		}
	}
	return best
}

func keptFree(places int) int { return min(2, places/2) }

// slowRequests counts the slow ones of the requests that are served, and notes whose they
// are.
func (n *Node) slowRequests() (slow int) {
	for _, a := range n.swap.asked {
		if !a.active || !n.isSlow(a) {
			continue
		}
		slow++
		if p := n.neighbour(a.peer); p != nil {
			p.slow = true
		}
	}
	return slow
}

// untriedRequests counts those of the others that are of neighbours not known to be quick.
func (n *Node) untriedRequests() (untried int) {
	for _, a := range n.swap.asked {
		if a.active && !n.isSlow(a) && !n.isQuick(a.peer) {
			untried++
		}
	}
	return untried
}

// isQuick reports whether a member takes what is served to it as quickly as others.
func (n *Node) isQuick(id piece.NodeID) bool {
	p := n.neighbour(id)
	return p != nil && p.tried && !p.slow
}

// servingLimit returns how many requests are served at a time, the slow ones not counted,
// and with them. It keeps the pieces in memory bounded where they are long.
func (n *Node) servingLimit() (limit, most int) {
	memory := max(int(maxBuffered/2/max(n.longest, 1)), 2)
	return min(maxServing, memory), min(maxServing+maxSlow, memory)
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
