package swarm_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

var (
	hostilePin = piece.Pin{Size: 10 << 20, Kind: piece.StrongETag, Validator: "1"} // 160 pieces
	smallPin   = piece.Pin{Size: 200_000, Kind: piece.StrongETag, Validator: "2"}  // 4 pieces
)

// victim is a Node between hostile neighbours and, it may be, a hostile tracker.
type victim struct {
	*swarm.Node
	now swarm.Instant
}

func newVictim() *victim {
	opts := swarm.NodeOptions{Self: id("M"), Addr: "host:1", Fetches: true, Wants: true, Linger: time.Minute}
	return &victim{Node: swarm.NewNode(opts, rand.New(rand.NewPCG(1, 2))), now: swarm.Instant(time.Second)}
}

// pinnedVictim has a tracker, neighbours A and B, and the generation of hostilePin.
func pinnedVictim() *victim {
	v := newVictim()
	v.hear(swarm.TrackerUp{}, swarm.PeerUp{Peer: id("A")}, swarm.PeerUp{Peer: id("B")}, swarm.TrackerSaid{Message: swarm.Pinned{Pin: hostilePin}})
	return v
}

func (v *victim) hear(events ...swarm.Event) (out []swarm.Action) {
	for _, ev := range events {
		v.now++
		out = v.Step(v.now, ev, out)
	}
	return out
}

func (v *victim) after(d time.Duration) (out []swarm.Action) {
	v.now = v.now.Add(d)
	return v.Step(v.now, nil, nil)
}

// holds is what a neighbour says that claims everything.
func holds(pin piece.Pin) swarm.Holds {
	have := piece.NewBitfield(pin.Layout().Count())
	for i := range piece.Index(have.Len()) {
		have.Set(i)
	}
	return swarm.Holds{Generation: pin.Generation(0), Have: have}
}

func said(by string, m swarm.ToPeer) swarm.Event { return swarm.PeerSaid{Peer: id(by), Message: m} }

func stated(by string, digest func(piece.Index) piece.Digest, pieces ...piece.Index) swarm.Statement {
	s := swarm.Statement{By: id(by), Generation: hostilePin.Generation(0), Pieces: pieces}
	for _, i := range pieces {
		s.Digests = append(s.Digests, digest(i))
	}
	return s
}

func only[A any](out []swarm.Action) (found []A) {
	for _, a := range out {
		if x, ok := a.(A); ok {
			found = append(found, x)
		}
	}
	return found
}

