package room

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"slices"
	"time"
)

// Shared is a room with its authority's key, as replicas of a standing tracker share it.
// It is a secret.
type Shared struct {
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
	return Shared{Name: r.Name, Trackers: slices.Clone(r.Trackers), Authority: r.Authority.Cert.Raw, Key: r.caKey.Seed()}, nil
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
			return old, nil
		}
		return nil, fmt.Errorf("another room called %s is here, or this one was only joined (dragonload room leave %s): %w", s.Name, s.Name, ErrExists)
	}
	host, _ := os.Hostname() // without one the member is called "node"
	leaf, err := a.sign(key, f.identity.ID, MemberName(host), Use{}, now)
	if err != nil {
		return nil, err
	}
	r := &Room{Name: s.Name, ID: a.ID, Trackers: slices.Clone(s.Trackers), Created: true, Authority: a, identity: f.identity, caKey: key}
	if r, err = r.Accept(a.chain(leaf), now); err != nil {
		return nil, err
	}
	return r, f.add(r)
}
