package main

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"dragonload/internal/node"
)

func TestJudge_givesWhatTheSystemRefusesOneExitCode(t *testing.T) {
	full := &fs.PathError{Op: "write", Path: "/state/x", Err: syscall.ENOSPC}
	denied := &fs.PathError{Op: "open", Path: "/state/x", Err: syscall.EACCES}
	broken := &fs.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.EPIPE}
	other := errors.New("other")
	for _, c := range []struct {
		what         string
		err, writing error
		want         exitCode
		shown        bool
	}{
		{"all is well", nil, nil, exitOK, false},
		{"full, without a code", full, nil, exitDiskFull, false},
		{"full, of a room", roomError(full), nil, exitDiskFull, false},
		{"full, of the state folder", failf(exitFileIO, "%w", full), nil, exitDiskFull, false},
		{"full, made no folder", failf(exitCreate, "%w", full), nil, exitDiskFull, false},
		{"full, and told", &failure{code: exitOther, err: full, shown: true}, nil, exitOther, true},
		{"denied, without a code", denied, nil, exitFileIO, false},
		{"denied, of a room", roomError(denied), nil, exitFileIO, false},
		{"denied, as the node says it", node.AsError(denied), nil, exitFileIO, false},
		{"denied, made no folder", failf(exitCreate, "%w", denied), nil, exitCreate, false},
		{"full output", nil, full, exitFileIO, false},
		{"full output, as the command says it", fmt.Errorf("print: %w", full), full, exitFileIO, false},
		{"full output, and another failure", failf(exitUsage, "%w", other), full, exitUsage, false},
		{"no reader", nil, broken, exitFileIO, true},
		{"no reader, as the command says it", fmt.Errorf("print: %w", broken), broken, exitFileIO, true},
		{"no reader, and another failure", failf(exitUsage, "%w", other), broken, exitUsage, false},
	} {
		got := judge(c.err, c.writing)
		var f *failure
		if shown := errors.As(got, &f) && f.shown; codeOf(got) != c.want || shown != c.shown {
			t.Errorf("%s: %d, shown %v; want %d, %v (%v)", c.what, codeOf(got), shown, c.want, c.shown, got)
		}
		if c.want == exitDiskFull && problemOf(t.Context(), got).Code != "disk-full" {
			t.Errorf("%s: the code is %s", c.what, problemOf(t.Context(), got).Code)
		}
	}
}
