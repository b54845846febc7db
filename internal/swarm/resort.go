package swarm

import "time"

// Web seeds that other members named are a last resort. What somebody holds comes from
// there, and nobody contacts a server that a stranger chose unless it is needed. A node with
// NodeOptions.LastResort therefore announces itself as one without an origin, and once more as
// one with it when something is nowhere to be had. Where they fail it is one without again:
// a pool is not given up because of an address that was wrong from the beginning.

const (
	// resortTime is how long something must be held by nobody before such seeds are asked: as
	// long as it may take a holder to be met.
	resortTime = 2 * time.Second

	// resortStuck is how long nothing may come from those who are said to hold it all.
	resortStuck = 15 * time.Second
)

// resortState says how far a node is with them.
type resortState uint8

const (
	resortNone resortState = iota // there are none, or they have failed
	resortLeft                    // not asked yet
	resortUsed                    // leased like any origin
)

// beginResort is called before the first step.
func (n *Node) beginResort() {
	if n.opts.LastResort && n.opts.Fetches {
		n.opts.Fetches, n.resort, n.nowhereAt = false, resortLeft, never
	}
}

// checkResort turns to the seeds if it is time.
func (n *Node) checkResort() {
	if n.resort != resortLeft || !n.pinned {
		return
	}
	if n.left == 0 || n.heldWhole() || !n.someNowhere() {
		n.nowhereAt = never
	} else {
		n.nowhereAt = min(n.nowhereAt, n.now)
	}
	if n.left > 0 && (n.nowhereAt != never && n.now.Sub(n.nowhereAt) >= resortTime || n.now.Sub(n.lastProgress) >= resortStuck) {
		n.opts.Fetches, n.resort = true, resortUsed
		n.announceAnew()
	}
}

// heldWhole reports whether a neighbour holds everything.
func (n *Node) heldWhole() bool {
	for _, p := range n.swap.order {
		if p.has.Len() > 0 && p.has.All() {
			return true
		}
	}
	return false
}

// endResort gives the seeds up; all that is asked of them ends.
func (n *Node) endResort() {
	if n.resort != resortUsed {
		return
	}
	n.opts.Fetches, n.resort = false, resortNone
	n.origin.leases.Clear()
	for _, r := range n.origin.requests {
		r.left.Clear()
		n.act(CancelOrigin{Request: r.id})
	}
	n.announceAnew()
}

// announceAnew tells a tracker that has taken this node in already what is new of it.
func (n *Node) announceAnew() {
	if n.tracker.up {
		n.announce()
	}
}
