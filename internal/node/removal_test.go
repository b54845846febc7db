package node_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"dragonload/internal/node"
	"dragonload/internal/peer"
	"dragonload/internal/piece"
	"dragonload/internal/room"
)

// hears returns a channel that is closed once a machine's node has acted on a removal.
func (m machine) hears(id piece.NodeID) chan struct{} {
	heard := make(chan struct{})
	var once atomic.Bool
	m.keyring.Watch(func(r *room.Room) error { // after its node, which was there first
		if r.Removals.Has(id) && once.CompareAndSwap(false, true) {
			close(heard)
		}
		return nil
	})
	return heard
}

func await(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(waitLimit):
		t.Fatalf("waited too long for: %s", what)
	}
}

// until waits for a download to have some bytes.
func (r *run) until(t *testing.T, have int64) {
	t.Helper()
	for {
		select {
		case p := <-r.progress:
			if p.Have >= have {
				return
			}
		case <-r.ended:
			t.Fatalf("the download ended with %v; it told %s", r.err, r.story())
		case <-time.After(waitLimit):
			t.Fatalf("the download makes no progress; it told %s", r.story())
		}
	}
}

// Of four members one is removed in the middle of the download: it ends, is told why,
// and remembers it; the others have the file.
func TestRemoval_inTheMiddleOfADownload(t *testing.T) {
	t.Parallel()
	s := newSite(t, 12<<20)
	s.set(func() { s.perConn = 1 << 20 })
	b := newLab(t)
	up := b.run()
	runs := []*run{download(t, t.Context(), up, s.roomSpec(t))}
	var machines []machine
	var nodes []*node.Node
	for _, name := range []string{"one", "two", "out"} {
		m := b.join(name)
		machines, nodes = append(machines, m), append(nodes, start(t, m.options()))
		runs = append(runs, download(t, t.Context(), nodes[len(nodes)-1], s.roomSpec(t)))
	}
	out := machines[2]
	id := out.folder.Identity().ID
	for _, r := range runs {
		r.until(t, 1<<20)
	}
	heard := []chan struct{}{machines[0].hears(id), machines[1].hears(id)}
	matches, epoch, err := up.RemoveMember(t.Context(), "lab", id.String())
	if err != nil || epoch != 1 || len(matches) != 1 || matches[0].ID != id || matches[0].Removed {
		t.Fatalf("removed %v, epoch %d, %v", matches, epoch, err)
	}
	for _, h := range heard {
		await(t, "a member hears of the removal", h)
	}
	if e := runs[3].failure(t, node.ExitRoom); e.Code != "removed" {
		t.Errorf("the removed member's download ends with code %s, want removed", e.Code)
	}
	for _, r := range runs[:3] {
		s.check(t, r.result(t))
	}
	for _, m := range []machine{b.first, machines[0], machines[1]} {
		if r, err := m.folder.Get("lab"); err != nil || !r.Removals.Has(id) {
			t.Errorf("a member has not stored the removal: %v", err)
		}
	}

	// It asks the tracker why it is refused, and keeps the answer.
	if e := download(t, t.Context(), nodes[2], s.roomSpec(t)).failure(t, node.ExitRoom); e.Code != "removed" {
		t.Errorf("its next download ends with code %s, want removed", e.Code)
	}
	if r, err := out.folder.Get("lab"); err != nil || !errors.Is(r.Valid(time.Now()), room.ErrRemoved) {
		t.Errorf("it does not know that it was removed: %v", err)
	}
}

// While the tracker is away, a removal goes from member to member.
func TestRemoval_spreadsWithoutATracker(t *testing.T) {
	t.Parallel()
	s := newSite(t, 12<<20)
	s.set(func() { s.perConn = 1 << 20 })
	b := newLab(t)
	b.run()
	var machines []machine
	var runs []*run
	for _, name := range []string{"one", "two", "out"} {
		m := b.join(name)
		spec := s.roomSpec(t)
		spec.Linger = time.Second
		machines, runs = append(machines, m), append(runs, download(t, t.Context(), start(t, m.options()), spec))
	}
	for _, r := range runs {
		r.until(t, 1<<20)
	}
	b.stop()
	id := machines[2].folder.Identity().ID
	heard := machines[1].hears(id)
	list, err := b.first.keyring.ShutOut(b.creator.ID, id)
	if err != nil {
		t.Fatal(err)
	}
	if news, err := machines[0].keyring.Learn(list); !news || err != nil {
		t.Fatal(news, err)
	}
	await(t, "the other member hears of it", heard)
	if e := runs[2].failure(t, node.ExitRoom); e.Code != "removed" {
		t.Errorf("the removed member's download ends with code %s, want removed", e.Code)
	}
	for _, r := range runs[:2] {
		s.check(t, r.result(t))
	}
}

