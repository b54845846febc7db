package origin

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dragonload/internal/origin/origintest"
	"dragonload/internal/piece"
)

// TestFetchPart_judgesByTheBytesAlone proves what is done with every answer to a request
// for bytes 100 to 199 of a file of 1000, whatever they say of their version.
func TestFetchPart_judgesByTheBytesAlone(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		status int
		fields string
		body   []byte
		want   int // bytes; 0: refused
		whole  bool
		kind   Kind // of the error, or of the body's end if some came
	}{
		{name: "no version", status: 206, fields: "Content-Length: 100\nContent-Range: bytes 100-199/1000", body: file[100:200], want: 100},
		{name: "a weak version", status: 206, fields: "ETag: W/\"x\"\nContent-Length: 100\nContent-Range: bytes 100-199/1000", body: file[100:200], want: 100},
		{name: "star total", status: 206, fields: "Content-Length: 100\nContent-Range: bytes 100-199/*", body: file[100:200], want: 100},
		{name: "short", status: 206, fields: "Content-Length: 95\nContent-Range: bytes 100-194/1000", body: file[100:195], want: 95, kind: Short},
		{name: "whole", status: 200, fields: "Content-Length: 1000", body: file, want: 1000, whole: true},
		{name: "whole, chunked", status: 200, fields: "Transfer-Encoding: chunked", body: []byte("3e8\r\n" + string(file) + "\r\n0\r\n\r\n"), want: 1000, whole: true},
		{name: "whole, chunked, too short", status: 200, fields: "Transfer-Encoding: chunked", body: []byte("3e7\r\n" + string(file[:999]) + "\r\n0\r\n\r\n"), want: 999, whole: true, kind: BadAnswer},
		{name: "another start", status: 206, fields: "Content-Length: 100\nContent-Range: bytes 0-99/1000", body: file[:100], kind: BadAnswer},
		{name: "too much", status: 206, fields: "Content-Length: 101\nContent-Range: bytes 100-200/1000", body: file[100:201], kind: BadAnswer},
		{name: "another length", status: 206, fields: "Content-Length: 100\nContent-Range: bytes 100-199/1001", body: file[100:200], kind: BadAnswer},
		{name: "whole of another length", status: 200, fields: "Content-Length: 999", body: file[:999], kind: BadAnswer},
		{name: "packed", status: 200, fields: "Content-Encoding: gzip\nContent-Length: 1000", body: file, kind: BadAnswer},
		{name: "shorter than what was asked for", status: 416, fields: "Content-Range: bytes */50\nContent-Length: 0", kind: BadAnswer},
		{name: "denies what it has", status: 416, fields: "Content-Range: bytes */1000\nContent-Length: 0", kind: Server},
		{name: "not there", status: 404, fields: "Content-Length: 0", kind: NotFound},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
				if !r.Ranged || r.First != 100 || r.Last != 199 {
					t.Errorf("asked for %d to %d", r.First, r.Last)
				}
				c.Header(test.status, test.fields)
				_, _ = c.Write(test.body)
				return true
			})
			c := newClient(t, server.URL+"/f?token=SECRET")
			a, err := part(t, c, 1000, 100, 200)
			if test.want == 0 {
				if err == nil || kindOf(t, err) != test.kind {
					t.Fatalf("got %+v, %v; want %v", a, err, test.kind)
				}
				checkMessage(t, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := file[100:min(100+test.want, 1000)]
			if test.whole {
				want = file[:test.want]
			}
			if a.Stream != test.whole || !test.whole && a.Range.Start != 100 || test.whole && a.Range != (piece.Range{End: 1000}) {
				t.Errorf("range %v, stream %v", a.Range, a.Stream)
			}
			got, err := read(t, a)
			if !bytes.Equal(got, want) && test.kind != BadAnswer {
				t.Errorf("%d bytes came", len(got))
			}
			if (err != nil) != (test.kind != 0) || err != nil && kindOf(t, err) != test.kind {
				t.Errorf("the body ended with %v", err)
			}
		})
	}
}

// The whole of a file needs no range, and is no stream to who wants all of it.
func TestFetchPart_asksForAWholeFileAsSuch(t *testing.T) {
	t.Parallel()
	server := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
		if r.Ranged {
			t.Error("a range was asked for")
		}
		c.Send(200, "", file)
		return true
	})
	a, err := part(t, newClient(t, server.URL+"/f"), 1000, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, a); err != nil || !bytes.Equal(got, file) || a.Stream {
		t.Errorf("%d bytes, %v, stream %v", len(got), err, a.Stream)
	}
}

// Files of one origin are asked for over one connection, with the same secrets, and one
// pause holds all of them back.
func TestAt_sharesWhatIsTheOrigins(t *testing.T) {
	t.Parallel()
	var busy atomic.Bool
	server := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
		if busy.Load() {
			c.Send(503, "Retry-After: 3600", nil)
			return true
		}
		c.Send(200, "", file)
		return true
	})
	c := newClient(t, strings.Replace(server.URL, "http://", "http://user:SECRET@", 1)+"/", func(o *Options) { o.MaxConnections = 1 })
	var all []*Client
	for k := range 3 {
		one, err := c.At(fmt.Sprintf("%s/%d?token=SECRET", server.URL, k))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
		a, err := part(t, one, 1000, 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := read(t, a); err != nil || !bytes.Equal(got, file) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	for k, r := range server.Requests() {
		if want := fmt.Sprintf("/%d?token=SECRET", k); r.Target != want || r.Header.Get("Authorization") == "" {
			t.Errorf("request for %s with Authorization %q", r.Target, r.Header.Get("Authorization"))
		}
	}
	if n := server.Dialled(); n != 1 {
		t.Errorf("%d connections were made", n)
	}
	busy.Store(true)
	if _, err := part(t, all[0], 1000, 0, 1000); err == nil || kindOf(t, err) != Throttled {
		t.Errorf("got %v", err)
	}
	before := len(server.Requests())
	if _, err := part(t, all[1], 1000, 0, 1000); err == nil || kindOf(t, err) != Throttled {
		t.Errorf("got %v", err)
	}
	if n := len(server.Requests()); n != before {
		t.Errorf("%d requests went out in the pause", n-before)
	}
	for _, other := range []string{"http://127.0.0.1:1/x", strings.Replace(server.URL, "http:", "https:", 1), "%", "/x"} {
		if _, err := c.At(other); err == nil {
			t.Errorf("%s is taken for the same origin", other)
		}
	}
}

func part(t *testing.T, c *Client, size, first, end int64) (*Answer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return c.FetchPart(ctx, size, piece.Range{Start: first, End: end})
}
