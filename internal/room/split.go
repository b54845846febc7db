package room

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// SplitOptions are the bounds of a Splitter; zero fields take the defaults named here.
type SplitOptions struct {
	// Wrap, if set, puts a layer between the connection and TLS, for all protocols.
	// tls.Conn.NetConn returns what it returned.
	Wrap func(net.Conn) net.Conn
	// Log gets why connections were closed, at debug level; nil is nowhere.
	Log *slog.Logger

	// HandshakeTimeout is within which a connection must be ready and taken by Accept;
	// 10 s.
	HandshakeTimeout time.Duration
	// MaxHandshakes and MaxPerAddress bound how many connections may be in their
	// handshake at once, in all (256) and from one address (64; of IPv6, one /64).
	// Beyond, the oldest of the same address, or of the one with the most, is closed.
	MaxHandshakes, MaxPerAddress int
	// MaxJoins and MaxJoinsPerAddress bound how many connections of nodes that are not
	// members yet may be open at once: 128 and 64.
	MaxJoins, MaxJoinsPerAddress int
	// MaxConns bounds how many connections may be open at once, from their handshake to
	// their end; 0 is no bound. Beyond, a new one is closed at once.
	MaxConns int
}

func (o SplitOptions) withDefaults() SplitOptions {
	if o.HandshakeTimeout == 0 {
		o.HandshakeTimeout = 10 * time.Second
	}
	for _, d := range []struct {
		field *int
		value int
	}{{&o.MaxHandshakes, 256}, {&o.MaxPerAddress, 64}, {&o.MaxJoins, 128}, {&o.MaxJoinsPerAddress, 64}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Splitter turns one listener into one for each protocol, by the ALPN that TLS has
// agreed on. Handshakes run beside each other and never hold up Accept. What does not
// complete one, other programs and random bytes included, is closed without a word.
type Splitter struct {
	l       net.Listener
	cfg     *tls.Config
	o       SplitOptions
	outlets map[string]*outlet

	ctx    context.Context // ends handshakes; only a Splitter's own Close ends it
	cancel context.CancelFunc
	wg     sync.WaitGroup

	handshakes *handshakes
	joins      *gate
	open       *gate // all of them
}

// Split starts splitting a listener (of plain connections) by protos. It owns the
// listener from here on; Close ends it.
func Split(l net.Listener, cfg *tls.Config, o SplitOptions, protos ...string) *Splitter {
	o = o.withDefaults()
	s := &Splitter{
		l: l, cfg: cfg, o: o,
		outlets:    make(map[string]*outlet),
		handshakes: newHandshakes(o.MaxHandshakes, o.MaxPerAddress),
		joins:      newGate(o.MaxJoins, o.MaxJoinsPerAddress),
		open:       newGate(o.MaxConns, o.MaxConns),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for _, proto := range protos {
		s.outlets[proto] = &outlet{addr: l.Addr(), conns: make(chan *tls.Conn), closed: make(chan struct{})}
	}
	s.wg.Go(s.accept)
	return s
}

// Listener returns the listener of a protocol that was named to Split, nil for others.
// Its connections are *tls.Conn whose handshake is done. Closing it closes what still
// comes for that protocol, and nothing else.
func (s *Splitter) Listener(proto string) net.Listener {
	if out, ok := s.outlets[proto]; ok {
		return out
	}
	return nil
}

// Close closes the listener, every connection that no Accept has taken and the
// listeners of the protocols, and waits until nothing of it runs any more. It may be
// called more than once.
func (s *Splitter) Close() error {
	s.cancel()
	err := s.l.Close()
	for _, out := range s.outlets {
		out.end(net.ErrClosed)
	}
	s.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// accept takes connections until the listener ends. Running out of files is no
// reason to end: it waits, longer each time, until some are given back.
func (s *Splitter) accept() {
	const maxWait = time.Second
	wait := 5 * time.Millisecond
	for {
		conn, err := s.l.Accept()
		if err == nil {
			wait = 5 * time.Millisecond
			s.begin(conn)
			continue
		}
		if s.ctx.Err() != nil {
			return
		}
		if errors.Is(err, net.ErrClosed) {
			for _, out := range s.outlets {
				out.end(err)
			}
			return
		}
		s.o.Log.Warn("accept connection", "error", err, "again_in", wait)
		select {
		case <-time.After(wait):
			wait = min(2*wait, maxWait)
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *Splitter) begin(conn net.Conn) {
	from := sourceOf(conn.RemoteAddr())
	counted := &countedConn{Conn: conn}
	if !s.open.enter(from) {
		conn.Close()
		s.o.Log.Warn("connection refused: too many are open", "from", from, "open", s.o.MaxConns)
		return
	}
	counted.onClose(func() { s.open.leave(from) })
	place := s.handshakes.enter(from, func() { _ = counted.Close() }) // it is over either way
	s.wg.Go(func() {
		defer s.handshakes.leave(place)
		if err := s.serve(counted, from); err != nil {
			s.o.Log.Debug("connection closed", "from", from, "error", err)
		}
	})
}

// serve brings one connection through its handshake to who waits for it; with an
// error it is closed.
func (s *Splitter) serve(conn *countedConn, from netip.Addr) (err error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.o.HandshakeTimeout)
	defer cancel()
	var lower net.Conn = conn
	if s.o.Wrap != nil {
		lower = s.o.Wrap(conn)
	}
	defer func() {
		if err != nil {
			lower.Close()
		}
	}()
	secure := tls.Server(lower, s.cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		if errors.Is(err, ErrNotMember) || errors.Is(err, ErrRemoved) {
			drain(conn)
		}
		return err
	}
	proto := secure.ConnectionState().NegotiatedProtocol
	out := s.outlets[proto]
	if out == nil {
		return errors.New("no protocol agreed on")
	}
	if proto == ALPNJoin {
		// Whoever it is has proved nothing yet: it counts until it is gone.
		if !s.joins.enter(from) {
			return errors.New("too many nodes are joining")
		}
		conn.onClose(func() { s.joins.leave(from) })
	}
	select {
	case out.conns <- secure:
		return nil
	case <-out.closed:
		return net.ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// drain reads on for a moment after this side has ended what it says. A client in TLS
// 1.3 sends its first request before it can know that its certificate was refused;
// closing on that unread would reset the connection and lose the alert that says why.
func drain(conn *countedConn) {
	half, ok := conn.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || conn.SetReadDeadline(time.Now().Add(300*time.Millisecond)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, conn, 64<<10) // whatever comes, it is not looked at
}

// outlet is the listener of one protocol.
type outlet struct {
	addr   net.Addr
	conns  chan *tls.Conn // unbuffered: what is in nobody's hands is never forgotten
	once   sync.Once
	closed chan struct{}
	err    error // set before closed is closed
}

func (o *outlet) Accept() (net.Conn, error) {
	select {
	case c := <-o.conns:
		return c, nil
	case <-o.closed:
		return nil, o.err
	}
}

func (o *outlet) Close() error {
	o.end(net.ErrClosed)
	return nil
}

func (o *outlet) end(err error) {
	o.once.Do(func() {
		o.err = err
		close(o.closed)
	})
}

func (o *outlet) Addr() net.Addr { return o.addr }

// countedConn is a connection that tells when it is closed.
type countedConn struct {
	net.Conn
	mu     sync.Mutex
	gone   bool
	closed []func()
}

// NetConn returns the connection itself, for who needs the socket.
func (c *countedConn) NetConn() net.Conn { return c.Conn }

// onClose has f called once the connection is closed, at once if it is already.
func (c *countedConn) onClose(f func()) {
	c.mu.Lock()
	gone := c.gone
	if !gone {
		c.closed = append(c.closed, f)
	}
	c.mu.Unlock()
	if gone {
		f()
	}
}

func (c *countedConn) Close() error {
	c.mu.Lock()
	told := c.closed
	c.gone, c.closed = true, nil
	c.mu.Unlock()
	err := c.Conn.Close()
	for _, f := range told {
		f()
	}
	return err
}

// gate bounds how many are inside, in all and from one source; limits of 0 are none.
type gate struct {
	limit, perSource int

	mu     sync.Mutex
	inside int
	from   map[netip.Addr]int
}

func newGate(limit, perSource int) *gate {
	return &gate{limit: limit, perSource: perSource, from: make(map[netip.Addr]int)}
}

func (g *gate) enter(source netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limit > 0 && (g.inside >= g.limit || g.from[source] >= g.perSource) {
		return false
	}
	g.inside++
	g.from[source]++
	return true
}

func (g *gate) leave(source netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.from[source]--; g.from[source] == 0 {
		delete(g.from, source)
	}
}

// sourceOf returns whom a connection is counted for: an IPv4 address, or the /64 that
// an IPv6 address is in, since one host has all of it. Others count together.
func sourceOf(addr net.Addr) netip.Addr {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	if ip.Is6() {
		if network, err := ip.Prefix(64); err == nil {
			return network.Addr()
		}
	}
	return ip
}
