package node

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"dragonload/internal/discovery"
	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
	"dragonload/internal/swarm"
)

// Discovery finds members of rooms in the network around: discovery.Service. What it
// finds is an address to try, no more.
type Discovery interface {
	Run(ctx context.Context, found func(discovery.Found))
	Announce(rooms []discovery.Room, listen netip.AddrPort)
	Seek(room [32]byte)
}

const (
	// seekAfter is how long the room's trackers have to answer before members are sought.
	seekAfter = 250 * time.Millisecond
	// wantedFor is how long after the last search members that were found are of use.
	wantedFor = 15 * time.Second
	// aloneAfter is how long no tracker may have answered before one of those who have met
	// by themselves takes its place.
	aloneAfter = time.Second

	// lookFor is how long what is asked of a tracker waits for one to be found. Those that
	// are there answer within an eighth of a second; the question is repeated after one.
	lookFor = 1500 * time.Millisecond

	// Of found addresses so many are remembered, tried at one time, and taken for that of
	// a tracker.
	maxMeetings      = 64
	maxMeeting       = 4
	maxFoundTrackers = 4

	// A found address is tried again after meetAgain, then after twice as long each time,
	// at most maxMeetAgain; it may be a stranger's.
	meetAgain    = 2 * time.Second
	maxMeetAgain = 2 * time.Minute

	// staleWithin is what an address has that a member tells of itself, where it is seen
	// at another one.
	staleWithin = 2 * time.Second
)

// meeting is what became of trying an address.
type meeting struct {
	running bool
	again   time.Time
	wait    time.Duration
}

// announceRooms says in the network around in which rooms this node is reached: those
// that it works in, and those whose tracker it is.
func (n *Node) announceRooms() {
	if n.opts.Discovery == nil {
		return
	}
	n.announcing.Lock() // what is announced last is what is so
	defer n.announcing.Unlock()
	var rooms []discovery.Room
	n.mu.Lock()
	for id := range n.members {
		rooms = append(rooms, discovery.Room{ID: id})
	}
	n.mu.Unlock()
	listen, err := netip.ParseAddrPort(n.listensAt("0.0.0.0"))
	if err != nil {
		listen = netip.AddrPort{} // nobody can reach this node
	}
	if n.opts.Tracker != nil && n.opts.Keyring != nil && listen.IsValid() {
		for _, r := range n.opts.Keyring.Rooms() {
			if !r.Created {
				continue
			}
			rooms = slices.DeleteFunc(rooms, func(other discovery.Room) bool { return other.ID == r.ID })
			rooms = append(rooms, discovery.Room{ID: r.ID, Tracker: true})
		}
	}
	slices.SortFunc(rooms, func(a, b discovery.Room) int { return slices.Compare(a.ID[:], b.ID[:]) })
	n.opts.Discovery.Announce(rooms, listen)
}

// found takes in that a member may be at an address. It does not block.
func (n *Node) found(f discovery.Found) {
	n.mu.Lock()
	m := n.members[f.Room]
	n.mu.Unlock()
	if m != nil {
		m.found(f)
	}
}

// seek has members of the room sought.
func (m *membership) seek() {
	d := m.node.opts.Discovery
	if d == nil {
		return
	}
	m.mu.Lock()
	m.soughtAt = time.Now()
	m.mu.Unlock()
	d.Seek(m.id)
}

// found tries an address if members are needed: while no tracker of the room answers.
func (m *membership) found(f discovery.Found) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if m.closed || m.soughtAt.IsZero() || now.Sub(m.soughtAt) > wantedFor || m.homes.Load() > 0 {
		return
	}
	addr := f.Addr.String()
	if f.Tracker {
		m.foundTracker(addr, now)
	}
	if len(m.pools) == 0 || len(m.links) >= maxLinks {
		return
	}
	for id := range m.links {
		if m.addrs[id] == addr || m.proven[id] == addr {
			return
		}
	}
	t := m.meetingAt(addr, now)
	if t == nil || m.meeting >= maxMeeting {
		return
	}
	t.running = true
	m.meeting++
	m.node.work.Go(func() { m.meet(m.node.life, addr, t) })
}

// meetingAt returns what is known of trying an address, nil if it is not to be tried now.
// It needs m.mu.
func (m *membership) meetingAt(what string, now time.Time) *meeting {
	t := m.meetings[what]
	if t == nil {
		if len(m.meetings) >= maxMeetings {
			m.forgetMeetings(now)
		}
		if len(m.meetings) >= maxMeetings {
			return nil
		}
		t = &meeting{wait: meetAgain}
		m.meetings[what] = t
	}
	if t.running || now.Before(t.again) {
		return nil
	}
	return t
}

// over notes that a try has ended.
func (t *meeting) over(now time.Time) {
	t.running, t.again = false, now.Add(t.wait)
	t.wait = min(2*t.wait, maxMeetAgain)
}

