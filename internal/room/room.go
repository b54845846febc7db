package room

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"dragonload/internal/piece"
)

const (
	// MaxMembers bounds how many keys a room ever admits.
	MaxMembers = 1 << 16
	// MaxTrackers bounds the addresses in an invite and in a room.
	MaxTrackers = 8

	maxRoomName = 64

	nameChars = "abcdefghijklmnopqrstuvwxyz0123456789._-"
	hostChars = nameChars + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// Room is one room that this node is a member of, as it is on disk. It is not changed
// once made; Accept returns another. It never prints its keys.
type Room struct {
	Name      string
	ID        [32]byte // SHA-256 of the authority's SubjectPublicKeyInfo
	Trackers  []string // host:port, the first is asked first
	Created   bool     // made here: the authority's key is here
	Shared    bool     // with other replicas of a standing tracker
	Authority *Authority
	Cert      tls.Certificate // this member's, with its private key
	Removals  *Removals       // who was shut out, as far as is known here; nil: nobody

	identity *Identity
	caKey    ed25519.PrivateKey // nil unless Created
}

// Format keeps the keys out of every message, whatever the verb.
func (r Room) Format(s fmt.State, _ rune) { fmt.Fprint(s, "room "+r.Name) }

// LogValue keeps the keys out of every log.
func (r Room) LogValue() slog.Value { return slog.StringValue(r.Name) }

// Member returns who this node is in the room.
func (r *Room) Member() (key piece.NodeID, name string) {
	return r.identity.ID, r.Cert.Leaf.Subject.CommonName
}

// Valid reports why this node is no member at the moment now: ErrRemoved, or ErrClock
// or another ErrNotMember because of its certificate.
func (r *Room) Valid(now time.Time) error {
	if r.Removals.Has(r.identity.ID) {
		return fmt.Errorf("room %s: %w; ask who runs the room", r.Name, ErrRemoved)
	}
	if _, err := r.Authority.verify(r.Cert.Leaf, now); errors.Is(err, ErrClock) {
		return fmt.Errorf("room %s: %w; set the clock or, if it is right, join again with a new invite", r.Name, err)
	} else if err != nil {
		return fmt.Errorf("room %s: %w; join again with a new invite", r.Name, err)
	}
	return nil
}

// RenewAt returns the moment from which the certificate should be renewed.
func (r *Room) RenewAt() time.Time { return r.Cert.Leaf.NotAfter.Add(-RenewBefore) }

// Request returns a certificate request for renewing this member's certificate.
func (r *Room) Request() ([]byte, error) {
	_, name := r.Member()
	return request(r.identity, r.ID, name)
}

// Renew signs a member's request again, as DER in and PEM out. The peer must have
// proved by its connection that the certificate is its own, whose key the request must
// have, and that it is a member. Only the room's creator can: ErrNoAuthority. ErrRemoved if it is shut out.
func (r *Room) Renew(csr []byte, peer *x509.Certificate, now time.Time) ([]byte, error) {
	if r.caKey == nil {
		return nil, ErrNoAuthority
	}
	key, name, err := parseRequest(csr, r.ID)
	if err != nil {
		return nil, err
	}
	if own, err := keyOf(peer); err != nil || key != own {
		return nil, fmt.Errorf("%w: the certificate request is for another key", ErrNotMember)
	}
	if r.Removals.Has(key) {
		return nil, ErrRemoved
	}
	use, _ := UseOf(peer)
	leaf, err := r.Authority.sign(r.caKey, key, name, use, now)
	if err != nil {
		return nil, err
	}
	return r.Authority.chain(leaf), nil
}

// Accept returns the room with the certificate that a tracker has sent (the PEM of
// Renew), after checking it. Folder.Save makes it durable.
func (r *Room) Accept(chain []byte, now time.Time) (*Room, error) {
	leaf, a, err := parseChain(chain)
	if err != nil {
		return nil, fmt.Errorf("certificate for room %s: %w", r.Name, err)
	}
	if a.ID != r.ID {
		return nil, fmt.Errorf("certificate for room %s: %w", r.Name, ErrNotMember)
	}
	if _, err := r.Authority.verify(leaf, now); err != nil {
		return nil, fmt.Errorf("certificate for room %s: %w", r.Name, err)
	}
	renewed := *r
	if renewed.Cert, err = tlsCertificate(leaf, r.identity); err != nil {
		return nil, fmt.Errorf("certificate for room %s: %w", r.Name, err)
	}
	return &renewed, nil
}

// Pool returns the name of the pool for a URL in this room. Members of the room agree
// on it; others cannot learn the URL from it, nor by guessing, without the room's
// public key, which no connection shows in clear.
//
// It is HMAC-SHA-256 of the normalised URL, the key being SHA-256 of "dragonload
// pool", the room's id and the authority's public key.
func (r *Room) Pool(rawURL string) [32]byte { return r.pool([]byte(normalURL(rawURL))) }

// ManifestPool returns the name of the pool for the content of the manifest with this
// info hash, as Pool does for a URL.
func (r *Room) ManifestPool(infoHash [32]byte) [32]byte {
	// No URL begins like this.
	return r.pool(append([]byte("\x00manifest\x00"), infoHash[:]...))
}

// Source returns the name in this room of the server that a URL leads to: of its scheme,
// host and port, as Pool does for the whole.
func (r *Room) Source(rawURL string) [16]byte {
	sum := r.pool(append([]byte("\x00server\x00"), ServerOf(rawURL)...))
	return [16]byte(sum[:16])
}

// ServerOf returns the scheme, host and port of a URL, written as all members write them.
func ServerOf(rawURL string) string {
	u, err := url.Parse(normalURL(rawURL))
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

func (r *Room) pool(of []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte("dragonload pool"))
	h.Write(r.ID[:])
	h.Write(r.Authority.Cert.RawSubjectPublicKeyInfo)
	mac := hmac.New(sha256.New, h.Sum(nil))
	mac.Write(of)
	return [32]byte(mac.Sum(nil))
}

// normalURL writes a URL as all members write it who mean the same file: without
// user-info and fragment, the scheme and the host in lower case, the default port
// left out. What cannot be parsed is left as it is.
func normalURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return raw
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	u.Scheme, u.Host = strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	port := u.Port()
	if port == "" || u.Scheme == "http" && port == "80" || u.Scheme == "https" && port == "443" {
		u.Host = strings.TrimSuffix(u.Host, ":"+port)
	}
	if u.Path == "" {
		u.Path = "/"
	}
	return u.String()
}

