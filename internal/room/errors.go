package room

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
)

// Errors that callers branch on. What an invite is refused for ends `get` and `room
// join` with exit 34, a text that is no invite (ErrInviteSyntax) with exit 28.
var (
	ErrNoRoom = errors.New("no such room here")
	ErrExists = errors.New("room exists already")
	ErrName   = errors.New("not a name for a room")

	ErrInviteSyntax  = errors.New("not an invite")
	ErrInviteBad     = errors.New("the invite is damaged or was not made by this room's authority; ask for a new one")
	ErrInviteExpired = errors.New("the invite has expired; ask for a new one (dragonload room invite)")
	ErrInviteUsed    = errors.New("the invite has been used as often as it may be; ask for a new one (dragonload room invite)")
	ErrInviteForeign = errors.New("the invite is for another room")

	// ErrRemoved: the key was shut out of the room.
	ErrRemoved = errors.New("this node was removed from the room")
	// ErrCreator: the machine that holds the room's authority cannot be removed.
	ErrCreator = errors.New("nobody else could remove or admit members then")
	// ErrManyRemoved: the list of removals is full.
	ErrManyRemoved = fmt.Errorf("%d members were removed within %d days and no more can be; make a new room", MaxRemovals, int(keepRemoved.Hours()/24))
	// ErrFull: the room has MaxMembers members.
	ErrFull = fmt.Errorf("the room has %d members and takes no more", MaxMembers)
	// ErrNotStored: the Admitter could not make durable what must be.
	ErrNotStored = errors.New("it could not be stored")
	// ErrNoAuthority: only the room's creator can admit, renew and invite.
	ErrNoAuthority = errors.New("the room's authority is not on this node; ask on the machine that created the room")
	// ErrClock: a certificate is not valid at what the clock says; it is ErrNotMember too.
	ErrClock = errors.New("the certificate or the clock is out of date")
	// ErrNotMember: the other side showed no certificate that the room accepts.
	ErrNotMember = errors.New("not a member of the room")
	// ErrVersion: the other side speaks no version of the protocol that this one does.
	ErrVersion = errors.New("the other side speaks another version of the protocol")
	// ErrWrongPeer: the other side is a member, but not the one that was expected.
	ErrWrongPeer = errors.New("another member answers at this address")
)

// NoRoomError says that a node has not joined a room; it is ErrNoRoom to errors.Is.
type NoRoomError struct {
	Name string
	Near string // the joined room that was probably meant, or ""
}

func (e *NoRoomError) Error() string {
	if e.Near != "" {
		return fmt.Sprintf("no room %q here; did you mean %s?", e.Name, e.Near)
	}
	return fmt.Sprintf("no room %q here; `dragonload room ls` names the joined rooms, `dragonload room join` joins one", e.Name)
}

// Is makes it ErrNoRoom.
func (e *NoRoomError) Is(target error) bool { return target == ErrNoRoom }

// nearest returns the name that is at most two letters, and less than half of the
// word, away from word; "" if there is none.
func nearest(word string, names []string) string {
	best, limit := "", min(3, (len(word)+1)/2)
	for _, name := range names {
		if len(word) >= 3 && strings.HasPrefix(name, word) {
			return name
		}
		if d := distance(word, name); d < limit {
			best, limit = name, d
		}
	}
	return best
}

// distance counts the letters to insert, delete or replace (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// RefusedBy says what it means that a handshake or the first read of a connection
// ended with err: ErrInviteForeign if the other side does not know the room at all,
// ErrNotMember if it did not accept this node's certificate, ErrVersion if it speaks none
// of the protocols asked for, else nil. Only the text
// of a remote alert tells, for package tls exports neither its type nor its numbers.
func RefusedBy(err error) error {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" || op.Err == nil {
		return nil
	}
	switch op.Err.Error() {
	case alertUnknownRoom:
		return ErrInviteForeign
	case alertNotMember:
		return ErrNotMember
	case alertNoProtocol:
		return ErrVersion
	}
	return nil
}

// The alerts that a server made by Keyring.ServerTLS sends: 112 for a room that it is
// not in, 42 for a certificate that verify refuses, 120 (of package tls) for a protocol, or
// a version of one, that it does not speak.
var (
	alertUnknownRoom = tls.AlertError(112).Error()
	alertNotMember   = tls.AlertError(42).Error()
	alertNoProtocol  = tls.AlertError(120).Error()
)
