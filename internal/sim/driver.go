package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

const (
	// lingerTime is ten times the default of --linger: with the slowest lines that Draw
	// makes, a piece may take a minute.
	lingerTime = 10 * time.Minute

	// finishTime is what syncing and renaming take.
	finishTime = 5 * time.Millisecond

	// driverRequest marks the requests that a driver names itself (Asked).
	driverRequest = swarm.Request(1) << 63
)

// proc is one life of a member: a Node and what its driver does for it.
type proc struct {
	m       *member
	node    *swarm.Node
	gone    bool
	armed   swarm.Instant // when the next deadline event comes, 0 if there is none
	session *session
	hosted  *trackerHost // this member is the pool's tracker; else nil
	redials int
	brief   int // sessions in a row that did not last
	streams map[int]*streamEnd
	pulls   map[swarm.Request]*pull
	fetches map[swarm.Request]*fetch
	asked   map[swarm.Request]*fetch // by others, waiting or being served here
	nextAsk swarm.Request
	quiet   [servers]swarm.Instant // until when each server is not to be asked
	conns   int                    // connections to the origin that are open
	busy    int                    // of these, in use
	lonely  bool                   // counted in the budget
	stalls  int                    // steps at a deadline that did not move it

	clock      clock
	wrongClock bool // has jumped or stood still: it cannot know how long a pause lasts
	paused     bool
	waiting    []happening    // for the process to go on
	said       []swarm.ToPeer // what a replayer has said
	wasted     map[int]int    // requests that have brought wrong pieces, by member
	aborted    bool           // its driver has ended the download
}

// simAddr is where everybody is reached.
const simAddr = "sim:4100"

// start begins a process on a member's machine.
func (r *run) start(m *member) {
	m.lives++
	p := &proc{
		m:       m,
		streams: make(map[int]*streamEnd),
		pulls:   make(map[swarm.Request]*pull),
		fetches: make(map[swarm.Request]*fetch),
		asked:   make(map[swarm.Request]*fetch),
	}
	p.clock = m.startClock(r.now)
	seed := r.rng.Uint64()
	p.node = swarm.NewNode(swarm.NodeOptions{
		Self:    m.id,
		Run:     r.rng.Uint64(),
		Addr:    m.addr(),
		Pool:    poolID,
		Hosts:   true,
		Fetches: m.WAN > 0,
		Sources: r.sourcesOf(m),
		Wants:   !m.Helper,
		Resume:  m.disk.resume(),

		Manifest:    r.manifest(),
		Wanted:      m.wanted,
		KeepServing: m.Holds,

		Sign:    func([]byte) []byte { return nil },
		Linger:  lingerTime,
		Confirm: r.world.Confirm,
	}, rand.New(rand.NewPCG(seed, uint64(m.index))))
	if m.disk.set && m.lives > 1 {
		r.mark(Resumed)
	}
	m.proc = p
	if m.lives > 1 {
		r.tell("member %d begins again", m.index)
	}
	if !m.able() && !r.tracker.up && !r.tracker.returns {
		r.done(m) // it meets nobody
	}
	r.running++
	r.budget.appeared(r, m)
	r.later(2*dialTrips*r.world.ControlDelay, (*redial)(p))
	if m.Floods || m.Replays || m.Denies || m.Returns {
		r.later(mischiefEvery, (*mischief)(p))
	}
	r.arm(p)
}

// step hands a Node one event and carries out what it orders.
func (r *run) step(p *proc, ev swarm.Event) {
	if p.gone || r.err != nil {
		return
	}
	if p.paused {
		r.violate(p, "is stepped while it stands still: %T", ev)
		return
	}
	r.result.Steps++
	now := p.clock.read(r.now)
	out := r.stepOut[:0]
	if r.clock != nil {
		before := r.clock()
		out = p.node.Step(now, ev, out)
		r.result.NodeTime += r.clock() - before
		r.result.NodeSteps++
	} else {
		out = p.node.Step(now, ev, out)
	}
	r.stepOut = out
	r.note(uint64(r.now), uint64(p.m.index)<<32|uint64(len(out)))
	if r.world.Log != nil {
		r.log(fmt.Sprintf("member %d", p.m.index), ev, len(out), func(k int) any { return out[k] })
	}
	for k, a := range out {
		if f := p.m.dying; f != nil && k > 0 {
			p.m.dying = nil
			if r.kill(p.m, f) {
				r.mark(KilledMidway)
				return
			}
		}
		if p.gone {
			r.violate(p, "%T after Quit", a)
			return
		}
		r.act(p, a, ev)
	}
	if !p.gone {
		r.arm(p)
		r.s10TablesStayBounded(p)
	}
}

