package store

import (
	"fmt"
	"time"

	"dragonload/internal/piece"
)

// retryRecord is how long after a failure the journal is tried again.
const retryRecord = 5 * time.Second

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
		if p.flush() != nil {
			return // final; whoever writes or waits is told p.err
		}
		if err := p.record(false); err != nil {
			p.o.Log.Warn("progress is not recorded for now; a kill would lose what came since", "part", p.o.Part, "error", err)
			delay = retryRecord
			p.wakeSyncer()
		}
	}
}

// gather waits until a batch is full or has waited for delay. It reports false if the
// syncer is to end. The last batch is synced at once, for Finish will wait for that,
// and recorded in its time, for then the record is likely not needed any more.
func (p *partial) gather(stop <-chan struct{}, delay time.Duration) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		p.mu.Lock()
		full := p.unsyncedBytes >= p.journal.batchBytes || p.hurry && delay < retryRecord
		whole := p.have.All() && p.unsynced.Count() > 0
		p.mu.Unlock()
		if full {
			return true
		}
		if whole && p.flush() != nil {
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

// flush syncs the data. What was written before it began is durable afterwards.
func (p *partial) flush() error {
	p.mu.Lock()
	if p.err != nil || p.unsynced.Count() == 0 {
		defer p.mu.Unlock()
		return p.err
	}
	batch := p.unsynced
	p.unsynced, p.unsyncedBytes = piece.NewBitfield(p.layout.Count()), 0
	p.mu.Unlock()

	if err := p.data.Datasync(); err != nil {
		return p.doubt(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, ok := batch.Next(0); ok; i, ok = batch.Next(i + 1) {
		// Forgotten, or written once more, while the sync ran: not of this batch.
		if p.have.Has(i) && !p.unsynced.Has(i) {
			p.durable.Set(i)
			p.outdate(i)
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
	p.mu.Lock()
	if p.syncFailed {
		p.err = fmt.Errorf("sync %s: %w: %w", p.o.Part, ErrDiskFailing, cause)
		if isFull(cause) {
			p.err = diskFull(p.o.Part, p.missingBytes())
		}
		p.changed.Broadcast()
		defer p.mu.Unlock()
		return p.err
	}
	p.syncFailed = true
	suspects := p.have.Clone()
	for i, ok := p.durable.Next(0); ok; i, ok = p.durable.Next(i + 1) {
		suspects.Unset(i)
	}
	p.mu.Unlock()
	p.o.Log.Warn("the disk reported a write failure; checking what was written", "part", p.o.Part, "pieces", suspects.Count(), "error", cause)

	again, err := p.journal.openRegular(p.o.Part, false)
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.err = fmt.Errorf("sync %s: %w: %w, then %w", p.o.Part, ErrDiskFailing, cause, err)
		p.changed.Broadcast()
		return p.err
	}
	defer again.Close()
	dropCache(again)
	buf := make([]byte, min(p.layout.PieceLength, p.layout.Size))
	for i, ok := suspects.Next(0); ok; i, ok = suspects.Next(i + 1) {
		p.rewrite(again, i, buf)
	}
	return p.flush()
}

// rewrite compares piece i, read from again, and writes it once more; or loses it.
func (p *partial) rewrite(again handle, i piece.Index, buf []byte) {
	p.mu.Lock()
	d := p.digests[i]
	if !p.have.Has(i) || p.writing.Has(i) {
		p.mu.Unlock()
		return
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
	if err == nil && p.have.Has(i) && p.digests[i] == d && p.unsynced.Set(i) {
		p.unsyncedBytes += p.layout.Length(i)
	}
	p.changed.Broadcast()
	p.mu.Unlock()
	if err != nil {
		p.lose(i, err)
	}
}

// record writes to the journal what is durable and not yet there; with clean, also
// that the File ended in order. It is called by the syncer, or when that has ended.
func (p *partial) record(clean bool) error {
	p.mu.Lock()
	if len(p.stale) == 0 && !clean {
		p.mu.Unlock()
		return nil
	}
	values := make(map[int][]byte, len(p.stale))
	for n := range p.stale {
		values[n] = encodeChunk(n, &p.durable, &p.origin, p.digests)
	}
	clear(p.stale)
	p.hurry = false
	p.mu.Unlock()

	var head *record
	if clean {
		info, err := p.data.Stat()
		if err != nil {
			return err
		}
		p.rec.clean, p.rec.size, p.rec.modified = true, info.Size(), info.ModTime().UnixNano()
	}
	if clean || !p.recorded {
		head = &p.rec
	}
	err := p.journal.save(p.o.Target, !p.recorded, head, values)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed.Broadcast()
	if err != nil {
		for n := range values {
			p.stale[n] = struct{}{}
		}
		return err
	}
	p.recorded = true
	return nil
}
