package rpc

import (
	"context"
	"fmt"
	"sync"

	nodev1 "dragonload/internal/rpc/gen/dragonload/node/v1"
)

// passing reports whether an event tells only how far the work has come, so that a later
// one can take its place.
func passing(e any) bool {
	switch e := e.(type) {
	case *nodev1.DownloadEvent:
		return e.GetProgress() != nil
	case *nodev1.ShareEvent:
		return e.GetHashed() != nil
	}
	return false
}

// events is the queue between work and the caller that watches it, so that a caller
// that does not read (a stopped terminal) never holds the work up.
type events[E any] struct {
	mu      sync.Mutex
	waiting []E
	ended   bool
	wake    chan struct{} // holds one token while there is something to look at
	give    context.CancelCauseFunc
}

func newEvents[E any](give context.CancelCauseFunc) *events[E] {
	return &events[E]{wake: make(chan struct{}, 1), give: give}
}

// add never waits. What passes takes the place of what passes and still waits last.
func (q *events[E]) add(e E) {
	q.mu.Lock()
	defer q.mu.Unlock()
	last := len(q.waiting) - 1
	switch {
	case last >= 0 && passing(e) && passing(q.waiting[last]):
		q.waiting[last] = e
	case len(q.waiting) >= maxWaitingEvents:
		q.give(fmt.Errorf("%w: %d events wait for a caller that does not read", ErrTooMany, len(q.waiting)))
	default:
		q.waiting = append(q.waiting, e)
	}
	q.signal()
}

func (q *events[E]) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.signal()
}

func (q *events[E]) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// sendTo sends events until end was called and nothing waits, or ctx ends.
func (q *events[E]) sendTo(ctx context.Context, send func(E) error) error {
	for {
		q.mu.Lock()
		batch, ended := q.waiting, q.ended
		q.waiting = nil
		q.mu.Unlock()
		for _, e := range batch {
			if err := send(e); err != nil {
				return err
			}
		}
		if len(batch) > 0 {
			continue
		}
		if ended {
			return nil
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
