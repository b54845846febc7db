//go:build !linux

package node

import "time"

var begun = time.Now()

// asleep returns by how much the time of day is ahead of the monotonic clock, counted
// from the start of the process. A clock that is set forward looks like sleep; then
// connections are made anew for nothing.
func asleep(now time.Time) time.Duration {
	return now.Round(0).Sub(begun.Round(0)) - now.Sub(begun)
}
