package tracker

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"sync"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
	"dragonload/internal/rpc/gen/dragonload/pool/v1/poolv1connect"
	"dragonload/internal/rpc/gen/dragonload/room/v1/roomv1connect"
	"dragonload/internal/swarm"
)

const (
	maxShards = 4
	// shardQueue is how many messages wait for one event loop; beyond, the sessions'
	// readers wait, and with them the members.
	shardQueue = 256

	// At the end, sessions get stopTimeout to be told so; then connections that lie
	// idle, for which HTTP/2 would wait a second, get flushTimeout.
	stopTimeout  = 3 * time.Second
	flushTimeout = 200 * time.Millisecond
)

// Rooms are the rooms of this node; *room.Keyring is one.
type Rooms interface {
	Get(id [32]byte) (*room.Room, bool)
	Rooms() []*room.Room
	Learn(*room.Removals) (news bool, err error)
	Watch(f func(*room.Room) error)
}

// Owners shares the pools out among the replicas of a tracker; etcdstate has them.
type Owners interface {
	// Claim makes this replica the one that works on a pool, or returns the address of
	// the one that does, to which its members are sent.
	Claim(ctx context.Context, pool swarm.PoolID) (elsewhere string, err error)
	// Release gives a pool back unless idle reports that somebody works on it here again.
	Release(ctx context.Context, pool swarm.PoolID, idle func() bool)
}

// Options say what a Service works with. State, Rooms and Log must be given.
type Options struct {
	State State
	Rooms Rooms
	Log   *slog.Logger

	// Serves says whether this node is a tracker of a room that it is in; nil: of
	// those that were created here. Members of other rooms are refused, so that no
	// pool is split between two trackers.
	Serves func(*room.Room) bool

	// Owners says which of several replicas works on a pool; nil: there is only one.
	Owners Owners

	// Self is this node's own key: what it says to itself as a successor comes from an
	// address at which others do not reach it.
	Self piece.NodeID
	// Host returns an address of this machine by which others reach it, for what it says
	// to itself, from a loopback address, without naming one; nil: that address.
	Host func() string

	// Seed makes what the machines draw repeatable in tests; zero is drawn at random.
	Seed uint64
	// Machine are the limits of the machines.
	Machine swarm.TrackerOptions

	// Dial opens the connections that find out whether a holder can be reached; nil: the
	// system's.
	Dial rpc.DialFunc

	// MaxConns bounds the connections of one member in a room (default 16).
	MaxConns int
	// MaxSessions bounds the sessions, which is to say pools, of one member in a room
	// (default 1000).
	MaxSessions int
	// Rate and Burst bound what a member may say about one pool, in however many sessions:
	// messages a second and at once (defaults 200 and 400; a large message counts as
	// several). Who says more is cut off.
	Rate, Burst int
}

