package peer

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

var poolPath = fmt.Sprintf("/v1/pools/%x", testPool)

// ask sends one request as text and returns the answer, with its body read.
func ask(t testing.TB, c net.Conn, request string) (*http.Response, []byte) {
	t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%.80q: %v", request, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%.80q: body: %v", request, err)
	}
	return resp, body
}

func connect(t testing.TB, n *network, p party) net.Conn {
	t.Helper()
	c, err := n.dialAs(p)(context.Background(), "there", n.server.id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { abort(c) })
	return c
}

func TestServer_knowsTwoPathsAndGET(t *testing.T) {
	t.Parallel()
	f, n := newFile(1<<20, 64<<10), newLoopback(t, newParty(t), Coalesce)
	serve(t, f, n, ServerOptions{})
	c := connect(t, n, newParty(t))
	for _, path := range []string{
		"/", "/v1/pools/", poolPath, poolPath + "/", poolPath + "/pieces/", poolPath + "/pieces", poolPath + "/contents",
		poolPath + "/pieces/16", poolPath + "/pieces/0,0", poolPath + "/pieces/3-3", poolPath + "/pieces/5-3", poolPath + "/pieces/03",
		poolPath + "/pieces/+3", poolPath + "/pieces/-3", poolPath + "/pieces/3,", poolPath + "/pieces/3-", poolPath + "/pieces/0-4000000000",
		poolPath + "/pieces/3?x=y", "/v1/pools/../pools" + poolPath + "/pieces/3", strings.ToUpper(poolPath) + "/pieces/3",
		"/v1/pools/" + strings.Repeat("0", 64) + "/pieces/3", poolPath + "/pieces/../content", "//etc/passwd",
		poolPath + "/pieces/" + strings.Repeat("1,", 2000),
	} {
		resp, body := ask(t, c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp.StatusCode != 404 || string(body) != "Not Found\n" || resp.Close {
			t.Errorf("%.80s: %s %q", path, resp.Status, body)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"} {
		if resp, _ := ask(t, c, method+" "+poolPath+"/pieces/3 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"); resp.StatusCode != 405 {
			t.Errorf("%s: %s", method, resp.Status)
		}
	}
	if resp, _ := ask(t, c, "GET "+poolPath+"/pieces/3 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"); resp.StatusCode != 400 {
		t.Errorf("a request with a body: %s", resp.Status)
	}
	resp, body := ask(t, c, "GET "+poolPath+"/pieces/15,0-1 HTTP/1.1\r\nHost: x\r\n\r\n")
	if want := bytes.Join([][]byte{f.bytes(15), f.bytes(0), f.bytes(1)}, nil); resp.StatusCode != 200 || !bytes.Equal(body, want) {
		t.Errorf("%s, %d bytes", resp.Status, len(body))
	}
	if resp.ContentLength != int64(len(body)) || resp.Header.Get("Content-Type") != "application/octet-stream" || len(resp.Header) != 2 {
		t.Errorf("header %v", resp.Header)
	}
}

func TestServer_servesRangesOfTheContent(t *testing.T) {
	t.Parallel()
	const size = 300*16<<10 + 77
	f, n := newFile(size, 16<<10), newLoopback(t, newParty(t), Coalesce)
	serve(t, f, n, ServerOptions{})
	c := connect(t, n, newParty(t))
	get := func(header string) (*http.Response, []byte) {
		return ask(t, c, "GET "+poolPath+"/content HTTP/1.1\r\nHost: x\r\n"+header+"\r\n")
	}
	const most = MaxPieces * 16 << 10
	for _, r := range []struct {
		ask        string
		start, end int64
	}{
		{"0-0", 0, 1}, {"0-16383", 0, 16384}, {"16383-16384", 16383, 16385}, {"5-100000", 5, 100001},
		{fmt.Sprintf("%d-", size-100), size - 100, size}, {fmt.Sprintf("%d-%d", size-1, size+1000), size - 1, size},
		{"0-", 0, most}, {"16384-9007199254740991", 16384, 16384 + most},
	} {
		resp, body := get("Range: bytes=" + r.ask + "\r\n")
		want := fmt.Sprintf("bytes %d-%d/%d", r.start, r.end-1, int64(size))
		if got := resp.Header.Get("Content-Range"); resp.StatusCode != 206 || got != want || !bytes.Equal(body, f.data[r.start:r.end]) {
			t.Errorf("%s: %s, %s, %d bytes; want %s", r.ask, resp.Status, got, len(body), want)
		}
	}
	for _, header := range []string{
		"", "Range: bytes=-5\r\n", "Range: bytes=0-1,3-4\r\n", "Range: bytes=5-4\r\n", "Range: items=0-1\r\n", "Range: bytes=0\r\n",
		fmt.Sprintf("Range: bytes=%d-\r\n", int64(size)), "Range: bytes=0-1\r\nRange: bytes=0-1\r\n",
		"Range: bytes=99999999999999999999-\r\n", "Range: bytes=0-99999999999999999999\r\n", "Range: bytes=+1-2\r\n",
	} {
		if resp, _ := get(header); resp.StatusCode != 416 {
			t.Errorf("%q: %s", header, resp.Status)
		}
	}
}

// A piece that is damaged where it is stored is never sent: the first is not promised,
// and at a later one the connection ends.
func TestServer_closesTheConnectionAtADamagedPiece(t *testing.T) {
	t.Parallel()
	for name, layer := range map[string]func(net.Conn) net.Conn{"plain": nil, "coalescing": Coalesce} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, n := newFile(1<<20, 64<<10), newLoopback(t, newParty(t), layer)
			f.data[5*64<<10+100] ^= 1
			stop := serve(t, f, n, ServerOptions{})
			c := newTestClient(t, n, newParty(t), ClientOptions{})
			if err := collect(t, c, n, f, 5, 6); !errors.Is(err, ErrNotHeld) {
				t.Errorf("damaged first: %v", err)
			}
			var came []piece.Index
			err := c.Fetch(context.Background(), "there", n.server.id, testPool, f.layout, []piece.Index{3, 4, 5, 6}, nil, func(i piece.Index, data []byte) error {
				if !bytes.Equal(data, f.bytes(i)) {
					t.Errorf("piece %d has other bytes", i)
				}
				came = append(came, i)
				return nil
			})
			if !errors.Is(err, ErrBroken) || len(came) != 2 {
				t.Errorf("pieces %v, then %v", came, err)
			}
			if err := collect(t, c, n, f, 3, 4, 6); err != nil {
				t.Errorf("afterwards: %v", err)
			}
			stop()
			if f.sent != 5*64<<10 {
				t.Errorf("%d bytes were said to be sent", f.sent)
			}
		})
	}
}

