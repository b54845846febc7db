package sim

import (
	"fmt"
	"strings"
	"time"
)

// Mark is something that a run may come to. A set of runs that never comes to one of
// them tests less than it seems to.
type Mark uint8

// The marks.
const (
	Probes            Mark = iota // the origin was asked what the file is
	StoredTwice                   // a piece came that was stored already
	Doubled                       // a piece was asked of two neighbours at once (endgame)
	Refused                       // a holder turned a request down
	Losses                        // a request broke off
	Stalls                        // a source was left because it sent nothing
	Lies                          // wrong bytes were sent
	WrongBytes                    // and noticed
	Audits                        // a leaf was compared with the origin's
	Stolen                        // leased pieces were given back, to be given to another
	Revokes                       // and asked for by the tracker
	LeaseExpired                  // leases were taken from a member that brought nothing
	MemberCut                     // the tracker closed a session
	TrackerAway                   // a member lost its tracker
	TrackerBack                   // and found it again
	Hosts                         // a member took the tracker's place
	HostLost                      // and was lost by another in turn
	Merged                        // one moved from its successor to an earlier one
	Claims                        // members divided the origin among themselves
	Severed                       // a partition outlasted the sessions across it
	OriginWaits                   // the origin asked for a pause
	TooMany                       // it had too many requests at one time
	ReadAsStream                  // the file was read as one stream
	GenerationChanged             // a member began anew with another version
	GaveUp                        // a member without a line of its own had nobody left to get the file from
	Resumed                       // a process went on with what an earlier one had stored
	Disconnected                  // all connections of a member broke
	ClockWrong                    // a member's clock jumped or stood still
	PausedLong                    // a process stood still for so long that the others left it
	KilledMidway                  // a process died between two actions of one step
	DiskFailed                    // a disk ended a download
	TornWrites                    // a power cut left later pieces and took earlier ones
	FlipFound                     // a stored piece was not any more what was written
	HoldKept                      // the tracker heard of a pause of the origin
	Forged                        // somebody vouched for false bytes
	Equivocated                   // or stated two digests for one piece
	Deceived                      // and somebody finished with them, as the default allows
	Banned                        // a member was shut out for what it stated
	Inconsistent                  // the origin was found to give two things for one
	FacesMixed                    // a file has bytes of both faces of the origin
	Withheld                      // a request was never answered
	Flooded                       // a member said and asked far too much
	Replayed                      // a member said again what it had said before
	TrackerLied                   // the tracker ordered what makes no sense
	Crowds                        // a thousand or more members came within seconds
	ShareChanged                  // a shared file changed under its holder
	SeedWrong                     // a web seed sent what does not match the manifest
	Denied                        // a liar answered an accusation
	BrokenOff                     // a member broke a stream off to come back
	Doubted                       // a whole file was not what its digest says
	DigestBlamed                  // and the digest was what is wrong
	Twins                         // two members with one key took the place of each other
	Mirrored                      // a member went on at a mirror while the origin rested
	CoreDone                      // everybody of a core has finished, while the rest stayed broken

	marks
)

var markNames = [marks]string{"probes", "stored-twice", "doubled", "refused", "losses", "stalls", "lies", "wrong-bytes",
	"audits", "stolen", "revokes", "lease-expired", "member-cut", "tracker-away", "tracker-back", "hosts", "host-lost", "merged", "claims", "severed", "origin-waits",
	"too-many-requests", "read-as-stream", "generation-changed", "gave-up", "resumed", "disconnected", "clock-wrong",
	"paused-long", "killed-midway", "disk-failed", "torn-writes", "flip-found", "hold-kept", "forged", "equivocated",
	"deceived", "banned", "inconsistent", "faces-mixed", "withheld", "flooded", "replayed", "tracker-lied", "crowds", "share-changed", "seed-wrong",
	"denied", "broken-off", "doubted", "digest-blamed", "twins", "mirrored", "core-done"}

func (m Mark) String() string { return markNames[m] }

func (r *run) mark(m Mark) { r.result.Marks[m]++ }

// Result is what came of a run.
type Result struct {
	Seed    uint64
	Members int
	Size    int64
	Pieces  int
	Faulty  bool // the world had faults, so Ratio and Copies say little

	Finished    int           // members whose file is whole
	Last        time.Duration // when the last of them was
	Bound       time.Duration // see World.Bound
	OriginBytes int64         // sent by the origin, audits included
	AuditBytes  int64
	PeerBytes   int64 // pieces delivered from member to member
	Requests    int64 // to the origin

	Events, Steps uint64 // of the simulator; of the machines
	Trace         uint64 // equal in two runs of the same world
	Took          time.Duration
	Marks         [marks]int64
	Faults        [faultKinds]int64

	// Measured only by benchmarks.
	NodeSteps, TrackerSteps uint64
	NodeTime, TrackerTime   time.Duration

	// Story tells what went wrong when, and when members finished, a line each.
	Story string

	// Err is the first broken promise, nil if all were kept.
	Err error
}

// Ratio is the time of the last member in fluid bounds; 1 cannot be beaten.
func (r *Result) Ratio() float64 { return float64(r.Last) / float64(max(r.Bound, 1)) }

// Copies is how often the origin sent the file, audits aside.
func (r *Result) Copies() float64 {
	return float64(r.OriginBytes-r.AuditBytes) / float64(max(r.Size, 1))
}

func (r *run) finish(took time.Duration) Result {
	res := r.result
	res.Seed = r.world.Seed
	res.Members = len(r.members)
	res.Size = r.world.Size
	res.Pieces = r.origin.current.layout.Count()
	res.Faulty = r.budget.faulty
	res.Last = time.Duration(r.last)
	res.Bound = r.world.Bound()
	res.Trace = r.trace
	res.Took = took
	res.Story = r.story.String()
	if r.err != nil {
		res.Err = fmt.Errorf("%w\n%s\nto see it again: %s", r.err, r.world.Describe(), r.world.Command())
	}
	return res
}

