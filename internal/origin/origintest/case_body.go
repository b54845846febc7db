package origintest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// cutAt makes the body end after part in a hundred of it, by what then does.
func (a *reply) cutAt(part int64, then func(*Conn)) {
	a.stop = max(a.n*part/100, 1)
	a.then = then
}

func hang(c *Conn)     { c.Hang() }
func leave(*Conn)      {}
func reset(c *Conn)    { c.Reset() }
func farewell(c *Conn) { c.Close() } // over TLS with its alert

// bodyCases: how the length and the form of a body are told.
var bodyCases = []Case{
	{Number: 34, Name: "gzip-range", What: "206 with Content-Encoding: gzip, though identity was asked for",
		change: ranged(func(_ *Origin, _ *Request, _ turn, a *reply) { a.set("Content-Encoding", "gzip") })},
	{Number: 35, Name: "gzip-whole", What: "200 with Content-Encoding: gzip and the length of the packed form",
		change: func(g *Origin, _ *Request, _ turn, a *reply) {
			a.whole()
			var packed bytes.Buffer
			w := gzip.NewWriter(&packed)
			_, _ = io.Copy(w, g.o.Content.Reader())
			_ = w.Close()
			a.data = packed.Bytes()
			a.set("Content-Encoding", "gzip")
			a.set("Content-Length", fmt.Sprint(packed.Len()))
		}},
	{Name: "identity-encoding", What: "206 with Content-Encoding: identity",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.set("Content-Encoding", "identity") }},
	{Number: 36, Name: "cut-length", What: "Content-Length right, closes after 60 % of the body",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.cutAt(60, leave) }},
	{Name: "cut-whole", What: "200 with the whole file, no ranges, strong ETag, closes after 60 % each time",
		change: func(g *Origin, r *Request, t turn, a *reply) { noRange(g, r, t, a); a.cutAt(60, leave) }},
	{Name: "cut-whole-nameless", What: "200 with the whole file, no ranges, no validator, closes after 60 % each time",
		change: func(g *Origin, r *Request, t turn, a *reply) {
			noRange(g, r, t, a)
			a.drop("ETag")
			a.cutAt(60, leave)
		}},
	{Name: "cut-whole-once", What: "200 with the whole file, no ranges, no validator, closes after 60 % the first time",
		change: func(g *Origin, r *Request, t turn, a *reply) {
			noRange(g, r, t, a)
			a.drop("ETag")
			if t.n == 0 {
				a.cutAt(60, leave)
			}
		}},
	{Number: 39, Name: "cut-chunks", What: "200 chunked, closes before the last chunk",
		change: func(g *Origin, r *Request, t turn, a *reply) {
			noRange(g, r, t, a)
			a.chunks()
			a.cutAt(60, leave)
		}},
	{Number: 40, Name: "chunked-range", What: "206 chunked, exact bytes, no length",
		change: ranged(func(_ *Origin, _ *Request, _ turn, a *reply) { a.chunks() })},
	{Name: "chunked-long", What: "206 chunked with five bytes more than its Content-Range says",
		change: ranged(func(_ *Origin, _ *Request, _ turn, a *reply) { a.chunks(); a.n += 5 })},
	{Name: "chunked-short", What: "206 chunked with one byte less than its Content-Range says",
		change: ranged(func(_ *Origin, _ *Request, _ turn, a *reply) { a.chunks(); a.n-- })},
	{Number: 41, Name: "length-and-chunks", What: "Content-Length: 3 and chunked, exact bytes",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.chunks(); a.set("Content-Length", "3") }},
	{Number: 42, Name: "two-lengths", What: "two different Content-Length fields",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.add("Content-Length", fmt.Sprint(a.n+1)) }},
	{Name: "length-list", What: "Content-Length: n, n",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) {
			a.set("Content-Length", fmt.Sprintf("%d, %d", a.n, a.n))
		}},
	{Name: "length-plus", What: "Content-Length: +n",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.set("Content-Length", fmt.Sprintf("+%d", a.n)) }},
	{Name: "length-negative", What: "Content-Length: -n",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.set("Content-Length", fmt.Sprintf("-%d", a.n)) }},
	{Name: "length-huge", What: "200 with Content-Length: 9223372036854775808 (2^63)",
		change: func(g *Origin, r *Request, t turn, a *reply) {
			noRange(g, r, t, a)
			a.set("Content-Length", "9223372036854775808")
		}},
	{Name: "long-body", What: "206 whose Content-Length and body are five bytes longer than its Content-Range",
		change: ranged(func(_ *Origin, _ *Request, _ turn, a *reply) {
			a.n += 5
			a.set("Content-Length", fmt.Sprint(a.n))
		})},
	{Name: "close-delimited-range", What: "206 without a length that ends where the connection does, exact bytes",
		change: ranged(func(_ *Origin, _ *Request, _ turn, a *reply) {
			a.drop("Content-Length")
			a.set("Connection", "close")
			a.close = true
		})},
	{Name: "close-delimited-cut", What: "206 without a length that ends after 60 % as if that were all",
		change: ranged(func(_ *Origin, _ *Request, _ turn, a *reply) {
			a.drop("Content-Length")
			a.set("Connection", "close")
			a.cutAt(60, leave)
		})},
	{Number: 44, Name: "chunk-bomb-size", What: "a chunk size of sixteen hexadecimal digits",
		raw: func(_ *Origin, c *Conn, _ *Request, _ turn) bool {
			c.Header(http.StatusOK, "ETag: \"v1\"\nTransfer-Encoding: chunked")
			c.Print("ffffffffffffffff\n")
			_, _ = c.Write(make([]byte, 1000))
			return false
		}},
	{Number: 44, Name: "chunk-bomb-extension", What: "megabytes of chunk extensions",
		raw: func(_ *Origin, c *Conn, _ *Request, _ turn) bool {
			c.Header(http.StatusOK, "ETag: \"v1\"\nTransfer-Encoding: chunked")
			for range 64 {
				if _, err := fmt.Fprintf(c, "1;%s\r\nx\r\n", strings.Repeat("x", 64<<10)); err != nil {
					return false
				}
			}
			return false
		}},
	{Name: "te-xchunked", What: "Transfer-Encoding: xchunked with a plain body",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.set("Transfer-Encoding", "xchunked") }},
	{Name: "te-chunked-twice", What: "Transfer-Encoding: chunked, chunked",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) {
			a.chunks()
			a.set("Transfer-Encoding", "chunked, chunked")
		}},
	{Name: "te-gzip-chunked", What: "Transfer-Encoding: gzip, chunked",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.chunks(); a.set("Transfer-Encoding", "gzip, chunked") }},
	{Name: "trailing-garbage", What: "exact body, then a line of garbage on the same connection",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.tail = []byte("and one more thing\r\n") }},
	{Name: "poisoned-connection", What: "exact body, then a whole second answer that nobody asked for, with other bytes",
		change: func(g *Origin, _ *Request, t turn, a *reply) {
			if t.n == 0 {
				size := g.o.Content.Size
				body := make([]byte, min(size, 256<<10))
				_, _ = g.other().ReadAt(body, 0)
				a.tail = fmt.Appendf(nil, "HTTP/1.1 206 Partial Content\r\nETag: \"v1\"\r\nContent-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n%s",
					a.from+a.n, a.from+a.n+int64(len(body))-1, size, len(body), body)
			}
		}},
	{Number: 57, Name: "http10", What: "HTTP/1.0 200 without a length",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) {
			a.whole()
			a.proto = "HTTP/1.0"
			a.head, a.close = []string{"Content-Type: application/octet-stream"}, true
		}},
	{Name: "http10-chunked", What: "HTTP/1.0 200 in chunks, which HTTP/1.0 has not, without a length",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) {
			a.whole()
			a.chunks()
			a.proto, a.close = "HTTP/1.0", true
		}},
	{Name: "http10-chunked-length", What: "HTTP/1.0 200 in one chunk, with strong ETag and the length of the chunk and what is around it",
		change: func(g *Origin, _ *Request, _ turn, a *reply) {
			a.whole()
			size := g.o.Content.Size
			framed := fmt.Appendf(nil, "%x;a=b\r\n", size)
			framed = append(framed, make([]byte, size)...)
			_, _ = g.o.Content.ReadAt(framed[int64(len(framed))-size:], 0)
			a.data = append(framed, "\r\n0\r\nX: y\r\n\r\n"...)
			a.set("Transfer-Encoding", "chunked")
			a.set("Content-Length", fmt.Sprint(len(a.data)))
			a.proto, a.close = "HTTP/1.0", true
		}},
	{Name: "http10-cut", What: "HTTP/1.0 200 without a length that ends after 60 % as if that were all",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) {
			a.whole()
			a.proto = "HTTP/1.0"
			a.head = []string{"Content-Type: application/octet-stream"}
			a.cutAt(60, leave)
		}},
	{Name: "tls-http10", What: "HTTP/1.0 200 without a length over TLS, closed with its alert", tls: "good",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) {
			a.whole()
			a.proto, a.then = "HTTP/1.0", farewell
			a.head = []string{"Content-Type: application/octet-stream"}
		}},
	{Name: "tls-http10-cut", What: "HTTP/1.0 200 without a length over TLS that ends after 60 %, between two records and without an alert", tls: "good",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) {
			a.whole()
			a.proto = "HTTP/1.0"
			a.head = []string{"Content-Type: application/octet-stream"}
			a.cutAt(60, leave)
		}},
	{Name: "tls-http10-cut-once", What: "the same in the first answer, the others are whole and closed with an alert", tls: "good",
		change: func(_ *Origin, _ *Request, t turn, a *reply) {
			a.whole()
			a.proto, a.then = "HTTP/1.0", farewell
			a.head = []string{"Content-Type: application/octet-stream"}
			if t.n == 0 {
				a.cutAt(60, leave)
			}
		}},
}

