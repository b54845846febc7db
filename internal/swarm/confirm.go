package swarm

import (
	"slices"
	"time"

	"dragonload/internal/piece"
)

// Confirmation: a node may want every piece stated alike by several members, each of
// which has read it from the origin itself; its own reading counts as one. The tracker
// leases each piece to as many (readers.go); here the statements are counted.
//
// docs/adr/0013-confirm.md says why.

const (
	// maxConfirm bounds how many readers a node may want: each is a copy more that the
	// origin sends.
	maxConfirm = 8

	// confirmAsk is how long no new word on a piece may come before the neighbours are
	// asked for theirs, and how long between two such questions.
	confirmAsk = time.Second

	// confirmShort is how long too few members may be there before the user is told.
	confirmShort = 3 * time.Second

	// maxUnsure bounds the extents that are asked for and told of at one time.
	maxUnsure = 64
)

type confirmSide struct {
	readers  int // members that shall read each piece, as the tracker said last
	fetchers int // of the pool, as far as that matters
	need     int // what this node wants; 0: nobody's word but the first

	words      []int32        // need for each piece: 1 + index in statements, 0 where none is
	sure       piece.Bitfield // pieces that enough members state alike
	unreported piece.Extents  // read here, which the tracker does not know yet
	heardAt    Instant        // when the last word came that counts, or was read here
	askAt      Instant
	toldAt     Instant // when the tracker was told last that words are lacking
	shortSince Instant // 0: enough members are there
	warned     bool
}

// begin forgets what concerns another generation.
func (c *confirmSide) begin(n *Node, count int) {
	*c = confirmSide{readers: c.readers, fetchers: c.fetchers, warned: c.warned, shortSince: c.shortSince, heardAt: n.now}
	if n.opts.Confirm > 1 && n.opts.Wants {
		c.need = min(n.opts.Confirm, maxConfirm)
		c.words = make([]int32, c.need*count)
		c.sure = piece.NewBitfield(count)
	}
}

// rereads reports whether pieces are read here that others have brought.
func (n *Node) rereads() bool {
	return n.confirm.readers > 1 || n.confirm.need > 1 || n.trust.mismatched
}

// mayReread reports whether that may be done now: not while the file gets its name.
func (n *Node) mayReread() bool { return n.rereads() && (!n.finishing || n.finished) }

// wanted reports whether piece i is to come from the origin, if it is leased.
func (n *Node) wanted(i piece.Index) bool {
	return n.lacks(i) || n.rereads() && !n.own.Has(i)
}

// settledHere returns the pieces that need not come from the origin any more.
func (n *Node) settledHere() *piece.Bitfield {
	if n.rereads() {
		return &n.own
	}
	return &n.have
}

// unsure reports whether pieces are not stated by enough members yet.
func (n *Node) unsure() bool { return n.confirm.need > 1 && !n.confirm.sure.All() }

// words returns what members have said of a piece.
func (n *Node) wordsOn(i piece.Index) []int32 {
	c := &n.confirm
	if c.need == 0 {
		return nil
	}
	return c.words[int(i)*c.need : (int(i)+1)*c.need]
}

// counts reports whether a word on piece i says what is known here, by somebody who is
// believed.
func (n *Node) counts(word int32, i piece.Index) bool {
	if word == 0 {
		return false
	}
	s := n.trust.statements[word-1]
	d, ok := s.of(i)
	if s.By == n.opts.Self && n.own.Has(i) {
		return false // it counts once; what was read in an earlier run and lost since counts too
	}
	return ok && d == n.digests[i] && !d.IsZero() && !n.trust.distrusted[s.By] && !n.trust.banned[s.By]
}

// tally looks whether enough members state piece i alike.
func (n *Node) tally(i piece.Index) {
	c := &n.confirm
	if c.need == 0 {
		return
	}
	agreed := 0
	if n.own.Has(i) {
		agreed++
	}
	for _, w := range n.wordsOn(i) {
		if n.counts(w, i) {
			agreed++
		}
	}
	if agreed >= c.need {
		c.sure.Set(i)
	} else {
		c.sure.Unset(i)
	}
}

// lacksWord reports whether it would be news that by states piece i as it is known here.
func (n *Node) lacksWord(by piece.NodeID, i piece.Index) bool {
	if n.confirm.need == 0 || by == n.opts.Self && n.own.Has(i) || n.confirm.sure.Has(i) {
		return false
	}
	for _, w := range n.wordsOn(i) {
		if n.counts(w, i) && n.trust.statements[w-1].By == by {
			return false
		}
	}
	return true
}

// addWords counts the statement that was recorded last.
func (n *Node) addWords(s *Statement) {
	if n.confirm.need == 0 {
		return
	}
	for k, i := range s.Pieces {
		if n.digests[i] != s.Digests[k] || !n.lacksWord(s.By, i) {
			continue
		}
		words := n.wordsOn(i)
		for slot, w := range words {
			if !n.counts(w, i) {
				words[slot] = int32(len(n.trust.statements))
				n.confirm.heardAt = n.now
				break
			}
		}
		n.tally(i)
	}
}

// tallyAll counts anew, since somebody's word has lost its worth.
func (n *Node) tallyAll() {
	for i := range piece.Index(n.confirm.sure.Len()) {
		n.tally(i)
	}
}

// readBy notes for the tracker and the count that this node has read piece i itself.
func (n *Node) readBy(i piece.Index) {
	if !n.rereads() {
		return
	}
	n.confirm.unreported.Add(piece.Extent{First: i, Count: 1})
	n.confirm.heardAt = n.now
	n.tally(i)
}

