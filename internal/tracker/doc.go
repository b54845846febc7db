// Package tracker is the tracker's role: the service that members of a room talk to
// (Service), and the durable facts behind it (State).
//
// A Service decides nothing. For each shard of pools one event loop (shard) drives one
// swarm.Tracker: what members say on their sessions becomes events, what the machine
// orders becomes messages on other sessions. What it knows of pools is soft; it comes
// back with the members' announces. Durable, in the State, are only the uses of
// invites, the numbers of members and who was removed.
//
// Who calls is read from the certificate of the connection, never from a message, and a
// pool belongs to the caller's room whatever it is called, so members of one room can
// do nothing to another.
//
// Start with Service, shard and State.
package tracker
