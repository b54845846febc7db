package peer

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	testRoom = [32]byte{1, 2, 3}
	testPool = swarm.PoolID{0xab, 0xcd}
)

// party is a node with a certificate of its own making.
type party struct {
	id   piece.NodeID
	cert tls.Certificate
}

func newParty(t testing.TB) party {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return party{id: piece.NodeID(public), cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}}
}

func (p party) config() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		CurvePreferences:       []tls.CurveID{tls.X25519},
		Certificates:           []tls.Certificate{p.cert},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true,
		NextProtos:             []string{"http/1.1"},
		SessionTicketsDisabled: true,

		DynamicRecordSizingDisabled: true,
	}
}

func identify(cs tls.ConnectionState) (piece.NodeID, [32]byte, error) {
	if len(cs.PeerCertificates) != 1 {
		return piece.NodeID{}, testRoom, errors.New("no certificate")
	}
	return piece.NodeID(cs.PeerCertificates[0].PublicKey.(ed25519.PublicKey)), testRoom, nil
}

// network is a listener that brings every connection through its handshake, and the
// way to it. It is made of pipes, or of loopback connections if it has a listener.
type network struct {
	server party
	layer  func(net.Conn) net.Conn // under the server's TLS
	l      net.Listener            // nil: pipes

	pipes  chan net.Conn
	closed chan struct{}
	once   sync.Once
	dials  atomic.Int32
}

func newNetwork(server party, layer func(net.Conn) net.Conn) *network {
	return &network{server: server, layer: layer, pipes: make(chan net.Conn), closed: make(chan struct{})}
}

func newLoopback(t testing.TB, server party, layer func(net.Conn) net.Conn) *network {
	t.Helper()
	n := newNetwork(server, layer)
	var err error
	if n.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *network) Accept() (net.Conn, error) {
	for {
		var c net.Conn
		var err error
		if n.l != nil {
			if c, err = n.l.Accept(); err != nil {
				return nil, err
			}
		} else {
			select {
			case c = <-n.pipes:
			case <-n.closed:
				return nil, net.ErrClosed
			}
		}
		if n.layer != nil {
			c = n.layer(c)
		}
		secure := tls.Server(c, n.server.config())
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if err := secure.Handshake(); err != nil {
			c.Close()
			continue
		}
		c.SetDeadline(time.Time{})
		return secure, nil
	}
}

func (n *network) Close() error {
	n.once.Do(func() { close(n.closed) })
	if n.l != nil {
		return n.l.Close()
	}
	return nil
}

func (n *network) Addr() net.Addr {
	if n.l != nil {
		return n.l.Addr()
	}
	return &net.UnixAddr{Name: "pipe"}
}

