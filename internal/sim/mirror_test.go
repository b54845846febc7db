package sim

import (
	"fmt"
	"testing"
	"time"

	"dragonload/internal/swarm"
)

// A room goes on at the mirrors that its members know while the origin rests for an hour,
// also without its tracker, and nobody asks the origin in that time.
func TestMirror_bringsTheFileWhileTheOriginRests(t *testing.T) {
	for _, c := range []struct {
		name   string
		knows  []int // members that know the mirror
		faults []Fault
	}{
		{"from the beginning", []int{2}, []Fault{{Kind: OriginBusy, For: time.Hour, Wait: time.Hour}}},
		{"midway", []int{2}, []Fault{{Kind: OriginBusy, At: 4 * time.Second, For: time.Hour, Wait: time.Hour}}},
		{"for several", []int{0, 1, 3}, []Fault{{Kind: OriginBusy, At: 4 * time.Second, For: time.Hour, Wait: time.Hour}}},
		{"without a tracker", []int{2}, []Fault{
			{Kind: OriginBusy, At: 2 * time.Second, For: time.Hour, Wait: time.Hour}, {Kind: TrackerDies, At: 4 * time.Second}}},
		{"though the mirror rests too", []int{2}, []Fault{
			{Kind: OriginBusy, At: 2 * time.Second, For: time.Hour, Wait: time.Hour},
			{Kind: OriginBusy, At: 3 * time.Second, For: 5 * time.Second, Wait: 5 * time.Second, Mirror: true}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := office(4, c.faults...)
			for _, k := range c.knows {
				w.Members[k].Mirror = true
			}
			w.Members[3].Join = 3 * time.Second // a newcomer
			result := Run(w)
			if result.Err != nil {
				t.Fatal(result.Err)
			}
			if result.Last > 2*time.Minute || result.Marks[Mirrored] == 0 {
				t.Errorf("it took %v, with %d requests to the mirror for the origin's sake", result.Last, result.Marks[Mirrored])
			}
			if result.Copies() > 1.1 {
				t.Errorf("%.3f copies were sent", result.Copies())
			}
		})
	}
}

// The checker sees a request to a server that rests, by whoever heard of it and from whom.
func TestMirror_noRequestInAPauseGoesUnseen(t *testing.T) {
	for _, at := range []server{own, mirror} {
		t.Run(at.String(), func(t *testing.T) {
			w := office(2)
			w.Members[0].Mirror = true
			r := newRun(w)
			r.start(r.members[0])
			p := r.members[0].proc
			p.beQuiet(r.now, r.sourceOf(at), time.Second)
			if r.pull(p, &pull{req: 1, kind: ranged}); r.err != nil {
				t.Fatalf("the other server does not rest: %v", r.err)
			}
			p.beQuiet(r.now, r.sourceOf(mirror-at), time.Second)
			if r.pull(p, &pull{req: 2, kind: ranged}); r.err == nil {
				t.Error("both rest, and one was asked")
			}
		})
	}
	if _, ok := serverNamed(swarm.SourceID{9}); ok {
		t.Error("a name that nobody gave is taken for a server's")
	}
	if s, ok := serverNamed(swarm.SourceID{2}); !ok || s != mirror {
		t.Error(fmt.Sprint("the mirror's name is taken for ", s))
	}
}
