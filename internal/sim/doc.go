// Package sim drives the deciding machines of package swarm, the same code that the
// daemon and the tracker service drive, through simulated worlds: virtual time, links
// with rates and delays, an origin, members that come, go, die and lie. One thread,
// one seed; two runs of the same World do the same things in the same order.
//
// A World says what there is and what goes wrong. Draw makes one from a seed, with
// all kinds of faults; Uniform makes an office without any. Run plays it and returns
// a Result: the time of the last member, what the fluid bound would have been, what
// the origin sent, and, in Err, the first promise that was broken. The promises are
// in invariants.go and check.go. Shrink makes a world that breaks one smaller, and
// WriteText writes it down for testdata, where it is played for ever.
//
// The simulator stands where the drivers stand. What it mirrors of them (how often
// they report bytes, when they call a silent session dead, what a restart finds on
// disk) is in driver.go, origin.go and wire.go; it runs none of their code.
//
// Read world.go, then run.go, then driver.go.
package sim
