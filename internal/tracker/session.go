package tracker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"dragonload/internal/piece"
	"dragonload/internal/rpc"
	poolv1 "dragonload/internal/rpc/gen/dragonload/pool/v1"
	"dragonload/internal/swarm"
)

const (
	// tellQueue is how many messages wait for a member that does not read before its
	// session is cut. It announces itself again when it is back.
	tellQueue = 512
	// firstWithin is how long a session may take to say which pool it is about, and
	// again to announce its member; from then on the machine watches over it.
	firstWithin = 10 * time.Second
	// lastWithin is how long the word on why a session was cut may take to be sent.
	lastWithin = time.Second

	// weighBytes of a message are worth one more message against the session's rate.
	weighBytes = 16 << 10
)

// session is one member's stream about one pool. Its handler reads and writes the
// stream; the loop of the pool's shard decides what becomes of it.
type session struct {
	room   [32]byte
	named  swarm.PoolID // the pool as its members call it
	pool   swarm.PoolID // as poolIn gives it
	member piece.NodeID
	out    chan *poolv1.SessionResponse
	// cut ends the session and tells the member why; it never waits. Only the first
	// cause counts.
	cut context.CancelCauseFunc

	// announced and over belong to the loop: it has taken the session in, and it has
	// nothing more to do with it.
	announced, over bool
}

type poolHandler struct{ s *Service }

// Session serves one session until either side ends it.
func (h poolHandler) Session(ctx context.Context, stream *connect.BidiStream[poolv1.SessionRequest, poolv1.SessionResponse]) error {
	c := callerOf(ctx)
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	s := &session{member: c.id, out: make(chan *poolv1.SessionResponse, tellQueue), cut: cut}
	if err := h.s.present.open(s, c.member, h.s.opts.MaxSessions); err != nil {
		return rpc.ToWire(err)
	}
	defer h.s.disown(s)
	defer h.s.present.close(s, c.member)

	// A cut makes reads fail at once and writes soon, so that nothing here waits for a
	// member that neither reads nor writes.
	unblocked := make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		defer close(unblocked)
		// A stream that has ended has no use for deadlines; nothing else fails here.
		_ = c.control.SetWriteDeadline(time.Now().Add(lastWithin))
		_ = c.control.SetReadDeadline(time.Unix(1, 0))
	})
	err := h.s.converse(ctx, c, s, stream)
	cut(err)
	if !unhook() {
		<-unblocked
	}
	if err = context.Cause(ctx); errors.Is(err, io.EOF) {
		return nil
	}
	h.s.opts.Log.Debug("session ended", "member", c.id, "err", err)
	return rpc.ToWire(err)
}

