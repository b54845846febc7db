package node

import (
	"context"
	"slices"

	"dragonload/internal/piece"
)

// maxHeads bounds the bytes of all beginnings of pieces that a download keeps for their
// ends. One piece of the largest length has room among them in any case.
const maxHeads = 32 << 20

// heads are the beginnings of pieces that came without their ends.
type heads struct {
	kept  map[piece.Index]head
	total int
}

// head is the beginning of a piece, and the bits of the addresses that it came from.
type head struct {
	bytes   []byte
	sources uint32
}

// keep takes in the beginning of piece i. Where all do not fit the longest are kept: the
// longest of all is never given up, so that a piece gets whole however little of it an
// answer brings.
func (h *heads) keep(i piece.Index, bytes []byte, sources uint32) {
	h.drop(i)
	over := h.total + len(bytes) - maxHeads
	var least []piece.Index
	for over > 0 {
		k, found := h.shortest(least)
		if !found || len(h.kept[k].bytes) >= len(bytes) {
			return
		}
		least = append(least, k)
		over -= len(h.kept[k].bytes)
	}
	for _, k := range least {
		h.drop(k)
	}
	if h.kept == nil {
		h.kept = make(map[piece.Index]head)
	}
	h.kept[i] = head{slices.Clone(bytes), sources}
	h.total += len(bytes)
}

// shortest returns the shortest head that is not among but.
func (h *heads) shortest(but []piece.Index) (i piece.Index, found bool) {
	for k, head := range h.kept {
		if !slices.Contains(but, k) && (!found || len(head.bytes) < len(h.kept[i].bytes)) {
			i, found = k, true
		}
	}
	return i, found
}

func (h *heads) drop(i piece.Index) {
	h.total -= len(h.kept[i].bytes)
	delete(h.kept, i)
}

// keepHead keeps the beginning of piece i, so that it need not be fetched again.
func (d *download) keepHead(g *generation, i piece.Index, bytes []byte, sources uint32) {
	if len(bytes) == 0 || d.generation() != g {
		return
	}
	d.originMu.Lock()
	defer d.originMu.Unlock()
	d.heads.keep(i, bytes, sources)
}

// expectHead says that a probe whose answer holds the bytes held will leave the head
// of the piece that they end in. The function that it returns is called when the
// answer has ended.
func (d *download) expectHead(pin piece.Pin, held piece.Range) (done func()) {
	layout := pin.Layout()
	if held.End >= layout.Size || held.End%layout.PieceLength == 0 {
		return func() {}
	}
	ended := make(chan struct{})
	d.originMu.Lock()
	d.coming, d.comingOf = ended, layout.At(held.End)
	d.originMu.Unlock()
	return func() { close(ended) }
}

// headLen returns how many bytes of piece i are at hand. If a probe is just bringing
// some, it waits for them: they come over the same line.
func (d *download) headLen(ctx context.Context, i piece.Index) int64 {
	d.originMu.Lock()
	coming := d.coming
	if d.comingOf != i {
		coming = nil
	}
	d.originMu.Unlock()
	if coming != nil {
		select {
		case <-coming:
		case <-ctx.Done():
		}
	}
	d.originMu.Lock()
	defer d.originMu.Unlock()
	return int64(len(d.heads.kept[i].bytes))
}

// takeHead moves the head of piece i into buf and returns its length and its sources.
func (d *download) takeHead(i piece.Index, buf []byte) (int, uint32) {
	d.originMu.Lock()
	defer d.originMu.Unlock()
	h := d.heads.kept[i]
	d.heads.drop(i)
	return copy(buf, h.bytes), h.sources
}

func (d *download) dropHead(i piece.Index) {
	d.originMu.Lock()
	d.heads.drop(i)
	d.originMu.Unlock()
}

func (d *download) dropHeads() {
	d.originMu.Lock()
	d.heads = heads{}
	d.originMu.Unlock()
}
