package swarm

import (
	"time"

	"dragonload/internal/piece"
)

// Request names one thing that a Node has asked its driver to do; it is unique in
// the life of the Node.
type Request uint64

// Events that a driver hands to Node.Step. They are past facts.
type (
	// Event is anything that may happen to a Node.
	Event interface{ event() }

	// TrackerUp: a session is open, with the room's own tracker or, after SeekTracker,
	// with Member; the node announces itself on it. It may take the place of a session
	// that was open; there the driver has said Leave with Moved.
	TrackerUp struct{ Member piece.NodeID }
	// TrackerMissed: SeekTracker to Member has come to nothing.
	TrackerMissed struct{ Member piece.NodeID }
	// TrackerDown: the session that was open last has ended.
	TrackerDown struct{}
	// TrackerSaid: a message of the tracker has arrived.
	TrackerSaid struct{ Message ToNode }

	// PeerUp: a stream with a neighbour is open, whoever dialled. Addr is where it says
	// that members reach it, "" if that is not known.
	PeerUp struct {
		Peer piece.NodeID
		Addr string
	}
	// PeerDown: the stream has ended, or Dial did not succeed.
	PeerDown struct{ Peer piece.NodeID }
	// PeerSaid: a message of a neighbour has arrived. The driver has checked its
	// form, and of a Statement the signature.
	PeerSaid struct {
		Peer    piece.NodeID
		Message ToPeer
	}

	// OriginAnswered: the answer to ProbeOrigin has begun and was accepted. Its
	// pieces follow as OriginStored once the Node has set the generation.
	OriginAnswered struct {
		Request Request
		Pin     piece.Pin
		Stream  bool  // the whole file, from byte 0, on this one answer
		Start   int64 // of the answer's range
		Bytes   int64 // its length; the whole size with Stream
	}
	// OriginStored: one piece of a request has arrived and is written.
	OriginStored struct {
		Request Request
		Piece   piece.Index
		Digest  piece.Digest
	}
	// OriginMoved: bytes of a request have arrived since the last such event; the
	// driver reports at most every 100 ms. Rates are measured by it.
	OriginMoved struct {
		Request Request
		Bytes   int64
	}
	// OriginEnded ends ProbeOrigin and FetchOrigin. What was not stored by then will
	// not be.
	OriginEnded struct {
		Request Request
		Failure Failure
		Changed *piece.Pin    // the origin answered with another version; or with the very one, but whole; nil with a Manifest
		Wrong   []piece.Index // with a Manifest: pieces whose bytes did not match their digest
		Busy    bool          // 429, 503 or a reset: fewer connections may help
		Brought bool          // though it failed, a good part of what was asked for came
		Left    bool          // it did not fail: its connection brought next to nothing, where others do
		Wait    time.Duration // Retry-After of Source, 0 if there was none
		Source  SourceID
	}
	// OriginPauses: a server has asked for a pause, in answer to whatever request. The driver
	// sends it nothing before that is over.
	OriginPauses struct {
		Source SourceID
		Wait   time.Duration
	}

	// PeerStored: one piece of a FetchPeer has arrived, matched its digest and is
	// written.
	PeerStored struct {
		Request Request
		Piece   piece.Index
	}
	// PeerMoved: a FetchPeer is not forgotten. Some KiB have come since the last such event,
	// or the neighbour has said that the request waits for its turn, or the driver takes no
	// more for now; it tells so about every second.
	PeerMoved struct{ Request Request }
	// PeerEnded ends FetchPeer. What was not stored by then will not be.
	PeerEnded struct {
		Request Request
		Wrong   []piece.Index // pieces whose bytes did not match their digest
		Failed  bool          // the neighbour refused, or the connection broke
		Silent  bool          // with Failed: it sent nothing, or next to nothing
	}

	// Asked: a neighbour asks for pieces. The Node answers with Serve or Refuse.
	Asked struct {
		Request Request
		Peer    piece.NodeID
		Pieces  []piece.Index
	}
	// Served ends Serve.
	Served struct {
		Request Request
		Bytes   int64
	}

	// Audited ends AuditLeaf.
	Audited struct {
		Request Request
		Result  AuditResult
		Wait    time.Duration // Retry-After of an AuditFailed, 0 if there was none
		Source  SourceID      // whose
		Changed *piece.Pin    // of an AuditFailed: the origin has this version, not the pinned one
	}

	// Unreadable: a stored piece can no longer be read as it was written.
	Unreadable struct{ Piece piece.Index }

	// PiecesLost: pieces are no longer held: what was shared has changed. They are served
	// no more, and neighbours and tracker are told. A node whose files have their names
	// already does not fetch them again.
	PiecesLost struct{ Extents []piece.Extent }

	// Misread: what was stored of a piece turned out not to be the origin's bytes. It
	// is read again, and to read otherwise then is no contradiction.
	Misread struct{ Piece piece.Index }

	// Finished ends Finish: the file has its final name.
	Finished struct{}

	// Mismatched ends Finish too: the file is not what the digest of the whole of it says,
	// and its Basis was neither Checksum nor OwnOnly.
	Mismatched struct{}

	// Woke: the machine has slept. The driver makes all connections anew; it hands this
	// over before what comes of that.
	Woke struct{}

	// Stopping: the user wants the download to end now; the work is kept.
	Stopping struct{}
)

func (TrackerUp) event()      {}
func (TrackerMissed) event()  {}
func (TrackerDown) event()    {}
func (TrackerSaid) event()    {}
func (PeerUp) event()         {}
func (PeerDown) event()       {}
func (PeerSaid) event()       {}
func (OriginAnswered) event() {}
func (OriginStored) event()   {}
func (OriginMoved) event()    {}
func (OriginEnded) event()    {}
func (OriginPauses) event()   {}
func (PeerStored) event()     {}
func (PeerMoved) event()      {}
func (PeerEnded) event()      {}
func (Asked) event()          {}
func (Served) event()         {}
func (Audited) event()        {}
func (Unreadable) event()     {}
func (PiecesLost) event()     {}
func (Misread) event()        {}
func (Finished) event()       {}
func (Mismatched) event()     {}
func (Woke) event()           {}
func (Stopping) event()       {}

// AuditResult is what came of comparing a leaf with the origin.
type AuditResult uint8

const (
	// AuditEqual: the origin's bytes are those stored here.
	AuditEqual AuditResult = iota
	// AuditDiffers: they are not.
	AuditDiffers
	// AuditFailed: the origin did not answer usably.
	AuditFailed
)
