package tracker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"dragonload/internal/catalogue"
	"dragonload/internal/piece"
	"dragonload/internal/room"
)

// tidyAtOnce is how many entries of members that are gone are forgotten, at least, with
// each batch that another publishes.
const tidyAtOnce = 1000

// Soft is the soft part of a State in the memory of this process: the catalogues of its
// rooms.
type Soft struct {
	now     func() time.Time
	removed func(ctx context.Context, room [32]byte, key piece.NodeID) (bool, error)

	mu    sync.Mutex // guards rooms
	rooms map[[32]byte]*softRoom
}

type softRoom struct {
	index *catalogue.Index
	// changing is held while a member's batch is taken in, or all of a member's entries
	// are taken out.
	changing sync.Mutex
}

// NewSoft returns catalogues in which nobody holds anything. now tells the time, removed
// who was shut out of a room.
func NewSoft(now func() time.Time, removed func(ctx context.Context, room [32]byte, key piece.NodeID) (bool, error)) *Soft {
	return &Soft{now: now, removed: removed, rooms: make(map[[32]byte]*softRoom)}
}

// Text returns how many bytes of names all catalogues hold.
func (s *Soft) Text() int {
	s.mu.Lock()
	rooms := slices.Collect(maps.Values(s.rooms))
	s.mu.Unlock()
	all := 0
	for _, r := range rooms {
		_, _, text := r.index.Size()
		all += text
	}
	return all
}

// look returns a room, nil if nobody ever published in it.
func (s *Soft) look(id [32]byte) *softRoom {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rooms[id]
}

func (s *Soft) at(id [32]byte) *softRoom {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rooms[id]
	if r == nil {
		r = &softRoom{index: catalogue.NewIndex()}
		s.rooms[id] = r
	}
	return r
}

// Publish implements State.
func (s *Soft) Publish(ctx context.Context, id [32]byte, from catalogue.Holder, b catalogue.Batch) error {
	if err := b.Validate(); err != nil {
		return err
	}
	if err := s.allowed(ctx, id, from.ID); err != nil {
		return err
	}
	r := s.at(id)
	r.changing.Lock()
	defer r.changing.Unlock()
	if err := r.publish(from, b, s.now()); err != nil {
		return err
	}
	// A removal that came meanwhile has found nothing to take out, or not all.
	err := s.allowed(ctx, id, from.ID)
	if err != nil {
		r.index.Drop(from.ID)
	}
	return err
}

// allowed returns room.ErrRemoved for who was shut out.
func (s *Soft) allowed(ctx context.Context, id [32]byte, key piece.NodeID) error {
	removed, err := s.removed(ctx, id, key)
	if err == nil && removed {
		err = room.ErrRemoved
	}
	return err
}

// publish needs r.changing.
func (r *softRoom) publish(from catalogue.Holder, b catalogue.Batch, now time.Time) error {
	x := r.index
	x.Tidy(now, tidyAtOnce+len(b.Add))
	version, known := x.Version(from.ID, now)
	if b.From != 0 && (!known || version != b.From) {
		return catalogue.ErrUnknown
	}
	err := x.Fits(from.ID, &b)
	if err != nil {
		// What nobody sees any more is in nobody's way.
		x.Tidy(now, catalogue.MaxEntries+catalogue.MaxHolders)
		err = x.Fits(from.ID, &b)
	}
	if err != nil {
		return err
	}
	if b.From == 0 {
		x.Drop(from.ID)
	}
	if err := x.SetHolder(from, b.To, now.Add(catalogue.TTL)); err != nil {
		return err
	}
	for _, manifest := range b.Remove {
		x.Remove(from.ID, manifest)
	}
	for _, e := range b.Add {
		if err := x.Put(from.ID, e); err != nil {
			return fmt.Errorf("put an entry into the catalogue: %w", err)
		}
	}
	return nil
}

// Renew implements State.
func (s *Soft) Renew(ctx context.Context, id [32]byte, node piece.NodeID, version uint64) (known bool, err error) {
	if err := s.allowed(ctx, id, node); err != nil {
		return false, err
	}
	r := s.look(id)
	if r == nil {
		return false, nil
	}
	now := s.now()
	return r.index.Renew(node, version, now, now.Add(catalogue.TTL)), nil
}

// Withdraw implements State.
func (s *Soft) Withdraw(ctx context.Context, id [32]byte, node piece.NodeID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.drop(id, node)
	return nil
}

func (s *Soft) drop(id [32]byte, node piece.NodeID) {
	if r := s.look(id); r != nil {
		r.changing.Lock()
		defer r.changing.Unlock()
		r.index.Drop(node)
	}
}

// Drop implements State.
func (s *Soft) Drop(ctx context.Context, id [32]byte, node piece.NodeID, addr string) (bool, error) {
	r := s.look(id)
	if err := ctx.Err(); r == nil || err != nil {
		return false, err
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	h, known := r.index.Holder(node, s.now())
	if !known || h.Addr != addr {
		return false, nil
	}
	r.index.Drop(node)
	return true, nil
}

// Search implements State.
func (s *Soft) Search(ctx context.Context, id [32]byte, q catalogue.Query) (catalogue.Page, error) {
	if err := q.Validate(); err != nil {
		return catalogue.Page{}, err
	}
	r := s.look(id)
	if err := ctx.Err(); r == nil || err != nil {
		return catalogue.Page{}, err
	}
	return r.index.Search(q, s.now()), nil
}

// Holders implements State.
func (s *Soft) Holders(ctx context.Context, id, manifest [32]byte, except piece.NodeID, limit int) ([]catalogue.Holder, error) {
	r := s.look(id)
	if err := ctx.Err(); r == nil || err != nil {
		return nil, err
	}
	return r.index.Holders(manifest, except, limit, s.now()), nil
}

// Holder implements State.
func (s *Soft) Holder(ctx context.Context, id [32]byte, node piece.NodeID) (catalogue.Holder, bool, error) {
	r := s.look(id)
	if err := ctx.Err(); r == nil || err != nil {
		return catalogue.Holder{}, false, err
	}
	h, known := r.index.Holder(node, s.now())
	return h, known, nil
}

// ShutOut takes the entries of those out who are on a list of removals, after the State
// has kept it.
func (s *Soft) ShutOut(list *room.Removals) {
	for _, one := range list.List {
		s.drop(list.Room, one.Key)
	}
}
