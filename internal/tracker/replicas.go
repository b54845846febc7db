package tracker

import (
	"context"

	"dragonload/internal/rpc"
	"dragonload/internal/swarm"
)

// Lost ends the sessions about a pool that another replica works on, as Owners has found
// out; its members go there.
func (s *Service) Lost(pool swarm.PoolID) { s.present.cutPool(pool, rpc.ErrElsewhere) }

// disown gives the pool of a session that is over back, unless others are about it.
func (s *Service) disown(sess *session) {
	if s.opts.Owners == nil || sess.pool == (swarm.PoolID{}) {
		return
	}
	idle := func() bool { return s.present.idle(sess.pool) }
	if idle() {
		// The session's own context is over.
		s.opts.Owners.Release(context.Background(), sess.pool, idle)
	}
}
