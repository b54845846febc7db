package swarm

import "dragonload/internal/piece"

// Events that a driver hands to Tracker.Step.
type (
	// TrackerEvent is anything that may happen to a Tracker.
	TrackerEvent interface{ trackerEvent() }

	// MemberSaid: a message has arrived on a member's session about a pool. The first
	// one of a session is an Announce. A second session of the same member takes the
	// place of the first.
	MemberSaid struct {
		Pool    PoolID
		Member  piece.NodeID
		Message ToTracker
	}

	// MemberGone: a member's session has ended without a Leave.
	MemberGone struct {
		Pool   PoolID
		Member piece.NodeID
	}

	// SourceWanted: somebody would help a pool whose help is welcome and must know its
	// URL. An Offer follows, if a member tells it.
	SourceWanted struct{ Pool PoolID }
)

func (MemberSaid) trackerEvent()   {}
func (MemberGone) trackerEvent()   {}
func (SourceWanted) trackerEvent() {}

// Actions that Tracker.Step hands to its driver.
type (
	// TrackerAction is anything that a Tracker may order.
	TrackerAction interface{ trackerAction() }

	// TellMember sends a message to a member on its session; it is dropped if there
	// is none.
	TellMember struct {
		Pool    PoolID
		Member  piece.NodeID
		Message ToNode
	}

	// CutMember closes the session of a member that has been silent for too long, or
	// that said something no honest node says. No MemberGone is needed for it.
	CutMember struct {
		Pool   PoolID
		Member piece.NodeID
	}

	// HelpWelcome tells when a pool begins to welcome helpers, and when it does no more.
	HelpWelcome struct {
		Pool    PoolID
		By      piece.NodeID // a member that would tell the URL; zero at the end
		Welcome bool
	}

	// Offer tells the URL of a pool that welcomes helpers, for those alone that lend.
	Offer struct {
		Pool PoolID
		By   piece.NodeID // who told it
		URL  string
	}
)

func (TellMember) trackerAction()  {}
func (CutMember) trackerAction()   {}
func (HelpWelcome) trackerAction() {}
func (Offer) trackerAction()       {}
