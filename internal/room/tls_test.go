package room

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"slices"
	"testing"
	"time"

	"dragonload/internal/piece"
)

// meet runs a handshake over loopback, then sends one byte from the server to the
// client, and returns what each side has to say about it.
func meet(t testing.TB, client, server *tls.Config) (atClient, atServer *tls.Conn, clientErr, serverErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	deadline := time.Now().Add(10 * time.Second)
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := l.Accept()
		if err != nil {
			serverErr = err
			return
		}
		raw.SetDeadline(deadline)
		atServer = tls.Server(raw, server)
		if serverErr = atServer.Handshake(); serverErr == nil {
			_, serverErr = atServer.Write([]byte{1})
		} else {
			raw.(*net.TCPConn).CloseWrite()
		}
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	raw.SetDeadline(deadline)
	atClient = tls.Client(raw, client)
	if clientErr = atClient.Handshake(); clientErr == nil {
		_, clientErr = io.ReadFull(atClient, make([]byte, 1))
	} else {
		raw.(*net.TCPConn).CloseWrite()
	}
	<-done
	t.Cleanup(func() { raw.Close() })
	if atServer != nil {
		t.Cleanup(func() { atServer.NetConn().Close() })
	}
	return atClient, atServer, clientErr, serverErr
}

func keyring(rooms ...*Room) *Keyring {
	k := new(Keyring)
	for _, r := range rooms {
		k.Add(r)
	}
	return k
}

func all() []string { return []string{ALPNData, ALPNControl, ALPNHaves, ALPNJoin} }

func TestTLS_membersKnowEachOther(t *testing.T) {
	t.Parallel()
	f := place(t)
	lab, home := create(t, f, "lab"), create(t, f, "home")
	k := keyring(lab, home)
	for _, creator := range []*Room{lab, home} {
		member := join(t, creator, newRegister())
		for _, alpn := range []string{ALPNData, ALPNControl, ALPNHaves} {
			c, s, cErr, sErr := meet(t, member.ClientTLS(alpn, f.Identity().ID), k.ServerTLS(all()...))
			if cErr != nil || sErr != nil {
				t.Fatal(cErr, sErr)
			}
			own, _ := member.Member()
			if id, room, name, err := Member(s.ConnectionState()); err != nil || id != own || room != creator.ID || name != "host" {
				t.Errorf("the server sees %v %x %q, %v", id, room, name, err)
			}
			if id, room, _, err := Member(c.ConnectionState()); err != nil || id != f.Identity().ID || room != creator.ID {
				t.Errorf("the client sees %v %x, %v", id, room, err)
			}
			if cs := s.ConnectionState(); cs.Version != tls.VersionTLS13 || cs.NegotiatedProtocol != alpn {
				t.Errorf("TLS %x, protocol %q", cs.Version, cs.NegotiatedProtocol)
			}
		}
	}
}

func TestTLS_unknownRoomIsRefused(t *testing.T) {
	t.Parallel()
	lab, other := create(t, place(t), "lab"), create(t, place(t), "lab")
	k := keyring(lab)
	_, _, cErr, sErr := meet(t, other.ClientTLS(ALPNData, piece.NodeID{}), k.ServerTLS(all()...))
	if sErr == nil || !errors.Is(RefusedBy(cErr), ErrInviteForeign) {
		t.Errorf("client: %v, server: %v", cErr, sErr)
	}
	_, _, cErr, _ = meet(t, invite(t, other, 1, time.Hour).TLS(), k.ServerTLS(all()...))
	if !errors.Is(RefusedBy(cErr), ErrInviteForeign) {
		t.Errorf("foreign invite: %v", cErr)
	}
	k.Remove(lab.ID)
	if _, _, cErr, _ = meet(t, lab.ClientTLS(ALPNData, piece.NodeID{}), k.ServerTLS(all()...)); cErr == nil {
		t.Error("a room that was taken out of the keyring still answers")
	}
	if _, ok := k.Get(lab.ID); ok || len(k.Rooms()) != 0 {
		t.Error("it is still in the keyring")
	}
}

