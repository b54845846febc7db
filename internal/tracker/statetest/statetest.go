// Package statetest is the suite that every tracker.State must pass.
package statetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/tracker"
)

var (
	lab, home = [32]byte{1}, [32]byte{2}
	invite    = [16]byte{7}
	expires   = time.Unix(2_000_000_000, 0)
)

func key(n int) piece.NodeID { return piece.NodeID{byte(n), byte(n >> 8), 9} }

// Clock is the time by which a State's leases end. It stands still but for Pass.
type Clock struct {
	mu  sync.Mutex
	now time.Time

	// Passed, if not nil, is called by Pass with the time afterwards: a State whose leases
	// are kept elsewhere ends there those that have ended by then.
	Passed func(now time.Time)
}

// Now returns the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Pass lets time pass.
func (c *Clock) Pass(d time.Duration) {
	c.mu.Lock()
	c.now = c.now.Add(d)
	now := c.now
	c.mu.Unlock()
	if c.Passed != nil {
		c.Passed(now)
	}
}

// Open returns the State at a place.
type Open func(t *testing.T, place string, clock *Clock) tracker.State

// Run runs the suite. open is called for each test with a place of its own and
// returns the State at that place; called again after a Close, it returns a State that
// knows all that the first one has acknowledged. A State that lasts no longer than its
// process has durable false and is opened only once.
func Run(t *testing.T, durable bool, open Open) {
	begin := func(t *testing.T) (tracker.State, *Clock) {
		clock := &Clock{now: time.Now()}
		s := open(t, t.TempDir(), clock)
		t.Cleanup(func() { shut(t, s) })
		return s, clock
	}
	start := func(t *testing.T) (tracker.State, context.Context) {
		s, _ := begin(t)
		return s, t.Context()
	}
	runCatalogue(t, begin)

	t.Run("inviteIsCountedByItsUses", func(t *testing.T) {
		s, ctx := start(t)
		use(t, s, 1, 2, nil)
		use(t, s, 2, 2, nil)
		use(t, s, 3, 2, room.ErrInviteUsed)
		if got := members(t, s, lab); len(got) != 2 {
			t.Errorf("members after a refusal: %v, want 2", got)
		}
		if err := s.UseInvite(ctx, lab, [16]byte{8}, key(3), 2, expires); err != nil {
			t.Errorf("another invite: %v", err)
		}
		if err := s.UseInvite(ctx, home, invite, key(3), 2, expires); err != nil {
			t.Errorf("the same number in another room: %v", err)
		}
	})

	t.Run("sameKeyCountsOnce", func(t *testing.T) {
		s, _ := start(t)
		for range 3 {
			use(t, s, 1, 2, nil)
		}
		use(t, s, 2, 2, nil)
		use(t, s, 1, 2, nil) // even when it is used up
		use(t, s, 3, 2, room.ErrInviteUsed)
	})

	t.Run("zeroUsesIsAnyNumber", func(t *testing.T) {
		s, _ := start(t)
		for n := range 20 {
			use(t, s, n, 0, nil)
		}
	})

	t.Run("ofManyRacersOneGetsTheLastUse", func(t *testing.T) {
		s, ctx := start(t)
		const racers = 8
		results := make([]error, racers)
		var wg sync.WaitGroup
		for n := range racers {
			wg.Go(func() { results[n] = s.UseInvite(ctx, lab, invite, key(n), 1, expires) })
		}
		wg.Wait()
		won := 0
		for n, err := range results {
			switch {
			case err == nil:
				won++
			case !errors.Is(err, room.ErrInviteUsed):
				t.Errorf("racer %d: %v, want ErrInviteUsed", n, err)
			}
		}
		if won != 1 || len(members(t, s, lab)) != 1 {
			t.Errorf("%d racers won, members %v; want one", won, members(t, s, lab))
		}
	})

	t.Run("numbersAreSmallAndStable", func(t *testing.T) {
		s, ctx := start(t)
		seen := make(map[uint32]bool)
		const count = 12
		for n := range count {
			got := number(t, s, lab, n)
			if got < 1 || got > count || seen[got] {
				t.Errorf("number %d for key %d: taken or outside 1 to %d", got, n, count)
			}
			seen[got] = true
			if again := number(t, s, lab, n); again != got {
				t.Errorf("key %d has number %d, then %d", n, got, again)
			}
		}
		if got := number(t, s, home, 3); got != 1 {
			t.Errorf("first number of another room is %d, want 1", got)
		}
		if err := s.UseInvite(ctx, lab, invite, key(3), 1, expires); err != nil {
			t.Error(err)
		}
		if got := number(t, s, lab, 3); got != 4 {
			t.Errorf("number after another invite is %d, want 4", got)
		}
	})

	t.Run("numbersAreNotGivenAgain", func(t *testing.T) {
		s, _ := start(t)
		first := number(t, s, lab, 1)
		remove(t, s, 1, 1)
		if got := number(t, s, lab, 2); got == first {
			t.Errorf("the number %d of a removed member went to another", got)
		}
	})

	t.Run("concurrentFirstNumbersDiffer", func(t *testing.T) {
		s, ctx := start(t)
		const count = 8
		got := make([]uint32, count)
		var wg sync.WaitGroup
		for n := range count {
			wg.Go(func() { got[n], _ = s.Number(ctx, lab, key(n)) })
		}
		wg.Wait()
		seen := make(map[uint32]bool)
		for n, number := range got {
			if number < 1 || number > count || seen[number] {
				t.Errorf("key %d got number %d of %v", n, number, got)
			}
			seen[number] = true
		}
	})

	t.Run("removalBeatsAddition", func(t *testing.T) {
		s, ctx := start(t)
		use(t, s, 1, 0, nil)
		for _, n := range []int{1, 2} { // one that is a member, one that never was
			remove(t, s, uint64(n), n)
			use(t, s, n, 0, room.ErrRemoved)
			use(t, s, n, 5, room.ErrRemoved)
			if _, err := s.Number(ctx, lab, key(n)); !errors.Is(err, room.ErrRemoved) {
				t.Errorf("number of removed key %d: %v, want ErrRemoved", n, err)
			}
			if !removed(t, s, lab, n) {
				t.Errorf("key %d is not removed", n)
			}
		}
		if removed(t, s, home, 1) || removed(t, s, lab, 3) {
			t.Error("a removal reached another room or key")
		}
		use(t, s, 4, 1, nil) // the refused ones have not used it
	})

	t.Run("removalRacingAnAdditionWins", func(t *testing.T) {
		s, ctx := start(t)
		var wg sync.WaitGroup
		for n := range 6 {
			wg.Go(func() { _ = s.UseInvite(ctx, lab, invite, key(n), 0, expires) }) // either answer is right
			wg.Go(func() { remove(t, s, uint64(n+1), n) })
		}
		wg.Wait()
		for n := range 6 {
			use(t, s, n, 0, room.ErrRemoved)
		}
	})

	t.Run("newestListOfRemovalsIsKept", func(t *testing.T) {
		s, ctx := start(t)
		if got, err := s.Removals(ctx, lab); got != nil || err != nil {
			t.Fatalf("list at first is %v, %v", got, err)
		}
		first, later := listOf(2, 1, 2), listOf(5, 2, 3) // the later one has no place for 1
		for _, l := range []*room.Removals{first, later, later, first} {
			if err := s.SetRemovals(ctx, l); err != nil {
				t.Error(err)
			}
		}
		if got, err := s.Removals(ctx, lab); err != nil || !got.Equal(later) {
			t.Errorf("kept %v, %v, want that of epoch 5", got, err)
		}
		if err := s.SetRemovals(ctx, listOf(4, 7)); err != nil { // who is on an older list is out all the same
			t.Error(err)
		}
		for _, n := range []int{1, 2, 3, 7} {
			if !removed(t, s, lab, n) {
				t.Errorf("key %d is not removed", n)
			}
		}
		if got, err := s.Removals(ctx, home); got != nil || err != nil {
			t.Errorf("list of another room is %v, %v", got, err)
		}
	})

	t.Run("membersAreNamedAndInOrder", func(t *testing.T) {
		s, _ := start(t)
		for n := range 3 {
			number(t, s, lab, n)
			name(t, s, n, fmt.Sprintf("host-%d", n))
		}
		name(t, s, 1, "renamed")
		name(t, s, 2, strings.Repeat("x", 200))
		name(t, s, 9, "nobody")
		remove(t, s, 1, 0)
		want := []tracker.Member{
			{Key: key(0), Number: 1, Name: "host-0", Removed: true},
			{Key: key(1), Number: 2, Name: "renamed"},
			{Key: key(2), Number: 3, Name: strings.Repeat("x", tracker.MaxMemberName)},
		}
		if got := members(t, s, lab); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("members\n got %v\nwant %v", got, want)
		}
		if got := members(t, s, home); len(got) != 0 {
			t.Errorf("members of a room never spoken of: %v", got)
		}
	})

	t.Run("endedContextChangesNothing", func(t *testing.T) {
		s, _ := start(t)
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		if err := s.UseInvite(ended, lab, invite, key(1), 1, expires); !errors.Is(err, context.Canceled) {
			t.Errorf("UseInvite: %v", err)
		}
		if err := s.SetRemovals(ended, listOf(1, 1)); !errors.Is(err, context.Canceled) {
			t.Errorf("SetRemovals: %v", err)
		}
		use(t, s, 2, 1, nil)
		if removed(t, s, lab, 1) {
			t.Error("removed all the same")
		}
	})

	if !durable {
		return
	}

	t.Run("everythingOutlivesClose", func(t *testing.T) {
		place := t.TempDir()
		s := open(t, place, &Clock{now: time.Now()})
		use(t, s, 1, 2, nil)
		use(t, s, 2, 2, nil)
		name(t, s, 1, "one")
		three := number(t, s, lab, 3)
		remove(t, s, 9, 2)
		before := members(t, s, lab)
		shut(t, s)

		s = open(t, place, &Clock{now: time.Now()})
		defer shut(t, s)
		if after := members(t, s, lab); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("members\nbefore %v\n after %v", before, after)
		}
		use(t, s, 4, 2, room.ErrInviteUsed)
		use(t, s, 1, 2, nil)
		use(t, s, 2, 2, room.ErrRemoved)
		if got := number(t, s, lab, 3); got != three {
			t.Errorf("number %d became %d", three, got)
		}
		if got, err := s.Removals(t.Context(), lab); err != nil || !got.Equal(listOf(9, 2)) {
			t.Errorf("the list of removals became %v, %v", got, err)
		}
	})
}

