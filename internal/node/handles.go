package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// leastFiles is kept back for files: the journal, the file of a download, its folder,
	// the listeners, what resolving a name takes.
	leastFiles = 16

	// mostHandles is as much as is shared out where the system allows more, or names no
	// number.
	mostHandles = 1 << 16

	handlesAgain = 100 * time.Millisecond // between tries to connect when the system has none left
)

// errNoHandle: there was no place for a connection in time.
var errNoHandle = errors.New("too many connections are open")

// handles shares out what the system lets this process have open (RLIMIT_NOFILE, which
// Go raises to its hard limit when the process starts), so that no kind of connection
// takes what another one, or a file, needs. What has no place waits for one.
type handles struct {
	limit   int
	in      int     // connections of members to this node
	local   int     // connections of programs to the local API
	origin  *places // connections to origins
	data    *places // to members, for pieces
	control *places // to trackers, and streams to neighbours
}

// newHandles shares out limit handles; 0 where the system names no limit. short is called
// when a connection has to wait for a place.
func newHandles(limit int, short func()) *handles {
	if limit <= 0 || limit > mostHandles {
		limit = mostHandles
	}
	rest := max(limit-max(limit/4, leastFiles), 0)
	share := func(of24 int) int { return max(rest*of24/24, 1) }
	return &handles{
		limit: limit,
		in:    share(8), local: share(3),
		origin:  newPlaces(share(4), short),
		data:    newPlaces(share(6), short),
		control: newPlaces(share(3), short),
	}
}

// EnoughFiles returns an error if the system lets this process have so few files open
// that nothing of a node works, the Go runtime itself included.
func EnoughFiles() error {
	if n := openLimit(); n > 0 && n < leastFiles {
		return noHandleProblem(fmt.Errorf("the system allows no more than %d, and %d are the least", n, leastFiles))
	}
	return nil
}

// originConnections returns how many connections to its origin a download has use for,
// wanted being what its user says; 0 for as many as seem good.
func (h *handles) originConnections(wanted int) int {
	n := cap(h.origin.taken)
	if wanted == 0 && n >= 8 {
		return 0
	}
	return min(cmp.Or(wanted, n), n)
}

// places is room for so many connections.
type places struct {
	taken chan struct{}
	short func()
}

func newPlaces(n int, short func()) *places {
	return &places{taken: make(chan struct{}, n), short: short}
}

// dialFunc is the form of net.Dialer.DialContext.
type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// bound makes dial wait for a place, which the connection gives back when it is closed.
// That the system has no handle left counts as no place.
func (p *places) bound(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if err := p.enter(ctx); err != nil {
			return nil, &net.OpError{Op: "dial", Net: network, Err: err}
		}
		for {
			c, err := dial(ctx, network, addr)
			if err == nil {
				return &placedConn{Conn: c, places: p}, nil
			}
			if !isNoHandle(err) {
				<-p.taken
				return nil, err
			}
			p.short()
			select {
			case <-time.After(handlesAgain):
			case <-ctx.Done():
				<-p.taken
				return nil, err
			}
		}
	}
}

func (p *places) enter(ctx context.Context) error {
	select {
	case p.taken <- struct{}{}:
		return nil
	default:
	}
	p.short()
	select {
	case p.taken <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errNoHandle
	}
}

// placedConn gives its place back once it is closed.
type placedConn struct {
	net.Conn
	places *places
	once   sync.Once
}

// NetConn returns the connection itself, for who needs the socket.
func (c *placedConn) NetConn() net.Conn { return c.Conn }

func (c *placedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.places.taken })
	return err
}

// isNoHandle knows the system's word for that a process, or all of them, have as many
// files and connections open as they may. 10024 is WSAEMFILE, which package syscall does
// not name; no other system has an error of that number.
func isNoHandle(err error) bool {
	var errno syscall.Errno
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.As(err, &errno) && errno == 10024
}

// noHandleProblem is how a download, or the node, ends that cannot open what it needs.
func noHandleProblem(err error) *Error {
	return problem("no-handles", ExitFile, fmt.Errorf(
		"too many files and connections are open: %w; raise the limit (ulimit -n), or try again when other downloads have ended", err))
}

// shortOfHandles: a connection waits for a place. What is open and idle is closed, and
// the users of downloads are told.
func (n *Node) shortOfHandles() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range n.running {
		if d.wasShort.CompareAndSwap(false, true) {
			d.inbox.do(d.tellShort)
		}
		d.hangUp()
	}
}

// tellShort belongs to the loop.
func (d *download) tellShort() {
	if d.saved == nil && d.lent == nil {
		d.warn("no-handles", fmt.Sprintf("too many connections are open for the %d files that the system lets this program have (ulimit -n); new ones wait until others end, and the download goes on more slowly",
			d.node.handles.limit))
	}
}
