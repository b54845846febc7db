package swarm_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// maxFuzzed bounds the bytes of one input, and so the events that are made of it.
const maxFuzzed = 8192

// tape makes values of the bytes of a fuzzer's input: what other nodes could have sent,
// within the bounds that decoding lets through, and no further.
type tape struct{ rest []byte }

func (s *tape) byte() byte {
	if len(s.rest) == 0 {
		return 0
	}
	b := s.rest[0]
	s.rest = s.rest[1:]
	return b
}

func (s *tape) below(n int) int { return int(s.byte()) % n }
func (s *tape) flag() bool      { return s.byte()&1 != 0 }
func (s *tape) member() piece.NodeID {
	return id(string(rune('A' + s.below(6))))
}

// pin is mostly the same one; others have few pieces or many, none at all, or a size that
// is not known.
func (s *tape) pin() piece.Pin {
	if s.byte() >= 16 {
		return piece.Pin{Size: 10 << 20, Kind: piece.StrongETag, Validator: "1"}
	}
	if s.byte() >= 128 {
		return manifestOf(s.below(4)).Pin
	}
	sizes := []int64{0, 1, 64 << 10, 200_000, 10 << 20, 10<<20 + 1, 300 << 20, piece.UnknownSize}
	p := piece.Pin{Size: sizes[s.below(len(sizes))]}
	if k := s.below(3); k > 0 {
		p.Kind, p.Validator = piece.StrongETag, string(rune('0'+k))
	}
	return p
}

// manifestOf makes one of a few manifests: of no file, of many small ones, of small and
// large ones, of one.
func manifestOf(k int) *swarm.Manifest {
	var sizes []int64
	switch k {
	case 1:
		for i := range 300 {
			sizes = append(sizes, int64(i)*37%5000)
		}
	case 2:
		sizes = []int64{1, 0, 3 << 20, 70_000, 0, 20 << 20}
	case 3:
		sizes = []int64{10 << 20}
	}
	l, err := piece.LayoutOf(64<<10, sizes)
	if err != nil {
		panic(err)
	}
	m := &swarm.Manifest{Layout: l, Pin: piece.ManifestPin([32]byte{byte(k)}, l)}
	for i := range l.Count() {
		m.Digests = append(m.Digests, piece.Digest{1, byte(i), byte(i >> 8)})
	}
	return m
}

func (s *tape) incarnation() uint64 {
	if s.byte() < 16 {
		return 1
	}
	return 0
}

func (s *tape) index() piece.Index {
	switch s.below(4) {
	case 0:
		return piece.MaxCount - 1 - piece.Index(s.byte())
	case 1:
		return piece.Index(s.byte()) << 4
	}
	return piece.Index(s.below(8))
}

func (s *tape) extents() (out []piece.Extent) {
	for range s.below(4) {
		e := piece.Extent{First: s.index(), Count: 1 + uint32(s.byte())}
		if s.byte() == 255 {
			e = piece.Extent{Count: piece.MaxCount}
		}
		if e.Valid(piece.MaxCount) {
			out = append(out, e)
		}
	}
	return out
}

func (s *tape) bits(count int) piece.Bitfield {
	b := piece.NewBitfield(count)
	if s.flag() {
		for i := range piece.Index(count) {
			b.Set(i)
		}
		return b
	}
	for range s.below(8) {
		if i := s.index(); int(i) < count {
			b.Set(i)
		}
	}
	return b
}

func (s *tape) wait() time.Duration {
	return []time.Duration{0, 0, time.Millisecond, time.Second, 30 * 24 * time.Hour}[s.below(5)]
}

// source is that of one of three servers, or one of many.
func (s *tape) source() swarm.SourceID {
	if k := s.below(4); k < 3 {
		return swarm.SourceID{byte(k)}
	}
	return swarm.SourceID{4, s.byte(), s.byte()}
}

func (s *tape) bytes() int64 {
	return []int64{0, 1, 1 << 20, piece.MaxSize}[s.below(4)]
}

func (s *tape) shunned() (ids []piece.NodeID) {
	for range s.below(4) {
		ids = append(ids, s.member())
	}
	return ids
}

func (s *tape) failure() swarm.Failure { return swarm.Failure(s.below(3)) }

