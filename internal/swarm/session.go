package swarm

import (
	"slices"
	"time"

	"dragonload/internal/piece"
)

// The tracker side of a Node: what it tells its tracker and what it does without.

type trackerSide struct {
	up         bool
	everUp     bool
	downSince  Instant
	interval   time.Duration
	reportAt   Instant
	lastAt     Instant
	asked      bool // to probe, though the generation is known
	probeLater bool // when the origin's pause is over
	fresh      bool // the generation was seen at the origin or named by a tracker
	streaming  bool
	complete   bool
	refused    int  // times that it took the pool for another
	stream     bool // the pool reads one stream
	wholeTold  bool
	patience   time.Duration // before fetching of its own choice, beyond orphanTime
	queued     bool          // told to come back
	queuedTo   Instant       // until when the tracker is waited for because of that
	number     int           // of this node in the pool: at least so many members have come
}

// minReport is the least time between two reports that are sent early, because work
// runs low.
const minReport = 20 * time.Millisecond

func (t *trackerSide) init() {
	t.reportAt = never
	t.interval = time.Second
}

func (n *Node) trackerEvent(ev Event) {
	t := &n.tracker
	switch ev := ev.(type) {
	case TrackerUp:
		n.trackerIsUp(ev.Member)
		t.up, t.everUp, t.complete = true, true, false
		n.announce()
	case TrackerMissed:
		n.trackerMissed(ev.Member)
	case TrackerDown:
		if t.up || !t.everUp {
			t.downSince = n.now
		}
		t.up, t.probeLater = false, false
		t.reportAt = never
		t.complete = false
		n.trackerIsDown()
		n.lostTracker()
	case TrackerSaid:
		if t.up {
			n.trackerSaid(ev.Message)
		}
	}
}

// queue waits for a place with the tracker. Until then this node is without one; a
// newcomer does not ask the origin itself meanwhile, for all the others would too.
func (n *Node) queue(in time.Duration) {
	t := &n.tracker
	if !n.home() {
		return // a member that takes the tracker's place has nothing to queue for
	}
	if in >= tellQueued {
		n.act(Warn{Code: WarnQueued, For: in})
	}
	t.up, t.queued, t.queuedTo = false, true, n.now.Add(in+unpinnedTime)
	t.downSince, t.reportAt = n.now, never
	n.act(QueueTracker{In: in})
}

// tellQueued is the shortest wait that is worth telling.
const tellQueued = time.Second

func (n *Node) announce() {
	a := Announce{
		Addr:    n.opts.Addr,
		Queued:  n.tracker.queued,
		Fetches: n.opts.Fetches && !n.origin.barred,
		Wants:   n.opts.Wants,

		Lendable: n.opts.Source != "",
		Sources:  slices.Clone(n.opts.Sources[:min(len(n.opts.Sources), MaxSources)]),
		Confirm:  n.opts.Confirm,
	}
	if w := n.opts.Wanted; w != nil {
		a.Wanted = w.Clone()
	}
	switch r := n.opts.Resume; {
	case n.pinned:
		a.Pinned, a.Fresh = true, n.tracker.fresh
		a.Pin, a.Incarnation = n.pin, n.incarnation
		a.Have = n.have.Clone()
		a.Leased = n.leased()
		a.Stream = n.tracker.stream
	case r != nil:
		a.Pinned = true
		a.Pin, a.Incarnation = r.Pin, r.Incarnation
		a.Have = r.Have.Clone()
	}
	n.tell(a)
	for _, p := range n.origin.pauses.live(n.now) {
		n.tell(Returned{Wait: p.until.Sub(n.now), Source: p.source}) // this tracker may not know of it
	}
	n.unreported.Clear()
	n.lost.Clear()
	n.tracker.wholeTold = false
	n.tracker.lastAt = n.now
	n.tracker.reportAt = n.now.Add(n.tracker.interval)
}

// leased returns everything that this node fetches from the origin or is about to.
func (n *Node) leased() []piece.Extent {
	var all piece.Extents
	for _, e := range n.origin.leases.Runs() {
		all.Add(e)
	}
	for _, r := range n.origin.requests {
		for _, e := range r.left.Runs() {
			all.Add(e)
		}
	}
	return slices.Clone(all.Runs())
}

