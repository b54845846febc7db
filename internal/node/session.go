package node

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"dragonload/internal/peer"
	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
	"dragonload/internal/swarm"
)

const (
	openWithin = 3 * time.Second // for one tracker to take a session
	minBackOff = 100 * time.Millisecond
	maxBackOff = 5 * time.Second

	// seekWithin is for a member that has taken the tracker's place to take a session: it
	// is near, and there may be others.
	seekWithin = time.Second

	// twinAfter is how many sessions must be replaced by others of this node's key before the
	// user is told: one may be its own, of which the tracker saw the end late.
	twinAfter = 2

	// awayAfter is how long no tracker may answer at the start before the user is told.
	awayAfter = 5 * time.Second
)

// session keeps one download in conversation with a tracker: with one of its room's own
// whenever one answers, and meanwhile with the members that take its place, as the
// machine orders. The fields up to the line belong to the download's loop.
type session struct {
	live    *rpc.Session       // nil while there is none
	home    bool               // it is with one of the room's own
	end     context.CancelFunc // ends the conversation over it
	seeking context.CancelFunc // ends what a SeekTracker has begun

	began    time.Time
	everLive bool // there was one
	told     bool // the machine knows that there is no tracker, or never was: checkAlone

	// ---

	ctx    context.Context
	cancel context.CancelFunc
	later  chan time.Duration // holds when the tracker wants to be asked again, if it does
	nudge  chan struct{}      // holds one if the room's own trackers are to be tried at once
	work   sync.WaitGroup
}

// openSession starts keeping a session for d.
func (d *download) openSession() *session {
	s := &session{later: make(chan time.Duration, 1), nudge: make(chan struct{}, 1), end: func() {}, seeking: func() {}, began: time.Now()}
	s.ctx, s.cancel = context.WithCancel(d.ctx)
	s.work.Go(func() { s.keep(d) })
	return s
}

// tell sends a message to the tracker; without a session it is dropped, for the next
// one begins with an Announce. Only the loop calls it.
func (s *session) tell(m swarm.ToTracker) {
	if s.live != nil {
		s.live.Send(m)
	}
}

// close ends the session, after what was told has gone out, and waits.
func (s *session) close() {
	s.cancel()
	s.work.Wait()
}

// keep tries the room's own trackers until s.ctx ends.
func (s *session) keep(d *download) {
	ctx := s.ctx
	began := time.Now()
	warned := false
	backOff := minBackOff
	again := false
	replaced := 0
	for ctx.Err() == nil {
		late := time.AfterFunc(seekAfter, d.room.seek)
		live, tracker, err := d.room.openSession(ctx, d.pool, again)
		late.Stop()
		if again = err != nil; again {
			d.room.seek()
		}
		found := false
		if err == nil {
			opened := time.Now()
			err = s.converse(ctx, d, live, piece.NodeID{})
			found = !d.room.knows(tracker)
			d.room.served(tracker)
			d.room.missed(tracker)
			warned = true // the machine warns from now on
			if time.Since(opened) > maxBackOff {
				backOff = minBackOff
			}
		}
		if refused := accessProblem(err); refused != nil && !found {
			d.abort(refused)
			return
		}
		if ctx.Err() != nil {
			return
		}
		if isSkew(err) {
			d.inbox.do(func() { d.tellSkew("the room's tracker") })
		}
		if errors.Is(err, rpc.ErrReplaced) {
			if replaced++; replaced == twinAfter {
				d.inbox.do(d.tellTwin)
			}
		}
		d.log.Info("no session with the room's tracker", "room", d.room.name, "err", err)
		if !warned && time.Since(began) >= awayAfter {
			warned = true
			d.inbox.do(func() {
				if !s.told {
					d.emitNow(Event{Warning: warning(swarm.Warn{Code: swarm.WarnTrackerAway}, "")})
				}
			})
		}
		// A little earlier or later, so that members do not come back all at once.
		wait := backOff/2 + rand.N(backOff)
		backOff = min(2*backOff, maxBackOff)
		select {
		case wait = <-s.later:
		default:
		}
		select {
		case <-time.After(wait):
		case <-s.nudge:
		case <-ctx.Done():
		}
	}
}

// queue carries out QueueTracker. Only the loop calls it.
func (s *session) queue(in time.Duration) {
	s.live, s.home = nil, false
	select {
	case s.later <- in:
	default:
	}
	s.end()
}

