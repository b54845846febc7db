package sim

import (
	"slices"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// Members that cheat. The Node of one is that of everybody; its driver says and does
// something else than the Node decides.

// cheats reports whether a member is one that honest ones must bear with.
func (m *Member) cheats() bool {
	return m.LiesOneIn > 0 || m.Withholds || m.Freeloads || m.Floods || m.Replays || m.Forgery > 0 || m.Equivocates || m.Returns
}

// toTracker is what a member makes of a message that its Node has for the tracker.
func (r *run) toTracker(p *proc, msg swarm.ToTracker) swarm.ToTracker {
	if !p.m.cheats() {
		r.checkToTracker(p, msg)
	}
	if !p.m.Withholds || !p.m.disk.set {
		return msg
	}
	switch m := msg.(type) {
	case swarm.Announce:
		m.Have = everything(m.Have.Len())
		return m
	case swarm.Report:
		m.Stored, m.Whole = []piece.Extent{p.m.disk.pin.Layout().All()}, true
		if p.m.disk.have.Len() == 0 {
			m.Stored = nil
		}
		return m
	}
	return msg
}

func everything(n int) piece.Bitfield {
	b := piece.NewBitfield(n)
	for i := range piece.Index(n) {
		b.Set(i)
	}
	return b
}

// toPeer is what a member makes of a message that its Node has for a neighbour; nil if
// that gets nothing.
func (r *run) toPeer(p *proc, to *member, msg swarm.ToPeer) swarm.ToPeer {
	if !p.m.cheats() {
		r.checkToPeer(p, msg)
		return msg
	}
	switch m := msg.(type) {
	case swarm.Holds:
		switch {
		case p.m.Withholds:
			m.Have = everything(m.Have.Len())
		case p.m.Freeloads:
			m.Have = piece.NewBitfield(m.Have.Len())
		}
		msg = m
	case swarm.Haves:
		if p.m.Freeloads {
			return nil
		}
	case swarm.Statement:
		if m.By == p.m.id {
			msg = r.forged(p, to, m)
		}
	}
	if p.m.Replays {
		p.said = append(p.said[max(0, len(p.said)-maxSaid+1):], msg)
	}
	return msg
}

// maxSaid bounds what a replayer keeps.
const maxSaid = 64

// forged is a statement of a member that vouches for bytes which the origin never gave.
func (r *run) forged(p *proc, to *member, s swarm.Statement) swarm.Statement {
	s.Digests = slices.Clone(s.Digests)
	for k, i := range s.Pieces {
		switch {
		case p.m.forges(i):
			s.Digests[k] = variant(s.Digests[k], p.m.forgery())
			r.mark(Forged)
		case p.m.Equivocates && to.index%2 == 1:
			s.Digests[k] = variant(s.Digests[k], equivocation)
			r.mark(Equivocated)
		}
	}
	return s
}

// Variants of a piece: what differs from the bytes of the version in question has a
// number of its own. Those who collude forge alike.
const (
	equivocation = uint8(254)
	otherFace    = uint8(255)
)

// variant is the digest of a variant of a piece.
func variant(d piece.Digest, v uint8) piece.Digest {
	if v != 0 {
		d[1], d[2] = d[1]^v, d[2]^0xff
	}
	return d
}

// collude reports whether two members vouch for the same false bytes, or one stands by them
// whatever it is told: to who cannot look itself that is as good as an origin with two faces
// (ADR 10).
func (w *World) collude() bool {
	forged := make(map[int]bool)
	for i := range w.Members {
		f := w.Members[i].Forgery
		if f > 0 && (forged[f] || w.Members[i].Denies) {
			return true
		}
		forged[f] = true
	}
	return false
}

// forgery is the variant that a member forges.
func (m *Member) forgery() uint8 { return uint8(min(m.Forgery, 200)) }

// forges reports whether a member gives false bytes for a piece, and vouches for them.
// Colluders choose alike.
func (m *Member) forges(i piece.Index) bool {
	return m.Forgery > 0 && (uint64(i)*0x9e3779b97f4a7c15^uint64(m.Forgery)*0xbf58476d1ce4e5b9)>>33%uint64(max(m.LiesEvery, 1)) == 0
}

// serves is the variant of a piece that a member sends.
func (m *member) serves(i piece.Index) uint8 {
	if m.forges(i) {
		return m.forgery()
	}
	return m.disk.variants[i]
}

// neglects lets a request of a neighbour go unanswered, or turns it down, at a member
// that does not share.
func (r *run) neglects(m *member, f *fetch) bool {
	switch {
	case m.Withholds:
		r.mark(Withheld)
		return true // the asker finds out by waiting
	case m.Freeloads:
		f.finish(r, true, r.world.LANDelay)
		return true
	}
	return false
}

// mischief is what a cheat does of its own accord, several times a second.
type mischief proc

const mischiefEvery = 200 * time.Millisecond

func (c *mischief) happen(r *run) {
	p := (*proc)(c)
	if p.gone || r.waiting == 0 {
		return
	}
	if !p.paused && p.m.disk.set && len(p.streams) > 0 {
		switch {
		case p.m.Floods:
			r.flood(p)
		case p.m.Replays:
			r.replay(p)
		case p.m.Denies:
			r.insist(p)
		}
		if p.m.Returns && r.rng.IntN(5) == 0 {
			r.breakOff(p)
		}
	}
	r.later(mischiefEvery, c)
}

func (r *run) neighbourOf(p *proc) *streamEnd {
	all := sorted(p.streams)
	return p.streams[all[r.rng.IntN(len(all))]]
}

// replay says again what was said before, to whomever.
func (r *run) replay(p *proc) {
	if len(p.said) > 0 {
		e := r.neighbourOf(p)
		if e.told {
			r.mark(Replayed)
			r.put(&e.peer.in, p.said[r.rng.IntN(len(p.said))])
		}
	}
}

// insist says again what a liar holds, to be asked for it.
func (r *run) insist(p *proc) {
	if e := r.neighbourOf(p); e.told {
		r.put(&e.peer.in, swarm.Haves{Extents: []piece.Extent{{Count: uint32(p.m.disk.have.Len())}}})
	}
}

// deny answers an accusation of a liar with one of its own, as an honest member does to
// whom the origin has shown another face.
func (r *run) deny(e *streamEnd, msg any) {
	if a, ok := msg.(swarm.Accuse); ok && e.p.m.Denies && a.Accused.By == e.p.m.id && a.Accuser.By != e.p.m.id {
		r.mark(Denied)
		r.put(&e.peer.in, swarm.Accuse{Piece: a.Piece, Accused: a.Accuser, Accuser: a.Accused})
	}
}

// breakOff ends a stream; the member dials again.
func (r *run) breakOff(p *proc) {
	e := r.neighbourOf(p)
	r.mark(BrokenOff)
	r.put(&e.peer.in, closed{})
	r.later(0, (*lost)(e))
}

// flood says and asks far too much.
func (r *run) flood(p *proc) {
	e := r.neighbourOf(p)
	count := p.m.disk.have.Len()
	if !e.told || count == 0 {
		return
	}
	r.mark(Flooded)
	all := []piece.Extent{{Count: uint32(count)}}
	for range 10 {
		for _, msg := range []swarm.ToPeer{swarm.AskStatements{Extents: all}, swarm.Claim{Extents: all}, swarm.Relay{Extents: all},
			swarm.Haves{Extents: []piece.Extent{{First: piece.MaxCount - 1, Count: 1}}}} {
			r.put(&e.peer.in, msg)
		}
		r.floodAsk(p, e.peer.p.m, piece.Index(r.rng.IntN(count)))
	}
	if s := p.session; s != nil {
		for range 10 {
			r.put(&s.up, swarm.Report{Rate: 1 << 62, Moved: 1 << 62, Unasked: 1 << 31, WantPeers: true})
		}
	}
}

// floodAsk asks for a piece that the asker may well have, and does not wait.
func (r *run) floodAsk(p *proc, to *member, i piece.Index) {
	f := &fetch{asker: p, to: to, pieces: []piece.Index{i}, digests: make([]piece.Digest, 1), breakAt: -1}
	r.watch.add(r, f)
	r.later(r.world.LANDelay, f)
}
