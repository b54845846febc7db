package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"dragonload/internal/piece"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Journal remembers, for all downloads of a state folder, what of them is safely on
// disk. It is one bbolt file with a bucket for each target path.
type Journal struct {
	path  string
	disk  Disk
	db    *bbolt.DB
	file  *os.File // what db reads and writes
	aside string   // where a damaged journal was put; "" if there was none

	changing sync.Mutex // held by who writes to it

	mu     sync.Mutex
	inUse  map[string]bool // targets and partial files of open Files; guarded by mu
	broken error           // what was found out about the file while it was open; guarded by mu

	// checkAgain is how long a piece that was compared with its digest is served
	// without being hashed again: members fetch what is new within seconds of each
	// other, and hashing it for each of them costs a tenth of a transfer's CPU time.
	// Receivers compare what they get in any case.
	checkAgain time.Duration

	// As in JournalOptions.
	batchBytes int64
	batchDelay time.Duration
	retryDelay time.Duration // after the disk took no writes
}

const checkAgain = 10 * time.Second // see Journal.checkAgain

var (
	downloadsBucket = []byte("downloads 1")
	recordKey       = []byte("record")
)

func chunkKey(n int) []byte { return binary.BigEndian.AppendUint32([]byte("chunk "), uint32(n)) }

// errJournalDamaged: the journal's file is not what bbolt wrote.
var errJournalDamaged = errors.New("the journal is damaged")

// JournalOptions say how a journal works. Zero values mean the defaults.
type JournalOptions struct {
	Disk Disk // OS

	// BatchBytes and BatchDelay are how much and how long data waits to be synced and
	// recorded: 64 MiB, a second.
	BatchBytes int64
	BatchDelay time.Duration
	// RetryDelay is how long after the disk took no writes that is tried again: 2 s.
	RetryDelay time.Duration
}

// OpenJournal opens the journal at path, and makes it (0600) and its folder (0700) at
// first use. While another process has it open, the error is ErrLocked, within 100 ms.
//
// A damaged journal is put aside as path.damaged and a new one is begun: the progress
// that was recorded in it is read from the partial files themselves.
func OpenJournal(path string, o JournalOptions) (*Journal, error) {
	if o.Disk == nil {
		o.Disk = OS
	}
	if o.BatchBytes <= 0 {
		o.BatchBytes = 64 << 20
	}
	if o.BatchDelay <= 0 {
		o.BatchDelay = time.Second
	}
	if o.RetryDelay <= 0 {
		o.RetryDelay = 2 * time.Second
	}
	j := &Journal{
		path: path, disk: o.Disk, inUse: make(map[string]bool), checkAgain: checkAgain,
		batchBytes: o.BatchBytes, batchDelay: o.BatchDelay, retryDelay: o.RetryDelay,
	}
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = j.open()
	}
	if errors.Is(err, errJournalDamaged) {
		j.aside = path + ".damaged"
		if err = j.disk.Rename(path, j.aside); err == nil {
			err = j.open()
		}
	}
	if err == nil {
		err = j.keepName()
	}
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", path, j.writeError(path, 1<<20, err))
	}
	return j, nil
}

// keepName makes the name of the journal durable, and that of its folder. It is done at
// each start: who knows whether the first got that far.
func (j *Journal) keepName() error {
	folder := filepath.Dir(j.path)
	err := j.disk.SyncFolder(folder)
	if err == nil {
		err = j.disk.SyncFolder(filepath.Dir(folder))
	}
	if err != nil {
		_ = j.Close()
	}
	return err
}

