package catalogue

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// told is a tracker as its members see it: it knows a version and the names of entries by
// manifest, for as long as a lease.
type told struct {
	version uint64
	names   map[[32]byte]string
	until   time.Time

	publishes, renewals, entries int
	room                         int // for so many entries; 0: for any number
}

func (s *told) answer(now time.Time, c *Call) Outcome {
	known := s.version != 0 && now.Before(s.until)
	switch c.Kind {
	case CallRenew:
		s.renewals++
		if !known || c.Version != s.version {
			return Unknown
		}
		s.until = now.Add(TTL)
	case CallWithdraw:
		s.version = 0
	case CallPublish:
		b := &c.Batch
		if b.From != 0 && (!known || b.From != s.version) {
			return Unknown
		}
		names := maps.Clone(s.names)
		if b.From == 0 {
			names = make(map[[32]byte]string)
		}
		for _, m := range b.Remove {
			delete(names, m)
		}
		for _, e := range b.Add {
			names[e.Manifest] = e.Name
		}
		if s.room > 0 && len(names) > s.room {
			return Full
		}
		s.publishes++
		s.entries += len(b.Add)
		s.names, s.version, s.until = names, b.To, now.Add(TTL)
	}
	return Taken
}

// step makes the call that is due, or lets time pass up to the next one, at most until an
// end. It returns the time, and the call if there was one.
func step(t *testing.T, p *Publisher, s *told, now, end time.Time, how func(*Call) Outcome) (time.Time, *Call) {
	t.Helper()
	c, at := p.Next(now)
	if c == nil {
		switch {
		case at.IsZero() || at.After(end):
			return end, nil
		case !at.After(now):
			t.Fatalf("at %v it is to be asked again at %v", now, at)
		}
		return at, nil
	}
	if err := c.Batch.Validate(); c.Kind == CallPublish && err != nil {
		t.Fatalf("it would publish %+v: %v", c.Batch, err)
	}
	p.Done(now, c, how(c))
	return now, c
}

// run lets time pass in which the tracker answers.
func run(t *testing.T, p *Publisher, s *told, now time.Time, d time.Duration) time.Time {
	t.Helper()
	end := now.Add(d)
	for calls := 0; now.Before(end); {
		var c *Call
		if now, c = step(t, p, s, now, end, func(c *Call) Outcome { return s.answer(now, c) }); c != nil {
			if calls++; calls > 1000 {
				t.Fatalf("it calls without end: %+v", c)
			}
		}
	}
	return now
}

func (s *told) check(t *testing.T, now time.Time, want []Entry, when string) {
	t.Helper()
	if len(want) == 0 {
		if s.version != 0 && len(s.names) > 0 && now.Before(s.until) {
			t.Fatalf("%s: the tracker knows %d entries, want none", when, len(s.names))
		}
		return
	}
	names := make(map[[32]byte]string)
	for _, e := range want {
		names[e.Manifest] = e.Name
	}
	if s.version == 0 || !now.Before(s.until) || !maps.Equal(s.names, names) {
		t.Fatalf("%s: the tracker knows version %d until %v (now %v) of %d entries, want %d", when, s.version, s.until, now, len(s.names), len(names))
	}
}

func some(rng *rand.Rand, count int) (entries []Entry) {
	for n := range count {
		entries = append(entries, Entry{Manifest: [32]byte{byte(n), byte(n >> 8), 1}, Name: fmt.Sprint("name-", rng.IntN(3))})
	}
	return entries
}

func newTest(seed uint64) (*rand.Rand, *Publisher, *told, time.Time) {
	rng := rand.New(rand.NewPCG(seed, 5))
	return rng, NewPublisher(rng), &told{}, time.Unix(1_000_000, 0)
}

func TestPublisher_publishesChangesAndRenews(t *testing.T) {
	t.Parallel()
	rng, p, s, now := newTest(1)
	now = run(t, p, s, now, time.Hour)
	if s.publishes+s.renewals > 0 {
		t.Error("a member that holds nothing calls the tracker")
	}
	entries := some(rng, 2500)
	p.Set(slices.Clone(entries))
	now = run(t, p, s, now, time.Millisecond)
	s.check(t, now, entries, "at once")
	if s.publishes != 3 || s.entries != 2500 {
		t.Errorf("%d entries in %d batches, want 2500 in 3", s.entries, s.publishes)
	}
	began := now
	now = run(t, p, s, now, 10*time.Minute)
	if least := int(now.Sub(began) / RenewEvery); s.renewals < least || s.renewals > least*5/4+1 {
		t.Errorf("%d renewals in %v", s.renewals, now.Sub(began))
	}
	entries = append(entries[1:], Entry{Manifest: [32]byte{7, 7, 7}, Name: "new"})
	p.Set(slices.Clone(entries))
	now = run(t, p, s, now, time.Millisecond)
	s.check(t, now, entries, "after a change")
	if s.publishes != 4 || s.entries != 2501 {
		t.Errorf("a change of one entry brought %d entries to %d in %d batches", s.entries-2500, s.entries, s.publishes-3)
	}
	p.Set(slices.Clone(entries))
	now = run(t, p, s, now, time.Millisecond)
	if s.publishes != 4 {
		t.Error("what did not change was published")
	}
	p.Set(nil)
	now = run(t, p, s, now, time.Millisecond)
	s.check(t, now, nil, "after nothing is held")
	renewals := s.renewals
	run(t, p, s, now, time.Hour)
	if s.renewals != renewals || p.Withdraw() != nil {
		t.Error("a member that holds nothing any more calls the tracker")
	}
}

