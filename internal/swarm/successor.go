package swarm

import (
	"encoding/binary"
	"time"

	"dragonload/internal/piece"
)

// When the room's own tracker is away a member takes its place for the pool. Who, all
// compute alike: the members have an order (outranks), and of those that lost the
// tracker the first one hosts. The others follow once it says that it does (Successor
// with Live), so nobody is asked that is not ready, and two that host at the same time,
// as after a partition, become one: whoever hears of a live one that comes earlier
// moves to it. The room's own tracker comes before all, and drivers go on trying it.

const (
	// successorTime is what the room's own tracker has to come back before anybody
	// takes its place. It also covers the time in which members notice its loss, one
	// after the other, and tell each other whom they would take.
	successorTime = 700 * time.Millisecond

	// hostTime is what the first member has to take the role before the next is tried,
	// again and again.
	hostTime = time.Second

	// relookTime is between two looks for a successor that comes earlier.
	relookTime = 500 * time.Millisecond

	// shutTime is for how long a member that did not serve as tracker is left out,
	// doubling up to maxShut.
	shutTime = 3 * time.Second
	maxShut  = time.Minute

	// maxShuts bounds the members that are left out at a time.
	maxShuts = 256

	// Members move to another tracker spread over followTime and memberTime for each
	// that the pool has had, at most maxSpread: a tracker should not meet all at once.
	followTime = 50 * time.Millisecond
	memberTime = 200 * time.Microsecond
	maxSpread  = 3 * time.Second

	// homeTime is the least time between two early tries of the room's own tracker.
	homeTime = time.Second
)

// successorSide is what a Node knows of who is tracker while the room's own is not.
type successorSide struct {
	away    bool // this node, or a neighbour, has lost the room's own tracker
	warned  bool // of that
	at      PeerAddr
	seeking piece.NodeID // SeekTracker is under way to this member; zero: to none
	hosting bool
	told    Successor // what the neighbours were told last; the zero value: nothing
	saidAny bool

	first    piece.NodeID // whom this node waits for
	waitTo   Instant      // until when
	decideAt Instant      // before, members only tell each other whom they would take
	lookAt   Instant      // when to look next
	homeAt   Instant      // when to try the room's own tracker early
	homeMin  Instant      // not before
	shut     map[piece.NodeID]shut
}

// shut says until when a member is not taken for a tracker.
type shut struct {
	until Instant
	times int
}

func (s *successorSide) init() {
	s.lookAt, s.homeAt = never, never
	s.shut = make(map[piece.NodeID]shut)
}

// outranks reports whether a comes before b in the pool's order: a rendezvous hash of
// the pool and the member, so that each pool has an order of its own that needs nothing
// but the members' ids.
func (n *Node) outranks(a, b piece.NodeID) bool {
	x, y := n.placeOf(a), n.placeOf(b)
	if x != y {
		return x > y
	}
	return a.Compare(b) < 0
}

func (n *Node) placeOf(id piece.NodeID) uint64 {
	var h uint64
	for k := 0; k < len(id); k += 8 {
		h = mix(h ^ binary.LittleEndian.Uint64(id[k:]) ^ binary.LittleEndian.Uint64(n.opts.Pool[k:]))
	}
	return h
}

// home reports whether the room's own tracker is there.
func (n *Node) home() bool { return n.tracker.up && n.successor.at.ID == piece.NodeID{} }

// trackerIsUp notes whose session is open: that of the room's own tracker (zero), or of
// a member that takes its place.
func (n *Node) trackerIsUp(member piece.NodeID) {
	s := &n.successor
	if member == (piece.NodeID{}) {
		if s.warned {
			n.warn(WarnTrackerBack)
		}
		s.away, s.warned, s.at, s.seeking = false, false, PeerAddr{}, piece.NodeID{}
		s.lookAt, s.homeAt = never, never
		clear(s.shut)
		if s.saidAny {
			n.sayTracker(Successor{Live: true})
		}
		n.stopHosting()
		return
	}
	moved := s.at.ID != member
	s.at, s.seeking = n.reach(member), piece.NodeID{}
	delete(s.shut, member)
	if member != n.opts.Self {
		n.stopHosting()
	}
	if moved && !n.finished {
		n.act(Warn{Code: WarnTrackerMoved, Peer: member})
	}
	if s.at.Addr != "" {
		n.handout(Handout{Peers: []PeerAddr{s.at}, All: n.swap.mesh}) // it names itself to nobody: it does not know where it is reached
	}
	n.sayTracker(Successor{Tracker: s.at, Live: true})
	s.lookAt = n.now.Add(relookTime)
}