// seek carries out SeekTracker. Only the loop calls it.
func (s *session) seek(d *download, to swarm.PeerAddr) {
	if to.ID == (piece.NodeID{}) {
		s.hurry()
		return
	}
	s.seeking()
	ctx, cancel := context.WithCancel(s.ctx)
	s.seeking = cancel
	s.work.Go(func() {
		defer cancel()
		live, tracker, err := d.room.openSuccessor(ctx, to, d.pool)
		if err != nil {
			d.log.Info("no session with the member that takes the tracker's place", "member", to.ID, "err", err)
			d.inbox.do(func() { d.step(swarm.TrackerMissed{Member: to.ID}) })
			return
		}
		defer tracker.Close()
		defer d.room.shelf.add(to.ID, tracker)()
		err = s.converse(ctx, d, live, to.ID)
		d.log.Info("the session with the member that took the tracker's place has ended", "member", to.ID, "err", err)
	})
}

// hurry has the room's own trackers tried at once.
func (s *session) hurry() {
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}

// converse hands what the tracker says to the download until the session ends. member
// is who takes the tracker's place; zero: nobody.
func (s *session) converse(ctx context.Context, d *download, live *rpc.Session, member piece.NodeID) error {
	defer live.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.room.sessions.Add(1)
	defer d.room.sessions.Add(-1)
	if member == (piece.NodeID{}) {
		d.room.homes.Add(1)
		defer d.room.homes.Add(-1)
	}
	d.inbox.do(func() { s.begin(ctx, cancel, d, live, member) })
	defer d.inbox.do(func() {
		if s.live == live {
			s.live, s.home = nil, false
			d.step(swarm.TrackerDown{})
		}
	})
	for {
		m, err := live.Receive(ctx)
		if err != nil {
			return err
		}
		said := func() {
			if s.live == live {
				d.step(swarm.TrackerSaid{Message: m})
			}
		}
		if !d.inbox.outside(ctx, item{do: said}) {
			return ctx.Err()
		}
	}
}

// begin makes live the session of the download, in place of the one before, whose
// tracker hears that its member goes on elsewhere. Only the loop calls it.
func (s *session) begin(ctx context.Context, cancel context.CancelFunc, d *download, live *rpc.Session, member piece.NodeID) {
	home := member == (piece.NodeID{})
	if !home && s.home || ctx.Err() != nil {
		cancel() // the room's own was reached meanwhile, or another is sought
		return
	}
	if s.live != nil {
		s.live.Send(swarm.Leave{Moved: true})
		s.end()
	}
	if home {
		s.seeking()
		select {
		case <-s.later: // of a session that had ended by then
		default:
		}
	}
	s.live, s.home, s.end, s.seeking, s.everLive = live, home, cancel, func() {}, true
	if list := d.room.removals(); list != nil {
		live.SendRemovals(list)
	}
	if home {
		d.room.shelf.reconnect() // it may know nothing any more
	}
	d.step(swarm.TrackerUp{Member: member})
}

// isSkew reports whether err says that the other side speaks another version of the
// protocol.
func isSkew(err error) bool {
	return errors.Is(err, rpc.ErrVersion) || errors.Is(err, peer.ErrVersion) || errors.Is(room.RefusedBy(err), room.ErrVersion)
}

// tellSkew tells the user, once, of a side that cannot be talked to. It belongs to the
// loop.
func (d *download) tellSkew(who string) {
	if slices.Contains(d.skewed, who) || len(d.skewed) >= 16 {
		return
	}
	d.skewed = append(d.skewed, who)
	d.warn("version-skew", who+" speaks another version of dragonload's protocol and is not used; update the older of the two (dragonload version tells this one's); the download goes on without it")
}

// tellTwin tells the user that another machine has this one's key. It belongs to the loop.
func (d *download) tellTwin() {
	d.warn("key-in-use", "another machine uses this one's key in the room, as it is when one was copied from the other; "+
		"the tracker and the members talk with one of the two at a time, so both are slow; "+
		"on one of them stop dragonload, move its state folder away and join the room with a new invite")
}

// accessProblem returns the problem that ends a download if err says that this node
// is not let into its room any more; else nil.
func accessProblem(err error) *Error {
	var known *Error
	var refused *rpc.Refusal
	switch {
	case errors.As(err, &known) && known.Exit == ExitRoom:
		return known
	case errors.Is(err, rpc.ErrRemoved), errors.Is(err, room.ErrRemoved):
		return errRemoved
	case errors.As(err, &refused) && refused.Access():
		return problem(refused.Word(), ExitRoom, refused)
	case errors.Is(room.RefusedBy(err), room.ErrNotMember):
		return problem(rpc.ErrNotMember.Word(), ExitRoom, rpc.ErrNotMember)
	}
	return nil
}
