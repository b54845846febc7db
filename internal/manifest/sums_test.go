package manifest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"testing"
)

func TestMetalinkFileOf(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 200_000} {
		data := bytes.Repeat([]byte("dragon"), size/6+1)[:size]
		f, err := MetalinkFileOf("a", bytes.NewReader(data), int64(size))
		if err != nil {
			t.Fatal(err)
		}
		if whole := sha256.Sum256(data); len(f.Hashes) != 1 || !bytes.Equal(f.Hashes[0].Sum, whole[:]) {
			t.Errorf("%d bytes: hashes %x, want %x", size, f.Hashes, whole)
		}
		var want [][32]byte
		for rest := data; len(rest) > 0; rest = rest[min(64<<10, len(rest)):] {
			want = append(want, sha256.Sum256(rest[:min(64<<10, len(rest))]))
		}
		if len(f.Pieces) != len(want) || f.PieceLength != 64<<10 {
			t.Fatalf("%d bytes: %d pieces of %d, want %d", size, len(f.Pieces), f.PieceLength, len(want))
		}
		for i := range want {
			if f.Pieces[i] != want[i] {
				t.Errorf("%d bytes: piece %d differs", size, i)
			}
		}
		f.URLs = []string{"http://h/a"}
		var text bytes.Buffer
		if err := (&Metalink{Files: []MetalinkFile{f}}).Write(&text); err != nil {
			t.Fatal(err)
		}
		if m, err := ReadMetalink(&text); err != nil || len(m.Files[0].Pieces) != len(want) {
			t.Errorf("%d bytes: read back %v, %v", size, m, err)
		}
	}
}

func TestMetalinkFileOf_refuses(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		name string
		r    io.Reader
		want error
	}{
		"cut":    {"a", bytes.NewReader(make([]byte, 99_999)), ErrFileChanged},
		"longer": {"a", bytes.NewReader(make([]byte, 100_001)), ErrFileChanged},
		"broken": {"a", io.MultiReader(bytes.NewReader(make([]byte, 10)), errReader{broken}), broken},
		"name":   {"../a", bytes.NewReader(make([]byte, 100_000)), ErrName},
	} {
		if _, err := MetalinkFileOf(c.name, c.r, 100_000); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestMetalinkFileOf_boundsThePieces: a list of them that others would refuse is not
// begun.
func TestMetalinkFileOf_boundsThePieces(t *testing.T) {
	t.Parallel()
	const size = 5 << 40
	f, err := MetalinkFileOf("a", bytes.NewReader(nil), size)
	if !errors.Is(err, ErrFileChanged) || f.PieceLength != 128<<20 || size/f.PieceLength > maxWrittenPieces {
		t.Errorf("%v, pieces of %d", err, f.PieceLength)
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }
