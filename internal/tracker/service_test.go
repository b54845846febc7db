package tracker_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
	"dragonload/internal/swarm"
	"dragonload/internal/tracker"
)

// host is a machine with a state folder of its own.
type host struct {
	folder *room.Folder
	room   *room.Room
}

// site is a running tracker on loopback, with a room made on its host.
type site struct {
	t       testing.TB
	addr    string
	home    host
	keyring *room.Keyring
	state   *tracker.Memory
	service *tracker.Service
	stop    func()
}

// newSite starts a tracker. Real sockets and the real splitter are below it; only the
// limits are the test's.
func newSite(t testing.TB, o tracker.Options) *site {
	t.Helper()
	s, listener := listen(t)
	s.home.folder = newFolder(t)
	s.home.room = s.create(s.home.folder, "lab")
	s.serve(listener, o)
	return s
}

func listen(t testing.TB) (*site, net.Listener) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &site{t: t, addr: listener.Addr().String(), keyring: &room.Keyring{}, state: tracker.NewMemory()}, listener
}

// serve runs the service until the test ends, or stop is called.
func (s *site) serve(listener net.Listener, o tracker.Options) {
	t := s.t
	t.Helper()
	if o.State == nil {
		o.State = s.state
	}
	o.Rooms, o.Seed = s.keyring, 1
	o.Log = slog.New(slog.DiscardHandler)
	service := tracker.NewService(o)
	s.service = service
	protos := []string{room.ALPNControl, room.ALPNJoin}
	split := room.Split(listener, s.keyring.ServerTLS(protos...), room.SplitOptions{}, protos...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- service.Run(ctx) }()
	go func() { done <- service.Serve(ctx, split.Listener(room.ALPNControl), split.Listener(room.ALPNJoin)) }()
	stopped := false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Errorf("tracker ended: %v", err)
			}
		}
		if err := split.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(s.stop)
}

func newFolder(t testing.TB) *room.Folder {
	t.Helper()
	folder, err := room.OpenFolder(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

// create makes a room that this site tracks.
func (s *site) create(folder *room.Folder, name string) *room.Room {
	s.t.Helper()
	r, err := folder.Create(name, s.addr, folder.Identity())
	if err != nil {
		s.t.Fatal(err)
	}
	s.keyring.Add(r)
	return r
}

// join makes a new host a member through the join service.
func (s *site) join(r *room.Room, name string) host {
	s.t.Helper()
	invite, err := r.NewInvite(0, time.Hour, time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	h := host{folder: newFolder(s.t)}
	got, err := s.use(invite, h.folder.Identity(), name)
	if err != nil {
		s.t.Fatal(err)
	}
	if h.room, err = h.folder.Join(invite, got.Chain, time.Now()); err != nil {
		s.t.Fatal(err)
	}
	return h
}

func (s *site) use(invite room.Invite, id *room.Identity, name string) (rpc.Membership, error) {
	csr, err := invite.Request(id, name)
	if err != nil {
		s.t.Fatal(err)
	}
	return rpc.Join(s.t.Context(), s.addr, invite.TLS(), nil, rpc.JoinRequest{Room: invite.RoomID, Token: invite.Token, CSR: csr})
}

// client connects a host to the tracker.
func (s *site) client(h host) *rpc.Tracker {
	s.t.Helper()
	c, err := rpc.NewTracker(s.addr, h.room.ClientTLS(room.ALPNControl, piece.NodeID{}), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

func (s *site) open(c *rpc.Tracker, pool swarm.PoolID) *rpc.Session {
	s.t.Helper()
	session, err := c.Open(s.t.Context(), pool)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(session.Close)
	return session
}

var announce = swarm.Announce{Addr: ":4100", Fetches: true, Wants: true}

// next receives messages until one of type M.
func next[M swarm.ToNode](t *testing.T, s *rpc.Session) M {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		m, err := s.Receive(ctx)
		if err != nil {
			t.Fatalf("wait for %T: %v", *new(M), err)
		}
		if m, ok := m.(M); ok {
			return m
		}
	}
}

// end receives until the session is over.
func end(t *testing.T, s *rpc.Session) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		if _, err := s.Receive(ctx); err != nil {
			return err
		}
	}
}

// beat reports until the test or the session ends, as a node does.
func beat(t *testing.T, s *rpc.Session) {
	ticker := time.NewTicker(200 * time.Millisecond)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				if !s.Send(swarm.Report{}) {
					return
				}
			case <-t.Context().Done():
				return
			}
		}
	}()
	t.Cleanup(func() { <-done })
}

