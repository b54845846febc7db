package node_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"dragonload/internal/node"
	"dragonload/internal/room"
	"dragonload/internal/swarm"
	"dragonload/internal/tracker"
)

// These tests run several nodes of one room, with a real tracker, over loopback.

// lab is a room and the machines that are members of it.
type lab struct {
	t       *testing.T
	addr    string // of the tracker
	state   *tracker.Memory
	invite  room.Invite
	creator *room.Room
	first   machine
	stop    func() // ends the tracker's node
	network node.Network
	limits  swarm.TrackerOptions
	heard   chan heard // what trackers hear of the catalogue; nil: nobody wants to know
}

// machine is what one member has on disk.
type machine struct {
	dir     string
	folder  *room.Folder
	keyring *room.Keyring
	network node.Network

	discovery node.Discovery // nil: none
}

func newMachine(t *testing.T) machine {
	t.Helper()
	m := machine{dir: stateDir(t), keyring: &room.Keyring{}}
	var err error
	if m.folder, err = room.OpenFolder(m.dir); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m machine) options() node.Options {
	return node.Options{
		Discovery: m.discovery, Network: m.network, StateDir: m.dir, Rooms: m.folder, Keyring: m.keyring, Identity: m.folder.Identity(), Listen: "127.0.0.1:0",
	}
}

// newLab makes a room. Its tracker does not run yet.
func newLab(t *testing.T) *lab {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return newLabAt(t, l.Addr().String(), nil)
}

// newLabAt makes a room whose tracker will listen on addr of a network.
func newLabAt(t *testing.T, addr string, network node.Network) *lab {
	t.Helper()
	b := &lab{t: t, addr: addr, state: tracker.NewMemory(), first: newMachine(t), network: network}
	b.first.network = network
	var err error
	if b.creator, err = b.first.folder.Create("lab", b.addr, b.first.folder.Identity()); err != nil {
		t.Fatal(err)
	}
	b.first.keyring.Add(b.creator)
	if b.invite, err = b.creator.NewInvite(0, time.Hour, time.Now()); err != nil {
		t.Fatal(err)
	}
	return b
}

// run starts the creator's node with the room's tracker, as `up` does.
func (b *lab) run() *node.Node {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	service := tracker.NewService(tracker.Options{State: b.telling(b.state), Rooms: b.first.keyring, Log: testLog(b.t), Seed: 1, Machine: b.limits})
	var running sync.WaitGroup
	running.Go(func() {
		if err := service.Run(ctx); err != nil {
			b.t.Errorf("the tracker ended with %v", err)
		}
	})
	o := b.first.options()
	o.Listen, o.Serve, o.KeepServing, o.Tracker = b.addr, true, true, service
	n, stop := startStoppable(b.t, o)
	b.stop = func() {
		cancel()
		stop()
		running.Wait()
	}
	b.t.Cleanup(b.stop)
	return n
}

// join makes another machine a member.
func (b *lab) join(name string) machine {
	b.t.Helper()
	m := newMachine(b.t)
	m.network = b.network
	csr, err := b.invite.Request(m.folder.Identity(), name)
	if err != nil {
		b.t.Fatal(err)
	}
	chain, err := b.creator.Admit(b.t.Context(), b.invite.Token, csr, time.Now(), b.state)
	if err != nil {
		b.t.Fatal(err)
	}
	r, err := m.folder.Join(b.invite, chain, time.Now())
	if err != nil {
		b.t.Fatal(err)
	}
	m.keyring.Add(r)
	return m
}

func (s *site) roomSpec(t *testing.T) node.Spec {
	spec := s.spec(t)
	spec.Room = "lab"
	return spec
}

