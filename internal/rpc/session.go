package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"connectrpc.com/connect"

	"dragonload/internal/room"
	poolv1 "dragonload/internal/rpc/gen/dragonload/pool/v1"
	"dragonload/internal/swarm"
)

const (
	// sendQueue is how many messages wait to be sent before a session is given up: a
	// node says a few a second, so this many mean a tracker that has stopped reading.
	sendQueue = 256
	// receiveQueue is how many messages wait to be received; beyond, the tracker waits.
	receiveQueue = 64
	// closeTimeout bounds how long Close waits for what was sent to arrive.
	closeTimeout = time.Second
)

// ErrClosed is what Receive returns after Close.
var ErrClosed = errors.New("session is closed")

var errSlow = errors.New("the tracker does not read what it is sent")

// Session is a member's conversation with a tracker about one pool. The caller sends an
// Announce first. Methods may be called concurrently.
type Session struct {
	stream *connect.BidiStreamForClient[poolv1.SessionRequest, poolv1.SessionResponse]
	queue  chan *poolv1.SessionRequest
	in     chan swarm.ToNode
	// removals hears of the lists of removals that the tracker tells.
	removals func(*room.Removals)
	opened   chan struct{} // closed with the tracker's first, empty response
	ended    chan struct{} // closed when nothing more will be received; err is set then
	err      error

	closing   chan struct{} // closed by the first Close
	closeOnce sync.Once
	cancel    context.CancelCauseFunc
	work      sync.WaitGroup
}

// Open opens a session about a pool and returns when the tracker has taken it, or ctx
// is over, or 10 s have passed. The session outlives ctx; Close ends it.
func (t *Tracker) Open(ctx context.Context, pool swarm.PoolID) (*Session, error) {
	ctx, stop := context.WithTimeout(ctx, callTimeout)
	defer stop()
	life, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	s := &Session{
		stream:  t.pools.Session(life),
		queue:   make(chan *poolv1.SessionRequest, sendQueue),
		in:      make(chan swarm.ToNode, receiveQueue),
		opened:  make(chan struct{}),
		ended:   make(chan struct{}),
		closing: make(chan struct{}),
		cancel:  cancel,

		removals: t.removals,
	}
	s.work.Go(func() { s.send(life, &poolv1.SessionRequest{Pool: append([]byte(nil), pool[:]...)}) })
	s.work.Go(func() { s.receive(life) })
	// The end of life alone wakes neither a read nor a write that waits for the
	// tracker (net/http, awaitFlowControl); closing the response does both.
	s.work.Add(1)
	context.AfterFunc(life, func() {
		defer s.work.Done()
		_ = s.stream.CloseResponse() // the stream is over; there is nobody to tell
	})

	var err error
	select {
	case <-s.opened:
		return s, nil
	case <-s.ended:
		err = t.explain(ctx, s.err)
	case <-ctx.Done():
		err = context.Cause(ctx)
		cancel(err)
	}
	s.Close()
	return nil, fmt.Errorf("open session with tracker %s: %w", t.addr, err)
}

// Send queues a message and never waits. It reports false if the session is over, or
// ends for want of a tracker that reads; Receive tells why.
func (s *Session) Send(m swarm.ToTracker) bool { return s.put(EncodeToTracker(m)) }

func (s *Session) put(x *poolv1.SessionRequest) bool {
	select {
	case <-s.closing:
		return false
	case <-s.ended:
		return false
	default:
	}
	select {
	case s.queue <- x:
		return true
	default:
		s.cancel(errSlow)
		return false
	}
}

// Receive returns the tracker's next message. The error tells how the session ended: a
// Refusal if the tracker said so, ErrClosed after Close, ctx's if that is over before
// (the session then goes on).
func (s *Session) Receive(ctx context.Context) (swarm.ToNode, error) {
	select {
	case m := <-s.in:
		return m, nil
	case <-s.closing:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-s.ended:
	}
	// What came before the end is told before the end.
	select {
	case m := <-s.in:
		return m, nil
	default:
		return nil, s.err
	}
}

// Close ends the session: what was sent before, a Leave say, still goes out, for at
// most a second. It may be called more than once, and returns when all is over.
func (s *Session) Close() {
	s.closeOnce.Do(func() {
		close(s.closing)
		late := time.AfterFunc(closeTimeout, func() { s.cancel(ErrClosed) })
		defer late.Stop()
		s.work.Wait()
		s.cancel(ErrClosed)
	})
	s.work.Wait()
}

// send runs until the session is over. Its first message makes the request, without
// which receive would wait for ever.
func (s *Session) send(life context.Context, first *poolv1.SessionRequest) {
	if s.stream.Send(first) != nil {
		return
	}
	for {
		select {
		case m := <-s.queue:
			if s.stream.Send(m) != nil {
				// The cause is what receive meets.
				return
			}
		case <-s.ended:
			return
		case <-life.Done():
			return
		case <-s.closing:
			for {
				select {
				case m := <-s.queue:
					if s.stream.Send(m) != nil {
						return
					}
					continue
				default:
				}
				break
			}
			// The tracker answers the end of the requests with that of the responses,
			// which ends receive. An error means that it has ended already.
			_ = s.stream.CloseRequest()
			return
		}
	}
}

// receive runs until the tracker ends the session or life does, and ends life.
func (s *Session) receive(life context.Context) {
	defer close(s.ended)
	opened := false
	for {
		x, err := s.stream.Receive()
		if err != nil {
			s.err = s.reason(life, err)
			break
		}
		if !opened {
			if x.GetMessage() != nil {
				s.err = malformed("first response", errors.New("not empty"))
				break
			}
			opened = true
			close(s.opened)
			continue
		}
		if told, ok := x.GetMessage().(*poolv1.SessionResponse_Removals); ok {
			l, err := DecodeRemovals(told.Removals)
			if err != nil {
				s.err = err
				break
			}
			if l != nil && s.removals != nil {
				s.removals(l)
			}
			continue
		}
		m, err := DecodeToNode(x)
		if err != nil {
			s.err = err
			break
		}
		select {
		case s.in <- m:
		case <-s.closing:
		case <-life.Done():
		}
	}
	s.cancel(s.err)
}

func (s *Session) reason(life context.Context, err error) error {
	if cause := context.Cause(life); cause != nil {
		return cause
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the tracker ended the session: %w", io.EOF)
	}
	return FromWire(err)
}
