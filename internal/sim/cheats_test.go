package sim

import (
	"strings"
	"testing"
	"time"

	"dragonload/internal/piece"
)

// TestDeny_costsEachALittle: a liar that answers every accusation is not shut out, for it may
// be the one honest member to whom the origin shows another face. It is not believed either,
// and costs everybody a bounded number of pieces (S10) and little time, also if it breaks off
// and comes back.
func TestDeny_costsEachALittle(t *testing.T) {
	denied := int64(0)
	for seed := range uint64(8) {
		plain := Uniform(6, 64<<20, seed+1)
		without := Run(plain)
		w := plain
		w.Members = append([]Member(nil), plain.Members...)
		w.Members[2].Forgery, w.Members[2].LiesEvery = 1, 3
		w.Members[2].Denies, w.Members[2].Returns = true, seed%2 == 1
		result := Run(w)
		if result.Err != nil || without.Err != nil {
			t.Fatalf("seed %d: %v, %v\n%s", seed+1, result.Err, without.Err, result.Story)
		}
		if most := 2*without.Last + 3*time.Second; result.Last > most || result.Copies() > 3 {
			t.Errorf("seed %d: the last member is done after %v, want at most %v; %.2f copies, want at most 3", seed+1, result.Last, most, result.Copies())
		}
		if result.Marks[Banned] > 0 {
			t.Errorf("seed %d: a member was shut out that stands by its word", seed+1)
		}
		denied += result.Marks[Denied]
	}
	if denied == 0 {
		t.Error("no accusation was answered")
	}
}

// TestDoubt_colludersDoNotSpoilARightDigest: who knows the digest of the whole file ends with
// the right one, however many lie alike; who has a wrong one is told so.
func TestDoubt_colludersDoNotSpoilARightDigest(t *testing.T) {
	doubted := int64(0)
	for seed := range uint64(8) {
		w := Uniform(8, 16<<20, seed+1)
		for k := range w.Members {
			m := &w.Members[k]
			switch {
			case k >= 2 && k < 5:
				m.Forgery, m.LiesEvery = 1, 40
			default:
				m.Knows = true
			}
		}
		w.Members[7].Misled = seed%2 == 1
		result := Run(w)
		if result.Err != nil {
			t.Fatalf("seed %d: %v\n%s", seed+1, result.Err, result.Story)
		}
		if blamed := result.Marks[DigestBlamed] > 0; blamed != w.Members[7].Misled {
			t.Errorf("seed %d: a digest was blamed: %v", seed+1, blamed)
		}
		doubted += result.Marks[Doubted]
	}
	if doubted == 0 {
		t.Error("no file was doubted")
	}
}

// TestTwins_bothFinish: two machines with one key take the place of each other at the
// tracker and with every neighbour, and both get the file; nobody is blamed.
func TestTwins_bothFinish(t *testing.T) {
	for seed := range uint64(8) {
		w := Uniform(6, 64<<20, seed+1)
		w.Members[4].Twin = 2
		result := Run(w)
		if result.Err != nil {
			t.Fatalf("seed %d: %v\n%s", seed+1, result.Err, result.Story)
		}
		if result.Finished != 6 || result.Marks[Twins] == 0 || result.Marks[Banned] > 0 || result.Copies() > 2 {
			t.Errorf("seed %d: %d of 6 have finished, twins met %d times, %d bans, %.2f copies", seed+1, result.Finished, result.Marks[Twins], result.Marks[Banned], result.Copies())
		}
	}
}

// TestChecks_seeWaste breaks by hand what bounds the waste, and takes a right digest for
// wrong.
func TestChecks_seeWaste(t *testing.T) {
	r := newRun(Uniform(2, 4<<20, 1))
	for _, m := range r.members {
		r.start(m)
	}
	for range maxWrongEnds + 1 {
		r.s10WasteIsBounded(&fetch{asker: r.members[0].proc, to: r.members[1], wrong: []piece.Index{1}})
	}
	if r.err == nil || !strings.Contains(r.err.Error(), "was sent wrong pieces 6 times") {
		t.Errorf("the check says %v", r.err)
	}
}

// TestShuns_oneThatCheatsHoldsNobodyUp: what only a member is said to hold from which nobody
// takes anything is read from the origin, by all lines and once.
func TestShuns_oneThatCheatsHoldsNobodyUp(t *testing.T) {
	for name, cheat := range map[string]Member{
		"withholds":        {Withholds: true},
		"lies":             {Forgery: 1, LiesEvery: 1},
		"lies, withholds":  {Forgery: 1, LiesEvery: 1, Withholds: true},
		"freeloads":        {Freeloads: true},
		"lies, comes back": {Forgery: 1, LiesEvery: 1, Returns: true},
	} {
		for seed := range uint64(4) {
			plain := Uniform(5, 64<<20, seed+1)
			without := Run(plain)
			w := plain
			w.Members = append([]Member(nil), plain.Members...)
			cheat := cheat
			cheat.WAN, cheat.LANUp, cheat.LANDown = w.Members[4].WAN, w.Members[4].LANUp, w.Members[4].LANDown
			w.Members[4] = cheat
			result := Run(w)
			if result.Err != nil || without.Err != nil {
				t.Fatalf("%s, seed %d: %v, %v\n%s", name, seed+1, result.Err, without.Err, result.Story)
			}
			// Four lines do what five did, and it takes a while to find out.
			if most := without.Last*5/4*5/4 + 8*time.Second; result.Last > most || result.Copies() > 1.4 {
				t.Errorf("%s, seed %d: the last member is done after %v, want at most %v (without: %v); %.2f copies, want at most 1.4", name, seed+1, result.Last, most, without.Last, result.Copies())
			}
		}
	}
}
