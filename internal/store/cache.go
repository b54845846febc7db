package store

import (
	"container/list"
	"io"
	"sync"
	"sync/atomic"
)

// idleBudget bounds what all caches of one kind in the process keep open together that
// nobody uses: others need handles too.
type idleBudget struct {
	count atomic.Int64
	most  func() int64
}

// newIdleBudget is a sixteenth of what the system lets the process have open.
func newIdleBudget() *idleBudget {
	return &idleBudget{most: sync.OnceValue(func() int64 { return min(256, int64(openLimit()/16)) })}
}

func (b *idleBudget) spent() bool { return b.count.Load() > b.most() }

var idleFiles, idleFolders = newIdleBudget(), newIdleBudget()

// cache keeps what was opened for who needs it next: at most limit things, and beyond
// that only those in use.
type cache[K comparable, V io.Closer] struct {
	limit  int
	budget *idleBudget

	mu    sync.Mutex
	items map[K]*cached[K, V]
	idle  list.List // of items that nobody uses, the one used last in front
}

// cached is a thing in a cache.
type cached[K comparable, V io.Closer] struct {
	key    K
	opened sync.Once
	value  V
	err    error

	// Guarded by the cache's mu.
	users int
	place *list.Element // in idle
	out   bool          // no longer in items: closed by the last user
}

func newCache[K comparable, V io.Closer](limit int, budget *idleBudget) *cache[K, V] {
	return &cache[K, V]{limit: limit, budget: budget, items: make(map[K]*cached[K, V])}
}

// take returns what key stands for, which the first to need it opens, and who needs it
// meanwhile waits for. Who has taken it gives it back.
func (c *cache[K, V]) take(key K, open func() (V, error)) (*cached[K, V], error) {
	c.mu.Lock()
	it := c.items[key]
	if it == nil {
		it = &cached[K, V]{key: key}
		c.items[key] = it
	}
	it.users++
	c.wake(it)
	c.mu.Unlock()
	it.opened.Do(func() { it.value, it.err = open() })
	if it.err != nil {
		c.mu.Lock()
		it.users--
		c.forget(it)
		c.mu.Unlock()
		return nil, it.err
	}
	return it, nil
}

// forget takes it out of items; c.mu must be held.
func (c *cache[K, V]) forget(it *cached[K, V]) {
	it.out = true
	if c.items[it.key] == it {
		delete(c.items, it.key)
	}
	c.wake(it)
}

// wake takes it out of idle; c.mu must be held.
func (c *cache[K, V]) wake(it *cached[K, V]) {
	if it.place != nil {
		c.idle.Remove(it.place)
		it.place = nil
		c.budget.count.Add(-1)
	}
}

// give gives back what take returned, and closes what has not been used for longest if
// there is too much. The error is that of closing.
func (c *cache[K, V]) give(it *cached[K, V]) error {
	c.mu.Lock()
	it.users--
	var old []*cached[K, V]
	switch {
	case it.users > 0:
	case it.out:
		old = append(old, it)
	default:
		it.place = c.idle.PushFront(it)
		c.budget.count.Add(1)
	}
	for (len(c.items) > c.limit || c.budget.spent()) && c.idle.Len() > 0 {
		last := c.idle.Back().Value.(*cached[K, V])
		c.forget(last)
		old = append(old, last)
	}
	c.mu.Unlock()
	return closeAll(old)
}

// drop closes what key stands for, or lets its last user do it. Who takes it from now on
// opens it anew.
func (c *cache[K, V]) drop(key K) error {
	c.mu.Lock()
	it := c.items[key]
	if it == nil {
		c.mu.Unlock()
		return nil
	}
	c.forget(it)
	used := it.users > 0
	c.mu.Unlock()
	if used {
		return nil
	}
	return closeAll([]*cached[K, V]{it})
}

// clear drops everything.
func (c *cache[K, V]) clear() error {
	c.mu.Lock()
	var old []*cached[K, V]
	for _, it := range c.items {
		if c.forget(it); it.users == 0 {
			old = append(old, it)
		}
	}
	c.mu.Unlock()
	return closeAll(old)
}

func closeAll[K comparable, V io.Closer](all []*cached[K, V]) error {
	var err error
	for _, it := range all {
		if e := it.value.Close(); err == nil {
			err = e
		}
	}
	return err
}
