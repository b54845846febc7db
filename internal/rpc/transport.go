package rpc

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"
)

const (
	// A member that loses its tracker's host, and a tracker that loses a member's,
	// must know within 3 s: an HTTP/2 ping goes out after pingAfter without a frame
	// and must be answered within pingWithin.
	pingAfter  = 800 * time.Millisecond
	pingWithin = 2 * time.Second

	dialTimeout = 5 * time.Second
)

// Ping is for both ends of the control plane: with it an end notices within 3 s that
// the other's host is gone.
func Ping(c *http.HTTP2Config) *http.HTTP2Config {
	c.SendPingTimeout, c.PingTimeout = pingAfter, pingWithin
	return c
}

// DialFunc opens a connection, like net.Dialer.DialContext.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// HandlerOptions are the Connect options of every service here: bounded messages and
// no compression, for what is sent is small, or bits that do not shrink, and a
// compressed message may grow without bound.
func HandlerOptions() connect.HandlerOption {
	return connect.WithHandlerOptions(
		connect.WithReadMaxBytes(MaxMessage),
		connect.WithCompression("gzip", nil, nil),
	)
}

func clientOptions() connect.ClientOption {
	return connect.WithClientOptions(
		connect.WithReadMaxBytes(MaxMessage),
		connect.WithAcceptCompression("gzip", nil, nil),
	)
}

// dialTLS returns a dialler that makes TLS connections exactly by cfg, so that
// net/http neither adds a server name nor a protocol of its own.
func dialTLS(dial DialFunc, cfg *tls.Config) DialFunc {
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	return func(ctx context.Context, _, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		conn, err := DialTLS(ctx, dial, cfg, addr)
		if err != nil {
			return nil, err // no *tls.Conn, not even a nil one
		}
		return conn, nil
	}
}

// DialTLS connects to addr and completes the handshake that cfg describes.
func DialTLS(ctx context.Context, dial DialFunc, cfg *tls.Config, addr string) (*tls.Conn, error) {
	raw, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
