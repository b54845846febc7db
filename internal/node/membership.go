package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"dragonload/internal/peer"
	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
	"dragonload/internal/swarm"

	"golang.org/x/time/rate"
)

const (
	// maxAddresses bounds the members whose addresses are kept.
	maxAddresses = 4096

	renewTry = time.Hour // between tries to renew a certificate
)

// membership is this node in one room that it works in: its connections to the
// room's trackers and its streams to neighbours, which all downloads in the room
// share.
type membership struct {
	node *Node
	id   [32]byte
	name string // the room's, here
	self piece.NodeID

	members *vouched
	shelf   *shelf
	reports reports
	paces   peer.Paces // of what neighbours say

	sessions atomic.Int32 // open with trackers
	homes    atomic.Int32 // of these, with the room's own

	mu       sync.Mutex // guards what follows
	trackers []*rpc.Tracker
	replicas []*rpc.Tracker          // that trackers have named, the newest last
	addrs    map[piece.NodeID]string // as they are told
	proven   map[piece.NodeID]string // as they were met, where that is another one
	links    map[piece.NodeID]*link
	pools    map[swarm.PoolID]*download
	closed   bool

	// Of searching the network around, see discover.go.
	soughtAt      time.Time // last
	foundTrackers []*rpc.Tracker
	meetings      map[string]*meeting // by address
	meeting       int                 // of these, under way
	news          chan struct{}       // closed when a tracker is found, then there is another
	foundFirst    time.Time           // until when found trackers are asked before known ones
}

// membership returns this node's place in a room, joining its work if need be: the
// listener is opened, so that members can reach it.
func (n *Node) membership(name string) (*membership, error) {
	if n.opts.Rooms == nil || n.opts.Keyring == nil || n.opts.Identity == nil {
		return nil, problem("no-room", ExitRoom, &room.NoRoomError{Name: name})
	}
	r, err := n.opts.Rooms.Get(name)
	if err != nil {
		return nil, problem("no-room", ExitRoom, err)
	}
	if err := r.Valid(time.Now()); errors.Is(err, room.ErrRemoved) {
		return nil, problem("removed", ExitRoom, err)
	} else if err != nil {
		return nil, problem("not-a-member", ExitRoom, err)
	}
	n.opts.Keyring.Add(r)
	if err := n.listen(); err != nil {
		return nil, err
	}
	m, err := n.member(r)
	if err != nil {
		return nil, err
	}
	if err := m.connect(n.trackersOf(r)); err != nil {
		return nil, problem("bad-room", ExitRoom, fmt.Errorf("room %s: %w", name, err))
	}
	n.announceRooms()
	return m, nil
}

// trackersOf returns where the trackers of a room are. This machine may have another
// address now than when it made the room; itself it reaches still.
func (n *Node) trackersOf(r *room.Room) []string {
	own := n.ownAddress()
	if !r.Created || n.opts.Tracker == nil || own == "" || slices.Contains(r.Trackers, own) {
		return r.Trackers
	}
	return append(slices.Clone(r.Trackers), own)
}

// member returns the membership of a room, made if need be.
func (n *Node) member(r *room.Room) (*membership, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended {
		return nil, ErrEnding
	}
	m := n.members[r.ID]
	if m == nil {
		m = &membership{
			node: n, id: r.ID, name: r.Name, self: n.opts.Identity.ID,
			members: newVouched(n.opts.Keyring, r.ID),
			addrs:   make(map[piece.NodeID]string),
			links:   make(map[piece.NodeID]*link),
			pools:   make(map[swarm.PoolID]*download),

			proven: make(map[piece.NodeID]string), meetings: make(map[string]*meeting), news: make(chan struct{}),
		}
		m.shelf = newShelf(m)
		n.members[r.ID] = m
		n.work.Go(func() { m.renew(n.life) })
		n.work.Go(func() {
			<-n.life.Done()
			m.shelf.wait() // for what is told at the end, over the connections
			m.close()
		})
	}
	return m, nil
}

// connect makes the connections to the trackers at addrs; those that are there stay.
func (m *membership) connect(addrs []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var trackers []*rpc.Tracker
	for _, addr := range addrs {
		var found *rpc.Tracker
		for _, t := range m.trackers {
			if t.Addr() == addr {
				found = t
			}
		}
		if found == nil {
			var err error
			if found, err = m.newTracker(addr); err != nil {
				return err
			}
		}
		trackers = append(trackers, found)
	}
	m.trackers = trackers
	return nil
}

