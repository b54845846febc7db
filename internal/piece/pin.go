package piece

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// ValidatorKind says what the identity of an origin's version rests on, in the order
// in which one is preferred over another.
type ValidatorKind uint8

const (
	// NoValidator: the origin named none; ranges of two answers must not be combined
	// (RFC 9110, 15.3.7.3), so the file is read as one stream.
	NoValidator ValidatorKind = iota
	// StrongETag is an entity tag without W/ (RFC 9110, 8.8.3).
	StrongETag
	// ReprDigest is a sha-256 or sha-512 Repr-Digest of the whole file (RFC 9530).
	ReprDigest
	// LastModified is a date at least a second older than the answer's own Date
	// (RFC 9110, 8.8.2.2).
	LastModified
	// Mirror: the URL itself could not be reached and one of its mirrors answered
	// first. The validator is a digest of that one's pin; each address of the file,
	// the URL itself too, is then held to a pin of its own.
	Mirror
	// Manifest: the bytes are what a manifest says, from wherever they come. The
	// validator is its info hash (BEP 52, version 2), in hexadecimal digits.
	Manifest
)

func (k ValidatorKind) String() string {
	switch k {
	case StrongETag:
		return "etag"
	case ReprDigest:
		return "repr-digest"
	case LastModified:
		return "last-modified"
	case Mirror:
		return "mirror"
	case Manifest:
		return "manifest"
	}
	return "none"
}

// UnknownSize is the Size of a Pin whose origin did not say how long the file is.
const UnknownSize = -1

// Pin identifies one version of an origin's file, its generation: the validator and
// the size that the first answer named. Later answers that differ in either belong to
// another generation and are never mixed with it. Pins are compared with ==.
type Pin struct {
	Size      int64 // bytes, or UnknownSize
	Kind      ValidatorKind
	Validator string // as the origin wrote it; at most MaxValidator bytes

	// How a manifest cuts its content, for who has only the pin; 0 with every other kind,
	// which are cut as LayoutFor says.
	PieceLength int64
	Pieces      uint32
}

// ManifestPin returns the pin of the content that a manifest with this info hash
// describes.
func ManifestPin(infoHash [sha256.Size]byte, l Layout) Pin {
	return Pin{
		Size: l.Size, Kind: Manifest, Validator: hex.EncodeToString(infoHash[:]),
		PieceLength: l.PieceLength, Pieces: uint32(l.Count()),
	}
}

// MaxValidator bounds the validators that are accepted from outside.
const MaxValidator = 1024

// Combinable reports whether ranges from different answers with this pin may be put
// together into one file.
func (p Pin) Combinable() bool { return p.Kind != NoValidator && p.Size >= 0 }

// Layout returns the layout of the generation's file; its size must be known. That of a
// manifest with several files has the right number of pieces, but only who has the
// manifest knows where they end.
func (p Pin) Layout() Layout {
	if p.Kind == Manifest {
		return blindLayout(p.Size, p.PieceLength, p.Pieces)
	}
	return LayoutFor(p.Size)
}

// Validate reports what is wrong with a pin that came from outside.
func (p Pin) Validate() error {
	switch {
	case p.Size < UnknownSize || p.Size > MaxSize:
		return fmt.Errorf("pin with a size of %d", p.Size)
	case p.Kind > Manifest:
		return fmt.Errorf("pin with an unknown kind of validator %d", p.Kind)
	case len(p.Validator) > MaxValidator:
		return fmt.Errorf("pin with a validator of %d bytes", len(p.Validator))
	case (p.Kind == NoValidator) != (p.Validator == ""):
		return fmt.Errorf("pin of kind %v with validator %q", p.Kind, p.Validator)
	}
	if p.Kind == Manifest {
		return p.validateManifest()
	}
	if p.PieceLength != 0 || p.Pieces != 0 {
		return fmt.Errorf("pin of kind %v that says how its file is cut", p.Kind)
	}
	if p.Size >= 0 {
		return p.Layout().Validate()
	}
	return nil
}

func (p Pin) validateManifest() error {
	if _, err := ParseDigest(p.Validator); err != nil || p.Validator != strings.ToLower(p.Validator) {
		return fmt.Errorf("pin of a manifest with %q for its info hash", p.Validator)
	}
	whole := Layout{Size: p.Size, PieceLength: p.PieceLength}
	if p.Size < 0 {
		return fmt.Errorf("pin of a manifest of unknown size")
	}
	if err := whole.Validate(); err != nil {
		return err
	}
	if n := int64(p.Pieces); n < int64(whole.Count()) || n > p.Size || n > MaxCount {
		return fmt.Errorf("pin of a manifest with %d pieces for %d bytes in pieces of %d", p.Pieces, p.Size, p.PieceLength)
	}
	return nil
}

// Generation identifies the bytes behind a pin: it binds signed statements and
// journals to them. incarnation tells apart two streams of an origin that names no
// validator, whose bytes nobody may assume to be equal; it is 0 elsewhere.
func (p Pin) Generation(incarnation uint64) Digest {
	buf := append([]byte("dragonload generation 1\x00"), byte(p.Kind))
	buf = binary.BigEndian.AppendUint64(buf, uint64(p.Size))
	buf = binary.BigEndian.AppendUint64(buf, incarnation)
	buf = append(buf, p.Validator...)
	// The info hash of a manifest says how it is cut, too.
	return sha256.Sum256(buf)
}

func (p Pin) String() string {
	return fmt.Sprintf("%d bytes, %v %q", p.Size, p.Kind, p.Validator)
}
