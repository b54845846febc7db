package sim

import (
	"fmt"
	"time"

	"dragonload/internal/swarm"
)

// Twins: two machines with one key, as it is when one was cloned from the other. Nobody can
// tell them apart but by where they are reached. A tracker and every neighbour have one
// session or stream with a key, and who comes last takes the place of the other; twins do
// not meet each other at all. Both are honest, and both want the file.

// pairTwins gives twins their key.
func (r *run) pairTwins() {
	for _, m := range r.members {
		if m.Twin > 0 {
			of := r.members[m.Twin-1]
			m.id, m.key = of.id, of.key
		}
	}
}

// twinAddr is where a twin is reached, with its number.
const twinAddr = "twin-%d:4100"

// addr is where a member is reached.
func (m *member) addr() string {
	if m.Twin > 0 {
		return fmt.Sprintf(twinAddr, m.index)
	}
	return simAddr
}

// located returns the member that is reached by an address, nil if there is none.
func (r *run) located(a swarm.PeerAddr) *member {
	k := r.memberOf(a.ID)
	if k < 0 {
		return nil
	}
	if twin := -1; a.Addr != simAddr {
		if _, err := fmt.Sscanf(a.Addr, twinAddr, &twin); err == nil && twin >= 0 && twin < len(r.members) {
			k = twin
		}
	}
	return r.members[k]
}

// reached returns the one of the members with a key with which a process has a stream.
func (r *run) reached(p *proc, key int) *member {
	if e := p.streams[key]; e != nil {
		return e.peer.p.m
	}
	return r.members[key]
}

// giveWayToTwin ends the stream that q has with the twin of p, which dials q.
func (r *run) giveWayToTwin(p, q *proc) {
	if e := q.streams[p.m.key]; e != nil && e.peer.p.m != p.m {
		r.mark(Twins)
		r.put(&e.peer.in, closed{})
		r.lose(e)
	}
}

// again is how long a process waits before it seeks the tracker once more. A session that
// has not lasted long makes it wait longer each time.
func (p *proc) again(r *run, s *session) time.Duration {
	if r.now.Sub(s.openedAt) >= maxRedial {
		p.brief = 0
	}
	wait := min(firstRedial<<min(p.brief, 8), maxRedial)
	p.brief++
	return wait
}
