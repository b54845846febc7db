package swarm

import "time"

// What a Node makes of long silences: an origin that serves nothing, pieces that nobody
// in the pool has, and the sleep of its own machine.

// originAwayTime is for how long requests must fail, with nothing coming in between,
// before the user is told that the origin is not available.
const originAwayTime = 30 * time.Second

// maxBackOff is the longest wait of a member between two requests that fail, a quarter
// more by chance: an origin that is away for hours is not asked all the time, and one
// that comes back is not waited for long.
const maxBackOff = 2 * time.Minute

// outage is a time in which the origin answers no request usably.
type outage struct {
	since Instant // 0: there is none
	told  bool
}

// checkOutage follows whether the origin serves this node, and tells the user once of
// each outage.
func (n *Node) checkOutage() {
	o := &n.origin
	if o.failures == 0 {
		o.outage = outage{}
		return
	}
	if o.outage.since == 0 {
		o.outage.since = n.now
	}
	if !o.outage.told && n.now.Sub(o.outage.since) >= originAwayTime {
		o.outage.told = true
		n.warn(WarnOriginAway)
	}
}

// OriginAway returns for how long the origin has served nothing to this node, 0 if it
// does or was not asked.
func (n *Node) OriginAway() time.Duration {
	if n.origin.outage.since == 0 || n.origin.failures == 0 {
		return 0
	}
	return n.now.Sub(n.origin.outage.since)
}

// InPool returns how many pieces this node or a neighbour holds, as far as is known.
func (n *Node) InPool() int {
	count := 0
	for i, holders := range n.avail {
		if holders > 0 || n.have.Has(uint32(i)) {
			count++
		}
	}
	return count
}

// silence is what the user is told when nothing has come for a while.
func (n *Node) silence() WarnCode {
	if n.pinned && len(n.swap.order) > 0 && n.nowhere() {
		return WarnPartNowhere
	}
	return WarnNothingForAWhile
}

// woke takes in that the machine has slept. What was leased is lost: others fetch it by
// now. The streams that were under way are made anew when they are needed again.
func (n *Node) woke() {
	o := &n.origin
	o.leases.Clear()
	for _, r := range o.requests {
		if r.probe || r.check {
			continue // nobody else makes it
		}
		r.left.Clear()
		n.act(CancelOrigin{Request: r.id})
	}
	o.line.reset(n.now)
	n.received.reset(n.now)
	// How long nothing came says nothing while nobody looked.
	n.lastProgress, n.lastStored, n.progressAt = n.now, n.now, n.now
	n.warnedIdle = false
}
