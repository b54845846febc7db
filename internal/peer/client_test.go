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
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"dragonload/internal/piece"
)

func TestFetch_bringsThePiecesInTheOrderOfTheList(t *testing.T) {
	t.Parallel()
	const p = 64 << 10
	for _, size := range []int64{1, 100, p - 1, p, p + 1, 40*p - 16<<10, 40*p + 7} {
		for name, layer := range map[string]func(net.Conn) net.Conn{"plain": nil, "coalescing": Coalesce} {
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				t.Parallel()
				f, n := newFile(size, p), newLoopback(t, newParty(t), layer)
				serve(t, f, n, ServerOptions{})
				c := newTestClient(t, n, newParty(t), ClientOptions{})
				var all []piece.Index
				for i := range piece.Index(f.layout.Count()) {
					all = append(all, i)
				}
				for range 5 {
					rand.Shuffle(len(all), func(a, b int) { all[a], all[b] = all[b], all[a] })
					if err := collect(t, c, n, f, all[:1+rand.N(len(all))]...); err != nil {
						t.Fatal(err)
					}
				}
				if err := collect(t, c, n, f, all...); err != nil {
					t.Fatal(err)
				}
				if got := n.dials.Load(); got != 1 {
					t.Errorf("%d connections for one request after the other", got)
				}
			})
		}
	}
}

func TestFetch_usesAtMostFourConnections(t *testing.T) {
	t.Parallel()
	f, n := newFile(1<<20, 64<<10), newLoopback(t, newParty(t), Coalesce)
	serve(t, f, n, ServerOptions{})
	c := newTestClient(t, n, newParty(t), ClientOptions{})
	var wg sync.WaitGroup
	for k := range 40 {
		wg.Go(func() {
			if err := collect(t, c, n, f, piece.Index(k%16), piece.Index((k+5)%16)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := n.dials.Load(); got > 4 {
		t.Errorf("%d connections", got)
	}
}

func TestFetch_keepsTheConnectionAfterARefusal(t *testing.T) {
	t.Parallel()
	f, n := newFile(1<<20, 64<<10), newLoopback(t, newParty(t), Coalesce)
	answers := []error{ErrNotHeld, errors.New("secret of this node"), nil}
	f.admit = func(context.Context, piece.NodeID, []piece.Index) error {
		err := answers[0]
		answers = answers[1:]
		return err
	}
	serve(t, f, n, ServerOptions{})
	c := newTestClient(t, n, newParty(t), ClientOptions{})
	if err := collect(t, c, n, f, 1); !errors.Is(err, ErrNotHeld) {
		t.Errorf("got %v, want ErrNotHeld", err)
	}
	if err := collect(t, c, n, f, 1); !errors.Is(err, ErrBusy) || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want ErrBusy", err)
	}
	if err := collect(t, c, n, f, 1); err != nil {
		t.Error(err)
	}
	if got := n.dials.Load(); got != 1 {
		t.Errorf("%d connections", got)
	}
}

func TestFetch_connectsAgainWhenTheKeptConnectionWasClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, n := newFile(1<<20, 64<<10), newNetwork(newParty(t), Coalesce)
		serve(t, f, n, ServerOptions{IdleTimeout: time.Second})
		c := newTestClient(t, n, newParty(t), ClientOptions{})
		for range 3 {
			if err := collect(t, c, n, f, 3, 4); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second) // of the bubble's clock
		}
		if got := n.dials.Load(); got != 3 {
			t.Errorf("%d connections, want 3", got)
		}
	})
}

func TestClient_closesWhatIsIdleAndConnectsAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, n := newFile(1<<20, 64<<10), newNetwork(newParty(t), Coalesce)
		serve(t, f, n, ServerOptions{})
		c := newTestClient(t, n, newParty(t), ClientOptions{})
		for k := range int32(2) {
			if err := collect(t, c, n, f, 3, 4); err != nil {
				t.Fatal(err)
			}
			c.CloseIdle()
			c.mu.Lock()
			if len(c.hosts) != 0 || c.sweep != nil {
				t.Errorf("%d members with kept connections, sweep %v", len(c.hosts), c.sweep)
			}
			c.mu.Unlock()
			if got := n.dials.Load(); got != k+1 {
				t.Errorf("%d connections, want %d", got, k+1)
			}
		}
	})
}

