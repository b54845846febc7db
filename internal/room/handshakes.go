package room

import (
	"net/netip"
	"slices"
	"sync"
)

// handshakes bounds how many connections are in their handshake, in all and from one
// source. A new one takes the place of an old one: a member needs it for some
// milliseconds, and whoever opens connections and says nothing must not keep members out,
// from however many addresses.
type handshakes struct {
	limit, perSource int

	mu     sync.Mutex
	inside int
	from   map[netip.Addr][]*handshake // the oldest first
}

// handshake is a place that a connection has.
type handshake struct {
	from netip.Addr
	end  func() // closes the connection
}

func newHandshakes(limit, perSource int) *handshakes {
	return &handshakes{limit: limit, perSource: perSource, from: make(map[netip.Addr][]*handshake)}
}

// enter takes a place for a connection that end closes. Where there is none the oldest of
// the same source, or of the source with the most, loses its own.
func (h *handshakes) enter(source netip.Addr, end func()) *handshake {
	one := &handshake{source, end}
	h.mu.Lock()
	var late *handshake
	switch {
	case len(h.from[source]) >= h.perSource:
		late = h.from[source][0]
	case h.inside >= h.limit:
		late = h.from[h.most()][0]
	}
	if late != nil {
		h.remove(late)
	}
	h.from[source] = append(h.from[source], one)
	h.inside++
	h.mu.Unlock()
	if late != nil {
		late.end()
	}
	return one
}

// most returns the source with the most handshakes.
func (h *handshakes) most() (source netip.Addr) {
	count := 0
	for one, all := range h.from {
		if len(all) > count {
			source, count = one, len(all)
		}
	}
	return source
}

// leave gives the place back.
func (h *handshakes) leave(one *handshake) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.remove(one)
}

// remove takes a handshake away that is still there. It needs h.mu.
func (h *handshakes) remove(one *handshake) {
	all := h.from[one.from]
	k := slices.Index(all, one)
	if k < 0 {
		return
	}
	h.inside--
	if len(all) == 1 {
		delete(h.from, one.from)
		return
	}
	h.from[one.from] = slices.Delete(all, k, k+1)
}