// TestNode_bearsWhatNoHonestMemberSays feeds messages whose form is right and whose
// sense is not. The machine goes on and asks for nothing that the file has not got.
func TestNode_bearsWhatNoHonestMemberSays(t *testing.T) {
	t.Parallel()
	everything := []piece.Extent{{Count: piece.MaxCount}}
	beyond := []piece.Extent{{First: 1 << 20, Count: 7}, {First: 1<<32 - 1, Count: 1<<32 - 1}}
	many := swarm.Handout{}
	for k := range 4096 {
		many.Peers = append(many.Peers, swarm.PeerAddr{ID: piece.NodeID{1, byte(k), byte(k >> 8)}, Addr: "host:1"})
	}
	toNode := func(m swarm.ToNode) []swarm.Event { return []swarm.Event{swarm.TrackerSaid{Message: m}} }
	toPeer := func(m swarm.ToPeer) []swarm.Event { return []swarm.Event{said("A", m)} }
	for name, events := range map[string][]swarm.Event{
		"holds of another length":       toPeer(swarm.Holds{Generation: hostilePin.Generation(0), Have: piece.NewBitfield(piece.MaxCount)}),
		"holds of another generation":   {said("A", holds(hostilePin)), said("A", holds(smallPin)), said("A", swarm.Haves{Extents: everything})},
		"haves beyond the file":         toPeer(swarm.Haves{Extents: beyond}),
		"claim beyond the file":         {swarm.TrackerDown{}, said("A", swarm.Claim{Extents: beyond})},
		"relay beyond the file":         {swarm.TrackerDown{}, said("A", swarm.Relay{Extents: beyond})},
		"ask for unknown statements":    toPeer(swarm.AskStatements{Extents: append(beyond, everything...)}),
		"statement beyond the file":     toPeer(stated("A", digestOf, 0, 200)),
		"a stranger's message":          {said("S", holds(hostilePin)), swarm.PeerDown{Peer: id("S")}},
		"down twice":                    {said("A", holds(hostilePin)), swarm.PeerDown{Peer: id("A")}, swarm.PeerDown{Peer: id("A")}},
		"lease beyond the file":         toNode(swarm.Lease{Extents: append(beyond, everything...)}),
		"drop beyond the file":          toNode(swarm.Drop{Extents: append(beyond, everything...)}),
		"revoke of more than is leased": toNode(swarm.Revoke{Pieces: piece.MaxCount}),
		"welcome without an interval":   toNode(swarm.Welcome{Number: 1<<32 - 1}),
		"pin of an unknown size":        toNode(swarm.Pinned{Pin: piece.Pin{Size: piece.UnknownSize}}),
		"pin that is none":              toNode(swarm.Pinned{Pin: piece.Pin{Size: 1 << 62, Kind: piece.StrongETag, Validator: "x"}}),
		"thousands of members":          toNode(many),
		"request for what is not held":  {swarm.Asked{Request: 1 << 63, Peer: id("S"), Pieces: []piece.Index{1<<32 - 1}}},
		"answers to no request": {
			swarm.Served{Request: 9}, swarm.PeerStored{Request: 9, Piece: 1 << 30}, swarm.PeerEnded{Request: 9, Wrong: []piece.Index{1 << 30}},
			swarm.OriginStored{Request: 9, Piece: 1 << 30}, swarm.OriginEnded{Request: 9}, swarm.Audited{Request: 9, Result: swarm.AuditDiffers},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := pinnedVictim()
			out := v.hear(events...)
			out = append(out, v.after(time.Second)...)
			if n := len(only[swarm.Dial](out)); n > 192 {
				t.Errorf("dials %d members", n)
			}
			for _, f := range only[swarm.FetchPeer](out) {
				t.Errorf("asks %v for pieces %v, whose digests nobody has stated", f.Peer, f.Pieces)
			}
			for _, f := range only[swarm.FetchOrigin](out) {
				if !f.Extent.Valid(hostilePin.Layout().Count()) {
					t.Errorf("asks the origin for %v of %d pieces", f.Extent, hostilePin.Layout().Count())
				}
			}
			// And the rest goes on.
			v.hear(swarm.PeerUp{Peer: id("C")})
			out = v.hear(said("C", holds(hostilePin)), said("C", stated("C", digestOf, 5, 6)))
			if asked := only[swarm.FetchPeer](out); len(asked) == 0 {
				t.Error("does not ask an honest neighbour any more")
			}
		})
	}
}

func TestNode_forgetsWaitingRequestsWithTheirGeneration(t *testing.T) {
	t.Parallel()
	v := pinnedVictim()
	v.hear(swarm.TrackerSaid{Message: swarm.Lease{Extents: []piece.Extent{{First: 150, Count: 1}}}})
	v.hear(swarm.OriginStored{Request: 1, Piece: 150, Digest: digestOf(150)})
	for k := range swarm.Request(8) {
		v.hear(swarm.Asked{Request: 1<<63 + k, Peer: id("A"), Pieces: []piece.Index{150}})
	}
	out := v.hear(swarm.TrackerSaid{Message: swarm.Pinned{Pin: smallPin}})
	if refused := only[swarm.Refuse](out); len(refused) != 2 {
		t.Errorf("refuses %d of the requests that wait, want the 2 beyond the 6 under way", len(refused))
	}
	if served := only[swarm.Serve](v.hear(swarm.Served{Request: 1 << 63})); len(served) != 0 {
		t.Errorf("serves %v of a generation that was given up", served)
	}
}

