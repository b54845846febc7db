package swarm

import (
	"math/bits"
	"slices"
	"time"

	"dragonload/internal/piece"
)

// Members from which others take nothing: they lie, send wrong bytes, or hold back what they
// say that they hold. The tracker cannot know, and must not let them decide what is still
// to be fetched.

const (
	// MaxShuns bounds the members that one says it takes nothing from.
	MaxShuns = 16

	// maxSurvey bounds the pieces that are looked at in one step for what only such
	// members hold.
	maxSurvey = 1 << 12

	// suspectTime is how long those are suspected who have been found to hold back.
	suspectTime = 10 * time.Second

	// heldTime is how long somebody must have held what nobody brings before it is suspected.
	heldTime = 3 * time.Second

	// surveyTime is how long it must be so at least.
	surveyTime = time.Second

	// A piece that takes longer than dawdleTime, with what it takes if all who are there
	// share dawdleRate, might as well not come. The time is longer than a request may wait
	// for its turn.
	dawdleTime = 20 * time.Second
	dawdleRate = 64 << 10

	// fewMembers is up to which of a pool's members everybody meets everybody.
	fewMembers = 32

	// maxFailures is how many requests in a row may come to nothing.
	maxFailures = 6

	// turnTime is how much longer nothing may come for each neighbour that there is: who has
	// much to do may be honest.
	turnTime = 250 * time.Millisecond
)

// shuns returns of whom this node takes nothing just now, whatever they say that they hold.
func (n *Node) shuns() (out []piece.NodeID) {
	n.noteBarren()
	for id := range n.trust.distrusted {
		out = append(out, id)
	}
	for id := range n.trust.banned {
		out = append(out, id)
	}
	for id, k := range n.swap.known {
		if k.shunned || k.record.aside {
			out = append(out, id)
		}
	}
	for _, p := range n.swap.order {
		if p.barren {
			out = append(out, p.id)
		}
	}
	// Once all are known, for the order of maps is by chance.
	slices.SortFunc(out, piece.NodeID.Compare)
	out = slices.Compact(out)
	return out[:min(len(out), MaxShuns)]
}

// noteBarren notes which neighbours hold back what they say that they hold. It is no blame:
// who brings a piece is taken for a source again.
func (n *Node) noteBarren() {
	for _, p := range n.swap.order {
		if n.now.Sub(p.broughtAt) >= n.crowded(withheldTime) {
			p.barren = p.barren || p.silences > 0 || p.failures >= maxFailures || n.mute(p) && n.now.Sub(p.muteSince) >= n.crowded(stuckTime) ||
				slices.ContainsFunc(p.requests, func(r *peerRequest) bool { return len(r.pieces) > 0 && (n.hangs(r) || n.dawdled(r)) })
		}
	}
}

// crowded lengthens a time by what it takes a neighbour to serve all who ask it.
func (n *Node) crowded(d time.Duration) time.Duration {
	return d + time.Duration(len(n.swap.order))*turnTime<<bits.Len(uint(n.tracker.number/crowdSize))
}

// idles reports whether nothing has come for a while, and nothing is being read from the
// origin, though it might be.
func (n *Node) idles() bool {
	return n.canRead() && !n.whole() && !n.finished && len(n.origin.requests) == 0 && n.origin.leases.Count() == 0 &&
		n.now >= n.restsUntil() && n.now.Sub(n.lastStored) >= withheldTime
}

// dawdled reports whether the piece that a request is waiting for should have come long ago.
func (n *Node) dawdled(r *peerRequest) bool {
	sharing := int64(len(n.swap.order) + 1)
	return n.now.Sub(r.since) >= dawdleTime+time.Duration(mulDiv(sharing*n.longest, int64(time.Second), dawdleRate))
}

// takeShuns notes of whom a member takes nothing.
func (p *pool) takeShuns(m *member, ids []piece.NodeID) {
	if m.shuns = ids; len(ids) == 0 {
		m.beyond = 0
	}
}

