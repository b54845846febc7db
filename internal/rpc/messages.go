package rpc

import (
	"bytes"
	"errors"
	"fmt"

	"dragonload/internal/piece"
	poolv1 "dragonload/internal/rpc/gen/dragonload/pool/v1"
	"dragonload/internal/swarm"
)

// EncodeToTracker returns the request that carries m. The result shares nothing with
// m. It panics with a message that package swarm has not got.
func EncodeToTracker(m swarm.ToTracker) *poolv1.SessionRequest {
	switch m := m.(type) {
	case swarm.Announce:
		x := &poolv1.Announce{
			Addr:    m.Addr,
			Leased:  encodeExtents(m.Leased),
			Fetches: m.Fetches,
			Wants:   m.Wants,
			Stream:  m.Stream,

			Lendable: m.Lendable,
			Queued:   m.Queued,
			Sources:  encodeSources(m.Sources),
			Confirm:  uint32(m.Confirm),
		}
		if m.Pinned {
			x.Pin, x.Incarnation, x.Fresh = encodePin(m.Pin), m.Incarnation, m.Fresh
			x.Pieces, x.Have = uint32(m.Have.Len()), m.Have.Bytes()
			x.Wanted = m.Wanted.Bytes()
		}
		return &poolv1.SessionRequest{Message: &poolv1.SessionRequest_Announce{Announce: x}}
	case swarm.Probed:
		x := &poolv1.Probed{Pin: encodePin(m.Pin), Incarnation: m.Incarnation, Stream: m.Stream}
		if m.Extent.Count > 0 {
			x.Extent = encodeExtents([]piece.Extent{m.Extent})
		}
		return &poolv1.SessionRequest{Message: &poolv1.SessionRequest_Probed{Probed: x}}
	case swarm.Report:
		return &poolv1.SessionRequest{Message: &poolv1.SessionRequest_Report{Report: &poolv1.Report{
			Stored:    encodeExtents(m.Stored),
			Lost:      encodeExtents(m.Lost),
			Rate:      uint64(max(m.Rate, 0)),
			Moved:     uint64(max(m.Moved, 0)),
			Unasked:   m.Unasked,
			Streaming: m.Streaming,
			Whole:     m.Whole,
			WantPeers: m.WantPeers,
			Stuck:     m.Stuck,
			Shuns:     encodeIDs(m.Shuns),

			Read:        encodeExtents(m.Read),
			Unconfirmed: encodeExtents(m.Unconfirmed),
		}}}
	case swarm.Returned:
		return &poolv1.SessionRequest{Message: &poolv1.SessionRequest_Returned{Returned: &poolv1.Returned{
			Extents: encodeExtents(m.Extents),
			Failure: poolv1.Failure(m.Failure),
			WaitMs:  encodeWait(m.Wait),
			Source:  encodeSource(m.Source),
		}}}
	case swarm.Conflict:
		return &poolv1.SessionRequest{Message: &poolv1.SessionRequest_Conflict{
			Conflict: &poolv1.Conflict{Pin: encodePin(m.Pin)},
		}}
	case swarm.Source:
		return &poolv1.SessionRequest{Message: &poolv1.SessionRequest_Source{Source: &poolv1.Source{Url: m.URL}}}
	case swarm.Leave:
		return &poolv1.SessionRequest{Message: &poolv1.SessionRequest_Leave{Leave: &poolv1.Leave{Moved: m.Moved}}}
	}
	panic(fmt.Sprintf("message %T to a tracker", m))
}

// DecodeToTracker reads and checks the message that x carries. Every extent lies in a
// file of at most piece.MaxCount pieces, and in that of the message's own pin where it
// has one; whether it lies in the pool's file is the Tracker's to check. The errors
// are ErrMalformed.
func DecodeToTracker(x *poolv1.SessionRequest) (swarm.ToTracker, error) {
	var m swarm.ToTracker
	var err error
	var name string
	switch x := x.GetMessage().(type) {
	case *poolv1.SessionRequest_Announce:
		name = "announce"
		m, err = decodeAnnounce(x.Announce)
	case *poolv1.SessionRequest_Probed:
		name = "probed"
		m, err = decodeProbed(x.Probed)
	case *poolv1.SessionRequest_Report:
		name = "report"
		m, err = decodeReport(x.Report)
	case *poolv1.SessionRequest_Returned:
		name = "returned"
		m, err = decodeReturned(x.Returned)
	case *poolv1.SessionRequest_Conflict:
		name = "conflict"
		var c swarm.Conflict
		c.Pin, err = decodePin(x.Conflict.GetPin())
		m = c
	case *poolv1.SessionRequest_Source:
		name = "source"
		m, err = swarm.Source{URL: x.Source.GetUrl()}, CheckSource(x.Source.GetUrl())
	case *poolv1.SessionRequest_Leave:
		m = swarm.Leave{Moved: x.Leave.GetMoved()}
	default:
		name, err = "request", errors.New("no message that is known here")
	}
	if err != nil {
		return nil, malformed(name, err)
	}
	return m, nil
}

