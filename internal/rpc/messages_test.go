package rpc

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"dragonload/internal/piece"
	poolv1 "dragonload/internal/rpc/gen/dragonload/pool/v1"
	"dragonload/internal/swarm"
)

var (
	drawID = rapid.Custom(func(t *rapid.T) (id [32]byte) {
		copy(id[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "id"))
		return id
	})
	drawAddr = rapid.OneOf(
		rapid.StringMatching(`([a-z0-9][a-z0-9_-]{0,20}\.){0,3}[a-z0-9]{1,9}:[1-9][0-9]{0,3}`),
		rapid.StringMatching(`\[(fe80::1%eth0|::1|2001:db8::[1-9a-f])\]:[1-9][0-9]{0,3}`),
		rapid.StringMatching(`(10|127|192)\.0\.[1-9]\.[1-9]:[1-9][0-9]{0,3}`),
	)
	drawWait = rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.Int64Range(0, int64(MaxWait/time.Millisecond)).Draw(t, "ms")) * time.Millisecond
	})
	drawFailure = rapid.Custom(func(t *rapid.T) swarm.Failure {
		return swarm.Failure(rapid.IntRange(0, int(swarm.Lasting)).Draw(t, "failure"))
	})
)

// drawPin draws pins with few enough pieces for a test.
func drawPin(t *rapid.T) piece.Pin {
	if rapid.IntRange(0, 4).Draw(t, "manifest") == 0 {
		sizes := rapid.SliceOfN(rapid.Int64Range(0, 10<<20), 0, 100).Draw(t, "sizes")
		l, err := piece.LayoutOf(1<<20, sizes)
		if err != nil {
			t.Fatal(err)
		}
		return piece.ManifestPin(drawID.Draw(t, "info hash"), l)
	}
	p := piece.Pin{Size: rapid.Int64Range(-1, 100<<30).Draw(t, "size")}
	if p.Kind = piece.ValidatorKind(rapid.IntRange(0, int(piece.Mirror)).Draw(t, "kind")); p.Kind != piece.NoValidator {
		p.Validator = string(rapid.SliceOfN(rapid.Byte(), 1, piece.MaxValidator).Draw(t, "validator"))
	}
	return p
}

// drawExtents draws disjoint extents of a file of count pieces, in any order.
func drawExtents(t *rapid.T, count int) []piece.Extent {
	var set piece.Extents
	for range rapid.IntRange(0, min(count, 10)).Draw(t, "extents") {
		first := rapid.IntRange(0, count-1).Draw(t, "first")
		set.Add(piece.Extent{First: piece.Index(first), Count: uint32(rapid.IntRange(1, count-first).Draw(t, "count"))})
	}
	if set.Count() == 0 {
		return nil
	}
	return rapid.Permutation(append([]piece.Extent(nil), set.Runs()...)).Draw(t, "order")
}

var drawSource = rapid.Custom(func(t *rapid.T) (s swarm.SourceID) {
	if rapid.Bool().Draw(t, "named") {
		copy(s[:], rapid.SliceOfN(rapid.Byte(), len(s), len(s)).Draw(t, "name"))
	}
	return s
})

func drawSources(t *rapid.T) []swarm.SourceID {
	if all := rapid.SliceOfN(drawSource, 0, swarm.MaxSources).Draw(t, "sources"); len(all) > 0 {
		return all
	}
	return nil
}

func drawIDs(t *rapid.T, most int) (ids []piece.NodeID) {
	for range rapid.IntRange(0, most).Draw(t, "members") {
		ids = append(ids, piece.NodeID(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "member")))
	}
	return ids
}

