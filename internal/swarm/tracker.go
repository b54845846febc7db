package swarm

import (
	"math/rand/v2"
	"slices"
	"time"

	"dragonload/internal/piece"
)

// TrackerOptions are the limits of a Tracker. Zero values mean the defaults.
type TrackerOptions struct {
	// MeshLimit is the number of members up to which everybody meets everybody
	// (default 32). Beyond, a newcomer is handed Degree random members (default 12),
	// so that the pool is a random graph of bounded degree.
	MeshLimit, Degree int

	// Silence is how long a member may say nothing before it counts as dead
	// (default 2.5 s: its leases must be with others within 3 s).
	Silence time.Duration

	// Patience is how long the members of a pool that none of them can fetch wait for one
	// who can (default hopelessTime). Negative: nobody else will come.
	Patience time.Duration

	// MaxMembers bounds a pool, MaxPools the Tracker (defaults 20 000 and 10 000).
	// Announces beyond are answered with CutMember.
	MaxMembers, MaxPools int

	// JoinRate is how many newcomers a second are taken in, JoinBurst how many at once
	// (defaults 1000 and 1000). The others are told when to come back.
	JoinRate, JoinBurst int

	// MaxPieces bounds the pieces of all pools together (default 2^24): they take
	// memory whether anything of them is there or not. Who tells of a file that would
	// be too much is answered with CutMember.
	MaxPieces int
}

func (o TrackerOptions) withDefaults() TrackerOptions {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&o.MeshLimit, 32)
	set(&o.Degree, 12)
	set(&o.MaxMembers, 20_000)
	set(&o.MaxPools, 10_000)
	set(&o.JoinRate, 1000)
	set(&o.JoinBurst, 1000)
	set(&o.MaxPieces, 1<<24)
	if o.Silence == 0 {
		o.Silence = 2500 * time.Millisecond
	}
	if o.Patience == 0 {
		o.Patience = hopelessTime
	}
	return o
}

// Tracker leases the extents of origins to the members of pools and introduces
// members to each other. Its state is soft: whatever it loses, the members'
// announces bring back.
type Tracker struct {
	opts  TrackerOptions
	rng   *rand.Rand
	pools map[PoolID]*pool
	held  int            // pieces of all pools
	due   indexed[*pool] // by wake
	now   Instant

	admission admission
	deserted  []deserted // in the order in which they ended

	out []TrackerAction
}

// NewTracker returns a Tracker without pools. It draws from rng alone.
func NewTracker(opts TrackerOptions, rng *rand.Rand) *Tracker {
	return &Tracker{
		opts:  opts.withDefaults(),
		rng:   rng,
		pools: make(map[PoolID]*pool),
		due: indexed[*pool]{
			less:  func(a, b *pool) bool { return a.wake < b.wake },
			place: func(p *pool) *int { return &p.place },
		},
	}
}

// Step takes in one event, or nil once Deadline has passed, and appends what is to be
// done to out.
func (t *Tracker) Step(now Instant, ev TrackerEvent, out []TrackerAction) []TrackerAction {
	t.now, t.out = now, out
	switch ev := ev.(type) {
	case MemberSaid:
		t.said(ev)
	case MemberGone:
		if p := t.pools[ev.Pool]; p != nil {
			if m := p.members[ev.Member]; m != nil {
				t.depart(p, m)
				t.settle(p)
			}
		}
	case SourceWanted:
		if p := t.pools[ev.Pool]; p != nil {
			t.sourceWanted(p)
			t.settle(p)
		}
	case nil:
		for {
			p, ok := t.due.first()
			if !ok || p.wake > now {
				break
			}
			t.wake(p)
			t.settle(p)
		}
	}
	out, t.out = t.out, nil
	return out
}

// Deadline returns when Step wants to be called next if nothing happens before.
func (t *Tracker) Deadline() (Instant, bool) {
	p, ok := t.due.first()
	if !ok || p.wake == never {
		return 0, false
	}
	return p.wake, true
}