// trackerIsDown notes that the session has ended, whosever it was.
func (n *Node) trackerIsDown() {
	s := &n.successor
	wait := successorTime
	if lost := s.at.ID; lost != (piece.NodeID{}) {
		// The room's own is known to be away; what is needed is the next member.
		wait = followTime
		if lost != n.opts.Self {
			n.shutOut(lost)
		}
	} else if !n.finished {
		s.warned = true
		n.warn(WarnTrackerAway)
	}
	s.at = PeerAddr{}
	n.sayTracker(Successor{})
	n.lose(wait)
}

// lose begins the search for a successor.
func (n *Node) lose(wait time.Duration) {
	s := &n.successor
	s.away, s.first, s.decideAt = true, piece.NodeID{}, n.now.Add(wait)
	s.lookAt = n.now.Add(wait / 2)
}

func (n *Node) trackerMissed(member piece.NodeID) {
	s := &n.successor
	if s.seeking != member {
		return
	}
	s.seeking = piece.NodeID{}
	n.shutOut(member)
	n.doubtNamers(member)
	if member == n.opts.Self {
		n.stopHosting()
	}
	if s.away {
		s.lookAt = n.now.Add(followTime)
	}
}

func (n *Node) stopHosting() {
	if n.successor.hosting {
		n.successor.hosting = false
		n.act(HostTracker{On: false})
	}
}

// shutOut leaves a member out as tracker for a while.
func (n *Node) shutOut(member piece.NodeID) {
	s := &n.successor
	if len(s.shut) >= maxShuts {
		for id, x := range s.shut {
			if x.until <= n.now {
				delete(s.shut, id)
			}
		}
		if len(s.shut) >= maxShuts {
			clear(s.shut) // they are found out again
		}
	}
	x := s.shut[member]
	x.until = n.now.Add(min(shutTime<<min(x.times, 8), maxShut))
	x.times++
	s.shut[member] = x
}

// doubtNamers leaves out for a while what neighbours say of others, who have named a
// member that did not serve: else one that names one stranger after another could keep
// the rest from finding a tracker.
func (n *Node) doubtNamers(member piece.NodeID) {
	for _, p := range n.swap.order {
		if p.tracker.Tracker.ID == member && p.id != member {
			p.doubtTo = n.now.Add(shutTime)
		}
	}
}

// named returns whom a neighbour has, or would take, for its tracker, nobody if it is
// not to be believed.
func (n *Node) named(p *neighbour) (a PeerAddr, live bool) {
	t := p.tracker.Tracker
	if !p.astray || t.ID == (piece.NodeID{}) || t.ID == n.opts.Self || n.now < p.doubtTo && t.ID != p.id {
		return PeerAddr{}, false
	}
	return n.reach(t.ID), p.tracker.Live
}

func (n *Node) isShut(member piece.NodeID) bool { return n.now < n.successor.shut[member].until }

// sayTracker tells the neighbours whom this node has, or would take, for its tracker.
func (n *Node) sayTracker(m Successor) {
	s := &n.successor
	if s.saidAny && s.told == m {
		return
	}
	s.saidAny, s.told = true, m
	for _, p := range n.swap.order {
		n.act(TellPeer{Peer: p.id, Message: m})
	}
}

// heardTracker takes in whom a neighbour has, or would take, for its tracker.
func (n *Node) heardTracker(p *neighbour, m Successor) {
	p.tracker, p.astray = m, !m.Live || m.Tracker.ID != piece.NodeID{}
	s := &n.successor
	if n.home() {
		return
	}
	if p.astray && !s.away {
		n.lose(successorTime) // it was never there for this node
	}
	switch {
	case !p.astray:
		// The room's own tracker is there again. Once it has met one member of the pool it
		// waits for the others, but not for long.
		if s.away && n.now >= s.homeMin {
			s.homeMin = n.now.Add(homeTime)
			s.homeAt = min(s.homeAt, n.now.Add(n.spread()))
		}
	case m.Live:
		if s.seeking == (piece.NodeID{}) && (!n.tracker.up || n.outranks(m.Tracker.ID, s.at.ID)) {
			s.lookAt = min(s.lookAt, n.now.Add(n.spread()))
		}
	case !n.tracker.up && m.Tracker.ID != piece.NodeID{}:
		n.favour()
	}
}

