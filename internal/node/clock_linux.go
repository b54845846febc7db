package node

import (
	"time"

	"golang.org/x/sys/unix"
)

// asleep returns for how long the computer has slept since it was started: one clock of
// the system goes on then and one stands still. No change of the time of day is in it.
func asleep(time.Time) time.Duration {
	var on, still unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &still) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &on) != nil {
		return 0
	}
	return time.Duration(on.Nano() - still.Nano())
}
