package node

import (
	"context"
	"net"
	"syscall"
	"time"
)

// Network makes all connections of a node, to origins, members and trackers, and takes
// those of members. Its methods are like those of net.Dialer and net.ListenConfig. The
// local API does without it.
type Network interface {
	Dial(ctx context.Context, network, addr string) (net.Conn, error)
	Listen(ctx context.Context, network, addr string) (net.Listener, error)
}

// unansweredFor is after how long a connection is given up whose other end answers
// nothing, neither to what was sent nor, where nothing is, to the system's own questions.
// (Sessions with trackers and streams between members have signs of life of their own and
// are given up after 3 s.)
const unansweredFor = 30 * time.Second

var keepAlive = net.KeepAliveConfig{Enable: true, Idle: unansweredFor / 3, Interval: unansweredFor / 6, Count: 4}

// systemNetwork is the Network of a node whose Options name none.
type systemNetwork struct{}

func (systemNetwork) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return (&net.Dialer{KeepAliveConfig: keepAlive, Control: control}).DialContext(ctx, network, addr)
}

func (systemNetwork) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	l, err := (&net.ListenConfig{KeepAliveConfig: keepAlive}).Listen(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return listener{l}, nil
}

// listener limits what the connections that it takes may leave unanswered: not every
// system lets them have that from the listening socket.
type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok && err == nil {
		if raw, err := tcp.SyscallConn(); err == nil {
			_ = raw.Control(limitUnanswered) // a connection that has gone since is met when it is read
		}
	}
	return c, err
}

func control(_, _ string, raw syscall.RawConn) error {
	return raw.Control(limitUnanswered)
}
