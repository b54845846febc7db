package swarm

import (
	"math/bits"
	"time"

	"dragonload/internal/piece"
)

// How the origin's extents are leased. Members get work for a while ahead, the while
// shrinking with what remains (guided self-scheduling: Polychronopoulos and Kuck,
// IEEE Transactions on Computers C-36, 1987), so that all lines end together.
const (
	// firstLease is what a member gets whose speed is not known yet.
	firstLease = 1 << 20

	// A member's leases last between minHorizon and maxHorizon at its speed; less
	// and it might idle for a round trip, more and a member that slows down holds up
	// what others could do.
	minHorizon = 200 * time.Millisecond
	maxHorizon = 2 * time.Second

	// stallTime is how long a member may bring nothing before its leases are given
	// to idle members; it must be well under the 5 s within which a stalled source
	// is left.
	stallTime = 3 * time.Second

	// Where the origin is slow for everybody nobody is stalled: after vainLimit members in
	// a row were left in vain, or all if there are fewer, stallTime doubles, at most
	// maxDoublings times; whoever brings something in time makes up for one of them.
	vainLimit    = 4
	maxDoublings = 5

	// leastProgress is what a member must bring in a stallTime: a byte now and then is
	// nothing.
	leastProgress = 12 << 10

	probeTime   = time.Second             // others wait this long for the prober's pin
	settleTime  = 1200 * time.Millisecond // for everybody to announce itself to a new tracker
	limboTime   = 700 * time.Millisecond  // for reports that a dead member's pieces live on elsewhere
	movedTime   = 5 * time.Second         // for the others to follow a member that moved to another tracker
	retryTime   = 250 * time.Millisecond  // between two looks for somebody to take work
	conflictBar = 30 * time.Second        // no leases for a member that sees another version than the rest
	feedAtOnce  = 8                       // idle members looked at in one step, to keep steps short
	maxHold     = time.Hour               // the longest Retry-After that is believed

	// reliefPieces are leased to a member that others keep waiting, and four times as many
	// each time that it happens again in the pool; not more often than each reliefTime.
	reliefTime   = time.Second
	reliefOver   = 4 * time.Second // after what time pieces that were leased so may be again
	reliefPieces = 16
	crowdSize    = 256 // for a pool of so many the time doubles, and doubles again with twice as many
)

// topUp leases m what it should have now, or notes that it could do more.
func (t *Tracker) topUp(p *pool, m *member) {
	if !p.canFetch(m) || p.stream || t.now < m.barredUntil {
		return
	}
	if t.now < p.restsUntil(m) {
		p.starve(m)
		return
	}
	beyond := p.survey(m, t.now)
	want := p.quota(m) - m.leased.Count()
	if want <= 0 {
		return
	}
	if !m.active && p.crowded() {
		p.refuse(t.now)
		p.starve(m)
		return
	}
	var extents []piece.Extent
	for want > 0 {
		e, ok := p.takeFree(m, uint32(want))
		if !ok {
			break
		}
		p.giveLease(m, e)
		want -= int(e.Count)
		extents = append(extents, e)
	}
	if want > 0 && len(beyond) > 0 {
		for _, e := range p.leaseBeyond(m, beyond, want) {
			want -= int(e.Count)
			extents = append(extents, e)
		}
	}
	if want > 0 && p.owed > 0 {
		for _, e := range p.secondCopies(m, want, t.now) {
			p.giveLease(m, e)
			want -= int(e.Count)
			extents = append(extents, e)
		}
	}
	p.countActive(m)
	if len(extents) > 0 {
		added := 0
		for _, e := range extents {
			added += int(e.Count)
		}
		if m.leased.Count() == added {
			m.progressAt = t.now // it had nothing: its time to bring something starts now
		}
		p.setUnasked(m, m.unasked+added)
		t.tell(p, m, Lease{Extents: extents})
	}
	if want > 0 && (p.free.Count() == 0 || m.wanted != nil) {
		p.starve(m)
		t.steal(p, m)
	}
}

// feed gives free pieces to members that could do more, the longest waiting first.
func (t *Tracker) feed(p *pool) {
	if !p.pinned || p.stream || t.now < p.allRestUntil() {
		return
	}
	for tries := feedAtOnce; tries > 0 && len(p.hungry) > 0 && p.free.Count()+p.owed > 0 && !p.crowded(); tries-- {
		m := p.hungry[0]
		p.sate(m)
		if t.now < max(m.barredUntil, p.restsUntil(m)) {
			p.starve(m)
			continue
		}
		before := m.leased.Count()
		t.topUp(p, m)
		if m.leased.Count() == before && p.canFetch(m) && m.wantsMore(p) {
			p.starve(m)
		}
	}
	if len(p.hungry) > 0 && p.free.Count() == 0 {
		t.dropStalled(p)
	}
}