func (s *tape) toNode() swarm.ToNode {
	switch s.below(11) {
	case 0:
		if s.byte() < 8 {
			return swarm.GiveUp{}
		}
		return swarm.Welcome{Number: uint32(s.byte()) << 24, Interval: s.wait()}
	case 1:
		return swarm.Probe{}
	case 2, 3:
		return swarm.Pinned{Pin: s.pin(), Incarnation: s.incarnation(), Stream: s.flag()}
	case 4:
		return swarm.Lease{Extents: s.extents()}
	case 5:
		return swarm.Revoke{Pieces: uint32(s.byte()) << s.below(14)}
	case 6:
		return swarm.Drop{Extents: s.extents()}
	case 7:
		h := swarm.Handout{}
		for range s.below(8) {
			h.Peers = append(h.Peers, swarm.PeerAddr{ID: s.member(), Addr: "host:1"})
		}
		return h
	case 8:
		return swarm.Hold{For: s.wait(), Source: s.source()}
	case 9:
		return swarm.ComeBack{In: s.wait()}
	}
	return swarm.Complete{}
}

func (s *tape) toPeer() swarm.ToPeer {
	switch s.below(8) {
	case 0:
		pin := s.pin()
		count := s.below(300)
		if pin.Size >= 0 && s.flag() {
			count = pin.Layout().Count()
		}
		return swarm.Holds{Generation: pin.Generation(s.incarnation()), Have: s.bits(count)}
	case 1:
		return swarm.Haves{Extents: s.extents()}
	case 2:
		m := swarm.Statement{By: s.member(), Generation: s.pin().Generation(s.incarnation())}
		for i, n := s.index(), s.below(32); n >= 0 && i < piece.MaxCount; i, n = i+1, n-1 {
			m.Pieces = append(m.Pieces, i)
			m.Digests = append(m.Digests, piece.Digest{s.byte() & 3})
		}
		return m
	case 3:
		return swarm.AskStatements{Extents: s.extents()}
	case 4:
		return swarm.Claim{Extents: s.extents()}
	case 5:
		i := s.index()
		m := swarm.Accuse{Piece: i}
		for _, st := range []*swarm.Statement{&m.Accused, &m.Accuser} {
			*st = swarm.Statement{By: s.member(), Generation: s.pin().Generation(s.incarnation()), Run: uint64(s.byte() & 1)}
			st.Pieces, st.Digests = []piece.Index{i}, []piece.Digest{{s.byte() & 3}}
		}
		return m
	case 6:
		m := swarm.Successor{Live: s.flag()}
		if s.flag() {
			m.Tracker = swarm.PeerAddr{ID: s.member(), Addr: "host:1"}
		}
		return m
	}
	return swarm.Relay{Extents: s.extents()}
}

func (s *tape) toTracker() swarm.ToTracker {
	switch s.below(8) {
	case 0, 1:
		m := swarm.Announce{Addr: "host:1", Fetches: s.flag(), Wants: s.flag(), Stream: s.flag(), Leased: s.extents()}
		for range s.below(4) {
			m.Sources = append(m.Sources, s.source())
		}
		if s.flag() {
			m.Pinned, m.Fresh, m.Pin, m.Incarnation = true, s.flag(), s.pin(), s.incarnation()
			count := s.below(300)
			if m.Pin.Size >= 0 {
				count = m.Pin.Layout().Count()
			}
			m.Have = s.bits(count)
			if m.Pin.Kind == piece.Manifest && s.flag() {
				m.Wanted = s.bits(count)
			}
		}
		return m
	case 2:
		m := swarm.Probed{Pin: s.pin(), Incarnation: s.incarnation(), Stream: s.flag()}
		if e := s.extents(); len(e) > 0 {
			m.Extent = e[0]
		}
		return m
	case 3, 4:
		return swarm.Report{
			Stored: s.extents(), Lost: s.extents(), Rate: s.bytes(), Moved: s.bytes(), Unasked: uint32(s.byte()) << s.below(14),
			Streaming: s.flag(), Whole: s.flag(), WantPeers: s.flag(), Stuck: s.flag(), Shuns: s.shunned(),
		}
	case 5:
		return swarm.Returned{Extents: s.extents(), Failure: s.failure(), Wait: s.wait(), Source: s.source()}
	case 6:
		return swarm.Conflict{Pin: s.pin()}
	}
	return swarm.Leave{Moved: s.flag()}
}

// worker stands for a Node's driver: it remembers what was ordered, and the tape says
// how that goes.
type worker struct {
	t      *testing.T
	node   *swarm.Node
	now    swarm.Instant
	origin []swarm.Request
	probes []swarm.Request
	peers  []swarm.FetchPeer
	audits []swarm.Request
	asked  map[swarm.Request][]piece.Index
	serves []swarm.Request
	pinned piece.Pin
	ended  bool

	manifest *swarm.Manifest
}

