package swarm_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// office is a Tracker with one pool.
type office struct {
	*swarm.Tracker
	now swarm.Instant
}

func newOffice() *office {
	return &office{swarm.NewTracker(swarm.TrackerOptions{}, rand.New(rand.NewPCG(1, 2))), swarm.Instant(time.Second)}
}

func (o *office) step(ev swarm.TrackerEvent) []swarm.TrackerAction {
	o.now++
	return o.Step(o.now, ev, nil)
}

func (o *office) hear(by string, m swarm.ToTracker) []swarm.TrackerAction {
	return o.step(swarm.MemberSaid{Member: id(by), Message: m})
}

func orders[A swarm.TrackerAction](out []swarm.TrackerAction) (found []A) {
	for _, a := range out {
		if x, ok := a.(A); ok {
			found = append(found, x)
		}
	}
	return found
}

// asked returns who is told AskSource.
func asked(out []swarm.TrackerAction) (who []piece.NodeID) {
	for _, tell := range orders[swarm.TellMember](out) {
		if _, ok := tell.Message.(swarm.AskSource); ok {
			who = append(who, tell.Member)
		}
	}
	return who
}

func wanting(lendable bool) swarm.Announce {
	return swarm.Announce{
		Addr: "h:1", Fetches: true, Wants: true, Lendable: lendable,
		Pinned: true, Fresh: true, Pin: hostilePin, Have: piece.NewBitfield(hostilePin.Layout().Count()),
	}
}

func TestTracker_asksForTheURLOnlyWhenSomebodyLends(t *testing.T) {
	t.Parallel()
	o := newOffice()
	out := o.hear("S", wanting(false))
	if got := orders[swarm.HelpWelcome](out); len(got) > 0 {
		t.Errorf("a pool whose one member keeps its URL says %+v", got)
	}
	out = o.hear("A", wanting(true))
	if got := orders[swarm.HelpWelcome](out); len(got) != 1 || !got[0].Welcome || got[0].By != id("A") {
		t.Errorf("the pool says %+v, want welcome by A", got)
	}
	if who := asked(out); len(who) > 0 {
		t.Errorf("%v were asked though nobody lends", who)
	}
	if out := o.hear("A", swarm.Source{URL: "http://unasked/"}); len(orders[swarm.Offer](out)) > 0 {
		t.Error("a URL that nobody asked for is offered")
	}
	if who := asked(o.step(swarm.SourceWanted{})); len(who) != 1 || who[0] != id("A") {
		t.Errorf("asked %v, want A", who)
	}
	if out := o.hear("S", swarm.Source{URL: "http://other/"}); len(orders[swarm.Offer](out)) > 0 {
		t.Error("the URL of somebody else is offered")
	}
	out = o.hear("A", swarm.Source{URL: "http://h/f"})
	if got := orders[swarm.Offer](out); len(got) != 1 || got[0].URL != "http://h/f" || got[0].By != id("A") {
		t.Errorf("offers %+v", got)
	}
	all := swarm.Report{Stored: []piece.Extent{hostilePin.Layout().All()}, Whole: true}
	if got := orders[swarm.HelpWelcome](o.hear("A", all)); len(got) != 1 || got[0].Welcome {
		t.Errorf("with every piece in the pool it says %+v, want that no help is needed", got)
	}
}

func TestTracker_asksAnotherForTheURLWhenOneDoesNotAnswer(t *testing.T) {
	t.Parallel()
	o := newOffice()
	o.hear("A", wanting(true))
	o.hear("B", wanting(true))
	first := asked(o.step(swarm.SourceWanted{}))
	o.now = o.now.Add(1100 * time.Millisecond)
	second := asked(o.step(nil))
	if len(first) != 1 || len(second) != 1 || first[0] == second[0] {
		t.Errorf("asked %v, then %v", first, second)
	}
	o.now = o.now.Add(500 * time.Millisecond)
	if who := asked(o.step(swarm.MemberGone{Member: second[0]})); len(who) > 0 {
		t.Errorf("asked %v once more", who)
	}
}

func TestTracker_streamsWelcomeNoHelp(t *testing.T) {
	t.Parallel()
	o := newOffice()
	a := wanting(true)
	a.Stream = true
	if got := orders[swarm.HelpWelcome](o.hear("A", a)); len(got) > 0 {
		t.Errorf("says %+v", got)
	}
}

