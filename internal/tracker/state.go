package tracker

import (
	"context"
	"errors"

	"dragonload/internal/piece"
	"dragonload/internal/room"
)

// MaxMemberName bounds the name that a State keeps of a member, in bytes; longer ones
// are cut.
const MaxMemberName = 64

// ErrLocked says that the file of a State is open in another process.
var ErrLocked = errors.New("the tracker's state is in use by another process")

// Member is what a State knows of one key in a room.
type Member struct {
	Key     piece.NodeID
	Number  uint32 // small and never given to another key; 0 for who was removed before it ever came
	Name    string // as last told by SetName, or ""
	Removed bool
}

// State is what a tracker must not forget: who joined with which invite, which number
// each member has, and who was shut out. Rooms are independent of each other, and one
// that was never spoken of is empty. Everything that a method has changed is durable
// when it returns; with an error nothing has changed. All methods may be called from
// many goroutines, and each takes effect at one moment.
//
// Package statetest has the suite that every implementation passes.
type State interface {
	// UseInvite and Removed; see there. A key that UseInvite lets in has a number from
	// then on.
	room.Admitter

	// Number returns the number of a member, giving it the next one at its first call:
	// from 1 on, at most as many as keys were ever in the room. room.ErrRemoved for a
	// removed member, room.ErrFull if the room has room.MaxMembers.
	Number(ctx context.Context, room [32]byte, key piece.NodeID) (uint32, error)

	// SetName remembers how a member calls itself. It does nothing for a key without a
	// number, and writes nothing if the name is known.
	SetName(ctx context.Context, room [32]byte, key piece.NodeID, name string) error

	// SetRemovals keeps a room's signed list of removals, which the caller has checked,
	// and shuts out who is on it for ever, whether they were ever in the room or not:
	// they stay so when a later list has no place for them any more. A list that is not
	// of a higher epoch than the one that is kept does not take its place.
	SetRemovals(ctx context.Context, list *room.Removals) error

	// Removals returns the list that SetRemovals has kept, nil if there is none.
	Removals(ctx context.Context, room [32]byte) (*room.Removals, error)

	// Members returns all keys that were ever in the room, removed ones included, by
	// number.
	Members(ctx context.Context, room [32]byte) ([]Member, error)

	// Close ends the State; no other method may run or follow.
	Close() error
}
