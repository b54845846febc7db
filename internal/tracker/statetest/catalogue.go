package statetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dragonload/internal/catalogue"
	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/tracker"
)

// shelf is a State in whose catalogue a test publishes.
type shelf struct {
	*testing.T
	tracker.State
	version map[int]uint64
}

func manifest(n int) [32]byte { return [32]byte{0xa0, byte(n), byte(n >> 8), 7} }

func entry(n int, name string, inside ...string) catalogue.Entry {
	return catalogue.Entry{Manifest: manifest(n), Name: name, Folder: len(inside) > 0, Size: int64(n), Files: uint32(max(len(inside), 1)), Names: inside}
}

func holder(n int) catalogue.Holder {
	return catalogue.Holder{ID: key(n), Number: uint32(n), Name: fmt.Sprintf("host-%d", n), Addr: fmt.Sprintf("10.0.0.%d:4100", n), Seen: "10.0.0.9"}
}

// publish adds entries of member n to what it has published.
func (s *shelf) publish(n int, add ...catalogue.Entry) {
	s.Helper()
	s.change(n, catalogue.Batch{Add: add}, nil)
}

// anew publishes entries in place of all that member n has published.
func (s *shelf) anew(n int, add ...catalogue.Entry) {
	s.Helper()
	s.version[n] = 0
	s.publish(n, add...)
}

func (s *shelf) change(n int, b catalogue.Batch, want error) {
	s.Helper()
	b.From, b.To = s.version[n], s.version[n]+1
	err := s.State.Publish(s.Context(), lab, holder(n), b)
	if !errors.Is(err, want) || want == nil && err != nil {
		s.Fatalf("member %d publishes: %v, want %v", n, err, want)
	}
	if err == nil {
		s.version[n]++
	}
}

func (s *shelf) renew(n int, want bool) {
	s.Helper()
	known, err := s.State.Renew(s.Context(), lab, key(n), s.version[n])
	if err != nil || known != want {
		s.Errorf("member %d renews: %v, %v, want %v", n, known, err, want)
	}
}

// finds checks what a query finds: "NAME×HOLDERS" for each.
func (s *shelf) finds(q catalogue.Query, want ...string) {
	s.Helper()
	page, err := s.State.Search(s.Context(), lab, q)
	if err != nil {
		s.Errorf("search %v: %v", q, err)
	}
	var got []string
	for _, f := range page.Found {
		got = append(got, fmt.Sprintf("%s×%d", f.Entry.Name, f.Holders))
	}
	if !slices.Equal(got, want) {
		s.Errorf("search %+v found %q, want %q", q, got, want)
	}
}

func words(text string) catalogue.Query { return catalogue.Query{Words: strings.Fields(text)} }

// held checks who holds manifest n.
func (s *shelf) held(n int, want ...int) {
	s.Helper()
	holders, err := s.State.Holders(s.Context(), lab, manifest(n), piece.NodeID{}, 0)
	if err != nil {
		s.Errorf("holders of %d: %v", n, err)
	}
	var got []int
	for _, h := range holders {
		got = append(got, int(h.Number))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		s.Errorf("holders of %d are %v, want %v", n, got, want)
	}
}