// A helper has no say about what the file is, and is told when those who wanted it have
// left.
func TestTracker_helpersDecideNothing(t *testing.T) {
	t.Parallel()
	o := newOffice()
	o.hear("A", wanting(true))
	out := o.hear("H", swarm.Announce{Addr: "h:2", Fetches: true})
	if len(orders[swarm.TellMember](out)) == 0 {
		t.Fatal("the helper is told nothing")
	}
	for _, tell := range orders[swarm.TellMember](o.hear("H", swarm.Conflict{Pin: smallPin})) {
		if _, probe := tell.Message.(swarm.Probe); probe {
			t.Errorf("%v is to look again because a helper sees another version", tell.Member)
		}
	}
	complete := false
	o.now = o.now.Add(1500 * time.Millisecond) // nobody else of an older pool has come
	for _, tell := range orders[swarm.TellMember](o.hear("A", swarm.Leave{})) {
		if _, is := tell.Message.(swarm.Complete); is && tell.Member == id("H") {
			complete = true
		}
	}
	if !complete {
		t.Error("the helper is not told that nobody is left")
	}

	// Alone before a pin there is nothing that a helper is asked to find out.
	alone := newOffice()
	for _, tell := range orders[swarm.TellMember](alone.hear("H", swarm.Announce{Addr: "h:2", Fetches: true})) {
		if _, probe := tell.Message.(swarm.Probe); probe {
			t.Error("a helper is to make the first request")
		}
	}
}

func newHelper() *victim {
	opts := swarm.NodeOptions{Self: id("M"), Addr: "host:1", Fetches: true, Linger: 5 * time.Second}
	v := &victim{Node: swarm.NewNode(opts, rand.New(rand.NewPCG(1, 2))), now: swarm.Instant(time.Second)}
	v.hear(swarm.TrackerUp{}, swarm.PeerUp{Peer: id("A")}, swarm.TrackerSaid{Message: swarm.Pinned{Pin: smallPin}})
	return v
}

func TestNode_helperTakesNothingFromNeighboursAndFinishesNothing(t *testing.T) {
	t.Parallel()
	v := newHelper()
	out := v.hear(said("A", holds(smallPin)))
	all := smallPin.Layout().All()
	digests := map[piece.Index]piece.Digest{}
	out = append(out, v.hear(swarm.TrackerSaid{Message: swarm.Probe{}}, swarm.TrackerSaid{Message: swarm.AskSource{}},
		swarm.TrackerSaid{Message: swarm.Lease{Extents: []piece.Extent{all}}})...)
	for len(digests) < int(all.Count) {
		asked := only[swarm.FetchOrigin](out)
		if len(asked) == 0 {
			t.Fatalf("fetches nothing of what it was leased after %d pieces", len(digests))
		}
		out = nil
		for _, a := range asked {
			for i := a.Extent.First; i < a.Extent.End(); i++ {
				digests[i] = piece.Digest{byte(i), 1}
				out = append(out, v.hear(swarm.OriginStored{Request: a.Request, Piece: i, Digest: digests[i]})...)
			}
			out = append(out, v.hear(swarm.OriginEnded{Request: a.Request})...)
		}
		if n := len(only[swarm.FetchPeer](out)) + len(only[swarm.ProbeOrigin](out)) + len(only[swarm.Finish](out)); n > 0 {
			t.Fatalf("does what only one that wants the file does: %v", out)
		}
	}
	// Nothing comes for long: it rescues nothing, and goes when it is told.
	for range 400 {
		out = append(out, v.after(250*time.Millisecond)...)
	}
	if n := len(only[swarm.FetchPeer](out)) + len(only[swarm.Finish](out)) + len(only[swarm.Quit](out)); n > 0 {
		t.Errorf("does what only one that wants the file does, or leaves a neighbour: %v", out)
	}
	if out := v.hear(swarm.TrackerSaid{Message: swarm.Complete{}}); len(only[swarm.Quit](out)) != 1 {
		t.Errorf("does not go: %v", out)
	}
}

func TestNode_helperThatIsAloneGoes(t *testing.T) {
	t.Parallel()
	v := newHelper()
	v.hear(swarm.PeerDown{Peer: id("A")})
	var out []swarm.Action
	for range 200 {
		out = append(out, v.after(250*time.Millisecond)...)
	}
	if len(only[swarm.Quit](out)) != 1 || len(only[swarm.FetchOrigin](out)) > 0 {
		t.Errorf("after 50 s alone: %v", out)
	}
}
