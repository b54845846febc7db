package swarm

import (
	"slices"
	"time"

	"dragonload/internal/piece"
)

// pool is what a Tracker knows of one pool. Each piece of a pinned pool is in exactly
// one of these conditions: held by a member, leased to one (or, after a Drop, to
// several), in limbo, or free. (One that is held may be leased as well: the report of
// its arrival is on its way.)
type pool struct {
	id    PoolID
	wake  Instant
	place int // in Tracker.due

	members    map[piece.NodeID]*member
	order      []*member // for random picks and broadcasts; a member knows its position
	first      *member   // the one heard of longest ago; a list by heardAt
	last       *member
	lastNumber uint32

	pinned      bool
	pin         piece.Pin
	incarnation uint64
	layout      piece.Layout
	stream      bool

	prober    *member // is making the first request, or looks again after a conflict
	probeBy   Instant
	contested bool // a member has seen another version; prober is to decide
	seconded  int  // witnesses that have seen it too; where it contradicts itself, another is to decide
	// refuted counts the contests in a row that came to nothing; before contestFrom there
	// is no other, for each costs a request to the origin.
	refuted     int
	contestFrom Instant
	streamer    *member // reads the one stream
	// streamLost: the stream broke before every piece was held by somebody.
	streamLost bool
	// streamBreaks counts the streams in a row that broke off without bringing more than
	// streamBest pieces, which one before them brought.
	streamBreaks, streamBest int

	free   piece.Extents
	copies []uint32 // members that hold each piece
	lent   []uint32 // and those that have it leased
	held   int      // pieces with a copy
	limbo  []limbo  // by until

	sumRate    int64 // of members that fetch
	fetchers   int
	wants      int // members that want the whole file, and have it
	wholes     int
	complete   bool
	meetsUntil Instant // until when members may be elsewhere: not met yet, or gone over to another tracker
	gaveUp     bool
	refused    bool    // the origin has refused a member for good
	settlesAt  Instant // nothing is leased until then
	pauses     pauses  // that servers asked for
	several    int     // members that know several
	reclaimAt  Instant // since when what members that rest were leased is to be asked for; 0: it is not
	stallCheck Instant
	vain       int // members left for being stalled, less those that have brought something in time since

	lending
	readers
	wanting
	hopelessFrom Instant        // since when what is missing nobody can fetch; 0: that is not so
	relief       piece.Extents  // held pieces that were leased all the same lately
	reliefOver   Instant        // until when they are not again
	relieved     int            // times that this was so
	suspects     []piece.NodeID // see Tracker.suspect
	suspectTo    Instant        // until when they are
	heldThen     piece.Bitfield // what somebody held before heldAt, see noteHeld
	heldLately   piece.Bitfield // and at heldAt
	heldAt       Instant

	width  width
	hungry []*member        // could do more than was there to lease; in order of asking
	busy   indexed[*member] // by time of unasked work, the longest first
}

// limbo holds pieces that had a dead member as their only known holder, until the
// others' reports have had time to come in, and those of members that have gone over to
// another tracker.
type limbo struct {
	until  Instant
	pieces piece.Extents
}

// member is what a Tracker knows of one member of a pool.
type member struct {
	id         piece.NodeID
	addr       string
	pos        int // in pool.order
	prev, next *member
	heardAt    Instant

	have    piece.Bitfield
	wanted  *piece.Bitfield // pieces of a manifest; nil: all
	resumed *Announce       // what it holds from an earlier run, until the pool is pinned

	leased      piece.Extents // and not yet stored
	unasked     int           // of these, not yet asked of the origin when last heard
	active      bool          // counted in pool.width
	revoking    bool          // a Revoke is on its way
	busyPlace   int
	rate        int64
	fetches     bool
	wants       bool
	lendable    bool
	sources     []SourceID     // see Announce
	confirm     int            // see Announce
	reads       piece.Bitfield // pieces that it has read or is leased, while that matters
	whole       bool
	streaming   bool
	witness     bool // was asked what it sees in the present contest
	starving    bool
	failures    int
	barredUntil Instant
	progressAt  Instant
	brought     int64   // bytes since progressAt
	named       int     // newcomers that were shown it as a source
	relieveAt   Instant // not before

	shuns    []piece.NodeID // see Report
	beyond   int            // about how many pieces only these hold
	surveyed piece.Index    // where to look for them
	surveyAt Instant        // when to look anew

	beyondBefore, beyondLately piece.Extents // what was found before
}

