package sim

import (
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// Requests between members: FetchPeer at one end, Asked and Serve at the other.

// stallTime is after what time without a byte the real client leaves a source.
const stallTime = 20 * time.Second

type fetch struct {
	flow
	req     swarm.Request
	asker   *proc
	holder  *proc // nil until the request has arrived
	to      *member
	hreq    swarm.Request
	pieces  []piece.Index
	digests []piece.Digest
	content *content
	serving bool
	over    bool // the asker has been told, or is gone

	sentPieces, gotPieces int
	sentBytes, gotBytes   int64 // of the piece under way
	moved                 int64 // in all, at the asker's end
	breakAt               int64 // breaks off after so many; -1: does not
	wrong                 []piece.Index
	checkAt               swarm.Instant
	movedThen             int64
	signAt                swarm.Instant // when the asker hears again that bytes come
	signed                int64         // moved when it last did
}

const (
	// signEvery is how often the driver of a Node tells it that a request is not forgotten,
	// signBytes what must have come for that.
	signEvery = time.Second
	signBytes = 4 << 10
)

func (r *run) fetchPeer(p *proc, a swarm.FetchPeer) {
	to := r.memberOf(a.Peer)
	d := &p.m.disk
	switch {
	case to < 0 || to == p.m.key:
		r.violate(p, "fetches from %v, which is no other member", a.Peer)
		return
	case len(a.Pieces) == 0 || len(a.Digests) != len(a.Pieces) || !d.set:
		r.violate(p, "fetches %d pieces with %d digests", len(a.Pieces), len(a.Digests))
		return
	}
	for k, i := range a.Pieces {
		if int(i) >= d.have.Len() || a.Digests[k].IsZero() {
			r.violate(p, "fetches piece %d with digest %v", i, a.Digests[k])
			return
		}
		if p.node.Have().Has(i) {
			r.violate(p, "fetches piece %d, which is stored", i)
			return
		}
	}
	if d.have.Len()-d.have.Count() <= 32 {
		for _, o := range p.fetches {
			if !o.over && o.pieces[0] == a.Pieces[0] {
				r.mark(Doubled)
			}
		}
	}
	f := &fetch{req: a.Request, asker: p, to: r.reached(p, to), pieces: a.Pieces, digests: a.Digests, breakAt: -1}
	p.fetches[a.Request] = f
	r.watch.add(r, f)
	r.later(r.world.LANDelay, f)
}

// happen is the arrival of the request at the holder.
func (f *fetch) happen(r *run) {
	if f.over {
		return
	}
	if !r.reaches(&f.asker.m.place, &f.to.place) {
		r.later(200*time.Millisecond, f) // sent again by TCP until the watch ends it
		return
	}
	if f.to.dark {
		f.finish(r, true, silence)
		return
	}
	q := f.to.proc
	if q == nil || q.gone {
		f.finish(r, true, r.world.LANDelay)
		return
	}
	if r.held(q, f) {
		return
	}
	if r.neglects(f.to, f) {
		return
	}
	f.holder = q
	q.nextAsk++
	f.hreq = driverRequest | q.nextAsk
	q.asked[f.hreq] = f
	r.step(q, swarm.Asked{Request: f.hreq, Peer: f.asker.m.id, Pieces: f.pieces})
	if !f.over && !f.serving {
		r.later(signEvery, &turn{f})
	}
}

// turn is a word of the holder's that a request waits for its turn.
type turn struct{ f *fetch }

func (t *turn) happen(r *run) {
	f := t.f
	if f.over || f.serving || f.asker.gone || f.holder == nil || f.holder.gone {
		return
	}
	if !f.holder.paused && !f.asker.paused && r.reaches(&f.holder.m.place, &f.asker.m.place) {
		r.step(f.asker, swarm.PeerMoved{Request: f.req})
	}
	r.later(signEvery, t)
}

func (r *run) serve(p *proc, req swarm.Request) {
	f := p.asked[req]
	if f == nil || f.serving {
		r.violate(p, "serves request %d, which does not wait", req)
		return
	}
	f.serving = true
	f.signAt = r.now.Add(signEvery)
	if f.over {
		return // the asker has gone meanwhile; Served is on its way
	}
	d := &p.m.disk
	for _, i := range f.pieces {
		if !d.set || !d.have.Has(i) {
			r.violate(p, "serves piece %d to %v, which is not stored", i, f.asker.m.id)
			return
		}
	}
	if !r.readBack(p, false, f.pieces) {
		f.finish(r, true, r.world.LANDelay)
		return
	}
	f.content = d.content
	layout := d.content.layout
	if r.chance(r.world.PeerLosses) {
		f.breakAt = r.rng.Int64N(layout.PieceLength*int64(len(f.pieces)) + 1)
	}
	f.flow = flow{
		from: &p.m.lanUp, to: &f.asker.m.lanDown, delay: r.world.LANDelay,
		divisor: 4, unit: layout.PieceLength, cargo: f,
	}
	r.begin(&f.flow)
}

func (r *run) refuse(p *proc, req swarm.Request) {
	f := p.asked[req]
	if f == nil || f.serving {
		r.violate(p, "refuses request %d, which does not wait", req)
		return
	}
	delete(p.asked, req)
	f.holder = nil
	r.mark(Refused)
	f.finish(r, true, r.world.LANDelay)
}

// open, next and arrive make a fetch the cargo of its flow.
func (f *fetch) open(r *run) bool {
	return !f.holder.paused && !f.asker.paused && r.reaches(&f.holder.m.place, &f.asker.m.place)
}

func (f *fetch) owner() *proc { return f.asker }

func (f *fetch) next(r *run, limit int64) int64 {
	if f.sentPieces == len(f.pieces) {
		return 0
	}
	d := &f.holder.m.disk
	i := f.pieces[f.sentPieces]
	if f.sentBytes == 0 && (d.content != f.content || !d.have.Has(i)) {
		f.finish(r, true, r.world.LANDelay) // forgotten since: the connection is closed
		return 0
	}
	length := f.content.layout.Length(i)
	n := min(limit, length-f.sentBytes)
	if f.sentBytes += n; f.sentBytes == length {
		f.sentPieces, f.sentBytes = f.sentPieces+1, 0
	}
	return n
}

func (f *fetch) arrive(r *run, n int64) {
	f.moved += n
	f.gotBytes += n
	if f.breakAt >= 0 && f.moved >= f.breakAt {
		r.mark(Losses)
		f.finish(r, true, 0)
		return
	}
	if r.now >= f.signAt && f.moved-f.signed >= signBytes {
		f.signAt, f.signed = r.now.Add(signEvery), f.moved
		r.step(f.asker, swarm.PeerMoved{Request: f.req})
		if f.over {
			return
		}
	}
	i := f.pieces[f.gotPieces]
	if f.gotBytes < f.content.layout.Length(i) {
		return
	}
	sent := f.holder.m.serves(i)
	digest := variant(f.content.digests[i], sent)
	if f.holder.m.lies(i) {
		digest[0]++
		r.mark(Lies)
	}
	p := f.asker
	want := f.digests[f.gotPieces]
	f.gotPieces, f.gotBytes = f.gotPieces+1, 0
	r.result.PeerBytes += f.content.layout.Length(i)
	switch {
	case digest != want:
		f.wrong = append(f.wrong, i)
		r.budget.allow(f.content.layout.PieceLength)
	case p.m.disk.pin.Size != f.content.pin.Size || int(i) >= p.m.disk.have.Len():
		// The asker has gone over to another generation meanwhile.
	default:
		if p.m.disk.content == nil || p.m.disk.content == f.content {
			if r.store(p, f.content, i, sent, false) {
				r.step(p, swarm.PeerStored{Request: f.req, Piece: i})
			}
		}
	}
	if f.gotPieces == len(f.pieces) && !f.over {
		f.finish(r, false, 0)
	}
}

// finish ends a request at both ends; the asker hears of it after a while.
func (f *fetch) finish(r *run, failed bool, after time.Duration) {
	if f.over {
		return
	}
	f.over = true
	r.cease(&f.flow)
	r.later(after, &fetchEnded{f, failed})
	if f.holder != nil {
		r.later(0, &served{f})
	}
}

type fetchEnded struct {
	f      *fetch
	failed bool
}

func (e *fetchEnded) happen(r *run) {
	f := e.f
	if f.asker.gone || r.held(f.asker, e) {
		return
	}
	delete(f.asker.fetches, f.req)
	r.s10WasteIsBounded(f)
	r.step(f.asker, swarm.PeerEnded{Request: f.req, Wrong: f.wrong, Failed: e.failed})
}

type served struct{ f *fetch }

func (e *served) happen(r *run) {
	f := e.f
	if f.holder == nil || f.holder.gone || r.held(f.holder, e) {
		return // it has refused the request meanwhile, or is no more
	}
	delete(f.holder.asked, f.hreq)
	r.step(f.holder, swarm.Served{Request: f.hreq, Bytes: f.moved})
}

// askerGone and holderGone end a request when a process has died.
func (f *fetch) askerGone(r *run) {
	if f.over {
		return
	}
	f.over = true
	r.cease(&f.flow)
	if f.holder != nil {
		r.later(r.world.LANDelay, &served{f})
	}
}

func (f *fetch) holderGone(r *run, silent bool) {
	if f.over {
		return
	}
	r.cease(&f.flow)
	if !silent {
		f.finish(r, true, r.world.LANDelay)
	} // else the asker's Node, or the watch, ends it
}

// lies reports whether a member serves wrong bytes for a piece.
func (m *member) lies(i piece.Index) bool {
	return m.LiesOneIn > 0 && (uint64(i)*0x9e3779b97f4a7c15^uint64(m.index)*0xbf58476d1ce4e5b9)>>33%uint64(m.LiesOneIn) == 0
}

// watch ends requests to members that bring nothing for stallTime. All wait equally
// long, so a queue in order of asking is in order of time too.
type watch struct {
	queue []*fetch
	head  int
}

func (w *watch) add(r *run, f *fetch) {
	f.checkAt, f.movedThen = r.now.Add(stallTime), f.moved
	w.queue = append(w.queue, f)
}

func (w *watch) happen(r *run) {
	for w.head < len(w.queue) && w.queue[w.head].checkAt <= r.now {
		f := w.queue[w.head]
		w.queue[w.head] = nil
		w.head++
		switch {
		case f.over:
		case f.moved == f.movedThen:
			r.mark(Stalls)
			f.finish(r, true, 0)
		default:
			w.add(r, f)
		}
	}
	if w.head > len(w.queue)/2 {
		w.queue = append(w.queue[:0], w.queue[w.head:]...)
		w.head = 0
	}
	r.later(time.Second, w)
}
