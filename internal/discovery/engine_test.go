package discovery

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// lan is a network as the machine with this address sees it.
func lan(addr string) []iface {
	return []iface{{index: 3, name: "lan", nets: []netip.Prefix{netip.MustParsePrefix(addr)}}}
}

func engineAt(t *testing.T, addr string, seed byte, rooms ...Room) *engine {
	t.Helper()
	e := newEngine(lan(addr), rand.NewChaCha8([32]byte{seed}), rand.New(rand.NewPCG(1, uint64(seed))))
	if err := e.announce(at, rooms, netip.MustParseAddrPort("0.0.0.0:4100")); err != nil {
		t.Fatal(err)
	}
	return e
}

// runs steps e until an instant and returns what it sent, with the times.
func (e *engine) runs(t *testing.T, until time.Time) (sent []message, times []time.Time) {
	t.Helper()
	for {
		next, ok := e.next()
		if !ok || next.After(until) {
			return sent, times
		}
		if err := e.due(next); err != nil {
			t.Fatal(err)
		}
		out, _ := e.take()
		for _, p := range out {
			m, err := parse(p.data)
			if err != nil {
				t.Fatal(err)
			}
			sent, times = append(sent, m), append(times, next)
		}
	}
}

// announced returns an announcement as a node at an address would send it.
func announced(t *testing.T, addr string, seed byte, rooms ...Room) []byte {
	t.Helper()
	e := engineAt(t, addr, seed, rooms...)
	if err := e.due(at); err != nil {
		t.Fatal(err)
	}
	out, _ := e.take()
	if len(out) != 1 {
		t.Fatalf("%d packets announce a node", len(out))
	}
	return out[0].data
}

func TestEngine_announcesItselfAndSaysGoodbye(t *testing.T) {
	t.Parallel()
	e := engineAt(t, "192.168.1.7/24", 1, roomOf(1))
	sent, times := e.runs(t, at.Add(time.Minute))
	if len(sent) != announceTimes || times[1].Sub(times[0]) != announceEvery {
		t.Fatalf("sent %d packets at %v", len(sent), times)
	}
	before := sent[0].announcements[0]
	if before.addrs[0] != netip.MustParseAddr("192.168.1.7") || before.beacon.port != 4100 {
		t.Errorf("announced %+v", before)
	}

	// Later it has other names, and takes leave of the old ones.
	sent, _ = e.runs(t, at.Add(2*rotateAfter+time.Minute))
	if len(sent) < 2 || !sent[0].announcements[0].gone || sent[0].announcements[0].id != before.id {
		t.Fatalf("no goodbye to %s: %+v", before.id, sent)
	}
	after := sent[1].announcements[0]
	if after.id == before.id || after.beacon.salt == before.beacon.salt {
		t.Errorf("after %s the name is still %s", 2*rotateAfter, after.id)
	}

	// In no room any more, it is silent.
	if err := e.announce(at.Add(time.Hour), nil, netip.AddrPort{}); err != nil {
		t.Fatal(err)
	}
	if out, _ := e.take(); len(out) != 1 {
		t.Errorf("%d packets say goodbye", len(out))
	}
	if _, ok := e.next(); ok {
		t.Error("something is still to be done")
	}
}

func TestEngine_isNotAnnouncedWhereItDoesNotListen(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]int{"0.0.0.0:4100": 1, "[::]:4100": 1, "192.168.1.7:4100": 1, "127.0.0.1:4100": 0, "10.0.0.1:4100": 0} {
		e := newEngine(lan("192.168.1.7/24"), randomness(), rand.New(rand.NewPCG(1, 1)))
		if err := e.announce(at, []Room{roomOf(1)}, netip.MustParseAddrPort(listen)); err != nil {
			t.Fatal(err)
		}
		if err := e.due(at); err != nil {
			t.Fatal(err)
		}
		if out, _ := e.take(); len(out) != want {
			t.Errorf("listening at %s: %d packets, want %d", listen, len(out), want)
		}
	}
}

