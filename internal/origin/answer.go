package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"dragonload/internal/piece"
)

// Answer is an answer of the origin that was accepted.
type Answer struct {
	Pin piece.Pin // the version that its bytes belong to

	// Stream says that the body is the whole file from byte 0 on, and that no ranges
	// of this version can be had, or that nobody asked for one.
	Stream bool
	// Range is the bytes in Body: what was asked for, or its beginning. Its End is
	// piece.UnknownSize if Pin.Size is.
	Range piece.Range
	// Unproven says that nothing proves the end of this body: it has no length and
	// ends where the connection does. A whole file and one cut short look alike, unless
	// the connection is a secure one: there a body that was cut off ends with an Error.
	Unproven bool

	Name                   string // what the file should be called; usable as a file name on every system
	RefusedName            string // says which name in Content-Disposition was passed over, and why; "" if none was
	ReprSHA256, ReprSHA512 []byte // of the whole file, as the origin states them in Repr-Digest or Digest; else nil

	// Body delivers exactly Range.Len() bytes and then io.EOF, or an *Error; with an
	// unknown size all bytes up to the proven end (but see Unproven). If Range is less
	// than Fetch was asked for, the end is an *Error of Kind Short. The last bytes come
	// only when the end of the answer is proven. Large reads are cheap. It must be
	// closed, which frees a place among Options.MaxConnections; closed before its end,
	// the connection is closed too. A Read is ended by the context of the request;
	// Close must not be called beside it.
	Body io.ReadCloser
}

// errWhole, in an Error, is how an acceptance says that the origin cannot be read in
// ranges, though nothing went wrong.
var errWhole = errors.New("ask for the whole file")

// Probe asks for the first bytes of the file and learns which version there is. Where
// the origin can be read in ranges, the answer holds at most the bytes asked for and
// its pin is good for Fetch. Where it cannot (it answers with the whole file, names no
// length or nothing that identifies the version), the answer is the whole file as one
// stream; this may take a second request. With bytes <= 0 the whole file is asked for
// at once. An empty file is a Stream of no bytes.
//
// All errors are of type *Error.
func (c *Client) Probe(ctx context.Context, bytes int64) (*Answer, error) {
	return c.ProbeAt(ctx, 0, bytes)
}

