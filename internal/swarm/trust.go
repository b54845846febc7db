package swarm

import (
	"math/bits"
	"slices"
	"time"

	"dragonload/internal/piece"
)

// Trust: where no manifest names the digests, whoever read a piece from the origin
// states its digest, and every receiver compares some bytes of its own secret choice
// with the origin.

const (
	// Audits of all members together read at most 1/auditShare of the file: half of the
	// 0.5 % that the design allows, since they use the line that everybody waits for.
	auditShare = 400
	maxAudits  = 16
	minAudit   = 512 // bytes, where a share of a small file would be less

	// maxDiffered bounds the audits that are made again since one has found a liar.
	maxDiffered = 16

	// auditWait is how long a complete file waits for its audits.
	auditWait = 3 * time.Second

	// outdatedWait is how long it waits for what the pool makes of another version that an
	// audit has met: somebody else looks, and all go over to it, or nobody else sees it.
	outdatedWait = 2 * auditWait

	// maxStatements bounds the statements that are kept: one a piece at the most.
	maxStatements = piece.MaxCount
)

type trustSide struct {
	stating    []piece.Index // read from the origin here and not stated yet
	statements []*Statement
	afresh     int     // times that a statement was doubted without looking
	mine       []int32 // 1 + index in statements of this node's own word on each piece, in this run
	run        uint64
	distrusted map[piece.NodeID]bool   // its word does not count
	banned     map[piece.NodeID]bool   // shut out
	accused    map[piece.NodeID]bool   // by this node, to its neighbours
	convicted  map[piece.NodeID]Accuse // by readings, but not heard yet

	disputes      []*dispute
	readings      int                          // made for disputes
	wavers        int                          // times that an audit and a reading differed
	inconsistent  bool                         // members read different bytes
	void          map[piece.Index]bool         // what this node stated of them was misread
	ownOnly       bool                         // nobody's word is taken any more
	planned       bool                         // recheck was chosen
	rechecked     int                          // and found equal
	recheck       []piece.Index                // own pieces to be read again before the file is whole
	mismatched    bool                         // the whole file was not what its digest says
	mended        bool                         // of what it held then something has been replaced
	ownCompared   bool                         // and what others have compared did not mend it
	seconds       map[piece.Index]piece.NodeID // who has stated a piece as another had before
	secondedAt    Instant                      // when the last such word came
	doubtful      piece.Extents                // rested on the word of a liar; to be read from the origin
	doubtfulSince Instant

	fromPeers int     // pieces got from neighbours
	audits    []int   // numbers of such pieces at which to audit, ascending
	auditSize int64   // bytes of each
	auditing  Request // 0 if none is under way
	auditOf   piece.Index
	auditBy   Instant
	outdated  Instant // until when a whole file waits, since an audit has met another version; 0: none has
	audited   int
	equal     int
	differed  int
}

// begin forgets what concerns another generation. Who was banned stays banned.
func (t *trustSide) begin(run uint64) {
	banned := t.banned
	*t = trustSide{run: run, banned: banned, distrusted: make(map[piece.NodeID]bool), accused: make(map[piece.NodeID]bool)}
	if banned == nil {
		t.banned = make(map[piece.NodeID]bool)
	}
}

// takeStatements signs what there is to state.
func (n *Node) takeStatements() (out []*Statement) {
	t := &n.trust
	slices.Sort(t.stating)
	t.stating = slices.Compact(t.stating)
	var pieces []piece.Index
	var digests []piece.Digest
	for _, i := range t.stating {
		// One digest for a piece, whatever the origin does: what was stated once in this
		// run is not stated again.
		if _, said := n.stated(i); said || !n.own.Has(i) {
			continue
		}
		pieces, digests = append(pieces, i), append(digests, n.digests[i])
		if len(pieces) == MaxStated {
			out = append(out, n.state(pieces, digests))
			pieces, digests = nil, nil
		}
	}
	if len(pieces) > 0 {
		out = append(out, n.state(pieces, digests))
	}
	t.stating = nil
	return out
}

// state signs and keeps a statement of this node's own.
func (n *Node) state(pieces []piece.Index, digests []piece.Digest) *Statement {
	t := &n.trust
	s := &Statement{By: n.opts.Self, Generation: n.generation(), Run: t.run, Pieces: pieces, Digests: digests}
	if n.opts.Sign != nil {
		s.Signature = n.opts.Sign(s.Message())
	}
	n.record(s)
	if t.mine == nil {
		t.mine = make([]int32, n.have.Len())
	}
	for _, i := range pieces {
		t.mine[i] = int32(len(t.statements))
	}
	return s
}

