package node

import (
	"context"
	"fmt"
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
	left := deserted{d: d, seen: make(map[piece.NodeID]bool)}
	if d.want.giver != (piece.NodeID{}) {
		left.seen[d.want.giver] = true // it may be gone before the first look
	}
	for wait := meetFirst; ; wait = min(2*wait, meetLast) {
		if met, ok := d.neighbours(); !ok {
			return
		} else if len(met) < enoughMet || left.stands() {
			holders, err := d.meetSome(met)
			if err == nil && left.note(holders) {
				wait = meetFirst // it may be over soon
			}
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

func (d *download) meetSome(met []piece.NodeID) (holders []catalogue.Holder, err error) {
	err = d.room.ask(d.ctx, func(ctx context.Context, t *rpc.Tracker) (err error) {
		holders, err = t.Holders(ctx, d.want.id, 0)
		return err
	})
	if err != nil {
		d.log.Debug("the catalogue was not asked for holders", "err", err)
		return nil, err
	}
	left := enoughMet - len(met)
	for _, h := range holders {
		if left == 0 {
			break
		}
		if h.ID == d.room.self || h.Addr == "" || slices.Contains(met, h.ID) {
			continue
		}
		left--
		d.room.open(d, swarm.PeerAddr{ID: h.ID, Addr: h.Addr})
	}
	return holders, nil
}

// desertedAfter is how often in a row the catalogue must name nobody who has all, and nothing
// come meanwhile, before a content is taken for one that nobody offers any more. Others that
// are in the middle of it, too, are nobody to wait for if something is with none of them.
const desertedAfter = 3

// deserted notices that nobody offers any more what is being downloaded.
type deserted struct {
	d     *download
	seen  map[piece.NodeID]bool // who held it at any time
	empty int                   // times in a row that nobody had all, and nothing came
	have  int64
	told  bool
}

// stands reports whether nothing has come since the last look.
func (s *deserted) stands() bool { return s.now() == s.have }

// now returns how much is here.
func (s *deserted) now() int64 {
	if p := s.d.latest.Load(); p != nil {
		return p.Have
	}
	return 0
}

// note takes in what the catalogue has answered. It reports whether another look is due soon.
func (s *deserted) note(holders []catalogue.Holder) bool {
	whole := false
	for _, h := range holders {
		whole = whole || !h.Partial
		if len(s.seen) < catalogue.MaxHolders {
			s.seen[h.ID] = true
		}
	}
	have := s.now()
	if s.empty++; whole || have != s.have || len(holders) > 0 && !s.d.somethingNowhere() {
		s.empty = 0
	}
	s.have = have
	again := len(holders) == 0 || s.empty > 0 && s.empty <= desertedAfter
	if s.empty < desertedAfter || len(s.seen) == 0 || !s.d.addresses.hopeless(s.d.counts.origin.Load() == 0) {
		return again
	}
	d, name := s.d, s.d.want.String()
	if now, ok := s.successor(name); ok {
		how := "with another name for --output, or with --restart --overwrite to have it in the place of what came"
		if d.isFolder() {
			how = "again, with --overwrite if what came is in its way; what is the same in both is not fetched again"
		}
		d.inbox.do(func() {
			d.fail(problem("share-changed", ExitChanged, fmt.Errorf("%s has changed at who shares it, and nobody offers any more what was begun; %s; "+
				"%s is %x now: run dragonload get --room %s %x %s",
				name, d.kept(), name, now, d.room.name, now, how)))
			d.drain()
		})
	} else if !s.told && len(holders) == 0 {
		s.told = true
		d.inbox.do(func() {
			d.warn("nobody-offers", fmt.Sprintf("nobody in %s offers %s any more; waiting until somebody does%s", d.room.name, name, d.notAsked))
		})
	}
	return again
}

// somethingNowhere reports whether something is lacking that no neighbour holds.
func (d *download) somethingNowhere() bool {
	answer := make(chan bool, 1)
	d.inbox.do(func() { answer <- d.machine.SomethingNowhere() })
	select {
	case is := <-answer:
		return is
	case <-d.ctx.Done():
		return false
	}
}

// successor returns what somebody who held the content shares now under its name.
func (s *deserted) successor(name string) (id [32]byte, found bool) {
	all, err := s.d.room.search(s.d.ctx, catalogue.Query{Name: name, Limit: catalogue.MaxSameName})
	if err != nil {
		return id, false
	}
	for _, f := range all {
		if f.Received || f.Entry.Manifest == s.d.want.id {
			continue
		}
		for _, h := range f.By {
			if s.seen[h.ID] {
				return f.Entry.Manifest, true
			}
		}
	}
	return id, false
}
