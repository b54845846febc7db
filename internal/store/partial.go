package store

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"dragonload/internal/piece"
)

// partial is the partial file of one generation: which pieces of it are held, which
// of those are safe, and the two workers that sync it and hash it.
type partial struct {
	journal *Journal
	o       *Options
	rec     record
	layout  piece.Layout
	folder  fs.FileInfo // of the partial file, when it was opened
	data    Handle      // exchanged by Finish, with File.life held for writing
	tree    *tree       // what data is, if it is of several files

	// finished, once the file has its final name; set with File.life held.
	finished bool
	// recorded: the journal has something under the target. It belongs to the syncer
	// while that runs.
	recorded bool
	// syncFailed: the disk has failed to keep data once. saveFailed: and so has the
	// journal's, just before. As recorded.
	syncFailed, saveFailed bool
	// unkept: a sync has failed, and what it was to keep is to be written again. As
	// recorded.
	unkept bool
	// trailed: see trail. unnamed: the folder was not synced since the partial file
	// was made. As recorded.
	trailed trailState
	unnamed bool
	// again: the journal is to write everything of the target anew. As recorded.
	again bool

	wake    chan struct{} // tells the syncer to look
	stop    chan struct{} // ends it; set by start
	workers sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond // on mu: anything below that somebody waits for

	// Everything below is guarded by mu.

	have, origin  piece.Bitfield
	unwanted      piece.Bitfield   // need not be stored
	spare         int              // of these, not held
	digests       []piece.Digest   // those of the manifest, if tree is set
	writing       piece.Bitfield   // a Write of them is on its way to the disk
	doubting      bool             // no Write begins: a failed sync waits for those under way
	unsynced      piece.Bitfield   // held, written since the last sync began
	unsyncedBytes int64            // in them
	durable       piece.Bitfield   // held and synced: may be recorded
	stale         map[int]struct{} // chunks of the journal that are behind durable
	hurry         bool             // and must not wait for the batch
	doubtful      piece.Bitfield   // left by a clean earlier run; compared when first read
	old           piece.Bitfield   // left by an earlier run
	strikes       map[piece.Index]int
	err           error // final: nothing is stored any more
	stuck         error // Passing: nothing can be stored for now
	halted        bool  // the workers are to end
	ended         bool  // the File is closed, or went on to another generation

	checked checks // held, and compared with their digests a short while ago

	prefix  piece.Index // pieces before it are in sums
	hashing bool        // somebody is adding piece prefix to sums
	restart bool        // what is in sums is void once hashing ends
	suspect bool        // somebody else may have written to the file, see meddled
	asked   bool        // that was asked before
	hollow  bool        // the file was seen to have holes though all is held
	reread  bool        // bytes in sums were read from disk that an earlier run wrote, or twice
	sums    *sums       // belongs to whoever set hashing
}

func newPartial(j *Journal, o *Options, folder fs.FileInfo, rec record, data Handle) *partial {
	count := rec.layout.Count()
	p := &partial{
		journal: j, o: o, rec: rec, layout: rec.layout, folder: folder, data: data,
		wake: make(chan struct{}, 1),
		have: piece.NewBitfield(count), origin: piece.NewBitfield(count), unwanted: piece.NewBitfield(count),
		writing: piece.NewBitfield(count), unsynced: piece.NewBitfield(count), durable: piece.NewBitfield(count),
		doubtful: piece.NewBitfield(count), old: piece.NewBitfield(count),
		stale: make(map[int]struct{}), strikes: make(map[piece.Index]int),
		sums: newSums(o.Hashes), unnamed: true,
	}
	p.changed = sync.NewCond(&p.mu)
	if !o.Cache {
		data.Watch()
	}
	if !rec.tree {
		p.digests = make([]piece.Digest, count)
	}
	return p
}

// adopt takes over what an earlier run left, before the workers start.
func (p *partial) adopt(l *leftover) {
	p.recorded = l.recorded
	p.have, p.origin, p.digests = l.claims.have, l.claims.origin, l.claims.digests
	p.durable, p.old = p.have.Clone(), p.have.Clone()
	if !l.unclean {
		p.doubtful = p.have.Clone()
	}
	p.trailed, p.unnamed = trailSome, false
	if l.dropped > 0 || l.rebuilt {
		p.outdateAll()
	}
}

