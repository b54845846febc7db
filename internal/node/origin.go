package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"dragonload/internal/origin"
	"dragonload/internal/piece"
	"dragonload/internal/store"
	"dragonload/internal/swarm"
)

const (
	// movedEvery is how often a worker tells how many bytes have come.
	movedEvery = 100 * time.Millisecond

	// readChunk is how much is asked of a body at once.
	readChunk = 256 << 10

	// maxStrikes is how many answers in a row may break the rules, with no byte in
	// between, before this node takes the origin to be unusable from here.
	maxStrikes = 4

	// wholeStrikes is how many answers in a row must be the whole file, where a part was
	// asked for, before the pool is told that the origin may serve no parts any more.
	wholeStrikes = 2
)

// firstTries are the waits between the tries to reach an origin that has not sent a
// byte yet: a name that does not resolve or a port that nobody listens on is seldom
// mended by waiting long.
var firstTries = []time.Duration{100 * time.Millisecond, 200 * time.Millisecond}

// probeOrigin carries out ProbeOrigin: the first answer says which generation there
// is, and its bytes are stored once the machine has set it.
func (d *download) probeOrigin(ctx context.Context, a swarm.ProbeOrigin) {
	asking, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	answer, from, err := d.probe(asking, a)
	if err != nil {
		d.originEnded(ctx, a.Request, nil, 0, err)
		return
	}
	body := answer.Body
	defer func() { body.Close() }()
	flow := &flow{d: d, req: a.Request, from: from}
	pin, held := answer.Pin, answer.Range
	if pin.Size == piece.UnknownSize {
		// How long the file is shows when its end has come; until then there are no
		// pieces to speak of, and the bytes wait in a file of their own.
		spool, err := d.spool(answer.Body, flow)
		if err != nil {
			d.originEnded(ctx, a.Request, nil, 0, err)
			return
		}
		defer spool.close()
		pin.Size = spool.size
		held = piece.Range{Start: 0, End: spool.size}
		body.Close()
		body = spool
		flow = nil
	}
	name, refused := answer.Name, answer.RefusedName
	if from != nil {
		if pin, err = d.translate(ctx, from, pin, answer); err != nil {
			if !errors.Is(err, errMirrorDiffers) {
				d.addressFailed(from, err)
			} else {
				err = d.addresses.lastError()
			}
			d.originEnded(ctx, a.Request, nil, 0, err)
			return
		}
		if from.number > 0 {
			name, refused = "", "" // the file is called after the URL
		}
	}
	d.originMu.Lock()
	d.said = said{pin: pin, name: name, refused: refused, digests: digestsOf(answer), unproven: answer.Unproven, stream: answer.Stream}
	d.originMu.Unlock()
	defer d.expectHead(pin, held)()
	d.inbox.post(swarm.OriginAnswered{Request: a.Request, Pin: pin, Stream: answer.Stream, Start: held.Start, Bytes: held.Len()})
	g, err := d.awaitGeneration(ctx, pin)
	if err == nil {
		switch {
		case flow == nil || answer.Stream:
			err = d.receive(asking, g, a.Request, flow, held, body)
		case from == nil:
			watched := d.attend(asking, leave, flow, held.Len())
			watched.begins(answer)
			err = watched.end(d.receive(asking, g, a.Request, flow, held, body))
		default:
			end := d.watched(asking, leave, from, flow, held.Len())
			err = d.receive(asking, g, a.Request, flow, held, body)
			end()
			if err != nil && errors.Is(context.Cause(asking), errLeft) {
				err = nil // what is missing is asked for elsewhere
			}
		}
	}
	if errors.Is(err, errSuperseded) {
		if ctx.Err() == nil {
			d.inbox.post(swarm.OriginEnded{Request: a.Request, Failure: swarm.Passing, Changed: &pin})
			return
		}
		err = nil
	}
	if errors.Is(err, errMirrorDiffers) {
		err = d.addresses.afterDrop()
	}
	d.originEnded(ctx, a.Request, flow, held.Len(), err)
}

// probe asks the URL, or if need be its mirrors, what the file is.
func (d *download) probe(ctx context.Context, a swarm.ProbeOrigin) (*origin.Answer, *address, error) {
	if d.addresses.plain(nil) {
		answer, err := d.reach(ctx, func() (*origin.Answer, error) { return d.client.ProbeAt(ctx, a.Start, a.Bytes) })
		if why := d.otherSize(answer, err); why != "" {
			answer.Body.Close()
			return nil, nil, origin.Differs(d.client.Host(), why)
		}
		return answer, nil, err
	}
	return d.probeAny(ctx, a)
}

