package sim

import (
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"dragonload/internal/piece"
)

// World is everything that one run depends on.
type World struct {
	Seed    uint64 // of all that is drawn while the run goes on
	Drawn   bool   // made by Draw(Seed): the run can be repeated from the seed alone
	Size    int64  // bytes in the origin's file, or in all files of the manifest
	Files   int    // of a manifest, see manifest.go; 0: the world is of a URL
	Alike   bool   // and all as large
	Members []Member
	Origin  Origin
	Confirm int // members that must state each piece alike, for everybody; 0: one

	PieceLength  int64         // with a manifest; 0: the usual
	LANDelay     time.Duration // one way, between members
	ControlDelay time.Duration // one way, between a member and the tracker
	Jitter       time.Duration // mean of what each message takes beyond, distributed exponentially

	// Of a million requests this many break off midway, until QuietFrom.
	PeerLosses, OriginLosses int
	Faults                   []Fault
	QuietFrom                time.Duration // no fault begins or lasts after this

	Log io.Writer // every event and action of the machines, a line each; nil: nowhere
}

// Member is one machine of the room. Rates are bytes per second.
type Member struct {
	WAN             int64 // line to the origin; 0: this member cannot reach it
	LANUp, LANDown  int64
	WANDelay        time.Duration // one way, to the origin
	Barred          bool          // the origin refuses this member for good (403)
	Join            time.Duration // when its download begins
	Helper          bool          // lends its line and does not want the file
	LiesOneIn       int           // serves wrong bytes for one piece in so many; 0: never
	LeavesWhenWhole bool          // is stopped as soon as its file is whole
	Drift           int64         // its clock is so many parts in a million too fast
	Withholds       bool          // says that it holds everything, and answers no request
	Freeloads       bool          // tells nobody what it holds, and turns requests down
	Floods          bool          // says and asks far more than anybody needs
	Replays         bool          // says again what it has said before
	Equivocates     bool          // states one digest to some neighbours and another to the rest
	Forgery         int           // vouches for false bytes; those with the same number collude. 0: does not
	LiesEvery       int           // with Forgery: for one piece in so many
	Denies          bool          // with Forgery: answers every accusation, and says again and again what it holds
	Returns         bool          // breaks streams off again and again, and comes back
	Knows           bool          // has the digest of the whole file
	Misled          bool          // has a digest that is not that of the file
	Twin            int           // 1 + the number of a member whose key it has too, as a cloned machine does; 0: it has its own
	Holds           bool          // with a manifest: has everything from the beginning, and shares it
	Selects         int           // with a manifest: wants one file in so many; 0: all
	Mirror          bool          // knows a mirror: a server with a line of its own, as wide as the origin's
	Rest            bool          // what is wrong with it is never mended; nobody waits for it (S13)
}

// Origin is the server that the bytes come from.
type Origin struct {
	Up          int64 // bytes/s
	OneStream   bool  // answers every request with the whole file
	NoValidator bool  // names no version; no two answers may be combined
	Unsized     bool  // does not say how long the file is (with OneStream)
	TwoFaces    bool  // gives every other member other bytes of the same version
	WrongOneIn  int   // with a manifest: has other bytes for one piece in so many; 0: never
	MaxRequests int   // requests at one time; beyond, 503 with Retry-After. 0: no limit
}

// FaultKind says what goes wrong.
type FaultKind uint8

const (
	// Leave: the member's user stops the download.
	Leave FaultKind = iota
	// Kill: the member's process is gone. With For, it is started again then and
	// finds what had been synced.
	Kill
	// Wipe: like Kill, and what it had stored is gone too.
	Wipe
	// Damage: one stored piece can no longer be read.
	Damage
	// SlowLine divides the rate of the member's line to the origin by Factor.
	SlowLine
	// SlowLAN does so with both directions of its LAN.
	SlowLAN
	// Partition cuts the LAN: members and tracker whose bit in Sides differs do not
	// reach each other. All still reach the origin.
	Partition
	// TrackerDies: the tracker's process is gone. With For, an empty one starts then.
	TrackerDies
	// OriginBusy: the origin answers new requests with 503 and Retry-After.
	OriginBusy
	// OriginResets: the origin breaks off every request under way.
	OriginResets
	// OriginChanges: there is another version of the file from now on.
	OriginChanges
	// OneWay: what those in Sides send reaches nobody outside of it; they still hear.
	OneWay
	// Clog: nothing passes between Member and Other, which may be the tracker.
	Clog
	// Reset: all connections of the member with other members and the tracker break.
	Reset
	// HalfOpen: the member's end of them is gone; the others notice by the silence.
	HalfOpen

	// Pause: the member's process stands still, and goes on with all timers late.
	Pause
	// ClockJumps: the member's clock leaps by Leap, forward or back.
	ClockJumps
	// ClockStops: it stands still while the rest goes on.
	ClockStops

	// DiskFull: the member's next piece cannot be written, which ends its download;
	// with For, its user makes room and begins it again.
	DiskFull
	// SyncFails: so does the next sync, and what it was to make safe is lost.
	SyncFails
	// Stale: like Kill, but the disk falls back to any earlier state.
	Stale
	// BitFlip: one stored piece is not any more what was written; that shows when it
	// is read.
	BitFlip

	// OriginStalls: the origin sends nothing to anybody.
	OriginStalls
	// OriginDrips divides its rate by Factor.
	OriginDrips
	// OriginTruncates: its answers end before their time.
	OriginTruncates
	// OriginRefuses: it answers requests for ranges with the whole file, or with a 416.
	OriginRefuses
	// OriginFlaps: another version of the file is there, and then the first one again.
	OriginFlaps

	// TrackerSlow: messages from and to the tracker take Wait longer.
	TrackerSlow
	// TrackerLies: it lends what others have or fetches, takes leases back without reason,
	// and says that all is complete; with the fault another one takes its place.
	TrackerLies
	// TrackerForgets: the tracker knows nothing any more, but keeps its sessions.
	TrackerForgets

	// HostDies: the process of the member is gone that has taken the tracker's place, if
	// one has. With For, it is started again then.
	HostDies

	// ShareChanges: a file that the member shares is not any more what it was.
	ShareChanges

	faultKinds
)

