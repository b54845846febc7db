package node

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"dragonload/internal/piece"
)

// MaxPieceSums bounds the digests of a Spec's pieces.
const MaxPieceSums = 1 << 14

// sumsOf returns the part of Spec.PieceSums that is about piece i of g; nil if there is
// none. The user's pieces must divide those of the download.
func (d *download) sumsOf(g *generation, i piece.Index) []byte {
	length, size := d.spec.PieceLength, g.layout.Size
	if length <= 0 || g.layout.PieceLength%length != 0 || int64(len(d.spec.PieceSums)) != (size+length-1)/length*sha256.Size {
		return nil
	}
	r := g.layout.Range(i)
	return d.spec.PieceSums[r.Start/length*sha256.Size : (r.End+length-1)/length*sha256.Size]
}

// checkPiece compares piece i, which came from the addresses in sources, with the
// digests that the user's Metalink has of it. An address that brought other bytes is
// dropped at once: the error is errMirrorDiffers. With one address alone the digest of
// the whole file says it all, once the file is here.
func (d *download) checkPiece(g *generation, i piece.Index, buf []byte, sources uint32) error {
	sums := d.sumsOf(g, i)
	if sums == nil || sources == 0 || d.addresses.plain(g) {
		return nil
	}
	r := g.layout.Range(i)
	for ; len(sums) > 0; sums = sums[sha256.Size:] {
		part := piece.Range{Start: r.Start, End: min(r.Start+d.spec.PieceLength, r.End)}
		if sum := sha256.Sum256(buf[:part.Len()]); !bytes.Equal(sum[:], sums[:sha256.Size]) {
			return d.blamePiece(g, sources, part)
		}
		buf, r.Start = buf[part.Len():], part.End
	}
	return nil
}

// blamePiece drops the address that brought part, and takes back those that were dropped
// because they differ from it. Of bytes that several addresses brought nobody knows
// whose are wrong: they are fetched again.
func (d *download) blamePiece(g *generation, sources uint32, part piece.Range) error {
	culprit := d.byBits(sources, nil)
	if culprit == nil || sources != culprit.bit() {
		return errMirrorDiffers
	}
	s := d.addresses
	s.mu.Lock()
	for _, a := range s.all {
		if a.gone && a.against == culprit.bit() {
			a.gone, a.against = false, 0
		}
	}
	s.mu.Unlock()
	return d.dropAddress(g, culprit, 0, fmt.Sprintf("its bytes %d to %d are not those that the Metalink names", part.Start, part.End-1))
}

// afterDrop returns how a request ends whose address was dropped: with no error if
// another one can serve.
func (s *addresses) afterDrop() error {
	if s.choosable() {
		return nil
	}
	if err := s.lastError(); err != nil {
		return err
	}
	return nil
}