func drawToTracker(t *rapid.T) swarm.ToTracker {
	switch rapid.IntRange(0, 6).Draw(t, "message") {
	case 6:
		return swarm.Source{URL: rapid.StringMatching(`https?://[a-z]{1,9}(\.[a-z]{2,3})?(:[1-9][0-9]{1,3})?/[a-z/]{0,9}(\?[a-z]{1,9})?`).Draw(t, "url")}
	case 0:
		m := swarm.Announce{
			Addr:    drawAddr.Draw(t, "addr"),
			Fetches: rapid.Bool().Draw(t, "fetches"),
			Wants:   rapid.Bool().Draw(t, "wants"),
			Stream:  rapid.Bool().Draw(t, "stream"),

			Lendable: rapid.Bool().Draw(t, "lendable"),
			Queued:   rapid.Bool().Draw(t, "queued"),
			Sources:  drawSources(t),
			Confirm:  rapid.IntRange(0, 8).Draw(t, "confirm"),
		}
		count := 1000
		if m.Pinned = rapid.Bool().Draw(t, "pinned"); m.Pinned {
			m.Pin, m.Incarnation = drawPin(t), rapid.Uint64().Draw(t, "incarnation")
			m.Fresh = rapid.Bool().Draw(t, "fresh")
			if m.Pin.Size >= 0 {
				count = m.Pin.Layout().Count()
			}
			m.Have = piece.NewBitfield(count)
			for _, e := range drawExtents(t, count) {
				for i := e.First; i < e.End(); i++ {
					m.Have.Set(i)
				}
			}
			if m.Pin.Kind == piece.Manifest && count > 0 && rapid.Bool().Draw(t, "selects") {
				m.Wanted = m.Have.Clone()
			}
		}
		m.Leased = drawExtents(t, count)
		return m
	case 1:
		m := swarm.Probed{
			Pin:         drawPin(t),
			Incarnation: rapid.Uint64().Draw(t, "incarnation"),
			Stream:      rapid.Bool().Draw(t, "stream"),
		}
		if m.Pin.Size > 0 {
			m.Extent.Count = uint32(rapid.IntRange(0, m.Pin.Layout().Count()).Draw(t, "count"))
		}
		return m
	case 2:
		return swarm.Report{
			Stored:    drawExtents(t, piece.MaxCount),
			Lost:      drawExtents(t, piece.MaxCount),
			Rate:      rapid.Int64Range(0, piece.MaxSize).Draw(t, "rate"),
			Moved:     rapid.Int64Range(0, piece.MaxSize).Draw(t, "moved"),
			Unasked:   rapid.Uint32Range(0, piece.MaxCount).Draw(t, "unasked"),
			Streaming: rapid.Bool().Draw(t, "streaming"),
			Whole:     rapid.Bool().Draw(t, "whole"),
			WantPeers: rapid.Bool().Draw(t, "want peers"),
			Stuck:     rapid.Bool().Draw(t, "stuck"),
			Shuns:     drawIDs(t, swarm.MaxShuns),

			Read:        drawExtents(t, piece.MaxCount),
			Unconfirmed: drawExtents(t, piece.MaxCount),
		}
	case 3:
		return swarm.Returned{
			Extents: drawExtents(t, piece.MaxCount),
			Failure: drawFailure.Draw(t, "failure"),
			Wait:    drawWait.Draw(t, "wait"),
			Source:  drawSource.Draw(t, "source"),
		}
	case 4:
		return swarm.Conflict{Pin: drawPin(t)}
	}
	return swarm.Leave{Moved: rapid.Bool().Draw(t, "moved")}
}

