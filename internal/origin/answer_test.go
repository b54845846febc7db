package origin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"dragonload/internal/origin/origintest"
	"dragonload/internal/piece"
)

const (
	dates = "Date: Fri, 02 Jan 2026 00:00:00 GMT\nLast-Modified: "
	old   = "Thu, 01 Jan 2026 00:00:00 GMT"
	fresh = "Fri, 02 Jan 2026 00:00:00 GMT"
)

// TestProbe_judgesTheFirstAnswer proves which first answers are taken, as what, and
// which are refused. Every probe asks for 100 bytes of 1000.
func TestProbe_judgesTheFirstAnswer(t *testing.T) {
	t.Parallel()
	sum := sha256.Sum256(file)
	digest := "Repr-Digest: " + formatReprDigest("sha-256", sum[:])
	part := func(fields string) func(*origintest.Conn, *origintest.Request) bool {
		return func(c *origintest.Conn, r *origintest.Request) bool {
			if !r.Ranged {
				c.Send(200, fields, file)
			} else {
				c.Part(r, file, fields)
			}
			return true
		}
	}
	whole := func(fields string) func(*origintest.Conn, *origintest.Request) bool {
		return func(c *origintest.Conn, _ *origintest.Request) bool { c.Send(200, fields, file); return true }
	}
	raw := func(fields string, body []byte) func(*origintest.Conn, *origintest.Request) bool {
		return func(c *origintest.Conn, _ *origintest.Request) bool {
			c.Header(206, fields)
			_, _ = c.Write(body)
			return false
		}
	}
	ok := fmt.Sprintf("%s\nContent-Length: 100", etag)
	type want struct {
		stream   bool
		kind     piece.ValidatorKind
		size     int64
		bytes    int // of the file, from its beginning
		unproven bool
		fail     bool
		failure  Kind
		broken   bool // fails while the body is read
		requests int  // 0: any number
	}
	ranged := want{kind: piece.StrongETag, size: 1000, bytes: 100, requests: 1}
	stream := want{stream: true, size: 1000, bytes: 1000, requests: 2}
	refused := want{fail: true, failure: BadAnswer}
	for _, test := range []struct {
		name   string
		script func(*origintest.Conn, *origintest.Request) bool
		want   want
	}{
		{"1 honest", part(etag + "\nAccept-Ranges: bytes"), ranged},
		{"2 no ranges", whole(etag), want{stream: true, kind: piece.StrongETag, size: 1000, bytes: 1000, requests: 1}},
		{"3 ranges none", whole("Accept-Ranges: none"), want{stream: true, size: 1000, bytes: 1000, requests: 1}},
		{"5 shy ranges", part(etag), ranged},
		{"7 wrong start", raw(ok+"\nContent-Range: bytes 1-100/1000", file[1:101]), refused},
		{"more than asked", raw(etag+"\nContent-Length: 101\nContent-Range: bytes 0-100/1000", file[:101]), refused},
		{"10 short range", raw(etag+"\nContent-Length: 95\nContent-Range: bytes 0-94/1000", file[:95]),
			want{kind: piece.StrongETag, size: 1000, bytes: 95, requests: 1}},
		{"12 no Content-Range", raw(ok, file[:100]), refused},
		{"two Content-Ranges", raw(ok+"\nContent-Range: bytes 0-99/1000\nContent-Range: bytes 0-99/1000", file[:100]), refused},
		{"13 star total", func(c *origintest.Conn, r *origintest.Request) bool {
			if r.Ranged {
				c.Send(206, etag+"\nContent-Range: bytes 0-99/*", file[:100])
			} else {
				c.Send(200, etag, file)
			}
			return true
		}, want{stream: true, kind: piece.StrongETag, size: 1000, bytes: 1000, requests: 2}},
		{"15 inverted", raw(ok+"\nContent-Range: bytes 99-0/1000", file[:100]), refused},
		{"16 overflow", raw(ok+"\nContent-Range: bytes 0-18446744073709551615/18446744073709551616", file[:100]), refused},
		{"17 bad unit", raw(ok+"\nContent-Range: items 0-99/1000", file[:100]), refused},
		{"17 unit with =", raw(ok+"\nContent-Range: bytes=0-99/1000", file[:100]), refused},
		{"17 no unit", raw(ok+"\nContent-Range: 0-99/1000", file[:100]), refused},
		{"plus sign", raw(ok+"\nContent-Range: bytes 0-+99/1000", file[:100]), refused},
		{"multipart", raw(ok+"\nContent-Range: bytes 0-99/1000\nContent-Type: multipart/byteranges; boundary=x", file[:100]), refused},
		{"other Content-Length", raw(etag+"\nContent-Length: 99\nContent-Range: bytes 0-99/1000", file[:99]), refused},
		{"206 unasked", func(c *origintest.Conn, _ *origintest.Request) bool {
			c.Send(206, "Content-Range: bytes 0-99/1000", file[:100])
			return true
		}, refused},
		{"25 weak etag", part(`ETag: W/"v1"`), stream},
		{"26 fresh date", part(dates + fresh), stream},
		{"no Date", part("Last-Modified: " + old), stream},
		{"27 old date", part(dates + old), want{kind: piece.LastModified, size: 1000, bytes: 100, requests: 1}},
		{"two etags", part(etag + "\n" + `ETag: "v2"`), stream},
		{"unquoted etag", part("ETag: v1"), stream},
		{"empty etag", part(`ETag: ""`), stream},
		{"no validator, then whole", part(""), stream},
		{"no validator, range is whole", raw("Content-Length: 60\nContent-Range: bytes 0-59/60", file[:60]),
			want{stream: true, size: 60, bytes: 60, requests: 1}},
		{"34 gzip range", raw(ok+"\nContent-Range: bytes 0-99/1000\nContent-Encoding: gzip", file[:100]), refused},
		{"35 gzip whole", whole("Content-Encoding: gzip"), refused},
		{"identity", part(etag + "\nContent-Encoding: identity"), ranged},
		{"36 cut length", raw(ok+"\nContent-Range: bytes 0-99/1000", file[:60]), want{kind: piece.StrongETag, size: 1000, bytes: 60, fail: true, failure: Network, broken: true}},
		{"39 cut chunks", func(c *origintest.Conn, _ *origintest.Request) bool {
			c.Header(200, etag+"\nTransfer-Encoding: chunked")
			c.Chunk(file)
			return false
		}, want{stream: true, kind: piece.StrongETag, size: -1, bytes: 1000, fail: true, failure: Network, broken: true}},
		{"chunked whole", func(c *origintest.Conn, _ *origintest.Request) bool {
			c.Header(200, "Transfer-Encoding: chunked")
			c.Chunk(file)
			c.Chunk(nil)
			return true
		}, want{stream: true, size: -1, bytes: 1000, requests: 1}},
		{"40 chunked range", func(c *origintest.Conn, _ *origintest.Request) bool {
			c.Header(206, etag+"\nTransfer-Encoding: chunked\nContent-Range: bytes 0-99/1000")
			c.Chunk(file[:50])
			c.Chunk(file[50:100])
			c.Chunk(nil)
			return true
		}, ranged},
		{"chunked range too long", func(c *origintest.Conn, _ *origintest.Request) bool {
			c.Header(206, etag+"\nTransfer-Encoding: chunked\nContent-Range: bytes 0-99/1000")
			c.Chunk(file[:101])
			c.Chunk(nil)
			return true
		}, want{kind: piece.StrongETag, size: 1000, bytes: 0, fail: true, failure: BadAnswer, broken: true}},
		{"chunked range too short", func(c *origintest.Conn, _ *origintest.Request) bool {
			c.Header(206, etag+"\nTransfer-Encoding: chunked\nContent-Range: bytes 0-99/1000")
			c.Chunk(file[:99])
			c.Chunk(nil)
			return true
		}, want{kind: piece.StrongETag, size: 1000, bytes: 99, fail: true, failure: BadAnswer, broken: true}},
		{"41 length and chunks", func(c *origintest.Conn, _ *origintest.Request) bool {
			c.Header(206, ok+"\nTransfer-Encoding: chunked\nContent-Range: bytes 0-99/1000")
			c.Print("3\n")
			_, _ = c.Write(file[:100])
			return false
		}, want{kind: piece.StrongETag, size: 1000, bytes: 3, fail: true, failure: BadAnswer, broken: true}},
		{"42 two lengths", raw(ok+"\nContent-Length: 101\nContent-Range: bytes 0-99/1000", file[:100]), refused},
		{"44 chunk of 16 digits", func(c *origintest.Conn, _ *origintest.Request) bool {
			c.Header(206, etag+"\nTransfer-Encoding: chunked\nContent-Range: bytes 0-99/1000")
			c.Print("7fffffffffffffff\n")
			_, _ = c.Write(file)
			return false
		}, want{kind: piece.StrongETag, size: 1000, fail: true, failure: BadAnswer, broken: true}},
		{"44 chunk of 17 digits", func(c *origintest.Conn, _ *origintest.Request) bool {
			c.Header(206, etag+"\nTransfer-Encoding: chunked\nContent-Range: bytes 0-99/1000")
			c.Print("f7fffffffffffffff\n")
			_, _ = c.Write(file)
			return false
		}, want{kind: piece.StrongETag, size: 1000, fail: true, failure: BadAnswer, broken: true}},
		{"44 chunk extensions", func(c *origintest.Conn, _ *origintest.Request) bool {
			c.Header(206, etag+"\nTransfer-Encoding: chunked\nContent-Range: bytes 0-99/1000")
			c.Print("1;%s\n", strings.Repeat("x", 1<<20))
			return false
		}, want{kind: piece.StrongETag, size: 1000, fail: true, failure: BadAnswer, broken: true}},
		{"57 HTTP/1.0 without a length", func(c *origintest.Conn, _ *origintest.Request) bool {
			c.Print("HTTP/1.0 200 OK\n\n")
			_, _ = c.Write(file)
			return false
		}, want{stream: true, size: -1, bytes: 1000, unproven: true, requests: 1}},
		{"close-delimited range", raw(etag+"\nConnection: close\nContent-Range: bytes 0-99/1000", file[:100]), ranged},
		{"close-delimited range cut", raw(etag+"\nConnection: close\nContent-Range: bytes 0-99/1000", file[:70]),
			want{kind: piece.StrongETag, size: 1000, bytes: 70, fail: true, failure: Network, broken: true}},
		{"69 length bomb", raw(etag+"\nContent-Length: 1\nContent-Range: bytes 0-0/9223372036854775807", file[:1]), refused},
		{"69 total 2^60", raw(etag+"\nContent-Length: 1\nContent-Range: bytes 0-0/1152921504606846976", file[:1]), refused},
		{"69 total 2^50", raw(etag+"\nContent-Length: 1\nContent-Range: bytes 0-0/1125899906842624", file[:1]), refused},
		{"69 whole of 2^60", func(c *origintest.Conn, _ *origintest.Request) bool {
			c.Header(200, "Content-Length: 1152921504606846976")
			return false
		}, refused},
		{"70 empty 200", func(c *origintest.Conn, _ *origintest.Request) bool { c.Send(200, "", nil); return true },
			want{stream: true, size: 0, requests: 1}},
		{"70 empty 416", func(c *origintest.Conn, r *origintest.Request) bool {
			if r.Ranged {
				c.Send(416, "Content-Range: bytes */0", []byte("no"))
			} else {
				c.Send(200, "", nil)
			}
			return true
		}, want{stream: true, size: 0, requests: 3}},
		{"70 one false empty 416", func(c *origintest.Conn, r *origintest.Request) bool {
			if r.Number == 0 {
				c.Send(416, "Content-Range: bytes */0", nil)
			} else {
				c.Part(r, file, etag)
			}
			return true
		}, want{kind: piece.StrongETag, size: 1000, bytes: 100, requests: 2}},
		{"70 empty 416 of what is not empty", func(c *origintest.Conn, r *origintest.Request) bool {
			if r.Ranged {
				c.Send(416, "Content-Range: bytes */0", nil)
			} else {
				c.Send(200, etag, file)
			}
			return true
		}, want{stream: true, kind: piece.StrongETag, size: 1000, bytes: 1000, requests: 3}},
		{"70 empty 416 to everything", func(c *origintest.Conn, _ *origintest.Request) bool {
			c.Send(416, "Content-Range: bytes */0", nil)
			return true
		}, want{fail: true, failure: Status, requests: 3}},
		{"20 one false 416", func(c *origintest.Conn, r *origintest.Request) bool {
			if r.Number == 0 {
				c.Send(416, "Content-Range: bytes */1000", nil)
			} else {
				c.Part(r, file, etag)
			}
			return true
		}, want{kind: piece.StrongETag, size: 1000, bytes: 100, requests: 2}},
		{"always 416 to ranges", func(c *origintest.Conn, r *origintest.Request) bool {
			if r.Ranged {
				c.Send(416, "", nil)
			} else {
				c.Send(200, etag, file)
			}
			return true
		}, want{stream: true, kind: piece.StrongETag, size: 1000, bytes: 1000, requests: 3}},
		{"72 digest", part(digest), want{kind: piece.ReprDigest, size: 1000, bytes: 100, requests: 1}},
		{"74 weak digest", part("Repr-Digest: md5=:AAAAAAAAAAAAAAAAAAAAAA==:"), stream},
		{"404", func(c *origintest.Conn, _ *origintest.Request) bool { c.Send(404, "", nil); return true }, want{fail: true, failure: NotFound, requests: 1}},
		{"410", func(c *origintest.Conn, _ *origintest.Request) bool { c.Send(410, "", nil); return true }, want{fail: true, failure: NotFound}},
		{"401", func(c *origintest.Conn, _ *origintest.Request) bool { c.Send(401, "", nil); return true }, want{fail: true, failure: Forbidden}},
		{"418", func(c *origintest.Conn, _ *origintest.Request) bool { c.Send(418, "", nil); return true }, want{fail: true, failure: Status}},
		{"500", func(c *origintest.Conn, _ *origintest.Request) bool { c.Send(500, "", nil); return true }, want{fail: true, failure: Server}},
		{"not HTTP", func(c *origintest.Conn, _ *origintest.Request) bool { c.Print("hello\n\n"); return false }, refused},
		{"leaves at once", func(c *origintest.Conn, _ *origintest.Request) bool { return false }, want{fail: true, failure: Network}},
		{"header without end", func(c *origintest.Conn, _ *origintest.Request) bool {
			c.Header(200, "X: "+strings.Repeat("x", 2*maxHeader))
			return false
		}, refused},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := origintest.New(t, test.script)
			c := newClient(t, server.URL+"/dir/file.bin?token=SECRET")
			a, err := probe(t, c, 100)
			w := test.want
			if n := len(server.Requests()); w.requests > 0 && n != w.requests {
				t.Errorf("%d requests, want %d", n, w.requests)
			}
			for _, r := range server.Requests() {
				if r.Method != "GET" || r.Header.Get("Accept-Encoding") != "identity" {
					t.Errorf("request %s with Accept-Encoding %q", r.Method, r.Header.Get("Accept-Encoding"))
				}
			}
			if w.fail && !w.broken {
				if err == nil {
					t.Fatalf("accepted %+v, want %v", a, w.failure)
				}
				if k := kindOf(t, err); k != w.failure {
					t.Errorf("%v: %v, want %v", k, err, w.failure)
				}
				checkMessage(t, err)
				return
			}
			if err != nil {
				t.Fatalf("refused: %v (%v)", err, kindOf(t, err))
			}
			if a.Stream != w.stream || a.Pin.Kind != w.kind || a.Pin.Size != w.size || a.Unproven != w.unproven {
				t.Errorf("got %+v, want %+v", a, w)
			}
			if a.Name != "file.bin" {
				t.Errorf("name %q", a.Name)
			}
			if isDigest := w.kind == piece.ReprDigest; isDigest != bytes.Equal(a.ReprSHA256, sum[:]) {
				t.Errorf("digest %x", a.ReprSHA256)
			}
			got, err := read(t, a)
			if w.broken {
				if err == nil || kindOf(t, err) != w.failure {
					t.Errorf("body ended with %v, want %v", err, w.failure)
				}
				checkMessage(t, err)
				if !bytes.Equal(got, file[:len(got)]) || len(got) > w.bytes {
					t.Errorf("body gave %d bytes, want at most %d of the file", len(got), w.bytes)
				}
				return
			}
			if err != nil || !bytes.Equal(got, file[:w.bytes]) {
				t.Errorf("body gave %d bytes, %v; want %d", len(got), err, w.bytes)
			}
			if w.size >= 0 && a.Range != (piece.Range{Start: 0, End: int64(w.bytes)}) {
				t.Errorf("range %v", a.Range)
			}
		})
	}
}