func decodeAnnounce(x *poolv1.Announce) (m swarm.Announce, err error) {
	m = swarm.Announce{Addr: x.GetAddr(), Fetches: x.GetFetches(), Wants: x.GetWants(), Stream: x.GetStream(), Lendable: x.GetLendable(), Queued: x.GetQueued()}
	if m.Confirm, err = decodeReaders(x.GetConfirm()); err != nil {
		return m, err
	}
	if m.Sources, err = decodeSources(x.GetSources()); err != nil {
		return m, err
	}
	// An empty host is allowed here alone: the tracker fills it in.
	if host, err := checkPort(m.Addr); err != nil {
		return m, err
	} else if host != "" {
		if err := CheckAddr(m.Addr); err != nil {
			return m, err
		}
	}
	count := piece.MaxCount
	if x.GetPin() == nil {
		if x.GetPieces() != 0 || len(x.GetHave()) != 0 || len(x.GetWanted()) != 0 || x.GetFresh() || x.GetIncarnation() != 0 {
			return m, errors.New("pieces without a pin")
		}
	} else {
		m.Pinned, m.Fresh, m.Incarnation = true, x.GetFresh(), x.GetIncarnation()
		if m.Pin, err = decodePin(x.GetPin()); err != nil {
			return m, err
		}
		if m.Pin.Size >= 0 {
			count = m.Pin.Layout().Count()
			if int64(x.GetPieces()) != int64(count) {
				return m, fmt.Errorf("%d pieces where the pin gives %d", x.GetPieces(), count)
			}
		}
		if x.GetPieces() > piece.MaxCount {
			return m, fmt.Errorf("%d pieces", x.GetPieces())
		}
		if m.Have, err = piece.ParseBitfield(x.GetHave(), int(x.GetPieces())); err != nil {
			return m, err
		}
		if len(x.GetWanted()) > 0 {
			if m.Pin.Kind != piece.Manifest {
				return m, errors.New("a selection of pieces without a manifest")
			}
			if m.Wanted, err = piece.ParseBitfield(x.GetWanted(), count); err != nil {
				return m, err
			}
		}
	}
	m.Leased, err = decodeExtents(x.GetLeased(), count)
	return m, err
}

func decodeProbed(x *poolv1.Probed) (m swarm.Probed, err error) {
	m = swarm.Probed{Incarnation: x.GetIncarnation(), Stream: x.GetStream()}
	if m.Pin, err = decodePin(x.GetPin()); err != nil {
		return m, err
	}
	count := piece.MaxCount
	if m.Pin.Size >= 0 {
		count = m.Pin.Layout().Count()
	}
	extents, err := decodeExtents(x.GetExtent(), count)
	switch {
	case err != nil:
		return m, err
	case len(extents) > 1:
		return m, fmt.Errorf("%d extents in one answer", len(extents))
	case len(extents) == 1:
		m.Extent = extents[0]
	}
	return m, nil
}

func decodeReport(x *poolv1.Report) (m swarm.Report, err error) {
	m = swarm.Report{
		Unasked:   x.GetUnasked(),
		Streaming: x.GetStreaming(),
		Whole:     x.GetWhole(),
		WantPeers: x.GetWantPeers(),
		Stuck:     x.GetStuck(),
	}
	if m.Unasked > piece.MaxCount {
		return m, fmt.Errorf("%d pieces not asked for", m.Unasked)
	}
	if m.Stored, err = decodeExtents(x.GetStored(), piece.MaxCount); err != nil {
		return m, err
	}
	if m.Lost, err = decodeExtents(x.GetLost(), piece.MaxCount); err != nil {
		return m, err
	}
	if m.Rate, err = decodeBytes(x.GetRate()); err != nil {
		return m, err
	}
	if m.Moved, err = decodeBytes(x.GetMoved()); err != nil {
		return m, err
	}
	if m.Read, err = decodeExtents(x.GetRead(), piece.MaxCount); err != nil {
		return m, err
	}
	if m.Unconfirmed, err = decodeExtents(x.GetUnconfirmed(), piece.MaxCount); err != nil {
		return m, err
	}
	m.Shuns, err = decodeIDs(x.GetShuns(), swarm.MaxShuns)
	return m, err
}

