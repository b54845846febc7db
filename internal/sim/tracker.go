package sim

import (
	"math/rand/v2"

	"dragonload/internal/swarm"
)

// trackerHost is the machine of the room's tracker.
type trackerHost struct {
	up       bool
	returns  bool // will be started again
	machine  *swarm.Tracker
	place    place
	sessions map[int]*session // by member
	armed    swarm.Instant
	lives    int
	before   []*session // of the tracker before, whose members have not noticed yet
}

func (r *run) startTracker() {
	t := &r.tracker
	t.lives++
	t.up = true
	t.machine = swarm.NewTracker(swarm.TrackerOptions{}, rand.New(rand.NewPCG(r.rng.Uint64(), uint64(t.lives))))
	t.sessions = make(map[int]*session)
	t.armed = 0
}

// accept takes a session in; an older one of the same member gives way to it.
func (t *trackerHost) accept(s *session) {
	if old := t.sessions[s.p.m.index]; old != nil {
		old.up.dead = true
	}
	t.sessions[s.p.m.index] = s
}

// lose ends a session at the tracker's end.
func (t *trackerHost) lose(r *run, s *session) {
	if !t.up || t.sessions[s.p.m.index] != s {
		return
	}
	s.up.dead = true
	delete(t.sessions, s.p.m.index)
	r.stepTracker(swarm.MemberGone{Pool: poolID, Member: s.p.m.id})
}

// sessionLost is the tracker noticing that a member is silent.
type sessionLost session

func (l *sessionLost) happen(r *run) { r.tracker.lose(r, (*session)(l)) }

// trackerLost is a member noticing that its tracker is silent.
type trackerLost session

func (l *trackerLost) happen(r *run) {
	if s := (*session)(l); !r.held(s.p, l) {
		r.loseTracker(s)
	}
}

func (r *run) stepTracker(ev swarm.TrackerEvent) {
	t := &r.tracker
	if !t.up || r.err != nil {
		return
	}
	r.result.Steps++
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
		r.log("tracker", ev, len(out), func(k int) any { return out[k] })
	}
	for _, action := range out {
		switch a := action.(type) {
		case swarm.TellMember:
			s := t.sessions[r.memberOf(a.Member)]
			r.checkToMember(a)
			if s != nil {
				r.put(&s.down, a.Message)
			}
		case swarm.CutMember:
			if s := t.sessions[r.memberOf(a.Member)]; s != nil {
				s.up.dead = true
				delete(t.sessions, s.p.m.index)
				r.put(&s.down, closed{})
				r.mark(MemberCut)
			}
		}
	}
	r.armTracker()
}

func (r *run) armTracker() {
	t := &r.tracker
	at, ok := t.machine.Deadline()
	if !ok {
		return
	}
	at = max(at, r.now, 1)
	if t.armed == 0 || at < t.armed {
		t.armed = at
		r.queue.push(at, &trackerDeadline{t.lives})
	}
}

type trackerDeadline struct{ life int }

func (d *trackerDeadline) happen(r *run) {
	t := &r.tracker
	if !t.up || t.lives != d.life || t.armed != r.now {
		return
	}
	t.armed = 0
	if at, ok := t.machine.Deadline(); ok && at <= r.now {
		r.stepTracker(nil)
	} else {
		r.armTracker()
	}
}