func TestFetch_closesIdleConnectionsAndForgetsTheMember(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, n := newFile(1<<20, 64<<10), newNetwork(newParty(t), Coalesce)
		serve(t, f, n, ServerOptions{})
		c := newTestClient(t, n, newParty(t), ClientOptions{})
		if err := collect(t, c, n, f, 3, 4); err != nil {
			t.Fatal(err)
		}
		time.Sleep(70 * time.Second)
		c.mu.Lock()
		if len(c.hosts) != 1 {
			t.Errorf("the connection was closed after 70 s")
		}
		c.mu.Unlock()
		time.Sleep(6 * time.Second)
		c.mu.Lock()
		if len(c.hosts) != 0 || c.sweep != nil {
			t.Errorf("after 76 s there are still %d members", len(c.hosts))
		}
		c.mu.Unlock()
	})
}

func TestFetch_endsWhenTheMemberIsSilent(t *testing.T) {
	t.Parallel()
	for name, admit := range map[string]bool{"before the answer": false, "in the body": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(newParty(t), nil)
				var wg sync.WaitGroup
				defer wg.Wait()
				defer n.Close()
				wg.Go(func() {
					conn, err := n.Accept()
					if err != nil {
						return
					}
					defer conn.Close()
					readRequest(bufio.NewReader(conn))
					if admit {
						io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n"+strings.Repeat("x", 8000))
					}
					io.Copy(io.Discard, conn)
				})
				c := newTestClient(t, n, newParty(t), ClientOptions{})
				f := newFile(1<<20, 64<<10)
				start := time.Now()
				err := collect(t, c, n, f, 3)
				if took := time.Since(start); !errors.Is(err, ErrSilent) || took < 19*time.Second || took > 22*time.Second {
					t.Errorf("after %v: %v", took, err)
				}
			})
		})
	}
}

// A member that sends a byte now and then keeps nobody waiting for ever.
func TestFetch_endsWhenTheMemberTrickles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(newParty(t), nil)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer n.Close()
		wg.Go(func() {
			conn, err := n.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			readRequest(bufio.NewReader(conn))
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n")
			for {
				time.Sleep(5 * time.Second)
				if _, err := conn.Write([]byte{0}); err != nil {
					return
				}
			}
		})
		c := newTestClient(t, n, newParty(t), ClientOptions{})
		start := time.Now()
		err := collect(t, c, n, newFile(1<<20, 64<<10), 3)
		if took := time.Since(start); !errors.Is(err, ErrSilent) || took > time.Minute {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// What got takes for a piece is not held against the member.
func TestFetch_waitsForASlowReceiverOfItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, n := newFile(1<<20, 64<<10), newNetwork(newParty(t), Coalesce)
		serve(t, f, n, ServerOptions{WriteTimeout: time.Hour})
		c := newTestClient(t, n, newParty(t), ClientOptions{})
		got := 0
		err := c.Fetch(context.Background(), "there", n.server.id, testPool, f.layout, []piece.Index{1, 2, 3}, nil, func(piece.Index, []byte) error {
			time.Sleep(time.Minute)
			got++
			return nil
		})
		if err != nil || got != 3 {
			t.Errorf("%d pieces: %v", got, err)
		}
	})
}

// A request that waits for its turn, or whose bytes come slowly, is told from one that is
// forgotten.
func TestFetch_tellsThatItIsNotForgotten(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		server ServerOptions
		client ClientOptions
		turn   time.Duration
		signs  [2]int
	}{
		"at once":          {signs: [2]int{0, 0}},
		"waits its turn":   {turn: 5500 * time.Millisecond, signs: [2]int{5, 5}},
		"slow member":      {server: ServerOptions{Limiter: rate.NewLimiter(32<<10, 32<<10)}, signs: [2]int{3, 7}},
		"limited receiver": {client: ClientOptions{Limiter: rate.NewLimiter(4<<10, 16<<10)}, signs: [2]int{20, 64}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f, n := newFile(1<<20, 64<<10), newNetwork(newParty(t), Coalesce)
				f.admit = func(context.Context, piece.NodeID, []piece.Index) error {
					time.Sleep(c.turn)
					return nil
				}
				serve(t, f, n, c.server)
				client := newTestClient(t, n, newParty(t), c.client)
				var signs []time.Time
				began, got := time.Now(), 0
				err := client.Fetch(context.Background(), "there", n.server.id, testPool, f.layout, []piece.Index{1, 2, 3, 4},
					func() { signs = append(signs, time.Now()) },
					func(piece.Index, []byte) error { got++; return nil })
				if err != nil || got != 4 {
					t.Fatalf("%d pieces: %v", got, err)
				}
				if len(signs) < c.signs[0] || len(signs) > c.signs[1] {
					t.Errorf("%d signs, want %d to %d", len(signs), c.signs[0], c.signs[1])
				}
				for _, at := range signs {
					if at.Sub(began) > 2500*time.Millisecond {
						t.Errorf("no sign for %v", at.Sub(began))
					}
					began = at
				}
			})
		})
	}
}

