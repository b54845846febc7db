package tracker_test

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"dragonload/internal/rpc"
	"dragonload/internal/swarm"
	"dragonload/internal/tracker"
)

// newDeputy starts the service of a member of the site's room, which may take the
// tracker's place.
func (s *site) newDeputy(o tracker.Options) *site {
	s.t.Helper()
	d, listener := listen(s.t)
	d.home = s.join(s.home.room, "deputy")
	d.keyring.Add(d.home.room)
	o.Self = d.home.folder.Identity().ID
	d.serve(listener, o)
	return d
}

func TestHost_servesThePoolsThatItIsToldTo(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	d := s.newDeputy(tracker.Options{})
	member := d.client(s.join(s.home.room, "member"))
	id, pool := d.home.room.ID, swarm.PoolID{1}

	if _, err := member.Open(t.Context(), pool); !errors.Is(err, rpc.ErrRoomUnknown) {
		t.Errorf("before it hosts anything: %v, want ErrRoomUnknown", err)
	}
	for range 2 {
		if !d.service.Host(id, pool) {
			t.Fatal("it does not host")
		}
	}
	session := d.open(member, pool)
	session.Send(announce)
	next[swarm.Welcome](t, session)
	if _, err := member.Open(t.Context(), swarm.PoolID{2}); !errors.Is(err, rpc.ErrNotHosting) {
		t.Errorf("another pool: %v, want ErrNotHosting", err)
	}

	if !d.service.Host(id, swarm.PoolID{2}) {
		t.Fatal("it does not host the second")
	}
	d.service.Unhost(id, pool)
	if err := end(t, session); !errors.Is(err, rpc.ErrTrackerMoved) {
		t.Errorf("the session ended with %v, want ErrTrackerMoved", err)
	}
	if _, err := member.Open(t.Context(), pool); !errors.Is(err, rpc.ErrNotHosting) {
		t.Errorf("when it hosts that no more: %v, want ErrNotHosting", err)
	}
	d.open(member, swarm.PoolID{2})
	d.service.Unhost(id, swarm.PoolID{2})
	d.service.Unhost(id, swarm.PoolID{2})
	if _, err := member.Open(t.Context(), pool); !errors.Is(err, rpc.ErrRoomUnknown) {
		t.Errorf("when it hosts nothing more: %v, want ErrRoomUnknown", err)
	}
}

// What needs the room's key, or what the tracker has stored, a successor has not.
func TestHost_refusesAllElseThatATrackerDoes(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	d := s.newDeputy(tracker.Options{})
	d.service.Host(d.home.room.ID, swarm.PoolID{1})
	h := s.join(s.home.room, "member")
	member := d.client(h)

	invite, err := s.home.room.NewInvite(0, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.use(invite, newFolder(t).Identity(), "x"); !errors.Is(err, rpc.ErrTrackerAway) {
		t.Errorf("join: %v, want ErrTrackerAway", err)
	}
	csr, err := h.room.Request()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := member.Renew(t.Context(), csr); !errors.Is(err, rpc.ErrTrackerAway) {
		t.Errorf("renew: %v, want ErrTrackerAway", err)
	}
	if _, err := member.Members(t.Context()); !errors.Is(err, rpc.ErrTrackerAway) {
		t.Errorf("members: %v, want ErrTrackerAway", err)
	}
	err = member.Lend(t.Context(), func() { t.Error("it takes somebody who lends") }, func(rpc.Offer) {})
	if !errors.Is(err, rpc.ErrTrackerAway) {
		t.Errorf("lend: %v, want ErrTrackerAway", err)
	}
	if known, err := d.state.Members(t.Context(), h.room.ID); err != nil || len(known) > 0 {
		t.Errorf("it has stored %v, %v", known, err)
	}
}

// Who is no member of the room has no session, though it knows the pool, nor has one who
// was removed; and for a room that this node is not in nothing is hosted.
func TestHost_servesMembersOfItsRoomsOnly(t *testing.T) {
	t.Parallel()
	s, strangers := newSite(t, tracker.Options{}), newSite(t, tracker.Options{})
	d := s.newDeputy(tracker.Options{})
	pool := swarm.PoolID{1}
	d.service.Host(d.home.room.ID, pool)
	if d.service.Host(strangers.home.room.ID, pool) {
		t.Error("it hosts for a room that it is not in")
	}
	if _, err := d.client(strangers.home).Open(t.Context(), pool); err == nil {
		t.Error("somebody of that room has a session")
	}

	out := s.join(s.home.room, "out")
	session := d.open(d.client(out), pool)
	session.Send(announce)
	next[swarm.Welcome](t, session)
	if _, err := d.keyring.Learn(s.shutOut(out)); err != nil {
		t.Fatal(err)
	}
	if err := end(t, session); !errors.Is(err, rpc.ErrRemoved) {
		t.Errorf("the session of a removed member: %v, want ErrRemoved", err)
	}
	if _, err := d.client(out).Open(t.Context(), pool); err == nil {
		t.Error("a removed member has a session")
	}
}

func TestHost_isBounded(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	d := s.newDeputy(tracker.Options{MaxSessions: 2, Machine: swarm.TrackerOptions{MaxMembers: 1}})
	id := d.home.room.ID
	numbered := func(n int) (pool swarm.PoolID) {
		binary.BigEndian.PutUint32(pool[:], uint32(n))
		return pool
	}
	const most = 1024
	for n := range most {
		if !d.service.Host(id, numbered(n)) {
			t.Fatalf("it hosts %d pools and no more", n)
		}
	}
	if d.service.Host(id, numbered(most)) {
		t.Errorf("it hosts more than %d pools", most)
	}
	if !d.service.Host(id, numbered(0)) {
		t.Error("it does not say that it hosts what it does host")
	}
	d.service.Unhost(id, numbered(1))
	if !d.service.Host(id, numbered(most)) {
		t.Error("the place of one that it hosts no more is not free")
	}

	member := d.client(s.join(s.home.room, "member"))
	first := d.open(member, numbered(2))
	first.Send(announce)
	beat(t, first)
	next[swarm.Welcome](t, first)
	d.open(member, numbered(3))
	if _, err := member.Open(t.Context(), numbered(4)); !errors.Is(err, rpc.ErrTooMany) {
		t.Errorf("a third session: %v, want ErrTooMany", err)
	}
	second := d.open(d.client(s.join(s.home.room, "second")), numbered(2))
	second.Send(announce)
	if err := end(t, second); !errors.Is(err, rpc.ErrCut) {
		t.Errorf("a member beyond what a pool has places for: %v, want ErrCut", err)
	}
}

// A successor's own session comes from an address at which others do not reach it: they
// are not given it.
func TestHost_isNotHandedOutByItsOwnAddress(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	d := s.newDeputy(tracker.Options{})
	pool := swarm.PoolID{1}
	d.service.Host(d.home.room.ID, pool)
	enter := func(h host) *rpc.Session {
		session := d.open(d.client(h), pool)
		session.Send(announce)
		beat(t, session)
		next[swarm.Welcome](t, session)
		return session
	}
	enter(d.home)
	a := s.join(s.home.room, "a")
	enter(a)
	peers := next[swarm.Handout](t, enter(s.join(s.home.room, "b"))).Peers
	if len(peers) != 1 || peers[0].ID != a.folder.Identity().ID {
		t.Errorf("handed out %v, want the one member besides the successor", peers)
	}
}
