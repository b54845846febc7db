package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"dragonload/internal/origin"
	"dragonload/internal/room"
	"dragonload/internal/store"
	"dragonload/internal/swarm"
)

// Exit codes of the program, as CONTRACT.md lists them.
const (
	ExitOther        = 1
	ExitTimeout      = 2
	ExitNotFound     = 3
	ExitNetwork      = 6
	ExitStopped      = 7
	ExitNoResume     = 8
	ExitDiskFull     = 9
	ExitExists       = 13
	ExitCannotCreate = 16
	ExitFile         = 17
	ExitUnresolved   = 19
	ExitBadAnswer    = 22
	ExitUnauthorized = 24
	ExitBadOption    = 28
	ExitChecksum     = 32
	ExitChanged      = 33
	ExitRoom         = 34
)

// Error is how a download, or the node, ended badly: the problem as its user is told
// it, and the cause.
type Error struct {
	Problem
	Err error // may be nil
}

func (e *Error) Error() string { return e.Message }
func (e *Error) Unwrap() error { return e.Err }

// ErrRunning means that another process works on the state folder.
var ErrRunning = errors.New("another dragonload works with this state folder")

// ErrEnding means that the node is ending and takes no new downloads.
var ErrEnding = errors.New("the node is ending")

// problem wraps an error with a code and an exit code; its message is the error's.
func problem(code string, exit int, err error) *Error {
	return &Error{Problem: Problem{Code: code, Message: err.Error(), Exit: exit}, Err: err}
}

// AsError returns err as an *Error: itself if it is one, else the row of the tables
// below that fits.
func AsError(err error) *Error {
	var e *Error
	var o *origin.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &o):
		return originProblem(o)
	case errors.Is(err, context.Canceled):
		return problem("stopped", ExitStopped, errors.New("stopped; what has come so far is kept"))
	}
	for _, row := range causes {
		if errors.Is(err, row.cause) {
			return problem(row.code, row.exit, err)
		}
	}
	if isNoHandle(err) {
		return noHandleProblem(err)
	}
	if store.IsDiskFull(err) { // the disk of the state, say
		return problem("disk-full", ExitDiskFull, fmt.Errorf("the disk is full: %w; make room and run the same command again", err))
	}
	return problem("other", ExitOther, err)
}

// causes maps errors of the packages below to what the user is told.
var causes = []struct {
	cause error
	code  string
	exit  int
}{
	{store.ErrDiskFull, "disk-full", ExitDiskFull},
	{store.ErrReadOnly, "disk-read-only", ExitFile},
	{store.ErrFolderGone, "folder-gone", ExitFile},
	{store.ErrDiskFailing, "disk-failing", ExitFile},
	{store.ErrReplaced, "part-replaced", ExitCannotCreate},
	{store.ErrOtherSource, "other-address", ExitCannotCreate},
	{store.ErrExists, "file-exists", ExitExists},
	{store.ErrInUse, "in-use", ExitExists},
	{store.ErrCannotCreate, "cannot-create", ExitCannotCreate},
	{room.ErrNoRoom, "no-room", ExitRoom},
	{room.ErrRemoved, "removed", ExitRoom},
	{room.ErrNotMember, "not-a-member", ExitRoom},
	{ErrRunning, "running", ExitOther},
	{ErrEnding, "ending", ExitStopped},
}

// storeProblem is AsError for what came of reading or writing the file itself.
func storeProblem(err error) *Error {
	if e := AsError(err); e.Code != "other" {
		return e
	}
	return problem("file", ExitFile, fmt.Errorf("%w; what came is kept: look at the disk and at who may write there, and run the same command again", err))
}

// originProblem gives the last error of an origin its code.
func originProblem(err *origin.Error) *Error {
	row, ok := originCodes[err.Kind]
	if !ok {
		row = originCode{"origin", ExitBadAnswer}
	}
	return problem(row.code, row.exit, err)
}

type originCode struct {
	code string
	exit int
}

var originCodes = map[origin.Kind]originCode{
	origin.Resolve:     {"origin-unresolved", ExitUnresolved},
	origin.Refused:     {"origin-refused", ExitNetwork},
	origin.Network:     {"origin-network", ExitNetwork},
	origin.TLS:         {"origin-tls", ExitNetwork},
	origin.Silent:      {"origin-silent", ExitTimeout},
	origin.NotFound:    {"origin-not-found", ExitNotFound},
	origin.Forbidden:   {"origin-forbidden", ExitUnauthorized},
	origin.Throttled:   {"origin-throttled", ExitBadAnswer},
	origin.Server:      {"origin-server-error", ExitBadAnswer},
	origin.Short:       {"origin-bad-answer", ExitBadAnswer},
	origin.BadAnswer:   {"origin-bad-answer", ExitBadAnswer},
	origin.Changed:     {"origin-changes", ExitChanged},
	origin.NoRange:     {"origin-no-ranges", ExitBadAnswer},
	origin.BadRedirect: {"origin-bad-redirect", ExitBadAnswer},
	origin.Status:      {"origin-status", ExitBadAnswer},
	origin.Blocked:     {"origin-blocked", ExitBadAnswer},
}

