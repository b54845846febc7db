package tracker_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"dragonload/internal/catalogue"
	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
	"dragonload/internal/swarm"
	"dragonload/internal/tracker"
)

func shared(n int, name string, inside ...string) catalogue.Entry {
	return catalogue.Entry{Manifest: [32]byte{9, byte(n)}, Name: name, Size: int64(n), Files: 1, Names: inside}
}

func publish(t *testing.T, c *rpc.Tracker, addr string, version uint64, add ...catalogue.Entry) {
	t.Helper()
	if err := c.Publish(t.Context(), addr, catalogue.Batch{From: version - 1, To: version, Add: add}); err != nil {
		t.Fatal(err)
	}
}

func search(t *testing.T, c *rpc.Tracker, words ...string) catalogue.Page {
	t.Helper()
	page, err := c.Search(t.Context(), catalogue.Query{Words: words})
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func named(page catalogue.Page) (names []string) {
	for _, f := range page.Found {
		names = append(names, fmt.Sprintf("%s×%d", f.Entry.Name, f.Holders))
	}
	return names
}

// TestCatalogue_overTheWire publishes, searches and asks for holders as nodes do.
func TestCatalogue_overTheWire(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	a, b := s.join(s.home.room, "anna"), s.join(s.home.room, "bert")
	ca, cb := s.client(a), s.client(b)
	whole := catalogue.Entry{
		Manifest: [32]byte{1}, Name: "Photos", Folder: true, Size: 1 << 40, Files: 2, Names: []string{"cat.jpg", "Hund.jpg"},
		Private: true,
	}
	publish(t, ca, ":4100", 1, whole, shared(2, "film.mkv"))
	half := whole
	half.Partial = true
	publish(t, cb, "10.1.2.3:4111", 1, half)

	page := search(t, cb, "CAT", "photo")
	if len(page.Found) != 1 || page.More {
		t.Fatalf("found %v", named(page))
	}
	f := page.Found[0]
	shown := whole
	shown.Names = nil
	if fmt.Sprint(*f.Entry) != fmt.Sprint(shown) {
		t.Errorf("found %+v, want %+v", *f.Entry, shown)
	}
	if f.Holders != 2 || f.Whole != 1 || len(f.By) != 2 || f.By[0].Name != "anna" || f.By[0].ID != a.folder.Identity().ID || f.By[0].Number == 0 || f.By[0].Number == f.By[1].Number {
		t.Errorf("held by %d, %d of all: %+v %+v", f.Holders, f.Whole, f.By[0], f.By[1])
	}
	for _, c := range []struct {
		q    catalogue.Query
		want []string
	}{
		{catalogue.Query{}, []string{"film.mkv×1", "Photos×2"}},
		{catalogue.Query{ID: "0902"}, []string{"film.mkv×1"}},
		{catalogue.Query{Name: "FILM.mkv"}, []string{"film.mkv×1"}},
	} {
		if page, err := ca.Search(t.Context(), c.q); err != nil || !slices.Equal(named(page), c.want) {
			t.Errorf("%+v: %v, %v, want %v", c.q, named(page), err, c.want)
		}
	}
	if page, err := ca.Search(t.Context(), catalogue.Query{Limit: 1}); err != nil || len(page.Found) != 1 || !page.More {
		t.Errorf("limited to one: %v, %v", page, err)
	}

	// Who asks is not handed out; the host that is missing is the one that the tracker sees.
	holders, err := cb.Holders(t.Context(), whole.Manifest, 0)
	if err != nil || len(holders) != 1 || holders[0].Addr != "127.0.0.1:4100" || holders[0].Partial {
		t.Errorf("holders for bert: %+v, %v", holders, err)
	}
	if holders, err = ca.Holders(t.Context(), whole.Manifest, 0); err != nil || len(holders) != 1 || holders[0].Addr != "10.1.2.3:4111" || !holders[0].Partial {
		t.Errorf("holders for anna: %+v, %v", holders, err)
	}

	if err := ca.RenewLease(t.Context(), 1); err != nil {
		t.Error(err)
	}
	if err := ca.RenewLease(t.Context(), 2); !errors.Is(err, rpc.ErrPublishAnew) {
		t.Errorf("renew another version: %v", err)
	}
	if err := ca.Publish(t.Context(), ":4100", catalogue.Batch{From: 7, To: 8}); !errors.Is(err, rpc.ErrPublishAnew) {
		t.Errorf("go on from another version: %v", err)
	}
	if err := cb.Withdraw(t.Context()); err != nil {
		t.Error(err)
	}
	if got := named(search(t, ca)); !slices.Equal(got, []string{"film.mkv×1", "Photos×1"}) {
		t.Errorf("after one has withdrawn: %v", got)
	}
}

func TestCatalogue_refuses(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	c := s.client(s.join(s.home.room, "anna"))
	for _, b := range []struct {
		what string
		addr string
		b    catalogue.Batch
		want error
	}{
		{"a name that is a path", ":1", catalogue.Batch{To: 1, Add: []catalogue.Entry{shared(1, "../x")}}, rpc.ErrMalformed},
		{"no version", ":1", catalogue.Batch{}, rpc.ErrMalformed},
		{"no address", "", catalogue.Batch{To: 1}, rpc.ErrMalformed},
		{"no port", "10.0.0.1:0", catalogue.Batch{To: 1}, rpc.ErrMalformed},
		{"too much", ":1", catalogue.Batch{To: 1, Add: make([]catalogue.Entry, catalogue.MaxBatch+1)}, rpc.ErrMalformed},
	} {
		if err := c.Publish(t.Context(), b.addr, b.b); !errors.Is(err, b.want) {
			t.Errorf("%s: %v, want %v", b.what, err, b.want)
		}
	}
	if got := named(search(t, c)); len(got) > 0 {
		t.Errorf("what was refused is found: %v", got)
	}
	// Another room has another catalogue.
	other := s.create(newFolder(t), "other")
	publish(t, c, ":1", 1, shared(1, "one"))
	if got := named(search(t, s.client(s.join(other, "x")))); len(got) > 0 {
		t.Errorf("another room sees %v", got)
	}
}

// A member can spend no more than its allowance: who searches without end is refused, and
// others are not.
func TestCatalogue_isNotOneMembersAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	greedy, other := s.client(s.join(s.home.room, "greedy")), s.client(s.join(s.home.room, "other"))
	var err error
	for n := 0; err == nil; n++ {
		if n > 20_000 {
			t.Fatal("it is never refused")
		}
		_, err = greedy.ReportUnreachable(t.Context(), piece.NodeID{1})
	}
	if !errors.Is(err, rpc.ErrTooMany) {
		t.Errorf("refused with %v", err)
	}
	search(t, other)
}

