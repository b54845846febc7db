package main

import (
	"context"
	"errors"
	"fmt"

	"dragonload/internal/node"
)

// exitCode is what the process ends with. The numbers are aria2's where the meaning
// is the same; scripts rely on them.
type exitCode int

const (
	exitOK        exitCode = 0
	exitOther     exitCode = 1
	exitTimeout   exitCode = 2 // nothing came for --give-up-after
	exitNotFound  exitCode = 3 // 404, 410
	exitNetwork   exitCode = 6 // no connection, reset, TLS
	exitStopped   exitCode = 7 // by the user, with the work kept
	exitNoResume  exitCode = 8 // --continue was demanded and the origin cannot
	exitDiskFull  exitCode = 9
	exitExists    exitCode = 13 // a file has the final name
	exitCreate    exitCode = 16 // the file cannot be created
	exitFileIO    exitCode = 17
	exitResolve   exitCode = 19 // the origin's name is not known
	exitBadAnswer exitCode = 22 // outside what HTTP allows, or a manifest that cannot be used
	exitForbidden exitCode = 24 // 401, 403, 407
	exitUsage     exitCode = 28 // a bad option or argument
	exitChecksum  exitCode = 32
	exitChanged   exitCode = 33 // the file kept changing at the origin
	exitNoAccess  exitCode = 34 // to the room
)

// failure is an error that knows the exit code of the process. Its text is a whole
// message for the user: what happened, to what, what to do next.
type failure struct {
	code  exitCode
	err   error
	word  string // its stable code; "" for that of the exit code
	shown bool   // the user has read it already
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// failf makes a failure; %w works as in fmt.Errorf.
func failf(code exitCode, format string, args ...any) error {
	return &failure{code: code, err: fmt.Errorf(format, args...)}
}

// wordf is failf with a stable code that is not the first of its exit code.
func wordf(word string, code exitCode, format string, args ...any) error {
	return &failure{code: code, err: fmt.Errorf(format, args...), word: word}
}

// usagef is failf for a bad option or argument.
func usagef(format string, args ...any) error { return failf(exitUsage, format, args...) }

// codeOf returns the exit code for what a command returned. What carries no code of
// its own is 1, unless it is the user who stopped it.
func codeOf(err error) exitCode {
	var f *failure
	var e *node.Error
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &f):
		return f.code
	case errors.As(err, &e):
		return exitCode(e.Exit)
	case errors.Is(err, errStopped), errors.Is(err, context.Canceled):
		return exitStopped
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	}
	return exitCode(node.AsError(err).Exit)
}

// codes are the stable words for failures that no download has told: of an exit code the
// first one, where the failure names no other. docs/messages.md lists them.
var codes = []struct {
	code string
	exit exitCode
}{
	{"other", exitOther},
	{"bad-option", exitUsage},
	{"bad-manifest", exitBadAnswer},
	{"no-access", exitNoAccess},
	{"no-room", exitNoAccess},
	{"no-tracker", exitNetwork},
	{"not-found", exitNotFound},
	{"checksum", exitChecksum},
	{"stopped", exitStopped},
	{"disk-full", exitDiskFull},
	{"file", exitFileIO},
	{"standard-output", exitFileIO},
	{"file-exists", exitExists},
	{"cannot-create", exitCreate},
}

// problemOf is what the user is told of an error that no event has told.
func problemOf(ctx context.Context, err error) *node.Problem {
	if errors.Is(context.Cause(ctx), errStopped) {
		return &node.Problem{
			Code: "stopped", Exit: int(exitStopped),
			Message: "stopped; what has come is kept, and the same command goes on from there",
		}
	}
	var known *failure
	if !errors.As(err, &known) {
		return &node.AsError(err).Problem
	}
	p := &node.Problem{Code: known.word, Exit: int(known.code), Message: err.Error()}
	for _, c := range codes {
		if c.exit == known.code && p.Code == "" {
			p.Code = c.code
		}
	}
	return p
}
