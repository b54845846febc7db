package piece_test

import (
	"bytes"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"dragonload/internal/piece"
)

// TestLayout_arithmeticIsThatOfBigNumbers compares counts, ranges and extents of any file
// that is accepted with the same in numbers that cannot overflow.
func TestLayout_arithmeticIsThatOfBigNumbers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := piece.Layout{
			Size:        rapid.OneOf(rapid.Int64Range(0, piece.MaxSize), rapid.Int64Range(0, 1<<20), rapid.Int64()).Draw(t, "size"),
			PieceLength: rapid.OneOf(rapid.Map(rapid.IntRange(0, 62), func(k int) int64 { return 1 << k }), rapid.Int64()).Draw(t, "piece length"),
		}
		if l.Validate() != nil {
			if l.Size >= 0 && l.Size <= piece.MaxSize && piece.LayoutFor(l.Size).Validate() != nil && l.Size <= int64(piece.MaxCount)*piece.MaxLength {
				t.Fatalf("our own layout of %d bytes is refused", l.Size)
			}
			return
		}
		size, length := big.NewInt(l.Size), big.NewInt(l.PieceLength)
		count := new(big.Int).Div(new(big.Int).Add(size, new(big.Int).Sub(length, big.NewInt(1))), length)
		if got := big.NewInt(int64(l.Count())); got.Cmp(count) != 0 {
			t.Fatalf("%+v has %v pieces, want %v", l, got, count)
		}
		if l.Count() == 0 {
			return
		}
		i := rapid.Uint32Range(0, uint32(l.Count()-1)).Draw(t, "piece")
		start := new(big.Int).Mul(big.NewInt(int64(i)), length)
		end := new(big.Int).Add(start, length)
		if end.Cmp(size) > 0 {
			end = size
		}
		r := l.Range(i)
		if big.NewInt(r.Start).Cmp(start) != 0 || big.NewInt(r.End).Cmp(end) != 0 || l.Length(i) != r.End-r.Start {
			t.Fatalf("piece %d of %+v is %v, want [%v,%v)", i, l, r, start, end)
		}
		if l.At(r.Start) != i || l.At(r.End-1) != i {
			t.Fatalf("the bytes %v are of pieces %d and %d, want %d", r, l.At(r.Start), l.At(r.End-1), i)
		}
		n := rapid.Uint32Range(1, uint32(l.Count())-i).Draw(t, "pieces")
		if b := l.Bytes(piece.Extent{First: i, Count: n}); b.Start != r.Start || b.End != l.Range(i+n-1).End {
			t.Fatalf("%d pieces from %d on are the bytes %v", n, i, b)
		}
	})
}

// TestExtent_validNeverWraps tries extents of any two numbers.
func TestExtent_validNeverWraps(t *testing.T) {
	t.Parallel()
	number := rapid.OneOf(rapid.Uint32(), rapid.Uint32Range(0, 8), rapid.Uint32Range(math.MaxUint32-8, math.MaxUint32))
	rapid.Check(t, func(t *rapid.T) {
		e := piece.Extent{First: number.Draw(t, "first"), Count: number.Draw(t, "count")}
		count := rapid.IntRange(0, piece.MaxCount).Draw(t, "pieces")
		end := new(big.Int).Add(big.NewInt(int64(e.First)), big.NewInt(int64(e.Count)))
		want := e.Count > 0 && end.Cmp(big.NewInt(int64(count))) <= 0
		if e.Valid(count) != want {
			t.Fatalf("%+v of %d pieces: valid is %v", e, count, !want)
		}
		if want && (e.End() < e.First || !e.Has(e.First) || !e.Has(e.End()-1) || e.Has(e.End())) {
			t.Fatalf("%+v is accepted and wraps", e)
		}
	})
}

// TestExtents_mergeInAnyOrder: what is known of who holds what does not depend on the
// order in which it was heard, on how it was bundled, or on how often.
func TestExtents_mergeInAnyOrder(t *testing.T) {
	t.Parallel()
	extents := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) piece.Extent {
		return piece.Extent{First: rapid.Uint32Range(0, 200).Draw(t, "first"), Count: rapid.Uint32Range(0, 40).Draw(t, "count")}
	}), 0, 8)
	union := func(sets ...[]piece.Extent) (s piece.Extents) {
		for _, set := range sets {
			for _, e := range set {
				s.Add(e)
			}
		}
		return s
	}
	equal := func(a, b piece.Extents) bool {
		if a.Count() != b.Count() || len(a.Runs()) != len(b.Runs()) {
			return false
		}
		for k, e := range a.Runs() {
			if e != b.Runs()[k] {
				return false
			}
		}
		return true
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := extents.Draw(t, "a"), extents.Draw(t, "b"), extents.Draw(t, "c")
		all := union(a, b, c)
		if !equal(union(a, b), union(b, a)) {
			t.Fatal("not commutative")
		}
		ab, bc := union(a, b), union(b, c)
		if !equal(union(ab.Runs(), c), union(a, bc.Runs())) || !equal(union(ab.Runs(), c), all) {
			t.Fatal("not associative")
		}
		if !equal(union(all.Runs(), a, all.Runs(), c), all) {
			t.Fatal("not idempotent")
		}
	})
}