func TestCatalogue_removedMembersAreOut(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	out, in := s.join(s.home.room, "out"), s.join(s.home.room, "in")
	publish(t, s.client(out), ":1", 1, shared(1, "one"), shared(2, "two"))
	publish(t, s.client(in), ":1", 1, shared(2, "two"))
	s.shutOut(out)
	if got := named(search(t, s.client(in))); !slices.Equal(got, []string{"two×1"}) {
		t.Errorf("after a removal: %v", got)
	}
}

// answering listens as a node does where members reach it.
func answering(t *testing.T, h host) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	keyring := &room.Keyring{}
	keyring.Add(h.room)
	split := room.Split(listener, keyring.ServerTLS(room.ALPNData), room.SplitOptions{}, room.ALPNData)
	t.Cleanup(func() { split.Close() })
	data := split.Listener(room.ALPNData)
	go func() {
		for {
			conn, err := data.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	return listener.Addr().String()
}

// dead returns an address at which nobody listens.
func dead(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// TestCatalogue_dropsWhoCannotBeReached: the tracker finds out itself, once for all who
// ask, and believes nobody's word.
func TestCatalogue_dropsWhoCannotBeReached(t *testing.T) {
	t.Parallel()
	var dials atomic.Int32
	s := newSite(t, tracker.Options{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}})
	good, gone, liar := s.join(s.home.room, "good"), s.join(s.home.room, "gone"), s.join(s.home.room, "liar")
	cg, cd, cl := s.client(good), s.client(gone), s.client(liar)
	at := answering(t, good)
	publish(t, cg, at, 1, shared(1, "one"))
	publish(t, cd, dead(t), 1, shared(1, "one"))
	publish(t, cl, at, 1, shared(1, "one")) // where another is

	report := func(h host, want bool) {
		t.Helper()
		if got, err := s.client(s.home).ReportUnreachable(t.Context(), h.folder.Identity().ID); err != nil || got != want {
			t.Errorf("report: %v, %v, want %v", got, err, want)
		}
	}
	for range 3 {
		report(good, false)
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("%d connections for three reports, want one", n)
	}
	report(gone, true)
	report(liar, true)
	report(gone, true)
	report(s.join(s.home.room, "silent"), true) // it publishes nothing
	if n := dials.Load(); n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
	if got := named(search(t, cg)); !slices.Equal(got, []string{"one×1"}) {
		t.Errorf("after the reports: %v", got)
	}
	if err := cd.RenewLease(t.Context(), 1); !errors.Is(err, rpc.ErrPublishAnew) {
		t.Errorf("who was dropped renews: %v", err)
	}
	// Back, at an address where it answers.
	publish(t, cd, answering(t, gone), 1, shared(2, "two"))
	if got := named(search(t, cg)); !slices.Equal(got, []string{"one×1", "two×1"}) {
		t.Errorf("after it has come back: %v", got)
	}
	if _, err := cg.ReportUnreachable(t.Context(), good.folder.Identity().ID); !errors.Is(err, rpc.ErrMalformed) {
		t.Errorf("who reports itself: %v", err)
	}
}

// Who did not answer may publish again at the same address only once it does.
func TestCatalogue_whoDoesNotAnswerIsNotListedAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	h := s.join(s.home.room, "gone")
	c, addr := s.client(h), dead(t)
	publish(t, c, addr, 1, shared(1, "one"))
	if gone, err := s.client(s.home).ReportUnreachable(t.Context(), h.folder.Identity().ID); !gone || err != nil {
		t.Fatalf("report: %v, %v", gone, err)
	}
	err := c.Publish(t.Context(), addr, catalogue.Batch{To: 1, Add: []catalogue.Entry{shared(1, "one")}})
	if !errors.Is(err, rpc.ErrUnreachable) {
		t.Errorf("publish again: %v, want ErrUnreachable", err)
	}
}

