package node

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"dragonload/internal/peer"
	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/swarm"
)

const (
	// dialWithin bounds making a stream; replyWithin how long a neighbour may take to
	// say that it works on the pool too.
	dialWithin  = 5 * time.Second
	replyWithin = 5 * time.Second

	// settled is the age from which a stream gives way to a new one from the same
	// neighbour: that one would not dial if it still had the old one.
	settled = time.Second

	// maxLinks bounds the streams of one room.
	maxLinks = 1024
)

// link is what this node has with one neighbour in one room: a stream, or one being
// dialled, that carries the messages of all pools in which both work.
//
// A pool is open on a link once both sides have said so (peer.Stream.Open); only then
// is the neighbour up for the pool's download, on both sides. So neither misses the
// first message of the other, whoever came first.
//
// All fields are guarded by the membership's mu.
type link struct {
	id      piece.NodeID
	name    string
	host    string       // where the connection comes from
	stream  *peer.Stream // nil while being dialled
	dialled bool         // by this node
	since   time.Time
	cancel  context.CancelFunc
	pools   map[swarm.PoolID]*lane
}

// lane is one pool on a link.
type lane struct {
	ours, theirs bool // who has opened it
	up           bool // both, and the download was told
}

// open carries out Dial: it opens the download's pool with a member.
func (m *membership) open(d *download, to swarm.PeerAddr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.learnOne(to.ID, to.Addr)
	l := m.links[to.ID]
	if l == nil {
		if m.closed || len(m.links) >= maxLinks || to.ID == m.self || m.isRemoved(to.ID) {
			d.inbox.post(swarm.PeerDown{Peer: to.ID})
			return
		}
		ctx, cancel := context.WithCancel(m.node.life)
		l = &link{id: to.ID, dialled: true, cancel: cancel, pools: make(map[swarm.PoolID]*lane)}
		m.links[to.ID] = l
		m.node.work.Go(func() { m.dialLink(ctx, l, to.Addr) })
	}
	m.openLane(d, l)
}

// openLane opens d's pool on l. It needs m.mu.
func (m *membership) openLane(d *download, l *link) {
	w := l.pools[d.pool]
	if w == nil {
		w = &lane{}
		l.pools[d.pool] = w
	}
	if w.ours {
		return
	}
	w.ours = true
	if l.stream != nil {
		l.stream.Open(d.pool)
	}
	if w.theirs {
		m.laneUp(d, l, w)
		return
	}
	// Dialling has a bound of its own; what follows it is waited for here.
	time.AfterFunc(dialWithin+replyWithin, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if l.pools[d.pool] == w && w.ours && !w.up {
			m.shutLane(l, d.pool)
		}
	})
}

// laneUp tells the download that its neighbour is there. It needs m.mu.
func (m *membership) laneUp(d *download, l *link, w *lane) {
	w.up = true
	addr := m.addrs[l.id]
	d.inbox.do(func() {
		d.links[l.id] = l
		d.memberUp(l)
		d.step(swarm.PeerUp{Peer: l.id, Addr: addr})
	})
}

// laneDown tells the download that its neighbour is gone, or did not come. It needs
// m.mu.
func (m *membership) laneDown(l *link, pool swarm.PoolID, w *lane) {
	delete(l.pools, pool)
	up := w.up
	if d := m.pools[pool]; d != nil && w.ours {
		d.inbox.do(func() {
			if up {
				if d.links[l.id] != l {
					return
				}
				delete(d.links, l.id)
				d.memberDown(l)
			}
			d.step(swarm.PeerDown{Peer: l.id})
		})
	}
}

// shut carries out HangUp.
func (m *membership) shut(d *download, id piece.NodeID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.links[id]; l != nil {
		m.shutLane(l, d.pool)
	}
}

// shutLane closes a pool on l, and l with the last one. It needs m.mu.
func (m *membership) shutLane(l *link, pool swarm.PoolID) {
	w := l.pools[pool]
	if w == nil {
		return
	}
	if l.stream != nil {
		l.stream.Leave(pool)
	}
	m.laneDown(l, pool, w)
	if len(l.pools) == 0 {
		l.end()
	}
}