// The client names the right room but has the certificate of another.
func TestTLS_certificateOfAnotherRoomIsRefused(t *testing.T) {
	t.Parallel()
	lab, other := create(t, place(t), "lab"), create(t, place(t), "lab")
	client := lab.ClientTLS(ALPNData, piece.NodeID{})
	client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &other.Cert, nil }
	_, _, cErr, sErr := meet(t, client, keyring(lab).ServerTLS(all()...))
	if !errors.Is(sErr, ErrNotMember) || !errors.Is(RefusedBy(cErr), ErrNotMember) {
		t.Errorf("client: %v, server: %v", cErr, sErr)
	}
	// And a server that has none of the room's.
	pretender := keyring(lab).ServerTLS(all()...)
	choose := pretender.GetConfigForClient
	pretender.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		c, err := choose(h)
		c = c.Clone()
		c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &other.Cert, nil }
		return c, err
	}
	if _, _, cErr, _ = meet(t, lab.ClientTLS(ALPNData, piece.NodeID{}), pretender); !errors.Is(cErr, ErrNotMember) {
		t.Errorf("server of another room: %v", cErr)
	}
}

func TestTLS_withoutCertificateOnlyJoining(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	server := keyring(lab).ServerTLS(all()...)
	i := invite(t, lab, 1, time.Hour)
	c, s, cErr, sErr := meet(t, i.TLS(), server)
	if cErr != nil || sErr != nil {
		t.Fatal(cErr, sErr)
	}
	if _, _, _, err := Member(s.ConnectionState()); !errors.Is(err, ErrNotMember) {
		t.Errorf("a joining node is a member: %v", err)
	}
	if c.ConnectionState().NegotiatedProtocol != ALPNJoin {
		t.Errorf("protocol %q", c.ConnectionState().NegotiatedProtocol)
	}
	for name, protos := range map[string][]string{
		"data": {ALPNData}, "control": {ALPNControl}, "none": nil, "other": {"spdy/1"},
	} {
		bare := lab.ClientTLS(ALPNData, piece.NodeID{})
		bare.NextProtos, bare.GetClientCertificate = protos, nil
		bare.VerifyConnection = func(tls.ConnectionState) error { return nil }
		if _, _, _, sErr := meet(t, bare, server); sErr == nil {
			t.Errorf("no certificate, protocol %s: let in", name)
		}
		bare.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &lab.Cert, nil }
		if _, _, _, sErr := meet(t, bare, server); (sErr != nil) != (name == "none" || name == "other") {
			t.Errorf("member, protocol %s: %v", name, sErr)
		}
	}
	// Offering the join first gives the join and nothing else.
	both := i.TLS()
	both.NextProtos = []string{ALPNControl, ALPNData, ALPNJoin}
	if c, _, cErr, sErr := meet(t, both, server); cErr != nil || sErr != nil || c.ConnectionState().NegotiatedProtocol != ALPNJoin {
		t.Errorf("mixed offer: %q, %v, %v", c.ConnectionState().NegotiatedProtocol, cErr, sErr)
	}
	// Where nobody is admitted, the offer is of no use.
	if _, _, cErr, _ := meet(t, i.TLS(), keyring(lab).ServerTLS(ALPNData)); cErr == nil {
		t.Error("joined at a node that admits nobody")
	}
}

func TestTLS_joiningChecksTheAuthoritysFingerprint(t *testing.T) {
	t.Parallel()
	lab, evil := create(t, place(t), "lab"), create(t, place(t), "lab")
	i := invite(t, lab, 1, time.Hour)
	// A server that claims lab's name in the handshake with what it has.
	for name, chain := range map[string][][]byte{
		"its own authority":            {evil.Cert.Certificate[0], evil.Authority.Cert.Raw},
		"lab's authority, not its key": {evil.Cert.Certificate[0], lab.Authority.Cert.Raw},
		"no authority":                 {evil.Cert.Certificate[0]},
	} {
		server := base()
		server.NextProtos = []string{ALPNJoin}
		server.Certificates = []tls.Certificate{{Certificate: chain, PrivateKey: evil.Cert.PrivateKey}}
		if _, _, cErr, _ := meet(t, i.TLS(), server); !errors.Is(cErr, ErrInviteForeign) && !errors.Is(cErr, ErrNotMember) {
			t.Errorf("%s: %v", name, cErr)
		}
	}
}

func TestTLS_wrongPeerIsRefused(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	member := join(t, lab, newRegister())
	own, _ := member.Member()
	_, _, cErr, _ := meet(t, member.ClientTLS(ALPNData, own), keyring(lab).ServerTLS(all()...))
	if !errors.Is(cErr, ErrWrongPeer) {
		t.Errorf("%v, want ErrWrongPeer", cErr)
	}
}

