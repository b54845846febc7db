package origin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"dragonload/internal/piece"
)

// At returns a client for another file of the same origin. It shares everything with c
// but what is about one file, the places among Options.MaxConnections and the pauses that
// the origin asked for too, and ends with c. The error says that the URL is of another
// origin, or none.
func (c *Client) At(rawURL string) (*Client, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Hostname() == "" {
		return nil, errors.New("the address is not a valid URL")
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	u.RawQuery = sendable(u.RawQuery)
	if c.guard != nil {
		if u, err = c.guard.admit(u); err != nil {
			return nil, err
		}
	}
	if originOf(u) != originOf(c.url) {
		return nil, errors.New("the address is of another origin")
	}
	lead := c
	if c.lead != nil {
		lead = c.lead
	}
	return &Client{
		url: u, host: c.host, secret: c.secret, agent: c.agent,
		timeout: c.timeout, connectTimeout: c.connectTimeout, limiter: c.limiter, log: c.log,
		transport: c.transport, guard: c.guard, outer: c.outer, proxy: c.proxy, slots: c.slots, life: c.life, stop: c.stop,
		lead: lead, rests: c.rests,
	}, nil
}

// FetchPart asks for the bytes r of a file of size bytes. Which version of it the origin
// has does not matter: the caller knows the digests of the bytes. Where the origin sends
// the whole file all the same, the answer is a Stream of it, from byte 0. As of Fetch, the
// answer may hold only the beginning of r.
//
// All errors are of type *Error; a file of another length is none of Kind.Passing.
func (c *Client) FetchPart(ctx context.Context, size int64, r piece.Range) (*Answer, error) {
	if r.Start < 0 || r.Start >= r.End || r.End > size {
		panic(fmt.Sprintf("fetch of %v from a file of %d bytes", r, size))
	}
	asked := &r
	if r.Len() == size {
		asked = nil // some origins serve the whole of a file faster, and none slower
	}
	a, err := c.ask(ctx, asked, func(x *exchange) (*Answer, *Error) { return x.acceptPart(size, r) })
	if err != nil {
		return nil, err
	}
	return a, nil
}

// acceptPart judges the answer to FetchPart.
func (x *exchange) acceptPart(size int64, asked piece.Range) (*Answer, *Error) {
	otherSize := func(n int64) *Error {
		return Differs(hostOf(x.url), fmt.Sprintf("it has %d bytes there, the file has %d", n, size))
	}
	whole := piece.Range{End: size}
	switch x.resp.StatusCode {
	case http.StatusOK:
		if refusedEncoding(x.resp.Header) {
			return nil, x.encoded()
		}
		if n := x.resp.ContentLength; n >= 0 && n != size {
			return nil, otherSize(n)
		}
		return x.accepted(&Answer{Pin: piece.Pin{Size: size}, Stream: asked != whole, Range: whole}, 0), nil
	case http.StatusRequestedRangeNotSatisfiable:
		if r, ok := x.unsatisfied(); ok && r.total != size {
			return nil, otherSize(r.total)
		}
		return nil, x.falseUnsatisfied()
	case http.StatusPartialContent:
	default:
		return nil, x.statusError()
	}
	r, e := x.partial()
	if e != nil {
		return nil, e
	}
	if r.total >= 0 && r.total != size {
		return nil, otherSize(r.total)
	}
	if e := x.within(r, asked); e != nil {
		return nil, e
	}
	return x.accepted(&Answer{Pin: piece.Pin{Size: size}, Range: piece.Range{Start: r.first, End: r.last + 1}}, asked.End-r.last-1), nil
}
