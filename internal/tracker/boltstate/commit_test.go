package boltstate

import (
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"

	"go.etcd.io/bbolt"
)

// Those who come while one writes go together; one of them that fails is undone alone.
func TestGroup_commitsTogetherWhatWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db, err := bbolt.Open(filepath.Join(t.TempDir(), "db"), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		g := group{write: db.Update}
		wrong := errors.New("wrong")
		put := func(tx *bbolt.Tx, key byte) error {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			if err != nil {
				return err
			}
			return b.Put([]byte{key}, []byte{1})
		}
		release := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			if err := g.update(func(tx *bbolt.Tx) error { <-release; return put(tx, 0) }); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait() // it writes
		const others = 2*maxGroup + 5
		ids := make(map[int]bool) // of transactions that were kept
		var mu sync.Mutex
		for k := byte(1); k <= others; k++ {
			all.Go(func() {
				id := 0
				err := g.update(func(tx *bbolt.Tx) error {
					id = tx.ID()
					if err := put(tx, k); err != nil || k != 7 {
						return err
					}
					return wrong
				})
				if k == 7 != errors.Is(err, wrong) || k != 7 && err != nil {
					t.Errorf("change %d: %v", k, err)
				}
				if k != 7 {
					mu.Lock()
					ids[id] = true
					mu.Unlock()
				}
			})
		}
		synctest.Wait()
		close(release)
		all.Wait()
		if len(ids) != 3 {
			t.Errorf("%d changes went in %d transactions", others, len(ids))
		}
		err = db.View(func(tx *bbolt.Tx) error {
			for k := range byte(others + 1) {
				if there := tx.Bucket([]byte("b")).Get([]byte{k}) != nil; there != (k != 7) {
					t.Errorf("key %d: %v", k, there)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if g.busy || len(g.waiting) > 0 {
			t.Errorf("left: %+v", g.waiting)
		}
	})
}
