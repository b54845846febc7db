package piece_test

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"dragonload/internal/piece"
)

func TestLengthFor_givesAboutATwoThousandPieces(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ size, want int64 }{
		{0, 64 << 10},
		{1, 64 << 10},
		{128 << 20, 64 << 10},
		{128<<20 + 1, 128 << 10},
		{4 << 30, 2 << 20},
		{32 << 30, 16 << 20},
		{1 << 50, 16 << 20},
	} {
		if got := piece.LengthFor(c.size); got != c.want {
			t.Errorf("LengthFor(%d) = %d, want %d", c.size, got, c.want)
		}
	}
}

func TestLayout_cutsAtTheEdges(t *testing.T) {
	t.Parallel()
	const p = 64 << 10
	for _, c := range []struct {
		size  int64
		count int
		last  int64
	}{
		{0, 0, 0}, {1, 1, 1}, {p - 1, 1, p - 1}, {p, 1, p}, {p + 1, 2, 1}, {3*p + 7, 4, 7},
	} {
		l := piece.LayoutFor(c.size)
		if l.Count() != c.count {
			t.Fatalf("%d bytes: %d pieces, want %d", c.size, l.Count(), c.count)
		}
		if c.count > 0 && l.Length(piece.Index(c.count-1)) != c.last {
			t.Errorf("%d bytes: last piece has %d, want %d", c.size, l.Length(piece.Index(c.count-1)), c.last)
		}
		if c.count > 0 && l.Bytes(l.All()) != (piece.Range{Start: 0, End: c.size}) {
			t.Errorf("%d bytes: all pieces cover %v", c.size, l.Bytes(l.All()))
		}
	}
}

func TestLayout_refusesWhatNobodyMayDeclare(t *testing.T) {
	t.Parallel()
	for _, l := range []piece.Layout{
		{Size: -1, PieceLength: 64 << 10},
		{Size: piece.MaxSize + 1, PieceLength: 16 << 20},
		{Size: 1, PieceLength: 0},
		{Size: 1, PieceLength: 3 << 14},
		{Size: 1, PieceLength: 8 << 10},
		{Size: 1 << 40, PieceLength: 64 << 10},
	} {
		if l.Validate() == nil {
			t.Errorf("%+v was accepted", l)
		}
	}
	if err := piece.LayoutFor(1 << 40).Validate(); err != nil {
		t.Errorf("1 TiB: %v", err)
	}
}

// slowRoot is the definition of BEP 52, written down as recursion.
func slowRoot(data []byte, leaves int) [32]byte {
	if leaves == 1 {
		if len(data) == 0 {
			return [32]byte{}
		}
		return sha256.Sum256(data)
	}
	half := leaves / 2 * piece.LeafSize
	left := slowRoot(data[:min(half, len(data))], leaves/2)
	right := slowRoot(data[min(half, len(data)):], leaves/2)
	return sha256.Sum256(append(left[:], right[:]...))
}

func TestLayout_sumIsTheMerkleRootOfBEP52(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 1))
	data := make([]byte, 300<<10)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	for _, size := range []int64{1, 16 << 10, 16<<10 + 1, 48 << 10, 64 << 10} {
		// A single piece has a tree no higher than it needs.
		leaves := 1
		for leaves*piece.LeafSize < int(size) {
			leaves *= 2
		}
		l := piece.LayoutFor(size)
		if got, want := l.Sum(0, data[:size]), piece.Digest(slowRoot(data[:size], leaves)); got != want {
			t.Errorf("single piece of %d bytes: %v, want %v", size, got, want)
		}
	}
	l := piece.LayoutFor(200<<10 + 5)
	for i := range piece.Index(l.Count()) {
		r := l.Range(i)
		got, want := l.Sum(i, data[r.Start:r.End]), piece.Digest(slowRoot(data[r.Start:r.End], 4))
		if got != want {
			t.Errorf("piece %d: %v, want %v", i, got, want)
		}
	}
}