// encodeIDs writes keys of members.
func encodeIDs(ids []piece.NodeID) (out [][]byte) {
	for _, id := range ids {
		out = append(out, bytes.Clone(id[:]))
	}
	return out
}

func decodeIDs(x [][]byte, most int) (ids []piece.NodeID, err error) {
	if len(x) > most {
		return nil, fmt.Errorf("%d keys of members", len(x))
	}
	for _, b := range x {
		if len(b) != len(piece.NodeID{}) {
			return nil, fmt.Errorf("a member's key of %d bytes", len(b))
		}
		ids = append(ids, piece.NodeID(b))
	}
	return ids, nil
}

// maxReaders bounds the members that are to read one piece.
const maxReaders = 8

func decodeReaders(n uint32) (int, error) {
	if n > maxReaders {
		return 0, fmt.Errorf("%d readers of each piece", n)
	}
	return int(n), nil
}

func decodeReturned(x *poolv1.Returned) (m swarm.Returned, err error) {
	if m.Extents, err = decodeExtents(x.GetExtents(), piece.MaxCount); err != nil {
		return m, err
	}
	if m.Failure, err = decodeFailure(x.GetFailure()); err != nil {
		return m, err
	}
	if m.Source, err = decodeSource(x.GetSource()); err != nil {
		return m, err
	}
	m.Wait, err = decodeWait(x.GetWaitMs())
	return m, err
}

// encodeSource writes the server without a name as nothing.
func encodeSource(s swarm.SourceID) []byte {
	if s == (swarm.SourceID{}) {
		return nil
	}
	return s[:]
}

func decodeSource(b []byte) (s swarm.SourceID, err error) {
	if len(b) != 0 && len(b) != len(s) {
		return s, fmt.Errorf("the name of a server has %d bytes", len(b))
	}
	copy(s[:], b)
	return s, nil
}

func encodeSources(sources []swarm.SourceID) (out [][]byte) {
	for _, s := range sources {
		out = append(out, encodeSource(s))
	}
	return out
}

