package swarm

import (
	"time"

	"dragonload/internal/piece"
)

// What a member has done and been given here, which a stream made anew does not wipe out:
// one that comes back again and again gets no more than one that stays.

// repeatTime is how long it takes until a member may be told once more all that it was told
// before. What is news to it is told at once.
const repeatTime = 30 * time.Second

// fewRepeats is how many statements at least are said again at once.
const fewRepeats = 64

// record is what is kept of a member from one stream to the next.
type record struct {
	wrong       int      // wrong pieces that it has sent
	aside       bool     // so many that it is asked for nothing more, though it is not shut out
	told        []uint64 // a bit for each of trustSide.statements that it has asked for and got
	repeated    pace     // statements told again
	accusations pace
	claimedTo   Instant // until when claims of it are not answered
}

// begin forgets what concerns another generation.
func (c *record) begin() {
	c.told = nil
	if c.aside {
		c.wrong, c.aside = 0, false
	}
}

// pace lets something happen some times at once, and then each time a while after the last
// (the generic cell rate algorithm of ITU-T I.371).
type pace struct{ paid Instant }

// may reports whether it may happen now, and counts it if so: once in each, and for a whole
// burst at once.
func (p *pace) may(now Instant, each, burst time.Duration) bool {
	from := max(p.paid, now)
	if from.Add(each) > now.Add(burst) {
		return false
	}
	p.paid = from.Add(each)
	return true
}

// mayAccuse bounds the accusations of a member.
func (c *record) mayAccuse(now Instant) bool {
	return c.accusations.may(now, accusationTime, maxAccusations*accusationTime)
}

// mayHear reports whether a member may be told statement k, of count that there are.
func (c *record) mayHear(now Instant, k, count int) bool {
	word, bit := k/64, uint64(1)<<(k%64)
	for len(c.told) <= word {
		c.told = append(c.told, 0)
	}
	if c.told[word]&bit == 0 {
		c.told[word] |= bit
		return true
	}
	return c.repeated.may(now, repeatTime/time.Duration(max(count, fewRepeats)), repeatTime)
}

// clean reports whether a member may as well be a stranger.
func (c *record) clean(now Instant) bool {
	return c.wrong == 0 && !c.aside && max(c.repeated.paid, c.accusations.paid, c.claimedTo) <= now
}

// forgetStranger forgets a member that is not connected and cannot be found, unless it has
// left something on record.
func (n *Node) forgetStranger(id piece.NodeID, k *acquaintance) {
	if !k.up && !k.dialing && !k.shunned && (k.failed > maxDials || k.addr.Addr == "") && k.record.clean(n.now) {
		delete(n.swap.known, id)
	}
}

// setAside asks nothing more of a neighbour that has sent wrong bytes time and again, though
// it may be honest: it has not had its say yet, or the origin gives it other bytes.
func (n *Node) setAside(p *neighbour) {
	for e := range p.has.Extents {
		n.doubted.Add(e)
	}
	for e := range n.have.Extents {
		n.doubted.Remove(e)
	}
	n.takeHolds(p, Holds{Have: piece.NewBitfield(n.have.Len())})
	p.aside = true
}

// takeBack ends that. The stream begins anew, for what the member has said on it of what it
// holds was not listened to.
func (n *Node) takeBack(k *acquaintance) {
	if k.record.aside {
		k.record.aside = false
		if k.up {
			n.act(HangUp{Peer: k.addr.ID})
		}
	}
}
