package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"dragonload/internal/origin"
	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// Whether a mirror has the same bytes nobody but the bytes can say: its validators are
// its own. So a leaf of each is compared with another address's before it is used, and
// further ones while it brings more; and where the whole file turns out not to be what
// its digest says, the pieces are compared one by one. What differs is dropped, with all
// that it brought. The URL itself goes before mirrors, and an earlier mirror before a
// later one: what the user named first is what the user meant.

// auditEvery is of how many bytes of a mirror about one leaf is compared.
const auditEvery = piece.LeafSize * 400

// errMirrorDiffers: an address was dropped, for its bytes are not those of the file.
var errMirrorDiffers = errors.New("a mirror has other bytes")

// qualify makes sure, before a is asked for pieces, that it has a version of the right
// length and that a leaf of that is as it is elsewhere.
func (d *download) qualify(ctx context.Context, g *generation, a *address) error {
	s := d.addresses
	s.mu.Lock()
	pinned, sampled := a.pin != piece.Pin{}, a.sampled
	s.mu.Unlock()
	if !pinned {
		if err := d.introduce(ctx, g, a); err != nil {
			return err
		}
	}
	if sampled {
		return nil
	}
	return d.sample(ctx, g, a)
}

// introduce asks a which version it has.
func (d *download) introduce(ctx context.Context, g *generation, a *address) error {
	var answer *origin.Answer
	err := d.briefly(ctx, a, func(ctx context.Context) (err error) {
		if answer, err = a.client.Probe(ctx, 1); err == nil {
			d.counts.origin.Add(min(answer.Range.Len(), 1))
			answer.Body.Close()
		}
		return err
	})
	if err != nil {
		return err
	}
	pin := answer.Pin
	switch {
	case pin.Size >= 0 && pin.Size != g.pin.Size:
		return d.dropAddress(g, a, 0, fmt.Sprintf("it has %d bytes, the file has %d", pin.Size, g.pin.Size))
	case answer.Stream || !pin.Combinable():
		return d.dropAddress(g, a, 0, "it cannot be read in ranges, so that it cannot be compared")
	case !d.allows(g, digestsOf(answer)):
		return d.dropAddress(g, a, 0, "it states another digest of the file")
	}
	d.addresses.mu.Lock()
	defer d.addresses.mu.Unlock()
	a.pin = pin
	return nil
}

// allows reports whether digests that a mirror states are those that are known.
func (d *download) allows(g *generation, stated digests) bool {
	known := d.wholeDigests(g)
	differ := func(a, b []byte) bool { return len(a) > 0 && len(b) > 0 && !bytes.Equal(a, b) }
	if differ(known.sha256, stated.sha256) || differ(known.sha512, stated.sha512) {
		return false
	}
	for _, c := range d.spec.Checksums {
		sum := map[string][]byte{"sha-256": stated.sha256, "sha-512": stated.sha512}[c.Algorithm]
		if len(sum) > 0 && fmt.Sprintf("%x", sum) != c.Hex {
			return false
		}
	}
	return true
}

// sample compares a leaf of a, at a place that nobody could foresee, with the same one
// elsewhere: at another address, or here. If there is no such thing yet, that waits for
// a's next request.
func (d *download) sample(ctx context.Context, g *generation, a *address) error {
	leaf := randomLeaf(piece.Range{End: g.layout.Size})
	if i, ok := d.heldElsewhere(g, a); ok {
		leaf = randomLeaf(g.layout.Range(i))
	}
	same, against, err := d.compareAt(ctx, g, a, leaf)
	culprit := d.byBits(against|a.bit(), nil)
	switch {
	case err != nil:
		return err
	case same == differs:
		err := d.dropAddress(g, culprit, (against|a.bit())&^culprit.bit(), unlike(leaf))
		if culprit != a {
			return nil // compared again with its next request
		}
		return err
	case same == equal:
		d.addresses.mu.Lock()
		a.sampled = true
		d.addresses.same++
		a.auditAt = nextAudit()
		d.addresses.mu.Unlock()
	}
	return nil
}

func nextAudit() int64 { return auditEvery/2 + rand.Int64N(auditEvery) }

// randomLeaf picks a leaf of the bytes r, which begin at a leaf.
func randomLeaf(r piece.Range) piece.Range {
	leaves := (r.Len() + piece.LeafSize - 1) / piece.LeafSize
	start := r.Start + rand.Int64N(leaves)*piece.LeafSize
	return piece.Range{Start: start, End: min(start+piece.LeafSize, r.End)}
}

// heldElsewhere picks a stored piece that is not from a.
func (d *download) heldElsewhere(g *generation, a *address) (piece.Index, bool) {
	return d.pickPiece(g, func(bits uint32) bool { return bits != 0 && bits&a.bit() == 0 })
}

// pickPiece picks a piece that was stored in this run and whose sources are as is says.
func (d *download) pickPiece(g *generation, is func(bits uint32) bool) (piece.Index, bool) {
	s := d.addresses
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of != g || len(s.from) == 0 {
		return 0, false
	}
	start := rand.IntN(len(s.from))
	for k := range s.from {
		i := (start + k) % len(s.from)
		if is(s.from[i]) {
			return piece.Index(i), true
		}
	}
	return 0, false
}

