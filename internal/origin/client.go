package origin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	defaultTimeout        = 20 * time.Second
	defaultConnectTimeout = 10 * time.Second
	// maxRequests bounds the requests open at a time where Options name no number.
	maxRequests = 16
	// readBuffer is what a connection reads ahead. Reads into larger buffers than this
	// go past it, so that a large body costs few system calls and no copy.
	readBuffer = 128 << 10
	// maxHeader bounds the header of an answer.
	maxHeader = 128 << 10
	// maxFile bounds the netrc, cookie and certificate files.
	maxFile = 4 << 20
)

// ErrClosed is what the requests of a closed Client end with, inside an Error.
var ErrClosed = errors.New("the origin client is closed")

// Options say what a Client fetches and how. URL alone is enough.
type Options struct {
	URL string // http or https; may hold user-info, which is then sent to its origin

	Header    http.Header // added to requests to the URL's own origin, and to no other
	UserAgent string      // sent to every host; "" means "dragonload"
	Netrc     string      // path of a netrc file; "" for none
	// NetrcNamed says that the URL is not of the user's own choice: it gets what the netrc
	// file has under its host's name, and nothing that stands there under default.
	NetrcNamed bool
	Cookies    string // path of a Netscape cookie file; "" for none
	Proxy      string // http, https, socks5 or socks5h URL; "" connects directly, whatever the environment says
	CACert     string // path of a PEM file, trusted besides the system's authorities

	Timeout        time.Duration // an origin that sends nothing, or less than a kilobyte, for so long is left; 0 means 20 s
	ConnectTimeout time.Duration // for resolving, connecting and TLS together; 0 means 10 s
	MaxConnections int           // requests open at a time, others wait; 0 means 16

	// Guard, if not nil, makes this a client that fetches for others. It sends nothing of
	// anybody's own: Header, UserAgent, Netrc, Cookies and DialContext must be unset,
	// and cookies that an origin sets are not returned.
	Guard *Guard

	Limiter *rate.Limiter // charged a token per body byte, in portions; nil for no limit
	Log     *slog.Logger  // nil for none

	// DialContext replaces the dialling of connections; nil means the net package's.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	// Rests returns for how long a server, named as in Error.Server, wants no requests: it is
	// asked before each, and each redirect. Nil: of none this is known.
	Rests func(server string) time.Duration
	// WrapDial is put around the dialling, DialContext's or any other; nil for none.
	WrapDial func(dial func(ctx context.Context, network, addr string) (net.Conn, error)) func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Client fetches one URL. Its methods may be called from many goroutines at a time.
//
// Each request starts at the URL itself until a chain of redirects has led to an
// answer that was accepted; requests after that go to the end of the chain directly,
// which saves a round trip per range and stays with one mirror. The first answer from
// there that is not accepted ends this; if waiting would not have mended it (a signed
// address that has run out, say), the same call asks the URL itself once more.
type Client struct {
	url    *url.URL // without user-info and fragment
	host   string   // for messages
	secret secrets
	agent  string

	timeout, connectTimeout time.Duration
	limiter                 *rate.Limiter
	log                     *slog.Logger
	transport               *http.Transport
	guard                   *Guard          // nil unless for others
	outer                   *http.Transport // with guard: for chains that have been outside; goes nowhere else
	proxy                   string          // host of the proxy, for messages; "" without one
	slots                   chan struct{}   // one token per open request
	rests                   func(server string) time.Duration

	life context.Context // ends with Close
	stop context.CancelCauseFunc

	lead *Client // of one that At has made: the client that keeps the pauses; else nil

	mu    sync.Mutex // guards what follows
	jar   jar
	via   *url.URL  // end of the redirects of the last accepted answer; nil: ask url
	far   bool      // with guard: they led outside
	seen  *known    // what the last accepted answer said of its version
	quiet time.Time // the origin asked for no request before this time
}

// New returns a Client for o.URL. It reads the files that o names and connects
// nowhere. Its errors are about bad options; they quote no secrets.
func New(o Options) (*Client, error) {
	c := &Client{
		agent:          o.UserAgent,
		timeout:        o.Timeout,
		connectTimeout: o.ConnectTimeout,
		limiter:        o.Limiter,
		log:            o.Log,
		rests:          o.Rests,
	}
	if c.agent == "" {
		c.agent = "dragonload"
	}
	if c.timeout <= 0 {
		c.timeout = defaultTimeout
	}
	if c.connectTimeout <= 0 {
		c.connectTimeout = defaultConnectTimeout
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	n := o.MaxConnections
	if n <= 0 {
		n = maxRequests
	}
	c.slots = make(chan struct{}, n)

	u, err := url.Parse(o.URL)
	// The parser's error quotes parts of the URL, which may be a password.
	if err != nil || u.Host == "" || u.Hostname() == "" || (u.Scheme != "http" && u.Scheme != "https") || !portExists(u) {
		return nil, errors.New("the source is not a valid http or https URL")
	}
	u.RawQuery = sendable(u.RawQuery)
	if o.Guard != nil {
		if err := o.checkGuarded(); err != nil {
			return nil, err
		}
		if u, err = o.Guard.admit(u); err != nil {
			return nil, err
		}
		c.guard = o.Guard
	}
	if c.secret, err = loadSecrets(o, u); err != nil {
		return nil, err
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	c.url, c.host = u, hostOf(u)
	if c.transport, err = c.newTransport(o); err != nil {
		return nil, err
	}
	if c.guard != nil && o.Proxy == "" {
		c.outer = c.transport.Clone()
		c.transport.DialContext = o.wrap(c.dialGuarded(false))
		c.outer.DialContext = o.wrap(c.dialGuarded(true))
	}
	c.life, c.stop = context.WithCancelCause(context.Background())
	return c, nil
}

// Close ends the requests that are still open and closes all connections.
func (c *Client) Close() {
	c.stop(ErrClosed)
	c.CloseIdle()
}

// CloseIdle closes the connections that no request uses.
func (c *Client) CloseIdle() {
	c.transport.CloseIdleConnections()
	if c.outer != nil {
		c.outer.CloseIdleConnections()
	}
}

// Redacted returns the URL without user-info, query and fragment: the form for logs,
// messages and screens.
func (c *Client) Redacted() string { return redact(c.url) }

// Host returns the URL's host for messages.
func (c *Client) Host() string { return c.host }

func redact(u *url.URL) string {
	bare := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	return bare.String()
}

func (c *Client) newTransport(o Options) (*http.Transport, error) {
	roots, err := loadRoots(o.CACert)
	if err != nil {
		return nil, err
	}
	t := &http.Transport{
		DialContext: o.DialContext,
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			RootCAs:            roots,
			ClientSessionCache: tls.NewLRUClientSessionCache(32),
		},
		TLSHandshakeTimeout:    c.connectTimeout,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{MaxReadFrameSize: 256 << 10, SendPingTimeout: c.timeout, PingTimeout: c.timeout},
		DisableCompression:     true,
		MaxIdleConns:           4 * cap(c.slots),
		MaxIdleConnsPerHost:    cap(c.slots),
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: maxHeader,
		ReadBufferSize:         readBuffer,
	}
	if t.DialContext == nil {
		t.DialContext = dialGently(net.Dialer{Timeout: c.connectTimeout, KeepAlive: 15 * time.Second})
	}
	t.DialContext = o.wrap(t.DialContext)
	if o.Proxy != "" {
		proxy, err := parseProxy(o.Proxy)
		if err != nil {
			return nil, err
		}
		c.proxy = hostOf(proxy)
		t.Proxy = http.ProxyURL(proxy)
		t.OnProxyConnectResponse = func(_ context.Context, _ *url.URL, _ *http.Request, res *http.Response) error {
			if res.StatusCode != http.StatusOK {
				return &proxyRefusal{res.StatusCode}
			}
			return nil
		}
	}
	return t, nil
}

// parseProxy reads a proxy's URL; one without a scheme is taken as http, as curl does.
func parseProxy(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" {
		return nil, errors.New("the proxy is not a valid URL")
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
		return u, nil
	}
	return nil, fmt.Errorf("the proxy's scheme %q is not one of http, https, socks5, socks5h", u.Scheme)
}

func loadRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil // the system's
	}
	pem, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read certificate file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's certificates: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("certificate file %s holds no certificate in PEM form", path)
	}
	return pool, nil
}

// readFile reads a file that a user named, if it is not absurdly large.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return os.ReadFile(path)
}

// start returns where the next request begins, and whether that is a short cut.
func (c *Client) start() (u *url.URL, shortCut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.via != nil {
		return c.via, true
	}
	return c.url, false
}

// pause returns for how long the origin still wants no request.
func (c *Client) pause() time.Duration {
	if c.lead != nil {
		return c.lead.pause()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Until(c.quiet)
}

// Hold keeps every request back for wait: the origin has asked somebody else for a
// pause. Requests that would go out before end with a Throttled error.
func (c *Client) Hold(wait time.Duration) { c.hold(min(wait, maxRetryAfter)) }

// hold keeps every request back for wait.
func (c *Client) hold(wait time.Duration) {
	if c.lead != nil {
		c.lead.hold(wait)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if until := time.Now().Add(wait); until.After(c.quiet) {
		c.quiet = until
	}
}

func (c *Client) known() *known {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}
