package node

import (
	"testing"
	"time"
)

// TestFault16Moments: a process that was stopped misses the monotonic clock's time, one on
// a computer that slept what that clock does not show. A little delay is no sleep, nor is
// a clock that is set back.
func TestFault16Moments(t *testing.T) {
	t.Parallel()
	at := time.Unix(1e9, 0)
	before := moment{running: at, asleep: time.Hour}
	for name, tt := range map[string]struct {
		after moment
		slept bool
	}{
		"as ever":            {moment{at.Add(lookEvery), time.Hour}, false},
		"busy for 4 s":       {moment{at.Add(lookEvery + 4*time.Second), time.Hour}, false},
		"stopped for 30 s":   {moment{at.Add(lookEvery + 30*time.Second), time.Hour}, true},
		"slept for 8 h":      {moment{at.Add(lookEvery), 9 * time.Hour}, true},
		"clock set back 1 y": {moment{at.Add(lookEvery), time.Hour - 365*24*time.Hour}, false},
	} {
		if got := tt.after.missed(before) >= sleptFrom; got != tt.slept {
			t.Errorf("%s: slept %v, want %v", name, got, tt.slept)
		}
	}
	if now := newMoment(); now.missed(newMoment()) >= sleptFrom {
		t.Error("the system's clocks say that this computer slept just now")
	}
}
