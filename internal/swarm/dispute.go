package swarm

import (
	"slices"
	"time"

	"dragonload/internal/piece"
)

// Disputes: two members state different digests for one piece, or one accuses another.
// Nobody is banned for what others say. Whoever hears of a dispute reads the piece from
// the origin itself, at a moment of its own choice, and judges by that:
//
//   - Who stated otherwise is not believed any more: what rests on its word alone is read
//     again. It is banned once another member has read what was read here, and that
//     several times in all, for an origin may have two faces.
//   - If another member has read what the accused states, or the accuser is the one that
//     the origin contradicts, then the origin is inconsistent: nobody is banned.
//   - If the origin gives this node itself two answers, nobody's word is taken any more,
//     and what was read here is read again before the file is believed to be whole.
//
// docs/adr/0010-accusations.md says why.

const (
	maxDisputes = 8  // open at one time
	maxSides    = 16 // of one dispute
	maxBlamed   = 3  // disputes at one time in which one member is a side

	// maxReadings bounds the pieces of a generation that are read for disputes.
	maxReadings = 64

	// banReadings is how many readings must agree before a member is banned: those of
	// this node, at least one, and one for each member that states the same, at least
	// one. A two-faced origin that chooses by chance shows the same face so often once
	// in 32 times.
	banReadings = 5

	// A reading waits for up to readSpread, times the number of neighbours divided by
	// spreadOver, so that those who heard of a dispute together do not read together.
	readSpread = 200 * time.Millisecond
	spreadOver = 4
	readAgain  = 250 * time.Millisecond // between two readings of one dispute

	// maxAccusations of one neighbour are looked at in a row; one more every
	// accusationTime.
	maxAccusations = 8
	accusationTime = 5 * time.Second

	// What rested on a liar's word is left to the tracker's leases for leasedTime, without
	// a tracker to others for sharedTime where others can share it, in which nothing comes;
	// then each takes its part, and after unsharedTime more what is still missing.
	leasedTime   = time.Second
	sharedTime   = 500 * time.Millisecond
	unsharedTime = 1500 * time.Millisecond

	// rechecks is how many of its own pieces a node reads again where the origin is known
	// to be inconsistent; maxWavers how often a second reading may differ from the first
	// before it is.
	rechecks  = 8
	maxWavers = 2
)

// dispute is about one piece.
type dispute struct {
	piece    piece.Index
	sides    []side
	readings int // of this node, all alike
	digest   piece.Digest
	audited  bool    // an audit began it
	reading  Request // 0 if none is under way
	nextAt   Instant // of the next reading; never if none is wanted
}

// side is a member's word in a dispute.
type side struct {
	statement *Statement
	digest    piece.Digest
	accuser   bool // it says that it has read the piece to accuse another
}

// dispute returns the dispute about piece i, a new one if there is none; nil if there may
// be no more.
func (n *Node) dispute(i piece.Index, parties ...*Statement) *dispute {
	t := &n.trust
	if d := t.disputeOf(i); d != nil {
		return d
	}
	if len(t.disputes) >= maxDisputes || t.readings >= maxReadings || t.ownOnly || !n.canRead() {
		return nil
	}
	for _, s := range parties {
		if t.blamed(s.By) >= maxBlamed {
			return nil
		}
	}
	d := &dispute{piece: i, nextAt: never}
	if n.own.Has(i) {
		d.readings, d.digest = 1, n.digests[i]
	}
	t.disputes = append(t.disputes, d)
	return d
}

func (t *trustSide) disputeOf(i piece.Index) *dispute {
	for _, d := range t.disputes {
		if d.piece == i {
			return d
		}
	}
	return nil
}

// blamed returns in how many disputes a member is a side.
func (t *trustSide) blamed(id piece.NodeID) (count int) {
	for _, d := range t.disputes {
		if d.side(id) != nil {
			count++
		}
	}
	return count
}

func (d *dispute) side(id piece.NodeID) *side {
	for k := range d.sides {
		if d.sides[k].statement.By == id {
			return &d.sides[k]
		}
	}
	return nil
}

// add takes in what a member says.
func (d *dispute) add(s *Statement, accuser bool) {
	digest, ok := s.of(d.piece)
	if !ok {
		return
	}
	if known := d.side(s.By); known != nil {
		if known.digest == digest {
			known.accuser = known.accuser || accuser
		}
		return
	}
	if len(d.sides) < maxSides {
		d.sides = append(d.sides, side{s, digest, accuser})
	}
}

// canRead reports whether this node can ask the origin for single pieces.
func (n *Node) canRead() bool {
	return n.pinned && n.opts.Fetches && !n.origin.barred && n.pin.Combinable() && !n.tracker.stream
}

