package catalogue

import (
	"iter"
	"slices"
)

// blockSize is how many things a block of an ordered has at most.
const blockSize = 256

// ordered is a sorted list in which things are quickly found, put in and taken out: a
// list of sorted blocks, none of them empty.
type ordered[T any] struct {
	compare func(a, b *T) int
	blocks  [][]T
}

// find returns where x is, or would be put: at i in block b, which is len(o.blocks) only
// if there is none.
func (o *ordered[T]) find(x *T) (b, i int, found bool) {
	// The last block that does not begin after x.
	low, high := 0, len(o.blocks)
	for low < high {
		at := int(uint(low+high) / 2)
		if c := o.compare(&o.blocks[at][0], x); c == 0 {
			return at, 0, true
		} else if c < 0 {
			low = at + 1
		} else {
			high = at
		}
	}
	if b = max(low-1, 0); b == len(o.blocks) {
		return b, 0, false
	}
	block := o.blocks[b]
	low, high = 0, len(block)
	for low < high {
		at := int(uint(low+high) / 2)
		if c := o.compare(&block[at], x); c == 0 {
			return b, at, true
		} else if c < 0 {
			low = at + 1
		} else {
			high = at
		}
	}
	return b, low, false
}

// insert puts x where find has said, and returns its place, which is good until the next
// change.
func (o *ordered[T]) insert(b, i int, x T) *T {
	if b == len(o.blocks) {
		o.blocks = append(o.blocks, append(make([]T, 0, 8), x))
		return &o.blocks[b][0]
	}
	if len(o.blocks[b]) == blockSize {
		// Half of it goes into a new block; things that come in order fill theirs.
		at := blockSize / 2
		if i == blockSize {
			at = blockSize - 8
		}
		right := append(make([]T, 0, blockSize), o.blocks[b][at:]...)
		clear(o.blocks[b][at:])
		o.blocks[b] = o.blocks[b][:at]
		o.blocks = slices.Insert(o.blocks, b+1, right)
		if i > at {
			b, i = b+1, i-at
		}
	}
	o.blocks[b] = slices.Insert(o.blocks[b], i, x)
	return &o.blocks[b][i]
}

// remove takes out what is at i in block b.
func (o *ordered[T]) remove(b, i int) {
	block := slices.Delete(o.blocks[b], i, i+1)
	o.blocks[b] = block
	switch {
	case len(block) == 0:
		o.blocks = slices.Delete(o.blocks, b, b+1)
	case len(block) < blockSize/4 && b+1 < len(o.blocks) && len(block)+len(o.blocks[b+1]) <= blockSize*3/4:
		o.blocks[b] = append(block, o.blocks[b+1]...)
		o.blocks = slices.Delete(o.blocks, b+1, b+2)
	}
}

// from returns everything that does not come before x. The list does not change meanwhile.
func (o *ordered[T]) from(x *T) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		b, i, _ := o.find(x)
		for ; b < len(o.blocks); b, i = b+1, 0 {
			for ; i < len(o.blocks[b]); i++ {
				if !yield(&o.blocks[b][i]) {
					return
				}
			}
		}
	}
}

// all returns everything.
func (o *ordered[T]) all() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for _, block := range o.blocks {
			for i := range block {
				if !yield(&block[i]) {
					return
				}
			}
		}
	}
}