func (w *worker) step(ev swarm.Event) {
	out := w.node.Step(w.now, ev, nil)
	for _, a := range out {
		if w.ended {
			w.t.Fatalf("%T after Quit", a)
		}
		switch a := a.(type) {
		case swarm.ProbeOrigin:
			if w.manifest != nil {
				w.t.Fatal("probes the origin of a manifest")
			}
			w.probes = append(w.probes, a.Request)
		case swarm.FetchOrigin:
			w.origin = append(w.origin, a.Request)
			if !a.Extent.Valid(w.pinned.Layout().Count()) {
				w.t.Fatalf("asks the origin for pieces %v of %d", a.Extent, w.pinned.Layout().Count())
			}
		case swarm.FetchPeer:
			w.peers = append(w.peers, a)
			for k, i := range a.Pieces {
				if int(i) >= w.pinned.Layout().Count() || a.Digests[k].IsZero() {
					w.t.Fatalf("asks %v for piece %d of %d with digest %v", a.Peer, i, w.pinned.Layout().Count(), a.Digests[k])
				}
			}
		case swarm.AuditLeaf:
			w.audits = append(w.audits, a.Request)
			if a.Range.Len() <= 0 || a.Range.End > w.pinned.Size {
				w.t.Fatalf("audits %v of %d bytes", a.Range, w.pinned.Size)
			}
		case swarm.Serve:
			for _, i := range w.asked[a.Request] {
				if have := w.node.Have(); !have.Has(i) {
					w.t.Fatalf("serves piece %d, which it does not hold", i)
				}
			}
			w.serves = append(w.serves, a.Request)
			delete(w.asked, a.Request)
		case swarm.Refuse:
			delete(w.asked, a.Request)
		case swarm.SetGeneration:
			w.pinned = a.Pin
			if w.manifest != nil && a.Pin != w.manifest.Pin {
				w.t.Fatalf("goes over from a manifest to %v", a.Pin)
			}
		case swarm.Quit:
			w.ended = true
		}
	}
	if len(out) > 100_000 {
		w.t.Fatalf("%d actions in one step", len(out))
	}
}

// take removes the one of s that the tape names.
func take[T any](s *tape, from *[]T) (x T, ok bool) {
	if len(*from) == 0 {
		return x, false
	}
	k := s.below(len(*from))
	x = (*from)[k]
	*from = append((*from)[:k], (*from)[k+1:]...)
	return x, true
}

// play makes one event of the tape's next bytes.
func (w *worker) play(s *tape) {
	switch s.below(16) {
	case 0:
		up := swarm.TrackerUp{}
		if s.flag() {
			up.Member = s.member()
		}
		w.step(up)
	case 1:
		if s.flag() {
			w.step(swarm.TrackerMissed{Member: s.member()})
		}
		w.step(swarm.TrackerDown{})
	case 2, 3:
		w.step(swarm.TrackerSaid{Message: s.toNode()})
	case 4:
		w.step(swarm.PeerUp{Peer: s.member(), Addr: "host:1"})
	case 5:
		w.step(swarm.PeerDown{Peer: s.member()})
	case 6, 7, 8:
		w.step(swarm.PeerSaid{Peer: s.member(), Message: s.toPeer()})
	case 9:
		req := swarm.Request(1<<63) + swarm.Request(w.now)
		pieces := []piece.Index{s.index(), s.index()}
		w.asked[req] = pieces
		w.step(swarm.Asked{Request: req, Peer: s.member(), Pieces: pieces})
	case 10:
		if req, ok := take(s, &w.serves); ok {
			w.step(swarm.Served{Request: req, Bytes: s.bytes()})
		}
	case 11:
		if req, ok := take(s, &w.probes); ok {
			if pin := s.pin(); pin.Size >= 0 && s.flag() {
				w.step(swarm.OriginAnswered{Request: req, Pin: pin, Stream: s.flag(), Bytes: min(pin.Size, 256<<10)})
				w.step(swarm.OriginStored{Request: req, Piece: s.index(), Digest: piece.Digest{1}})
			}
			w.step(swarm.OriginEnded{Request: req, Failure: s.failure(), Busy: s.flag(), Wait: s.wait(), Source: s.source()})
		}
	case 12:
		if req, ok := take(s, &w.origin); ok {
			w.step(swarm.OriginMoved{Request: req, Bytes: s.bytes() >> 20})
			w.step(swarm.OriginStored{Request: req, Piece: s.index(), Digest: piece.Digest{s.byte()&3 | 1}})
			ended := swarm.OriginEnded{Request: req, Failure: s.failure(), Wait: s.wait(), Source: s.source()}
			if pin := s.pin(); s.flag() {
				ended.Changed = &pin
			} else if s.flag() {
				ended.Wrong = []piece.Index{s.index()}
			} else {
				ended.Left = s.flag()
			}
			w.step(ended)
		}
	case 13:
		if r, ok := take(s, &w.peers); ok {
			end := swarm.PeerEnded{Request: r.Request, Failed: s.flag()}
			for _, i := range r.Pieces {
				if s.flag() {
					w.step(swarm.PeerStored{Request: r.Request, Piece: i})
				} else if s.flag() {
					end.Wrong = append(end.Wrong, i)
				}
			}
			w.step(end)
		}
	case 14:
		if req, ok := take(s, &w.audits); ok {
			w.step(swarm.Audited{Request: req, Result: swarm.AuditResult(s.below(3)), Wait: s.wait()})
		}
	default:
		if s.flag() {
			w.step(swarm.Unreadable{Piece: s.index()})
		}
		if s.flag() {
			w.step(swarm.Misread{Piece: s.index()})
		}
		if s.below(8) == 0 {
			w.step(swarm.PiecesLost{Extents: s.extents()})
		}
		if s.below(16) == 0 {
			w.step(swarm.Finished{})
		}
		if s.below(8) == 0 {
			w.step(swarm.Mismatched{})
		}
		w.now = w.now.Add(time.Millisecond << s.below(14))
		w.step(nil)
	}
	w.now++
}