func TestEngine_findsMembersOfItsRooms(t *testing.T) {
	t.Parallel()
	from := netip.MustParseAddrPort("192.168.1.8:5353")
	tracked := Room{ID: roomOf(1).ID, Tracker: true}
	here := netip.MustParseAddrPort("192.168.1.8:4100")
	for _, c := range []struct {
		name  string
		data  []byte
		from  string
		index int
		want  []Found
	}{
		{"a member", announced(t, "192.168.1.8/24", 2, roomOf(1)), from.String(), 3, []Found{{Room: roomOf(1).ID, Addr: here}}},
		{"the tracker", announced(t, "192.168.1.8/24", 2, tracked), from.String(), 3, []Found{{Room: roomOf(1).ID, Addr: here, Tracker: true}}},
		{"where the system does not tell the network", announced(t, "192.168.1.8/24", 2, roomOf(1)), from.String(), 0, []Found{{Room: roomOf(1).ID, Addr: here}}},
		{"by a repeater between networks", announced(t, "10.9.9.9/8", 2, roomOf(1)), "192.168.1.1:5353", 3, []Found{{Room: roomOf(1).ID, Addr: netip.MustParseAddrPort("10.9.9.9:4100")}}},
		{"a stranger", announced(t, "192.168.1.8/24", 2, roomOf(2)), from.String(), 3, nil},
		{"from elsewhere", announced(t, "192.168.1.8/24", 2, roomOf(1)), "8.8.8.8:5353", 3, nil},
		{"from another network's card", announced(t, "192.168.1.8/24", 2, roomOf(1)), from.String(), 4, nil},
		{"not from the port of multicast DNS", announced(t, "192.168.1.8/24", 2, roomOf(1)), "192.168.1.8:999", 3, nil},
		{"one that names an address in the internet", announced(t, "8.8.8.8/24", 2, roomOf(1)), from.String(), 3, nil},
		{"one that names this machine", announced(t, "192.168.1.7/24", 2, roomOf(1)), from.String(), 3, nil},
		{"one that names the loopback", announced(t, "127.0.0.1/8", 2, roomOf(1)), from.String(), 3, nil},
		{"another on this machine", announced(t, "192.168.1.7/24", 2, roomOf(1)), "192.168.1.7:5353", 3, []Found{{Room: roomOf(1).ID, Addr: netip.MustParseAddrPort("192.168.1.7:4100")}}},
		{"itself", announced(t, "192.168.1.7/24", 1, roomOf(1)), "192.168.1.7:5353", 3, nil},
		{"noise", []byte("noise"), from.String(), 3, nil},
	} {
		e := engineAt(t, "192.168.1.7/24", 1, roomOf(1))
		e.received(at, c.data, netip.MustParseAddrPort(c.from), c.index)
		if _, found := e.take(); !slices.Equal(found, c.want) {
			t.Errorf("%s: found %v, want %v", c.name, found, c.want)
		}
	}
}

// TestEngine_asksLessAndLess: while a room is sought the question is asked, at growing
// intervals; what is known is told again each time, and not asked for.
func TestEngine_asksLessAndLess(t *testing.T) {
	t.Parallel()
	e := engineAt(t, "192.168.1.7/24", 1, roomOf(1))
	e.runs(t, at.Add(time.Minute)) // its announcements
	now := at.Add(time.Minute)
	e.received(now, announced(t, "192.168.1.8/24", 2, roomOf(1)), netip.MustParseAddrPort("192.168.1.8:5353"), 3)
	_, found := e.take()
	if len(found) != 1 {
		t.Fatalf("found %v", found)
	}
	var asked []time.Duration
	for k := range 600 {
		second := now.Add(time.Duration(k) * time.Second)
		e.seek(second, roomOf(1).ID)
		if _, again := e.take(); k > 0 && k < 10 && (len(again) == 1) != (k%2 == 0) {
			t.Errorf("after %d s %d addresses were told", k, len(again))
		}
		sent, times := e.runs(t, second.Add(time.Second-1))
		for i, m := range sent {
			if m.question != serviceName {
				continue
			}
			asked = append(asked, times[i].Sub(now).Round(time.Second))
			if knows := slices.Contains(m.known, found0(e)); knows != (times[i].Sub(now) < recordTTL/2*time.Second) {
				t.Errorf("after %s the question names what is known: %v", times[i].Sub(now), m.known)
			}
		}
	}
	var want []time.Duration
	for _, seconds := range []int{0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363, 423, 483, 543} {
		want = append(want, time.Duration(seconds)*time.Second)
	}
	if !slices.Equal(asked, want) {
		t.Errorf("asked after %v, want %v", asked, want)
	}
	if _, ok := e.nodes[""]; ok || len(e.found) > 0 {
		t.Error("something was found that was not there")
	}
	// Not sought any more, it is not asked for.
	if sent, _ := e.runs(t, now.Add(600*time.Second+soughtFor+maxAsk)); len(sent) > 1 {
		t.Errorf("sent %d packets when nobody was sought", len(sent))
	}
}

