package piece

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Bitfield is a set of pieces of a file with a fixed number of them. Its zero value
// is that of a file without pieces; NewBitfield makes others. Copies share their
// bits; Clone does not.
type Bitfield struct {
	words []uint64
	n     int
	count int
}

// NewBitfield returns the empty set for a file of n pieces.
func NewBitfield(n int) Bitfield {
	return Bitfield{words: make([]uint64, (n+63)/64), n: n}
}

// Len returns the number of pieces of the file.
func (b *Bitfield) Len() int { return b.n }

// Count returns how many pieces are in the set.
func (b *Bitfield) Count() int { return b.count }

// All reports whether every piece of the file is in the set.
func (b *Bitfield) All() bool { return b.count == b.n }

// Has reports whether piece i is in the set; false for one that the file has not got.
func (b *Bitfield) Has(i Index) bool {
	return int(i) < b.n && b.words[i/64]&(1<<(i%64)) != 0
}

// Set puts piece i into the set and reports whether it was not there before. It
// panics if the file has no such piece.
func (b *Bitfield) Set(i Index) bool {
	b.check(i)
	if b.Has(i) {
		return false
	}
	b.words[i/64] |= 1 << (i % 64)
	b.count++
	return true
}

// Unset takes piece i out of the set and reports whether it was there.
func (b *Bitfield) Unset(i Index) bool {
	b.check(i)
	if !b.Has(i) {
		return false
	}
	b.words[i/64] &^= 1 << (i % 64)
	b.count--
	return true
}

func (b *Bitfield) check(i Index) {
	if int(i) >= b.n {
		panic(fmt.Sprintf("piece %d in a bitfield of %d", i, b.n))
	}
}

// Next returns the first piece of the set at or after i.
func (b *Bitfield) Next(i Index) (Index, bool) { return b.scan(i, 0) }

// NextUnset returns the first piece at or after i that is not in the set.
func (b *Bitfield) NextUnset(i Index) (Index, bool) { return b.scan(i, ^uint64(0)) }

// scan finds the first position at or after i whose bit, xored with flip, is set.
func (b *Bitfield) scan(i Index, flip uint64) (Index, bool) {
	if int(i) >= b.n {
		return 0, false
	}
	w := int(i / 64)
	word := (b.words[w] ^ flip) &^ (1<<(i%64) - 1)
	for {
		if word != 0 {
			at := w*64 + bits.TrailingZeros64(word)
			return Index(at), at < b.n
		}
		if w++; w == len(b.words) {
			return 0, false
		}
		word = b.words[w] ^ flip
	}
}

// Extents calls yield with each run of pieces in the set, in ascending order, until
// yield returns false.
func (b *Bitfield) Extents(yield func(Extent) bool) {
	for at := Index(0); ; {
		first, ok := b.Next(at)
		if !ok {
			return
		}
		end, ok := b.NextUnset(first)
		if !ok {
			end = Index(b.n)
		}
		if !yield(Extent{first, end - first}) {
			return
		}
		at = end
	}
}

// Clone returns a set of its own with the same pieces.
func (b *Bitfield) Clone() Bitfield {
	return Bitfield{words: append([]uint64(nil), b.words...), n: b.n, count: b.count}
}

// Bytes returns the set as on the wire and on disk: eight pieces a byte, the first
// in the highest bit, spare bits zero (as in BitTorrent, BEP 3).
func (b *Bitfield) Bytes() []byte {
	out := make([]byte, len(b.words)*8)
	for w, word := range b.words {
		binary.BigEndian.PutUint64(out[w*8:], bits.Reverse64(word))
	}
	return out[:(b.n+7)/8]
}

// ParseBitfield reads what Bytes wrote for a file of n pieces. A length that is not
// exactly right and spare bits that are not zero are errors.
func ParseBitfield(data []byte, n int) (Bitfield, error) {
	if n < 0 || n > MaxCount {
		return Bitfield{}, fmt.Errorf("bitfield of %d pieces", n)
	}
	if len(data) != (n+7)/8 {
		return Bitfield{}, fmt.Errorf("bitfield of %d bytes for %d pieces", len(data), n)
	}
	b := NewBitfield(n)
	for i, v := range data {
		b.words[i/8] |= uint64(bits.Reverse8(v)) << (i % 8 * 8)
		b.count += bits.OnesCount8(v)
	}
	if n%64 != 0 && b.words[len(b.words)-1]>>(n%64) != 0 {
		return Bitfield{}, fmt.Errorf("bitfield with bits beyond its %d pieces", n)
	}
	return b, nil
}
