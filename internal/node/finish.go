package node

import (
	"bytes"
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"dragonload/internal/origin"
	"dragonload/internal/piece"
	"dragonload/internal/store"
	"dragonload/internal/swarm"

	_ "crypto/md5"    // for Checksum
	_ "crypto/sha1"   // for Checksum
	_ "crypto/sha512" // for Checksum
)

// checksums lists what Spec.Checksums may name. Only the strong ones say that the
// file is the one that the user means.
var checksums = map[string]struct {
	hash   crypto.Hash
	strong bool
}{
	"sha-256": {crypto.SHA256, true},
	"sha-512": {crypto.SHA512, true},
	"sha-1":   {crypto.SHA1, false},
	"md5":     {crypto.MD5, false},
}

func checkChecksums(all []Checksum) error {
	for _, c := range all {
		kind, ok := checksums[c.Algorithm]
		if !ok {
			return problem("bad-option", ExitBadOption, fmt.Errorf("no checksum algorithm is called %q; sha-256, sha-512, sha-1 and md5 are known", c.Algorithm))
		}
		if raw, err := hex.DecodeString(c.Hex); err != nil || len(raw) != kind.hash.Size() {
			return problem("bad-option", ExitBadOption, fmt.Errorf("a %s checksum has %d hexadecimal digits", c.Algorithm, 2*kind.hash.Size()))
		}
	}
	return nil
}

// maxConfirm is how many members may be asked for; each is a copy more from the origin.
const maxConfirm = 8

func checkConfirm(s Spec) error {
	switch {
	case s.Confirm < 0 || s.Confirm > maxConfirm:
		return problem("bad-option", ExitBadOption, fmt.Errorf("from 1 to %d members can confirm a file", maxConfirm))
	case s.Confirm > 1 && s.Room == "":
		return problem("bad-option", ExitBadOption, errors.New("only other members can confirm a file: there must be a room for that"))
	}
	return nil
}

// hashesOf returns the hashes that the store is to compute besides SHA-256.
func hashesOf(all []Checksum) []crypto.Hash {
	var hashes []crypto.Hash
	for _, c := range all {
		if h := checksums[c.Algorithm].hash; h != crypto.SHA256 {
			hashes = append(hashes, h)
		}
	}
	return hashes
}

// finish carries out Finish: the file gets its final name once it is what the user
// and the origin said it would be.
func (d *download) finish(ctx context.Context, g *generation, basis swarm.Basis) {
	saved, err := d.publish(ctx, g, basis)
	for store.Passing(err) && d.hold(ctx, g.file, err) == nil {
		saved, err = d.publish(ctx, g, basis)
	}
	var lacks *store.IncompleteError
	if errors.As(err, &lacks) {
		// The piece was damaged after it had been stored: it is fetched again.
		d.inbox.do(func() {
			d.checking = false
			d.step(swarm.Unreadable{Piece: lacks.Missing})
		})
		return
	}
	d.inbox.do(func() {
		d.checking = false
		if errors.Is(err, errBlamed) {
			return // what differed is being fetched again
		}
		var doubt *doubtError
		if errors.As(err, &doubt) {
			d.mismatch = AsError(doubt.err)
			d.step(swarm.Mismatched{})
			return
		}
		if err != nil {
			d.fail(err)
			d.drain()
			return
		}
		saved.OriginBytes, saved.PeerBytes, saved.UploadedBytes = d.counts.origin.Load(), d.counts.peer.Load(), d.counts.uploaded.Load()
		saved.Took = time.Since(d.started)
		d.saved = saved
		d.isSaved.Store(true)
		if d.lent == nil && !d.stdout() {
			d.receipt.Store(&receipt{saved.Path, time.Now()})
		}
		if d.want != nil {
			d.node.publishSoon()
		}
		d.work.Go(func() { d.remember(g, saved) })
		if n := d.harm.parts; n > 0 {
			parts := fmt.Sprintf("%d parts of %s were", n, d.target)
			if n == 1 {
				parts = fmt.Sprintf("1 part of %s was", d.target)
			}
			d.warn("repaired", parts+" damaged on this disk and repaired")
		}
		d.emitNow(Event{Saved: saved})
		d.step(swarm.Finished{})
		d.hangUp()
	})
}

