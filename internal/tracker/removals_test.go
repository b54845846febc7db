package tracker_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
	"dragonload/internal/swarm"
	"dragonload/internal/tracker"
)

// shutOut removes a host from the site's room.
func (s *site) shutOut(h host) *room.Removals {
	s.t.Helper()
	list, err := s.keyring.ShutOut(s.home.room.ID, h.folder.Identity().ID)
	if err != nil {
		s.t.Fatal(err)
	}
	return list
}

// hearing connects a host that hands on what lists of removals it is told.
func (s *site) hearing(h host) (*rpc.Tracker, chan *room.Removals) {
	c, told := s.client(h), make(chan *room.Removals, 16)
	c.OnRemovals(func(l *room.Removals) { told <- l })
	return c, told
}

func heard(t *testing.T, told chan *room.Removals) *room.Removals {
	t.Helper()
	select {
	case l := <-told:
		return l
	case <-time.After(10 * time.Second):
		t.Fatal("no list of removals was told")
		return nil
	}
}

// The removed member's session ends and says why, the others hear of it at once, and a
// newcomer in its first session and its answer to joining.
func TestService_removalReachesEverySession(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	out, stays := s.join(s.home.room, "out"), s.join(s.home.room, "stays")
	outClient := s.client(out)
	cut := s.open(outClient, swarm.PoolID{1})
	cut.Send(announce)
	next[swarm.Welcome](t, cut)
	client, told := s.hearing(stays)
	s.open(client, swarm.PoolID{2})

	list := s.shutOut(out)
	if err := end(t, cut); !errors.Is(err, rpc.ErrRemoved) {
		t.Errorf("the session of the removed member: %v, want ErrRemoved", err)
	}
	if got := heard(t, told); !got.Equal(list) {
		t.Errorf("the other member is told %+v", got)
	}
	if _, err := outClient.Open(t.Context(), swarm.PoolID{1}); err == nil {
		t.Error("the removed member opens another session")
	}
	if kept, err := s.state.Removals(t.Context(), s.home.room.ID); err != nil || !kept.Equal(list) {
		t.Errorf("the state keeps %+v, %v", kept, err)
	}

	invite, err := s.home.room.NewInvite(0, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	late := host{folder: newFolder(t)}
	joined, err := s.use(invite, late.folder.Identity(), "late")
	if err != nil || !joined.Removals.Equal(list) {
		t.Fatalf("who joins is told %+v, %v", joined.Removals, err)
	}
	if late.room, err = late.folder.Join(invite, joined.Chain, time.Now()); err != nil {
		t.Fatal(err)
	}
	client, told = s.hearing(late)
	s.open(client, swarm.PoolID{2})
	if got := heard(t, told); !got.Equal(list) {
		t.Errorf("a newcomer is told %+v", got)
	}
	if _, err := s.use(invite, out.folder.Identity(), "out"); !errors.Is(err, rpc.ErrRemoved) {
		t.Errorf("joining again: %v, want ErrRemoved", err)
	}
	members, err := client.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		if m.Removed != (m.ID == out.folder.Identity().ID) {
			t.Errorf("member %s: removed is %v", m.Name, m.Removed)
		}
	}
}