// otherSize says why an answer is not of a file of the size that the user's manifest
// names; "" if it may be.
func (d *download) otherSize(answer *origin.Answer, err error) string {
	if err != nil || d.spec.Size == 0 || answer.Pin.Size < 0 || answer.Pin.Size == d.spec.Size {
		return ""
	}
	return fmt.Sprintf("it has %d bytes, the file has %d", answer.Pin.Size, d.spec.Size)
}

// fetchOrigin carries out FetchOrigin: one request for one extent.
func (d *download) fetchOrigin(ctx context.Context, g *generation, a swarm.FetchOrigin) {
	if err := d.rest(ctx); err != nil {
		d.originEnded(ctx, a.Request, nil, 0, err)
		return
	}
	if d.isManifest() {
		d.fetchSeeds(ctx, g, a)
		return
	}
	r := g.layout.Bytes(a.Extent)
	if d.lent != nil {
		err := d.lent.pace(ctx, d.parsed.Host)
		if err == nil && !d.lent.l.roomFor(r.Len()) {
			err = errCacheFull
		}
		if err != nil {
			d.originEnded(ctx, a.Request, nil, 0, err)
			return
		}
	}
	if !d.addresses.plain(g) {
		d.fetchAny(ctx, g, a)
		return
	}
	r.Start += d.headLen(ctx, a.Extent.First)
	flow := &flow{d: d, req: a.Request}
	asking, leave := context.WithCancelCause(ctx)
	watched := d.attend(asking, leave, flow, r.Len())
	answer, err := d.reach(asking, func() (*origin.Answer, error) { return d.client.Fetch(asking, g.pin, r) })
	if err == nil {
		watched.begins(answer)
		d.hear(g, digestsOf(answer))
		// It may be shorter than what was asked for; the body then ends with an error.
		err = d.receive(asking, g, a.Request, flow, answer.Range, answer.Body)
		answer.Body.Close()
	}
	d.originEnded(ctx, a.Request, flow, r.Len(), watched.end(err))
}

// said is what the last probe's answer said about the file.
type said struct {
	pin      piece.Pin
	name     string
	refused  string // why a name in it was not taken; "" if none was refused
	digests  digests
	unproven bool // nothing proved the end of the stream
	stream   bool // the origin cannot be read in ranges
}

// digests are of a whole file, nil where they are not known.
type digests struct{ sha256, sha512 []byte }

func digestsOf(a *origin.Answer) digests { return digests{a.ReprSHA256, a.ReprSHA512} }

// agree returns what both say or only one of them says. What they contradict each other
// in is worth nothing: some origins send the digest of a part where that of the whole
// belongs.
func (s digests) agree(t digests) digests {
	one := func(a, b []byte) []byte {
		switch {
		case a == nil:
			return b
		case b == nil || bytes.Equal(a, b):
			return a
		}
		return []byte{}
	}
	return digests{one(s.sha256, t.sha256), one(s.sha512, t.sha512)}
}

// hear takes in what a further answer for g says of the whole file.
func (d *download) hear(g *generation, more digests) {
	d.originMu.Lock()
	defer d.originMu.Unlock()
	if d.heardOf != g {
		d.heardOf, d.heard = g, digests{}
	}
	d.heard = d.heard.agree(more)
}