// converse returns why the session ended: io.EOF if the member ended it in good order.
func (s *Service) converse(ctx context.Context, c *caller, sess *session, stream *connect.BidiStream[poolv1.SessionRequest, poolv1.SessionResponse]) error {
	if err := c.control.SetReadDeadline(time.Now().Add(firstWithin)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	first, err := stream.Receive()
	if err != nil {
		return ended(ctx, err)
	}
	pool, err := rpc.DecodePool(first)
	if err != nil {
		return err
	}
	sess.room, sess.named = c.room.ID, pool
	in := poolIn(c.room.ID, pool)
	s.present.about(sess, in)
	// Asked after the session can be found by its pool, so that Unhost finds it or this does.
	if c.successor && !s.hosted.has(in) {
		return rpc.ErrNotHosting
	}
	if s.opts.Owners != nil && !c.successor {
		// As above: it can be found by its pool, so that Release does not take the pool away.
		elsewhere, err := s.opts.Owners.Claim(ctx, in)
		if err != nil {
			return err
		}
		if elsewhere != "" {
			return &rpc.ElsewhereError{Addr: elsewhere}
		}
	}
	// The answer tells the member that a tracker is there and has taken the session.
	if err := stream.Send(&poolv1.SessionResponse{}); err != nil {
		return err
	}
	if err := s.greet(c, sess); err != nil {
		return err
	}
	sh := s.shardOf(sess.pool)
	var sending sync.WaitGroup
	sending.Go(func() {
		if err := sess.send(ctx, stream); err != nil {
			sess.cut(err)
		}
	})
	err = s.listen(ctx, c, sess, sh, stream, first)
	sess.cut(err)
	sending.Wait()
	// The loop must hear of it, unless it has ended too.
	select {
	case sh.heard <- heard{session: sess}:
	case <-s.stopped:
	}
	return err
}

// listen hands what the member says to the loop.
func (s *Service) listen(ctx context.Context, c *caller, sess *session, sh *shard, stream *connect.BidiStream[poolv1.SessionRequest, poolv1.SessionResponse], x *poolv1.SessionRequest) error {
	limit := s.present.pace(c.member, sess.pool, &s.opts)
	announced := false
	for first := true; ; first = false {
		if !first {
			var err error
			if x, err = stream.Receive(); err != nil {
				return ended(ctx, err)
			}
		}
		if first && x.GetMessage() == nil {
			continue
		}
		if told, ok := x.GetMessage().(*poolv1.SessionRequest_Removals); ok {
			if !limit.AllowN(time.Now(), 1+len(told.Removals)/weighBytes) {
				return fmt.Errorf("%w: messages", rpc.ErrTooMany)
			}
			if err := s.learn(c, told.Removals); err != nil {
				return err
			}
			continue
		}
		m, err := rpc.DecodeToTracker(x)
		if err != nil {
			return err
		}
		if !limit.AllowN(time.Now(), weight(m)) {
			return fmt.Errorf("%w: messages", rpc.ErrTooMany)
		}
		if a, ok := m.(swarm.Announce); ok {
			if a.Addr, err = s.reachable(a.Addr, c); err != nil {
				return err
			}
			m = a
		} else if !announced {
			return fmt.Errorf("%w: %T before the announce", rpc.ErrMalformed, m)
		}
		if !announced {
			announced = true
			if err := c.control.SetReadDeadline(time.Time{}); err != nil {
				return fmt.Errorf("clear deadline: %w", err)
			}
		}
		select {
		case sh.heard <- heard{session: sess, message: m}:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.stopped:
			return rpc.ErrStopping
		}
	}
}

// send hands what the loop says to the member.
func (s *session) send(ctx context.Context, stream *connect.BidiStream[poolv1.SessionRequest, poolv1.SessionResponse]) error {
	for {
		select {
		case x := <-s.out:
			if err := stream.Send(x); err != nil {
				return err
			}
			if x.GetComeBack() != nil {
				return sendOff(ctx)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// sendOff lets a member that was told to come back end its session.
func sendOff(ctx context.Context) error {
	timeout := time.NewTimer(firstWithin)
	defer timeout.Stop()
	select {
	case <-timeout.C:
		return fmt.Errorf("%w: it was told to come back", rpc.ErrCut)
	case <-ctx.Done():
		return nil
	}
}

// ended says why nothing more is received.
func ended(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	switch connect.CodeOf(err) {
	case connect.CodeInvalidArgument, connect.CodeResourceExhausted:
		// Not protobuf, or too long.
		return fmt.Errorf("%w: %w", rpc.ErrMalformed, err)
	case connect.CodeDeadlineExceeded:
		return fmt.Errorf("%w: nothing said for %v", rpc.ErrCut, firstWithin)
	}
	return err
}

// weight is how many messages a message counts for: the work that it makes grows with
// what it lists.
func weight(m swarm.ToTracker) int {
	n := 0
	switch m := m.(type) {
	case swarm.Announce:
		n = m.Have.Len()/8 + 8*len(m.Leased)
	case swarm.Report:
		n = 8 * (len(m.Stored) + len(m.Lost))
	case swarm.Returned:
		n = 8 * len(m.Extents)
	}
	return 1 + n/weighBytes
}

// reachable fills in the host of an address that has none: where the member was seen.
// Where this node sees itself others do not reach it: as a successor they dial it by the
// address at which they have found it, else by the one that the machine has.
func (s *Service) reachable(addr string, c *caller) (string, error) {
	seen := c.host
	if c.id == s.opts.Self && strings.HasPrefix(addr, ":") {
		if c.successor {
			return "", nil
		}
		if ip := net.ParseIP(seen); ip != nil && ip.IsLoopback() && s.opts.Host != nil {
			seen = s.opts.Host()
		}
	}
	return withHost(addr, seen)
}

func withHost(addr, seen string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("%w: address of the member", rpc.ErrMalformed)
	}
	if host != "" {
		return addr, nil
	}
	addr = net.JoinHostPort(seen, port)
	if err := rpc.CheckAddr(addr); err != nil {
		return "", fmt.Errorf("%w: the member names no host and is seen at none", rpc.ErrMalformed)
	}
	return addr, nil
}