func TestNode_asksAgainAfterNeighboursWentWithTheirGeneration(t *testing.T) {
	t.Parallel()
	v := newVictim()
	v.hear(swarm.TrackerUp{}, swarm.TrackerSaid{Message: swarm.Pinned{Pin: hostilePin}})
	var under []swarm.FetchPeer
	for k := range 40 { // each goes with a request under way
		name := "P" + string(rune('a'+k))
		v.hear(swarm.PeerUp{Peer: id(name)})
		out := v.hear(said(name, stated("A", digestOf, piece.Index(2*k))), said(name, swarm.Holds{Generation: hostilePin.Generation(0), Have: single(2 * k)}))
		under = append(under, only[swarm.FetchPeer](out)...)
		v.hear(swarm.PeerDown{Peer: id(name)})
	}
	if len(under) != 40 {
		t.Fatalf("%d requests are under way, want 40", len(under))
	}
	v.hear(swarm.TrackerSaid{Message: swarm.Pinned{Pin: smallPin}})
	for _, f := range under {
		out := v.hear(swarm.PeerStored{Request: f.Request, Piece: f.Pieces[0]}, swarm.PeerEnded{Request: f.Request})
		if have := v.Have(); have.Count() != 0 {
			t.Fatalf("takes piece %d of the old generation for one of the new; it ordered %v", f.Pieces[0], out)
		}
	}
}

func single(i int) piece.Bitfield {
	b := piece.NewBitfield(hostilePin.Layout().Count())
	b.Set(piece.Index(i))
	return b
}

func TestNode_answersAClaimOnceASecond(t *testing.T) {
	t.Parallel()
	v := pinnedVictim()
	told := 0
	for range 100 {
		told += len(only[swarm.TellPeer](v.hear(said("A", swarm.Claim{}))))
	}
	if told != 1 {
		t.Errorf("answers 100 claims at once with %d messages: two nodes that both have their tracker back would never end", told)
	}
}

func TestNode_keepsItsWholeFileWhateverThePoolTurnsTo(t *testing.T) {
	t.Parallel()
	v := newVictim()
	pin := piece.Pin{Size: 1, Kind: piece.StrongETag, Validator: "1"}
	v.hear(swarm.TrackerUp{}, swarm.TrackerSaid{Message: swarm.Pinned{Pin: pin}}, swarm.TrackerSaid{Message: swarm.Lease{Extents: []piece.Extent{{Count: 1}}}})
	if out := v.hear(swarm.OriginStored{Request: 1, Digest: digestOf(0)}); len(only[swarm.Finish](out)) != 1 {
		t.Fatalf("does not finish: %v", out)
	}
	if out := v.hear(swarm.TrackerSaid{Message: swarm.Pinned{Pin: smallPin}}); len(only[swarm.SetGeneration](out)) != 0 {
		t.Error("gives a whole file up while it gets its name")
	}
	if out := v.hear(swarm.Finished{}); len(only[swarm.Quit](out)) != 1 {
		t.Error("stays, though the pool wants another version")
	}
}

func TestNode_doesNotBelieveAStatementInPart(t *testing.T) {
	t.Parallel()
	v := pinnedVictim()
	v.hear(swarm.TrackerSaid{Message: swarm.Lease{Extents: []piece.Extent{{First: 9, Count: 1}}}}, swarm.OriginStored{Request: 1, Piece: 9, Digest: digestOf(9)})
	zero := func(piece.Index) piece.Digest { return piece.Digest{} }
	v.hear(said("A", stated("A", wrongDigest, 1, 2, 9)), said("A", stated("A", zero, 3)))
	out := v.hear(said("B", holds(hostilePin)), said("B", stated("B", digestOf, 1, 2, 3)))
	asked := only[swarm.FetchPeer](out)
	if len(asked) == 0 {
		t.Fatal("asks for nothing")
	}
	for k, i := range asked[0].Pieces {
		if asked[0].Digests[k] != digestOf(i) {
			t.Errorf("asks for piece %d with digest %v", i, asked[0].Digests[k])
		}
	}
}