// TestLayout_sumAcceptsExactlyTheRightBytes flips, swaps and moves bytes of a piece: its
// digest fits no other bytes, at no other place.
func TestLayout_sumAcceptsExactlyTheRightBytes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := piece.Layout{Size: rapid.Int64Range(1, 5*piece.MinLength).Draw(t, "size"), PieceLength: piece.MinLength}
		i := rapid.Uint32Range(0, uint32(l.Count()-1)).Draw(t, "piece")
		data := make([]byte, l.Length(i))
		seed := rapid.Uint64().Draw(t, "bytes")
		for k := range data {
			seed = seed*6364136223846793005 + 1442695040888963407
			data[k] = byte(seed >> 56)
		}
		right := l.Sum(i, data)
		at := rapid.IntRange(0, len(data)-1).Draw(t, "at")
		data[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if l.Sum(i, data) == right {
			t.Fatalf("byte %d may be another one", at)
		}
		if len(data) < 2*piece.LeafSize {
			return
		}
		leaf := rapid.IntRange(1, len(data)/piece.LeafSize-1).Draw(t, "leaf")
		first := append([]byte(nil), data[:piece.LeafSize]...)
		before := l.Sum(i, data)
		copy(data, data[leaf*piece.LeafSize:(leaf+1)*piece.LeafSize])
		copy(data[leaf*piece.LeafSize:], first)
		if l.Sum(i, data) == before {
			t.Fatalf("leaf %d may stand in the place of the first", leaf)
		}
	})
}

// TestLayoutOf_isTheFilesOneAfterTheOther compares a content of several files with the
// layouts of its files alone: pieces, bytes and digests are theirs.
func TestLayoutOf_isTheFilesOneAfterTheOther(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const length = piece.LeafSize
		sizes := rapid.SliceOfN(rapid.OneOf(rapid.Int64Range(0, 3), rapid.Int64Range(length-1, length+1), rapid.Int64Range(0, 5*length)), 0, 12).Draw(t, "sizes")
		l, err := piece.LayoutOf(length, sizes)
		if err != nil || l.Validate() != nil {
			t.Fatal(err, l.Validate())
		}
		if l.Files() != len(sizes) {
			t.Fatalf("%d files, want %d", l.Files(), len(sizes))
		}
		next, offset := piece.Index(0), int64(0)
		for file, size := range sizes {
			alone := piece.Layout{Size: size, PieceLength: length}
			at, pieces := l.File(file)
			if at != (piece.Range{Start: offset, End: offset + size}) || pieces != (piece.Extent{First: next, Count: uint32(alone.Count())}) {
				t.Fatalf("file %d is %v, %v", file, at, pieces)
			}
			for i := range piece.Index(alone.Count()) {
				want := alone.Range(i)
				want.Start, want.End = want.Start+offset, want.End+offset
				if got := l.Range(next); got != want || l.FileOf(next) != file || l.At(got.Start) != next || l.At(got.End-1) != next {
					t.Fatalf("piece %d is %v of file %d (%d, %d), want %v of %d", next, got, l.FileOf(next), l.At(got.Start), l.At(got.End-1), want, file)
				}
				data := bytes.Repeat([]byte{byte(next)}, int(want.Len()))
				if l.Sum(next, data) != alone.Sum(i, data) {
					t.Fatalf("piece %d has another digest than piece %d of its file", next, i)
				}
				next++
			}
			offset += size
		}
		if l.Count() != int(next) || l.Size != offset {
			t.Fatalf("%d pieces of %d bytes, want %d of %d", l.Count(), l.Size, next, offset)
		}
	})
}

// TestPin_ofAManifestCountsItsPieces has who knows only the pin agree with who has the
// manifest on the number of pieces, and cover all bytes with them.
func TestPin_ofAManifestCountsItsPieces(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.Int64Range(1, piece.MaxSize/8), 1, 7).Draw(t, "sizes")
		l, err := piece.LayoutOf(4*piece.MaxLength, sizes)
		if err != nil {
			t.Skip(err)
		}
		pin := piece.ManifestPin([32]byte{1}, l)
		if err := pin.Validate(); err != nil {
			t.Fatal(err)
		}
		blind, end := pin.Layout(), int64(0)
		if blind.Count() != l.Count() {
			t.Fatalf("%d pieces, want %d", blind.Count(), l.Count())
		}
		for _, i := range []piece.Index{0, piece.Index(blind.Count() / 2), piece.Index(blind.Count() - 1)} {
			r := blind.Range(i)
			if r.Len() <= 0 || blind.At(r.Start) != i || blind.At(r.End-1) != i {
				t.Fatalf("piece %d is %v", i, r)
			}
			end = r.End
		}
		if end != l.Size {
			t.Fatalf("the last piece ends at %d of %d", end, l.Size)
		}
	})
}

func TestLayoutOf_refusesWhatNobodyMayDeclare(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		length int64
		sizes  []int64
	}{
		"a negative size":     {piece.LeafSize, []int64{1, -1}},
		"sizes that overflow": {4 * piece.MaxLength, []int64{math.MaxInt64, math.MaxInt64}},
		"too many bytes":      {4 * piece.MaxLength, []int64{piece.MaxSize, 1}},
		"too many pieces":     {piece.LeafSize, []int64{piece.MaxCount * piece.LeafSize, 1}},
		"too many files":      {piece.LeafSize, make([]int64, piece.MaxFiles+1)},
		"an odd piece length": {piece.LeafSize + 1, []int64{1, 1}},
	} {
		if l, err := piece.LayoutOf(c.length, c.sizes); err == nil {
			t.Errorf("%s: accepted as %d pieces", name, l.Count())
		}
	}
}
