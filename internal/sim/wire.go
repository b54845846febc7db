package sim

import (
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// Messages travel through pipes: in order, after a delay, held while the network is
// cut. Streams between neighbours and sessions with the tracker are pairs of pipes.

const (
	// silence is after what time without a sign of life a stream or session counts as
	// dead: what the real drivers' pings give.
	silence = 3 * time.Second

	// dialTrips is how many one-way delays pass before a new connection can be used
	// at its far end: TCP and TLS 1.3.
	dialTrips = 3

	firstRedial = 250 * time.Millisecond
	maxRedial   = 5 * time.Second
)

// place is where something is in the network: the number of its member, that of
// members for the tracker.
type place struct{ index int }

// receiver is the far end of a pipe.
type receiver interface{ receive(r *run, msg any) }

// closed is what a receiver gets when the sender has closed the connection or its
// process has gone.
type closed struct{}

// opened is the first thing that the one who dialled receives.
type opened struct{}

type parcel struct {
	at  swarm.Instant
	msg any
}

type pipe struct {
	from, to  *place
	delay     time.Duration
	end       receiver
	owner     *proc // at the receiving end; nil for the tracker's
	control   bool  // from or to the tracker
	queue     []parcel
	head      int
	scheduled bool
	dead      bool
}

func (r *run) put(p *pipe, msg any) {
	if p.dead {
		return
	}
	at := r.now.Add(p.delay + r.extraDelay(p))
	if n := len(p.queue); n > p.head {
		at = max(at, p.queue[n-1].at) // nothing overtakes within a connection
	}
	p.queue = append(p.queue, parcel{at, msg})
	r.pump(p)
}

// pump sees to it that the next parcel of a pipe arrives.
func (r *run) pump(p *pipe) {
	if p.scheduled || p.dead || p.head == len(p.queue) || !r.passes(p.from, p.to) {
		return
	}
	p.scheduled = true
	// Parcels held by a cut arrive a delay after it heals.
	r.queue.push(max(p.queue[p.head].at, r.now), (*arrival)(p))
}

type arrival pipe

func (a *arrival) happen(r *run) {
	p := (*pipe)(a)
	if p.owner != nil && r.held(p.owner, a) {
		return
	}
	p.scheduled = false
	if !r.passes(p.from, p.to) {
		return
	}
	for !p.dead && p.head < len(p.queue) && p.queue[p.head].at <= r.now {
		msg := p.queue[p.head].msg
		p.queue[p.head] = parcel{}
		if p.head++; p.head == len(p.queue) {
			p.queue, p.head = p.queue[:0], 0
		}
		p.end.receive(r, msg)
	}
	r.pump(p)
}

// stream is the connection for haves between two processes; ends[0] dialled.
type stream struct {
	ends [2]streamEnd
}

type streamEnd struct {
	p    *proc
	peer *streamEnd
	in   pipe
	told bool // the Node has had PeerUp and not yet PeerDown
}

// dial is an attempt of p to open a stream.
type dial struct {
	p  *proc
	to *member
}

func (r *run) dial(p *proc, peer swarm.PeerAddr) {
	to := r.located(peer)
	if to == nil || to.key == p.m.key || peer.Addr == "" {
		r.violate(p, "dials %v at %q, which is no other member", peer.ID, peer.Addr)
		return
	}
	r.queue.push(r.now.Add(dialTrips*r.world.LANDelay), &dial{p, to})
}

func (d *dial) happen(r *run) {
	p := d.p
	if p.gone || r.held(p, d) {
		return
	}
	m := d.to
	if !r.reaches(&p.m.place, &m.place) || m.dark || m.proc != nil && m.proc.paused {
		r.later(silence, &peerDown{p, m.id})
		return
	}
	q := m.proc
	if q == nil || q.gone {
		r.later(r.world.LANDelay, &peerDown{p, m.id}) // connection refused
		return
	}
	r.giveWayToTwin(p, q)
	if mine, theirs := p.streams[m.key], q.streams[p.m.key]; mine != nil || theirs != nil {
		if mine == nil || theirs == nil {
			r.later(r.world.LANDelay, &peerDown{p, m.id}) // the old stream is just ending
		}
		return // both dialled at once: the stream that stands is the answer
	}
	s := &stream{}
	for k, end := range []*proc{p, q} {
		e := &s.ends[k]
		e.p, e.peer = end, &s.ends[1-k]
		from := p
		if end == p {
			from = q
		}
		e.in = pipe{from: &from.m.place, to: &end.m.place, delay: r.world.LANDelay, end: e, owner: end}
	}
	p.streams[m.key] = &s.ends[0]
	q.streams[p.m.key] = &s.ends[1]
	r.put(&s.ends[0].in, opened{})
	s.ends[1].told = true
	r.step(q, swarm.PeerUp{Peer: p.m.id, Addr: p.m.addr()})
}

func (e *streamEnd) receive(r *run, msg any) {
	if e.p.gone {
		return
	}
	switch msg := msg.(type) {
	case opened:
		e.told = true
		r.step(e.p, swarm.PeerUp{Peer: e.peer.p.m.id, Addr: e.peer.p.m.addr()})
	case closed:
		r.lose(e)
	case swarm.ToPeer:
		r.deny(e, msg)
		r.step(e.p, swarm.PeerSaid{Peer: e.peer.p.m.id, Message: msg})
	}
}

// lose ends a stream at one end.
func (r *run) lose(e *streamEnd) {
	e.in.dead = true
	e.in.queue = nil
	key := e.peer.p.m.key
	if e.p.gone || e.p.streams[key] != e {
		return
	}
	delete(e.p.streams, key)
	// Without PeerUp before it, this says that a dial has come to nothing.
	e.told = false
	r.step(e.p, swarm.PeerDown{Peer: e.peer.p.m.id})
}

// hangUp closes a stream in good order from one end.
func (r *run) hangUp(p *proc, id piece.NodeID) {
	e := p.streams[r.memberOf(id)]
	if e == nil {
		return
	}
	r.put(&e.peer.in, closed{})
	r.later(0, (*lost)(e))
}

type lost streamEnd

func (l *lost) happen(r *run) {
	if e := (*streamEnd)(l); !r.held(e.p, l) {
		r.lose(e)
	}
}

type peerDown struct {
	p  *proc
	id piece.NodeID
}

func (d *peerDown) happen(r *run) {
	if !r.held(d.p, d) && d.p.streams[r.memberOf(d.id)] == nil {
		r.step(d.p, swarm.PeerDown{Peer: d.id})
	}
}

// session is the connection of one process with the tracker.
type session struct {
	p        *proc
	host     *trackerHost
	up, down pipe
	open     bool // at the member's end
	said     bool // the tracker has had an Announce on it
	answered bool // and the member its Welcome
	saidAt   swarm.Instant
	openedAt swarm.Instant
}

type redial proc

// home reports whether p has a session with the room's own tracker.
func (p *proc) home(r *run) bool { return p.session != nil && p.session.host == &r.tracker }

// happen tries to reach the room's own tracker, and goes on trying.
func (d *redial) happen(r *run) {
	p := (*proc)(d)
	if p.gone || p.home(r) || r.held(p, d) {
		return
	}
	if !r.tracker.up || !r.reaches(&p.m.place, r.tracker.at) {
		p.redials++
		wait := min(firstRedial<<min(p.redials, 8), maxRedial)
		wait += time.Duration(r.rng.Int64N(int64(wait) / 2))
		r.later(wait, d)
		return
	}
	p.redials = 0
	r.openSession(p, &r.tracker, r.world.ControlDelay)
}

// openSession makes a session with a tracker, in place of the one that there is.
func (r *run) openSession(p *proc, t *trackerHost, delay time.Duration) {
	if old := p.session; old != nil {
		old.open, old.down.dead = false, true
		r.put(&old.up, swarm.Leave{Moved: true})
		r.put(&old.up, closed{})
	}
	s := &session{p: p, host: t, open: true, openedAt: r.now}
	s.up = pipe{from: &p.m.place, to: t.at, delay: delay, end: (*sessionTracker)(s), owner: t.p, control: t.p == nil}
	s.down = pipe{from: t.at, to: &p.m.place, delay: delay, end: (*sessionMember)(s), owner: p, control: t.p == nil}
	p.session = s
	t.accept(r, s)
	r.step(p, swarm.TrackerUp{Member: t.id})
}

type (
	sessionTracker session
	sessionMember  session
)

func (e *sessionTracker) receive(r *run, msg any) {
	s := (*session)(e)
	if !s.host.up || s.host.sessions[s.p.m.key] != s {
		return
	}
	switch msg := msg.(type) {
	case closed:
		s.host.lose(r, s)
	case swarm.ToTracker:
		if _, ok := msg.(swarm.Announce); ok {
			s.said, s.saidAt = true, r.now
		}
		if s.host == &r.tracker {
			r.s8Heard(msg)
		}
		r.stepTracker(s.host, swarm.MemberSaid{Pool: poolID, Member: s.p.m.id, Message: msg})
	}
}

func (e *sessionMember) receive(r *run, msg any) {
	s := (*session)(e)
	if s.p.gone || !s.open {
		return
	}
	switch msg := msg.(type) {
	case closed:
		r.loseTracker(s)
	case swarm.ToNode:
		s.answered = true
		if hold, ok := msg.(swarm.Hold); ok {
			s.p.beQuiet(r.now, hold.Source, hold.For)
		}
		r.step(s.p, swarm.TrackerSaid{Message: msg})
	}
}

// loseTracker ends a session at the member's end.
func (r *run) loseTracker(s *session) {
	if !s.open || s.p.gone {
		return
	}
	s.open = false
	s.up.dead, s.down.dead = true, true
	s.p.session = nil
	if s.host == &r.tracker {
		r.mark(TrackerAway)
		wait := s.p.again(r, s)
		r.later(wait+time.Duration(r.rng.Int64N(int64(wait))), (*redial)(s.p))
	} else {
		r.mark(HostLost)
	}
	r.step(s.p, swarm.TrackerDown{})
}
