package boltstate

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// guarded is a database whose pages may be damaged: bbolt checks two of them, and panics over
// the others, or never ends a wait for who has panicked. After a panic it is not asked
// again.
type guarded struct {
	path    string
	db      *bbolt.DB
	writing sync.Mutex // held by who changes something

	mu     sync.Mutex
	broken error
}

// errDamaged says what can be done; nothing is thrown away unasked.
func (g *guarded) errDamaged(why any) error {
	return fmt.Errorf("%s is damaged (%v); stop dragonload, put a copy of it in its place or move it away, and start again: "+
		"members bring back who was removed and which invites were used", g.path, why)
}

func (g *guarded) open() error {
	return g.guard(func() error {
		db, err := bbolt.Open(g.path, 0o600, &bbolt.Options{Timeout: lockWait})
		var outside *os.PathError
		if err != nil && !errors.Is(err, berrors.ErrTimeout) && !errors.As(err, &outside) {
			return g.errDamaged(err)
		}
		g.db = db
		return err
	})
}

// view and update run f in a transaction.
func (g *guarded) view(f func(*bbolt.Tx) error) error {
	return g.guard(func() error { return g.db.View(f) })
}

func (g *guarded) update(f func(*bbolt.Tx) error) error {
	g.writing.Lock()
	defer g.writing.Unlock()
	return g.guard(func() error { return g.db.Update(f) })
}

// guard returns panics, and faults in bbolt's mapping of a file cut short, as errors.
func (g *guarded) guard(f func() error) (err error) {
	if err := g.damage(); err != nil {
		return err
	}
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if p := recover(); p != nil {
			err = g.errDamaged(p)
			g.mu.Lock()
			g.broken = err
			g.mu.Unlock()
		}
	}()
	return f()
}

// close closes the file and gives its lock back. One that is damaged stays open until the
// process ends: bbolt may wait for itself.
func (g *guarded) close() error {
	if g.damage() == nil {
		return g.guard(g.db.Close)
	}
	return nil
}

func (g *guarded) damage() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.broken
}
