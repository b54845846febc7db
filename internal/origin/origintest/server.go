// Package origintest is an HTTP server for tests that does what it is told, right or
// wrong: it works on raw sockets, for an HTTP library would repair the misbehaviour
// that is to be tested.
//
// A test gives New a function that is called for each request with its Conn; what the
// function writes is what the client sees. Everything is bounded, on the loopback
// interface, and over when the test is.
package origintest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	maxConns    = 64
	maxRequests = 10_000
	maxHeader   = 64 << 10
	// lifetime ends a connection that a script keeps open, should its test hang.
	lifetime = 30 * time.Second
)

// Request is one request as it came.
type Request struct {
	Method, Target string
	Header         http.Header // Host among them
	Number         int         // of the server's requests, from 0
	At             time.Time
	// First and Last are the bytes that Range asks for; Ranged is whether it does.
	First, Last int
	Ranged      bool
}

// Conn is a connection that has sent a request. Its writes go out as they are; errors
// are the client's leaving and no matter.
type Conn struct {
	net.Conn
	done <-chan struct{}
}

// Script answers a request, of several connections at a time; it returns whether the
// connection takes another one.
type Script func(c *Conn, r *Request) (again bool)

// Server is a running server. URL begins with http:// or https:// and ends without a
// slash.
type Server struct {
	URL string

	listener net.Listener
	script   Script
	lifetime time.Duration
	done     chan struct{}
	wg       sync.WaitGroup

	mu       sync.Mutex // guards what follows
	requests []*Request
	conns    map[net.Conn]bool
	dialled  int
	closed   bool
}

// New starts a server that ends with the test.
func New(t testing.TB, script Script) *Server {
	return NewTLS(t, nil, script)
}

// NewTLS starts a server that speaks TLS, unless config is nil.
func NewTLS(t testing.TB, config *tls.Config, script Script) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := Serve(l, config, lifetime, script)
	t.Cleanup(s.Close)
	return s
}

// Serve answers what comes in at l, over TLS if config is not nil, until Close. A
// connection is cut off when it has lived for longest.
func Serve(l net.Listener, config *tls.Config, longest time.Duration, script Script) *Server {
	s := &Server{
		listener: l, script: script, lifetime: longest, done: make(chan struct{}), conns: map[net.Conn]bool{},
		URL: "http://" + l.Addr().String(),
	}
	if config != nil {
		s.URL = "https://" + l.Addr().String()
	}
	s.wg.Go(func() { s.accept(config) })
	return s
}

// Close ends the server and waits for it.
func (s *Server) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	close(s.done)
	s.listener.Close()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// Requests returns the requests so far.
func (s *Server) Requests() []*Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Request(nil), s.requests...)
}

// Dialled returns how many connections were made so far.
func (s *Server) Dialled() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dialled
}

func (s *Server) accept(config *tls.Config) {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.dialled++
		full := len(s.conns) == maxConns || s.closed
		if !full {
			s.conns[c] = true
		}
		s.mu.Unlock()
		if full {
			c.Close()
			continue
		}
		s.wg.Go(func() {
			s.serve(c, config)
			c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		})
	}
}

func (s *Server) serve(raw net.Conn, config *tls.Config) {
	_ = raw.SetDeadline(time.Now().Add(s.lifetime))
	conn := &Conn{Conn: raw, done: s.done}
	if config != nil {
		conn.Conn = tls.Server(raw, config)
	}
	limited := &io.LimitedReader{R: conn, N: maxHeader}
	reader := textproto.NewReader(bufio.NewReader(limited))
	for {
		limited.N = maxHeader
		line, err := reader.ReadLine()
		if err != nil {
			return
		}
		header, err := reader.ReadMIMEHeader()
		if err != nil {
			return
		}
		r := &Request{Header: http.Header(header), At: time.Now()}
		r.Method, r.Target, _ = strings.Cut(line, " ")
		r.Target, _, _ = strings.Cut(r.Target, " ")
		r.parseRange()
		s.mu.Lock()
		r.Number = len(s.requests)
		s.requests = append(s.requests, r)
		s.mu.Unlock()
		if r.Number >= maxRequests || !s.script(conn, r) {
			return
		}
	}
}

func (r *Request) parseRange() {
	first, last, found := strings.Cut(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-")
	if !found {
		return
	}
	var err1, err2 error
	r.First, err1 = strconv.Atoi(first)
	r.Last, err2 = strconv.Atoi(last)
	r.Ranged = err1 == nil && err2 == nil
}

// Print writes text with its line feeds as CR LF.
func (c *Conn) Print(format string, args ...any) {
	_, _ = io.WriteString(c, strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "\r\n"))
}

// Header writes a status line and header fields, one a line, and the empty line.
func (c *Conn) Header(status int, fields string) {
	fields = strings.TrimSpace(fields)
	if fields != "" {
		fields += "\n"
	}
	c.Print("HTTP/1.1 %d %s\n%s\n", status, http.StatusText(status), fields)
}

// Send writes a whole answer with its Content-Length.
func (c *Conn) Send(status int, fields string, body []byte) {
	c.Header(status, fmt.Sprintf("Content-Length: %d\n%s", len(body), strings.TrimSpace(fields)))
	_, _ = c.Write(body)
}

// Part answers a request for a range of file rightly.
func (c *Conn) Part(r *Request, file []byte, fields string) {
	last := min(r.Last, len(file)-1)
	c.Send(http.StatusPartialContent, fmt.Sprintf("Content-Range: bytes %d-%d/%d\n%s", r.First, last, len(file), fields), file[r.First:last+1])
}

// Chunk writes b as one chunk; without bytes it is the end of a chunked body.
func (c *Conn) Chunk(b []byte) {
	c.Print("%x\n", len(b))
	_, _ = c.Write(b)
	c.Print("\n")
}

// Reset closes the connection with an RST instead of a FIN.
func (c *Conn) Reset() {
	switch c := c.Conn.(type) {
	case *net.TCPConn:
		_ = c.SetLinger(0)
	case *memConn:
		c.Abort()
	}
	c.Close()
}

// Hang waits until the client has left or the test is over.
func (c *Conn) Hang() {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, c.Conn)
	}()
	select {
	case <-gone:
	case <-c.done:
		c.Close()
		<-gone
	}
}

// File returns n bytes that look random and are the same each time.
func File(n int) []byte {
	var seed [32]byte
	copy(seed[:], "origintest")
	var b bytes.Buffer
	_, _ = io.CopyN(&b, rand.NewChaCha8(seed), int64(n))
	return b.Bytes()
}
