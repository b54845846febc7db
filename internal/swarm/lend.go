package swarm

import (
	"time"

	"dragonload/internal/piece"
)

// Lending: members of a room that do not want the file fetch some of it for those who
// do. The pool is told of to them once it is pinned and a member that wants the file
// says that its URL holds no secret; the URL itself is asked of that member only when
// somebody who lends wants to know it, and goes to those who lend and to no one else.

// sourceTime is how long a member may take to say its URL before another is asked.
const sourceTime = time.Second

// lending is the part of a pool that is about finding helpers.
type lending struct {
	lendable int     // members that want the file and may tell its URL
	welcome  bool    // helpers are, as told to the driver
	wanted   bool    // the driver wants the URL
	asked    *member // has been asked for it
	askedBy  Instant // until when it may answer
	tried    map[*member]bool
	served   bool // a member that wants the file has been here
}

// helpWelcome reports whether a helper could do something here: ranges of a pinned
// version can be had, and some are still to come.
func (p *pool) helpWelcome() bool {
	return p.pinned && !p.ofManifest() && !p.stream && p.pin.Combinable() && p.lendable > 0 && !p.complete && !p.gaveUp && p.fetchable() > 0
}

// seekHelp tells the driver whether helpers are welcome, and asks a member for the URL
// if the driver wants that.
func (t *Tracker) seekHelp(p *pool) {
	if welcome := p.helpWelcome(); welcome != p.welcome {
		p.welcome, p.wanted = welcome, false
		t.askNobody(p)
		t.out = append(t.out, HelpWelcome{Pool: p.id, By: p.anyLendable(), Welcome: welcome})
	}
	if !p.welcome || !p.wanted || p.asked != nil && t.now < p.askedBy {
		return
	}
	for _, m := range p.order {
		if m.lendable && !p.tried[m] {
			p.asked, p.askedBy = m, t.now.Add(sourceTime)
			p.tried[m] = true
			t.tell(p, m, AskSource{})
			return
		}
	}
	p.wanted = false // nobody answers
	t.askNobody(p)
}

func (t *Tracker) askNobody(p *pool) {
	p.asked, p.askedBy = nil, never
	p.tried = make(map[*member]bool)
}

// sourceWanted: somebody would help a pool and must know its URL.
func (t *Tracker) sourceWanted(p *pool) {
	if p.welcome && !p.wanted {
		p.wanted = true
		t.askNobody(p)
	}
}

// source takes a member's answer to AskSource.
func (t *Tracker) source(p *pool, m *member, msg Source) {
	if p.asked != m || !p.welcome || msg.URL == "" {
		return
	}
	p.wanted = false
	t.askNobody(p)
	t.out = append(t.out, Offer{Pool: p.id, By: m.id, URL: msg.URL})
}

// unlend forgets a member that leaves.
func (p *pool) unlend(m *member) {
	if m.lendable {
		p.lendable--
	}
	if p.asked == m {
		p.asked, p.askedBy = nil, never
	}
	delete(p.tried, m)
}

// anyLendable returns a member that may tell the URL, the zero id if there is none.
func (p *pool) anyLendable() (id piece.NodeID) {
	for _, m := range p.order {
		if m.lendable {
			return m.id
		}
	}
	return id
}

// A helper that nobody is connected with any more goes after this time, whatever its
// tracker says or does not say.
const helperAlone = 30 * time.Second

// checkHelper ends a helper that is of no use.
func (n *Node) checkHelper() {
	if n.opts.Wants {
		return
	}
	if len(n.swap.order) > 0 || n.helped == 0 {
		n.helped = n.now
	}
	if n.now.Sub(n.helped) >= helperAlone {
		n.quit()
	}
}