// A machine that finds itself refused learns whether it was removed, with proof; nobody
// else learns who was.
func TestService_tellsTheRemovedThatTheyAre(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	out, stays := s.join(s.home.room, "out"), s.join(s.home.room, "stays")
	list := s.shutOut(out)
	standing := func(h host) *room.Removals {
		csr, err := h.room.Request()
		if err != nil {
			t.Fatal(err)
		}
		l, err := rpc.Standing(t.Context(), s.addr, h.room.JoinTLS(), nil, h.room.ID, csr)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if got := standing(out); !got.Equal(list) {
		t.Errorf("the removed one is told %+v", got)
	}
	if got := standing(stays); got != nil {
		t.Errorf("another is told %+v", got)
	}
	if _, err := rpc.Standing(t.Context(), s.addr, out.room.JoinTLS(), nil, out.room.ID, []byte("forged")); err == nil {
		t.Error("without a proof of the key there is an answer")
	}
}

// A tracker whose state and rooms were set back to before a removal learns of it from
// the first member that announces itself, and tells the others.
func TestService_restoredFromABackupLearnsFromMembers(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	out, stays, other := s.join(s.home.room, "out"), s.join(s.home.room, "stays"), s.join(s.home.room, "other")
	before := &room.Keyring{} // what the creator's machine held before it was restored
	before.Add(s.home.room)
	list, err := before.ShutOut(s.home.room.ID, out.folder.Identity().ID)
	if err != nil {
		t.Fatal(err)
	}

	forgotten := s.open(s.client(out), swarm.PoolID{1})
	forgotten.Send(announce)
	next[swarm.Welcome](t, forgotten)
	client, told := s.hearing(other)
	s.open(client, swarm.PoolID{2})
	telling := s.open(s.client(stays), swarm.PoolID{3})
	telling.SendRemovals(list)
	telling.Send(announce)
	if got := heard(t, told); !got.Equal(list) {
		t.Errorf("the others are told %+v", got)
	}
	if err := end(t, forgotten); !errors.Is(err, rpc.ErrRemoved) {
		t.Errorf("the removed member's session: %v", err)
	}
	// Members are cut off before the list is stored, which it is when the session that
	// told of it goes on.
	next[swarm.Welcome](t, telling)
	if kept, err := s.state.Removals(t.Context(), s.home.room.ID); err != nil || !kept.Equal(list) {
		t.Errorf("the state keeps %+v, %v", kept, err)
	}
}

// A list that the authority has not signed ends the session that told it, and only that.
func TestService_forgedRemovalsEndTheSession(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	liar, victim := s.join(s.home.room, "liar"), s.join(s.home.room, "victim")
	session := s.open(s.client(liar), swarm.PoolID{1})
	session.SendRemovals(&room.Removals{Room: s.home.room.ID, Epoch: 9, List: []room.Removal{{Key: victim.folder.Identity().ID}}})
	if err := end(t, session); !errors.Is(err, rpc.ErrMalformed) {
		t.Errorf("session: %v, want ErrMalformed", err)
	}
	other := s.open(s.client(victim), swarm.PoolID{1})
	other.Send(announce)
	next[swarm.Welcome](t, other)
}

// Whichever of the state and the rooms' own lists was set back, a tracker starts with both.
func TestService_startsWithWhatEitherHolds(t *testing.T) {
	t.Parallel()
	folder := newFolder(t)
	made, err := folder.Create("lab", "127.0.0.1:1", folder.Identity())
	if err != nil {
		t.Fatal(err)
	}
	one, two := piece.NodeID{1}, piece.NodeID{2}
	keyring, backup, state := &room.Keyring{}, &room.Keyring{}, tracker.NewMemory()
	keyring.Add(made)
	backup.Add(made)
	if _, err := keyring.ShutOut(made.ID, one); err != nil {
		t.Fatal(err)
	}
	list, err := backup.ShutOut(made.ID, two)
	if err != nil {
		t.Fatal(err)
	}
	if err := state.SetRemovals(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	service := tracker.NewService(tracker.Options{State: state, Rooms: keyring, Log: slog.New(slog.DiscardHandler)})
	ctx, stop := context.WithCancel(t.Context())
	keyring.Watch(func(*room.Room) error { // after the service has stored it
		stop()
		return nil
	})
	if err := service.Run(ctx); err != nil {
		t.Fatal(err)
	}
	kept, err := state.Removals(t.Context(), made.ID)
	if err != nil || !kept.Has(one) || !kept.Has(two) || kept.Epoch != 2 {
		t.Errorf("the state keeps %+v, %v", kept, err)
	}
	if !keyring.Removed(made.ID, one) || !keyring.Removed(made.ID, two) {
		t.Error("the rooms have forgotten one")
	}
}

// A tracker whose state was set back counts the invites of the members that call again.
func TestService_restoredFromABackupCountsInvitesAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	invite, err := s.home.room.NewInvite(1, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	h := host{folder: newFolder(t)}
	csr, err := invite.Request(h.folder.Identity(), "first")
	if err != nil {
		t.Fatal(err)
	}
	lost := tracker.NewMemory() // which is what the backup does not have
	chain, err := s.home.room.Admit(t.Context(), invite.Token, csr, time.Now(), lost)
	if err != nil {
		t.Fatal(err)
	}
	if h.room, err = h.folder.Join(invite, chain, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client(h).Members(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.use(invite, newFolder(t).Identity(), "second"); !errors.Is(err, rpc.ErrInviteUsed) {
		t.Errorf("the invite again: %v, want ErrInviteUsed", err)
	}
}

// Of two that want the last use at once one gets in, and the other is told why it does not.
func TestJoin_ofTwoRacersOneWins(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	invite, err := s.home.room.NewInvite(1, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan error, 2)
	for range cap(results) {
		id := newFolder(t).Identity()
		go func() {
			_, err := s.use(invite, id, "racer")
			results <- err
		}()
	}
	first, second := <-results, <-results
	if first != nil {
		first, second = second, first
	}
	if first != nil || !errors.Is(second, rpc.ErrInviteUsed) {
		t.Errorf("the racers are told %v and %v", first, second)
	}
}

// A member whose tracker is hosted by one that was removed ends its sessions there.
func TestTracker_cutsAConnectionToARemovedHost(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	c := s.client(s.join(s.home.room, "member"))
	c.CutIf(func(piece.NodeID) bool { return true }) // nothing is open yet
	session := s.open(c, swarm.PoolID{1})
	session.Send(announce)
	next[swarm.Welcome](t, session)
	host := s.home.folder.Identity().ID
	c.CutIf(func(id piece.NodeID) bool { return id != host })
	if _, err := c.Members(t.Context()); err != nil {
		t.Fatalf("cut though another was removed: %v", err)
	}
	c.CutIf(func(id piece.NodeID) bool { return id == host })
	if err := end(t, session); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the session goes on: %v", err)
	}
}
