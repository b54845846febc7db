package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"dragonload/internal/piece"
)

// syncLoop makes what was written durable, in batches, and only then records it.
func (p *partial) syncLoop(stop <-chan struct{}) {
	delay := p.journal.batchDelay
	for {
		select {
		case <-p.wake:
		case <-stop:
			return
		}
		if !p.gather(stop, delay) {
			return
		}
		delay = p.journal.batchDelay
		err := p.settleBatch()
		switch {
		case err == nil:
			continue
		case p.final():
			return // whoever writes or waits is told p.err
		}
		p.o.Log.Warn("progress is not recorded for now; a kill would lose what came since", "part", p.o.Part, "error", err)
		delay = p.journal.retryDelay
		p.wakeSyncer()
	}
}

// settleBatch syncs and records what there is. While that cannot be done, no piece is
// taken: what a kill would lose stays within the batch.
func (p *partial) settleBatch() error {
	err := p.placed()
	if err == nil {
		err = p.flush()
	}
	if err == nil {
		err = p.record(false)
	}
	if err == nil && p.tree != nil {
		err = p.nameFiles()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stuck = nil
	switch {
	case Passing(err):
		p.stuck = err
	case errors.Is(err, ErrReplaced) && p.err == nil:
		p.err = err
		p.changed.Broadcast()
	}
	return err
}

func (p *partial) final() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err != nil
}

// placed reports ErrFolderGone or ErrReplaced unless the partial file is where it was.
// What is open can be written to long after nobody will find it any more.
func (p *partial) placed() error {
	path := filepath.Dir(p.o.Part)
	folder, err := p.journal.disk.Stat(path)
	switch {
	case err != nil || !os.SameFile(folder, p.folder):
		return fmt.Errorf("%w: %s was moved or unmounted; put it back", ErrFolderGone, path)
	case !p.samePart():
		if _, err := p.journal.disk.Lstat(p.o.Part); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %s was removed or renamed while the download ran; put it back, or run the same command again to begin anew", ErrReplaced, p.o.Part)
		}
		return fmt.Errorf("%w: %s is not what was begun; move it away and run the same command again", ErrReplaced, p.o.Part)
	}
	return nil
}

// samePart reports whether the partial file's name still leads to data.
func (p *partial) samePart() bool {
	if p.tree != nil {
		return p.tree.samePart()
	}
	named, err := p.journal.disk.Lstat(p.o.Part)
	if err != nil {
		return false
	}
	open, err := p.data.Stat()
	return err == nil && os.SameFile(named, open)
}

// gather waits until a batch is full or has waited for delay. It reports false if the
// syncer is to end. The last batch is synced at once, for Finish will wait for that,
// and recorded in its time, for then the record is likely not needed any more.
func (p *partial) gather(stop <-chan struct{}, delay time.Duration) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		p.mu.Lock()
		full := p.stuck == nil && (p.unsyncedBytes >= p.batch() || p.hurry)
		whole := p.whole() && p.unsynced.Count() > 0
		p.mu.Unlock()
		if full {
			return true
		}
		if whole && p.flush() != nil && p.final() {
			return false
		}
		select {
		case <-p.wake:
		case <-timer.C:
			return true
		case <-stop:
			return false
		}
	}
}

// lastBatch is how little is worth a sync before the last one.
const lastBatch = 8 << 20

// batch returns how many bytes are synced at once; p.mu must be held. The batches of the end
// of one file become smaller and smaller, for who waits for the file waits for the last one.
func (p *partial) batch() int64 {
	if p.tree != nil {
		return p.journal.batchBytes
	}
	missing := int64(p.have.Len()-p.have.Count()-p.spare) * p.layout.PieceLength
	return min(p.journal.batchBytes, max(missing, lastBatch))
}

