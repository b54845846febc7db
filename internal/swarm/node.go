package swarm

import (
	"math/rand/v2"
	"slices"
	"time"

	"dragonload/internal/piece"
)

// NodeOptions say what a Node is to do. Zero values mean the defaults.
type NodeOptions struct {
	Self piece.NodeID
	Addr string // where members reach this node, host:port; "" if they cannot
	Pool PoolID // by which the members' order for the tracker's role is found

	// Hosts says that the driver can carry out HostTracker.
	Hosts bool

	Fetches bool // may ask the origin
	// LastResort says that what Fetches may ask was named by other members, see resort.go.
	LastResort bool
	Wants      bool // wants the whole file; false for helpers, which take nothing from neighbours

	// Source is the URL for members that lend their line; "" if they must not know it.
	Source string

	// Sources are the servers from which the driver may fetch, the URL's own first; none is
	// short for one without a name. While one of them rests (Retry-After) it asks others.
	Sources []SourceID

	// Served says that what Resume has is a whole file that was finished in an earlier run
	// and is served on: its generation holds from the beginning, and nothing is fetched. A
	// pool that is of another one by now does without this node.
	Served bool

	// MaxConnections bounds the requests to the origin at one time. 0: as many as
	// bring something, at most 8.
	MaxConnections int

	// Resume is what an earlier run left, nil if nothing. With a Manifest a node that shares
	// what it has resumes with all of it.
	Resume *Resume

	// Manifest names the content from the beginning; nil for the file behind a URL. Fetches
	// then means that there are web seeds. See manifest.go.
	Manifest *Manifest

	// Wanted are the pieces of a Manifest that this node wants; nil: all. It is done once it
	// holds them, and serves whatever it holds. A node that shares files in place, to which
	// nothing is to be written, wants none.
	Wanted *piece.Bitfield

	// Run tells this run of the node from all earlier ones, in what it states.
	Run uint64

	// Confirm is how many members must state each piece alike, this one included if it has
	// read it; 0 and 1: the first one's word and audits are enough.
	Confirm int

	// Sign signs Statement.Message with this node's key.
	Sign func(message []byte) []byte

	// GiveUpAfter ends the download when no new byte has come for so long (0: 10
	// minutes). MaxTries bounds failures of the origin in a row (0: no bound).
	GiveUpAfter time.Duration
	MaxTries    int

	// MinRate is how many bytes a second, over GiveUpAfter, count as something coming at
	// all; with 0 every byte does.
	MinRate int64

	// Linger is how long a whole node stays for members that still need it. With
	// KeepServing it stays until Stopping.
	Linger      time.Duration
	KeepServing bool
}

// Resume is what is stored from an earlier run.
type Resume struct {
	Pin         piece.Pin
	Incarnation uint64
	Have        piece.Bitfield
	Digests     []piece.Digest // of every piece; those not held are ignored
	Origin      piece.Bitfield // pieces that this node read from the origin itself
}

// Node decides for one download. See the package comment for how it is driven.
type Node struct {
	opts NodeOptions
	rng  *rand.Rand
	now  Instant
	out  []Action
	next Request

	// The generation, once it is known.
	pinned      bool
	pin         piece.Pin
	incarnation uint64
	layout      piece.Layout
	longest     int64 // bytes in the longest piece
	changes     int   // times that the generation was replaced

	have    piece.Bitfield
	left    int            // pieces that are wanted and not held
	bytes   int64          // in these
	own     piece.Bitfield // of these, read from the origin by this node itself
	digests []piece.Digest // known ones, else zero
	stater  []int32        // 1 + index in statements of what vouches for a digest
	avail   []uint16       // neighbours that hold each piece
	asking  []uint8        // requests to neighbours under way for each piece

	resort    resortState
	nowhereAt Instant // since when something lacking is held by nobody; never: it is

	origin    originSide
	tracker   trackerSide
	successor successorSide
	swap      swapSide
	trust     trustSide
	confirm   confirmSide

	fresh        piece.Extents // stored, not yet told to the neighbours
	less         bool          // something is no longer held, which they do not know yet
	flushAt      Instant
	relayAt      Instant       // when to pass claims on
	unreported   piece.Extents // stored, not yet told to the tracker
	lost         piece.Extents // no longer held, not yet told to the tracker
	checkAt      Instant       // next look at what waits for too long
	lastProgress Instant       // when the last byte came
	progressAt   Instant       // when so much had come that it counts for GiveUpAfter
	trickle      int64         // bytes since then
	unstored     int64         // bytes since a piece was stored
	lastStored   Instant       // when the last piece was stored
	doubted      piece.Extents // pieces whose holder did not bring them
	rescues      int           // of this generation so far
	rescueAt     Instant       // when to fetch a piece that should have come from others
	warnedIdle   bool
	received     meter // all that comes, for estimating what is left

	helped    Instant // when a helper last had a neighbour
	finishing bool
	finished  bool
	wholeAt   Instant
	brought   bool // something was stored in this run
	ended     bool
}

