package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/store"
	"dragonload/internal/swarm"
)

// readyEvery is how often a disk that took no writes is looked at again.
const readyEvery = time.Second

// pause is a time in which nothing can be stored: the disk is full or read-only, or the
// folder is gone. Workers keep what they have brought and ask for nothing more; what is
// stored is served; everything goes on by itself when the disk takes writes again.
type pause struct {
	over chan struct{} // closed when it is
}

// paused returns the present pause, nil if there is none.
func (d *download) paused() *pause {
	d.originMu.Lock()
	defer d.originMu.Unlock()
	return d.pause
}

// rest waits until nothing stands against storing pieces, or ctx ends.
func (d *download) rest(ctx context.Context) error {
	for {
		p := d.paused()
		if p == nil {
			return nil
		}
		select {
		case <-p.over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// hold begins a pause because of err, which is store.Passing, if there is none, and
// waits for its end.
func (d *download) hold(ctx context.Context, file *store.File, err error) error {
	d.originMu.Lock()
	if d.pause == nil {
		p := &pause{over: make(chan struct{})}
		d.pause = p
		d.work.Go(func() { d.lookAgain(p, file, err) })
	}
	d.originMu.Unlock()
	return d.rest(ctx)
}

// lookAgain ends a pause when the disk takes writes again. A pause lasts for as long as
// a download may go without a new byte: the machine sees to that.
func (d *download) lookAgain(p *pause, file *store.File, why error) {
	d.inbox.do(func() { d.tellPaused(why) })
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for again := true; again; {
		select {
		case <-tick.C:
			d.inbox.do(d.tellHeld)
			err := file.Ready()
			if again = store.Passing(err); again && code(err) != code(why) {
				why = err
				d.inbox.do(func() { d.tellPaused(why) })
			}
		case <-d.ctx.Done():
			again = false
		}
	}
	d.originMu.Lock()
	d.pause = nil
	d.originMu.Unlock()
	close(p.over)
}

// tellHeld tells the machine that nothing comes because nothing is taken: that is no
// neighbour's fault.
func (d *download) tellHeld() {
	for req := range d.cancels {
		d.pending = append(d.pending, swarm.PeerMoved{Request: req})
	}
	d.drain()
}

func code(err error) string { return storeProblem(err).Code }

// tellPaused tells the user once of each reason, until pieces were stored again.
func (d *download) tellPaused(why error) {
	if d.pausedFor == nil || code(why) != code(d.pausedFor) {
		d.pausedFor = why
		text := why.Error()
		var full *store.DiskFullError
		if errors.As(why, &full) {
			text = fmt.Sprintf("disk full, needs %s more on the disk of %s", store.Bytes(full.Need), full.Folder)
		}
		d.warn(code(why), fmt.Sprintf("paused: %s; what came is kept and served, and the download goes on by itself", text))
	}
}

// unsure is told by the store that the disk failed to keep what was written last.
func (d *download) unsure(pieces int, why error) {
	d.inbox.do(func() {
		d.warn("disk-write", fmt.Sprintf("the disk reported a write failure (%v); re-checking %d parts of %s", why, pieces, d.target))
	})
}

// harm counts what the disk did to pieces that were stored. It belongs to the loop.
type harm struct {
	parts  int // found damaged, and fetched again
	unread int // of these, could not be read
}

// spoiled notes that piece i, stored before, is no longer as it was written.
func (d *download) spoiled(i piece.Index, why error) {
	d.harm.parts++
	if isDamage(why) {
		return // told when the file is saved
	}
	d.harm.unread++
	switch n := d.harm.unread; {
	case n < 3:
		d.warn("disk-read", fmt.Sprintf("disk error in part %d of %s; it is fetched again", i, d.target))
	case n == 3:
		d.warn("disk-read", fmt.Sprintf("the disk has failed to read 3 parts of %s; they are fetched again, and no more is said of it; look after the disk", d.target))
	}
}

// isDamage reports whether a piece was read and had other bytes, as against could not
// be read.
func isDamage(err error) bool {
	var multi interface{ Unwrap() []error }
	if errors.As(err, &multi) {
		return len(multi.Unwrap()) < 2
	}
	return errors.Is(err, store.ErrDamaged)
}

// tellResumed tells what an unclean end of the run before has cost.
func (d *download) tellResumed(r store.Resume, layout piece.Layout) {
	if r.Rebuilt {
		aside := "it was damaged or is gone"
		if path := d.node.journal.Aside(); path != "" {
			aside = "it was damaged and is kept as " + path
		}
		d.warn("rebuilding", fmt.Sprintf("rebuilding progress from the file: the journal does not know %s (%s)", d.keptIn(), aside))
	}
	switch {
	case r.Dropped > 0:
		d.warn("dropped", fmt.Sprintf("checked %s after an unclean stop: %d parts of %s were damaged and are fetched again",
			store.Bytes(d.resumed), r.Dropped, d.target))
	case r.Unclean && layout.Size > 0 && r.Have.Count() > 0:
		d.warn("resumed", fmt.Sprintf("resumed after an unclean stop: %d %% kept, %s fetched again", d.resumed*100/layout.Size, store.Bytes(r.Again)))
	}
}
