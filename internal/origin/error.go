package origin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"dragonload/internal/piece"
)

// Kind says what kind of thing went wrong, as far as the next step depends on it.
type Kind uint8

const (
	// Cancelled: the caller's context ended, or the Client or the body was closed.
	Cancelled Kind = iota
	// Resolve: the host name was not resolved. Error.Temporary tells a name server
	// that did not answer from one that does not know the name.
	Resolve
	// Refused: nothing listens at the address.
	Refused
	// Network: no connection in time, or it broke.
	Network
	// TLS: no secure connection: a bad certificate, no common version.
	TLS
	// Silent: no byte came for Options.Timeout.
	Silent
	// NotFound: 404 or 410.
	NotFound
	// Forbidden: 401, 403 or 407.
	Forbidden
	// Throttled: 429, 503, or another answer with Retry-After.
	Throttled
	// Server: the origin cannot answer now: 408, 500, 502, 504 and the like, or a 416
	// for a range that it has.
	Server
	// Short: a good answer that holds less than was asked; ask for the rest.
	Short
	// BadAnswer: the answer breaks HTTP, contradicts itself or what was asked.
	BadAnswer
	// Changed: the answer is of another version; Error.Seen says which.
	Changed
	// NoRange: the right version, but whole where a range was asked for.
	NoRange
	// BadRedirect: a redirect that is not followed.
	BadRedirect
	// Status: any other status that waiting does not mend.
	Status
	// Blocked: Options.Guard does not let the request go there.
	Blocked
)

var kindNames = [...]string{
	"cancelled", "resolve", "refused", "network", "tls", "silent", "not-found", "forbidden", "throttled", "server", "short",
	"bad-answer", "changed", "no-range", "bad-redirect", "status", "blocked",
}

// String returns a stable word for the kind.
func (k Kind) String() string { return kindNames[k] }

// Passing reports whether the same request may well succeed later.
func (k Kind) Passing() bool {
	switch k {
	case Refused, Network, Silent, Throttled, Server, Short:
		return true
	}
	return false
}

// Unreached reports whether the network, not the origin, failed: there was no connection,
// or it broke.
func (k Kind) Unreached() bool {
	switch k {
	case Resolve, Refused, Network, TLS:
		return true
	}
	return false
}

// Error is every error of Probe, Fetch and the bodies they return. Its message says
// what happened with which host and what the user may do; it holds no user-info, no
// query, no header. Err, where set, is the cause: its text may hold what the origin
// wrote and is not for users.
type Error struct {
	Kind       Kind
	Host       string        // the host, with its port if the URL names one
	Status     int           // of the answer; 0 where there was none
	RetryAfter time.Duration // how long the origin asked to wait, at most an hour; 0 if it did not
	Server     string        // which said so: scheme, host and port, where redirects led to
	Temporary  bool          // with Resolve: the name server gave no answer
	Seen       *piece.Pin    // with Changed, and with NoRange to a 200: the version that the answer belongs to
	Err        error

	what, hint string
}

func (e *Error) Error() string {
	s := e.Host + ": " + e.what
	if e.hint != "" {
		s += "; " + e.hint
	}
	return s
}

// Differs is the error of a host whose bytes are not those of the file.
func Differs(host, what string) *Error {
	return &Error{Kind: BadAnswer, Host: host, what: what, hint: statusHints[BadAnswer]}
}

// TooSlow is the error of a host that brought next to nothing within a limit that the caller
// had set.
func TooSlow(host string, limit time.Duration) *Error {
	return &Error{Kind: Silent, Host: host, what: fmt.Sprintf("it sent next to nothing for %v", limit), hint: "it is asked again in a while"}
}

func (e *Error) Unwrap() error { return e.Err }

// Busy reports whether fewer connections may help: 429, 503, 403 to a request that
// others like it got through, or a connection that broke.
func (e *Error) Busy() bool {
	return e.Kind == Throttled || e.Kind == Network || e.Status == http.StatusForbidden
}

// proxyRefusal is a proxy's answer to CONNECT other than 200.
type proxyRefusal struct{ status int }

func (e *proxyRefusal) Error() string { return fmt.Sprintf("the proxy answered %d", e.status) }

// Causes with which the watchdog ends a request.
var (
	errSilent       = errors.New("no byte within the time limit")
	errNoConnection = errors.New("no connection within the time limit")
)

