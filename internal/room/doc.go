// Package room says who belongs together. It holds the identity of a node, the
// certificate authority that is a room, the invites into it, the TLS configurations
// for everything that members say to each other, and the splitting of one listener by
// what is spoken over it.
//
// A room is an Ed25519 certificate authority; its id is the SHA-256 of the
// authority's public key (the DER of its SubjectPublicKeyInfo). A member is whoever
// holds a certificate from it for the key that is its identity (Identity). The
// authority's key stays in the state folder of the room's creator.
//
// What is on disk are plain files and not a locked database, because `room join`,
// `room ls` and `room create` work beside a running daemon: every file is replaced as
// a whole, and a room appears and goes as a whole, by a rename. docs/formats.md has
// them byte by byte.
//
// The package knows nothing of what is said over the connections: the messages of
// joining and renewing are in package rpc, the durable count of used invites in
// package tracker (Admitter).
//
// Start with Folder, Room and Keyring.
package room
