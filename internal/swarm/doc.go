// Package swarm decides. It holds the two state machines of dragonload: Node, which
// decides for one download which piece to fetch from whom, whom to serve first and
// when to ask twice; and Tracker, which decides who fetches which extent from the
// origin and who meets whom.
//
// Both are pure: no I/O, no clock, no goroutine, no lock, no dependence on the order
// of a map. What happens comes in as an event, what is to be done goes out as
// actions:
//
//	out = machine.Step(now, event, out)
//	at, ok := machine.Deadline()
//
// A driver calls Step with each event, and with a nil event once Deadline has passed.
// The daemon (package node), the tracker service (package tracker) and the simulator
// (package sim) are three drivers of the same code. Every action that asks for I/O
// has exactly one event that ends it; the comment of the action names it. Step never
// blocks and never fails: what goes wrong outside is an event, a broken invariant of
// the machine's own is a panic.
//
// Read message.go for what nodes and trackers say to each other, then event.go and
// action.go, then tracker.go and node.go.
package swarm
