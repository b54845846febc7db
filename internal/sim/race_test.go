//go:build race

package sim

// The race detector slows the simulator, which has one thread, tenfold: fewer worlds
// are enough for it to see that this is so, and none of a thousand members.
func init() { fewSeeds, raced = 15, true }