// newTracker returns the connection to the room's tracker at addr.
func (m *membership) newTracker(addr string) (*rpc.Tracker, error) {
	cfg, err := m.clientTLS(room.ALPNControl, piece.NodeID{})
	if err != nil {
		return nil, err
	}
	t, err := rpc.NewTracker(addr, cfg, m.node.handles.control.bound(m.node.network.Dial))
	if err != nil {
		return nil, err
	}
	t.OnRemovals(func(list *room.Removals) {
		if err := m.hear(list); err != nil {
			m.node.log.Warn("the tracker told a list of removals that is none", "tracker", addr, "err", err)
		}
	})
	return t, nil
}

// clientTLS is the room's configuration for a connection that this node makes. It
// shows the certificate that the keyring holds then, so that it outlives a renewal.
func (m *membership) clientTLS(alpn string, to piece.NodeID) (*tls.Config, error) {
	cfg, err := m.node.opts.Keyring.ClientTLS(m.id, alpn, to)
	if err != nil {
		return nil, err
	}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		r, ok := m.node.opts.Keyring.Get(m.id)
		if !ok {
			return nil, room.ErrNoRoom
		}
		return &r.Cert, nil
	}
	return cfg, nil
}

// openSession opens a session about pool with the first tracker that takes one, and returns
// who was asked for it; again says that all were just asked in vain. What one that was found in the network around
// refuses says nothing of the room: it is forgotten.
func (m *membership) openSession(ctx context.Context, pool swarm.PoolID, again bool) (*rpc.Session, *rpc.Tracker, error) {
	all := errors.New("the room has no tracker")
	for _, asked := range m.reachable(again) {
		t := asked
		live, err := open(ctx, t, pool)
		if elsewhere := (*rpc.ElsewhereError)(nil); errors.As(err, &elsewhere) {
			// That one may be gone, or have given the pool back: the next time will tell.
			if at, atErr := m.replica(elsewhere.Addr); atErr == nil {
				t = at
				live, err = open(ctx, t, pool)
			}
		}
		if err == nil {
			m.answered(asked)
			return live, asked, nil
		}
		if m.missed(asked) {
			m.node.log.Debug("no tracker is where one was found", "room", m.name, "addr", asked.Addr(), "err", err)
			continue
		}
		if refused := accessProblem(err); refused != nil {
			return nil, nil, m.whyRefused(ctx, t.Addr(), refused)
		}
		all = err
	}
	return nil, nil, all
}

func open(ctx context.Context, t *rpc.Tracker, pool swarm.PoolID) (*rpc.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	return t.Open(ctx, pool)
}

// maxReplicas bounds the replicas that a room's tracker may send its members to.
const maxReplicas = 16

// replica returns a connection to a replica that another has named, kept for the pools
// that come after.
func (m *membership) replica(addr string) (*rpc.Tracker, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range slices.Concat(m.trackers, m.replicas) {
		if t.Addr() == addr {
			return t, nil
		}
	}
	if len(m.replicas) >= maxReplicas {
		m.replicas[0].Close()
		m.replicas = slices.Delete(m.replicas, 0, 1)
	}
	t, err := m.newTracker(addr)
	if err != nil {
		return nil, err
	}
	m.replicas = append(m.replicas, t)
	return t, nil
}

// openSuccessor opens a session about pool with a member that has taken the tracker's
// place, which may be this node itself. The caller closes the connection after it.
func (m *membership) openSuccessor(ctx context.Context, to swarm.PeerAddr, pool swarm.PoolID) (*rpc.Session, *rpc.Tracker, error) {
	ctx, cancel := context.WithTimeout(ctx, seekWithin)
	defer cancel()
	addr := to.Addr
	if to.ID == m.self {
		addr = m.node.ownAddress()
	} else if known, ok := m.address(to.ID); ok {
		addr = known // with its host
	}
	cfg, err := m.clientTLS(room.ALPNControl, to.ID)
	if err != nil {
		return nil, nil, err
	}
	t, err := rpc.NewTracker(addr, cfg, m.node.handles.control.bound(m.node.network.Dial))
	if err != nil {
		return nil, nil, err
	}
	live, err := t.Open(ctx, pool)
	if err != nil {
		t.Close()
		return nil, nil, err
	}
	return live, t, nil
}

