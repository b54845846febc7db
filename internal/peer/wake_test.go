package peer

import (
	"math/rand/v2"
	"testing"
	"time"
)

// What wakes the reader must come for certain: a body's last bytes may be read from the
// socket already, as a record that package tls holds.
func TestWakeAfter_neverWaitsForMoreThanIsToCome(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	late := 0
	for range 100_000 {
		left, rate := rng.Int64N(1<<(1+rng.Uint64N(30))), rng.Int64N(1<<(1+rng.Uint64N(40)))
		n := wakeAfter(left, rate)
		switch {
		case n == 1:
		case int64(n) > left-2*(16<<10+256):
			t.Fatalf("%d bytes left at %d/s: wakes after %d", left, rate, n)
		case int64(n) > rate/int64(time.Second/wakeDelay):
			t.Fatalf("at %d/s, %d bytes take longer than %v", rate, n, wakeDelay)
		default:
			late++
		}
	}
	if late == 0 {
		t.Error("never wakes late")
	}
}
