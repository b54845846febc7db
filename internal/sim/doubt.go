package sim

import "dragonload/internal/swarm"

// Members that know the digest of the whole file, or take a wrong one for it. Their driver
// looks at it before the file gets its name.

// differs reports whether a whole file is not what its member's digest says. Knows is drawn
// only where there is one version of the file, with one face.
func (r *run) differs(m *member) bool { return m.Misled || m.Knows && len(m.disk.variants) > 0 }

// doubt tells a Node that its file is not what the digest says, or ends the download where
// every byte of it was read by the member itself.
func (r *run) doubt(p *proc, basis swarm.Basis) {
	r.s1FileIsOneGeneration(p)
	switch {
	case !basis.OwnOnly:
		r.mark(Doubted)
		r.later(finishTime, (*doubted)(p))
	case !p.m.Misled:
		r.violate(p, "takes a right digest for wrong") // S4, S13
	default:
		r.mark(DigestBlamed)
		r.later(finishTime, (*blamed)(p))
	}
}

type doubted proc

func (d *doubted) happen(r *run) {
	if p := (*proc)(d); !r.held(p, d) {
		r.step(p, swarm.Mismatched{})
	}
}

type blamed proc

func (b *blamed) happen(r *run) {
	if p := (*proc)(b); !p.gone && !r.held(p, b) {
		r.tell("member %d ends: its digest is wrong", p.m.index)
		r.stop(p.m)
	}
}

// mayBlame reports whether a member may give a file up that is not what its digest says
// before it has read all of it: it cannot read the parts.
func (r *run) mayBlame(m *member) bool {
	return r.differs(m) && (!m.able() || r.world.Origin.OneStream || r.world.has(OriginRefuses) || r.world.has(OriginFlaps))
}

// maxWrongEnds is how many requests to one member may end with wrong pieces before nothing
// more is asked of it: swarm's maxWrong, and as many as were under way by then.
const maxWrongEnds = 3 + 2

// s10WasteIsBounded: one member makes another fetch in vain only so often, whatever it
// answers, however often it comes back. It is forgiven each time that somebody else turns
// out to be a liar, for what it sent may have been right then; who cannot look at the origin
// doubts what was stated some times more.
func (r *run) s10WasteIsBounded(f *fetch) {
	p := f.asker
	if len(f.wrong) == 0 || p.m.cheats() || r.world.ofManifest() {
		return
	}
	if p.wasted == nil {
		p.wasted = make(map[int]int)
	}
	p.wasted[f.to.index]++
	liars := 0
	for _, m := range r.members {
		if m.cheats() || r.origin.twoFaces {
			liars++
		}
	}
	limit := maxWrongEnds * (1 + liars) * r.origin.contents
	if !p.m.able() || r.world.Origin.OneStream || r.world.has(OriginRefuses) {
		limit += maxAfresh
	}
	if n := p.wasted[f.to.index]; n > limit {
		r.violate(p, "was sent wrong pieces %d times by member %d", n, f.to.index)
	}
}

// maxAfresh is swarm's bound of that name.
const maxAfresh = 64
