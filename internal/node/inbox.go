package node

import (
	"context"
	"sync"

	"dragonload/internal/swarm"
)

// outsideEvents bounds how many events that other nodes cause wait for one loop;
// whoever reads them off the network waits when there are more. Events of our own
// workers need no bound: the machine orders the work that they come from.
const outsideEvents = 256

// item is one thing for a download's loop: an event for the machine, or something to
// be done in the loop's goroutine.
type item struct {
	event   swarm.Event
	do      func()
	outside bool
}

// inbox is the queue of a download's loop. Posting never blocks.
type inbox struct {
	mu     sync.Mutex
	items  []item        // guarded by mu
	wake   chan struct{} // has a token while items may not be empty
	closed chan struct{} // closed once the loop has ended
	places chan struct{} // a token for each waiting event from outside
}

func newInbox() *inbox {
	return &inbox{wake: make(chan struct{}, 1), closed: make(chan struct{}), places: make(chan struct{}, outsideEvents)}
}

// post puts an event of a worker into the queue.
func (q *inbox) post(ev swarm.Event) { q.put(item{event: ev}) }

// do has f run in the loop's goroutine.
func (q *inbox) do(f func()) { q.put(item{do: f}) }

// outside puts what another node caused into the queue, after waiting for a place in
// it. It reports false if ctx, or the loop, ended first.
func (q *inbox) outside(ctx context.Context, it item) bool {
	select {
	case q.places <- struct{}{}:
		it.outside = true
		q.put(it)
		return true
	case <-q.closed:
		return false
	case <-ctx.Done():
		return false
	}
}

func (q *inbox) put(it item) {
	q.mu.Lock()
	q.items = append(q.items, it)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take moves what waits into the empty slice spare and returns it; the slice that
// held it becomes the queue's next one.
func (q *inbox) take(spare []item) []item {
	q.mu.Lock()
	items := q.items
	q.items = spare[:0]
	q.mu.Unlock()
	return items
}

// done frees the place of an item that the loop has handled.
func (q *inbox) done(it item) {
	if it.outside {
		<-q.places
	}
}
