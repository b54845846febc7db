package sim

import (
	"math"
	"slices"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// What stands in the way of messages: partitions, one-way ones, clogged links; and
// connections that break. Several at a time make a swizzle: members that drop out one
// by one and come back in another order.

// cut is a fault of the network in force.
type cut struct {
	*Fault
	over bool
}

// blocks reports whether a cut holds back what goes from one place to another.
func (c *cut) blocks(from, to int) bool {
	switch c.Kind {
	case OneWay:
		return c.Sides.Has(uint32(from)) && !c.Sides.Has(uint32(to))
	case Clog:
		return from == c.Member && to == c.Other || from == c.Other && to == c.Member
	default:
		return c.Sides.Has(uint32(from)) != c.Sides.Has(uint32(to))
	}
}

// passes reports whether what a sends arrives at b.
func (r *run) passes(a, b *place) bool {
	for _, c := range r.cuts {
		if c.blocks(a.index, b.index) {
			return false
		}
	}
	return true
}

// reaches reports whether a and b can talk: connections need both directions.
func (r *run) reaches(a, b *place) bool {
	return len(r.cuts) == 0 || r.passes(a, b) && r.passes(b, a)
}

// extraDelay is what a message takes beyond the delay of its pipe.
func (r *run) extraDelay(p *pipe) (d time.Duration) {
	if j := r.world.Jitter; j > 0 {
		d = time.Duration(-math.Log(1-r.rng.Float64()) * float64(j))
	}
	if p.control && r.now < r.slowTill {
		d += r.slowBy
	}
	return d
}

// cut begins one.
func (r *run) cut(f *Fault) {
	c := &cut{Fault: f}
	r.cuts = append(r.cuts, c)
	r.budget.partitioned(r, c)
	r.later(silence, &severed{c})
	if f.For > 0 {
		r.later(f.For, &healed{c})
	}
}

// severed breaks what has been silent since a cut began.
type severed struct{ c *cut }

func (s *severed) happen(r *run) {
	if s.c.over {
		return // healed in time: nothing has broken
	}
	r.mark(Severed)
	r.later(silence, loneliness{})
	for _, m := range r.members {
		p := m.proc
		if p == nil || p.gone {
			continue
		}
		for _, k := range sorted(p.streams) {
			if e := p.streams[k]; e != nil && !r.reaches(&m.place, &e.peer.p.m.place) {
				r.later(r.jitter(time.Second), (*lost)(e))
				r.later(r.jitter(time.Second), (*lost)(e.peer))
			}
		}
		if s := p.session; s != nil && !r.reaches(&m.place, s.host.at) {
			r.later(r.jitter(time.Second), (*trackerLost)(s))
			r.later(r.jitter(time.Second), (*sessionLost)(s))
		}
	}
}

// healed ends a cut.
type healed struct{ c *cut }

func (h *healed) happen(r *run) {
	h.c.over = true
	r.cuts = slices.DeleteFunc(r.cuts, func(c *cut) bool { return c == h.c })
	r.unpark()
	for _, m := range r.members {
		p := m.proc
		if p == nil || p.gone {
			continue
		}
		for _, k := range sorted(p.streams) {
			r.pump(&p.streams[k].in)
		}
		if s := p.session; s != nil {
			r.pump(&s.up)
			r.pump(&s.down)
		}
	}
}

// unpark lets flows go on; those that still cannot park again.
func (r *run) unpark() {
	parked := r.parked
	r.parked = nil
	for _, f := range parked {
		f.parked = false
		r.offer(f)
	}
}

// disconnect breaks all connections of a member. When they are half-open, the other
// ends notice by the silence alone.
func (r *run) disconnect(m *member, halfOpen bool) {
	p := m.proc
	if p == nil || p.gone || p.paused {
		return
	}
	r.mark(Disconnected)
	r.budget.separated(r)
	after := func() swarm.Instant {
		if halfOpen {
			return r.now.Add(silence + r.jitter(time.Second))
		}
		return r.now.Add(r.world.LANDelay)
	}
	for _, k := range sorted(p.streams) {
		e := p.streams[k]
		e.in.dead, e.peer.in.dead = true, true
		r.later(0, (*lost)(e))
		r.queue.push(after(), (*lost)(e.peer))
	}
	for _, req := range sorted(p.fetches) {
		p.fetches[req].finish(r, true, 0)
	}
	for _, req := range sorted(p.asked) {
		p.asked[req].finish(r, true, r.world.LANDelay)
	}
	if s := p.session; s != nil && s.host.p != p {
		s.up.dead, s.down.dead = true, true
		r.later(0, (*trackerLost)(s))
		r.queue.push(after(), (*sessionLost)(s))
	}
	if p.hosted != nil {
		for _, k := range sorted(p.hosted.sessions) {
			if s := p.hosted.sessions[k]; s.p != p {
				s.up.dead, s.down.dead = true, true
				r.later(0, (*sessionLost)(s))
				r.queue.push(after(), (*trackerLost)(s))
			}
		}
	}
}

// slowTracker makes messages from and to the tracker late.
func (r *run) slowTracker(f *Fault) {
	r.slowTill, r.slowBy = max(r.slowTill, r.now.Add(f.For)), f.Wait
	r.budget.separated(r)
}

// forgetful empties the tracker, but for its sessions.
func (r *run) forgetful() {
	if t := &r.tracker; t.up {
		r.budget.trackerDied(r)
		r.heldTill = [servers]swarm.Instant{}
		sessions := t.sessions
		r.startTracker()
		t.sessions = sessions
	}
}

// lie makes the tracker order things that make no sense, until another takes its place.
func (r *run) lie(f *Fault) {
	if r.tracker.up {
		r.liesTill = r.now.Add(f.For)
		r.later(f.For, honestAgain{})
	}
}

// embroider adds something to what a tracker has said, while it lies.
func (r *run) embroider(s *session) {
	if r.now >= r.liesTill || r.rng.IntN(4) > 0 || !s.p.m.disk.set || s.p.m.disk.have.Len() == 0 {
		return
	}
	r.mark(TrackerLied)
	count := s.p.m.disk.have.Len()
	e := piece.Extent{First: uint32(r.rng.IntN(count))}
	e.Count = uint32(1 + r.rng.IntN(min(count-int(e.First), 16)))
	switch r.rng.IntN(5) {
	case 0: // what it has, or others have or fetch
		r.budget.allowPieces(int64(e.Count))
		r.put(&s.down, swarm.Lease{Extents: []piece.Extent{e}})
	case 1:
		r.budget.allowPieces(int64(e.Count))
		r.put(&s.down, swarm.Drop{Extents: []piece.Extent{e}})
	case 2:
		r.put(&s.down, swarm.Revoke{Pieces: e.Count})
	case 3:
		r.put(&s.down, swarm.Complete{})
	case 4:
		r.put(&s.down, swarm.Welcome{Number: 1 << 31, Interval: 1000 * time.Hour})
	}
}

type honestAgain struct{}

func (honestAgain) happen(r *run) {
	if t := &r.tracker; t.up && r.now >= r.liesTill {
		r.budget.trackerDied(r)
		r.heldTill = [servers]swarm.Instant{}
		for _, k := range sorted(t.sessions) {
			s := t.sessions[k]
			s.up.dead = true
			r.put(&s.down, closed{})
		}
		r.startTracker()
	}
}