// Truncated, reordered and random bytes close their connection. Others go on.
func TestServer_closesConnectionsThatSpeakNoHTTP(t *testing.T) {
	t.Parallel()
	f, n := newFile(1<<20, 64<<10), newLoopback(t, newParty(t), Coalesce)
	serve(t, f, n, ServerOptions{})
	friend := newTestClient(t, n, newParty(t), ClientOptions{})
	rng := rand.New(rand.NewPCG(2, 2))
	good := "GET " + poolPath + "/pieces/3 HTTP/1.1\r\nHost: x\r\n\r\n"
	for k := range 60 {
		bad := []byte(good)
		switch k % 4 {
		case 0:
			bad = bad[:rng.IntN(len(bad))]
		case 1:
			rng.Shuffle(len(bad), func(a, b int) { bad[a], bad[b] = bad[b], bad[a] })
		case 2:
			bad = make([]byte, rng.IntN(30<<10))
			for i := range bad {
				bad[i] = byte(rng.Uint32())
			}
		case 3:
			bad = bytes.Replace(bad, []byte("Host"), bytes.Repeat([]byte("x"), 40<<10), 1)
		}
		bad = append(bad, "\r\n\r\n"...)
		stranger := newParty(t)
		c := connect(t, n, stranger)
		c.SetDeadline(time.Now().Add(30 * time.Second))
		go func() {
			c.Write(bad)
			c.(*tls.Conn).CloseWrite()
		}()
		if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("kind %d: not closed", k%4)
		}
		if err := collect(t, friend, n, f, 3, 4); err != nil {
			t.Fatalf("kind %d: others are not served: %v", k%4, err)
		}
	}
}

// Neither TLS records that are not, nor a member that goes away in the middle, does
// more than end its own connection.
func TestServer_survivesBrokenTLS(t *testing.T) {
	t.Parallel()
	f, n := newFile(4<<20, 64<<10), newLoopback(t, newParty(t), Coalesce)
	serve(t, f, n, ServerOptions{})
	friend := newTestClient(t, n, newParty(t), ClientOptions{})
	for range 10 {
		c := connect(t, n, newParty(t)).(*tls.Conn)
		c.NetConn().SetDeadline(time.Now().Add(30 * time.Second))
		c.NetConn().Write([]byte(strings.Repeat("random bytes ", 100)))
		io.Copy(io.Discard, c.NetConn())

		c = connect(t, n, newParty(t)).(*tls.Conn)
		io.WriteString(c, "GET "+poolPath+"/pieces/0-63 HTTP/1.1\r\nHost: x\r\n\r\n")
		io.ReadFull(c, make([]byte, 100<<10))
		abort(c)
		if err := collect(t, friend, n, f, 3, 4); err != nil {
			t.Fatal(err)
		}
	}
}

