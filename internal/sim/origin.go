package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// content is one sequence of bytes that an origin has given: one version, or one
// stream of an origin that names no version. Its digests stand for the bytes.
type content struct {
	number  int
	pin     piece.Pin
	layout  piece.Layout
	digests []piece.Digest
}

// startOf returns where a piece begins, or the content ends.
func (c *content) startOf(i piece.Index) int64 {
	if int(i) >= c.layout.Count() {
		return c.layout.Size
	}
	return c.layout.Range(i).Start
}

func (c *content) String() string { return fmt.Sprintf("content %d", c.number) }

type originHost struct {
	up       line
	current  *content
	contents int
	byInc    map[uint64]*content // contents of streams without a version, by incarnation
	byPin    map[piece.Pin]*content
	rests    [servers]resting
	mirror   line // its line
	active   int
	pulls    []*pull // under way, to be broken off by OriginResets

	twoFaces bool

	stalledTill, truncatesTill, refusesTill swarm.Instant
}

func (o *originHost) init(r *run) {
	o.up.rate, o.mirror.rate = r.world.Origin.Up, r.world.Origin.Up
	o.twoFaces = r.world.Origin.TwoFaces
	o.byInc = make(map[uint64]*content)
	o.byPin = make(map[piece.Pin]*content)
	o.current = o.version(r)
}

// version makes another version of the file.
func (o *originHost) version(r *run) *content {
	o.contents++
	pin := piece.Pin{Size: r.world.Size, Kind: piece.StrongETag, Validator: fmt.Sprintf("%q", fmt.Sprint("v", o.contents))}
	if r.world.Origin.NoValidator {
		pin.Kind, pin.Validator = piece.NoValidator, ""
	}
	c := &content{number: o.contents, pin: pin, layout: r.world.layout()}
	if r.world.ofManifest() {
		c.pin = piece.ManifestPin([32]byte{byte(o.contents)}, c.layout)
		pin = c.pin
	}
	c.digests = make([]piece.Digest, c.layout.Count())
	var seed [16]byte
	binary.BigEndian.PutUint64(seed[:], uint64(c.number))
	for i := range c.digests {
		binary.BigEndian.PutUint64(seed[8:], uint64(i))
		c.digests[i] = sha256.Sum256(seed[:])
	}
	if !r.world.Origin.NoValidator {
		o.byPin[pin] = c
	}
	return c
}

// list notes a request as one that OriginResets would break off.
func (o *originHost) list(l *pull) {
	if len(o.pulls) > 2*o.active+256 {
		o.pulls = slices.DeleteFunc(o.pulls, func(l *pull) bool { return l.over })
	}
	o.pulls = append(o.pulls, l)
}

type pullKind uint8

const (
	probe pullKind = iota
	ranged
	audit
)

// pull is one request to the origin.
type pull struct {
	flow
	p          *proc
	req        swarm.Request
	kind       pullKind
	at         server
	content    *content
	start, end int64 // bytes of the file
	sent, got  int64 // of these
	whole      bool  // a probe for the whole file as one stream
	counted    bool  // holds a connection
	answered   bool
	bound      bool        // the Node has set this answer's generation: its pieces are stored
	due        piece.Index // the next piece to be complete
	moved      int64
	movedAt    swarm.Instant
	breakAt    int64
	cutShort   bool // breaks off as if it were at its end
	over       bool
	piece      piece.Index // of an audit
	wrong      []piece.Index
}

func (r *run) fetchOrigin(p *proc, a swarm.FetchOrigin) {
	d := &p.m.disk
	if !d.set || !a.Extent.Valid(d.have.Len()) {
		r.violate(p, "fetches extent %v of the origin", a.Extent)
		return
	}
	if !d.pin.Combinable() {
		r.violate(p, "fetches a range of an origin that names no version")
		return
	}
	b := d.content.layout.Bytes(a.Extent)
	l := &pull{req: a.Request, kind: ranged, start: b.Start, end: b.End, due: a.Extent.First}
	if d.headBytes > 0 && d.headPiece == a.Extent.First {
		l.start += d.headBytes
		d.headBytes = 0
	}
	r.pull(p, l)
}

func (r *run) audit(p *proc, a swarm.AuditLeaf) {
	d := &p.m.disk
	if !d.set || int(a.Piece) >= d.have.Len() || !d.have.Has(a.Piece) || a.Range.Len() <= 0 || a.Range.Len() > piece.LeafSize {
		r.violate(p, "audits %v of piece %d", a.Range, a.Piece)
		return
	}
	if b := d.content.layout.Range(a.Piece); a.Range.Start < b.Start || a.Range.End > b.End {
		r.violate(p, "audits %v outside piece %d", a.Range, a.Piece)
		return
	}
	r.pull(p, &pull{req: a.Request, kind: audit, start: a.Range.Start, end: a.Range.End, piece: a.Piece})
}

