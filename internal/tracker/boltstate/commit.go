package boltstate

import (
	"slices"
	"sync"

	"go.etcd.io/bbolt"
)

// Group commit: what is to be changed while one transaction is on its way to the disk waits
// and goes together in the next. When a room's members come all at once, or again after its
// tracker was away, each waits for two syncs or so, and not for those of all before it. (Batch of
// bbolt waits for a fixed time instead, which a single member would wait too.)

// maxGroup bounds the changes of one transaction: one that fails makes the others be done again.
const maxGroup = 64

// change is something that somebody waits for.
type change struct {
	apply func(*bbolt.Tx) error // may be called more than once; what it did is undone if it fails
	turn  chan struct{}         // told that it is this one's turn to commit for all who wait
	done  chan error
}

// group gathers changes of one file.
type group struct {
	write func(func(*bbolt.Tx) error) error // one transaction

	mu      sync.Mutex
	waiting []*change
	busy    bool // somebody commits, or has been told to
}

// update is bbolt.DB.Update, together with others: what apply did is durable when it
// returns nil, and undone if it does not.
func (g *group) update(apply func(*bbolt.Tx) error) error {
	c := &change{apply: apply, turn: make(chan struct{}, 1), done: make(chan error, 1)}
	g.mu.Lock()
	g.waiting = append(g.waiting, c)
	if !g.busy {
		g.busy = true
		c.turn <- struct{}{}
	}
	g.mu.Unlock()
	select {
	case err := <-c.done:
		return err
	case <-c.turn:
	}
	g.mu.Lock()
	batch := slices.Clone(g.waiting[:min(len(g.waiting), maxGroup)]) // c is the first
	g.waiting = slices.Delete(g.waiting, 0, len(batch))
	g.mu.Unlock()
	g.commit(batch)
	g.mu.Lock()
	if g.busy = len(g.waiting) > 0; g.busy {
		g.waiting[0].turn <- struct{}{}
	}
	g.mu.Unlock()
	return <-c.done
}

// commit makes changes in one transaction. One that fails is told so and left out, and
// the others begin anew.
func (g *group) commit(batch []*change) {
	for len(batch) > 0 {
		failed := -1
		err := g.write(func(tx *bbolt.Tx) error {
			for k, c := range batch {
				if err := c.apply(tx); err != nil {
					failed = k
					return err
				}
			}
			return nil
		})
		if failed < 0 {
			for _, c := range batch {
				c.done <- err
			}
			return
		}
		batch[failed].done <- err
		batch = slices.Delete(batch, failed, failed+1)
	}
}