// end lets go of the stream, or of the attempt to make one.
func (l *link) end() { l.cancel() }

// dialLink makes the stream of a link that this node wants, and reads it to its end.
func (m *membership) dialLink(ctx context.Context, l *link, addr string) {
	defer l.cancel()
	within, cancel := context.WithTimeout(ctx, dialWithin)
	if known, ok := m.address(l.id); ok {
		addr = known
	}
	conn, err := m.dialAny(within, room.ALPNHaves, addr, l.id)
	cancel()
	if err != nil {
		m.disprove(l.id, addr)
		if ctx.Err() == nil {
			m.unreachable(l.id)
		}
		m.node.log.Debug("neighbour was not reached", "peer", l.id, "err", err)
		m.skewed(l, err)
		m.gone(l)
		return
	}
	_, _, name, _ := room.Member(conn.ConnectionState())
	m.mu.Lock()
	if m.links[l.id] != l || m.closed || m.isRemoved(l.id) {
		m.mu.Unlock()
		conn.Close()
		return
	}
	m.connected(l, name, conn)
	m.mu.Unlock()
	m.read(ctx, l)
}

// accepted takes a stream that a neighbour has opened. It returns at once.
func (m *membership) accepted(id piece.NodeID, name string, conn net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.links[id]
	if m.paces.Stream(id) == nil {
		m.node.log.Warn("stream refused: this member makes too many", "peer", id)
		conn.Close()
		return
	}
	if m.closed || id == m.self || old == nil && len(m.links) >= maxLinks || m.isRemoved(id) {
		conn.Close()
		return
	}
	// Two that dial each other at once keep the stream that the smaller id dialled.
	if old != nil && old.dialled && m.self.Compare(id) < 0 && (old.stream == nil || time.Since(old.since) < settled) {
		conn.Close()
		return
	}
	ctx, cancel := context.WithCancel(m.node.life)
	l := &link{id: id, cancel: cancel, pools: make(map[swarm.PoolID]*lane)}
	m.links[id] = l
	m.connected(l, name, conn)
	if old != nil {
		m.replace(old, l)
	}
	m.node.work.Go(func() {
		defer cancel()
		m.read(ctx, l)
	})
}

// replace opens anew on l what was open on an old stream to the same member, so that both
// sides state all they hold again, and ends that. It needs m.mu.
func (m *membership) replace(old, l *link) {
	for pool, w := range old.pools {
		up := w.up
		if up {
			m.laneDown(old, pool, w)
		}
		if d := m.pools[pool]; d != nil && w.ours {
			m.openLane(d, l)
		}
	}
	clear(old.pools)
	old.end()
}

// connected puts a stream to work. It needs m.mu.
func (m *membership) connected(l *link, name string, conn net.Conn) {
	l.name, l.since = name, time.Now()
	l.host, _, _ = net.SplitHostPort(conn.RemoteAddr().String())
	if secure, ok := conn.(*tls.Conn); ok {
		if certs := secure.ConnectionState().PeerCertificates; len(certs) > 0 {
			m.members.Learn(certs[0].Raw)
		}
	}
	l.stream = peer.NewStream(conn, peer.StreamOptions{Addr: m.node.advertised(), Removals: m.removals().Encode(), Log: m.node.log, Members: m.members, Pace: m.paces.Of(l.id)})
	for pool, w := range l.pools {
		if w.ours {
			l.stream.Open(pool)
		}
	}
}