// Pools returns how many pools have members now.
func (t *Tracker) Pools() int { return len(t.pools) }

func (t *Tracker) tell(p *pool, m *member, msg ToNode) {
	t.out = append(t.out, TellMember{Pool: p.id, Member: m.id, Message: msg})
}

func (t *Tracker) tellAll(p *pool, msg ToNode) {
	for _, m := range p.order {
		t.tell(p, m, msg)
	}
}

func (t *Tracker) said(ev MemberSaid) {
	p := t.pools[ev.Pool]
	if a, ok := ev.Message.(Announce); ok {
		if p == nil {
			if len(t.pools) >= t.opts.MaxPools {
				t.out = append(t.out, CutMember{Pool: ev.Pool, Member: ev.Member})
				return
			}
			p = newPool(ev.Pool)
			t.settleIn(p)
			t.pools[ev.Pool] = p
		}
		if !p.belongs(a) {
			t.out = append(t.out, CutMember{Pool: ev.Pool, Member: ev.Member})
			if m := p.members[ev.Member]; m != nil {
				t.depart(p, m)
			}
			t.settle(p)
			return
		}
		t.announced(p, ev.Member, a)
		t.settle(p)
		return
	}
	if p == nil || p.members[ev.Member] == nil {
		// Nothing is known of this session: a node must announce itself first.
		t.out = append(t.out, CutMember{Pool: ev.Pool, Member: ev.Member})
		return
	}
	m := p.members[ev.Member]
	p.heard(m, t.now)
	switch msg := ev.Message.(type) {
	case Probed:
		if !p.ofManifest() { // which is what it is, whatever anybody has seen
			t.probed(p, m, msg)
		}
	case Report:
		t.reported(p, m, msg)
	case Returned:
		t.returned(p, m, msg)
	case Conflict:
		t.conflict(p, m, msg)
	case Source:
		t.source(p, m, msg)
	case Leave:
		if msg.Moved {
			t.moved(p, m)
		} else {
			t.depart(p, m)
		}
	}
	t.settle(p)
}

// announced takes a member in, or takes it in anew after a reconnection.
func (t *Tracker) announced(p *pool, id piece.NodeID, a Announce) {
	if !t.admit(p, id, a) {
		return
	}
	if old := p.members[id]; old != nil {
		for e := range old.reads.Extents {
			p.reading(old, e, false) // it will tell again what it has read
		}
		t.remove(p, old) // it comes again at once, so nothing is complete by this
	}
	if len(p.members) >= t.opts.MaxMembers {
		t.out = append(t.out, CutMember{Pool: p.id, Member: id})
		return
	}
	m := &member{id: id, addr: a.Addr, fetches: a.Fetches, wants: a.Wants, confirm: a.Confirm, sources: a.Sources, progressAt: t.now}
	if a.Wanted.Len() > 0 && a.Pin.Kind == piece.Manifest {
		m.wanted = &a.Wanted
	}
	p.join(m, t.now)
	p.wish(m.confirm, t.now)
	t.tell(p, m, Welcome{Number: p.lastNumber, Interval: p.interval()})
	for _, x := range p.pauses.live(t.now) {
		t.tell(p, m, Hold{For: x.until.Sub(t.now), Source: x.source}) // a newcomer must not ask either, not even for an audit
	}
	t.handOut(p, m, false)
	t.tellReaders(p, m)
	if m.wants {
		p.wants++
		p.served = true
		if m.lendable = a.Lendable; m.lendable {
			p.lendable++
		}
		p.complete = false // the newcomer is still to be told, whatever the others were
	}

	switch {
	case p.pinned:
		t.tell(p, m, p.pinnedMessage())
		p.wantedBy(m, true)
		if a.Pinned && a.Pin == p.pin && a.Incarnation == p.incarnation {
			p.takeHave(m, a)
			p.adopt(m, a.Leased)
		}
		t.topUp(p, m)
	case a.Pinned && (a.Fresh || a.Pin.Kind == piece.Manifest) && a.Pin.Size >= 0:
		if !t.fits(p, a.Pin) {
			t.cut(p, m)
			return
		}
		// The pool is older than this tracker. The others will announce themselves
		// within an interval; until then what they fetch and hold is not known, so
		// nothing is leased.
		t.pin(p, a.Pin, a.Incarnation, a.Stream || !a.Pin.Combinable())
		p.wantedBy(m, true)
		if !p.ofManifest() || !a.newcomer() {
			p.settlesAt = t.now.Add(settleTime)
			// Who has all of a manifest and serves it for good is there for those who have not come
			// yet, so that nobody else has to stay for them.
			if !p.ofManifest() || a.Wants || !a.Have.All() {
				p.meetsUntil = t.now.Add(settleTime)
			}
		}
		p.takeHave(m, a)
		p.adopt(m, a.Leased)
		t.tellAll(p, p.pinnedMessage())
		if p.ofManifest() {
			t.topUp(p, m) // there is no probe to wait for
		}
	case a.Pinned && a.Pin.Size >= 0:
		m.resumed = &a
	}
	if p.pinned && p.stream && p.streamer == nil && m.leased.Count() > 0 {
		p.streamer = m
	}
}

