package piece

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"
)

// Leaves that are hashed side by side have the digests that each has by itself.
func TestTree_hashesLeavesSideBySide(t *testing.T) {
	t.Parallel()
	data := make([]byte, 70*LeafSize)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	for _, n := range []int{0, 1, LeafSize, 15 * LeafSize, 16*LeafSize - 1, 16 * LeafSize, 16*LeafSize + 1, 33*LeafSize + 5, 64 * LeafSize, len(data)} {
		var want, got tree
		for at := 0; at < n; at += LeafSize {
			want.push(sha256.Sum256(data[at:min(at+LeafSize, n)]))
		}
		got.pushAll(data[:n])
		if leaves := roundUp(want.n); got.n != want.n || n > 0 && got.root(leaves, Digest{}) != want.root(leaves, Digest{}) {
			t.Errorf("%d bytes: the tree of %d leaves differs from that of %d", n, got.n, want.n)
		}
	}
}

// Portions of any size give the digest of the piece, also such as hold many leaves.
func TestHasher_takesManyLeavesAtOnce(t *testing.T) {
	t.Parallel()
	data := make([]byte, 1<<20)
	rng := rand.New(rand.NewPCG(1, 2))
	_, _ = rand.NewChaCha8([32]byte{2}).Read(data)
	l := Layout{Size: 1 << 20, PieceLength: 1 << 20}
	for range 20 {
		h := l.Hasher(0)
		for rest := data; len(rest) > 0; {
			n := min(1+rng.IntN(40*LeafSize), len(rest))
			_, _ = h.Write(rest[:n])
			rest = rest[n:]
		}
		if h.Sum() != l.Sum(0, data) {
			t.Fatal("the digests differ")
		}
	}
}

func BenchmarkSum(b *testing.B) {
	for _, size := range []int64{64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dK", size>>10), func(b *testing.B) {
			l := Layout{Size: size, PieceLength: size}
			data := make([]byte, size)
			b.SetBytes(size)
			for b.Loop() {
				l.Sum(0, data)
			}
		})
	}
}
