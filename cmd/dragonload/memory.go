package main

import (
	"context"
	"runtime/debug"
	"time"
)

const (
	// memoryEvery is how often the soft limit is set by what the catalogues hold.
	memoryEvery = 10 * time.Second
	// A catalogue takes up to perByte bytes for each byte of names in it (a benchmark of
	// package catalogue shows it); a limit below that would have the memory collected
	// without a pause.
	perByte = 12
)

// catalogues are those that a tracker's State holds in memory.
type catalogues interface {
	Text() int // bytes of names in them
}

// fitMemory keeps the soft limit of memory above what the tracker's catalogues need, until
// ctx ends.
func fitMemory(ctx context.Context, held catalogues) {
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			debug.SetMemoryLimit(softLimit + perByte*int64(held.Text()))
		case <-ctx.Done():
			return
		}
	}
}