// NewNode returns a Node at the beginning of a download; its clock starts with the
// first Step. It draws from rng alone.
func NewNode(opts NodeOptions, rng *rand.Rand) *Node {
	if opts.GiveUpAfter == 0 {
		opts.GiveUpAfter = 10 * time.Minute
	}
	if opts.Manifest != nil {
		opts.Manifest.check(opts.Wanted)
		opts.Confirm, opts.Source = 0, ""
	} else {
		opts.Wanted = nil
	}
	n := &Node{opts: opts, rng: rng, flushAt: never, relayAt: never, checkAt: 0}
	n.received.window = time.Second
	n.origin.init(opts.MaxConnections)
	n.tracker.init()
	n.successor.init()
	n.swap.init()
	n.trust.begin(opts.Run)
	n.beginResort()
	return n
}

// Step takes in one event, or nil once Deadline has passed, and appends what is to be
// done to out.
func (n *Node) Step(now Instant, ev Event, out []Action) []Action {
	if n.ended {
		return out
	}
	if n.lastProgress == 0 {
		n.progressAt = now
		n.lastProgress, n.lastStored, n.tracker.downSince = now, now, now
		n.checkAt = now.Add(checkInterval)
	}
	n.now, n.out = now, out
	switch {
	case n.pinned:
	case n.opts.Manifest != nil:
		n.beginManifest()
	case n.opts.Served:
		n.begin(n.opts.Resume.Pin, n.opts.Resume.Incarnation)
	}
	switch ev := ev.(type) {
	case TrackerUp, TrackerMissed, TrackerDown, TrackerSaid:
		n.trackerEvent(ev)
	case PeerUp:
		n.peerUp(ev.Peer, ev.Addr)
	case PeerDown:
		n.peerDown(ev.Peer)
	case PeerSaid:
		n.peerSaid(ev.Peer, ev.Message)
	case OriginAnswered:
		n.originAnswered(ev)
	case OriginStored:
		n.originStored(ev)
	case OriginMoved:
		n.originMoved(ev)
	case OriginEnded:
		n.originEnded(ev)
	case OriginPauses:
		n.originPauses(ev)
	case PeerStored:
		n.peerStored(ev)
	case PeerMoved:
		n.peerMoved(ev)
	case PeerEnded:
		n.peerEnded(ev)
	case Asked:
		n.asked(ev)
	case Served:
		n.served(ev)
	case Audited:
		n.audited(ev)
	case Unreadable:
		n.piecesLost([]piece.Extent{{First: ev.Piece, Count: 1}})
	case PiecesLost:
		n.piecesLost(ev.Extents)
	case Misread:
		n.misread(ev.Piece)
	case Finished:
		n.finished, n.trust.mismatched = true, false
	case Mismatched:
		n.mismatched()
	case Woke:
		n.woke()
	case Stopping:
		n.quit()
	}
	if !n.ended {
		n.run()
	}
	out, n.out = n.out, nil
	return out
}

// Deadline returns when Step wants to be called next if nothing happens before.
func (n *Node) Deadline() (Instant, bool) {
	if n.ended {
		return 0, false
	}
	at := min(n.checkAt, n.flushAt, n.relayAt, n.successor.lookAt, n.successor.homeAt)
	if n.tracker.up {
		at = min(at, n.tracker.reportAt)
	}
	return at, at != never
}