func (j *Journal) open() (err error) {
	var file *os.File
	err = j.change(func() error {
		var err error
		j.db, err = bbolt.Open(j.path, 0o600, &bbolt.Options{
			Timeout:      100 * time.Millisecond,
			FreelistType: bbolt.FreelistMapType,
			// The freelist is kept on disk, one page here: without it bbolt walks all
			// pages at each start, in a goroutine of its own where a damaged page is
			// a panic that nobody can catch.
			NoFreelistSync: false,
			NoStatistics:   true,
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				var err error
				file, err = os.OpenFile(name, flag, mode)
				j.file = file
				return file, err
			},
		})
		if err != nil {
			return err
		}
		return j.walk()
	})
	var outside *os.PathError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return ErrLocked
	case file == nil:
		return err
	case errors.As(err, &outside):
		if j.db != nil {
			_ = j.guard(j.db.Close)
		}
		return err
	}
	// bbolt opened the file and could not make sense of it. A panic has left its
	// handle, and with it the lock, open.
	if j.db != nil && j.damage() == nil {
		_ = j.guard(j.db.Close)
	}
	j.mu.Lock()
	j.db, j.broken = nil, nil
	j.mu.Unlock()
	file.Close()
	return fmt.Errorf("%w: %w", errJournalDamaged, err)
}

// walk reads every value once, so that damage shows before anything rests on it.
func (j *Journal) walk() error {
	read := func(_, value []byte) error {
		_, _ = unseal(value) // torn values are dealt with, or deleted, by Open
		return nil
	}
	return j.db.View(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{keptBucket, filesBucket, slotsBucket} {
			if b := tx.Bucket(name); b != nil {
				if err := b.ForEach(read); err != nil {
					return err
				}
			}
		}
		all := tx.Bucket(downloadsBucket)
		if all == nil {
			return nil
		}
		return all.ForEachBucket(func(target []byte) error {
			return all.Bucket(target).ForEach(read)
		})
	})
}

// change is guard for what writes to the journal, one after the other: who waited inside
// bbolt for one that has panicked would wait for ever.
func (j *Journal) change(f func() error) error {
	j.changing.Lock()
	defer j.changing.Unlock()
	return j.disk.Journal(j.path, func() error { return j.guard(f) })
}

// guard runs f, which touches bbolt's pages, and returns the panics of bbolt over
// damaged pages, and faults in its mapping of a file cut short, as errors. A panic may have
// left bbolt's locks held: it is not asked again.
func (j *Journal) guard(f func() error) (err error) {
	if err := j.damage(); err != nil {
		return err
	}
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if p := recover(); p != nil {
			err = fmt.Errorf("%w (%v); start dragonload again: progress is read from the partial files then", errJournalDamaged, p)
			j.mu.Lock()
			j.broken = err
			j.mu.Unlock()
		}
	}()
	return f()
}

// damage returns what was found out about the file while it was open.
func (j *Journal) damage() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.broken
}

// Close closes the journal; the Files must be closed before.
func (j *Journal) Close() error {
	if j.damage() != nil {
		unlock(j.file) // what bbolt holds ends with the process
		return j.file.Close()
	}
	if err := j.guard(j.db.Close); err != nil {
		return fmt.Errorf("close journal %s: %w", j.path, err)
	}
	return nil
}

// Aside returns where a damaged journal was put when this one was opened, "" if
// there was none.
func (j *Journal) Aside() string { return j.aside }

// Record is what the journal knows of one unfinished download.
type Record struct {
	Target, Part, Source string
	Pin                  piece.Pin
	Incarnation          uint64
	Layout               piece.Layout
	Have, Origin         piece.Bitfield
	Tree                 bool // of several files, in a folder: Target and Part are folders
	Clean                bool // closed in order; else Have is a claim that Open will check
}