func newPool(id PoolID) *pool {
	p := &pool{id: id, members: make(map[piece.NodeID]*member)}
	p.busy = indexed[*member]{
		less:  func(a, b *member) bool { return p.busyTime(a) > p.busyTime(b) },
		place: func(m *member) *int { return &m.busyPlace },
	}
	return p
}

// busyTime orders members by how long their unasked work lasts; one that has been
// asked for some of it already comes last.
func (p *pool) busyTime(m *member) time.Duration {
	if m.revoking {
		return 0
	}
	return p.workTime(m.unasked, m.rate)
}

// interval is how often members of this pool report: a sign of life each second at
// the latest, more often where there are few.
func (p *pool) interval() time.Duration {
	return min(max(250*time.Millisecond, time.Duration(len(p.members))*time.Millisecond), time.Second)
}

func (p *pool) pinnedMessage() Pinned {
	return Pinned{Pin: p.pin, Incarnation: p.incarnation, Stream: p.stream}
}

func (p *pool) join(m *member, now Instant) {
	p.lastNumber++
	p.hopelessFrom = 0
	m.pos = len(p.order)
	p.order = append(p.order, m)
	p.members[m.id] = m
	if m.fetches {
		p.fetchers++
		p.gaveUp = false
	}
	if len(m.sources) > 1 {
		p.several++
	}
	p.reclaimAt = now
	if p.pinned {
		m.have = piece.NewBitfield(p.layout.Count())
		m.reads = piece.NewBitfield(len(p.readers.count))
	}
	p.heard(m, now)
}

func (p *pool) leave(m *member) {
	p.sate(m)
	p.setRate(m, 0)
	p.setFetches(m, false)
	p.setWhole(m, false)
	p.busy.remove(m)
	if len(m.sources) > 1 {
		p.several--
	}
	p.wantedBy(m, false)
	if m.wants {
		p.wants--
	}
	p.unlend(m)
	p.unlink(m)
	last := p.order[len(p.order)-1]
	p.order[m.pos], last.pos = last, m.pos
	p.order[len(p.order)-1] = nil
	p.order = p.order[:len(p.order)-1]
	delete(p.members, m.id)
}

// heard notes a sign of life; members are listed by the time of the last one.
func (p *pool) heard(m *member, now Instant) {
	m.heardAt = now
	if p.last == m {
		return
	}
	p.unlink(m)
	m.prev = p.last
	if p.last != nil {
		p.last.next = m
	} else {
		p.first = m
	}
	p.last = m
}

func (p *pool) unlink(m *member) {
	if m.prev != nil {
		m.prev.next = m.next
	} else if p.first == m {
		p.first = m.next
	}
	if m.next != nil {
		m.next.prev = m.prev
	} else if p.last == m {
		p.last = m.prev
	}
	m.prev, m.next = nil, nil
}

func (p *pool) quietest() *member { return p.first }

// pinTo fixes the generation; everything known of another one is forgotten.
func (p *pool) pinTo(pin piece.Pin, incarnation uint64, stream bool) {
	keep := p.pinned && p.pin == pin && p.incarnation == incarnation
	p.stream = stream
	p.streamLost = false
	if keep {
		return
	}
	p.pinned, p.pin, p.incarnation = true, pin, incarnation
	p.layout = pin.Layout()
	p.wanting = wanting{}
	p.copies = make([]uint32, p.layout.Count())
	p.lent = make([]uint32, p.layout.Count())
	p.held = 0
	p.limbo = nil
	p.relief.Clear()
	p.free.Clear()
	p.free.Add(p.layout.All())
	p.streamer = nil
	for _, m := range p.order {
		m.have = piece.NewBitfield(p.layout.Count())
		m.leased.Clear()
		p.countActive(m)
		m.revoking = false
		p.setUnasked(m, 0)
		p.setWhole(m, false)
	}
	p.complete = false
	p.recount()
}

// takeHave takes in all that a member says it holds.
func (p *pool) takeHave(m *member, a Announce) {
	if a.Have.Len() != p.layout.Count() {
		return
	}
	for e := range a.Have.Extents {
		p.store(m, []piece.Extent{e})
	}
	p.setWhole(m, m.holdsWanted() && m.confirm <= 1)
}