func drawToNode(t *rapid.T) swarm.ToNode {
	switch rapid.IntRange(0, 12).Draw(t, "message") {
	case 11:
		return swarm.Readers{Wanted: rapid.IntRange(0, 8).Draw(t, "wanted"), There: rapid.IntRange(0, 8).Draw(t, "there")}
	case 9:
		return swarm.AskSource{}
	case 0:
		return swarm.Welcome{Number: rapid.Uint32().Draw(t, "number"), Interval: drawWait.Draw(t, "interval")}
	case 1:
		return swarm.Probe{}
	case 2:
		return swarm.Pinned{
			Pin:         drawPin(t),
			Incarnation: rapid.Uint64().Draw(t, "incarnation"),
			Stream:      rapid.Bool().Draw(t, "stream"),
		}
	case 3:
		return swarm.Lease{Extents: drawExtents(t, piece.MaxCount)}
	case 4:
		return swarm.Revoke{Pieces: rapid.Uint32Range(0, piece.MaxCount).Draw(t, "pieces")}
	case 5:
		return swarm.Drop{Extents: drawExtents(t, piece.MaxCount)}
	case 6:
		m := swarm.Handout{All: rapid.Bool().Draw(t, "all")}
		for range rapid.IntRange(0, 5).Draw(t, "peers") {
			m.Peers = append(m.Peers, swarm.PeerAddr{ID: drawID.Draw(t, "id"), Addr: drawAddr.Draw(t, "addr")})
		}
		return m
	case 7:
		return swarm.Hold{For: drawWait.Draw(t, "for"), Source: drawSource.Draw(t, "source")}
	case 8:
		return swarm.Complete{}
	case 10:
		return swarm.ComeBack{In: drawWait.Draw(t, "in")}
	}
	return swarm.GiveUp{}
}

func recode[M proto.Message](t rapid.TB, in, out M) M {
	data, err := proto.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(data, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestToTracker_comesBackAsItWas(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := drawToTracker(t)
		got, err := DecodeToTracker(recode(t, EncodeToTracker(want), &poolv1.SessionRequest{}))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v, %v\nwant %+v", got, err, want)
		}
	})
}

func TestToNode_comesBackAsItWas(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := drawToNode(t)
		got, err := DecodeToNode(recode(t, EncodeToNode(want), &poolv1.SessionResponse{}))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v, %v\nwant %+v", got, err, want)
		}
	})
}

func TestEncode_keepsWaitsInBoundsAndNotNothing(t *testing.T) {
	t.Parallel()
	for in, want := range map[time.Duration]time.Duration{
		0:            0,
		-time.Second: 0,
		1:            time.Millisecond,
		1<<63 - 1:    MaxWait,
	} {
		m, err := DecodeToNode(EncodeToNode(swarm.Hold{For: in}))
		if err != nil || m != (swarm.Hold{For: want}) {
			t.Errorf("%v: got %v, %v, want %v", in, m, err, want)
		}
	}
}

// pinned is a correct announce about a file of 10 pieces, for tests to break.
func pinned() *poolv1.Announce {
	pin := piece.Pin{Size: 10 * piece.MinLength, Kind: piece.StrongETag, Validator: `"a"`}
	return EncodeToTracker(swarm.Announce{
		Addr: "h:1", Pinned: true, Pin: pin, Have: piece.NewBitfield(10),
	}).GetAnnounce()
}

