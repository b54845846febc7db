package origintest

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// header makes every answer an honest one with something of its header replaced.
func header(edit func(head string) string) func(*Origin, *Conn, *Request, turn) bool {
	return func(g *Origin, c *Conn, r *Request, _ turn) bool {
		a := g.honest(r)
		var head strings.Builder
		fmt.Fprintf(&head, "HTTP/1.1 %d %s\r\n", a.status, http.StatusText(a.status))
		for _, line := range a.head {
			head.WriteString(line + "\r\n")
		}
		if _, err := c.Write([]byte(edit(head.String() + "\r\n"))); err != nil {
			return false
		}
		body := make([]byte, a.n)
		_, _ = a.content.ReadAt(body, a.from)
		return g.write(c, body, false)
	}
}

// wireCases: what is not quite HTTP.
var wireCases = []Case{
	{Name: "folded-header", What: "Content-Range folded over two lines, as old HTTP had it",
		raw: header(func(h string) string {
			return strings.Replace(h, "Content-Range: bytes ", "Content-Range: bytes\r\n ", 1)
		})},
	{Name: "space-before-colon", What: "Content-Range : bytes a-b/S",
		raw: header(func(h string) string { return strings.Replace(h, "Content-Range:", "Content-Range :", 1) })},
	{Name: "nul-in-header", What: "a NUL byte in a header",
		raw: header(func(h string) string { return strings.Replace(h, "ETag: \"v1", "ETag: \"v\x001", 1) })},
	{Name: "bare-feeds", What: "lines that end with LF alone",
		raw: header(func(h string) string { return strings.ReplaceAll(h, "\r\n", "\n") })},
	{Name: "huge-header", What: "a header field of 10 MB",
		raw: header(func(h string) string {
			return strings.Replace(h, "ETag", "X-Big: "+strings.Repeat("x", 10<<20)+"\r\nETag", 1)
		})},
	{Name: "many-headers", What: "100,000 header fields",
		raw: header(func(h string) string {
			return strings.Replace(h, "ETag", strings.Repeat("X-Many: 1\r\n", 100_000)+"ETag", 1)
		})},
	{Name: "continue-flood", What: "1xx answers without end",
		raw: func(_ *Origin, c *Conn, _ *Request, _ turn) bool {
			for range 100_000 {
				if _, err := c.Write([]byte("HTTP/1.1 103 Early Hints\r\n\r\n")); err != nil {
					return false
				}
			}
			return false
		}},
	{Name: "continue-few", What: "100 and 103 before each good answer",
		raw: header(func(h string) string {
			return "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + h
		})},
	{Name: "http09", What: "the file's bytes and no header, as HTTP/0.9 has it",
		raw: func(g *Origin, c *Conn, _ *Request, _ turn) bool {
			body := make([]byte, min(g.o.Content.Size, 64<<10))
			_, _ = g.o.Content.ReadAt(body, 0)
			g.write(c, body, false)
			return false
		}},
	{Name: "other-protocol", What: "SSH-2.0-OpenSSH_9.0",
		raw: func(_ *Origin, c *Conn, _ *Request, _ turn) bool { c.Print("SSH-2.0-OpenSSH_9.0\n"); return false }},
	{Name: "status-000", What: "HTTP/1.1 000", raw: header(func(h string) string { return "HTTP/1.1 000 Odd" + h[strings.Index(h, "\r\n"):] })},
	{Name: "status-999", What: "HTTP/1.1 999", raw: header(func(h string) string { return "HTTP/1.1 999 Odd" + h[strings.Index(h, "\r\n"):] })},
	{Name: "status-words", What: "HTTP/1.1 two hundred", raw: header(func(h string) string { return "HTTP/1.1 two hundred" + h[strings.Index(h, "\r\n"):] })},
	{Name: "http-3000", What: "HTTP/3000.1 200 OK", raw: header(func(h string) string { return strings.Replace(h, "HTTP/1.1", "HTTP/3000.1", 1) })},
	{Name: "switching", What: "101 Switching Protocols", raw: func(_ *Origin, c *Conn, _ *Request, _ turn) bool {
		c.Header(http.StatusSwitchingProtocols, "Upgrade: tcp\nConnection: Upgrade")
		c.Hang()
		return false
	}},
	{Name: "204", What: "204 No Content", change: status(http.StatusNoContent)},
	{Name: "205", What: "205 Reset Content", change: status(http.StatusResetContent)},
	{Name: "203", What: "203 with the file", change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.whole(); a.status = http.StatusNonAuthoritativeInfo }},
	{Name: "300", What: "300 Multiple Choices", change: status(http.StatusMultipleChoices)},
	{Name: "404", What: "404", change: status(http.StatusNotFound)},
	{Name: "403", What: "403", change: status(http.StatusForbidden)},
	{Name: "407", What: "407", change: status(http.StatusProxyAuthRequired)},
	{Name: "418", What: "418", change: status(http.StatusTeapot)},
	{Name: "403-midway", What: "403 after half of the file was asked for",
		change: func(g *Origin, _ *Request, t turn, a *reply) {
			if t.asked >= g.o.Content.Size/2 {
				a.fail(http.StatusForbidden, "")
			}
		}},
	{Name: "404-beside", What: "404 while another answer is under way", change: beside(http.StatusNotFound)},
	{Name: "400-beside", What: "400 while another answer is under way", change: beside(http.StatusBadRequest)},
	{Name: "404-midway", What: "404 after half of the file was asked for",
		change: func(g *Origin, _ *Request, t turn, a *reply) {
			if t.asked >= g.o.Content.Size/2 {
				a.fail(http.StatusNotFound, "")
			}
		}},
}