// runCatalogue runs the tests of the catalogue.
func runCatalogue(t *testing.T, begin func(t *testing.T) (tracker.State, *Clock)) {
	run := func(name string, test func(s *shelf, clock *Clock)) {
		t.Run("catalogue/"+name, func(t *testing.T) {
			state, clock := begin(t)
			test(&shelf{T: t, State: state, version: make(map[int]uint64)}, clock)
		})
	}

	run("holdsWhatIsPublished", func(s *shelf, _ *Clock) {
		s.finds(catalogue.Query{})
		s.publish(1, entry(1, "photos", "cat.jpg", "dog.jpg"), entry(2, "film.mkv"))
		s.publish(1, entry(3, "Album"))
		s.finds(catalogue.Query{}, "Album×1", "film.mkv×1", "photos×1")
		s.held(2, 1)
		s.held(9)
		page, err := s.State.Search(s.Context(), lab, words("photos"))
		if err != nil || len(page.Found) != 1 {
			s.Fatalf("search: %v, %v", page, err)
		}
		f := page.Found[0]
		if e := f.Entry; e.Manifest != manifest(1) || !e.Folder || e.Size != 1 || e.Files != 2 || len(e.Names) != 0 {
			s.Errorf("found %+v", e)
		}
		if f.Whole != 1 || len(f.By) != 1 || *f.By[0] != holder(1) {
			s.Errorf("held by %+v, want %+v", f.By[0], holder(1))
		}
		if page, err := s.State.Search(s.Context(), home, catalogue.Query{}); err != nil || len(page.Found) != 0 {
			s.Errorf("another room holds %v, %v", page.Found, err)
		}
	})

	run("changes", func(s *shelf, _ *Clock) {
		s.publish(1, entry(1, "one"), entry(2, "two"), entry(3, "three"))
		s.change(1, catalogue.Batch{Add: []catalogue.Entry{entry(3, "drei"), entry(4, "four")}, Remove: [][32]byte{manifest(1), manifest(8)}}, nil)
		s.finds(catalogue.Query{}, "drei×1", "four×1", "two×1")
		s.finds(words("three"))
		s.finds(words("one"))
		s.finds(words("drei"), "drei×1")
		s.anew(1, entry(5, "five"))
		s.finds(catalogue.Query{}, "five×1")
		s.change(1, catalogue.Batch{Remove: [][32]byte{manifest(5)}}, nil)
		s.finds(catalogue.Query{})
		s.renew(1, true)
	})

	run("goesOnOnlyFromWhatIsKnown", func(s *shelf, _ *Clock) {
		s.version[1] = 7
		s.change(1, catalogue.Batch{Add: []catalogue.Entry{entry(1, "one")}}, catalogue.ErrUnknown)
		s.renew(1, false)
		s.finds(catalogue.Query{})
		s.anew(1, entry(1, "one"))
		s.version[1] = 2
		s.change(1, catalogue.Batch{Add: []catalogue.Entry{entry(2, "two")}}, catalogue.ErrUnknown)
		s.renew(1, false)
		s.finds(catalogue.Query{}, "one×1")
		s.version[1] = 1
		s.renew(1, true)
	})

	run("sameManifestOfTwo", func(s *shelf, _ *Clock) {
		s.publish(1, entry(1, "photos", "cat.jpg"))
		half := entry(1, "photos", "cat.jpg")
		half.Partial = true
		s.publish(2, half)
		s.finds(words("cat"), "photos×2")
		page, err := s.State.Search(s.Context(), lab, words("cat"))
		if err != nil || len(page.Found) != 1 || page.Found[0].Whole != 1 || len(page.Found[0].By) != 2 {
			s.Errorf("two hold one manifest: %+v, %v", page.Found, err)
		}
		holders, err := s.State.Holders(s.Context(), lab, manifest(1), piece.NodeID{}, 0)
		if err != nil || len(holders) != 2 || holders[0].Partial || !holders[1].Partial {
			s.Errorf("holders: %+v, %v, want the whole one first", holders, err)
		}
		s.publish(2, entry(1, "photos", "cat.jpg")) // it holds all now
		if page, _ := s.State.Search(s.Context(), lab, words("cat")); len(page.Found) != 1 || page.Found[0].Whole != 2 {
			s.Errorf("both hold all: %+v", page.Found)
		}
		s.change(1, catalogue.Batch{Remove: [][32]byte{manifest(1)}}, nil)
		s.finds(words("cat"), "photos×1")
		s.held(1, 2)
		s.change(2, catalogue.Batch{Remove: [][32]byte{manifest(1)}}, nil)
		s.finds(words("cat"))
		s.held(1)
	})

	run("whoSaysOtherwiseIsAResultOfItsOwn", func(s *shelf, _ *Clock) {
		s.publish(1, entry(1, "photos", "cat.jpg"))
		s.publish(2, entry(1, "invoices"))
		s.finds(catalogue.Query{}, "invoices×1", "photos×1")
		s.held(1, 1, 2)
		s.publish(2, entry(1, "photos", "cat.jpg"))
		s.finds(catalogue.Query{}, "photos×2")
	})

	run("leasesEnd", func(s *shelf, clock *Clock) {
		s.publish(1, entry(1, "one"))
		s.publish(2, entry(1, "one"), entry(2, "two"))
		clock.Pass(catalogue.TTL - time.Second)
		s.renew(2, true)
		clock.Pass(2 * time.Second)
		s.finds(catalogue.Query{}, "one×1", "two×1")
		s.held(1, 2)
		if _, known, err := s.State.Holder(s.Context(), lab, key(1)); known || err != nil {
			s.Errorf("member 1 is known: %v, %v", known, err)
		}
		s.renew(1, false)
		s.change(1, catalogue.Batch{Add: []catalogue.Entry{entry(3, "three")}}, catalogue.ErrUnknown)
		s.anew(1, entry(3, "three"))
		s.finds(catalogue.Query{}, "one×1", "three×1", "two×1")
		clock.Pass(catalogue.TTL - 3*time.Second)
		s.publish(2) // which renews too
		clock.Pass(3 * time.Second)
		s.finds(catalogue.Query{}, "one×1", "two×1")
		clock.Pass(catalogue.TTL)
		s.finds(catalogue.Query{})
		s.held(1)
	})

	run("withdraw", func(s *shelf, _ *Clock) {
		s.publish(1, entry(1, "one"), entry(2, "two"))
		s.publish(2, entry(1, "one"))
		for range 2 {
			if err := s.State.Withdraw(s.Context(), lab, key(1)); err != nil {
				s.Error(err)
			}
		}
		s.finds(catalogue.Query{}, "one×1")
		s.held(1, 2)
		s.renew(1, false)
		s.anew(1, entry(2, "two"))
		s.finds(catalogue.Query{}, "one×1", "two×1")
	})

	run("dropOnlyWhereItWasFoundAway", func(s *shelf, _ *Clock) {
		s.publish(1, entry(1, "one"))
		for _, c := range []struct {
			n    int
			addr string
			want bool
		}{{1, "10.0.0.77:4100", false}, {2, "10.0.0.2:4100", false}, {1, "10.0.0.1:4100", true}, {1, "10.0.0.1:4100", false}} {
			dropped, err := s.State.Drop(s.Context(), lab, key(c.n), c.addr)
			if err != nil || dropped != c.want {
				s.Errorf("drop %d at %s: %v, %v, want %v", c.n, c.addr, dropped, err, c.want)
			}
		}
		s.finds(catalogue.Query{})
		s.renew(1, false)
	})

	run("removalTakesEntriesOut", func(s *shelf, _ *Clock) {
		s.publish(1, entry(1, "one"))
		s.publish(2, entry(1, "one"), entry(2, "two"))
		remove(s.T, s.State, 1, 2)
		s.finds(catalogue.Query{}, "one×1")
		s.held(2)
		s.change(2, catalogue.Batch{Add: []catalogue.Entry{entry(3, "three")}}, room.ErrRemoved)
		s.version[2] = 0
		s.change(2, catalogue.Batch{Add: []catalogue.Entry{entry(3, "three")}}, room.ErrRemoved)
		if _, err := s.State.Renew(s.Context(), lab, key(2), 1); !errors.Is(err, room.ErrRemoved) {
			s.Errorf("a removed member renews: %v", err)
		}
		s.finds(catalogue.Query{}, "one×1")
	})

	run("removalRacingAPublishWins", func(s *shelf, _ *Clock) {
		var wg sync.WaitGroup
		for n := 1; n <= 6; n++ {
			wg.Go(func() { // either answer is right
				_ = s.State.Publish(s.Context(), lab, holder(n), catalogue.Batch{To: 1, Add: []catalogue.Entry{entry(n, "x")}})
			})
			wg.Go(func() { remove(s.T, s.State, uint64(n), n) })
		}
		wg.Wait()
		s.finds(catalogue.Query{})
	})

	run("searches", searches)
	run("handsOutFew", handsOutFew)
	run("bounds", bounds)
}

