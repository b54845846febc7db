package sim

import (
	"math/rand/v2"
	"testing"
	"time"

	"dragonload/internal/swarm"
)

// load is a cargo of so many bytes.
type load struct {
	left, got int64
	done      swarm.Instant
	shut      bool
}

func (l *load) open(*run) bool { return !l.shut }

func (l *load) owner() *proc { return &proc{} }

func (l *load) next(_ *run, limit int64) int64 {
	n := min(limit, l.left)
	l.left -= n
	return n
}

func (l *load) arrive(r *run, n int64) {
	l.got += n
	if l.left == 0 {
		l.done = r.now
	}
}

// carry lets everything happen that a bare run holds.
func carry(r *run) {
	for {
		e, ok := r.queue.pop()
		if !ok {
			return
		}
		r.now = e.at
		e.what.happen(r)
	}
}

func near(t *testing.T, what string, got swarm.Instant, want time.Duration) {
	t.Helper()
	if d := time.Duration(got) - want; d < -want/20 || d > want/20 {
		t.Errorf("%s after %v, want about %v", what, time.Duration(got), want)
	}
}

func TestQueue_popsInTheOrderOfTimeThenOfPushing(t *testing.T) {
	var q queue
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		q.push(swarm.Instant(rng.IntN(500)), nil)
	}
	last := entry{at: -1}
	for range 10_000 {
		e, ok := q.pop()
		if !ok || e.at < last.at || e.at == last.at && e.seq < last.seq {
			t.Fatalf("popped %+v after %+v", e, last)
		}
		last = e
	}
	if _, ok := q.pop(); ok {
		t.Error("an empty queue gives something")
	}
}

func TestFlow_takesAsLongAsItsNarrowEnd(t *testing.T) {
	for _, c := range []struct{ up, down int64 }{{1e6, 50e6}, {50e6, 1e6}, {1e6, 1e6}} {
		r := &run{}
		from, to := &line{rate: c.up}, &line{rate: c.down}
		l := &load{left: 10e6}
		r.begin(&flow{from: from, to: to, delay: time.Millisecond, divisor: 20, unit: 1 << 20, cargo: l})
		carry(r)
		near(t, "10 MB at 1 MB/s", l.done, 10*time.Second)
		if l.got != 10e6 {
			t.Errorf("%d bytes arrived", l.got)
		}
	}
}

func TestLine_isSharedEvenly(t *testing.T) {
	r := &run{}
	from := &line{rate: 10e6}
	loads := []*load{{left: 5e6}, {left: 5e6}, {left: 10e6}}
	for _, l := range loads {
		r.begin(&flow{from: from, to: &line{rate: 100e6}, divisor: 20, unit: 1 << 20, cargo: l})
	}
	carry(r)
	near(t, "a third of the line", loads[0].done, 1500*time.Millisecond)
	near(t, "a third of the line", loads[1].done, 1500*time.Millisecond)
	near(t, "the whole load", loads[2].done, 2*time.Second)
}

// A slow receiver must not hold up the others of its sender.
func TestLine_givesToOthersWhatASlowReceiverCannotTake(t *testing.T) {
	r := &run{}
	from := &line{rate: 10e6}
	slow, fast := &load{left: 2e6}, &load{left: 9e6}
	r.begin(&flow{from: from, to: &line{rate: 1e6}, divisor: 20, unit: 1 << 20, cargo: slow})
	r.begin(&flow{from: from, to: &line{rate: 100e6}, divisor: 20, unit: 1 << 20, cargo: fast})
	carry(r)
	near(t, "the slow one", slow.done, 2*time.Second)
	near(t, "the fast one", fast.done, time.Second)
}

func TestFlow_waitsWhileTheNetworkIsCut(t *testing.T) {
	r := &run{world: &World{}}
	l := &load{left: 1e6, shut: true}
	r.begin(&flow{from: &line{rate: 1e6}, to: &line{rate: 1e6}, divisor: 20, unit: 1 << 20, cargo: l})
	carry(r)
	if l.got != 0 || len(r.parked) != 1 {
		t.Fatalf("%d bytes through a cut, %d flows parked", l.got, len(r.parked))
	}
	l.shut = false
	r.now = swarm.Instant(5 * time.Second)
	(&healed{&cut{}}).happen(r)
	carry(r)
	near(t, "the end", l.done, 6*time.Second)
}

func TestFlow_endsInMidway(t *testing.T) {
	r := &run{}
	from := &line{rate: 1e6}
	l, other := &load{left: 10e6}, &load{left: 1e6}
	f := &flow{from: from, to: &line{rate: 1e6}, divisor: 20, unit: 1 << 20, cargo: l}
	r.begin(f)
	r.begin(&flow{from: from, to: &line{rate: 1e6}, divisor: 20, unit: 1 << 20, cargo: other})
	r.cease(f)
	carry(r)
	if l.got != 0 || from.flows != 1 {
		t.Errorf("%d bytes of a flow that was ended; %d flows left", l.got, from.flows)
	}
	near(t, "the other one, alone on the line", other.done, 1050*time.Millisecond)
}

func TestTimeFor_roundsUpAndDoesNotOverflow(t *testing.T) {
	for _, c := range []struct {
		n, rate int64
		want    time.Duration
	}{{1, 1e9, 1}, {1, 2e9, 1}, {3, 2, 1500 * time.Millisecond}, {1 << 40, 1 << 30, 1024 * time.Second}} {
		if got := timeFor(c.n, c.rate); got != c.want {
			t.Errorf("%d bytes at %d B/s take %v, want %v", c.n, c.rate, got, c.want)
		}
	}
}

// mailbox keeps what arrives.
type mailbox struct {
	at  []swarm.Instant
	msg []any
}

func (m *mailbox) receive(r *run, msg any) {
	m.at, m.msg = append(m.at, r.now), append(m.msg, msg)
}

func TestPipe_deliversInOrderAndHoldsWhileCut(t *testing.T) {
	r := &run{world: &World{}}
	box := &mailbox{}
	a, b := &place{0}, &place{1}
	p := &pipe{from: a, to: b, delay: 10 * time.Millisecond, end: box}
	r.put(p, 1)
	r.put(p, 2)
	carry(r)
	r.cuts = []*cut{{Fault: &Fault{Kind: Clog, Member: 0, Other: 1}}}
	r.put(p, 3)
	carry(r)
	if len(box.msg) != 2 || box.msg[0] != 1 || box.msg[1] != 2 || box.at[1] != swarm.Instant(10*time.Millisecond) {
		t.Fatalf("got %v at %v", box.msg, box.at)
	}
	r.cuts, r.now = nil, swarm.Instant(time.Second)
	r.pump(p)
	carry(r)
	if len(box.msg) != 3 || box.at[2] != swarm.Instant(time.Second) {
		t.Errorf("got %v at %v after the cut healed", box.msg, box.at)
	}
	p.dead = true
	r.put(p, 4)
	carry(r)
	if len(box.msg) != 3 {
		t.Error("a dead pipe delivers")
	}
}
