package node_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"dragonload/internal/node"
)

// counted is a network that counts the connections that one node has open, and lets it
// have no more than limit.
type counted struct {
	node.Network
	limit int

	mu         sync.Mutex
	open, most int
	refused    int
}

func (n *counted) enter() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open >= n.limit {
		n.refused++
		return false
	}
	n.open++
	n.most = max(n.most, n.open)
	return true
}

func (n *counted) leave() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open--
}

func (n *counted) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if !n.enter() {
		return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("socket", syscall.EMFILE)}
	}
	c, err := n.Network.Dial(ctx, network, addr)
	if err != nil {
		n.leave()
		return nil, err
	}
	return &countedConn{Conn: c, net: n}, nil
}

func (n *counted) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	l, err := n.Network.Listen(ctx, network, addr)
	return countedListener{l, n}, err
}

type countedListener struct {
	net.Listener
	net *counted
}

func (l countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if !l.net.enter() {
		c.Close()
		return nil, os.NewSyscallError("accept", syscall.EMFILE)
	}
	return &countedConn{Conn: c, net: l.net}, nil
}

type countedConn struct {
	net.Conn
	net  *counted
	once sync.Once
}

func (c *countedConn) Close() error {
	c.once.Do(c.net.leave)
	return c.Conn.Close()
}

func TestFault38HandlesAreShared(t *testing.T) {
	t.Parallel()
	t.Run("many downloads", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 4<<20)
			network := &counted{Network: w.network, limit: 1000}
			n := start(t, node.Options{Network: network, OpenFiles: 40})
			var runs []*run
			for k := range 5 {
				spec := w.spec(t)
				spec.Room, spec.URL = "", spec.URL+"?"+strconv.Itoa(k)
				spec.LimitRate = 1 << 20
				runs = append(runs, download(t, t.Context(), n, spec))
			}
			for _, r := range runs {
				w.ends(t, r)
			}
			if network.most > 4 { // a sixth of what is not kept back
				t.Errorf("%d connections were open at once", network.most)
			}
			if !slices.ContainsFunc(runs, func(r *run) bool { return slices.Contains(r.warnings(), "no-handles") }) {
				t.Error("connections had to wait, and nobody was told")
			}
		})
	})
	// The bounds hold in a room; where the system has less than it said, connections wait
	// for it.
	for _, limit := range []int{1000, 5} {
		t.Run(fmt.Sprintf("a room, %d handles", limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 4<<20)
				w.run()
				var networks []*counted
				var runs []*run
				for k := range 4 {
					m := w.join("member-" + strconv.Itoa(k))
					network := &counted{Network: w.network, limit: limit}
					networks = append(networks, network)
					o := m.options()
					o.Network, o.OpenFiles = network, 48
					spec := w.spec(t)
					spec.Dir = filepath.Join(spec.Dir, strconv.Itoa(k))
					if err := os.Mkdir(spec.Dir, 0o755); err != nil {
						t.Fatal(err)
					}
					runs = append(runs, download(t, t.Context(), start(t, o), spec))
				}
				began := time.Now()
				for _, r := range runs {
					w.ends(t, r)
				}
				if took := time.Since(began); took > 5*time.Minute {
					t.Errorf("it took %v", took)
				}
				refused := 0
				for _, n := range networks {
					if n.most > 48-16 {
						t.Errorf("%d connections were open at once", n.most)
					}
					refused += n.refused
				}
				if limit < 48 && refused == 0 {
					t.Error("no connection was refused: nothing was tried")
				}
			})
		})
	}
}