func searches(s *shelf, _ *Clock) {
	s.publish(1,
		entry(1, "Holiday Photos", "2024 Island", "IMG_0815.JPG", "Straße am Fluß.png"),
		entry(2, "Café del Mar.flac"), // composed
		entry(3, "東京タワー写真"),
		entry(4, "ΟΔΥΣΣΕΥΣ.txt"),
		entry(5, "debian-12.iso"),
		entry(6, "holiday.zip"),
	)
	for _, c := range []struct {
		text string
		want []string
	}{
		{"holiday", []string{"Holiday Photos×1", "holiday.zip×1"}},
		{"HOL", []string{"Holiday Photos×1", "holiday.zip×1"}},
		{"holiday photos", []string{"Holiday Photos×1"}},
		{"ph hol", []string{"Holiday Photos×1"}}, // in any order
		{"holiday zip photos", nil},
		{"oliday", nil}, // not a beginning
		{"img_0815", []string{"Holiday Photos×1"}},
		{"0815.jpg", []string{"Holiday Photos×1"}},
		{"photos 2024", []string{"Holiday Photos×1"}}, // one in the name, one inside
		{"strasse FLUSS", []string{"Holiday Photos×1"}},
		{"CAFE\u0301", []string{"Café del Mar.flac×1"}}, // decomposed
		{"cafe mar", []string{"Café del Mar.flac×1"}},
		{"東京", []string{"東京タワー写真×1"}},
		{"写真", []string{"東京タワー写真×1"}}, // nothing stands before it
		{"οδυσσεύς", []string{"ΟΔΥΣΣΕΥΣ.txt×1"}},
		{"12", []string{"debian-12.iso×1"}},
		{"nothing", nil},
		{"...", nil},
		{"-", nil},
	} {
		s.finds(words(c.text), c.want...)
	}
	s.finds(catalogue.Query{Name: "holiday PHOTOS"}, "Holiday Photos×1")
	s.finds(catalogue.Query{Name: "holiday"})
	s.finds(catalogue.Query{ID: "a005"}, "debian-12.iso×1")
	s.finds(catalogue.Query{ID: "a0"}, "Café del Mar.flac×1", "debian-12.iso×1", "Holiday Photos×1", "holiday.zip×1", "ΟΔΥΣΣΕΥΣ.txt×1", "東京タワー写真×1")
	s.finds(catalogue.Query{ID: "a00"}, "Café del Mar.flac×1", "debian-12.iso×1", "Holiday Photos×1", "holiday.zip×1", "ΟΔΥΣΣΕΥΣ.txt×1", "東京タワー写真×1")
	s.finds(catalogue.Query{ID: "a1"})
	s.finds(catalogue.Query{ID: "a0", Words: []string{"holiday"}}, "Holiday Photos×1", "holiday.zip×1")

	page, err := s.State.Search(s.Context(), lab, catalogue.Query{Words: []string{"holiday"}, Limit: 1})
	if err != nil || len(page.Found) != 1 || !page.More {
		s.Errorf("limited to one: %v, %v", page, err)
	}
	if page, err = s.State.Search(s.Context(), lab, catalogue.Query{Words: []string{"holiday"}, Limit: 2}); err != nil || len(page.Found) != 2 || page.More {
		s.Errorf("limited to two: %v, %v", page, err)
	}
	for _, q := range []catalogue.Query{{ID: "A0"}, {ID: "zz"}, {ID: strings.Repeat("0", 65)}, {Words: []string{strings.Repeat("x", catalogue.MaxQuery)}}} {
		if _, err := s.State.Search(s.Context(), lab, q); !errors.Is(err, catalogue.ErrBad) {
			s.Errorf("search %.40v: %v, want ErrBad", q, err)
		}
	}
}

