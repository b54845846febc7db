package swarm

import (
	"slices"
	"time"

	"dragonload/internal/piece"
)

// The origin side of a Node: leased pieces are asked of the origin in requests small
// enough that little is promised to a line that may slow down, over as many
// connections as bring something.

const (
	// probeBytes is how much the first request asks for. It must be little, for the
	// others wait for its answer's header only, but the body comes over the same line.
	probeBytes = 256 << 10

	// requestTime is how long one request should last on its share of the line. What
	// is asked cannot be taken back without cost, so it is short.
	requestTime = 250 * time.Millisecond

	// firstRequest is asked for while the speed is not known; maxRequest at most.
	firstRequest = 256 << 10
	maxRequest   = 8 << 20

	// maxBuffered bounds the pieces in memory at one time, whatever their length.
	maxBuffered = 64 << 20

	// startConnections keeps the line busy during the round trip between two
	// requests. More are tried one by one, and kept if they bring a tenth more.
	startConnections = 2
	maxConnections   = 8
	trialTime        = time.Second
	trialPause       = 10 * time.Second
	maxTrialPause    = 2 * time.Minute

	// slowRequest is after what time the pieces of a request may also be asked of
	// neighbours that hold them by then.
	slowRequest = 3 * time.Second

	// longPiece is the time for one piece from which on a round trip between two
	// requests weighs little.
	longPiece = 50 * time.Millisecond

	// localRetries is how often a request that broke off is repeated before its
	// pieces are given back.
	localRetries = 2
)

type originSide struct {
	leases   piece.Extents // lent to this node and not asked for yet
	requests []*originRequest
	line     meter
	moved    int64 // bytes since the last report

	limit     int // connections at most
	allowed   int // connections now
	trial     bool
	trialAt   Instant // when the next trial begins, or this one ends
	trialBase int64   // bytes per second before it
	pause     time.Duration
	counted   int64   // bytes since measuring began
	since     Instant // when measuring began

	failures  int // in a row
	notBefore Instant
	pauses    pauses // that its servers asked for
	furthest  int64  // bytes that the longest stream brought
	fruitless int    // streams in a row that broke off and got no further
	barred    bool   // this node cannot get the file from the origin
	answered  bool   // it has answered at least once
	seconded  int    // looks that showed another version, see contradict
	outage    outage
	wrong     int // pieces that did not match the manifest
}

type originRequest struct {
	id    Request
	since Instant
	left  piece.Extents // asked for and not stored yet
	probe bool
	begun bool // a probe whose answer has begun: only its pieces are still to come
	check bool // reads a piece for a dispute, whether it is stored or not
	stale bool // it brings pieces of a generation that was given up
	moved int64
	// stream: it brings the whole file from its beginning, whatever came before.
	stream bool
}

func (o *originSide) init(limit int) {
	o.limit = limit
	if o.limit <= 0 {
		o.limit = maxConnections
	}
	o.allowed = min(startConnections, o.limit)
	o.pause = trialPause
	o.line.window = time.Second
}

// begin forgets the work on another generation.
func (o *originSide) begin(n *Node) {
	o.leases.Clear()
	for _, r := range o.requests {
		if !r.probe {
			n.act(CancelOrigin{Request: r.id})
		}
		r.stale = !r.probe || r.left.Count() > 0
		r.left.Clear()
	}
}

func (n *Node) originRequest(id Request) *originRequest {
	for _, r := range n.origin.requests {
		if r.id == id {
			return r
		}
	}
	return nil
}

// probe asks the origin what the file is.
func (n *Node) probe() {
	if !n.opts.Fetches || n.origin.barred || n.probing() || !n.opts.Wants || n.vouched() {
		return
	}
	r := &originRequest{id: n.request(), since: n.now, probe: true}
	n.origin.requests = append(n.origin.requests, r)
	n.origin.line.start(n.now)
	a := ProbeOrigin{Request: r.id}
	if n.changes < changesBeforeStream {
		a.Start, a.Bytes = n.probeRange()
	} // else it names another version in each answer: one answer must do
	n.act(a)
}

