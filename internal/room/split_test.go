package room

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"dragonload/internal/piece"
)

// splitter starts one for a room on loopback.
func splitter(t *testing.T, r *Room, o SplitOptions) (*Splitter, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := Split(l, keyring(r).ServerTLS(all()...), o, all()...)
	t.Cleanup(func() { s.Close() })
	return s, l.Addr().String()
}

func dial(t *testing.T, addr string, cfg *tls.Config) *tls.Conn {
	t.Helper()
	d := net.Dialer{Timeout: 10 * time.Second}
	c, err := tls.DialWithDialer(&d, "tcp", addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// raw opens a plain connection and says something over it.
func raw(t *testing.T, addr string, say []byte) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(say); err != nil {
		t.Fatal(err)
	}
	return c
}

// closed waits until the other side has closed c and fails if it keeps it open.
func closed(t *testing.T, what string, c net.Conn) {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("%s: still open", what)
	}
}

func TestSplit_givesEachProtocolItsConnections(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	s, addr := splitter(t, lab, SplitOptions{})
	i := invite(t, lab, 1, time.Hour)
	for _, alpn := range all() {
		cfg := lab.ClientTLS(alpn, piece.NodeID{})
		if alpn == ALPNJoin {
			cfg = i.TLS()
		}
		dial(t, addr, cfg)
		c, err := s.Listener(alpn).Accept()
		if err != nil {
			t.Fatal(err)
		}
		secure, ok := c.(*tls.Conn)
		if !ok || !secure.ConnectionState().HandshakeComplete || secure.ConnectionState().NegotiatedProtocol != alpn {
			t.Errorf("%s: got %T", alpn, c)
		}
		c.Close()
	}
	if s.Listener("other") != nil {
		t.Error("a listener for a protocol that was not named")
	}
}

func TestSplit_closesWhatIsNoMember(t *testing.T) {
	t.Parallel()
	lab, other := create(t, place(t), "lab"), create(t, place(t), "lab")
	s, addr := splitter(t, lab, SplitOptions{})
	noise := make([]byte, 4096)
	rand.Read(noise)
	for name, say := range map[string][]byte{
		"HTTP":            []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"random bytes":    noise,
		"truncated hello": {22, 3, 1, 2, 0, 1, 0},
		"huge hello":      append([]byte{22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff}, noise...),
		"nothing":         {},
	} {
		c := raw(t, addr, say)
		_ = c.(*net.TCPConn).CloseWrite() // fails where the other side has closed already
		closed(t, name, c)
	}
	// A stranger learns why it was refused, even after it has sent a request.
	cfg := lab.ClientTLS(ALPNData, piece.NodeID{})
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &other.Cert, nil }
	c := dial(t, addr, cfg)
	c.Write(make([]byte, 4096)) // may fail or not, as the refusal arrives
	if _, err := c.Read(make([]byte, 1)); !errors.Is(RefusedBy(err), ErrNotMember) {
		t.Errorf("stranger got %v, want the alert", err)
	}
	// After all that, members are served.
	dial(t, addr, lab.ClientTLS(ALPNData, piece.NodeID{}))
	member, err := s.Listener(ALPNData).Accept()
	if err != nil {
		t.Fatal(err)
	}
	member.Close()
}