func shut(t *testing.T, s tracker.State) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func use(t *testing.T, s tracker.State, n, uses int, want error) {
	t.Helper()
	if err := s.UseInvite(t.Context(), lab, invite, key(n), uses, expires); !errors.Is(err, want) {
		t.Errorf("key %d uses an invite for %d: got %v, want %v", n, uses, err, want)
	}
}

// listOf returns a list for lab. Its signature is the matter of who stores it.
func listOf(epoch uint64, keys ...int) *room.Removals {
	l := &room.Removals{Room: lab, Epoch: epoch, Signature: [64]byte{byte(epoch)}}
	for _, n := range keys {
		l.List = append(l.List, room.Removal{Key: key(n), At: int64(n)})
	}
	return l
}

func remove(t *testing.T, s tracker.State, epoch uint64, n int) {
	t.Helper()
	if err := s.SetRemovals(t.Context(), listOf(epoch, n)); err != nil {
		t.Errorf("remove key %d: %v", n, err)
	}
}

func number(t *testing.T, s tracker.State, id [32]byte, n int) uint32 {
	t.Helper()
	number, err := s.Number(t.Context(), id, key(n))
	if err != nil {
		t.Errorf("number of key %d: %v", n, err)
	}
	return number
}

func name(t *testing.T, s tracker.State, n int, name string) {
	t.Helper()
	if err := s.SetName(t.Context(), lab, key(n), name); err != nil {
		t.Errorf("name key %d: %v", n, err)
	}
}

func removed(t *testing.T, s tracker.State, id [32]byte, n int) bool {
	t.Helper()
	removed, err := s.Removed(t.Context(), id, key(n))
	if err != nil {
		t.Errorf("removed key %d: %v", n, err)
	}
	return removed
}

func members(t *testing.T, s tracker.State, id [32]byte) []tracker.Member {
	t.Helper()
	members, err := s.Members(t.Context(), id)
	if err != nil {
		t.Errorf("members: %v", err)
	}
	return members
}
