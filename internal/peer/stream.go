package peer

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

const (
	helloWithin = 5 * time.Second  // for the first frame of the other side
	pingEvery   = time.Second      // if nothing else was sent
	deadAfter   = 3 * time.Second  // without a byte
	frameWithin = 20 * time.Second // for one frame, from its first byte on
	writeWithin = 10 * time.Second // for one write of about gatherSize
	closeWithin = time.Second      // for what is queued when a Stream is closed

	// gatherSize is how much of the queue is written at a time.
	gatherSize = 64 << 10

	// The bounds of the queue: the statements of a file of 2048 pieces, each stated
	// alone, to a neighbour in several pools; and eight of the longest bitfields.
	maxQueued      = 8192
	maxQueuedBytes = 4 << 20
)

// Members knows who is a member of the room that a Stream is in.
type Members interface {
	// Has reports whether the key is a member's. Statements by others are dropped.
	Has(piece.NodeID) bool
	// Certificate returns a member's certificate, nil if it is not known.
	Certificate(piece.NodeID) []byte
	// Learn takes in a certificate, if it is that of a member.
	Learn(der []byte)
}

// StreamOptions say what a Stream tells the other side about this one.
type StreamOptions struct {
	// Addr is where members reach this node: host:port, or :port if the host is the one
	// that they see; "" if it is not known.
	Addr string
	// Removals is the room's list of removals, told before anything else; nil if there is
	// none.
	Removals []byte
	Log      *slog.Logger // nil: nowhere

	// Members tells whose statements count. Before the first statement by a member that is
	// sent, its certificate is. nil: everybody's, and none is sent.
	Members Members

	// Pace bounds what is received; nil: nothing was received from this member before.
	Pace *Pace
}

// Received is one thing that the other side has said about a pool: that it has opened
// or left it, or a message; or about the room: who was removed from it.
type Received struct {
	Pool    swarm.PoolID
	Opened  bool
	Left    bool
	Message swarm.ToPeer // nil with Opened, Left and Removals

	Removals []byte // a list of removals, unchecked; else nil

	// Addr is where the sender says that members reach it, as in its StreamOptions. It is
	// the same in all that one Stream receives.
	Addr string
}

// Stream is the connection over which two members of a room tell each other about the
// pools in which both work. Both sides do the same, whoever has dialled.
//
// Receive is called by one goroutine, and steadily: it is also what notices that the
// other side has gone. All other methods may be called by any goroutine at any time,
// and none but Close waits for anything.
type Stream struct {
	conn    net.Conn
	log     *slog.Logger
	members Members
	pace    *Pace         // of what is received
	done    chan struct{} // closed when the writing goroutine has ended
	wake    chan struct{} // holds one if the writing goroutine has something to look at

	in      *bufio.Reader
	greeted bool      // the hello has come; belongs to Receive
	addr    string    // from it
	begun   time.Time // when the Stream was made, or the present frame began; belongs to Receive
	amid    bool      // a frame is being read

	mu      sync.Mutex
	queue   []queued
	first   uint64 // number of queue[0]; numbers go up by one
	bytes   int    // of all that is queued
	last    map[swarm.PoolID]uint64
	shown   map[piece.NodeID]bool // whose certificates the other side has been sent
	closing bool                  // nothing more is queued
	stuck   *time.Timer           // set with closing: ends the Stream if that takes too long
	failed  chan struct{}         // closed once err is set
	err     error                 // why the Stream has ended
}

// queued is what waits to be sent: one frame or more, or pieces that are now held,
// which grow in the queue.
type queued struct {
	pool  swarm.PoolID
	frame []byte
	haves *piece.Extents
}

func (q *queued) size() int {
	if q.haves != nil {
		return frameStart + 4 + 8*len(q.haves.Runs())
	}
	return len(q.frame)
}