// dial opens a connection to a member, which must be the one with the key id.
func (m *membership) dial(ctx context.Context, alpn, addr string, id piece.NodeID) (*tls.Conn, error) {
	cfg, err := m.clientTLS(alpn, id)
	if err != nil {
		return nil, err
	}
	places := m.node.handles.control
	if alpn == room.ALPNData {
		places = m.node.handles.data
	}
	return rpc.DialTLS(ctx, places.bound(m.node.network.Dial), cfg, addr)
}

// pool names the pool of a URL in the room.
func (m *membership) pool(url string) swarm.PoolID {
	r, ok := m.node.opts.Keyring.Get(m.id)
	if !ok {
		return swarm.PoolID{}
	}
	return r.Pool(url)
}

// source names the server of a URL in the room.
func (m *membership) source(url string) swarm.SourceID {
	r, ok := m.node.opts.Keyring.Get(m.id)
	if !ok {
		return swarm.SourceID{}
	}
	return r.Source(url)
}

// manifestPool names the pool of a manifest in the room.
func (m *membership) manifestPool(infoHash [32]byte) swarm.PoolID {
	r, ok := m.node.opts.Keyring.Get(m.id)
	if !ok {
		return swarm.PoolID{}
	}
	return r.ManifestPool(infoHash)
}

// newPeerClient returns the client with which one download fetches pieces.
func (m *membership) newPeerClient(limiter *rate.Limiter) *peer.Client {
	return peer.NewClient(m.dialData, peer.ClientOptions{Limiter: limiter, Log: m.node.log})
}

// learn keeps where members are reached.
func (m *membership) learn(peers []swarm.PeerAddr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range peers {
		m.learnOne(p.ID, p.Addr)
	}
}

// learnOne needs m.mu.
func (m *membership) learnOne(id piece.NodeID, addr string) {
	if _, known := m.addrs[id]; !known && len(m.addrs) >= maxAddresses {
		clear(m.addrs) // they are handed out again when needed
	}
	m.addrs[id] = addr
}

func (m *membership) address(id piece.NodeID) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if addr, ok := m.proven[id]; ok {
		return addr, true
	}
	addr, ok := m.addrs[id]
	return addr, ok
}

// renew keeps this node's certificate from running out.
func (m *membership) renew(ctx context.Context) {
	for {
		r, ok := m.node.opts.Keyring.Get(m.id)
		if !ok {
			return
		}
		wait := time.Until(r.RenewAt())
		if wait <= 0 {
			if err := m.renewNow(ctx, r); err != nil {
				m.node.log.Warn("the certificate was not renewed", "room", m.name, "until", r.Cert.Leaf.NotAfter, "err", err)
				wait = renewTry
			} else {
				continue
			}
		}
		// Not all of it in one wait: the clock may be set, the computer may sleep.
		select {
		case <-time.After(min(wait, renewTry)):
		case <-ctx.Done():
			return
		}
	}
}

func (m *membership) renewNow(ctx context.Context, r *room.Room) error {
	if r.Created {
		// Reading the room renews the creator's own certificate.
		renewed, err := m.node.opts.Rooms.Get(r.Name)
		if err != nil {
			return err
		}
		m.node.opts.Keyring.Add(renewed)
		return nil
	}
	csr, err := r.Request()
	if err != nil {
		return err
	}
	err = errors.New("the room has no tracker")
	for _, t := range m.reachable(false) {
		var answer rpc.Membership
		if answer, err = t.Renew(ctx, csr); err != nil {
			continue
		}
		if answer.Removals != nil {
			if err := m.hear(answer.Removals); err != nil {
				return err
			}
		}
		renewed, err := r.Accept(answer.Chain, time.Now())
		if err != nil {
			return err
		}
		m.node.opts.Keyring.Add(renewed)
		return m.node.opts.Rooms.Save(renewed)
	}
	return err
}

// close ends the streams and connections of the room.
func (m *membership) close() {
	m.mu.Lock()
	m.closed = true
	for _, l := range m.links {
		l.end()
	}
	trackers := slices.Concat(m.trackers, m.foundTrackers, m.replicas)
	m.mu.Unlock()
	for _, t := range trackers {
		t.Close()
	}
}
