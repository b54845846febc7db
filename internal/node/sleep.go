package node

import (
	"fmt"
	"slices"
	"time"

	"dragonload/internal/swarm"
)

// A process that did not run for a while, because the computer slept or somebody stopped
// it, comes back to connections whose other ends have given it up: they are made anew at
// once, instead of being waited for one after the other.
const (
	lookEvery = time.Second // at the clocks

	// sleptFrom is how long a process must have missed: neighbours and trackers have
	// given it up by then.
	sleptFrom = 5 * time.Second
)

// moment is one look at the clocks.
type moment struct {
	running time.Time // by the monotonic clock, which need not go on while the computer sleeps
	asleep  time.Duration
}

// newMoment reads the clocks.
func newMoment() moment {
	now := time.Now()
	return moment{running: now, asleep: asleep(now)}
}

// missed returns for how long the process did not run between two looks.
func (m moment) missed(before moment) time.Duration {
	return m.running.Sub(before.running) - lookEvery + max(m.asleep-before.asleep, 0)
}

// watchSleep looks at the clocks until the node ends.
func (n *Node) watchSleep() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	before := n.moment()
	for {
		select {
		case <-tick.C:
		case <-n.life.Done():
			return
		}
		now := n.moment()
		if missed := now.missed(before); missed >= sleptFrom {
			n.woke(missed)
		}
		before = now
	}
}

// woke makes all connections anew after the process did not run for so long. The
// downloads hear of it before their sessions and streams end.
func (n *Node) woke(missed time.Duration) {
	n.log.Warn("resumed after sleep", "missed", missed)
	n.mu.Lock()
	running := slices.Clone(n.running)
	var rooms []*membership
	for _, m := range n.members {
		rooms = append(rooms, m)
	}
	n.mu.Unlock()
	for _, d := range running {
		d.inbox.do(func() { d.woke(missed) })
	}
	for _, m := range rooms {
		m.reconnect()
		m.shelf.reconnect()
	}
}

// woke belongs to the loop.
func (d *download) woke(missed time.Duration) {
	if d.saved == nil && d.lent == nil {
		d.warn("resumed-after-sleep", fmt.Sprintf("resumed after sleep: nothing was done for %v; what came is kept, connections are made anew", missed.Round(time.Second)))
	}
	d.closeIdleOrigins()
	if d.peers != nil {
		d.peers.CutAll()
	}
	d.step(swarm.Woke{})
	if d.private != nil {
		d.step(swarm.TrackerUp{}) // it leases again what was let go
	}
}

// reconnect closes every stream and every connection to a tracker. They are made anew by
// who needs them.
func (m *membership) reconnect() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.links {
		l.end()
	}
	for _, t := range slices.Concat(m.trackers, m.foundTrackers, m.replicas) {
		t.Cut()
	}
}
