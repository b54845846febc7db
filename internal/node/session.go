package node

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"dragonload/internal/room"
	"dragonload/internal/rpc"
	"dragonload/internal/swarm"
)

const (
	openWithin = 3 * time.Second // for one tracker to take a session
	minBackOff = 100 * time.Millisecond
	maxBackOff = 5 * time.Second

	// awayAfter is how long no tracker may answer at the start before the user is told.
	awayAfter = 5 * time.Second
)

// session keeps one download in conversation with a tracker of its room: when a
// session ends it opens another, at the next address that answers.
type session struct {
	live *rpc.Session // nil while there is none; belongs to the download's loop

	cancel context.CancelFunc
	work   sync.WaitGroup
}

// openSession starts keeping a session for d.
func (d *download) openSession() *session {
	ctx, cancel := context.WithCancel(d.ctx)
	s := &session{cancel: cancel}
	s.work.Go(func() { s.keep(ctx, d) })
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

// keep runs until ctx ends.
func (s *session) keep(ctx context.Context, d *download) {
	began := time.Now()
	warned := false
	backOff := minBackOff
	for ctx.Err() == nil {
		live, err := d.room.openSession(ctx, d.pool)
		if err == nil {
			opened := time.Now()
			err = s.converse(ctx, d, live)
			warned = true // the machine warns from now on
			if time.Since(opened) > maxBackOff {
				backOff = minBackOff
			}
		}
		if refused := accessProblem(err); refused != nil {
			d.abort(refused)
			return
		}
		if ctx.Err() != nil {
			return
		}
		d.log.Info("no session with the room's tracker", "room", d.room.name, "err", err)
		if !warned && time.Since(began) >= awayAfter {
			warned = true
			d.inbox.do(func() { d.emitNow(Event{Warning: warning(swarm.Warn{Code: swarm.WarnTrackerAway}, "")}) })
		}
		// A little earlier or later, so that members do not come back all at once.
		wait := backOff/2 + rand.N(backOff)
		backOff = min(2*backOff, maxBackOff)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// converse hands what the tracker says to the download until the session ends.
func (s *session) converse(ctx context.Context, d *download, live *rpc.Session) error {
	defer live.Close()
	d.room.sessions.Add(1)
	defer d.room.sessions.Add(-1)
	d.inbox.do(func() {
		if list := d.room.removals(); list != nil {
			live.SendRemovals(list)
		}
		s.live = live
		d.step(swarm.TrackerUp{})
	})
	defer d.inbox.do(func() {
		s.live = nil
		d.step(swarm.TrackerDown{})
	})
	for {
		m, err := live.Receive(ctx)
		if err != nil {
			return err
		}
		if !d.inbox.outside(ctx, item{event: swarm.TrackerSaid{Message: m}}) {
			return ctx.Err()
		}
	}
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