// handOut names members for m to connect to, if there are any; more says that m has asked
// for some.
func (t *Tracker) handOut(p *pool, m *member, more bool) {
	if peers := t.acquaintances(p, m, more); len(peers) > 0 {
		t.tell(p, m, Handout{Peers: peers, All: t.mesh(p)})
	}
}

// mesh reports whether everybody in a pool is to meet everybody.
func (t *Tracker) mesh(p *pool) bool { return len(p.order) <= t.opts.MeshLimit }

func (t *Tracker) acquaintances(p *pool, m *member, more bool) []PeerAddr {
	var peers []PeerAddr
	add := func(o *member) {
		if o != m && o.addr != "" {
			peers = append(peers, PeerAddr{ID: o.id, Addr: o.addr})
		}
	}
	if t.mesh(p) {
		for _, o := range p.order {
			add(o)
		}
		return peers
	}
	// Distinct random members; a few draws too many cost less than a shuffle of all.
	drawn := make([]int, 0, t.opts.Degree)
	for tries := 0; len(drawn) < t.opts.Degree && tries < 4*t.opts.Degree; tries++ {
		k := t.rng.IntN(len(p.order))
		if !contains(drawn, k) {
			drawn = append(drawn, k)
			add(p.order[k])
		}
	}
	if o := t.sourceFor(p, m, drawn, more); o != nil {
		add(o)
	}
	return peers
}

func contains(s []int, x int) bool {
	for _, v := range s {
		if v == x {
			return true
		}
	}
	return false
}

