package piece

import (
	"bytes"
	"encoding/hex"
)

// NodeID is a node's identity: its Ed25519 public key. Whoever proves in a TLS
// handshake that it holds the private key is that node, wherever it is.
type NodeID [32]byte

// String returns the first 8 hexadecimal digits, enough to tell members of a room
// apart in messages and logs.
func (id NodeID) String() string { return hex.EncodeToString(id[:4]) }

// Compare orders ids bytewise.
func (id NodeID) Compare(other NodeID) int { return bytes.Compare(id[:], other[:]) }
