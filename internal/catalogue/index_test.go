package catalogue

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"dragonload/internal/piece"
)

// slow is an index that looks at everything, one entry after the other.
type slow struct {
	entries map[piece.NodeID]map[[32]byte]Entry
	until   map[piece.NodeID]time.Time
}

// search returns "name×holders" for each result.
func (s *slow) search(q Query, now time.Time) []string {
	holders := make(map[string]int)
	for id, entries := range s.entries {
		if !now.Before(s.until[id]) {
			continue
		}
		for _, e := range entries {
			if s.fits(&e, q) {
				holders[fmt.Sprintf("%s\x00%x%q", e.Name, e.Manifest, e.Names)]++
			}
		}
	}
	var found []string
	for key, n := range holders {
		name, _, _ := strings.Cut(key, "\x00")
		found = append(found, fmt.Sprintf("%s×%d", name, n))
	}
	slices.Sort(found)
	return found
}

func (s *slow) fits(e *Entry, q Query) bool {
	if q.Name != "" && Fold(q.Name) != Fold(e.Name) || !strings.HasPrefix(fmt.Sprintf("%x", e.Manifest), q.ID) {
		return false
	}
	words := Words(strings.Join(append([]string{e.Name}, e.Names...), "/"))
	for _, text := range q.Words {
		for _, prefix := range Words(text) {
			if !slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, prefix) }) {
				return false
			}
		}
	}
	return true
}

var syllables = []string{"a", "b", "ab", "abc", "Abe", "ba", "é", "e", "9", "99", "東", "京"}

func text(rng *rand.Rand) string {
	var b strings.Builder
	for n := range 1 + rng.IntN(3) {
		if n > 0 {
			b.WriteString([]string{" ", "_", "", "."}[rng.IntN(4)])
		}
		b.WriteString(syllables[rng.IntN(len(syllables))])
	}
	return b.String()
}

func drawn(rng *rand.Rand) Entry {
	e := Entry{Manifest: [32]byte{byte(rng.IntN(40)), 1}, Name: text(rng), Partial: rng.IntN(4) == 0}
	if rng.IntN(3) > 0 { // mostly, all say the same of a manifest
		e.Name = text(rand.New(rand.NewPCG(uint64(e.Manifest[0]), 9)))
	}
	for range rng.IntN(3) {
		e.Names = append(e.Names, text(rng))
	}
	return e
}

// TestIndex_findsWhatLookingAtEverythingFinds changes an index by chance and compares what
// it answers with the slow one.
func TestIndex_findsWhatLookingAtEverythingFinds(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 2))
		x, s := NewIndex(), &slow{make(map[piece.NodeID]map[[32]byte]Entry), make(map[piece.NodeID]time.Time)}
		now := time.Unix(1000, 0)
		for step := range 300 {
			id := piece.NodeID{byte(rng.IntN(8))}
			switch rng.IntN(12) {
			case 0:
				x.Drop(id)
				delete(s.entries, id)
			case 1:
				now = now.Add(time.Duration(rng.IntN(20)) * time.Second)
			case 2:
				x.Tidy(now, 1+rng.IntN(100))
				for id := range s.entries {
					if _, known := x.Holder(id, now); !known && x.holders[id] == nil {
						delete(s.entries, id)
					}
				}
			case 3, 4:
				e := drawn(rng)
				x.Remove(id, e.Manifest)
				delete(s.entries[id], e.Manifest)
			default:
				if s.entries[id] == nil {
					s.entries[id] = make(map[[32]byte]Entry)
				}
				s.until[id] = now.Add(TTL)
				if err := x.SetHolder(Holder{ID: id}, 1, s.until[id]); err != nil {
					t.Fatal(err)
				}
				e := drawn(rng)
				if err := x.Put(id, e); err != nil {
					t.Fatal(err)
				}
				s.entries[id][e.Manifest] = e
			}
			q := Query{}
			for range rng.IntN(3) {
				q.Words = append(q.Words, text(rng))
			}
			switch rng.IntN(8) {
			case 0:
				q.ID = fmt.Sprintf("%x", rng.IntN(40))
			case 1:
				q.Name = text(rng)
			}
			var got, names []string
			for _, f := range x.Search(q, now).Found {
				got = append(got, fmt.Sprintf("%s×%d", f.Entry.Name, f.Holders))
				names = append(names, Fold(f.Entry.Name))
			}
			if !slices.IsSorted(names) {
				t.Fatalf("seed %d, step %d: %+v finds not by name: %q", seed, step, q, got)
			}
			slices.Sort(got)
			if want := s.search(q, now); !slices.Equal(got, want) {
				t.Fatalf("seed %d, step %d: %+v finds\n %q, want\n %q", seed, step, q, got, want)
			}
		}
		for id := range s.entries {
			x.Drop(id)
		}
		x.Tidy(now.Add(time.Hour), MaxEntries)
		holders, entries, text := x.Size()
		if holders+entries+text+len(x.words.words.blocks)+len(x.byName.blocks)+len(x.byID.blocks)+x.words.inLetters() > 0 {
			t.Fatalf("seed %d: when all have gone there are %d holders, %d entries, %d bytes and %d words", seed, holders, entries, text, len(x.words.words.blocks))
		}
	}
}