type likeness uint8

const (
	unknown likeness = iota
	equal
	differs
)

// compareAt compares a's bytes r with those of the best address before it; where none
// can be asked, with those stored from another one. It returns which ones these were.
// Only what goes wrong at a is an error.
func (d *download) compareAt(ctx context.Context, g *generation, a *address, r piece.Range) (likeness, uint32, error) {
	theirs, err := d.leafOf(ctx, a, r)
	if err != nil {
		return unknown, 0, err
	}
	if ref := d.reference(a); ref != nil {
		if ours, err := d.leafOf(ctx, ref, r); err == nil {
			return alike(ours, theirs), ref.bit(), nil
		} else if ctx.Err() == nil {
			d.addressFailed(ref, err)
		}
	}
	ours := make([]byte, r.Len())
	bits := d.sourcesOf(g, r)
	if bits&a.bit() != 0 || bits == 0 && d.room != nil {
		return unknown, 0, nil // neither its own bytes nor a member's prove anything
	}
	if n, _ := g.file.ReadAt(ours, r.Start); n < len(ours) {
		return unknown, 0, nil // not stored: there is nothing to compare with yet
	}
	return alike(ours, theirs), bits, nil
}

func alike(a, b []byte) likeness {
	if bytes.Equal(a, b) {
		return equal
	}
	return differs
}

// sourcesOf returns where the piece at the beginning of r came from.
func (d *download) sourcesOf(g *generation, r piece.Range) uint32 {
	s := d.addresses
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of != g {
		return 0
	}
	return s.from[g.layout.At(r.Start)]
}

// reference returns the first address before a whose version is known and that can be
// asked now. Mirrors that were not compared themselves prove nothing against another.
func (d *download) reference(a *address) *address {
	s := d.addresses
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ref := range s.all {
		if ref.number >= a.number {
			break
		}
		if !ref.gone && ref.pin != (piece.Pin{}) && !time.Now().Before(ref.resting) {
			return ref
		}
	}
	return nil
}

// leafOf reads the bytes r from a.
func (d *download) leafOf(ctx context.Context, a *address, r piece.Range) ([]byte, error) {
	leaf := make([]byte, r.Len())
	err := d.briefly(ctx, a, func(ctx context.Context) error {
		answer, err := a.client.Fetch(ctx, d.addresses.pinOf(a), r)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		n, err := io.ReadFull(answer.Body, leaf)
		d.counts.origin.Add(int64(n))
		return err
	})
	return leaf, err
}

// briefly asks a for a little, one leaf at most. Where another address can serve, whoever
// needs more than stalledAfter for that is slow enough to be left.
func (d *download) briefly(ctx context.Context, a *address, ask func(context.Context) error) error {
	if !d.addresses.another(a) {
		return ask(ctx)
	}
	asking, cancel := context.WithTimeout(ctx, stalledAfter)
	defer cancel()
	err := ask(asking)
	if err != nil && ctx.Err() == nil && asking.Err() != nil {
		return origin.TooSlow(a.client.Host(), stalledAfter)
	}
	return err
}

// auditAddress compares a leaf of what a has brought, now and then, with an address
// before it.
func (d *download) auditAddress(ctx context.Context, g *generation, a *address) {
	s := d.addresses
	s.mu.Lock()
	due := s.of == g && a.number > 0 && a.brought >= a.auditAt
	if due {
		a.brought, a.auditAt = 0, nextAudit()
	}
	s.mu.Unlock()
	if !due {
		return
	}
	i, ok := d.pickPiece(g, func(bits uint32) bool { return bits == a.bit() })
	ref := d.reference(a)
	if !ok || ref == nil {
		return
	}
	leaf := randomLeaf(g.layout.Range(i))
	theirs, err := d.leafOf(ctx, ref, leaf)
	if err != nil {
		d.addressFailed(ref, err)
		return
	}
	ours := make([]byte, leaf.Len())
	if _, err := g.file.ReadAt(ours, leaf.Start); err != nil {
		return // forgotten meanwhile
	}
	if alike(ours, theirs) == differs {
		_ = d.dropAddress(g, a, ref.bit(), unlike(leaf))
		return
	}
	s.mu.Lock()
	s.same++
	s.mu.Unlock()
}

// unlike says how the bytes r of an address showed to be others. Which of the two that were
// compared has those of the file need not be known yet.
func unlike(r piece.Range) string {
	return fmt.Sprintf("its bytes %d to %d are not those that another address has", r.Start, r.End-1)
}

