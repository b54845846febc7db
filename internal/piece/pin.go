package piece

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
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
}

// MaxValidator bounds the validators that are accepted from outside.
const MaxValidator = 1024

// Combinable reports whether ranges from different answers with this pin may be put
// together into one file.
func (p Pin) Combinable() bool { return p.Kind != NoValidator && p.Size >= 0 }

// Layout returns the layout of the generation's file; its size must be known.
func (p Pin) Layout() Layout { return LayoutFor(p.Size) }

// Validate reports what is wrong with a pin that came from outside.
func (p Pin) Validate() error {
	switch {
	case p.Size < UnknownSize || p.Size > MaxSize:
		return fmt.Errorf("pin with a size of %d", p.Size)
	case p.Kind > Mirror:
		return fmt.Errorf("pin with an unknown kind of validator %d", p.Kind)
	case len(p.Validator) > MaxValidator:
		return fmt.Errorf("pin with a validator of %d bytes", len(p.Validator))
	case (p.Kind == NoValidator) != (p.Validator == ""):
		return fmt.Errorf("pin of kind %v with validator %q", p.Kind, p.Validator)
	}
	if p.Size >= 0 {
		return p.Layout().Validate()
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
	return sha256.Sum256(buf)
}

func (p Pin) String() string {
	return fmt.Sprintf("%d bytes, %v %q", p.Size, p.Kind, p.Validator)
}