// A digest that is wrong makes honest neighbours look like liars. The origin decides,
// and they are taken back.
func TestNode_forgivesThoseWhomAWrongStatementAccused(t *testing.T) {
	t.Parallel()
	v := pinnedVictim()
	v.hear(swarm.TrackerSaid{Message: swarm.Handout{Peers: []swarm.PeerAddr{{ID: id("A"), Addr: "a:1"}, {ID: id("B"), Addr: "b:1"}}}})
	v.hear(said("L", holds(hostilePin)), said("A", stated("L", wrongDigest, 0, 1, 2, 3)))
	out := v.hear(said("A", holds(hostilePin)), said("B", holds(hostilePin)))
	var fetched []swarm.FetchOrigin
	hungUp := map[piece.NodeID]bool{}
	for len(fetched) == 0 {
		asked := only[swarm.FetchPeer](out)
		if len(asked) == 0 {
			t.Fatal("neither asks a neighbour nor the origin")
		}
		out = nil
		for _, f := range asked {
			out = append(out, v.hear(swarm.PeerEnded{Request: f.Request, Wrong: f.Pieces})...)
		}
		for _, h := range only[swarm.HangUp](out) {
			hungUp[h.Peer] = true
			out = append(out, v.hear(swarm.PeerDown(h))...)
		}
		fetched = only[swarm.FetchOrigin](out)
	}
	out = v.hear(swarm.OriginStored{Request: fetched[0].Request, Piece: fetched[0].Extent.First, Digest: digestOf(fetched[0].Extent.First)})
	if w := only[swarm.Warn](out); len(w) != 1 || w[0].Code != swarm.WarnWrongStatement || w[0].Peer != id("L") {
		t.Errorf("warns %v, want of L's statement", w)
	}
	for range 40 {
		for _, d := range only[swarm.Dial](v.after(250 * time.Millisecond)) {
			delete(hungUp, d.Peer.ID)
		}
	}
	if len(hungUp) > 0 {
		t.Errorf("%v are left for what L said", hungUp)
	}
}

func TestTracker_bearsWhatNoHonestMemberSays(t *testing.T) {
	t.Parallel()
	beyond := []piece.Extent{{First: 1 << 20, Count: 7}, {Count: piece.MaxCount}}
	whole := holds(hostilePin).Have
	announce := swarm.Announce{Addr: "a:1", Fetches: true, Wants: true}
	for name, messages := range map[string][]swarm.ToTracker{
		"announced again and again":    {announce, announce, announce},
		"leased beyond the file":       {swarm.Announce{Addr: "a:1", Pinned: true, Fresh: true, Pin: hostilePin, Have: whole, Leased: beyond}},
		"have of another length":       {swarm.Announce{Addr: "a:1", Pinned: true, Fresh: true, Pin: hostilePin, Have: piece.NewBitfield(7)}},
		"probed unasked, pin invalid":  {swarm.Probed{Pin: piece.Pin{Size: 1 << 62, Kind: piece.StrongETag, Validator: "x"}}},
		"probed unasked, beyond":       {swarm.Probed{Pin: smallPin, Extent: piece.Extent{First: 1 << 20, Count: 7}}},
		"probed unasked, another file": {swarm.Probed{Pin: smallPin, Extent: piece.Extent{Count: 1}}},
		"absurd rates":                 {swarm.Report{Rate: piece.MaxSize, Moved: piece.MaxSize, Unasked: piece.MaxCount}, swarm.Report{Rate: -1, Moved: -1}},
		"stored and lost beyond":       {swarm.Report{Stored: beyond, Lost: beyond}},
		"lost what it never had":       {swarm.Report{Lost: []piece.Extent{{Count: 160}}}},
		"returned what it never had":   {swarm.Returned{Extents: append(beyond, piece.Extent{Count: 160}), Failure: swarm.Lasting}},
		"conflict of its own making":   {swarm.Conflict{Pin: smallPin}, swarm.Probed{Pin: smallPin, Extent: piece.Extent{Count: 1}}},
		"left twice":                   {swarm.Leave{}, swarm.Leave{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := swarm.NewTracker(swarm.TrackerOptions{}, rand.New(rand.NewPCG(1, 2)))
			now := swarm.Instant(time.Second)
			hear := func(by string, m swarm.ToTracker) []swarm.TrackerAction {
				now++
				return tr.Step(now, swarm.MemberSaid{Member: id(by), Message: m}, nil)
			}
			honest := swarm.Announce{Addr: "h:1", Fetches: true, Wants: true}
			hear("H", honest)
			hear("H", swarm.Probed{Pin: hostilePin, Extent: piece.Extent{Count: 4}})
			hear("X", announce)
			for _, m := range messages {
				for _, a := range hear("X", m) {
					if pin, ok := a.(swarm.TellMember); ok && pin.Member == id("H") {
						if p, ok := pin.Message.(swarm.Pinned); ok && p.Pin != hostilePin {
							t.Errorf("turns the pool over to %v on X's word alone", p.Pin)
						}
					}
				}
			}
			now = now.Add(800 * time.Millisecond)
			tr.Step(now, nil, nil)
			hear("H", swarm.Probed{Pin: hostilePin, Extent: piece.Extent{Count: 4}}) // the witness, if it was asked
			hear("H", swarm.Report{Rate: 1 << 20, Moved: 1 << 18, Stored: []piece.Extent{{Count: 4}}})
			if tr.Pools() != 1 {
				t.Errorf("%d pools, want the honest member's", tr.Pools())
			}
		})
	}
}

