package node

import (
	"context"
	"fmt"
	"math/bits"
	"sync"

	"golang.org/x/sync/semaphore"
)

// bufferBytes bounds the memory of all pieces that are being received from origins:
// with the longest pieces, four of them.
const bufferBytes = 64 << 20

// buffers lends buffers as long as pieces.
type buffers struct {
	free  *semaphore.Weighted
	pools [32]sync.Pool // by the binary logarithm of their capacity
}

func newBuffers() *buffers { return &buffers{free: semaphore.NewWeighted(bufferBytes)} }

// take lends n bytes of any content. It waits while all are lent.
func (b *buffers) take(ctx context.Context, n int) ([]byte, error) {
	if n <= 0 || n > bufferBytes {
		panic(fmt.Sprintf("buffer of %d bytes", n))
	}
	class := bits.Len(uint(n - 1))
	if err := b.free.Acquire(ctx, int64(1)<<class); err != nil {
		return nil, err
	}
	if buf, ok := b.pools[class].Get().(*[]byte); ok {
		return (*buf)[:n], nil
	}
	return make([]byte, n, 1<<class), nil
}

// give takes a buffer back.
func (b *buffers) give(buf []byte) {
	class := bits.Len(uint(cap(buf) - 1))
	buf = buf[:cap(buf)]
	b.pools[class].Put(&buf)
	b.free.Release(int64(cap(buf)))
}