// pull sends a request to the origin.
func (r *run) pull(p *proc, l *pull) {
	l.at = r.serverFor(p, l)
	switch {
	case p.m.WAN == 0:
		r.violate(p, "asks the origin, which it was told it cannot reach")
		return
	case r.now < p.quiet[l.at]:
		r.violate(p, "asks the %v %v before the pause that it asked for is over", l.at, time.Duration(p.quiet[l.at]-r.now)) // S8
		return
	}
	r.s8NobodyAsksDuringAPause(p, l.at)
	l.p, l.breakAt = p, -1
	p.pulls[l.req] = l
	r.origin.list(l)
	trips := 1
	if p.busy++; p.busy > p.conns {
		p.conns++
		trips += dialTrips + 1 // TCP and TLS 1.3 come first
	}
	l.counted = true
	r.result.Requests++
	r.later(time.Duration(int64(trips)*int64(p.m.WANDelay)), (*pullArrives)(l))
}

// pullArrives is the arrival of a request at the origin.
type pullArrives pull

func (a *pullArrives) happen(r *run) {
	l := (*pull)(a)
	if l.over {
		return
	}
	o, w, back := &r.origin, r.world, l.p.m.WANDelay
	d := &l.p.m.disk
	switch {
	case l.p.m.Barred:
		l.endLater(r, back, swarm.OriginEnded{Failure: swarm.Lasting})
		return
	case r.now < o.rests[l.at].till:
		l.endLater(r, back, swarm.OriginEnded{Failure: swarm.Passing, Busy: true, Wait: o.rests[l.at].wait})
		return
	case w.Origin.MaxRequests > 0 && o.active >= w.Origin.MaxRequests && l.at == own:
		r.mark(TooMany)
		l.endLater(r, back, swarm.OriginEnded{Failure: swarm.Passing, Busy: true, Wait: time.Second})
		return
	case l.kind != probe && d.pin != o.current.pin:
		pin := o.current.pin
		l.endLater(r, back, swarm.OriginEnded{Failure: swarm.Passing, Changed: &pin})
		return
	case l.kind != probe && (w.Origin.OneStream || r.now < o.refusesTill):
		l.endLater(r, back, swarm.OriginEnded{Failure: swarm.Passing})
		return
	}
	l.content = o.current
	if l.kind == probe {
		l.end = min(l.end, w.Size)
		if w.Origin.OneStream || w.Origin.NoValidator || l.whole {
			l.start, l.end, l.whole = 0, w.Size, true
		}
		if w.Origin.NoValidator {
			l.content = o.version(r) // nobody may take two streams for the same bytes
		}
		length := l.content.layout.PieceLength
		l.due = piece.Index((l.start + length - 1) / length)
		r.mark(Probes)
	} else {
		l.bound = true
	}
	if r.chance(w.OriginLosses) && r.now < swarm.Instant(w.QuietFrom) {
		l.breakAt = r.rng.Int64N(l.end-l.start+1) + 1
	}
	if r.now < o.truncatesTill && l.end > l.start {
		l.breakAt, l.cutShort = r.rng.Int64N(l.end-l.start)+1, true
	}
	o.active++
	l.flow = flow{
		from: o.lineOf(l.at), to: &l.p.m.wan, delay: back,
		divisor: 20, unit: max(l.content.layout.PieceLength, minChunk), cargo: l,
	}
	l.answered = true
	if l.kind == probe && !(w.Origin.Unsized && w.Origin.OneStream) {
		r.later(back, (*pullAnswered)(l))
	}
	if l.end > l.start {
		r.begin(&l.flow)
	}
}

// pullAnswered is the arrival of a probe's header.
type pullAnswered pull

func (a *pullAnswered) happen(r *run) {
	l := (*pull)(a)
	if l.over || r.held(l.p, a) {
		return
	}
	l.accepted(r)
	if l.start == l.end && !l.over {
		l.finish(r, swarm.OriginEnded{})
	}
}

func (l *pull) accepted(r *run) {
	stream := l.whole
	l.p.m.disk.bindPulls(l)
	r.step(l.p, swarm.OriginAnswered{Request: l.req, Pin: l.content.pin, Stream: stream, Start: l.start, Bytes: l.end - l.start})
}

