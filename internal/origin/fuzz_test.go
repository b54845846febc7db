package origin

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"dragonload/internal/piece"
)

func FuzzReprDigest(f *testing.F) {
	sum := sha256.Sum256([]byte("x"))
	good := formatReprDigest("sha-256", sum[:])
	for _, s := range []string{good, good + ", md5=:AA==:", "sha-256=:AA==:", "sha-256", "sha-256=?1", good + ";q=1", "a=:AA==:, a=:AQ==:", "sha-256=:" + strings.Repeat("A", 5000) + ":", "=", ",", "sha-256=:!!:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		digests := parseReprDigest(s)
		for name, sum := range digests {
			if len(sum) > len(s) {
				t.Fatalf("%q: a digest of %d bytes", s, len(sum))
			}
			again := parseReprDigest(formatReprDigest(name, sum))
			if !bytes.Equal(again[name], sum) {
				t.Fatalf("%q: %s is %x, and said again %x", s, name, sum, again[name])
			}
		}
		v := versionOf(http.Header{"Repr-Digest": {s}})
		if v.sha256 != "" && len(reprDigest(v.sha256)) != sha256.Size {
			t.Fatalf("%q: %q counts as a SHA-256", s, v.sha256)
		}
	})
}

func FuzzLocation(f *testing.F) {
	for _, s := range []string{
		"/x", "x?y#z", "//other/x", "http://other/x", "https://other:8/x", "file:///etc/passwd", "ftp://a/b", "data:text/plain,x", "http://u:p@other/", "http://[::1%25lo]/",
		strings.Repeat("\xba", maxLocation-1),
		"http://2130706433/", "javascript:1", "", " ", "http:x", "https:///x", "http://other\x00/", `\\host\x`, "HTTPS://OTHER/",
	} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, s string, secure bool) {
		from := &url.URL{Scheme: "http", Host: "a.example", Path: "/dir/f", RawQuery: "q=1"}
		if secure {
			from.Scheme = "https"
		}
		next, why := follow(from, http.Header{"Location": {s}})
		if why != "" {
			if next != nil || strings.Contains(why, s) && len(s) > 30 {
				t.Fatalf("%q is refused with %q and leads to %v", s, why, next)
			}
			return
		}
		if next.Scheme != "http" && next.Scheme != "https" || secure && next.Scheme != "https" || next.User != nil || next.Hostname() == "" || next.Fragment != "" {
			t.Fatalf("%q leads from %v to %v", s, from, next)
		}
		if _, err := http.NewRequestWithContext(t.Context(), http.MethodGet, next.String(), nil); err != nil {
			return // refused before anything is sent
		}
		again, why := follow(from, http.Header{"Location": {next.String()}})
		if why != "" || again.String() != next.String() {
			t.Fatalf("%q leads to %v, and that to %v (%s)", s, next, again, why)
		}
	})
}

