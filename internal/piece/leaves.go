package piece

import (
	"crypto/sha256"
	"encoding/binary"
)

// The leaves of a piece are many hashes of as many bytes each, which need not wait for each
// other. A processor with registers of 512 bits computes lanes of them side by side, more than
// twice as fast as one after the other with its instructions for SHA-256.

// lanes is how many hashes are computed at a time.
const lanes = 16

// states are those of the hashes: the words A to H, each of all lanes.
type states [8][lanes]uint32

// begun is the state before the first byte (FIPS 180-4, 5.3.3).
var begun = [8]uint32{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}

// leafEnd is what follows the bytes of a leaf in its hash: a bit, and their number in bits.
var leafEnd = func() (end [sha256.BlockSize]byte) {
	end[0] = 0x80
	binary.BigEndian.PutUint64(end[sha256.BlockSize-8:], 8*LeafSize)
	return end
}()

// pushAll adds the leaves of data to the tree, the last of which may be short.
func (t *tree) pushAll(data []byte) {
	for ; hasLanes && len(data) >= lanes*LeafSize; data = data[lanes*LeafSize:] {
		t.pushLanes(data)
	}
	for len(data) > 0 {
		leaf := data[:min(LeafSize, len(data))]
		data = data[len(leaf):]
		t.push(sha256.Sum256(leaf))
	}
}

// pushLanes adds the first leaves of data, one for each lane.
func (t *tree) pushLanes(data []byte) {
	var s states
	for word := range s {
		for lane := range s[word] {
			s[word][lane] = begun[word]
		}
	}
	hashBlocks(&s, &data[0], LeafSize, LeafSize/sha256.BlockSize)
	hashBlocks(&s, &leafEnd[0], 0, 1)
	for lane := range lanes {
		var d Digest
		for word := range s {
			binary.BigEndian.PutUint32(d[4*word:], s[word][lane])
		}
		t.push(d)
	}
}