// Record returns what is known of the download to target, or of which target is the
// partial file. It changes nothing.
func (j *Journal) Record(target string) (Record, bool, error) {
	found := target
	k, err := j.load(target)
	if err == nil && !k.readable {
		err = j.guard(func() error {
			return j.db.View(func(tx *bbolt.Tx) error {
				all := tx.Bucket(downloadsBucket)
				if all == nil {
					return nil
				}
				return all.ForEachBucket(func(key []byte) error {
					r, err := decodeRecord(all.Bucket(key).Get(recordKey))
					if err == nil && r.part == target {
						found = string(key)
					}
					return nil
				})
			})
		})
		if err == nil && found != target {
			k, err = j.load(found)
		}
	}
	if err != nil {
		return Record{}, false, fmt.Errorf("read journal %s: %w", j.path, err)
	}
	return Record{
		Target: found, Part: k.rec.part, Source: k.rec.source, Pin: k.rec.pin, Incarnation: k.rec.incarnation,
		Layout: k.rec.layout, Have: k.claims.have, Origin: k.claims.origin, Tree: k.rec.tree, Clean: k.rec.clean,
	}, k.readable, nil
}

// known is what the journal has under a target.
type known struct {
	rec      record
	claims   claims
	exists   bool // there is something
	readable bool // and it can be understood
	torn     bool // though not all of it
}

// load returns what is known of a target.
func (j *Journal) load(target string) (k known, err error) {
	err = j.guard(func() error {
		return j.db.View(func(tx *bbolt.Tx) error {
			all := tx.Bucket(downloadsBucket)
			if all == nil {
				return nil
			}
			b := all.Bucket([]byte(target))
			if b == nil {
				return nil
			}
			k.exists = true
			k.read(b)
			return nil
		})
	})
	return k, err
}

// read takes from b what can be understood. What of the pieces cannot is not claimed,
// and makes doubtful what is.
func (k *known) read(b *bbolt.Bucket) {
	var err error
	if k.rec, err = decodeRecord(b.Get(recordKey)); err != nil {
		return
	}
	k.claims, k.readable = newClaims(k.rec.layout.Count(), k.rec.tree), true
	for n := range chunks(k.rec.layout.Count()) {
		if value := b.Get(chunkKey(n)); value != nil && k.claims.decode(n, value, k.rec.tree) != nil {
			k.rec.clean, k.torn = false, true
		}
	}
}

// save writes the record, if it is not nil, and some chunks of a target in one
// transaction that is on disk when save returns. With anew, what there was of the
// target goes first.
func (j *Journal) save(target string, anew bool, rec *record, values map[int][]byte) error {
	err := j.change(func() error {
		return j.db.Update(func(tx *bbolt.Tx) error {
			all, err := tx.CreateBucketIfNotExists(downloadsBucket)
			if err != nil {
				return err
			}
			if anew && all.Bucket([]byte(target)) != nil {
				if err := all.DeleteBucket([]byte(target)); err != nil {
					return err
				}
			}
			b, err := all.CreateBucketIfNotExists([]byte(target))
			if err != nil {
				return err
			}
			if rec != nil {
				if err := b.Put(recordKey, rec.encode()); err != nil {
					return err
				}
			}
			for n, value := range values {
				if err := b.Put(chunkKey(n), value); err != nil {
					return err
				}
			}
			return nil
		})
	})
	return j.wrapError("write", err)
}

// remove forgets a target. That there is nothing to forget is no error.
func (j *Journal) remove(target string) error {
	err := j.change(func() error {
		return j.db.Update(func(tx *bbolt.Tx) error {
			all := tx.Bucket(downloadsBucket)
			if all == nil || all.Bucket([]byte(target)) == nil {
				return nil
			}
			return all.DeleteBucket([]byte(target))
		})
	})
	return j.wrapError("write", err)
}

func (j *Journal) wrapError(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s journal %s: %w", op, j.path, j.writeError(j.path, 1<<20, err))
}

// claim registers the paths of a File that is about to open; release undoes it.
func (j *Journal) claim(paths ...string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, p := range paths {
		if j.inUse[p] {
			return false
		}
	}
	for _, p := range paths {
		j.inUse[p] = true
	}
	return true
}

func (j *Journal) release(paths ...string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, p := range paths {
		delete(j.inUse, p)
	}
}

// logger returns l, or one that says nothing.
func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