// forgetMeetings makes room for addresses that were not tried lately. It needs m.mu.
func (m *membership) forgetMeetings(now time.Time) {
	for addr, t := range m.meetings {
		if !t.running && now.After(t.again) {
			delete(m.meetings, addr)
		}
	}
}

// foundTracker adds an address to those at which the room's tracker is sought, after
// those that this node has been told in an invite. It needs m.mu.
func (m *membership) foundTracker(addr string, now time.Time) {
	at := func(t *rpc.Tracker) bool { return t.Addr() == addr }
	if slices.ContainsFunc(m.trackers, at) || slices.ContainsFunc(m.foundTrackers, at) || len(m.foundTrackers) >= maxFoundTrackers {
		return
	}
	try := m.meetingAt(trackerAt(addr), now)
	if try == nil {
		return
	}
	try.over(now)
	t, err := m.newTracker(addr)
	if err != nil {
		m.node.log.Debug("an address of a tracker that was found is of no use", "room", m.name, "addr", addr, "err", err)
		return
	}
	m.node.log.Info("the room's tracker may be at another address", "room", m.name, "addr", addr)
	m.foundTrackers = append(m.foundTrackers, t)
	close(m.news)
	m.news = make(chan struct{})
	for _, d := range m.pools {
		d.inbox.do(func() { d.session.hurry() })
	}
}

// awaitTracker looks for the room's tracker in the network around, for a moment, and
// returns what claims to be it.
func (m *membership) awaitTracker(ctx context.Context, moment time.Duration) []*rpc.Tracker {
	if m.node.opts.Discovery == nil {
		return nil
	}
	if found, _ := m.foundSoFar(); len(found) > 0 {
		return found
	}
	m.seek()
	timeout := time.NewTimer(moment)
	defer timeout.Stop()
	for {
		found, news := m.foundSoFar()
		if len(found) > 0 {
			return found
		}
		select {
		case <-news:
		case <-timeout.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// foundSoFar returns the trackers that were found, and what is closed when there is another.
func (m *membership) foundSoFar() ([]*rpc.Tracker, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.foundTrackers), m.news
}

// reachable returns the trackers to ask, in order: those that were found after those that
// are known, or before if the known ones were asked in vain lately.
func (m *membership) reachable(foundFirst bool) []*rpc.Tracker {
	m.mu.Lock()
	defer m.mu.Unlock()
	if foundFirst || time.Now().Before(m.foundFirst) {
		return slices.Concat(m.foundTrackers, m.trackers)
	}
	return slices.Concat(m.trackers, m.foundTrackers)
}

// knownTrackers returns those that this node was told of, not those that were only found.
func (m *membership) knownTrackers() []*rpc.Tracker {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.trackers)
}

// askKnown asks the trackers that are not only found and those who take their place. It
// looks for others meanwhile, and once one is found stops to wait for these: cut. A system
// may take many seconds to notice that nobody is at an address.
func (m *membership) askKnown(ctx context.Context, do func(context.Context, *rpc.Tracker) error) (cut bool, err error) {
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	var looking sync.WaitGroup
	looking.Go(func() {
		late := time.NewTimer(seekAfter)
		defer late.Stop()
		select {
		case <-late.C:
		case <-within.Done():
			return
		}
		if found := m.awaitTracker(within, openWithin); len(found) > 0 && within.Err() == nil {
			cut = true
			cancel()
		}
	})
	err = m.askOf(within, append(m.knownTrackers(), m.shelf.successors()...), do)
	cancel()
	looking.Wait()
	return cut && err != nil && ctx.Err() == nil, err
}

// answered notes that a tracker has answered. If it was found, the known ones were asked in
// vain: for a while they come after it, its member is reached where it was found, and that
// is worth another try when it is missed.
func (m *membership) answered(t *rpc.Tracker) {
	m.reachedAt(t)
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := time.Now(); slices.Contains(m.foundTrackers, t) {
		delete(m.meetings, trackerAt(t.Addr()))
		if now.After(m.foundFirst) {
			m.foundFirst = now.Add(wantedFor)
		}
	}
}

// missed forgets a tracker that was found, until it is found again, and reports whether t
// is one; known ones stay.
func (m *membership) missed(t *rpc.Tracker) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := slices.Index(m.foundTrackers, t)
	if k >= 0 {
		m.foundTrackers = slices.Delete(m.foundTrackers, k, k+1)
		t.Close()
	}
	return k >= 0
}

// served notes that a tracker took a session: if it was found, it is worth another try
// when that has ended.
func (m *membership) served(t *rpc.Tracker) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.meetings, trackerAt(t.Addr()))
}

// trackerAt names, among the meetings, the try of an address as a tracker's.
func trackerAt(addr string) string { return "tracker " + addr }

// knows reports whether a tracker is one that this node was told of in an invite.
func (m *membership) knows(t *rpc.Tracker) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.trackers, t)
}