func TestTLS_clocksMayDifferByFiveMinutes(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	f := place(t)
	server := keyring(lab).ServerTLS(all()...)
	for _, c := range []struct {
		name string
		from time.Time
		ok   bool
	}{
		{"ended 4 minutes ago", time.Now().Add(-CertLifetime - 4*time.Minute), true},
		{"ended 6 minutes ago", time.Now().Add(-CertLifetime - 6*time.Minute), false},
		{"begins in 4 minutes", time.Now().Add(4*time.Minute + ClockTolerance), true},
		{"begins in 6 minutes", time.Now().Add(6*time.Minute + ClockTolerance), false},
	} {
		der, err := lab.Authority.sign(lab.caKey, f.Identity().ID, "host", Use{}, c.from)
		if err != nil {
			t.Fatal(err)
		}
		client := lab.ClientTLS(ALPNData, piece.NodeID{})
		client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: f.Identity().Key}, nil
		}
		_, _, cErr, sErr := meet(t, client, server)
		if c.ok != (sErr == nil) || !c.ok && (!errors.Is(sErr, ErrNotMember) || !errors.Is(RefusedBy(cErr), ErrNotMember)) {
			t.Errorf("certificate that %s: client %v, server %v", c.name, cErr, sErr)
		}
	}
}

func TestVerify_acceptsOnlyMembersCertificates(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	member := place(t).Identity()
	now := time.Now()
	sound := func() *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "x"},
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
			KeyUsage:    x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			URIs:        []*url.URL{memberURI(lab.ID)},
		}
	}
	other := create(t, place(t), "other")
	for name, c := range map[string]struct {
		change func(*x509.Certificate)
		by     *Room
		ok     bool
	}{
		"sound":               {func(*x509.Certificate) {}, lab, true},
		"another authority":   {func(*x509.Certificate) {}, other, false},
		"another room":        {func(c *x509.Certificate) { c.URIs[0] = memberURI(other.ID) }, lab, false},
		"two rooms":           {func(c *x509.Certificate) { c.URIs = append(c.URIs, memberURI(other.ID)) }, lab, false},
		"no room":             {func(c *x509.Certificate) { c.URIs = nil }, lab, false},
		"server use only":     {func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }, lab, false},
		"no use":              {func(c *x509.Certificate) { c.ExtKeyUsage = nil }, lab, false},
		"an authority itself": {func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }, lab, false},
		"unknown critical extension": {func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}, lab, false},
	} {
		template := sound()
		c.change(template)
		der, err := x509.CreateCertificate(rand.Reader, template, c.by.Authority.Cert, ed25519.PublicKey(member.ID[:]), c.by.caKey)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time it is remembered
			key, err := lab.Authority.verify(leaf, now)
			if c.ok != (err == nil) || err != nil && !errors.Is(err, ErrNotMember) || c.ok && key != member.ID {
				t.Errorf("%s: %v, %v", name, key, err)
			}
		}
	}
	// A member cannot admit others: its certificate signs nothing.
	leaf, err := lab.Authority.sign(lab.caKey, member.ID, "x", Use{}, now)
	if err != nil {
		t.Fatal(err)
	}
	parent, err := x509.ParseCertificate(leaf)
	if err != nil {
		t.Fatal(err)
	}
	friend := place(t).Identity()
	der, err := x509.CreateCertificate(rand.Reader, sound(), parent, ed25519.PublicKey(friend.ID[:]), member.Key)
	if err != nil {
		t.Fatal(err)
	}
	child, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lab.Authority.verify(child, now); !errors.Is(err, ErrNotMember) {
		t.Errorf("signed by a member: %v", err)
	}
}

// Only the signature is remembered, and of the very same certificate.
func TestVerify_remembersNothingButTheSignature(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	member := place(t).Identity()
	now := time.Now()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(3 * authorityLifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{memberURI(lab.ID)},
	}, lab.Authority.Cert, ed25519.PublicKey(member.ID[:]), lab.caKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lab.Authority.verify(leaf, now); err != nil {
		t.Fatal(err)
	}
	if _, err := lab.Authority.verify(leaf, now.Add(2*authorityLifetime)); !errors.Is(err, ErrNotMember) {
		t.Errorf("after the authority's end: %v", err)
	}
	if _, err := lab.Authority.verify(leaf, now.Add(4*authorityLifetime)); !errors.Is(err, ErrClock) {
		t.Errorf("after its own end: %v", err)
	}
	forged := slices.Clone(der)
	forged[len(forged)-1] ^= 1 // in the signature
	other, err := x509.ParseCertificate(forged)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lab.Authority.verify(other, now); !errors.Is(err, ErrNotMember) {
		t.Errorf("with another signature: %v", err)
	}
}