// probeRange is what a probe asks for: any bytes tell which version there is, so they
// may as well be bytes that are missing here.
func (n *Node) probeRange() (start, length int64) {
	pin, have, stream := n.pin, &n.have, n.tracker.stream
	if r := n.opts.Resume; !n.pinned && r != nil {
		pin, have = r.Pin, &r.Have
	}
	if !pin.Combinable() || stream || have.Count() == 0 || have.Len() != pin.Layout().Count() {
		return 0, probeBytes
	}
	missing := piece.Extent{}
	for i := range piece.Index(have.Len()) {
		switch {
		case !have.Has(i) && missing.Count == 0:
			missing = piece.Extent{First: i, Count: 1}
		case !have.Has(i):
			missing.Count++
		case missing.Count > 0:
			return probeOf(pin.Layout().Bytes(missing))
		}
	}
	if missing.Count == 0 {
		return 0, 1
	}
	return probeOf(pin.Layout().Bytes(missing))
}

func probeOf(r piece.Range) (start, length int64) { return r.Start, min(r.Len(), probeBytes) }

// changesBeforeStream is after how many changes of the version the file is asked for
// whole, in one answer, which no further change can touch.
const changesBeforeStream = 2

func (n *Node) probing() bool {
	return slices.ContainsFunc(n.origin.requests, func(r *originRequest) bool { return r.probe && !r.begun })
}

func (n *Node) originAnswered(ev OriginAnswered) {
	r := n.originRequest(ev.Request)
	if r == nil || ev.Pin.Size < 0 {
		return
	}
	o := &n.origin
	r.begun, r.stream = true, ev.Stream
	o.answered = true
	if !ev.Stream {
		o.failures = 0
	}
	n.tracker.streaming = false
	incarnation := uint64(0)
	if !ev.Pin.Combinable() {
		// Nobody may take the bytes of another stream for those of this one.
		incarnation = n.rng.Uint64() | 1
	}
	if ev.Stream && !n.tracker.stream && ev.Pin.Size > probeBytes {
		n.warn(WarnOneStream)
	}
	if !n.pinned || n.pin != ev.Pin || n.incarnation != incarnation {
		if n.finishing || n.finished {
			n.bearWitness(r, ev, incarnation)
			return
		}
		if n.pinned && n.tracker.up && !n.tracker.asked {
			// Late: the pool has a pin already. This answer goes unused.
			n.act(CancelOrigin{Request: r.id})
			return
		}
		if n.pinned && contradict(n.pin, ev.Pin) && (n.tracker.up || o.seconded < secondLooks) {
			// It may be a lapse of a single answer: another look decides before what was
			// fetched is given up, the pool's where there is one.
			again := !n.tracker.up
			n.bearWitness(r, ev, incarnation)
			if again {
				o.seconded++
				n.probe()
			}
			return
		}
		n.begin(ev.Pin, incarnation)
		if n.ended {
			return
		}
	}
	o.seconded = 0
	n.tracker.asked = false
	n.tracker.fresh = true
	n.tracker.stream = ev.Stream
	covered := n.covered(ev)
	r.stale = false
	if covered.Count > 0 {
		r.left.Add(covered)
		for e := range n.have.Extents {
			r.left.Remove(e)
		}
		o.leases.Remove(covered)
	}
	if n.tracker.up {
		n.tell(Probed{Pin: ev.Pin, Incarnation: incarnation, Stream: ev.Stream, Extent: covered})
	}
}

// covered returns the pieces that lie whole in the answer to a probe.
func (n *Node) covered(ev OriginAnswered) piece.Extent {
	l := n.layout
	if ev.Stream || ev.Start == 0 && ev.Bytes >= l.Size {
		return l.All()
	}
	if ev.Start < 0 || ev.Bytes <= 0 || ev.Start >= l.Size || ev.Bytes > l.Size-ev.Start {
		return piece.Extent{}
	}
	first, end := (ev.Start+l.PieceLength-1)/l.PieceLength, (ev.Start+ev.Bytes)/l.PieceLength
	if ev.Start+ev.Bytes == l.Size {
		end = int64(l.Count())
	}
	if end <= first {
		return piece.Extent{}
	}
	return piece.Extent{First: piece.Index(first), Count: uint32(end - first)}
}

