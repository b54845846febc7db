package etcdstate_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"dragonload/internal/catalogue"
	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/tracker"
	"dragonload/internal/tracker/etcdstate"
	"dragonload/internal/tracker/statetest"
)

// timed ends leases by a test's clock instead of etcd's.
type timed struct {
	*etcdstate.State
	now func() time.Time

	mu    sync.Mutex
	until map[lessee]time.Time
}

type lessee struct {
	room [32]byte
	node piece.NodeID
}

func (s *timed) renewed(room [32]byte, node piece.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until[lessee{room, node}] = s.now().Add(catalogue.TTL)
}

func (s *timed) Publish(ctx context.Context, room [32]byte, from catalogue.Holder, b catalogue.Batch) error {
	err := s.State.Publish(ctx, room, from, b)
	if err == nil {
		s.renewed(room, from.ID)
	}
	return err
}

func (s *timed) Renew(ctx context.Context, room [32]byte, node piece.NodeID, version uint64) (bool, error) {
	known, err := s.State.Renew(ctx, room, node, version)
	if known {
		s.renewed(room, node)
	}
	return known, err
}

func (s *timed) passed(t *testing.T, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l, until := range s.until {
		if !now.Before(until) {
			delete(s.until, l)
			if err := s.EndLease(t.Context(), l.room, l.node); err != nil {
				t.Error(err)
			}
		}
	}
}

