package share

import (
	"encoding/binary"
	"io/fs"
	"time"
)

const (
	// proofLasts is how long a file's bytes are taken for what they were when they were
	// hashed, as long as the system says that nothing of it has changed. What a disk loses
	// by itself shows in no time of change.
	proofLasts = 24 * time.Hour

	// A change that follows another within a tick of the system's clock may leave the same
	// time behind. So a time says something once it lies back for longer than a tick.
	tick       = 100 * time.Millisecond
	coarseTick = 2 * time.Second // where times have no parts of seconds
)

// proof tells that a file has not changed since its bytes were hashed: as long as the
// system's time of its last change is the same. The zero value proves nothing.
type proof struct {
	changed int64 // nanoseconds since 1970
	at      int64 // when it was hashed, seconds since 1970
}

// proofOf returns what is to be remembered of a file that was found like this and is
// hashed from now on.
func proofOf(info fs.FileInfo, now time.Time) proof {
	changed, apart := changedOf(info), tick
	if changed%int64(time.Second) == 0 {
		apart = coarseTick
	}
	if changed <= 0 || now.Sub(time.Unix(0, changed)) < apart {
		return proof{}
	}
	return proof{changed: changed, at: now.Unix()}
}

// holds returns the time of change that a file has as long as its bytes are those that
// were hashed, 0 if it is not known.
func (p proof) holds(now time.Time) int64 {
	if age := now.Sub(time.Unix(p.at, 0)); age < 0 || age > proofLasts {
		return 0
	}
	return p.changed
}

// encodeProofs writes the proofs of the files of a survey, in their order.
func encodeProofs(all []proof) []byte {
	var out []byte
	for _, p := range all {
		out = binary.AppendUvarint(out, uint64(p.changed))
		out = binary.AppendUvarint(out, uint64(p.at))
	}
	return out
}

// decodeProofs reads the proofs of count files. If they cannot be read, nothing is proved.
func decodeProofs(data []byte, count int) []proof {
	all := make([]proof, count)
	for k := range all {
		for _, field := range []*int64{&all[k].changed, &all[k].at} {
			n, used := binary.Uvarint(data)
			if used <= 0 {
				return make([]proof, count)
			}
			*field, data = int64(n), data[used:]
		}
	}
	if len(data) > 0 {
		return make([]proof, count)
	}
	return all
}