// A daemon serves what it has for as long as it runs; it must not hold on to the origin's
// connections for that.
func TestRoom_hangsUpOnceTheFileIsWhole(t *testing.T) {
	t.Parallel()
	s := &site{data: fileOf(1 << 20), etag: `"v1"`}
	var mu sync.Mutex
	open := make(map[net.Conn]bool)
	gone := make(chan struct{}, 100)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.Config.ConnState = func(conn net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		open[conn] = true
		if state == http.StateClosed {
			delete(open, conn)
			gone <- struct{}{}
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	b := newLab(t)
	s.check(t, download(t, t.Context(), b.run(), s.roomSpec(t)).result(t))
	for late := time.After(30 * time.Second); ; {
		mu.Lock()
		left := len(open)
		mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-gone:
		case <-late:
			t.Fatalf("%d connections to the origin are still open", left)
		}
	}
}

func TestRoom_membersGetTheFileWithOneCopyFromTheOrigin(t *testing.T) {
	t.Parallel()
	s := newSite(t, 16<<20)
	s.set(func() { s.perConn = 2 << 20 }) // the origin is the narrow place
	b := newLab(t)
	nodes := []*node.Node{b.run()}
	for i := range 3 {
		nodes = append(nodes, start(t, b.join(fmt.Sprintf("member-%d", i)).options()))
	}
	var runs []*run
	for _, n := range nodes {
		runs = append(runs, download(t, t.Context(), n, s.roomSpec(t)))
	}
	var origin, peers int64
	for _, r := range runs {
		saved := r.result(t)
		s.check(t, saved)
		origin += saved.OriginBytes
		peers += saved.PeerBytes
		if saved.Checked != "audited" && saved.Checked != "origin" {
			t.Errorf("checked=%s, want audited; it told %s", saved.Checked, r.story())
		}
	}
	size := int64(len(s.data))
	if sent := s.sent.Load(); sent > size*115/100 || origin > size*115/100 {
		t.Errorf("the origin sent %d bytes, %d were counted, for a file of %d", sent, origin, size)
	}
	if peers < 2*size {
		t.Errorf("%d bytes came from peers, want about three times %d", peers, size)
	}
}

func TestRoom_newcomerGetsTheFileFromMembersThatServeOn(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4<<20)
	b := newLab(t)
	up := b.run()
	s.check(t, download(t, t.Context(), up, s.roomSpec(t)).result(t))
	before := s.sent.Load()
	r := download(t, t.Context(), start(t, b.join("late").options()), s.roomSpec(t))
	saved := r.result(t)
	s.check(t, saved)
	if again := s.sent.Load() - before; again > int64(len(s.data))/4 {
		t.Errorf("the origin sent %d bytes again, want next to none; it told %s", again, r.story())
	}
	if saved.PeerBytes < int64(len(s.data))*3/4 {
		t.Errorf("%d bytes came from peers", saved.PeerBytes)
	}

	// The same URL again on the daemon: the file that is only served makes place.
	s.check(t, download(t, t.Context(), up, s.roomSpec(t)).result(t))
}

func TestRoom_goesOnWithoutATracker(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2<<20)
	b := newLab(t)
	spec := s.roomSpec(t)
	spec.Linger = 0
	r := download(t, t.Context(), start(t, b.join("lonely").options()), spec)
	s.check(t, r.result(t))
}

func TestRoom_finishesWhenTheTrackersHostEnds(t *testing.T) {
	t.Parallel()
	s := newSite(t, 12<<20)
	s.set(func() { s.perConn = 2 << 20 })
	b := newLab(t)
	b.run()
	var runs []*run
	for i := range 2 {
		spec := s.roomSpec(t)
		spec.Linger = 2 * time.Second
		runs = append(runs, download(t, t.Context(), start(t, b.join(fmt.Sprintf("member-%d", i)).options()), spec))
	}
	for p := range runs[0].progress {
		if p.Have > 2<<20 {
			break
		}
	}
	b.stop()
	for _, r := range runs {
		s.check(t, r.result(t))
		if codes := r.warnings(); !slices.Contains(codes, "tracker-away") {
			t.Errorf("got warnings %v, want tracker-away among them", codes)
		}
	}
}

func TestRoom_streamOfUnknownLengthIsFannedOut(t *testing.T) {
	t.Parallel()
	s := newSite(t, 6<<20)
	s.set(func() {
		s.perConn = 6 << 20
		s.handle = func(w http.ResponseWriter, r *http.Request) { s.chunked(w, r) }
	})
	b := newLab(t)
	nodes := []*node.Node{b.run(), start(t, b.join("second").options()), start(t, b.join("third").options())}
	var runs []*run
	for _, n := range nodes {
		runs = append(runs, download(t, t.Context(), n, s.roomSpec(t)))
	}
	for _, r := range runs {
		s.check(t, r.result(t))
	}
	if sent := s.sent.Load(); sent > int64(len(s.data))*3/2 {
		t.Errorf("the origin sent %d bytes, want the stream of %d once", sent, len(s.data))
	}
}

func TestRoom_foreignMachineIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1<<20)
	m := newMachine(t)
	download(t, t.Context(), start(t, m.options()), s.roomSpec(t)).failure(t, node.ExitRoom)
}

// What hears of a download's end may begin the same at once: its place is free by then.
func TestDownload_mayBeginAgainOnceItsEndIsTold(t *testing.T) {
	t.Parallel()
	b, s := newLab(t), newSite(t, 1<<20)
	b.run()
	s.set(func() { s.handle = http.NotFound })
	n := start(t, b.join("one").options())
	spec := node.Spec{URL: s.url(), Dir: t.TempDir(), Room: "lab"}
	var again error
	err := n.Download(t.Context(), spec, func(ev node.Event) {
		if ev.Failed != nil {
			again = n.Download(t.Context(), spec, func(node.Event) {})
		}
	})
	for _, err := range []error{err, again} {
		if e := node.AsError(err); e.Exit != node.ExitNotFound {
			t.Errorf("got %v, want the origin's 404", err)
		}
	}
}