// found0 returns the id of the one node that e knows.
func found0(e *engine) string {
	for id := range e.nodes {
		return id
	}
	return ""
}

func TestEngine_answersOnceASecond(t *testing.T) {
	t.Parallel()
	e := engineAt(t, "192.168.1.7/24", 1, roomOf(1))
	e.runs(t, at.Add(time.Minute))
	now := at.Add(time.Minute)
	question, err := encodeQuestion(nil)
	if err != nil {
		t.Fatal(err)
	}
	from := netip.MustParseAddrPort("192.168.1.8:5353")
	var times []time.Time
	for k := range 40 {
		at := now.Add(time.Duration(k) * 100 * time.Millisecond)
		e.received(at, question, from, 3)
		sent, when := e.runs(t, at.Add(100*time.Millisecond-1))
		for i, m := range sent {
			if len(m.announcements) != 1 || m.announcements[0].id != e.names.id {
				t.Errorf("answered %+v", m)
			}
			times = append(times, when[i])
		}
	}
	if len(times) != 4 || times[0].Sub(now) < answerAfter || times[0].Sub(now) > answerAfter+answerWait {
		t.Errorf("answered after %v", times)
	}
	for k := 1; k < len(times); k++ {
		if times[k].Sub(times[k-1]) < answerEvery {
			t.Errorf("two answers within %s", times[k].Sub(times[k-1]))
		}
	}
	// Who knows this node already gets no answer, nor who asks for another.
	e.runs(t, now.Add(time.Minute))
	now = now.Add(time.Minute)
	known, err := encodeQuestion([]string{e.names.id})
	if err != nil {
		t.Fatal(err)
	}
	e.received(now, known, from, 3)
	if sent, _ := e.runs(t, now.Add(time.Second)); len(sent) != 0 {
		t.Errorf("answered %+v", sent)
	}
}

func TestEngine_forgetsWhoIsGone(t *testing.T) {
	t.Parallel()
	e := engineAt(t, "192.168.1.7/24", 1, roomOf(1))
	from := netip.MustParseAddrPort("192.168.1.8:5353")
	other := engineAt(t, "192.168.1.8/24", 2, roomOf(1))
	if err := other.due(at); err != nil {
		t.Fatal(err)
	}
	other.withdraw()
	out, _ := other.take()
	e.received(at, out[0].data, from, 3)
	if _, found := e.take(); len(found) != 1 {
		t.Fatalf("found %v", found)
	}
	e.received(at.Add(time.Second), out[1].data, from, 3)
	e.seek(at.Add(time.Minute), roomOf(1).ID)
	if _, found := e.take(); len(found) != 0 || len(e.nodes) != 0 {
		t.Errorf("found %v after its goodbye", found)
	}
	e.received(at, out[0].data, from, 3)
	e.take()
	e.seek(at.Add(recordTTL*time.Second), roomOf(1).ID)
	if _, found := e.take(); len(found) != 0 {
		t.Errorf("found %v when its time was over", found)
	}
}

// TestEngine_keepsItsBounds: however many announce themselves, of which only those of our
// rooms count, and however much is sought.
func TestEngine_keepsItsBounds(t *testing.T) {
	t.Parallel()
	e := engineAt(t, "192.168.1.7/16", 1, roomOf(1))
	for k := range 3 * maxFound {
		addr := netip.AddrFrom4([4]byte{192, 168, byte(2 + k/200), byte(1 + k%200)})
		room := roomOf(1)
		if k%3 == 0 {
			room = roomOf(2)
		}
		b := engineAt(t, addr.String()+"/16", 0, room)
		b.random = rand.NewChaCha8([32]byte{9, byte(k), byte(k >> 8)})
		if err := b.rotate(at); err != nil {
			t.Fatal(err)
		}
		b.take()
		if err := b.due(at); err != nil {
			t.Fatal(err)
		}
		out, _ := b.take()
		e.received(at.Add(time.Duration(k)*time.Millisecond), out[0].data, netip.AddrPortFrom(addr, 5353), 3)
		if len(e.nodes) > maxFound {
			t.Fatalf("%d nodes are remembered", len(e.nodes))
		}
		e.seek(at, [32]byte{byte(k), byte(k >> 8)})
	}
	if len(e.nodes) != maxFound || len(e.sought) > maxTags {
		t.Errorf("%d nodes are remembered, %d rooms sought", len(e.nodes), len(e.sought))
	}
}