// spread draws when to move to another tracker, so that not all come at once.
func (n *Node) spread() time.Duration {
	most := min(followTime+time.Duration(min(n.tracker.number, 1<<20))*memberTime, maxSpread)
	return time.Duration(n.rng.Int64N(int64(most)))
}

// reach returns a member with the address that is known of it.
func (n *Node) reach(member piece.NodeID) PeerAddr {
	if member == n.opts.Self {
		return PeerAddr{ID: member, Addr: n.opts.Addr}
	}
	if k := n.swap.known[member]; k != nil && k.addr.Addr != "" {
		return k.addr
	}
	for _, p := range n.swap.order {
		if p.tracker.Tracker.ID == member {
			return p.tracker.Tracker
		}
	}
	return PeerAddr{ID: member}
}

// liveSuccessor returns the first member that a neighbour has as tracker now.
func (n *Node) liveSuccessor() (first PeerAddr, ok bool) {
	for _, p := range n.swap.order {
		if t, live := n.named(p); live && t.Addr != "" && !n.isShut(t.ID) && (!ok || n.outranks(t.ID, first.ID)) {
			first, ok = t, true
		}
	}
	return first, ok
}

// wouldBeSuccessor returns the first member of those that lost the tracker, as far as
// this node and its neighbours know them. It is nobody where most neighbours have the
// room's own tracker: then this node alone has lost it, and others cannot take a place
// that is not free.
func (n *Node) wouldBeSuccessor() (first PeerAddr, ok bool) {
	take := func(a PeerAddr) {
		if a.Addr != "" && !n.isShut(a.ID) && (!ok || n.outranks(a.ID, first.ID)) {
			first, ok = a, true
		}
	}
	astray := 0
	for _, p := range n.swap.order {
		if !p.astray {
			continue
		}
		astray++
		take(n.reach(p.id))
		t, _ := n.named(p)
		take(t)
	}
	if astray == 0 || 2*astray < len(n.swap.order) {
		return PeerAddr{}, false
	}
	if n.opts.Hosts {
		take(PeerAddr{ID: n.opts.Self, Addr: n.opts.Addr})
	}
	return first, ok
}

// favour tells the neighbours whom this node would take, so that in a pool without a
// full mesh all hear of the first before anybody takes the role.
func (n *Node) favour() {
	if first, ok := n.wouldBeSuccessor(); ok {
		n.sayTracker(Successor{Tracker: first})
	}
}

// succeed finds a tracker where the room's own is away.
func (n *Node) succeed() {
	s := &n.successor
	if n.now >= s.homeAt {
		s.homeAt = never
		if !n.home() {
			n.act(SeekTracker{})
		}
	}
	if n.now < s.lookAt {
		return
	}
	s.lookAt = never
	if !s.away || n.home() {
		return
	}
	s.lookAt = n.now.Add(relookTime/2 + time.Duration(n.rng.Int64N(int64(relookTime))))
	if s.seeking != (piece.NodeID{}) {
		return
	}
	live, ok := n.liveSuccessor()
	switch {
	case ok && (!n.tracker.up || n.outranks(live.ID, s.at.ID)):
		n.seek(live)
	case n.tracker.up:
	case n.now < s.decideAt:
		n.favour()
		s.lookAt = s.decideAt
	default:
		n.takeTurns()
	}
}

// takeTurns waits for the first member to take the role, or takes it.
func (n *Node) takeTurns() {
	s := &n.successor
	first, ok := n.wouldBeSuccessor()
	if !ok {
		return
	}
	n.sayTracker(Successor{Tracker: first})
	switch {
	case first.ID == n.opts.Self:
		if !s.hosting {
			s.hosting = true
			n.act(HostTracker{On: true})
		}
		n.seek(first)
	case first.ID != s.first:
		s.first, s.waitTo = first.ID, n.now.Add(hostTime)
	case n.now >= s.waitTo:
		n.shutOut(first.ID) // it does not come
		n.doubtNamers(first.ID)
		s.lookAt = n.now.Add(1)
	}
}

func (n *Node) seek(member PeerAddr) {
	n.successor.seeking = member.ID
	n.act(SeekTracker{Peer: member})
}

// tellTracker tells a new neighbour where this node is, unless that is where all are.
func (n *Node) tellTracker(p *neighbour) {
	if s := &n.successor; s.saidAny && !n.home() {
		n.act(TellPeer{Peer: p.id, Message: s.told})
		s.lookAt = min(s.lookAt, n.now.Add(relookTime))
	}
}
