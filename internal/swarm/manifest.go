package swarm

import (
	"fmt"
	"slices"
	"time"

	"dragonload/internal/piece"
)

// A Node with a manifest knows from the beginning what the content is: nothing is probed,
// stated or audited, and no other content is ever taken for it. It may want some pieces
// only, and it may hold all of them from the beginning, to share them.
//
// docs/adr/0014-sharing.md says why a content of many files is one pool.

// Manifest is a content whose every digest is known. The Node shares Digests and changes
// nothing in it.
type Manifest struct {
	Pin     piece.Pin // of kind piece.Manifest
	Layout  piece.Layout
	Digests []piece.Digest // one for each piece
}

// check panics with a manifest that contradicts itself: the caller made it.
func (m *Manifest) check(wanted *piece.Bitfield) {
	count := m.Layout.Count()
	if m.Pin.Kind != piece.Manifest || m.Pin.Size != m.Layout.Size || int(m.Pin.Pieces) != count || len(m.Digests) != count ||
		wanted != nil && wanted.Len() != count {
		panic(fmt.Sprintf("swarm: a manifest of %v with %d pieces and %d digests", m.Pin, count, len(m.Digests)))
	}
}

const (
	// refusedTime is how long a tracker is left alone that takes the pool for another,
	// doubling maxRefused times.
	refusedTime = 5 * time.Second
	maxRefused  = 4

	// starvedTime is how long nothing may come and no neighbour hold what is wanted before
	// more members are asked for, however many there are.
	starvedTime = 2 * time.Second
)

// vouched reports whether a manifest vouches for every digest.
func (n *Node) vouched() bool { return n.opts.Manifest != nil }

func (n *Node) layoutOf(pin piece.Pin) piece.Layout {
	if m := n.opts.Manifest; m != nil {
		return m.Layout
	}
	return pin.Layout()
}

func (n *Node) knownDigests(count int) []piece.Digest {
	if m := n.opts.Manifest; m != nil {
		return m.Digests
	}
	return make([]piece.Digest, count)
}

// beginManifest fixes the generation before anything else happens.
func (n *Node) beginManifest() {
	n.tracker.fresh = true
	n.begin(n.opts.Manifest.Pin, 0)
}

// lacks reports whether piece i is wanted and not held.
func (n *Node) lacks(i piece.Index) bool {
	return !n.have.Has(i) && (n.opts.Wanted == nil || n.opts.Wanted.Has(i))
}

// nextLacking returns the first piece at or after i that is wanted and not held.
func (n *Node) nextLacking(i piece.Index) (piece.Index, bool) {
	i, ok := n.have.NextUnset(i)
	for ok && n.opts.Wanted != nil && !n.opts.Wanted.Has(i) {
		if i, ok = n.opts.Wanted.Next(i); ok {
			i, ok = n.have.NextUnset(i)
		}
	}
	return i, ok
}

// recountLeft counts what is wanted and not held.
func (n *Node) recountLeft() {
	n.left, n.bytes = n.have.Len()-n.have.Count(), n.layout.Size
	if n.opts.Wanted == nil {
		for e := range n.have.Extents {
			n.bytes -= n.layout.Bytes(e).Len()
		}
		return
	}
	n.left, n.bytes = 0, 0
	for i, ok := n.nextLacking(0); ok; i, ok = n.nextLacking(i + 1) {
		n.countLeft(i, 1)
	}
}

// countLeft keeps that count as piece i comes (-1) or goes (1).
func (n *Node) countLeft(i piece.Index, by int) {
	if n.opts.Wanted == nil || n.opts.Wanted.Has(i) {
		n.left += by
		n.bytes += int64(by) * n.layout.Length(i)
	}
}

// meanLength is how long the pieces are that are still to come, on average.
func (n *Node) meanLength() int64 {
	if n.left == 0 {
		return max(n.longest, 1)
	}
	return max(n.bytes/int64(n.left), 1)
}

// bytesOf returns how many bytes there are in a set of pieces.
func (n *Node) bytesOf(s *piece.Extents) (bytes int64) {
	for _, e := range s.Runs() {
		bytes += n.layout.Bytes(e).Len()
	}
	return bytes
}

// piecesLost notes that pieces are no longer held.
func (n *Node) piecesLost(extents []piece.Extent) {
	before := n.have.Count()
	for _, e := range extents {
		for i := e.First; n.pinned && i < e.End() && int(i) < n.have.Len(); i++ {
			n.drop(i)
		}
	}
	if n.have.Count() == before {
		return
	}
	n.tellLess()
	n.tracker.reportAt = n.now
	if o := &n.origin; n.finished && !n.whole() && n.opts.Fetches && !o.barred {
		// It fetches nothing again; whatever the tracker lends it would lie idle.
		o.barred = true
		if n.tracker.up {
			n.tell(Returned{Extents: slices.Clone(o.leases.Runs()), Failure: Lasting})
		}
		o.leases.Clear()
	}
}

// tellLess has the neighbours told that less is held than they think.
func (n *Node) tellLess() {
	if n.pinned {
		n.less = true
		n.flushAt = min(n.flushAt, n.now.Add(minFlushDelay))
	}
}

// nowhere reports whether no neighbour holds anything of what is lacking.
func (n *Node) nowhere() bool {
	for i, ok := n.nextLacking(0); ok; i, ok = n.nextLacking(i + 1) {
		if n.avail[i] > 0 {
			return false
		}
	}
	return true
}

// someNowhere reports whether something is lacking that no neighbour holds.
func (n *Node) someNowhere() bool {
	for i, ok := n.nextLacking(0); ok; i, ok = n.nextLacking(i + 1) {
		if n.avail[i] == 0 {
			return true
		}
	}
	return false
}

// SomethingNowhere reports whether something is lacking that no neighbour holds.
func (n *Node) SomethingNowhere() bool { return n.pinned && n.someNowhere() }

// starved reports whether the neighbours that there are bring nothing, and none can.
func (n *Node) starved() bool {
	return n.vouched() && n.now.Sub(n.lastStored) >= starvedTime && n.swap.requests == 0 && n.nowhere()
}

// judgeSeed makes a failure of an answer that did not match the manifest: it is the origin
// that is to blame. One that goes on like that is of other bytes.
func (n *Node) judgeSeed(ev *OriginEnded) {
	if ev.Changed != nil {
		ev.Changed, ev.Failure = nil, max(ev.Failure, Passing)
	}
	if len(ev.Wrong) == 0 {
		return
	}
	ev.Failure, ev.Brought = max(ev.Failure, Passing), false
	if n.origin.wrong += len(ev.Wrong); n.origin.wrong >= maxWrong {
		ev.Failure = Lasting
	}
}

// done reports whether nothing more is wanted: neither pieces nor words on them. What a
// node loses of files that have their names already it does not want again.
func (n *Node) done() bool {
	return n.whole() && !n.unsure() || n.finished && !n.whole()
}

// refuseTracker leaves a tracker that takes the pool for one of other bytes.
func (n *Node) refuseTracker() {
	t := &n.tracker
	if t.refused == 0 {
		n.warn(WarnOtherContent)
	}
	home := n.home()
	t.up, t.complete, t.downSince, t.reportAt = false, false, n.now, never
	if home {
		n.act(QueueTracker{In: refusedTime << min(t.refused, maxRefused)})
	} else {
		n.trackerIsDown() // another member takes its place
	}
	t.refused++
	n.lostTracker()
}