// outdateAll marks every chunk as behind; p.mu must be held, or p be new.
func (p *partial) outdateAll() {
	for n := range chunks(p.layout.Count()) {
		p.stale[n] = struct{}{}
	}
	p.wakeSyncer()
}

// start starts the two workers; halt ends them and waits. Both may be called again.
func (p *partial) start() {
	p.mu.Lock()
	p.halted = false
	p.mu.Unlock()
	stop := make(chan struct{})
	p.stop = stop
	if p.o.Cache {
		return
	}
	p.workers.Go(func() { p.syncLoop(stop) })
	if p.tree == nil {
		p.workers.Go(p.hashLoop)
	}
}

func (p *partial) halt() {
	p.mu.Lock()
	was := p.halted
	p.halted = true
	p.changed.Broadcast()
	p.mu.Unlock()
	if !was && p.stop != nil {
		close(p.stop)
	}
	p.workers.Wait()
}

// end lets nobody wait for this partial file any more.
func (p *partial) end() {
	p.mu.Lock()
	p.ended = true
	p.changed.Broadcast()
	p.mu.Unlock()
}

func (p *partial) empty() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.have.Count() == 0 && p.layout.Size > 0
}

// whole reports whether all is held that is wanted; p.mu must be held.
func (p *partial) whole() bool { return p.have.Count()+p.spare == p.have.Len() }

// missing returns the first piece from i on that is wanted and not held; p.mu must be held.
func (p *partial) missing(i piece.Index) (piece.Index, bool) {
	for {
		m, ok := p.have.NextUnset(i)
		if !ok || !p.unwanted.Has(m) {
			return m, ok
		}
		i = m + 1
	}
}

func (p *partial) digest(i piece.Index) (piece.Digest, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.have.Has(i) {
		return piece.Digest{}, false
	}
	return p.digests[i], true
}

// await waits until ready, which is called with mu held, reports true.
func (p *partial) await(ctx context.Context, ready func() bool) error {
	defer context.AfterFunc(ctx, func() {
		p.mu.Lock()
		p.changed.Broadcast()
		p.mu.Unlock()
	})()
	p.mu.Lock()
	defer p.mu.Unlock()
	for !ready() {
		switch {
		case p.err != nil:
			return p.err
		case p.ended:
			return os.ErrClosed
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		p.changed.Wait()
	}
	return nil
}

func (p *partial) write(i piece.Index, data []byte, d piece.Digest, fromOrigin bool) error {
	if int(i) >= p.layout.Count() || int64(len(data)) != p.layout.Length(i) || p.tree != nil && p.digests[i] != d {
		return fmt.Errorf("write %s: %d bytes are not piece %d", p.o.Part, len(data), i)
	}
	held, err := p.reserve(i, d, fromOrigin)
	if held || err != nil {
		return err
	}
	_, err = p.data.WriteAt(data, p.layout.Range(i).Start)
	if err != nil && p.tree != nil && p.tree.gone(p.layout.FileOf(i)) {
		p.loseFile(p.layout.FileOf(i), err)
		_, err = p.data.WriteAt(data, p.layout.Range(i).Start)
	}

	p.mu.Lock()
	p.writing.Unset(i)
	p.changed.Broadcast()
	if err != nil {
		missing := p.missingBytes()
		p.mu.Unlock()
		return fmt.Errorf("write piece %d: %w", i, p.journal.writeError(p.o.Part, missing, err))
	}
	p.have.Set(i)
	if p.unwanted.Has(i) {
		p.spare--
	}
	if p.tree == nil {
		p.digests[i] = d
	}
	if fromOrigin {
		p.origin.Set(i)
	}
	p.noteChecked(i)
	first := p.unsynced.Count() == 0
	p.unsynced.Set(i)
	p.unsyncedBytes += int64(len(data))
	if first || p.unsyncedBytes >= p.batch() || p.whole() {
		p.wakeSyncer()
	}
	p.mu.Unlock()
	return nil
}

// noteChecked notes that piece i is as it should be, now. It needs mu.
func (p *partial) noteChecked(i piece.Index) {
	p.checked.note(i, p.layout.Count(), p.journal.checkAgain)
}

// wasChecked reports whether piece i was compared with its digest a short while ago.
func (p *partial) wasChecked(i piece.Index) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.checked.has(i, p.journal.checkAgain)
}