// inLetters returns how many numbers are in the sets of letters.
func (d *dictionary) inLetters() (n int) {
	for i := range d.letters {
		n += d.letters[i].n
	}
	return n
}

func TestNamesOf_namesFoldersFirstAndEachOnce(t *testing.T) {
	t.Parallel()
	got := NamesOf("top", [][]string{{"a", "x.jpg"}, {"a", "b", "x.jpg"}, {"top"}, {"c", "bad/name"}, {}})
	if want := []string{"a", "b", "c", "x.jpg"}; !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	var many [][]string
	for n := range 3 * MaxNames {
		many = append(many, []string{fmt.Sprintf("%0100d", n)})
	}
	e := Entry{Manifest: [32]byte{1}, Name: "top", Names: NamesOf("top", many)}
	if err := e.Validate(); err != nil || len(e.Names) < 100 {
		t.Errorf("%d names: %v", len(e.Names), err)
	}
}

// TestIndex_searchesWhileItChanges is for the race detector.
func TestIndex_searchesWhileItChanges(t *testing.T) {
	t.Parallel()
	x := NewIndex()
	now := time.Unix(1000, 0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		rng := rand.New(rand.NewPCG(3, 3))
		for range 60 {
			id := piece.NodeID{byte(rng.IntN(4))}
			if err := x.SetHolder(Holder{ID: id, Name: text(rng)}, 1, now.Add(TTL)); err != nil {
				t.Error(err)
			}
			for range 5 {
				if err := x.Put(id, drawn(rng)); err != nil {
					t.Error(err)
				}
			}
			if rng.IntN(4) == 0 {
				x.Drop(id)
			}
		}
	}()
	seen := 0
	for {
		select {
		case <-done:
			if seen == 0 {
				t.Error("nothing was ever found")
			}
			return
		default:
		}
		for _, f := range x.Search(Query{Words: []string{"a"}}, now).Found {
			seen += len(f.By[0].Name)
		}
		x.Holders([32]byte{1, 1}, piece.NodeID{}, 0, now)
	}
}

// What all holders have only got from others is told from what somebody shares.
func TestIndex_tellsWhatNobodyShares(t *testing.T) {
	x, now := NewIndex(), time.Unix(1000, 0)
	for n := range byte(2) {
		if err := x.SetHolder(Holder{ID: piece.NodeID{n + 1}}, 1, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	put := func(n byte, received bool) {
		t.Helper()
		if err := x.Put(piece.NodeID{n}, Entry{Manifest: [32]byte{1}, Name: "set", Received: received}); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		change func()
		want   bool
	}{
		{func() { put(1, true) }, true},
		{func() { put(2, false) }, false},
		{func() { put(2, true) }, true},
		{func() { put(1, false) }, false},
		{func() { x.Remove(piece.NodeID{1}, [32]byte{1}) }, true},
	} {
		step.change()
		if page := x.Search(Query{Name: "set"}, now); len(page.Found) != 1 || page.Found[0].Received != step.want || page.Found[0].Entry.Received {
			t.Errorf("found %+v, want received %v", page.Found, step.want)
		}
	}
}
