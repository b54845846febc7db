package swarm

import (
	"encoding/binary"
	"slices"
	"time"

	"dragonload/internal/piece"
)

// PoolID names a pool within its room without telling the URL: a hash of it, keyed
// by the room (see room.Room.Pool).
type PoolID [32]byte

// Messages from a node to its tracker, about one pool.
type (
	// ToTracker is any message from a node to its tracker.
	ToTracker interface{ toTracker() }

	// Announce is the first message of a session, and the first after every
	// reconnection: the whole state from which a tracker that knows nothing goes on.
	Announce struct {
		Addr        string         // where members reach this node, host:port
		Pinned      bool           // Pin, Incarnation and Have mean something
		Fresh       bool           // the pin was seen at the origin, or given by a tracker, in this run; else it is from an earlier run
		Pin         piece.Pin      // the generation that Have belongs to
		Incarnation uint64         // see piece.Pin.Generation
		Have        piece.Bitfield // pieces stored here
		Leased      []piece.Extent // pieces this node is fetching from the origin, or about to
		Stream      bool           // the origin is read as one stream: Leased are what is still to come of it, if this node reads it
		Queued      bool           // was told ComeBack, and is back
		Fetches     bool           // may be leased extents of the origin
		Wants       bool           // wants the file; false for helpers
		Lendable    bool           // would answer AskSource
		Wanted      piece.Bitfield // with a manifest: the pieces this node wants; of length 0: all
		Sources     []SourceID     // servers that this node may fetch from, the URL's own first; at most MaxSources
		Confirm     int            // members that must have read each piece, for this one; 0 and 1: it does not matter who
	}

	// Probed answers Probe: the origin's first answer. The node goes on to fetch
	// Extent, which that answer covers; with Stream, that is everything.
	Probed struct {
		Pin         piece.Pin
		Incarnation uint64 // see piece.Pin.Generation; 0 if the pin is combinable
		Stream      bool   // the origin gives one stream from byte 0, not ranges
		Extent      piece.Extent
	}

	// Report says what has changed since the last one. A node sends it when its work
	// runs low, and at least every Welcome.Interval, so it is also the sign of life.
	Report struct {
		Stored    []piece.Extent // stored since the last report, from wherever
		Lost      []piece.Extent // no longer held: damaged on disk, or stated by a liar
		Rate      int64          // bytes per second from the origin while fetching, 0 if not known
		Moved     int64          // bytes from the origin since the last report
		Unasked   uint32         // leased pieces not yet asked of the origin
		Streaming bool           // the probe is being answered by one stream whose length is not known yet
		Whole     bool           // all that is wanted is here
		WantPeers bool           // has too few neighbours
		Stuck     bool           // gets nothing, though others are said to hold what it lacks
		Shuns     []piece.NodeID // members of which it takes nothing now, ascending; at most MaxShuns

		// Where Readers says that several are to read each piece.
		Read        []piece.Extent // read from the origin by this node itself
		Unconfirmed []piece.Extent // held, and not stated by enough members, though it should be by now
	}

	// Returned gives leased pieces back. Failure tells why, if the origin is to blame.
	Returned struct {
		Extents []piece.Extent
		Failure Failure
		Wait    time.Duration // Source asked for this pause (Retry-After); 0 if it did not
		Source  SourceID
	}

	// Conflict reports that the origin answered with another version than the pin; or,
	// if Pin is the pool's, with the whole file again and again where parts were asked for.
	Conflict struct{ Pin piece.Pin }

	// Source answers AskSource: the URL, for members of the room that lend their line.
	Source struct{ URL string }

	// Leave ends the session in good order. With Moved the member has gone over to
	// another tracker of the same pool, and goes on with what it was lent.
	Leave struct{ Moved bool }
)

func (Announce) toTracker() {}
func (Probed) toTracker()   {}
func (Report) toTracker()   {}
func (Returned) toTracker() {}
func (Conflict) toTracker() {}
func (Source) toTracker()   {}
func (Leave) toTracker()    {}

// Failure says how fetching from the origin ended.
type Failure uint8

const (
	// NoFailure: it did not fail, or the node gave work back of its own accord.
	NoFailure Failure = iota
	// Passing: waiting may mend it (a reset, a time-out, 5xx, 429).
	Passing
	// Lasting: this node cannot get the file from the origin (404, 403, bad TLS).
	Lasting
)