// handsOutFew publishes one manifest by many members. That each of 120 is among the 50 of
// one of 400 handouts, and the first of one, fails by chance once in 10^12 runs or less.
func handsOutFew(s *shelf, _ *Clock) {
	const count = 120
	for n := 1; n <= count; n++ {
		s.publish(n, entry(1, "popular"))
	}
	seen, first := make(map[uint32]int), make(map[uint32]int)
	for range 4000 {
		holders, err := s.State.Holders(s.Context(), lab, manifest(1), key(3), 0)
		if err != nil || len(holders) != catalogue.MaxHandout {
			s.Fatalf("%d holders, %v, want %d", len(holders), err, catalogue.MaxHandout)
		}
		now := make(map[uint32]bool)
		for _, h := range holders {
			if now[h.Number] {
				s.Fatalf("holder %d is handed out twice", h.Number)
			}
			now[h.Number] = true
			seen[h.Number]++
		}
		first[holders[0].Number]++
	}
	if len(seen) != count-1 || len(first) != count-1 || seen[3] > 0 {
		s.Errorf("%d of %d were handed out, %d of them first, who asks %d times", len(seen), count, len(first), seen[3])
	}
	if holders, err := s.State.Holders(s.Context(), lab, manifest(1), piece.NodeID{}, 7); err != nil || len(holders) != 7 {
		s.Errorf("%d holders, %v, want 7", len(holders), err)
	}
}

