package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// Backend says what is served, and when. Its methods may be called by many goroutines
// at once.
type Backend interface {
	// Admit waits until a request may go ahead. Every piece of it has to be held;
	// otherwise, and if the pool is none of the room's or who asks may not have it,
	// the error is ErrNotHeld. The list has 1 to MaxPieces pieces, none of them twice,
	// none from piece.MaxCount on, and must not be changed. After success done is
	// called once, with the number of body bytes that were sent.
	Admit(ctx context.Context, room [32]byte, peer piece.NodeID, pool swarm.PoolID, pieces []piece.Index) (content Content, done func(sent int64), err error)

	// Layout returns how the pool's file is cut, so that bytes can be asked for.
	// ErrNotHeld as for Admit.
	Layout(room [32]byte, peer piece.NodeID, pool swarm.PoolID) (piece.Layout, error)

	// Manifest returns the metainfo of a content by its info hash. ErrNotHeld as for Admit.
	Manifest(room [32]byte, peer piece.NodeID, infoHash [32]byte) (Manifest, error)
}

// Content is what the pieces of one request are read from.
type Content interface {
	Layout() piece.Layout

	// ReadPiece reads a piece into buf, which has its length, and returns the bytes,
	// which may lie elsewhere. It checks their digest: wrong bytes are an error.
	ReadPiece(i piece.Index, buf []byte) ([]byte, error)
}

// ServerOptions are the bounds of a Server. Identify is needed; all other zero fields
// take the defaults named here.
type ServerOptions struct {
	// Identify returns who is at the other end of a connection, and in which room. An
	// error closes the connection.
	Identify func(tls.ConnectionState) (id piece.NodeID, room [32]byte, err error)

	Limiter *rate.Limiter // of the body bytes sent to all members together; nil: no limit
	Log     *slog.Logger  // nil: nowhere

	HeaderTimeout time.Duration // for a request's header to arrive; 5 s
	IdleTimeout   time.Duration // without a request; 120 s
	// AdmitTimeout is how long a request waits for its turn; 15 s. Less than a Client's
	// SilenceTimeout, so that it is told and keeps its connection.
	AdmitTimeout time.Duration
	// WriteTimeout is how long 256 KiB may take to go out; a reader that is slower
	// loses its connection. 60 s.
	WriteTimeout time.Duration

	MaxConns        int // open at once, in all; 512
	MaxConnsPerPeer int // open at once, of one member; 16
	MaxAskedPerPeer int // requests of one member under way at once; 8
	MaxManifests    int // sent at once, at most one of them to each member; 4
}

func (o ServerOptions) withDefaults() ServerOptions {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&o.HeaderTimeout, 5 * time.Second}, {&o.IdleTimeout, 120 * time.Second},
		{&o.AdmitTimeout, 15 * time.Second}, {&o.WriteTimeout, 60 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	for _, d := range []struct {
		field *int
		value int
	}{{&o.MaxConns, 512}, {&o.MaxConnsPerPeer, 16}, {&o.MaxAskedPerPeer, 8}, {&o.MaxManifests, 4}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// maxHeader bounds a request's header: the longest list of pieces and some more.
const maxHeader = 8 << 10

// Server serves pieces to members.
type Server struct {
	backend Backend
	o       ServerOptions

	mu    sync.Mutex
	conns map[net.Conn]*member
	count map[piece.NodeID]*load
	lists int           // manifests under way
	gone  chan struct{} // not nil while somebody waits for conns to become empty
}

// member is who is at the other end of one connection.
type member struct {
	id   piece.NodeID
	room [32]byte
	out  *coalescer // nil if there is none under this connection's TLS
}

// load is what one member has open, over all its connections.
type load struct {
	conns, asked int
	list         bool // a manifest is sent to it
}

// NewServer returns a server of what b holds. It panics if o.Identify is nil.
func NewServer(b Backend, o ServerOptions) *Server {
	if o.Identify == nil {
		panic("peer.NewServer without Identify")
	}
	return &Server{
		backend: b,
		o:       o.withDefaults(),
		conns:   make(map[net.Conn]*member),
		count:   make(map[piece.NodeID]*load),
	}
}

// Serve answers requests on the connections of l until ctx ends or l fails, then
// closes l and all connections and waits until the last request has ended. The
// connections are *tls.Conn whose handshake is done, with HTTP/1.1 agreed on; others
// are closed. It returns nil after ctx has ended. It may be called once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	server := &http.Server{
		Handler:                      http.HandlerFunc(s.handle),
		Protocols:                    protocols,
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            s.o.HeaderTimeout,
		IdleTimeout:                  s.o.IdleTimeout,
		WriteTimeout:                 s.o.WriteTimeout, // moved on by handle
		MaxHeaderBytes:               maxHeader,
		ErrorLog:                     slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug),
		BaseContext:                  func(net.Listener) context.Context { return ctx },
		ConnContext:                  s.connContext,
		ConnState:                    s.connState,
	}
	var closing sync.WaitGroup
	closing.Go(func() {
		<-ctx.Done()
		l.Close()
		s.abortAll()       // http.Server would take its time to tell each of them
		_ = server.Close() // the listener is closed already
	})
	err := server.Serve(&admitting{Listener: l, s: s})
	ended := ctx.Err() != nil
	cancel()
	closing.Wait()
	s.abortAll() // those that were between Accept and http.Server
	s.wait()
	if ended {
		return nil
	}
	return err
}