// NewStream begins a stream over a connection on which both sides have agreed to speak
// it. It owns the connection from here on. It does not wait for the other side, whose
// hello is the first Receive's matter. Close must be called, also after an error.
func NewStream(conn net.Conn, o StreamOptions) *Stream {
	s := &Stream{
		conn:    conn,
		log:     o.Log,
		members: o.Members,
		pace:    o.Pace,
		shown:   make(map[piece.NodeID]bool),
		done:    make(chan struct{}),
		wake:    make(chan struct{}, 1),
		begun:   time.Now(),
		last:    make(map[swarm.PoolID]uint64),
		failed:  make(chan struct{}),
	}
	if s.pace == nil {
		s.pace = newPace()
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.in = bufio.NewReaderSize((*streamReader)(s), 4<<10)
	hello, err := appendHello(nil, o.Addr)
	if err != nil {
		// An address that nobody could use is not worth telling.
		s.log.Warn("own address is not told to neighbours", "err", err)
		hello, _ = appendHello(nil, "")
	}
	s.put(queued{frame: hello})
	if o.Removals != nil {
		s.Removals(o.Removals)
	}
	go s.write()
	return s
}

// Open tells the other side that this one works in a pool. What is said about a pool
// that only one side has opened is of no use to anybody.
func (s *Stream) Open(pool swarm.PoolID) { s.sign(kindOpen, pool) }

// Leave tells the other side that this one works in a pool no more.
func (s *Stream) Leave(pool swarm.PoolID) { s.sign(kindLeave, pool) }

// Removals tells the other side a newer list of removals. Close sends it still.
func (s *Stream) Removals(list []byte) {
	frame, err := appendRemovals(nil, list)
	if err != nil {
		s.fail(fmt.Errorf("send: %w", err))
		return
	}
	s.put(queued{frame: frame})
}

func (s *Stream) sign(k kind, pool swarm.PoolID) {
	s.put(queued{pool: pool, frame: appendSign(nil, k, pool)})
}

// Send queues a message about a pool. Messages arrive in order, Haves that meet in the
// queue as one. After the Stream's end they are dropped. If the queue is full the
// Stream ends: a neighbour that missed a message would never learn of it.
func (s *Stream) Send(pool swarm.PoolID, message swarm.ToPeer) {
	q := queued{pool: pool}
	if m, ok := message.(swarm.Haves); ok {
		q.haves = new(piece.Extents)
		for _, e := range m.Extents {
			if !e.Valid(piece.MaxCount) {
				s.fail(fmt.Errorf("send: extent of %d pieces from %d on", e.Count, e.First))
				return
			}
			q.haves.Add(e)
		}
	} else {
		s.introduce(message)
		var err error
		if q.frame, err = appendMessage(nil, pool, message); err != nil {
			s.fail(fmt.Errorf("send: %w", err))
			return
		}
	}
	s.put(q)
}

// introduce sends the certificates of those whose statements a message has, once.
func (s *Stream) introduce(message swarm.ToPeer) {
	if s.members == nil {
		return
	}
	for _, m := range statementsOf(message) {
		s.mu.Lock()
		shown := s.shown[m.By]
		s.mu.Unlock()
		if shown {
			continue
		}
		if der := s.members.Certificate(m.By); len(der) > 0 && len(der) <= maxCertificate {
			s.put(queued{frame: appendCertificate(nil, der)})
			s.mu.Lock()
			s.shown[m.By] = true
			s.mu.Unlock()
		}
	}
}

// statementsOf returns the statements that a message carries.
func statementsOf(message swarm.ToPeer) []*swarm.Statement {
	switch m := message.(type) {
	case swarm.Statement:
		return []*swarm.Statement{&m}
	case swarm.Accuse:
		return []*swarm.Statement{&m.Accused, &m.Accuser}
	}
	return nil
}

// put adds to the queue.
func (s *Stream) put(q queued) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.err != nil {
		return
	}
	if !s.merge(q) {
		s.last[q.pool] = s.first + uint64(len(s.queue))
		s.queue = append(s.queue, q)
		s.bytes += q.size()
	}
	if len(s.queue) > maxQueued || s.bytes > maxQueuedBytes {
		s.failLocked(ErrOverflow)
		return
	}
	s.signal()
}