// checkMessage checks what every message for users must be.
func checkMessage(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	text := err.Error()
	if !strings.Contains(text, "127.0.0.1") || strings.Contains(text, "SECRET") || strings.Contains(text, "token") {
		t.Errorf("message %q", text)
	}
}

// TestFetch_judgesAgainstThePin proves what is done with every answer to a request for
// bytes 100 to 199 of the pinned version.
func TestFetch_judgesAgainstThePin(t *testing.T) {
	t.Parallel()
	type want struct {
		ok   bool
		kind Kind
		seen *piece.Pin
		got  int // bytes, where Kind is of the body's end
	}
	good, bad := want{ok: true}, want{kind: BadAnswer}
	changed := func(size int64, kind piece.ValidatorKind, v string) want {
		return want{kind: Changed, seen: &piece.Pin{Size: size, Kind: kind, Validator: v}}
	}
	part := fmt.Sprintf("Content-Length: 100\n%s\nContent-Range: ", etag)
	lm := piece.Pin{Size: 1000, Kind: piece.LastModified, Validator: old}
	for _, test := range []struct {
		name   string
		pin    piece.Pin
		status int
		fields string
		body   []byte
		want   want
	}{
		{"honest", pinned(1000), 206, part + "bytes 100-199/1000", file[100:200], good},
		{"13 star total", pinned(1000), 206, part + "bytes 100-199/*", file[100:200], good},
		{"unit in capitals", pinned(1000), 206, part + "Bytes 100-199/1000", file[100:200], good},
		{"10 short range", pinned(1000), 206, etag + "\nContent-Length: 95\nContent-Range: bytes 100-194/1000", file[100:195], want{ok: true, kind: Short, got: 95}},
		{"7 wrong start", pinned(1000), 206, part + "bytes 0-99/1000", file[:100], bad},
		{"too long", pinned(1000), 206, etag + "\nContent-Length: 101\nContent-Range: bytes 100-200/1000", file[100:201], bad},
		{"14 wrong total", pinned(1000), 206, part + "bytes 100-199/1001", file[100:200], changed(1001, piece.StrongETag, `"v1"`)},
		{"23 other etag", pinned(1000), 206, "Content-Length: 100\nETag: \"v2\"\nContent-Range: bytes 100-199/1000", file[100:200], changed(1000, piece.StrongETag, `"v2"`)},
		{"32 other version in part", pinned(1000), 206, "Content-Length: 50\nETag: \"v2\"\nContent-Range: bytes 100-149/150", file[100:150], changed(150, piece.StrongETag, `"v2"`)},
		{"no etag", pinned(1000), 206, "Content-Length: 100\nContent-Range: bytes 100-199/1000", file[100:200], bad},
		{"weak etag", pinned(1000), 206, "Content-Length: 100\nETag: W/\"v1\"\nContent-Range: bytes 100-199/1000", file[100:200], bad},
		{"same date", lm, 206, dates + old + "\nContent-Length: 100\nContent-Range: bytes 100-199/1000", file[100:200], good},
		{"other date", lm, 206, dates + fresh + "\nContent-Length: 100\nContent-Range: bytes 100-199/1000", file[100:200], changed(1000, piece.NoValidator, "")},
		{"34 gzip", pinned(1000), 206, part + "bytes 100-199/1000\nContent-Encoding: gzip", file[100:200], bad},
		{"12 no Content-Range", pinned(1000), 206, etag + "\nContent-Length: 100", file[100:200], bad},
		{"416 form in a 206", pinned(1000), 206, part + "bytes */1000", file[100:200], bad},
		{"5 whole, same", pinned(1000), 200, etag + "\nContent-Length: 1000", file, want{kind: NoRange, seen: &piece.Pin{Size: 1000, Kind: pinned(1000).Kind, Validator: pinned(1000).Validator}}},
		{"whole, chunked, same", pinned(1000), 200, etag + "\nTransfer-Encoding: chunked", []byte("0\r\n\r\n"), want{kind: NoRange, seen: &piece.Pin{Size: 1000, Kind: pinned(1000).Kind, Validator: pinned(1000).Validator}}},
		{"whole, other size", pinned(1000), 200, etag + "\nContent-Length: 10", file[:10], changed(10, piece.StrongETag, `"v1"`)},
		{"whole, other etag", pinned(1000), 200, "ETag: \"v2\"\nContent-Length: 1000", file, changed(1000, piece.StrongETag, `"v2"`)},
		{"login page", pinned(1000), 200, "Content-Type: text/html; charset=utf-8\nContent-Length: 5", []byte("login"), bad},
		{"whole, no etag", pinned(1000), 200, "Content-Length: 1000", file, bad},
		{"35 gzip whole", pinned(1000), 200, etag + "\nContent-Encoding: gzip\nContent-Length: 5", file[:5], bad},
		{"20 false 416", pinned(1000), 416, "Content-Range: bytes */1000\nContent-Length: 0", nil, want{kind: Server}},
		{"416 without a length", pinned(1000), 416, "Content-Length: 0", nil, want{kind: Server}},
		{"21 shrunk 416", pinned(1000), 416, "Content-Range: bytes */500\nContent-Length: 0", nil, changed(500, piece.NoValidator, "")},
		{"33 not modified", pinned(1000), 304, etag, nil, bad},
		{"33 precondition", pinned(1000), 412, "Content-Length: 0", nil, bad},
		{"204", pinned(1000), 204, "", nil, want{kind: Status}},
		{"403", pinned(1000), 403, "Content-Length: 0", nil, want{kind: Forbidden}},
		{"407", pinned(1000), 407, "Content-Length: 0", nil, want{kind: Forbidden}},
		{"408", pinned(1000), 408, "Content-Length: 0", nil, want{kind: Server}},
		{"501", pinned(1000), 501, "Content-Length: 0", nil, want{kind: Status}},
		{"502", pinned(1000), 502, "Content-Length: 0", nil, want{kind: Server}},
		{"504", pinned(1000), 504, "Content-Length: 0", nil, want{kind: Server}},
		{"522", pinned(1000), 522, "Content-Length: 0", nil, want{kind: Server}},
		{"47 503", pinned(1000), 503, "Content-Length: 0", nil, want{kind: Throttled}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
				if got := r.Header.Get("Range"); got != "bytes=100-199" {
					t.Errorf("Range: %s", got)
				}
				c.Header(test.status, test.fields)
				_, _ = c.Write(test.body)
				return false
			})
			c := newClient(t, server.URL+"/f?token=SECRET")
			a, err := fetch(t, c, test.pin, 100, 200)
			if !test.want.ok {
				if err == nil {
					t.Fatal("accepted")
				}
				checkMessage(t, err)
				if k := kindOf(t, err); k != test.want.kind {
					t.Errorf("%v: %v, want %v", k, err, test.want.kind)
				}
				var e *Error
				errors.As(err, &e)
				if (e.Seen == nil) != (test.want.seen == nil) || e.Seen != nil && *e.Seen != *test.want.seen {
					t.Errorf("seen %v, want %v", e.Seen, test.want.seen)
				}
				if n := len(server.Requests()); n != 1 {
					t.Errorf("%d requests", n)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if a.Pin != test.pin || a.Stream {
				t.Errorf("answer %+v", a)
			}
			got, err := read(t, a)
			if test.want.got > 0 {
				if kindOf(t, err) != test.want.kind || len(got) != test.want.got || int(a.Range.Len()) != len(got) {
					t.Errorf("%d bytes of %v, then %v", len(got), a.Range, err)
				}
			} else if err != nil || len(got) != 100 {
				t.Errorf("%d bytes, then %v", len(got), err)
			}
			if !bytes.Equal(got, file[100:100+len(got)]) {
				t.Error("wrong bytes")
			}
		})
	}
}

