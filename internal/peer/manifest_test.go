package peer

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// manifestOf returns a manifest in the form that is sent, with an info dictionary of
// about size bytes, and its info hash.
func manifestOf(size int) (Manifest, [32]byte) {
	info := fmt.Sprintf("d4:name%d:%se", size, strings.Repeat("n", size))
	return Manifest{Data: []byte("d4:info" + info + "12:piece layersdee"), Info: len(info)}, sha256.Sum256([]byte(info))
}

func TestManifest_arrivesAsItIs(t *testing.T) {
	t.Parallel()
	f, n := newFile(1<<20, 64<<10), newNetwork(newParty(t), Coalesce)
	f.manifests = make(map[[32]byte]Manifest)
	serve(t, f, n, ServerOptions{})
	c := newTestClient(t, n, newParty(t), ClientOptions{})
	for _, size := range []int{1, 1000, writeChunk, 3 << 20} {
		m, hash := manifestOf(size)
		f.manifests[hash] = m
		got, err := c.Manifest(context.Background(), "there", n.server.id, hash)
		if err != nil || !bytes.Equal(got, m.Data) {
			t.Errorf("of %d bytes: %d bytes came, %v", len(m.Data), len(got), err)
		}
	}
	if err := collect(t, c, n, f, 3); err != nil {
		t.Errorf("pieces over the same connection: %v", err)
	}
	if dials := n.dials.Load(); dials != 1 {
		t.Errorf("%d connections were made", dials)
	}
}

func TestServer_sendsNoOtherManifest(t *testing.T) {
	t.Parallel()
	f, n := newFile(1<<20, 64<<10), newNetwork(newParty(t), Coalesce)
	m, hash := manifestOf(10)
	_, wrong := manifestOf(11)
	_, long := manifestOf(12)
	f.manifests = map[[32]byte]Manifest{hash: m, wrong: m, long: {Data: make([]byte, MaxManifest+1), Info: 1}}
	serve(t, f, n, ServerOptions{})
	conn := connect(t, n, newParty(t))
	path := func(hash [32]byte) string { return fmt.Sprintf("/v1/manifests/%x", hash) }
	for _, path := range []string{
		path(wrong), path(long), path([32]byte{1}), path(hash) + "/", path(hash) + "?x=y", path(hash)[:60],
		"/v1/manifests/", strings.ToUpper(path(hash)), "/v1/manifests/" + strings.Repeat("g", 64),
	} {
		resp, body := ask(t, conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp.StatusCode != 404 || string(body) != "Not Found\n" {
			t.Errorf("%s: %s %q", path, resp.Status, body)
		}
	}
	resp, body := ask(t, conn, "GET "+path(hash)+" HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp.StatusCode != 200 || !bytes.Equal(body, m.Data) || resp.Header.Get("Info-Length") != fmt.Sprint(m.Info) {
		t.Errorf("%s, %v, %q", resp.Status, resp.Header, body)
	}
}

// One member has one manifest on its way at a time, all together have MaxManifests.
func TestServer_boundsItsManifests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, n := newFile(1<<20, 64<<10), newNetwork(newParty(t), Coalesce)
		m, hash := manifestOf(1 << 20)
		f.manifests = map[[32]byte]Manifest{hash: m}
		stop := serve(t, f, n, ServerOptions{MaxManifests: 2})
		defer stop()
		request := fmt.Sprintf("GET /v1/manifests/%x HTTP/1.1\r\nHost: x\r\n\r\n", hash)
		greedy := newParty(t)
		begin := func(p party) *bufio.Reader {
			conn := connect(t, n, p)
			io.WriteString(conn, request)
			r := bufio.NewReader(conn)
			if _, err := r.Peek(1); err != nil {
				t.Fatal(err)
			}
			return r
		}
		first := begin(greedy)
		second := connect(t, n, greedy)
		if resp, _ := ask(t, second, request); resp.StatusCode != 429 {
			t.Errorf("a second one for the same member: %s", resp.Status)
		}
		begin(newParty(t))
		third := connect(t, n, newParty(t))
		if resp, _ := ask(t, third, request); resp.StatusCode != 429 {
			t.Errorf("a third member: %s", resp.Status)
		}
		resp, err := http.ReadResponse(first, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if resp, _ := ask(t, third, request); resp.StatusCode != 200 {
			t.Errorf("after the first has ended: %s", resp.Status)
		}
	})
}

