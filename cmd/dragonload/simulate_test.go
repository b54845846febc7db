package main

import (
	"context"
	"io"
	"strings"
	"testing"

	"dragonload/internal/sim"
)

func TestSimulate_tellsHowToBeginTheSameRunAgain(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errStopped)
	const again = "--members 60 --size 67108864 --seed 5"
	err := simulate(ctx, sim.Uniform(60, 64<<20, 5), again, streams{out: io.Discard, err: io.Discard})
	if codeOf(err) != exitStopped || !strings.Contains(err.Error(), "dragonload simulate "+again+" begins the same run again") {
		t.Errorf("got %v", err)
	}
}
