package room

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Shared is a room with its authority's key, as replicas of a standing tracker share it.
// It is a secret.
type Shared struct {
	ID        [32]byte `json:"-"` // as the Authority says
	Name      string
	Trackers  []string
	Authority []byte // the certificate, DER
	Key       []byte // the seed of the authority's private key (RFC 8032)
}

// Format keeps the key out of every message, whatever the verb.
func (s Shared) Format(f fmt.State, _ rune) { fmt.Fprint(f, "room "+s.Name) }

// Share returns what another replica needs to serve a room that was made here, else
// ErrNoAuthority.
func (r *Room) Share() (Shared, error) {
	if r.caKey == nil {
		return Shared{}, ErrNoAuthority
	}
	return Shared{ID: r.ID, Name: r.Name, Trackers: slices.Clone(r.Trackers), Authority: r.Authority.Cert.Raw, Key: r.caKey.Seed()}, nil
}

// Adopt makes this node an authority of a room that another replica shares: it admits
// itself and serves the room as if it had made it. If it has adopted the room before, or
// made it, it returns that. ErrExists if another room has its name here.
func (f *Folder) Adopt(s Shared, now time.Time) (*Room, error) {
	if err := CheckName(s.Name); err != nil {
		return nil, err
	}
	a, err := parseAuthority(s.Authority)
	if err != nil {
		return nil, err
	}
	if len(s.Key) != ed25519.SeedSize || a.Cert.Subject.CommonName != s.Name || len(s.Trackers) == 0 || len(s.Trackers) > MaxTrackers {
		return nil, fmt.Errorf("room %s as it is shared is damaged", s.Name)
	}
	for _, addr := range s.Trackers {
		if err := CheckAddr(addr); err != nil {
			return nil, fmt.Errorf("room %s as it is shared: %w", s.Name, err)
		}
	}
	key := ed25519.NewKeyFromSeed(s.Key)
	if !key.Public().(ed25519.PublicKey).Equal(a.Cert.PublicKey) {
		return nil, fmt.Errorf("room %s as it is shared has a key that is not its own", s.Name)
	}
	if old, err := f.Get(s.Name); err == nil {
		if old.ID == a.ID && old.Created {
			return f.MarkShared(old)
		}
		return nil, fmt.Errorf("another room called %s is here, or this one was only joined (dragonload room leave %s): %w", s.Name, s.Name, ErrExists)
	}
	host, _ := os.Hostname() // without one the member is called "node"
	leaf, err := a.sign(key, f.identity.ID, MemberName(host), Use{}, now)
	if err != nil {
		return nil, err
	}
	r := &Room{Name: s.Name, ID: a.ID, Trackers: slices.Clone(s.Trackers), Created: true, Shared: true, Authority: a, identity: f.identity, caKey: key}
	if r, err = r.Accept(a.chain(leaf), now); err != nil {
		return nil, err
	}
	return r, f.add(r)
}

// MarkShared notes that other replicas serve a room too, and returns it as it is then;
// durable on return.
func (f *Folder) MarkShared(r *Room) (*Room, error) {
	if r.Shared {
		return r, nil
	}
	marked := *r
	marked.Shared = true
	return &marked, f.Save(&marked)
}

// noteLeft notes that a shared room was left here; durable on return.
func (f *Folder) noteLeft(id [32]byte) error {
	return replaceFile(filepath.Join(f.dir, leftPrefix+hex.EncodeToString(id[:])), nil)
}

// Left returns the ids of shared rooms that were left here and that nobody has told the
// other replicas yet.
func (f *Folder) Left() (ids [][32]byte, err error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, fmt.Errorf("read the folder of rooms: %w", err)
	}
	for _, e := range entries {
		digits, noted := strings.CutPrefix(e.Name(), leftPrefix)
		if id, err := hex.DecodeString(digits); noted && err == nil && len(id) == 32 {
			ids = append(ids, [32]byte(id))
		}
	}
	return ids, nil
}

// ForgetLeft is called when they are told.
func (f *Folder) ForgetLeft(id [32]byte) error {
	if err := os.Remove(filepath.Join(f.dir, leftPrefix+hex.EncodeToString(id[:]))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget a room that was left: %w", err)
	}
	return nil
}
