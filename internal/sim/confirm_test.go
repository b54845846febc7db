package sim

import (
	"testing"
	"time"
)

// TestConfirm_costsACopyForEachReader: where everybody wants two to state each piece alike,
// the origin sends the file twice and no more, and every piece has two readers (S4).
func TestConfirm_costsACopyForEachReader(t *testing.T) {
	for _, c := range []struct{ members, confirm int }{{2, 2}, {3, 2}, {8, 2}, {8, 3}, {40, 2}} {
		w := Uniform(c.members, 64<<20, 1)
		w.Confirm = c.confirm
		result := Run(w)
		if result.Err != nil {
			t.Errorf("%d members, %d readers: %v", c.members, c.confirm, result.Err)
			continue
		}
		t.Logf("%d members, %d readers: %v", c.members, c.confirm, result)
		if most := float64(c.confirm) * 1.05; result.Copies() < float64(c.confirm) || result.Copies() > most {
			t.Errorf("%d members, %d readers: %.4f copies, want %d to %.2f", c.members, c.confirm, result.Copies(), c.confirm, most)
		}
		if result.Finished != c.members {
			t.Errorf("%d members, %d readers: %d have finished", c.members, c.confirm, result.Finished)
		}
	}
}

// TestConfirm_outlivesFaults: it ends as well when members and trackers come and go. (Who
// comes when all others have left waits for another reader.)
func TestConfirm_outlivesFaults(t *testing.T) {
	for name, faults := range map[string][]Fault{
		"a reader dies":             {{Kind: Kill, At: time.Second, Member: 1}},
		"a reader dies and returns": {{Kind: Kill, At: 500 * time.Millisecond, For: 700 * time.Millisecond, Member: 1}},
		"all its work is lost":      {{Kind: Wipe, At: 500 * time.Millisecond, For: 700 * time.Millisecond, Member: 2}},
		"the tracker dies":          {{Kind: TrackerDies, At: time.Second}},
		"it returns":                {{Kind: TrackerDies, At: time.Second, For: 2 * time.Second}},
		"damage":                    {{Kind: Damage, At: 1200 * time.Millisecond, Member: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(5) {
				w := Uniform(5, 32<<20, seed+1)
				w.Confirm = 2
				w.Faults = faults
				w.QuietFrom = 4 * time.Second
				if result := Run(w); result.Err != nil {
					t.Errorf("seed %d: %v\n%s", seed+1, result.Err, result.Story)
				} else {
					t.Logf("%.3f copies, last after %v", result.Copies(), result.Last)
				}
			}
		})
	}
}

// TestConfirm_movingCostsNoReading: who moves from a successor home to the room's own
// tracker goes on reading what it was lent, and nobody else is lent it.
func TestConfirm_movingCostsNoReading(t *testing.T) {
	for seed := range uint64(20) {
		w := Uniform(5, 32<<20, seed+1)
		w.Confirm = 2
		w.Faults = []Fault{{Kind: TrackerDies, At: time.Second, For: 2 * time.Second}}
		w.QuietFrom = 4 * time.Second
		if result := Run(w); result.Err != nil || result.Copies() > 2.02 {
			t.Errorf("seed %d: %.4f copies, want at most 2.02; %v", seed+1, result.Copies(), result.Err)
		}
	}
}
