package sim

import (
	"time"

	"dragonload/internal/swarm"
)

// Carrying out what goes wrong in a world.

func (f *Fault) happen(r *run) {
	var m *member
	if f.Member < len(r.members) {
		m = r.members[f.Member]
	}
	r.result.Faults[f.Kind]++
	r.tell("%s", f.describe(r.world))
	r.note(uint64(f.Kind), uint64(f.Member))
	switch f.Kind {
	case Leave:
		r.stop(m)
	case Kill, Wipe, Stale:
		if f.Midway {
			m.dying = f
		} else {
			r.kill(m, f)
		}
	case Damage:
		r.damage(m)
	case SlowLine:
		r.slow(&m.wan, f)
	case SlowLAN:
		r.slow(&m.lanUp, f)
		r.slow(&m.lanDown, f)
	case Partition, OneWay, Clog:
		r.cut(f)
	case Reset, HalfOpen:
		r.disconnect(m, f.Kind == HalfOpen)
	case Pause:
		r.pause(m, f)
	case ClockJumps, ClockStops:
		r.disturbClock(m, f)
	case DiskFull, SyncFails:
		r.breakDisk(m, f)
	case BitFlip:
		r.flip(m)
	case ShareChanges:
		r.changeShare(m)
	case TrackerSlow:
		r.slowTracker(f)
	case TrackerLies:
		r.lie(f)
	case TrackerForgets:
		r.forgetful()
	case TrackerDies:
		r.killTracker(f)
	case HostDies:
		r.killHost(f)
	case OriginBusy:
		r.origin.rests[serverOf(f.Mirror)] = resting{r.now.Add(f.For), f.Wait}
	case OriginResets:
		for _, l := range r.origin.pulls {
			if !l.over && l.answered {
				l.endLater(r, l.p.m.WANDelay, swarm.OriginEnded{Failure: swarm.Passing, Busy: true})
			}
		}
	case OriginChanges:
		r.origin.current = r.origin.version(r)
		r.budget.changed(r)
	default:
		r.origin.misbehave(r, f)
	}
}

// kill ends the process of a member, if there is one that has something to do.
func (r *run) kill(m *member, f *Fault) (killed bool) {
	p := m.proc
	if p == nil || p.gone || m.whole && !m.Holds {
		return false // not there yet, or its file has its name: there is nothing to come back for
	}
	r.endProcess(p, f.Silent)
	m.dark = f.Silent
	m.disk.crash(r, f)
	m.whole = false
	if f.For > 0 {
		r.later(f.For, (*boot)(m))
	} else {
		r.done(m)
	}
	return true
}

// damage makes one stored piece unreadable, if the member has one.
func (r *run) damage(m *member) {
	if p := m.proc; p == nil || p.gone || p.paused || m.whole && !m.Holds || !m.disk.set || m.disk.have.Count() == 0 {
		return
	}
	m.flipFound = m.flipFound || m.Holds
	n := m.disk.have.Len()
	i, ok := m.disk.have.Next(uint32(r.rng.IntN(n)))
	if !ok {
		i, _ = m.disk.have.Next(0)
	}
	// The driver drops it by itself; the Node's Forget confirms.
	r.step(m.proc, swarm.Unreadable{Piece: i})
	if m.disk.have.Has(i) && !m.whole && !m.proc.gone {
		r.violate(m.proc, "keeps piece %d, which cannot be read", i)
	}
}

func (r *run) slow(l *line, f *Fault) {
	if l.slowed++; l.slowed > 1 {
		return // one at a time: rates come back to what they were
	}
	old := l.rate
	l.setRate(r.now, max(old/max(f.Factor, 1), 1024))
	r.later(f.For, &restored{l, old})
	r.budget.allowPieces(8)
}

type restored struct {
	l    *line
	rate int64
}

func (e *restored) happen(r *run) {
	e.l.slowed = 0
	e.l.setRate(r.now, e.rate)
}

// setRate changes a line's rate. What waits at its receiving end goes on at the new
// one; a chunk that is being sent keeps its time.
func (l *line) setRate(now swarm.Instant, rate int64) {
	if l.free > now {
		waiting := float64(l.free-now) * float64(l.rate) / float64(rate)
		l.free = now.Add(time.Duration(waiting))
	}
	l.rate = rate
}

func (r *run) jitter(d time.Duration) time.Duration { return time.Duration(r.rng.Int64N(int64(d))) }

// chance is true so many times in a million.
func (r *run) chance(perMillion int) bool {
	return perMillion > 0 && r.now < swarm.Instant(r.world.QuietFrom) && r.rng.IntN(1_000_000) < perMillion
}

func (r *run) killTracker(f *Fault) {
	t := &r.tracker
	if !t.up {
		return
	}
	t.returns = f.For > 0
	t.stop(r, f.Silent)
	r.budget.trackerDied(r)
	r.heldTill = [servers]swarm.Instant{} // what it had heard of a pause is gone with it
	for _, m := range r.members {
		if !t.returns && !m.able() && m.proc != nil && !m.proc.gone && !m.disk.set {
			r.done(m) // nobody can tell it what the file is
		}
	}
	if f.For > 0 {
		r.later(f.For, (*trackerBoot)(t))
	}
}

// killHost ends the member that is tracker at the time.
func (r *run) killHost(f *Fault) {
	for _, m := range r.members {
		p := m.proc
		if p == nil || p.gone || p.hosted == nil {
			continue
		}
		if m.whole {
			r.endProcess(p, f.Silent) // it had what it wanted
			m.dark = f.Silent
			return
		}
		r.kill(m, f)
		return
	}
}

type trackerBoot trackerHost

func (b *trackerBoot) happen(r *run) {
	r.startTracker()
	// Who has not noticed yet is told by a reset when it reports the next time.
	for _, s := range b.before {
		if s.open && !s.p.gone {
			r.later(r.jitter(time.Second), (*trackerLost)(s))
			r.budget.allow(min(r.world.Size, s.p.m.wan.rate*2)) // a newcomer begins the pool anew meanwhile
		}
	}
	b.before = nil
}
