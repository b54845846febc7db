package origintest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options say how a misbehaving origin is set up.
type Options struct {
	Content Content
	// Rate is how many body bytes a second go out on each connection; 0: no limit.
	Rate int64
	// Listen opens the origin's port and that of the servers that it leads to.
	Listen func(ctx context.Context, network, addr string) (net.Listener, error)
	// Hosts are the names and ports of the origin and of the second server.
	Hosts [2]string
}

// Origin is an origin with one named way to misbehave.
type Origin struct {
	*Server
	Case Case
	// Second is the server that redirects lead to; it serves the file honestly and
	// records what arrives, as Server does. Nil in cases without one.
	Second *Server
	// CA is the authority of the certificates of the TLS cases, in PEM form, that a
	// client should trust. Nil where there is none to trust.
	CA []byte

	o    Options
	body atomic.Int64 // body bytes sent by both servers

	mu      sync.Mutex // guards what follows
	answers int        // to GET, so far
	asked   int64      // bytes of the file asked for so far
	open    int        // answers under way
	// Requests between these times come too early.
	quietFrom, quiet time.Time
	early            int // of them, so far
}

// Path is where the origin has its file.
const Path = "/files/image.iso"

// Start sets up an origin that misbehaves in the way c names. Close ends it.
func Start(c Case, o Options) (*Origin, error) {
	g := &Origin{Case: c, o: o}
	config, ca, err := c.certificates(o)
	if err != nil {
		return nil, err
	}
	g.CA = ca
	l, err := o.Listen(context.Background(), "tcp", o.Hosts[0])
	if err != nil {
		return nil, err
	}
	if c.second {
		second, err := o.Listen(context.Background(), "tcp", o.Hosts[1])
		if err != nil {
			l.Close()
			return nil, err
		}
		g.Second = Serve(second, nil, longest, func(conn *Conn, r *Request) bool { return g.send(conn, g.honest(r)) })
		if strings.HasSuffix(o.Hosts[1], ":0") {
			g.o.Hosts[1] = second.Addr().String()
		}
	}
	if strings.HasSuffix(o.Hosts[0], ":0") {
		g.o.Hosts[0] = l.Addr().String()
	}
	g.Server = Serve(l, config, longest, g.serve)
	scheme := "http://"
	if c.tls != "" {
		scheme = "https://"
	}
	g.URL = scheme + g.o.Hosts[0]
	return g, nil
}

// longest is how long a connection may live: longer than any client waits.
const longest = time.Hour

// Close ends the origin and waits for it.
func (g *Origin) Close() {
	g.Server.Close()
	if g.Second != nil {
		g.Second.Close()
	}
}

// Sent returns how many body bytes have gone out.
func (g *Origin) Sent() int64 { return g.body.Load() }

// Early returns how many requests came in a time for which the origin had asked for
// none.
func (g *Origin) Early() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.early
}

// Versions returns the files that the origin serves, each whole: any of them, and
// nothing mixed of them, is right.
func (g *Origin) Versions() []Content {
	return []Content{g.o.Content, g.other()}
}

// other is the second version of the file.
func (g *Origin) other() Content {
	return Content{Seed: g.o.Content.Seed + 1, Size: g.o.Content.Size}
}

// at is an address at the second server, or at the origin with n = 0.
func (g *Origin) at(n int, path string) string { return "http://" + g.o.Hosts[n] + path }

// turn is the number of an answer to GET, from 0, and how many bytes of the file had
// been asked for before it.
type turn struct {
	n     int
	asked int64
	open  int // answers under way, this one included
}

func (g *Origin) serve(c *Conn, r *Request) bool {
	if r.Method != http.MethodGet {
		c.Send(http.StatusMethodNotAllowed, "", nil)
		return true
	}
	a := g.honest(r)
	g.mu.Lock()
	g.open++
	t := turn{g.answers, g.asked, g.open}
	g.answers++
	g.asked += a.n
	if now := time.Now(); now.After(g.quietFrom) && now.Before(g.quiet) {
		g.early++
	}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		g.open--
		g.mu.Unlock()
	}()
	if g.Case.raw != nil {
		return g.Case.raw(g, c, r, t)
	}
	if g.Case.change != nil {
		g.Case.change(g, r, t, a)
	}
	return g.send(c, a)
}

// hush asks for wait without requests. A message takes its time to reach the other
// members of a pool, which grace allows for; what comes after that is counted as early.
func (g *Origin) hush(wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if !now.Before(g.quiet) {
		g.quietFrom = now.Add(grace)
	}
	if until := now.Add(wait); until.After(g.quiet) {
		g.quiet = until
	}
}

// resting reports whether a pause that was asked for is not over.
func (g *Origin) resting() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Now().Before(g.quiet)
}

// grace is how long members may take to hear of a pause.
const grace = 100 * time.Millisecond

// reply is an answer that is about to be sent.
type reply struct {
	proto   string
	status  int
	reason  string
	head    []string // "Name: value"
	content Content
	from, n int64  // the body: n bytes of content
	data    []byte // the body instead, if not nil
	chunked bool
	stop    int64 // body bytes after which then is called; -1: all
	then    func(*Conn)
	tail    []byte // after the body
	close   bool
}