func TestServer_refusesConnectionsThatAreNotAMembers(t *testing.T) {
	t.Parallel()
	f, n := newFile(1<<20, 64<<10), newLoopback(t, newParty(t), nil)
	member := newParty(t)
	o := ServerOptions{Identify: func(cs tls.ConnectionState) (piece.NodeID, [32]byte, error) {
		id, room, _ := identify(cs)
		if id != member.id {
			return id, room, errors.New("not a member")
		}
		return id, room, nil
	}}
	s := NewServer(backend{f}, o)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, n) }()
	closed := func(p party, protocol string) error {
		c, err := n.raw(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		config := p.config()
		config.NextProtos = nil
		if protocol != "" {
			config.NextProtos = []string{protocol}
		}
		secure := tls.Client(c, config)
		c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(secure, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		_, err = secure.Read(make([]byte, 1))
		return err
	}
	if err := closed(newParty(t), "http/1.1"); err == nil {
		t.Error("a stranger got an answer")
	}
	if err := closed(member, ""); err == nil {
		t.Error("a member that did not agree on HTTP/1.1 got an answer")
	}
	if err := closed(member, "http/1.1"); err != nil {
		t.Errorf("a member got %v", err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// One that does not read what it asked for holds up nobody else.
func TestServer_servesOthersBesideASlowReader(t *testing.T) {
	t.Parallel()
	f, n := newFile(32<<20, 1<<20), newLoopback(t, newParty(t), Coalesce)
	serve(t, f, n, ServerOptions{})
	for range 5 {
		c := connect(t, n, newParty(t))
		io.WriteString(c, "GET "+poolPath+"/pieces/0-31 HTTP/1.1\r\nHost: x\r\n\r\n")
		io.ReadFull(c, make([]byte, 1000))
	}
	c := newTestClient(t, n, newParty(t), ClientOptions{})
	if err := collect(t, c, n, f, 0, 1, 2); err != nil {
		t.Error(err)
	}
}

func TestServer_limitsOneMember(t *testing.T) {
	t.Parallel()
	f, n := newFile(1<<20, 64<<10), newLoopback(t, newParty(t), Coalesce)
	admitted := make(chan struct{}, 10)
	release := make(chan struct{})
	greedy, modest := newParty(t), newParty(t)
	f.admit = func(_ context.Context, id piece.NodeID, _ []piece.Index) error {
		if id == greedy.id {
			admitted <- struct{}{}
			<-release
		}
		return nil
	}
	serve(t, f, n, ServerOptions{MaxConnsPerPeer: 4, MaxAskedPerPeer: 2})
	var conns []net.Conn
	for range 4 {
		conns = append(conns, connect(t, n, greedy))
	}
	request := "GET " + poolPath + "/pieces/1 HTTP/1.1\r\nHost: x\r\n\r\n"
	for k := range 2 {
		io.WriteString(conns[k], request)
		<-admitted
	}
	if resp, _ := ask(t, conns[2], request); resp.StatusCode != 429 {
		t.Errorf("third request at once: %s", resp.Status)
	}
	fifth := connect(t, n, greedy)
	io.WriteString(fifth, request)
	if _, err := fifth.Read(make([]byte, 1)); err == nil {
		t.Error("the fifth connection was answered")
	}
	c := newTestClient(t, n, modest, ClientOptions{})
	if err := collect(t, c, n, f, 1); err != nil {
		t.Errorf("another member: %v", err)
	}
	close(release)
	for k := range 2 {
		resp, err := http.ReadResponse(bufio.NewReader(conns[k]), nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
	}
	if resp, _ := ask(t, conns[2], request); resp.StatusCode != 200 {
		t.Errorf("after the others: %s", resp.Status)
	}
}

// Everything that a connection may wait for has an end.
func TestServer_closesWhatTakesTooLong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		send string
		want time.Duration
	}{
		"without a header":   {"GET /", 5 * time.Second},
		"without a request":  {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 120 * time.Second},
		"without its turn":   {"GET " + poolPath + "/pieces/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 15 * time.Second},
		"without being read": {"GET " + poolPath + "/pieces/2-15 HTTP/1.1\r\nHost: x\r\n\r\n", 60 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f, n := newFile(1<<20, 64<<10), newNetwork(newParty(t), Coalesce)
				f.admit = func(ctx context.Context, _ piece.NodeID, pieces []piece.Index) error {
					if len(pieces) == 1 {
						<-ctx.Done()
						return ctx.Err()
					}
					return nil
				}
				stop := serve(t, f, n, ServerOptions{})
				defer stop()
				conn := connect(t, n, newParty(t))
				defer abort(conn)
				start := time.Now()
				io.WriteString(conn, c.send)
				if strings.Contains(c.send, "2-15") {
					time.Sleep(59 * time.Second)
					synctest.Wait()
					f.mu.Lock()
					if f.open != 1 {
						t.Error("the answer has ended before 59 s")
					}
					f.mu.Unlock()
					time.Sleep(2 * time.Second)
					synctest.Wait()
					f.mu.Lock()
					if f.open != 0 {
						t.Error("the answer has not ended after 61 s")
					}
					f.mu.Unlock()
					return
				}
				io.Copy(io.Discard, conn)
				if took := time.Since(start); took < c.want || took > c.want+time.Second {
					t.Errorf("closed after %v, want %v", took, c.want)
				}
			})
		})
	}
}

// A reader that is slow but not too slow gets everything.
func TestServer_movesItsDeadlineWithTheReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, n := newFile(4<<20, 64<<10), newNetwork(newParty(t), Coalesce)
		stop := serve(t, f, n, ServerOptions{})
		defer stop()
		conn := connect(t, n, newParty(t))
		defer abort(conn)
		io.WriteString(conn, "GET "+poolPath+"/pieces/0-63 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		var all bytes.Buffer
		for {
			time.Sleep(time.Second)
			if _, err := io.CopyN(&all, conn, 16<<10); err != nil {
				break
			}
		}
		if !bytes.HasSuffix(all.Bytes(), f.data) {
			t.Errorf("%d bytes came", all.Len())
		}
	})
}

