package tracker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"

	"dragonload/internal/piece"
	"dragonload/internal/rpc"
	poolv1 "dragonload/internal/rpc/gen/dragonload/pool/v1"
	"dragonload/internal/swarm"
)

const (
	// maxOffers bounds the pools of one room that those who lend are told of.
	maxOffers = 1000
	// tellWithin bounds writing to one who lends.
	tellWithin = 10 * time.Second
)

// board brings together the pools of a room that welcome help and the members of it
// that lend their line. A URL is asked for only while somebody lends, and forgotten
// when nobody does.
type board struct {
	mu    sync.Mutex // guards everything
	rooms map[[32]byte]*lendRoom
	of    map[swarm.PoolID]*helped // by the pool as poolIn gives it
}

type lendRoom struct {
	pools   map[*helped]struct{}
	lenders map[*lender]struct{}
}

// helped is a pool that welcomes help.
type helped struct {
	room  [32]byte
	in    swarm.PoolID // as poolIn gives it
	pool  swarm.PoolID // as members call it
	url   string       // "" until a member has told it
	asker piece.NodeID
}

// lender is one open stream of a member that lends.
type lender struct {
	told    map[swarm.PoolID]bool // pools as members call them; it belongs to the handler
	changed chan struct{}         // a token: look at the board
}

func newBoard() *board {
	return &board{rooms: make(map[[32]byte]*lendRoom), of: make(map[swarm.PoolID]*helped)}
}

// room returns a room's entry, made if need be. b.mu is held.
func (b *board) room(id [32]byte) *lendRoom {
	r := b.rooms[id]
	if r == nil {
		r = &lendRoom{pools: make(map[*helped]struct{}), lenders: make(map[*lender]struct{})}
		b.rooms[id] = r
	}
	return r
}

// tidy drops a room that has neither. b.mu is held.
func (b *board) tidy(id [32]byte) {
	if r := b.rooms[id]; r != nil && len(r.pools) == 0 && len(r.lenders) == 0 {
		delete(b.rooms, id)
	}
}

// welcome notes a pool that welcomes help. It reports whether somebody would give it.
func (b *board) welcome(roomID [32]byte, in, pool swarm.PoolID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.room(roomID)
	defer b.tidy(roomID)
	if b.of[in] != nil || len(r.pools) >= maxOffers {
		return false
	}
	h := &helped{room: roomID, in: in, pool: pool}
	b.of[in] = h
	r.pools[h] = struct{}{}
	return len(r.lenders) > 0
}

// unwelcome forgets a pool.
func (b *board) unwelcome(in swarm.PoolID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.of[in]
	if h == nil {
		return
	}
	delete(b.of, in)
	r := b.rooms[h.room]
	delete(r.pools, h)
	r.wake()
	b.tidy(h.room)
}

// offer takes a pool's URL, which asker told.
func (b *board) offer(in swarm.PoolID, asker piece.NodeID, url string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.of[in]
	if h == nil || len(b.rooms[h.room].lenders) == 0 {
		return
	}
	h.url, h.asker = url, asker
	b.rooms[h.room].wake()
}

func (r *lendRoom) wake() {
	for l := range r.lenders {
		select {
		case l.changed <- struct{}{}:
		default:
		}
	}
}

// join lets a lender in. It returns the pools whose URL must be asked for.
func (b *board) join(roomID [32]byte, l *lender) (wanted []swarm.PoolID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.room(roomID)
	r.lenders[l] = struct{}{}
	l.changed <- struct{}{}
	for h := range r.pools {
		if h.url == "" {
			wanted = append(wanted, h.in)
		}
	}
	return wanted
}

func (b *board) leave(roomID [32]byte, l *lender) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.rooms[roomID]
	delete(r.lenders, l)
	if len(r.lenders) == 0 {
		for h := range r.pools {
			h.url = ""
		}
	}
	b.tidy(roomID)
}

// news returns what has changed since l was last told.
func (b *board) news(roomID [32]byte, l *lender) (news []rpc.Offer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	there := make(map[swarm.PoolID]bool)
	for h := range b.rooms[roomID].pools {
		if h.url == "" {
			continue
		}
		there[h.pool] = true
		if !l.told[h.pool] {
			l.told[h.pool] = true
			news = append(news, rpc.Offer{Pool: h.pool, URL: h.url, Asker: h.asker})
		}
	}
	for pool := range l.told {
		if !there[pool] {
			delete(l.told, pool)
			news = append(news, rpc.Offer{Pool: pool, Withdrawn: true})
		}
	}
	return news
}

// Lend serves one member that lends, until either side ends it.
func (h poolHandler) Lend(ctx context.Context, _ *connect.Request[poolv1.LendRequest], stream *connect.ServerStream[poolv1.LendResponse]) error {
	c := callerOf(ctx)
	if c.successor {
		return rpc.ToWire(rpc.ErrTrackerAway)
	}
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	// It counts, and is cut, as a session about no pool.
	s := &session{member: c.id, out: make(chan *poolv1.SessionResponse, tellQueue), cut: cut}
	if err := h.s.present.open(s, c.member, h.s.opts.MaxSessions); err != nil {
		return rpc.ToWire(err)
	}
	defer h.s.present.close(s, c.member)
	err := h.s.lend(ctx, c, s, stream)
	h.s.opts.Log.Debug("a member lends no more", "member", c.id, "err", err)
	return rpc.ToWire(err)
}

func (s *Service) lend(ctx context.Context, c *caller, sess *session, stream *connect.ServerStream[poolv1.LendResponse]) error {
	send := func(x *poolv1.LendResponse) error {
		if err := c.control.SetWriteDeadline(time.Now().Add(tellWithin)); err != nil {
			return fmt.Errorf("set deadline: %w", err)
		}
		if err := stream.Send(x); err != nil {
			return err
		}
		return c.control.SetWriteDeadline(time.Time{})
	}
	if err := send(&poolv1.LendResponse{}); err != nil {
		return err
	}
	l := &lender{told: make(map[swarm.PoolID]bool), changed: make(chan struct{}, 1)}
	wanted := s.board.join(c.room.ID, l)
	defer s.board.leave(c.room.ID, l)
	for _, in := range wanted {
		select {
		case s.shardOf(in).heard <- heard{wanted: &in}:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.stopped:
			return rpc.ErrStopping
		}
	}
	for {
		select {
		case <-l.changed:
		case <-sess.out:
			// Who was removed: it hears that in the session of the next pool that it helps,
			// before which it talks with nobody.
			continue
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
				return cause
			}
			return rpc.ErrStopping // or the member has gone, who does not hear it
		}
		for _, o := range s.board.news(c.room.ID, l) {
			if err := send(rpc.EncodeOffer(o)); err != nil {
				return err
			}
		}
	}
}