// ProbeAt is Probe for bytes from start on, for who has those before: any bytes of the
// file tell which version there is. If there is nothing at start, the first bytes are
// asked for after all.
func (c *Client) ProbeAt(ctx context.Context, start, bytes int64) (*Answer, error) {
	if bytes > 0 && start > 0 && start < piece.MaxSize {
		asked := piece.Range{Start: start, End: min(start+bytes, piece.MaxSize)}
		a, err := c.ask(ctx, &asked, func(x *exchange) (*Answer, *Error) { return x.acceptFirst(asked) })
		switch {
		case err == nil:
			return a, nil
		case err.Status != http.StatusRequestedRangeNotSatisfiable && !errors.Is(err.Err, errWhole):
			return nil, err
		}
	}
	if bytes > 0 {
		first := piece.Range{Start: 0, End: min(bytes, piece.MaxSize)}
		accept := func(x *exchange) (*Answer, *Error) { return x.acceptFirst(first) }
		a, err := c.ask(ctx, &first, accept)
		if err != nil && err.Status == http.StatusRequestedRangeNotSatisfiable {
			// Either an origin that does so now and then, or one that cannot do better.
			if a, err = c.ask(ctx, &first, accept); err != nil && err.Status == http.StatusRequestedRangeNotSatisfiable {
				err.Err = errWhole
			}
		}
		switch {
		case err == nil:
			return a, nil
		case !errors.Is(err.Err, errWhole):
			return nil, err
		}
	}
	a, err := c.ask(ctx, nil, (*exchange).acceptWhole)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Fetch asks for the bytes r of the version pin, which need not come from this Client.
// Nothing but bytes of this version is ever accepted. The answer may hold only the
// beginning of r, see Answer.Body. It asks once; asking again is the caller's. A pin
// whose ranges cannot be combined is a NoRange error.
//
// All errors are of type *Error.
func (c *Client) Fetch(ctx context.Context, pin piece.Pin, r piece.Range) (*Answer, error) {
	if !pin.Combinable() {
		return nil, &Error{Kind: NoRange, Host: c.host, what: "it names nothing that identifies a version of the file, so that ranges cannot be combined"}
	}
	if r.Start < 0 || r.Start >= r.End || r.End > pin.Size {
		panic(fmt.Sprintf("fetch of %v from a file of %d bytes", r, pin.Size))
	}
	a, err := c.ask(ctx, &r, func(x *exchange) (*Answer, *Error) { return x.acceptRange(pin, r) })
	if err != nil {
		return nil, err
	}
	return a, nil
}

// acceptFirst judges the answer to a probe.
func (x *exchange) acceptFirst(asked piece.Range) (*Answer, *Error) {
	switch x.resp.StatusCode {
	case http.StatusOK:
		return x.acceptWhole()
	case http.StatusRequestedRangeNotSatisfiable:
		// Also where it says that the file is empty: one such answer proves nothing, and an
		// empty file is a 200 of no bytes to who asks for all of it.
		return nil, x.falseUnsatisfied()
	case http.StatusPartialContent:
	default:
		return nil, x.statusError()
	}
	r, e := x.partial()
	if e != nil {
		return nil, e
	}
	if e := x.within(r, asked); e != nil {
		return nil, e
	}
	pin := versionOf(x.resp.Header).pin(r.total)
	if err := pin.Validate(); err != nil {
		return nil, x.unfit(pin, err)
	}
	whole := r.len() == r.total
	if !pin.Combinable() && !whole {
		return nil, &Error{Kind: NoRange, Host: hostOf(x.url), Status: x.resp.StatusCode, Err: errWhole, what: "nothing identifies a version of the file there, so that ranges cannot be combined"}
	}
	a := &Answer{Pin: pin, Stream: !pin.Combinable(), Range: piece.Range{Start: r.first, End: r.last + 1}}
	return x.accepted(a, 0), nil
}

// acceptWhole judges an answer that should be the whole file.
func (x *exchange) acceptWhole() (*Answer, *Error) {
	switch x.resp.StatusCode {
	case http.StatusOK:
	case http.StatusPartialContent:
		return nil, x.bad("it sends a part of the file (206) to who asks for all of it, and its parts cannot be put together: " +
			"they do not tell the length of the file, or nothing identifies its version")
	default:
		return nil, x.statusError()
	}
	if refusedEncoding(x.resp.Header) {
		return nil, x.encoded()
	}
	size := x.resp.ContentLength
	if size < 0 {
		size = piece.UnknownSize
	}
	for _, field := range x.resp.Header.Values("Content-Range") {
		// It means nothing here, unless it says that this is not the whole file after all.
		if r, ok := parseContentRange(strings.TrimSpace(field)); ok && (r.first > 0 || r.total >= 0 && r.len() != r.total || size >= 0 && r.total >= 0 && r.total != size) {
			return nil, x.bad("it sent what it says is a part of the file as if that were the whole")
		}
	}
	pin := versionOf(x.resp.Header).pin(size)
	if err := pin.Validate(); err != nil {
		return nil, x.unfit(pin, err)
	}
	return x.accepted(&Answer{
		Pin: pin, Stream: true, Range: piece.Range{Start: 0, End: size},
		Unproven: size < 0 && x.resp.ProtoMajor == 1 && len(x.resp.TransferEncoding) == 0,
	}, 0), nil
}

// acceptRange judges the answer to Fetch.
func (x *exchange) acceptRange(pin piece.Pin, asked piece.Range) (*Answer, *Error) {
	switch x.resp.StatusCode {
	case http.StatusOK:
		return nil, x.wholeForRange(pin)
	case http.StatusRequestedRangeNotSatisfiable:
		if r, ok := x.unsatisfied(); ok && r.total != pin.Size {
			return nil, x.changed(versionOf(x.resp.Header).pin(r.total))
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
	// The version goes before the bytes: another one may well have an end before ours.
	v := versionOf(x.resp.Header)
	if r.total >= 0 && r.total != pin.Size {
		return nil, x.changed(v.pin(r.total))
	}
	switch v.compare(pin, x.client.known()) {
	case different:
		return nil, x.changed(v.pin(r.total))
	case silent:
		return nil, x.bad("it no longer says which version of the file it sends")
	case confusing:
		return nil, x.bad("the same version has two digests")
	}
	if e := x.within(r, asked); e != nil {
		return nil, e
	}
	a := &Answer{Pin: pin, Range: piece.Range{Start: r.first, End: r.last + 1}}
	return x.accepted(a, asked.End-a.Range.End), nil
}

// within judges whether the bytes that were sent begin where those asked for do, and go no
// further.
func (x *exchange) within(r contentRange, asked piece.Range) *Error {
	if r.first != asked.Start || r.last >= asked.End {
		return x.bad("it sent bytes %d to %d, where %d to %d were asked for", r.first, r.last, asked.Start, asked.End-1)
	}
	return nil
}

// wholeForRange says what is wrong with a 200 where a range was asked for.
func (x *exchange) wholeForRange(pin piece.Pin) *Error {
	if refusedEncoding(x.resp.Header) {
		return x.encoded()
	}
	v, size := versionOf(x.resp.Header), x.resp.ContentLength
	like := v.compare(pin, x.client.known())
	if size >= 0 && size != pin.Size && like != confusing {
		like = different
	}
	switch like {
	case same:
		return &Error{
			Kind: NoRange, Host: hostOf(x.url), Status: http.StatusOK, Seen: &pin,
			what: "it sent the whole file where a part was asked for", hint: "try another address of the file",
		}
	case confusing:
		return x.bad("the same version has two digests")
	}
	if x.client.looksLikeLogin(x.resp.Header) {
		e := x.bad("origin now asks for a login")
		e.hint = "log in with a browser and give its cookies with --cookies, or log in to this network first"
		return e
	}
	if like == different {
		return x.changed(v.pin(max(size, piece.UnknownSize)))
	}
	return x.bad("it no longer says which version of the file it sends")
}

// partial judges what every 206 must be.
func (x *exchange) partial() (contentRange, *Error) {
	h := x.resp.Header
	none := contentRange{}
	if refusedEncoding(h) {
		return none, x.encoded()
	}
	for _, kind := range h.Values("Content-Type") {
		if strings.HasPrefix(strings.ToLower(strings.TrimSpace(kind)), "multipart/byteranges") {
			return none, x.bad("it sent several ranges where one was asked for")
		}
	}
	fields := h.Values("Content-Range")
	if len(fields) != 1 {
		return none, x.bad("it sent a part of the file and did not say exactly once which")
	}
	r, ok := parseContentRange(strings.TrimSpace(fields[0]))
	if !ok || r.first < 0 {
		return none, x.bad("it sent a part of the file, and its Content-Range, which says of which and of how long a file, makes no sense")
	}
	if n := x.resp.ContentLength; n >= 0 && n != r.len() {
		return none, x.bad("it announced %d bytes of body for %d bytes of the file", n, r.len())
	}
	return r, nil
}

// unfit refuses what an answer says of the version for the reason err of Pin.Validate.
func (x *exchange) unfit(pin piece.Pin, err error) *Error {
	if pin.Size > piece.MaxSize {
		return x.bad("it says that the file has %d bytes, and no file has more than %d", pin.Size, int64(piece.MaxSize))
	}
	e := x.bad("what it says of the version of the file cannot be used")
	e.Err = err
	return e
}

func (x *exchange) encoded() *Error {
	e := x.bad("it packed the file with a Content-Encoding that nobody asked for")
	e.hint = "nothing is unpacked here; try another address of the file"
	return e
}

// unsatisfied returns the Content-Range of a 416.
func (x *exchange) unsatisfied() (contentRange, bool) {
	fields := x.resp.Header.Values("Content-Range")
	if len(fields) != 1 {
		return contentRange{}, false
	}
	r, ok := parseContentRange(strings.TrimSpace(fields[0]))
	return r, ok && r.first < 0
}

func (x *exchange) falseUnsatisfied() *Error {
	return &Error{
		Kind: Server, Host: hostOf(x.url), Status: x.resp.StatusCode,
		what: "it says that it has not the part that was asked for, though the file is that long", hint: statusHints[BadAnswer],
	}
}

// changed refuses an answer that belongs to another version.
func (x *exchange) changed(seen piece.Pin) *Error {
	if err := seen.Validate(); err != nil {
		return x.unfit(seen, err)
	}
	return &Error{
		Kind: Changed, Host: hostOf(x.url), Status: x.resp.StatusCode, Seen: &seen,
		what: "the file has changed there", hint: "it is fetched anew; the bytes of the two versions are not mixed",
	}
}

// accepted completes an answer; rest is how many bytes it lacks of what was asked for.
func (x *exchange) accepted(a *Answer, rest int64) *Answer {
	v := versionOf(x.resp.Header)
	a.Name, a.RefusedName = x.nameOf()
	a.ReprSHA256, a.ReprSHA512 = v.digests()
	b := &body{x: x, left: a.Range.Len(), rest: rest}
	if !x.resp.ProtoAtLeast(1, 1) {
		b.frames = new(framing)
	}
	a.Body = b
	x.client.mu.Lock()
	if k := x.client.seen; k == nil || k.pin != a.Pin {
		x.client.seen = &known{pin: a.Pin, version: v, html: isHTML(x.resp.Header)}
	}
	x.client.mu.Unlock()
	return a
}
