package swarm

import (
	"cmp"
	"slices"
	"time"

	"dragonload/internal/piece"
)

// Which piece to ask of whom. Whoever can send is asked for the rarest pieces that it has
// and that are wanted here; several small requests per neighbour are under way at a
// time, so that the round trip between two of them is covered.

const (
	// requestAhead is how much is asked of one neighbour at a time, as the time that
	// it takes at the speed it has shown.
	requestAhead = 300 * time.Millisecond

	// A request is for minBatch to maxBatch bytes, and at least one piece. Where maxBatch
	// takes less than batchTime it is the work for each request that counts, and they are for
	// what comes in that time, up to longBatch.
	minBatch  = 256 << 10
	maxBatch  = 1 << 20
	longBatch = 4 << 20
	batchTime = 10 * time.Millisecond

	// peerRequests is how many requests one neighbour gets at a time; each is a
	// connection of its own. One that brings maxBatch within each quickBatch gets more, up to
	// quickRequests: there it is not the round trip that is to be covered but the work on
	// both sides, of which one would wait for the other.
	peerRequests  = 2
	quickRequests = 4
	quickBatch    = 100 * time.Millisecond

	// scanLimit candidates at most are looked at to choose a batch.
	scanLimit = 192

	// maxPieces bounds the pieces of one request (the wire format's limit).
	maxPieces = 256

	// scanBytes is how much more than one batch candidates are to hold where they are short,
	// and maxScan what bounds them then.
	scanBytes = 4 * maxBatch
	maxScan   = 1024

	// A piece is asked for twice when it has been under way for endgameTime and for
	// much longer than the other holder would need.
	endgameTime = 400 * time.Millisecond
)

// fetchFromPeers asks the neighbours for which that may have become possible.
func (n *Node) fetchFromPeers() {
	if !n.pinned || len(n.swap.waiting) == 0 {
		return
	}
	waiting := n.swap.waiting
	n.swap.waiting = nil
	for _, p := range waiting {
		p.isDirty = false
	}
	if n.whole() || !n.opts.Wants || n.finished {
		return
	}
	// Everybody is asked for something before anybody is asked for more, and first who has
	// least to send already.
	for _, p := range waiting {
		p.busyFor = n.busyFor(p)
	}
	slices.SortStableFunc(waiting, func(a, b *neighbour) int { return cmp.Compare(a.busyFor, b.busyFor) })
	for len(waiting) > 0 {
		waiting = slices.DeleteFunc(waiting, func(p *neighbour) bool { return !n.ask(p) })
	}
}

// busyFor is how long what p was asked for takes at the speed that it has shown.
func (n *Node) busyFor(p *neighbour) time.Duration {
	bytes := int64(0)
	for _, r := range p.requests {
		bytes += r.bytes
	}
	return time.Duration(min(mulDiv(bytes, int64(time.Second), max(p.line.rate(n.now), minBatch)), int64(time.Hour)))
}

// ask sends one request to p and reports whether it did.
func (n *Node) ask(p *neighbour) bool {
	rate := p.line.rate(n.now)
	requests := int(min(max(mulDiv(rate, int64(quickBatch), int64(time.Second))/maxBatch, peerRequests), quickRequests))
	if len(p.requests) >= requests || n.now < p.retryAt || n.buffers() <= 0 || n.neighbour(p.id) != p {
		return false
	}
	most := min(max(mulDiv(rate, int64(batchTime), int64(time.Second)), maxBatch), longBatch)
	least := int64(minBatch)
	if rate > 0 && n.meanLength() < piece.MinLength {
		least = piece.MinLength // so many short pieces on a slow line would be long in coming
	}
	budget := min(max(mulDiv(rate, int64(requestAhead), int64(time.Second)), least), int64(requests)*most)
	for _, r := range p.requests {
		budget -= r.bytes
	}
	batch := min(max(budget/int64(requests), least), most)
	if len(p.requests) > 0 && budget < min(batch, n.longest) {
		return false
	}
	pieces, full := n.choose(p, batch)
	if len(pieces) == 0 || len(p.requests) > 0 && !full {
		// A second request is for keeping a neighbour busy that has much to send. Where
		// its pieces trickle in, they wait for the first to end and go together, which
		// saves requests and a connection.
		return false
	}
	n.order(p, pieces)
	return true
}

// order has pieces fetched from p.
func (n *Node) order(p *neighbour, pieces []piece.Index) {
	r := &peerRequest{id: n.request(), peer: p, pieces: pieces, since: n.now}
	digests := make([]piece.Digest, len(pieces))
	for k, i := range pieces {
		digests[k] = n.digests[i]
		r.bytes += n.layout.Length(i)
		if n.asking[i]++; n.asking[i] > 1 {
			r.doubled = true
		}
	}
	p.requests = append(p.requests, r)
	p.line.start(n.now)
	n.swap.requests++
	n.act(FetchPeer{Request: r.id, Peer: p.id, Pieces: slices.Clone(pieces), Digests: digests})
}

// candidate is a piece that may be asked for; the one with the least key is first.
type candidate struct {
	piece piece.Index
	key   uint32
}