// hangUp closes the connections of a download that has all it wants. It may serve others
// for long yet, as one of many.
func (d *download) hangUp() {
	d.closeIdleOrigins()
	if d.peers != nil {
		d.peers.CloseIdle()
	}
}

func (d *download) closeIdleOrigins() {
	for _, a := range d.addresses.all {
		a.client.CloseIdle()
	}
}

// errBlamed: the file is not what its digest says, and a mirror has been found that
// brought other bytes.
var errBlamed = errors.New("a mirror brought other bytes")

// doubtError: the file is not what its digest says, and members brought parts of it that
// were not compared with the origin. err is what the user is told if they cannot be.
type doubtError struct{ err error }

func (e *doubtError) Error() string { return e.err.Error() }

func (d *download) publish(ctx context.Context, g *generation, basis swarm.Basis) (*Saved, error) {
	sums, err := g.file.Sums(ctx)
	if err != nil {
		return nil, storeProblem(err)
	}
	said := d.wholeDigests(g)
	if err := addSHA512(ctx, g, said, &sums); err != nil {
		return nil, storeProblem(err)
	}
	checked, settled, err := d.check(g, basis, said, sums)
	switch {
	case err == nil:
	case d.stdout():
		return nil, err
	case d.blame(ctx, g):
		return nil, errBlamed
	case !settled:
		return nil, &doubtError{err}
	default:
		return nil, err
	}
	if d.stdout() {
		if err := <-d.copied; err != nil {
			return nil, problem("standard-output", ExitFile, fmt.Errorf("write to standard output: %w", err))
		}
	} else {
		if sums, err = g.file.Finish(ctx, d.from()...); err != nil {
			return nil, storeProblem(err)
		}
	}
	path := d.shownPath()
	if !d.stdout() {
		path = sums.Path
	}
	saved := &Saved{Path: path, Size: d.size(g), SHA256: hex.EncodeToString(sums.SHA256[:]), Checked: checked, Reread: sums.Reread}
	if d.want != nil {
		saved.Manifest = hex.EncodeToString(d.want.id[:])
	}
	if d.isFolder() {
		saved.SHA256, saved.Files = saved.Manifest, d.want.count
	}
	return saved, nil
}

// from returns where the file is to be had, the best place first.
func (d *download) from() []string {
	if d.want == nil {
		return d.addresses.good()
	}
	if d.isFolder() {
		return nil
	}
	var urls []string
	for _, a := range d.addresses.all {
		if at, err := d.want.torrent.Load().SeedURL(a.url, 0); err == nil && d.addresses.served(a) {
			urls = append(urls, a.kept(at))
		}
	}
	return urls
}

// wholeDigests returns the digests of the whole file that the origin has stated for g.
func (d *download) wholeDigests(g *generation) digests {
	var whole digests
	whole.sha256, whole.sha512 = origin.ReprDigests(g.pin)
	d.originMu.Lock()
	defer d.originMu.Unlock()
	if d.said.pin == g.pin {
		whole = whole.agree(d.said.digests)
	}
	if d.heardOf == g {
		whole = whole.agree(d.heard)
	}
	return whole
}

// addSHA512 computes the SHA-512 of the whole file if the origin has stated one and
// that was not known when the file was begun: most origins name SHA-256 or nothing, so
// that the pass over the file is for few.
func addSHA512(ctx context.Context, g *generation, whole digests, sums *store.Finished) error {
	if len(whole.sha512) == 0 || sums.Sums[crypto.SHA512] != nil {
		return nil
	}
	h, buf := crypto.SHA512.New(), make([]byte, readChunk)
	for at := int64(0); at < g.layout.Size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := g.file.ReadAt(buf[:min(readChunk, g.layout.Size-at)], at)
		if n == 0 && err != nil {
			return err
		}
		h.Write(buf[:n])
		at += int64(n)
	}
	if sums.Sums == nil {
		sums.Sums = make(map[crypto.Hash][]byte)
	}
	sums.Sums[crypto.SHA512] = h.Sum(nil)
	return nil
}

