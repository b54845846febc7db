package swarm

import (
	"slices"
	"time"

	"dragonload/internal/piece"
)

// Where a member wants every piece stated alike by several, the tracker leases each piece
// to so many different ones: the first copies first, then second ones.

// recountTime is left to members, when the first such wish comes, to tell what they have
// read by then.
const recountTime = 300 * time.Millisecond

// readers is what a pool knows of who has read what. It is empty while one reader of each
// piece is enough.
type readers struct {
	perPiece int           // readers of each piece; at most maxConfirm; 0 or 1: it does not matter who
	count    []uint8       // members that have read each piece, or are leased it
	lacking  piece.Extents // pieces with fewer than perPiece
	owed     int           // readings that nobody does yet
	from     Instant       // not before that are second ones leased
	told     Readers       // to all members
}

// wish takes in what a newcomer wants.
func (p *pool) wish(k int, now Instant) {
	if k = min(k, maxConfirm); k > max(p.perPiece, 1) {
		p.setWanted(k, now)
	}
}

// wishLess looks what is still wanted when somebody has left.
func (p *pool) wishLess(now Instant) {
	most := 0
	for _, m := range p.order {
		most = max(most, min(m.confirm, maxConfirm))
	}
	if most != p.perPiece {
		p.setWanted(most, now)
	}
}

func (p *pool) setWanted(k int, now Instant) {
	anew := p.perPiece <= 1
	p.perPiece = k
	if !p.pinned {
		return
	}
	if anew || k <= 1 {
		p.from = now.Add(recountTime)
		p.recount()
		return
	}
	p.lacking.Clear()
	p.owed = 0
	for i, c := range p.readers.count {
		p.owe(piece.Index(i), int(c))
	}
}

// owe notes that piece i has count readers.
func (p *pool) owe(i piece.Index, count int) {
	if count < p.perPiece {
		p.lacking.Add(piece.Extent{First: i, Count: 1})
		p.owed += p.perPiece - count
	}
}

// recount begins anew with what is leased now; what was read members will tell.
func (p *pool) recount() {
	p.readers.count, p.lacking, p.owed = nil, piece.Extents{}, 0
	if p.perPiece <= 1 || !p.pinned {
		for _, m := range p.order {
			m.reads = piece.Bitfield{}
			for e := range m.have.Extents {
				p.takeLease(m, e)
			}
			p.countActive(m)
		}
		return
	}
	p.readers.count = make([]uint8, p.layout.Count())
	if all := p.layout.All(); all.Count > 0 {
		p.lacking.Add(all)
		p.owed = int(all.Count) * p.perPiece
	}
	for _, m := range p.order {
		m.reads = piece.NewBitfield(p.layout.Count())
		for _, e := range m.leased.Runs() {
			p.reading(m, e, true)
		}
	}
}

// reading notes that m reads the pieces of e, has read them, or does not after all.
func (p *pool) reading(m *member, e piece.Extent, does bool) {
	if p.perPiece <= 1 || m.reads.Len() != len(p.readers.count) {
		return
	}
	for i := e.First; i < e.End(); i++ {
		one := piece.Extent{First: i, Count: 1}
		c := &p.readers.count[i]
		switch {
		case does && *c < 255 && m.reads.Set(i):
			if *c++; int(*c) <= p.perPiece {
				p.owed--
			}
			if int(*c) == p.perPiece {
				p.lacking.Remove(one)
			}
		case !does && m.reads.Unset(i) && *c > 0:
			if *c--; int(*c) < p.perPiece {
				p.owed++
				p.lacking.Add(one)
			}
		}
	}
}

// hasRead notes what a member says that it has read, and reports whether some of it had
// been leased to it.
func (p *pool) hasRead(m *member, extents []piece.Extent) (leased bool) {
	if p.perPiece <= 1 {
		return false
	}
	before := m.leased.Count()
	for _, e := range extents {
		if e.Valid(p.layout.Count()) {
			p.takeLease(m, e)
			p.reading(m, e, true)
		}
	}
	p.countActive(m)
	return m.leased.Count() != before
}

// unheardOf has pieces read once more whose readers have not stated them, or have lied.
func (p *pool) unheardOf(extents []piece.Extent) {
	for _, e := range extents {
		if p.perPiece <= 1 || !e.Valid(len(p.readers.count)) {
			continue
		}
		for i := e.First; i < e.End(); i++ {
			if c := &p.readers.count[i]; int(*c) >= p.perPiece {
				*c = uint8(p.perPiece - 1)
				p.owed++
				p.lacking.Add(piece.Extent{First: i, Count: 1})
			}
		}
	}
}

// secondCopies leases m up to want pieces that others read as well.
func (p *pool) secondCopies(m *member, want int, now Instant) (extents []piece.Extent) {
	if p.perPiece <= 1 || now < p.from || m.reads.Len() != len(p.readers.count) {
		return nil
	}
	var chosen piece.Extents
	for _, e := range p.lacking.Runs() {
		for i, ok := m.reads.NextUnset(e.First); ok && i < e.End() && chosen.Count() < want; i, ok = m.reads.NextUnset(i + 1) {
			chosen.Add(piece.Extent{First: i, Count: 1})
		}
	}
	return chosen.Runs()
}

// mayTake reports whether m may read something of what v is leased.
func (p *pool) mayTake(m, v *member) bool {
	if m.wanted != nil {
		return slices.ContainsFunc(v.leased.Runs(), m.wantsOf)
	}
	if p.perPiece <= 1 || m.reads.Len() == 0 {
		return true
	}
	for _, e := range v.leased.Runs() {
		if i, ok := m.reads.NextUnset(e.First); ok && i < e.End() {
			return true
		}
	}
	return false
}

// tellReaders tells members how many are to read each piece, and whether so many can.
func (t *Tracker) tellReaders(p *pool, newcomer *member) {
	now := Readers{Wanted: p.perPiece, There: min(p.fetchers, p.perPiece)}
	if now != p.told {
		p.told = now
		t.tellAll(p, now)
	} else if newcomer != nil && p.perPiece > 1 {
		t.tell(p, newcomer, now)
	}
}