// run does what is due and what the last event has made possible.
func (n *Node) run() {
	if n.now >= n.checkAt {
		n.check()
	}
	if n.ended {
		return
	}
	n.succeed()
	n.fetchFromOrigin()
	n.fetchFromPeers()
	n.serveNext()
	if n.now >= n.flushAt {
		n.flush()
	}
	if n.now >= n.relayAt {
		n.relay()
	}
	n.reportIfDue()
	n.finishIfDone()
	n.quitIfUnneeded()
}

func (n *Node) tell(m ToTracker)         { n.act(TellTracker{Message: m}) }
func (n *Node) warn(code WarnCode)       { n.act(Warn{Code: code}) }
func (n *Node) request() Request         { n.next++; return n.next }
func (n *Node) missing() int             { return n.left }
func (n *Node) whole() bool              { return n.pinned && n.left == 0 }
func (n *Node) generation() piece.Digest { return n.pin.Generation(n.incarnation) }

func (n *Node) act(a Action) {
	if !n.ended { // nothing follows Quit
		n.out = append(n.out, a)
	}
}

// Pinned reports whether the generation is known.
func (n *Node) Pinned() bool { return n.pinned }

// Have returns the stored pieces; the caller must not change them.
func (n *Node) Have() *piece.Bitfield { return &n.have }

// Neighbours returns how many neighbours there are now.
func (n *Node) Neighbours() int { return len(n.swap.order) }

// fail ends the download.
func (n *Node) fail(code FailCode) {
	n.act(Fail{Code: code})
	n.quit()
}

func (n *Node) quit() {
	if n.tracker.up {
		n.tell(Leave{})
	}
	n.stopHosting()
	n.act(Quit{})
	n.ended = true
}

// begin fixes the generation, or replaces the one before.
func (n *Node) begin(pin piece.Pin, incarnation uint64) {
	anew := n.pinned
	var before piece.Digest
	if anew {
		before = n.generation()
	}
	switch {
	case anew && n.pin == pin:
		n.warn(WarnBegunAnew)
	case anew:
		n.changes++
		n.warn(WarnChanged)
		if n.changes > maxChanges {
			n.fail(FailChanges)
			return
		}
	}
	n.pinned, n.pin, n.incarnation = true, pin, incarnation
	n.layout = n.layoutOf(pin)
	n.longest = n.layout.Longest()
	count := n.layout.Count()
	n.have, n.own = piece.NewBitfield(count), piece.NewBitfield(count)
	n.digests = n.knownDigests(count)
	n.stater = nil
	if !n.vouched() {
		n.stater = make([]int32, count)
	}
	n.avail = make([]uint16, count)
	n.asking = make([]uint8, count)
	n.fresh, n.unreported, n.lost = piece.Extents{}, piece.Extents{}, piece.Extents{}
	n.doubted, n.rescues, n.less = piece.Extents{}, 0, false
	n.swap.heard = [2]piece.Extents{}
	n.flushAt = never
	n.begunAnew()
	for _, k := range n.swap.known {
		k.record.begin()
	}
	n.wholeAt = 0
	if n.received.active == 0 {
		n.received.start(n.now)
	}
	n.trust.begin(n.opts.Run + uint64(n.changes))
	n.origin.begin(n)
	n.confirm.begin(n, count)

	if r := n.opts.Resume; r != nil && !anew {
		if r.Pin == pin && r.Incarnation == incarnation && r.Have.Len() == count && (len(r.Digests) == count || n.vouched()) {
			n.takeResumed(r)
		} else {
			anew = true
			if r.Pin == pin {
				n.warn(WarnBegunAnew)
			} else {
				n.warn(WarnChanged)
			}
		}
	}
	n.recountLeft()
	n.act(SetGeneration{Pin: pin, Incarnation: incarnation, Anew: anew})
	for _, p := range n.swap.order {
		had := p.has
		p.forget(count)
		p.away()
		n.tellHolds(p)
		switch {
		case p.said == nil:
			// What it says from now on is of the generation before, until it says which; and
			// this node may come back to that.
			p.said = &Holds{Generation: before, Have: had}
		case p.said.Generation == n.generation():
			said := p.said
			p.said = nil
			n.takeHolds(p, *said)
			p.here = true
		}
	}
	n.trust.plan(n)
}

