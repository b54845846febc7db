package sim

import (
	"math/rand/v2"
	"time"

	"dragonload/internal/swarm"
)

// A mirror of the origin, which some members know: it has the same bytes and a line of its
// own, and asks for pauses of its own.

// server is where a request goes.
type server uint8

const (
	own server = iota // the URL's
	mirror
	servers
)

func (s server) String() string { return [servers]string{"origin", "mirror"}[s] }

func serverOf(isMirror bool) server {
	if isMirror {
		return mirror
	}
	return own
}

// resting is until when a server answers 503, and the pause that it asks for.
type resting struct {
	till swarm.Instant
	wait time.Duration
}

// serverNamed returns the server that a message is about; none, if whoever sent it made the
// name up.
func serverNamed(s swarm.SourceID) (server, bool) {
	if s == (swarm.SourceID{}) {
		return own, true
	}
	return server(s[0] - 1), s[0] > 0 && s[0] <= byte(servers) && s == swarm.SourceID{s[0]}
}

// sourceOf names a server; in a world without mirrors it has no name.
func (r *run) sourceOf(s server) swarm.SourceID {
	if !r.world.mirrored() {
		return swarm.SourceID{}
	}
	return swarm.SourceID{byte(s) + 1}
}

func (r *run) sourcesOf(m *member) []swarm.SourceID {
	switch {
	case m.Mirror:
		return []swarm.SourceID{r.sourceOf(own), r.sourceOf(mirror)}
	case r.world.mirrored():
		return []swarm.SourceID{r.sourceOf(own)}
	}
	return nil
}

// serverFor chooses, as a driver does, where a request goes: to a server that does not rest.
// The URL itself is what others' bytes are compared with.
func (r *run) serverFor(p *proc, l *pull) server {
	switch {
	case !p.m.Mirror || l.kind == audit || r.now < p.quiet[mirror]:
		return own
	case r.now < p.quiet[own]:
		r.mark(Mirrored)
		return mirror
	}
	return server(l.req % 2)
}

// elsewhere makes a pause of one server that of this one alone, where another can be asked.
func (r *run) elsewhere(p *proc, l *pull, how *swarm.OriginEnded) {
	if other := mirror - l.at; !p.m.Mirror || l.kind == audit || r.now < p.quiet[other] {
		return
	}
	r.step(p, swarm.OriginPauses{Source: how.Source, Wait: how.Wait})
	how.Wait, how.Busy = 0, false
	if l.kind == ranged {
		how.Failure = swarm.NoFailure
	}
}

func (o *originHost) lineOf(s server) *line {
	if s == mirror {
		return &o.mirror
	}
	return &o.up
}

// mirrors lets some members know a mirror, and the origin or the mirror, or both, rest for
// a while. It has a die of its own, so that seeds without a mirror keep their worlds.
func (d *drawing) mirrors(w *World) {
	die := &drawing{rng: rand.New(rand.NewPCG(w.Seed, 0x6d6972726f72)), pace: d.pace, span: d.span}
	if !die.oneIn(6) || w.Origin.OneStream || w.Origin.NoValidator || w.Origin.TwoFaces || w.Confirm > 1 {
		return
	}
	for k := range w.Members {
		w.Members[k].Mirror = k == 0 || die.oneIn(3)
	}
	for range 1 + die.rng.IntN(3) {
		rests := Fault{Kind: OriginBusy, At: die.between(0, d.span), Mirror: die.oneIn(3)}
		rests.For = die.between(time.Second, 30*time.Second)
		rests.Wait = time.Duration(die.rng.IntN(31)) * time.Second
		d.add(w, rests)
	}
}