func TestTLS_removedMemberIsRefusedInBothDirections(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	member := join(t, lab, newRegister())
	own, _ := member.Member()
	k := keyring(lab)
	if _, err := k.ShutOut(lab.ID, own); err != nil {
		t.Fatal(err)
	}
	_, _, cErr, sErr := meet(t, member.ClientTLS(ALPNData, piece.NodeID{}), k.ServerTLS(all()...))
	if !errors.Is(sErr, ErrRemoved) || !errors.Is(RefusedBy(cErr), ErrNotMember) {
		t.Errorf("client: %v, server: %v", cErr, sErr)
	}
	client, err := k.ClientTLS(lab.ID, ALPNData, own)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, cErr, _ := meet(t, client, keyring(member).ServerTLS(all()...)); !errors.Is(cErr, ErrRemoved) {
		t.Errorf("connecting to a removed member: %v", cErr)
	}
	if _, err := k.ClientTLS([32]byte{1}, ALPNData, own); !errors.Is(err, ErrNoRoom) {
		t.Errorf("a room that is not in the keyring: %v", err)
	}
}

// Tickets are off. Were they on, by a mistake here or a change in package tls, a
// resumed session must be checked like any other.
func TestTLS_resumptionDoesNotBypassTheCheck(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	member := join(t, lab, newRegister())
	own, _ := member.Member()
	k := keyring(lab)

	plain := member.ClientTLS(ALPNData, piece.NodeID{})
	plain.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for range 2 {
		c, _, cErr, sErr := meet(t, plain, k.ServerTLS(all()...))
		if cErr != nil || sErr != nil || c.ConnectionState().DidResume {
			t.Fatalf("%v, %v, resumed %v: the server gives tickets", cErr, sErr, c.ConnectionState().DidResume)
		}
	}

	server := k.ServerTLS(all()...)
	choose := server.GetConfigForClient
	server.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		c, err := choose(h)
		c = c.Clone()
		c.SessionTicketsDisabled = false
		c.SetSessionTicketKeys([][32]byte{{1}})
		return c, err
	}
	client := member.ClientTLS(ALPNData, piece.NodeID{})
	client.SessionTicketsDisabled = false
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for n, want := range []bool{false, true} {
		c, _, cErr, sErr := meet(t, client, server)
		if cErr != nil || sErr != nil || c.ConnectionState().DidResume != want {
			t.Fatalf("connection %d: %v, %v, resumed %v", n, cErr, sErr, c.ConnectionState().DidResume)
		}
	}
	if _, err := k.ShutOut(lab.ID, own); err != nil {
		t.Fatal(err)
	}
	if _, _, _, sErr := meet(t, client, server); !errors.Is(sErr, ErrRemoved) {
		t.Errorf("resumed after the removal: %v, want ErrRemoved", sErr)
	}
}

func TestTLS_olderVersionsAreRefused(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	client := lab.ClientTLS(ALPNData, piece.NodeID{})
	client.MinVersion, client.MaxVersion, client.CurvePreferences = tls.VersionTLS12, tls.VersionTLS12, nil
	if _, _, cErr, sErr := meet(t, client, keyring(lab).ServerTLS(all()...)); cErr == nil || sErr == nil {
		t.Error("TLS 1.2 was accepted")
	}
}

func TestKeyring_takesARenewedCertificate(t *testing.T) {
	t.Parallel()
	f := place(t)
	lab := create(t, f, "lab")
	k := keyring(lab)
	server := k.ServerTLS(all()...)
	request, err := lab.Request()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := lab.Renew(request, lab.Cert.Leaf, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := lab.Accept(chain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	k.Add(renewed)
	c, _, cErr, sErr := meet(t, lab.ClientTLS(ALPNData, piece.NodeID{}), server)
	if cErr != nil || sErr != nil {
		t.Fatal(cErr, sErr)
	}
	if got := c.ConnectionState().PeerCertificates[0].Raw; !bytes.Equal(got, renewed.Cert.Certificate[0]) || bytes.Equal(got, lab.Cert.Certificate[0]) {
		t.Error("the server shows the old certificate")
	}
}
