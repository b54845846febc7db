package piece

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
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
	return root(data, l.leaves(i))
}

// leaves returns how many leaves the tree of piece i has.
func (l Layout) leaves(i Index) int {
	if l.fileSize(i) <= l.PieceLength {
		return roundUp(int((l.Length(i) + LeafSize - 1) / LeafSize))
	}
	return int(l.PieceLength / LeafSize)
}

func roundUp(n int) int {
	if n <= 1 {
		return 1
	}
	return 1 << bits.Len(uint(n-1))
}

// root hashes data as a tree of the given number of leaves, a power of two.
func root(data []byte, leaves int) Digest {
	var t tree
	t.pushAll(data)
	return t.root(leaves, Digest{})
}

// tree computes the root of a Merkle tree from its leaves, from left to right.
type tree struct {
	stack [32]Digest // stack[h] is a finished subtree of 2^h leaves that waits for its right neighbour
	n     int        // leaves so far
}

func (t *tree) push(d Digest) {
	height := 0
	for ; t.n>>height&1 == 1; height++ {
		d = pair(t.stack[height], d)
	}
	t.stack[height] = d
	t.n++
}

// root returns the root of a tree of the given number of leaves, a power of two; those
// missing are pad.
func (t *tree) root(leaves int, pad Digest) Digest {
	for t.n < leaves {
		t.push(pad)
	}
	return t.stack[bits.TrailingZeros(uint(leaves))]
}

// Root returns the root of the tree of a whole file, the only one of its layout, from the
// digests of all its pieces: what BEP 52 calls its pieces root. It panics if the number of digests is not
// that of the pieces, or zero.
func (l Layout) Root(digests []Digest) Digest {
	if len(digests) != l.Count() || len(digests) == 0 {
		panic(fmt.Sprintf("root of %d digests for %d pieces", len(digests), l.Count()))
	}
	var t tree
	for _, d := range digests {
		t.push(d)
	}
	return t.root(roundUp(len(digests)), l.missing())
}

// Coarsen returns the digests of all pieces of a file, the only one of its layout, as
// they are if it is cut into pieces of length, which are as long or longer, from those
// of its own. It panics if the number of digests is not that of the pieces.
func (l Layout) Coarsen(digests []Digest, length int64) []Digest {
	if len(digests) != l.Count() || length < l.PieceLength || length%l.PieceLength != 0 {
		panic(fmt.Sprintf("%d digests of pieces of %d bytes for pieces of %d", len(digests), l.PieceLength, length))
	}
	to := Layout{Size: l.Size, PieceLength: length}
	switch {
	case length == l.PieceLength || len(digests) < 2:
		return digests
	case to.Count() == 1:
		return []Digest{l.Root(digests)}
	}
	pad, each := l.missing(), int(length/l.PieceLength)
	joined := make([]Digest, 0, to.Count())
	for at := 0; at < len(digests); at += each {
		var t tree
		for _, d := range digests[at:min(at+each, len(digests))] {
			t.push(d)
		}
		joined = append(joined, t.root(each, pad))
	}
	return joined
}

// missing is the root of a piece that is not there: a full tree of missing leaves.
func (l Layout) missing() Digest {
	var pad Digest
	for n := int64(LeafSize); n < l.PieceLength; n *= 2 {
		pad = pair(pad, pad)
	}
	return pad
}

// Hasher computes the digest of one piece from its bytes as they come, in portions of
// any size.
type Hasher struct {
	tree    tree
	leaf    hash.Hash // of the bytes since the last whole leaf
	inLeaf  int
	missing int64 // bytes of the piece
	leaves  int   // of the piece's tree
}

// Hasher returns a Hasher of piece i.
func (l Layout) Hasher(i Index) *Hasher {
	return &Hasher{leaf: sha256.New(), missing: l.Length(i), leaves: l.leaves(i)}
}

// Write adds the next bytes of the piece; it never fails. It panics if they are more
// than the piece has.
func (h *Hasher) Write(p []byte) (int, error) {
	n := len(p)
	if h.missing -= int64(n); h.missing < 0 {
		panic(fmt.Sprintf("%d bytes more than the piece has", -h.missing))
	}
	for len(p) > 0 {
		if whole := len(p) - len(p)%LeafSize; h.inLeaf == 0 && whole > 0 {
			h.tree.pushAll(p[:whole])
			p = p[whole:]
			continue
		}
		part := p[:min(LeafSize-h.inLeaf, len(p))]
		p = p[len(part):]
		h.leaf.Write(part)
		if h.inLeaf += len(part); h.inLeaf == LeafSize {
			h.endLeaf()
		}
	}
	return n, nil
}

func (h *Hasher) endLeaf() {
	var d Digest
	h.leaf.Sum(d[:0])
	h.leaf.Reset()
	h.inLeaf = 0
	h.tree.push(d)
}

// Sum returns the digest, once, when all bytes of the piece are written; it panics if
// some are missing.
func (h *Hasher) Sum() Digest {
	if h.missing != 0 {
		panic(fmt.Sprintf("digest of a piece that misses %d bytes", h.missing))
	}
	if h.inLeaf > 0 {
		h.endLeaf()
	}
	return h.tree.root(h.leaves, Digest{})
}

func pair(left, right Digest) Digest {
	var both [2 * sha256.Size]byte
	copy(both[:sha256.Size], left[:])
	copy(both[sha256.Size:], right[:])
	return sha256.Sum256(both[:])
}