// A member that puts a request off for ever is left like one that says nothing.
func TestFetch_endsWhenItsTurnNeverComes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, n := newFile(1<<20, 64<<10), newNetwork(newParty(t), Coalesce)
		f.admit = func(ctx context.Context, _ piece.NodeID, _ []piece.Index) error {
			<-ctx.Done()
			return ctx.Err()
		}
		serve(t, f, n, ServerOptions{AdmitTimeout: time.Hour, WriteTimeout: time.Hour})
		c := newTestClient(t, n, newParty(t), ClientOptions{})
		began := time.Now()
		if err := collect(t, c, n, f, 1); !errors.Is(err, ErrSilent) || time.Since(began) > 21*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestFetch_endsWithItsContext(t *testing.T) {
	t.Parallel()
	f, n := newFile(1<<20, 64<<10), newLoopback(t, newParty(t), Coalesce)
	waiting := make(chan struct{})
	gone := make(chan struct{})
	f.admit = func(ctx context.Context, _ piece.NodeID, _ []piece.Index) error {
		close(waiting)
		<-ctx.Done() // the server sees that nobody waits any more
		close(gone)
		return ctx.Err()
	}
	serve(t, f, n, ServerOptions{})
	c := newTestClient(t, n, newParty(t), ClientOptions{})
	ctx, cancel := context.WithCancelCause(context.Background())
	because := errors.New("enough")
	go func() {
		<-waiting
		cancel(because)
	}()
	err := c.Fetch(ctx, "there", n.server.id, testPool, f.layout, []piece.Index{1}, nil, func(piece.Index, []byte) error { return nil })
	if !errors.Is(err, because) {
		t.Errorf("got %v", err)
	}
	<-gone
}

func TestFetch_stopsAtTheErrorOfGot(t *testing.T) {
	t.Parallel()
	f, n := newFile(1<<20, 64<<10), newLoopback(t, newParty(t), Coalesce)
	serve(t, f, n, ServerOptions{})
	c := newTestClient(t, n, newParty(t), ClientOptions{})
	full := errors.New("disk full")
	calls := 0
	err := c.Fetch(context.Background(), "there", n.server.id, testPool, f.layout, []piece.Index{1, 2, 3}, nil, func(piece.Index, []byte) error {
		calls++
		return full
	})
	if !errors.Is(err, full) || calls != 1 {
		t.Errorf("%d calls: %v", calls, err)
	}
	if err := collect(t, c, n, f, 1, 2, 3); err != nil {
		t.Error(err)
	}
}

