package swarm

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"time"

	"dragonload/internal/piece"
)

// Without a tracker members go on by themselves. Each tells its neighbours what it
// fetches from the origin (Claim), and takes next what nobody holds or claims: first
// the pieces for which it has the highest rank among the live members (rendezvous
// hashing: Thaler and Ravishankar, IEEE/ACM Transactions on Networking 6, 1998), so
// that two members seldom choose the same, then any other.

const (
	// orphanTime passes before a node fetches of its own choice, up to twice as much by
	// chance: the neighbours' claims must have come in, and the tracker may be back.
	orphanTime = 400 * time.Millisecond

	// rivalTime passes before a node also takes pieces that others should take first:
	// what they do take must have become known.
	rivalTime = time.Second

	// isolatedTime is longer, for a node that has lost all its neighbours as well:
	// most likely its own link is down for a moment, and what it would fetch now the
	// others fetch too.
	isolatedTime = 3 * time.Second

	// unpinnedTime passes before a node that never heard of a generation asks the origin
	// itself; aloneTime where it has met neither a tracker nor a member, who would have
	// answered by then.
	unpinnedTime = time.Second
	aloneTime    = 500 * time.Millisecond

	// streamTime is how long nothing may come before a node opens a stream of its own
	// where the origin gives no ranges.
	streamTime = 10 * time.Second

	// stuckTime is how long no piece may come before a node fetches some that others
	// are said to have.
	stuckTime = 5 * time.Second

	// withheldTime is how long no piece may come, though others have some and none is under
	// way, before the tracker is told.
	withheldTime = 2 * time.Second

	// muteTime is how long a neighbour may leave unsaid what the digests are of what it is
	// said to hold, before it counts as no source of it.
	muteTime = 1500 * time.Millisecond

	// hangingTime is how long nothing may be heard of a request before others are not waited
	// for because of it.
	hangingTime = 3 * time.Second

	// lostTime is how long no piece may come before a node fetches some that nobody is
	// known to hold.
	lostTime = time.Minute

	// relayDelay gathers the claims of neighbours before they are passed on.
	relayDelay = 100 * time.Millisecond

	// heardTime is for how long, and up to twice as long, a piece counts as taken after
	// its claim has ended.
	heardTime = 3 * time.Second

	// claimTime is how far ahead a node claims, at most maxSelfLeased pieces at once.
	claimTime     = 500 * time.Millisecond
	maxSelfLeased = 1024
)

// lostTracker tells the neighbours what this node is about to fetch.
func (n *Node) lostTracker() {
	if n.finished {
		return
	}
	for _, p := range n.swap.order {
		p.relayed.Clear()
	}
	n.swap.heard = [2]piece.Extents{}
	if n.pinned {
		n.claim()
	}
	n.tracker.patience = time.Duration(n.rng.Int64N(int64(orphanTime)))
	n.checkAt = min(n.checkAt, n.now.Add(orphanTime+n.tracker.patience))
}

// claim tells the neighbours all that this node fetches from the origin.
func (n *Node) claim() {
	extents := n.leased()
	for _, p := range n.swap.order {
		n.act(TellPeer{Peer: p.id, Message: Claim{Extents: extents}})
	}
}

// remember keeps the pieces of a claim that is about to be replaced for a while.
func (n *Node) remember(claimed *piece.Extents) {
	s := &n.swap
	if n.now >= s.heardUntil {
		s.heard[0], s.heard[1] = s.heard[1], piece.Extents{}
		if n.now >= s.heardUntil.Add(heardTime) {
			s.heard[0] = piece.Extents{}
		}
		s.heardUntil = n.now.Add(heardTime)
	}
	for _, e := range claimed.Runs() {
		s.heard[1].Add(e)
	}
}

// relay tells the neighbours what the others among them claim. The last one that is left
// is told that nobody claims anything any more: it would wait for what those who are
// gone were to bring.
func (n *Node) relay() {
	n.relayAt = never
	if n.tracker.up || !n.pinned {
		return
	}
	var all piece.Extents
	if len(n.swap.order) > 1 {
		for _, p := range n.swap.order {
			for _, e := range p.claims.Runs() {
				all.Add(e)
			}
		}
	}
	extents := slices.Clone(all.Runs())
	for _, p := range n.swap.order {
		if !p.has.All() && (len(n.swap.order) > 1 || p.told) {
			p.told = len(extents) > 0
			n.act(TellPeer{Peer: p.id, Message: Relay{Extents: extents}})
		}
	}
}

