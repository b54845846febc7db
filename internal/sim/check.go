package sim

import (
	"fmt"
	"strings"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// The promises that every run is held to.
//
// Safety, at every step: nobody announces or serves a piece that is not stored; what
// is stored matches the digest of exactly one content; no member asks the origin
// during a pause that it has heard of; nobody is told Complete while a member that the
// tracker knows still lacks something; tables stay bounded; nobody fails or goes away
// with its work undone. The origin's bytes stay within a budget (type budget).
//
// Liveness: once faults are over every member that wants the file has it within
// run.patience.

// Bounds on what one Node may have open at one time.
const (
	maxPulls   = 16  // requests to the origin, audits included
	maxStreams = 256 // neighbours
	maxFetches = 4096

	meshLimit = 33 // members that all know each other
)

// violate ends the run: a promise was broken.
func (r *run) violate(p *proc, format string, args ...any) {
	r.fail(fmt.Sprintf("member %d %s", p.m.index, fmt.Sprintf(format, args...)), p.m)
}

func (r *run) fail(what string, m *member) {
	if r.err == nil {
		r.err = fmt.Errorf("at %v: %s\n%s", time.Duration(r.now), what, r.describe(m))
	}
}

func (r *run) stalled(p *proc) {
	if p.stalls++; p.stalls > 1000 {
		at, _ := p.node.Deadline()
		r.violate(p, "has a deadline (%v) that its step does not move", time.Duration(at))
	}
}

// checkStored says whether all pieces of extents are stored.
func (r *run) checkStored(p *proc, what string, extents []piece.Extent) {
	d := &p.m.disk
	for _, e := range extents {
		for i := e.First; i < e.End(); i++ {
			if !d.set || !d.have.Has(i) {
				r.violate(p, "tells in %s of piece %d, which is not stored", what, i)
				return
			}
		}
	}
}

func (r *run) checkHave(p *proc, what string, have *piece.Bitfield) {
	d := &p.m.disk
	for e := range have.Extents {
		for i := e.First; i < e.End(); i++ {
			if !d.have.Has(i) {
				r.violate(p, "tells in %s of piece %d, which is not stored", what, i)
				return
			}
		}
	}
}

func (r *run) checkToTracker(p *proc, msg swarm.ToTracker) {
	switch m := msg.(type) {
	case swarm.Announce:
		if m.Pinned {
			r.checkHave(p, "Announce", &m.Have)
		}
	case swarm.Report:
		r.checkStored(p, "Report", m.Stored)
		if m.Whole && !p.m.complete() && !p.m.changed && !p.m.flipFound {
			r.violate(p, "reports itself whole with %d of %d pieces", p.m.disk.have.Count(), p.m.disk.have.Len())
		}
	case swarm.Returned:
		if len(m.Extents) > 0 && m.Failure == swarm.NoFailure {
			r.mark(Stolen)
		}
	}
}

func (r *run) checkToPeer(p *proc, msg swarm.ToPeer) {
	switch m := msg.(type) {
	case swarm.Holds:
		r.checkHave(p, "Holds", &m.Have)
		if d := &p.m.disk; !d.set || m.Generation != d.pin.Generation(d.incarnation) {
			r.violate(p, "tells in Holds of a generation that is not its own")
		}
	case swarm.Haves:
		r.checkStored(p, "Haves", m.Extents)
	case swarm.Statement:
		if len(m.Pieces) > swarm.MaxStated || len(m.Pieces) != len(m.Digests) {
			r.violate(p, "states %d pieces with %d digests", len(m.Pieces), len(m.Digests))
		}
	case swarm.Claim:
		r.mark(Claims)
	}
}

func (r *run) checkToMember(t *trackerHost, a swarm.TellMember) {
	switch a.Message.(type) {
	case swarm.Complete:
		for _, m := range r.members {
			s := t.sessions[m.key]
			if s == nil || s.p.m != m || !s.said || m.Helper || m.cheats() || m.flipFound || m.changed || s.p.gone || m.stopping != 0 {
				continue
			}
			if !m.complete() {
				r.violate(s.p, "lacks pieces when the tracker tells member %d that all are complete", r.memberOf(a.Member))
				return
			}
		}
	case swarm.Drop:
		r.mark(LeaseExpired)
	case swarm.Revoke:
		r.mark(Revokes)
	}
}

// budget is how many bytes the origin may send. It begins at the size of the file;
// what faults make necessary to send again is added: the pieces whose last holder
// leaves, what a request that breaks off had brought of an unfinished piece, a copy
// for a part of the room that is cut off. Beside that, 2 % of the size is for what is
// under way when something changes, and audits are not counted.
type budget struct {
	faulty  bool
	allowed int64
	content *content
	holders []int32
	piece   int64
}

func (b *budget) init(r *run) {
	w := r.world
	b.faulty = len(w.Faults) > 0 || w.PeerLosses+w.OriginLosses > 0 || w.Origin.WrongOneIn > 0
	for _, m := range w.Members {
		b.faulty = b.faulty || m.cheats() || m.LeavesWhenWhole || m.Misled || m.Twin > 0
	}
	b.content = r.origin.current
	b.holders = make([]int32, b.content.layout.Count())
	b.piece = b.content.layout.PieceLength
	b.allowed = w.Size * int64(max(w.Confirm, 1))
	if w.Origin.TwoFaces {
		b.faulty = true
		b.allowed += int64(len(w.Members)) * w.Size // nobody's word counts, and each reads what it needs
	}
	for _, m := range w.Members {
		switch {
		case m.Knows || m.Misled:
			// It reads what others have brought once, and all the rest before it gives up.
			b.allowed += 2 * w.Size
		case m.Twin > 0:
			// Tracker and neighbours have one of the two at a time, and the other helps itself;
			// what one is lent is lent anew when the other comes.
			b.allowed += 4 * w.Size
		case m.Withholds || m.Freeloads || m.Floods || m.Forgery > 0 || m.Equivocates || m.Returns:
			// What it is believed to hold or to fetch, each of the others may fetch itself
			// in the end.
			b.allowed += int64(len(w.Members)) * w.Size
		case m.cheats():
			// Nobody takes what it has, nor brings it what it lacks.
			b.allowed += w.Size
		}
	}
}

// alone notes that members that do not know what the file is have lost their tracker:
// each asks the origin itself.
func (b *budget) alone(r *run) {
	each := min(r.world.Size, probeBytes)
	if r.world.Origin.OneStream {
		each = r.world.Size
	}
	for _, m := range r.members {
		if m.proc != nil && !m.proc.gone && !m.disk.set {
			b.allowed += each
		}
	}
}

// probeBytes is what a Node asks for first.
const probeBytes = 256 << 10

func (b *budget) allow(n int64) { b.allowed += n }

func (b *budget) allowPieces(n int64) { b.allowed += n * b.piece }

func (b *budget) stored(_ *run, m *member, i piece.Index) {
	if m.disk.content == b.content {
		b.holders[i]++
	}
}

func (b *budget) forgot(_ *run, m *member, i piece.Index) {
	if m.disk.content == b.content {
		if b.holders[i]--; b.holders[i] == 0 {
			b.allowed += b.content.layout.Length(i)
		}
	}
}

// left notes that nobody gets anything from a member any more.
func (b *budget) left(r *run, m *member) {
	if !m.disk.set || m.disk.content != b.content {
		if m.disk.content != nil {
			b.allowed += r.world.Size // a stream of its own ends with it
		}
		return
	}
	if r.world.Confirm > 1 {
		b.allowPieces(int64(m.disk.own.Count())) // what it has not stated yet is read by another
	}
	for e := range m.disk.have.Extents {
		for i := e.First; i < e.End(); i++ {
			b.forgot(r, m, i)
		}
	}
}

// appeared notes a process that holds what an earlier one has left. Without a tracker
// it finds nobody, and helps itself.
func (b *budget) appeared(r *run, m *member) {
	if !r.tracker.up || !r.reaches(&m.place, &r.tracker.place) {
		b.lonely(r, m.proc)
	}
	if !m.disk.set || m.disk.content != b.content {
		return
	}
	for e := range m.disk.have.Extents {
		for i := e.First; i < e.End(); i++ {
			b.holders[i]++
		}
	}
}

// lonely notes a process that has nobody to share with.
func (b *budget) lonely(r *run, p *proc) {
	if !p.lonely {
		p.lonely = true
		b.allowed += r.world.Size + r.world.Size/20 + 4*b.piece
	}
}

// loneliness looks for processes that have lost both tracker and neighbours, some
// time after something happened by which they may.
type loneliness struct{}

func (loneliness) happen(r *run) {
	for _, m := range r.members {
		if p := m.proc; p != nil && !p.gone && p.session == nil && len(p.streams) == 0 && !m.whole {
			r.budget.lonely(r, p)
		}
	}
}

// anew notes that a member throws away what it had.
func (b *budget) anew(r *run, m *member) { b.left(r, m) }

func (b *budget) broke(l *pull, unstored int64) {
	if b.faulty {
		b.allowed += unstored
	}
}

func (b *budget) changed(r *run) {
	// What was fetched of the old version is of no more use, and what was under way
	// when it changed comes to nothing; members that look again look at the new one.
	b.content = r.origin.current
	b.holders = make([]int32, b.content.layout.Count())
	b.allowed += r.world.Size + int64(len(r.members))*b.piece
}

func (b *budget) trackerDied(r *run) {
	b.orphaned(r)
	if len(r.world.Faults) > 1 || r.world.PeerLosses+r.world.OriginLosses > 0 {
		b.allowed += r.world.Size
	}
	r.later(2*silence, loneliness{})
}

// partitioned notes that a part of the room is cut off from the tracker, and from what
// the rest holds: it fetches all once more.
func (b *budget) partitioned(r *run, c *cut) {
	if c.Kind == Clog && c.Other < len(r.members) {
		b.allowPieces(8)
		return // the others bring what cannot pass here
	}
	b.allowed += r.world.Size
	b.orphaned(r)
}

// separated notes that the tracker may take a member for dead that is not: what it
// holds and what it fetches is fetched by others as well, at most once.
func (b *budget) separated(r *run) {
	b.allowed += r.world.Size
	b.allowPieces(8)
	r.later(2*silence, loneliness{})
}

// recount counts the holders of the pieces of a version that has come back.
func (b *budget) recount(r *run) {
	for _, m := range r.members {
		if p := m.proc; p == nil || p.gone || m.disk.content != b.content {
			continue
		}
		for e := range m.disk.have.Extents {
			for i := e.First; i < e.End(); i++ {
				b.holders[i]++
			}
		}
	}
}

// orphaned notes that members divide the origin among themselves.
func (b *budget) orphaned(r *run) {
	switch {
	case r.world.Origin.OneStream: // which cannot be divided
		b.allowed += r.world.Size * int64(2+len(r.members)/2)
	case len(r.members) > meshLimit: // not everybody hears everybody's claims
		b.allowed += r.world.Size/2 + int64(len(r.members))/2*b.piece
	default:
		b.allowed += r.world.Size / 10
	}
	// With few pieces for many members, most of those who have nothing to do take one
	// before they hear that somebody has it.
	b.allowed += (2 + int64(len(r.members))/2) * b.piece
	b.alone(r)
}

// stuck describes a run that did not end.
func (r *run) stuck(what string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "at %v: %s (%d of %d; faults ended at %v, bound %v)\n", time.Duration(r.now), what,
		r.result.Finished, len(r.members), r.world.QuietFrom, r.world.Bound())
	fmt.Fprintf(&b, "tracker up=%v sessions=%d\n", r.tracker.up, len(r.tracker.sessions))
	shown := 0
	for _, m := range r.members {
		if p := m.proc; p == nil || p.gone && !m.awaited || m.whole && r.waiting > 0 {
			continue
		}
		if shown++; shown > 12 {
			b.WriteString("...\n")
			break
		}
		b.WriteString(r.describe(m))
	}
	return fmt.Errorf("%s", b.String())
}

