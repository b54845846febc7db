package discovery

import (
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

const (
	// While a room is sought the question is asked after minAsk, then twice as long each
	// time, at most maxAsk.
	minAsk = time.Second
	maxAsk = time.Minute
	// soughtFor is how long a room counts as sought after it was last said to be.
	soughtFor = 15 * time.Second
	// tellEvery is between two times that one address is told for a room.
	tellEvery = 2 * time.Second

	// An answer waits for answerAfter, and at most as long again, so that those of many
	// do not meet; and there are so many a second at most (RFC 6762, section 6).
	answerAfter = 20 * time.Millisecond
	answerWait  = 100 * time.Millisecond
	answerEvery = time.Second

	// A node announces itself so often, a second apart, when it begins or has changed.
	announceTimes = 3
	announceEvery = time.Second

	// rotateAfter, and up to twice as long, is how long a node keeps its names and salt.
	rotateAfter = 20 * time.Minute

	// maxFound bounds the nodes of our rooms that are remembered. Of others nothing is.
	maxFound = 256
)

// Found is an address at which a member of a room is said to be.
type Found struct {
	Room    [32]byte
	Addr    netip.AddrPort
	Tracker bool // said to be the room's tracker
}

// iface is one network that this node is in.
type iface struct {
	index int
	name  string
	nets  []netip.Prefix // its addresses, with their networks
}

// addrs are those that are announced there.
func (i *iface) addrs(only netip.Addr) (list []netip.Addr) {
	for _, n := range i.nets {
		a := n.Addr()
		// One that has a zone means nothing to others.
		if a.Is6() && a.IsLinkLocalUnicast() || only.IsValid() && !only.IsUnspecified() && a != only {
			continue
		}
		if len(list) < maxAddrs {
			list = append(list, a)
		}
	}
	return list
}

// node is one that was found.
type node struct {
	announcement
	rooms []Room
	ends  time.Time
	told  time.Time
}

// packet is one to be sent to a network.
type packet struct {
	iface int
	data  []byte
}

// engine decides what is sent and what was found. It is stepped by its methods, all of
// which take the time; what is to be done gathers in out and found. next is when due
// wants to be called.
type engine struct {
	random io.Reader
	rng    *rand.Rand

	ifaces []iface
	rooms  []keyed
	listen netip.AddrPort // port 0: nobody can reach this node

	names    names
	beacon   beacon
	live     bool // it is announced
	rotateAt time.Time
	left     int // announcements still to make
	sayAt    time.Time

	answers map[int]time.Time // by network: when to answer
	silent  map[int]time.Time // by network: when the next answer may be
	every   map[int]bool      // by network: asked for all services

	sought map[[32]byte]time.Time // until when
	askAt  time.Time
	wait   time.Duration

	nodes map[string]*node

	out   []packet
	found []Found
}

func newEngine(ifaces []iface, random io.Reader, rng *rand.Rand) *engine {
	return &engine{
		random: random, rng: rng, ifaces: ifaces,
		answers: map[int]time.Time{}, silent: map[int]time.Time{}, every: map[int]bool{},
		sought: map[[32]byte]time.Time{}, nodes: map[string]*node{},
	}
}

// announce sets what is announced and listened for.
func (e *engine) announce(now time.Time, rooms []Room, listen netip.AddrPort) error {
	rooms = rooms[:min(len(rooms), maxTags)]
	same := slices.EqualFunc(e.rooms, rooms, func(k keyed, r Room) bool { return k.Room == r })
	if same && e.listen == listen {
		return nil
	}
	e.rooms = nil
	for _, r := range rooms {
		e.rooms = append(e.rooms, withKey(r))
	}
	e.listen = listen
	return e.rotate(now)
}

// rotate gives this node other names.
func (e *engine) rotate(now time.Time) (err error) {
	e.withdraw()
	if e.listen.Port() == 0 || len(e.rooms) == 0 {
		return nil
	}
	if e.names, err = newNames(e.random); err != nil {
		return err
	}
	if e.beacon, err = newBeacon(e.rooms, e.listen.Port(), now, e.random); err != nil {
		return err
	}
	e.live, e.left, e.sayAt = true, announceTimes, now
	e.rotateAt = now.Add(rotateAfter + time.Duration(e.rng.Int64N(int64(rotateAfter))))
	return nil
}

// withdraw says goodbye to the names that this node has.
func (e *engine) withdraw() {
	if e.live {
		e.say(true)
	}
	e.live, e.left = false, 0
	clear(e.answers)
}

// say announces this node in all its networks, or that it is gone.
func (e *engine) say(gone bool) {
	for k := range e.ifaces {
		e.sayTo(&e.ifaces[k], gone, false)
	}
}

func (e *engine) sayTo(i *iface, gone, everything bool) {
	a := announcement{id: e.names.id, gone: gone, addrs: i.addrs(e.listen.Addr()), beacon: e.beacon}
	if len(a.addrs) == 0 {
		return // it is not reached from there
	}
	if data, err := a.encode(everything); err == nil { // its parts are of fixed sizes
		e.out = append(e.out, packet{i.index, data})
	}
}

// seek asks for members of a room; those that are known already are told again.
func (e *engine) seek(now time.Time, room [32]byte) {
	if _, already := e.sought[room]; !already {
		e.askAt, e.wait = now, minAsk
	}
	if len(e.sought) < maxTags || !e.sought[room].IsZero() {
		e.sought[room] = now.Add(soughtFor)
	}
	for _, n := range e.nodes {
		e.tell(now, n)
	}
}

// tell tells of a node's addresses, not too often.
func (e *engine) tell(now time.Time, n *node) {
	if now.Sub(n.told) < tellEvery || !now.Before(n.ends) {
		return
	}
	n.told = now
	for _, r := range n.rooms {
		for _, addr := range n.addrs {
			e.found = append(e.found, Found{Room: r.ID, Addr: netip.AddrPortFrom(addr, n.beacon.port), Tracker: r.Tracker})
		}
	}
}

// received takes a packet in that came from an address, in the network with an index, 0 if
// that is not known.
func (e *engine) received(now time.Time, data []byte, from netip.AddrPort, index int) {
	i := e.ifaceOf(from.Addr(), index)
	if i == nil {
		return // it is from elsewhere (RFC 6762, section 11)
	}
	m, err := parse(data)
	if err != nil {
		return
	}
	if m.question != "" {
		e.asked(now, i, m)
	}
	if from.Port() != port {
		return // an answer to somebody's own question
	}
	for _, a := range m.announcements {
		e.heard(now, a, from.Addr())
	}
}

// ifaceOf returns the network that an address is in; nil if in none.
func (e *engine) ifaceOf(from netip.Addr, index int) *iface {
	for k := range e.ifaces {
		i := &e.ifaces[k]
		if index != 0 && i.index != index {
			continue
		}
		if from.IsLinkLocalUnicast() && index != 0 {
			return i
		}
		for _, n := range i.nets {
			if n.Masked().Contains(from.WithZone("")) {
				return i
			}
		}
	}
	return nil
}

// asked plans an answer to a question.
func (e *engine) asked(now time.Time, i *iface, m message) {
	if !e.live || m.question == serviceName && slices.Contains(m.known, e.names.id) {
		return
	}
	if id, one := idOf(m.question); one && id != e.names.id {
		return
	}
	if m.question == everyService {
		e.every[i.index] = true
	}
	if _, planned := e.answers[i.index]; planned {
		return
	}
	at := now.Add(answerAfter + time.Duration(e.rng.Int64N(int64(answerWait))))
	if free := e.silent[i.index]; free.After(at) {
		at = free
	}
	e.answers[i.index] = at
}

// heard takes an announcement in.
func (e *engine) heard(now time.Time, a announcement, from netip.Addr) {
	if a.id == e.names.id {
		return
	}
	if a.gone {
		delete(e.nodes, a.id)
		return
	}
	n := e.nodes[a.id]
	if n == nil || n.beacon.epoch != a.beacon.epoch || n.beacon.salt != a.beacon.salt || n.beacon.port != a.beacon.port || !slices.Equal(n.beacon.tags, a.beacon.tags) {
		rooms := a.beacon.match(e.rooms, now)
		if len(rooms) == 0 {
			return
		}
		e.makeRoom(now)
		n = &node{rooms: rooms}
		e.nodes[a.id] = n
	}
	a.addrs = slices.DeleteFunc(a.addrs, func(addr netip.Addr) bool { return !e.mayTry(addr, from) })
	if !slices.Equal(n.addrs, a.addrs) {
		n.told = time.Time{}
	}
	n.announcement = a
	n.ends = now.Add(recordTTL * time.Second)
	e.tell(now, n)
}

// mayTry reports whether an announced address is one that this node may connect to: that
// of the sender, or one of a network like this one. No announcement has members connect
// to the internet, nor to themselves.
func (e *engine) mayTry(addr, from netip.Addr) bool {
	if addr.IsLoopback() || addr.IsUnspecified() || addr.IsMulticast() || addr.Is4In6() {
		return false
	}
	for k := range e.ifaces {
		for _, n := range e.ifaces[k].nets {
			if n.Addr() == addr && addr != from {
				return false
			}
		}
	}
	return addr == from.WithZone("") || addr.IsPrivate() || addr.Is4() && addr.IsLinkLocalUnicast()
}

// makeRoom keeps the found nodes below their bound: what has ended goes, else whatever
// ends first.
func (e *engine) makeRoom(now time.Time) {
	if len(e.nodes) < maxFound {
		return
	}
	first := ""
	for id, n := range e.nodes {
		if !now.Before(n.ends) {
			delete(e.nodes, id)
			continue
		}
		if first == "" || n.ends.Before(e.nodes[first].ends) {
			first = id
		}
	}
	if len(e.nodes) >= maxFound {
		delete(e.nodes, first)
	}
}

// due does what the time has come for.
func (e *engine) due(now time.Time) error {
	if e.live && !now.Before(e.rotateAt) {
		if err := e.rotate(now); err != nil {
			return err
		}
	}
	if e.left > 0 && !now.Before(e.sayAt) {
		e.left--
		e.sayAt = now.Add(announceEvery)
		e.say(false)
	}
	for k := range e.ifaces {
		i := &e.ifaces[k]
		if at, planned := e.answers[i.index]; planned && !now.Before(at) {
			e.sayTo(i, false, e.every[i.index])
			delete(e.answers, i.index)
			delete(e.every, i.index)
			e.silent[i.index] = now.Add(answerEvery)
		}
	}
	for room, until := range e.sought {
		if !now.Before(until) {
			delete(e.sought, room)
		}
	}
	if len(e.sought) > 0 && !now.Before(e.askAt) {
		e.ask(now)
	}
	return nil
}

// ask asks who is there, in all networks.
func (e *engine) ask(now time.Time) {
	e.askAt = now.Add(e.wait)
	e.wait = min(2*e.wait, maxAsk)
	var known []string
	for id, n := range e.nodes {
		if n.ends.Sub(now) > recordTTL/2*time.Second && len(known) < maxKnown {
			known = append(known, id)
		}
	}
	data, err := encodeQuestion(known)
	if err != nil {
		return // the ids were checked when they came
	}
	for k := range e.ifaces {
		e.out = append(e.out, packet{e.ifaces[k].index, data})
	}
}

// next is when due wants to be called; ok is false if never.
func (e *engine) next() (at time.Time, ok bool) {
	earliest := func(t time.Time) {
		if !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	if e.live {
		earliest(e.rotateAt)
	}
	if e.left > 0 {
		earliest(e.sayAt)
	}
	for _, t := range e.answers {
		earliest(t)
	}
	if len(e.sought) > 0 {
		earliest(e.askAt)
	}
	for _, t := range e.sought {
		earliest(t)
	}
	return at, ok
}

// take returns what gathered.
func (e *engine) take() (out []packet, found []Found) {
	out, found = e.out, e.found
	e.out, e.found = nil, nil
	return out, found
}
