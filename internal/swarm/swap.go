package swarm

import (
	"slices"
	"time"

	"dragonload/internal/piece"
)

// The side of a Node that swaps pieces with its neighbours: who they are, who holds what,
// what came of asking them.

const (
	// maxWrong is how many wrong pieces are taken from one neighbour before it is
	// left for good.
	maxWrong = 3

	// A node seeks more neighbours when it has fewer than fewNeighbours, and takes no
	// more than maxNeighbours.
	fewNeighbours = 6
	maxNeighbours = 48
	seekTime      = 2 * time.Second

	// unsureTime is how long a neighbour is not asked again for a piece that it did not
	// send.
	unsureTime = 3 * time.Second

	// After fewUnanswered questions for statements that brought nothing new the time
	// between two of them doubles, maxUnanswered times, to 16 s.
	fewUnanswered = 4
	maxUnanswered = 6

	// claimAgain is how long claims of one neighbour are not answered after one was.
	claimAgain = time.Second

	redialTime = 500 * time.Millisecond
	maxDials   = 6 // attempts in a row, with doubling waits
)

type swapSide struct {
	order    []*neighbour // by id
	byID     map[piece.NodeID]*neighbour
	waiting  []*neighbour // for which something may be asked
	requests int          // to neighbours, under way
	asked    []*askedFor  // waiting to be served, in the order of asking
	serving  int
	// servedAt is when places were last seen to become free: a request was served that had
	// begun before the last such time, or none was under way. For each slowServe since then
	// there is a place more.
	servedAt Instant
	found    []candidate // of the last choice, kept for its memory
	known    map[piece.NodeID]*acquaintance
	mesh     bool                         // everybody was everybody's neighbour when the tracker last named some
	wrong    map[piece.Index]piece.NodeID // who sent wrong bytes of a piece, the first of them
	strays   []Request                    // under way to members that are no neighbours any more
	seekAt   Instant
	askAt    Instant // when the tracker may be asked for more members
	everMet  bool

	// Pieces that were claimed until lately: most are held by somebody now, which has not
	// become known here yet. Older ones are forgotten at heardUntil.
	heard      [2]piece.Extents
	heardUntil Instant
}

// acquaintance is a member that this node was told of, connected or not.
type acquaintance struct {
	addr    PeerAddr
	dialing bool
	up      bool
	failed  int
	retryAt Instant
	shunned bool // it served wrong bytes

	record record
}

// neighbour is a member with which a stream is open.
type neighbour struct {
	*record

	id      piece.NodeID
	has     piece.Bitfield
	said    *Holds        // what it holds, while this node does not know the generation or has another
	claims  piece.Extents // what it fetches from the origin, while there is no tracker
	relayed piece.Extents // what its neighbours claim
	told    bool          // the last Relay to it named claims
	tracker Successor     // whom it has, or would take, for its tracker
	astray  bool          // it has not the room's own
	doubtTo Instant       // until when it is not believed about the trackers of others

	here      bool          // it has said that it has this node's generation
	charged   piece.Index   // the piece of which it was told what it has stated wrongly
	chargedAt Instant       // 0: none
	answered  piece.Extents // pieces of which it was told that this node stands by its word
	wants     []piece.Index // pieces it has that this node had not when it heard so
	isDirty   bool
	requests  []*peerRequest
	busyFor   time.Duration // when it was last to be asked
	line      meter
	unsure    piece.Extents  // pieces that it did not send when asked
	asked     piece.Bitfield // pieces whose statement was asked for lately
	failures  int
	silences  int     // times in a row that it sent next to nothing
	barren    bool    // see Node.noteBarren
	broughtAt Instant // when it last brought a piece, or came
	muteSince Instant // since when digests of what it holds are not known; 0: they are
	retryAt   Instant

	unsureUntil Instant // when it is believed again to hold unsure

	askAgainAt Instant // when it may be asked again for the statements in asked
	brought    bool    // a piece at least, in its time as a neighbour
	unanswered int     // times that it was asked and told nothing new

	served  int64 // bytes sent to it
	serving int
	tried   bool // something was sent to it
	slow    bool // it took that slowly
}

type peerRequest struct {
	id      Request
	peer    *neighbour
	pieces  []piece.Index // not stored yet
	bytes   int64         // in these
	since   Instant       // when the last piece came
	moved   Instant       // when something was last heard of it
	doubled bool          // for pieces that another neighbour was asked for before
}