func (n *Node) trackerSaid(msg ToNode) {
	t := &n.tracker
	switch msg := msg.(type) {
	case ComeBack:
		n.queue(min(max(msg.In, 0), maxQueue))
	case Welcome:
		t.queued = false
		t.number = int(msg.Number)
		t.interval = min(max(msg.Interval, 50*time.Millisecond), time.Second)
		t.reportAt = min(t.reportAt, n.now.Add(t.interval))
	case Probe:
		if !n.opts.Wants || n.vouched() {
			n.tell(Returned{Failure: Passing})
			break
		}
		t.asked = true
		if at := n.restsUntil(); n.now < at {
			// This tracker may not know of the pause that an earlier one told.
			t.probeLater = true
			n.checkAt = min(n.checkAt, at)
		} else {
			n.probe()
		}
	case Pinned:
		n.pinnedBy(msg)
	case Lease:
		n.lease(msg.Extents)
	case Revoke:
		n.revoke(msg.Pieces)
	case Drop:
		n.dropLeases(msg.Extents)
	case Handout:
		n.handout(msg)
	case Hold:
		if msg.For > 0 {
			n.hold(msg.Source, msg.For)
		}
	case Complete:
		t.complete = true
	case Readers:
		n.toldReaders(msg)
	case AskSource:
		if n.opts.Source != "" {
			n.tell(Source{URL: n.opts.Source})
		}
	case GiveUp:
		// What a manifest names may come from a neighbour too.
		if !n.whole() && (!n.vouched() || n.someNowhere()) {
			n.fail(FailOrigin)
		}
	}
}

func (n *Node) pinnedBy(msg Pinned) {
	if msg.Pin.Size < 0 || msg.Pin.Validate() != nil {
		return
	}
	if n.vouched() {
		if msg.Pin != n.pin || msg.Incarnation != 0 || msg.Stream {
			n.refuseTracker()
		}
		return
	}
	if msg.Pin.Kind == piece.Manifest {
		n.refuseTracker() // without the manifest it could not even be cut into pieces
		return
	}
	n.tracker.fresh = true
	n.tracker.stream = msg.Stream
	if n.pinned && n.pin == msg.Pin && n.incarnation == msg.Incarnation {
		return
	}
	if n.finishing || n.finished {
		// The file is whole in its own version, which nobody else in the pool wants now.
		n.tracker.complete = true
		return
	}
	for _, r := range n.origin.requests {
		if r.probe && (n.pinned || !msg.Pin.Combinable()) {
			n.act(CancelOrigin{Request: r.id}) // it brings another generation
		}
	}
	n.tracker.asked = false
	n.begin(msg.Pin, msg.Incarnation)
}

// reportIfDue tells the tracker what has changed: at every interval, and early when
// the work runs low.
func (n *Node) reportIfDue() {
	t := &n.tracker
	if !t.up || n.ended {
		return
	}
	low := n.pinned && n.unreported.Count()+n.confirm.unreported.Count() > 0 && n.lowOnWork()
	if n.now < t.reportAt && !(low && n.now >= t.lastAt.Add(minReport)) {
		if low {
			t.reportAt = min(t.reportAt, t.lastAt.Add(minReport))
		}
		return
	}
	t.lastAt = n.now
	t.reportAt = n.now.Add(t.interval)
	rate := n.origin.line.rate(n.now)
	n.tell(Report{
		Stored:    slices.Clone(n.unreported.Runs()),
		Lost:      slices.Clone(n.lost.Runs()),
		Rate:      rate,
		Moved:     n.origin.moved,
		Unasked:   uint32(n.origin.leases.Count()),
		Streaming: t.streaming,
		Whole:     n.done(),
		WantPeers: n.wantPeers(),
		Stuck:     n.withheld(),
		Shuns:     n.shuns(),

		Read:        slices.Clone(n.confirm.unreported.Runs()),
		Unconfirmed: n.unconfirmed(),
	})
	n.origin.moved = 0
	n.unreported.Clear()
	n.lost.Clear()
	n.confirm.unreported.Clear()
}

// lowOnWork reports whether the leased pieces will soon all be asked for.
func (n *Node) lowOnWork() bool {
	o := &n.origin
	if !n.opts.Fetches || o.barred || n.whole() && !n.mayReread() {
		return false
	}
	rate := o.line.rate(n.now)
	return n.bytesOf(&o.leases) < mulDiv(rate, int64(requestTime), int64(time.Second))+1
}
