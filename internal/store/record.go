package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"dragonload/internal/piece"
)

// record is what the journal knows of a download besides its pieces.
type record struct {
	part, source string
	pin          piece.Pin
	incarnation  uint64
	layout       piece.Layout

	tree bool // of several files, in a folder

	// clean marks a File that was closed in order. size and modified (nanoseconds
	// since 1970) are the partial file's at that moment: whoever changes the file
	// afterwards makes the mark void. Of a tree, modified is that moment.
	clean          bool
	size, modified int64
}

// claims is what the journal says of the pieces of a download.
type claims struct {
	have, origin piece.Bitfield
	digests      []piece.Digest
}

// newClaims returns none of count pieces; bare ones have no digests.
func newClaims(count int, bare bool) claims {
	c := claims{have: piece.NewBitfield(count), origin: piece.NewBitfield(count)}
	if !bare {
		c.digests = make([]piece.Digest, count)
	}
	return c
}

// The journal holds a bucket "downloads 1", and in it a bucket for each target, named
// by its absolute path, with these keys. Numbers are big-endian, a string is its
// length as an unsigned varint and its bytes, and every value ends in the CRC-32C of
// what is before it.
//
//	"record"          version (1 byte, 1), strings: partial file, source; kind of
//	                  validator (1 byte), string: validator; size, incarnation, piece
//	                  length (8 bytes each); clean (1 byte, 0 or 1), size and time of
//	                  change of the partial file at the clean stop (8 bytes each); if
//	                  the bytes are those of a manifest, the version is 2, and behind
//	                  all this are the number of pieces (4 bytes) and what there is on
//	                  disk (1 byte): 0 a file, 1 a folder
//	"chunk " and n    (n: 4 bytes) pieces 256 n to 256 n + 255: a bit for each that is
//	                  stored, the first in the highest bit (32 bytes); likewise for
//	                  each that this member read from the origin itself (32 bytes);
//	                  their digests, zero where not stored (256 times 32 bytes); none
//	                  of a folder, whose digests are in the manifest
const (
	recordVersion   = 1
	manifestVersion = 2

	// chunkPieces is how many pieces share one key of the journal, so that a batch
	// rewrites 8 KiB for each run of pieces that it touches and not all digests.
	chunkPieces = 256
	chunkBits   = chunkPieces / 8
	chunkSize   = 2*chunkBits + chunkPieces*len(piece.Digest{})
	bareChunk   = 2 * chunkBits // of a folder

	// maxPath bounds the strings of a record.
	maxPath = 1 << 15
)

// bbolt checks its meta pages only, and a flipped bit must not become a claim.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func seal(value []byte) []byte {
	return binary.BigEndian.AppendUint32(value, crc32.Checksum(value, castagnoli))
}

var errTorn = errors.New("value does not match its checksum")

func unseal(value []byte) ([]byte, error) {
	n := len(value) - 4
	if n < 0 || crc32.Checksum(value[:n], castagnoli) != binary.BigEndian.Uint32(value[n:]) {
		return nil, errTorn
	}
	return value[:n], nil
}

func (r *record) encode() []byte {
	b := []byte{recordVersion}
	if r.pin.Kind == piece.Manifest {
		b[0] = manifestVersion
	}
	b = appendText(b, r.part)
	b = appendText(b, r.source)
	b = append(b, byte(r.pin.Kind))
	b = appendText(b, r.pin.Validator)
	b = binary.BigEndian.AppendUint64(b, uint64(r.pin.Size))
	b = binary.BigEndian.AppendUint64(b, r.incarnation)
	b = binary.BigEndian.AppendUint64(b, uint64(r.layout.PieceLength))
	b = append(b, flag(r.clean))
	b = binary.BigEndian.AppendUint64(b, uint64(r.size))
	b = binary.BigEndian.AppendUint64(b, uint64(r.modified))
	if r.pin.Kind == piece.Manifest {
		b = binary.BigEndian.AppendUint32(b, r.pin.Pieces)
		b = append(b, flag(r.tree))
	}
	return seal(b)
}

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}

func decodeRecord(value []byte) (record, error) {
	var r record
	b, err := unseal(value)
	if err != nil {
		return r, err
	}
	f := fields{b: b}
	version := f.take(1)[0]
	if version != recordVersion && version != manifestVersion {
		return r, fmt.Errorf("record of version %d", version)
	}
	r.part, r.source = f.text(), f.text()
	r.pin.Kind = piece.ValidatorKind(f.take(1)[0])
	r.pin.Validator = f.text()
	r.pin.Size = int64(f.number())
	r.incarnation = f.number()
	r.layout = piece.Layout{Size: r.pin.Size, PieceLength: int64(f.number())}
	r.clean = f.take(1)[0] == 1
	r.size, r.modified = int64(f.number()), int64(f.number())
	if version == manifestVersion {
		r.pin.PieceLength, r.pin.Pieces = r.layout.PieceLength, binary.BigEndian.Uint32(f.take(4))
		r.tree = f.take(1)[0] == 1
	}
	if err := f.end(); err != nil {
		return r, err
	}
	if err := r.pin.Validate(); err != nil {
		return r, err
	}
	if (r.pin.Kind == piece.Manifest) != (version == manifestVersion) {
		return r, fmt.Errorf("record of version %d about %v", version, r.pin)
	}
	if r.tree {
		r.layout = r.pin.Layout() // where the files end is not known here
	}
	if err := r.layout.Validate(); err != nil {
		return r, err
	}
	if n := r.layout.Count(); version == manifestVersion && !r.tree && n != int(r.pin.Pieces) {
		return r, fmt.Errorf("record of a file of %d pieces about %d", n, r.pin.Pieces)
	}
	return r, nil
}

// chunks returns how many keys hold the pieces of a file of count pieces.
func chunks(count int) int { return (count + chunkPieces - 1) / chunkPieces }

// encodeChunk writes the pieces of chunk n: which of them are claimed, which of these
// this member read from the origin itself, and unless bare their digests, zero where not
// claimed.
func encodeChunk(n int, claimed, origin *piece.Bitfield, digests []piece.Digest, bare bool) []byte {
	size := chunkSize
	if bare {
		size = bareChunk
	}
	b := make([]byte, size, size+4)
	first := n * chunkPieces
	for k := range min(chunkPieces, claimed.Len()-first) {
		i := piece.Index(first + k)
		if !claimed.Has(i) {
			continue
		}
		b[k/8] |= 0x80 >> (k % 8)
		if origin.Has(i) {
			b[chunkBits+k/8] |= 0x80 >> (k % 8)
		}
		if !bare {
			copy(b[2*chunkBits+k*len(piece.Digest{}):], digests[i][:])
		}
	}
	return seal(b)
}

// decode adds what encodeChunk wrote. A chunk that does not match its checksum, or
// claims pieces that the file has not got, claims nothing.
func (c *claims) decode(n int, value []byte, bare bool) error {
	b, err := unseal(value)
	if err != nil || bare && len(b) != bareChunk || !bare && len(b) != chunkSize {
		return errTorn
	}
	first := n * chunkPieces
	for k := range min(chunkPieces, c.have.Len()-first) {
		if b[k/8]&(0x80>>(k%8)) == 0 {
			continue
		}
		i := piece.Index(first + k)
		c.have.Set(i)
		if b[chunkBits+k/8]&(0x80>>(k%8)) != 0 {
			c.origin.Set(i)
		}
		if !bare {
			copy(c.digests[i][:], b[2*chunkBits+k*len(piece.Digest{}):])
		}
	}
	return nil
}
