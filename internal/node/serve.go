package node

import (
	"context"
	"errors"
	"time"

	"dragonload/internal/peer"
	"dragonload/internal/piece"
	"dragonload/internal/store"
	"dragonload/internal/swarm"
)

const (
	// serveWithin is how long a neighbour's request waits for its turn at most.
	serveWithin = 20 * time.Second

	// askedBit is set in the numbers of neighbours' requests, which this driver gives;
	// those of the machine's own requests count from 1.
	askedBit = 1 << 63
)

// waiter is a neighbour's request that waits for the machine's Serve or Refuse.
type waiter struct {
	answer chan bool // buffered: the loop never waits for the request
	gone   bool      // the request has ended meanwhile; belongs to the loop
}

// Admit implements peer.Backend: the machine of the pool's download says when a
// request may go ahead.
func (n *Node) Admit(ctx context.Context, roomID [32]byte, from piece.NodeID, pool swarm.PoolID, pieces []piece.Index) (peer.Content, func(sent int64), error) {
	d := n.find(roomID, pool)
	// A member that was removed between its handshake and this request is refused here.
	if d == nil || n.opts.Keyring.Removed(roomID, from) {
		return nil, nil, peer.ErrNotHeld
	}
	return d.admit(ctx, from, pieces)
}

// Layout implements peer.Backend.
func (n *Node) Layout(roomID [32]byte, _ piece.NodeID, pool swarm.PoolID) (piece.Layout, error) {
	if d := n.find(roomID, pool); d != nil {
		if g := d.generation(); g != nil {
			return g.layout, nil
		}
	}
	return piece.Layout{}, peer.ErrNotHeld
}

// Manifest implements peer.Backend: a manifest is told to members of rooms in which this
// node is in its pool, or offers its content.
func (n *Node) Manifest(roomID [32]byte, from piece.NodeID, infoHash [32]byte) (peer.Manifest, error) {
	r, ok := n.opts.Keyring.Get(roomID)
	if !ok || n.opts.Keyring.Removed(roomID, from) {
		return peer.Manifest{}, peer.ErrNotHeld
	}
	pool := r.ManifestPool(infoHash)
	if d := n.find(roomID, pool); d != nil && d.want != nil {
		if t := d.manifestToTell(); t != nil {
			return encodeManifest(t)
		}
	}
	return n.shareManifest(roomID, pool)
}

func (d *download) admit(ctx context.Context, from piece.NodeID, pieces []piece.Index) (peer.Content, func(sent int64), error) {
	ctx, cancel := context.WithTimeout(ctx, serveWithin)
	defer cancel()
	req := swarm.Request(d.asked.Add(1) | askedBit)
	w := &waiter{answer: make(chan bool, 1)}
	d.inbox.do(func() {
		if w.gone {
			return
		}
		d.waiters[req] = w
		d.step(swarm.Asked{Request: req, Peer: from, Pieces: pieces})
	})
	select {
	case ok := <-w.answer:
		if !ok {
			return nil, nil, peer.ErrNotHeld
		}
	case <-d.ctx.Done():
		return nil, nil, peer.ErrNotHeld
	case <-ctx.Done():
		d.inbox.do(func() { d.leave(req, w) })
		return nil, nil, ctx.Err()
	}
	served := func(sent int64) {
		d.counts.uploaded.Add(sent)
		d.inbox.post(swarm.Served{Request: req, Bytes: sent})
	}
	g := d.generation()
	if g == nil {
		served(0)
		return nil, nil, peer.ErrNotHeld
	}
	return &content{d: d, g: g}, served, nil
}

// answer carries out Serve and Refuse.
func (d *download) answer(req swarm.Request, serve bool) {
	if w := d.waiters[req]; w != nil {
		delete(d.waiters, req)
		w.answer <- serve
	}
}

// leave ends a request that went away before its turn came.
func (d *download) leave(req swarm.Request, w *waiter) {
	w.gone = true
	served := false
	if d.waiters[req] == w {
		delete(d.waiters, req)
		served = true
	} else {
		select {
		case served = <-w.answer: // its turn had come just then
		default:
		}
	}
	if served {
		d.step(swarm.Served{Request: req})
	}
}

// content is what a download serves from: its file, before and after it has its name.
type content struct {
	d *download
	g *generation
}

func (c *content) Layout() piece.Layout { return c.g.layout }

// ReadPiece reads a stored piece, checking it again, at the pace that the download's
// own upload limit allows.
func (c *content) ReadPiece(i piece.Index, buf []byte) ([]byte, error) {
	if int(i) >= c.g.layout.Count() {
		return nil, peer.ErrNotHeld
	}
	if l := c.d.upload; l != nil {
		for left := int(c.g.layout.Length(i)); left > 0; {
			n := min(left, l.Burst())
			if err := l.WaitN(c.d.ctx, n); err != nil {
				return nil, err
			}
			left -= n
		}
	}
	if c.g.shared != nil {
		return c.g.shared.ReadPiece(i, buf)
	}
	data, err := c.g.file.ReadPiece(i, buf)
	if errors.Is(err, store.ErrDamaged) {
		c.d.damaged(i, err)
	}
	return data, err
}

// damaged takes a piece whose bytes on disk have changed back. A finished file belongs
// to its user, who may have written to it: it is served no more.
func (d *download) damaged(i piece.Index, why error) {
	if d.isSaved.Load() {
		d.log.Info("a finished file has changed on disk and is served no more", "of", d.shown(), "err", why)
		if g := d.generation(); g != nil && d.isFolder() {
			_, lost := g.layout.File(g.layout.FileOf(i))
			d.lose(lost)
			return
		}
		d.stop()
		return
	}
	d.inbox.do(func() {
		d.spoiled(i, why)
		if d.machine.Have().Has(i) {
			d.step(swarm.Unreadable{Piece: i})
		} else {
			// The store was faster than the worker that is about to tell that it has it.
			d.early[i] = true
		}
	})
}

// lose takes back a file of a finished folder, which is its user's now. The others are
// served for as long as there is one.
func (d *download) lose(file piece.Extent) {
	d.isLess.Store(true)
	d.inbox.do(func() {
		d.step(swarm.PiecesLost{Extents: []piece.Extent{file}})
		if d.machine.Have().Count() == 0 {
			d.stop()
		}
		d.node.publishSoon()
	})
}
