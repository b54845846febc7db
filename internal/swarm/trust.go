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

	// auditWait is how long a complete file waits for its audits.
	auditWait = 3 * time.Second

	// maxStatements bounds the statements that are kept: one a piece at the most.
	maxStatements = piece.MaxCount
)

type trustSide struct {
	stating    []piece.Index // read from the origin here and not stated yet
	statements []*Statement
	distrusted map[piece.NodeID]bool

	fromPeers int     // pieces got from neighbours
	audits    []int   // numbers of such pieces at which to audit, ascending
	auditSize int64   // bytes of each
	auditing  Request // 0 if none is under way
	auditOf   piece.Index
	auditBy   Instant
	audited   int
	equal     int
}

func (t *trustSide) init() { t.distrusted = make(map[piece.NodeID]bool) }

func (t *trustSide) begin() {
	t.stating, t.statements = nil, nil
	t.fromPeers, t.audits, t.audited, t.equal, t.auditing = 0, nil, 0, 0, 0
}

// takeStatements signs what there is to state.
func (n *Node) takeStatements() (out []*Statement) {
	t := &n.trust
	slices.Sort(t.stating)
	t.stating = slices.Compact(t.stating)
	for len(t.stating) > 0 {
		k := min(len(t.stating), MaxStated)
		s := &Statement{By: n.opts.Self, Generation: n.generation(), Pieces: slices.Clone(t.stating[:k])}
		t.stating = t.stating[k:]
		for _, i := range s.Pieces {
			s.Digests = append(s.Digests, n.digests[i])
		}
		if n.opts.Sign != nil {
			s.Signature = n.opts.Sign(s.Message())
		}
		n.record(s)
		out = append(out, s)
	}
	t.stating = nil
	return out
}

// record keeps a statement as what vouches for its pieces.
func (n *Node) record(s *Statement) {
	n.trust.statements = append(n.trust.statements, s)
	for _, i := range s.Pieces {
		if n.stater[i] == 0 {
			n.stater[i] = int32(len(n.trust.statements))
		}
	}
}

// takeStatement takes in another node's statement. The first one counts; what
// contradicts it shows when the bytes come.
func (n *Node) takeStatement(s *Statement) {
	t := &n.trust
	if !n.pinned || s.Generation != n.generation() || len(s.Pieces) != len(s.Digests) || len(s.Pieces) > MaxStated ||
		t.distrusted[s.By] || len(t.statements) >= maxStatements {
		return
	}
	news := false
	for k, i := range s.Pieces {
		if int(i) >= n.have.Len() || s.Digests[k].IsZero() {
			return
		}
		if n.stater[i] != 0 {
			continue
		}
		news = true
		if !n.digests[i].IsZero() && n.digests[i] != s.Digests[k] {
			// It says otherwise than this node's own reading of the origin, or its
			// journal: not what is to be believed or passed on.
			return
		}
	}
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
}

// tellStatements answers AskStatements.
func (n *Node) tellStatements(p *neighbour, extents []piece.Extent) {
	if !n.pinned {
		return
	}
	if len(n.trust.stating) > 0 {
		n.flush()
	}
	sent := int32(0)
	told := make(map[int32]bool)
	for _, e := range extents {
		if !e.Valid(n.have.Len()) {
			continue
		}
		for i := e.First; i < e.End(); i++ {
			if s := n.stater[i]; s != 0 && s != sent && !told[s] {
				sent, told[s] = s, true
				n.act(TellPeer{Peer: p.id, Message: *n.trust.statements[s-1]})
			}
		}
	}
}

// plan chooses when to audit: at random moments of what comes from neighbours. The
// receivers share the budget; each audits at least once, if need be less than a leaf.
func (t *trustSide) plan(n *Node) {
	t.audits, t.auditSize = nil, 0
	count := n.have.Len()
	if !n.pin.Combinable() || n.tracker.stream || count == 0 || !n.opts.Fetches {
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
	if t.auditing != 0 || len(t.audits) == 0 || !n.pinned || o.barred || n.now < max(o.holdUntil, o.notBefore) {
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
		n.origin.holdUntil = max(n.origin.holdUntil, n.now.Add(min(ev.Wait, maxHold)))
		if n.tracker.up {
			n.tell(Returned{Wait: ev.Wait})
		}
	}
	switch ev.Result {
	case AuditEqual:
		t.equal++
	case AuditDiffers:
		n.contradicted(t.auditOf)
	}
	n.auditNext()
}

// waiting reports whether a complete file should wait for audits.
func (t *trustSide) waiting(n *Node) bool {
	if n.own.All() || n.now.Sub(n.wholeAt) >= auditWait {
		return false
	}
	n.auditNext()
	return t.auditing != 0
}

// contradicted: the origin's bytes of a piece are not those that its stater vouched
// for. Everything that rests on that node's word alone is dropped and read again from
// the origin, whose bytes are what was asked for.
func (n *Node) contradicted(i piece.Index) {
	s := n.stater[i]
	if s == 0 {
		if !n.own.Has(i) {
			n.drop(i)
			n.digests[i] = piece.Digest{}
			n.refetch(i)
		}
		return
	}
	liar := n.trust.statements[s-1].By
	if liar == n.opts.Self || n.trust.distrusted[liar] {
		return
	}
	n.trust.distrusted[liar] = true
	n.forgive()
	n.act(Warn{Code: WarnWrongStatement, Peer: liar})
	for k, st := range n.trust.statements {
		if st.By != liar {
			continue
		}
		for _, j := range st.Pieces {
			if n.stater[j] != int32(k+1) {
				continue
			}
			n.stater[j] = 0
			if n.own.Has(j) {
				continue
			}
			n.digests[j] = piece.Digest{}
			if n.have.Has(j) {
				n.drop(j)
			}
			n.refetch(j)
		}
	}
}

// refetch has a piece read from the origin by this node, whoever else may hold it.
func (n *Node) refetch(i piece.Index) {
	if n.opts.Fetches && !n.origin.barred {
		n.origin.leases.Add(piece.Extent{First: i, Count: 1})
	}
}
