package piece

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/bits"
)

// Digest is what a piece is checked against: the root of the SHA-256 Merkle tree
// over its leaves of LeafSize bytes, as BEP 52 defines it.
type Digest [sha256.Size]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// IsZero reports whether d is the zero value, which stands for "not known".
func (d Digest) IsZero() bool { return d == Digest{} }

// ParseDigest reads the 64 hexadecimal digits that String writes.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(d) {
		return d, fmt.Errorf("%q is not a SHA-256 digest of 64 hexadecimal digits", s)
	}
	copy(d[:], raw)
	return d, nil
}

// Sum returns the digest of piece i of a file with this layout, whose bytes are
// data. It panics if data has not the piece's length.
//
// The tree of a piece is as high as that of a full one, missing leaves being 32 zero
// bytes; the only piece of a small file has a tree of its own, no higher than needed
// (BEP 52: "pieces root").
func (l Layout) Sum(i Index, data []byte) Digest {
	if int64(len(data)) != l.Length(i) {
		panic(fmt.Sprintf("digest of %d bytes for piece %d of %d bytes", len(data), i, l.Length(i)))
	}
	leaves := int(l.PieceLength / LeafSize)
	if l.Size <= l.PieceLength {
		leaves = roundUp((len(data) + LeafSize - 1) / LeafSize)
	}
	return root(data, leaves)
}

func roundUp(n int) int {
	if n <= 1 {
		return 1
	}
	return 1 << bits.Len(uint(n-1))
}

// root hashes data as a tree of the given number of leaves, a power of two.
func root(data []byte, leaves int) Digest {
	// stack[h] is a finished subtree of 2^h leaves that waits for its right neighbour.
	var stack [32]Digest
	n := 0
	push := func(d Digest, height int) {
		for ; n>>height&1 == 1; height++ {
			d = pair(stack[height], d)
		}
		stack[height] = d
	}
	for ; len(data) > 0; n++ {
		leaf := data[:min(LeafSize, len(data))]
		data = data[len(leaf):]
		push(sha256.Sum256(leaf), 0)
	}
	for ; n < leaves; n++ {
		push(Digest{}, 0)
	}
	return stack[bits.TrailingZeros(uint(leaves))]
}

func pair(left, right Digest) Digest {
	var both [2 * sha256.Size]byte
	copy(both[:sha256.Size], left[:])
	copy(both[sha256.Size:], right[:])
	return sha256.Sum256(both[:])
}
