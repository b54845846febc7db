package manifest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"dragonload/internal/piece"
)

// maxWrittenPieces bounds the list of pieces in a Metalink that is written: longer ones
// make documents that others refuse.
const maxWrittenPieces = 1 << 16

// MetalinkFileOf reads a file of size bytes to its end and returns what a Metalink says
// of its bytes. ErrFileChanged if r has another number of bytes.
func MetalinkFileOf(name string, r io.Reader, size int64) (MetalinkFile, error) {
	f := MetalinkFile{Name: name, Size: size, PieceLength: piece.LengthFor(size)}
	if err := cleanPath(name); err != nil {
		return f, err
	}
	for (size-1)/f.PieceLength >= maxWrittenPieces {
		f.PieceLength *= 2
	}
	whole, one := sha256.New(), sha256.New()
	both, buf := io.MultiWriter(whole, one), make([]byte, 1<<20)
	for at := int64(0); at < size; at += f.PieceLength {
		want := min(f.PieceLength, size-at)
		one.Reset()
		switch n, err := io.CopyBuffer(both, plainReader{io.LimitReader(r, want)}, buf); {
		case err != nil:
			return f, err
		case n < want:
			return f, fmt.Errorf("%w: it ends after %d of %d bytes", ErrFileChanged, at+n, size)
		}
		f.Pieces = append(f.Pieces, [32]byte(one.Sum(nil)))
	}
	switch n, err := r.Read(buf[:1]); {
	case n > 0:
		return f, fmt.Errorf("%w: it has more than %d bytes", ErrFileChanged, size)
	case err != nil && !errors.Is(err, io.EOF):
		return f, err
	}
	f.Hashes = []Hash{{"sha-256", whole.Sum(nil)}}
	return f, nil
}

// plainReader hides what else a reader can, so that io.CopyBuffer uses the buffer.
type plainReader struct{ io.Reader }