func TestService_introducesMembersAndLeasesEachPieceOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	a := s.open(s.client(s.home), swarm.PoolID{1})
	a.Send(announce)
	beat(t, a)
	next[swarm.Welcome](t, a)
	next[swarm.Probe](t, a)

	other := s.join(s.home.room, "b")
	b := s.open(s.client(other), swarm.PoolID{1})
	b.Send(announce)
	beat(t, b)
	next[swarm.Welcome](t, b)
	peers := next[swarm.Handout](t, b).Peers
	if len(peers) != 1 || peers[0].ID != s.home.folder.Identity().ID || peers[0].Addr != "127.0.0.1:4100" {
		t.Errorf("handed out %v, want the first member at the address that it was seen at", peers)
	}

	pin := piece.Pin{Size: 100 * piece.MinLength, Kind: piece.StrongETag, Validator: `"v1"`}
	a.Send(swarm.Probed{Pin: pin, Extent: piece.Extent{Count: 2}})
	if got := next[swarm.Pinned](t, b); got.Pin != pin {
		t.Errorf("pinned %v, want %v", got.Pin, pin)
	}
	for _, e := range next[swarm.Lease](t, b).Extents {
		if !e.Valid(100) || e.First < 2 {
			t.Errorf("leased %v, of which another has some", e)
		}
	}
}

func TestService_workOfADeadMemberGoesToOthersAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	// The connection of the member that dies is the test's to break.
	var raw net.Conn
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		var err error
		raw, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return raw, err
	}
	dying, err := rpc.NewTracker(s.addr, s.home.room.ClientTLS(room.ALPNControl, piece.NodeID{}), dial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dying.Close)
	a := s.open(dying, swarm.PoolID{1})
	a.Send(announce)
	next[swarm.Probe](t, a)
	b := s.open(s.client(s.join(s.home.room, "b")), swarm.PoolID{1})
	b.Send(announce)
	beat(t, b)
	next[swarm.Welcome](t, b)
	raw.Close()
	began := time.Now()
	next[swarm.Probe](t, b)
	if took := time.Since(began); took > 800*time.Millisecond {
		t.Errorf("the other got the dead member's work after %v", took)
	}
	if err := end(t, a); err == nil {
		t.Error("the session of the dead member did not end")
	}
}

func TestService_newSessionOfAMemberTakesThePlaceOfItsOld(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	old := s.open(s.client(s.home), swarm.PoolID{1})
	old.Send(announce)
	next[swarm.Welcome](t, old)
	fresh := s.open(s.client(s.home), swarm.PoolID{1})
	fresh.Send(announce)
	next[swarm.Welcome](t, fresh)
	if err := end(t, old); !errors.Is(err, rpc.ErrReplaced) {
		t.Errorf("old session ended with %v, want ErrReplaced", err)
	}
	// The end of the old one is none of the new one's business.
	beat(t, fresh)
	next[swarm.Probe](t, fresh)
	other := s.open(s.client(s.join(s.home.room, "b")), swarm.PoolID{1})
	other.Send(announce)
	if peers := next[swarm.Handout](t, other).Peers; len(peers) != 1 {
		t.Errorf("handed out %v, want the one member", peers)
	}
}

func TestService_leavingEndsASessionInGoodOrder(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	a := s.open(s.client(s.home), swarm.PoolID{1})
	a.Send(announce)
	next[swarm.Probe](t, a)
	b := s.open(s.client(s.join(s.home.room, "b")), swarm.PoolID{1})
	b.Send(announce)
	beat(t, b)
	next[swarm.Welcome](t, b)
	a.Send(swarm.Leave{})
	a.Close()
	next[swarm.Probe](t, b)
}

func TestService_silentMemberIsCut(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{Machine: swarm.TrackerOptions{Silence: 300 * time.Millisecond}})
	a := s.open(s.client(s.home), swarm.PoolID{1})
	a.Send(announce)
	next[swarm.Welcome](t, a)
	if err := end(t, a); !errors.Is(err, rpc.ErrCut) {
		t.Errorf("ended with %v, want ErrCut", err)
	}
}

