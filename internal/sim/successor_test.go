package sim

import (
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// office is a room in which the file takes about ten seconds, and whose LAN is wide.
func office(members int, faults ...Fault) World {
	w := Uniform(members, int64(members)*60*mbit*10, uint64(members))
	w.Origin.Up = int64(members) * 100 * mbit
	for k := range w.Members {
		w.Members[k].LANUp, w.Members[k].LANDown = 20*gbit, 20*gbit
	}
	w.Faults = faults
	for _, f := range faults {
		w.QuietFrom = max(w.QuietFrom, f.At+f.For)
	}
	return w
}

// halves are the sides of a partition, the room's tracker with the even members.
func halves(members int) piece.Bitfield {
	b := piece.NewBitfield(members + 1)
	for k := 1; k < members; k += 2 {
		b.Set(uint32(k))
	}
	return b
}

// TestSuccessor_costsLittle lets the tracker die, and whoever takes its place, and
// counts what the origin sends twice by that: at most 5 % of the file.
func TestSuccessor_costsLittle(t *testing.T) {
	tracker := Fault{Kind: TrackerDies, At: 3 * time.Second}
	silent := Fault{Kind: TrackerDies, At: 3 * time.Second, Silent: true}
	for _, c := range []struct {
		name   string
		faults []Fault
		ratio  float64
	}{
		{"the tracker dies", []Fault{tracker}, 1.4},
		{"the tracker dies in silence", []Fault{silent}, 1.5},
		{"the tracker dies and comes back", []Fault{{Kind: TrackerDies, At: 3 * time.Second, For: 4 * time.Second}}, 1.4},
		{"its successor dies too", []Fault{tracker, {Kind: HostDies, At: 6 * time.Second, For: time.Second}}, 1.6},
		{"three die one after the other", []Fault{tracker, {Kind: HostDies, At: 5 * time.Second, For: 2 * time.Second},
			{Kind: HostDies, At: 7 * time.Second, For: 2 * time.Second}, {Kind: HostDies, At: 9 * time.Second, For: 2 * time.Second}}, 1.8},
	} {
		for _, members := range []int{2, 4, 12, 32} {
			t.Run(c.name, func(t *testing.T) {
				result := Run(office(members, c.faults...))
				if result.Err != nil {
					t.Fatal(result.Err)
				}
				t.Logf("%d members: ratio %.2f, %.4f copies, %d hosts, %d lost, %d merged", members, result.Ratio(), result.Copies(), result.Marks[Hosts], result.Marks[HostLost], result.Marks[Merged])
				if result.Copies() > 1.05 {
					t.Errorf("%d members: %.4f copies, want at most 1.05", members, result.Copies())
				}
				if result.Ratio() > c.ratio {
					t.Errorf("%d members: %.2f times the bound, want at most %.2f", members, result.Ratio(), c.ratio)
				}
				if result.Marks[Hosts] == 0 {
					t.Error("nobody has taken the tracker's place")
				}
			})
		}
	}
}

// watchTrackers looks at who has which tracker from time to time.
type watchTrackers struct {
	every time.Duration
	look  func(r *run)
}

func (w *watchTrackers) happen(r *run) {
	w.look(r)
	r.later(w.every, w)
}

// trackers counts the members that have each tracker, and those without.
func (r *run) trackers() (hosts map[piece.NodeID]int, without int) {
	hosts = make(map[piece.NodeID]int)
	for _, m := range r.members {
		switch p := m.proc; {
		case p == nil || p.gone:
		case p.session == nil:
			without++
		default:
			hosts[p.session.host.id]++
		}
	}
	return hosts, without
}

// TestSuccessor_isThereWithin3s looks at the room three seconds after each loss: all
// members have one tracker, the same.
func TestSuccessor_isThereWithin3s(t *testing.T) {
	for _, members := range []int{3, 4, 16, 32} {
		r := newRun(office(members,
			Fault{Kind: TrackerDies, At: 2 * time.Second},
			Fault{Kind: HostDies, At: 5 * time.Second, For: time.Hour},
		))
		r.later(2*time.Second-time.Millisecond, &watchTrackers{3 * time.Second, func(r *run) {
			hosts, without := r.trackers()
			if len(hosts) != 1 || without > 0 {
				t.Errorf("%d members at %v: %d trackers, %d members without", members, time.Duration(r.now), len(hosts), without)
			}
			if r.now > swarm.Instant(7*time.Second) {
				r.limit = 1
			}
		}})
		if result := r.play(); result.Err != nil {
			t.Errorf("%d members: %v", members, result.Err)
		}
	}
}

// TestSuccessor_ofEachHalfBecomesOne cuts a room without a tracker in two: each half has
// a successor of its own, and after the cut there is one.
func TestSuccessor_ofEachHalfBecomesOne(t *testing.T) {
	const members = 8
	w := office(members,
		Fault{Kind: TrackerDies, At: time.Second},
		Fault{Kind: Partition, At: 4 * time.Second, For: 8 * time.Second, Sides: halves(members)},
	)
	w.Size *= 3
	r := newRun(w)
	look := func(at time.Duration, want int) {
		r.later(at, happenFunc(func(r *run) {
			if hosts, without := r.trackers(); len(hosts) != want || without > 0 {
				t.Errorf("at %v: %d trackers, %d members without, want %d and none", at, len(hosts), without, want)
			}
		}))
	}
	look(4*time.Second, 1)
	look(11*time.Second, 2)
	look(16*time.Second, 1)
	result := r.play()
	if result.Err != nil {
		t.Fatal(result.Err)
	}
	t.Logf("%v", result)
	if result.Marks[Merged] == 0 {
		t.Error("no member moved to the earlier of the two")
	}
}

type happenFunc func(*run)

func (f happenFunc) happen(r *run) { f(r) }