// log tells of one step.
func (r *run) log(who string, ev any, n int, action func(k int) any) {
	at := time.Duration(r.now).Seconds()
	if ev != nil || n > 0 {
		fmt.Fprintf(r.world.Log, "%11.6f %s: %T%+v\n", at, who, ev, ev)
	}
	for k := range n {
		a := action(k)
		fmt.Fprintf(r.world.Log, "%11.6f %s      -> %T%+v\n", at, who, a, a)
	}
}

// note mixes what happens into the trace, which is what two runs must have alike.
func (r *run) note(a, b uint64) {
	h := (r.trace ^ a) * 0x9e3779b97f4a7c15
	h = (h ^ h>>29 ^ b) * 0xbf58476d1ce4e5b9
	r.trace = h ^ h>>32
}

// arm sees to it that the Node is stepped at its deadline.
func (r *run) arm(p *proc) {
	at, ok := p.node.Deadline()
	if ok {
		at, ok = p.clock.when(at)
	}
	if !ok {
		return
	}
	at = max(at, r.now)
	if p.armed == 0 || at < p.armed {
		p.armed = max(at, 1)
		r.queue.push(at, (*deadline)(p))
	}
}

type deadline proc

func (d *deadline) happen(r *run) {
	p := (*proc)(d)
	if p.gone || p.paused || p.armed != max(r.now, 1) {
		return // an earlier deadline has taken its place, or the process stands still
	}
	p.armed = 0
	now := p.clock.read(r.now)
	if at, ok := p.node.Deadline(); ok && at <= now {
		r.step(p, nil)
		if again, ok := p.node.Deadline(); ok && again <= now && !p.gone && !p.clock.stopped {
			// A deadline that its step does not move would hold the clock still.
			p.armed = 0
			r.stalled(p)
		}
	} else {
		r.arm(p)
	}
}

// act carries out one action that a Node ordered at the event ev.
func (r *run) act(p *proc, action swarm.Action, ev swarm.Event) {
	switch a := action.(type) {
	case swarm.TellTracker:
		msg := r.toTracker(p, a.Message)
		if p.session != nil {
			r.put(&p.session.up, msg)
		}
	case swarm.SeekTracker:
		r.seekTracker(p, a.Peer)
	case swarm.QueueTracker:
		r.queueTracker(p, a.In)
	case swarm.HostTracker:
		r.hostTracker(p, a.On)
	case swarm.Dial:
		r.dial(p, a.Peer)
	case swarm.HangUp:
		r.hangUp(p, a.Peer)
	case swarm.TellPeer:
		if e := p.streams[r.memberOf(a.Peer)]; e != nil && e.told {
			if msg := r.toPeer(p, e.peer.p.m, a.Message); msg != nil {
				r.put(&e.peer.in, msg)
			}
		}
	case swarm.ProbeOrigin:
		r.pull(p, &pull{req: a.Request, kind: probe, start: a.Start, end: a.Start + a.Bytes, whole: a.Bytes == 0})
	case swarm.SetGeneration:
		r.setGeneration(p, a, ev)
	case swarm.FetchOrigin:
		r.fetchOrigin(p, a)
	case swarm.CancelOrigin:
		if l := p.pulls[a.Request]; l != nil {
			l.finish(r, swarm.OriginEnded{})
		} else {
			r.violate(p, "cancels origin request %d, which is not under way", a.Request)
		}
	case swarm.FetchPeer:
		r.fetchPeer(p, a)
	case swarm.Serve:
		r.serve(p, a.Request)
	case swarm.Refuse:
		r.refuse(p, a.Request)
	case swarm.AuditLeaf:
		r.audit(p, a)
	case swarm.Forget:
		if p.m.disk.forget(a.Piece) {
			r.budget.forgot(r, p.m, a.Piece)
		}
	case swarm.Finish:
		r.finishFile(p, a.Basis)
	case swarm.Warn:
		r.warned(p, a)
	case swarm.Fail:
		r.failed(p, a.Code)
	case swarm.Quit:
		r.quit(p)
	default:
		r.violate(p, "orders %T, which the simulator does not know", a)
	}
}

func (r *run) warned(p *proc, w swarm.Warn) {
	r.tell("member %d warns: %s", p.m.index, w.Code)
	switch w.Code {
	case swarm.WarnTrackerBack:
		r.mark(TrackerBack)
	case swarm.WarnOriginWaits:
		r.mark(OriginWaits)
	case swarm.WarnWrongBytes:
		r.mark(WrongBytes)
	case swarm.WarnChanged:
		r.mark(GenerationChanged)
	case swarm.WarnBanned:
		r.mark(Banned)
		r.s5NoHonestMemberIsBanned(p, w.Peer)
	case swarm.WarnInconsistent:
		r.mark(Inconsistent)
	case swarm.WarnOneStream:
		r.mark(ReadAsStream)
	}
}