// reserve makes the caller the one who writes piece i, unless it is held already.
func (p *partial) reserve(i piece.Index, d piece.Digest, fromOrigin bool) (held bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.writing.Has(i) || p.doubting {
		p.changed.Wait()
	}
	if p.have.Has(i) && p.digests[i] == d {
		if fromOrigin && p.origin.Set(i) && p.durable.Has(i) {
			p.outdate(i)
		}
		return true, nil
	}
	switch {
	case p.err != nil:
		return false, p.err
	case p.stuck != nil:
		return false, p.stuck
	case p.finished:
		return false, fmt.Errorf("write %s: %w", p.o.Target, os.ErrClosed)
	}
	// Whoever brings other bytes for a piece that is held knows better by now.
	p.forgetLocked(i)
	p.writing.Set(i)
	return false, nil
}

// missingBytes returns how many bytes are in pieces that are wanted and not held.
func (p *partial) missingBytes() int64 {
	missing := int64(0)
	for i, ok := p.missing(0); ok; i, ok = p.missing(i + 1) {
		missing += p.layout.Length(i)
	}
	return missing
}

func (p *partial) readAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read %s at %d", p.o.Target, off)
	}
	if off >= p.layout.Size {
		return 0, io.EOF
	}
	short := int64(len(b)) > p.layout.Size-off
	if short {
		b = b[:p.layout.Size-off]
	}
	if len(b) == 0 {
		return 0, nil
	}
	p.mu.Lock()
	missing, ok := p.have.NextUnset(p.layout.At(off))
	p.mu.Unlock()
	if ok && missing <= p.layout.At(off+int64(len(b))-1) {
		return 0, fmt.Errorf("read %s, piece %d: %w", p.o.Target, missing, ErrNotHeld)
	}
	n, err := p.data.ReadAt(b, off)
	if err == nil && short {
		err = io.EOF
	}
	return n, err
}

func (p *partial) forget(i piece.Index) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgetLocked(i)
}

// forgetLocked drops piece i; p.mu must be held.
func (p *partial) forgetLocked(i piece.Index) {
	if int(i) >= p.layout.Count() || !p.have.Unset(i) {
		return
	}
	if p.unwanted.Has(i) {
		p.spare++
	}
	if p.tree == nil {
		p.digests[i] = piece.Digest{}
	}
	p.origin.Unset(i)
	p.doubtful.Unset(i)
	p.old.Unset(i)
	if p.unsynced.Unset(i) {
		p.unsyncedBytes -= p.layout.Length(i)
	}
	if p.durable.Unset(i) {
		p.hurry = true // or a kill would bring back what somebody lied about
		p.outdate(i)
	}
	if i < p.prefix || i == p.prefix && p.hashing {
		p.rehashAll()
	}
	p.changed.Broadcast()
}

// outdate marks the chunk of piece i as behind; p.mu must be held.
func (p *partial) outdate(i piece.Index) {
	p.stale[int(i/chunkPieces)] = struct{}{}
	p.wakeSyncer()
}

func (p *partial) wakeSyncer() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// lose drops a piece that is no longer on disk as it was written, and tells so. A
// piece that is lost again and again shows that its place on the disk is bad.
func (p *partial) lose(i piece.Index, why error) {
	p.mu.Lock()
	if !p.have.Has(i) {
		p.mu.Unlock()
		return
	}
	p.forgetLocked(i)
	if !isFull(why) {
		p.strikes[i]++
	}
	if p.strikes[i] >= 3 && p.err == nil {
		p.err = fmt.Errorf("%s, piece %d: %w: %w", p.o.Part, i, ErrDiskFailing, why)
	}
	p.mu.Unlock()
	p.o.Log.Warn("a piece is damaged on disk and is fetched again", "part", p.o.Part, "piece", i, "error", why)
	if p.o.Damaged != nil {
		p.o.Damaged(i, why)
	}
}