// meet opens a stream to whichever member of the room answers at an address, with all
// pools, and reads it to its end.
func (m *membership) meet(ctx context.Context, addr string, t *meeting) {
	l, err := m.introduce(ctx, addr)
	m.mu.Lock()
	m.meeting--
	m.mu.Unlock()
	if err != nil {
		m.node.log.Debug("nobody was met where a member was found", "room", m.name, "addr", addr, "err", err)
	} else if l != nil {
		m.read(l.ctx, l.link)
		l.cancel()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if l != nil {
		t.wait = meetAgain // it was a member
	}
	t.over(time.Now())
}

// metLink is a link with the context that ends it.
type metLink struct {
	*link
	ctx context.Context
}

// introduce makes the stream of meet; nil without an error if there is one to that member
// already, or it is this node itself.
func (m *membership) introduce(ctx context.Context, addr string) (*metLink, error) {
	within, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	conn, err := m.dial(within, room.ALPNHaves, addr, piece.NodeID{})
	if err != nil {
		return nil, err
	}
	id, _, name, err := room.Member(conn.ConnectionState())
	if err != nil {
		conn.Close()
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.links[id]
	// Of two that dial each other at once the stream of the smaller id stays, as in accepted.
	ours := old == nil && len(m.links) < maxLinks || old != nil && !old.dialled && m.self.Compare(id) < 0 && time.Since(old.since) < settled
	if id == m.self || m.closed || len(m.pools) == 0 || !ours || m.isRemoved(id) {
		conn.Close()
		return nil, nil
	}
	life, end := context.WithCancel(ctx)
	l := &link{id: id, dialled: true, cancel: end, pools: make(map[swarm.PoolID]*lane)}
	m.links[id] = l
	if _, known := m.addrs[id]; !known {
		m.learnOne(id, addr)
	}
	if old == nil {
		m.prove(id, addr)
	}
	m.connected(l, name, conn)
	if old != nil {
		m.replace(old, l)
	}
	for _, d := range m.pools {
		m.openLane(d, l)
	}
	return &metLink{l, life}, nil
}

// prove notes that a member was met at an address, which holds against what is told of
// it: who has moved may still tell the old one. It needs m.mu.
func (m *membership) prove(id piece.NodeID, addr string) {
	if _, known := m.proven[id]; !known && len(m.proven) >= maxAddresses {
		clear(m.proven)
	}
	m.proven[id] = addr
}

// reachedAt notes where a tracker was reached that was found: its member tells the others
// its old address, as it is told to them in invites.
func (m *membership) reachedAt(t *rpc.Tracker) {
	id, ok := t.Member()
	m.mu.Lock()
	defer m.mu.Unlock()
	if ok && slices.Contains(m.foundTrackers, t) {
		m.prove(id, t.Addr())
	}
}

// disprove is called when nobody answers there.
func (m *membership) disprove(id piece.NodeID, addr string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.proven[id] == addr {
		delete(m.proven, id)
	}
}

// dialData connects to a member for pieces.
func (m *membership) dialData(ctx context.Context, addr string, id piece.NodeID) (net.Conn, error) {
	conn, err := m.dialAny(ctx, room.ALPNData, addr, id)
	if err != nil {
		return nil, err // not a nil *tls.Conn
	}
	return conn, nil
}

// dialAny connects to a member at the first of its addresses that answers.
func (m *membership) dialAny(ctx context.Context, alpn, addr string, id piece.NodeID) (*tls.Conn, error) {
	ways := m.ways(id, addr)
	var first error
	for k, way := range ways {
		within, cancel := ctx, context.CancelFunc(func() {})
		if k < len(ways)-1 {
			within, cancel = context.WithTimeout(ctx, staleWithin)
		}
		conn, err := m.dial(within, alpn, way, id)
		cancel()
		if err == nil {
			if k > 0 {
				m.mu.Lock()
				m.prove(id, way)
				m.mu.Unlock()
			}
			return conn, nil
		}
		m.disprove(id, way)
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

// ways returns the addresses at which a member may be, the likeliest first: where it was
// met, addr and what else it tells, where its stream comes from, and where it answers as a
// tracker. Who has moved tells its old address for a while.
func (m *membership) ways(id piece.NodeID, addr string) (ways []string) {
	add := func(way string) {
		if way != "" && !slices.Contains(ways, way) {
			ways = append(ways, way)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	add(m.proven[id])
	add(addr)
	add(m.addrs[id])
	if l := m.links[id]; l != nil && l.host != "" {
		if _, port, err := net.SplitHostPort(addr); err == nil {
			add(net.JoinHostPort(l.host, port))
		}
	}
	for _, t := range slices.Concat(m.foundTrackers, m.trackers) {
		if at, ok := t.Member(); ok && at == id {
			add(t.Addr())
		}
	}
	return ways
}

// checkAlone tells the machine that there is no tracker, once, when it has met members
// though none has ever answered: then one of them can take its place. It belongs to the
// loop.
func (d *download) checkAlone() {
	s := d.session
	if s == nil || s.told || s.everLive || len(d.links) == 0 || time.Since(s.began) < aloneAfter {
		return
	}
	s.told = true
	d.step(swarm.TrackerDown{})
}