func (o Options) withDefaults() Options {
	if o.Serves == nil {
		o.Serves = func(r *room.Room) bool { return r.Created }
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	for o.Seed == 0 {
		var b [8]byte
		rand.Read(b[:])
		o.Seed = binary.BigEndian.Uint64(b[:])
	}
	for _, d := range []struct {
		v    *int
		what int
	}{{&o.MaxConns, 16}, {&o.MaxSessions, 1000}, {&o.Rate, 200}, {&o.Burst, 400}} {
		if *d.v == 0 {
			*d.v = d.what
		}
	}
	return o
}

// Service is the tracker of the rooms that it serves. One event loop for each shard of
// pools drives a swarm.Tracker; everything else here carries messages to and from it.
type Service struct {
	opts    Options
	shards  []*shard
	hosted  hosted
	present *presence
	board   *board
	probes  *prober
	stopped chan struct{} // closed when the event loops have ended
	quiet   chan struct{} // closed when the sessions have ended after that
}

// NewService returns a Service whose loops are not running yet.
func NewService(o Options) *Service {
	s := &Service{
		opts:    o.withDefaults(),
		present: newPresence(),
		board:   newBoard(),
		stopped: make(chan struct{}),
		quiet:   make(chan struct{}),
	}
	s.probes = newProber(s)
	s.opts.Rooms.Watch(s.shutOut)
	zero := time.Now()
	for i := range min(maxShards, runtime.GOMAXPROCS(0)) {
		rng := mathrand.New(mathrand.NewPCG(s.opts.Seed, uint64(i)))
		s.shards = append(s.shards, newShard(swarm.NewTracker(s.opts.Machine, rng), s.board, zero, s.opts.Log))
	}
	return s
}

// Run runs the event loops until ctx ends. Then it ends all sessions, lets no more in,
// and returns when they are over. It is called once.
func (s *Service) Run(ctx context.Context) error {
	s.reconcile(ctx)
	var loops sync.WaitGroup
	for _, sh := range s.shards {
		loops.Go(func() { sh.run(ctx) })
	}
	loops.Wait()
	close(s.stopped)
	s.present.stop()
	s.probes.stop()
	close(s.quiet)
	return nil
}

// Serve serves members on control (ALPN h2) and those who want to be on join (ALPN
// dragonload-join/1); both give TLS connections whose handshake is done, as a
// room.Splitter's listeners do. It returns soon after ctx has ended, with all
// connections closed; Run is running meanwhile, and ends the sessions at its own end.
func (s *Service) Serve(ctx context.Context, control, join net.Listener) error {
	logger := slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelDebug)
	base := func(net.Listener) context.Context { return ctx }

	var h2, h1 http.Protocols
	h2.SetHTTP2(true)
	h1.SetHTTP1(true)
	members := &http.Server{
		Handler:           s.Handler(),
		Protocols:         &h2,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		HTTP2: rpc.Ping(&http.HTTP2Config{
			MaxConcurrentStreams: s.opts.MaxSessions + 16,
			// Messages are short, and a client holds a buffer of this size for each of
			// its sessions.
			MaxReadFrameSize: 16 << 10,
			WriteByteTimeout: 10 * time.Second,
		}),
		ConnState:   s.countConn,
		BaseContext: base,
		ErrorLog:    logger,
	}
	joiners := &http.Server{
		Handler:        s.JoinHandler(),
		Protocols:      &h1,
		ReadTimeout:    10 * time.Second,
		WriteTimeout:   20 * time.Second,
		MaxHeaderBytes: 8 << 10,
		BaseContext:    base,
		ErrorLog:       logger,
	}

	closed := make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		defer close(closed)
		select {
		case <-s.quiet:
		case <-time.After(stopTimeout):
		}
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
		defer cancel()
		for _, server := range []*http.Server{joiners, members} {
			if server.Shutdown(late) != nil {
				_ = server.Close() // of the listener, which Shutdown has closed
			}
		}
	})
	var serving sync.WaitGroup
	var errs [2]error
	for i, one := range []struct {
		server, other *http.Server
		listener      net.Listener
	}{{members, joiners, control}, {joiners, members, plainListener{join}}} {
		serving.Go(func() {
			errs[i] = one.server.Serve(one.listener)
			if ctx.Err() == nil {
				// One does not go on without the other, nor with what it has accepted.
				_, _ = one.other.Close(), one.server.Close()
			}
		})
	}
	serving.Wait()
	if !unhook() {
		<-closed
		return nil
	}
	for _, err := range errs {
		if !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve as tracker: %w", err)
		}
	}
	return nil
}

// plainListener hides from net/http that connections are TLS ones: it would close
// those whose ALPN it does not know.
type plainListener struct{ net.Listener }

func (l plainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return struct{ net.Conn }{c}, nil
}

