package origintest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Network is a network in memory, for tests in a bubble of testing/synctest: there the
// clock stands still while a real socket is waited for, and jumps while one of these
// is. Its connections hold windowSize bytes under way in each direction, keep to
// deadlines, are closed by one side at a time, and break when they are reset.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*memListener
	port      int
}

// windowSize is small enough that a client's leaving is noticed.
const windowSize = 64 << 10

// Listen listens on host:port; port 0 takes a free one. It has the form of
// net.ListenConfig.Listen.
func (n *Network) Listen(_ context.Context, _, addr string) (net.Listener, error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if port == 0 {
		n.port++
		port = 20_000 + n.port
	}
	addr = net.JoinHostPort(host, strconv.Itoa(port))
	if n.listeners[addr] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: syscall.EADDRINUSE}
	}
	ip := net.ParseIP(host)
	if ip == nil {
		ip = net.IPv4(127, 0, 0, 1)
	}
	l := &memListener{
		net: n, key: addr, addr: &net.TCPAddr{IP: ip, Port: port},
		queue: make(chan net.Conn, maxConns), done: make(chan struct{}),
	}
	if n.listeners == nil {
		n.listeners = make(map[string]*memListener)
	}
	n.listeners[addr] = l
	return l, nil
}

// Dial connects to who listens on addr. It has the form of net.Dialer.DialContext.
func (n *Network) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[addr]
	n.port++
	from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 20_000 + n.port}
	n.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	if l == nil {
		return nil, refused
	}
	near, far := pipe(from, l.addr)
	select {
	case l.queue <- far:
		return near, nil
	case <-l.done:
		return nil, refused
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
	}
}

type memListener struct {
	net   *Network
	key   string
	addr  *net.TCPAddr
	queue chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.net.mu.Lock()
		delete(l.net.listeners, l.key)
		l.net.mu.Unlock()
		for {
			select {
			case c := <-l.queue:
				c.Close()
			default:
				return
			}
		}
	})
	return nil
}

func (l *memListener) Addr() net.Addr { return l.addr }

// pipe returns the two ends of a connection.
func pipe(client, server *net.TCPAddr) (near, far *memConn) {
	up, down := newFlow(), newFlow()
	return &memConn{in: down, out: up, local: client, remote: server}, &memConn{in: up, out: down, local: server, remote: client}
}

// flow is one direction of a connection.
type flow struct {
	mu     sync.Mutex
	moved  *sync.Cond // anything below has changed, or a deadline has passed
	buf    []byte
	err    error // of reads, once buf is empty; nil while the writer is there
	reset  bool  // buf is lost
	gone   bool  // nobody reads any more
	read   deadline
	write  deadline
	closed bool // by the reader's own Close
}

// deadline is when waiting for a flow ends.
type deadline struct {
	timer  *time.Timer
	passed bool
}

func newFlow() *flow {
	f := &flow{}
	f.moved = sync.NewCond(&f.mu)
	return f
}

func (f *flow) set(d *deadline, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.passed = false
	if !at.IsZero() {
		if wait := time.Until(at); wait <= 0 {
			d.passed = true
		} else {
			var timer *time.Timer
			timer = time.AfterFunc(wait, func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				if d.timer == timer {
					d.passed = true
					f.moved.Broadcast()
				}
			})
			d.timer = timer
		}
	}
	f.moved.Broadcast()
}

func (f *flow) take(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.closed:
			return 0, net.ErrClosed
		case f.read.passed:
			return 0, os.ErrDeadlineExceeded
		case f.reset:
			return 0, os.NewSyscallError("read", syscall.ECONNRESET)
		case len(f.buf) > 0 || len(p) == 0:
			n := copy(p, f.buf)
			f.buf = f.buf[n:]
			f.moved.Broadcast()
			return n, nil
		case f.err != nil:
			return 0, f.err
		}
		f.moved.Wait()
	}
}

func (f *flow) put(p []byte) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(p) > 0 {
		switch {
		case f.err != nil:
			return n, net.ErrClosed
		case f.write.passed:
			return n, os.ErrDeadlineExceeded
		case f.gone || f.reset:
			return n, os.NewSyscallError("write", syscall.EPIPE)
		case len(f.buf) < windowSize:
			k := min(len(p), windowSize-len(f.buf))
			f.buf = append(f.buf, p[:k]...)
			p = p[k:]
			n += k
			f.moved.Broadcast()
			continue
		}
		f.moved.Wait()
	}
	return n, nil
}

// end is what the writer (or with gone, the reader) leaves behind.
func (f *flow) end(err error, gone, reset bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil && f.err == nil {
		f.err = err
	}
	f.gone = f.gone || gone
	f.closed = f.closed || gone
	if reset {
		f.reset, f.buf = true, nil
	}
	for _, d := range []*deadline{&f.read, &f.write} {
		if d.timer != nil && f.err != nil && f.gone {
			d.timer.Stop()
			d.timer = nil
		}
	}
	f.moved.Broadcast()
}

type memConn struct {
	in, out       *flow
	local, remote *net.TCPAddr
}

func (c *memConn) wrap(op string, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

func (c *memConn) Read(p []byte) (int, error) {
	n, err := c.in.take(p)
	return n, c.wrap("read", err)
}

func (c *memConn) Write(p []byte) (int, error) {
	n, err := c.out.put(p)
	return n, c.wrap("write", err)
}

func (c *memConn) Close() error {
	c.out.end(io.EOF, false, false)
	c.in.end(nil, true, false)
	return nil
}

// Abort closes the connection as a TCP reset does: what is under way is lost.
func (c *memConn) Abort() {
	c.out.end(io.EOF, false, true)
	c.in.end(nil, true, true)
}

func (c *memConn) LocalAddr() net.Addr  { return c.local }
func (c *memConn) RemoteAddr() net.Addr { return c.remote }

func (c *memConn) SetDeadline(at time.Time) error {
	c.in.set(&c.in.read, at)
	c.out.set(&c.out.write, at)
	return nil
}

func (c *memConn) SetReadDeadline(at time.Time) error {
	c.in.set(&c.in.read, at)
	return nil
}

func (c *memConn) SetWriteDeadline(at time.Time) error {
	c.out.set(&c.out.write, at)
	return nil
}

func (c *memConn) String() string { return fmt.Sprintf("%v -> %v", c.local, c.remote) }
