package sim

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// poolID is the one pool of every simulated room.
var poolID = swarm.PoolID{'s', 'i', 'm'}

// run is one world under way. One thread touches it.
type run struct {
	world *World
	now   swarm.Instant
	queue queue
	rng   *rand.Rand

	members []*member
	tracker trackerHost
	origin  originHost
	cuts    []*cut  // what stands in the way of messages now
	parked  []*flow // flows that wait for that to end
	watch   watch

	slowTill swarm.Instant // until when messages of the tracker are late
	slowBy   time.Duration
	liesTill swarm.Instant          // until when the tracker lies
	heldTill [servers]swarm.Instant // the end of each server's pause that the tracker has heard of

	waiting  int // members that have yet to finish, those to come included
	running  int // processes
	last     swarm.Instant
	stepOut  []swarm.Action
	trackOut []swarm.TrackerAction

	result Result
	budget budget
	story  strings.Builder
	trace  uint64
	err    error
	limit  uint64 // steps after which the run stops, 0: no limit (benchmarks)
	clock  func() time.Duration
}

// member is a machine: what stays when a process on it dies.
type member struct {
	Member
	index   int
	id      piece.NodeID
	key     int // the number of the first member with this id
	place   place
	wan     line
	lanUp   line
	lanDown line
	disk    disk
	proc    *proc // the last one
	lives   int
	read    map[*content]*piece.Bitfield // from the origin, in any life; kept where World.Confirm asks for it
	dark    bool                         // the machine is off: connections to it are not even refused
	dying   *Fault                       // of the process, in the middle of its next step

	wanted    *piece.Bitfield // of a manifest; nil: all
	changed   bool            // what it shares is not any more all that it was
	flipFound bool            // it may have lost a piece after it was told to be whole

	awaited  bool // counted in run.waiting
	finished swarm.Instant
	whole    bool
	stopping swarm.Instant // when Stopping was given, 0 if not
}

// able reports whether the origin gives a member anything.
func (m *member) able() bool { return m.WAN > 0 && !m.Barred }

// idIndex is where a NodeID holds the number of its member.
const idIndex = 28

func newMember(k int, m Member, rng *rand.Rand) *member {
	x := &member{Member: m, index: k, key: k, place: place{k}}
	for b := 0; b < idIndex; b += 4 {
		binary.BigEndian.PutUint32(x.id[b:], rng.Uint32())
	}
	binary.BigEndian.PutUint32(x.id[idIndex:], uint32(k))
	x.wan.rate, x.lanUp.rate, x.lanDown.rate = max(m.WAN, 1), m.LANUp, m.LANDown
	return x
}

// memberOf returns the number of the member with this id, the first of two that are twins;
// -1 if there is none.
func (r *run) memberOf(id piece.NodeID) int {
	k := int(binary.BigEndian.Uint32(id[idIndex:]))
	if k >= len(r.members) || r.members[k].id != id {
		return -1
	}
	return k
}

func newRun(w World) *run {
	r := &run{world: &w, rng: rand.New(rand.NewPCG(w.Seed, 0x72756e))}
	for k, m := range w.Members {
		r.members = append(r.members, newMember(k, m, r.rng))
	}
	r.pairTwins()
	r.tracker.place.index = len(r.members)
	r.origin.init(r)
	for _, m := range r.members {
		m.wanted = r.selection(m)
		if m.Holds {
			r.fill(m)
		}
	}
	r.budget.init(r)
	r.startTracker()
	for _, m := range r.members {
		m.awaited = !m.Helper && !m.Holds && !m.cheats() && !m.Rest // those who are shunned help themselves, if slowly
		if m.awaited {
			r.waiting++
		}
		r.later(m.Join, (*boot)(m))
	}
	for k := range w.Faults {
		f := &w.Faults[k]
		r.later(f.At, f)
		switch f.Kind {
		case Kill, Stale, SyncFails:
			r.members[f.Member].disk.keepRecent = true
		case HostDies: // whoever that will be
			for _, m := range r.members {
				m.disk.keepRecent = true
			}
		}
	}
	r.later(time.Second, &r.watch)
	if len(r.members) >= 1000 {
		r.mark(Crowds)
	}
	return r
}

// Run plays a world to its end.
func Run(w World) Result {
	return newRun(w).play()
}

func (r *run) later(d time.Duration, what happening) { r.queue.push(r.now.Add(d), what) }