// A removed member that does not obey gets no byte more: not over the connection that
// it has, not over a new one, not over a stream.
func TestRemoval_theDisobedientGetsNoByte(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4<<20)
	b := newLab(t)
	up := b.run()
	s.check(t, download(t, t.Context(), up, s.roomSpec(t)).result(t))

	m := b.join("out")
	pool, addr, server := b.creator.Pool(s.url()), up.Addr().String(), b.first.folder.Identity().ID
	dial := func(ctx context.Context, alpn string) (*tls.Conn, error) {
		cfg, err := m.keyring.ClientTLS(b.creator.ID, alpn, server)
		if err != nil {
			return nil, err
		}
		raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(raw, cfg)
		if err := conn.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, err
		}
		return conn, nil
	}
	client := peer.NewClient(func(ctx context.Context, _ string, _ piece.NodeID) (net.Conn, error) {
		return dial(ctx, room.ALPNData)
	}, peer.ClientOptions{})
	defer client.Close()
	layout := piece.Pin{Size: int64(len(s.data)), Kind: piece.StrongETag, Validator: s.etag}.Layout()
	fetch := func() (got int, err error) {
		err = client.Fetch(t.Context(), addr, server, pool, layout, []piece.Index{1, 2}, nil, func(_ piece.Index, data []byte) error {
			got += len(data)
			return nil
		})
		return got, err
	}
	if got, err := fetch(); err != nil || got == 0 {
		t.Fatalf("before the removal it gets %d bytes, %v", got, err)
	}
	conn, err := dial(t.Context(), room.ALPNHaves)
	if err != nil {
		t.Fatal(err)
	}
	stream := peer.NewStream(conn, peer.StreamOptions{})
	defer stream.Close()
	stream.Open(pool)
	if said, err := stream.Receive(t.Context()); err != nil || !said.Opened {
		t.Fatalf("the stream says %+v, %v", said, err)
	}

	if _, _, err := up.RemoveMember(t.Context(), "lab", m.folder.Identity().ID.String()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got, err := fetch(); err == nil || got > 0 {
			t.Errorf("after the removal it gets %d bytes, %v", got, err)
		}
	}
	told := false
	for {
		said, err := stream.Receive(t.Context())
		if err != nil {
			break
		}
		if said.Removals != nil {
			list, err := room.ParseRemovals(said.Removals)
			told = err == nil && list.Has(m.folder.Identity().ID)
		}
	}
	if !told {
		t.Error("the stream ended without the list that says why")
	}
	if conn, err := dial(t.Context(), room.ALPNHaves); err == nil {
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(room.RefusedBy(err), room.ErrNotMember) {
			t.Errorf("a new stream: %v", err)
		}
	}
}

// Names and beginnings of ids mean members; several are told and nobody is removed.
func TestRemoveMember_needsOneWhoIsMeant(t *testing.T) {
	t.Parallel()
	b := newLab(t)
	up := b.run()
	var ids []piece.NodeID
	for range 2 {
		m := b.join("twin")
		id := m.folder.Identity().ID
		ids = append(ids, id)
		if err := b.state.SetName(t.Context(), b.creator.ID, id, "twin"); err != nil {
			t.Fatal(err)
		}
	}
	for word, want := range map[string]int{"twin": 2, "nobody": 0, ids[0].String()[:3]: 0} {
		if got, _, err := up.RemoveMember(t.Context(), "lab", word); err != nil || len(got) != want {
			t.Errorf("%q means %v, %v, want %d", word, got, err, want)
		}
	}
	if b.first.keyring.Removed(b.creator.ID, ids[0]) || b.first.keyring.Removed(b.creator.ID, ids[1]) {
		t.Error("somebody was removed")
	}
	if got, _, err := up.RemoveMember(t.Context(), "lab", ids[0].String()); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	// The name means the one that is left.
	if got, epoch, err := up.RemoveMember(t.Context(), "lab", "twin"); err != nil || epoch != 2 || len(got) != 1 || got[0].ID != ids[1] {
		t.Errorf("%v, epoch %d, %v", got, epoch, err)
	}
	if got, epoch, err := up.RemoveMember(t.Context(), "lab", ids[1].String()); err != nil || epoch != 2 || len(got) != 1 || !got[0].Removed {
		t.Errorf("again: %v, epoch %d, %v", got, epoch, err)
	}
	stranger := "ab" + "00000000000000000000000000000000000000000000000000000000000000"
	if got, _, err := up.RemoveMember(t.Context(), "lab", stranger); err != nil || len(got) != 1 {
		t.Errorf("a key that never came: %v, %v", got, err)
	}
	if matches, err := filepath.Glob(filepath.Join(b.first.dir, "rooms", "lab", "removals")); err != nil || len(matches) != 1 {
		t.Errorf("the list is not in the room's folder: %v, %v", matches, err)
	}
}