// read handles what a neighbour says until the stream ends.
func (m *membership) read(ctx context.Context, l *link) {
	for {
		said, err := l.stream.Receive(ctx)
		if err != nil {
			m.node.log.Debug("stream ended", "peer", l.id, "err", err)
			m.skewed(l, err)
			break
		}
		switch {
		case said.Removals != nil:
			if err := m.heard(said.Removals); err != nil {
				m.node.log.Warn("a neighbour told a list of removals that is none", "peer", l.id, "err", err)
				l.end()
			}
		case said.Opened:
			m.theyOpened(l, said)
		case said.Left:
			m.theyLeft(l, said.Pool)
		default:
			m.theySaid(ctx, l, said)
		}
	}
	if ctx.Err() == nil {
		m.broken(l)
	}
	_ = l.stream.Close() // why it ended is told already
	m.gone(l)
}

// skewed tells the user if err says that a neighbour speaks another version.
func (m *membership) skewed(l *link, err error) {
	if !isSkew(err) {
		return
	}
	name := m.members.name(l.id)
	m.mu.Lock()
	defer m.mu.Unlock()
	for pool := range l.pools {
		if d := m.pools[pool]; d != nil {
			d.inbox.do(func() { d.tellSkew("member " + name) })
		}
	}
}

func (m *membership) theyOpened(l *link, said peer.Received) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.links[l.id] != l {
		return // replaced, or shut out
	}
	if addr := withHost(said.Addr, l.host); addr != "" {
		m.learnOne(l.id, addr)
	}
	if m.pools[said.Pool] == nil {
		if o, ok := m.node.offered(m.id, said.Pool); ok {
			m.node.work.Go(func() { m.openOffer(l, said, o) })
			return
		}
	}
	m.opened(l, said)
}

// opened opens a pool on l that the neighbour has opened, or says that this node does
// not work on it. It needs m.mu.
func (m *membership) opened(l *link, said peer.Received) {
	d := m.pools[said.Pool]
	if d == nil {
		l.stream.Leave(said.Pool)
		return
	}
	w := l.pools[said.Pool]
	if w == nil {
		w = &lane{}
		l.pools[said.Pool] = w
	}
	w.theirs = true
	if !w.ours {
		w.ours = true
		l.stream.Open(said.Pool)
	}
	if !w.up {
		m.laneUp(d, l, w)
	}
}

func (m *membership) theyLeft(l *link, pool swarm.PoolID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := l.pools[pool]; w != nil {
		m.laneDown(l, pool, w)
	}
	if len(l.pools) == 0 && m.links[l.id] == l {
		l.end()
	}
}

// theySaid passes a message on to the pool's download; it waits while that one has
// many to look at.
func (m *membership) theySaid(ctx context.Context, l *link, said peer.Received) {
	m.mu.Lock()
	d := m.pools[said.Pool]
	w := l.pools[said.Pool]
	up := w != nil && w.up
	m.mu.Unlock()
	if d == nil || !up {
		return
	}
	if s, ok := said.Message.(swarm.Successor); ok && s.Tracker.ID == l.id {
		s.Tracker.Addr = withHost(s.Tracker.Addr, l.host)
		said.Message = s
	}
	d.inbox.outside(ctx, item{do: func() {
		if d.links[l.id] == l {
			d.step(swarm.PeerSaid{Peer: l.id, Message: said.Message})
		}
	}})
}

// withHost puts host into an address that has none: who listens on all its addresses
// does not know by which one it is reached.
func withHost(addr, host string) string {
	h, port, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	if h == "" {
		h = host
	}
	return net.JoinHostPort(h, port)
}

// gone takes a link away that has ended.
func (m *membership) gone(l *link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.links[l.id] == l {
		delete(m.links, l.id)
	}
	for pool, w := range l.pools {
		m.laneDown(l, pool, w)
	}
}

// tell carries out TellPeer. Only d's loop calls it.
func (m *membership) tell(d *download, id piece.NodeID, message swarm.ToPeer) {
	if l := d.links[id]; l != nil {
		l.stream.Send(d.pool, message)
	}
}

// attach lets neighbours open d's pool.
func (m *membership) attach(d *download) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pools[d.pool] = d
}

// detach closes d's pool on every link.
func (m *membership) detach(d *download) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pools, d.pool)
	for _, l := range m.links {
		m.shutLane(l, d.pool)
	}
}
