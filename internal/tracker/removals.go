package tracker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"dragonload/internal/room"
	"dragonload/internal/rpc"
)

// storeWithin bounds storing a list of removals.
const storeWithin = 10 * time.Second

// reconcile makes the State and the rooms' own lists of removals agree, should one of
// them have been set back: neither has forgotten what the other holds.
func (s *Service) reconcile(ctx context.Context) {
	for _, r := range s.opts.Rooms.Rooms() {
		if !s.opts.Serves(r) {
			continue
		}
		kept, err := s.opts.State.Removals(ctx, r.ID)
		if err == nil && kept != nil {
			_, err = s.opts.Rooms.Learn(kept)
		}
		if now, ok := s.opts.Rooms.Get(r.ID); ok && now.Removals != nil && !now.Removals.Equal(kept) {
			err = errors.Join(err, s.store(now))
		}
		if err != nil {
			s.opts.Log.Error("the tracker's list of removals is not up to date", "room", r.Name, "err", err)
		}
	}
}

func (s *Service) store(r *room.Room) error {
	ctx, cancel := context.WithTimeout(context.Background(), storeWithin)
	defer cancel()
	if err := s.opts.State.SetRemovals(ctx, r.Removals); err != nil {
		return fmt.Errorf("store who was removed from room %s: %w", r.Name, err)
	}
	return nil
}

// shutOut acts on a room's new list of removals: it is stored and told in every session,
// and those who are on it are cut off.
func (s *Service) shutOut(r *room.Room) error {
	s.present.shutOut(r)
	if !s.opts.Serves(r) {
		// The room's own tracker stores it, and who keeps the room; here are only sessions
		// about pools, and what members publish meanwhile.
		return s.withdraw(r)
	}
	err := s.store(r)
	if err != nil {
		s.opts.Log.Error("a removal is not durable", "err", err)
	}
	return err
}

// withdraw takes out what those publish who were removed from a room that has another
// tracker.
func (s *Service) withdraw(r *room.Room) error {
	ctx, cancel := context.WithTimeout(context.Background(), storeWithin)
	defer cancel()
	for _, one := range r.Removals.List {
		if err := s.opts.State.Withdraw(ctx, r.ID, one.Key); err != nil {
			return fmt.Errorf("take out what %v publishes: %w", one.Key, err)
		}
	}
	return nil
}

// learn takes in a list that a member has told. A tracker whose state was set back
// learns so what it has forgotten.
func (s *Service) learn(c *caller, raw []byte) error {
	l, err := rpc.DecodeRemovals(raw)
	if err != nil || l == nil {
		return err
	}
	if l.Room != c.room.ID {
		return fmt.Errorf("%w: list of removals of another room", rpc.ErrMalformed)
	}
	news, err := s.opts.Rooms.Learn(l)
	if news {
		s.opts.Log.Info("a member told of removals", "room", c.room.Name, "epoch", l.Epoch, "member", c.id)
		return nil // that it could not be stored is not the member's fault
	}
	if err != nil {
		return fmt.Errorf("%w: %w", rpc.ErrMalformed, err)
	}
	return nil
}

// greet tells a member of a session that has just begun who was removed. It may be the
// member itself, if the list came while the session was opened.
func (s *Service) greet(c *caller, sess *session) error {
	r, ok := s.opts.Rooms.Get(c.room.ID)
	switch {
	case !ok || !c.successor && !s.opts.Serves(r):
		return rpc.ErrRoomUnknown
	case r.Removals.Has(c.id):
		return rpc.ErrRemoved
	case r.Removals != nil:
		sess.out <- rpc.EncodeRemovals(r.Removals) // the first of tellQueue
	}
	return nil
}

// shutOut cuts the members on a room's list, and tells the others of it.
func (p *presence) shutOut(r *room.Room) {
	p.mu.Lock()
	defer p.mu.Unlock()
	news := rpc.EncodeRemovals(r.Removals)
	for s, m := range p.sessions {
		switch {
		case m.room != r.ID:
		case r.Removals.Has(m.id):
			s.cut(rpc.ErrRemoved)
		default:
			select {
			case s.out <- news:
			default:
				s.cut(rpc.ErrTooMany)
			}
		}
	}
	for _, m := range p.conns {
		if m.room == r.ID && r.Removals.Has(m.id) {
			// Calls are refused at once; what says so may take a moment to go out.
			time.AfterFunc(2*lastWithin, func() { p.disown(m) })
		}
	}
}

// disown closes what a member has open, below TLS, whose farewell could take long.
func (p *presence) disown(m member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c, of := range p.conns {
		if t, ok := c.(*tls.Conn); ok && of == m {
			_ = t.NetConn().Close() // what net/http then meets is the end of it
		}
	}
}
