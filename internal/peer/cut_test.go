package peer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// A member that is shut out gets no byte more, in the middle of an answer, and others
// are served on.
func TestServer_cutsOneMemberOff(t *testing.T) {
	t.Parallel()
	f, n := newFile(1<<20, 64<<10), newLoopback(t, newParty(t), Coalesce)
	out, other := newParty(t), newParty(t)
	var s *Server
	inTheMiddle := make(chan struct{})
	f.admit = func(_ context.Context, id piece.NodeID, _ []piece.Index) error {
		if id == out.id {
			s.Cut(testRoom, id)
			close(inTheMiddle)
		}
		return nil
	}
	s = NewServer(backend{f}, ServerOptions{Identify: identify})
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, n) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	kept := connect(t, n, out) // a connection without a request goes too
	if _, body := ask(t, connect(t, n, other), "GET "+poolPath+"/pieces/1 HTTP/1.1\r\nHost: x\r\n\r\n"); !bytes.Equal(body, f.bytes(1)) {
		t.Error("the other member is not served before")
	}
	busy := connect(t, n, out)
	if _, err := io.WriteString(busy, "GET "+poolPath+"/pieces/1 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-inTheMiddle
	for name, c := range map[string]net.Conn{"busy": busy, "idle": kept} {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if got, err := io.ReadAll(c); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %d bytes came, %v", name, len(got), err)
		}
	}
	if _, body := ask(t, connect(t, n, other), "GET "+poolPath+"/pieces/2 HTTP/1.1\r\nHost: x\r\n\r\n"); !bytes.Equal(body, f.bytes(2)) {
		t.Error("the other member is not served after")
	}
}

// What is under way from a member that is shut out ends, and nothing is kept open.
func TestClient_cutsOneMemberOff(t *testing.T) {
	t.Parallel()
	f, n := newFile(1<<20, 64<<10), newLoopback(t, newParty(t), Coalesce)
	asked := make(chan struct{}, 1)
	wait := false
	f.admit = func(ctx context.Context, _ piece.NodeID, _ []piece.Index) error {
		if !wait {
			return nil
		}
		asked <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	serve(t, f, n, ServerOptions{})
	c := newTestClient(t, n, newParty(t), ClientOptions{})
	if err := collect(t, c, n, f, 1, 2); err != nil {
		t.Fatal(err)
	}
	c.Cut(piece.NodeID{1}) // somebody else
	if err := collect(t, c, n, f, 3); err != nil || n.dials.Load() != 1 {
		t.Fatalf("after another was cut: %v, %d connections", err, n.dials.Load())
	}
	wait = true
	done := make(chan error, 1)
	go func() { done <- collect(t, c, n, f, 4) }()
	<-asked
	c.Cut(n.server.id)
	if err := <-done; !errors.Is(err, ErrBroken) {
		t.Errorf("the fetch under way: %v, want ErrBroken", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.hosts) != 0 {
		t.Errorf("%d members have connections still", len(c.hosts))
	}
}

// A list of removals comes before anything about a pool, and what is said last still
// goes out when the stream is closed.
func TestStream_tellsRemovalsFirstAndLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, last := bytes.Repeat([]byte{1}, minRemovals), bytes.Repeat([]byte{2}, MaxRemovals)
		ca, cb := pair()
		a, b := NewStream(ca, StreamOptions{Removals: first}), NewStream(cb, StreamOptions{})
		defer b.Close()
		go drain(a)
		a.Open(testPool)
		a.Removals(last)
		go a.Close()
		if r := next(t, b); !bytes.Equal(r.Removals, first) || r.Opened || r.Message != nil {
			t.Errorf("first came %+v", r)
		}
		if r := next(t, b); !r.Opened || r.Pool != testPool || r.Removals != nil {
			t.Errorf("then came %+v", r)
		}
		if r := next(t, b); !bytes.Equal(r.Removals, last) {
			t.Errorf("last came %d bytes", len(r.Removals))
		}
	})
}

func TestFrame_boundsRemovals(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, minRemovals - 1, MaxRemovals + 1} {
		if _, err := appendRemovals(nil, make([]byte, n)); err == nil {
			t.Errorf("sends a list of %d bytes", n)
		}
	}
	good, err := appendRemovals(nil, make([]byte, minRemovals))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := parse(good); err != nil {
		t.Error(err)
	}
	withPool := bytes.Clone(good)
	withPool[9] = 1
	long := appendHead(nil, kindRemovals, swarm.PoolID{})
	long = endFrame(append(long, make([]byte, MaxRemovals+1)...), 0)
	for name, data := range map[string][]byte{"a pool": withPool, "too many bytes": long} {
		if _, _, err := parse(data); err == nil {
			t.Errorf("accepts a list with %s", name)
		}
	}
}
