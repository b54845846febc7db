package node_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dragonload/internal/catalogue"
	"dragonload/internal/discovery"
	"dragonload/internal/node"
	"dragonload/internal/piece"
	"dragonload/internal/tracker"
)

// around is the network around some nodes, in which each finds the others that announce
// a room, and what stands in strange.
type around struct {
	mu      sync.Mutex
	all     []*finder
	strange []discovery.Found
}

// finder is one node's Discovery.
type finder struct {
	around *around
	sought chan [32]byte

	rooms  []discovery.Room // guarded by around.mu, as is listen
	listen netip.AddrPort
}

func (a *around) finder() *finder {
	f := &finder{around: a, sought: make(chan [32]byte, 100)}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, f)
	return f
}

func (f *finder) Announce(rooms []discovery.Room, listen netip.AddrPort) {
	f.around.mu.Lock()
	f.rooms, f.listen = slices.Clone(rooms), listen
	f.around.mu.Unlock()
}

func (f *finder) Seek(room [32]byte) {
	select {
	case f.sought <- room:
	default:
	}
}

func (f *finder) Run(ctx context.Context, found func(discovery.Found)) {
	for {
		select {
		case <-ctx.Done():
			return
		case room := <-f.sought:
			for _, one := range f.around.members(f, room) {
				found(one)
			}
		}
	}
}

func (a *around) members(of *finder, room [32]byte) (list []discovery.Found) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range a.all {
		for _, r := range f.rooms {
			if f != of && r.ID == room && f.listen.IsValid() {
				list = append(list, discovery.Found{Room: room, Addr: f.listen, Tracker: r.Tracker})
			}
		}
	}
	return append(list, a.strange...)
}

// hostAmid is host with a network around.
func (b *lab) hostAmid(m machine, a *around) *node.Node {
	m.discovery = a.finder()
	n, _ := b.host(m)
	return n
}

// TestDiscovery_membersMeetWithoutTheTracker: nothing answers where the room's tracker is
// said to be. The members find each other, one takes the tracker's place, and the origin
// sends about one copy.
func TestDiscovery_membersMeetWithoutTheTracker(t *testing.T) {
	t.Parallel()
	const size = 16 << 20
	s := newSite(t, size)
	s.set(func() { s.perConn = 512 << 10 })
	b, a := newLab(t), &around{}
	var runs []*run
	for _, name := range []string{"one", "two", "three"} {
		runs = append(runs, download(t, t.Context(), b.hostAmid(b.join(name), a), s.roomSpec(t)))
	}
	for _, r := range runs {
		if r.waitTold(t, "tracker-moved") == "" {
			t.Errorf("nobody takes the tracker's place; it told %s", r.story())
		}
		s.check(t, r.result(t))
	}
	if sent := s.sent.Load(); sent > size*125/100 {
		t.Errorf("the origin sent %d bytes of a file of %d", sent, size)
	}
}

// TestDiscovery_findsTheTrackerThatHasMoved: the room's tracker is not where the invite
// says, but announces itself.
func TestDiscovery_findsTheTrackerThatHasMoved(t *testing.T) {
	t.Parallel()
	const size = 8 << 20
	s := newSite(t, size)
	s.set(func() { s.perConn = 512 << 10 })
	b, a := newLab(t), &around{}
	ctx, cancel := context.WithCancel(context.Background())
	service := tracker.NewService(tracker.Options{State: b.state, Rooms: b.first.keyring, Self: b.first.folder.Identity().ID, Log: testLog(t), Seed: 1})
	var running sync.WaitGroup
	running.Go(func() {
		if err := service.Run(ctx); err != nil {
			t.Errorf("the tracker ended with %v", err)
		}
	})
	b.first.discovery = a.finder()
	o := b.first.options()
	o.Serve, o.KeepServing, o.Tracker = true, true, service
	// What it tells of itself is out of date too.
	o.Advertise = b.addr
	up, stop := startStoppable(t, o)
	t.Cleanup(func() {
		cancel()
		stop()
		running.Wait()
	})
	runs := []*run{download(t, t.Context(), up, s.roomSpec(t))}
	for _, name := range []string{"one", "two"} {
		n := b.hostAmid(b.join(name), a)
		if _, err := n.ReportUnreachable(t.Context(), "lab", piece.NodeID{1}); err != nil {
			t.Errorf("the tracker was not asked: %v", err)
		}
		runs = append(runs, download(t, t.Context(), n, s.roomSpec(t)))
	}
	for _, r := range runs {
		s.check(t, r.result(t))
		if moved := r.told("tracker-moved"); moved != "" {
			t.Errorf("it told %s", r.story())
		}
	}
	if sent := s.sent.Load(); sent > size*125/100 {
		t.Errorf("the origin sent %d bytes of a file of %d", sent, size)
	}
}

