package origin

import (
	"context"
	"net"
	"sync"
	"time"
)

// A slow line behind a short path is easily overrun: the sender fills the queue before
// the line's end within a fraction of a millisecond, a good part of it is dropped and
// sent again. Measured with nginx and BBR over a line of 4 Mbit/s and a queue of 60 ms:
// the origin sent 1.09 times the file with one connection and 1.26 times with two; with
// a receive buffer of 16 KiB, 1.01 times, and not later. So a connection begins with a
// small receive buffer, and the system's own tuning takes over as soon as the path is
// seen to be long or the line to be fast.
const (
	smallBuffer = 16 << 10

	// On a path of longPath or more, a small window would cost time at once; what the
	// sender has under way is then spread over the path anyway.
	longPath = 5 * time.Millisecond

	// A connection that brings fastLine bytes a second needs a larger window, and its
	// line is drained faster than it can be overrun.
	fastLine = 2 << 20

	// measureTime is how long a connection's speed is looked at.
	measureTime = 100 * time.Millisecond
)

// dialGently dials with a small receive buffer where the system lets it grow later.
func dialGently(d *net.Dialer) func(ctx context.Context, network, addr string) (net.Conn, error) {
	if !canUnlock {
		return d.DialContext
	}
	gentle := *d
	gentle.ControlContext = setSmallBuffer
	// The shortest round trip to each address: a later connection's handshake waits
	// behind what the first ones have under way, which makes a short path look long.
	var mu sync.Mutex
	shortest := make(map[string]time.Duration)
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := gentle.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		tcp, ok := c.(*net.TCPConn)
		if !ok {
			return c, nil
		}
		rtt := roundTrip(tcp)
		mu.Lock()
		if old, known := shortest[addr]; known {
			rtt = min(rtt, old)
		}
		shortest[addr] = rtt
		mu.Unlock()
		if rtt >= longPath || rtt == 0 {
			unlock(tcp)
			return c, nil
		}
		return &gentleConn{TCPConn: tcp}, nil
	}
}

// gentleConn has a small receive buffer until its line shows to be fast. Only one
// goroutine reads it.
type gentleConn struct {
	*net.TCPConn
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
		if int64(c.bytes)*int64(time.Second)/int64(age) >= fastLine {
			c.grown = true
			unlock(c.TCPConn)
		}
		c.since, c.bytes = now, 0
	}
}