// reach asks the origin, and again after short waits if it cannot be reached at all
// and has not sent a byte in this run.
func (d *download) reach(ctx context.Context, ask func() (*origin.Answer, error)) (*origin.Answer, error) {
	for _, wait := range firstTries {
		answer, err := ask()
		var o *origin.Error
		if err == nil || !errors.As(err, &o) || o.Kind != origin.Resolve && o.Kind != origin.Refused || d.counts.origin.Load() > 0 {
			return answer, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return ask()
}

// flow tells the machine how many bytes of a request have come.
type flow struct {
	d     *download
	req   swarm.Request
	from  *address // nil where there is only one
	bytes int64    // since told
	told  time.Time
	total atomic.Int64
	// reading: the origin is waited for, and not the disk or a buffer.
	reading atomic.Bool
}

// read reads from body, of this flow, and counts what comes. The flow may be nil.
func (f *flow) read(body io.Reader, buf []byte) (int, error) {
	if f == nil {
		return body.Read(buf)
	}
	f.reading.Store(true)
	n, err := body.Read(buf)
	f.reading.Store(false)
	f.moved(n)
	return n, err
}

// source returns the bit of the address that the bytes come from.
func (f *flow) source() uint32 {
	if f == nil || f.from == nil {
		return 0
	}
	return f.from.bit()
}

func (f *flow) moved(n int) {
	if f == nil || n == 0 {
		return
	}
	f.d.counts.origin.Add(int64(n))
	f.bytes += int64(n)
	f.total.Add(int64(n))
	if now := time.Now(); now.Sub(f.told) >= movedEvery {
		f.told = now
		f.tell()
	}
}

func (f *flow) tell() {
	if f != nil && f.bytes > 0 {
		f.d.inbox.post(swarm.OriginMoved{Request: f.req, Bytes: f.bytes})
		f.bytes = 0
	}
}

// receive reads the bytes r from body and stores the pieces that they complete. A
// piece that r only begins is kept as a head, and so is one that body breaks off in.
func (d *download) receive(ctx context.Context, g *generation, req swarm.Request, f *flow, r piece.Range, body io.Reader) error {
	defer f.tell()
	for at := r.Start; at < r.End; {
		i := g.layout.At(at)
		whole := g.layout.Range(i)
		end := min(whole.End, r.End)
		next, err := d.receivePiece(ctx, g, req, f, i, at, end, body)
		if err != nil {
			return err
		}
		at = next
	}
	// The end is read too: it tells a whole answer from a short one, and a connection
	// whose answer was read to its end is used again.
	var one [1]byte
	if _, err := body.Read(one[:]); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// receivePiece reads the bytes [at, end) of piece i.
func (d *download) receivePiece(ctx context.Context, g *generation, req swarm.Request, f *flow, i piece.Index, at, end int64, body io.Reader) (int64, error) {
	whole := g.layout.Range(i)
	buf, err := d.node.buffers.take(ctx, int(whole.Len()))
	if err != nil {
		return at, err
	}
	defer d.node.buffers.give(buf)
	n, sources := 0, f.source()
	if at > whole.Start {
		var before uint32
		n, before = d.takeHead(i, buf)
		sources |= before
		if int64(n) != at-whole.Start {
			// The head has gone since the request was made: the piece has come from a
			// neighbour, or belongs to a generation given up. Read on past it.
			n = -1
		}
	}
	if n < 0 {
		for at < end {
			k, err := f.read(body, buf[:min(end-at, readChunk)])
			at += int64(k)
			if err != nil && at < end {
				return at, err
			}
		}
		return end, nil
	}
	for want := int(end - whole.Start); n < want; {
		k, err := f.read(body, buf[n:min(want, n+readChunk)])
		n += k
		if err != nil && n < want {
			d.keepHead(g, i, buf[:n], sources)
			return at, err
		}
	}
	if end < whole.End {
		d.keepHead(g, i, buf[:n], sources)
		return end, nil
	}
	d.struck(false)
	if err := d.checkPiece(g, i, buf, sources); err != nil {
		return end, err
	}
	digest := g.layout.Sum(i, buf)
	if err := d.checkSeed(g, i, digest, sources); err != nil {
		return end, err
	}
	// Bytes of a mirror are not of one pinned version: a later run does not take them
	// for what it read from the origin itself.
	if err := d.write(ctx, g, i, buf, digest, sources&^1 == 0); err != nil && !(errors.Is(err, os.ErrClosed) && d.isSaved.Load()) {
		return end, err
	} // else it was read for a dispute only; the finished file stays as it is
	good := d.addresses.wrote(g, i, sources)
	d.inbox.post(swarm.OriginStored{Request: req, Piece: i, Digest: digest})
	if !good {
		d.forget(g, []piece.Index{i})
	}
	return end, nil
}

// struck counts the answers in a row that broke the rules, and returns how many.
func (d *download) struck(bad bool) int {
	d.originMu.Lock()
	defer d.originMu.Unlock()
	if !bad {
		d.strikes = 0
	} else {
		d.strikes++
	}
	return d.strikes
}

// A request that broke off has brought a good part of what it asked for if it was one in
// goodPart of it at least, or goodBytes: of a large piece that may be little.
const (
	goodPart  = 8
	goodBytes = 256 << 10

	// fairBytes are what an answer that holds less than was asked for brings at least, if
	// it is not one in goodPart of it: some origins answer so much at a time and no more.
	fairBytes = 16 << 10
)

// brought reports whether f has brought one in goodPart of what was asked for, or as much
// as least.
func (f *flow) brought(asked, least int64) bool {
	if f == nil {
		return false
	}
	n := f.total.Load()
	return n > 0 && (n >= asked/goodPart || n >= least)
}

// originEnded ends a request to the origin: with nothing but the end if err is nil or
// the request was cancelled. f, which may be nil, tells what came of the asked bytes.
func (d *download) originEnded(ctx context.Context, req swarm.Request, f *flow, asked int64, err error) {
	ended := swarm.OriginEnded{Request: req}
	var o *origin.Error
	if f != nil && f.total.Load() > 0 {
		d.originMu.Lock()
		d.erredLast = false
		d.originMu.Unlock()
	}
	switch {
	case err == nil || ctx.Err() != nil:
	case errors.As(err, &o) && o.Kind == origin.Short && f.brought(asked, fairBytes):
		// What is missing is asked for next.
	case errors.As(err, &o):
		d.originMu.Lock()
		d.lastError, d.erredLast = o, true
		d.originMu.Unlock()
		if d.lent != nil {
			ended.Failure, ended.Busy = d.lent.judge(d, o), o.Busy()
		} else {
			ended.Failure, ended.Busy = d.judge(o)
		}
		ended.Changed = o.Seen
		if a := d.addressOf(f); a != nil {
			ended.Source, ended.Wait = a.source, d.pauseTold(a, o)
		}
		if o.Status == 0 && o.RetryAfter > 0 {
			ended.Busy = false // it was not even asked
		}
		if o.Kind == origin.NoRange && d.struck(true) < wholeStrikes {
			ended.Changed = nil // as when a proxy on the way had only the whole at hand
		}
		ended.Brought = f.brought(asked, goodBytes)
		d.log.Info("origin request ended", "err", o, "lasting", ended.Failure == swarm.Lasting)
	case errors.Is(err, errSuperseded):
	case errors.Is(err, errLeft):
		ended.Left = true
		d.log.Info("a connection to the origin brought next to nothing and is left for another")
	case errors.Is(err, errCacheFull):
		ended.Failure = swarm.Lasting // what is held is served on
	default:
		// The file cannot be written: no other request would fare better.
		d.abort(storeProblem(err))
	}
	d.inbox.post(ended)
	if ended.Failure == swarm.Lasting && d.isManifest() && d.room == nil {
		d.abort(originProblem(o)) // nobody else will ever bring it
	}
	if ended.Failure == swarm.Lasting && d.told {
		d.toldFailed(o)
	}
	if d.lent != nil && ended.Failure == swarm.Lasting {
		d.inbox.do(func() { d.helpNoMore(o) })
	}
}

// addressOf returns the address that a request went to, nil where that were several: what they
// said is known by then.
func (d *download) addressOf(f *flow) *address {
	switch {
	case f != nil && f.from != nil:
		return f.from
	case d.addresses.plain(d.generation()):
		return d.addresses.all[0]
	}
	return nil
}

// judge says whether waiting may mend an error of the origin, and whether fewer
// connections may.
func (d *download) judge(o *origin.Error) (f swarm.Failure, busy bool) {
	before := d.counts.origin.Load() == 0 // not a byte has come in this run
	if !d.addresses.plain(d.generation()) {
		if d.addresses.hopeless(before) {
			return swarm.Lasting, false
		}
		return swarm.Passing, o.Busy()
	}
	if o.Status == http.StatusRequestedRangeNotSatisfiable && o.Kind == origin.Server && d.struck(true) >= maxStrikes {
		return swarm.Lasting, false // it denies having what its first answer said it has
	}
	switch o.Kind {
	case origin.Resolve, origin.Refused, origin.TLS:
		if before {
			return swarm.Lasting, false
		}
		return swarm.Passing, o.Busy()
	case origin.NoRange:
		return swarm.Passing, false
	case origin.NotFound, origin.Status:
		// It has answered well, this member or another: of many servers behind one name some
		// may lack the file, and some want fewer connections and say so oddly.
		if d.generation() != nil && d.struck(true) < maxStrikes {
			return swarm.Passing, true
		}
	case origin.Forbidden, origin.Short, origin.BadAnswer, origin.BadRedirect:
		// Some origins answer 403 when too many connections are open, and some answer
		// badly now and then.
		if d.struck(true) >= maxStrikes || before && (o.Kind == origin.Forbidden || o.Kind == origin.BadRedirect) {
			return swarm.Lasting, false
		}
		return swarm.Passing, o.Busy()
	case origin.Changed:
		return swarm.Passing, false
	}
	if o.Kind.Passing() {
		return swarm.Passing, o.Busy()
	}
	return swarm.Lasting, false
}

// auditLeaf carries out AuditLeaf.
func (d *download) auditLeaf(ctx context.Context, g *generation, a swarm.AuditLeaf) {
	result, err := d.compareLeaf(ctx, g, a)
	if err != nil && ctx.Err() == nil {
		d.log.Debug("audit did not come about", "piece", a.Piece, "err", err)
	}
	audited := swarm.Audited{Request: a.Request, Result: result}
	var o *origin.Error
	if errors.As(err, &o) {
		own := d.addresses.all[0]
		audited.Source, audited.Wait = own.source, d.pauseTold(own, o)
		if o.Kind == origin.Changed && g.pin.Kind != piece.Mirror {
			audited.Changed = o.Seen
		}
	}
	d.inbox.post(audited)
}

func (d *download) compareLeaf(ctx context.Context, g *generation, a swarm.AuditLeaf) (swarm.AuditResult, error) {
	r := a.Range
	var theirs, ours [piece.LeafSize]byte
	ask := func(ctx context.Context, pin piece.Pin) error {
		answer, err := d.client.Fetch(ctx, pin, r)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		d.hear(g, digestsOf(answer))
		n, err := io.ReadFull(answer.Body, theirs[:r.Len()])
		d.counts.origin.Add(int64(n))
		return err
	}
	var err error
	if own := d.addresses.all[0]; d.addresses.plain(g) {
		err = ask(ctx, g.pin)
	} else if d.addresses.rests(own) {
		err = errLeft
	} else if err = d.qualify(ctx, g, own); err == nil {
		err = d.briefly(ctx, own, func(ctx context.Context) error { return ask(ctx, d.addresses.pinOf(own)) })
	}
	if err != nil {
		return swarm.AuditFailed, err
	}
	if _, err := g.file.ReadAt(ours[:r.Len()], r.Start); err != nil {
		return swarm.AuditFailed, err
	}
	if ours != theirs {
		return swarm.AuditDiffers, nil
	}
	return swarm.AuditEqual, nil
}

// spool holds a stream whose length is not known before its end.
type spool struct {
	*os.File
	size int64
}

// spool reads body to its proven end into a file beside the target. That file has no
// name while it is in use where the system allows it, so that nothing stays behind.
func (d *download) spool(body io.Reader, f *flow) (*spool, error) {
	file, err := os.CreateTemp(d.folder(), ".dragonload-*.spool")
	if err != nil {
		return nil, fmt.Errorf("create a file for a stream of unknown length: %w", err)
	}
	s := &spool{File: file}
	_ = os.Remove(file.Name()) // close tries again where an open file cannot be removed
	buf := make([]byte, readChunk)
	for {
		n, err := body.Read(buf)
		f.moved(n)
		if _, werr := file.Write(buf[:n]); werr != nil {
			s.close()
			if store.IsDiskFull(werr) {
				return nil, fmt.Errorf("%w: %s has no room for more than the first %d bytes of a file whose length the origin does not tell; make room and run the same command again",
					store.ErrDiskFull, d.folder(), s.size)
			}
			return nil, fmt.Errorf("write a stream of unknown length: %w", werr)
		}
		s.size += int64(n)
		d.counts.spooled.Store(s.size)
		switch {
		case s.size > piece.MaxSize:
			err = &origin.Error{Kind: origin.BadAnswer, Err: fmt.Errorf("the origin sent more than %d bytes", int64(piece.MaxSize))}
		case errors.Is(err, io.EOF):
			f.tell()
			if _, err = file.Seek(0, io.SeekStart); err == nil {
				return s, nil
			}
		}
		if err != nil {
			s.close()
			return nil, err
		}
	}
}

func (s *spool) close() {
	_ = s.Close()
	_ = os.Remove(s.Name())
}

// folder is where the download's file will be.
func (d *download) folder() string {
	switch {
	case d.stdout():
		return d.node.opts.StateDir
	case d.spec.Output != "":
		return filepath.Dir(d.spec.Output)
	}
	return d.spec.Dir
}