func decodeSources(all [][]byte) (out []swarm.SourceID, err error) {
	if len(all) > swarm.MaxSources {
		return nil, fmt.Errorf("%d servers", len(all))
	}
	for _, b := range all {
		s, err := decodeSource(b)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// EncodeToNode returns the response that carries m. The result shares nothing with m.
// It panics with a message that package swarm has not got.
func EncodeToNode(m swarm.ToNode) *poolv1.SessionResponse {
	switch m := m.(type) {
	case swarm.Welcome:
		return &poolv1.SessionResponse{Message: &poolv1.SessionResponse_Welcome{
			Welcome: &poolv1.Welcome{Number: m.Number, IntervalMs: encodeWait(m.Interval)},
		}}
	case swarm.Probe:
		return &poolv1.SessionResponse{Message: &poolv1.SessionResponse_Probe{Probe: &poolv1.Probe{}}}
	case swarm.Pinned:
		return &poolv1.SessionResponse{Message: &poolv1.SessionResponse_Pinned{
			Pinned: &poolv1.Pinned{Pin: encodePin(m.Pin), Incarnation: m.Incarnation, Stream: m.Stream},
		}}
	case swarm.Lease:
		return &poolv1.SessionResponse{Message: &poolv1.SessionResponse_Lease{
			Lease: &poolv1.Lease{Extents: encodeExtents(m.Extents)},
		}}
	case swarm.Revoke:
		return &poolv1.SessionResponse{Message: &poolv1.SessionResponse_Revoke{
			Revoke: &poolv1.Revoke{Pieces: m.Pieces},
		}}
	case swarm.Drop:
		return &poolv1.SessionResponse{Message: &poolv1.SessionResponse_Drop{
			Drop: &poolv1.Drop{Extents: encodeExtents(m.Extents)},
		}}
	case swarm.Handout:
		peers := make([]*poolv1.Peer, 0, len(m.Peers))
		for _, p := range m.Peers {
			peers = append(peers, &poolv1.Peer{Id: append([]byte(nil), p.ID[:]...), Addr: p.Addr})
		}
		return &poolv1.SessionResponse{Message: &poolv1.SessionResponse_Handout{
			Handout: &poolv1.Handout{Peers: peers, All: m.All},
		}}
	case swarm.ComeBack:
		return &poolv1.SessionResponse{Message: &poolv1.SessionResponse_ComeBack{
			ComeBack: &poolv1.ComeBack{InMs: encodeWait(m.In)},
		}}
	case swarm.Hold:
		return &poolv1.SessionResponse{Message: &poolv1.SessionResponse_Hold{
			Hold: &poolv1.Hold{ForMs: encodeWait(m.For), Source: encodeSource(m.Source)},
		}}
	case swarm.Complete:
		return &poolv1.SessionResponse{Message: &poolv1.SessionResponse_Complete{Complete: &poolv1.Complete{}}}
	case swarm.AskSource:
		return &poolv1.SessionResponse{Message: &poolv1.SessionResponse_AskSource{AskSource: &poolv1.AskSource{}}}
	case swarm.Readers:
		return &poolv1.SessionResponse{Message: &poolv1.SessionResponse_Readers{
			Readers: &poolv1.Readers{Wanted: uint32(m.Wanted), There: uint32(m.There)},
		}}
	case swarm.GiveUp:
		return &poolv1.SessionResponse{Message: &poolv1.SessionResponse_GiveUp{GiveUp: &poolv1.GiveUp{}}}
	}
	panic(fmt.Sprintf("message %T to a node", m))
}

// DecodeToNode reads and checks the message that x carries, with the same bounds as
// DecodeToTracker. The errors are ErrMalformed.
func DecodeToNode(x *poolv1.SessionResponse) (swarm.ToNode, error) {
	var m swarm.ToNode
	var err error
	var name string
	switch x := x.GetMessage().(type) {
	case *poolv1.SessionResponse_Welcome:
		name = "welcome"
		w := swarm.Welcome{Number: x.Welcome.GetNumber()}
		w.Interval, err = decodeWait(x.Welcome.GetIntervalMs())
		m = w
	case *poolv1.SessionResponse_Probe:
		m = swarm.Probe{}
	case *poolv1.SessionResponse_Pinned:
		name = "pinned"
		p := swarm.Pinned{Incarnation: x.Pinned.GetIncarnation(), Stream: x.Pinned.GetStream()}
		p.Pin, err = decodePin(x.Pinned.GetPin())
		m = p
	case *poolv1.SessionResponse_Lease:
		name = "lease"
		var l swarm.Lease
		l.Extents, err = decodeExtents(x.Lease.GetExtents(), piece.MaxCount)
		m = l
	case *poolv1.SessionResponse_Revoke:
		name = "revoke"
		if x.Revoke.GetPieces() > piece.MaxCount {
			err = fmt.Errorf("%d pieces", x.Revoke.GetPieces())
		}
		m = swarm.Revoke{Pieces: x.Revoke.GetPieces()}
	case *poolv1.SessionResponse_Drop:
		name = "drop"
		var d swarm.Drop
		d.Extents, err = decodeExtents(x.Drop.GetExtents(), piece.MaxCount)
		m = d
	case *poolv1.SessionResponse_Handout:
		name = "handout"
		m, err = decodeHandout(x.Handout)
	case *poolv1.SessionResponse_ComeBack:
		name = "come back"
		var c swarm.ComeBack
		c.In, err = decodeWait(x.ComeBack.GetInMs())
		m = c
	case *poolv1.SessionResponse_Hold:
		name = "hold"
		var h swarm.Hold
		if h.Source, err = decodeSource(x.Hold.GetSource()); err == nil {
			h.For, err = decodeWait(x.Hold.GetForMs())
		}
		m = h
	case *poolv1.SessionResponse_Complete:
		m = swarm.Complete{}
	case *poolv1.SessionResponse_Readers:
		name = "readers"
		var r swarm.Readers
		if r.Wanted, err = decodeReaders(x.Readers.GetWanted()); err == nil {
			r.There, err = decodeReaders(x.Readers.GetThere())
		}
		m = r
	case *poolv1.SessionResponse_AskSource:
		m = swarm.AskSource{}
	case *poolv1.SessionResponse_GiveUp:
		m = swarm.GiveUp{}
	default:
		name, err = "response", errors.New("no message that is known here")
	}
	if err != nil {
		return nil, malformed(name, err)
	}
	return m, nil
}

func decodeHandout(x *poolv1.Handout) (m swarm.Handout, err error) {
	if len(x.GetPeers()) > MaxPeers {
		return m, fmt.Errorf("%d members", len(x.GetPeers()))
	}
	m.All = x.GetAll()
	for _, p := range x.GetPeers() {
		id, err := decodeID(p.GetId())
		if err != nil {
			return m, err
		}
		if err := CheckAddr(p.GetAddr()); err != nil {
			return m, err
		}
		m.Peers = append(m.Peers, swarm.PeerAddr{ID: id, Addr: p.GetAddr()})
	}
	return m, nil
}

// DecodePool reads the pool that the first request of a session names.
func DecodePool(x *poolv1.SessionRequest) (swarm.PoolID, error) {
	id, err := decodeID(x.GetPool())
	if err != nil {
		return swarm.PoolID{}, malformed("pool", err)
	}
	return id, nil
}
