// Package piece holds the values that every other part of dragonload speaks in:
// how a file is cut into pieces (Layout), which pieces somebody holds (Bitfield),
// runs of pieces (Extent) and of bytes (Range), the digest of a piece (Digest) and
// which version of an origin's file the bytes belong to (Pin).
//
// Everything here is a pure value: no clock, no disk, no network, no goroutine. A
// test in package swarm reads the sources of both packages and keeps it so.
//
// Start with Layout, Bitfield and Pin.
package piece