// Handler serves pool.v1 and room.v1 to members, over HTTP/2 with the TLS
// configuration of a room. Nothing is answered to anybody else.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(poolv1connect.NewPoolServiceHandler(poolHandler{s}, rpc.HandlerOptions()))
	mux.Handle(roomv1connect.NewRoomServiceHandler(roomHandler{s}, rpc.HandlerOptions()))
	shelf := shelves{s: s, searching: make(chan struct{}, maxSearches)}
	mux.Handle(roomv1connect.NewCatalogueServiceHandler(shelf, rpc.HandlerOptions()))
	return s.membersOnly(mux)
}

// caller is the member that makes a call, as its certificate says.
type caller struct {
	member
	name string
	room *room.Room
	leaf *x509.Certificate // that it shows
	// successor: this node is not the room's own tracker, and may only take its place in
	// pools that it hosts.
	successor bool

	// control sets the deadlines of this call's stream; Connect does not hand it on.
	control *http.ResponseController
	host    string // the address that the connection comes from, without port
}

// member is a key in a room. The same key in two rooms is two members, which know
// nothing of each other.
type member struct {
	room [32]byte
	id   piece.NodeID
}

type callerKey struct{}

func (s *Service) membersOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := s.identify(r)
		if err != nil {
			s.opts.Log.Debug("call refused", "from", r.RemoteAddr, "err", err)
			var refusal *rpc.Refusal
			if !errors.As(err, &refusal) {
				refusal = rpc.ErrInternal
			}
			if err := rpc.Refuse(w, r, refusal); err != nil {
				s.opts.Log.Debug("answer to a refused call was not sent", "err", err)
			}
			return
		}
		c.control = http.NewResponseController(w)
		if c.host, _, err = net.SplitHostPort(r.RemoteAddr); err != nil {
			c.host = ""
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// identify says who calls, or why it may not.
func (s *Service) identify(r *http.Request) (*caller, error) {
	if r.TLS == nil {
		return nil, rpc.ErrNotMember
	}
	id, roomID, name, err := room.Member(*r.TLS)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", rpc.ErrNotMember, err)
	}
	served, ok := s.served(roomID)
	if !ok {
		in, ours := s.opts.Rooms.Get(roomID)
		if !ours || !s.hosted.any(roomID) {
			return nil, rpc.ErrRoomUnknown
		}
		// Who was removed has been refused by the keyring, which needs no State for that.
		return &caller{member: member{roomID, id}, name: name, room: in, successor: true}, nil
	}
	removed, err := s.opts.State.Removed(r.Context(), roomID, id)
	if errors.Is(err, ErrAway) { // the signed list has everybody whose certificate is still good
		removed, err = false, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask whether member %v was removed: %w", id, err)
	}
	if removed || served.Removals.Has(id) {
		return nil, rpc.ErrRemoved
	}
	c := &caller{member: member{roomID, id}, name: name, room: served, leaf: r.TLS.PeerCertificates[0]}
	if err := s.introduce(r.Context(), c); err != nil {
		return nil, refused(err)
	}
	return c, nil
}

func (s *Service) served(id [32]byte) (*room.Room, bool) {
	r, ok := s.opts.Rooms.Get(id)
	if !ok || !s.opts.Serves(r) {
		return nil, false
	}
	return r, true
}

// callerOf returns who makes the call whose context this is. Without one, the handler
// is not behind membersOnly, which is a mistake of ours.
func callerOf(ctx context.Context) *caller { return ctx.Value(callerKey{}).(*caller) }

// shardOf returns the loop that a pool belongs to.
func (s *Service) shardOf(pool swarm.PoolID) *shard {
	return s.shards[binary.BigEndian.Uint64(pool[:])%uint64(len(s.shards))]
}

// poolIn returns what a room's pool is called inside: pools of two rooms are never the
// same one, whatever their members call them.
func poolIn(room [32]byte, pool swarm.PoolID) swarm.PoolID {
	h := sha256.New()
	h.Write([]byte("dragonload pool in room 1\x00"))
	h.Write(room[:])
	h.Write(pool[:])
	return swarm.PoolID(h.Sum(nil))
}