// askedFor is a request of a neighbour.
type askedFor struct {
	id     Request
	peer   piece.NodeID
	pieces []piece.Index
	bytes  int64 // in these

	active    bool    // it is served
	since     Instant // when that began
	overtaken int64   // bytes of requests that began later and were served before
}

func (s *swapSide) init() {
	s.known = make(map[piece.NodeID]*acquaintance)
	s.byID = make(map[piece.NodeID]*neighbour)
}

// neighbour returns nil if the member is none.
func (n *Node) neighbour(id piece.NodeID) *neighbour { return n.swap.byID[id] }

func (n *Node) findNeighbour(id piece.NodeID) (int, bool) {
	return slices.BinarySearchFunc(n.swap.order, id, func(p *neighbour, id piece.NodeID) int { return p.id.Compare(id) })
}

// handout takes in members to connect to.
func (n *Node) handout(msg Handout) {
	n.swap.mesh = msg.All
	for _, a := range msg.Peers {
		if a.ID == n.opts.Self || a.Addr == "" || len(n.swap.known) >= 4*maxNeighbours && n.swap.known[a.ID] == nil {
			continue
		}
		k := n.swap.known[a.ID]
		if k == nil {
			k = &acquaintance{}
			n.swap.known[a.ID] = k
		}
		k.addr, k.failed, k.retryAt = a, 0, 0
		n.dial(k)
	}
}

func (n *Node) dial(k *acquaintance) {
	if k.up || k.dialing || k.shunned || n.trust.banned[k.addr.ID] || len(n.swap.order) >= maxNeighbours {
		return
	}
	k.dialing = true
	n.act(Dial{Peer: k.addr})
}

func (n *Node) peerUp(id piece.NodeID, addr string) {
	k := n.swap.known[id]
	if k == nil {
		k = &acquaintance{addr: PeerAddr{ID: id}}
		n.swap.known[id] = k
	}
	if k.addr.Addr == "" {
		k.addr.Addr = addr
	}
	k.dialing, k.up, k.failed = false, true, 0
	at, there := n.findNeighbour(id)
	if there {
		return
	}
	if k.shunned || n.trust.banned[id] || len(n.swap.order) >= maxNeighbours {
		n.act(HangUp{Peer: id})
		return
	}
	p := &neighbour{id: id, record: &k.record, broughtAt: n.now}
	p.line.window = time.Second
	n.swap.order = slices.Insert(n.swap.order, at, p)
	n.swap.byID[id] = p
	n.swap.everMet = true
	n.tellTracker(p)
	if n.pinned {
		p.forget(n.have.Len())
		n.tellHolds(p)
	}
}

// tellHolds states all that is held here, and what of it this node vouches for.
func (n *Node) tellHolds(p *neighbour) {
	n.act(TellPeer{Peer: p.id, Message: Holds{Generation: n.generation(), Have: n.have.Clone()}})
	if !n.tracker.up && n.pinned {
		n.act(TellPeer{Peer: p.id, Message: Claim{Extents: n.leased()}})
	}
}

// begunAnew forgets what concerns another generation. What was asked for in it is not
// served: it would be other bytes, or of pieces that there are no more.
func (n *Node) begunAnew() {
	s := &n.swap
	s.requests -= len(s.strays)
	s.strays = nil
	s.wrong = make(map[piece.Index]piece.NodeID)
	s.asked = slices.DeleteFunc(s.asked, func(a *askedFor) bool {
		if !a.active {
			n.act(Refuse{Request: a.id})
		}
		return !a.active
	})
}

// forget makes p hold nothing of a new generation of count pieces.
func (p *neighbour) forget(count int) {
	p.has, p.asked = piece.NewBitfield(count), piece.NewBitfield(count)
	p.wants = nil
	p.claims.Clear()
	p.relayed.Clear()
	p.unsure.Clear()
	for _, r := range p.requests {
		r.pieces, r.bytes = nil, 0
	}
}

// away notes that p is not on this node's generation.
func (p *neighbour) away() {
	p.here, p.chargedAt = false, 0
	p.answered.Clear()
}

