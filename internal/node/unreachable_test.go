package node_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"dragonload/internal/node"
	nodev1 "dragonload/internal/rpc/gen/dragonload/node/v1"
	"dragonload/internal/share"
)

// deaf is a network in which a machine can be made to answer nobody, though what it has
// dialled itself stays.
type deaf struct {
	mu    sync.Mutex
	is    bool
	conns []net.Conn
}

func (d *deaf) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, addr)
}

func (d *deaf) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, network, addr)
	return deafListener{l, d}, err
}

type deafListener struct {
	net.Listener
	of *deaf
}

func (l deafListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	if l.of.conns = append(l.of.conns, conn); l.of.is {
		_ = conn.Close()
	}
	return conn, nil
}

func (d *deaf) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.is = true
	for _, conn := range d.conns {
		_ = conn.Close()
	}
}

// A holder that answers nobody any more is reported by who was fetching from it, while its
// own connection to the tracker stands, and dropped.
func TestUnreachable_aHolderThatFailsLaterIsReported(t *testing.T) {
	t.Parallel()
	b := newLab(t)
	b.listens()
	up := b.run()
	m, network := b.join("holder"), &deaf{}
	o := m.options()
	o.KeepServing, o.Serve, o.Network = true, true, network
	holder := start(t, o)
	path := filepath.Join(t.TempDir(), "film.mkv")
	if err := os.WriteFile(path, fileOf(8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := holder.Share(t.Context(), share.Spec{Path: path, Room: "lab"}, func(*nodev1.ShareEvent) {})
	if err != nil {
		t.Fatal(err)
	}
	id := m.folder.Identity().ID
	b.wait(func(h heard) bool { return h.from == id && h.what == "publish" })

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	spec := node.Spec{
		ManifestID: s.Manifest.String(), Room: "lab", Dir: t.TempDir(), LimitRate: 2 << 20,
		Timeout: 20 * time.Second, ConnectTimeout: 10 * time.Second, GiveUpAfter: time.Minute,
	}
	r := download(t, ctx, start(t, b.join("getter").options()), spec)
	r.until(t, 1<<20)
	network.begin()
	b.wait(func(h heard) bool { return h.from == id && h.what == "drop" })
	finds(t, up, "film")
	cancel()
	r.failure(t, node.ExitStopped)
}
