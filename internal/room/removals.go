package room

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"dragonload/internal/piece"
)

const (
	// MaxRemovals bounds the members on a list of removals.
	MaxRemovals = 4096

	// MaxRemovalsSize is how long an encoded list may be, in bytes.
	MaxRemovalsSize = removalsHead + MaxRemovals*removalSize + ed25519.SignatureSize

	removalsVersion = 1
	removalsHead    = 1 + 32 + 8 + 4
	removalSize     = 32 + 8

	// keepRemoved is for how long a removed member stays on the list at least: as long
	// as a certificate that it got just before, and a day for clocks that are wrong.
	keepRemoved = CertLifetime + 24*time.Hour
)

// signedRemovals is what the signature of a list covers before the list itself.
const signedRemovals = "dragonload removals 1\x00"

// Removals is a room's list of removed members, signed by the room's authority. Of two
// lists the one of the higher epoch holds. It spreads from member to member, and so
// reaches those too that the tracker does not. It is not changed once made; nil is the
// list of a room in which nobody was removed.
type Removals struct {
	Room      [32]byte
	Epoch     uint64    // from 1 on
	List      []Removal // ascending by key
	Signature [ed25519.SignatureSize]byte
}

// Removal is one removed member.
type Removal struct {
	Key piece.NodeID
	At  int64 // seconds since 1970, by the clock of the authority
}

func compareRemovals(a, b Removal) int { return a.Key.Compare(b.Key) }

// Has reports whether a member is on the list.
func (l *Removals) Has(key piece.NodeID) bool {
	if l == nil {
		return false
	}
	_, found := slices.BinarySearchFunc(l.List, Removal{Key: key}, compareRemovals)
	return found
}

// Number returns the epoch of the list, 0 for nil.
func (l *Removals) Number() uint64 {
	if l == nil {
		return 0
	}
	return l.Epoch
}

// Encode returns the list as it is stored and sent; docs/formats.md has it byte by
// byte. nil has no bytes.
func (l *Removals) Encode() []byte {
	if l == nil {
		return nil
	}
	return append(l.body(), l.Signature[:]...)
}

// body is what is encoded before the signature.
func (l *Removals) body() []byte {
	b := make([]byte, 0, removalsHead+len(l.List)*removalSize+ed25519.SignatureSize)
	b = append(b, removalsVersion)
	b = append(b, l.Room[:]...)
	b = binary.BigEndian.AppendUint64(b, l.Epoch)
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.List)))
	for _, one := range l.List {
		b = append(b, one.Key[:]...)
		b = binary.BigEndian.AppendUint64(b, uint64(one.At))
	}
	return b
}

// ParseRemovals reads what Encode wrote, and nothing else: each list has one encoding.
// Whether the room's authority has signed it Authority.CheckRemovals tells.
func ParseRemovals(data []byte) (*Removals, error) {
	if len(data) < removalsHead+ed25519.SignatureSize || len(data) > MaxRemovalsSize {
		return nil, fmt.Errorf("list of removals of %d bytes", len(data))
	}
	if data[0] != removalsVersion {
		return nil, fmt.Errorf("list of removals of version %d, this program knows %d", data[0], removalsVersion)
	}
	l := &Removals{Room: [32]byte(data[1:]), Epoch: binary.BigEndian.Uint64(data[33:])}
	n := int64(binary.BigEndian.Uint32(data[41:]))
	if l.Epoch == 0 || l.Epoch > 1<<53 {
		return nil, fmt.Errorf("list of removals of epoch %d", l.Epoch)
	}
	if want := removalsHead + n*removalSize + ed25519.SignatureSize; want != int64(len(data)) {
		return nil, fmt.Errorf("list of %d removals in %d bytes", n, len(data))
	}
	if n > 0 {
		l.List = make([]Removal, n)
	}
	for k := range l.List {
		at := data[removalsHead+k*removalSize:]
		one := Removal{Key: piece.NodeID(at), At: int64(binary.BigEndian.Uint64(at[32:]))}
		if one.At < 0 || one.At > 1<<40 {
			return nil, errors.New("list of removals with a time out of bounds")
		}
		if k > 0 && compareRemovals(l.List[k-1], one) >= 0 {
			return nil, errors.New("list of removals that is not in order")
		}
		l.List[k] = one
	}
	copy(l.Signature[:], data[len(data)-ed25519.SignatureSize:])
	return l, nil
}

