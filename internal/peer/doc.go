// Package peer is the data plane between members: it serves pieces to them (Server),
// fetches pieces from them (Client), and carries what neighbours tell each other about
// their pools (Stream).
//
// Pieces travel over HTTP/1.1 on kept-open TLS connections. A request names a pool and
// up to 256 pieces, never a file or a path; the answer is the pieces one after the
// other. What costs most is the system calls of writing TLS records of 16 KiB, so a
// sender puts Coalesce under its TLS: it collects records and writes 256 KiB at a time.
// The receiver needs nothing of the kind.
//
// Everything else goes over one Stream for each pair of nodes and room: what each
// holds of which pool, statements of digests, and signs of life.
//
// The package decides nothing: who is served when is the Backend's matter, whom to ask
// for what the caller's. It knows nothing of rooms either; TLS and with it the identity
// of both sides comes from outside. Digests of what arrives are for the caller to
// check. docs/formats.md has everything that is on the wire byte by byte.
//
// Start with Server, Client and Stream.
package peer

import (
	"errors"
	"net"
)

var (
	// ErrNotHeld: a piece that was asked for is not held there, the pool is not known
	// there, or who asks may not know; nothing tells these apart. Asking again later
	// may help.
	ErrNotHeld = errors.New("not held by this member")

	// ErrBusy: the other side has too much to do to answer now.
	ErrBusy = errors.New("this member has too many requests to answer")

	// ErrBroken: the other side could not be reached, the connection broke, or what
	// came over it is not what the protocol allows.
	ErrBroken = errors.New("connection to this member broken")

	// ErrSilent: nothing has come, or next to nothing, for as long as a member may be
	// silent.
	ErrSilent = errors.New("this member sends nothing")

	// ErrOverflow: the neighbour takes messages more slowly than they arise.
	ErrOverflow = errors.New("this member does not keep up with what it is told")

	// ErrVersion ends Stream.Receive: the neighbour speaks another version of the stream.
	ErrVersion = errors.New("this member speaks another version of the protocol")
)

// abort closes a connection without waiting for anything: unlike tls.Conn.Close it
// tells the other side nothing beforehand, which may take seconds if it does not read.
func abort(c net.Conn) {
	if layered, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = layered.NetConn()
	}
	c.Close()
}
