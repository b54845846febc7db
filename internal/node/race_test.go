//go:build race

package node_test

// The race detector slows the table of misbehaving origins tenfold, and the runtime of Go
// 1.26.8 with it crashes in timers of bubbles (runtime.(*timer).maybeRunChan); .ci/run has
// the table without it.
func init() { underRace = true }