func TestSplit_handshakesDoNotHoldUpOthers(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	s, addr := splitter(t, lab, SplitOptions{})
	for range 20 {
		raw(t, addr, []byte{22})
	}
	dial(t, addr, lab.ClientTLS(ALPNHaves, piece.NodeID{}))
	c, err := s.Listener(ALPNHaves).Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestSplit_endsSlowHandshakes(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	_, addr := splitter(t, lab, SplitOptions{HandshakeTimeout: 50 * time.Millisecond})
	closed(t, "silent client", raw(t, addr, []byte{22, 3}))
	// A connection that no Accept takes does not stay either.
	closed(t, "not accepted", dial(t, addr, lab.ClientTLS(ALPNData, piece.NodeID{})).NetConn())
}

func TestSplit_boundsHandshakes(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	for name, o := range map[string]SplitOptions{"in all": {MaxHandshakes: 3}, "per address": {MaxPerAddress: 3}} {
		s, addr := splitter(t, lab, o)
		var held []net.Conn
		for range 4 {
			held = append(held, raw(t, addr, []byte{22}))
		}
		closed(t, name, held[0])
		// Members find a place all the same, as many as come.
		for range 10 {
			var member net.Conn
			for member == nil {
				d := net.Dialer{Timeout: 10 * time.Second}
				c, err := tls.DialWithDialer(&d, "tcp", addr, lab.ClientTLS(ALPNData, piece.NodeID{}))
				if err == nil {
					member = c
				}
			}
			defer member.Close()
			c, err := s.Listener(ALPNData).Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
	}
}

func TestSplit_boundsOpenJoins(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	s, addr := splitter(t, lab, SplitOptions{MaxJoins: 2})
	i := invite(t, lab, 0, time.Hour)
	var open []net.Conn
	for range 2 {
		dial(t, addr, i.TLS())
		c, err := s.Listener(ALPNJoin).Accept()
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	closed(t, "third join", dial(t, addr, i.TLS()))
	open[0].Close()
	dial(t, addr, i.TLS())
	c, err := s.Listener(ALPNJoin).Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	open[1].Close()
}

func TestSplit_boundsOpenConnections(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	s, addr := splitter(t, lab, SplitOptions{MaxConns: 2})
	data := func() net.Conn {
		dial(t, addr, lab.ClientTLS(ALPNData, piece.NodeID{}))
		c, err := s.Listener(ALPNData).Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first, second := data(), data()
	defer second.Close()
	closed(t, "third connection", raw(t, addr, nil))
	first.Close()
	data().Close()
}

// wrapped stands for the layer that the data plane puts under TLS.
type wrapped struct{ net.Conn }

func TestSplit_wrapIsReachableUnderTLS(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	s, addr := splitter(t, lab, SplitOptions{Wrap: func(c net.Conn) net.Conn { return &wrapped{c} }})
	dial(t, addr, lab.ClientTLS(ALPNData, piece.NodeID{}))
	c, err := s.Listener(ALPNData).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	layer, ok := c.(*tls.Conn).NetConn().(*wrapped)
	if !ok {
		t.Fatalf("NetConn is %T", c.(*tls.Conn).NetConn())
	}
	socket, ok := layer.Conn.(interface{ NetConn() net.Conn })
	if !ok {
		t.Fatalf("under it is %T", layer.Conn)
	}
	if _, ok := socket.NetConn().(*net.TCPConn); !ok {
		t.Errorf("the socket is %T", socket.NetConn())
	}
}

func TestSplit_closeEndsEverything(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	s, addr := splitter(t, lab, SplitOptions{})
	silent := raw(t, addr, []byte{22})
	waiting := dial(t, addr, lab.ClientTLS(ALPNData, piece.NodeID{}))
	var wg sync.WaitGroup
	var acceptErr error
	wg.Go(func() { _, acceptErr = s.Listener(ALPNControl).Accept() })
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	wg.Wait()
	if !errors.Is(acceptErr, net.ErrClosed) {
		t.Errorf("Accept: %v, want net.ErrClosed", acceptErr)
	}
	closed(t, "in its handshake", silent)
	closed(t, "waiting for Accept", waiting.NetConn())
}

func TestSplit_oneProtocolMayEndAlone(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	s, addr := splitter(t, lab, SplitOptions{})
	if err := s.Listener(ALPNControl).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Listener(ALPNControl).Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
	closed(t, "ended protocol", dial(t, addr, lab.ClientTLS(ALPNControl, piece.NodeID{})).NetConn())
	dial(t, addr, lab.ClientTLS(ALPNData, piece.NodeID{}))
	c, err := s.Listener(ALPNData).Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
