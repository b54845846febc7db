package tracker

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"dragonload/internal/room"
	"dragonload/internal/rpc"
	"dragonload/internal/swarm"
)

// presence counts what members have open here: their connections, which bound the rest
// and say who is online, and their sessions.
type presence struct {
	mu       sync.Mutex
	stopping bool
	members  map[member]*present
	conns    map[net.Conn]member
	sessions map[*session]member
	work     sync.WaitGroup // one for each of sessions
}

type present struct {
	conns, sessions int
	lastSeen        time.Time // when the last connection ended
	introduced      bool      // State has its number and name

	allowance *rate.Limiter // of what its calls cost the catalogue; nil: nothing was spent

	// paces are those of what it says about pools, which outlive its sessions: who opens one
	// anew goes on at the pace that it has reached.
	paces map[swarm.PoolID]*rate.Limiter
}

func newPresence() *presence {
	return &presence{
		members:  make(map[member]*present),
		conns:    make(map[net.Conn]member),
		sessions: make(map[*session]member),
	}
}

// of returns the entry of a member, made if need be. p.mu is held.
func (p *presence) of(m member) *present {
	e := p.members[m]
	if e == nil {
		e = &present{}
		p.members[m] = e
	}
	return e
}

// pace returns the pace of what a member says about a pool.
func (p *presence) pace(m member, pool swarm.PoolID, o *Options) *rate.Limiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.of(m)
	if limit := e.paces[pool]; limit != nil {
		return limit
	}
	if len(e.paces) >= o.MaxSessions {
		for other, limit := range e.paces {
			if limit.Tokens() >= float64(o.Burst) {
				delete(e.paces, other) // it bounds nothing now
			}
		}
	}
	if e.paces == nil {
		e.paces = make(map[swarm.PoolID]*rate.Limiter)
	}
	limit := rate.NewLimiter(rate.Limit(o.Rate), o.Burst)
	e.paces[pool] = limit
	return limit
}

func (p *presence) isNew(m member) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.members[m]
	return e == nil || !e.introduced
}

func (p *presence) introduced(m member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(m).introduced = true
}

// connect counts a connection, unless its member has limit of them.
func (p *presence) connect(c net.Conn, m member, limit int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.of(m)
	if e.conns >= limit {
		return false
	}
	e.conns++
	p.conns[c] = m
	return true
}

// disconnect counts the end of a connection, and reports whether it was its member's last.
func (p *presence) disconnect(c net.Conn, now time.Time) (m member, last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m, ok := p.conns[c]
	if !ok {
		return m, false
	}
	delete(p.conns, c)
	e := p.members[m]
	e.conns--
	e.lastSeen = now
	return m, e.conns == 0
}

// open lets a session in, unless its member has limit of them or the service stops.
func (p *presence) open(s *session, m member, limit int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.of(m)
	switch {
	case p.stopping:
		return rpc.ErrStopping
	case e.sessions >= limit:
		return rpc.ErrTooMany
	}
	e.sessions++
	p.sessions[s] = m
	p.work.Add(1)
	return nil
}

// about notes which pool a session is about.
func (p *presence) about(s *session, pool swarm.PoolID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.pool = pool
}

// idle reports whether no session is about a pool.
func (p *presence) idle(pool swarm.PoolID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.sessions {
		if s.pool == pool {
			return false
		}
	}
	return true
}

// cutPool ends all sessions about a pool.
func (p *presence) cutPool(pool swarm.PoolID, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.sessions {
		if s.pool == pool {
			s.cut(why)
		}
	}
}

func (p *presence) close(s *session, m member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.members[m].sessions--
	delete(p.sessions, s)
	p.work.Done()
}

// stop ends all sessions, lets no more in, and waits until they are over.
func (p *presence) stop() {
	p.mu.Lock()
	p.stopping = true
	for s := range p.sessions {
		s.cut(rpc.ErrStopping)
	}
	p.mu.Unlock()
	p.work.Wait()
}

// look tells whether a member is online, and else when it last was.
func (p *presence) look(m member, now time.Time) (online bool, lastSeen time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.members[m]
	switch {
	case e == nil:
		return false, time.Time{}
	case e.conns > 0:
		return true, now
	}
	return false, e.lastSeen
}

// countConn follows the connections of members; those beyond a member's bound, and
// those of nobody, are closed.
func (s *Service) countConn(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		t, ok := c.(*tls.Conn)
		if !ok {
			c.Close()
			return
		}
		id, in, _, err := room.Member(t.ConnectionState())
		if err != nil {
			c.Close()
			return
		}
		if !s.present.connect(c, member{in, id}, s.opts.MaxConns) {
			s.opts.Log.Warn("connection refused: this member has too many", "member", id)
			c.Close()
		}
	case http.StateClosed, http.StateHijacked:
		if m, last := s.present.disconnect(c, time.Now()); last {
			s.probes.lost(m)
		}
	}
}