func TestTracker_asksNobodyAgainAndAgainForOneThatSeesGhosts(t *testing.T) {
	t.Parallel()
	tr := swarm.NewTracker(swarm.TrackerOptions{}, rand.New(rand.NewPCG(1, 2)))
	now := swarm.Instant(time.Second)
	probes := 0
	hear := func(by string, m swarm.ToTracker) {
		now = now.Add(time.Millisecond)
		for _, a := range tr.Step(now, swarm.MemberSaid{Member: id(by), Message: m}, nil) {
			tell, ok := a.(swarm.TellMember)
			if _, probe := tell.Message.(swarm.Probe); ok && probe && tell.Member == id("H") {
				probes++
			}
		}
	}
	hear("H", swarm.Announce{Addr: "h:1", Fetches: true, Wants: true})
	answer := swarm.Probed{Pin: hostilePin, Extent: piece.Extent{Count: 4}}
	hear("H", answer)
	probes = 0
	for range 200 {
		hear("X", swarm.Announce{Addr: "x:1", Fetches: true, Wants: true})
		hear("X", swarm.Conflict{Pin: smallPin})
		hear("H", answer)
	}
	if probes > 1 {
		t.Errorf("has H ask the origin %d times within a second", probes)
	}
}

func TestTracker_boundsThePiecesOfAllPools(t *testing.T) {
	t.Parallel()
	tr := swarm.NewTracker(swarm.TrackerOptions{MaxPieces: 1000}, rand.New(rand.NewPCG(1, 2)))
	cut := 0
	for k := range 10 {
		a := swarm.Announce{Addr: "x:1", Pinned: true, Fresh: true, Pin: hostilePin, Have: piece.NewBitfield(160)}
		for _, act := range tr.Step(swarm.Instant(time.Second), swarm.MemberSaid{Pool: swarm.PoolID{byte(k)}, Member: id("X"), Message: a}, nil) {
			if _, ok := act.(swarm.CutMember); ok {
				cut++
			}
		}
	}
	if cut != 4 || tr.Pools() != 6 {
		t.Errorf("cut %d of 10 members and has %d pools of 160 pieces, want 4 and 6", cut, tr.Pools())
	}
	for k := range 10 {
		tr.Step(swarm.Instant(time.Second), swarm.MemberGone{Pool: swarm.PoolID{byte(k)}, Member: id("X")}, nil)
	}
	a := swarm.Announce{Addr: "x:1", Pinned: true, Fresh: true, Pin: hostilePin, Have: piece.NewBitfield(160)}
	for _, act := range tr.Step(swarm.Instant(time.Second), swarm.MemberSaid{Member: id("X"), Message: a}, nil) {
		if _, ok := act.(swarm.CutMember); ok {
			t.Error("the pools that have gone still count")
		}
	}
}