// Messages from a tracker to a node, about one pool.
type (
	// ToNode is any message from a tracker to a node.
	ToNode interface{ toNode() }

	// Welcome answers Announce.
	Welcome struct {
		Number   uint32        // the member's small number in this pool
		Interval time.Duration // report at least this often
	}

	// Probe asks the node to make the pool's first request to the origin.
	Probe struct{}

	// Pinned fixes the generation that the pool works on. What a node holds of
	// another generation is set aside.
	Pinned struct {
		Pin         piece.Pin
		Incarnation uint64
		Stream      bool
	}

	// Lease lends pieces to be fetched from the origin.
	Lease struct{ Extents []piece.Extent }

	// Revoke asks for up to Pieces leased pieces back: those that the node has not
	// asked of the origin yet, the last first. The node answers Returned, perhaps
	// empty.
	Revoke struct{ Pieces uint32 }

	// Drop takes pieces from a node whose source is as good as dead: it closes the
	// streams that were to bring them. There is no answer.
	Drop struct{ Extents []piece.Extent }

	// Handout names members to connect to. All says that the pool is so small that
	// everybody meets everybody.
	Handout struct {
		Peers []PeerAddr
		All   bool
	}

	// Hold forbids requests to one server for a while, to everybody in the pool.
	Hold struct {
		For    time.Duration
		Source SourceID
	}

	// ComeBack answers Announce when the tracker takes in no more members just now: the
	// node ends the session and opens another after In.
	ComeBack struct{ In time.Duration }

	// Complete says that every member that wants the file has it.
	Complete struct{}

	// Readers says that a member of the pool wants each piece stated by several: Wanted of
	// them are to read each. There are so many that can, at most as many as are wanted.
	Readers struct{ Wanted, There int }

	// AskSource asks a member that is Lendable for the URL.
	AskSource struct{}

	// GiveUp says that no member can get the file from the origin; Failed members
	// end with the error that they met themselves.
	GiveUp struct{}
)

func (Welcome) toNode()   {}
func (Probe) toNode()     {}
func (Pinned) toNode()    {}
func (Lease) toNode()     {}
func (Revoke) toNode()    {}
func (Drop) toNode()      {}
func (Handout) toNode()   {}
func (Hold) toNode()      {}
func (ComeBack) toNode()  {}
func (Complete) toNode()  {}
func (AskSource) toNode() {}
func (Readers) toNode()   {}
func (GiveUp) toNode()    {}

// PeerAddr is a member and where it is reached.
type PeerAddr struct {
	ID   piece.NodeID
	Addr string // host:port
}

// Messages between neighbours, about one pool.
type (
	// ToPeer is any message from a node to a neighbour.
	ToPeer interface{ toPeer() }

	// Holds states everything that the sender holds of a generation. It is the first
	// message in each direction once the sender knows the generation, and starts
	// over if the generation changes. It is sent again when something is no longer held.
	Holds struct {
		Generation piece.Digest
		Have       piece.Bitfield
	}

	// Haves adds to it.
	Haves struct{ Extents []piece.Extent }

	// Statement says which digests a node computed over bytes that it read from the
	// origin itself, signed by that node's key. It is passed on unchanged. In one run a
	// node states one digest for a piece and no other, whatever the origin does: two
	// that differ prove that it lies.
	Statement struct {
		By         piece.NodeID
		Generation piece.Digest
		Run        uint64         // drawn anew whenever the stater may have forgotten what it stated
		Pieces     []piece.Index  // at most MaxStated, ascending
		Digests    []piece.Digest // one for each of Pieces
		Signature  []byte         // by By, over Message()
	}

	// Accuse says that the origin contradicts what Accused states of a piece: Accuser is
	// the word of a member that has read the whole piece from the origin itself. Nobody
	// acts on it alone: who hears it reads the piece too. If both are by one member, in
	// one run, they are proof by themselves.
	Accuse struct {
		Piece            piece.Index
		Accused, Accuser Statement
	}

	// AskStatements asks for the digests of pieces that the receiver has.
	AskStatements struct{ Extents []piece.Extent }

	// Claim tells, while there is no tracker, what the sender fetches from the
	// origin, or is about to; it replaces the sender's earlier claim.
	Claim struct{ Extents []piece.Extent }

	// Relay tells what the sender's neighbours claim; it replaces the sender's earlier
	// one. So a claim is known two steps away, which in a pool without a full mesh is
	// most of it.
	Relay struct{ Extents []piece.Extent }

	// Successor tells whom the sender has for its tracker (Live), or would take. It is
	// told by those who have lost the room's own, and when they have that again: a
	// Tracker without ID is the room's own with Live, and nobody without.
	Successor struct {
		Tracker PeerAddr
		Live    bool
	}
)

func (Holds) toPeer()         {}
func (Haves) toPeer()         {}
func (Statement) toPeer()     {}
func (Accuse) toPeer()        {}
func (AskStatements) toPeer() {}
func (Claim) toPeer()         {}
func (Relay) toPeer()         {}
func (Successor) toPeer()     {}

// MaxStated bounds the pieces of one Statement.
const MaxStated = 256

// Message returns the bytes that a Statement's signature covers: every field but the
// signature.
func (s *Statement) Message() []byte {
	buf := make([]byte, 0, 96+len(s.Pieces)*36)
	buf = append(buf, "dragonload statement 1\x00"...)
	buf = append(buf, s.By[:]...)
	buf = append(buf, s.Generation[:]...)
	buf = binary.BigEndian.AppendUint64(buf, s.Run)
	for i, p := range s.Pieces {
		buf = binary.BigEndian.AppendUint32(buf, p)
		buf = append(buf, s.Digests[i][:]...)
	}
	return buf
}

// of returns the digest that s states for a piece.
func (s *Statement) of(i piece.Index) (piece.Digest, bool) {
	k, ok := slices.BinarySearch(s.Pieces, i)
	if !ok {
		return piece.Digest{}, false
	}
	return s.Digests[k], true
}