// beside answers so while another answer is under way.
func beside(code int) func(*Origin, *Request, turn, *reply) {
	return func(_ *Origin, _ *Request, t turn, a *reply) {
		if t.open > 1 {
			a.fail(code, "")
		}
	}
}

func status(code int) func(*Origin, *Request, turn, *reply) {
	return func(_ *Origin, _ *Request, _ turn, a *reply) {
		a.fail(code, "")
		if code == http.StatusNoContent {
			a.drop("Content-Length")
		}
	}
}

// location makes every request for the file end in a redirect.
func location(code int, to func(g *Origin, r *Request, t turn) string) func(*Origin, *Request, turn, *reply) {
	return func(g *Origin, r *Request, t turn, a *reply) {
		a.fail(code, "")
		if where := to(g, r, t); where != "" {
			a.set("Location", where)
		}
	}
}

func constant(where string) func(*Origin, *Request, turn) string {
	return func(*Origin, *Request, turn) string { return where }
}

// redirectCases: where an origin sends its clients, and what they take along.
var redirectCases = []Case{
	{Number: 58, Name: "redirect-good", What: "302 to another host, 206 there", second: true,
		change: location(http.StatusFound, func(g *Origin, _ *Request, _ turn) string { return g.at(1, Path) })},
	{Name: "redirect-relative", What: "307 to a relative address on the same host",
		change: func(g *Origin, r *Request, t turn, a *reply) {
			if !strings.HasPrefix(r.Target, "/files/real") {
				location(http.StatusTemporaryRedirect, constant("real/image.iso"))(g, r, t, a)
			}
		}},
	{Number: 59, Name: "redirect-loop", What: "302 to A, from there to B, from there to A",
		change: location(http.StatusFound, func(_ *Origin, r *Request, _ turn) string {
			if strings.HasPrefix(r.Target, "/a") {
				return "/b"
			}
			return "/a"
		})},
	{Number: 59, Name: "redirect-25", What: "25 redirects to addresses that differ, then the file",
		change: func(g *Origin, r *Request, t turn, a *reply) {
			var n int
			_, _ = fmt.Sscanf(r.Target, "/hop?n=%d", &n)
			if n < 25 {
				location(http.StatusFound, constant(fmt.Sprintf("/hop?n=%d", n+1)))(g, r, t, a)
			}
		}},
	{Name: "redirect-endless", What: "redirects without end, each with another query",
		change: location(http.StatusMovedPermanently, func(_ *Origin, _ *Request, t turn) string { return fmt.Sprintf("?n=%d", t.n) })},
	{Number: 63, Name: "cred-watch", What: "302 to another host and port, which records what arrives", second: true,
		change: func(g *Origin, r *Request, t turn, a *reply) {
			location(http.StatusFound, func(g *Origin, _ *Request, _ turn) string { return g.at(1, Path+"?token=1") })(g, r, t, a)
			a.set("Set-Cookie", "session=secret; Path=/")
		}},
	{Number: 65, Name: "odd-scheme-file", What: "302 to file:///etc/passwd", change: location(http.StatusFound, constant("file:///etc/passwd"))},
	{Number: 65, Name: "odd-scheme-ftp", What: "302 to ftp://", change: location(http.StatusFound, constant("ftp://other.test/x"))},
	{Number: 65, Name: "odd-scheme-data", What: "302 to data:", change: location(http.StatusFound, constant("data:text/plain,hello"))},
	{Number: 65, Name: "redirect-userinfo", What: "302 to an address with a user and a password in it", second: true,
		change: location(http.StatusFound, func(g *Origin, _ *Request, _ turn) string {
			return strings.Replace(g.at(1, Path), "://", "://user:pass@", 1)
		})},
	{Name: "redirect-nowhere", What: "302 without Location", change: location(http.StatusFound, constant(""))},
	{Name: "redirect-twice", What: "302 with two Location fields", second: true,
		change: func(g *Origin, r *Request, t turn, a *reply) {
			location(http.StatusFound, constant("/a"))(g, r, t, a)
			a.add("Location", g.at(1, Path))
		}},
	{Name: "redirect-downgrade", What: "https redirects to http", tls: "good", second: true,
		change: location(http.StatusFound, func(g *Origin, _ *Request, _ turn) string { return g.at(1, Path) })},
	{Name: "redirect-changes", What: "the second host is another one after half of the file: 302 to a path that has another version", second: true,
		change: func(g *Origin, r *Request, t turn, a *reply) {
			switch {
			case strings.HasPrefix(r.Target, "/new"):
				a.unlike(g.other(), `"v2"`)
			case t.n == 0:
				location(http.StatusFound, func(g *Origin, _ *Request, _ turn) string { return g.at(1, Path) })(g, r, t, a)
			default:
				location(http.StatusFound, constant("/new"))(g, r, t, a)
			}
		}},
}