// maxChanges is how often the origin's version may change before the download fails.
const maxChanges = 4

func (n *Node) takeResumed(r *Resume) {
	n.have = r.Have.Clone()
	for e := range n.have.Extents {
		n.unreported.Add(e)
	}
	if n.vouched() {
		return
	}
	n.own = r.Origin.Clone()
	for e := range n.have.Extents {
		for i := e.First; i < e.End(); i++ {
			n.digests[i] = r.Digests[i]
			if n.own.Has(i) {
				// It can be stated again: its digest rests on bytes that this node read
				// from this generation itself.
				n.trust.stating = append(n.trust.stating, i)
				n.readBy(i)
			}
		}
	}
	if len(n.trust.stating) > 0 {
		n.flushAt = n.now
	}
}

// stored notes that a piece is on disk.
func (n *Node) stored(i piece.Index, d piece.Digest, fromOrigin bool) {
	n.lastStored, n.warnedIdle, n.unstored, n.brought = n.now, false, 0, true
	if n.finishing || n.finished {
		if fromOrigin {
			n.read(i, d)
			n.readForOthers(i, d)
		}
		return
	}
	news := fromOrigin
	if n.vouched() {
		fromOrigin = false // it matched the manifest, wherever it came from
	}
	if !n.have.Set(i) {
		if fromOrigin {
			n.storedAgain(i, d)
		}
		return
	}
	n.countLeft(i, -1)
	if fromOrigin {
		n.readHere(i, d)
		if n.ended || !n.have.Has(i) {
			return
		}
	} else if !n.vouched() {
		n.trust.fromPeers++
		n.digests[i] = d
	}
	one := piece.Extent{First: i, Count: 1}
	if !n.wanted(i) {
		n.origin.leases.Remove(one)
	}
	n.doubted.Remove(one)
	n.fresh.Add(one)
	n.unreported.Add(one)
	n.lost.Remove(one)
	n.flushAt = min(n.flushAt, n.now.Add(n.flushDelay(news)))
}

// readHere notes that a piece was read from the origin by this node itself.
func (n *Node) readHere(i piece.Index, d piece.Digest) {
	n.own.Set(i)
	if said, ok := n.stated(i); ok && said != d && !n.trust.void[i] {
		n.selfContradicted(i)
		return
	}
	known, disputed := n.digests[i], n.trust.disputeOf(i) != nil
	n.digests[i] = d
	if !known.IsZero() && known != d {
		n.trust.mended = true
		n.contradicted(i, false)
	}
	n.stater[i] = 0
	n.readBy(i)
	n.trust.stating = append(n.trust.stating, i)
	n.flushAt = min(n.flushAt, n.now.Add(n.flushDelay(true)))
	if disputed || slices.Contains(n.trust.recheck, i) {
		n.read(i, d)
	}
}

// misread forgets a piece whose bytes were not the origin's, though this node took them
// for that. What it has stated of it stays said in this run, for better or worse.
func (n *Node) misread(i piece.Index) {
	if !n.pinned || int(i) >= n.have.Len() || n.finished {
		return
	}
	if n.vouched() {
		n.drop(i)
		return
	}
	if n.trust.void == nil {
		n.trust.void = make(map[piece.Index]bool)
	}
	n.trust.void[i] = true
	n.own.Unset(i)
	n.disbelieve(i)
	n.refetchDoubtful()
}

// storedAgain notes that a stored piece was read from the origin once more; the disk has
// what the origin gave.
func (n *Node) storedAgain(i piece.Index, d piece.Digest) {
	switch {
	case !n.own.Has(i):
		n.readHere(i, d)
	case n.digests[i] == d:
		n.read(i, d)
	default:
		n.selfContradicted(i)
	}
}

// drop notes that a piece is not held any more.
func (n *Node) drop(i piece.Index) {
	if !n.pinned || int(i) >= n.have.Len() || !n.have.Unset(i) {
		return
	}
	n.own.Unset(i)
	n.countLeft(i, 1)
	n.tally(i)
	one := piece.Extent{First: i, Count: 1}
	n.fresh.Remove(one)
	n.unreported.Remove(one)
	n.lost.Add(one)
	n.tracker.reportAt = n.now
	n.act(Forget{Piece: i})
	for _, p := range n.swap.order {
		if p.has.Has(i) && n.lacks(i) {
			p.wants = append(p.wants, i)
			n.dirty(p)
		}
	}
	if !n.whole() {
		n.finishing = false
	}
}

