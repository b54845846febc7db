package sim

import (
	"math/bits"
	"time"

	"dragonload/internal/swarm"
)

// Bytes move in chunks. A sending line gives its flows turns, one chunk each, and is
// busy with a chunk for as long as its rate says. A receiving line takes chunks in the
// order in which they were sent, at its own rate, while they are still being sent (a
// fast receiver adds no time to what a slow sender sends, and the other way round).
// What a flow has sent and not delivered is bounded, so a slow receiver holds back
// its flows, and the sender's turns go to the others: the fair shares of TCP, with
// two events a chunk.

const minChunk = 2 << 10

// line is one direction of a link.
type line struct {
	rate   int64 // bytes/s
	flows  int   // open flows that send here; a shared sender sends smaller chunks
	slowed int   // slow-downs in force

	// As the sending end.
	turns ring
	busy  bool
	with  *flow

	// As the receiving end: when everything sent so far will be through.
	free swarm.Instant
}

// cargo is what a flow carries.
type cargo interface {
	// next returns how many bytes the next chunk has, at most limit; 0 if all was sent.
	next(r *run, limit int64) int64
	// arrive takes in a chunk.
	arrive(r *run, bytes int64)
	// open reports whether the network lets the flow's bytes through.
	open(r *run) bool
	// owner is the process at the receiving end.
	owner() *proc
}

// flow is the bytes of one request on their way.
type flow struct {
	from, to *line
	delay    time.Duration
	divisor  int64 // a chunk takes about a second divided by it, at most
	unit     int64 // no chunk is larger than this
	cargo    cargo

	begun  bool
	queued bool // waits for a turn
	parked bool // waits for the network to heal
	dead   bool
	flight []int64 // chunks sent and not arrived, in order
	head   int
	window int
}

func (f *flow) inFlight() int { return len(f.flight) - f.head }

// begin puts a flow on its sending line.
func (r *run) begin(f *flow) {
	f.from.flows++
	f.begun = true
	f.window = 2 + int(min(30, 2*f.delay/timeFor(f.limit(), f.to.rate)))
	r.offer(f)
}

// cease takes a flow off its line, if it was on one. What is in flight still fills
// the lines, but arrives nowhere.
func (r *run) cease(f *flow) {
	if f.begun && !f.dead {
		f.from.flows--
	}
	f.dead = true
}

// limit is how large a chunk may be now.
func (f *flow) limit() int64 {
	rate := min(f.from.rate/int64(max(1, f.from.flows)), f.to.rate)
	return min(f.unit, max(minChunk, rate/f.divisor))
}

// offer gives a flow that may send a place in the turns of its line.
func (r *run) offer(f *flow) {
	if f.dead || f.queued || f.parked || f.inFlight() >= f.window || f.from.with == f {
		return
	}
	f.queued = true
	f.from.turns.push(f)
	r.send(f.from)
}

// send lets an idle line begin with its next chunk.
func (r *run) send(l *line) {
	for !l.busy {
		f := l.turns.pop()
		if f == nil {
			return
		}
		f.queued = false
		if f.dead {
			continue
		}
		if !f.cargo.open(r) {
			r.park(f)
			continue
		}
		n := f.cargo.next(r, f.limit())
		if n == 0 {
			continue
		}
		sent := r.now.Add(timeFor(n, l.rate))
		f.to.free = max(f.to.free, r.now).Add(timeFor(n, f.to.rate))
		f.flight = append(f.flight, n)
		l.busy, l.with = true, f
		r.queue.push(sent, (*chunkSent)(l))
		r.queue.push(max(sent, f.to.free).Add(f.delay), (*chunkArrived)(f))
	}
}

type chunkSent line

func (c *chunkSent) happen(r *run) {
	l := (*line)(c)
	f := l.with
	l.busy, l.with = false, nil
	r.offer(f)
	r.send(l)
}

type chunkArrived flow

func (c *chunkArrived) happen(r *run) {
	f := (*flow)(c)
	if r.held(f.cargo.owner(), c) {
		return
	}
	n := f.flight[f.head]
	if f.head++; f.head == len(f.flight) {
		f.flight, f.head = f.flight[:0], 0
	}
	if f.dead {
		return
	}
	f.cargo.arrive(r, n)
	r.offer(f)
}

// park sets a flow aside until heal.
func (r *run) park(f *flow) {
	f.parked = true
	r.parked = append(r.parked, f)
}

// timeFor returns how long n bytes take at a rate, rounded up.
func timeFor(n, rate int64) time.Duration {
	if n < 1<<33 {
		return time.Duration((n*1e9 + rate - 1) / rate)
	}
	hi, lo := bits.Mul64(uint64(n), 1e9)
	t, _ := bits.Div64(hi, lo, uint64(rate))
	return time.Duration(t)
}

// ring is a queue of flows.
type ring struct {
	at   []*flow
	head int
	n    int
}

func (q *ring) push(f *flow) {
	if q.n == len(q.at) {
		bigger := make([]*flow, max(4, 2*q.n))
		for i := range q.n {
			bigger[i] = q.at[(q.head+i)%len(q.at)]
		}
		q.at, q.head = bigger, 0
	}
	q.at[(q.head+q.n)%len(q.at)] = f
	q.n++
}

func (q *ring) pop() *flow {
	if q.n == 0 {
		return nil
	}
	f := q.at[q.head]
	q.at[q.head] = nil
	q.head = (q.head + 1) % len(q.at)
	q.n--
	return f
}