func TestService_poolsOfRoomsAreApart(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	// The same key, the same pool id and the same tracker, but another room.
	twin := host{folder: s.home.folder, room: s.create(s.home.folder, "other")}
	a := s.open(s.client(s.home), swarm.PoolID{1})
	a.Send(announce)
	beat(t, a)
	next[swarm.Probe](t, a)
	b := s.open(s.client(twin), swarm.PoolID{1})
	b.Send(announce)
	beat(t, b)
	next[swarm.Probe](t, b) // and not Handout, nor a's end
	c := s.open(s.client(s.join(twin.room, "c")), swarm.PoolID{1})
	c.Send(announce)
	beat(t, c)
	if peers := next[swarm.Handout](t, c).Peers; len(peers) != 1 {
		t.Errorf("handed out %v, want the one member of the same room", peers)
	}
	pin := piece.Pin{Size: 10 * piece.MinLength, Kind: piece.StrongETag, Validator: `"of a"`}
	a.Send(swarm.Probed{Pin: pin, Extent: piece.Extent{Count: 1}})
	next[swarm.Pinned](t, a)
	pin.Validator = `"of b"`
	b.Send(swarm.Probed{Pin: pin, Extent: piece.Extent{Count: 1}})
	if got := next[swarm.Pinned](t, c).Pin; got != pin {
		t.Errorf("member of one room was told %v, want %v", got, pin)
	}
}

func TestService_refusesRoomsThatItDoesNotTrack(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{Serves: func(*room.Room) bool { return false }})
	if _, err := s.client(s.home).Open(t.Context(), swarm.PoolID{1}); !errors.Is(err, rpc.ErrRoomUnknown) {
		t.Errorf("session: %v, want ErrRoomUnknown", err)
	}
	invite, err := s.home.room.NewInvite(0, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.use(invite, newFolder(t).Identity(), "x"); !errors.Is(err, rpc.ErrRoomUnknown) {
		t.Errorf("join: %v, want ErrRoomUnknown", err)
	}
}

func TestService_refusesRemovedMembers(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	h := s.join(s.home.room, "b")
	list := &room.Removals{Room: s.home.room.ID, Epoch: 1, List: []room.Removal{{Key: h.folder.Identity().ID}}}
	if err := s.state.SetRemovals(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client(h).Open(t.Context(), swarm.PoolID{1}); !errors.Is(err, rpc.ErrRemoved) {
		t.Errorf("session: %v, want ErrRemoved", err)
	}
	if _, err := s.client(h).Members(t.Context()); !errors.Is(err, rpc.ErrRemoved) {
		t.Errorf("members: %v, want ErrRemoved", err)
	}
}

func TestService_joiningConnectionsReachNothingElse(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	invite, err := s.home.room.NewInvite(0, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cfg := invite.TLS()
	for _, request := range []string{
		"POST /dragonload.room.v1.RoomService/Members HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
		"POST /dragonload.pool.v1.PoolService/Session HTTP/1.1\r\nHost: x\r\nContent-Type: application/connect+proto\r\nContent-Length: 0\r\n\r\n",
	} {
		conn, err := tls.Dial("tcp", s.addr, cfg)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(conn, request)
		answer := make([]byte, 12)
		io.ReadFull(conn, answer)
		if string(answer) != "HTTP/1.1 404" {
			t.Errorf("answer %q to %.50q", answer, request)
		}
		conn.Close()
	}
}

func TestService_floodEndsTheSession(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{Rate: 10, Burst: 20})
	a := s.open(s.client(s.home), swarm.PoolID{1})
	a.Send(announce)
	for range 30 {
		a.Send(swarm.Report{})
	}
	if err := end(t, a); !errors.Is(err, rpc.ErrTooMany) {
		t.Errorf("ended with %v, want ErrTooMany", err)
	}
}

// Who is cut off for what it says gains nothing by opening another session.
func TestService_floodGoesOnInNoOtherSession(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{Rate: 1, Burst: 30})
	one := s.client(s.home)
	for session, more := range []int{40, 15} {
		a := s.open(one, swarm.PoolID{1})
		a.Send(announce)
		for range more {
			a.Send(swarm.Report{})
		}
		if err := end(t, a); !errors.Is(err, rpc.ErrTooMany) {
			t.Fatalf("session %d ended with %v, want ErrTooMany", session, err)
		}
	}
	b := s.open(one, swarm.PoolID{2}) // another pool is another matter
	b.Send(announce)
	next[swarm.Welcome](t, b)
}

func TestService_boundsSessionsAndConnectionsOfOneMember(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{MaxConns: 2, MaxSessions: 2})
	one := s.client(s.home)
	s.open(one, swarm.PoolID{1})
	s.open(one, swarm.PoolID{2})
	if _, err := one.Open(t.Context(), swarm.PoolID{3}); !errors.Is(err, rpc.ErrTooMany) {
		t.Errorf("third session: %v, want ErrTooMany", err)
	}
	// Others are not in its way.
	s.open(s.client(s.join(s.home.room, "b")), swarm.PoolID{3})

	if _, err := s.client(s.home).Members(t.Context()); err != nil {
		t.Errorf("second connection: %v", err)
	}
	if _, err := s.client(s.home).Members(t.Context()); err == nil {
		t.Error("third connection was served")
	}
}