// failed notes that a member gives up, which only one may that cannot get the file
// from the origin itself, when nobody else is there who can.
func (r *run) failed(p *proc, code swarm.FailCode) {
	excused := code != swarm.FailChanges && !p.m.able()
	if code == swarm.FailMismatch && r.mayBlame(p.m) {
		r.leaveUnproven(p, code)
		return
	}
	if (r.origin.twoFaces || r.world.collude()) && excused {
		r.leaveUnproven(p, code) // others' words contradict each other, and it cannot look itself
		return
	}
	if p.session != nil && p.session.host.up {
		for _, s := range p.session.host.sessions {
			// Who came a moment ago may have come after it was said that nobody can.
			excused = excused && (s.p.gone || !s.p.m.able() || !s.said || r.now < s.saidAt.Add(time.Second))
		}
	}
	if !excused {
		r.violate(p, "fails with %q", code)
		return
	}
	r.tell("member %d fails: %s", p.m.index, code)
	r.mark(GaveUp)
	p.m.stopping = max(r.now, 1)
	r.done(p.m)
}

// leaveUnproven ends a download that nobody can vouch for.
func (r *run) leaveUnproven(p *proc, code swarm.FailCode) {
	r.tell("member %d fails: %s", p.m.index, code)
	p.m.stopping = max(r.now, 1)
	r.done(p.m)
}

// finishFile gives the file its name.
func (r *run) finishFile(p *proc, basis swarm.Basis) {
	m := p.m
	if !r.readBack(p, true, nil) {
		return // the hash of the whole file has found it out
	}
	if r.differs(m) && !basis.Checksum {
		r.doubt(p, basis)
		return
	}
	r.s1FileIsOneGeneration(p)
	r.s4NobodyIsDeceived(p)
	r.s4ReadByAsManyAsItSays(p, basis)
	if !m.whole {
		if m.finished == 0 {
			r.result.Finished++
		}
		m.whole, m.finished = true, r.now
		r.tell("member %d has finished", m.index)
		r.done(m)
	}
	r.later(finishTime, (*finished)(p))
}

type finished proc

func (f *finished) happen(r *run) {
	p := (*proc)(f)
	if r.held(p, f) {
		return
	}
	r.step(p, swarm.Finished{})
	if p.m.LeavesWhenWhole {
		r.stop(p.m)
	}
}

// done notes that a member need not be waited for any more.
func (r *run) done(m *member) {
	if m.awaited {
		m.awaited = false
		r.waiting--
	}
}

// stop is the user of a member ending its download.
func (r *run) stop(m *member) {
	if m.stopping == 0 {
		m.stopping = max(r.now, 1)
		r.done(m)
	}
	if p := m.proc; p != nil && !p.gone {
		(*wake)(p).happen(r) // who stops a process that stands still lets it go on for that
		r.step(p, swarm.Stopping{})
		if !p.gone && r.err == nil {
			r.violate(p, "goes on after Stopping")
		}
	}
}

// quit ends a process in good order.
func (r *run) quit(p *proc) {
	if !p.m.whole && p.m.stopping == 0 && !p.aborted && !p.m.Helper && r.err == nil {
		r.violate(p, "quits before its file is whole")
	}
	r.endProcess(p, false)
}

// endProcess takes a process away. A silent one is not heard of again; otherwise its
// connections are closed by its kernel.
func (r *run) endProcess(p *proc, silent bool) {
	p.gone = true
	r.running--
	for _, req := range sorted(p.pulls) {
		p.pulls[req].drop(r)
	}
	for _, req := range sorted(p.fetches) {
		p.fetches[req].askerGone(r)
	}
	for _, req := range sorted(p.asked) {
		p.asked[req].holderGone(r, silent)
	}
	for _, k := range sorted(p.streams) {
		e := p.streams[k]
		e.in.dead = true
		if silent {
			e.peer.in.dead = true
			r.later(silence, (*lost)(e.peer))
		} else {
			r.put(&e.peer.in, closed{})
		}
	}
	if p.hosted != nil {
		p.hosted.stop(r, silent)
		p.hosted = nil
	}
	if s := p.session; s != nil {
		s.open, s.down.dead = false, true
		p.session = nil
		if silent {
			s.up.dead = true
			r.later(silence, (*sessionLost)(s))
		} else {
			r.put(&s.up, closed{})
		}
	}
	r.budget.left(r, p.m)
}

