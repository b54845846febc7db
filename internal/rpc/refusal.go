package rpc

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"
)

// Refusal is an error that one end of the control plane tells the other. It crosses as
// a code and one stable word; the sentence is the receiver's own. Compare with
// errors.Is.
type Refusal struct {
	word, text string
	code       connect.Code
}

func (r *Refusal) Error() string { return r.text }

// Word returns the stable word for scripts and logs.
func (r *Refusal) Word() string { return r.word }

// Access reports whether the caller has no right to what it asked for, so that asking
// again cannot help.
func (r *Refusal) Access() bool {
	return r.code == connect.CodePermissionDenied || r.code == connect.CodeUnauthenticated
}

// What may be refused. The texts tell a user what happened and what to do next.
var (
	ErrInviteBad     = refusal("invite-bad", connect.CodePermissionDenied, "the invite is not valid: check that it was copied whole, or ask for a new one")
	ErrInviteExpired = refusal("invite-expired", connect.CodePermissionDenied, "the invite has expired: ask for a new one (dragonload room invite)")
	ErrInviteUsed    = refusal("invite-used", connect.CodePermissionDenied, "the invite was used as often as it may be: ask for a new one (dragonload room invite)")
	ErrInviteForeign = refusal("invite-foreign", connect.CodePermissionDenied, "the invite belongs to another room than the one that answers: ask for a new one")
	ErrRemoved       = refusal("member-removed", connect.CodePermissionDenied, "this machine was removed from the room: ask who runs the room")
	ErrNotMember     = refusal("not-a-member", connect.CodeUnauthenticated, "the room's tracker knows this machine as no member: join the room again")
	ErrRoomFull      = refusal("room-full", connect.CodeResourceExhausted, "the room has as many members as it can have")
	ErrRoomUnknown   = refusal("room-unknown", connect.CodeNotFound, "this machine is no tracker of the room")
	ErrTrackerAway   = refusal("tracker-away", connect.CodeFailedPrecondition, "the tracker of this room is away, and this machine takes its place for downloads only: ask again when it is back")
	ErrNotHosting    = refusal("not-hosting", connect.CodeNotFound, "this machine does not take the tracker's place for that pool")
	ErrTrackerMoved  = refusal("tracker-moved", connect.CodeAborted, "this machine takes the tracker's place no more: another does, or the room's own is back")
	ErrElsewhere     = refusal("pool-elsewhere", connect.CodeAborted, "another replica of the tracker works on that pool")
	ErrNoAuthority   = refusal("no-authority", connect.CodeFailedPrecondition, "this tracker does not hold the room's authority: ask the machine that made the room")
	ErrCannotStore   = refusal("cannot-store", connect.CodeUnavailable, "the room's tracker cannot store, so joins are paused: its disk is full or failing; tell who runs it, and join again afterwards")
	ErrStoreAway     = refusal("store-away", connect.CodeUnavailable, "the room's trackers cannot reach the etcd cluster that they share, so nobody can join, be removed or be listed until they do; downloads go on: tell who runs it, and look then whether it was done all the same, else try again")
	ErrCreator       = refusal("is-creator", connect.CodeFailedPrecondition, "this machine made the room and holds its authority: it can leave the room, not be removed from it")
	ErrManyRemoved   = refusal("too-many-removed", connect.CodeResourceExhausted, "as many members were removed lately as can be: make a new room")

	ErrPublishAnew   = refusal("publish-anew", connect.CodeFailedPrecondition, "the tracker does not know what this machine has published: it is published anew")
	ErrCatalogueFull = refusal("catalogue-full", connect.CodeResourceExhausted, "the room's catalogue has as many entries of this machine, or of all, as it can have: share folders instead of single files, or unshare some")
	ErrUnreachable   = refusal("unreachable", connect.CodeFailedPrecondition, "the tracker cannot reach this machine at the address that it gives, so what it shares is not listed: open the port for members in its firewall, or name the right address with --advertise")

	ErrVersion   = refusal("version", connect.CodeUnimplemented, "the other end speaks another version of the protocol: update the older of the two (dragonload version)")
	ErrMalformed = refusal("malformed", connect.CodeInvalidArgument, "the message breaks the protocol")
	ErrReplaced  = refusal("session-replaced", connect.CodeAborted, "another session of this member took the place of this one")
	ErrCut       = refusal("session-cut", connect.CodeAborted, "the tracker ended the session: the member was silent, or said what no member says")
	ErrTooMany   = refusal("too-many", connect.CodeResourceExhausted, "too many messages, sessions or connections of one member")
	ErrStopping  = refusal("stopping", connect.CodeUnavailable, "the other end is stopping")

	ErrBadToken = refusal("bad-token", connect.CodeUnauthenticated, "the running node does not accept this token: it belongs to another state folder or was started again")
	ErrInternal = refusal("internal", connect.CodeInternal, "the other end met an error of its own: see its log")
)

var refusals = map[string]*Refusal{}

func refusal(word string, code connect.Code, text string) *Refusal {
	r := &Refusal{word: word, code: code, text: text}
	refusals[word] = r
	return r
}

// malformed keeps the detail for this side's log; only ErrMalformed crosses.
func malformed(what string, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrMalformed, what, err)
}

// ElsewhereError is an ErrElsewhere that says where the pool is worked on.
type ElsewhereError struct{ Addr string } // host:port

func (e *ElsewhereError) Error() string { return ErrElsewhere.text + ": " + e.Addr }
func (e *ElsewhereError) Unwrap() error { return ErrElsewhere }

// elsewhereHeader carries the address of an ElsewhereError.
const elsewhereHeader = "Dragonload-Elsewhere"

// ToWire returns what the caller of this end is told about err: the Refusal in it, or
// ErrInternal. Every handler returns its errors through here.
func ToWire(err error) error {
	var r *Refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &r):
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, errors.New("canceled"))
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, errors.New("too late"))
	default:
		r = ErrInternal
	}
	told := connect.NewError(r.code, errors.New(r.word))
	if e := (*ElsewhereError)(nil); errors.As(err, &e) {
		told.Meta().Set(elsewhereHeader, e.Addr)
	}
	return told
}

// FromWire returns the Refusal that the other end told, or err itself, which then is of
// this end or of the network between. What the other end calls an error is believed by
// its word only: none of its text reaches the user.
func FromWire(err error) error {
	var e *connect.Error
	if err == nil || !errors.As(err, &e) {
		return err
	}
	if r, ok := refusals[e.Message()]; ok && r.code == e.Code() {
		if addr := e.Meta().Get(elsewhereHeader); r == ErrElsewhere && CheckAddr(addr) == nil {
			return &ElsewhereError{Addr: addr}
		}
		return r
	}
	if e.Code() == connect.CodeUnimplemented {
		return ErrVersion // it knows no such call
	}
	if connect.IsWireError(err) {
		return fmt.Errorf("the other end answered with code %v", e.Code())
	}
	return err
}