func TestService_messageBeforeTheAnnounceEndsTheSession(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	a := s.open(s.client(s.home), swarm.PoolID{1})
	a.Send(swarm.Report{})
	if err := end(t, a); !errors.Is(err, rpc.ErrMalformed) {
		t.Errorf("ended with %v, want ErrMalformed", err)
	}
}

func TestService_randomBytesEndTheConnectionAndNothingElse(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	a := s.open(s.client(s.home), swarm.PoolID{1})
	a.Send(announce)
	beat(t, a)
	next[swarm.Probe](t, a)

	junk := make([]byte, 64<<10)
	rand.Read(junk)
	send := func(conn net.Conn) {
		t.Helper()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		// The other end may have closed before all is written.
		_, _ = conn.Write(junk)
		if _, err := io.Copy(io.Discard, conn); err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Error("connection was left open")
			}
		}
		conn.Close()
	}
	raw, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	send(raw)
	member, err := tls.Dial("tcp", s.addr, s.home.room.ClientTLS(room.ALPNControl, piece.NodeID{}))
	if err != nil {
		t.Fatal(err)
	}
	send(member)
	invite, err := s.home.room.NewInvite(0, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	joiner, err := tls.Dial("tcp", s.addr, invite.TLS())
	if err != nil {
		t.Fatal(err)
	}
	send(joiner)

	// The member from before has noticed nothing.
	b := s.open(s.client(s.join(s.home.room, "b")), swarm.PoolID{1})
	b.Send(announce)
	if peers := next[swarm.Handout](t, b).Peers; len(peers) != 1 {
		t.Errorf("handed out %v, want the member from before", peers)
	}
}

func TestService_stoppingTellsSessions(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	a := s.open(s.client(s.home), swarm.PoolID{1})
	a.Send(announce)
	next[swarm.Welcome](t, a)
	waiting := s.open(s.client(s.home), swarm.PoolID{2})
	s.stop()
	for _, session := range []*rpc.Session{a, waiting} {
		if err := end(t, session); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("session ended with %v", err)
		}
	}
}

func TestServe_endsWithAnErrorWhenItsListenerDoes(t *testing.T) {
	t.Parallel()
	service := tracker.NewService(tracker.Options{
		State: tracker.NewMemory(), Rooms: &room.Keyring{}, Log: slog.New(slog.DiscardHandler),
	})
	var listeners [2]net.Listener
	for i := range listeners {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners[i] = l
	}
	listeners[1].Close()
	if err := service.Serve(t.Context(), listeners[0], listeners[1]); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want %v", err, net.ErrClosed)
	}
}

