package store

import (
	"context"
	"crypto"
	"crypto/sha256"
	"hash"
	"slices"

	"dragonload/internal/piece"
)

// readBuffer is how much is read at once where pieces are not needed whole: little enough to
// be in the processor's own memory still when it is hashed.
const readBuffer = 128 << 10

// sums are the hashes of the whole file.
type sums struct {
	sha   hash.Hash
	extra map[crypto.Hash]hash.Hash
}

func newSums(extra []crypto.Hash) *sums {
	s := &sums{sha: sha256.New(), extra: make(map[crypto.Hash]hash.Hash)}
	for _, h := range extra {
		s.extra[h] = h.New()
	}
	return s
}

func (s *sums) reset() {
	s.sha.Reset()
	for _, h := range s.extra {
		h.Reset()
	}
}

func (s *sums) write(b []byte) {
	s.sha.Write(b)
	for _, h := range s.extra {
		h.Write(b)
	}
}

// hashLoop follows the growing prefix of held pieces: it reads each from the page
// cache, where Write has just put it, and adds it to sums. Hashing inside Write instead,
// when its piece is the next one, was measured (BenchmarkWrite): it saves no processor
// time that shows, and slows a single writer by a third, for it no longer runs beside
// the hash.
func (p *partial) hashLoop() {
	var buf []byte
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for !p.halted && !p.have.Has(p.prefix) {
			p.changed.Wait()
		}
		if p.halted {
			return
		}
		p.hashNext(&buf)
	}
}

// hashNext adds piece prefix to sums. p.mu is held before and after, not in between.
func (p *partial) hashNext(buf *[]byte) {
	i, d := p.prefix, p.digests[p.prefix]
	doubtful, old := p.doubtful.Has(i), p.old.Has(i)
	p.hashing = true
	p.mu.Unlock()
	if i == 0 {
		p.sums.reset()
	}
	fed, err := p.feed(i, d, doubtful, buf)
	p.mu.Lock()
	p.hashing = false
	switch {
	case err != nil:
		if fed {
			p.restart = true
		}
		p.mu.Unlock()
		p.lose(i, err)
		p.mu.Lock()
	case !p.restart:
		p.doubtful.Unset(i)
		p.reread = p.reread || old
		p.prefix++
	}
	if p.restart {
		p.restart = false
		p.prefix, p.reread = 0, true
	}
	p.changed.Broadcast()
}

// rehashAll voids what is in sums; p.mu must be held.
func (p *partial) rehashAll() {
	if p.hashing {
		p.restart = true
		return
	}
	p.prefix, p.reread = 0, true
}

// meddled reports whether somebody else may have written to the partial file since that was
// asked last, or is still to be looked at. A file with holes was cut, by whoever, or is
// kept packed; that is told once.
func (p *partial) meddled() bool {
	if p.tree != nil || p.o.Cache {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.finished {
		return false
	}
	touched, told := p.data.Touched()
	p.suspect = p.suspect || touched || !told && watchable && !p.asked
	p.asked = true
	if !p.hollow {
		info, err := p.data.Stat()
		p.hollow = err == nil && allocated(info) < p.layout.Size
		p.suspect = p.suspect || p.hollow
	}
	return p.suspect
}

// checkAll compares every piece with its digest, loses those that are not as they were
// written, and has the whole hashed once more.
func (p *partial) checkAll(ctx context.Context) error {
	p.o.Log.Warn("somebody else may have written to the partial file; it is checked", "part", p.o.Part)
	p.mu.Lock()
	p.suspect = false
	which, digests := p.have.Clone(), slices.Clone(p.digests)
	p.mu.Unlock()
	good := claims{have: which.Clone(), origin: piece.NewBitfield(which.Len())}
	_, err := rehash(ctx, p.data, p.layout, &good, &which, digests)
	for i, ok := which.Next(0); ok && err == nil; i, ok = which.Next(i + 1) {
		if !good.have.Has(i) {
			p.lose(i, ErrDamaged)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.suspect = p.suspect || err != nil
	p.rehashAll()
	p.changed.Broadcast()
	return err
}

// feed reads piece i into sums. A doubtful one is compared with its digest first. fed
// says whether sums has changed.
func (p *partial) feed(i piece.Index, d piece.Digest, doubtful bool, buf *[]byte) (fed bool, err error) {
	r := p.layout.Range(i)
	size := min(readBuffer, r.Len())
	if doubtful {
		size = r.Len()
	}
	if int64(cap(*buf)) < size || !doubtful && cap(*buf) > readBuffer {
		*buf = make([]byte, size)
	}
	b := (*buf)[:size]
	if doubtful {
		if err := matches(p.data, p.layout, i, b, d); err != nil {
			return false, err
		}
		p.sums.write(b)
		return true, nil
	}
	for ; r.Start < r.End; r.Start += int64(len(b)) {
		b = b[:min(int64(len(b)), r.Len())]
		if n, err := p.data.ReadAt(b, r.Start); n < len(b) {
			return fed, err
		}
		p.sums.write(b)
		fed = true
	}
	return true, nil
}

// Finished is what became of a file whose pieces are all stored.
type Finished struct {
	Path   string                 // the final path
	SHA256 [sha256.Size]byte      // zero of several files, as are the others
	Sums   map[crypto.Hash][]byte // of Options.Hashes
	Reread bool                   // what an earlier run left was read from disk again for the hashes
}

// Sums waits until the hashes of the whole file are known; nothing gets its name yet.
// All pieces must have been stored: IncompleteError if one is not, or is found damaged
// meanwhile.
func (f *File) Sums(ctx context.Context) (Finished, error) {
	f.life.RLock()
	p, err := f.present("hash")
	f.life.RUnlock()
	if err != nil {
		return Finished{}, err
	}
	for {
		done, err := p.awaitSums(ctx)
		if err != nil || !p.meddled() {
			return done, err
		}
		if err := p.checkAll(ctx); err != nil {
			return Finished{}, err
		}
	}
}

func (p *partial) awaitSums(ctx context.Context) (Finished, error) {
	var done Finished
	var missing error
	err := p.await(ctx, func() bool {
		if i, ok := p.missing(0); ok {
			missing = &IncompleteError{Missing: i}
			return true
		}
		if p.tree != nil {
			done = Finished{Path: p.o.Target}
			return true
		}
		if int(p.prefix) < p.layout.Count() || p.hashing {
			return false
		}
		done = Finished{Path: p.o.Target, Sums: make(map[crypto.Hash][]byte), Reread: p.reread}
		copy(done.SHA256[:], p.sums.sha.Sum(nil))
		for kind, h := range p.sums.extra {
			done.Sums[kind] = h.Sum(nil)
		}
		return true
	})
	if err == nil {
		err = missing
	}
	if err != nil {
		return Finished{}, err
	}
	return done, nil
}