// TestDiscovery_believesNobody: addresses at which nobody, a stranger and a member of
// another room are, said to be trackers of the room, do no harm and are not asked often.
func TestDiscovery_believesNobody(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4<<20)
	s.set(func() { s.perConn = 1 << 20 })
	b, a := newLab(t), &around{}

	var asked atomic.Int64
	stranger, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	var serving sync.WaitGroup
	defer serving.Wait()
	defer stranger.Close()
	serving.Go(func() {
		for {
			conn, err := stranger.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			// It refuses as one does that knows the other for no member.
			serving.Go(func() {
				defer conn.Close()
				conn.Write([]byte{21, 3, 3, 0, 2, 2, 42})
				conn.Read(make([]byte, 1<<10))
			})
		}
	})
	other := newLab(t)
	other.run()
	room := b.creator.ID
	for _, addr := range []string{b.addr, stranger.Addr().String(), other.addr} {
		for _, isTracker := range []bool{true, false} {
			a.strange = append(a.strange, discovery.Found{Room: room, Addr: netip.MustParseAddrPort(addr), Tracker: isTracker})
		}
	}
	r := download(t, t.Context(), b.hostAmid(b.join("one"), a), s.roomSpec(t))
	s.check(t, r.result(t))
	if n := asked.Load(); n == 0 || n > 40 {
		t.Errorf("the stranger was asked %d times", n)
	}
}

// void is a network in which nobody is at some address, which takes its time to show.
type void struct {
	node.Network
	addr string
}

func (v *void) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if addr == v.addr {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}

func (v *void) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, network, addr)
}

// TestDiscovery_asksWhileTheKnownAddressIsDialled: nobody is where the room's tracker is said
// to be, and the system does not notice. What is asked, be it the first time or again, is
// answered by the tracker that is found meanwhile, though it tells the old address itself.
func TestDiscovery_asksWhileTheKnownAddressIsDialled(t *testing.T) {
	t.Parallel()
	b, a := newLab(t), &around{}
	ctx, cancel := context.WithCancel(context.Background())
	service := tracker.NewService(tracker.Options{State: b.state, Rooms: b.first.keyring, Self: b.first.folder.Identity().ID, Log: testLog(t), Seed: 1})
	var running sync.WaitGroup
	running.Go(func() {
		if err := service.Run(ctx); err != nil {
			t.Errorf("the tracker ended with %v", err)
		}
	})
	b.first.discovery, b.first.network = a.finder(), &void{addr: b.addr}
	o := b.first.options()
	o.Serve, o.KeepServing, o.Tracker, o.Advertise = true, true, service, b.addr
	_, stop := startStoppable(t, o)
	t.Cleanup(func() {
		cancel()
		stop()
		running.Wait()
	})
	m := b.join("one")
	m.network = &void{addr: b.addr}
	n := b.hostAmid(m, a)
	for k := range 3 {
		within, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond) // the system's own is longer
		if _, err := n.Search(within, "lab", catalogue.Query{}); err != nil {
			t.Errorf("asked for the %d. time: %v", k+1, err)
		}
		cancel()
	}
}