// admitting is the listener that http.Server sees: it lets pass what a member may
// open.
type admitting struct {
	net.Listener
	s *Server
}

func (a *admitting) Accept() (net.Conn, error) {
	for {
		c, err := a.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if err := a.s.admit(c); err != nil {
			a.s.o.Log.Debug("connection refused", "from", c.RemoteAddr(), "err", err)
			abort(c)
			continue
		}
		return c, nil
	}
}

// admit counts a connection, or says why it is not let in.
func (s *Server) admit(c net.Conn) error {
	secure, ok := c.(*tls.Conn)
	if !ok {
		return errors.New("no TLS")
	}
	cs := secure.ConnectionState()
	if !cs.HandshakeComplete || cs.NegotiatedProtocol != "http/1.1" {
		return errors.New("HTTP/1.1 was not agreed on")
	}
	m := new(member)
	var err error
	if m.id, m.room, err = s.o.Identify(cs); err != nil {
		return err
	}
	m.out, _ = secure.NetConn().(*coalescer)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) >= s.o.MaxConns {
		return errors.New("too many connections")
	}
	open := s.count[m.id]
	if open == nil {
		open = new(load)
		s.count[m.id] = open
	}
	if open.conns >= s.o.MaxConnsPerPeer {
		return errors.New("too many connections of one member")
	}
	open.conns++
	s.conns[c] = m
	return nil
}

// connState takes a connection that has ended off the books.
func (s *Server) connState(c net.Conn, state http.ConnState) {
	if state != http.StateClosed {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.conns[c]
	if m == nil {
		return
	}
	delete(s.conns, c)
	open := s.count[m.id]
	if open.conns--; open.conns == 0 {
		// Requests end before their connection does.
		delete(s.count, m.id)
	}
	if len(s.conns) == 0 && s.gone != nil {
		close(s.gone)
		s.gone = nil
	}
}

// abortAll closes every connection.
func (s *Server) abortAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		abort(c)
	}
}

// Cut closes every connection of a member in a room at once, amid whatever is sent.
func (s *Server) Cut(room [32]byte, id piece.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, m := range s.conns {
		if m.room == room && m.id == id {
			abort(c)
		}
	}
}

// wait returns when every connection has been let go of.
func (s *Server) wait() {
	s.mu.Lock()
	var gone chan struct{}
	if len(s.conns) > 0 {
		gone = make(chan struct{})
		s.gone = gone
	}
	s.mu.Unlock()
	if gone != nil {
		<-gone
	}
}

type memberKey struct{}

func (s *Server) connContext(ctx context.Context, c net.Conn) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	return context.WithValue(ctx, memberKey{}, s.conns[c])
}

// ask counts a request of a member; false if it has too many. answered ends it.
func (s *Server) ask(id piece.NodeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := s.count[id]
	if open.asked >= s.o.MaxAskedPerPeer {
		return false
	}
	open.asked++
	return true
}

func (s *Server) answered(id piece.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count[id].asked--
}