// survey looks for pieces that m lacks and gets from nobody: all who hold them are members
// from which it takes nothing, and nobody is fetching them. It returns those of which that
// has been so for a while, for news of others may be on their way, and notes about how many
// there are.
func (p *pool) survey(m *member, now Instant) (found []piece.Index) {
	m.beyond = 0
	count := m.have.Len()
	shunned := p.shunned(m, now)
	if len(shunned) == 0 || count == 0 || p.stream {
		return nil
	}
	looked := min(count, maxSurvey)
	var all piece.Extents
	for k := range looked {
		i := (m.surveyed + piece.Index(k)) % piece.Index(count)
		if !p.onlyOf(shunned, i) || p.lent[i] > 0 || m.have.Has(i) || m.wanted != nil && !m.wanted.Has(i) {
			continue
		}
		all.Add(piece.Extent{First: i, Count: 1})
		if m.beyondBefore.Has(i) {
			found = append(found, i)
		}
	}
	m.beyond = int(mulDiv(int64(all.Count()), int64(count), int64(looked)))
	if now >= m.surveyAt {
		m.beyondBefore, m.beyondLately = m.beyondLately, all
		m.surveyAt = now.Add(surveyTime)
		if all.Count() == 0 && looked < count { // it may be so elsewhere
			m.surveyed = (m.surveyed + piece.Index(looked)) % piece.Index(count)
		}
	}
	return found
}

// shunned returns the members from which m takes nothing, and those suspected.
func (p *pool) shunned(m *member, now Instant) (all []*member) {
	ids := m.shuns
	if now < p.suspectTo {
		ids = append(slices.Clone(ids), p.suspects...)
		slices.SortFunc(ids, piece.NodeID.Compare)
		ids = slices.Compact(ids)
	}
	for _, id := range ids {
		if o := p.members[id]; o != nil && o != m {
			all = append(all, o)
		}
	}
	return all
}

// suspect notes who holds, as it has told the tracker alone, what m lacks and nobody
// brings it, in a pool where everybody meets everybody. It must have been held for a while: on
// slow lines news and pieces are long on their way. It is for a while, for everybody: of
// those who get nothing the first to be leased something would else have to fetch it all.
func (t *Tracker) suspect(p *pool, m *member) {
	if !t.mesh(p) || p.stream || p.heldThen.Len() != m.have.Len() {
		return
	}
	if t.now >= p.suspectTo {
		p.suspects = nil
	}
	for _, o := range p.order {
		if o != m && len(p.suspects) < MaxShuns && !slices.Contains(p.suspects, o.id) && holdsMore(&o.have, &m.have, &p.heldThen) {
			p.suspects = append(p.suspects, o.id)
		}
	}
	p.suspectTo = t.now.Add(suspectTime)
}

// noteHeld keeps what somebody held heldTime ago, in a pool where everybody meets everybody.
func (t *Tracker) noteHeld(p *pool) {
	if t.now < p.heldAt.Add(heldTime) || !t.mesh(p) {
		return
	}
	p.heldThen, p.heldLately, p.heldAt = p.heldLately, p.heldPieces(), t.now
}

// heldPieces returns what somebody holds.
func (p *pool) heldPieces() piece.Bitfield {
	b := piece.NewBitfield(len(p.copies))
	for i, n := range p.copies {
		if n > 0 {
			b.Set(piece.Index(i))
		}
	}
	return b
}

// holdsMore reports whether a has something of these that b has not.
func holdsMore(a, b, these *piece.Bitfield) bool {
	for i, ok := b.NextUnset(0); ok; i, ok = b.NextUnset(i + 1) {
		if a.Has(i) && these.Has(i) {
			return true
		}
	}
	return false
}

// onlyOf reports whether somebody holds piece i, and nobody but some of these members.
func (p *pool) onlyOf(these []*member, i piece.Index) bool {
	if p.copies[i] == 0 || int(p.copies[i]) > len(these) {
		return false
	}
	holders := p.copies[i]
	for _, o := range these {
		if o.have.Has(i) {
			holders--
		}
	}
	return holders == 0
}

// leaseBeyond leases up to want of the pieces that a survey has found.
func (p *pool) leaseBeyond(m *member, found []piece.Index, want int) []piece.Extent {
	var mine piece.Extents
	for _, i := range found[:min(len(found), want)] {
		one := piece.Extent{First: i, Count: 1}
		mine.Add(one)
		p.giveLease(m, one)
	}
	return slices.Clone(mine.Runs())
}