func TestHasher_takesThePieceInAnyPortions(t *testing.T) {
	t.Parallel()
	data := make([]byte, 300<<10)
	for i := range data {
		data[i] = byte(i * i >> 3)
	}
	rapid.Check(t, func(t *rapid.T) {
		l := piece.Layout{Size: rapid.Int64Range(1, int64(len(data))).Draw(t, "size"), PieceLength: piece.LeafSize << rapid.IntRange(0, 4).Draw(t, "length")}
		i := piece.Index(rapid.IntRange(0, l.Count()-1).Draw(t, "piece"))
		r := l.Range(i)
		h := l.Hasher(i)
		for at := r.Start; at < r.End; {
			n := rapid.Int64Range(1, r.End-at).Draw(t, "portion")
			_, _ = h.Write(data[at : at+n])
			at += n
		}
		if got, want := h.Sum(), l.Sum(i, data[r.Start:r.End]); got != want {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

func TestLayout_rootIsThatOfAllLeaves(t *testing.T) {
	t.Parallel()
	data := make([]byte, 700<<10)
	for i := range data {
		data[i] = byte(i * i >> 3)
	}
	for _, size := range []int64{1, 16 << 10, 64 << 10, 64<<10 + 1, 128 << 10, 200 << 10, 512 << 10, 700 << 10} {
		l := piece.Layout{Size: size, PieceLength: 64 << 10}
		var digests []piece.Digest
		for i := range piece.Index(l.Count()) {
			r := l.Range(i)
			digests = append(digests, l.Sum(i, data[r.Start:r.End]))
		}
		leaves := 1
		for int64(leaves)*piece.LeafSize < size {
			leaves *= 2
		}
		if got, want := l.Root(digests), piece.Digest(slowRoot(data[:size], leaves)); got != want {
			t.Errorf("%d bytes: %v, want %v", size, got, want)
		}
	}
}

func TestParseDigest_acceptsOnlyItsOwnPrint(t *testing.T) {
	t.Parallel()
	d := piece.Digest(sha256.Sum256([]byte("x")))
	got, err := piece.ParseDigest(d.String())
	if err != nil || got != d {
		t.Errorf("ParseDigest(%v) = %v, %v", d, got, err)
	}
	for _, s := range []string{"", "00", d.String() + "00", "zz" + d.String()[2:]} {
		if _, err := piece.ParseDigest(s); err == nil {
			t.Errorf("ParseDigest(%q) was accepted", s)
		}
	}
}

func TestBitfield_behavesLikeASetOfNumbers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 200).Draw(t, "n")
		b := piece.NewBitfield(n)
		twin := map[piece.Index]bool{}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			i := piece.Index(rapid.IntRange(0, n-1).Draw(t, "i"))
			if rapid.Bool().Draw(t, "set") {
				if b.Set(i) == twin[i] {
					t.Fatalf("Set(%d) told wrongly whether it was new", i)
				}
				twin[i] = true
			} else {
				if b.Unset(i) != twin[i] {
					t.Fatalf("Unset(%d) told wrongly whether it was there", i)
				}
				delete(twin, i)
			}
		}
		if b.Count() != len(twin) || b.All() != (len(twin) == n) {
			t.Fatalf("Count %d, All %v; want %d of %d", b.Count(), b.All(), len(twin), n)
		}
		var listed []piece.Index
		for e := range b.Extents {
			for i := e.First; i < e.End(); i++ {
				listed = append(listed, i)
			}
		}
		for _, i := range listed {
			if !twin[i] {
				t.Fatalf("Extents lists %d", i)
			}
		}
		if len(listed) != len(twin) || !slices.IsSorted(listed) {
			t.Fatalf("Extents lists %v", listed)
		}
		again, err := piece.ParseBitfield(b.Bytes(), n)
		if err != nil || !bytes.Equal(again.Bytes(), b.Bytes()) || again.Count() != b.Count() {
			t.Fatalf("ParseBitfield(Bytes()): %v", err)
		}
	})
}