// fileCases: what the file is, and is called.
var fileCases = []Case{
	{Number: 67, Name: "cookie-gate", What: "403 unless the cookie that the first answer sets is returned",
		change: func(_ *Origin, r *Request, _ turn, a *reply) {
			if !strings.Contains(r.Header.Get("Cookie"), "gate=open") {
				a.fail(http.StatusForbidden, "")
				a.set("Set-Cookie", "gate=open; Path=/")
			}
		}},
	{Name: "cookie-gate-waits", What: "403 with a cookie and Retry-After: 30 to the first request; who comes back at once is locked out",
		change: func(g *Origin, r *Request, t turn, a *reply) {
			switch {
			case t.n == 0:
				a.fail(http.StatusForbidden, "")
				a.set("Set-Cookie", "gate=open; Path=/")
				a.set("Retry-After", "30")
				g.hush(30 * time.Second)
			case g.resting():
				a.fail(http.StatusNotFound, "")
			}
		}},
	{Name: "404-waits", What: "404 with Retry-After: 30, always",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) {
			a.fail(http.StatusNotFound, "")
			a.set("Retry-After", "30")
		}},
	{Number: 68, Name: "evil-name-path", What: `Content-Disposition: filename="../../x"`, change: named(`attachment; filename="../../x"`)},
	{Number: 68, Name: "evil-name-dots", What: "filename* with encoded dots and slashes", change: named(`attachment; filename*=UTF-8''%2e%2e%2f%2e%2e%2fx`)},
	{Number: 68, Name: "evil-name-device", What: `filename="CON.txt"`, change: named(`attachment; filename="CON.txt"`)},
	{Number: 68, Name: "evil-name-bidi", What: "a right-to-left override in the name", change: named(`attachment; filename*=UTF-8''a%E2%80%AEtxt.exe`)},
	{Number: 68, Name: "evil-name-long", What: "a name of 5,000 characters", change: named(`attachment; filename="` + strings.Repeat("a", 5000) + `"`)},
	{Number: 68, Name: "evil-name-newline", What: "an encoded newline in the name", change: named(`attachment; filename*=UTF-8''a%0Ab`)},
	{Name: "evil-name-start-up", What: `filename=".bashrc"`, change: named(`attachment; filename=".bashrc"`)},
	{Name: "evil-name-absolute", What: `filename="/etc/passwd"`, change: named(`attachment; filename="/etc/passwd"`)},
	{Number: 69, Name: "length-bomb", What: "206 0-0/9223372036854775807",
		change: contentRange(func(_, _, _ int64) string { return "bytes 0-0/9223372036854775807" })},
	{Number: 69, Name: "length-bomb-2^60", What: "206 a-b/2^60, consistent else",
		change: contentRange(func(a, b, _ int64) string { return fmt.Sprintf("bytes %d-%d/%d", a, b, int64(1)<<60) })},
	{Name: "length-bomb-2^50", What: "206 a-b/2^50, consistent else: a file larger than any disk here",
		change: contentRange(func(a, b, _ int64) string { return fmt.Sprintf("bytes %d-%d/%d", a, b, int64(1)<<50) })},
	{Name: "length-bomb-whole", What: "200 with Content-Length 2^50 and a kilobyte of it",
		change: func(g *Origin, r *Request, t turn, a *reply) {
			noRange(g, r, t, a)
			a.set("Content-Length", fmt.Sprint(int64(1)<<50))
			a.stop, a.then = 1<<10, leave
		}},
	{Number: 70, Name: "empty", What: "200 with length 0; 416 with */0 to a range",
		change: func(_ *Origin, r *Request, _ turn, a *reply) {
			a.content = Content{}
			a.whole()
			if r.Ranged {
				a.fail(http.StatusRequestedRangeNotSatisfiable, "")
				a.set("Content-Range", "bytes */0")
			}
		}},
	{Name: "empty-416-once", What: "416 with */0 to the very first request, for a file that is not empty",
		change: ranged(func(_ *Origin, _ *Request, t turn, a *reply) { emptyAt(t.n == 0, a) })},
	{Name: "empty-416-midway", What: "416 with */0 to the fourth request, for a file that is not empty",
		change: ranged(func(_ *Origin, _ *Request, t turn, a *reply) { emptyAt(t.n == 3, a) })},
	{Name: "empty-416-ranges", What: "416 with */0 to every range, and the whole file to who asks for that",
		change: ranged(func(_ *Origin, _ *Request, _ turn, a *reply) { emptyAt(true, a) })},
	{Name: "empty-whole", What: "200 with length 0, also to a range",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.content = Content{}; a.whole() }},
}

// emptyAt says that the file is empty, where now is set.
func emptyAt(now bool, a *reply) {
	if now {
		a.fail(http.StatusRequestedRangeNotSatisfiable, "")
		a.set("Content-Range", "bytes */0")
	}
}

func named(disposition string) func(*Origin, *Request, turn, *reply) {
	return func(_ *Origin, _ *Request, _ turn, a *reply) { a.set("Content-Disposition", disposition) }
}

// expires is how long the certificate of tls-expires-midway is good for.
const expires = 2 * time.Second
