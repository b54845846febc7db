package node

import (
	"slices"
	"time"

	"dragonload/internal/catalogue"
	"dragonload/internal/piece"
	"dragonload/internal/rpc"
	"dragonload/internal/swarm"
)

const (
	// enoughMet is how many neighbours a download has that looks for no more holders: from
	// then on the tracker's handouts and theirs are enough.
	enoughMet = 8

	// The catalogue is asked again after meetFirst, then after twice that, up to meetLast,
	// while there are fewer.
	meetFirst = time.Second
	meetLast  = 30 * time.Second
)

// meetHolders opens the pool of a manifest's download with members that hold the content
// and are not in it: who shares something opens its pool when it is asked for it.
func (d *download) meetHolders() {
	for wait := meetFirst; ; wait = min(2*wait, meetLast) {
		if met, ok := d.neighbours(); !ok {
			return
		} else if len(met) < enoughMet {
			d.meetSome(met)
		}
		select {
		case <-time.After(wait):
		case <-d.ctx.Done():
			return
		}
	}
}

// neighbours returns who is up; false once no more are needed.
func (d *download) neighbours() ([]piece.NodeID, bool) {
	if d.isSaved.Load() {
		return nil, false
	}
	answer := make(chan []piece.NodeID, 1)
	d.inbox.do(func() {
		var ids []piece.NodeID
		for id := range d.links {
			ids = append(ids, id)
		}
		answer <- ids
	})
	select {
	case ids := <-answer:
		return ids, true
	case <-d.ctx.Done():
		return nil, false
	}
}

func (d *download) meetSome(met []piece.NodeID) {
	var holders []catalogue.Holder
	err := d.room.ask(d.ctx, func(t *rpc.Tracker) (err error) {
		holders, err = t.Holders(d.ctx, d.want.id, 0)
		return err
	})
	if err != nil {
		d.log.Debug("the catalogue was not asked for holders", "err", err)
		return
	}
	left := enoughMet - len(met)
	for _, h := range holders {
		if left == 0 {
			return
		}
		if h.ID == d.room.self || h.Addr == "" || slices.Contains(met, h.ID) {
			continue
		}
		left--
		d.room.open(d, swarm.PeerAddr{ID: h.ID, Addr: h.Addr})
	}
}