// record keeps a statement as what vouches for its pieces.
func (n *Node) record(s *Statement) {
	n.trust.statements = append(n.trust.statements, s)
	for k, i := range s.Pieces {
		if n.stater[i] == 0 && n.digests[i] == s.Digests[k] {
			n.stater[i] = int32(len(n.trust.statements))
		}
	}
}

// takeStatement takes in another node's statement. The first one counts; one that says
// otherwise begins a dispute.
func (n *Node) takeStatement(s *Statement) {
	t := &n.trust
	if !n.pinned || n.vouched() || s.Generation != n.generation() || len(s.Pieces) != len(s.Digests) || len(s.Pieces) > MaxStated ||
		t.banned[s.By] || len(t.statements) >= maxStatements {
		return
	}
	if len(t.disputes) > 0 {
		n.overhear(s)
	}
	if t.distrusted[s.By] || t.ownOnly {
		n.doubtUnvouched(s)
		return
	}
	news := false
	for k, i := range s.Pieces {
		if int(i) >= n.have.Len() || s.Digests[k].IsZero() {
			return
		}
		switch known := n.digests[i]; {
		case known.IsZero():
			news = true
		case known != s.Digests[k]:
			// Another member says otherwise, or this node's own reading of the origin, or
			// its journal.
			n.disagree(s, i)
			return
		case n.stater[i] == 0, n.lacksWord(s.By, i):
			news = true
		}
	}
	n.noteSeconds(s)
	if !news {
		return
	}
	for k, i := range s.Pieces {
		if n.digests[i].IsZero() {
			n.digests[i] = s.Digests[k]
			n.wake(i)
		}
	}
	n.record(s)
	n.addWords(s)
}

// doubtUnvouched has the pieces that only somebody vouches for who is not believed read
// here: the tracker lends them to nobody else, since they are held.
func (n *Node) doubtUnvouched(s *Statement) {
	t := &n.trust
	for _, i := range s.Pieces {
		if int(i) >= n.have.Len() || n.have.Has(i) || !n.digests[i].IsZero() {
			continue
		}
		if t.doubtful.Count() == 0 {
			t.doubtfulSince = n.now
			n.checkAt = min(n.checkAt, n.now.Add(sharedTime))
		}
		t.doubtful.Add(piece.Extent{First: i, Count: 1})
	}
}

// tellStatements answers AskStatements.
func (n *Node) tellStatements(p *neighbour, extents []piece.Extent) {
	if !n.pinned || n.vouched() {
		return
	}
	if len(n.trust.stating) > 0 {
		n.flush()
	}
	sent := int32(0)
	told := make(map[int32]bool)
	tell := func(s int32) {
		if s != 0 && s != sent && !told[s] {
			sent, told[s] = s, true
			if p.mayHear(n.now, int(s-1), len(n.trust.statements)) {
				n.act(TellPeer{Peer: p.id, Message: *n.trust.statements[s-1]})
			}
		}
	}
	for _, e := range extents {
		if !e.Valid(n.have.Len()) {
			continue
		}
		for i := e.First; i < e.End(); i++ {
			tell(n.stater[i])
			for _, s := range n.wordsOn(i) {
				tell(s)
			}
		}
	}
}

// plan chooses when to audit: at random moments of what comes from neighbours. The
// receivers share the budget; each audits at least once, if need be less than a leaf.
func (t *trustSide) plan(n *Node) {
	t.audits, t.auditSize = nil, 0
	count := n.have.Len()
	if !n.pin.Combinable() || n.tracker.stream || count == 0 || !n.opts.Fetches || n.vouched() {
		return
	}
	budget := n.auditBudget()
	t.auditSize = min(max(budget, minAudit), piece.LeafSize)
	times := int(min(max(budget/piece.LeafSize, 1), maxAudits))
	// The first comes with the first piece that a neighbour brings, so that even a
	// member that gets little has audited something.
	t.audits = append(t.audits, 1)
	for len(t.audits) < times {
		t.audits = append(t.audits, 1+n.rng.IntN(max(count*9/10, 1)))
	}
	slices.Sort(t.audits)
}