// dropping is a State that tells whom it has dropped.
type dropping struct {
	*tracker.Memory
	dropped chan piece.NodeID
}

func (s dropping) Drop(ctx context.Context, room [32]byte, id piece.NodeID, addr string) (bool, error) {
	dropped, err := s.Memory.Drop(ctx, room, id, addr)
	if dropped {
		s.dropped <- id
	}
	return dropped, err
}

// TestCatalogue_whoDiesIsDroppedAtOnce: who loses its connections without a word and does not
// answer is dropped long before its lease ends; who does answer stays.
func TestCatalogue_whoDiesIsDroppedAtOnce(t *testing.T) {
	t.Parallel()
	state := dropping{tracker.NewMemory(), make(chan piece.NodeID, 2)}
	dialled := make(chan string, 10)
	s := newSite(t, tracker.Options{State: state, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialled <- addr
		return new(net.Dialer).DialContext(ctx, network, addr)
	}})
	died, alive := s.join(s.home.room, "died"), s.join(s.home.room, "alive")
	cd, ca := s.client(died), s.client(alive)
	at := answering(t, alive)
	publish(t, ca, at, 1, shared(1, "one"))
	publish(t, cd, dead(t), 1, shared(1, "one"))
	ca.Close()
	limit := time.After(10 * time.Second)
	select {
	case addr := <-dialled:
		if addr != at {
			t.Errorf("%s is dialled, want %s", addr, at)
		}
	case <-limit:
		t.Fatal("the tracker has not looked after a member whose connection has ended")
	}
	// Who asks meanwhile waits for the same probe.
	if gone, err := s.client(s.home).ReportUnreachable(t.Context(), alive.folder.Identity().ID); gone || err != nil {
		t.Errorf("report of who answers: %v, %v", gone, err)
	}
	cd.Close()
	select {
	case id := <-state.dropped:
		if id != died.folder.Identity().ID {
			t.Errorf("%v was dropped", id)
		}
	case <-limit:
		t.Fatal("who has died was not dropped")
	}
	if got := named(search(t, s.client(s.home))); !slices.Equal(got, []string{"one×1"}) {
		t.Errorf("found then: %v", got)
	}
}

// No member makes the tracker dial where no member can be.
func TestCatalogue_dialsOnlyWhereAMemberCanBe(t *testing.T) {
	t.Parallel()
	var dialled atomic.Value
	s := newSite(t, tracker.Options{Dial: func(_ context.Context, _, addr string) (net.Conn, error) {
		dialled.Store(addr)
		return nil, errors.New("no route")
	}})
	ch := s.client(s.home)
	for n, c := range []struct {
		addr string
		gone bool
	}{
		{"127.0.0.2:22", false}, {"[::1]:22", false}, {"169.254.169.254:80", false}, {"0.0.0.0:22", false}, {"224.0.0.1:22", false},
		{"100.100.100.200:80", false}, {"[::ffff:169.254.169.254]:80", false}, {"[fe80::1]:22", false},
		{"10.99.0.7:4100", true}, {":4100", true}, {"[2001:db8::7]:4100", true},
	} {
		h := s.join(s.home.room, fmt.Sprintf("member-%d", n))
		publish(t, s.client(h), c.addr, 1, shared(1, "one"))
		dialled.Store("")
		gone, err := ch.ReportUnreachable(t.Context(), h.folder.Identity().ID)
		if err != nil || gone != c.gone || (dialled.Load() != "") != c.gone {
			t.Errorf("%s: gone %v, %v, dialled %q", c.addr, gone, err, dialled.Load())
		}
	}
}