// Stored pieces are told in batches: while much is left to come from the origin a batch
// may wait for half a second, which saves the neighbours signatures to check and
// requests; the less is left, the less it may wait, so that the end is not held up. A
// node that fetches nothing from the origin waits less: then the LAN is what matters. (A
// message for each piece instead cost a seventh of the CPU time of six members that
// swap over 80 Mbit/s, and brought nothing.)
//
// In a small pool everybody is everybody's neighbour, and what came from one of them all
// others can have from there too: news of that waits longer (with sixteen members on two cores it
// was a fifth of the work of the last half second). In a large pool a piece goes from hand to
// hand, and each wait adds to the others: 1 000 members needed 1.17 times the bound in place of
// 1.12.
const (
	minFlushDelay = 10 * time.Millisecond
	maxFlushDelay = 600 * time.Millisecond
	maxSwapDelay  = 100 * time.Millisecond
	farSwapDelay  = 10 * time.Millisecond // instead of maxSwapDelay in a large pool
	flushShare    = 10                    // a batch waits for at most this part of the time that is left
	farFlushShare = 20                    // in a large pool
	oldNewsShare  = 7 * time.Millisecond  // for each neighbour, what others have waits in a small pool
)

// flushDelay is how long a batch may wait; news says that the pool had nothing of it before.
func (n *Node) flushDelay(news bool) time.Duration {
	least, most, swap, share := minFlushDelay, maxFlushDelay, farSwapDelay, time.Duration(farFlushShare)
	if n.swap.mesh {
		swap, share = maxSwapDelay, flushShare
		if !news {
			least = min(max(least, time.Duration(len(n.swap.order))*oldNewsShare), swap)
		}
	}
	if len(n.origin.requests) == 0 && n.origin.leases.Count() == 0 {
		most = swap
	}
	return min(max(n.timeLeft()/share, least), most)
}

// timeLeft estimates how long the download still takes, 0 if that cannot be told.
func (n *Node) timeLeft() time.Duration {
	rate := n.received.rate(n.now)
	if rate == 0 {
		return 0
	}
	return time.Duration(min(mulDiv(n.bytes, int64(time.Second), rate), int64(time.Hour)))
}

// flush tells the neighbours what was stored since the last time, with statements of
// what this node vouches for.
func (n *Node) flush() {
	n.flushAt = never
	if n.less {
		n.less = false
		n.fresh.Clear()
		for _, p := range n.swap.order {
			n.act(TellPeer{Peer: p.id, Message: Holds{Generation: n.generation(), Have: n.have.Clone()}})
		}
	}
	for _, s := range n.takeStatements() {
		for _, p := range n.swap.order {
			if !p.has.All() || p.has.Len() == 0 || n.rereads() {
				n.act(TellPeer{Peer: p.id, Message: *s})
			}
		}
	}
	if n.fresh.Count() == 0 {
		return
	}
	extents := slices.Clone(n.fresh.Runs())
	n.fresh.Clear()
	for _, p := range n.swap.order {
		if p.has.Len() == 0 || !p.has.All() {
			n.act(TellPeer{Peer: p.id, Message: Haves{Extents: extents}})
		}
	}
}

// progressed notes that bytes have come.
func (n *Node) progressed(bytes int64) {
	n.lastProgress = n.now
	if n.unstored += bytes; n.pinned && n.unstored > 2*maxConnections*n.longest {
		return // more than any pieces under way: the same bytes come again and again
	}
	n.trickle += bytes
	if n.trickle >= mulDiv(n.opts.MinRate, int64(n.opts.GiveUpAfter), int64(time.Second)) {
		n.progressAt, n.trickle = n.now, 0
	}
}

// checkInterval is how often a Node looks for what waits for too long.
const checkInterval = 250 * time.Millisecond