// statusKinds is the table from the status of an answer to the Kind of its refusal;
// kindOfStatus has the rules for the rest.
var statusKinds = map[int]Kind{
	http.StatusPartialContent:                BadAnswer, // where no range was asked for
	http.StatusNotModified:                   BadAnswer, // no request here is conditional
	http.StatusUnauthorized:                  Forbidden,
	http.StatusForbidden:                     Forbidden,
	http.StatusNotFound:                      NotFound,
	http.StatusProxyAuthRequired:             Forbidden,
	http.StatusRequestTimeout:                Server,
	http.StatusGone:                          NotFound,
	http.StatusPreconditionFailed:            BadAnswer,
	http.StatusMisdirectedRequest:            Server,
	http.StatusTooEarly:                      Server,
	http.StatusTooManyRequests:               Throttled,
	http.StatusNotImplemented:                Status,
	http.StatusServiceUnavailable:            Throttled,
	http.StatusHTTPVersionNotSupported:       Status,
	http.StatusNotExtended:                   Status,
	http.StatusNetworkAuthenticationRequired: Status,
}

// kindOfStatus returns the Kind of an answer that is refused for its status; wait says
// that it names a time to come back at.
func kindOfStatus(status int, wait bool) Kind {
	kind, listed := statusKinds[status]
	if !listed {
		kind = Status
		if status >= 500 && status < 600 {
			kind = Server
		}
	}
	if wait && (kind == Server || status == http.StatusForbidden || status == http.StatusAccepted) {
		kind = Throttled
	}
	return kind
}

var statusHints = map[Kind]string{
	NotFound:  "check the address",
	Forbidden: "give what it asks for with --header-file, --netrc or --cookies, or ask whoever runs it",
	Throttled: "it is asked again when that time is over; fewer connections (-x) may help",
	Server:    "it is asked again in a while",
	BadAnswer: "the server or a proxy on the way is broken; try another address of the file",
	Status:    "open the address in a browser to see what it wants",
}

// statusError refuses an answer for its status.
func (x *exchange) statusError() *Error {
	status := x.resp.StatusCode
	wait, named := retryAfter(x.resp.Header, time.Now())
	e := &Error{Kind: kindOfStatus(status, named), Host: hostOf(x.url), Status: status}
	e.what, e.hint = "it answered "+strconv.Itoa(status), statusHints[e.Kind]
	if text := http.StatusText(status); text != "" {
		e.what += " (" + text + ")"
	}
	if e.Kind == Throttled {
		e.RetryAfter, e.Server = wait, serverOf(x.url) // of a refusal for good it means nothing
		if wait > 0 {
			e.what += fmt.Sprintf(" and wants %v without requests", wait.Round(time.Second))
			x.client.hold(wait)
		} else {
			e.hint = "it is asked again in a while; fewer connections (-x) may help"
		}
	}
	switch status {
	case http.StatusProxyAuthRequired:
		e.hint = "give the proxy's user and password in its URL"
	case http.StatusNetworkAuthenticationRequired:
		e.hint = "log in to this network first"
	}
	return e
}

// bad refuses an answer that breaks HTTP or contradicts what was asked.
func (x *exchange) bad(format string, args ...any) *Error {
	return &Error{
		Kind: BadAnswer, Host: hostOf(x.url), Status: x.resp.StatusCode,
		what: "bad answer: " + fmt.Sprintf(format, args...), hint: statusHints[BadAnswer],
	}
}

// hostOf returns a URL's host for messages: what a redirect named as host may hold
// anything, so that what does not print plainly is escaped.
func hostOf(u *url.URL) string {
	host := u.Host
	if len(host) > 260 {
		host = host[:260] + "..."
	}
	for _, r := range host {
		if r <= ' ' || r > '~' {
			return strings.Trim(strconv.QuoteToASCII(host), `"`)
		}
	}
	return host
}

