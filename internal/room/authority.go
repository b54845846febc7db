package room

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"dragonload/internal/piece"
)

const (
	// CertLifetime is how long a member's certificate is valid.
	CertLifetime = 30 * 24 * time.Hour

	// RenewBefore is how much of that remains when a node begins to renew it.
	RenewBefore = 10 * 24 * time.Hour

	// ClockTolerance is by how much the clocks of two members may differ.
	ClockTolerance = 5 * time.Minute

	authorityLifetime = 10 * 365 * 24 * time.Hour

	// maxChain and maxRequest bound DER and PEM from outside before they are
	// parsed; ours have 400 to 600 bytes a certificate.
	maxChain   = 16 << 10
	maxRequest = 4 << 10
)

// maxChecked bounds the certificates whose signature is known to be good.
const maxChecked = 4096

// Authority is the certificate of a room, ready to check members with. It does not
// change and may be used by many goroutines.
type Authority struct {
	ID   [32]byte // of the room
	Cert *x509.Certificate

	pool *x509.CertPool
	uri  string // what the certificate of a member must name, and nothing else

	// checked holds the SHA-256 of certificates that this authority did sign: a neighbour shows
	// the same one on each of its connections, and most of the work is in the signature.
	mu      sync.Mutex
	checked map[[sha256.Size]byte]struct{}
}

// parseAuthority accepts only what newAuthority makes: a self-signed Ed25519
// certificate authority.
func parseAuthority(der []byte) (*Authority, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse the room's authority: %w", err)
	}
	if _, ok := cert.PublicKey.(ed25519.PublicKey); !ok || !cert.IsCA || !cert.BasicConstraintsValid {
		return nil, errors.New("the room's certificate is not an Ed25519 authority")
	}
	// The signature by itself makes the rest of the certificate as trustworthy as the
	// key, which is all that a room's id names.
	if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return nil, fmt.Errorf("check the room's authority: %w", err)
	}
	a := &Authority{ID: sha256.Sum256(cert.RawSubjectPublicKeyInfo), Cert: cert, pool: x509.NewCertPool()}
	a.pool.AddCert(cert)
	a.uri = memberURI(a.ID).String()
	return a, nil
}

// newAuthority makes the certificate authority that is a new room.
func newAuthority(name string, now time.Time) (*Authority, ed25519.PrivateKey, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make an authority: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-ClockTolerance),
		NotAfter:              now.Add(authorityLifetime),
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		MaxPathLenZero:        true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make an authority: %w", err)
	}
	a, err := parseAuthority(der)
	return a, key, err
}

// sign certifies that the holder of a key is a member, from from on, and by which use of
// an invite, if that is counted.
func (a *Authority) sign(ca ed25519.PrivateKey, key piece.NodeID, name string, use Use, from time.Time) ([]byte, error) {
	extensions, err := use.extensions()
	if err != nil {
		return nil, fmt.Errorf("sign a member's certificate: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             from.Add(-ClockTolerance),
		NotAfter:              from.Add(CertLifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{memberURI(a.ID)},
		ExtraExtensions:       extensions,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, ed25519.PublicKey(key[:]), ca)
	if err != nil {
		return nil, fmt.Errorf("sign a member's certificate: %w", err)
	}
	return der, nil
}

// verify checks that a certificate is that of a member at the moment now, and returns
// the member. Every error is ErrNotMember.
func (a *Authority) verify(leaf *x509.Certificate, now time.Time) (piece.NodeID, error) {
	var none piece.NodeID
	key, err := keyOf(leaf)
	if err != nil {
		return none, err
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != a.uri {
		return none, fmt.Errorf("%w: the certificate names another room", ErrNotMember)
	}
	// x509 knows no tolerance: within it, the certificate is judged at its own edge.
	at := now
	switch {
	case now.After(leaf.NotAfter.Add(ClockTolerance)):
		return none, clockError("ended", leaf.NotAfter, now)
	case now.Before(leaf.NotBefore.Add(-ClockTolerance)):
		return none, clockError("begins", leaf.NotBefore, now)
	case now.After(leaf.NotAfter):
		at = leaf.NotAfter
	case now.Before(leaf.NotBefore):
		at = leaf.NotBefore
	}
	// x509 accepts any one of the usages it is given; a member has both.
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if !slices.Contains(leaf.ExtKeyUsage, usage) {
			return none, fmt.Errorf("%w: the certificate is for another use", ErrNotMember)
		}
	}
	if leaf.IsCA {
		return none, fmt.Errorf("%w: the certificate is an authority's", ErrNotMember)
	}
	if err := a.signed(leaf, at); err != nil {
		return none, fmt.Errorf("%w: %w", ErrNotMember, err)
	}
	return key, nil
}

// signed checks that this authority signed a certificate and is itself valid at the moment
// at, which must be one at which the certificate is.
func (a *Authority) signed(leaf *x509.Certificate, at time.Time) error {
	id := sha256.Sum256(leaf.Raw)
	a.mu.Lock()
	_, known := a.checked[id]
	a.mu.Unlock()
	if known && !at.Before(a.Cert.NotBefore) && !at.After(a.Cert.NotAfter) {
		return nil
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: a.pool, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.checked == nil || len(a.checked) >= maxChecked {
		a.checked = make(map[[sha256.Size]byte]struct{})
	}
	a.checked[id] = struct{}{}
	return nil
}

// clockError says that a certificate is not valid now, and both times, for it may be the
// clock that is wrong.
func clockError(what string, edge, now time.Time) error {
	return fmt.Errorf("%w: %w: it %s on %s UTC and this machine's clock says %s UTC: this machine's clock differs by %s",
		ErrNotMember, ErrClock, what, edge.UTC().Format(time.DateTime), now.UTC().Format(time.DateTime), roughly(now.Sub(edge).Abs()))
}

// roughly writes a difference of clocks as people say it.
func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{365 * day, "years"}, {day, "days"}, {time.Hour, "hours"}} {
		if d >= 2*u.unit {
			return fmt.Sprintf("%d %s", d/u.unit, u.name)
		}
	}
	return fmt.Sprintf("%d minutes", d/time.Minute)
}

func keyOf(leaf *x509.Certificate) (piece.NodeID, error) {
	key, ok := leaf.PublicKey.(ed25519.PublicKey)
	if !ok || len(key) != ed25519.PublicKeySize {
		return piece.NodeID{}, fmt.Errorf("%w: the key is not Ed25519", ErrNotMember)
	}
	return piece.NodeID(key), nil
}

// memberURI is what the certificates of a room name: dragon://room/<hexadecimal id>.
func memberURI(room [32]byte) *url.URL {
	return &url.URL{Scheme: "dragon", Host: "room", Path: "/" + hex.EncodeToString(room[:])}
}

// roomOf reads what memberURI writes.
func roomOf(uris []*url.URL) (room [32]byte, err error) {
	if len(uris) == 1 && uris[0].Scheme == "dragon" && uris[0].Host == "room" {
		raw, err := hex.DecodeString(strings.TrimPrefix(uris[0].Path, "/"))
		if err == nil && len(raw) == len(room) {
			return [32]byte(raw), nil
		}
	}
	return room, fmt.Errorf("%w: the certificate names no room", ErrNotMember)
}

// request makes the DER of a certificate request: a proof, bound to the room, that
// its sender holds the key.
func request(id *Identity, room [32]byte, name string) ([]byte, error) {
	template := &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: MemberName(name)},
		URIs:    []*url.URL{memberURI(room)},
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, id.Key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return der, nil
}

