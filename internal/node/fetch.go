package node

import (
	"context"
	"errors"

	"dragonload/internal/peer"
	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// errWrong ends a request whose answer cannot be trusted any further.
var errWrong = errors.New("the bytes do not match their digest")

// errNoAddress: it is not known where the neighbour is reached.
var errNoAddress = errors.New("the neighbour's address is not known")

// maxWrong is how many wrong pieces of one answer are read before it is broken off.
const maxWrong = 2

// fetchPeer carries out FetchPeer: one request to a neighbour for pieces whose
// digests are known. Nothing is stored that does not match.
func (d *download) fetchPeer(ctx context.Context, g *generation, a swarm.FetchPeer) {
	digests := make(map[piece.Index]piece.Digest, len(a.Pieces))
	for k, i := range a.Pieces {
		digests[i] = a.Digests[k]
	}
	var wrong []piece.Index
	var broken error // of our own disk
	got := func(i piece.Index, data []byte) error {
		d.counts.peer.Add(int64(len(data)))
		want, asked := digests[i]
		if !asked {
			return errWrong
		}
		if int64(len(data)) != g.layout.Length(i) || g.layout.Sum(i, data) != want {
			if wrong = append(wrong, i); len(wrong) >= maxWrong {
				return errWrong
			}
			return nil
		}
		if broken = d.write(ctx, g, i, data, want, false); broken != nil {
			return broken
		}
		d.dropHead(i)
		d.inbox.post(swarm.PeerStored{Request: a.Request, Piece: i})
		return nil
	}
	moved := func() { d.inbox.post(swarm.PeerMoved{Request: a.Request}) }
	addr, ok := d.room.address(a.Peer)
	var err error
	if !ok {
		err = errNoAddress
	} else if err = d.rest(ctx); err == nil {
		err = d.peers.Fetch(ctx, addr, a.Peer, d.pool, g.layout, a.Pieces, moved, got)
	}
	if broken != nil && !errors.Is(broken, errSuperseded) && ctx.Err() == nil {
		d.abort(storeProblem(broken))
	}
	if err != nil && ctx.Err() == nil {
		if errors.Is(err, peer.ErrBroken) || errors.Is(err, peer.ErrSilent) {
			d.room.unreachable(a.Peer)
		}
		d.log.Info("peer request ended", "peer", a.Peer, "err", err)
	}
	d.inbox.post(swarm.PeerEnded{Request: a.Request, Wrong: wrong, Failed: err != nil && ctx.Err() == nil, Silent: errors.Is(err, peer.ErrSilent)})
}