// bounds publishes up to what a member may.
func bounds(s *shelf, _ *Clock) {
	bad := func(what string, b catalogue.Batch) {
		s.Helper()
		b.To = 1
		if err := s.State.Publish(s.Context(), lab, holder(1), b); !errors.Is(err, catalogue.ErrBad) {
			s.Errorf("%s: %v, want ErrBad", what, err)
		}
	}
	one := func(edit func(*catalogue.Entry)) catalogue.Batch {
		e := entry(1, "one", "in")
		edit(&e)
		return catalogue.Batch{Add: []catalogue.Entry{e}}
	}
	long := strings.Repeat("x", 200)
	bad("no manifest", one(func(e *catalogue.Entry) { e.Manifest = [32]byte{} }))
	bad("no name", one(func(e *catalogue.Entry) { e.Name = "" }))
	bad("a path", one(func(e *catalogue.Entry) { e.Name = "a/b" }))
	bad("an escape", one(func(e *catalogue.Entry) { e.Names[0] = "a\x1b[2J" }))
	bad("no size", one(func(e *catalogue.Entry) { e.Size = -1 }))
	bad("too large", one(func(e *catalogue.Entry) { e.Size = piece.MaxSize + 1 }))
	bad("many names", one(func(e *catalogue.Entry) { e.Names = slices.Repeat([]string{"x"}, catalogue.MaxNames+1) }))
	bad("much text", one(func(e *catalogue.Entry) { e.Names = slices.Repeat([]string{long}, 82) }))
	bad("many at once", catalogue.Batch{Add: make([]catalogue.Entry, catalogue.MaxBatch+1)})
	bad("many gone at once", catalogue.Batch{Remove: make([][32]byte, catalogue.MaxBatch+1)})
	wordy := make([]catalogue.Entry, 80)
	for n := range wordy {
		wordy[n] = entry(n, "wordy", slices.Repeat([]string{long}, 79)...)
	}
	bad("much text at once", catalogue.Batch{Add: wordy})
	s.finds(catalogue.Query{})

	// One member's bound: text first, then entries.
	s.version[1] = 0
	for from := 0; ; from += 60 {
		b := make([]catalogue.Entry, 60)
		for n := range b {
			b[n] = entry(from+n, "wordy", slices.Repeat([]string{long}, 79)...)
		}
		if (from+60)*b[0].Text() > catalogue.MaxNodeText {
			s.change(1, catalogue.Batch{Add: b}, catalogue.ErrFull)
			break
		}
		s.publish(1, b...)
	}
	s.renew(1, true)
	batch := make([]catalogue.Entry, catalogue.MaxBatch)
	s.version[2] = 0
	for from := 0; from < catalogue.MaxNodeEntries; from += len(batch) {
		for n := range batch {
			batch[n] = entry(from+n, "some")
		}
		s.publish(2, batch...)
	}
	s.change(2, catalogue.Batch{Add: []catalogue.Entry{entry(catalogue.MaxNodeEntries, "more")}}, catalogue.ErrFull)
	s.change(2, catalogue.Batch{Add: []catalogue.Entry{entry(0, "another")}}, nil) // in place of one
	s.change(2, catalogue.Batch{
		Remove: [][32]byte{manifest(0)}, Add: []catalogue.Entry{entry(catalogue.MaxNodeEntries, "more")},
	}, nil)
	s.finds(words("more"), "more×1")
	s.finds(words("another"))
}