// describe tells where a member stands.
func (r *run) describe(m *member) string {
	var b strings.Builder
	p := m.proc
	fmt.Fprintf(&b, "member %d %v: line %d B/s, whole %v, awaited %v", m.index, m.id, m.wan.rate, m.whole, m.awaited)
	if p == nil {
		b.WriteString(", not begun\n")
		return b.String()
	}
	fmt.Fprintf(&b, ", life %d, gone %v, session %v", m.lives, p.gone, p.session != nil)
	if d := &m.disk; d.set {
		fmt.Fprintf(&b, ", %v has %d of %d pieces", d.content, d.have.Count(), d.have.Len())
		if missing, ok := d.have.NextUnset(0); ok {
			held := 0
			for _, o := range r.members {
				if o.proc != nil && !o.proc.gone && o.disk.set && o.disk.content == d.content && o.disk.have.Has(missing) {
					held++
				}
			}
			fmt.Fprintf(&b, ", lacks %d (held by %d)", missing, held)
		}
	}
	at, ok := p.node.Deadline()
	fmt.Fprintf(&b, ", deadline %v %v, %d neighbours %v\n", time.Duration(at), ok, len(p.streams), firstOf(sorted(p.streams), 20))
	for _, req := range firstOf(sorted(p.pulls), 6) {
		l := p.pulls[req]
		fmt.Fprintf(&b, "  origin request %d: %d of %d bytes from %d, answered %v, bound %v, over %v\n", req, l.got, l.end-l.start, l.start, l.answered, l.bound, l.over)
	}
	for _, req := range firstOf(sorted(p.fetches), 6) {
		f := p.fetches[req]
		fmt.Fprintf(&b, "  request %d to member %d: pieces %v, serving %v, %d bytes, parked %v, over %v\n", req, f.to.index, firstOf(f.pieces, 4), f.serving, f.moved, f.parked, f.over)
	}
	if n := len(p.asked); n > 0 {
		waiting := 0
		for _, f := range p.asked {
			if !f.serving {
				waiting++
			}
		}
		fmt.Fprintf(&b, "  %d requests of others, %d of them wait\n", n, waiting)
	}
	return b.String()
}

func firstOf[T any](s []T, n int) []T { return s[:min(n, len(s))] }