// CheckRemovals reports why a list is not one of this authority's room.
func (a *Authority) CheckRemovals(l *Removals) error {
	if l.Room != a.ID {
		return errors.New("list of removals of another room")
	}
	key, ok := a.Cert.PublicKey.(ed25519.PublicKey)
	if !ok || !ed25519.Verify(key, append([]byte(signedRemovals), l.body()...), l.Signature[:]) {
		return errors.New("list of removals that the room's authority has not signed")
	}
	return nil
}

// creator returns this node's key if it has made the room.
func (r *Room) creator() (piece.NodeID, bool) {
	if r.caKey == nil {
		return piece.NodeID{}, false
	}
	return r.identity.ID, true
}

// shutOut returns the room's list with one more member on it; the list itself if the
// member is on it already.
func (r *Room) shutOut(key piece.NodeID, now time.Time) (*Removals, error) {
	if self, ok := r.creator(); !ok {
		return nil, fmt.Errorf("remove a member of room %s: %w", r.Name, ErrNoAuthority)
	} else if key == self {
		return nil, fmt.Errorf("this machine made room %s and holds its authority; it can leave the room, not be removed from it: %w", r.Name, ErrCreator)
	}
	if r.Removals.Has(key) {
		return r.Removals, nil
	}
	return r.signRemovals(r.Removals, &Removals{List: []Removal{{Key: key, At: now.Unix()}}}, now)
}

// merge returns the list that holds after a second one has come, whose signature was
// checked: that of the higher epoch. But a room whose authority's state was set back has
// given one epoch to two lists, or will; there the authority, and nobody else, signs
// both lists in one. What is returned is one of the two if that has it all.
func (r *Room) merge(theirs *Removals, now time.Time) (*Removals, error) {
	newer, older := r.Removals, theirs
	if theirs.Number() > r.Removals.Number() {
		newer, older = theirs, r.Removals
	}
	if _, ok := r.creator(); !ok || newer.covers(older, now) {
		return newer, nil
	}
	return r.signRemovals(newer, older, now)
}

// covers reports whether all of another list that has not expired is on this one.
func (l *Removals) covers(other *Removals, now time.Time) bool {
	if other == nil {
		return true
	}
	for _, one := range other.List {
		if !one.expired(now) && !l.Has(one.Key) {
			return false
		}
	}
	return true
}

// expired reports whether a member has no certificate any more that it could show.
func (one Removal) expired(now time.Time) bool {
	return now.Unix()-one.At > int64(keepRemoved/time.Second)
}

// signRemovals makes the list that follows newer and has the members of both. Members
// stay on the list as long as there is room: only if it is full those go whose
// certificates have ended, the oldest first.
func (r *Room) signRemovals(newer, older *Removals, now time.Time) (*Removals, error) {
	all := make(map[piece.NodeID]Removal)
	for _, l := range []*Removals{older, newer} {
		if l == nil {
			continue
		}
		for _, one := range l.List {
			if known, ok := all[one.Key]; !ok || known.At < one.At {
				all[one.Key] = one
			}
		}
	}
	list := slices.SortedFunc(maps.Values(all), func(a, b Removal) int {
		return cmp.Or(cmp.Compare(a.At, b.At), compareRemovals(a, b))
	})
	for len(list) > MaxRemovals && list[0].expired(now) {
		list = list[1:]
	}
	if len(list) > MaxRemovals {
		return nil, fmt.Errorf("room %s: %w", r.Name, ErrManyRemoved)
	}
	slices.SortFunc(list, compareRemovals)
	next := &Removals{Room: r.ID, Epoch: newer.Number() + 1, List: list}
	copy(next.Signature[:], ed25519.Sign(r.caKey, append([]byte(signedRemovals), next.body()...)))
	return next, nil
}

// Equal reports whether two lists are the same, byte for byte.
func (l *Removals) Equal(other *Removals) bool { return bytes.Equal(l.Encode(), other.Encode()) }