// judge does what a dispute allows by now.
func (n *Node) judge(d *dispute) {
	t := &n.trust
	if d.readings == 0 {
		if d.nextAt == never && d.reading == 0 {
			spread := int64(readSpread) * int64(len(n.swap.order)) / spreadOver
			d.nextAt = n.now.Add(time.Duration(n.rng.Int64N(spread + 1)))
			n.checkAt = min(n.checkAt, d.nextAt)
		}
		return
	}
	split := false
	var liars []side
	witnesses := 0
	for k, s := range d.sides {
		if s.digest == d.digest {
			witnesses++
			continue
		}
		liars = append(liars, s)
		split = split || s.accuser
		for _, o := range d.sides[k+1:] {
			split = split || o.digest == s.digest
		}
	}
	if len(liars) == 0 {
		n.settled(d)
		return
	}
	for _, s := range liars {
		n.accuse(d, s.statement)
		n.distrust(s.statement.By)
	}
	if split {
		n.inconsistent()
		if len(liars) > 1 {
			n.relyOnSelf()
		}
		return
	}
	if t.inconsistent || witnesses == 0 {
		return
	}
	if d.readings+witnesses < banReadings {
		if d.nextAt == never && d.reading == 0 {
			d.nextAt = n.now.Add(readAgain + time.Duration(n.rng.Int64N(int64(readAgain))))
			n.checkAt = min(n.checkAt, d.nextAt)
		}
		return
	}
	t.close(d)
	for _, s := range liars {
		n.convict(d, s.statement)
	}
}

func (t *trustSide) close(d *dispute) {
	t.disputes = slices.DeleteFunc(t.disputes, func(o *dispute) bool { return o == d })
}

// settled: the origin agrees with everybody who has said something.
func (n *Node) settled(d *dispute) {
	if d.audited && n.trust.auditOf == d.piece {
		// An audit saw other bytes than this reading: the origin changes its mind, or the
		// disk has damaged what was compared.
		d.audited = false
		for _, s := range d.sides {
			delete(n.trust.distrusted, s.statement.By)
		}
		if n.trust.wavers++; n.trust.wavers >= maxWavers {
			n.inconsistent()
			n.relyOnSelf()
		}
	}
	n.trust.close(d)
}

// readDisputed begins the readings that are due.
func (n *Node) readDisputed() {
	t, o := &n.trust, &n.origin
	if len(t.disputes) == 0 || n.finishing && !n.finished || !n.canRead() {
		return
	}
	for _, d := range t.disputes {
		if d.reading != 0 || d.nextAt == never {
			continue
		}
		if at := max(d.nextAt, n.restsUntil(), o.notBefore); n.now < at {
			n.checkAt = min(n.checkAt, at)
			continue
		}
		if n.underWay(d.piece) || o.leases.Has(d.piece) {
			continue // that is a reading too
		}
		if t.readings >= maxReadings {
			d.nextAt = never
			continue
		}
		t.readings++
		d.nextAt = never
		d.reading = n.readOnce(d.piece)
	}
}

// readOnce reads a piece from the origin, whether it is stored or not.
func (n *Node) readOnce(i piece.Index) Request {
	r := &originRequest{id: n.request(), since: n.now, check: true}
	one := piece.Extent{First: i, Count: 1}
	r.left.Add(one)
	n.origin.requests = append(n.origin.requests, r)
	n.origin.leases.Remove(one)
	n.origin.line.start(n.now)
	n.act(FetchOrigin{Request: r.id, Extent: one})
	return r.id
}

// read notes that this node has read piece i from the origin.
func (n *Node) read(i piece.Index, digest piece.Digest) {
	t := &n.trust
	before := len(t.recheck)
	t.recheck = slices.DeleteFunc(t.recheck, func(j piece.Index) bool { return i == j })
	t.rechecked += before - len(t.recheck)
	d := t.disputeOf(i)
	if d == nil {
		return
	}
	if d.readings > 0 && d.digest != digest {
		n.selfContradicted(i)
		return
	}
	d.digest = digest
	d.readings++
	if said, ok := n.stated(i); ok && said != digest {
		n.selfContradicted(i)
		return
	}
	n.testify(i, digest)
	n.judge(d)
}

// readEnded notes that a reading has ended, whatever came of it.
func (n *Node) readEnded(id Request) {
	for _, d := range n.trust.disputes {
		if d.reading != id {
			continue
		}
		d.reading = 0
		if d.readings == 0 && d.nextAt == never {
			d.nextAt = n.now.Add(readAgain)
			n.checkAt = min(n.checkAt, d.nextAt)
		}
		n.judge(d)
		return
	}
}