// bindPulls lets an answer of the version that is stored already go on.
func (d *disk) bindPulls(l *pull) {
	if d.set && d.pin == l.content.pin && d.pin.Combinable() {
		l.bound = true
	}
}

// setGeneration fixes what a download is of.
func (r *run) setGeneration(p *proc, a swarm.SetGeneration, ev swarm.Event) {
	d := &p.m.disk
	if a.Pin.Validate() != nil || a.Pin.Size < 0 {
		r.violate(p, "sets the generation %v", a.Pin)
		return
	}
	same := d.set && d.pin == a.Pin && d.incarnation == a.Incarnation
	switch {
	case d.set && d.have.Count() > 0 && !same && !a.Anew:
		r.violate(p, "keeps pieces of %v for %v", d.pin, a.Pin)
		return
	case !same || a.Anew:
		if d.set {
			r.budget.anew(r, p.m)
		}
		d.begin(a.Pin, a.Incarnation)
	}
	for _, l := range p.pulls {
		l.bound = false // order does not matter: all get the same
	}
	if answered, ok := ev.(swarm.OriginAnswered); ok {
		l := p.pulls[answered.Request]
		l.bound = l.content.pin == a.Pin
		if !a.Pin.Combinable() {
			r.origin.byInc[a.Incarnation] = l.content
		}
	}
	if a.Pin.Combinable() {
		d.content = r.origin.byPin[a.Pin]
		for _, l := range p.pulls {
			if l.kind == probe && l.answered && l.content.pin == a.Pin {
				l.bound = true
			}
		}
	} else {
		d.content = r.origin.byInc[a.Incarnation]
	}
	if d.content == nil {
		r.violate(p, "sets the generation %v, incarnation %d, which no origin ever gave", a.Pin, a.Incarnation)
	}
}

// open, next and arrive make a pull the cargo of its flow.
func (l *pull) open(r *run) bool {
	return !l.p.paused && (l.at == mirror || r.now >= r.origin.stalledTill)
}

func (l *pull) owner() *proc { return l.p }

func (l *pull) next(r *run, limit int64) int64 {
	n := min(limit, l.end-l.start-l.sent)
	l.sent += n
	r.result.OriginBytes += n
	if l.kind == audit {
		r.result.AuditBytes += n
	}
	return n
}

func (l *pull) arrive(r *run, n int64) {
	l.got += n
	l.moved += n
	p := l.p
	if l.breakAt >= 0 && l.got >= l.breakAt {
		r.mark(Losses)
		l.finish(r, swarm.OriginEnded{Failure: swarm.Passing, Busy: !l.cutShort})
		return
	}
	if l.kind == audit {
		if l.got == l.end-l.start {
			l.finish(r, swarm.OriginEnded{})
		}
		return
	}
	if r.now.Sub(l.movedAt) >= 100*time.Millisecond {
		l.report(r)
	}
	if r.world.Origin.Unsized && l.kind == probe && l.got == l.end-l.start && r.world.Origin.OneStream && !l.over {
		l.accepted(r) // only now is the length known
	}
	for !l.over && l.bound && int(l.due) < l.content.layout.Count() {
		i := l.due
		if l.content.layout.Range(i).End > l.start+l.got {
			break
		}
		l.due++
		if r.world.Origin.spoils(i) {
			l.wrong = append(l.wrong, i)
			r.mark(SeedWrong)
			r.budget.allow(l.content.layout.Length(i))
			continue
		}
		had := p.m.disk.have.Has(i)
		face := r.origin.face(p.m)
		if !r.store(p, l.content, i, face, true) {
			return
		}
		if !had || l.kind != probe {
			r.step(p, swarm.OriginStored{Request: l.req, Piece: i, Digest: variant(l.content.digests[i], face)})
		}
	}
	if l.over || l.got < l.end-l.start {
		return
	}
	if l.kind == probe && l.bound && l.end < l.content.layout.Size {
		d := &p.m.disk
		d.headPiece = l.content.layout.At(l.end)
		d.headBytes = l.end - int64(d.headPiece)*l.content.layout.PieceLength
	}
	l.finish(r, swarm.OriginEnded{})
}

// report tells the Node how many bytes have come since the last time.
func (l *pull) report(r *run) {
	if l.moved == 0 {
		return
	}
	n := l.moved
	l.moved, l.movedAt = 0, r.now
	r.step(l.p, swarm.OriginMoved{Request: l.req, Bytes: n})
}

// finish ends a request: the Node hears of it at once.
func (l *pull) finish(r *run, how swarm.OriginEnded) { l.endLater(r, 0, how) }