func sorted[K interface{ ~int | ~uint32 | ~uint64 }, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// disk is what a member has stored.
type disk struct {
	set         bool
	pin         piece.Pin
	incarnation uint64
	content     *content // whose bytes these are; nil until it is known
	have        piece.Bitfield
	own         piece.Bitfield // read from the origin by this member
	headPiece   piece.Index    // the probe brought this many bytes of this piece beyond
	headBytes   int64          // its whole ones
	recent      []stored       // not surely synced yet; kept only where it may matter
	keepRecent  bool
	full        *Fault                // the next piece cannot be written
	flipped     []piece.Index         // are not any more what was written
	variants    map[piece.Index]uint8 // of pieces whose bytes are not those of content
	synced      piece.Bitfield        // at the last crash: what must be found again
}

type stored struct {
	at    swarm.Instant
	piece piece.Index
}

// syncTime is within what time a stored piece is in the journal.
const syncTime = 2 * time.Second

func (d *disk) begin(pin piece.Pin, incarnation uint64) {
	n := pin.Layout().Count()
	*d = disk{set: true, pin: pin, incarnation: incarnation, have: piece.NewBitfield(n), own: piece.NewBitfield(n), keepRecent: d.keepRecent, full: d.full}
}

// resume is what a process finds that is started on this disk.
func (d *disk) resume() *swarm.Resume {
	if !d.set || d.content == nil {
		return nil
	}
	return &swarm.Resume{
		Pin: d.pin, Incarnation: d.incarnation,
		Have: d.have.Clone(), Origin: d.own.Clone(),
		Digests: d.digests(),
	}
}

// vary notes which variant of a piece is stored.
func (d *disk) vary(i piece.Index, v uint8) {
	switch {
	case v == 0:
		delete(d.variants, i)
	case d.variants == nil:
		d.variants = map[piece.Index]uint8{i: v}
	default:
		d.variants[i] = v
	}
}

// digests are those of what is stored.
func (d *disk) digests() []piece.Digest {
	if len(d.variants) == 0 {
		return d.content.digests
	}
	all := slices.Clone(d.content.digests)
	for i, v := range d.variants {
		all[i] = variant(all[i], v) // order does not matter
	}
	return all
}

func (d *disk) forget(i piece.Index) bool {
	if int(i) >= d.have.Len() || !d.have.Has(i) {
		return false
	}
	d.have.Unset(i)
	d.own.Unset(i)
	delete(d.variants, i)
	return true
}

// crash loses what was stored in the last moments, up to syncTime back; a disk that
// has gone stale, what came since any moment. A power cut loses some of that and leaves
// the rest, for the system writes in an order of its own; what is there in part does not
// match its digest and is lost as well.
func (d *disk) crash(r *run, f *Fault) {
	how := f.Kind
	if how == Wipe {
		*d = disk{keepRecent: d.keepRecent}
		return
	}
	back := syncTime
	if how == Stale {
		back = max(time.Duration(r.now), syncTime)
	}
	synced := r.now.Add(-time.Duration(r.rng.Int64N(int64(back))))
	left := false
	for len(d.recent) > 0 && d.recent[len(d.recent)-1].at > synced {
		last := d.recent[len(d.recent)-1].piece
		d.recent = d.recent[:len(d.recent)-1]
		switch {
		case f.Torn && r.rng.IntN(2) == 0:
			left = left || d.have.Has(last)
		case d.forget(last) && left:
			r.mark(TornWrites)
		}
	}
	d.headBytes = 0
	// A stop that was not clean has everything hashed again.
	for _, i := range d.flipped {
		d.forget(i)
	}
	d.flipped = nil
	d.synced = d.have.Clone()
}

// store puts a piece of a content, or a variant of it, on a member's disk, and reports
// whether it is there.
func (r *run) store(p *proc, c *content, i piece.Index, v uint8, fromOrigin bool) bool {
	d := &p.m.disk
	if d.full != nil {
		r.later(0, &aborting{p, d.full})
		return false
	}
	if !r.s3GenerationsStayApart(p, c, i) {
		return false
	}
	if fromOrigin && r.world.Confirm > 1 {
		d.own.Set(i)
		p.m.hasRead(c, i)
	}
	if !d.have.Set(i) {
		r.mark(StoredTwice)
		if fromOrigin { // it takes the place of what was there
			d.own.Set(i)
			d.vary(i, v)
		}
		return true
	}
	if fromOrigin {
		d.own.Set(i)
	}
	d.vary(i, v)
	if d.keepRecent {
		d.recent = append(d.recent, stored{r.now, i})
	}
	r.budget.stored(r, p.m, i)
	return true
}