func (n *Node) peerDown(id piece.NodeID) {
	if k := n.swap.known[id]; k != nil {
		k.dialing, k.up = false, false
		k.failed++
		k.retryAt = n.now.Add(redialTime << min(k.failed-1, 5))
		n.forgetStranger(id, k)
	}
	at, there := n.findNeighbour(id)
	if !there {
		return
	}
	p := n.swap.order[at]
	n.swap.order = slices.Delete(n.swap.order, at, at+1)
	delete(n.swap.byID, id)
	if !n.tracker.up && p.claims.Count() > 0 {
		n.relayAt = min(n.relayAt, n.now.Add(relayDelay))
	}
	if n.pinned {
		for e := range p.has.Extents {
			for i := e.First; i < e.End(); i++ {
				n.avail[i]--
			}
		}
	}
	// Requests under way may still bring their pieces; if not, PeerEnded follows.
	// The pieces may be had elsewhere meanwhile.
	for _, r := range p.requests {
		if len(r.pieces) == 0 {
			// Nothing of it counts any more; it may be of another generation.
			n.swap.requests--
			continue
		}
		n.unask(r)
		n.swap.strays = append(n.swap.strays, r.id)
	}
}

// unask makes the pieces of a request free to be asked for again.
func (n *Node) unask(r *peerRequest) {
	for _, i := range r.pieces {
		n.asking[i]--
		n.wake(i)
	}
	r.pieces, r.bytes = nil, 0
}

// wake lets the holders of a piece be asked for it.
func (n *Node) wake(i piece.Index) {
	for _, p := range n.swap.order {
		if p.has.Has(i) {
			n.dirty(p)
		}
	}
}

func (n *Node) dirty(p *neighbour) {
	if !p.isDirty {
		p.isDirty = true
		n.swap.waiting = append(n.swap.waiting, p)
	}
}

func (n *Node) peerSaid(id piece.NodeID, msg ToPeer) {
	p := n.neighbour(id)
	if p == nil {
		return
	}
	switch msg := msg.(type) {
	case Holds:
		switch {
		case !n.pinned:
			p.said = &msg
		case msg.Generation == n.generation():
			p.said = nil
			n.takeHolds(p, msg)
			p.here = true
		default:
			// This node may be about to go over to the same generation.
			p.away()
			p.said = &msg
			n.holdsNothing(p)
		}
	case Haves:
		if !n.pinned || p.said != nil {
			n.addToSaid(p, msg.Extents)
			return
		}
		for _, e := range msg.Extents {
			n.holds(p, e)
		}
	case Statement:
		before := len(n.trust.statements)
		n.takeStatement(&msg)
		if len(n.trust.statements) > before {
			p.unanswered = 0
			p.muteSince = 0 // it is telling, and of what is left it may tell later
		}
	case Accuse:
		n.accused(p, &msg)
	case AskStatements:
		n.tellStatements(p, msg.Extents)
	case Claim:
		n.remember(&p.claims)
		p.claims.Clear()
		for _, e := range msg.Extents {
			if n.pinned && e.Valid(n.have.Len()) {
				p.claims.Add(e)
			}
		}
		n.yieldTo(p)
		if n.tracker.up {
			// p has lost the tracker before this node has: it cannot know what is leased
			// here. If it is back already it will answer likewise, so not each time.
			if n.now < p.claimedTo {
				return
			}
			p.claimedTo = n.now.Add(claimAgain)
			n.act(TellPeer{Peer: id, Message: Claim{Extents: n.leased()}})
		} else {
			n.relayAt = min(n.relayAt, n.now.Add(relayDelay))
		}
	case Successor:
		n.heardTracker(p, msg)
	case Relay:
		n.remember(&p.relayed)
		p.relayed.Clear()
		for _, e := range msg.Extents {
			if n.pinned && e.Valid(n.have.Len()) {
				p.relayed.Add(e)
			}
		}
	}
}

// addToSaid adds to what a neighbour holds while the generation is not known here.
func (n *Node) addToSaid(p *neighbour, extents []piece.Extent) {
	if p.said == nil {
		return
	}
	for _, e := range extents {
		if e.Valid(p.said.Have.Len()) {
			for i := e.First; i < e.End(); i++ {
				p.said.Have.Set(i)
			}
		}
	}
}

// takeHolds takes in all that a neighbour holds of this node's generation.
func (n *Node) takeHolds(p *neighbour, msg Holds) {
	if msg.Have.Len() != n.have.Len() {
		return
	}
	for e := range p.has.Extents {
		for i := e.First; i < e.End(); i++ {
			if !msg.Have.Has(i) {
				n.unhold(p, i)
			}
		}
	}
	p.unsure.Clear()
	for e := range msg.Have.Extents {
		n.holds(p, e)
	}
}

// holdsNothing forgets all that a neighbour holds: it is of another generation.
func (n *Node) holdsNothing(p *neighbour) {
	for e := range p.has.Extents {
		for i := e.First; i < e.End(); i++ {
			n.avail[i]--
		}
	}
	for _, r := range p.requests {
		n.unask(r)
	}
	p.forget(n.have.Len())
}

