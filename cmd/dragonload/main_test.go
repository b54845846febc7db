package main

import (
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// The first signal stops in good order, also one that comes twice at once, as timeout(1)
// sends it; one that comes later ends the process now.
func TestObey_takesTwoSignalsAtOnceForOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals, done := make(chan os.Signal, 2), make(chan struct{})
		stopped, ended := 0, 0
		over := make(chan struct{})
		go func() {
			defer close(over)
			obey(signals, done, func() { stopped++ }, func() { ended++ })
		}()
		for _, step := range []struct {
			after          time.Duration
			stopped, ended int
		}{{0, 1, 0}, {0, 1, 0}, {sameOrder - 1, 1, 0}, {1, 1, 1}} {
			time.Sleep(step.after)
			signals <- syscall.SIGTERM
			synctest.Wait()
			if stopped != step.stopped || ended != step.ended {
				t.Fatalf("stopped %d times and ended %d times, want %d and %d", stopped, ended, step.stopped, step.ended)
			}
		}
		close(done)
		<-over
	})
}