// TestCatalogue_atASuccessor: a member that takes the tracker's place in a pool holds the
// catalogue, of what is published to it, for as long as it does.
func TestCatalogue_atASuccessor(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	d := s.newDeputy(tracker.Options{})
	h, out := s.join(s.home.room, "member"), s.join(s.home.room, "out")
	c := d.client(h)
	if err := c.Publish(t.Context(), ":1", catalogue.Batch{To: 1}); !errors.Is(err, rpc.ErrRoomUnknown) {
		t.Errorf("before it takes the place: %v, want ErrRoomUnknown", err)
	}
	d.service.Host(h.room.ID, swarm.PoolID{1})
	if err := c.RenewLease(t.Context(), 5); !errors.Is(err, rpc.ErrPublishAnew) {
		t.Errorf("renew what another tracker knows: %v, want ErrPublishAnew", err)
	}
	publish(t, c, ":4100", 1, shared(1, "one"))
	publish(t, d.client(out), ":4100", 1, shared(1, "one"))
	page := search(t, c, "one")
	if len(page.Found) != 1 || page.Found[0].Holders != 2 || page.Found[0].By[0].Name != "member" || page.Found[0].By[0].Number != 0 {
		t.Fatalf("found %v", page.Found)
	}
	if known, err := d.state.Members(t.Context(), h.room.ID); err != nil || len(known) > 0 {
		t.Errorf("it has stored %v, %v", known, err)
	}
	if _, err := d.keyring.Learn(s.shutOut(out)); err != nil {
		t.Fatal(err)
	}
	if got := named(search(t, c)); !slices.Equal(got, []string{"one×1"}) {
		t.Errorf("after a removal: %v", got)
	}
	d.service.Unhost(h.room.ID, swarm.PoolID{1})
	if _, err := c.Search(t.Context(), catalogue.Query{}); !errors.Is(err, rpc.ErrRoomUnknown) {
		t.Errorf("when it has given the place back: %v, want ErrRoomUnknown", err)
	}
}

// The tracker's clock is the State's: what is not renewed is gone after the lease, though
// the member's connection stands.
func TestCatalogue_leasesEndByTheStatesClock(t *testing.T) {
	t.Parallel()
	var passed atomic.Int64
	began := time.Now()
	state := tracker.NewMemoryAt(func() time.Time { return began.Add(time.Duration(passed.Load())) })
	s := newSite(t, tracker.Options{State: state})
	c := s.client(s.join(s.home.room, "anna"))
	publish(t, c, ":1", 1, shared(1, "one"))
	passed.Store(int64(catalogue.TTL - time.Second))
	if got := named(search(t, c)); len(got) != 1 {
		t.Errorf("before the end: %v", got)
	}
	passed.Store(int64(catalogue.TTL + time.Second))
	if got := named(search(t, c)); len(got) != 0 {
		t.Errorf("after the end: %v", got)
	}
	if err := c.RenewLease(t.Context(), 1); !errors.Is(err, rpc.ErrPublishAnew) {
		t.Errorf("renew after the end: %v", err)
	}
}

// TestCatalogue_ofTheTrackersOwnMachine: it reaches its tracker by a loopback address, at
// which others do not reach it.
func TestCatalogue_ofTheTrackersOwnMachine(t *testing.T) {
	t.Parallel()
	s, listener := listen(t)
	s.home.folder = newFolder(t)
	s.home.room = s.create(s.home.folder, "lab")
	s.serve(listener, tracker.Options{Self: s.home.folder.Identity().ID, Host: func() string { return "10.9.8.7" }})
	other := s.join(s.home.room, "other")
	publish(t, s.client(s.home), ":4100", 1, shared(1, "film.mkv"))
	publish(t, s.client(other), ":4101", 1, shared(1, "film.mkv"))
	holders, err := s.client(s.join(s.home.room, "third")).Holders(t.Context(), [32]byte{9, 1}, 0)
	if err != nil {
		t.Fatal(err)
	}
	at := make(map[piece.NodeID]string)
	for _, h := range holders {
		at[h.ID] = h.Addr
	}
	if own, others := at[s.home.folder.Identity().ID], at[other.folder.Identity().ID]; own != "10.9.8.7:4100" || others != "127.0.0.1:4101" {
		t.Errorf("the tracker's machine is at %q, another at %q", own, others)
	}
}
