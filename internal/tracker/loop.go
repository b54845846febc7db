package tracker

import (
	"context"
	"log/slog"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/rpc"
	"dragonload/internal/swarm"
)

// shard is one event loop and the pools that it decides about. Everything but heard
// belongs to the loop's goroutine.
type shard struct {
	heard chan heard

	machine  *swarm.Tracker
	board    *board
	sessions map[seat]*session
	zero     time.Time // Instant 0, on the monotonic clock
	log      *slog.Logger

	out  []swarm.TrackerAction // reused
	gone []seat                // whose sessions broke while actions were carried out
}

// heard is what the reader of a session hands to the loop: a message, or none when the
// session has ended. Without a session it is a pool whose URL somebody wants who lends.
type heard struct {
	session *session
	message swarm.ToTracker
	wanted  *swarm.PoolID
}

// seat is a member's place in a pool.
type seat struct {
	pool   swarm.PoolID
	member piece.NodeID
}

func newShard(machine *swarm.Tracker, board *board, zero time.Time, log *slog.Logger) *shard {
	return &shard{
		heard:    make(chan heard, shardQueue),
		machine:  machine,
		board:    board,
		sessions: make(map[seat]*session),
		zero:     zero,
		log:      log,
	}
}

// run drives the machine until ctx ends.
func (sh *shard) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var armed swarm.Instant // what timer is set to, if set
	set := false
	for {
		at, ok := sh.machine.Deadline()
		switch {
		case !ok && set:
			timer.Stop()
		case ok && (!set || at != armed):
			timer.Reset(max(at.Sub(sh.now()), 0))
		}
		armed, set = at, ok
		select {
		case h := <-sh.heard:
			sh.take(h)
		case <-timer.C:
			set = false
			sh.step(nil)
		case <-ctx.Done():
			return
		}
	}
}

func (sh *shard) now() swarm.Instant { return swarm.Instant(time.Since(sh.zero)) }

// take takes in what a session's reader has to tell.
func (sh *shard) take(h heard) {
	if h.wanted != nil {
		sh.step(swarm.SourceWanted{Pool: *h.wanted})
		return
	}
	s := h.session
	at := seat{s.pool, s.member}
	switch {
	case s.over:
		// It was replaced, cut or left before; the machine knows.
		return
	case h.message == nil:
		s.over = true
		if s.announced {
			delete(sh.sessions, at)
			sh.step(swarm.MemberGone{Pool: at.pool, Member: at.member})
		}
		return
	case !s.announced:
		if old := sh.sessions[at]; old != nil {
			old.over = true
			old.cut(rpc.ErrReplaced)
		}
		s.announced = true
		sh.sessions[at] = s
	}
	sh.step(swarm.MemberSaid{Pool: at.pool, Member: at.member, Message: h.message})
	if _, ok := h.message.(swarm.Leave); ok && !s.over {
		s.over = true
		delete(sh.sessions, at)
	}
}

// step hands one event to the machine and carries out what it orders, also about the
// sessions that break by that.
func (sh *shard) step(ev swarm.TrackerEvent) {
	sh.one(ev)
	for len(sh.gone) > 0 {
		at := sh.gone[0]
		sh.gone = sh.gone[1:]
		sh.one(swarm.MemberGone{Pool: at.pool, Member: at.member})
	}
	sh.gone = nil
}

func (sh *shard) one(ev swarm.TrackerEvent) {
	var wanted []swarm.PoolID
	sh.out = sh.machine.Step(sh.now(), ev, sh.out[:0])
	for _, action := range sh.out {
		switch a := action.(type) {
		case swarm.TellMember:
			sh.tell(seat{a.Pool, a.Member}, a.Message)
		case swarm.CutMember:
			at := seat{a.Pool, a.Member}
			if s := sh.sessions[at]; s != nil {
				sh.log.Debug("member cut", "member", s.member)
				s.over = true
				delete(sh.sessions, at)
				s.cut(rpc.ErrCut)
			}
		case swarm.HelpWelcome:
			if !a.Welcome {
				sh.board.unwelcome(a.Pool)
			} else if s := sh.sessions[seat{a.Pool, a.By}]; s != nil && sh.board.welcome(s.room, s.pool, s.named) {
				wanted = append(wanted, a.Pool)
			}
		case swarm.Offer:
			sh.board.offer(a.Pool, a.By, a.URL)
		}
	}
	clear(sh.out) // what was said is not to be kept alive
	for _, pool := range wanted {
		sh.one(swarm.SourceWanted{Pool: pool})
	}
}

func (sh *shard) tell(at seat, m swarm.ToNode) {
	s := sh.sessions[at]
	if s == nil {
		return
	}
	select {
	case s.out <- rpc.EncodeToNode(m):
		if _, ok := m.(swarm.ComeBack); ok {
			// It is to open another session; in this one nothing more is heard.
			s.over = true
			delete(sh.sessions, at)
		}
	default:
		sh.log.Debug("member does not read what it is told", "member", s.member)
		s.over = true
		delete(sh.sessions, at)
		s.cut(rpc.ErrTooMany)
		sh.gone = append(sh.gone, at)
	}
}