// flush syncs the data. What was written before it began is durable afterwards.
func (p *partial) flush() error {
	p.mu.Lock()
	cut := p.whole() && p.trailed != trailNone
	if p.err != nil || p.unsynced.Count() == 0 && !cut {
		defer p.mu.Unlock()
		return p.err
	}
	batch := p.unsynced
	p.unsynced, p.unsyncedBytes = piece.NewBitfield(p.layout.Count()), 0
	p.mu.Unlock()

	var err error
	if p.unkept {
		err = p.writeAgain(&batch)
	}
	if err == nil && cut {
		// The file is whole: nothing but its bytes may be there when it gets its name.
		err = p.data.Truncate(p.layout.Size)
	}
	if err == nil {
		err = p.data.Datasync()
	}
	if isReadOnly(err) {
		return p.postpone(&batch)
	}
	if err != nil {
		return p.doubt(err)
	}
	if cut {
		p.trailed = trailNone
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, ok := batch.Next(0); ok; i, ok = batch.Next(i + 1) {
		// Forgotten, or written once more, while the sync ran: not of this batch.
		if p.have.Has(i) && !p.unsynced.Has(i) {
			p.durable.Set(i)
			p.outdate(i)
			if p.tree != nil {
				p.tree.touch(i)
			}
		}
	}
	p.changed.Broadcast()
	return nil
}

// doubt is what follows a failed sync: the system may have dropped what it could not
// write and call the next sync good. So everything since the last good one is read
// from the device through a new handle, compared, and written once more. A second
// failure is final. (Rebello et al., "Can Applications Recover from fsync Failures?",
// ATC 2020.)
func (p *partial) doubt(cause error) error {
	full := isFull(cause)
	p.mu.Lock()
	if p.syncFailed && !full {
		p.err = fmt.Errorf("sync %s: %w: %w", p.o.Part, ErrDiskFailing, cause)
		p.changed.Broadcast()
		defer p.mu.Unlock()
		return p.err
	}
	p.syncFailed = p.syncFailed || !full
	// What was on its way to the disk may be lost with the rest.
	p.doubting = true
	for p.writing.Count() > 0 {
		p.changed.Wait()
	}
	p.doubting = false
	p.changed.Broadcast()
	suspects := p.have.Clone()
	for i, ok := p.durable.Next(0); ok; i, ok = p.durable.Next(i + 1) {
		suspects.Unset(i)
	}
	p.mu.Unlock()
	p.o.Log.Warn("the disk reported a write failure; checking what was written", "part", p.o.Part, "pieces", suspects.Count(), "error", cause)
	if p.o.Unsure != nil && !full {
		p.o.Unsure(suspects.Count(), cause)
	}

	again, err := p.reopen()
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.err = fmt.Errorf("sync %s: %w: %w, then %w", p.o.Part, ErrDiskFailing, cause, err)
		p.changed.Broadcast()
		return p.err
	}
	defer again.Close()
	again.Uncached()
	buf := make([]byte, p.layout.Longest())
	for i, ok := suspects.Next(0); ok; i, ok = suspects.Next(i + 1) {
		if err := p.rewrite(again, i, buf); err != nil {
			p.lose(i, err)
		} else {
			p.unsync(i)
		}
	}
	if full {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.journal.diskFull(p.o.Part, p.missingBytes())
	}
	if p.tree != nil {
		return p.flush()
	}
	// A truncation that was lost with the data would not be made again: it shows as made.
	if err := p.data.Truncate(p.layout.Size + 1); err != nil {
		return p.fail(err)
	}
	p.trailed = trailSome
	return p.flush()
}

// postpone is what follows a sync that failed because the file system has become read-only:
// what was not synced is held still, and written once more when it can be.
func (p *partial) postpone(batch *piece.Bitfield) error {
	p.unkept = true
	for i, ok := batch.Next(0); ok; i, ok = batch.Next(i + 1) {
		p.unsync(i)
	}
	return readOnly(p.o.Part)
}

// unsync has the next sync keep piece i, if that is held.
func (p *partial) unsync(i piece.Index) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.have.Has(i) && p.unsynced.Set(i) {
		p.unsyncedBytes += p.layout.Length(i)
	}
}