// check compares the file with what was said about it and returns what it rests on:
// the first that holds of checksum, origin-digest, origin, confirmed-K, audited, unproven.
// Where it differs, settled says that its parts are the origin's all the same.
func (d *download) check(g *generation, basis swarm.Basis, whole digests, sums store.Finished) (checked string, settled bool, err error) {
	d.originMu.Lock()
	unproven := d.said.unproven
	d.originMu.Unlock()
	unproven = unproven || g.pin.Kind == piece.NoValidator && d.counts.spooled.Load() > 0
	reprs := []struct {
		algorithm string
		sum, got  []byte
	}{{"sha-256", whole.sha256, sums.SHA256[:]}, {"sha-512", whole.sha512, sums.Sums[crypto.SHA512]}}

	compared := basis.OwnOnly || basis.Checksum
	checked = "unproven"
	sources, same := d.addresses.sources(g)
	switch {
	case basis.Checksum:
		checked = "checksum"
	case basis.OwnOnly && !unproven && sources <= 1:
		checked = "origin"
	case basis.Confirmed > 1:
		checked = fmt.Sprintf("confirmed-%d", basis.Confirmed)
	case basis.Audited > 0 || same > 0:
		checked = "audited"
	}
	for _, r := range reprs {
		if len(r.sum) == 0 || basis.Checksum {
			continue // a manifest says more than an origin does
		}
		if !bytes.Equal(r.sum, r.got) {
			return "", compared, &Error{Problem: Problem{Code: "origin-digest", Exit: ExitBadAnswer,
				Message: fmt.Sprintf("the origin says that the file's %s is %x, its bytes have %x%s; they are kept in %s; ask who runs the origin, or pass --restart to fetch them anew",
					r.algorithm, r.sum, r.got, d.uncompared(compared), d.keptIn())}}
		}
		checked = "origin-digest"
	}
	for _, c := range d.spec.Checksums {
		kind := checksums[c.Algorithm]
		got := sums.Sums[kind.hash]
		if kind.hash == crypto.SHA256 {
			got = sums.SHA256[:]
		}
		if hex.EncodeToString(got) != c.Hex {
			agree := checked == "origin-digest" || compared
			return "", agree, d.wrongChecksum(g, c, got, agree && sources <= 1 && !d.addresses.dropped())
		}
		if kind.strong {
			checked = "checksum"
		}
	}
	return checked, true, nil
}

// wrongChecksum is what the user is told of a file that is not what c says; agree says
// that every part of it is the origin's.
func (d *download) wrongChecksum(g *generation, c Checksum, got []byte, agree bool) *Error {
	differs := fmt.Sprintf("%s differs: expected %s, the file that came has %x%s", c.Algorithm, c.Hex, got, d.uncompared(agree))
	switch {
	case agree && d.room == nil && g.resumed > 0:
		differs += fmt.Sprintf("; %s of it are of an earlier run and were not compared with what the origin has now", store.Bytes(g.resumed))
	case agree:
		differs = fmt.Sprintf("all parts agree with the origin, but %s is %x and you gave %s", c.Algorithm, got, c.Hex)
	}
	kept := fmt.Sprintf("nothing was saved under the final name, what came is kept in %s; "+
		"to take it all the same run again with --checksum %s=%x, to fetch it anew with --restart", d.keptIn(), c.Algorithm, got)
	if d.stdout() {
		kept = fmt.Sprintf("what went to standard output is that: throw it away; to take it all the same run again with --checksum %s=%x", c.Algorithm, got)
	}
	return &Error{Problem: Problem{Code: "checksum", Exit: ExitChecksum, Message: differs + "; " + kept}}
}

// uncompared tells of a file in doubt that members brought parts of it, unless each was
// compared with the origin.
func (d *download) uncompared(agree bool) string {
	if agree || d.room == nil {
		return ""
	}
	return ", and not all the parts that members brought were compared with the origin"
}
