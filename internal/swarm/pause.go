package swarm

import (
	"slices"
	"time"
)

// Pauses that origins ask for with Retry-After. One of them speaks for itself alone: a
// member that knows a mirror goes on there. The whole pool hears of each pause, for other
// members may know the same server, under whatever address.

// SourceID names a server that has the file, an origin or a mirror of it, without telling
// which: a hash of its address keyed by the room. The zero value is the one server of
// members that name none.
type SourceID [16]byte

const (
	// MaxSources bounds the servers that one member names.
	MaxSources = 16

	// maxPauses bounds the pauses that are remembered of a pool: more servers at a time
	// than members really have.
	maxPauses = 64

	// maxDeserted bounds the pools without members whose pauses are remembered.
	maxDeserted = 256
)

// pauses are those that are not known to be over.
type pauses []pause

type pause struct {
	source SourceID
	until  Instant
}

// until returns when a server may be asked again; a time that is past, if it may be now.
func (p pauses) until(s SourceID) Instant {
	for _, x := range p {
		if x.source == s {
			return x.until
		}
	}
	return 0
}

// any returns when the first of several servers may be asked again. None stand for the
// zero one.
func (p pauses) any(sources []SourceID) Instant {
	if len(sources) == 0 {
		return p.until(SourceID{})
	}
	first := never
	for _, s := range sources {
		first = min(first, p.until(s))
	}
	return first
}

// note takes in a pause. It reports whether that was not known, and whether the server was
// not resting at all.
func (p *pauses) note(now Instant, s SourceID, wait time.Duration) (news, begun bool) {
	until := now.Add(min(wait, maxHold))
	k := slices.IndexFunc(*p, func(x pause) bool { return x.source == s })
	switch {
	case k < 0:
		*p = slices.DeleteFunc(*p, func(x pause) bool { return x.until <= now })
		if len(*p) >= maxPauses {
			return false, false
		}
		*p = append(*p, pause{s, until})
		return true, true
	case until <= (*p)[k].until:
		return false, false
	}
	begun = (*p)[k].until <= now
	(*p)[k].until = until
	return true, begun
}

// live returns those that are not over.
func (p pauses) live(now Instant) pauses {
	var live pauses
	for _, x := range p {
		if x.until > now {
			live = append(live, x)
		}
	}
	return live
}

// deserted is what is remembered of a pool that its last member has left: who comes before
// the pauses are over must not ask these servers either.
type deserted struct {
	pool   PoolID
	pauses pauses
}

// desert keeps what pauses there are in a pool that ends. If there are too many such pools,
// the one that ended first is forgotten.
func (t *Tracker) desert(p *pool) {
	live := p.pauses.live(t.now)
	if len(live) == 0 {
		return
	}
	t.deserted = slices.DeleteFunc(t.deserted, func(d deserted) bool { return len(d.pauses.live(t.now)) == 0 })
	if len(t.deserted) >= maxDeserted {
		t.deserted = slices.Delete(t.deserted, 0, 1)
	}
	t.deserted = append(t.deserted, deserted{p.id, live})
}

// settleIn gives a pool that begins the pauses that were left in it.
func (t *Tracker) settleIn(p *pool) {
	k := slices.IndexFunc(t.deserted, func(d deserted) bool { return d.pool == p.id })
	if k >= 0 {
		p.pauses = t.deserted[k].pauses.live(t.now)
		t.deserted = slices.Delete(t.deserted, k, k+1)
	}
}

// hold keeps this node from a server for a while, for that asked for a pause. It is told
// once, however many requests, members and trackers tell of it.
func (n *Node) hold(s SourceID, wait time.Duration) (news bool) {
	news, begun := n.origin.pauses.note(n.now, s, wait)
	if begun && n.knows(s) {
		n.warn(WarnOriginWaits)
		n.fewerConnections() // all members at once: it is the pool that is too many
	}
	return news
}

// knows reports whether this node fetches from a server.
func (n *Node) knows(s SourceID) bool {
	if len(n.opts.Sources) == 0 {
		return s == SourceID{}
	}
	return slices.Contains(n.opts.Sources, s)
}

// restsUntil returns when this node may ask one of its servers again. Which of them may be
// asked now its driver knows.
func (n *Node) restsUntil() Instant { return n.origin.pauses.any(n.opts.Sources) }

// ownRestsUntil returns when it may ask the URL itself, whose bytes are what others' are
// compared with.
func (n *Node) ownRestsUntil() Instant {
	return n.origin.pauses.any(n.opts.Sources[:min(len(n.opts.Sources), 1)])
}

// originPauses takes in that a server has asked for a pause.
func (n *Node) originPauses(ev OriginPauses) {
	if ev.Wait > 0 && n.hold(ev.Source, ev.Wait) && n.tracker.up {
		n.tell(Returned{Wait: ev.Wait, Source: ev.Source})
	}
}

// yield leaves to neighbours who know another server what this node was about to fetch
// from one that rests. With a tracker it is that which takes it back.
func (n *Node) yield() {
	if o := &n.origin; n.pinned && !n.tracker.up && o.leases.Count() > 0 && n.now < n.restsUntil() {
		o.leases.Clear()
		n.claim()
	}
}

// restsUntil returns when a member may be leased something, as far as pauses go: of a pool
// that may be older than its tracker nothing is known at first.
func (p *pool) restsUntil(m *member) Instant {
	return max(p.settlesAt, p.pauses.any(m.sources))
}

// allRestUntil returns until when nobody can be leased anything, where that is known.
// Members that each have one server have the same: they have the same URL.
func (p *pool) allRestUntil() Instant {
	if p.several > 0 || len(p.order) == 0 {
		return p.settlesAt
	}
	return p.restsUntil(p.order[0])
}

// pauseTold takes in that a server has asked for a pause, and passes it on.
func (t *Tracker) pauseTold(p *pool, s SourceID, wait time.Duration) {
	wait = min(wait, maxHold)
	if news, _ := p.pauses.note(t.now, s, wait); news {
		t.tellAll(p, Hold{For: wait, Source: s})
		p.reclaimAt = t.now
	}
}

// reclaim asks for what was leased to members all of whose servers rest, if others know one
// that does not.
func (t *Tracker) reclaim(p *pool) {
	if p.reclaimAt == 0 || p.several == 0 || t.now < p.settlesAt {
		return
	}
	p.reclaimAt = 0
	if len(p.pauses.live(t.now)) == 0 {
		return
	}
	if !slices.ContainsFunc(p.order, func(m *member) bool { return m.fetches && p.restsUntil(m) <= t.now }) {
		return
	}
	for _, m := range p.order {
		if m.leased.Count() > 0 && !m.revoking && m != p.prober && t.now < p.restsUntil(m) {
			m.revoking = true
			p.busy.fix(m)
			t.tell(p, m, Revoke{Pieces: uint32(m.leased.Count())})
		}
	}
}