func TestNode_doesNotWaitForOneThatBringsNothing(t *testing.T) {
	t.Parallel()
	v := pinnedVictim()
	all := make([]piece.Index, 16)
	for i := range all {
		all[i] = piece.Index(i)
	}
	v.hear(said("A", stated("A", digestOf, all...)))
	out := v.hear(said("A", holds(hostilePin)))
	out = append(out, v.hear(said("B", holds(hostilePin)))...)
	from := v.now
	for have := v.Have(); have.Count() < len(all); have = v.Have() {
		if v.now.Sub(from) > 5*time.Second {
			t.Fatalf("has %d of %d pieces after 5 s, for A brings nothing", have.Count(), len(all))
		}
		var next []swarm.Action
		for _, f := range only[swarm.FetchPeer](out) {
			if f.Peer == id("B") {
				for _, i := range f.Pieces {
					next = append(next, v.hear(swarm.PeerStored{Request: f.Request, Piece: i})...)
				}
				next = append(next, v.hear(swarm.PeerEnded{Request: f.Request})...)
			}
		}
		if out = next; len(out) == 0 {
			out = v.after(250 * time.Millisecond)
		}
	}
}

// A member that comes back again and again gets no more than one that stays.
func TestNode_keepsTheRecordOfOneThatComesBack(t *testing.T) {
	t.Parallel()
	again := []swarm.Event{swarm.PeerDown{Peer: id("A")}, swarm.PeerUp{Peer: id("A"), Addr: "a:1"}}
	t.Run("statements", func(t *testing.T) {
		t.Parallel()
		v := pinnedVictim()
		v.hear(again...)
		for i := range piece.Index(80) { // each a statement of its own
			v.hear(said("B", stated("B", digestOf, i)))
		}
		ask := said("A", swarm.AskStatements{Extents: []piece.Extent{{Count: 160}}})
		told := func() (n int) {
			for _, a := range only[swarm.TellPeer](v.hear(ask)) {
				if _, ok := a.Message.(swarm.Statement); ok {
					n++
				}
			}
			return n
		}
		if n := told(); n != 80 {
			t.Fatalf("is told %d statements, want all 80", n)
		}
		v.hear(again...)
		if n := told(); n != 80 {
			t.Errorf("having begun anew it is told %d statements, want all 80", n)
		}
		n := 0
		for range 50 {
			v.hear(again...)
			n += told()
		}
		if n > 1 {
			t.Errorf("coming back 50 times at once it is told %d statements", n)
		}
		v.hear(said("B", stated("B", digestOf, 90)))
		if n := told(); n != 1 {
			t.Errorf("it is told %d statements, want the one that is new to it", n)
		}
	})
	t.Run("wrong pieces", func(t *testing.T) {
		t.Parallel()
		v := pinnedVictim()
		v.hear(said("B", stated("B", digestOf, everyPiece()...)))
		wrong := 0
		for range 50 {
			out := append(v.hear(again...), v.hear(said("A", holds(hostilePin)))...)
			for _, f := range only[swarm.FetchPeer](out) {
				if f.Peer == id("A") {
					wrong++
					v.hear(swarm.PeerEnded{Request: f.Request, Wrong: f.Pieces[:1]})
				}
			}
		}
		if wrong != 3 {
			t.Errorf("takes %d wrong pieces of one that comes back after each, want 3", wrong)
		}
	})
}

func everyPiece() (all []piece.Index) {
	for i := range piece.Index(hostilePin.Layout().Count()) {
		all = append(all, i)
	}
	return all
}
