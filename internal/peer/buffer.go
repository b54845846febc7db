package peer

import (
	"math/bits"
	"sync"

	"dragonload/internal/piece"
)

// pieceBuffers holds free buffers by the binary logarithm of their size.
var pieceBuffers [bits.UintSize]sync.Pool

// longestOf returns how long the longest of some pieces is: of a folder of small files none
// may be anywhere near the piece length.
func longestOf(layout piece.Layout, pieces []piece.Index) (longest int64) {
	for _, i := range pieces {
		longest = max(longest, layout.Length(i))
	}
	return longest
}

// takeBuffer returns n bytes of any content, n > 0. giveBuffer takes them back.
func takeBuffer(n int64) *[]byte {
	class := bits.Len64(uint64(n - 1))
	if b, ok := pieceBuffers[class].Get().(*[]byte); ok {
		*b = (*b)[:n]
		return b
	}
	b := make([]byte, n, 1<<class)
	return &b
}

func giveBuffer(b *[]byte) {
	pieceBuffers[bits.Len(uint(cap(*b)-1))].Put(b)
}
