package tracker

import (
	"sync"

	"dragonload/internal/rpc"
	"dragonload/internal/swarm"
)

// maxHosted bounds the pools in which this node takes the tracker's place.
const maxHosted = 1024

// hosted are the pools of rooms with a tracker of their own in which this node takes its
// place while it is away: whoever is a member of the room may have a session about
// them. All else that a tracker does, which needs the room's key or durable facts, is
// refused: only the room's own can do it.
type hosted struct {
	mu    sync.Mutex
	pools map[swarm.PoolID]bool // as poolIn gives them
	rooms map[[32]byte]int      // how many of them
}

// Host makes this node the tracker of a pool, until Unhost: swarm.HostTracker. It
// reports false if it has enough of them, or is not in the room.
func (s *Service) Host(room [32]byte, pool swarm.PoolID) bool {
	if _, in := s.opts.Rooms.Get(room); !in {
		return false
	}
	h, in := &s.hosted, poolIn(room, pool)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pools[in] || len(h.pools) >= maxHosted {
		return h.pools[in]
	}
	if h.pools == nil {
		h.pools, h.rooms = make(map[swarm.PoolID]bool), make(map[[32]byte]int)
	}
	h.pools[in] = true
	h.rooms[room]++
	return true
}

// Unhost ends that, and the sessions about the pool.
func (s *Service) Unhost(room [32]byte, pool swarm.PoolID) {
	h, in := &s.hosted, poolIn(room, pool)
	h.mu.Lock()
	was := h.pools[in]
	if was {
		delete(h.pools, in)
		if h.rooms[room]--; h.rooms[room] == 0 {
			delete(h.rooms, room)
		}
	}
	h.mu.Unlock()
	if was {
		s.present.cutPool(in, rpc.ErrTrackerMoved)
	}
}

// any reports whether a pool of the room is hosted here.
func (h *hosted) any(room [32]byte) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rooms[room] > 0
}

func (h *hosted) has(pool swarm.PoolID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pools[pool]
}