func TestParseBitfield_refusesSpareBitsAndWrongLengths(t *testing.T) {
	t.Parallel()
	if _, err := piece.ParseBitfield([]byte{0x80, 0x00}, 9); err != nil {
		t.Errorf("nine pieces, the first set: %v", err)
	}
	for _, c := range []struct {
		data []byte
		n    int
	}{{[]byte{0x80}, 9}, {[]byte{0, 0, 0}, 9}, {[]byte{0, 0x01}, 9}, {nil, -1}, {nil, piece.MaxCount + 1}} {
		if _, err := piece.ParseBitfield(c.data, c.n); err == nil {
			t.Errorf("%x for %d pieces was accepted", c.data, c.n)
		}
	}
}

func TestExtents_behaveLikeASetOfNumbers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var s piece.Extents
		twin := map[piece.Index]bool{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			e := piece.Extent{First: uint32(rapid.IntRange(0, 50).Draw(t, "first")), Count: uint32(rapid.IntRange(0, 9).Draw(t, "count"))}
			switch rapid.IntRange(0, 3).Draw(t, "op") {
			case 0, 1:
				s.Add(e)
				for i := e.First; i < e.End(); i++ {
					twin[i] = true
				}
			case 2:
				s.Remove(e)
				for i := e.First; i < e.End(); i++ {
					delete(twin, i)
				}
			case 3:
				take := s.TakeFirst
				if rapid.Bool().Draw(t, "last") {
					take = s.TakeLast
				}
				got, ok := take(e.Count)
				if ok != (len(twin) > 0 && e.Count > 0) {
					t.Fatalf("take said %v of %d pieces", ok, len(twin))
				}
				for i := got.First; i < got.End(); i++ {
					if !twin[i] {
						t.Fatalf("took %d, which was not there", i)
					}
					delete(twin, i)
				}
			}
			if s.Count() != len(twin) {
				t.Fatalf("Count %d, want %d", s.Count(), len(twin))
			}
			end := piece.Index(0)
			for k, r := range s.Runs() {
				if r.Count == 0 || k > 0 && r.First <= end {
					t.Fatalf("runs %v are empty, touch or overlap", s.Runs())
				}
				end = r.End()
				for i := r.First; i < r.End(); i++ {
					if !twin[i] || !s.Has(i) {
						t.Fatalf("%d is in a run", i)
					}
				}
			}
		}
	})
}

func TestExtent_validIsFalseForWhatWouldOverflow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		e    piece.Extent
		want bool
	}{
		{piece.Extent{First: 0, Count: 10}, true},
		{piece.Extent{First: 9, Count: 1}, true},
		{piece.Extent{First: 9, Count: 2}, false},
		{piece.Extent{First: 0, Count: 0}, false},
		{piece.Extent{First: 1<<32 - 1, Count: 2}, false},
	} {
		if got := c.e.Valid(10); got != c.want {
			t.Errorf("%+v valid for 10 pieces: %v", c.e, got)
		}
	}
}

func TestPin_generationBindsEveryField(t *testing.T) {
	t.Parallel()
	base := piece.Pin{Size: 10, Kind: piece.StrongETag, Validator: `"a"`}
	seen := map[piece.Digest]bool{base.Generation(0): true}
	for _, p := range []piece.Pin{
		{Size: 11, Kind: piece.StrongETag, Validator: `"a"`},
		{Size: 10, Kind: piece.LastModified, Validator: `"a"`},
		{Size: 10, Kind: piece.StrongETag, Validator: `"b"`},
	} {
		if g := p.Generation(0); seen[g] {
			t.Errorf("%v has the generation of another pin", p)
		} else {
			seen[g] = true
		}
	}
	if seen[base.Generation(1)] {
		t.Error("the incarnation is not bound")
	}
}