// parseRequest checks what request made.
func parseRequest(der []byte, room [32]byte) (key piece.NodeID, name string, err error) {
	if len(der) > maxRequest {
		return key, "", fmt.Errorf("certificate request of %d bytes", len(der))
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return key, "", fmt.Errorf("parse a certificate request: %w", err)
	}
	public, ok := csr.PublicKey.(ed25519.PublicKey)
	if !ok || len(public) != len(key) {
		return key, "", errors.New("certificate request for a key other than Ed25519")
	}
	if err := csr.CheckSignature(); err != nil {
		return key, "", fmt.Errorf("check a certificate request: %w", err)
	}
	if of, err := roomOf(csr.URIs); err != nil || of != room {
		return key, "", errors.New("certificate request for another room")
	}
	return piece.NodeID(public), MemberName(csr.Subject.CommonName), nil
}

// chain is what an authority answers a request with: PEM of the member's certificate,
// then of the room's.
func (a *Authority) chain(leaf []byte) []byte {
	return append(encodeCert(leaf), encodeCert(a.Cert.Raw)...)
}

// parseChain reads what chain wrote.
func parseChain(data []byte) (leaf *x509.Certificate, a *Authority, err error) {
	if len(data) > maxChain {
		return nil, nil, fmt.Errorf("certificates of %d bytes", len(data))
	}
	first, rest := pem.Decode(data)
	if first == nil || first.Type != "CERTIFICATE" {
		return nil, nil, errors.New("no member's certificate in PEM")
	}
	second, rest := pem.Decode(rest)
	if second == nil || second.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) != 0 {
		return nil, nil, errors.New("no authority's certificate in PEM")
	}
	if leaf, err = x509.ParseCertificate(first.Bytes); err != nil {
		return nil, nil, fmt.Errorf("parse a member's certificate: %w", err)
	}
	a, err = parseAuthority(second.Bytes)
	return leaf, a, err
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// tlsCertificate puts a member's certificate and key together for package tls.
func tlsCertificate(leaf *x509.Certificate, id *Identity) (tls.Certificate, error) {
	if key, ok := leaf.PublicKey.(ed25519.PublicKey); !ok || !bytes.Equal(key, id.ID[:]) {
		return tls.Certificate{}, errors.New("the certificate is for another key than this node's")
	}
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: id.Key, Leaf: leaf}, nil
}

// MemberName makes the name of a member from that of its host: letters, digits, dots,
// dashes and underscores, at most 64 of them, "node" if nothing remains.
func MemberName(host string) string {
	name := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
			return c
		case c == ' ':
			return '-'
		}
		return -1
	}, host[:min(len(host), 256)])
	if name = strings.Trim(name[:min(len(name), 64)], ".-"); name == "" {
		return "node"
	}
	return name
}