// store notes pieces that a member now holds and reports whether one of them had been
// leased to it.
func (p *pool) store(m *member, extents []piece.Extent) (leased bool) {
	for _, e := range extents {
		if !e.Valid(p.layout.Count()) {
			continue
		}
		for i := e.First; i < e.End(); i++ {
			if !m.have.Set(i) {
				continue
			}
			if p.copies[i]++; p.copies[i] == 1 {
				p.holding(i, 1)
			}
		}
		p.free.Remove(e)
		if p.perPiece > 1 {
			continue // it has to read what it is leased, whoever brings it
		}
		before := m.leased.Count()
		p.takeLease(m, e)
		leased = leased || m.leased.Count() != before
	}
	p.countActive(m)
	return leased
}

// lose notes pieces that a member no longer holds.
func (p *pool) lose(m *member, extents []piece.Extent, now Instant) {
	var gone piece.Extents
	for _, e := range extents {
		if !e.Valid(p.layout.Count()) {
			continue
		}
		for i := e.First; i < e.End(); i++ {
			one := piece.Extent{First: i, Count: 1}
			switch {
			case m.have.Unset(i):
				if p.copies[i]--; p.copies[i] == 0 {
					p.holding(i, -1)
					gone.Add(one)
				}
			case m.leased.Has(i):
				// Lost before it was told of: it does not fetch it again by itself.
				p.takeLease(m, one)
				p.reading(m, one, false)
				p.release(one)
			}
		}
	}
	p.countActive(m)
	if gone.Count() > 0 {
		p.keepAside(limbo{until: now.Add(limboTime), pieces: gone})
	}
}

// dropHave forgets all that a member holds and returns what nobody else is known to.
func (p *pool) dropHave(m *member) (gone piece.Extents) {
	for e := range m.have.Extents {
		for i := e.First; i < e.End(); i++ {
			if p.copies[i]--; p.copies[i] == 0 {
				p.holding(i, -1)
				gone.Add(piece.Extent{First: i, Count: 1})
			}
		}
	}
	m.have = piece.NewBitfield(m.have.Len())
	return gone
}

// adopt notes pieces that a member is fetching from the origin already.
func (p *pool) adopt(m *member, extents []piece.Extent) {
	for _, e := range extents {
		if e.Valid(p.layout.Count()) {
			p.free.Remove(e)
			p.giveLease(m, e)
		}
	}
	if p.perPiece <= 1 {
		for e := range m.have.Extents {
			p.takeLease(m, e)
		}
	}
	p.countActive(m)
}

// giveLease and takeLease keep what m has leased, and how many have.
func (p *pool) giveLease(m *member, e piece.Extent) {
	for i := e.First; i < e.End(); i++ {
		if !m.leased.Has(i) {
			p.lent[i]++
		}
	}
	m.leased.Add(e)
	p.reading(m, e, true)
}

func (p *pool) takeLease(m *member, e piece.Extent) {
	if m.leased.Count() == 0 {
		return
	}
	for i := e.First; i < e.End(); i++ {
		if m.leased.Has(i) {
			p.lent[i]--
		}
	}
	m.leased.Remove(e)
}

// giveBack takes a lease from m.
func (p *pool) giveBack(m *member, e piece.Extent) {
	if !e.Valid(p.layout.Count()) {
		return
	}
	for i := e.First; i < e.End(); i++ {
		if one := (piece.Extent{First: i, Count: 1}); m.leased.Has(i) {
			p.takeLease(m, one)
			p.reading(m, one, false)
			p.release(one)
		}
	}
	p.countActive(m)
}

// release frees the pieces of e that nobody holds and nobody else has leased.
func (p *pool) release(e piece.Extent) {
	for i := e.First; i < e.End(); i++ {
		if p.copies[i] == 0 && p.lent[i] == 0 && !p.inLimbo(i) {
			p.free.Add(piece.Extent{First: i, Count: 1})
		}
	}
}

// keepAside adds to the limbo, which is ordered by time.
func (p *pool) keepAside(l limbo) {
	k := len(p.limbo)
	for k > 0 && p.limbo[k-1].until > l.until {
		k--
	}
	p.limbo = slices.Insert(p.limbo, k, l)
}

func (p *pool) inLimbo(i piece.Index) bool {
	for k := range p.limbo {
		if p.limbo[k].pieces.Has(i) {
			return true
		}
	}
	return false
}