// failProblem is what the user is told when the machine gives a download up. last is
// the last error that this node met at the origin; it may be nil. atLast says that the
// origin has brought nothing since.
func failProblem(code swarm.FailCode, last *origin.Error, atLast bool, kept string, giveUpAfter time.Duration) *Error {
	because := ""
	var cause error
	if last != nil {
		because, cause = "; last: "+last.Error(), last
	}
	switch code {
	case swarm.FailChanges:
		return &Error{Err: cause, Problem: Problem{Code: "origin-changes", Exit: ExitChanged,
			Message: "the file keeps changing at the origin while it is fetched; try again when it has settled" + because}}
	case swarm.FailInconsistent:
		return &Error{Err: cause, Problem: Problem{Code: "origin-inconsistent", Exit: ExitBadAnswer,
			Message: "the origin gives different bytes for one and the same version of the file, so no file can be told to be the right one; " + kept +
				"; ask who runs the origin, or try another address of the file"}}
	case swarm.FailUnconfirmed:
		return &Error{Err: cause, Problem: Problem{Code: "unconfirmed", Exit: ExitTimeout,
			Message: "the file is whole, but fewer members than --confirm asks for have read and stated all of it" + because + "; " + kept +
				"; run the same command again when more members fetch it, or leave --confirm out"}}
	case swarm.FailSilence:
		row := originCode{"no-progress", ExitTimeout}
		if last != nil && atLast && last.Kind.Unreached() {
			row = originCodes[last.Kind] // no silence: it was not reached
		}
		return &Error{Err: cause, Problem: Problem{Code: row.code, Exit: row.exit,
			Message: fmt.Sprintf("no new byte has come for %v%s; %s; run the same command again to go on", giveUpAfter, because, kept)}}
	}
	if last != nil {
		return originProblem(last)
	}
	return &Error{Problem: Problem{Code: "origin", Exit: ExitNetwork,
		Message: "no member of the room can get the file from the origin; try from one that reaches it, or look at the URL"}}
}

// warnings holds the sentence for each of the machine's warnings. %s is the peer.
var warnings = map[swarm.WarnCode]string{
	swarm.WarnTrackerAway:      "the room's tracker does not answer; the download goes on with the members known so far, and from the origin, and comes back to the tracker by itself",
	swarm.WarnTrackerMoved:     "the tracker is away; %s takes its place for this download",
	swarm.WarnQueued:           "queued, about %s: the tracker takes so many newcomers in one after the other",
	swarm.WarnTrackerBack:      "the room's tracker answers again",
	swarm.WarnOtherContent:     "the room's tracker takes this content for another one, so it is of no use for it; the download goes on with the members that have it, and tries the tracker again",
	swarm.WarnChanged:          "the file changed at the origin; what came of the older version is dropped and the new one is fetched",
	swarm.WarnBegunAnew:        "the origin's stream broke off, and the origin names nothing by which a next one could be known to be of the same version; what came of it is dropped and the file is fetched anew",
	swarm.WarnWrongBytes:       "member %s sent bytes that do not match their digest; they were dropped and are fetched elsewhere",
	swarm.WarnWrongStatement:   "member %s stated a digest that the origin contradicts; what it vouched for is fetched again",
	swarm.WarnBanned:           "parts from %s were wrong and are replaced; another member has confirmed it, and the device is shut out of this download; to shut it out of the room use dragonload room remove",
	swarm.WarnShutOut:          "member %s has sent wrong bytes several times; the download goes on without it",
	swarm.WarnInconsistent:     "members read different bytes of one and the same version of the file at the origin; nobody is shut out for it, and parts in doubt are read from the origin by this machine itself",
	swarm.WarnOriginWaits:      "the origin asked for a pause; it is asked again when that is over, and what members and mirrors have comes meanwhile",
	swarm.WarnOneStream:        "the origin serves no ranges of the file, or names nothing (a strong ETag, a digest, a date) by which ranges could be known to be of one version; one member reads the file as one stream, and an interrupted download begins anew; another address of the file may do better (--mirror)",
	swarm.WarnOriginAway:       "the origin has been unavailable for a while; it is asked again by itself, and what came is kept",
	swarm.WarnPartNowhere:      "what is missing is nowhere in the pool, and the origin does not give it; everything is kept, and it is fetched as soon as the origin or a member brings it",
	swarm.WarnDoubted:          "the finished file is not what its digest says; the parts that other members brought are compared with the origin, and wrong ones are replaced",
	swarm.WarnConfirmShort:     "fewer members than --confirm asks for can fetch the file now; what can be fetched is, and then the download waits for more members until --give-up-after",
	swarm.WarnNothingForAWhile: "no byte has come for a while; the download keeps trying and what came is kept",
}

// warning is what the user is told; name is that of w.Peer.
func warning(w swarm.Warn, name string) *Problem {
	sentence, ok := warnings[w.Code]
	if !ok {
		sentence = string(w.Code)
	}
	if w.For > 0 {
		name = fmt.Sprintf("%.0f s", w.For.Seconds())
	}
	sentence = strings.Replace(sentence, "%s", name, 1)
	return &Problem{Code: string(w.Code), Message: sentence}
}
