package origin

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dragonload/internal/piece"
)

const (
	maxRedirects = 10
	maxLocation  = 8 << 10
)

// exchange is one request, its redirects and the answer at their end. It owns a slot
// of its Client, a context and a watchdog until close.
type exchange struct {
	client *Client
	// ctx ends with the caller's context, the Client, the watchdog or close; its cause
	// tells which. (A context in a struct: an exchange is a request.)
	ctx    context.Context
	cancel context.CancelCauseFunc
	unhook func() bool
	watch  watchdog
	once   sync.Once

	resp *http.Response // the answer, once there is one
	url  *url.URL       // who gave it
	// outside, with a guard, says that the chain has come to the public internet.
	outside atomic.Bool
	secure  atomic.Pointer[tls.Conn] // that the answer came through; nil over plain HTTP
	hops    int                      // redirects on the way
}

// ask sends a GET for r (the whole file where r is nil) and hands the answer to
// accept, which owns the exchange if it returns no error. See Client for where it asks.
func (c *Client) ask(ctx context.Context, r *piece.Range, accept func(*exchange) (*Answer, *Error)) (*Answer, *Error) {
	u, shortCut := c.start()
	a, err := c.askAt(ctx, u, r, accept)
	if err == nil || !shortCut {
		return a, err
	}
	c.mu.Lock()
	if c.via == u {
		c.via = nil
	}
	c.mu.Unlock()
	if err.Kind == Cancelled || err.Kind.Passing() {
		return nil, err
	}
	c.log.Debug("short cut ended", "host", err.Host, "kind", err.Kind.String())
	return c.askAt(ctx, c.url, r, accept)
}

func (c *Client) askAt(ctx context.Context, u *url.URL, r *piece.Range, accept func(*exchange) (*Answer, *Error)) (*Answer, *Error) {
	x, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	x.outside.Store(u == c.via && c.far)
	c.mu.Unlock()
	if err := x.run(u, r); err != nil {
		x.close()
		return nil, err
	}
	a, err := accept(x)
	if err != nil {
		c.log.Debug("answer refused", "host", err.Host, "status", err.Status, "kind", err.Kind.String())
		x.close()
		return nil, err
	}
	if x.hops > 0 {
		c.mu.Lock()
		c.via, c.far = x.url, x.outside.Load()
		c.mu.Unlock()
	}
	return a, nil
}

// open waits for a slot and returns an exchange that has not asked anything yet.
func (c *Client) open(ctx context.Context) (*exchange, *Error) {
	stopped := func(cause error) *Error {
		return &Error{Kind: Cancelled, Host: c.host, Err: cause, what: "the request was stopped"}
	}
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, stopped(context.Cause(ctx))
	case <-c.life.Done():
		return nil, stopped(ErrClosed)
	}
	if e := c.paused(); e != nil {
		<-c.slots
		return nil, e
	}
	x := &exchange{client: c}
	x.ctx, x.cancel = context.WithCancelCause(ctx)
	x.unhook = context.AfterFunc(c.life, func() { x.cancel(ErrClosed) })
	x.watch.init(x.cancel)
	return x, nil
}

// serverOf names the server of u for Options.Rests.
func serverOf(u *url.URL) string { return u.Scheme + "://" + u.Host }

// restsAt returns the error of a request to a server that is known to rest, nil if that is
// not so.
func (c *Client) restsAt(u *url.URL) *Error {
	if c.rests == nil {
		return nil
	}
	wait := c.rests(serverOf(u))
	if wait <= 0 {
		return nil
	}
	return &Error{
		Kind: Throttled, Host: hostOf(u), RetryAfter: wait,
		what: fmt.Sprintf("it wants %v more without requests", wait.Round(time.Second)), hint: statusHints[Throttled],
	}
}

// paused returns the error of a request that would go out in a pause; nil if there is
// none.
func (c *Client) paused() *Error {
	wait := c.pause()
	if wait <= 0 {
		return nil
	}
	return &Error{
		Kind: Throttled, Host: c.host, RetryAfter: wait,
		what: fmt.Sprintf("it wants %v more without requests", wait.Round(time.Second)), hint: statusHints[Throttled],
	}
}

// close ends the exchange: the connection is kept only if the body was read to its
// end. It may be called more than once.
func (x *exchange) close() {
	x.once.Do(func() {
		x.watch.rest()
		x.unhook()
		if x.resp != nil {
			x.resp.Body.Close()
		}
		x.cancel(nil)
		<-x.client.slots
	})
}

