package main

import (
	"context"
	"errors"
	"io"
	"testing"
)

// To make a large file takes minutes; who stops the demo meanwhile does not wait for it.
func TestDemo_stopsWhileItsFileIsMade(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errStopped)
	d := demoFlags{members: 2, size: 1 << 40, line: 1 << 20}
	if err := runDemo(ctx, d, streams{out: io.Discard, err: io.Discard}); !errors.Is(err, errDemoStopped) {
		t.Errorf("a demo that was stopped ended with %v", err)
	}
}