// Command is the command line that plays this world again.
func (w *World) Command() string {
	if w.Drawn {
		return fmt.Sprintf("dragonload simulate --seed %d --drawn", w.Seed)
	}
	return fmt.Sprintf("dragonload simulate --members %d --size %d --seed %d", len(w.Members), w.Size, w.Seed)
}

// String tells a result in a few lines for people.
func (r Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d members, %d bytes in %d pieces\n", r.Seed, r.Members, r.Size, r.Pieces)
	fmt.Fprintf(&b, "last member  %.3f s\nfluid bound  %.3f s\nratio        %.3f\n", r.Last.Seconds(), r.Bound.Seconds(), r.Ratio())
	fmt.Fprintf(&b, "origin       %.4f copies in %d requests, audits %.4f\n", r.Copies(), r.Requests, float64(r.AuditBytes)/float64(max(r.Size, 1)))
	fmt.Fprintf(&b, "finished     %d\n", r.Finished)
	fmt.Fprintf(&b, "simulated in %.2f s, %d events, %d steps, trace %016x\n", r.Took.Seconds(), r.Events, r.Steps, r.Trace)
	var seen []string
	for m, n := range r.Marks {
		if n > 0 {
			seen = append(seen, fmt.Sprintf("%v %d", Mark(m), n))
		}
	}
	for k, n := range r.Faults {
		if n > 0 {
			seen = append(seen, fmt.Sprintf("fault %v %d", FaultKind(k), n))
		}
	}
	fmt.Fprintf(&b, "seen         %s\n", strings.Join(seen, ", "))
	return b.String()
}

// Describe tells what a world holds, for people.
func (w *World) Describe() string {
	var b strings.Builder
	o := w.Origin
	fmt.Fprintf(&b, "world of seed %d: %d members, %d bytes, origin %d B/s", w.Seed, len(w.Members), w.Size, o.Up)
	for _, s := range []struct {
		is   bool
		name string
	}{{o.OneStream, "one stream"}, {o.NoValidator, "no validator"}, {o.Unsized, "unsized"}, {o.TwoFaces, "two faces"}} {
		if s.is {
			b.WriteString(", " + s.name)
		}
	}
	if o.MaxRequests > 0 {
		fmt.Fprintf(&b, ", at most %d requests", o.MaxRequests)
	}
	if w.ofManifest() {
		fmt.Fprintf(&b, ", a manifest of %d files in pieces of %d", w.Files, w.pieceLength())
	}
	if o.WrongOneIn > 0 {
		fmt.Fprintf(&b, ", web seed wrong for one piece in %d", o.WrongOneIn)
	}
	var helpers, barred, lineless, liars, leaving, holding, selective int
	for _, m := range w.Members {
		count := func(is bool, n *int) {
			if is {
				*n++
			}
		}
		count(m.Helper, &helpers)
		count(m.Barred, &barred)
		count(m.WAN == 0, &lineless)
		count(m.cheats(), &liars)
		count(m.LeavesWhenWhole, &leaving)
		count(m.Holds, &holding)
		count(m.Selects > 0, &selective)
	}
	fmt.Fprintf(&b, "; %d helpers, %d barred, %d without a line, %d cheats, %d leave when whole", helpers, barred, lineless, liars, leaving)
	if w.ofManifest() {
		fmt.Fprintf(&b, ", %d hold all, %d want a part", holding, selective)
	}
	fmt.Fprintf(&b, "; losses %d/%d per million until %v, messages %v late\n", w.PeerLosses, w.OriginLosses, w.QuietFrom, w.Jitter)
	for k := range w.Members {
		switch m := &w.Members[k]; {
		case m.cheats():
			fmt.Fprintf(&b, "  member %d cheats:%s\n", k, words(m))
		case m.Twin > 0 || m.Knows || m.Misled:
			fmt.Fprintf(&b, "  member %d:%s\n", k, words(m))
		}
	}
	for k := range w.Faults {
		fmt.Fprintf(&b, "  %s\n", w.Faults[k].describe(w))
	}
	return b.String()
}

// describe tells of one fault in a line.
func (f *Fault) describe(w *World) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v %v", f.At, f.Kind)
	if f.Kind.ofMember() {
		fmt.Fprintf(&b, " member %d", f.Member)
		if w.Members[f.Member].Rest {
			b.WriteString(" of the rest")
		}
	}
	for _, part := range []struct {
		is   bool
		text string
		arg  any
	}{
		{f.Kind == Clog, " from member %v", f.Other},
		{f.For > 0, " for %v", f.For},
		{f.Silent && f.Kind.ofMember(), " silently", nil},
		{f.Midway, " midway", nil},
		{f.Torn, " torn", nil},
		{f.Factor > 0, " by %v", f.Factor},
		{f.Leap != 0, " by %v", f.Leap},
		{f.Kind == OriginBusy && f.Wait > 0, " Retry-After %v", f.Wait},
		{f.Kind == TrackerSlow, " %v late", f.Wait},
		{f.Sides.Len() > 0, " aside: %v", runs(&f.Sides)},
	} {
		switch {
		case part.is && part.arg == nil:
			b.WriteString(part.text)
		case part.is:
			fmt.Fprintf(&b, part.text, part.arg)
		}
	}
	return b.String()
}

// tell adds a line to the story of a run.
func (r *run) tell(format string, args ...any) {
	const enough = 64 << 10
	if r.story.Len() < enough {
		fmt.Fprintf(&r.story, "%11.6f %s\n", time.Duration(r.now).Seconds(), fmt.Sprintf(format, args...))
	}
}
