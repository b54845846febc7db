package room

import (
	"crypto/x509"
	"fmt"
	"time"

	"dragonload/internal/piece"
)

// Vouch checks a certificate (DER) that came from anybody: that it is one of a member of
// the room now. It returns whose it is, and until when it counts. What a member has
// signed can so be passed on by others and still be known to be a member's word. Every
// error is ErrNotMember.
func (r *Room) Vouch(der []byte, now time.Time) (key piece.NodeID, name string, until time.Time, err error) {
	if len(der) > maxChain {
		return key, "", until, fmt.Errorf("%w: a certificate of %d bytes", ErrNotMember, len(der))
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return key, "", until, fmt.Errorf("%w: %w", ErrNotMember, err)
	}
	if key, err = r.Authority.verify(leaf, now); err != nil {
		return key, "", until, err
	}
	return key, MemberName(leaf.Subject.CommonName), leaf.NotAfter.Add(ClockTolerance), nil
}
