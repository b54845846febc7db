package main

import (
	"context"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"

	"dragonload/internal/tracker"
)

var _ catalogues = (*tracker.Memory)(nil)

type textOf int

func (t textOf) Text() int { return int(t) }

// The limit of memory is the process's, so this test is alone with it.
func TestFitMemory_leavesRoomForTheCatalogue(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			fitMemory(ctx, textOf(10<<20))
		}()
		time.Sleep(memoryEvery + time.Second)
		cancel()
		<-done
	})
	if got, want := debug.SetMemoryLimit(-1), int64(softLimit+perByte*10<<20); got != want {
		t.Errorf("the limit is %d, want %d", got, want)
	}
}