func TestServer_keepsToItsRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, n := newFile(1<<20, 64<<10), newNetwork(newParty(t), Coalesce)
		stop := serve(t, f, n, ServerOptions{Limiter: rate.NewLimiter(8<<10, 4<<10)})
		defer stop()
		c := NewClient(n.dialAs(newParty(t)), ClientOptions{SilenceTimeout: 5 * time.Second})
		defer c.Close()
		start := time.Now()
		if err := collect(t, c, n, f, 0, 1, 2, 3, 4); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 38*time.Second || took > 41*time.Second {
			t.Errorf("40 seconds' worth took %v", took)
		}
	})
}

// A slow disk under the layer that collects does not look like silence.
func TestServer_sendsWhatIsReadySoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, n := newFile(1<<20, 64<<10), newNetwork(newParty(t), Coalesce)
		b := slowBackend{backend{f}}
		s := NewServer(b, ServerOptions{Identify: identify})
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { s.Serve(ctx, n) })
		c := NewClient(n.dialAs(newParty(t)), ClientOptions{})
		start := time.Now()
		var at []time.Duration
		err := c.Fetch(ctx, "there", n.server.id, testPool, f.layout, []piece.Index{1, 2, 3}, nil, func(piece.Index, []byte) error {
			at = append(at, time.Since(start))
			return nil
		})
		if err != nil || at[0] > 11*time.Second || at[1] > 21*time.Second || at[2] > 31*time.Second {
			t.Errorf("pieces came at %v: %v", at, err)
		}
		c.Close()
		cancel()
		wg.Wait()
	})
}

type slowBackend struct{ backend }

func (b slowBackend) Admit(ctx context.Context, room [32]byte, id piece.NodeID, pool swarm.PoolID, pieces []piece.Index) (Content, func(int64), error) {
	return slowContent{b.file}, func(int64) {}, nil
}

type slowContent struct{ *file }

func (c slowContent) ReadPiece(i piece.Index, buf []byte) ([]byte, error) {
	time.Sleep(10 * time.Second) // of the bubble's clock
	return c.file.ReadPiece(i, buf)
}

func TestServe_endsWithItsContextWhateverIsUnderWay(t *testing.T) {
	t.Parallel()
	f, n := newFile(32<<20, 1<<20), newLoopback(t, newParty(t), Coalesce)
	waiting := make(chan struct{})
	f.admit = func(ctx context.Context, _ piece.NodeID, pieces []piece.Index) error {
		if len(pieces) == 1 {
			close(waiting)
			<-ctx.Done()
		}
		return ctx.Err()
	}
	stop := serve(t, f, n, ServerOptions{})
	connect(t, n, newParty(t)) // idle
	reading := connect(t, n, newParty(t))
	io.WriteString(reading, "GET "+poolPath+"/pieces/0-31 HTTP/1.1\r\nHost: x\r\n\r\n")
	io.ReadFull(reading, make([]byte, 1000))
	queued := connect(t, n, newParty(t))
	io.WriteString(queued, "GET "+poolPath+"/pieces/1 HTTP/1.1\r\nHost: x\r\n\r\n")
	<-waiting
	stop()
}
