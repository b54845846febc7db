// Package discovery finds members of this node's rooms in the network around it, by
// DNS-SD over multicast DNS (RFC 6763, RFC 6762): service _dragonload._tcp.
//
// What is announced says nothing to who is in none of the rooms: a random name that is
// changed now and then, addresses and port, a salt, and for each room a tag, which only
// who knows the room's id can compute. And nothing that is found is believed: it is an
// address to try, and the handshake there with the room's certificates decides. Whoever
// copies an announcement makes members try one address in vain, for an hour at most.
//
// Where multicast does not work, as in many containers, nothing is found; that is a line in
// the log and no error.
//
// Service announces and listens for as long as it runs; Find looks once. The deciding part
// is engine, which touches neither network nor clock.
package discovery