// raw connects without TLS.
func (n *network) raw(ctx context.Context) (net.Conn, error) {
	if n.l != nil {
		return new(net.Dialer).DialContext(ctx, "tcp", n.l.Addr().String())
	}
	a, b := net.Pipe()
	select {
	case n.pipes <- b:
		return a, nil
	case <-n.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// dialAs returns a Dial for a member.
func (n *network) dialAs(p party) Dial {
	return func(ctx context.Context, _ string, id piece.NodeID) (net.Conn, error) {
		n.dials.Add(1)
		c, err := n.raw(ctx)
		if err != nil {
			return nil, err
		}
		secure := tls.Client(c, p.config())
		if err := secure.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, err
		}
		if got, _, err := identify(secure.ConnectionState()); err != nil || got != id {
			c.Close()
			return nil, fmt.Errorf("it is %v: %w", got, err)
		}
		return secure, nil
	}
}

// file is a Backend that holds a pool's file, all of it.
type file struct {
	layout piece.Layout
	data   []byte
	sums   []piece.Digest
	admit  func(ctx context.Context, peer piece.NodeID, pieces []piece.Index) error // nil: at once

	manifests map[[32]byte]Manifest

	mu   sync.Mutex
	open int
	sent int64
}

func newFile(size, pieceLength int64) *file {
	f := &file{layout: piece.Layout{Size: size, PieceLength: pieceLength}, data: make([]byte, size)}
	block := sha256.Sum256([]byte("seed"))
	for at := 0; at < len(f.data); {
		at += copy(f.data[at:], block[:])
		block = sha256.Sum256(block[:])
	}
	for i := range piece.Index(f.layout.Count()) {
		r := f.layout.Range(i)
		f.sums = append(f.sums, f.layout.Sum(i, f.data[r.Start:r.End]))
	}
	return f
}

func (f *file) bytes(i piece.Index) []byte {
	r := f.layout.Range(i)
	return f.data[r.Start:r.End]
}

func (f *file) Admit(ctx context.Context, room [32]byte, peer piece.NodeID, pool swarm.PoolID, pieces []piece.Index) (Content, func(int64), error) {
	if room != testRoom || pool != testPool {
		return nil, nil, ErrNotHeld
	}
	for _, i := range pieces {
		if int(i) >= f.layout.Count() {
			return nil, nil, ErrNotHeld
		}
	}
	f.mu.Lock()
	f.open++
	f.mu.Unlock()
	if f.admit != nil {
		if err := f.admit(ctx, peer, pieces); err != nil {
			f.mu.Lock()
			f.open--
			f.mu.Unlock()
			return nil, nil, err
		}
	}
	return f, func(sent int64) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.open--
		f.sent += sent
	}, nil
}

func (f *file) Layout() piece.Layout { return f.layout }

func (f *file) ReadPiece(i piece.Index, buf []byte) ([]byte, error) {
	buf = buf[:copy(buf, f.bytes(i))]
	if f.layout.Sum(i, buf) != f.sums[i] {
		return nil, errors.New("damaged")
	}
	return buf, nil
}

// backend adds to a file what a Backend has beside a Content.
type backend struct{ *file }

func (b backend) Layout(room [32]byte, _ piece.NodeID, pool swarm.PoolID) (piece.Layout, error) {
	if room != testRoom || pool != testPool {
		return piece.Layout{}, ErrNotHeld
	}
	return b.file.layout, nil
}

func (b backend) Manifest(room [32]byte, _ piece.NodeID, infoHash [32]byte) (Manifest, error) {
	m, ok := b.file.manifests[infoHash]
	if !ok || room != testRoom {
		return Manifest{}, ErrNotHeld
	}
	return m, nil
}

// serve runs a server of f on n until the test has ended.
func serve(t testing.TB, f *file, n *network, o ServerOptions) (stop func()) {
	t.Helper()
	o.Identify = identify
	s := NewServer(backend{f}, o)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, n) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.conns) != 0 || len(s.count) != 0 {
			t.Errorf("after Serve %d connections of %d members are on the books", len(s.conns), len(s.count))
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.open != 0 {
			t.Errorf("%d requests were admitted and never ended", f.open)
		}
	})
	t.Cleanup(stop)
	return stop
}

func newTestClient(t testing.TB, n *network, p party, o ClientOptions) *Client {
	c := NewClient(n.dialAs(p), o)
	t.Cleanup(c.Close)
	return c
}

// collect fetches pieces and checks their bytes against f.
func collect(t testing.TB, c *Client, n *network, f *file, pieces ...piece.Index) error {
	t.Helper()
	at := 0
	err := c.Fetch(context.Background(), "there", n.server.id, testPool, f.layout, pieces, nil, func(i piece.Index, data []byte) error {
		if at >= len(pieces) || i != pieces[at] {
			t.Errorf("piece %d came as number %d of %v", i, at, pieces)
		}
		if !bytes.Equal(data, f.bytes(i)) {
			t.Errorf("piece %d has other bytes", i)
		}
		at++
		return nil
	})
	if err == nil && at != len(pieces) {
		t.Errorf("%d of %d pieces came", at, len(pieces))
	}
	return err
}