// probed takes the answer of a probe, which fixes the generation if none is fixed.
func (t *Tracker) probed(p *pool, m *member, msg Probed) {
	if msg.Pin.Size < 0 || msg.Pin.Validate() != nil || msg.Pin.Kind == piece.Manifest {
		return
	}
	layout := msg.Pin.Layout()
	if layout.Count() > 0 && !msg.Extent.Valid(layout.Count()) && msg.Extent.Count > 0 {
		return
	}
	if !t.fits(p, msg.Pin) {
		t.cut(p, m)
		return
	}
	// Whoever was asked to look again is a witness, even if it answers late; nobody else
	// is, least of all the one that has seen another version.
	reprobe := p.contested && m.witness
	if p.prober == m || reprobe {
		p.prober, p.contested = nil, false
	}
	same := p.pinned && p.pin == msg.Pin && p.incarnation == msg.Incarnation
	switch {
	case reprobe && p.seconded < secondLooks && contradict(p.pin, msg.Pin):
		// The origin gives one name to two versions, so this may be a lapse of a single
		// answer, and everything fetched so far would be lost to it.
		m.witness = false
		t.tell(p, m, p.pinnedMessage())
		t.look(p, m)
		p.seconded++
		return
	case same:
		// A second prober agrees: whoever saw another version sees it alone. Or a new
		// stream has begun where one broke off.
		changed := p.stream != msg.Stream
		t.pin(p, msg.Pin, msg.Incarnation, msg.Stream)
		if reprobe {
			p.refuted++
			p.contestFrom = t.now.Add(min(time.Second<<min(p.refuted, 5), conflictBar))
		}
		if changed {
			t.tellAll(p, p.pinnedMessage())
		}
	case p.pinned && !reprobe && !p.streamLost:
		// Late and different: the member will see the pool's pin and begin anew.
		t.tell(p, m, p.pinnedMessage())
		return
	default:
		t.pin(p, msg.Pin, msg.Incarnation, msg.Stream)
		p.refuted, p.contestFrom = 0, 0
		for _, o := range p.order {
			if a := o.resumed; a != nil && a.Pin == p.pin && a.Incarnation == p.incarnation {
				p.takeHave(o, *a)
			}
			o.resumed = nil
			o.barredUntil = 0 // what it said of the other version, or met there, is past
		}
		t.tellAll(p, p.pinnedMessage())
	}
	p.adopt(m, []piece.Extent{msg.Extent})
	if msg.Stream {
		p.streamer = m
	}
	m.barredUntil, m.failures = 0, 0
	// Everybody has waited for this; it happens once in the life of a pool.
	for _, o := range p.order {
		t.topUp(p, o)
	}
}

// reported takes in what has changed at a member.
func (t *Tracker) reported(p *pool, m *member, r Report) {
	m.streaming = r.Streaming
	if r.Streaming && p.prober == m {
		p.probeBy = never // its answer has begun; only its death or failure ends the wait
	}
	if r.WantPeers {
		t.handOut(p, m, true)
	}
	if !p.pinned {
		return
	}
	stored := p.store(m, r.Stored)
	stored = p.hasRead(m, r.Read) || stored
	p.unheardOf(r.Unconfirmed)
	p.lose(m, r.Lost, t.now)
	if m.brought += max(r.Moved, 0); m.brought >= leastProgress || stored {
		if t.now.Sub(m.progressAt) < stallTime {
			p.vain = max(p.vain-1, 0)
		}
		m.progressAt, m.brought = t.now, 0
		m.failures = 0
	}
	p.widen(t.now, r.Moved)
	p.setRate(m, r.Rate)
	p.setUnasked(m, min(int(r.Unasked), m.leased.Count()))
	p.setWhole(m, r.Whole)
	p.takeShuns(m, r.Shuns)
	t.complete(p)
	t.topUp(p, m)
	t.noteHeld(p)
	if r.Stuck && !r.Whole {
		if len(r.Shuns) == 0 {
			t.suspect(p, m) // it does not know either who holds it up
		}
		t.relieve(p, m)
	}
}

// complete tells all members once nobody wants anything any more, be it that all who
// wanted something have left.
func (t *Tracker) complete(p *pool) {
	if t.now < p.meetsUntil {
		return // there are more than have come yet, or have left for another tracker
	}
	all := p.served && p.wholes >= p.wants
	if all && !p.complete {
		t.tellAll(p, Complete{})
	}
	p.complete = all
}

// returned takes leased pieces back and, if the origin is to blame, keeps them from
// this member for a while, or for ever.
func (t *Tracker) returned(p *pool, m *member, r Returned) {
	m.revoking = false
	for _, e := range r.Extents {
		p.giveBack(m, e)
	}
	p.setUnasked(m, min(m.unasked, m.leased.Count()))
	if r.Wait > 0 {
		t.pauseTold(p, r.Source, r.Wait)
	}
	switch r.Failure {
	case Lasting:
		p.refused = p.refused || m.wants // a helper may be refused by its own machine
		p.setFetches(m, false)
	case Passing:
		// Doubling waits, so that a member whose line is down does not take leases
		// from those who could use them.
		m.barredUntil = t.now.Add(min(250*time.Millisecond<<min(m.failures, 9), maxBackOff))
		m.failures++
		p.setRate(m, 0)
	}
	if r.Failure != NoFailure {
		if p.streamer == m || p.prober == m && m.streaming {
			p.streamBroke()
		}
		if p.prober == m {
			p.prober = nil
		}
		if p.streamer == m {
			p.streamer, p.streamLost = nil, true
		}
	}
}

