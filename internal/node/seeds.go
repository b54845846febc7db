package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dragonload/internal/origin"
	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// The web seeds of a manifest are addresses like those of a URL, but for this: each has the
// files at places of their own, nothing needs to be known of their versions, for the
// manifest has the digest of every piece, and an address that brings other bytes is
// dropped at once.

// maxFileClients bounds the files of one web seed whose redirects are remembered.
const maxFileClients = 256

// seed is what an address has more as a web seed of a manifest. It is guarded by
// addresses.mu.
type seed struct {
	files map[int]*origin.Client // the clients that were used last, by file
	// lane is not nil once the seed was seen to send whole files where parts were asked
	// for. Who asks it for anything holds the lane: the file that streams by has what the
	// next one wants.
	lane chan struct{}
}

// newSeeds makes a client for each web seed; none gets what the user meant for another
// origin.
func newSeeds(base origin.Options, mirrors []Mirror) (*addresses, error) {
	s := &addresses{}
	if len(mirrors) > MaxMirrors {
		return nil, fmt.Errorf("the manifest has %d web seeds, and at most %d can be used", len(mirrors), MaxMirrors)
	}
	for k, m := range mirrors {
		o := base
		o.URL, o.Proxy, o.Header, o.NetrcNamed = m.URL, m.Proxy, nil, true
		client, err := origin.New(o)
		if err != nil {
			s.close()
			return nil, err
		}
		s.all = append(s.all, &address{client: client, name: client.Redacted(), url: withoutUser(m.URL), number: k})
	}
	return s, nil
}

// fetchSeeds carries out FetchOrigin where there is a manifest: the files of an extent, one
// after the other, from the best of its web seeds. What that does not bring is to be asked
// for again.
func (d *download) fetchSeeds(ctx context.Context, g *generation, req swarm.FetchOrigin) {
	s := d.addresses
	a := s.take(time.Now())
	if a == nil {
		d.originEnded(ctx, req.Request, nil, 0, s.lastError())
		return
	}
	f := &flow{d: d, req: req.Request, from: a}
	begun := time.Now()
	asked, err := d.fetchSeed(ctx, g, a, f, req)
	s.done(a, f.total.Load(), time.Since(begun))
	var o *origin.Error
	switch {
	case err == nil:
		s.succeeded(a)
	case ctx.Err() != nil || errors.Is(err, errLeft):
		err = nil
	case errors.Is(err, errMirrorDiffers):
		err = s.afterDrop()
	case errors.As(err, &o):
		if d.addressFailed(a, o) {
			err = nil
		}
	}
	d.originEnded(ctx, req.Request, f, asked, err)
}

// fetchSeed asks a for the beginning of an extent, as much as it brings in a short time if
// there are others. It returns how many bytes that are.
func (d *download) fetchSeed(ctx context.Context, g *generation, a *address, f *flow, req swarm.FetchOrigin) (int64, error) {
	extent := req.Extent
	if len(d.addresses.all) > 1 {
		most := d.addresses.share(a)
		for count := uint32(1); count < extent.Count; count++ {
			if g.layout.Bytes(piece.Extent{First: extent.First, Count: count + 1}).Len() > most {
				extent.Count = count
			}
		}
	}
	asked := g.layout.Bytes(extent).Len()
	asking, leave := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	d.work.Go(func() {
		defer close(watched)
		d.watch(asking, leave, a, f, asked)
	})
	defer func() {
		leave(nil)
		<-watched
	}()
	for first := extent.First; first < extent.End(); {
		file := g.layout.FileOf(first)
		_, pieces := g.layout.File(file)
		part := piece.Extent{First: first, Count: min(pieces.End(), extent.End()) - first}
		if err := d.fetchFile(asking, g, a, f, req.Request, file, part); err != nil {
			if errors.Is(context.Cause(asking), errLeft) {
				err = errLeft
			}
			return asked, err
		}
		first = part.End()
	}
	return asked, nil
}

