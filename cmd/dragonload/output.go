package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"dragonload/internal/store"
)

// output is standard output. It remembers the first error of writing, so that no command
// has to look after each of its lines: run does at the end. When the reader has gone away
// (| head), the command is told to end.
type output struct {
	file *os.File
	gone func() // called when nobody reads any more

	mu  sync.Mutex
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.file.Write(p)
	if err == nil {
		return n, nil
	}
	o.mu.Lock()
	first := o.err == nil
	if first {
		o.err = err
	}
	o.mu.Unlock()
	if first && isGone(err) {
		o.gone()
	}
	return n, err
}

// copied is standard output for the bytes of a file. It remembers that its reader has left.
type copied struct {
	file *os.File
	left atomic.Bool
}

func (c *copied) Write(p []byte) (int, error) {
	n, err := c.file.Write(p)
	c.left.Store(c.left.Load() || isGone(err))
	return n, err
}

// isUnread reports whether the reader has left; c may be nil.
func (c *copied) isUnread() bool { return c != nil && c.left.Load() }

// failed returns the first error of writing.
func (o *output) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// isGone reports whether a pipe has no reader any more.
func isGone(err error) bool {
	const brokenPipe, noData = syscall.Errno(109), syscall.Errno(232) // of Windows
	return errors.Is(err, syscall.EPIPE) || runtime.GOOS == "windows" && (errors.Is(err, brokenPipe) || errors.Is(err, noData))
}

// unheard hands on what is written and says that all is well: for a library that would
// print the error of writing itself, and for lines whose loss is no failure.
type unheard struct{ to io.Writer }

func (u unheard) Write(p []byte) (int, error) {
	_, _ = u.to.Write(p)
	return len(p), nil
}

// unheard is standard output for lines whose loss is no failure.
func (s streams) unheard() io.Writer {
	if file := fileOf(s.out); file != nil {
		return unheard{file}
	}
	return unheard{s.out}
}

// fileOf returns the file that a stream is, nil if it is none.
func fileOf(w io.Writer) *os.File {
	switch w := w.(type) {
	case *output:
		return w.file
	case *os.File:
		return w
	}
	return nil
}

// judge returns how a command ended whose standard output may have failed, and gives
// what the system refused, to whatever command, one exit code.
func judge(err, writing error) error {
	var known *failure
	shown := errors.As(err, &known) && known.shown
	switch {
	case writing != nil && isGone(writing) && (err == nil || errors.Is(err, writing) || codeOf(err) == exitStopped && !shown):
		return &failure{code: exitFileIO, err: writing, word: "standard-output", shown: true} // whoever left knows it
	case writing != nil && (err == nil || errors.Is(err, writing) && known == nil):
		return wordf("standard-output", exitFileIO, "standard output cannot be written: %w", writing)
	case writing != nil && errors.Is(err, writing):
		return wordf("standard-output", exitFileIO, "%w", err)
	case err == nil || shown:
		return err
	}
	code := codeOf(err)
	switch {
	case store.IsDiskFull(err) && (code == exitOther || code == exitCreate || code == exitFileIO):
		return failf(exitDiskFull, "the disk is full: %w; make room and run the same command again", err)
	case errors.Is(err, fs.ErrPermission) && code == exitOther:
		return failf(exitFileIO, "%w; look at its owner and permissions, or set DRAGONLOAD_STATE_DIR to a folder of your own", err)
	}
	return err
}