// holds notes that a neighbour holds the pieces of e.
func (n *Node) holds(p *neighbour, e piece.Extent) {
	if p.aside || !e.Valid(n.have.Len()) || p.has.Len() != n.have.Len() {
		return
	}
	for i := e.First; i < e.End(); i++ {
		if !p.has.Set(i) {
			continue
		}
		n.avail[i]++
		if n.lacks(i) {
			p.wants = append(p.wants, i)
		}
	}
	p.claims.Remove(e)
	n.dirty(p)
}

func (n *Node) peerRequest(id Request) (*neighbour, *peerRequest) {
	for _, p := range n.swap.order {
		for _, r := range p.requests {
			if r.id == id {
				return p, r
			}
		}
	}
	return nil, nil
}

func (n *Node) peerMoved(ev PeerMoved) {
	if _, r := n.peerRequest(ev.Request); r != nil {
		r.moved = n.now
	}
}

func (n *Node) peerStored(ev PeerStored) {
	n.lastProgress, n.progressAt, n.trickle = n.now, n.now, 0
	if !n.pinned || int(ev.Piece) >= n.have.Len() {
		return
	}
	p, r := n.peerRequest(ev.Request)
	if r == nil {
		if slices.Contains(n.swap.strays, ev.Request) {
			// Its neighbour is gone, but the piece came and was checked.
			n.storedFromPeer(ev.Piece)
		}
		return
	}
	k := slices.Index(r.pieces, ev.Piece)
	if k < 0 {
		return
	}
	r.pieces = slices.Delete(r.pieces, k, k+1)
	n.asking[ev.Piece]--
	p.barren, p.broughtAt = p.barren && n.dawdled(r), n.now
	r.since = n.now
	length := n.layout.Length(ev.Piece)
	r.bytes -= length
	p.line.add(n.now, length)
	p.failures, p.silences = 0, 0
	if !n.have.Has(ev.Piece) {
		n.received.add(n.now, length)
	}
	n.storedFromPeer(ev.Piece)
	if len(r.pieces) == 0 {
		n.dirty(p)
	}
}

// storedFromPeer notes a piece that matched the digest it was asked for with, unless
// the word of who stated that digest has lost its worth meanwhile.
func (n *Node) storedFromPeer(i piece.Index) {
	switch {
	case !n.digests[i].IsZero():
		n.stored(i, n.digests[i], false)
	case !n.have.Has(i):
		n.act(Forget{Piece: i})
	}
}

func (n *Node) peerEnded(ev PeerEnded) {
	p, r := n.peerRequest(ev.Request)
	if r == nil {
		if k := slices.Index(n.swap.strays, ev.Request); k >= 0 {
			n.swap.strays = slices.Delete(n.swap.strays, k, k+1)
			n.swap.requests--
		}
		return
	}
	p.requests = slices.DeleteFunc(p.requests, func(o *peerRequest) bool { return o == r })
	n.swap.requests--
	p.line.stop(n.now)
	if ev.Failed {
		// It may no longer hold what it said, or have too much to do; for a while it is
		// asked for other pieces, and others for these.
		for _, i := range r.pieces {
			n.unhold(p, i)
			p.unsure.Add(piece.Extent{First: i, Count: 1})
		}
		p.unsureUntil = n.now.Add(unsureTime)
		p.failures++
		p.retryAt = n.now.Add(50 * time.Millisecond << min(p.failures, 6))
		if ev.Silent {
			p.silences++
			p.retryAt = n.now.Add(unsureTime << min(p.silences, 5))
			p.unsureUntil = p.retryAt
		}
		n.checkAt = min(n.checkAt, p.retryAt)
	}
	n.unask(r)
	for _, i := range ev.Wrong {
		if int(i) < n.have.Len() {
			n.unhold(p, i)
			p.unsure.Remove(piece.Extent{First: i, Count: 1})
			if n.digests[i].IsZero() {
				continue // it was asked for with the digest of a liar, known as such now
			}
			if p.wrong++; p.wrong <= maxWrong {
				n.act(Warn{Code: WarnWrongBytes, Peer: p.id})
			}
			if !n.vouched() {
				n.doubtDigest(i, p.id)
			}
		}
	}
	switch {
	case p.wrong < maxWrong:
	case n.trust.inconsistent, n.onTrial(p.id):
		n.setAside(p)
	default:
		if k := n.swap.known[p.id]; k != nil && !k.shunned {
			k.shunned = true
			n.act(Warn{Code: WarnShutOut, Peer: p.id})
		}
		for e := range p.has.Extents {
			n.doubted.Add(e)
		}
		for e := range n.have.Extents {
			n.doubted.Remove(e)
		}
		n.act(HangUp{Peer: p.id})
	}
	n.dirty(p)
}

