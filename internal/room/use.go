package room

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"time"
)

// useID names the extension of a member's certificate that says which invite it has
// used; docs/formats.md has it.
var useID = asn1.ObjectIdentifier{1, 3, 6, 1, 3, 4100, 1}

const useSize = 16 + 4 + 8

// Use is the use of an invite that only so many keys may use. The certificate that it
// was given for names it, and so every member holds its line of the room's log: a
// tracker whose state was set back counts the uses again that it has forgotten. The id
// of an invite lets nobody in without the rest of it.
type Use struct {
	Invite  [16]byte
	Uses    int // how many keys may use it; never 0
	Expires time.Time
}

// UseOf returns the use that a member's certificate names; ok is false if the member has
// made the room, or came with an invite for any number of keys.
func UseOf(leaf *x509.Certificate) (u Use, ok bool) {
	for _, e := range leaf.Extensions {
		if !e.Id.Equal(useID) {
			continue
		}
		var value []byte
		if rest, err := asn1.Unmarshal(e.Value, &value); err != nil || len(rest) > 0 || len(value) != useSize {
			return Use{}, false
		}
		uses, expires := binary.BigEndian.Uint32(value[16:]), binary.BigEndian.Uint64(value[20:])
		if uses == 0 || uses > MaxUses || expires > 1<<40 {
			return Use{}, false
		}
		return Use{Invite: [16]byte(value), Uses: int(uses), Expires: time.Unix(int64(expires), 0)}, true
	}
	return Use{}, false
}

// extensions returns what a certificate that names the use has more than one that names
// none; none for the zero Use.
func (u Use) extensions() ([]pkix.Extension, error) {
	if u.Uses == 0 {
		return nil, nil
	}
	value := make([]byte, 0, useSize)
	value = append(value, u.Invite[:]...)
	value = binary.BigEndian.AppendUint32(value, uint32(u.Uses))
	value = binary.BigEndian.AppendUint64(value, uint64(u.Expires.Unix()))
	der, err := asn1.Marshal(value)
	if err != nil {
		return nil, err
	}
	return []pkix.Extension{{Id: useID, Value: der}}, nil
}