// serverName is what a client of the room says in its TLS hello: the first half of
// the room's id as a name that every TLS library takes for one. Making a room that
// collides with a given one takes 2^128 attempts.
func serverName(room [32]byte) string { return hex.EncodeToString(room[:16]) + ".room" }

// CheckName reports what is wrong with the name of a room, which is also that of a
// folder on every system.
func CheckName(name string) error {
	var rule string
	switch {
	case name == "" || len(name) > maxRoomName:
		rule = fmt.Sprintf("it must have 1 to %d characters", maxRoomName)
	case !consistsOf(name, nameChars):
		rule = "only a-z, 0-9, dot, underscore and dash may be in it"
	case strings.ContainsRune("._-", rune(name[0])):
		rule = "it must start with a letter or a digit"
	case strings.HasSuffix(name, ".") || slices.Contains(reservedNames, strings.SplitN(name, ".", 2)[0]):
		rule = "no folder can have this name on Windows"
	default:
		return nil
	}
	return fmt.Errorf("%q is %w: %s", name[:min(len(name), maxRoomName)], ErrName, rule)
}

var reservedNames = []string{"con", "prn", "aux", "nul",
	"com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8", "com9",
	"lpt1", "lpt2", "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9"}

// CheckAddr reports what is wrong with the HOST:PORT under which a tracker is reached
// by others.
func CheckAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is not HOST:PORT", addr[:min(len(addr), 300)])
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("%q has no port from 1 to 65535", addr[:min(len(addr), 300)])
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
			return fmt.Errorf("%q is no address that others can reach", addr)
		}
		if net.JoinHostPort(host, port) != addr {
			return fmt.Errorf("%q is not HOST:PORT", addr)
		}
		return nil
	}
	if host == "" || len(host) > 253 || !consistsOf(host, hostChars) || addr != host+":"+port {
		return fmt.Errorf("%q has no host name or address before the port", addr[:min(len(addr), 300)])
	}
	return nil
}

// consistsOf reports whether no other characters than these are in s.
func consistsOf(s, chars string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return !strings.ContainsRune(chars, c) })
}
