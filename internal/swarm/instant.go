package swarm

import "time"

// Instant is a moment: nanoseconds since a zero that the driver chose. The daemon
// counts from its start on the monotonic clock, the simulator from the run's start.
type Instant int64

// never is later than any moment a driver reaches.
const never = Instant(1<<63 - 1)

// Add returns the moment d after t.
func (t Instant) Add(d time.Duration) Instant { return t + Instant(d) }

// Sub returns the time from u to t.
func (t Instant) Sub(u Instant) time.Duration { return time.Duration(t - u) }