func TestDecodeToTracker_refusesWhatBreaksTheProtocol(t *testing.T) {
	t.Parallel()
	broken := func(change func(*poolv1.Announce)) *poolv1.SessionRequest {
		a := pinned()
		change(a)
		return &poolv1.SessionRequest{Message: &poolv1.SessionRequest_Announce{Announce: a}}
	}
	report := func(r *poolv1.Report) *poolv1.SessionRequest {
		return &poolv1.SessionRequest{Message: &poolv1.SessionRequest_Report{Report: r}}
	}
	returned := func(r *poolv1.Returned) *poolv1.SessionRequest {
		return &poolv1.SessionRequest{Message: &poolv1.SessionRequest_Returned{Returned: r}}
	}
	runs := func(n ...uint32) *poolv1.Extents { return &poolv1.Extents{Runs: n} }
	for name, x := range map[string]*poolv1.SessionRequest{
		"no message":                 {},
		"no address":                 broken(func(a *poolv1.Announce) { a.Addr = "" }),
		"address without port":       broken(func(a *poolv1.Announce) { a.Addr = "host" }),
		"port 0":                     broken(func(a *poolv1.Announce) { a.Addr = "host:0" }),
		"port too large":             broken(func(a *poolv1.Announce) { a.Addr = "host:65536" }),
		"port with a sign":           broken(func(a *poolv1.Announce) { a.Addr = "host:+1" }),
		"control character":          broken(func(a *poolv1.Announce) { a.Addr = "ho\x1bst:1" }),
		"long address":               broken(func(a *poolv1.Announce) { a.Addr = strings.Repeat("a.", 130) + "b:1" }),
		"bitfield too short":         broken(func(a *poolv1.Announce) { a.Have = a.Have[:1] }),
		"bitfield too long":          broken(func(a *poolv1.Announce) { a.Have = append(a.Have, 0) }),
		"bits beyond the last piece": broken(func(a *poolv1.Announce) { a.Have[1] = 1 }),
		"pieces not those of size":   broken(func(a *poolv1.Announce) { a.Pieces = 11 }),
		"too many pieces": broken(func(a *poolv1.Announce) {
			a.Pin.Size, a.Pieces, a.Have = -1, piece.MaxCount+1, make([]byte, (piece.MaxCount+8)/8)
		}),
		"pieces without pin": broken(func(a *poolv1.Announce) { a.Pin = nil }),
		"size too large":     broken(func(a *poolv1.Announce) { a.Pin.Size = piece.MaxSize + 1 }),
		"negative size":      broken(func(a *poolv1.Announce) { a.Pin.Size = -2 }),
		"unknown validator":  broken(func(a *poolv1.Announce) { a.Pin.Kind = 256 + 1 }),
		"no validator":       broken(func(a *poolv1.Announce) { a.Pin.Validator = nil }),
		"long validator":     broken(func(a *poolv1.Announce) { a.Pin.Validator = make([]byte, piece.MaxValidator+1) }),
		"lease outside":      broken(func(a *poolv1.Announce) { a.Leased = runs(9, 2) }),
		"empty extent":       report(&poolv1.Report{Stored: runs(1, 0)}),
		"half an extent":     report(&poolv1.Report{Stored: runs(1)}),
		"extent too far":     report(&poolv1.Report{Lost: runs(piece.MaxCount, 1)}),
		"extent wraps":       report(&poolv1.Report{Lost: runs(1<<32-1, 2)}),
		"pieces named twice": report(&poolv1.Report{Stored: runs(0, piece.MaxCount, 0, piece.MaxCount)}),
		"rate too large":     report(&poolv1.Report{Rate: 1 << 63}),
		"moved too large":    report(&poolv1.Report{Moved: 1 << 63}),
		"half a member":      report(&poolv1.Report{Shuns: [][]byte{make([]byte, 16)}}),
		"too many members":   report(&poolv1.Report{Shuns: slices.Repeat([][]byte{make([]byte, 32)}, swarm.MaxShuns+1)}),
		"unasked too many":   report(&poolv1.Report{Unasked: piece.MaxCount + 1}),
		"unknown failure":    returned(&poolv1.Returned{Failure: 3}),
		"negative failure":   returned(&poolv1.Returned{Failure: -1}),
		"wait too long":      returned(&poolv1.Returned{WaitMs: uint64(MaxWait/time.Millisecond) + 1}),
		"no pin":             {Message: &poolv1.SessionRequest_Conflict{Conflict: &poolv1.Conflict{}}},
		"no URL":             {Message: &poolv1.SessionRequest_Source{Source: &poolv1.Source{}}},
		"not http":           {Message: &poolv1.SessionRequest_Source{Source: &poolv1.Source{Url: "ftp://h/f"}}},
		"URL with user-info": {Message: &poolv1.SessionRequest_Source{Source: &poolv1.Source{Url: "http://u:p@h/f"}}},
		"long URL":           {Message: &poolv1.SessionRequest_Source{Source: &poolv1.Source{Url: "http://h/" + strings.Repeat("a", MaxSource)}}},
		"probed without pin": {Message: &poolv1.SessionRequest_Probed{Probed: &poolv1.Probed{}}},
		"two extents probed": {Message: &poolv1.SessionRequest_Probed{Probed: &poolv1.Probed{
			Pin: pinned().Pin, Extent: runs(0, 1, 2, 1),
		}}},
	} {
		if m, err := DecodeToTracker(x); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %+v, %v, want ErrMalformed", name, m, err)
		}
	}
}