// failure explains an error of the transport, while asking u or reading its body.
func (x *exchange) failure(u *url.URL, err error, body bool) *Error {
	e := &Error{Kind: Network, Host: hostOf(u), Err: err, hint: "check the network; asking again goes on where this ended"}
	if body {
		e.Status = x.resp.StatusCode
	}
	if cause := context.Cause(x.ctx); cause != nil {
		e.Err = cause
		switch {
		case errors.Is(cause, errSilent):
			e.Kind, e.what = Silent, fmt.Sprintf("it sent nothing, or next to nothing, for %v", x.client.timeout)
			e.hint = "it may be overloaded; it is asked again, or set a longer --timeout"
		case errors.Is(cause, errNoConnection):
			e.what = fmt.Sprintf("no connection within %v", x.client.connectTimeout)
		default:
			e.Kind, e.what, e.hint = Cancelled, "the request was stopped", ""
		}
		return e
	}

	if errors.Is(err, ErrBlocked) {
		return x.client.guard.blocked(u, err)
	}
	var (
		dns     *net.DNSError
		op      *net.OpError
		refusal *proxyRefusal
	)
	atProxy := errors.As(err, &op) && (op.Op == "proxyconnect" || strings.HasPrefix(op.Op, "socks"))
	switch {
	case errors.As(err, &refusal):
		e.Status = refusal.status
		e.Kind, e.what = Network, fmt.Sprintf("the proxy %s answered %d", x.client.proxy, refusal.status)
		e.hint = "check --proxy"
		switch status := refusal.status; {
		case status == http.StatusProxyAuthRequired:
			e.Kind, e.hint = Forbidden, "give the proxy's user and password in its URL"
		case status == http.StatusRequestTimeout, status == http.StatusTooManyRequests:
		case status >= 400 && status < 500, status == http.StatusNotImplemented:
			e.Kind, e.what = Status, fmt.Sprintf("the proxy %s lets nobody connect to it: it answered %d", x.client.proxy, status)
			if text := http.StatusText(status); text != "" {
				e.what += " (" + text + ")"
			}
			e.hint = "name another one with --proxy, go without it by --proxy none, or ask who runs it to allow this address"
		}
		return e
	case errors.As(err, &dns):
		e.Kind, e.Temporary = Resolve, !dns.IsNotFound
		e.what, e.hint = "the host name is not known", "check its spelling"
		if e.Temporary {
			e.what, e.hint = "the host name was not resolved: the name server gave no answer", "check the network"
		}
	case isRefused(err):
		e.Kind, e.what = Refused, "the connection was refused"
		e.hint = "check host and port; the server may be down"
	case !body && x.explainTLS(e, err):
	case !body && isTimeout(err):
		e.what = fmt.Sprintf("no connection within %v", x.client.connectTimeout)
	case isBroken(err):
		e.what = "the connection broke"
		if body {
			e.what += " before the body was whole"
		}
	case !body && x.watch.connecting.Load():
		e.what = "no connection came about"
	default:
		e.Kind, e.what = BadAnswer, "bad answer: what it sent is not HTTP as the standard has it"
		e.hint = statusHints[BadAnswer]
	}
	if atProxy {
		e.what = "at the proxy " + x.client.proxy + ": " + e.what
		e.hint = "check --proxy"
	}
	return e
}

// explainTLS fills e if err is about the secure connection.
func (x *exchange) explainTLS(e *Error, err error) bool {
	var (
		name    x509.HostnameError
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
		verify  *tls.CertificateVerificationError
		record  tls.RecordHeaderError
		alert   tls.AlertError
		remote  *net.OpError
	)
	refused := errors.As(err, &remote) && remote.Op == "remote error" // an alert of the server's
	switch {
	case errors.As(err, &name):
		e.what, e.hint = "its certificate is for another name", "check the address; it may not be the server you want"
	case errors.As(err, &unknown):
		e.what = "its certificate is signed by nobody that this machine trusts"
		e.hint = "if the authority is a private one, name its file with --cacert"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		e.what, e.hint = outOfDate(invalid.Cert), "check this machine's clock, or tell whoever runs the server"
	case errors.As(err, &invalid), errors.As(err, &verify):
		e.what, e.hint = "its certificate is not valid", "tell whoever runs the server"
	case errors.As(err, &record), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		e.what, e.hint = "it does not speak TLS", "check the port, or whether the address begins with http://"
	case refused && remote.Err.Error() == "tls: certificate required":
		e.what, e.hint = "it lets in only who shows a certificate of its own, and dragonload shows none", "ask whoever runs it for another address"
	case refused && remote.Err.Error() != "tls: protocol version not supported":
		e.what = "it refused the secure connection: " + strings.TrimPrefix(remote.Err.Error(), "tls: ")
		e.hint = "it may want a certificate of its clients, which dragonload does not show, or be too old: TLS 1.2 is the least"
	case errors.As(err, &alert), strings.Contains(err.Error(), "tls: "):
		e.what, e.hint = "no secure connection could be agreed on", "the server may be too old: TLS 1.2 is the least"
	default:
		return false
	}
	e.Kind = TLS
	return true
}

// outOfDate says what is wrong with the time of a certificate.
func outOfDate(cert *x509.Certificate) string {
	const day = "2 January 2006"
	switch {
	case cert == nil:
		return "its certificate has expired or is not valid yet"
	case time.Now().Before(cert.NotBefore):
		return "its certificate is not valid before " + cert.NotBefore.UTC().Format(day)
	}
	return "its certificate expired on " + cert.NotAfter.UTC().Format(day)
}

// isRefused knows a refused connection. 10061 is WSAECONNREFUSED, which package
// syscall does not name; no other system has an error of that number.
func isRefused(err error) bool {
	var errno syscall.Errno
	return errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &errno) && errno == 10061
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// isBroken tells a connection that ended from one that carried nonsense. The errors of
// net/http for it have no types, so some are known by how they begin.
func isBroken(err error) bool {
	var (
		netErr net.Error
		errno  syscall.Errno
	)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.As(err, &netErr) || errors.As(err, &errno) {
		return true
	}
	text := err.Error()
	for _, prefix := range []string{"http: server closed idle connection", "http2: ", "stream error: ", "connection error: ", "unknown error "} {
		if strings.HasPrefix(text, prefix) {
			return true
		}
	}
	return false
}
