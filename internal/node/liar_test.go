package node_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"dragonload/internal/peer"
	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
	"dragonload/internal/swarm"
)

// liar is a member that says it holds a whole file and serves other bytes.
type liar struct {
	layout piece.Layout
	served atomic.Int64
}

// Layout and ReadPiece make it a peer.Content.
func (l *liar) Layout() piece.Layout { return l.layout }

func (l *liar) ReadPiece(i piece.Index, _ []byte) ([]byte, error) {
	return bytes.Repeat([]byte{byte(i)}, int(l.layout.Length(i))), nil
}

func TestRoom_wrongBytesAreDroppedAndFetchedElsewhere(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4<<20)
	b := newLab(t)
	up := b.run()
	s.check(t, download(t, t.Context(), up, s.roomSpec(t)).result(t))

	m := b.join("liar")
	pin := piece.Pin{Size: int64(len(s.data)), Kind: piece.StrongETag, Validator: s.etag}
	l := startLiar(t, b, m, b.creator.Pool(s.url()), pin)

	spec := s.roomSpec(t)
	spec.LimitRate = 8 << 20 // so that the honest member does not send all at once
	r := download(t, t.Context(), start(t, b.join("victim").options()), spec)
	saved := r.result(t)
	s.check(t, saved)
	if l.served.Load() == 0 {
		t.Skip("the liar was not asked for anything in this run")
	}
	if codes := r.warnings(); !slices.Contains(codes, "wrong-bytes") {
		t.Errorf("got warnings %v, want wrong-bytes among them; it told %s", codes, r.story())
	}
}

// startLiar makes the liar reachable and announces it to the tracker.
func startLiar(t *testing.T, b *lab, m machine, pool swarm.PoolID, pin piece.Pin) *liar {
	t.Helper()
	l := &liar{layout: pin.Layout()}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	split := room.Split(listener, m.keyring.ServerTLS(room.ALPNData, room.ALPNHaves), room.SplitOptions{Wrap: peer.Coalesce}, room.ALPNData, room.ALPNHaves)
	server := peer.NewServer(serving{l}, peer.ServerOptions{Identify: func(cs tls.ConnectionState) (id piece.NodeID, roomID [32]byte, err error) {
		id, roomID, _, err = room.Member(cs)
		return
	}})
	var work sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		split.Close()
		work.Wait()
	})
	work.Go(func() { server.Serve(ctx, split.Listener(room.ALPNData)) })
	work.Go(func() {
		for {
			conn, err := split.Listener(room.ALPNHaves).Accept()
			if err != nil {
				return
			}
			work.Go(func() { l.talk(ctx, conn, pool, pin) })
		}
	})

	cfg, err := m.keyring.ClientTLS(b.creator.ID, room.ALPNControl, piece.NodeID{})
	if err != nil {
		t.Fatal(err)
	}
	to, err := rpc.NewTracker(b.addr, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	session, err := to.Open(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		session.Close()
		to.Close()
	})
	session.Send(swarm.Announce{Addr: listener.Addr().String()})
	if _, err := session.Receive(t.Context()); err != nil { // Welcome
		t.Fatal(err)
	}
	return l
}

// talk opens the pool on a stream and claims to hold everything.
func (l *liar) talk(ctx context.Context, conn net.Conn, pool swarm.PoolID, pin piece.Pin) {
	stream := peer.NewStream(conn, peer.StreamOptions{})
	defer stream.Close()
	for {
		said, err := stream.Receive(ctx)
		if err != nil {
			return
		}
		if said.Opened && said.Pool == pool {
			have := piece.NewBitfield(l.layout.Count())
			for i := range piece.Index(l.layout.Count()) {
				have.Set(i)
			}
			stream.Open(pool)
			stream.Send(pool, swarm.Holds{Generation: pin.Generation(0), Have: have})
		}
	}
}

// serving is the liar as a server of pieces sees it.
type serving struct{ l *liar }

func (s serving) Admit(context.Context, [32]byte, piece.NodeID, swarm.PoolID, []piece.Index) (peer.Content, func(int64), error) {
	s.l.served.Add(1)
	return s.l, func(int64) {}, nil
}

func (s serving) Layout([32]byte, piece.NodeID, swarm.PoolID) (piece.Layout, error) {
	return s.l.layout, nil
}
