package node

import (
	"crypto/tls"
	"net"

	"dragonload/internal/peer"
	"dragonload/internal/piece"
	"dragonload/internal/room"

	"golang.org/x/time/rate"
)

// accept takes connections on the one port and hands them on by what is spoken over
// them, until the node ends. It returns at once. It needs n.mu.
func (n *Node) accept(listener net.Listener) {
	protos := []string{room.ALPNData, room.ALPNHaves}
	if n.opts.Tracker != nil {
		protos = append(protos, room.ALPNControl, room.ALPNJoin)
	}
	split := room.Split(listener, n.opts.Keyring.ServerTLS(protos...), room.SplitOptions{Wrap: peer.Coalesce, Log: n.log, MaxConns: n.handles.in}, protos...)
	n.work.Go(func() {
		<-n.life.Done()
		if err := split.Close(); err != nil {
			n.log.Warn("close the listener", "err", err)
		}
	})

	var limiter *rate.Limiter
	if n.opts.UploadLimit > 0 {
		limiter = newLimiter(n.opts.UploadLimit)
	}
	data := peer.NewServer(n, peer.ServerOptions{Identify: identify, Limiter: limiter, Log: n.log})
	n.data = data
	n.work.Go(func() {
		if err := data.Serve(n.life, split.Listener(room.ALPNData)); err != nil && n.life.Err() == nil {
			n.log.Error("serving pieces has ended", "err", err)
		}
	})
	n.work.Go(func() { n.acceptStreams(split.Listener(room.ALPNHaves)) })
	if t := n.opts.Tracker; t != nil {
		n.work.Go(func() {
			if err := t.Serve(n.life, split.Listener(room.ALPNControl), split.Listener(room.ALPNJoin)); err != nil && n.life.Err() == nil {
				n.log.Error("the tracker can no longer be reached", "err", err)
			}
		})
	}
}

// identify tells the server of pieces who asks.
func identify(cs tls.ConnectionState) (id piece.NodeID, roomID [32]byte, err error) {
	id, roomID, _, err = room.Member(cs)
	return id, roomID, err
}

// acceptStreams takes the streams that neighbours open to this node.
func (n *Node) acceptStreams(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		secure, ok := conn.(*tls.Conn)
		if !ok {
			conn.Close()
			continue
		}
		id, roomID, name, err := room.Member(secure.ConnectionState())
		n.mu.Lock()
		m := n.members[roomID]
		n.mu.Unlock()
		if err != nil || m == nil {
			// No download of this node is in that room.
			conn.Close()
			continue
		}
		m.accepted(id, name, conn)
	}
}