var faultNames = [faultKinds]string{"leave", "kill", "wipe", "damage", "slow-line", "slow-lan", "partition", "tracker-dies",
	"origin-busy", "origin-resets", "origin-changes", "one-way", "clog", "reset", "half-open", "pause", "clock-jumps", "clock-stops",
	"disk-full", "sync-fails", "stale", "bit-flip", "origin-stalls", "origin-drips", "origin-truncates", "origin-refuses",
	"origin-flaps", "tracker-slow", "tracker-lies", "tracker-forgets", "host-dies", "share-changes"}

func (k FaultKind) String() string { return faultNames[k] }

// Fault is one thing that goes wrong.
type Fault struct {
	Kind   FaultKind
	At     time.Duration
	For    time.Duration // 0: it is not mended (Leave, Kill, TrackerDies) or has no length
	Member int
	Other  int            // Clog: the other end; the number of members stands for the tracker
	Silent bool           // Kill, Wipe, Stale, TrackerDies: the machine is gone, nothing resets its connections
	Midway bool           // Kill: between two actions of one step
	Mirror bool           // OriginBusy: it is the mirror
	Torn   bool           // Kill, Stale: the power is cut; of what was not synced any part is on the disk
	Factor int64          // SlowLine, SlowLAN, OriginDrips
	Leap   time.Duration  // ClockJumps
	Wait   time.Duration  // OriginBusy: Retry-After (0: none is given). TrackerSlow
	Sides  piece.Bitfield // Partition, OneWay: one bit a member, then one for the tracker
}

const (
	mbit = 1_000_000 / 8
	gbit = 1000 * mbit
)

// Uniform is an office on a quiet day: members whose lines are drawn from 20 to 100
// Mbit/s on a gigabit LAN, all beginning within a tenth of a second, and an origin
// that sends 400 Mbit/s. Up to about seven members the lines are the narrow place,
// with more of them the origin is.
func Uniform(members int, size int64, seed uint64) World {
	rng := rand.New(rand.NewPCG(seed, 0x756e69666f726d))
	w := World{
		Seed:         seed,
		Size:         size,
		Origin:       Origin{Up: 400 * mbit},
		LANDelay:     200 * time.Microsecond,
		ControlDelay: 300 * time.Microsecond,
	}
	for range members {
		w.Members = append(w.Members, Member{
			WAN:      20*mbit + rng.Int64N(80*mbit),
			LANUp:    gbit,
			LANDown:  gbit,
			WANDelay: 5*time.Millisecond + time.Duration(rng.Int64N(int64(10*time.Millisecond))),
			Join:     time.Duration(rng.Int64N(int64(100 * time.Millisecond))),
		})
	}
	return w
}

// Bound is the time before which no schedule, however clever, can end, if the origin
// may send each byte only once and every member were there from the beginning: the
// fluid bound, without headers, delays and pieces. What one member pulls, the others
// get over the LAN.
func (w *World) Bound() time.Duration {
	if w.ofManifest() {
		return w.manifestBound()
	}
	size, n := float64(w.Size), len(w.Members)
	up := float64(w.Origin.Up)
	var lines, sent, received, wanting, slowest float64
	for _, m := range w.Members {
		lines += float64(m.WAN)
		sent += float64(m.LANUp)
		if !m.Helper {
			wanting++
			received += float64(m.LANDown)
			own := min(float64(m.WAN), up)
			if n > 1 {
				own += float64(m.LANDown)
			}
			slowest = max(slowest, size/own)
		}
	}
	bound := max(size/min(up, lines), slowest)
	if w.Origin.OneStream {
		widest := 0.0
		for _, m := range w.Members {
			widest = max(widest, float64(m.WAN))
		}
		bound = max(bound, size/min(up, widest))
	}
	if n > 1 {
		bound = max(bound, (wanting*size-size)/sent, (wanting*size-size)/received)
	}
	return time.Duration(bound * 1e9)
}

// mirrored reports whether somebody knows a mirror.
func (w *World) mirrored() bool {
	return slices.ContainsFunc(w.Members, func(m Member) bool { return m.Mirror })
}

// has reports whether a fault of this kind is in the world.
func (w *World) has(k FaultKind) bool {
	for _, f := range w.Faults {
		if f.Kind == k {
			return true
		}
	}
	return false
}
