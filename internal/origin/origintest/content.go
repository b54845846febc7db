package origintest

import "io"

// Content is a file of any size whose bytes look random, are told by Seed and their
// place, and cost no memory.
type Content struct {
	Seed uint64
	Size int64
}

// ReadAt fills p with the bytes at off, as an io.ReaderAt does.
func (f Content) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && off < f.Size {
		word := mix(f.Seed, uint64(off/8))
		for k := off % 8; k < 8 && n < len(p) && off < f.Size; k++ {
			p[n] = byte(word >> (8 * k))
			n++
			off++
		}
	}
	if n < len(p) {
		err = io.EOF
	}
	return n, err
}

// Bytes returns the whole file.
func (f Content) Bytes() []byte {
	b := make([]byte, f.Size)
	_, _ = f.ReadAt(b, 0)
	return b
}

// Reader returns a reader of the whole file.
func (f Content) Reader() io.Reader { return io.NewSectionReader(f, 0, f.Size) }

// mix is the generator SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) at place i.
func mix(seed, i uint64) uint64 {
	x := seed*0xd1342543de82ef95 + (i+1)*0x9e3779b97f4a7c15
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