// quota is how many pieces m should have leased now, those on their way included.
func (p *pool) quota(m *member) int {
	length := p.pieceLength()
	if m.rate == 0 {
		// The first lease is also a measurement; in a small file it must leave
		// something for the others.
		share := (p.free.Count()+m.beyond)/(2*max(p.fetchers, 1)) + 1
		return max(1, min(int(firstLease/length), share))
	}
	horizon := min(max(p.timeLeft(m, max(p.sumRate, m.rate))/2, minHorizon), max(maxHorizon, 3*p.interval()))
	n := int(mulDiv(m.rate, int64(horizon), int64(time.Second)) / length)
	if n == 1 {
		// The next piece must be at hand when this one ends, or the line idles for a
		// round trip, and where the LAN is busy for a long one. (Simulated with 16 lines
		// of 4 Mbit/s: to give out the very last pieces one by one took 1 % longer with
		// 20 ms one way, 2.4 % with 100 ms.)
		return 2
	}
	if n > 0 {
		return n
	}
	// A single piece takes longer than the horizon. It goes to m only if m would have
	// it before the others could be done with everything; one piece cannot be shared,
	// so they need at least what a member of middling speed takes for it. (Not every
	// member is slower than half the average, so somebody always may.)
	average := max(p.sumRate/int64(max(p.fetchers, 1)), 1)
	end := p.timeLeft(m, p.sumRate-m.rate)
	if took := p.workTime(1, m.rate); took <= max(end, 2*p.workTime(1, average)) {
		return 1
	}
	return 0
}

// timeLeft is how long all that is still to come from the origin, as far as m is
// concerned, takes at a rate.
func (p *pool) timeLeft(m *member, rate int64) time.Duration {
	return p.workTime(max(p.fetchable()+m.beyond, p.owed), rate)
}

// mulDiv returns a*b/c without overflow of the product, for non-negative numbers
// whose quotient fits.
func mulDiv(a, b, c int64) int64 {
	if a == 0 || b <= (1<<62)/a {
		return a * b / c
	}
	return int64(float64(a) / float64(c) * float64(b))
}

// steal asks the member whose unasked work would last longest for some of it, if m
// would be through with it sooner.
func (t *Tracker) steal(p *pool, m *member) {
	v, ok := p.busy.first()
	if !ok || v == m || v.revoking || v.unasked == 0 || !p.mayTake(m, v) {
		return
	}
	rate := max(m.rate, 1)
	if m.rate == 0 {
		rate = max(p.sumRate/int64(max(p.fetchers, 1)), 1)
	}
	// Moved so that both end together: v keeps its speed's share.
	n := int(mulDiv(int64(v.unasked), rate, rate+max(v.rate, 1)))
	mine := p.workTime(n, rate)
	if n == 0 || mine+minSteal > p.workTime(v.unasked, v.rate) {
		return
	}
	v.revoking = true
	p.busy.fix(v)
	t.tell(p, v, Revoke{Pieces: uint32(n)})
}

// minSteal is the gain below which moving work is not worth a round trip.
const minSteal = 50 * time.Millisecond

// workTime is how long n pieces take at a rate.
func (p *pool) workTime(n int, rate int64) time.Duration {
	return time.Duration(min(mulDiv(int64(n)*p.pieceLength(), int64(time.Second), max(rate, 1)), int64(time.Hour)))
}

// dropStalled takes the leases of a member that has brought nothing for long, while
// others idle. It looks at all members, so not more often than once a retryTime.
func (t *Tracker) dropStalled(p *pool) {
	if t.now < p.stallCheck {
		return
	}
	p.stallCheck = t.now.Add(retryTime)
	for _, m := range p.order {
		if m.leased.Count() == 0 || m == p.prober || t.now.Sub(m.progressAt) < p.patience() || !p.otherFetcher(m, t.now) {
			continue
		}
		extents := append([]piece.Extent(nil), m.leased.Runs()...)
		t.tell(p, m, Drop{Extents: extents})
		for _, e := range extents {
			p.giveBack(m, e)
		}
		p.setUnasked(m, 0)
		p.setRate(m, 0)
		m.revoking = false
		m.barredUntil = t.now.Add(min(time.Second<<min(m.failures, 5), 30*time.Second))
		m.failures++
		p.vain = min(p.vain+1, p.vainLimit()*maxDoublings)
	}
}

// patience is how long a member may bring nothing now.
func (p *pool) patience() time.Duration {
	return stallTime << min(p.vain/p.vainLimit(), maxDoublings)
}

func (p *pool) vainLimit() int { return min(max(p.fetchers, 1), vainLimit) }

// relieve leases pieces to a member that it lacks and does not get, though others are said
// to hold them: they do not hand them out, or have lied. Members in the same plight get
// different ones, and pass them on.
func (t *Tracker) relieve(p *pool, m *member) {
	if !p.canFetch(m) || p.stream || t.now < max(p.restsUntil(m), m.barredUntil, m.relieveAt) || m.leased.Count() > 0 {
		return
	}
	if t.now >= p.reliefOver {
		p.relief.Clear() // what was leased so has come, or has not: it may be tried again
		// In a crowd the lines between members are long in bringing each its piece.
		p.reliefOver = t.now.Add(reliefOver << bits.Len(uint(len(p.order)/crowdSize)))
		p.relieved++
	}
	m.relieveAt = t.now.Add(reliefTime)
	want := reliefPieces << (2 * min(max(p.relieved-1, 0), 8))
	var mine piece.Extents
	for i, ok := m.have.NextUnset(0); ok && mine.Count() < want; i, ok = m.have.NextUnset(i + 1) {
		if p.copies[i] > 0 && !p.relief.Has(i) && (m.wanted == nil || m.wanted.Has(i)) {
			mine.Add(piece.Extent{First: i, Count: 1})
		}
	}
	if mine.Count() == 0 {
		return
	}
	extents := append([]piece.Extent(nil), mine.Runs()...)
	for _, e := range extents {
		p.relief.Add(e)
		p.giveLease(m, e)
	}
	m.progressAt = t.now
	p.countActive(m)
	p.setUnasked(m, mine.Count())
	t.tell(p, m, Lease{Extents: extents})
}