// readForOthers: a node whose file has its name has read a piece that others want read.
func (n *Node) readForOthers(i piece.Index, d piece.Digest) {
	if !n.rereads() || n.own.Has(i) || n.finishing && !n.finished {
		return
	}
	if d != n.digests[i] {
		n.testify(i, d) // the file is what it is; what was read is told all the same
		n.confirm.unreported.Add(piece.Extent{First: i, Count: 1})
		return
	}
	n.own.Set(i)
	n.stater[i] = 0
	n.trust.stating = append(n.trust.stating, i)
	n.flushAt = min(n.flushAt, n.now.Add(n.flushDelay(true)))
	n.readBy(i)
}

// toldReaders takes in how many members the tracker has read each piece.
func (n *Node) toldReaders(msg Readers) {
	if n.vouched() {
		return
	}
	c := &n.confirm
	c.readers, c.fetchers = min(msg.Wanted, maxConfirm), msg.There
	if !n.pinned {
		return
	}
	c.unreported.Clear()
	if c.readers <= 1 {
		for e := range n.settledHere().Extents {
			n.origin.leases.Remove(e)
		}
		return
	}
	for e := range n.own.Extents {
		c.unreported.Add(e)
	}
	if c.unreported.Count() > 0 {
		n.tracker.reportAt = n.now
	}
}

// unsurePieces returns pieces that are here and not stated by enough members.
func (n *Node) unsurePieces() []piece.Extent {
	var lacking piece.Extents
	c := &n.confirm
	for i, ok := c.sure.NextUnset(0); ok && len(lacking.Runs()) < maxUnsure; i, ok = c.sure.NextUnset(i + 1) {
		if n.have.Has(i) {
			lacking.Add(piece.Extent{First: i, Count: 1})
		}
	}
	return slices.Clone(lacking.Runs())
}

// unconfirmed returns what the tracker should have read by others once more: they have
// read it, it thinks, but their words have not come.
func (n *Node) unconfirmed() []piece.Extent {
	c := &n.confirm
	if !n.whole() || !n.unsure() || n.now.Sub(max(c.heardAt, c.toldAt)) < 2*confirmAsk {
		return nil
	}
	c.toldAt = n.now
	return n.unsurePieces()
}

// checkConfirm looks after what nobody has confirmed.
func (n *Node) checkConfirm() {
	c := &n.confirm
	if n.opts.Confirm <= 1 || !n.opts.Wants || n.finishing {
		return
	}
	n.checkShort()
	if !n.pinned || !n.unsure() {
		return
	}
	// In a pool too large to know everybody most words come only when asked for.
	strangers := n.whole() && n.tracker.number > len(n.swap.order)+1
	if n.now.Sub(c.heardAt) < confirmAsk && !strangers {
		return
	}
	if n.now >= c.askAt {
		c.askAt = n.now.Add(confirmAsk)
		if lacking := n.unsurePieces(); len(lacking) > 0 {
			for _, p := range n.swap.order {
				n.act(TellPeer{Peer: p.id, Message: AskStatements{Extents: lacking}})
			}
		}
	}
	n.readUnconfirmed()
}

// readUnconfirmed reads here what lacks words, where nobody lends it to this node: there
// is no tracker, or what it has lent has come to nothing.
func (n *Node) readUnconfirmed() {
	o := &n.origin
	if !n.canRead() || len(o.requests) > 0 || o.leases.Count() > 0 || n.now < max(n.restsUntil(), o.notBefore) {
		return
	}
	quiet := n.now.Sub(n.confirm.heardAt)
	if n.tracker.up && quiet < stuckTime {
		return
	}
	want := int(n.requestPieces()) * o.allowed
	for i, ok := n.confirm.sure.NextUnset(0); ok && want > 0; i, ok = n.confirm.sure.NextUnset(i + 1) {
		if n.have.Has(i) && !n.own.Has(i) && (quiet >= 3*confirmAsk || n.amongReaders(i)) {
			o.leases.Add(piece.Extent{First: i, Count: 1})
			want--
		}
	}
}

// amongReaders reports whether this node is one of those live members that come first for
// piece i, of which there are as many as it wants readers.
func (n *Node) amongReaders(i piece.Index) bool {
	mine, before := rank(i, n.opts.Self), 0
	for _, p := range n.swap.order {
		if !n.trust.distrusted[p.id] && rank(i, p.id) > mine {
			before++
		}
	}
	return before < n.confirm.need
}

// checkShort tells the user when too few members can read for as many to confirm.
func (n *Node) checkShort() {
	c := &n.confirm
	there := len(n.swap.order) + 1
	if n.tracker.up {
		there = c.fetchers
	}
	switch {
	case there >= n.opts.Confirm:
		c.shortSince, c.warned = 0, false
	case c.shortSince == 0:
		c.shortSince = n.now
	case !c.warned && n.now.Sub(c.shortSince) >= confirmShort:
		c.warned = true
		n.warn(WarnConfirmShort)
	}
}

// confirming reports whether a whole file waits for words, and fails where they cannot
// come.
func (n *Node) confirming() bool {
	if !n.unsure() {
		return false
	}
	switch {
	case n.trust.ownOnly:
		n.fail(FailInconsistent)
	case n.tracker.stream || !n.pin.Combinable():
		n.fail(FailUnconfirmed) // it cannot be read once more to be compared
	default:
		n.checkAt = min(n.checkAt, n.now.Add(checkInterval))
	}
	return true
}