// conflict: a member has seen another version at the origin, or this one whole where it
// asked for parts. Somebody else is asked to look, if there is somebody; what is seen
// then counts.
func (t *Tracker) conflict(p *pool, m *member, c Conflict) {
	if !p.pinned || p.contested || p.stream || p.ofManifest() {
		return // one stream is of one version, whatever others have met before it
	}
	if !m.wants {
		m.barredUntil = t.now.Add(conflictBar) // what the file is those say who want it
		return
	}
	if t.now < p.contestFrom {
		m.barredUntil = p.contestFrom
		return
	}
	m.barredUntil = t.now.Add(conflictBar)
	p.seconded = 0
	for _, o := range p.order {
		o.witness = false
	}
	t.look(p, m)
}

// look asks somebody else than m what is seen at the origin, m if there is nobody.
func (t *Tracker) look(p *pool, m *member) {
	p.contested = true
	p.prober = nil
	witness := p.pickProber(t.now, m)
	if witness == nil {
		witness, m.barredUntil = m, 0
	}
	t.startProbe(p, witness)
}

// secondLooks is how many more looks must show the same before an origin is believed that
// contradicts itself. One that does so in every third answer, which is what caches that
// are not of one mind do, is then believed once in 27 times.
const secondLooks = 2

// contradict reports whether two pins bear the same strong validator and still differ
// (RFC 9110, 8.8.1: it changes whenever the bytes do).
func contradict(a, b piece.Pin) bool {
	return a != b && a.Kind == b.Kind && a.Validator == b.Validator &&
		(a.Kind == piece.StrongETag || a.Kind == piece.ReprDigest)
}

func (t *Tracker) startProbe(p *pool, m *member) {
	p.prober, p.probeBy = m, t.now.Add(probeTime)
	m.witness = p.contested
	t.tell(p, m, Probe{})
}

// fits reports whether there is room for the pieces of a pool's pin.
func (t *Tracker) fits(p *pool, pin piece.Pin) bool {
	return t.held-p.layout.Count()+pin.Layout().Count() <= t.opts.MaxPieces
}

func (t *Tracker) pin(p *pool, pin piece.Pin, incarnation uint64, stream bool) {
	t.held -= p.layout.Count()
	p.pinTo(pin, incarnation, stream)
	t.held += p.layout.Count()
}

// cut takes a member out and closes its session.
func (t *Tracker) cut(p *pool, m *member) {
	t.out = append(t.out, CutMember{Pool: p.id, Member: m.id})
	t.depart(p, m)
}

// depart takes a member out: its leases go back at once, and what only it held is
// fetched again unless another member turns out to hold it.
func (t *Tracker) depart(p *pool, m *member) {
	t.remove(p, m)
	t.complete(p)
}

// moved takes out a member that goes on with another tracker. Its leases stay with it,
// and what it holds stays held, until the others have had time to follow: what it
// fetches is not lent to them meanwhile.
func (t *Tracker) moved(p *pool, m *member) {
	p.meetsUntil = max(p.meetsUntil, t.now.Add(movedTime))
	var kept piece.Extents
	for _, e := range m.leased.Runs() {
		kept.Add(e)
	}
	for _, e := range kept.Runs() {
		p.takeLease(m, e) // and still counts as one who reads it: it goes on
	}
	for e := range m.have.Extents {
		kept.Add(e)
	}
	if kept.Count() > 0 {
		p.keepAside(limbo{until: t.now.Add(movedTime), pieces: kept})
	}
	t.remove(p, m)
}