// choose picks pieces to ask of p, up to batch bytes and one at least: those that the
// fewest neighbours hold, ties broken by chance; full says that there were enough. Where
// nobody needs what comes here, it picks the first. It forgets wants that are satisfied on
// the way, and asks for digests that are missing.
func (n *Node) choose(p *neighbour, batch int64) (pieces []piece.Index, full bool) {
	found, bytes := n.swap.found[:0], int64(0)
	var unstated piece.Extents
	unsaid := false
	if len(p.wants) == 0 {
		p.muteSince = 0
		return nil, false
	}
	if n.nobodyLacks() {
		if pieces, full := n.first(batch); len(pieces) > 0 {
			return pieces, full
		}
	}
	at := n.rng.IntN(len(p.wants))
	most := min(len(p.wants), scanLimit)
	if n.meanLength() < piece.MinLength {
		most = min(len(p.wants), maxScan)
	}
	for seen := 0; seen < most && len(p.wants) > 0 && (seen < scanLimit || bytes < scanBytes); seen++ {
		if at >= len(p.wants) {
			at = 0
		}
		i := p.wants[at]
		if !n.lacks(i) || !p.has.Has(i) {
			last := len(p.wants) - 1
			p.wants[at] = p.wants[last]
			p.wants = p.wants[:last]
			continue
		}
		at++
		if n.digests[i].IsZero() {
			unsaid = true
			if p.asked.Set(i) {
				unstated.Add(piece.Extent{First: i, Count: 1})
			}
			continue
		}
		if n.asking[i] == 0 && !n.underWay(i) {
			found = append(found, candidate{i, uint32(n.avail[i])<<16 | n.rng.Uint32()&0xffff})
			bytes += n.layout.Length(i)
		}
	}
	n.swap.found = found
	switch {
	case !unsaid:
		p.muteSince = 0
	case p.muteSince == 0:
		p.muteSince = n.now
	}
	if unstated.Count() > 0 {
		n.act(TellPeer{Peer: p.id, Message: AskStatements{Extents: slices.Clone(unstated.Runs())}})
	}
	return n.rarest(found, batch)
}

// nobodyLacks reports whether all neighbours hold everything, so that it is the same to
// them which pieces come first here.
func (n *Node) nobodyLacks() bool {
	for _, p := range n.swap.order {
		if p.has.Count() < n.have.Len() {
			return false
		}
	}
	return true
}

// first picks the first pieces that may be asked for. So the hash of the whole file keeps up
// with what comes, files of a folder are complete one after the other, and holders read in
// one go. It picks none where digests are missing.
func (n *Node) first(batch int64) (pieces []piece.Index, full bool) {
	i, ok := n.nextLacking(0)
	for seen := 0; ok && seen < maxScan; seen++ {
		if n.digests[i].IsZero() {
			return nil, false
		}
		if n.asking[i] == 0 && !n.underWay(i) {
			length := n.layout.Length(i)
			if full = len(pieces) == maxPieces || len(pieces) > 0 && length > batch; full {
				break
			}
			pieces = append(pieces, i)
			batch -= length
		}
		i, ok = n.nextLacking(i + 1)
	}
	return pieces, full || len(pieces) > 0 && batch < n.meanLength()
}

// rarest takes the first of the candidates.
func (n *Node) rarest(found []candidate, batch int64) (pieces []piece.Index, full bool) {
	// A piece may be among them twice: while the wants were looked at some changed places.
	slices.SortFunc(found, func(a, b candidate) int { return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.piece, b.piece)) })
	for _, c := range found {
		length := n.layout.Length(c.piece)
		if full = len(pieces) == maxPieces || len(pieces) > 0 && length > batch; full {
			break
		}
		pieces = append(pieces, c.piece)
		batch -= length
	}
	slices.Sort(pieces)
	return slices.Compact(pieces), full || len(pieces) > 0 && batch < n.meanLength()
}

// underWay reports whether piece i is being read from the origin here, and not slowly.
func (n *Node) underWay(i piece.Index) bool {
	for _, r := range n.origin.requests {
		if !r.stale && r.left.Has(i) && n.now.Sub(r.since) < slowRequest {
			return true
		}
	}
	return false
}

// endgame asks a second holder for pieces that have been under way for long, when
// there is nothing else to ask it for.
func (n *Node) endgame() {
	for _, slow := range n.swap.order {
		for _, r := range slow.requests {
			if len(r.pieces) == 0 || r.doubled || n.now.Sub(r.since) < endgameTime {
				continue
			}
			// Those of a request that brings nothing go to others a few at a time, as fast
			// as they bring them.
			once := slices.DeleteFunc(slices.Clone(r.pieces), func(i piece.Index) bool { return n.asking[i] != 1 || n.digests[i].IsZero() })
			if p := n.idleHolder(slow, once); p != nil {
				n.askTwice(p, slices.DeleteFunc(once, func(i piece.Index) bool { return !p.has.Has(i) || n.have.Has(i) }))
			}
		}
	}
}

// idleHolder returns a neighbour, not slow, that could send one of pieces at once.
func (n *Node) idleHolder(slow *neighbour, pieces []piece.Index) *neighbour {
	for _, p := range n.swap.order {
		if p == slow || len(p.requests) > 0 || n.now < p.retryAt {
			continue
		}
		for _, i := range pieces {
			if p.has.Has(i) && !n.have.Has(i) {
				return p
			}
		}
	}
	return nil
}

// askTwice asks p for the first of pieces: one in a request, or a few where they are short.
func (n *Node) askTwice(p *neighbour, pieces []piece.Index) {
	for len(pieces) > 0 && len(p.requests) < peerRequests && n.buffers() > 0 {
		few, bytes := 1, n.layout.Length(pieces[0])
		for ; few < min(len(pieces), maxPieces); few++ {
			if bytes += n.layout.Length(pieces[few]); bytes > piece.MinLength {
				break
			}
		}
		n.order(p, pieces[:few:few])
		pieces = pieces[few:]
	}
}