// patienceCases: origins that are busy, slow or silent.
var patienceCases = []Case{
	{Number: 45, Name: "429-seconds", What: "429 with Retry-After: 7 while more than two answers are under way",
		change: func(g *Origin, _ *Request, t turn, a *reply) {
			if t.open > 2 {
				a.fail(http.StatusTooManyRequests, "")
				a.set("Retry-After", "7")
				g.hush(7 * time.Second)
			}
		}},
	{Name: "429-once", What: "429 with Retry-After: 30 to the third request",
		change: func(g *Origin, _ *Request, t turn, a *reply) {
			if t.n == 2 {
				a.fail(http.StatusTooManyRequests, "")
				a.set("Retry-After", "30")
				g.hush(30 * time.Second)
			}
		}},
	{Name: "429-twice", What: "429 with Retry-After: 2 and Retry-After: 30 to the third request",
		change: func(g *Origin, _ *Request, t turn, a *reply) {
			if t.n == 2 {
				a.fail(http.StatusTooManyRequests, "")
				a.head = append(a.head, "Retry-After: 2", "Retry-After: 30")
				g.hush(30 * time.Second)
			}
		}},
	{Name: "429-at-once", What: "429 with Retry-After: 30 to the first request",
		change: func(g *Origin, _ *Request, t turn, a *reply) {
			if t.n == 0 {
				a.fail(http.StatusTooManyRequests, "")
				a.set("Retry-After", "30")
				g.hush(30 * time.Second)
			}
		}},
	{Number: 46, Name: "503-date", What: "503 once with Retry-After as a date ten seconds ahead",
		change: func(g *Origin, _ *Request, t turn, a *reply) {
			if t.n == 1 {
				a.fail(http.StatusServiceUnavailable, "")
				now := time.Now()
				a.set("Date", httpDate(now))
				a.set("Retry-After", httpDate(now.Add(10*time.Second)))
				g.hush(10 * time.Second)
			}
		}},
	{Number: 46, Name: "503-date-past", What: "503 once with Retry-After as a date an hour ago",
		change: func(_ *Origin, _ *Request, t turn, a *reply) {
			if t.n == 1 {
				a.fail(http.StatusServiceUnavailable, "")
				a.set("Date", httpDate(time.Now()))
				a.set("Retry-After", httpDate(time.Now().Add(-time.Hour)))
			}
		}},
	{Number: 46, Name: "503-date-skewed", What: "503 once with Retry-After ten seconds after its own Date, which is wrong by an hour",
		change: func(g *Origin, _ *Request, t turn, a *reply) {
			if t.n == 1 {
				a.fail(http.StatusServiceUnavailable, "")
				wrong := time.Now().Add(-time.Hour)
				a.set("Date", httpDate(wrong))
				a.set("Retry-After", httpDate(wrong.Add(10*time.Second)))
				g.hush(10 * time.Second)
			}
		}},
	{Number: 47, Name: "503-forever", What: "503 always, without a header",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.fail(http.StatusServiceUnavailable, "") }},
	{Name: "503-midway", What: "503 for ever after half of the file was asked for",
		change: func(g *Origin, _ *Request, t turn, a *reply) {
			if t.asked >= g.o.Content.Size/2 {
				a.fail(http.StatusServiceUnavailable, "")
			}
		}},
	{Name: "retry-after-huge", What: "429 always, Retry-After: 999999999999999999999",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) {
			a.fail(http.StatusTooManyRequests, "")
			a.set("Retry-After", "999999999999999999999")
		}},
	{Name: "retry-after-garbage", What: "429 once, Retry-After: soon",
		change: func(_ *Origin, _ *Request, t turn, a *reply) {
			if t.n == 1 {
				a.fail(http.StatusTooManyRequests, "")
				a.set("Retry-After", "soon")
			}
		}},
	{Number: 48, Name: "stall", What: "header and 1 KiB, then nothing",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.stop, a.then = min(1<<10, a.n), hang }},
	{Name: "stall-once", What: "the second answer sends 1 KiB, then nothing; the others are good",
		change: func(_ *Origin, _ *Request, t turn, a *reply) {
			if t.n == 1 {
				a.stop, a.then = min(1<<10, a.n), hang
			}
		}},
	{Number: 49, Name: "drip", What: "one byte a second",
		change: func(g *Origin, _ *Request, _ turn, a *reply) { a.stop, a.then = 1, func(c *Conn) { g.drip(c, a) } }},
	{Name: "drip-once", What: "the second answer sends a byte a second; the others are good",
		change: func(g *Origin, _ *Request, t turn, a *reply) {
			if t.n == 1 {
				a.stop, a.then = 1, func(c *Conn) { g.drip(c, a) }
			}
		}},
	{Number: 50, Name: "mute", What: "takes the connection, never answers",
		raw: func(_ *Origin, c *Conn, _ *Request, _ turn) bool { c.Hang(); return false }},
	{Name: "slow-header", What: "one byte of the header a second",
		raw: func(_ *Origin, c *Conn, _ *Request, _ turn) bool {
			for _, b := range []byte("HTTP/1.1 200 OK\r\nX-Padding: " + strings.Repeat("x", 1<<20)) {
				if _, err := c.Write([]byte{b}); err != nil || !c.wait(time.Second) {
					return false
				}
			}
			return false
		}},
	{Number: 51, Name: "reset", What: "RST after 100 kB of each answer",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) {
			if a.n > 100_000 {
				a.stop, a.then = 100_000, reset
			}
		}},
	{Name: "reset-at-once", What: "RST instead of each answer",
		raw: func(_ *Origin, c *Conn, _ *Request, _ turn) bool { c.Reset(); return false }},
	{Name: "close-at-once", What: "closes instead of each answer",
		raw: func(*Origin, *Conn, *Request, turn) bool { return false }},
}

// drip sends the rest of a body one byte a second.
func (g *Origin) drip(c *Conn, a *reply) {
	var one [1]byte
	for at := a.from + 1; at < a.from+a.n && c.wait(time.Second); at++ {
		_, _ = a.content.ReadAt(one[:], at)
		g.body.Add(1)
		if _, err := c.Write(one[:]); err != nil {
			return
		}
	}
}