// bearWitness tells the tracker of another version than the one that is here; this node
// fetches none of it unless the tracker goes over to it.
func (n *Node) bearWitness(r *originRequest, ev OriginAnswered, incarnation uint64) {
	r.stale = true
	n.act(CancelOrigin{Request: r.id})
	if !n.tracker.up || !n.tracker.asked {
		return
	}
	n.tracker.asked = false
	n.tell(Probed{Pin: ev.Pin, Incarnation: incarnation, Stream: ev.Stream})
	if ev.Stream {
		n.tell(Returned{Failure: Passing})
	}
}

func (n *Node) originStored(ev OriginStored) {
	r := n.originRequest(ev.Request)
	if r == nil || r.stale || !n.pinned || int(ev.Piece) >= n.have.Len() {
		return
	}
	r.left.Remove(piece.Extent{First: ev.Piece, Count: 1})
	if n.wanted(ev.Piece) && (!r.stream || n.pin.Combinable()) {
		n.origin.failures = 0
	}
	n.stored(ev.Piece, ev.Digest, true)
}

func (n *Node) originMoved(ev OriginMoved) {
	n.progressed(ev.Bytes)
	o := &n.origin
	o.answered = true
	o.line.add(n.now, ev.Bytes)
	n.received.add(n.now, ev.Bytes)
	o.moved += ev.Bytes
	o.counted += ev.Bytes
	r := n.originRequest(ev.Request)
	if r != nil {
		r.moved += ev.Bytes
		r.stream = r.stream || r.probe && !r.begun
	}
	if r != nil && r.probe && !r.begun && (!n.pinned || n.tracker.asked) && !n.tracker.streaming {
		// A body before the answer is accepted: a stream whose length is not known.
		n.tracker.streaming = true
		n.tracker.reportAt = n.now
	}
}

func (n *Node) originEnded(ev OriginEnded) {
	k := slices.IndexFunc(n.origin.requests, func(r *originRequest) bool { return r.id == ev.Request })
	if k < 0 {
		return
	}
	o := &n.origin
	r := o.requests[k]
	o.requests = slices.Delete(o.requests, k, k+1)
	o.line.stop(n.now)
	if r.probe {
		n.tracker.streaming = false
	}
	if n.vouched() {
		n.judgeSeed(&ev)
	}
	if ev.Busy && ev.Wait == 0 {
		n.fewerConnections()
	}
	if ev.Wait > 0 {
		n.hold(ev.Source, ev.Wait)
	}
	switch {
	case ev.Changed != nil && r.stale && !r.probe:
		// It was asked for bytes of a generation that was given up since.
	case ev.Changed != nil:
		n.giveBack(r, Returned{})
		n.sawVersion(*ev.Changed)
	case ev.Left && n.tracker.up:
		n.handBack(r)
	case ev.Failure == NoFailure:
		n.keep(r)
		n.leaveStream()
	default:
		n.originFailed(r, ev)
	}
	if r.check {
		n.readEnded(r.id)
	}
}

// sawVersion: the origin answers with another version than the pool's. The tracker has
// somebody look again, and all go over to what is there.
func (n *Node) sawVersion(pin piece.Pin) {
	if n.tracker.up {
		n.tell(Conflict{Pin: pin})
	} else if !n.probing() {
		n.tracker.asked = true
		n.probe()
	}
	n.origin.notBefore = n.now.Add(time.Second)
}

// keep puts what a request did not bring back to what is to be asked for.
func (n *Node) keep(r *originRequest) {
	for _, e := range r.left.Runs() {
		n.origin.leases.Add(e)
	}
	for e := range n.settledHere().Extents {
		if n.origin.leases.Count() == 0 {
			break
		}
		n.origin.leases.Remove(e)
	}
}

// handBack returns what a request did not bring, and nothing else: whoever is free, this
// node by another connection maybe, is to bring it.
func (n *Node) handBack(r *originRequest) {
	for e := range n.settledHere().Extents {
		r.left.Remove(e)
	}
	if r.left.Count() > 0 {
		n.tell(Returned{Extents: slices.Clone(r.left.Runs())})
	}
	n.leaveStream()
}

