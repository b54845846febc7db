// Package node is the daemon's half that does things: it carries out what
// swarm.Node decides. Node owns what all downloads of a state folder share (journal,
// listener, memberships of rooms, streams to neighbours); a download owns one
// swarm.Node, the file it fills and the goroutines that work for it.
//
// Each download has one event loop (loop.go), and that loop alone touches its
// machine. It waits for an event or for the machine's deadline, steps, and carries
// out the actions in their order. What can block is done by workers: one goroutine
// for each request to the origin (origin.go) or to a neighbour (fetch.go), one for
// an audit, one for finishing (finish.go). Workers post what came of it as events.
//
// Without a room the tracker's part is played by a private swarm.Tracker in the same
// loop; with one, by a session with the room's tracker (session.go).
//
// Node does not know the tracker's service; cmd hands in its HTTP handlers.
//
// Start with Node, download and loop.go.
package node
