package swarm

import (
	"time"

	"dragonload/internal/piece"
)

// Actions that Node.Step hands to its driver. They are orders. A driver carries out
// those of one Step in their order as far as they change its own state; I/O runs
// concurrently.
type (
	// Action is anything that a Node may order.
	Action interface{ action() }

	// TellTracker sends a message on the tracker session. It is only given while
	// the session is up; a message that cannot be sent is dropped.
	TellTracker struct{ Message ToTracker }

	// SeekTracker opens a session with a member that has taken the tracker's place, which
	// may be this node itself. TrackerUp or TrackerMissed follows, unless the room's own
	// tracker is reached before. Without a Peer: the driver, which tries the room's own
	// tracker again and again, does so now; nothing else follows than what would.
	SeekTracker struct{ Peer PeerAddr }
	// QueueTracker ends the session with the room's own tracker, which has no place yet, and
	// opens another after In; no TrackerDown follows.
	QueueTracker struct{ In time.Duration }
	// HostTracker: from now on this node is the pool's tracker, or no more; then the
	// sessions that others have with it end.
	HostTracker struct{ On bool }

	// Dial opens a stream to a member. PeerUp or PeerDown follows.
	Dial struct{ Peer PeerAddr }
	// HangUp closes the stream to a neighbour. PeerDown follows.
	HangUp struct{ Peer piece.NodeID }
	// TellPeer sends a message to a neighbour; it is dropped if the stream is down.
	TellPeer struct {
		Peer    piece.NodeID
		Message ToPeer
	}

	// ProbeOrigin asks the origin for Bytes bytes from Start on, or with 0 for the whole
	// file as one stream. OriginAnswered may
	// follow, then OriginStored for each piece that the answer brings; OriginEnded
	// ends it.
	ProbeOrigin struct {
		Request Request
		Start   int64
		Bytes   int64
	}
	// SetGeneration fixes what the download is of, before any piece of it arrives.
	// With Anew, what was stored belongs to another generation and is discarded.
	SetGeneration struct {
		Pin         piece.Pin
		Incarnation uint64
		Anew        bool
	}
	// FetchOrigin asks the origin for the pieces of one extent in one request.
	// With a Manifest of several files it may go over the end of one, and only what matches
	// the manifest is stored.
	// OriginStored follows for each piece, OriginEnded ends it. A piece may be stored
	// already: then it is read to be compared, and what the origin has takes its place.
	FetchOrigin struct {
		Request Request
		Extent  piece.Extent
	}
	// CancelOrigin closes the stream of a request. OriginEnded follows.
	CancelOrigin struct{ Request Request }

	// FetchPeer asks a neighbour for pieces, to be checked against Digests.
	// PeerStored follows for each good piece, PeerEnded ends it.
	FetchPeer struct {
		Request Request
		Peer    piece.NodeID
		Pieces  []piece.Index
		Digests []piece.Digest
	}

	// Serve lets a waiting Asked go ahead. Served ends it.
	Serve struct{ Request Request }
	// Refuse turns a waiting Asked down: a piece of it is not held here.
	Refuse struct{ Request Request }

	// AuditLeaf compares some bytes of a stored piece, at most one leaf, with the
	// origin's. Audited ends it.
	AuditLeaf struct {
		Request Request
		Piece   piece.Index
		Range   piece.Range // bytes of the file
	}

	// Forget drops a stored piece.
	Forget struct{ Piece piece.Index }

	// Finish completes the file: every piece is stored. Finished or Mismatched follows,
	// unless the driver ends the download with an error of its own.
	Finish struct{ Basis Basis }

	// Warn tells the user something; Code is stable, Peer and For are set where they
	// matter.
	Warn struct {
		Code WarnCode
		Peer piece.NodeID
		For  time.Duration
	}

	// Fail ends the download: it cannot be completed. Code says why.
	Fail struct{ Code FailCode }

	// Quit ends the Node: the file is whole and nobody needs this member any more,
	// or Stopping was carried out. Nothing follows.
	Quit struct{}
)