func open(t testing.TB, c *cluster, prefix string) *etcdstate.State {
	t.Helper()
	s, err := etcdstate.Open(t.Context(), etcdstate.Options{
		Endpoints: c.endpoints(), Prefix: prefix, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestState_passesTheSuite(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	statetest.Run(t, true, func(t *testing.T, place string, clock *statetest.Clock) tracker.State {
		s := &timed{State: open(t, c, "/"+filepath.ToSlash(place)+"/"), now: clock.Now, until: make(map[lessee]time.Time)}
		clock.Passed = func(now time.Time) { s.passed(t, now) }
		return s
	})
}

var lab = [32]byte{1}

func member(n int) piece.NodeID { return piece.NodeID{9, byte(n), byte(n >> 8)} }

// TestState_losesNothingWithOneServer kills one server of three after the other, the
// leader among them, while members are numbered through two replicas.
func TestState_losesNothingWithOneServer(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	replicas := []*etcdstate.State{open(t, c, "/site/"), open(t, c, "/site/")}
	defer replicas[0].Close()
	defer replicas[1].Close()
	numbers := make(map[piece.NodeID]uint32)
	next := 0
	admit := func(count int) {
		for range count {
			key := member(next)
			n, err := replicas[next%2].Number(t.Context(), lab, key)
			// Who is not numbered while the servers choose a leader goes on without a
			// number, as a session does, and is numbered later.
			for end := time.Now().Add(time.Minute); errors.Is(err, tracker.ErrAway) && time.Now().Before(end); {
				n, err = replicas[next%2].Number(t.Context(), lab, key)
			}
			if err != nil {
				t.Fatalf("member %d: %v", next, err)
			}
			numbers[key] = n
			next++
		}
	}
	admit(20)
	for i, s := range c.servers {
		s.kill()
		admit(20)
		s.args = append(s.args[:0:0], s.args...)
		for k, arg := range s.args {
			if arg == "new" {
				s.args[k] = "existing"
			}
		}
		s.start(t)
		c.await(t)
		t.Logf("server %d was away", i)
	}
	known, err := replicas[1].Members(t.Context(), lab)
	if err != nil || len(known) != next {
		t.Fatalf("%d members are known of %d: %v", len(known), next, err)
	}
	for _, m := range known {
		if numbers[m.Key] != m.Number {
			t.Errorf("member %x was given number %d and has %d", m.Key[:3], numbers[m.Key], m.Number)
		}
	}
}

// TestState_saysThatEtcdIsAway has no majority left.
func TestState_saysThatEtcdIsAway(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	s := open(t, c, "/site/")
	defer s.Close()
	if _, err := s.Number(t.Context(), lab, member(1)); err != nil {
		t.Fatal(err)
	}
	from := catalogue.Holder{ID: member(1), Number: 1, Name: "a", Addr: "10.0.0.1:4100"}
	if err := s.Publish(t.Context(), lab, from, catalogue.Batch{To: 1, Add: []catalogue.Entry{{Manifest: [32]byte{1}, Name: "film.mkv"}}}); err != nil {
		t.Fatal(err)
	}
	c.servers[0].kill()
	c.servers[1].kill()
	if _, err := s.Number(t.Context(), lab, member(2)); !errors.Is(err, etcdstate.ErrAway) {
		t.Errorf("a member is numbered without a majority: %v", err)
	}
	if page, err := s.Search(t.Context(), lab, catalogue.Query{}); err != nil || len(page.Found) != 1 {
		t.Errorf("a search found %d entries: %v", len(page.Found), err)
	}
	if _, err := etcdstate.Open(t.Context(), etcdstate.Options{Endpoints: c.endpoints(), Log: slog.Default()}); !errors.Is(err, etcdstate.ErrAway) {
		t.Errorf("a state is opened without a majority: %v", err)
	}
	// What can do without it does not wait for it each time.
	for range 100 {
		if _, err := s.Removed(t.Context(), lab, member(1)); !errors.Is(err, tracker.ErrAway) {
			t.Fatalf("who was removed is known without a majority: %v", err)
		}
	}
	c.servers[0].start(t)
	c.await(t)
	if err := s.UseInvite(t.Context(), lab, [16]byte{1}, member(2), 1, time.Now().Add(time.Hour)); err != nil {
		t.Errorf("an invite with etcd back: %v", err)
	}
	if n, err := s.Number(t.Context(), lab, member(2)); err != nil || n != 2 {
		t.Errorf("number %d with etcd back: %v", n, err)
	}
}

// TestState_replicasSeeWhatTheOthersPublish has two replicas, one of which comes late.
func TestState_replicasSeeWhatTheOthersPublish(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	a := open(t, c, "/site/")
	defer a.Close()
	var batch []catalogue.Entry
	for n := range 150 {
		batch = append(batch, catalogue.Entry{Manifest: [32]byte{7, byte(n)}, Name: fmt.Sprintf("file-%d.txt", n), Size: int64(n), Files: 1})
	}
	publish := func(s *etcdstate.State, n int, b catalogue.Batch) {
		t.Helper()
		if err := s.Publish(t.Context(), lab, catalogue.Holder{ID: member(n), Number: uint32(n), Addr: "10.0.0.1:4100"}, b); err != nil {
			t.Fatal(err)
		}
	}
	publish(a, 1, catalogue.Batch{To: 1, Add: batch})
	b := open(t, c, "/site/")
	defer b.Close()
	seen := func(s *etcdstate.State, want int) {
		t.Helper()
		page, err := s.Search(t.Context(), lab, catalogue.Query{Words: []string{"file"}})
		if err != nil || len(page.Found) != want {
			t.Errorf("%d entries are found, want %d: %v", len(page.Found), want, err)
		}
	}
	seen(b, 150)
	publish(b, 1, catalogue.Batch{From: 1, To: 2, Remove: [][32]byte{batch[0].Manifest}})
	seen(b, 149)
	if known, err := a.Renew(t.Context(), lab, member(1), 1); known || err != nil {
		t.Errorf("an older version is renewed: %v, %v", known, err)
	}
	if known, err := a.Renew(t.Context(), lab, member(1), 2); !known || err != nil {
		t.Errorf("the version that the other replica took in is not known: %v", err)
	}
	if err := b.Withdraw(t.Context(), lab, member(1)); err != nil {
		t.Fatal(err)
	}
	seen(b, 0)
	publish(a, 2, catalogue.Batch{To: 1, Add: batch[:1]}) // a has seen the withdrawal by then
	seen(a, 1)
}

// TestState_forgetsUsesLongAfterTheirInvite has been opened again: an invite that expired
// long ago is refused before anybody counts its uses.
func TestState_forgetsUsesLongAfterTheirInvite(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	use := func(s *etcdstate.State, invite byte, n int, expires time.Time) error {
		return s.UseInvite(t.Context(), lab, [16]byte{invite}, member(n), 1, expires)
	}
	old, fresh := time.Now().Add(-60*24*time.Hour), time.Now().Add(time.Hour)
	s := open(t, c, "/site/")
	if err := errors.Join(use(s, 1, 1, old), use(s, 2, 1, fresh), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, c, "/site/")
	defer s.Close()
	if err := use(s, 1, 2, old); err != nil {
		t.Errorf("the use of an old invite is kept: %v", err)
	}
	if err := use(s, 2, 2, fresh); !errors.Is(err, room.ErrInviteUsed) {
		t.Errorf("the use of an invite that is good is forgotten: %v", err)
	}
}

// TestState_readsRemovalsOfAllRoomsAtOnce has several rooms, one of them with a damaged list.
func TestState_readsRemovalsOfAllRoomsAtOnce(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	s := open(t, c, "/site/")
	defer s.Close()
	keep := func(id byte, epoch uint64) {
		t.Helper()
		list := &room.Removals{Room: [32]byte{id}, Epoch: epoch, List: []room.Removal{{Key: member(int(id)), At: 1_700_000_000}}}
		if err := s.SetRemovals(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	read := func(after int64) (rooms []byte, at int64) {
		t.Helper()
		lists, at, err := s.SharedRemovals(t.Context(), after)
		if err != nil {
			t.Fatal(err)
		}
		for _, list := range lists {
			rooms = append(rooms, list.Room[0], byte(list.Epoch))
		}
		return rooms, at
	}
	expect := func(got []byte, want ...byte) {
		t.Helper()
		if !bytes.Equal(got, want) {
			t.Errorf("read the lists of rooms and epochs %v, want %v", got, want)
		}
	}
	got, at := read(0)
	expect(got)
	keep(1, 1)
	keep(2, 1)
	c.put(t, "/site/removals/zz", "damaged")
	got, at = read(at)
	expect(got, 1, 1, 2, 1)
	got, at = read(at)
	expect(got)
	keep(2, 2)
	got, _ = read(at)
	expect(got, 2, 2)
	got, _ = read(0)
	expect(got, 1, 1, 2, 2)
}

// TestState_aRoomThatWasLeftStaysSo has a replica that was away then bring it again.
func TestState_aRoomThatWasLeftStaysSo(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	a, b := open(t, c, "/site/"), open(t, c, "/site/")
	defer a.Close()
	defer b.Close()
	folder, err := room.OpenFolder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	rooms := map[string]*room.Room{}
	for _, name := range []string{"lab", "home"} {
		if rooms[name], err = folder.Create(name, "tracker.example:4100", folder.Identity()); err != nil {
			t.Fatal(err)
		}
		if err := a.ShareRoom(t.Context(), rooms[name]); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Number(t.Context(), rooms[name].ID, member(1)); err != nil {
			t.Fatal(err)
		}
	}
	lab, home := rooms["lab"], rooms["home"]
	if err := b.LeaveRoom(t.Context(), lab.ID); err != nil {
		t.Fatal(err)
	}
	if err := a.ShareRoom(t.Context(), lab); err != nil {
		t.Fatal(err)
	}
	shared, left, err := a.SharedRooms(t.Context())
	if err != nil || len(shared) != 1 || shared[0].ID != home.ID || len(left) != 1 || !left[lab.ID] {
		t.Errorf("%d rooms are shared, %d were left: %v", len(shared), len(left), err)
	}
	for _, one := range []struct {
		r    *room.Room
		want int
	}{{lab, 0}, {home, 1}} {
		if known, err := a.Members(t.Context(), one.r.ID); err != nil || len(known) != one.want {
			t.Errorf("room %s has %d members, want %d: %v", one.r.Name, len(known), one.want, err)
		}
	}
}