func (t *Tracker) remove(p *pool, m *member) {
	for _, e := range slices.Clone(m.leased.Runs()) {
		p.takeLease(m, e)
		p.reading(m, e, false)
		p.release(e)
	}
	p.countActive(m)
	lost := p.dropHave(m)
	if len(lost.Runs()) > 0 {
		p.keepAside(limbo{until: t.now.Add(limboTime), pieces: lost})
	}
	if p.prober == m {
		p.prober = nil
	}
	if p.streamer == m {
		p.streamer, p.streamLost = nil, true
	}
	p.leave(m)
	if m.confirm > 1 {
		p.wishLess(t.now)
	}
}

// wake does what has come due in a pool.
func (t *Tracker) wake(p *pool) {
	for m := p.quietest(); m != nil && m.heardAt.Add(t.opts.Silence) <= t.now; m = p.quietest() {
		t.cut(p, m)
	}
	for len(p.limbo) > 0 && p.limbo[0].until <= t.now {
		l := p.limbo[0]
		p.limbo = p.limbo[1:]
		for _, e := range l.pieces.Runs() {
			p.release(e)
		}
	}
	if p.prober != nil && p.probeBy <= t.now {
		// It may still answer; meanwhile another one is asked.
		late := p.prober
		p.prober = nil
		if next := p.pickProber(t.now, late); next != nil {
			t.startProbe(p, next)
		} else {
			p.prober, p.probeBy = late, t.now.Add(probeTime)
		}
	}
}

// settle ends every step about a pool: it hands out what can be handed out and sets
// when the pool wants to be woken.
func (t *Tracker) settle(p *pool) {
	if len(p.members) == 0 {
		if p.welcome {
			t.out = append(t.out, HelpWelcome{Pool: p.id})
		}
		t.due.remove(p)
		t.desert(p)
		delete(t.pools, p.id)
		t.held -= p.layout.Count()
		return
	}
	if p.pinned && p.stream && p.streamer == nil && t.now >= p.settlesAt && p.missing() {
		p.streamLost = true // whoever read it was lost together with the tracker before this one
	}
	if p.needsProbe() && p.prober == nil && t.now >= p.allRestUntil() {
		if m := p.pickProber(t.now, nil); m != nil {
			t.startProbe(p, m)
		}
	}
	t.reclaim(p)
	t.feed(p)
	t.tellReaders(p, nil)
	t.seekHelp(p)
	if t.despair(p) {
		p.gaveUp = true
		t.tellAll(p, GiveUp{})
	}
	p.wake = t.nextWake(p)
	t.due.fix(p)
}

func (t *Tracker) nextWake(p *pool) Instant {
	wake := never
	if m := p.quietest(); m != nil {
		wake = m.heardAt.Add(t.opts.Silence)
	}
	if len(p.limbo) > 0 {
		wake = min(wake, p.limbo[0].until)
	}
	if p.prober != nil {
		wake = min(wake, p.probeBy)
	}
	if p.asked != nil {
		wake = min(wake, p.askedBy)
	}
	if p.prober == nil && p.needsProbe() {
		// Nobody may probe now; look again when the first may.
		wake = min(wake, max(p.allRestUntil(), t.now.Add(retryTime)))
	}
	if p.hopelessFrom > 0 && !p.gaveUp {
		wake = min(wake, t.despairAt(p))
	}
	if p.pinned && len(p.hungry) > 0 {
		// Somebody idles: when the pause is over there may be work, and a stalled
		// holder is looked for.
		switch {
		case p.allRestUntil() > t.now:
			wake = min(wake, p.allRestUntil())
		case p.fetchable() > 0 || p.owed > 0:
			wake = min(wake, t.now.Add(retryTime))
		}
	}
	return max(wake, t.now+1)
}
