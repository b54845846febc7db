package discovery

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// wire is a network without multicast routers: what one sends all get, itself included.
type wire struct {
	mu    sync.Mutex
	cards []*card
	sent  atomic.Int64
}

type card struct {
	wire   *wire
	addr   netip.AddrPort
	in     chan received
	closed chan struct{}
}

func (w *wire) card(addr netip.Addr) *card {
	c := &card{wire: w, addr: netip.AddrPortFrom(addr, port), in: make(chan received, 100), closed: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cards = append(w.cards, c)
	return c
}

func (c *card) send(b []byte, _ int) error {
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	c.wire.sent.Add(1)
	for _, other := range c.wire.cards {
		select {
		case other.in <- received{append([]byte(nil), b...), c.addr, 3}:
		default:
		}
	}
	return nil
}

func (c *card) receive(b []byte) (int, netip.AddrPort, int, error) {
	select {
	case r := <-c.in:
		return copy(b, r.data), r.from, r.index, nil
	case <-c.closed:
		return 0, netip.AddrPort{}, 0, net.ErrClosed
	}
}

func (c *card) close() error {
	close(c.closed)
	return nil
}

// host is a machine at the wire, which can move.
type host struct {
	mu   sync.Mutex
	addr netip.Prefix
	wire *wire
}

func (w *wire) host(addr string) *host { return &host{addr: netip.MustParsePrefix(addr), wire: w} }

func (h *host) move(addr string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addr = netip.MustParsePrefix(addr)
}

func (h *host) options(seed byte) Options {
	return Options{
		interfaces: func() ([]iface, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			if !h.addr.IsValid() {
				return nil, nil
			}
			return []iface{{index: 3, name: "lan", nets: []netip.Prefix{h.addr}}}, nil
		},
		open: func(context.Context, []iface) ([]socket, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			return []socket{h.wire.card(h.addr.Addr())}, nil
		},
		random: rand.NewChaCha8([32]byte{seed}),
	}
}

// finds are what a Service has told.
type finds struct {
	mu   sync.Mutex
	list []Found
}

func (f *finds) add(one Found) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, one)
}

func (f *finds) has(addr string, tracker bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, one := range f.list {
		if one.Addr.String() == addr && one.Tracker == tracker {
			return true
		}
	}
	return false
}

// TestService_findsOthersThatMove has two members find each other, then one of them at
// another address; a member of another room finds nobody.
func TestService_findsOthersThatMove(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		run := func(h *host, seed byte, r Room) (*Service, *finds) {
			s, f := New(h.options(seed)), &finds{}
			running.Go(func() { s.Run(ctx, f.add) })
			s.Announce([]Room{r}, netip.MustParseAddrPort("[::]:4100"))
			return s, f
		}
		hostA := w.host("10.0.0.1/24")
		_, a := run(hostA, 1, Room{ID: roomOf(1).ID, Tracker: true})
		synctest.Wait()
		serviceB, b := run(w.host("10.0.0.2/24"), 2, roomOf(1))
		_, c := run(w.host("10.0.0.3/24"), 3, roomOf(2))
		serviceB.Seek(roomOf(1).ID)
		time.Sleep(time.Second)
		if !a.has("10.0.0.2:4100", false) || !b.has("10.0.0.1:4100", true) || len(c.list) != 0 {
			t.Errorf("a found %v, b %v, c %v", a.list, b.list, c.list)
		}
		hostA.move("10.0.0.9/24")
		time.Sleep(rescanEvery + time.Second)
		if !b.has("10.0.0.9:4100", true) {
			t.Errorf("b found %v after the move", b.list)
		}
		time.Sleep(time.Minute)
		before := w.sent.Load()
		time.Sleep(10 * time.Minute)
		if after := w.sent.Load(); after != before {
			t.Errorf("%d packets though nobody is sought", after-before)
		}
		cancel()
		running.Wait()
		for _, one := range w.cards {
			select {
			case <-one.closed:
			default:
				t.Error("a socket was left open")
			}
		}
	})
}

// TestService_waitsForANetwork: where there is none, or multicast fails, nothing is lost
// but time.
func TestService_waitsForANetwork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		h := &host{wire: w}
		o := h.options(1)
		open := o.open
		var tries atomic.Int64
		o.open = func(ctx context.Context, i []iface) ([]socket, error) {
			if tries.Add(1) == 1 {
				return nil, errors.New("no such device")
			}
			return open(ctx, i)
		}
		s, f := New(o), &finds{}
		running.Go(func() { s.Run(ctx, f.add) })
		time.Sleep(time.Minute)
		s.Announce([]Room{roomOf(1)}, netip.MustParseAddrPort("0.0.0.0:4100"))
		time.Sleep(time.Minute + rescanEvery/2)
		if tries.Load() != 0 || w.sent.Load() != 0 {
			t.Errorf("%d tries and %d packets without a network", tries.Load(), w.sent.Load())
		}
		h.move("10.0.0.1/24")
		time.Sleep(rescanEvery + time.Second)
		if tries.Load() != 1 {
			t.Errorf("%d tries", tries.Load())
		}
		time.Sleep(rescanEvery + time.Second)
		if tries.Load() != 2 || w.sent.Load() == 0 {
			t.Errorf("%d tries and %d packets", tries.Load(), w.sent.Load())
		}
	})
}

func TestFind_triesTrackersOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		for k, r := range []Room{roomOf(1), {ID: roomOf(2).ID, Tracker: true}, {ID: roomOf(1).ID, Tracker: true}} {
			s := New(w.host(netip.AddrFrom4([4]byte{10, 0, 0, byte(k + 1)}).String() + "/24").options(byte(k + 1)))
			s.Announce([]Room{r}, netip.MustParseAddrPort("0.0.0.0:4100"))
			running.Go(func() { s.Run(ctx, func(Found) {}) })
		}
		time.Sleep(time.Minute)
		var tried []string
		within, stop := context.WithTimeout(ctx, time.Second)
		defer stop()
		began := time.Now()
		ok := Find(within, roomOf(1).ID, w.host("10.0.0.9/24").options(9), func(a netip.AddrPort) bool {
			tried = append(tried, a.String())
			return true
		})
		if !ok || len(tried) != 1 || tried[0] != "10.0.0.3:4100" || time.Since(began) > answerAfter+answerWait {
			t.Errorf("found %v, tried %v after %s", ok, tried, time.Since(began))
		}
		within, stop = context.WithTimeout(ctx, time.Second)
		defer stop()
		if Find(within, roomOf(7).ID, w.host("10.0.0.9/24").options(8), func(a netip.AddrPort) bool { return true }) {
			t.Error("a room was found that is not there")
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}