// A reader that takes a manifest too slowly is left, though it goes on reading.
func TestServer_leavesWhoTakesAManifestTooSlowly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, n := newFile(1<<20, 64<<10), newNetwork(newParty(t), Coalesce)
		m, hash := manifestOf(8 << 20)
		f.manifests = map[[32]byte]Manifest{hash: m}
		stop := serve(t, f, n, ServerOptions{})
		defer stop()
		conn := connect(t, n, newParty(t))
		defer abort(conn)
		fmt.Fprintf(conn, "GET /v1/manifests/%x HTTP/1.1\r\nHost: x\r\n\r\n", hash)
		start, came := time.Now(), int64(0)
		for {
			time.Sleep(time.Second)
			k, err := io.CopyN(io.Discard, conn, 8<<10)
			if came += k; err != nil {
				break
			}
		}
		if took := time.Since(start); came >= int64(len(m.Data)) || took > manifestWithin(8<<20)+time.Minute {
			t.Errorf("%d bytes came in %v", came, took)
		}
	})
}

// Whatever a member answers, Manifest ends with an error and in time.
func TestManifest_refusesWhatIsNone(t *testing.T) {
	t.Parallel()
	m, hash := manifestOf(100)
	other, _ := manifestOf(101)
	answer := func(length, info int, body string) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\nInfo-Length: %d\r\n\r\n%s", length, info, body)
	}
	whole := func(m Manifest, info int) string { return answer(len(m.Data), info, string(m.Data)) }
	wrong := bytes.Clone(m.Data)
	wrong[50] ^= 1
	for name, c := range map[string]struct {
		answer string
		then   func(io.Writer) // nil: the end
		want   error
	}{
		"another":              {answer: whole(other, other.Info)},
		"a wrong byte":         {answer: answer(len(wrong), m.Info, string(wrong))},
		"an info too short":    {answer: whole(m, m.Info-1)},
		"an info too long":     {answer: whole(m, m.Info+1)},
		"an info beyond it":    {answer: whole(m, 1<<20)},
		"no info length":       {answer: fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(m.Data), m.Data)},
		"a signed info length": {answer: fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\nInfo-Length: -5\r\n\r\n%s", len(m.Data), m.Data)},
		"something before it":  {answer: answer(len(m.Data), m.Info, "d1:a0:4:info"+string(m.Data[7:]))},
		"nothing":              {answer: ""},
		"an empty one":         {answer: answer(0, 1, "")},
		"cut off":              {answer: answer(len(m.Data), m.Info, string(m.Data[:60]))},
		"more than 64 MiB":     {answer: answer(MaxManifest+1, m.Info, "")},
		"not held":             {answer: "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", want: ErrNotHeld},
		"busy":                 {answer: "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n", want: ErrBusy},
		"silence":              {answer: answer(len(m.Data), m.Info, "d4:info"), then: func(io.Writer) { time.Sleep(time.Hour) }, want: ErrSilent},
		"a trickle that is not silence": {answer: answer(MaxManifest, m.Info, ""), want: ErrSilent, then: func(w io.Writer) {
			for range 8 << 10 {
				time.Sleep(10 * time.Second)
				if _, err := w.Write(make([]byte, 8<<10)); err != nil {
					return
				}
			}
		}},
	} {
		if c.want == nil {
			c.want = ErrBroken
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(newParty(t), nil)
				var wg sync.WaitGroup
				defer wg.Wait()
				defer n.Close()
				wg.Go(func() {
					for {
						conn, err := n.Accept()
						if err != nil {
							return
						}
						wg.Go(func() {
							defer conn.Close()
							r := bufio.NewReader(conn)
							readRequest(r)
							if _, err := io.WriteString(conn, c.answer); err != nil {
								return
							}
							if c.then != nil {
								c.then(conn)
								return
							}
							conn.(*tls.Conn).CloseWrite()
							io.Copy(io.Discard, r)
						})
					}
				})
				client := NewClient(n.dialAs(newParty(t)), ClientOptions{})
				defer client.Close()
				start := time.Now()
				data, err := client.Manifest(context.Background(), "there", n.server.id, hash)
				if !errors.Is(err, c.want) || data != nil {
					t.Errorf("%d bytes, %v; want %v", len(data), err, c.want)
				}
				if took := time.Since(start); took > manifestWithin(MaxManifest)+time.Second {
					t.Errorf("it took %v", took)
				}
				client.mu.Lock()
				defer client.mu.Unlock()
				for _, h := range client.hosts {
					if errors.Is(c.want, ErrBroken) && len(h.idle) != 0 {
						t.Error("the connection was kept")
					}
				}
			})
		})
	}
}