// What the first answer said beyond its pin decides where a later one lacks the pin's
// own validator, or has it and contradicts itself.
func TestFetch_remembersTheFirstAnswer(t *testing.T) {
	t.Parallel()
	sum := sha256.Sum256(file)
	right, wrong := formatReprDigest("sha-256", sum[:]), formatReprDigest("sha-256", make([]byte, 32))
	for _, test := range []struct {
		name, first, later string
		status             int
		want               Kind
	}{
		{"digest says it changed", etag + "\nRepr-Digest: " + right, "Repr-Digest: " + wrong, 206, Changed},
		{"digest contradicts etag", etag + "\nRepr-Digest: " + right, etag + "\nRepr-Digest: " + wrong, 206, BadAnswer},
		{"only a digest left", etag + "\nRepr-Digest: " + right, "Repr-Digest: " + right, 206, BadAnswer},
		{"page where a page was", etag + "\nContent-Type: text/html", "ETag: \"v2\"\nContent-Type: text/html", 200, Changed},
		{"page where a file was", etag + "\nContent-Type: text/plain", "ETag: \"v2\"\nContent-Type: text/html", 200, BadAnswer},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
				switch {
				case r.Number == 0:
					c.Part(r, file, test.first)
				case test.status == 206:
					c.Part(r, file, test.later)
				default:
					c.Send(test.status, test.later, file)
				}
				return true
			})
			c := newClient(t, server.URL+"/f")
			a, err := probe(t, c, 100)
			if err != nil {
				t.Fatal(err)
			}
			a.Body.Close()
			if _, err = fetch(t, c, a.Pin, 100, 200); err == nil || kindOf(t, err) != test.want {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

// A file of one piece, one more and one less, down to a single byte.
func TestProbe_tinyFiles(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 99, 100, 101} {
		server := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
			c.Part(r, file[:size], etag)
			return true
		})
		c := newClient(t, server.URL+"/f")
		a, err := probe(t, c, 100)
		if err != nil {
			t.Fatal(err)
		}
		got, err := read(t, a)
		if n := min(size, 100); err != nil || !bytes.Equal(got, file[:n]) || a.Pin != pinned(size) || a.Stream {
			t.Errorf("size %d: %d bytes, %v, %+v", size, len(got), err, a)
		}
	}
}

