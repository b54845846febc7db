package piece

import (
	"fmt"
	"math/bits"
	"sort"
)

// MaxFiles is the largest number of files in one content that is accepted from outside.
const MaxFiles = 1 << 20

// files is how several files, or unknown ones, share the pieces of a Layout.
type files struct {
	// Where each file begins, and where the last ends: its first byte and first piece.
	starts []int64
	firsts []Index
	blind  uint32 // instead of both: the number of pieces, where they end is not known
}

// LayoutOf returns the layout of files of the given sizes, in their order; empty ones
// have no piece. Sizes from outside are safe: it reports what is wrong with them.
func LayoutOf(pieceLength int64, sizes []int64) (Layout, error) {
	if len(sizes) > MaxFiles {
		return Layout{}, fmt.Errorf("a content of %d files has more than %d", len(sizes), MaxFiles)
	}
	if err := (Layout{PieceLength: pieceLength}).Validate(); err != nil {
		return Layout{}, err
	}
	f := &files{starts: make([]int64, 1, len(sizes)+1), firsts: make([]Index, 1, len(sizes)+1)}
	l := Layout{PieceLength: pieceLength}
	count := int64(0)
	for i, size := range sizes {
		if size < 0 || size > MaxSize-l.Size {
			return Layout{}, fmt.Errorf("file %d of %d bytes makes the content longer than %d", i, size, int64(MaxSize))
		}
		l.Size += size
		if count += (size + pieceLength - 1) / pieceLength; count > MaxCount {
			return Layout{}, fmt.Errorf("a content with more than %d pieces of %d bytes", MaxCount, pieceLength)
		}
		f.starts, f.firsts = append(f.starts, l.Size), append(f.firsts, Index(count))
	}
	if len(sizes) != 1 {
		l.files = f
	}
	return l, nil
}

// blindLayout is the layout of a content of which only the number of pieces is known;
// their ranges are as if all were equally long.
func blindLayout(size, pieceLength int64, pieces uint32) Layout {
	l := Layout{Size: size, PieceLength: pieceLength}
	if l.Count() != int(pieces) {
		l.files = &files{blind: pieces}
	}
	return l
}

// known returns where the files of l begin; nil if there is one, or that is not known.
func (l Layout) known() *files {
	if l.files == nil || l.files.blind > 0 {
		return nil
	}
	return l.files
}

// Files returns how many files the content has, empty ones included.
func (l Layout) Files() int {
	if f := l.known(); f != nil {
		return len(f.firsts) - 1
	}
	return 1
}

// File returns the bytes of a file within the content and the pieces it consists of.
func (l Layout) File(file int) (Range, Extent) {
	f := l.known()
	if f == nil {
		return Range{End: l.Size}, l.All()
	}
	return Range{Start: f.starts[file], End: f.starts[file+1]}, Extent{First: f.firsts[file], Count: f.firsts[file+1] - f.firsts[file]}
}

// FileOf returns the file that piece i belongs to.
func (l Layout) FileOf(i Index) int {
	if f := l.known(); f != nil {
		return f.of(i)
	}
	return 0
}

// Longest returns the length of the longest piece: less than PieceLength where all files
// are shorter, 0 where there is none.
func (l Layout) Longest() int64 {
	if l.files == nil || l.files.blind > 0 {
		return min(l.PieceLength, l.Size)
	}
	longest := int64(0)
	for k := 1; k < len(l.files.starts) && longest < l.PieceLength; k++ {
		longest = max(longest, min(l.files.starts[k]-l.files.starts[k-1], l.PieceLength))
	}
	return longest
}

// fileSize returns the size of the file that piece i belongs to.
func (l Layout) fileSize(i Index) int64 {
	f := l.known()
	if f == nil {
		return l.Size
	}
	file := f.of(i)
	return f.starts[file+1] - f.starts[file]
}

func (f *files) pieces() Index {
	if f.blind > 0 {
		return f.blind
	}
	return f.firsts[len(f.firsts)-1]
}

// of finds the file of piece i: the last that begins at it or before, for empty files
// begin where the next one does.
func (f *files) of(i Index) int {
	n := sort.Search(len(f.firsts), func(k int) bool { return f.firsts[k] > i })
	if n == 0 || n == len(f.firsts) {
		panic(fmt.Sprintf("piece %d of a content with %d pieces", i, f.pieces()))
	}
	return n - 1
}

func (f *files) bytes(l Layout, i Index) Range {
	if f.blind > 0 {
		if i >= f.blind {
			panic(fmt.Sprintf("piece %d of a content with %d pieces", i, f.blind))
		}
		return Range{Start: share(l.Size, i, f.blind), End: share(l.Size, i+1, f.blind)}
	}
	file := f.of(i)
	start := f.starts[file] + int64(i-f.firsts[file])*l.PieceLength
	return Range{Start: start, End: min(start+l.PieceLength, f.starts[file+1])}
}

func (f *files) at(l Layout, offset int64) Index {
	if f.blind > 0 {
		return Index(sort.Search(int(f.blind), func(k int) bool { return share(l.Size, Index(k)+1, f.blind) > offset }))
	}
	end := sort.Search(len(f.starts), func(k int) bool { return f.starts[k] > offset })
	return f.firsts[end-1] + Index((offset-f.starts[end-1])/l.PieceLength)
}

// share returns size * i / n without overflow.
func share(size int64, i, n Index) int64 {
	high, low := bits.Mul64(uint64(size), uint64(i))
	q, _ := bits.Div64(high, low, uint64(n))
	return int64(q)
}
