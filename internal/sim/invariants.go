package sim

import (
	"fmt"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// The promises that have a number in the plan, each as a function of its own. Those
// about what a Node says of itself (nobody announces, serves or reports what is not
// stored) are in check.go.
//
// Not here, because the machines have no part in them: S9 (invites and removals) and
// S12 (the catalogue) are kept by room, tracker and their State; S11 (secrets) holds
// since a machine is never given one, which TestS11_messagesHaveNoPlaceForSecrets
// sees to.

// s1FileIsOneGeneration: a file that is about to get its name is whole, and the bytes
// of exactly one version of the origin's file.
func (r *run) s1FileIsOneGeneration(p *proc) {
	d := &p.m.disk
	if d.content == nil || !p.m.complete() || d.content.pin != d.pin {
		r.violate(p, "finishes a file that is not whole") // S1
	}
}

// s2ResumesWhatWasSynced: a process that begins again finds what was synced when the
// one before was cut off.
func (r *run) s2ResumesWhatWasSynced(m *member) {
	d := &m.disk
	if !d.set || d.synced.Len() == 0 || d.synced.Len() != d.have.Len() {
		return
	}
	synced, found := d.synced, d.resume()
	d.synced = piece.Bitfield{} // what comes now may be lost again, or dropped
	for e := range synced.Extents {
		for i := e.First; i < e.End(); i++ {
			if found == nil || !found.Have.Has(i) || found.Digests[i] != variant(d.content.digests[i], d.variants[i]) {
				r.fail(fmt.Sprintf("S2: member %d does not find piece %d again, which was synced", m.index, i), m)
				return
			}
		}
	}
}

// s4ReadByAsManyAsItSays: a file that is said to be confirmed by several members was read
// from the origin by so many, every piece of it.
func (r *run) s4ReadByAsManyAsItSays(p *proc, basis swarm.Basis) {
	if basis.Confirmed < r.world.Confirm {
		r.violate(p, "finishes with %d members' word where %d are wanted", basis.Confirmed, r.world.Confirm)
		return
	}
	for i := range piece.Index(p.m.disk.have.Len()) {
		readers := 0
		for _, m := range r.members {
			if read := m.read[p.m.disk.content]; read != nil && read.Has(i) {
				readers++
			}
		}
		if basis.Confirmed > 1 && readers < basis.Confirmed {
			r.violate(p, "finishes with piece %d confirmed by %d, and %d have read it", i, basis.Confirmed, readers)
			return
		}
	}
}

// hasRead notes what a member has read from the origin, in whatever life.
func (m *member) hasRead(c *content, i piece.Index) {
	if m.read == nil {
		m.read = make(map[*content]*piece.Bitfield)
	}
	if m.read[c] == nil {
		read := piece.NewBitfield(c.layout.Count())
		m.read[c] = &read
	}
	m.read[c].Set(i)
}

// s3GenerationsStayApart: what is stored belongs to one version.
func (r *run) s3GenerationsStayApart(p *proc, c *content, i piece.Index) bool {
	d := &p.m.disk
	if d.content == nil {
		d.content = c
	}
	if d.content != c {
		r.violate(p, "stores piece %d of %v beside pieces of %v", i, c, d.content) // S3
		return false
	}
	return true
}

// s4NobodyIsDeceived: what a finished file consists of is what the origin gave. One
// statement and audits, the default, leave a liar a chance, which is why the user is
// told "audited": that is noted. An origin with two faces gave all of it.
func (r *run) s4NobodyIsDeceived(p *proc) {
	for _, i := range sorted(p.m.disk.variants) {
		switch v := p.m.disk.variants[i]; {
		case v == otherFace && r.origin.twoFaces:
			r.mark(FacesMixed)
		case r.mayDeceive(v):
			r.mark(Deceived)
		default:
			r.violate(p, "finishes with variant %d of piece %d, which nobody could have made it take", v, i) // S4
			return
		}
	}
}

// mayDeceive reports whether those who forge a variant are enough to be believed.
func (r *run) mayDeceive(v uint8) bool {
	for _, m := range r.members {
		if m.Forgery > 0 && m.forgery() == v {
			return true
		}
	}
	return false
}

// s5NoHonestMemberIsBanned: what a ban rests on shows itself to everybody who looks (S6):
// the banned member did state what the origin never gave it, or two digests for one piece.
// An origin that keeps showing one face to some members and another to the rest makes the
// few look like liars to the many, but they stand by their word when they are accused.
func (r *run) s5NoHonestMemberIsBanned(p *proc, id piece.NodeID) {
	k := r.memberOf(id)
	if p.m.cheats() || k < 0 {
		return
	}
	switch m := r.members[k]; {
	case m.Forgery > 0 || m.Equivocates:
	default:
		r.violate(p, "bans member %d, which has stated nothing but what it read", k) // S5, S6
	}
}

// s7OriginWithinItsBudget: the origin sends the file once, and beyond that no more
// than the faults explain (type budget).
func (r *run) s7OriginWithinItsBudget() {
	sent := r.result.OriginBytes - r.result.AuditBytes
	limit := r.budget.allowed + max(r.world.Size/50, r.budget.piece) // in a small file 2 % is less than a piece
	if r.budget.faulty {
		limit += 8 * r.budget.piece
	}
	if sent > limit && r.err == nil {
		r.err = fmt.Errorf("at %v: the origin has sent %d bytes of a file of %d, and the faults explain %d",
			time.Duration(r.now), sent, r.world.Size, limit) // S7
	}
}

// s8Heard notes what the tracker hears of a pause that the origin asks for.
func (r *run) s8Heard(msg swarm.ToTracker) {
	if m, ok := msg.(swarm.Returned); ok && m.Wait > 0 {
		wait := min(m.Wait, time.Hour)
		if s, ok := serverNamed(m.Source); ok {
			r.heldTill[s] = max(r.heldTill[s], r.now.Add(wait-wait/clockTolerance))
		}
		r.mark(HoldKept)
	}
}

// s8NobodyAsksDuringAPause: whoever has a session and has got all that the tracker has
// sent on it knows of the pause that the tracker knows of.
func (r *run) s8NobodyAsksDuringAPause(p *proc, of server) {
	s := p.session
	if r.now >= r.heldTill[of] || s == nil || !s.said || !s.answered || p.wrongClock || s.down.head < len(s.down.queue) || s.host != &r.tracker || r.tracker.sessions[p.m.key] != s {
		return
	}
	r.violate(p, "asks the %v %v before the end of a pause that the tracker has heard of", of, time.Duration(r.heldTill[of]-r.now)) // S8
}

// s10TablesStayBounded: no Node has more open than its limits allow.
func (r *run) s10TablesStayBounded(p *proc) {
	if len(p.pulls) > maxPulls || len(p.streams) > maxStreams || len(p.fetches) > maxFetches {
		r.violate(p, "has %d requests to the origin, %d neighbours, %d requests to them", len(p.pulls), len(p.streams), len(p.fetches)) // S10
	}
}

// s13CoreFinishes: everybody who is waited for must be done by now: the faults of the
// core are over, whatever the rest does.
func (r *run) s13CoreFinishes() error { return r.stuck("not all members have finished") }