// fetchFile asks a for pieces of one file.
func (d *download) fetchFile(ctx context.Context, g *generation, a *address, f *flow, req swarm.Request, file int, pieces piece.Extent) error {
	client, lane, err := d.fileClient(a, file)
	if err != nil {
		return d.dropSeed(a, err.Error())
	}
	if lane != nil {
		select {
		case lane <- struct{}{}:
			defer func() { <-lane }()
		case <-ctx.Done():
			return ctx.Err()
		}
		if d.streamedBy(g, req, pieces) {
			return nil
		}
	}
	whole, _ := g.layout.File(file)
	r := g.layout.Bytes(pieces)
	r.Start += d.headLen(ctx, pieces.First)
	answer, err := client.FetchPart(ctx, whole.Len(), piece.Range{Start: r.Start - whole.Start, End: r.End - whole.Start})
	if err != nil {
		return err
	}
	defer func() { answer.Body.Close() }()
	if answer.Stream {
		if lane == nil {
			answer.Body.Close()
			d.makeLane(a)
			return d.fetchFile(ctx, g, a, f, req, file, pieces)
		}
		d.dropHead(pieces.First)
	}
	part := piece.Range{Start: whole.Start + answer.Range.Start, End: whole.Start + answer.Range.End}
	return d.receive(ctx, g, req, f, part, answer.Body)
}

// fileClient returns the client for a file of a's, and the lane if there is one.
func (d *download) fileClient(a *address, file int) (*origin.Client, chan struct{}, error) {
	d.addresses.mu.Lock()
	defer d.addresses.mu.Unlock()
	if client := a.seed.files[file]; client != nil {
		return client, a.seed.lane, nil
	}
	at, err := d.want.torrent.Load().SeedURL(a.url, file)
	if err != nil {
		return nil, nil, err
	}
	client, err := a.client.At(at)
	if err != nil {
		return nil, nil, err
	}
	if len(a.seed.files) >= maxFileClients || a.seed.files == nil {
		a.seed.files = make(map[int]*origin.Client)
	}
	a.seed.files[file] = client
	return client, a.seed.lane, nil
}

// makeLane: a sends whole files.
func (d *download) makeLane(a *address) {
	d.addresses.mu.Lock()
	defer d.addresses.mu.Unlock()
	if a.seed.lane == nil {
		a.seed.lane = make(chan struct{}, 1)
	}
}

// streamedBy reports whether pieces have come meanwhile, with more than their request asked
// for, and tells the machine.
func (d *download) streamedBy(g *generation, req swarm.Request, pieces piece.Extent) bool {
	s := d.addresses
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := pieces.First; i < pieces.End(); i++ {
		if s.of != g || s.from[i] == 0 {
			return false
		}
	}
	for i := pieces.First; i < pieces.End(); i++ {
		d.inbox.post(swarm.OriginStored{Request: req, Piece: i, Digest: g.digests[i]})
	}
	return true
}

// checkSeed compares a piece that came from the web seeds in sources with the manifest. A
// seed that brought other bytes is dropped; where the piece came from several, nobody
// knows whose are wrong, and it is fetched again.
func (d *download) checkSeed(g *generation, i piece.Index, digest piece.Digest, sources uint32) error {
	if g.digests == nil || digest == g.digests[i] {
		return nil
	}
	culprit := d.byBits(sources, nil)
	if culprit == nil || sources != culprit.bit() {
		return errMirrorDiffers
	}
	file := d.want.torrent.Load().Files[g.layout.FileOf(i)]
	return d.dropSeed(culprit, fmt.Sprintf("what it has of %q is not what the manifest says", file.Path))
}

// served reports whether a has brought bytes that are of the file.
func (s *addresses) served(a *address) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used&a.bit() != 0
}

// dropSeed gives a web seed up. What it brought before was compared with the manifest, and
// stays. It returns errMirrorDiffers.
func (d *download) dropSeed(a *address, why string) error {
	s := d.addresses
	s.mu.Lock()
	news := !a.gone
	a.gone = true
	a.last = origin.Differs(a.client.Host(), why)
	s.mu.Unlock()
	if news {
		d.inbox.do(func() {
			d.warn("seed-differs", fmt.Sprintf("web seed %s is dropped: %s; tell who made the manifest", a.name, why))
		})
	}
	return errMirrorDiffers
}
