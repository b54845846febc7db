package peer

import (
	"context"
	"sync/atomic"
	"testing"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// Small files of a content with the longest of pieces take no more memory than they have
// bytes, on either side.
func TestBuffers_areAsLongAsThePiecesThatAreAskedFor(t *testing.T) {
	t.Parallel()
	layout, err := piece.LayoutOf(16<<20, []int64{100, 3000, 5 << 20, 17 << 20})
	if err != nil {
		t.Fatal(err)
	}
	f := &file{layout: layout, data: make([]byte, layout.Size)}
	for i := range piece.Index(layout.Count()) {
		f.sums = append(f.sums, layout.Sum(i, f.bytes(i)))
	}
	n := newNetwork(newParty(t), nil)
	watched := &watchedBackend{backend: backend{f}}
	s := NewServer(watched, ServerOptions{Identify: identify})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, n) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	c := newTestClient(t, n, newParty(t), ClientOptions{})
	for _, asked := range []struct {
		pieces []piece.Index
		most   int // a power of two
	}{{[]piece.Index{0}, 128}, {[]piece.Index{0, 1}, 4096}, {[]piece.Index{1, 2}, 8 << 20}, {[]piece.Index{4}, 1 << 20}, {[]piece.Index{0, 3}, 16 << 20}} {
		err := c.Fetch(t.Context(), "there", n.server.id, testPool, layout, asked.pieces, nil, func(_ piece.Index, data []byte) error {
			if cap(data) > asked.most {
				t.Errorf("pieces %v: received into %d bytes", asked.pieces, cap(data))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if took := watched.longest.Swap(0); took != int64(asked.most) {
			t.Errorf("pieces %v: sent from %d bytes", asked.pieces, took)
		}
	}
}

// watchedBackend notes the longest buffer that it is given.
type watchedBackend struct {
	backend
	longest atomic.Int64
}

func (b *watchedBackend) Admit(ctx context.Context, room [32]byte, id piece.NodeID, pool swarm.PoolID, pieces []piece.Index) (Content, func(int64), error) {
	return watchedContent{b.file, b}, func(int64) {}, nil
}

type watchedContent struct {
	*file
	by *watchedBackend
}

func (c watchedContent) ReadPiece(i piece.Index, buf []byte) ([]byte, error) {
	c.by.longest.Store(max(c.by.longest.Load(), int64(cap(buf))))
	return c.file.ReadPiece(i, buf)
}
