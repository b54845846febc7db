// Dragonload downloads one URL with a room of machines together: each machine pulls
// a different part of the file over its own line, and the parts are swapped between
// the machines while they arrive.
//
// This package is wiring: one file for each subcommand, the composition of node and
// tracker in compose.go, what people and programs read in saved.go, events.go,
// plain.go and block.go, the exit codes in exit.go, the configuration file in
// config.go. Nothing is decided here; see internal/node and internal/swarm.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"dragonload/internal/node"
)

func main() { os.Exit(int(run(os.Args[1:]))) }

// streams are the three standard streams of the process. Tests of single parts give
// others.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// errStopped is the cause of a context that a signal has ended.
var errStopped = errors.New("stopped")

// showCursor is what a terminal needs if the process ends while the progress block
// hides the cursor.
const showCursor = "\x1b[?25h"

func run(args []string) exitCode {
	// What net/http tells here quotes what an origin sent, and an origin may send back the
	// secrets that it got. The program's own log says what went wrong.
	log.SetOutput(io.Discard)
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as under nohup
		signal.Notify(signals, syscall.SIGHUP) // the terminal was closed
	}
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		obey(signals, done, func() { cancel(errStopped) }, func() {
			if isTerminal(os.Stderr) {
				fmt.Fprint(os.Stderr, showCursor)
			}
			os.Exit(int(exitStopped))
		})
	}()
	defer func() {
		signal.Stop(signals)
		close(done)
		<-watched
		cancel(nil)
	}()

	signal.Ignore(syscall.SIGPIPE) // what was begun is put away first
	out := &output{file: os.Stdout, gone: func() { cancel(errStopped) }}
	std := streams{in: os.Stdin, out: out, err: os.Stderr}
	err := judge(execute(ctx, args, std), out.failed())
	if err == nil {
		return exitOK
	}
	var f *failure
	if !errors.As(err, &f) || !f.shown {
		fmt.Fprintf(std.err, "dragonload: %s\n", safeText(err.Error()))
		if out := jsonAsked(args, std); out != nil {
			events := jsonEvents{out: out}
			events.event(-1, node.Event{Time: time.Now(), Failed: problemOf(ctx, err)})
		}
	}
	return codeOf(err)
}

// sameOrder is how soon after the first signal another one is still the same order:
// timeout(1), and a shell whose terminal is closed, signal the process and then its group.
const sameOrder = 500 * time.Millisecond

// obey has the first signal stop what is done in good order, and a later one end it now,
// whatever still wants to be put away. It returns when done is closed.
func obey(signals <-chan os.Signal, done <-chan struct{}, stop, now func()) {
	var first time.Time
	for {
		select {
		case <-signals:
		case <-done:
			return
		}
		switch {
		case first.IsZero():
			first = time.Now()
			stop()
		case time.Since(first) >= sameOrder:
			now()
		}
	}
}