func TestPin_refusesWhatNobodyMayDeclare(t *testing.T) {
	t.Parallel()
	for _, p := range []piece.Pin{
		{Size: -2},
		{Size: piece.MaxSize + 1, Kind: piece.StrongETag, Validator: `"a"`},
		{Size: 1, Kind: piece.StrongETag},
		{Size: 1, Kind: piece.NoValidator, Validator: "x"},
		{Size: 1, Kind: 9, Validator: "x"},
		{Size: 1, Kind: piece.StrongETag, Validator: string(make([]byte, piece.MaxValidator+1))},
		{Size: 1, Kind: piece.StrongETag, Validator: `"a"`, Pieces: 1},
		{Size: 1, Kind: piece.StrongETag, Validator: `"a"`, PieceLength: piece.LeafSize},
		{Size: 1, Kind: piece.Manifest, Validator: "ab", PieceLength: piece.LeafSize, Pieces: 1},
		{Size: 1, Kind: piece.Manifest, Validator: strings.Repeat("AB", 32), PieceLength: piece.LeafSize, Pieces: 1},
		{Size: 1, Kind: piece.Manifest, Validator: strings.Repeat("ab", 32), PieceLength: 3, Pieces: 1},
		{Size: 1, Kind: piece.Manifest, Validator: strings.Repeat("ab", 32), PieceLength: piece.LeafSize, Pieces: 2},
		{Size: piece.LeafSize + 1, Kind: piece.Manifest, Validator: strings.Repeat("ab", 32), PieceLength: piece.LeafSize, Pieces: 1},
		{Size: 1 << 40, Kind: piece.Manifest, Validator: strings.Repeat("ab", 32), PieceLength: piece.MaxLength, Pieces: piece.MaxCount + 1},
		{Size: piece.UnknownSize, Kind: piece.Manifest, Validator: strings.Repeat("ab", 32), PieceLength: piece.LeafSize, Pieces: 1},
	} {
		if p.Validate() == nil {
			t.Errorf("%+v was accepted", p)
		}
	}
}

func FuzzParseBitfield(f *testing.F) {
	f.Add([]byte{0x80, 0x00}, 9)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		b, err := piece.ParseBitfield(data, n)
		if err != nil {
			return
		}
		if !bytes.Equal(b.Bytes(), data) {
			t.Errorf("%x for %d pieces prints as %x", data, n, b.Bytes())
		}
	})
}

func BenchmarkSum(b *testing.B) {
	l := piece.LayoutFor(1 << 30)
	data := make([]byte, l.PieceLength)
	b.SetBytes(l.PieceLength)
	for b.Loop() {
		l.Sum(0, data)
	}
}

func TestLayout_Coarsen(t *testing.T) {
	for _, size := range []int{0, 1, piece.LeafSize, piece.LeafSize + 1, 2 * piece.LeafSize, 5*piece.LeafSize - 1, 8 * piece.LeafSize, 13*piece.LeafSize + 7} {
		data := make([]byte, size)
		for k := range data {
			data[k] = byte(k>>8 ^ k)
		}
		sums := func(length int64) []piece.Digest {
			l := piece.Layout{Size: int64(size), PieceLength: length}
			all := make([]piece.Digest, 0)
			for i := range l.Count() {
				r := l.Range(piece.Index(i))
				all = append(all, l.Sum(piece.Index(i), data[r.Start:r.End]))
			}
			return all
		}
		fine := piece.Layout{Size: int64(size), PieceLength: piece.LeafSize}
		for length := int64(piece.LeafSize); length <= 16*piece.LeafSize; length *= 2 {
			if got, want := fine.Coarsen(sums(piece.LeafSize), length), sums(length); !slices.Equal(got, want) {
				t.Errorf("%d bytes in pieces of %d: other digests than those of the bytes", size, length)
			}
		}
	}
}

func TestCheckExtents(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		extents []piece.Extent
		count   int
		good    bool
	}{
		{nil, 0, true},
		{[]piece.Extent{{0, 3}, {5, 5}}, 10, true},
		{[]piece.Extent{{0, 3}, {5, 6}}, 10, false},
		{[]piece.Extent{{0, 0}}, 10, false},
		{[]piece.Extent{{0, 6}, {4, 6}}, 10, false}, // 12 pieces of 10
		{[]piece.Extent{{1<<32 - 1, 1<<32 - 1}}, 10, false},
	} {
		if err := piece.CheckExtents(test.extents, test.count); (err == nil) != test.good {
			t.Errorf("%v in %d pieces: %v", test.extents, test.count, err)
		}
	}
}