func TestFetch_withoutCombinableVersionIsNoRange(t *testing.T) {
	t.Parallel()
	c := newClient(t, "http://127.0.0.1:1/f")
	_, err := fetch(t, c, piece.Pin{Size: 10}, 0, 5)
	if kindOf(t, err) != NoRange {
		t.Error(err)
	}
}

func TestThrottled_keepsRequestsBack(t *testing.T) {
	t.Parallel()
	const date = "Date: Fri, 02 Jan 2026 00:00:00 GMT\n"
	for _, test := range []struct {
		name, fields string
		status       int
		want         time.Duration
		kind         Kind
	}{
		{"45 seconds", "Retry-After: 7", 429, 7 * time.Second, Throttled},
		{"46 date by the origin's clock", date + "Retry-After: Fri, 02 Jan 2026 00:00:10 GMT", 503, 10 * time.Second, Throttled},
		{"46 date in the past", date + "Retry-After: Fri, 02 Jan 2026 00:00:00 GMT", 503, 0, Throttled},
		{"negative", "Retry-After: -5", 429, 0, Throttled},
		{"a year", "Retry-After: 31536000", 429, time.Hour, Throttled},
		{"overflow", "Retry-After: 99999999999999999999999", 429, time.Hour, Throttled},
		{"nonsense", "Retry-After: soon", 503, 0, Throttled},
		{"with a 403", "Retry-After: 3", 403, 3 * time.Second, Throttled},
		{"with a 500", "Retry-After: 3", 500, 3 * time.Second, Throttled},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := origintest.New(t, func(c *origintest.Conn, _ *origintest.Request) bool {
				c.Send(test.status, test.fields, nil)
				return true
			})
			c := newClient(t, server.URL+"/f")
			var e *Error
			_, err := fetch(t, c, pinned(1000), 0, 10)
			if !errors.As(err, &e) || e.Kind != test.kind || e.RetryAfter != test.want || !e.Kind.Passing() || !e.Busy() {
				t.Fatalf("got %+v, want a wait of %v", e, test.want)
			}
			_, err = fetch(t, c, pinned(1000), 0, 10)
			if !errors.As(err, &e) || e.Kind != test.kind || e.RetryAfter > test.want {
				t.Errorf("second: %+v", e)
			}
			want := 1
			if test.want == 0 {
				want = 2
			}
			if n := len(server.Requests()); n != want {
				t.Errorf("%d requests, want %d", n, want)
			}
		})
	}
}