// auditBudget is how many bytes this node may read for audits. It shrinks as more
// members become known. In a pool too large to know them all, the later ones audit
// less: one with the number k reads 1/(k*(log2(k/32)+1)^2) of what all may, the sum of
// which over all k is bounded.
func (n *Node) auditBudget() int64 {
	members := max(len(n.swap.known)+1, n.tracker.number)
	share := int64(members)
	if octave := bits.Len(uint(members / 32)); octave > 0 {
		share *= 2 * int64(octave*octave)
	}
	return n.layout.Size / auditShare / share
}

// auditNext begins an audit whose time has come.
func (n *Node) auditNext() {
	t, o := &n.trust, &n.origin
	if t.auditing != 0 || len(t.audits) == 0 || !n.pinned || o.barred || n.now < max(n.ownRestsUntil(), o.notBefore) {
		return
	}
	if t.fromPeers < t.audits[0] && !n.whole() {
		return
	}
	if t.audited > 0 && int64(t.audited+1)*t.auditSize > n.auditBudget() {
		t.audits = nil
		return
	}
	i, ok := n.auditable()
	if !ok {
		return
	}
	t.audits = t.audits[1:]
	t.audited++
	r := n.layout.Range(i)
	start := r.Start + n.rng.Int64N((r.Len()+piece.LeafSize-1)/piece.LeafSize)*piece.LeafSize
	leaf := piece.Range{Start: start, End: min(start+piece.LeafSize, r.End)}
	if leaf.Len() > t.auditSize {
		leaf.Start += n.rng.Int64N(leaf.Len() - t.auditSize + 1)
		leaf.End = leaf.Start + t.auditSize
	}
	t.auditing, t.auditOf, t.auditBy = n.request(), i, n.now.Add(auditWait)
	n.act(AuditLeaf{Request: t.auditing, Piece: i, Range: leaf})
}

// auditable picks a stored piece that another member read from the origin.
func (n *Node) auditable() (piece.Index, bool) {
	count := n.have.Len()
	if n.have.Count() == n.own.Count() {
		return 0, false
	}
	start := n.rng.IntN(count)
	for k := range count {
		i := piece.Index((start + k) % count)
		if n.have.Has(i) && !n.own.Has(i) {
			return i, true
		}
	}
	return 0, false
}

func (n *Node) audited(ev Audited) {
	t := &n.trust
	if ev.Request != t.auditing || ev.Request == 0 {
		return
	}
	t.auditing = 0
	if ev.Wait > 0 {
		n.originPauses(OriginPauses{Source: ev.Source, Wait: ev.Wait})
	}
	if ev.Changed != nil && t.outdated == 0 {
		// Who has come late to a pool that has everything asks the origin for nothing else.
		t.outdated = n.now.Add(outdatedWait)
		n.sawVersion(*ev.Changed)
	}
	switch ev.Result {
	case AuditEqual:
		t.equal++
	case AuditDiffers:
		n.contradicted(t.auditOf, true)
		if t.differed++; t.differed <= maxDiffered {
			// What comes now in place of what was dropped is audited too.
			t.audited--
			t.audits = slices.Insert(t.audits, 0, t.fromPeers+1)
		}
	}
	n.auditNext()
}

// waiting reports whether a complete file should wait for audits, or for what comes of one.
func (t *trustSide) waiting(n *Node) bool {
	if n.now < t.outdated {
		return true
	}
	if n.own.All() || n.now.Sub(n.wholeAt) >= auditWait {
		return false
	}
	n.auditNext()
	return t.auditing != 0
}

// contradicted: the origin's bytes of a piece are not those that its stater vouched
// for. Everything that rests on that node's word alone is dropped and read again from
// the origin, whose bytes are what was asked for, and the others are told.
func (n *Node) contradicted(i piece.Index, audited bool) {
	s := n.stater[i]
	if s == 0 {
		if !n.own.Has(i) {
			n.disbelieve(i)
			n.refetchDoubtful()
		}
		return
	}
	said := n.trust.statements[s-1]
	if said.By == n.opts.Self {
		// Stated in an earlier run, or damaged here since.
		if !n.own.Has(i) {
			n.disbelieve(i)
			n.refetchDoubtful()
		}
		return
	}
	if !audited {
		n.blameSecond(i)
	}
	n.distrust(said.By)
	if n.trust.inconsistent {
		n.relyOnSelf() // nobody's word is good here
		return
	}
	if d := n.dispute(i, said); d != nil {
		d.audited = audited
		d.add(said, false)
		n.judge(d)
	}
}

// refetch has a piece read from the origin by this node, whoever else may hold it.
func (n *Node) refetch(i piece.Index) {
	if n.canRead() {
		n.origin.leases.Add(piece.Extent{First: i, Count: 1})
	}
}