// checkOrphan gives a node work that has no tracker to give it any, and one that is
// stuck.
func (n *Node) checkOrphan() {
	o, t := &n.origin, &n.tracker
	if !n.opts.Fetches || o.barred {
		if !t.up && !n.pinned && o.barred && len(n.swap.order) == 0 && n.now >= max(t.downSince.Add(n.lonelyTime()), t.queuedTo) {
			n.fail(FailOrigin)
		}
		return
	}
	if !n.opts.Wants {
		// A helper goes on with what members of its rank would take, and rescues and
		// probes nothing.
		if !t.up && n.pinned && !t.stream && len(n.swap.order) > 0 && n.now.Sub(t.downSince) >= orphanTime+t.patience {
			n.selfLease(false)
		}
		return
	}
	if n.pinned && n.missing() > 0 && n.now.Sub(n.lastStored) >= stuckTime && o.leases.Count() == 0 && len(o.requests) == 0 &&
		n.now >= n.restsUntil() && !t.stream && n.stuck() && n.rescueDue() {
		n.rescue()
		return
	}
	if t.stream && n.pinned && n.missing() > 0 && n.pin.Combinable() && n.now.Sub(n.lastStored) >= lostTime && n.stuck() &&
		len(o.requests) == 0 && n.now >= max(o.notBefore, n.restsUntil()) && n.rescueDue() {
		n.probe() // the stream once more, for what others should have brought and did not
		return
	}
	if t.up {
		return
	}
	away := n.now.Sub(t.downSince)
	switch {
	case !n.pinned:
		if away >= n.unpinnedTime() && n.now >= t.queuedTo && !n.probing() && n.now >= max(o.notBefore, n.restsUntil()) {
			n.probe()
		}
	case t.stream:
		if away >= streamTime && n.now.Sub(n.lastProgress) >= streamTime && !n.probing() && n.now >= max(o.notBefore, n.restsUntil()) && n.rescueDue() {
			t.asked = true
			n.probe()
		}
	case n.vouched() && (!t.everUp && away < unpinnedTime || n.now < t.queuedTo):
		// There may be a tracker yet, which knows who has what.
	case away >= orphanTime+t.patience && (len(n.swap.order) > 0 || away >= isolatedTime || !n.swap.everMet):
		n.selfLease(away >= orphanTime+t.patience+rivalTime)
	}
}

// unpinnedTime is how long this node waits to be told what the file is.
func (n *Node) unpinnedTime() time.Duration {
	if n.metNobody() {
		return aloneTime
	}
	return unpinnedTime
}

// lonelyTime is how long a node waits for somebody who can fetch what the origin does not
// give it: for a tracker and members that were there.
func (n *Node) lonelyTime() time.Duration {
	if n.metNobody() {
		return aloneTime
	}
	return unfinishedTime
}

func (n *Node) metNobody() bool { return !n.tracker.everUp && !n.swap.everMet }

// selfLease takes pieces that nobody holds or claims; unless others' are taken too, only
// those that are this node's own to take.
func (n *Node) selfLease(others bool) {
	o := &n.origin
	if n.now < n.restsUntil() {
		return // others may know a server that does not rest
	}
	ahead := int64(firstRequest)
	if rate := o.line.rate(n.now); rate > 0 {
		ahead = mulDiv(rate, int64(claimTime), int64(time.Second))
	}
	ahead -= n.bytesOf(&o.leases)
	if ahead < 0 {
		return
	}
	want := maxSelfLeased
	before := o.leases.Count()
	busy := n.taken()
	start := piece.Index(n.rng.IntN(n.have.Len()))
	for _, mine := range []bool{true, false} {
		if !mine && !others {
			break
		}
		for k := 0; k < n.have.Len() && ahead >= 0 && want > 0; k++ {
			i := (start + piece.Index(k)) % piece.Index(n.have.Len())
			if !n.lacks(i) || n.avail[i] > 0 || busy.Has(i) || mine && !n.highestRank(i) {
				continue
			}
			busy.Set(i)
			o.leases.Add(piece.Extent{First: i, Count: 1})
			ahead -= n.layout.Length(i)
			want--
		}
	}
	if o.leases.Count() > before {
		n.claim()
	}
}

// taken returns the pieces that this node or a live neighbour fetches already.
func (n *Node) taken() piece.Bitfield {
	b := piece.NewBitfield(n.have.Len())
	set := func(extents []piece.Extent) {
		for _, e := range extents {
			for i := e.First; i < e.End(); i++ {
				b.Set(i)
			}
		}
	}
	set(n.leased())
	for _, p := range n.swap.order {
		set(p.claims.Runs())
		set(p.relayed.Runs())
	}
	if s := &n.swap; n.now < s.heardUntil {
		set(s.heard[0].Runs())
		set(s.heard[1].Runs())
	} else if n.now < s.heardUntil.Add(heardTime) {
		set(s.heard[1].Runs())
	}
	return b
}

// highestRank reports whether this node comes first among the live members for piece i.
func (n *Node) highestRank(i piece.Index) bool {
	mine := rank(i, n.opts.Self)
	for _, p := range n.swap.order {
		if !p.has.All() && !n.trust.distrusted[p.id] && rank(i, p.id) > mine {
			return false
		}
	}
	return true
}