func (TellTracker) action()   {}
func (SeekTracker) action()   {}
func (QueueTracker) action()  {}
func (HostTracker) action()   {}
func (Dial) action()          {}
func (HangUp) action()        {}
func (TellPeer) action()      {}
func (ProbeOrigin) action()   {}
func (SetGeneration) action() {}
func (FetchOrigin) action()   {}
func (CancelOrigin) action()  {}
func (FetchPeer) action()     {}
func (Serve) action()         {}
func (Refuse) action()        {}
func (AuditLeaf) action()     {}
func (Forget) action()        {}
func (Finish) action()        {}
func (Warn) action()          {}
func (Fail) action()          {}
func (Quit) action()          {}

// Basis is what a finished file rests on, as far as the Node knows; the driver, which
// knows about checksums and the origin's digest, may know better.
type Basis struct {
	Checksum  bool // every piece matches its digest in a manifest; the rest says nothing then
	OwnOnly   bool // every byte was read by this member itself from one pinned version
	Confirmed int  // members that state every piece alike; 0: nobody has counted
	Audited   int  // leaves compared with the origin and found equal
}

// WarnCode names what a Warn is about.
type WarnCode string

// FailCode names why a Node cannot go on.
type FailCode string

const (
	WarnTrackerAway      WarnCode = "tracker-away"        // members go on without the tracker
	WarnTrackerMoved     WarnCode = "tracker-moved"       // Peer, maybe this node, takes its place
	WarnQueued           WarnCode = "queued"              // the tracker takes this member in after about For
	WarnTrackerBack      WarnCode = "tracker-back"        // it is there again
	WarnOtherContent     WarnCode = "other-content"       // the tracker says that the pool is of other bytes than the manifest's
	WarnChanged          WarnCode = "origin-changed"      // the file changed at the origin and is fetched anew
	WarnBegunAnew        WarnCode = "begun-anew"          // the origin's stream broke, and nothing says that the next one is of the same version
	WarnWrongBytes       WarnCode = "wrong-bytes"         // Peer sent bytes that do not match; fetched elsewhere
	WarnWrongStatement   WarnCode = "wrong-statement"     // Peer stated a digest that the origin contradicts
	WarnBanned           WarnCode = "member-banned"       // Peer has proved to be a liar and is shut out
	WarnShutOut          WarnCode = "member-shut-out"     // Peer sent wrong bytes time and again; the pool is gone on with without it
	WarnInconsistent     WarnCode = "origin-inconsistent" // members read different bytes of one version
	WarnOriginWaits      WarnCode = "origin-asks-wait"    // the origin asked for a pause
	WarnOneStream        WarnCode = "one-stream"          // the origin cannot be read in ranges
	WarnOriginAway       WarnCode = "origin-unavailable"  // it has served nothing for a while
	WarnPartNowhere      WarnCode = "part-nowhere"        // what is missing nobody of the pool has, and the origin does not give it
	WarnDoubted          WarnCode = "parts-doubted"       // the file is not what its digest says: what others brought is compared with the origin
	WarnConfirmShort     WarnCode = "confirm-short"       // fewer members can read than must state each piece
	WarnNothingForAWhile WarnCode = "no-progress"         // no byte has come for a while

	FailOrigin  FailCode = "origin"  // nobody can get the file from the origin; see the driver's last origin error
	FailChanges FailCode = "changes" // the file keeps changing at the origin
	// FailInconsistent: the origin gives other bytes of one version each time.
	FailInconsistent FailCode = "inconsistent"
	// FailUnconfirmed: the file is whole, but not enough members state its pieces.
	FailUnconfirmed FailCode = "unconfirmed"
	// FailMismatch: the file is not what its digest says, and the origin cannot be asked
	// which parts are wrong.
	FailMismatch FailCode = "mismatch"
	FailSilence  FailCode = "silence" // no new byte within the time set by --give-up-after
)
