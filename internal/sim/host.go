package sim

import (
	"time"

	"dragonload/internal/swarm"
)

// What goes wrong on a member's machine: its process stands still, its clock runs
// wrong, its disk fails.

// clock is what a process takes for the time.
type clock struct {
	base, since swarm.Instant // it showed base when it was since
	drift       int64         // parts in a million
	stopped     bool
}

// startClock gives a process a clock: one that runs wrong also begins elsewhere.
func (m *member) startClock(now swarm.Instant) clock {
	c := clock{base: now, since: now, drift: m.Drift}
	if c.drift != 0 {
		c.base = now.Add(time.Duration(m.index+1) * 17 * time.Minute)
	}
	return c
}

func (c *clock) read(now swarm.Instant) swarm.Instant {
	if c.stopped {
		return c.base
	}
	d := now - c.since
	return c.base + d + d*swarm.Instant(c.drift)/1_000_000
}

// when returns the true time at which the clock shows at, or a later time.
func (c *clock) when(at swarm.Instant) (swarm.Instant, bool) {
	switch {
	case c.stopped:
		return 0, false
	case at <= c.base:
		return c.since, true
	case c.drift == 0:
		return c.since + at - c.base, true
	}
	d, rate := at-c.base, swarm.Instant(1_000_000+c.drift)
	now := c.since + d/rate*1_000_000 + d%rate*1_000_000/rate
	for c.read(now) < at {
		now++
	}
	return now, true
}

// set makes the clock go on from where it is.
func (c *clock) set(now swarm.Instant) { c.base, c.since = c.read(now), now }

func (r *run) disturbClock(m *member, f *Fault) {
	p := m.proc
	if p == nil || p.gone {
		return
	}
	r.mark(ClockWrong)
	r.budget.separated(r)
	p.clock.set(r.now)
	p.quiet = [servers]swarm.Instant{} // it cannot tell any more when the origin's pause is over
	p.wrongClock = true
	if f.Kind == ClockJumps {
		p.clock.base = max(p.clock.base.Add(f.Leap), 1)
		r.arm(p)
		return
	}
	p.clock.stopped = true
	r.later(f.For, (*clockGoes)(p))
}

type clockGoes proc

func (c *clockGoes) happen(r *run) {
	p := (*proc)(c)
	if p.clock.stopped {
		p.clock.stopped, p.clock.since = false, r.now
		if !p.gone && !p.paused {
			r.arm(p)
		}
	}
}

// pause makes a process stand still: what happens to it waits.
func (r *run) pause(m *member, f *Fault) {
	p := m.proc
	if p == nil || p.gone || p.paused {
		return
	}
	p.paused = true
	r.budget.separated(r)
	r.later(silence, (*unheard)(p))
	if f.For > 0 {
		r.later(f.For, (*wake)(p))
	}
}

// held keeps what happens to a process that stands still for later.
func (r *run) held(p *proc, what happening) bool {
	if p.paused && !p.gone {
		p.waiting = append(p.waiting, what)
	}
	return p.paused
}

// unheard is the others noticing that a process is silent.
type unheard proc

func (u *unheard) happen(r *run) {
	p := (*proc)(u)
	if p.gone || !p.paused {
		return
	}
	r.mark(PausedLong)
	for _, k := range sorted(p.streams) {
		r.later(r.jitter(time.Second), (*lost)(p.streams[k].peer))
	}
	if s := p.session; s != nil {
		r.later(r.jitter(time.Second), (*sessionLost)(s))
	}
	if p.hosted != nil {
		for _, k := range sorted(p.hosted.sessions) {
			if s := p.hosted.sessions[k]; s.p != p {
				r.later(r.jitter(time.Second), (*trackerLost)(s))
			}
		}
	}
}

// wake lets a process go on that stood still. Its connections tell it then that they
// are no more.
type wake proc

func (w *wake) happen(r *run) {
	p := (*proc)(w)
	if !p.paused {
		return
	}
	p.paused = false
	if p.gone {
		return
	}
	for _, what := range p.waiting {
		r.later(0, what)
	}
	p.waiting = nil
	for _, k := range sorted(p.streams) {
		if e := p.streams[k]; e.peer.p.streams[p.m.key] != e.peer {
			r.later(0, (*lost)(e))
		}
	}
	if s := p.session; s != nil && s.host.sessions[p.m.key] != s {
		r.later(0, (*trackerLost)(s))
	}
	r.unpark()
	p.armed = 0
	r.arm(p)
}

// breakDisk makes the next write, or the next sync, fail: the download ends.
func (r *run) breakDisk(m *member, f *Fault) {
	p := m.proc
	if p == nil || p.gone || p.paused || m.whole {
		return
	}
	if f.Kind == SyncFails {
		r.abort(p, f)
		return
	}
	m.disk.full = f
}

// abort ends a download whose disk has failed. What was not synced is lost.
func (r *run) abort(p *proc, f *Fault) {
	m := p.m
	if p.gone || m.whole {
		return
	}
	r.mark(DiskFailed)
	p.aborted = true
	m.disk.full = nil
	r.step(p, swarm.Stopping{})
	if f.Kind == SyncFails {
		m.disk.crash(r, f)
	}
	if f.For > 0 {
		r.later(f.For, (*boot)(m))
	} else {
		r.done(m)
	}
}

type aborting struct {
	p *proc
	f *Fault
}

func (a *aborting) happen(r *run) {
	if !r.held(a.p, a) {
		r.abort(a.p, a.f)
	}
}

// flip changes a stored piece behind the process's back.
func (r *run) flip(m *member) {
	d := &m.disk
	if !d.set || m.whole && !m.Holds || d.have.Count() == 0 {
		return
	}
	i, ok := d.have.Next(uint32(r.rng.IntN(d.have.Len())))
	if !ok {
		i, _ = d.have.Next(0)
	}
	d.flipped = append(d.flipped, i)
}

// readBack reads pieces from the disk: those that are not what was written are told
// to the process, which drops them.
func (r *run) readBack(p *proc, all bool, wanted []uint32) (fine bool) {
	fine = true
	d := &p.m.disk
	for k := 0; k < len(d.flipped); {
		i := d.flipped[k]
		asked := all
		for _, w := range wanted {
			asked = asked || w == i
		}
		if !asked {
			k++
			continue
		}
		d.flipped = append(d.flipped[:k], d.flipped[k+1:]...)
		if d.have.Has(i) {
			fine = false
			r.mark(FlipFound)
			r.later(0, &unreadable{p, i})
		}
	}
	return fine
}

type unreadable struct {
	p *proc
	i uint32
}

func (u *unreadable) happen(r *run) {
	if u.p.gone || r.held(u.p, u) {
		return
	}
	u.p.m.flipFound = true
	r.step(u.p, swarm.Unreadable{Piece: u.i})
	if u.p.m.disk.have.Has(u.i) && !u.p.gone {
		r.violate(u.p, "keeps piece %d, which cannot be read", u.i)
	}
}
