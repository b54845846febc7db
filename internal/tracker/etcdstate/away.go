package etcdstate

import (
	"context"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"dragonload/internal/tracker"
)

const (
	// soonWithin is for what a member waits for while its session is opened, and what can
	// do without etcd: less than the member waits for a tracker.
	soonWithin = 1500 * time.Millisecond
	// lookEvery is how often a cluster that did not answer is looked for.
	lookEvery = 500 * time.Millisecond
	// lookWithin bounds one look.
	lookWithin = time.Second
)

// ErrAway says that etcd does not answer, or has no majority: nothing durable can be
// changed until it does. It is a tracker.ErrAway.
var ErrAway error = awayError{}

type awayError struct{}

func (awayError) Error() string        { return "etcd cannot be reached, or has no majority" }
func (awayError) Is(target error) bool { return target == tracker.ErrAway }

// absence is what is known of whether the cluster answers, so that not every call has to
// find out.
type absence struct {
	mu    sync.Mutex // guards what follows
	since time.Time  // zero: it answered the last call
	begun chan struct{}
}

func (a *absence) is() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.since.IsZero()
}

// missed notes that a call was not answered.
func (s *State) missed() {
	s.absent.mu.Lock()
	defer s.absent.mu.Unlock()
	if !s.absent.since.IsZero() {
		return
	}
	s.absent.since = time.Now()
	select {
	case s.absent.begun <- struct{}{}:
	default:
	}
}

// answered notes that one was.
func (s *State) answered() {
	s.absent.mu.Lock()
	defer s.absent.mu.Unlock()
	if s.absent.since.IsZero() {
		return
	}
	s.absent.since = time.Time{}
}

// look tells at the beginning of which servers are of no use, and looks for the cluster
// while it does not answer, until ctx ends.
func (s *State) look(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for _, wrong := range s.options.examine(ctx) {
		if ctx.Err() == nil {
			s.log.Error("a server of etcd is of no use; the others are used", "err", wrong)
		}
	}
	for {
		select {
		case <-s.absent.begun:
		case <-ctx.Done():
			return
		}
		began := time.Now()
		why := s.options.explain(ctx, ErrAway)
		if ctx.Err() != nil {
			return
		}
		s.log.Error("downloads go on, but nobody can join, be removed, or offer anything new until etcd answers", "err", why)
		for s.absent.is() {
			one, cancel := context.WithTimeout(ctx, lookWithin)
			_, err := s.client.Get(one, s.prefix+"format", clientv3.WithKeysOnly())
			cancel()
			if err == nil || !away(err) {
				s.answered()
				break
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
		s.log.Error("etcd answers again", "after", time.Since(began).Round(time.Second))
	}
}

// soon is try for what a member waits for, and what can do without etcd: while it is known
// not to answer, it is not asked.
func (s *State) soon(ctx context.Context, f func(ctx context.Context) (done bool, err error)) error {
	if s.absent.is() {
		return ErrAway
	}
	return s.within(ctx, soonWithin, f)
}
