package tracker

import (
	"context"
	"errors"

	"dragonload/internal/catalogue"
	"dragonload/internal/piece"
	"dragonload/internal/room"
)

// MaxMemberName bounds the name that a State keeps of a member, in bytes; longer ones
// are cut.
const MaxMemberName = 64

// ErrLocked says that the file of a State is open in another process.
var ErrLocked = errors.New("the tracker's state is in use by another process")

// ErrAway says that what a State is kept in does not answer: what would have to be durable
// is refused until it does.
var ErrAway = errors.New("what the tracker must not forget cannot be reached")

// Member is what a State knows of one key in a room.
type Member struct {
	Key     piece.NodeID
	Number  uint32 // small and never given to another key; 0 for who was removed before it ever came
	Name    string // as last told by SetName, or ""
	Removed bool
}

// State is what a tracker must not forget: who joined with which invite, which number
// each member has, and who was shut out; and what all trackers of a room share and may
// lose: its catalogue. Rooms are independent of each other, and one that was never spoken
// of is empty. Everything but the catalogue that a method has changed is durable when it
// returns; with an error nothing has changed. All methods may be called from many
// goroutines, and each takes effect at one moment.
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

	Catalogue

	// Close ends the State; no other method may run or follow.
	Close() error
}

// Catalogue is what the members of rooms hold, as they publish it. It is soft: what a
// member publishes lives as long as its lease, catalogue.TTL from the last Publish or
// Renew on, and is gone at once with Withdraw, Drop and the member's removal. What a
// method has changed later calls see; trackers that share a State see it soon.
type Catalogue interface {
	// Publish takes in a change of what a member publishes, and renews its lease; from is
	// the member as others are to see it. catalogue.ErrUnknown if the change goes on from
	// a version that is not the one that is known of the member, whose lease has ended
	// perhaps: it publishes anew then. catalogue.ErrFull, catalogue.ErrBad (it is
	// validated) and room.ErrRemoved change nothing. A batch takes effect entry by
	// entry; no later one of the member's is taken in meanwhile.
	Publish(ctx context.Context, room [32]byte, from catalogue.Holder, b catalogue.Batch) error

	// Renew renews the lease of a member that has published up to a version. known is
	// false if that is not what is known of it; it publishes anew then. room.ErrRemoved.
	Renew(ctx context.Context, room [32]byte, node piece.NodeID, version uint64) (known bool, err error)

	// Withdraw takes all out that a member publishes.
	Withdraw(ctx context.Context, room [32]byte, node piece.NodeID) error

	// Drop is Withdraw for a member that was found to be away at an address; it does
	// nothing if the member has another one by now.
	Drop(ctx context.Context, room [32]byte, node piece.NodeID, addr string) (dropped bool, err error)

	// Search answers a query (catalogue.ErrBad: it is validated). Members that say the
	// same of a manifest are one result.
	Search(ctx context.Context, room [32]byte, q catalogue.Query) (catalogue.Page, error)

	// Holders returns members other than except that hold a manifest, at most limit of
	// them, 0 or more than catalogue.MaxHandout meaning that many: those first that hold all
	// of it, else drawn anew each time, so that those who ask spread over all of them.
	Holders(ctx context.Context, room, manifest [32]byte, except piece.NodeID, limit int) ([]catalogue.Holder, error)

	// Holder returns a member that publishes.
	Holder(ctx context.Context, room [32]byte, node piece.NodeID) (h catalogue.Holder, known bool, err error)
}