func TestProbe_wholeAtOnce(t *testing.T) {
	t.Parallel()
	server := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
		if r.Ranged {
			t.Error("asked for a range")
		}
		c.Send(200, etag, file)
		return true
	})
	c := newClient(t, server.URL+"/f")
	a, err := c.Probe(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, a); err != nil || !bytes.Equal(got, file) || !a.Stream {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestProbe_saysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer func(*origintest.Conn)
		says   string
	}{
		"parts of no known length": {func(c *origintest.Conn) {
			c.Header(206, etag+"\nContent-Length: 10\nContent-Range: bytes 0-9/*")
			_, _ = c.Write(file[:10])
		}, "it sends a part of the file (206) to who asks for all of it"},
		"a whole of 2^60": {func(c *origintest.Conn) { c.Header(200, "Content-Length: 1152921504606846976") },
			"it says that the file has 1152921504606846976 bytes, and no file has more than"},
		"a part of 2^60": {func(c *origintest.Conn) {
			c.Header(206, etag+"\nContent-Length: 1\nContent-Range: bytes 0-0/1152921504606846976")
			_, _ = c.Write(file[:1])
		}, "of how long a file, makes no sense"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := origintest.New(t, func(conn *origintest.Conn, _ *origintest.Request) bool { c.answer(conn); return false })
			_, err := probe(t, newClient(t, server.URL+"/f"), 100)
			if kindOf(t, err) != BadAnswer || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
		})
	}
}