// originFailed decides what becomes of the pieces of a request that failed.
func (n *Node) originFailed(r *originRequest, ev OriginEnded) {
	o := &n.origin
	if ev.Brought {
		// It broke off, but a good part of it came: not what waiting longer each time
		// is for, nor what another member would do better.
		o.failures = 0
		if failure := ev.Failure; failure == Passing && !r.stream && ev.Wait == 0 && !o.barred {
			o.notBefore = max(o.notBefore, n.now.Add(100*time.Millisecond))
			n.keep(r)
			return
		}
	}
	o.failures++
	failure := ev.Failure
	if r.stream && n.fruitless(r) {
		failure = Lasting
	}
	if n.opts.MaxTries > 0 && o.failures >= n.opts.MaxTries {
		failure = Lasting
	}
	if failure == Lasting && n.opts.LastResort {
		n.endResort()
		return
	}
	if failure == Lasting {
		o.barred = true
		n.checkAt = n.now // there may be nobody to wait for
	}
	backOff := min(100*time.Millisecond<<min(o.failures, 11), maxBackOff)
	// A little earlier or later, so that members do not come back all at once.
	backOff += time.Duration(n.rng.Int64N(int64(backOff)/4 + 1))
	o.notBefore = max(o.notBefore, n.now.Add(backOff))
	if failure == Passing && !r.probe && ev.Wait == 0 && o.failures <= localRetries {
		n.keep(r)
		return
	}
	n.giveBack(r, Returned{Failure: failure, Wait: ev.Wait, Source: ev.Source})
}

// maxFruitless is how many streams in a row may break off without getting further than
// one before them: each of them costs the origin all of it.
const maxFruitless = 3

// fruitless counts a stream that broke off and reports whether that was one too many.
func (n *Node) fruitless(r *originRequest) bool {
	o := &n.origin
	if r.moved > o.furthest {
		o.furthest, o.fruitless = r.moved, 0
		return false
	}
	o.fruitless++
	return o.fruitless >= maxFruitless
}

// giveBack returns everything that is leased and not under way, and the rest of r.
func (n *Node) giveBack(r *originRequest, msg Returned) {
	n.keep(r)
	msg.Extents = slices.Clone(n.origin.leases.Runs())
	if n.tracker.up {
		n.origin.leases.Clear()
		n.tell(msg)
	}
	n.leaveStream()
}

// leaveStream forgets what a stream did not bring: it cannot be taken up midway.
func (n *Node) leaveStream() {
	if n.pinned && (n.tracker.stream || !n.pin.Combinable()) {
		n.origin.leases.Clear()
	}
}

// revoke gives up to count pieces back that were not asked for yet, the last first.
func (n *Node) revoke(count uint32) {
	var extents []piece.Extent
	for count > 0 {
		e, ok := n.origin.leases.TakeLast(count)
		if !ok {
			break
		}
		count -= e.Count
		extents = append(extents, e)
	}
	n.tell(Returned{Extents: extents})
}

// dropLeases closes the streams that were to bring the pieces of extents: the tracker
// has given them to others, because nothing came.
func (n *Node) dropLeases(extents []piece.Extent) {
	for _, e := range extents {
		n.origin.leases.Remove(e)
	}
	for _, r := range n.origin.requests {
		before := r.left.Count()
		for _, e := range extents {
			r.left.Remove(e)
		}
		if r.left.Count() < before && r.left.Count() == 0 && !r.probe {
			n.act(CancelOrigin{Request: r.id})
		}
	}
}

// cancelNeedless closes streams all of whose pieces have come from neighbours.
func (n *Node) cancelNeedless() {
	for _, r := range n.origin.requests {
		if r.probe || r.check || r.stale || n.now.Sub(r.since) < slowRequest || r.left.Count() == 0 {
			continue
		}
		needed := false
		for _, e := range r.left.Runs() {
			for i := e.First; i < e.End(); i++ {
				needed = needed || n.wanted(i)
			}
		}
		if !needed {
			r.left.Clear()
			n.act(CancelOrigin{Request: r.id})
		}
	}
}

// lease takes in pieces to be fetched. A node that was told not to ask the origin, or
// that gets nothing from it, gives them back, whatever its tracker thinks.
func (n *Node) lease(extents []piece.Extent) {
	if !n.opts.Fetches || n.origin.barred {
		failure := NoFailure
		if n.origin.barred {
			failure = Lasting
		}
		n.tell(Returned{Extents: extents, Failure: failure})
		return
	}
	var held []piece.Extent
	for _, e := range extents {
		if !n.pinned || !e.Valid(n.have.Len()) {
			continue
		}
		n.origin.leases.Add(e)
		for i := e.First; i < e.End(); i++ {
			if !n.wanted(i) {
				held = append(held, piece.Extent{First: i, Count: 1})
			}
		}
	}
	for _, e := range held {
		n.origin.leases.Remove(e)
	}
}

