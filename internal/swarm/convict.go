package swarm

import (
	"time"

	"dragonload/internal/piece"
)

// From readings to a ban. That several members have read the same says that the accused
// has stated something else than they are shown; but an origin that shows one member
// another face than all others makes an honest one look like that. So the accused has
// its say: it is told, and whoever has read what it stated stands by it at once. Then it
// is the origin that is inconsistent. Only who lets it stand is banned.

// answerTime is how long an accused member may take to stand by its word, on a stream that
// has stayed up since it was told. A stream on which an end hears nothing for 3 s ends
// within another second.
const answerTime = 5 * time.Second

// convict notes that readings convict a member.
func (n *Node) convict(d *dispute, liar *Statement) {
	s := n.testify(d.piece, d.digest)
	if s == nil || liar.By == n.opts.Self {
		return
	}
	if n.trust.convicted == nil {
		n.trust.convicted = make(map[piece.NodeID]Accuse)
	}
	n.trust.convicted[liar.By] = Accuse{Piece: d.piece, Accused: *liar, Accuser: *s}
	n.sentence()
}

// sentence tells neighbours what they are convicted of, and bans those who have let it
// stand. Whoever is no neighbour, or has another version of the file, hears of it when it
// comes back.
func (n *Node) sentence() {
	t := &n.trust
	if len(t.convicted) == 0 {
		return
	}
	for _, p := range n.swap.order {
		a, convicted := t.convicted[p.id]
		if !convicted || !p.here {
			continue
		}
		if p.chargedAt == 0 || p.charged != a.Piece {
			p.charged, p.chargedAt = a.Piece, n.now
			n.act(TellPeer{Peer: p.id, Message: a})
		}
		if until := p.chargedAt.Add(answerTime); n.now < until {
			n.checkAt = min(n.checkAt, until)
			continue
		}
		delete(t.convicted, p.id)
		n.ban(p.id)
	}
}

// standBy answers an accusation of this node with what it has stated of the piece, if
// that is what it has read. p is who brought it.
func (n *Node) standBy(p *neighbour, a *Accuse) {
	said, _ := a.Accused.of(a.Piece)
	mine, ok := n.stated(a.Piece)
	if !ok && n.own.Has(a.Piece) {
		mine, ok = n.digests[a.Piece], true // stated in an earlier run
	}
	one := piece.Extent{First: a.Piece, Count: 1}
	if !ok || mine != said || n.trust.void[a.Piece] || p.answered.Has(a.Piece) || p.chargedAt > 0 && p.charged == a.Piece {
		return
	}
	if s := n.testify(a.Piece, said); s != nil {
		p.answered.Add(one)
		n.act(TellPeer{Peer: p.id, Message: Accuse{Piece: a.Piece, Accused: a.Accuser, Accuser: *s}})
	}
}

// onTrial reports whether it is open yet if a member has lied.
func (n *Node) onTrial(id piece.NodeID) bool {
	_, convicted := n.trust.convicted[id]
	return convicted || n.trust.blamed(id) > 0
}