// check looks after everything that no event would end.
func (n *Node) check() {
	n.checkAt = n.now.Add(checkInterval)
	if n.finished {
		n.checkAt = n.now.Add(time.Second)
		n.readDisputed()
		n.sentence()
		return
	}
	n.readDisputed()
	n.sentence()
	if n.checkHelper(); n.ended {
		return
	}
	if n.whole() && (n.finishing || !n.unsure() && !n.trust.mismatched && len(n.trust.recheck) == 0) {
		return
	}
	n.checkOutage()
	idle := n.now.Sub(n.lastProgress)
	silent := n.now.Sub(n.progressAt) >= n.opts.GiveUpAfter
	if silent && !n.opts.Wants {
		n.quit() // nobody needs its line, and that is no failure
		return
	}
	if silent {
		n.fail(n.givenUp())
		return
	}
	if idle >= idleWarning && !n.warnedIdle {
		n.warnedIdle = true
		n.warn(n.silence())
	}
	if n.tracker.probeLater && n.now >= n.restsUntil() {
		n.tracker.probeLater = false
		n.probe()
	}
	n.checkResort()
	n.checkPeers()
	n.cancelNeedless()
	n.refetchDoubtful()
	n.yield()
	n.checkOrphan()
	n.checkConfirm()
	n.auditNext()
}

// givenUp says why a node ends to which nothing has come for long.
func (n *Node) givenUp() FailCode {
	switch {
	case n.origin.barred && !n.pinned:
		return FailOrigin // which says more
	case !n.whole():
		return FailSilence
	case n.unsure():
		return FailUnconfirmed
	case n.trust.mismatched:
		return FailMismatch
	}
	return FailInconsistent
}

// idleWarning is when the user is told that nothing comes.
const idleWarning = 30 * time.Second

// finishIfDone completes the file once everything is stored and audited.
func (n *Node) finishIfDone() {
	if !n.whole() || n.finishing || n.finished || !n.opts.Wants {
		return
	}
	if n.wholeAt == 0 {
		n.wholeAt = n.now
		n.flush()
		n.tracker.reportAt = n.now
		n.reportIfDue()
	}
	if n.rechecking() || n.confirming() || n.comparing() {
		return
	}
	if n.trust.waiting(n) {
		n.checkAt = min(n.checkAt, n.now.Add(checkInterval))
		return
	}
	if n.confirm.need > 1 {
		n.tracker.reportAt = n.now // it is only now that the tracker may call it whole
	}
	n.finishing = true
	n.act(Finish{Basis: n.basis()})
}

// basis is what the file rests on. Audits say nothing where the origin gives different
// bytes to different members.
func (n *Node) basis() Basis {
	if n.vouched() {
		return Basis{Checksum: true}
	}
	b := Basis{OwnOnly: n.own.All(), Audited: n.trust.equal, Confirmed: n.confirm.need}
	if n.trust.inconsistent {
		b.Audited = n.trust.rechecked
	}
	return b
}

// quitIfUnneeded ends a whole node that nobody needs any more.
func (n *Node) quitIfUnneeded() {
	if n.ended || n.opts.KeepServing {
		return
	}
	if !n.finished {
		// A helper goes when nobody needs its line, whatever it holds itself.
		t := &n.tracker
		orphaned := !t.up && n.now.Sub(t.downSince) >= n.opts.Linger && n.allWhole()
		if !n.opts.Wants && !n.finishing && (t.complete || orphaned) {
			n.quit()
		}
		return
	}
	switch {
	case n.tracker.complete, n.now.Sub(n.wholeAt) >= n.opts.Linger, !n.tracker.up && n.allWhole():
		n.quit()
	case n.opts.Manifest != nil && !n.brought && n.tracker.up && n.tracker.number > 0 && n.tracker.number <= len(n.swap.order)+1 && n.allWhole():
		// Everything was here before, and all that the tracker knows have everything. It may wait
		// for others to announce themselves before it calls the pool complete, but none of
		// them counts on this node.
		n.quit()
	}
}

// allWhole reports whether no neighbour lacks anything, as far as they have said.
func (n *Node) allWhole() bool {
	for _, p := range n.swap.order {
		if p.has.Len() == 0 || !p.has.All() {
			return false
		}
	}
	return true
}