func TestJoin_refusesInvitesThatAreNotGood(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	invite := func(uses int, expires time.Duration, now time.Time) room.Invite {
		i, err := s.home.room.NewInvite(uses, expires, now)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	expired := invite(0, time.Hour, time.Now().Add(-2*time.Hour))
	if _, err := s.use(expired, newFolder(t).Identity(), "x"); !errors.Is(err, rpc.ErrInviteExpired) {
		t.Errorf("expired: %v", err)
	}
	once := invite(1, time.Hour, time.Now())
	first := newFolder(t).Identity()
	for range 2 {
		if _, err := s.use(once, first, "x"); err != nil {
			t.Errorf("same key again: %v", err)
		}
	}
	if _, err := s.use(once, newFolder(t).Identity(), "x"); !errors.Is(err, rpc.ErrInviteUsed) {
		t.Errorf("used: %v", err)
	}
	bad := invite(0, time.Hour, time.Now())
	bad.Token[len(bad.Token)-1] ^= 1
	if _, err := s.use(bad, newFolder(t).Identity(), "x"); !errors.Is(err, rpc.ErrInviteBad) {
		t.Errorf("bad: %v", err)
	}
	bad.Token = make([]byte, rpc.MaxToken+1)
	if _, err := s.use(bad, newFolder(t).Identity(), "x"); !errors.Is(err, rpc.ErrMalformed) {
		t.Errorf("long: %v", err)
	}
}

func TestMembers_listsTheRoomOfTheCaller(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	s.join(s.create(s.home.folder, "other"), "stranger")
	b := s.join(s.home.room, "b")
	away := s.client(b)
	if _, err := away.Members(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := s.client(s.home)
	members, err := c.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(members) != 2 {
		t.Fatalf("got %+v, want two members", members)
	}
	for _, m := range members {
		if m.Number == 0 || m.Name == "" || !m.Online || m.LastSeen.IsZero() {
			t.Errorf("got %+v", m)
		}
		if m.ID == b.folder.Identity().ID && m.Name != "b" {
			t.Errorf("name %q, want b", m.Name)
		}
	}
	away.Close()
	for deadline := time.Now().Add(10 * time.Second); ; {
		if members, err = c.Members(t.Context()); err != nil {
			t.Fatal(err)
		}
		online := 0
		for _, m := range members {
			if m.Online {
				online++
			}
		}
		if online == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %+v, want one online", members)
		}
	}
}

func TestRenew_givesAFreshCertificateForTheSameKeyOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	b := s.join(s.home.room, "b")
	csr, err := b.room.Request()
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.client(b).Renew(t.Context(), csr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.room.Accept(m.Chain, time.Now()); err != nil {
		t.Error(err)
	}
	if len(m.Trackers) != 1 || m.Trackers[0] != s.addr {
		t.Errorf("trackers %v", m.Trackers)
	}
	if _, err := s.client(s.home).Renew(t.Context(), csr); !errors.Is(err, rpc.ErrNotMember) {
		t.Errorf("for another's key: %v, want ErrNotMember", err)
	}
	if _, err := s.client(b).Renew(t.Context(), []byte(strings.Repeat("x", 5000))); !errors.Is(err, rpc.ErrMalformed) {
		t.Errorf("too long: %v, want ErrMalformed", err)
	}
}

// A client of HTTP/2 holds a buffer as large as the server's frames for each request whose
// body is not over, which a session's never is: a daemon has as many as it shares files.
func TestService_asksForSmallFrames(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	conn, err := tls.Dial("tcp", s.addr, s.home.room.ClientTLS(room.ALPNControl, piece.NodeID{}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	const head, empty = 9, "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+empty); err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, head)
	if _, err := io.ReadFull(conn, frame); err != nil || frame[3] != 4 {
		t.Fatalf("got %x, %v, want the server's settings", frame, err)
	}
	settings := make([]byte, int(frame[1])<<8|int(frame[2]))
	if _, err := io.ReadFull(conn, settings); err != nil {
		t.Fatal(err)
	}
	const maxFrameSize = 5
	for ; len(settings) >= 6; settings = settings[6:] {
		if id, value := binary.BigEndian.Uint16(settings), binary.BigEndian.Uint32(settings[2:]); id == maxFrameSize && value > 16<<10 {
			t.Errorf("frames of %d bytes, want the least that there is", value)
		}
	}
}

// cable is a connection that can be pulled out: from then on nothing arrives in either
// direction, and neither end is told.
type cable struct {
	net.Conn
	pulled atomic.Bool
}

func (c *cable) Write(p []byte) (int, error) {
	if c.pulled.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *cable) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.pulled.Load() {
			return n, err
		}
	}
}

func TestService_lostHostIsNoticedByBothEndsWithin3Seconds(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{Machine: swarm.TrackerOptions{Silence: time.Hour}})
	var link *cable
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		link = &cable{Conn: conn}
		return link, err
	}
	lost, err := rpc.NewTracker(s.addr, s.home.room.ClientTLS(room.ALPNControl, piece.NodeID{}), dial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lost.Close)
	a := s.open(lost, swarm.PoolID{1})
	a.Send(announce)
	next[swarm.Probe](t, a)
	b := s.open(s.client(s.join(s.home.room, "b")), swarm.PoolID{1})
	b.Send(announce)
	next[swarm.Welcome](t, b)

	link.pulled.Store(true)
	began := time.Now()
	if err := end(t, a); errors.Is(err, context.DeadlineExceeded) {
		t.Error("the member did not notice")
	}
	if took := time.Since(began); took > 3200*time.Millisecond {
		t.Errorf("the member noticed after %v", took)
	}
	next[swarm.Probe](t, b) // the lost member's work
	if took := time.Since(began); took > 3200*time.Millisecond {
		t.Errorf("the tracker noticed after %v", took)
	}
}

func TestService_refusesCertificatesOfOtherAuthorities(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	folder := newFolder(t)
	foreign, err := folder.Create("lab", "127.0.0.1:1", folder.Identity())
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.home.room.ClientTLS(room.ALPNControl, piece.NodeID{})
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &foreign.Cert, nil }
	c, err := rpc.NewTracker(s.addr, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	_, err = c.Open(t.Context(), swarm.PoolID{1})
	if !errors.Is(room.RefusedBy(err), room.ErrNotMember) {
		t.Errorf("stranger's session: %v", err)
	}
	_, err = c.Members(t.Context())
	if !errors.Is(room.RefusedBy(err), room.ErrNotMember) {
		t.Errorf("stranger's call: %v", err)
	}
}