func TestPublisher_publishesAnewWhereNothingIsKnown(t *testing.T) {
	t.Parallel()
	rng, p, s, now := newTest(2)
	entries := some(rng, 1500)
	p.Set(slices.Clone(entries))
	now = run(t, p, s, now, 10*time.Minute)
	*s = told{} // another tracker, or the same one started anew
	now = run(t, p, s, now, RenewEvery)
	s.check(t, now, entries, "after the tracker's start")

	*s = told{}
	p.Moved(now)
	now = run(t, p, s, now, movedWithin)
	if s.renewals == 0 {
		t.Error("it does not ask at once what another tracker knows")
	}
	// A tracker that forgets it again and again is not flooded.
	now = run(t, p, s, now, 10*time.Minute)
	published := 0
	s.version = 0
	end := now.Add(time.Hour)
	for now.Before(end) {
		now, _ = step(t, p, s, now, end, func(c *Call) Outcome {
			how := s.answer(now, c)
			if c.Kind == CallPublish && c.Batch.From == 0 {
				published++
				s.version = 0
			}
			return how
		})
	}
	if published < 5 || published > 40 {
		t.Errorf("in an hour it published all of it %d times", published)
	}
	now = run(t, p, s, now, longPause)
	s.check(t, now, entries, "when it is kept again")
}

func TestPublisher_publishesWhatThereIsPlaceFor(t *testing.T) {
	t.Parallel()
	rng, p, s, now := newTest(3)
	s.room = 1200
	entries := some(rng, 2000)
	p.Set(slices.Clone(entries))
	now = run(t, p, s, now, 10*time.Minute)
	s.check(t, now, entries[:1000], "while it is full")
	if s.publishes > 2 {
		t.Errorf("%d batches were taken", s.publishes)
	}
	s.room = 0
	now = run(t, p, s, now, 2*longPause)
	s.check(t, now, entries, "when there is place again")
	if left := p.Set(some(rng, MaxNodeEntries+10)); len(left) != 10 {
		t.Errorf("%d are left out, want 10", len(left))
	}
	bad := append(some(rng, 3), Entry{Manifest: [32]byte{5}, Name: "a/b"}, some(rng, 1)[0])
	if left := p.Set(bad); len(left) != 2 {
		t.Errorf("%d are left out, want the one that is none and the one that comes twice", len(left))
	}
}

// TestPublisher_withFaults loses calls and answers by chance, lets the tracker forget and
// refuse, and changes what is held. When that ends the tracker knows what is held within
// two of the longest pauses, and from then on without a gap.
func TestPublisher_withFaults(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		rng, p, s, now := newTest(seed)
		held := some(rng, rng.IntN(3000))
		p.Set(slices.Clone(held))
		for range 60 {
			end := now.Add(time.Duration(rng.IntN(30)) * time.Second)
			for calls := 0; now.Before(end) && calls < 100; calls++ {
				now, _ = step(t, p, s, now, end, func(c *Call) Outcome {
					switch rng.IntN(6) {
					case 0:
						return Failed // it did not come to the tracker
					case 1:
						s.answer(now, c)
						return Failed // the answer did not come back
					case 2:
						return Refused
					}
					return s.answer(now, c)
				})
			}
			switch rng.IntN(5) {
			case 0:
				*s = told{}
			case 1:
				held = some(rng, rng.IntN(3000))
				p.Set(slices.Clone(held))
			case 2:
				p.Moved(now)
			}
		}
		// One pause is what the last refusal has brought; after it the tracker may be found to
		// know nothing, which brings another.
		now = run(t, p, s, now, 2*longPause)
		s.check(t, now, held, fmt.Sprintf("seed %d", seed))
		for range 20 {
			now = run(t, p, s, now, 10*time.Second)
			s.check(t, now, held, fmt.Sprintf("seed %d, later", seed))
		}
	}
}
