package node

import (
	"testing"

	"dragonload/internal/piece"
)

// TestHeads_theLongestGrowsToItsEnd: of pieces of the largest length, all begun and broken
// off again and again, one gets whole, and what is kept stays within its bound.
func TestHeads_theLongestGrowsToItsEnd(t *testing.T) {
	t.Parallel()
	const (
		length  = piece.MaxLength
		portion = 1 << 20
		pieces  = 8
	)
	var h heads
	for range length / portion {
		for i := range piece.Index(pieces) {
			n := len(h.kept[i].bytes)
			h.drop(i) // as taken by the next request for it
			if n += portion; n >= length {
				return
			}
			h.keep(i, make([]byte, n), 1)
			total := 0
			for _, k := range h.kept {
				total += len(k.bytes)
			}
			if total != h.total || total > maxHeads {
				t.Fatalf("%d bytes are kept and %d counted, the bound is %d", total, h.total, maxHeads)
			}
		}
	}
	t.Error("no piece got whole")
}