// FuzzNode plays whatever members, trackers and origins may say to a Node, in any
// order. It must not panic, order what is not in its file, serve what it does not
// hold, or answer little with much.
func FuzzNode(f *testing.F) {
	seedFuzz(f)
	f.Fuzz(fuzzNode)
}

func fuzzNode(t *testing.T, input []byte) {
	s := &tape{rest: input[:min(len(input), maxFuzzed)]}
	opts := swarm.NodeOptions{Self: id("M"), Addr: "host:1", Fetches: s.flag(), Wants: s.flag(), KeepServing: s.flag(), Hosts: true, Linger: time.Minute}
	if m := manifestOf(s.below(4)); s.flag() {
		opts.Manifest = m
		if wanted := s.bits(m.Layout.Count()); s.flag() {
			opts.Wanted = &wanted
		}
		if s.flag() {
			opts.Resume = &swarm.Resume{Pin: m.Pin, Have: s.bits(m.Layout.Count())}
		}
	}
	w := &worker{
		t: t, manifest: opts.Manifest, node: swarm.NewNode(opts, rand.New(rand.NewPCG(1, 2))), now: swarm.Instant(time.Second),
		asked: make(map[swarm.Request][]piece.Index),
	}
	for len(s.rest) > 0 && !w.ended {
		w.play(s)
	}
}

// FuzzTracker plays whatever members may say to a Tracker. It must not panic, lease
// what is not in the file, or answer little with much.
func FuzzTracker(f *testing.F) {
	seedFuzz(f)
	f.Fuzz(fuzzTracker)
}

func fuzzTracker(t *testing.T, input []byte) {
	s := &tape{rest: input[:min(len(input), maxFuzzed)]}
	tracker := swarm.NewTracker(swarm.TrackerOptions{MaxMembers: 5, MeshLimit: 3, Degree: 2}, rand.New(rand.NewPCG(1, 2)))
	now := swarm.Instant(time.Second)
	pins := make(map[piece.NodeID]piece.Pin)
	for len(s.rest) > 0 {
		var ev swarm.TrackerEvent
		switch s.below(8) {
		case 0:
			now = now.Add(time.Millisecond << s.below(12))
		case 1:
			ev = swarm.MemberGone{Pool: swarm.PoolID{s.byte() & 1}, Member: s.member()}
		default:
			ev = swarm.MemberSaid{Pool: swarm.PoolID{s.byte() & 1}, Member: s.member(), Message: s.toTracker()}
		}
		now++
		out := tracker.Step(now, ev, nil)
		for _, a := range out {
			tell, ok := a.(swarm.TellMember)
			if !ok {
				continue
			}
			of := tell.Member
			of[31] = tell.Pool[0]
			switch m := tell.Message.(type) {
			case swarm.Pinned:
				pins[of] = m.Pin
			case swarm.Lease:
				for _, e := range m.Extents {
					if !e.Valid(pins[of].Layout().Count()) {
						t.Fatalf("leases %v of a file of %d pieces", e, pins[of].Layout().Count())
					}
				}
			}
		}
		if len(out) > 1000 {
			t.Fatalf("%d actions in one step", len(out))
		}
		if at, ok := tracker.Deadline(); ok && at <= now {
			t.Fatalf("wants to be called at %d, which is not after %d", at, now)
		}
	}
}

// seedFuzz gives a fuzzer inputs that reach far, so that a plain test run plays them.
func seedFuzz(f *testing.F) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 200 {
		input := make([]byte, maxFuzzed)
		for i := range input {
			input[i] = byte(rng.Uint32())
		}
		f.Add(input)
	}
}
