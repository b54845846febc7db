package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"connectrpc.com/connect"

	"dragonload/internal/piece"
	poolv1 "dragonload/internal/rpc/gen/dragonload/pool/v1"
	"dragonload/internal/rpc/gen/dragonload/pool/v1/poolv1connect"
	"dragonload/internal/swarm"
)

type stream = connect.BidiStream[poolv1.SessionRequest, poolv1.SessionResponse]

// pools is a tracker that does what its test says.
type pools func(ctx context.Context, s *stream) error

func (p pools) Session(ctx context.Context, s *stream) error { return p(ctx, s) }

func (pools) Lend(context.Context, *connect.Request[poolv1.LendRequest], *connect.ServerStream[poolv1.LendResponse]) error {
	return nil
}

// connectTo serves p on loopback and returns a member's connection to it.
func connectTo(t *testing.T, p pools) *Tracker {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(poolv1connect.NewPoolServiceHandler(p, HandlerOptions()))
	server := httptest.NewUnstartedServer(mux)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	c, err := NewTracker(server.Listener.Addr().String(),
		&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func open(t *testing.T, c *Tracker) *Session {
	t.Helper()
	s, err := c.Open(t.Context(), swarm.PoolID{7})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestSession_opensOnlyWhenTheTrackerHasTakenIt(t *testing.T) {
	t.Parallel()
	named := make(chan swarm.PoolID, 1)
	c := connectTo(t, func(ctx context.Context, s *stream) error {
		x, err := s.Receive()
		if err != nil {
			return err
		}
		pool, err := DecodePool(x)
		if err != nil {
			return err
		}
		named <- pool
		<-ctx.Done()
		return ctx.Err()
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	go func() {
		if pool := <-named; pool != (swarm.PoolID{7}) {
			t.Errorf("pool %x", pool)
		}
		cancel(enough)
	}()
	if _, err := c.Open(ctx, swarm.PoolID{7}); !errors.Is(err, enough) {
		t.Errorf("got %v, want the end of ctx", err)
	}
}

func TestSession_opensOrGivesUpWhenTheTrackerAnswersButDoesNotTakeIt(t *testing.T) {
	t.Parallel()
	answered := make(chan struct{})
	c := connectTo(t, func(ctx context.Context, s *stream) error {
		// The headers of the answer, and nothing after them.
		if err := s.Conn().Send(nil); err != nil {
			return err
		}
		close(answered)
		<-ctx.Done()
		return ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-answered
		cancel()
	}()
	if _, err := c.Open(ctx, swarm.PoolID{7}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of ctx", err)
	}
}

func TestSession_tellsWhyTheTrackerRefused(t *testing.T) {
	t.Parallel()
	c := connectTo(t, func(context.Context, *stream) error { return ToWire(ErrRemoved) })
	if _, err := c.Open(t.Context(), swarm.PoolID{}); !errors.Is(err, ErrRemoved) {
		t.Errorf("got %v, want ErrRemoved", err)
	}
}

func TestSession_outlivesTheContextThatOpenedIt(t *testing.T) {
	t.Parallel()
	c := connectTo(t, func(_ context.Context, s *stream) error {
		if err := s.Send(&poolv1.SessionResponse{}); err != nil {
			return err
		}
		for {
			x, err := s.Receive()
			if err != nil {
				return err
			}
			if x.GetLeave() != nil {
				return s.Send(EncodeToNode(swarm.Complete{}))
			}
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	s, err := c.Open(ctx, swarm.PoolID{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cancel()
	s.Send(swarm.Leave{})
	if m, err := s.Receive(t.Context()); err != nil || m != (swarm.Complete{}) {
		t.Errorf("got %v, %v", m, err)
	}
	if _, err := s.Receive(t.Context()); err == nil {
		t.Error("the end of the session was not told")
	}
}

func TestSession_neverWaitsForATrackerThatDoesNotRead(t *testing.T) {
	t.Parallel()
	c := connectTo(t, func(ctx context.Context, s *stream) error {
		if err := s.Send(&poolv1.SessionResponse{}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	})
	s := open(t, c)
	large := swarm.Conflict{}
	large.Pin.Validator = string(make([]byte, 16<<10))
	sent := 0
	for ; s.Send(large); sent++ {
		if sent > 1<<20 {
			t.Fatal("the queue has no bound")
		}
	}
	if _, err := s.Receive(t.Context()); !errors.Is(err, errSlow) {
		t.Errorf("ended with %v, want %v", err, errSlow)
	}
}

func TestSession_endsWhenTheTrackerBreaksTheProtocol(t *testing.T) {
	t.Parallel()
	for name, responses := range map[string][]*poolv1.SessionResponse{
		"message before the empty response": {EncodeToNode(swarm.Complete{})},
		"empty response later":              {{}, {}},
		"message out of bounds":             {{}, EncodeToNode(swarm.Revoke{Pieces: 1 << 30})},
	} {
		c := connectTo(t, func(ctx context.Context, s *stream) error {
			for _, x := range responses {
				if err := s.Send(x); err != nil {
					return err
				}
			}
			<-ctx.Done()
			return ctx.Err()
		})
		s, err := c.Open(t.Context(), swarm.PoolID{})
		if err == nil {
			_, err = s.Receive(t.Context())
			s.Close()
		}
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func TestSession_closeWaitsASecondAtMostForTheTracker(t *testing.T) {
	t.Parallel()
	c := connectTo(t, func(ctx context.Context, s *stream) error {
		if err := s.Send(&poolv1.SessionResponse{}); err != nil {
			return err
		}
		<-ctx.Done() // takes no notice of the end of the requests
		return ctx.Err()
	})
	s := open(t, c)
	began := time.Now()
	s.Close()
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("Close took %v", took)
	}
	if _, err := s.Receive(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Receive after Close: %v, want ErrClosed", err)
	}
	if s.Send(swarm.Leave{}) {
		t.Error("Send after Close says that it sends")
	}
}

func TestSession_receiveEndsWithItsContextAndTheSessionGoesOn(t *testing.T) {
	t.Parallel()
	proceed := make(chan struct{})
	c := connectTo(t, func(ctx context.Context, s *stream) error {
		if err := s.Send(&poolv1.SessionResponse{}); err != nil {
			return err
		}
		<-proceed
		return s.Send(EncodeToNode(swarm.Complete{}))
	})
	s := open(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Receive(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(proceed)
	if m, err := s.Receive(t.Context()); err != nil || m != (swarm.Complete{}) {
		t.Errorf("got %v, %v", m, err)
	}
}

// BenchmarkSession measures a report and its answer over loopback TLS, both sides of
// it together.
func BenchmarkSession(b *testing.B) {
	mux := http.NewServeMux()
	mux.Handle(poolv1connect.NewPoolServiceHandler(pools(func(_ context.Context, s *stream) error {
		for x := (&poolv1.SessionResponse{}); ; x = EncodeToNode(swarm.Complete{}) {
			if err := s.Send(x); err != nil {
				return err
			}
			if _, err := s.Receive(); err != nil {
				return err
			}
		}
	}), HandlerOptions()))
	server := httptest.NewUnstartedServer(mux)
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	c, err := NewTracker(server.Listener.Addr().String(),
		&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	s, err := c.Open(b.Context(), swarm.PoolID{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	report := swarm.Report{Stored: []piece.Extent{{First: 1, Count: 2}, {First: 9, Count: 1}}, Rate: 1 << 20, Moved: 1 << 18, Unasked: 3}
	b.ReportAllocs()
	for b.Loop() {
		s.Send(report)
		if _, err := s.Receive(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