// merge adds pieces to the Haves that was the last said about the pool, if it is still
// queued. It needs s.mu.
func (s *Stream) merge(q queued) bool {
	at, said := s.last[q.pool]
	if q.haves == nil || !said || at < s.first {
		return false
	}
	before := &s.queue[at-s.first]
	if before.haves == nil {
		return false
	}
	s.bytes -= before.size()
	for _, e := range q.haves.Runs() {
		before.haves.Add(e)
	}
	s.bytes += before.size()
	return true
}

func (s *Stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take moves about gatherSize of the queue into buf. Last reports that nothing will be
// queued any more and this is the end of it.
func (s *Stream) take(buf []byte) (_ []byte, last bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n < len(s.queue) && len(buf) < gatherSize {
		q := &s.queue[n]
		s.bytes -= q.size()
		if q.haves != nil {
			if buf, err = appendExtents(buf, kindHaves, q.pool, q.haves.Runs()); err != nil {
				return nil, false, err
			}
		} else {
			buf = append(buf, q.frame...)
		}
		*q = queued{}
		n++
	}
	s.queue, s.first = s.queue[n:], s.first+uint64(n)
	if len(s.queue) == 0 {
		s.queue = nil
		clear(s.last)
	}
	return buf, s.closing && len(s.queue) == 0, nil
}

// write sends what is queued, all that has gathered at once, and signs of life.
func (s *Stream) write() {
	defer func() {
		s.mu.Lock()
		if s.stuck != nil {
			s.stuck.Stop()
		}
		s.mu.Unlock()
		close(s.done)
	}()
	ping := time.NewTimer(pingEvery)
	defer ping.Stop()
	var buf []byte
	for {
		if cap(buf) > 2*gatherSize {
			buf = nil
		}
		var last bool
		var err error
		if buf, last, err = s.take(buf[:0]); err != nil {
			s.fail(err)
			return
		}
		if len(buf) == 0 && !last {
			select {
			case <-s.wake:
				continue
			case <-ping.C:
				buf = appendSign(buf, kindPing, swarm.PoolID{})
			case <-s.failed:
				return
			}
		}
		if len(buf) > 0 {
			err = s.conn.SetWriteDeadline(time.Now().Add(writeWithin))
			if err == nil {
				_, err = s.conn.Write(buf)
			}
			if err != nil {
				s.fail(classify(err))
				return
			}
			ping.Reset(pingEvery)
		}
		if last {
			s.conn.Close() // tells the other side, unlike abort; Close bounds it
			s.fail(net.ErrClosed)
			return
		}
	}
}

// Receive returns the next thing that the other side says. Signatures of statements
// are checked. Whatever is not as it has to be ends the Stream, as does an end of ctx,
// then as Close does. Each error is the Stream's end: io.EOF if the other side has
// closed it, net.ErrClosed if this one has, ErrSilent, ErrOverflow, or what was wrong
// with what came, wrapped in ErrBroken.
func (s *Stream) Receive(ctx context.Context) (Received, error) {
	stop := context.AfterFunc(ctx, s.close)
	defer stop()
	for {
		f, err := s.next()
		if err != nil {
			s.fail(err)
			s.mu.Lock()
			defer s.mu.Unlock()
			return Received{}, s.err
		}
		if err := s.pace.limit.WaitN(ctx, weight(&f)); err != nil {
			s.close()
		}
		r := Received{Pool: f.pool, Addr: s.addr}
		switch f.kind {
		case kindHello, kindPing:
			continue
		case kindCertificate:
			if s.members != nil {
				s.members.Learn(f.der)
			}
			continue
		case kindOpen:
			r.Opened = true
		case kindLeave:
			r.Left = true
		case kindRemovals:
			r.Removals = f.list
		default:
			if !s.vouched(f.message) {
				continue
			}
			r.Message = f.message
		}
		return r, nil
	}
}

// vouched reports whether all statements of a message are by members. Others are not
// believed whoever passes them on, who may have known them as members.
func (s *Stream) vouched(message swarm.ToPeer) bool {
	if s.members != nil {
		for _, m := range statementsOf(message) {
			if !s.members.Has(m.By) {
				s.log.Debug("statement by a key that is not known to be a member's", "by", m.By)
				return false
			}
		}
	}
	return true
}

// weight is what a frame counts for against the pace of its sender.
func weight(f *frame) int {
	switch m := f.message.(type) {
	case swarm.Statement:
		return 4
	case swarm.Accuse:
		return 64
	case swarm.Holds:
		return 1 + m.Have.Len()/4096
	case swarm.AskStatements:
		return 8
	}
	if f.kind == kindCertificate {
		return 8
	}
	return 1
}

// next reads a frame.
func (s *Stream) next() (frame, error) {
	var start [frameStart]byte
	if _, err := io.ReadFull(s.in, start[:1]); err != nil {
		return frame{}, classify(err)
	}
	if s.greeted {
		s.amid, s.begun = true, time.Now()
		defer func() { s.amid = false }()
	}
	if _, err := io.ReadFull(s.in, start[1:]); err != nil {
		return frame{}, classify(err)
	}
	k, pool, n, err := frameHead(start[:])
	if err != nil {
		return frame{}, malformed(err)
	}
	if (k == kindHello) == s.greeted {
		return frame{}, malformed(errors.New("the hello is not the first frame"))
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(s.in, payload); err != nil {
		return frame{}, classify(err)
	}
	f, err := decodePayload(k, pool, payload)
	if err != nil {
		return frame{}, malformed(err)
	}
	if k == kindHello {
		s.greeted, s.addr = true, f.addr
	}
	for _, m := range statementsOf(f.message) {
		if !ed25519.Verify(m.By[:], m.Message(), m.Signature) {
			return frame{}, malformed(errors.New("statement with a wrong signature"))
		}
	}
	return f, nil
}

// streamReader reads from a Stream's connection, with the deadline that holds.
type streamReader Stream

func (r *streamReader) Read(p []byte) (int, error) {
	deadline := time.Now().Add(deadAfter)
	switch {
	case !r.greeted:
		deadline = r.begun.Add(helloWithin)
	case r.amid:
		if end := r.begun.Add(frameWithin); end.Before(deadline) {
			deadline = end
		}
	}
	_ = r.conn.SetReadDeadline(deadline) // fails only if closed, which Read tells
	return r.conn.Read(p)
}

// classify tells what the end of a connection means.
func classify(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return io.EOF
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrSilent
	}
	return fmt.Errorf("%w: %w", ErrBroken, err)
}

// malformed wraps what is wrong with a frame.
func malformed(err error) error { return fmt.Errorf("%w: %w", ErrBroken, err) }

// fail ends the Stream at once, unless it has ended.
func (s *Stream) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked(err)
}

func (s *Stream) failLocked(err error) {
	if s.err != nil {
		return
	}
	if s.closing {
		err = net.ErrClosed // whatever happens after Close is of its making
	}
	s.err = err
	s.queue, s.bytes = nil, 0
	close(s.failed)
	abort(s.conn)
}

// close begins to end the Stream: what is queued is still sent.
func (s *Stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing && s.err == nil {
		s.closing = true
		s.signal()
		s.stuck = time.AfterFunc(closeWithin, func() { s.fail(net.ErrClosed) })
	}
}

// Close sends what is queued, for at most a second, closes the connection, and waits
// until nothing of the Stream runs any more. It may be called more than once.
func (s *Stream) Close() error {
	s.close()
	<-s.done
	return nil
}
