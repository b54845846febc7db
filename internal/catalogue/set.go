package catalogue

import (
	"math/bits"
	"slices"
)

// maxFew is how many numbers a set keeps as a list; a set of more is a field of bits.
const maxFew = 1024

// set is a set of small numbers. It keeps the field of bits, once it has one, until it
// has much fewer.
type set struct {
	few  []uint32 // sorted
	many bitmap   // in its place, if it is not nil
	n    int
}

// add reports whether n was not in the set.
func (s *set) add(n uint32) bool {
	if s.many != nil {
		if s.many.has(n) {
			return false
		}
		s.many.add(n)
		s.n++
		return true
	}
	if last := len(s.few) - 1; last < 0 || s.few[last] < n { // as new numbers are
		s.few = append(s.few, n)
	} else {
		i, found := slices.BinarySearch(s.few, n)
		if found {
			return false
		}
		s.few = slices.Insert(s.few, i, n)
	}
	if s.n = len(s.few); s.n > maxFew {
		for _, m := range s.few {
			s.many.add(m)
		}
		s.few = nil
	}
	return true
}

// remove takes n out, which may not be there.
func (s *set) remove(n uint32) {
	if s.many == nil {
		if i, found := slices.BinarySearch(s.few, n); found {
			s.few = slices.Delete(s.few, i, i+1)
		}
		s.n = len(s.few)
		return
	}
	if !s.many.has(n) {
		return
	}
	s.many[n/64] &^= 1 << (n % 64)
	if s.n--; s.n < maxFew/4 {
		s.few = make([]uint32, 0, s.n)
		for m := range s.many.each {
			s.few = append(s.few, m)
		}
		s.many = nil
	}
}

// into adds the set to a bitmap.
func (s *set) into(b *bitmap) {
	if s.many == nil {
		for _, n := range s.few {
			b.add(n)
		}
		return
	}
	b.grow(len(s.many))
	for i, w := range s.many {
		(*b)[i] |= w
	}
}

// bitmap is a set of numbers, a bit each.
type bitmap []uint64

func (b *bitmap) grow(words int) {
	if missing := words - len(*b); missing > 0 {
		*b = append(*b, make([]uint64, missing)...)
	}
}

func (b *bitmap) add(n uint32) {
	b.grow(int(n/64) + 1)
	(*b)[n/64] |= 1 << (n % 64)
}

func (b bitmap) has(n uint32) bool { return int(n/64) < len(b) && b[n/64]&(1<<(n%64)) != 0 }

// and keeps what is in other too, and returns it.
func (b bitmap) and(other bitmap) bitmap {
	b = b[:min(len(b), len(other))]
	for i := range b {
		b[i] &= other[i]
	}
	return b
}

func (b bitmap) count() (n int) {
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}

// each yields the numbers in their order.
func (b bitmap) each(yield func(uint32) bool) {
	for i, w := range b {
		for ; w != 0; w &= w - 1 {
			if !yield(uint32(i*64 + bits.TrailingZeros64(w))) {
				return
			}
		}
	}
}