func TestDecodeToTracker_letsTheTrackerFillInTheHost(t *testing.T) {
	t.Parallel()
	m, err := DecodeToTracker(EncodeToTracker(swarm.Announce{Addr: ":4100"}))
	if err != nil || m.(swarm.Announce).Addr != ":4100" {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestDecodeToNode_refusesWhatBreaksTheProtocol(t *testing.T) {
	t.Parallel()
	handout := func(peers ...*poolv1.Peer) *poolv1.SessionResponse {
		return &poolv1.SessionResponse{Message: &poolv1.SessionResponse_Handout{Handout: &poolv1.Handout{Peers: peers}}}
	}
	for name, x := range map[string]*poolv1.SessionResponse{
		"no message":        {},
		"short id":          handout(&poolv1.Peer{Id: make([]byte, 31), Addr: "h:1"}),
		"long id":           handout(&poolv1.Peer{Id: make([]byte, 33), Addr: "h:1"}),
		"no host":           handout(&poolv1.Peer{Id: make([]byte, 32), Addr: ":1"}),
		"too many members":  handout(make([]*poolv1.Peer, MaxPeers+1)...),
		"no pin":            {Message: &poolv1.SessionResponse_Pinned{Pinned: &poolv1.Pinned{}}},
		"lease too far":     {Message: &poolv1.SessionResponse_Lease{Lease: &poolv1.Lease{Extents: &poolv1.Extents{Runs: []uint32{0, piece.MaxCount + 1}}}}},
		"revoke too many":   {Message: &poolv1.SessionResponse_Revoke{Revoke: &poolv1.Revoke{Pieces: piece.MaxCount + 1}}},
		"interval too long": {Message: &poolv1.SessionResponse_Welcome{Welcome: &poolv1.Welcome{IntervalMs: 1 << 63}}},
	} {
		if m, err := DecodeToNode(x); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %+v, %v, want ErrMalformed", name, m, err)
		}
	}
}

func FuzzDecodeToTracker(f *testing.F) {
	seed(f, EncodeToTracker(swarm.Report{Stored: []piece.Extent{{First: 3, Count: 2}}}),
		&poolv1.SessionRequest{Message: &poolv1.SessionRequest_Announce{Announce: pinned()}})
	f.Fuzz(func(t *testing.T, data []byte) {
		x := &poolv1.SessionRequest{}
		if proto.Unmarshal(data, x) != nil {
			return
		}
		m, err := DecodeToTracker(x)
		if err != nil {
			return
		}
		again, err := DecodeToTracker(recode(t, EncodeToTracker(m), &poolv1.SessionRequest{}))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("accepted %+v, which comes back as %+v, %v", m, again, err)
		}
	})
}

func FuzzDecodeToNode(f *testing.F) {
	seed(f, EncodeToNode(swarm.Lease{Extents: []piece.Extent{{First: 3, Count: 2}}}),
		EncodeToNode(swarm.Handout{Peers: []swarm.PeerAddr{{Addr: "h:1"}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		x := &poolv1.SessionResponse{}
		if proto.Unmarshal(data, x) != nil {
			return
		}
		m, err := DecodeToNode(x)
		if err != nil {
			return
		}
		again, err := DecodeToNode(recode(t, EncodeToNode(m), &poolv1.SessionResponse{}))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("accepted %+v, which comes back as %+v, %v", m, again, err)
		}
	})
}

func seed[M proto.Message](f *testing.F, messages ...M) {
	for _, m := range messages {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
}
