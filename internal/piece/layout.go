package piece

import "fmt"

// Index is the number of a piece in its file, from 0.
type Index = uint32

const (
	// LeafSize is the number of bytes under one leaf of a piece's Merkle tree (BEP 52).
	LeafSize = 16 << 10

	// MinLength is the shortest piece length that LengthFor chooses.
	MinLength = 64 << 10
	// MaxLength is the longest.
	MaxLength = 16 << 20

	// UnknownLength is the piece length while the size of the file is not known yet.
	UnknownLength = 4 << 20

	// MaxCount is the largest number of pieces that is ever accepted from outside:
	// libtorrent's limit, which keeps a bitfield at 256 KiB.
	MaxCount = 1 << 21

	// MaxSize is the largest file size accepted from outside: 2^53-1, the largest
	// integer that every JSON reader keeps exact.
	MaxSize = 1<<53 - 1

	// targetCount is how many pieces a file should have at most; with fewer, the
	// last pieces take long, with more, announcing them costs more than they bring.
	targetCount = 2048
)

// LengthFor returns the piece length for a file of size bytes: the smallest power of
// two from MinLength to MaxLength that cuts it into at most 2048 pieces.
func LengthFor(size int64) int64 {
	length := int64(MinLength)
	for length < MaxLength && size > length*targetCount {
		length *= 2
	}
	return length
}

// Layout says how a content is cut into pieces. One file: pieces of PieceLength bytes,
// the last one shorter. Several files (see LayoutOf) lie one after the other without
// gaps, and each begins with a piece of its own, so that the last piece of each is
// shorter. The zero Layout is that of nothing at all. Layouts of one file are compared
// with ==.
type Layout struct {
	Size        int64 // bytes in all files
	PieceLength int64 // bytes in every piece but the last of a file; a power of two, at least LeafSize
	files       *files
}

// LayoutFor returns the layout that dragonload itself gives a file of size bytes.
func LayoutFor(size int64) Layout {
	return Layout{Size: size, PieceLength: LengthFor(size)}
}

// Validate reports what is wrong with a layout that came from outside.
func (l Layout) Validate() error {
	switch {
	case l.Size < 0 || l.Size > MaxSize:
		return fmt.Errorf("file size %d is outside 0 to %d", l.Size, int64(MaxSize))
	case l.PieceLength < LeafSize || l.PieceLength > 4*MaxLength || l.PieceLength&(l.PieceLength-1) != 0:
		return fmt.Errorf("piece length %d is not a power of two from %d to %d", l.PieceLength, LeafSize, 4*MaxLength)
	case (l.Size+l.PieceLength-1)/l.PieceLength > MaxCount:
		return fmt.Errorf("a file of %d bytes in pieces of %d has more than %d pieces", l.Size, l.PieceLength, MaxCount)
	case l.Count() > MaxCount:
		return fmt.Errorf("a content of %d pieces has more than %d", l.Count(), MaxCount)
	}
	return nil
}

// Count returns the number of pieces: 0 for an empty file.
func (l Layout) Count() int {
	if l.files != nil {
		return int(l.files.pieces())
	}
	if l.Size == 0 {
		return 0
	}
	return int((l.Size + l.PieceLength - 1) / l.PieceLength)
}

// Length returns the number of bytes in piece i.
func (l Layout) Length(i Index) int64 {
	return l.Range(i).Len()
}

// Range returns the bytes of piece i. It panics if there is no such piece.
func (l Layout) Range(i Index) Range {
	if l.files != nil {
		return l.files.bytes(l, i)
	}
	start := int64(i) * l.PieceLength
	if start >= l.Size {
		panic(fmt.Sprintf("piece %d of a file with %d pieces", i, l.Count()))
	}
	return Range{Start: start, End: min(start+l.PieceLength, l.Size)}
}

// Bytes returns the bytes of a non-empty run of pieces.
func (l Layout) Bytes(e Extent) Range {
	return Range{Start: l.Range(e.First).Start, End: l.Range(e.End() - 1).End}
}

// At returns the piece that holds byte offset.
func (l Layout) At(offset int64) Index {
	if l.files != nil {
		return l.files.at(l, offset)
	}
	return Index(offset / l.PieceLength)
}

// All returns the extent of all pieces.
func (l Layout) All() Extent { return Extent{First: 0, Count: uint32(l.Count())} }

// Range is the half-open run of bytes [Start, End).
type Range struct{ Start, End int64 }

// Len returns the number of bytes in r.
func (r Range) Len() int64 { return r.End - r.Start }

func (r Range) String() string { return fmt.Sprintf("[%d,%d)", r.Start, r.End) }