// run asks u and follows redirects until there is another answer.
func (x *exchange) run(u *url.URL, r *piece.Range) *Error {
	retried := false
	for {
		if e := x.client.restsAt(u); e != nil {
			return e
		}
		resp, err := x.roundTrip(u, r)
		if err != nil {
			return x.failure(u, err, false)
		}
		newCookie := false
		if x.client.guard == nil {
			x.client.mu.Lock()
			newCookie = x.client.jar.take(u, resp, time.Now())
			x.client.mu.Unlock()
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
			next, why := follow(u, resp.Header)
			if x.hops++; why == "" && x.hops > maxRedirects {
				why = fmt.Sprintf("it is redirect number %d", x.hops)
			}
			resp.Body.Close()
			if why != "" {
				return &Error{
					Kind: BadRedirect, Host: hostOf(u), Status: resp.StatusCode,
					what: "its redirect is not followed: " + why, hint: "open the address in a browser and give the one where that ends",
				}
			}
			if g := x.client.guard; g != nil {
				if next, err = g.admit(next); err != nil {
					return g.blocked(u, err)
				}
			}
			if e := x.client.paused(); e != nil {
				return e
			}
			u = next
			continue
		case http.StatusUnauthorized, http.StatusForbidden:
			// Some origins let in only who returns the cookie that this very refusal sets.
			if _, waits := retryAfter(resp.Header, time.Now()); newCookie && !retried && !waits {
				retried = true
				resp.Body.Close()
				continue
			}
		}
		x.resp, x.url = resp, u
		return nil
	}
}

// follow returns where a redirect leads, or why it is not followed: only to http and
// https, never from https to http, never with user-info in it.
func follow(from *url.URL, h http.Header) (next *url.URL, why string) {
	fields := h.Values("Location")
	if len(fields) != 1 {
		return nil, "it does not name exactly one address"
	}
	const tooLong = "its address is too long"
	if len(fields[0]) > maxLocation {
		return nil, tooLong
	}
	next, err := from.Parse(fields[0])
	switch {
	case err != nil || strings.TrimSpace(fields[0]) == "":
		return nil, "its address is malformed"
	case next.Scheme != "http" && next.Scheme != "https":
		return nil, "it leads away from http and https"
	case next.Hostname() == "" || next.Opaque != "" || strings.Contains(next.Host, "%") || !portExists(next):
		return nil, "its address is malformed"
	case next.User != nil:
		return nil, "its address holds a user name"
	case from.Scheme == "https" && next.Scheme != "https":
		return nil, "it leads from https to http"
	}
	next.Fragment, next.RawFragment = "", ""
	next.RawQuery = sendable(next.RawQuery)
	if len(next.String()) > maxLocation { // what is escaped now is longer
		return nil, tooLong
	}
	return next, ""
}

// portExists reports whether u names no port or one that there is.
func portExists(u *url.URL) bool {
	if u.Port() == "" {
		return true
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && n > 0
}

// sendable escapes in a query what the first line of a request cannot hold. The parser
// of URLs leaves it in there, other than in a path.
func sendable(query string) string {
	var b strings.Builder
	for i := range len(query) {
		if c := query[i]; c <= ' ' || c >= 0x7f {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// roundTrip sends one request, without following anything, and returns when the header
// of the answer is there.
func (x *exchange) roundTrip(u *url.URL, r *piece.Range) (*http.Response, error) {
	c := x.client
	ctx, transport := x.watch.trace(x.ctx, c.connectTimeout, c.timeout), c.transport
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		x.note(i.Conn)
		if c.outer != nil {
			x.look(i.Conn)
		}
	}})
	if c.outer != nil && x.outside.Load() {
		transport = c.outer
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	c.secret.add(req)
	c.mu.Lock()
	c.jar.add(req, time.Now())
	c.mu.Unlock()
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", c.agent)
	}
	if req.Header.Get("Accept") == "" {
		req.Header.Set("Accept", "*/*")
	}
	req.Header.Set("Accept-Encoding", "identity")
	if r != nil {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", r.Start, r.End-1))
	}
	x.watch.start(c.connectTimeout)
	defer x.watch.rest()
	return transport.RoundTrip(req)
}

// watchdog ends a request on which nothing moves. It is idle between its calls, so that
// a caller may take its time between two reads.
type watchdog struct {
	timer      *time.Timer
	connecting atomic.Bool
}

func (w *watchdog) init(cancel context.CancelCauseFunc) {
	w.timer = time.AfterFunc(time.Hour, func() {
		if w.connecting.Load() {
			cancel(errNoConnection)
		} else {
			cancel(errSilent)
		}
	})
	w.timer.Stop()
}

// start bounds the time until there is a connection, wait the time until something
// comes over it; rest sets the watchdog idle.
func (w *watchdog) start(limit time.Duration) { w.connecting.Store(true); w.timer.Reset(limit) }
func (w *watchdog) wait(limit time.Duration)  { w.connecting.Store(false); w.timer.Reset(limit) }
func (w *watchdog) rest()                     { w.timer.Stop() }

// trace moves the watchdog from one limit to the other when the request gets its
// connection. The transport may take another one if a kept connection turns out dead.
func (w *watchdog) trace(ctx context.Context, connect, answer time.Duration) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { w.start(connect) },
		GotConn: func(httptrace.GotConnInfo) { w.wait(answer) },
	})
}