func (l *pull) endLater(r *run, after time.Duration, how swarm.OriginEnded) {
	if l.over {
		return
	}
	l.release(r)
	how.Request, how.Wrong = l.req, l.wrong
	r.later(after, &pullEnded{l, how})
}

// release gives back what a request occupies.
func (l *pull) release(r *run) {
	l.over = true
	if l.answered {
		r.origin.active--
		if l.kind != audit {
			// What was sent and is not in a stored piece has to be sent again.
			unstored := l.sent
			if l.bound {
				unstored = l.start + l.sent - max(l.start, l.content.startOf(l.due))
			}
			if r.world.Origin.OneStream {
				unstored = l.sent // the next one begins at byte 0 again
			}
			if l.got < l.end-l.start {
				r.budget.broke(l, max(unstored, 0))
			}
		}
	}
	r.cease(&l.flow)
	if l.counted {
		l.p.busy--
		if l.got < l.end-l.start || !l.answered {
			l.p.conns-- // a connection that was closed midway is of no more use
		}
	}
}

// drop ends a request because its process is gone.
func (l *pull) drop(r *run) {
	if !l.over {
		l.release(r)
	}
}

type pullEnded struct {
	l   *pull
	how swarm.OriginEnded
}

func (e *pullEnded) happen(r *run) {
	l, p := e.l, e.l.p
	if p.gone || r.held(p, e) {
		return
	}
	if l.kind != audit {
		l.report(r)
	}
	delete(p.pulls, l.req)
	e.how.Source = r.sourceOf(l.at)
	if e.how.Wait > 0 {
		p.beQuiet(r.now, e.how.Source, e.how.Wait)
		r.elsewhere(p, l, &e.how)
	}
	if l.kind != audit {
		r.step(p, e.how)
		return
	}
	result := swarm.AuditFailed
	if d := &p.m.disk; e.how.Failure == swarm.NoFailure && l.content != nil && d.content != nil && d.have.Has(l.piece) {
		result = swarm.AuditEqual
		if d.content.digests[l.piece] != l.content.digests[l.piece] || d.variants[l.piece] != r.origin.face(p.m) {
			result = swarm.AuditDiffers
		}
		r.mark(Audits)
	}
	r.step(p, swarm.Audited{Request: l.req, Result: result, Wait: e.how.Wait, Source: e.how.Source, Changed: e.how.Changed})
}

// beQuiet notes a pause that a process has heard of. Its clock may be a little fast.
func (p *proc) beQuiet(now swarm.Instant, source swarm.SourceID, wait time.Duration) {
	if s, ok := serverNamed(source); ok && !p.wrongClock {
		p.quiet[s] = max(p.quiet[s], now.Add(wait-wait/clockTolerance))
	}
}

// clockTolerance is the part of a pause by which a clock may be wrong: more than any
// Member.Drift.
const clockTolerance = 25

// face is the variant of the file that the origin shows to a member.
func (o *originHost) face(m *member) uint8 {
	if o.twoFaces && m.index%2 == 1 {
		return otherFace
	}
	return 0
}

// misbehave begins what concerns the answers of the origin.
func (o *originHost) misbehave(r *run, f *Fault) {
	till := r.now.Add(f.For)
	switch f.Kind {
	case OriginStalls:
		o.stalledTill = max(o.stalledTill, till)
		if r.world.Origin.OneStream {
			r.budget.allow(r.world.Size) // another stream is begun while this one seems dead
		}
		r.later(f.For, unstalled{})
		r.later(stallTime, leaveStalled{})
	case OriginDrips:
		r.slow(&o.up, f)
	case OriginTruncates:
		o.truncatesTill = max(o.truncatesTill, till)
	case OriginRefuses:
		o.refusesTill = max(o.refusesTill, till)
	case OriginFlaps:
		was := o.current
		o.current = o.version(r)
		r.budget.changed(r)
		r.later(f.For, &flapsBack{was})
	}
}

type unstalled struct{}

func (unstalled) happen(r *run) { r.unpark() }

// leaveStalled is what the real client's time-out does to requests that bring nothing.
type leaveStalled struct{}

func (leaveStalled) happen(r *run) {
	if r.now >= r.origin.stalledTill {
		return
	}
	r.mark(Stalls)
	for _, l := range r.origin.pulls {
		if !l.over && l.answered && l.at == own {
			l.finish(r, swarm.OriginEnded{Failure: swarm.Passing, Busy: true})
		}
	}
	r.later(stallTime, leaveStalled{})
}

type flapsBack struct{ to *content }

func (b *flapsBack) happen(r *run) {
	r.origin.current = b.to
	r.budget.changed(r)
	r.budget.recount(r)
}