// rank mixes a piece and a member into a number (the finaliser of SplitMix64: Steele,
// Lea and Flood, OOPSLA 2014).
func rank(i piece.Index, id piece.NodeID) uint64 {
	return mix(binary.LittleEndian.Uint64(id[:8]) ^ uint64(i)*0x9e3779b97f4a7c15)
}

func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// stuck reports whether nothing comes. A request to a neighbour that is under way may
// be waiting for its turn or bring a long piece over a slow line; its driver ends it
// if it does not move. One to a neighbour that has never brought anything when asked
// counts for nothing.
func (n *Node) stuck() bool {
	idle := n.now.Sub(n.lastProgress)
	return idle >= lostTime || idle >= stuckTime && !n.promising()
}

// promising reports whether something is asked of a neighbour that may bring it.
func (n *Node) promising() bool {
	for _, p := range n.swap.order {
		if (p.brought || p.failures < peerRequests) && slices.ContainsFunc(p.requests, func(r *peerRequest) bool { return !n.hangs(r) }) {
			return true
		}
	}
	return len(n.swap.strays) > 0
}

// rescueDue spreads the rescues of members that are stuck together: it may only be
// that the one piece they all lack comes over a slow line, and they must not all ask
// the origin for it.
func (n *Node) rescueDue() bool {
	// In a crowd many more are in the same plight than this node knows.
	spread := int64(stuckTime) * int64(len(n.swap.order)+1) << bits.Len(uint(n.tracker.number/crowdSize))
	if n.rescueAt <= n.lastStored {
		n.rescueAt = n.now.Add(1 + time.Duration(n.rng.Int64N(spread)))
	}
	if n.now < n.rescueAt {
		return false
	}
	n.rescueAt = n.now.Add(stuckTime + time.Duration(n.rng.Int64N(spread)))
	return true
}

// rescuable reports whether piece i should be here by now: somebody holds it, or was
// thought to. What nobody holds is on its way to somebody, over a slow line it may be,
// unless it has been for longer than patience.
func (n *Node) rescuable(i piece.Index, patience time.Duration) bool {
	if !n.lacks(i) || n.asking[i] > 0 {
		return false
	}
	return n.avail[i] > 0 || n.doubted.Has(i) || n.now.Sub(n.lastStored) >= patience
}

// shunsSomebody reports whether there is a member from which nothing is taken: what it
// fetches and holds the tracker does not lend again, and it comes to nobody.
func (n *Node) shunsSomebody() bool {
	for _, k := range n.swap.known {
		if k.shunned {
			return true
		}
	}
	return slices.ContainsFunc(n.swap.order, func(p *neighbour) bool { return p.wrong >= maxWrong })
}

// rescue fetches a missing piece that the origin was not to be asked for, since nobody
// brings it: its holders may be gone, silent, or lying. The choice is
// random, so that members in the same plight bring different ones. Each time it takes
// more and waits less: what had to be rescued before will have to be again.
func (n *Node) rescue() {
	start := piece.Index(n.rng.IntN(n.have.Len()))
	batch := 1 << min(n.rescues, 5)
	patience := lostTime >> min(n.rescues, 4)
	if n.shunsSomebody() {
		patience = min(patience, stuckTime)
	}
	for k := range n.have.Len() {
		i := (start + piece.Index(k)) % piece.Index(n.have.Len())
		if batch > 0 && n.rescuable(i, patience) {
			n.origin.leases.Add(piece.Extent{First: i, Count: 1})
			batch--
		}
	}
	if n.origin.leases.Count() > 0 {
		n.rescues++
	}
}

// hanging returns of how many requests nothing is heard.
func (n *Node) hanging() (count int) {
	for _, p := range n.swap.order {
		for _, r := range p.requests {
			if n.hangs(r) {
				count++
			}
		}
	}
	return count
}

func (n *Node) hangs(r *peerRequest) bool { return n.now.Sub(max(r.since, r.moved)) >= hangingTime }

// mute reports whether a neighbour says that it holds what nobody states the digests of.
func (n *Node) mute(p *neighbour) bool { return p.muteSince > 0 && n.now.Sub(p.muteSince) >= muteTime }

// withheld reports whether nothing comes, though others are said to hold what is missing
// here: some have sent nothing when asked, or wrong bytes.
func (n *Node) withheld() bool {
	hanging := n.hanging()
	if !n.idles() || n.swap.requests > hanging {
		return false
	}
	suspect := hanging > 0 || slices.ContainsFunc(n.swap.order, func(p *neighbour) bool { return p.silences > 0 || n.mute(p) })
	if !suspect && !n.shunsSomebody() {
		// Somebody may have told the tracker of more than it tells its neighbours. In a crowd
		// what nobody here holds may be on its way through others.
		return n.tracker.number < fewMembers && n.now.Sub(n.lastStored) >= n.crowded(stuckTime) && n.nowhere()
	}
	for i, ok := n.nextLacking(0); ok; i, ok = n.nextLacking(i + 1) {
		if n.avail[i] > 0 || n.doubted.Has(i) {
			return true
		}
	}
	return false
}
