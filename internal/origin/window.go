package origin

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"
)

// A slow line behind a short path is easily overrun: the sender fills the queue before
// the line's end within a fraction of a millisecond, a good part of it is dropped and
// sent again. Measured with nginx and BBR over a line of 4 Mbit/s and a queue of 60 ms:
// the origin sent 1.09 times the file with one connection and 1.26 times with two; with
// receive buffers of about 16 KiB, 1.01 times, and not later. So a connection begins with a
// small receive buffer, and the system's own tuning takes over as soon as the path is
// seen to be long or the line to be fast.
const (
	// firstBuffer is what the first connection begins with (the system makes windows of
	// about one and a half times that). Further ones get less, since what matters is
	// what all of them may have under way.
	firstBuffer  = 12 << 10
	secondBuffer = 12 << 10
	thirdBuffer  = 10 << 10
	leastBuffer  = 8 << 10

	// On a path of longPath or more, a small window would cost time at once; what the
	// sender has under way is then spread over the path anyway.
	longPath = 20 * time.Millisecond

	// A connection that brings fastLine bytes a second needs a larger window, and its
	// line is drained faster than it can be overrun.
	fastLine = 2 << 20

	// measureTime is how long a connection's speed is looked at.
	measureTime = 100 * time.Millisecond
)

// gentle makes connections with small receive buffers.
type gentle struct {
	dialer net.Dialer

	mu sync.Mutex
	// shortest is the shortest round trip to each address: a later connection's
	// handshake waits behind what the first ones have under way, which makes a short
	// path look long.
	shortest map[string]time.Duration
	small    int // connections that have a small buffer now
}

// dialGently dials with a small receive buffer where the system lets it grow later.
func dialGently(d net.Dialer) func(ctx context.Context, network, addr string) (net.Conn, error) {
	if !canUnlock {
		return d.DialContext
	}
	g := &gentle{dialer: d, shortest: make(map[string]time.Duration)}
	return g.dial
}

func (g *gentle) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	g.mu.Lock()
	g.small++
	size := [...]int{firstBuffer, secondBuffer, thirdBuffer, leastBuffer}[min(g.small-1, 3)]
	g.mu.Unlock()
	d := g.dialer
	d.ControlContext = func(ctx context.Context, network, address string, raw syscall.RawConn) error {
		if before := g.dialer.ControlContext; before != nil {
			if err := before(ctx, network, address, raw); err != nil {
				return err
			}
		}
		return setReceiveBuffer(network, raw, size)
	}
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		g.done()
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		g.done()
		return c, nil
	}
	rtt := roundTrip(tcp)
	g.mu.Lock()
	if old, known := g.shortest[addr]; known {
		rtt = min(rtt, old)
	}
	g.shortest[addr] = rtt
	g.mu.Unlock()
	if rtt >= longPath || rtt == 0 {
		g.done()
		unlock(tcp)
		return c, nil
	}
	return &gentleConn{TCPConn: tcp, g: g, rtt: rtt, size: size}, nil
}

// done notes that a connection is closed or not small any more.
func (g *gentle) done() {
	g.mu.Lock()
	g.small--
	g.mu.Unlock()
}

// gentleConn has a small receive buffer until its line shows to be fast, or its path
// long enough for the small window to be what limits it. Only one goroutine reads it.
type gentleConn struct {
	*net.TCPConn
	g     *gentle
	once  sync.Once // guards g.done
	rtt   time.Duration
	size  int // of the buffer
	grown bool
	since time.Time
	bytes int
}

func (c *gentleConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if !c.grown && n > 0 {
		c.measure(n)
	}
	return n, err
}

func (c *gentleConn) Close() error {
	c.once.Do(c.g.done)
	return c.TCPConn.Close()
}

func (c *gentleConn) measure(n int) {
	now := time.Now()
	age := now.Sub(c.since)
	if age > 2*measureTime {
		// Nothing was under way for a while, or the count is old: begin again.
		c.since, c.bytes = now, 0
		return
	}
	c.bytes += n
	if age >= measureTime {
		fast := int64(c.bytes)*int64(time.Second)/int64(age) >= fastLine
		// A window's worth in each round trip is all that the window lets through.
		limited := int64(c.bytes) >= int64(age/c.rtt)*int64(c.size)/2
		if fast || limited {
			c.grown = true
			c.once.Do(c.g.done)
			unlock(c.TCPConn)
		}
		c.since, c.bytes = now, 0
	}
}
