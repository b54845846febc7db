package swarm

import (
	"slices"

	"dragonload/internal/piece"
)

// Accusations: what is said of others, and what a node says itself.

// accused takes in an accusation.
func (n *Node) accused(p *neighbour, a *Accuse) {
	t := &n.trust
	said, ok1 := a.Accused.of(a.Piece)
	read, ok2 := a.Accuser.of(a.Piece)
	if !n.pinned || n.vouched() || a.Accused.Generation != n.generation() || a.Accuser.Generation != n.generation() ||
		int(a.Piece) >= n.have.Len() || !ok1 || !ok2 || said == read || said.IsZero() || read.IsZero() {
		return
	}
	accused, accuser := a.Accused, a.Accuser
	answers := accuser.By == p.id && p.chargedAt > 0 && p.charged == a.Piece && !t.inconsistent
	if !answers && !p.mayAccuse(n.now) {
		return
	}
	if accused.By == accuser.By {
		if accused.Run == accuser.Run {
			n.proven(a.Piece, &accused, &accuser)
		}
		return
	}
	if t.banned[accused.By] || t.banned[accuser.By] || t.inconsistent && t.distrusted[accused.By] {
		return
	}
	if _, stands := t.convicted[accuser.By]; stands {
		n.inconsistent()
		return
	}
	if _, known := t.convicted[accused.By]; known {
		return
	}
	if accused.By == n.opts.Self {
		n.standBy(p, a)
	}
	d := n.dispute(a.Piece, &accused, &accuser)
	if d == nil {
		return
	}
	if accused.By == n.opts.Self {
		d.readings = 0 // it is read anew
	} else {
		d.add(&accused, false)
	}
	if accuser.By != n.opts.Self {
		d.add(&accuser, true)
	}
	n.judge(d)
}

// disagree takes in a statement that says otherwise of a piece than is known here.
func (n *Node) disagree(s *Statement, i piece.Index) {
	var known *Statement
	if k := n.stater[i]; k != 0 {
		known = n.trust.statements[k-1]
	}
	if known != nil && known.By == s.By {
		if known.Run == s.Run && s.By != n.opts.Self {
			n.proven(i, known, s)
		}
		return
	}
	parties := []*Statement{s}
	if known != nil {
		parties = append(parties, known)
	}
	d := n.dispute(i, parties...)
	if d == nil {
		return
	}
	for _, party := range parties {
		if party.By != n.opts.Self {
			d.add(party, false)
		}
	}
	n.judge(d)
}

// overhear notes what a statement says in a dispute.
func (n *Node) overhear(s *Statement) {
	for _, d := range slices.Clone(n.trust.disputes) {
		if _, ok := s.of(d.piece); ok && s.By != n.opts.Self {
			d.add(s, false)
			n.judge(d)
		}
	}
}

// stated returns the digest that this node has stated for piece i in this run.
func (n *Node) stated(i piece.Index) (piece.Digest, bool) {
	if n.trust.mine == nil || n.trust.mine[i] == 0 {
		return piece.Digest{}, false
	}
	return n.trust.statements[n.trust.mine[i]-1].of(i)
}

// testify tells the neighbours what this node has read, and returns its statement; nil if
// it has stated otherwise before.
func (n *Node) testify(i piece.Index, digest piece.Digest) *Statement {
	if said, ok := n.stated(i); ok {
		if said != digest {
			return nil
		}
		return n.trust.statements[n.trust.mine[i]-1]
	}
	s := n.state([]piece.Index{i}, []piece.Digest{digest})
	n.trust.stating = slices.DeleteFunc(n.trust.stating, func(j piece.Index) bool { return i == j })
	for _, p := range n.swap.order {
		n.act(TellPeer{Peer: p.id, Message: *s})
	}
	return s
}

// accuse spreads the evidence against a member, once.
func (n *Node) accuse(d *dispute, liar *Statement) {
	t := &n.trust
	if t.accused[liar.By] {
		return
	}
	s := n.testify(d.piece, d.digest)
	if s == nil {
		return
	}
	t.accused[liar.By] = true
	if p := n.neighbour(liar.By); p != nil && p.here {
		p.charged, p.chargedAt = d.piece, n.now
	}
	n.tellAccusation(Accuse{Piece: d.piece, Accused: *liar, Accuser: *s})
}

func (n *Node) tellAccusation(a Accuse) {
	for _, p := range n.swap.order {
		n.act(TellPeer{Peer: p.id, Message: a})
	}
}

// proven: a member has signed two digests for one piece in one run.
func (n *Node) proven(i piece.Index, a, b *Statement) {
	t := &n.trust
	if a.By == n.opts.Self || t.banned[a.By] {
		return
	}
	n.distrust(a.By)
	n.tellAccusation(Accuse{Piece: i, Accused: *a, Accuser: *b})
	n.ban(a.By)
}
