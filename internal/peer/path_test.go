package peer

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"dragonload/internal/piece"
)

func TestParsePath_readsWhatAppendPathWrites(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pieces := rapid.SliceOfNDistinct(rapid.Uint32Range(0, 300), 1, MaxPieces, rapid.ID[uint32]).Draw(t, "pieces")
		offset := rapid.SampledFrom([]uint32{0, piece.MaxCount - 301}).Draw(t, "offset")
		for k := range pieces {
			pieces[k] += offset
		}
		if rapid.Bool().Draw(t, "sorted") {
			slices.Sort(pieces)
		}
		path := string(appendPath(nil, testPool, pieces))
		pool, got, ok := parsePath(path)
		if !ok || pool != testPool || !slices.Equal(got, pieces) {
			t.Fatalf("%s is read as %v, %v", path, got, ok)
		}
	})
}

func TestParseList_boundsThePieces(t *testing.T) {
	t.Parallel()
	for list, want := range map[string]int{
		"0-255": 256, "0-256": 0, "0-254,300": 256, "0-254,300-301": 0, "2097151": 1, "2097152": 0, "2097150-2097152": 0,
		"0-18446744073709551615": 0, strings.Repeat("9", 1000): 0, "5,4,3": 3, "1,1": 0, "1-3,2": 0, "": 0, ",": 0, "1,,2": 0, "1 ,2": 0, "０": 0,
	} {
		pieces, err := parseList(list)
		if len(pieces) != want || (err == nil) != (want > 0) {
			t.Errorf("%.40q: %d pieces, %v; want %d", list, len(pieces), err, want)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	f.Add("/v1/pools/" + strings.Repeat("ab", 32) + "/pieces/3,17,20-25")
	f.Add("/v1/pools/" + strings.Repeat("ab", 32) + "/content")
	f.Fuzz(func(t *testing.T, path string) {
		pool, pieces, ok := parsePath(path)
		if !ok || pieces == nil {
			return
		}
		if len(pieces) > MaxPieces {
			t.Errorf("%d pieces", len(pieces))
		}
		again, list, ok := parsePath(string(appendPath(nil, pool, pieces)))
		if !ok || again != pool || !slices.Equal(list, pieces) {
			t.Errorf("%q is written as another list", path)
		}
	})
}
