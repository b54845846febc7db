package tracker

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/room"
)

// Memory is a State that lasts as long as the process, for tests and for trackers of
// rooms that do.
type Memory struct {
	*Soft

	mu    sync.Mutex
	rooms map[[32]byte]*memoryRoom
}

type memoryRoom struct {
	members  map[piece.NodeID]Member
	numbers  uint32                             // the last one given
	uses     map[[16]byte]map[piece.NodeID]bool // by invite
	removals *room.Removals
}

var _ State = (*Memory)(nil)

// NewMemory returns a State in which no room has been spoken of.
func NewMemory() *Memory { return NewMemoryAt(time.Now) }

// NewMemoryAt is NewMemory with another clock.
func NewMemoryAt(now func() time.Time) *Memory {
	m := &Memory{rooms: make(map[[32]byte]*memoryRoom)}
	m.Soft = NewSoft(now, m.Removed)
	return m
}

// at returns a room, for use under mu.
func (m *Memory) at(id [32]byte) *memoryRoom {
	r := m.rooms[id]
	if r == nil {
		r = &memoryRoom{members: make(map[piece.NodeID]Member), uses: make(map[[16]byte]map[piece.NodeID]bool)}
		m.rooms[id] = r
	}
	return r
}

// admit gives a key a number unless it has one.
func (r *memoryRoom) admit(key piece.NodeID) (uint32, error) {
	known, ok := r.members[key]
	switch {
	case known.Removed:
		return 0, room.ErrRemoved
	case ok:
		return known.Number, nil
	case r.numbers >= room.MaxMembers:
		return 0, room.ErrFull
	}
	r.numbers++
	r.members[key] = Member{Key: key, Number: r.numbers}
	return r.numbers, nil
}

// UseInvite implements room.Admitter.
func (m *Memory) UseInvite(ctx context.Context, id [32]byte, invite [16]byte, key piece.NodeID, uses int, _ time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.at(id)
	used := r.uses[invite]
	if uses > 0 && !used[key] && len(used) >= uses && !r.members[key].Removed {
		return room.ErrInviteUsed
	}
	if _, err := r.admit(key); err != nil {
		return err
	}
	if uses > 0 {
		if used == nil {
			used = make(map[piece.NodeID]bool)
			r.uses[invite] = used
		}
		used[key] = true
	}
	return nil
}

// Removed implements room.Admitter.
func (m *Memory) Removed(ctx context.Context, id [32]byte, key piece.NodeID) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.rooms[id]
	return r != nil && r.members[key].Removed, ctx.Err()
}

// Number implements State.
func (m *Memory) Number(ctx context.Context, id [32]byte, key piece.NodeID) (uint32, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at(id).admit(key)
}

// SetName implements State.
func (m *Memory) SetName(ctx context.Context, id [32]byte, key piece.NodeID, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.at(id)
	if member, ok := r.members[key]; ok {
		member.Name = CutName(name)
		r.members[key] = member
	}
	return nil
}

// SetRemovals implements State.
func (m *Memory) SetRemovals(ctx context.Context, list *room.Removals) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.keep(list)
	m.ShutOut(list)
	return nil
}

func (m *Memory) keep(list *room.Removals) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.at(list.Room)
	for _, one := range list.List {
		member := r.members[one.Key]
		member.Key, member.Removed = one.Key, true
		r.members[one.Key] = member
	}
	if list.Epoch > r.removals.Number() {
		r.removals = list
	}
}

// Removals implements State.
func (m *Memory) Removals(ctx context.Context, id [32]byte) (*room.Removals, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.rooms[id]; r != nil {
		return r.removals, ctx.Err()
	}
	return nil, ctx.Err()
}

// Members implements State.
func (m *Memory) Members(ctx context.Context, id [32]byte) ([]Member, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var members []Member
	if r := m.rooms[id]; r != nil {
		for _, member := range r.members {
			members = append(members, member)
		}
	}
	SortMembers(members)
	return members, nil
}

// Close forgets everything.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rooms = make(map[[32]byte]*memoryRoom)
	return nil
}

// SortMembers puts members into the order of State.Members.
func SortMembers(members []Member) {
	slices.SortFunc(members, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), a.Key.Compare(b.Key))
	})
}

// CutName returns as much of a member's name as a State keeps.
func CutName(name string) string { return name[:min(len(name), MaxMemberName)] }
