package room

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"dragonload/internal/piece"
)

// What is spoken over a connection, named in its TLS hello.
const (
	ALPNData    = "http/1.1"           // pieces, between members
	ALPNControl = "h2"                 // node to tracker
	ALPNHaves   = "dragonload-haves/1" // the stream of haves, between members
	ALPNJoin    = "dragonload-join/1"  // the only one without a member's certificate
)

// base is what all configurations of a room share: TLS 1.3, no session tickets, so
// that every connection shows a certificate anew.
//
// Package tls checks no certificate here (InsecureSkipVerify, RequireAnyClientCert):
// it would ask for host names, which members do not have, and knows no tolerance for
// clocks. Each configuration has a VerifyConnection instead that checks the chain to
// the room's authority. Unlike VerifyPeerCertificate it also runs on resumed
// sessions, and package tls checks the handshake's signature by the certificate's key
// in every case.
//
// The key exchange is plain X25519. BenchmarkHandshake on one core of a 2023 Xeon, Go
// 1.26, both sides together: X25519 0.52 ms and 82 KB allocated, X25519MLKEM768 0.74 ms
// and 133 KB, P-256 0.54 ms. Members make some hundred connections when a pool begins,
// on small machines that should be fetching then, and what they carry (pieces of a file
// that an origin serves) is not worth recording today for a quantum computer tomorrow.
func base() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		CurvePreferences:       []tls.CurveID{tls.X25519},
		SessionTicketsDisabled: true,
		InsecureSkipVerify:     true,
		// Bulk data is the normal case; small records would only cost CPU.
		DynamicRecordSizingDisabled: true,
	}
}

// ClientTLS returns the configuration for connecting to a member of the room, the one
// with the key peer or, if that is zero, any. Members that r knows to be removed are
// refused; see Keyring.ClientTLS for one that also knows who is removed later.
func (r *Room) ClientTLS(alpn string, peer piece.NodeID) *tls.Config {
	return r.clientTLS(alpn, peer, func(_ [32]byte, key piece.NodeID) bool { return r.Removals.Has(key) })
}

func (r *Room) clientTLS(alpn string, peer piece.NodeID, removed removedFunc) *tls.Config {
	c := base()
	c.ServerName = serverName(r.ID)
	c.NextProtos = []string{alpn}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &r.Cert, nil }
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.NegotiatedProtocol != alpn {
			return fmt.Errorf("the other side does not speak %s", alpn)
		}
		key, err := verifyMember(r, cs, removed)
		if err != nil {
			return err
		}
		if peer != (piece.NodeID{}) && key != peer {
			return fmt.Errorf("%w: %s, not %s", ErrWrongPeer, key, peer)
		}
		return nil
	}
	return c
}

// removedFunc reports whether a member was shut out of a room. It is asked in every
// handshake, also of a resumed session, and must be quick.
type removedFunc func(room [32]byte, key piece.NodeID) bool

// verifyMember checks the other side of a connection in a room, in either direction.
func verifyMember(r *Room, cs tls.ConnectionState, removed removedFunc) (piece.NodeID, error) {
	if len(cs.PeerCertificates) == 0 {
		return piece.NodeID{}, fmt.Errorf("%w: no certificate", ErrNotMember)
	}
	key, err := r.Authority.verify(cs.PeerCertificates[0], time.Now())
	if err != nil {
		return key, err
	}
	if removed(r.ID, key) {
		return key, ErrRemoved
	}
	return key, nil
}

// TLS returns the configuration for asking one of Addrs to join. The server is
// believed if it is a member of the room whose authority's fingerprint is in the
// invite; no certificate of this node's own is shown.
func (i Invite) TLS() *tls.Config { return joinTLS(i.RoomID) }

// JoinTLS returns the configuration for what those ask who may be members no more, as
// Invite.TLS does.
func (r *Room) JoinTLS() *tls.Config { return joinTLS(r.ID) }

func joinTLS(room [32]byte) *tls.Config {
	c := base()
	c.ServerName = serverName(room)
	c.NextProtos = []string{ALPNJoin}
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.NegotiatedProtocol != ALPNJoin {
			return errors.New("the other side admits nobody")
		}
		if len(cs.PeerCertificates) != 2 || sha256.Sum256(cs.PeerCertificates[1].RawSubjectPublicKeyInfo) != room {
			return ErrInviteForeign
		}
		a, err := parseAuthority(cs.PeerCertificates[1].Raw)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInviteForeign, err)
		}
		_, err = a.verify(cs.PeerCertificates[0], time.Now())
		return err
	}
	return c
}

// Member returns who is at the other end of a connection that was made with one of
// the room's configurations: its key, its room and its name. ErrNotMember if the
// connection has no member's certificate, as while joining.
func Member(cs tls.ConnectionState) (id piece.NodeID, room [32]byte, name string, err error) {
	if len(cs.PeerCertificates) == 0 || cs.NegotiatedProtocol == ALPNJoin {
		return id, room, "", fmt.Errorf("%w: no certificate", ErrNotMember)
	}
	leaf := cs.PeerCertificates[0]
	if room, err = roomOf(leaf.URIs); err != nil {
		return id, room, "", err
	}
	if id, err = keyOf(leaf); err != nil {
		return id, room, "", err
	}
	return id, room, MemberName(leaf.Subject.CommonName), nil
}