// fetchFromOrigin asks for leased pieces as far as connections are free.
func (n *Node) fetchFromOrigin() {
	o := &n.origin
	if !n.pinned || o.barred || n.whole() && !n.mayReread() {
		return
	}
	n.tuneConnections()
	for o.leases.Count() > 0 && len(o.requests) < n.connections() && n.buffers() > 0 {
		if wait := max(o.notBefore, n.restsUntil()); n.now < wait {
			n.checkAt = min(n.checkAt, wait)
			return
		}
		e, _ := o.leases.TakeFirst(n.requestPieces())
		r := &originRequest{id: n.request(), since: n.now}
		r.left.Add(e)
		o.requests = append(o.requests, r)
		o.line.start(n.now)
		n.act(FetchOrigin{Request: r.id, Extent: e})
	}
}

// connections is how many requests may be under way. Near the end it is one where a
// piece takes long, so that the last pieces come one after the other: two that share the
// line both take twice as long, and what is under way cannot be given to another member.
func (n *Node) connections() int {
	o := &n.origin
	rate := o.line.rate(n.now)
	if rate == 0 || len(n.swap.order) == 0 {
		return o.allowed
	}
	took := time.Duration(mulDiv(n.meanLength(), int64(time.Second), rate))
	if took >= longPiece && n.timeLeft() <= 2*took*time.Duration(o.allowed) {
		return 1
	}
	return o.allowed
}

// requestPieces is how many pieces the next request asks for.
func (n *Node) requestPieces() uint32 {
	o := &n.origin
	bytes := int64(firstRequest)
	if rate := o.line.rate(n.now); rate > 0 {
		bytes = min(mulDiv(rate, int64(requestTime), int64(time.Second)), maxRequest)
	}
	// What is left is spread over the connections, so that they end together.
	most := uint32(max((o.leases.Count()+o.allowed-1)/o.allowed, 1))
	if o.leases.Count() == 0 {
		return most
	}
	first := o.leases.Runs()[0]
	pieces := uint32(0)
	for ; pieces < min(most, first.Count); pieces++ {
		length := n.layout.Length(first.First + pieces)
		if pieces > 0 && bytes < length/2 {
			break
		}
		bytes -= length
	}
	return pieces
}

// buffers is how many more pieces may be in memory.
func (n *Node) buffers() int {
	limit := max(int(maxBuffered/max(n.longest, 1)), 3)
	return limit - len(n.origin.requests) - n.swap.requests
}

// tuneConnections adds a connection while each brings a tenth more.
func (n *Node) tuneConnections() {
	o := &n.origin
	if len(o.requests) < o.allowed || o.leases.Count() == 0 {
		// The line is not kept busy, so nothing can be measured.
		o.since, o.counted, o.trial = n.now, 0, false
		o.trialAt = max(o.trialAt, n.now.Add(trialTime))
		return
	}
	if n.now < o.trialAt {
		return
	}
	rate := mulDiv(o.counted, int64(time.Second), max(int64(n.now.Sub(o.since)), 1))
	o.since, o.counted = n.now, 0
	switch {
	case o.trial && rate < o.trialBase+o.trialBase/10:
		o.allowed--
		o.trial = false
		o.trialAt = n.now.Add(o.pause)
		o.pause = min(2*o.pause, maxTrialPause)
		return
	case o.allowed >= o.limit:
		o.trial = false
		o.trialAt = n.now.Add(trialPause)
		return
	}
	o.trial, o.trialBase = true, rate
	o.allowed++
	o.trialAt = n.now.Add(trialTime)
}

// fewerConnections halves the connections: the origin is busy.
func (n *Node) fewerConnections() {
	o := &n.origin
	o.allowed = max(o.allowed/2, 1)
	o.trial = false
	o.trialAt = n.now.Add(max(o.pause, 30*time.Second))
}