// streamBroke notes that the one stream broke off. Where several in a row get no
// further, none will: each begins anew, and costs the origin all that came before.
func (p *pool) streamBroke() {
	if p.held > p.streamBest {
		p.streamBest, p.streamBreaks = p.held, 0
		return
	}
	if p.streamBreaks++; p.streamBreaks >= maxFruitless {
		p.refused = true
		for _, m := range p.order {
			p.setFetches(m, false)
		}
	}
}

// needsProbe reports whether somebody should ask the origin what the file is: for the
// first time, for another stream, or because a member has seen another version.
func (p *pool) needsProbe() bool {
	return (!p.pinned || p.streamLost || p.contested) && p.missing()
}

// missing reports whether there may be anything to fetch.
func (p *pool) missing() bool { return !p.pinned || p.fetchable() > 0 }

func (p *pool) setRate(m *member, rate int64) {
	rate = min(max(rate, 0), maxRate)
	if m.fetches {
		p.sumRate += rate - m.rate
	}
	m.rate = rate
	if m.busyPlace > 0 {
		p.busy.fix(m)
	}
}

// maxRate bounds what a member may claim: 1 TB/s, so that sums cannot overflow.
const maxRate = 1 << 40

func (p *pool) setFetches(m *member, fetches bool) {
	if m.fetches == fetches {
		return
	}
	rate := m.rate
	p.setRate(m, 0)
	m.fetches = fetches
	if fetches {
		p.fetchers++
	} else {
		p.fetchers--
		p.sate(m)
	}
	p.setRate(m, rate)
}

func (p *pool) setUnasked(m *member, n int) {
	m.unasked = n
	if n == 0 {
		p.busy.remove(m)
	} else {
		p.busy.fix(m)
	}
}

func (p *pool) setWhole(m *member, whole bool) {
	if m.whole != whole && m.wants {
		if whole {
			p.wholes++
		} else {
			p.wholes--
		}
	}
	m.whole = whole
	p.source(m, whole)
}

func (p *pool) canFetch(m *member) bool { return p.pinned && m.fetches }

// wantsMore reports whether m has less than its quota.
func (m *member) wantsMore(p *pool) bool { return p.quota(m) > m.leased.Count() }

// starve notes that m could do more; sate that it need not be thought of.
func (p *pool) starve(m *member) {
	if !m.starving {
		m.starving = true
		p.hungry = append(p.hungry, m)
	}
}

func (p *pool) sate(m *member) {
	if m.starving {
		m.starving = false
		k := slices.Index(p.hungry, m)
		p.hungry = slices.Delete(p.hungry, k, k+1)
	}
}

// otherFetcher reports whether somebody but m could fetch now.
func (p *pool) otherFetcher(m *member, now Instant) bool {
	for _, o := range p.hungry {
		if o != m && o.fetches && max(o.barredUntil, p.restsUntil(o)) <= now {
			return true
		}
	}
	return false
}

// pickProber returns the first member, but not not, that may ask the origin now.
// Helpers do not: what the file is those say who want it.
func (p *pool) pickProber(now Instant, not *member) *member {
	for _, m := range p.order {
		if m != not && m.fetches && m.wants && max(m.barredUntil, p.restsUntil(m)) <= now {
			return m
		}
	}
	return nil
}

// hopeless reports whether something is missing that nobody can fetch: the origin has
// refused whoever could. Where nobody has tried, somebody who can may still come.
func (p *pool) hopeless() bool {
	return p.refused && p.missing() && len(p.limbo) == 0 && (p.fetchers == 0 || !p.pinned && !p.canProbe())
}

// canProbe reports whether somebody can say what the file is, now or later.
func (p *pool) canProbe() bool {
	return slices.ContainsFunc(p.order, func(m *member) bool { return m.fetches && m.wants })
}

const (
	// hopelessTime is how long those whom the origin has refused wait for somebody who can
	// fetch, while nobody has anything: of members that begin together the one that can may
	// be the last, and their users are waiting.
	hopelessTime = 300 * time.Millisecond

	// unfinishedTime is how long they wait where somebody could: it may come again.
	unfinishedTime = 5 * time.Second
)

// begun reports whether there is something to be lost by giving up: the file was there for
// somebody, and this is not a pool of one.
func (p *pool) begun() bool { return p.pinned && p.lastNumber > 1 }
