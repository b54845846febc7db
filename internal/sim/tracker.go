package sim

import (
	"math/rand/v2"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// trackerHost is where a tracker runs: the machine of the room's own, or a member that
// has taken its place.
type trackerHost struct {
	up       bool
	returns  bool // will be started again
	machine  *swarm.Tracker
	place    place
	at       *place
	p        *proc            // that has taken the tracker's place; nil: the room's own
	id       piece.NodeID     // of the member; zero: the room's own
	sessions map[int]*session // by member
	armed    swarm.Instant
	lives    int
	before   []*session // of the tracker before, whose members have not noticed yet
}

func (r *run) startTracker() {
	t := &r.tracker
	t.at = &t.place
	r.startHost(t)
}

func (r *run) startHost(t *trackerHost) {
	t.lives++
	t.up = true
	t.machine = swarm.NewTracker(swarm.TrackerOptions{}, rand.New(rand.NewPCG(r.rng.Uint64(), uint64(t.lives))))
	t.sessions = make(map[int]*session)
	t.armed = 0
}

// stop ends a tracker; a silent end is noticed only by and by.
func (t *trackerHost) stop(r *run, silent bool) {
	t.up = false
	t.before = nil
	for _, k := range sorted(t.sessions) {
		s := t.sessions[k]
		s.up.dead = true
		if silent {
			s.down.dead = true
			t.before = append(t.before, s)
			r.later(silence, (*trackerLost)(s))
		} else {
			r.put(&s.down, closed{})
		}
	}
}

// accept takes a session in; an older one of the same member gives way to it.
func (t *trackerHost) accept(r *run, s *session) {
	if old := t.sessions[s.p.m.key]; old != nil {
		old.up.dead = true
		if old.p.m != s.p.m {
			r.mark(Twins)
			r.put(&old.down, closed{})
		}
	}
	t.sessions[s.p.m.key] = s
}

// lose ends a session at the tracker's end.
func (t *trackerHost) lose(r *run, s *session) {
	if !t.up || t.sessions[s.p.m.key] != s {
		return
	}
	s.up.dead = true
	delete(t.sessions, s.p.m.key)
	r.stepTracker(t, swarm.MemberGone{Pool: poolID, Member: s.p.m.id})
}

// sessionLost is the tracker noticing that a member is silent.
type sessionLost session

func (l *sessionLost) happen(r *run) { l.host.lose(r, (*session)(l)) }

// trackerLost is a member noticing that its tracker is silent.
type trackerLost session

func (l *trackerLost) happen(r *run) {
	if s := (*session)(l); !r.held(s.p, l) {
		r.loseTracker(s)
	}
}

func (r *run) stepTracker(t *trackerHost, ev swarm.TrackerEvent) {
	if !t.up || r.err != nil {
		return
	}
	r.result.Steps++
	// Steps of two trackers do not nest, but one may end while its actions are carried
	// out: nothing here calls back into a machine.
	out := r.trackOut[:0]
	if r.clock != nil {
		before := r.clock()
		out = t.machine.Step(r.now, ev, out)
		r.result.TrackerTime += r.clock() - before
		r.result.TrackerSteps++
	} else {
		out = t.machine.Step(r.now, ev, out)
	}
	r.trackOut = out
	r.note(uint64(r.now), 1<<63|uint64(len(out)))
	if r.world.Log != nil {
		r.log("tracker "+t.id.String(), ev, len(out), func(k int) any { return out[k] })
	}
	for _, action := range out {
		switch a := action.(type) {
		case swarm.TellMember:
			s := t.sessions[r.memberOf(a.Member)]
			r.checkToMember(t, a)
			if s != nil {
				r.put(&s.down, a.Message)
				r.embroider(s)
			}
		case swarm.CutMember:
			if s := t.sessions[r.memberOf(a.Member)]; s != nil {
				s.up.dead = true
				delete(t.sessions, s.p.m.key)
				r.put(&s.down, closed{})
				r.mark(MemberCut)
			}
		}
	}
	r.armTracker(t)
}

func (r *run) armTracker(t *trackerHost) {
	at, ok := t.machine.Deadline()
	if !ok {
		return
	}
	at = max(at, r.now, 1)
	if t.armed == 0 || at < t.armed {
		t.armed = at
		r.queue.push(at, &trackerDeadline{t, t.lives})
	}
}

type trackerDeadline struct {
	t    *trackerHost
	life int
}

func (d *trackerDeadline) happen(r *run) {
	t := d.t
	if t.p != nil && r.held(t.p, d) {
		return
	}
	if !t.up || t.lives != d.life || t.armed != r.now {
		return
	}
	t.armed = 0
	if at, ok := t.machine.Deadline(); ok && at <= r.now {
		r.stepTracker(t, nil)
	} else {
		r.armTracker(t)
	}
}

// queueTracker carries out QueueTracker.
func (r *run) queueTracker(p *proc, in time.Duration) {
	s := p.session
	if !p.home(r) {
		r.violate(p, "queues without a session")
		return
	}
	s.open, s.down.dead = false, true
	r.put(&s.up, closed{})
	p.session = nil
	r.later(in, (*redial)(p))
}

// hostTracker carries out HostTracker.
func (r *run) hostTracker(p *proc, on bool) {
	if p.hosted != nil {
		p.hosted.stop(r, false)
		p.hosted = nil
	}
	if on {
		p.hosted = &trackerHost{at: &p.m.place, p: p, id: p.m.id}
		r.startHost(p.hosted)
		r.mark(Hosts)
	}
}

// seekTime is how long a driver tries to open a session with a successor.
const seekTime = time.Second

// seek carries out SeekTracker.
type seek struct {
	p  *proc
	to swarm.PeerAddr
}

func (r *run) seekTracker(p *proc, to swarm.PeerAddr) {
	switch {
	case to.ID == (piece.NodeID{}):
		r.later(dialTrips*r.world.ControlDelay, (*homecoming)(p))
	case r.located(to) == nil || to.Addr == "":
		r.violate(p, "seeks the tracker %v at %q, which is no member", to.ID, to.Addr)
	default:
		r.later(dialTrips*r.world.LANDelay, &seek{p, to})
	}
}

func (k *seek) happen(r *run) {
	p := k.p
	if p.gone || p.home(r) || r.held(p, k) {
		return // or the room's own tracker was reached before
	}
	m := r.located(k.to)
	switch q := m.proc; {
	case m.dark || !r.reaches(&p.m.place, &m.place) || q != nil && q.paused && q != p:
		r.later(seekTime, &missed{p, k.to})
	case q == nil || q.gone || q.hosted == nil:
		r.later(r.world.LANDelay, &missed{p, k.to})
	default:
		if p.session != nil {
			r.mark(Merged)
		}
		r.openSession(p, q.hosted, r.world.LANDelay)
	}
}

type missed seek

func (k *missed) happen(r *run) {
	if !k.p.gone && !k.p.home(r) && !r.held(k.p, k) {
		r.step(k.p, swarm.TrackerMissed{Member: k.to.ID})
	}
}

// homecoming is an early try to reach the room's own tracker.
type homecoming proc

func (h *homecoming) happen(r *run) {
	p := (*proc)(h)
	if !p.gone && !p.home(r) && !r.held(p, h) && r.tracker.up && r.reaches(&p.m.place, r.tracker.at) {
		r.openSession(p, &r.tracker, r.world.ControlDelay)
	}
}
