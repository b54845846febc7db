package room

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"time"

	"dragonload/internal/piece"
)

// Admitter is what a tracker must remember for ever about who joined. Package tracker
// has the implementations. Calls may come from many goroutines.
type Admitter interface {
	// UseInvite counts that a key joins a room with an invite, and returns once that
	// is durable. The same key again counts once and is no error. Of several keys that
	// want the last use at once, one gets it, the others ErrInviteUsed. ErrRemoved if
	// the key was shut out; ErrFull if the room has MaxMembers. uses 0 is any number;
	// what is kept about an invite may be dropped some time after it has expired.
	UseInvite(ctx context.Context, room [32]byte, invite [16]byte, key piece.NodeID, uses int, expires time.Time) error
	// Removed reports whether a key was shut out of a room.
	Removed(ctx context.Context, room [32]byte, key piece.NodeID) (bool, error)
}

// Request returns the certificate request (DER) that a joining node sends with the
// invite's token; host becomes the member's name (see MemberName).
func (i Invite) Request(id *Identity, host string) ([]byte, error) {
	return request(id, i.RoomID, host)
}

// Standing returns the list of removals that the sender of a certificate request is on,
// nil if it is on none. Nobody but the holder of a key learns that it was removed.
func (r *Room) Standing(csr []byte) (*Removals, error) {
	key, _, err := parseRequest(csr, r.ID)
	if err != nil || !r.Removals.Has(key) {
		return nil, err
	}
	return r.Removals, nil
}

// Admit decides about a node that wants to join: token is that of its invite, csr its
// certificate request. It returns the certificates for Folder.Join in PEM, after the
// use of the invite is durable. Joining again with the same key and invite uses it
// once. Refusals are ErrInviteBad, ErrInviteForeign, ErrInviteExpired, ErrInviteUsed,
// ErrRemoved, ErrFull, ErrNotStored and, where the room was not created, ErrNoAuthority.
func (r *Room) Admit(ctx context.Context, token, csr []byte, now time.Time, a Admitter) ([]byte, error) {
	if r.caKey == nil {
		return nil, ErrNoAuthority
	}
	i, err := parseToken(token)
	if err != nil {
		return nil, ErrInviteBad
	}
	if i.RoomID != r.ID {
		return nil, ErrInviteForeign
	}
	mac, err := inviteMAC(r.caKey, token)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(mac, token[atMAC:]) {
		return nil, ErrInviteBad
	}
	if now.After(i.Expires) { // by the clock of the authority, which also set the end
		return nil, fmt.Errorf("%w: it ended on %s", ErrInviteExpired, i.Expires.UTC().Format(time.RFC3339))
	}
	// Everything that can fail is asked before a use is spent.
	key, name, err := parseRequest(csr, r.ID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInviteBad, err)
	}
	if r.Removals.Has(key) { // who was removed long ago the Admitter knows
		return nil, ErrRemoved
	}
	leaf, err := r.Authority.sign(r.caKey, key, name, Use{Invite: inviteID(token), Uses: i.Uses, Expires: i.Expires}, now)
	if err != nil {
		return nil, err
	}
	err = a.UseInvite(ctx, r.ID, inviteID(token), key, i.Uses, i.Expires)
	switch {
	case err == nil:
	case errors.Is(err, ErrInviteUsed), errors.Is(err, ErrRemoved), errors.Is(err, ErrFull), ctx.Err() != nil:
		return nil, fmt.Errorf("admit to room %s: %w", r.Name, err)
	default:
		return nil, fmt.Errorf("admit to room %s: %w: %w", r.Name, ErrNotStored, err)
	}
	return r.Authority.chain(leaf), nil
}
