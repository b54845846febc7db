package share

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// database is bbolt's, whose pages may be damaged: it checks two of them, and panics over
// the others, or never ends a wait for who has panicked. After a panic it is not asked again.
type database struct {
	path    string
	db      *bbolt.DB
	file    *os.File
	writing sync.Mutex // held by who changes something

	mu     sync.Mutex
	broken error
}

var errDamaged = errors.New("the list of shares is damaged")

// openDB opens the database, and puts one that is damaged aside: its shares are forgotten
// then, and no file of the user is touched.
func openDB(path string) (db *database, aside string, err error) {
	db, err = tryDB(path)
	if errors.Is(err, errDamaged) {
		aside = path + ".damaged"
		if err = os.Rename(path, aside); err == nil {
			db, err = tryDB(path)
		}
	}
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, "", ErrLocked
	case err != nil:
		return nil, "", fmt.Errorf("open %s: %w", path, err)
	}
	return db, aside, nil
}

// tryDB opens the database and reads all of it once, so that damage shows before anything
// rests on it.
func tryDB(path string) (*database, error) {
	d := &database{path: path}
	err := d.guard(func() (err error) {
		d.db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout: 100 * time.Millisecond, FreelistType: bbolt.FreelistMapType, NoStatistics: true,
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				var err error
				d.file, err = os.OpenFile(name, flag, mode)
				return d.file, err
			},
		})
		var outside *os.PathError
		if err != nil && !errors.Is(err, bolterrors.ErrTimeout) && !errors.As(err, &outside) && d.file != nil {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
		return err
	})
	if err == nil {
		err = d.View(readWhole)
	}
	if err != nil && (d.db != nil || d.damage() != nil) {
		_ = d.Close()
	}
	return d, err
}

// readWhole reads a byte of each value.
func readWhole(tx *bbolt.Tx) error {
	sum := byte(0)
	var walk func(b *bbolt.Bucket) error
	walk = func(b *bbolt.Bucket) error {
		return b.ForEach(func(key, value []byte) error {
			if value == nil {
				return walk(b.Bucket(key))
			}
			for at := 0; at < len(value); at += 4096 {
				sum ^= value[at]
			}
			return nil
		})
	}
	return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error { return walk(b) })
}

// View and Update run f in a transaction.
func (d *database) View(f func(*bbolt.Tx) error) error {
	return d.guard(func() error { return d.db.View(f) })
}

func (d *database) Update(f func(*bbolt.Tx) error) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	return d.guard(func() error { return d.db.Update(f) })
}

// guard returns panics, and faults in bbolt's mapping of a file cut short, as errors.
func (d *database) guard(f func() error) (err error) {
	if err := d.damage(); err != nil {
		return err
	}
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s (%v); start dragonload again and share anew what it does not list", errDamaged, d.path, p)
			d.mu.Lock()
			d.broken = err
			d.mu.Unlock()
		}
	}()
	return f()
}

func (d *database) damage() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.broken
}

// Close closes the file and gives its lock back. What bbolt holds of one that is damaged
// ends with the process: it may wait for itself.
func (d *database) Close() error {
	if d.damage() == nil {
		return d.guard(d.db.Close)
	}
	if d.file == nil {
		return nil
	}
	return d.file.Close()
}
