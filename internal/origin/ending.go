package origin

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
)

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// watchEnds makes dial's connections remember that they ended.
func watchEnds(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &endConn{Conn: c}, nil
	}
}

// wrap puts around dial what every connection gets.
func (o *Options) wrap(dial dialFunc) dialFunc {
	if o.WrapDial != nil {
		dial = o.WrapDial(dial)
	}
	return watchEnds(dial)
}

// endConn remembers that its reader has come to its end. Package crypto/tls tells a
// connection that was closed by its alert (close_notify) and one that just ended between
// two records alike, for the sake of servers that send none. But it reads nothing after
// the alert, so that a reader which has met the end has not met the alert.
type endConn struct {
	net.Conn
	ended atomic.Bool
}

func (c *endConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, io.EOF) {
		c.ended.Store(true)
	}
	return n, err
}

// note keeps the connection of an exchange, for cut.
func (x *exchange) note(conn net.Conn) {
	secure, _ := conn.(*tls.Conn)
	x.secure.Store(secure)
}

// cut reports whether a body that ended where its connection did was cut off: anybody on
// the way can end a connection, but only who holds its keys can close it as TLS wants.
// Within a secure connection to a proxy nobody can tell, and it is taken for cut off.
func (x *exchange) cut() bool {
	secure := x.secure.Load()
	if secure == nil {
		return false
	}
	c, known := secure.NetConn().(*endConn)
	return !known || c.ended.Load()
}