func TestFetch_refusesWhatItMustNotAskFor(t *testing.T) {
	t.Parallel()
	c := NewClient(func(context.Context, string, piece.NodeID) (net.Conn, error) {
		t.Error("dialled")
		return nil, io.EOF
	}, ClientOptions{})
	defer c.Close()
	layout := piece.LayoutFor(1 << 30)
	for name, pieces := range map[string][]piece.Index{
		"none": nil, "too many": make([]piece.Index, MaxPieces+1), "beyond the end": {piece.Index(layout.Count())},
	} {
		if c.Fetch(context.Background(), "there", piece.NodeID{}, testPool, layout, pieces, nil, nil) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if c.Fetch(context.Background(), "there", piece.NodeID{}, testPool, piece.Layout{Size: 1, PieceLength: 3}, []piece.Index{0}, nil, nil) == nil {
		t.Error("a layout that cannot be was accepted")
	}
	c.Close()
	if err := c.Fetch(context.Background(), "there", piece.NodeID{}, testPool, layout, []piece.Index{0}, nil, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestFetch_tellsWhyTheMemberWasNotReached(t *testing.T) {
	t.Parallel()
	refused := errors.New("not a member")
	c := NewClient(func(context.Context, string, piece.NodeID) (net.Conn, error) { return nil, refused }, ClientOptions{})
	defer c.Close()
	err := c.Fetch(context.Background(), "there", piece.NodeID{}, testPool, piece.LayoutFor(1), []piece.Index{0}, nil, nil)
	if !errors.Is(err, ErrBroken) || !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
}

// readRequest reads a request's header.
func readRequest(r *bufio.Reader) {
	for {
		line, err := r.ReadString('\n')
		if err != nil || line == "\r\n" {
			return
		}
	}
}

// Whatever a member answers, Fetch ends with an error, and nothing is kept.
func TestFetch_refusesAnswersThatAreNotExact(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 64<<10)
	random := make([]byte, 20<<10)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range random {
		random[i] = byte(rng.Uint32())
	}
	for name, answer := range map[string]string{
		"nothing":            "",
		"random bytes":       string(random),
		"cut in its header":  "HTTP/1.1 200 OK\r\nContent-Le",
		"cut in its body":    "HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + body[1:],
		"too short":          "HTTP/1.1 200 OK\r\nContent-Length: 65535\r\n\r\n" + body[1:],
		"too long":           "HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n" + body + "x",
		"no length":          "HTTP/1.1 200 OK\r\n\r\n" + body,
		"two lengths":        "HTTP/1.1 200 OK\r\nContent-Length: 65536\r\nContent-Length: 65536\r\n\r\n" + body,
		"signed length":      "HTTP/1.1 200 OK\r\nContent-Length: +65536\r\n\r\n" + body,
		"huge length":        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709617152\r\n\r\n" + body,
		"chunks":             "HTTP/1.1 200 OK\r\nContent-Length: 65536\r\nTransfer-Encoding: chunked\r\n\r\n" + body,
		"HTTP/1.0":           "HTTP/1.0 200 OK\r\nContent-Length: 65536\r\n\r\n" + body,
		"interim":            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + body,
		"redirect":           "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: https://example.org/\r\n\r\n",
		"partial":            "HTTP/1.1 206 Partial\r\nContent-Length: 65536\r\n\r\n" + body,
		"bare newlines":      "HTTP/1.1 200 OK\nContent-Length: 65536\n\n" + body,
		"endless line":       "HTTP/1.1 200 OK\r\nX: " + body + body,
		"endless header":     "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 10000),
		"status of a letter": "HTTP/1.1 2x0 OK\r\nContent-Length: 65536\r\n\r\n" + body,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newLoopback(t, newParty(t), nil)
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
						io.WriteString(conn, answer)
						conn.(*tls.Conn).CloseWrite()
						io.Copy(io.Discard, r)
					})
				}
			})
			c := NewClient(n.dialAs(newParty(t)), ClientOptions{})
			defer c.Close()
			f := newFile(1<<20, 64<<10)
			err := c.Fetch(context.Background(), "there", n.server.id, testPool, f.layout, []piece.Index{3}, nil, func(piece.Index, []byte) error {
				t.Error("a piece was handed on")
				return nil
			})
			if !errors.Is(err, ErrBroken) {
				t.Errorf("got %v, want ErrBroken", err)
			}
			if len(c.hosts) != 0 {
				t.Error("the connection was kept")
			}
		})
	}
}

func TestFetch_keepsToItsRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, n := newFile(1<<20, 64<<10), newNetwork(newParty(t), Coalesce)
		serve(t, f, n, ServerOptions{})
		c := newTestClient(t, n, newParty(t), ClientOptions{Limiter: rate.NewLimiter(64<<10, 8<<10)})
		start := time.Now()
		if err := collect(t, c, n, f, 0, 1, 2, 3, 4); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 4500*time.Millisecond || took > 5500*time.Millisecond {
			t.Errorf("five seconds' worth took %v", took)
		}
	})
}

func FuzzReadHead(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 10\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := readFinalHead(bufio.NewReaderSize(bytes.NewReader(data), headerLine), func() {})
		if err == nil && (h.status < 200 || h.status > 599 || h.length < 0 || h.length > piece.MaxSize) {
			t.Errorf("%q gives %+v", data, h)
		}
	})
}