// dropAddress gives an address up, with all that it brought: its bytes are not those of
// the file, which shows by a comparison with the addresses of the bits against, if that
// is not 0. It returns errMirrorDiffers.
func (d *download) dropAddress(g *generation, a *address, against uint32, why string) error {
	s := d.addresses
	s.mu.Lock()
	news := !a.gone
	a.gone, a.against, a.sampled = true, against, false
	a.last = origin.Differs(a.client.Host(), "it was dropped: "+why)
	var dropped []piece.Index
	if s.of == g {
		for i, bits := range s.from {
			if bits&a.bit() != 0 {
				dropped = append(dropped, piece.Index(i))
				s.from[i] = 0
			}
		}
		s.used &^= a.bit()
	}
	s.mu.Unlock()
	if news {
		d.inbox.do(func() {
			d.warn("mirror-differs", fmt.Sprintf("%s is dropped, with the %d pieces that came from it: %s; leave it out next time", a.name, len(dropped), why))
		})
	}
	d.forget(g, dropped)
	return errMirrorDiffers
}

// forget has pieces fetched again.
func (d *download) forget(g *generation, pieces []piece.Index) {
	if len(pieces) == 0 {
		return
	}
	d.inbox.do(func() {
		if d.generation() != g {
			return
		}
		for _, i := range pieces {
			d.step(swarm.Misread{Piece: i})
		}
	})
}

// blame compares, piece by piece, what did not come from the best address with what that
// has, because the whole file is not what its digest says. Mirrors that differ are
// dropped; it reports whether anything is fetched again.
func (d *download) blame(ctx context.Context, g *generation) (again bool) {
	s := d.addresses
	s.mu.Lock()
	var ref *address
	for _, a := range s.all {
		if !a.gone && a.pin != (piece.Pin{}) {
			ref = a
			break
		}
	}
	from := slices.Clone(s.from)
	several := len(s.all) > 1 && s.of == g
	s.mu.Unlock()
	if !several || ref == nil {
		return false
	}
	var old []piece.Index // an earlier run's
	all := true
	for k, bits := range from {
		i := piece.Index(k)
		if bits == ref.bit() || d.isDropped(bits) {
			continue
		}
		if bits == 0 && d.room != nil {
			all = false // a member's: its statements are audited, not compared here
			continue
		}
		same, err := d.comparePiece(ctx, g, ref, i)
		if err != nil {
			d.log.Info("pieces could not be compared", "err", err)
			all = false
			break
		}
		if same {
			continue
		}
		again = true
		blamed := d.byBits(bits, ref)
		if blamed == nil {
			old = append(old, i)
			continue
		}
		r := g.layout.Range(i)
		_ = d.dropAddress(g, blamed, ref.bit(), unlike(r))
	}
	d.forget(g, old)
	return again || all && d.blameBest(ctx, g, ref)
}

// maxLost is how often the whole file is fetched again from other addresses.
const maxLost = 2

// blameBest drops the best address, whose file is the one here and is not what its
// digest says, if there are others to try: those too that were dropped because they
// differ from it.
func (d *download) blameBest(ctx context.Context, g *generation, ref *address) bool {
	s := d.addresses
	s.mu.Lock()
	var others []*address
	for _, a := range s.all {
		if a != ref && (!a.gone || a.against == ref.bit()) {
			others = append(others, a)
		}
	}
	s.lost++
	tries := s.lost
	s.mu.Unlock()
	if tries > maxLost {
		return false // the digest is the one that is wrong, most likely
	}
	serve := false
	for _, a := range others {
		if d.addresses.pinOf(a) == (piece.Pin{}) && d.introduce(ctx, g, a) != nil {
			continue
		}
		serve = true
		s.mu.Lock()
		a.gone, a.sampled = false, true // there is nothing left to compare it with
		s.mu.Unlock()
	}
	if !serve {
		return false
	}
	_ = d.dropAddress(g, ref, 0, "the file that it has is not the one that its digest names")
	return true
}

func (d *download) isDropped(bits uint32) bool {
	d.addresses.mu.Lock()
	defer d.addresses.mu.Unlock()
	return d.addresses.goneAmong(bits)
}

// byBits returns the last address among those of bits that is not ref.
func (d *download) byBits(bits uint32, ref *address) *address {
	for k := len(d.addresses.all) - 1; k >= 0; k-- {
		if a := d.addresses.all[k]; a != ref && bits&a.bit() != 0 {
			return a
		}
	}
	return nil
}

// comparePiece reports whether piece i is here as it is at ref.
func (d *download) comparePiece(ctx context.Context, g *generation, ref *address, i piece.Index) (bool, error) {
	r := g.layout.Range(i)
	theirs, err := d.node.buffers.take(ctx, int(r.Len()))
	if err != nil {
		return false, err
	}
	defer d.node.buffers.give(theirs)
	answer, err := ref.client.Fetch(ctx, d.addresses.pinOf(ref), r)
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	n, err := io.ReadFull(answer.Body, theirs)
	d.counts.origin.Add(int64(n))
	if err != nil {
		return false, err
	}
	ours := make([]byte, piece.LeafSize)
	for at := int64(0); at < r.Len(); at += piece.LeafSize {
		part := ours[:min(piece.LeafSize, r.Len()-at)]
		if _, err := g.file.ReadAt(part, r.Start+at); err != nil {
			return false, err
		}
		if !bytes.Equal(part, theirs[at:at+int64(len(part))]) {
			return false, nil
		}
	}
	return true, nil
}