// doubtDigest has the origin decide about a piece of which two neighbours have sent other
// bytes than was stated: most likely the statement is what is wrong.
func (n *Node) doubtDigest(i piece.Index, from piece.NodeID) {
	first, again := n.swap.wrong[i]
	if !again {
		n.swap.wrong[i] = from
		return
	}
	if first == from || n.have.Has(i) {
		return
	}
	if n.canRead() {
		n.refetch(i)
	} else {
		n.askAfresh(i, first, from)
	}
}

// maxAfresh bounds how often a node that cannot look for itself doubts a statement.
const maxAfresh = 64

// askAfresh forgets what was stated of a piece, and that two neighbours have sent
// something else: others may have been told better by the same member.
func (n *Node) askAfresh(i piece.Index, senders ...piece.NodeID) {
	if n.trust.afresh >= maxAfresh {
		return
	}
	n.trust.afresh++
	n.stater[i], n.digests[i] = 0, piece.Digest{}
	delete(n.swap.wrong, i)
	for _, id := range senders {
		if k := n.swap.known[id]; k != nil {
			k.shunned = false
			k.record.wrong = max(k.record.wrong-1, 0)
			n.takeBack(k)
		}
		if p := n.neighbour(id); p != nil {
			n.holds(p, piece.Extent{First: i, Count: 1})
		}
	}
}

// forgive takes those back who were left because what they sent did not match the
// digests of a liar.
func (n *Node) forgive() {
	clear(n.swap.wrong)
	for _, p := range n.swap.order {
		n.takeBack(n.swap.known[p.id])
	}
	for _, k := range n.swap.known {
		k.shunned = false
		k.record.wrong, k.record.aside = 0, false
	}
}

// unhold notes that a neighbour does not serve a piece it said it has.
func (n *Node) unhold(p *neighbour, i piece.Index) {
	if p.has.Len() == n.have.Len() && p.has.Unset(i) {
		n.avail[i]--
		if n.lacks(i) {
			n.doubted.Add(piece.Extent{First: i, Count: 1})
		}
	}
}

// checkPeers asks again where something has waited for too long, and seeks
// neighbours.
func (n *Node) checkPeers() {
	for _, p := range n.swap.order {
		if p.unsure.Count() > 0 && n.now >= p.unsureUntil {
			unsure := slices.Clone(p.unsure.Runs())
			p.unsure.Clear()
			for _, e := range unsure {
				n.holds(p, e)
			}
		}
		if p.asked.Count() > 0 && n.now >= p.askAgainAt {
			// The more often nothing came of it, the longer it is not asked again.
			p.asked = piece.NewBitfield(p.asked.Len())
			p.askAgainAt = n.now.Add(checkInterval << min(max(p.unanswered-fewUnanswered, 0), maxUnanswered))
			p.unanswered++
		}
		if len(p.wants) > 0 {
			n.dirty(p)
		}
	}
	n.endgame()
	if n.now < n.swap.seekAt {
		return
	}
	n.swap.seekAt = n.now.Add(seekTime / 4)
	if len(n.swap.order) >= maxNeighbours {
		return
	}
	var again []*acquaintance
	for id, k := range n.swap.known {
		n.forgetStranger(id, k)
		if !k.up && !k.dialing && k.failed <= maxDials && k.retryAt <= n.now && k.addr.Addr != "" {
			again = append(again, k)
		}
	}
	slices.SortFunc(again, func(a, b *acquaintance) int { return a.addr.ID.Compare(b.addr.ID) })
	for _, k := range again {
		n.dial(k)
	}
}

// wantPeers reports whether the tracker should name more members; it says so at most
// once in a seekTime.
func (n *Node) wantPeers() bool {
	if n.whole() || n.finished || n.now < n.swap.askAt || len(n.swap.order) >= fewNeighbours && !n.starved() {
		return false
	}
	n.swap.askAt = n.now.Add(seekTime)
	return true
}

// yieldTo gives up pieces that a neighbour claims as well and that were not asked for
// yet, if its id is the smaller one; so of two claims exactly one stands.
func (n *Node) yieldTo(p *neighbour) {
	if n.tracker.up || p.id.Compare(n.opts.Self) > 0 {
		return
	}
	for _, e := range p.claims.Runs() {
		n.origin.leases.Remove(e)
	}
}