// honest is what a good origin answers.
func (g *Origin) honest(r *Request) *reply {
	size := g.o.Content.Size
	a := &reply{proto: "HTTP/1.1", status: http.StatusOK, content: g.o.Content, n: size, stop: -1}
	a.set("ETag", `"v1"`)
	a.set("Accept-Ranges", "bytes")
	a.set("Content-Type", "application/octet-stream")
	switch {
	case r.Ranged && int64(r.First) >= size:
		a.status, a.n = http.StatusRequestedRangeNotSatisfiable, 0
		a.set("Content-Range", fmt.Sprintf("bytes */%d", size))
	case r.Ranged:
		a.part(int64(r.First), min(int64(r.Last), size-1))
	}
	a.set("Content-Length", fmt.Sprint(a.n))
	return a
}

// part makes a the answer with the bytes first to last.
func (a *reply) part(first, last int64) {
	a.status, a.from, a.n = http.StatusPartialContent, first, last-first+1
	a.set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, a.content.Size))
	a.set("Content-Length", fmt.Sprint(a.n))
}

// whole makes a the answer with the whole file.
func (a *reply) whole() {
	a.status, a.from, a.n = http.StatusOK, 0, a.content.Size
	a.drop("Content-Range")
	a.set("Content-Length", fmt.Sprint(a.n))
}

// fail makes a an answer without a file.
func (a *reply) fail(status int, body string) {
	a.status, a.n, a.data = status, 0, []byte(body)
	a.drop("Content-Range")
	a.drop("ETag")
	a.set("Content-Type", "text/plain")
	a.set("Content-Length", fmt.Sprint(len(body)))
}

// unlike makes a the same answer of another version of the file.
func (a *reply) unlike(c Content, etag string) {
	a.content = c
	if etag == "" {
		a.drop("ETag")
	} else {
		a.set("ETag", etag)
	}
}

func (a *reply) set(name, value string) {
	a.drop(name)
	a.add(name, value)
}

func (a *reply) add(name, value string) { a.head = append(a.head, name+": "+value) }

func (a *reply) drop(name string) {
	kept := a.head[:0]
	for _, line := range a.head {
		if field, _, _ := strings.Cut(line, ":"); !strings.EqualFold(field, name) {
			kept = append(kept, line)
		}
	}
	a.head = kept
}

// chunks makes the body chunked.
func (a *reply) chunks() {
	a.drop("Content-Length")
	a.set("Transfer-Encoding", "chunked")
	a.chunked = true
}

// send writes a and returns whether the connection is kept.
func (g *Origin) send(c *Conn, a *reply) bool {
	reason := a.reason
	if reason == "" {
		reason = http.StatusText(a.status)
	}
	var head strings.Builder
	fmt.Fprintf(&head, "%s %03d %s\r\n", a.proto, a.status, reason)
	for _, line := range a.head {
		head.WriteString(line + "\r\n")
	}
	head.WriteString("\r\n")
	if _, err := io.WriteString(c, head.String()); err != nil {
		return false
	}
	from := io.Reader(io.NewSectionReader(a.content, a.from, max(a.n, 0)))
	if a.data != nil {
		from = strings.NewReader(string(a.data))
	}
	sent, buf := int64(0), make([]byte, 16<<10)
	for a.stop < 0 || sent < a.stop {
		limit := int64(len(buf))
		if a.stop >= 0 {
			limit = min(limit, a.stop-sent)
		}
		n, err := from.Read(buf[:limit])
		if n > 0 && !g.write(c, buf[:n], a.chunked) {
			return false
		}
		sent += int64(n)
		if err != nil {
			break
		}
	}
	if a.then != nil {
		a.then(c)
		return false
	}
	if a.chunked {
		c.Chunk(nil)
	}
	if len(a.tail) > 0 {
		_, _ = c.Write(a.tail)
	}
	return !a.close
}

// write sends body bytes at the origin's rate.
func (g *Origin) write(c *Conn, b []byte, chunked bool) bool {
	if g.o.Rate > 0 {
		select {
		case <-time.After(time.Duration(int64(len(b)) * int64(time.Second) / g.o.Rate)):
		case <-c.done:
			return false
		}
	}
	g.body.Add(int64(len(b)))
	if chunked {
		c.Chunk(b)
		return true
	}
	_, err := c.Write(b)
	return err == nil
}

// wait lets time pass; it returns false if the origin ends in it.
func (c *Conn) wait(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-c.done:
		return false
	}
}

// reprDigest is the file's Repr-Digest.
func reprDigest(f Content) string {
	h := sha256.New()
	_, _ = io.Copy(h, f.Reader())
	return "sha-256=:" + base64.StdEncoding.EncodeToString(h.Sum(nil)) + ":"
}

// FileURL returns where the file is; user, which may be nil, is put in.
func (g *Origin) FileURL(user *url.Userinfo) string {
	u, err := url.Parse(g.URL + Path)
	if err != nil {
		panic(err)
	}
	u.User = user
	return u.String()
}