// FuzzAnswer has an origin answer a request for a range with any bytes. Whatever is
// accepted as bytes of the file must be the file's, at their place: where the answer is
// a lie about bytes of the file, it is not one of form, so the body is always made of
// the file's bytes at the place that the answer's own Content-Range names.
func FuzzAnswer(f *testing.F) {
	honest := "Content-Range: bytes 100-199/1000\r\nETag: \"v1\"\r\n"
	f.Add("HTTP/1.1 206 Partial Content\r\n"+honest+"Content-Length: 100\r\n", 100, 100, false)
	f.Add("HTTP/1.1 206 Partial Content\r\n"+honest+"Content-Length: 100\r\n", 100, 60, false)
	f.Add("HTTP/1.1 206 Partial Content\r\n"+honest+"Transfer-Encoding: chunked\r\n", 100, 100, true)
	f.Add("HTTP/1.1 206 Partial Content\r\n"+honest, 100, 100, false)
	f.Add("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-99/1000\r\nETag: \"v1\"\r\nContent-Length: 100\r\n", 0, 100, false)
	f.Add("HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nContent-Length: 1000\r\n", 0, 1000, false)
	f.Add("HTTP/1.1 200 OK\r\nContent-Range: bytes 100-199/1000\r\nETag: \"v1\"\r\nContent-Length: 100\r\n", 100, 100, false)
	f.Add("HTTP/1.1 206 Partial Content\r\n"+honest+"Content-Range: bytes 0-99/1000\r\nContent-Length: 100\r\n", 100, 100, false)
	f.Add("HTTP/1.1 206 Partial Content\r\n"+honest+"Content-Encoding: gzip\r\nContent-Length: 100\r\n", 100, 100, false)
	f.Add("HTTP/1.1 206 Partial Content\r\n"+honest+"Content-Type: multipart/byteranges\r\nContent-Length: 100\r\n", 100, 100, false)
	f.Add("HTTP/1.1 416 No\r\nContent-Range: bytes */1000\r\nContent-Length: 0\r\n", 0, 0, false)
	f.Add("HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n", 0, 0, false)
	f.Add("HTTP/1.1 429 Slow\r\nRetry-After: 99999999999\r\nContent-Length: 0\r\n", 0, 0, false)
	f.Add("HTTP/1.0 206 Partial Content\r\n"+honest, 100, 40, false)
	f.Add("HTTP/0.0 206 \nContent-Range: bytes 100-170/1000\nETag: \"v1\"\n", 100, 60, true)
	f.Fuzz(func(t *testing.T, head string, from, length int, chunked bool) {
		from = min(max(from, 0), len(file))
		length = min(max(length, 0), len(file)-from)
		body := file[from : from+length]
		if chunked && saysChunked(head) {
			body = fmt.Appendf(nil, "%x\r\n%s\r\n0\r\n\r\n", length, body)
		}
		if len(head) > 8<<10 || strings.Contains(head, "\r\n\r\n") || strings.Contains(head, "\n\n") || strings.Contains(head, "\n\r\n") {
			return // then the head itself has a body, which nobody can hold against the file
		}
		answer := append([]byte(head+"\r\n"), body...)
		c, err := New(Options{
			URL: "http://origin.test/f", Timeout: time.Second, ConnectTimeout: time.Second,
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				return &canned{Reader: bytes.NewReader(answer)}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		asked := piece.Range{Start: 100, End: 200}
		a, err := c.Fetch(t.Context(), pinned(len(file)), asked)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.RetryAfter < 0 || e.RetryAfter > maxRetryAfter {
				t.Fatalf("error %v of type %T", err, err)
			}
			return
		}
		defer a.Body.Close()
		if a.Range.Start != asked.Start || a.Range.End > asked.End || a.Pin != pinned(len(file)) || a.Stream {
			t.Fatalf("%q was accepted as %v of %v", head, a.Range, a.Pin)
		}
		got, err := io.ReadAll(a.Body)
		if int64(len(got)) > a.Range.Len() || err == nil && int64(len(got)) != asked.Len() {
			t.Fatalf("%q: %d bytes were accepted for %v: %v", head, len(got), a.Range, err)
		}
		// The model origin sends what its Content-Range says, if it says what it sends.
		if from == 100 && !bytes.Equal(got, file[100:100+len(got)]) {
			t.Fatalf("%q: the bytes accepted are not the file's", head)
		}
	})
}

// saysChunked reports whether the body after head is one in chunks; elsewhere chunks
// would be bytes of the file, and a lie about those.
func saysChunked(head string) bool {
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(head+"\r\n")), nil)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return len(resp.TransferEncoding) > 0
}

// canned is a connection that answers whatever is asked.
type canned struct{ io.Reader }

func (*canned) Write(p []byte) (int, error)      { return len(p), nil }
func (*canned) Close() error                     { return nil }
func (*canned) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*canned) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*canned) SetDeadline(time.Time) error      { return nil }
func (*canned) SetReadDeadline(time.Time) error  { return nil }
func (*canned) SetWriteDeadline(time.Time) error { return nil }
