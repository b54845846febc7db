package room

import (
	"net/netip"
	"testing"
)

// Who opens connections and says nothing takes no place from others, from however many
// addresses it does so.
func TestHandshakes_whoHasTheMostMakesRoom(t *testing.T) {
	h := newHandshakes(8, 4)
	closed := make(map[netip.Addr]int)
	enter := func(addr string) *handshake {
		source := netip.MustParseAddr(addr)
		return h.enter(source, func() { closed[source]++ })
	}
	member := enter("192.0.2.1")
	for range 100 {
		for _, addr := range []string{"192.0.2.7", "192.0.2.8", "192.0.2.9"} {
			enter(addr)
		}
	}
	if h.inside != 8 || closed[member.from] > 0 {
		t.Errorf("%d are inside, want 8; the member was closed %d times", h.inside, closed[member.from])
	}
	for range 10 { // nor from its own address, where there are more of it
		enter("192.0.2.1")
	}
	if closed[member.from] == 0 || len(h.from[member.from]) > 4 {
		t.Errorf("one address has %d places, want at most 4", len(h.from[member.from]))
	}
	h.leave(member)
	h.leave(member)
	if inside := len(h.from[netip.MustParseAddr("192.0.2.1")]) + len(h.from[netip.MustParseAddr("192.0.2.7")]) +
		len(h.from[netip.MustParseAddr("192.0.2.8")]) + len(h.from[netip.MustParseAddr("192.0.2.9")]); inside != h.inside || inside != 8 {
		t.Errorf("%d are counted, %d are there", h.inside, inside)
	}
}
