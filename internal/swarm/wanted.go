package swarm

import (
	"slices"
	"time"

	"dragonload/internal/piece"
)

// What a Tracker knows more of the pool of a manifest: that it is of that manifest for good,
// and which pieces somebody wants. A tracker never sees the manifest itself.

// despairTime is how long the pool of a manifest may lack what nobody can fetch before its
// members are told to give up: a holder may only be starting again.
const despairTime = 30 * time.Second

const (
	// maxSources bounds the members of a pool that are remembered for having all they want.
	maxSources = 64

	// maxNamed is how many newcomers are shown the same source. The others get what they
	// want from those: a source has one line, and room for maxNeighbours.
	maxNamed = 16

	// maxLooked bounds the members that are looked at where nobody has all.
	maxLooked = 64
)

// wanting is who wants what in a pool.
type wanting struct {
	all     int      // members that want everything
	some    []uint32 // others that want each piece; empty where there are none
	sought  int      // pieces that some of these want
	covered int      // and that somebody holds
	sources []*member
}

// ofManifest reports whether a pool is of a manifest.
func (p *pool) ofManifest() bool { return p.pinned && p.pin.Kind == piece.Manifest }

// belongs reports whether a member with this announce may be in a pool: one of a manifest
// is of the same manifest for everybody.
func (p *pool) belongs(a Announce) bool {
	if a.Pinned && a.Pin.Kind == piece.Manifest {
		if a.Incarnation != 0 || a.Stream || a.Pin.Validate() != nil || a.Wanted.Len() > 0 && a.Wanted.Len() != int(a.Pin.Pieces) {
			return false
		}
		return len(p.members) == 0 || p.pinned && p.pin == a.Pin
	}
	return !p.ofManifest() || len(p.members) == 0
}

// newcomer reports whether an announce is of a member that brings nothing.
func (a *Announce) newcomer() bool { return a.Have.Count() == 0 && len(a.Leased) == 0 }

// wantedBy notes what a member wants, or wants no more.
func (p *pool) wantedBy(m *member, does bool) {
	if !p.ofManifest() || !m.wants {
		return
	}
	w, by := &p.wanting, -1
	if does {
		by = 1
	}
	if m.wanted == nil {
		w.all += by
		return
	}
	if len(w.some) == 0 {
		w.some = make([]uint32, p.layout.Count())
	}
	for e := range m.wanted.Extents {
		for i := e.First; i < e.End(); i++ {
			before := w.some[i]
			w.some[i] += uint32(by) // wraps to one less
			switch {
			case before == 0:
				w.note(1, p.copies[i] > 0)
			case w.some[i] == 0:
				w.note(-1, p.copies[i] > 0)
			}
		}
	}
}

func (w *wanting) note(by int, held bool) {
	w.sought += by
	if held {
		w.covered += by
	}
}

// holding keeps the count of what is wanted and held, as piece i gets its first holder or
// loses its last one.
func (p *pool) holding(i piece.Index, by int) {
	p.held += by
	if w := &p.wanting; len(w.some) > 0 && w.some[i] > 0 {
		w.covered += by
	}
}

// fetchable returns how many pieces that somebody wants nobody is known to hold.
func (p *pool) fetchable() int {
	if p.ofManifest() && p.wanting.all == 0 {
		return p.wanting.sought - p.wanting.covered
	}
	return p.layout.Count() - p.held
}

// wantsOf reports whether m wants something of e, as far as it has said.
func (m *member) wantsOf(e piece.Extent) bool {
	if m.wanted == nil {
		return true
	}
	i, ok := m.wanted.Next(e.First)
	return ok && i < e.End()
}

// takeFree takes up to n free pieces that m wants, as one extent.
func (p *pool) takeFree(m *member, n uint32) (piece.Extent, bool) {
	if m.wanted == nil {
		return p.free.TakeFirst(n)
	}
	for _, e := range p.free.Runs() {
		first, ok := m.wanted.Next(e.First)
		if !ok {
			break
		}
		if first >= e.End() {
			continue
		}
		end, ok := m.wanted.NextUnset(first)
		if !ok {
			end = e.End()
		}
		taken := piece.Extent{First: first, Count: min(end, e.End(), first+n) - first}
		p.free.Remove(taken)
		return taken, true
	}
	return piece.Extent{}, false
}

// holdsWanted reports whether m holds all that it wants.
func (m *member) holdsWanted() bool {
	if m.wanted == nil {
		return m.have.All()
	}
	for e := range m.wanted.Extents {
		if i, ok := m.have.NextUnset(e.First); ok && i < e.End() {
			return false
		}
	}
	return true
}

// pieceLength is how long the pieces of a pool are: on average, where the tracker cannot
// know better.
func (p *pool) pieceLength() int64 {
	if count := int64(p.layout.Count()); p.ofManifest() && count > 0 {
		return (p.layout.Size + count - 1) / count
	}
	return p.layout.PieceLength
}

// source notes who has all that it wants, or has it no more.
func (p *pool) source(m *member, whole bool) {
	w := &p.wanting
	k := slices.Index(w.sources, m)
	switch {
	case k >= 0 && !whole:
		w.sources = slices.Delete(w.sources, k, k+1)
	case k < 0 && whole && p.ofManifest() && len(w.sources) < maxSources:
		w.sources = append(w.sources, m)
	}
}

// sourceFor returns a member that has something, for a handout that would name none: the
// one that was shown to the fewest. Who is stuck is shown one, however many there are.
func (t *Tracker) sourceFor(p *pool, m *member, drawn []int, stuck bool) (best *member) {
	if !p.ofManifest() || p.held == 0 || slices.ContainsFunc(drawn, func(k int) bool { return p.order[k].have.Count() > 0 }) {
		return nil
	}
	consider := func(o *member) {
		if o != m && o.addr != "" && o.have.Count() > 0 && (stuck || o.named < maxNamed) && (best == nil || o.named < best.named) {
			best = o
		}
	}
	for _, o := range p.sources {
		consider(o)
	}
	from := t.rng.IntN(len(p.order))
	for d := 0; best == nil && d < min(len(p.order), maxLooked); d++ {
		consider(p.order[(from+d)%len(p.order)])
	}
	if best != nil {
		best.named++
	}
	return best
}

// despair reports whether the members of a pool should give up: nobody who could fetch has
// come for a while. Of members that begin together the one that knows of a mirror may be
// the last.
func (t *Tracker) despair(p *pool) bool {
	switch {
	case !p.hopeless():
		p.hopelessFrom = 0
		return false
	case p.hopelessFrom == 0:
		p.hopelessFrom = max(t.now, 1)
	}
	return !p.gaveUp && t.now >= t.despairAt(p)
}

func (t *Tracker) despairAt(p *pool) Instant {
	patience := max(t.opts.Patience, 0)
	switch {
	case t.opts.Patience < 0:
	case p.ofManifest():
		patience = despairTime
	case p.begun():
		patience = max(patience, unfinishedTime)
	}
	return max(p.meetsUntil, p.hopelessFrom.Add(patience))
}