// play lets things happen until every member has what it wants and has gone, or
// until a promise is broken.
func (r *run) play() (result Result) {
	started := time.Now()
	defer func() {
		if p := recover(); p != nil {
			r.err = fmt.Errorf("at %v: panic: %v\n%s", time.Duration(r.now), p, debug.Stack())
		}
		result = r.finish(time.Since(started))
	}()
	deadline := swarm.Instant(r.patience())
	for r.err == nil {
		e, ok := r.queue.pop()
		if !ok {
			break
		}
		r.now = e.at
		if r.now > deadline {
			if r.onlyHelpless() {
				r.dismiss()
				deadline = r.now.Add(r.linger())
			} else {
				r.err = r.s13CoreFinishes()
				break
			}
		}
		e.what.happen(r)
		r.result.Events++
		r.s7OriginWithinItsBudget()
		if r.limit > 0 && r.result.Steps >= r.limit {
			break
		}
		if r.waiting == 0 {
			if r.last == 0 {
				r.last = r.now
				if slices.ContainsFunc(r.world.Members, func(m Member) bool { return m.Rest }) {
					r.mark(CoreDone)
				}
				deadline = r.now.Add(r.linger())
				r.dismiss()
			}
			if r.running == 0 {
				break
			}
		}
	}
	return result
}

// patience is by when every member must have finished: some fluid bounds after the
// last fault, and time for every wait that a fault may have begun.
func (r *run) patience() time.Duration {
	w := r.world
	at := w.QuietFrom
	for _, m := range w.Members {
		at = max(at, m.Join)
	}
	factor := 3
	if len(w.Faults) > 0 || w.PeerLosses+w.OriginLosses > 0 {
		factor = 6
	}
	return at + time.Duration(factor)*r.slowestBound() + 2*time.Minute
}

// slowestBound is the fluid bound of the room or, where members may end up alone with
// their lines (the others have left or died, or there is no tracker to meet them by),
// the time that the slowest line needs for everything.
func (r *run) slowestBound() time.Duration {
	w := r.world
	bound := w.Bound()
	alone := w.Origin.OneStream || w.Origin.TwoFaces
	everybody := int64(0)
	for _, f := range w.Faults {
		alone = alone || f.Kind == Leave || f.Kind == Kill || f.Kind == Wipe || f.Kind == TrackerDies || f.Kind == HostDies
	}
	for _, m := range w.Members {
		alone = alone || m.LeavesWhenWhole || m.cheats() || m.Knows || m.Misled || m.Twin > 0
	}
	if alone && w.ofManifest() {
		bound = max(bound, timeFor(w.Size*int64(len(w.Members)), w.Members[0].LANUp))
	}
	if alone {
		for _, m := range w.Members {
			if m.WAN > 0 && !m.Helper {
				bound = max(bound, timeFor(w.Size, min(m.WAN, w.Origin.Up)))
				everybody += w.Size
			}
		}
		bound = max(bound, timeFor(everybody, w.Origin.Up))
	}
	return bound
}

// onlyHelpless reports whether members are left only that cannot get the file from
// the origin, and nobody else to get it from.
func (r *run) onlyHelpless() bool {
	if r.waiting == 0 {
		return false
	}
	pinned := slices.ContainsFunc(r.members, func(m *member) bool { return m.proc != nil && !m.proc.gone && m.disk.set })
	for _, m := range r.members {
		able := m.able() && (!m.Helper || pinned) // a helper does not begin a pool
		if m.awaited && able || m.proc != nil && !m.proc.gone && (able || m.whole) {
			return false
		}
	}
	return true
}

// dismiss stops those who are not waited for because nobody can bring them the file.
func (r *run) dismiss() {
	for _, m := range r.members {
		switch {
		case m.proc == nil || m.proc.gone:
		case m.Rest, m.Holds:
			r.stop(m)
		case !m.Helper && !m.whole:
			r.stop(m)
		}
	}
}

// linger is how long members may stay after the last one has finished.
func (r *run) linger() time.Duration { return lingerTime + 30*time.Second }

// boot begins, or begins again, the process of a member.
type boot member

func (b *boot) happen(r *run) {
	m := (*member)(b)
	if m.stopping != 0 || m.proc != nil && !m.proc.gone || m.Holds && r.last > 0 {
		return // or nobody is left whom it would serve
	}
	r.s2ResumesWhatWasSynced(m)
	m.dark = false
	r.start(m)
}