// writeAgain writes once more what the last sync could not keep, for the system may have
// dropped it. What is not as it was is lost; the error is that of a file system that is
// read-only still.
func (p *partial) writeAgain(batch *piece.Bitfield) error {
	buf := make([]byte, p.layout.Longest())
	for i, ok := batch.Next(0); ok; i, ok = batch.Next(i + 1) {
		err := p.rewrite(p.data, i, buf)
		if isReadOnly(err) {
			return err
		}
		if err != nil {
			p.lose(i, err)
		}
	}
	p.unkept = false
	return nil
}

// reopen returns a handle through which nothing was written.
func (p *partial) reopen() (Handle, error) {
	if p.tree != nil {
		return &afresh{p.tree}, nil
	}
	return p.journal.disk.Open(p.o.Part, false)
}

// fail ends the storing for good.
func (p *partial) fail(why error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = fmt.Errorf("%s: %w: %w", p.o.Part, ErrDiskFailing, why)
	}
	p.changed.Broadcast()
	return p.err
}

// rewrite compares piece i, read from again, and writes it once more. The error says why it
// is not on disk as it was.
func (p *partial) rewrite(again Handle, i piece.Index, buf []byte) error {
	p.mu.Lock()
	d := p.digests[i]
	if !p.have.Has(i) || p.writing.Has(i) {
		p.mu.Unlock()
		return nil
	}
	p.writing.Set(i) // nobody else writes it meanwhile
	p.mu.Unlock()

	err := matches(again, p.layout, i, buf, d)
	if err == nil {
		r := p.layout.Range(i)
		_, err = p.data.WriteAt(buf[:r.Len()], r.Start)
	}
	p.mu.Lock()
	p.writing.Unset(i)
	p.changed.Broadcast()
	p.mu.Unlock()
	return err
}

// record writes to the journal what is durable and not yet there; with clean, also
// that the File ended in order. It is called by the syncer, or when that has ended.
func (p *partial) record(clean bool) error {
	p.mu.Lock()
	whole := p.have.All() || p.tree != nil // and has no trail
	if len(p.stale) == 0 && !clean {
		p.mu.Unlock()
		return nil
	}
	if p.again || !whole && p.trailed != trailWhole {
		p.outdateAll()
	}
	values := make(map[int][]byte, len(p.stale))
	for n := range p.stale {
		values[n] = encodeChunk(n, &p.durable, &p.origin, p.digests, p.tree != nil)
	}
	clear(p.stale)
	p.hurry = false
	p.mu.Unlock()

	if !whole {
		if err := p.trail(values); err != nil {
			p.o.Log.Info("the trail of a partial file is not written", "part", p.o.Part, "error", err)
		}
	}
	err := p.save(clean, values)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed.Broadcast()
	if err == nil {
		if !p.recorded {
			p.journal.unmark(p.o.Target)
		}
		p.recorded, p.again, p.saveFailed = true, false, false
		return nil
	}
	for n := range values {
		p.stale[n] = struct{}{}
	}
	if Passing(err) || errors.Is(err, errJournalDamaged) {
		return err
	}
	// What of it is in the file, and what of that on the device, is not known.
	p.again = true
	if p.saveFailed && p.err == nil {
		p.err = fmt.Errorf("%w: %w", ErrDiskFailing, err)
		return p.err
	}
	p.saveFailed = true
	return err
}

// save writes chunks to the journal, with the record if it needs to be.
func (p *partial) save(clean bool, values map[int][]byte) error {
	if p.unnamed {
		// What the journal claims must be found after a power cut too.
		if err := p.journal.disk.SyncFolder(filepath.Dir(p.o.Part)); err != nil {
			return p.journal.writeError(p.o.Part, 1, err)
		}
		p.unnamed = false
	}
	var head *record
	switch {
	case clean && p.tree != nil:
		p.rec.clean, p.rec.modified = true, time.Now().UnixNano()
	case clean:
		info, err := p.data.Stat()
		if err != nil {
			return err
		}
		p.rec.clean, p.rec.size, p.rec.modified = true, info.Size(), info.ModTime().UnixNano()
	}
	anew := !p.recorded || p.again
	if clean || anew {
		head = &p.rec
	}
	return p.journal.save(p.o.Target, anew, head, values)
}
