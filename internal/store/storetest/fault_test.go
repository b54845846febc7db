package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/store"
)

// attempt is one run of the command on a disk that may fail: it waits while nothing can
// be stored, fetches again what is found damaged, and gives up at any other error.
func (s *subject) attempt(ctx context.Context, disk store.Disk, root string, restart bool) (err error) {
	j, err := store.OpenJournal(journalOf(root), store.JournalOptions{
		Disk: disk, BatchBytes: batch * s.layout.PieceLength, BatchDelay: time.Millisecond, RetryDelay: time.Millisecond,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	f, err := j.Open(ctx, store.Options{Target: targetOf(root), Source: "source", Restart: restart})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if left, ok := f.Resumed(); ok {
		for i, ok := left.Have.Next(0); ok; i, ok = left.Have.Next(i + 1) {
			if left.Digests[i] != s.digest(i) {
				return fmt.Errorf("wrong: piece %d is claimed with a digest that is not its own", i)
			}
		}
	}
	if err := f.Begin(s.pin, 0, false); err != nil {
		return err
	}
	faulty, _ := disk.(*Faulty)
	for i := range piece.Index(s.layout.Count()) {
		synced := int64(0)
		if faulty != nil {
			synced = atomic.LoadInt64(&faulty.Calls)
		}
		if err := s.store(ctx, f, i); err != nil {
			return err
		}
		// A few syncs on the way, so that each can fail.
		for faulty != nil && faulty.SyncsOnly && i%batch == batch-1 && atomic.LoadInt64(&faulty.Calls) == synced && ctx.Err() == nil {
			runtime.Gosched()
		}
	}
	for {
		_, err := f.Finish(ctx)
		var missing *store.IncompleteError
		switch {
		case errors.As(err, &missing):
			err = s.store(ctx, f, missing.Missing)
		case store.Passing(err):
			err = ctx.Err()
		default:
			return err
		}
		if err != nil {
			return err
		}
	}
}

// store writes piece i, again while the disk takes no writes.
func (s *subject) store(ctx context.Context, f *store.File, i piece.Index) error {
	for {
		err := f.Write(i, s.bytes(i), s.digest(i), true)
		if !store.Passing(err) || ctx.Err() != nil {
			return err
		}
		runtime.Gosched()
	}
}

// Rows 6 to 11 and 13: each call in turn fails once, in each way, until a run passes
// untouched. No such run leaves wrong bytes under the final name or claims what is not
// so, each says what happened, and the run after it makes the file whole.
func TestFaultsOfEachCall(t *testing.T) {
	t.Parallel()
	ways := map[string]*Faulty{
		"no space":               {Fault: syscall.ENOSPC},
		"no space after a half":  {Fault: syscall.ENOSPC, Half: true},
		"input/output":           {Fault: syscall.EIO},
		"input/output, but done": {Fault: syscall.EIO, Late: true},
		"interrupted":            {Fault: syscall.EINTR, Half: true},
		"read-only":              {Fault: syscall.EROFS},
		"failed sync":            {Fault: syscall.EIO, SyncsOnly: true},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hit := 0
			for n := int64(1); ; n++ {
				faulty := &Faulty{Disk: store.OS, N: n, Fault: way.Fault, Half: way.Half, Late: way.Late, SyncsOnly: way.SyncsOnly}
				if err := newSubject().survive(t, faulty); err != nil {
					t.Errorf("call %d: %v", n, err)
				}
				if !faulty.Hit() {
					break
				}
				hit++
			}
			if least := map[bool]int{false: 12, true: 3}[way.SyncsOnly]; hit < least {
				t.Errorf("only %d calls have failed", hit)
			}
		})
	}
}

func (s *subject) survive(t *testing.T, faulty *Faulty) error {
	root, err := os.MkdirTemp(fastDir, "dragonload-fault-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := os.Mkdir(filepath.Join(root, "home"), 0o700); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	first := s.attempt(ctx, faulty, root, false)
	data, err := os.ReadFile(targetOf(root))
	switch {
	case err == nil && !bytes.Equal(data, s.data):
		return fmt.Errorf("the final name has wrong bytes (the run said %w)", first)
	case err == nil:
		return nil // whole, whatever else went wrong
	case first == nil:
		return errors.New("the run said nothing, and there is no file")
	case errors.Is(first, store.ErrDiskFailing) && atomic.LoadInt64(&faulty.Calls) > 0 && !errors.Is(faulty.Fault, syscall.EIO) && !errors.Is(faulty.Fault, syscall.EINTR):
		return fmt.Errorf("one failure was taken for a failing disk: %w", first)
	case errors.Is(faulty.Fault, syscall.ENOSPC) && !errors.Is(first, store.ErrDiskFull):
		return fmt.Errorf("the disk was full, and the run said: %w", first)
	case errors.Is(faulty.Fault, syscall.EROFS) && !errors.Is(first, store.ErrReadOnly):
		return fmt.Errorf("the disk was read-only, and the run said: %w", first)
	}
	err = s.attempt(ctx, store.OS, root, false)
	if errors.Is(err, store.ErrReplaced) {
		return fmt.Errorf("after %w: %w", first, err)
	}
	if err != nil {
		return fmt.Errorf("the next run, after %w: %w", first, err)
	}
	if data, err = os.ReadFile(targetOf(root)); err != nil || !bytes.Equal(data, s.data) {
		return fmt.Errorf("the next run left wrong bytes (%w)", err)
	}
	return nil
}
