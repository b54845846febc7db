package node

import (
	"sync"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/room"
)

// vouched are the certificates of a room's members that this node has seen: of its
// neighbours, and of those whose statements neighbours pass on. It implements
// peer.Members. Every one was signed by the room's authority, so there are no more than
// the room has ever admitted.
type vouched struct {
	keyring *room.Keyring
	room    [32]byte

	mu    sync.Mutex
	certs map[piece.NodeID]voucher
}

type voucher struct {
	der   []byte
	name  string
	until time.Time
}

func newVouched(keyring *room.Keyring, roomID [32]byte) *vouched {
	return &vouched{keyring: keyring, room: roomID, certs: make(map[piece.NodeID]voucher)}
}

// Has reports whether a key is a member's now, this node's own among them: who answers an
// accusation says what its accuser has stated.
func (v *vouched) Has(id piece.NodeID) bool {
	if v.keyring.Removed(v.room, id) {
		return false
	}
	v.mu.Lock()
	c, ok := v.certs[id]
	v.mu.Unlock()
	return ok && time.Now().Before(c.until) || v.own(id) != nil
}

// own returns this node's certificate if id is its key.
func (v *vouched) own(id piece.NodeID) []byte {
	if r, ok := v.keyring.Get(v.room); ok {
		if key, _ := r.Member(); key == id {
			return r.Cert.Leaf.Raw
		}
	}
	return nil
}

// Certificate returns the certificate of a member that has one.
func (v *vouched) Certificate(id piece.NodeID) []byte {
	if der := v.own(id); der != nil {
		return der
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.certs[id].der
}

// Learn takes in a certificate, if it is that of a member and lasts longer than the one
// that is known.
func (v *vouched) Learn(der []byte) {
	r, ok := v.keyring.Get(v.room)
	if !ok {
		return
	}
	id, name, until, err := r.Vouch(der, time.Now())
	if err != nil {
		return // what is stated by its key is dropped
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	_, known := v.certs[id]
	if !known && len(v.certs) >= room.MaxMembers || !until.After(v.certs[id].until) {
		return
	}
	v.certs[id] = voucher{append([]byte(nil), der...), name, until}
}

// name is what a member is called, for its user.
func (v *vouched) name(id piece.NodeID) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if c := v.certs[id]; c.name != "" {
		return c.name
	}
	return id.String()
}
