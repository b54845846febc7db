package peer

import (
	"math/bits"
	"sync"
)

// pieceBuffers holds free buffers by the binary logarithm of their size.
var pieceBuffers [bits.UintSize]sync.Pool

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
