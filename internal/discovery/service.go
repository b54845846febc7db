package discovery

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// rescanEvery is how often the networks are looked at: a laptop is carried around. As
	// long passes before what failed is tried again.
	rescanEvery = 10 * time.Second

	// So many packets a second are looked at, and at first; the rest, of a network full of
	// noise or malice, is lost.
	packetsPerSec = 100
	packetsBurst  = 200
	// queued bounds the packets that wait to be looked at.
	queued = 64
)

// Options say how a Service works. The zero value is right.
type Options struct {
	Log *slog.Logger // nil: nothing is logged

	interfaces func() ([]iface, error)
	open       func(context.Context, []iface) ([]socket, error)
	random     io.Reader
}

func (o *Options) fill() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.interfaces == nil {
		o.interfaces, o.open, o.random = interfaces, openSockets, rand.Reader
	}
}

// Service announces this node and finds others. Its methods may be called concurrently.
type Service struct {
	opts Options
	log  *slog.Logger
	wake chan struct{} // holds one if there is something below that is new

	mu     sync.Mutex // guards what follows
	rooms  []Room
	listen netip.AddrPort
	sought map[[32]byte]bool // since it was last looked at
}

// New returns a Service that has nothing to do yet.
func New(o Options) *Service {
	o.fill()
	return &Service{opts: o, log: o.Log.With("component", "discovery"), wake: make(chan struct{}, 1), sought: make(map[[32]byte]bool)}
}

// Announce sets the rooms that are announced and listened for, the first 16 of them, and
// where this node listens: with an unspecified address in all networks, with port 0 in
// none.
func (s *Service) Announce(rooms []Room, listen netip.AddrPort) {
	s.mu.Lock()
	s.rooms, s.listen = slices.Clone(rooms), listen
	s.mu.Unlock()
	s.nudge()
}

// Seek asks for the members of a room that is announced, now and for some seconds.
func (s *Service) Seek(room [32]byte) {
	s.mu.Lock()
	if len(s.sought) < maxTags {
		s.sought[room] = true
	}
	s.mu.Unlock()
	s.nudge()
}

func (s *Service) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run announces and listens until ctx ends. found hears, one after the other, of every
// address at which a member may be, and again when a room is sought; it must not block.
func (s *Service) Run(ctx context.Context, found func(Found)) {
	for {
		if !s.idle() {
			if err := s.serve(ctx, found); err != nil && ctx.Err() == nil {
				s.log.Debug("members of the network around are not found by themselves", "err", err)
			}
		}
		var again <-chan time.Time
		if !s.idle() {
			again = time.After(rescanEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-s.wakeIf(again == nil):
		}
	}
}

// wakeIf returns the channel of news where they matter.
func (s *Service) wakeIf(idle bool) <-chan struct{} {
	if idle {
		return s.wake
	}
	return nil
}

func (s *Service) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.rooms) == 0
}

// received is one packet.
type received struct {
	data  []byte
	from  netip.AddrPort
	index int
}

// errMoved says that the networks are others now.
var errMoved = errors.New("the machine's networks have changed")

// serve works with the networks that there are now until ctx ends or they change.
func (s *Service) serve(ctx context.Context, found func(Found)) error {
	for {
		err := s.serveNetworks(ctx, found)
		if !errors.Is(err, errMoved) {
			return err
		}
	}
}

func (s *Service) serveNetworks(ctx context.Context, found func(Found)) error {
	ifaces, err := s.opts.interfaces()
	if err != nil {
		return err
	}
	if len(ifaces) == 0 {
		return errors.New("no network here takes multicast")
	}
	sockets, err := s.opts.open(ctx, ifaces)
	if err != nil {
		return err
	}
	packets := make(chan received, queued)
	var readers sync.WaitGroup
	for _, one := range sockets {
		readers.Go(func() { s.read(one, packets) })
	}
	defer readers.Wait()
	defer func() {
		for _, one := range sockets {
			if err := one.close(); err != nil {
				s.log.Debug("close a socket", "err", err)
			}
		}
	}()
	e := newEngine(ifaces, s.opts.random, mathrand.New(mathrand.NewPCG(mathrand.Uint64(), mathrand.Uint64())))
	err = s.turn(ctx, e, sockets, packets, found)
	e.withdraw()
	s.send(e, sockets, nil)
	return err
}

// turn drives the engine until ctx ends or the networks change.
func (s *Service) turn(ctx context.Context, e *engine, sockets []socket, packets <-chan received, found func(Found)) error {
	rescan := time.NewTicker(rescanEvery)
	defer rescan.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	s.nudge() // what was set before
	for {
		s.send(e, sockets, found)
		if at, ok := e.next(); ok {
			timer.Reset(max(0, time.Until(at)))
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case p := <-packets:
			e.received(time.Now(), p.data, p.from, p.index)
		case <-timer.C:
			if err := e.due(time.Now()); err != nil {
				return err
			}
		case <-s.wake:
			if err := s.takeOrders(e); err != nil {
				return err
			}
		case <-rescan.C:
			now, err := s.opts.interfaces()
			if err != nil {
				return err
			}
			if !slices.EqualFunc(now, e.ifaces, func(a, b iface) bool {
				return a.index == b.index && slices.Equal(a.nets, b.nets)
			}) {
				return errMoved
			}
		}
	}
}

// takeOrders hands on what Announce and Seek have set.
func (s *Service) takeOrders(e *engine) error {
	s.mu.Lock()
	rooms, listen, sought := s.rooms, s.listen, s.sought
	s.sought = make(map[[32]byte]bool)
	s.mu.Unlock()
	now := time.Now()
	if err := e.announce(now, rooms, listen); err != nil {
		return err
	}
	for room := range sought {
		e.seek(now, room)
	}
	return nil
}

// send carries out what the engine has decided.
func (s *Service) send(e *engine, sockets []socket, found func(Found)) {
	out, news := e.take()
	for _, p := range out {
		for _, one := range sockets {
			if err := one.send(p.data, p.iface); err != nil {
				s.log.Debug("a packet was not sent", "interface", p.iface, "err", err)
			}
		}
	}
	for _, f := range news {
		if found != nil {
			found(f)
		}
	}
}

// read takes packets from a socket until that is closed.
func (s *Service) read(from socket, packets chan<- received) {
	limiter := rate.NewLimiter(packetsPerSec, packetsBurst)
	buffer := make([]byte, maxMessage)
	failures := 0
	for {
		n, addr, index, err := from.receive(buffer)
		if err != nil {
			// Closed; or a socket that does nothing but fail, which is opened anew when the
			// networks change.
			if failures++; failures > maxFailures || isClosed(err) {
				return
			}
			continue
		}
		failures = 0
		if !limiter.Allow() {
			continue
		}
		select {
		case packets <- received{slices.Clone(buffer[:n]), addr, index}:
		default:
		}
	}
}

// maxFailures in a row end the reading of a socket.
const maxFailures = 100

func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }

// Find looks for a room's tracker in the network around, for as long as ctx lasts, and
// calls try with each address that claims to be it, until try says that it was. The
// caller announces nothing.
func Find(ctx context.Context, room [32]byte, o Options, try func(netip.AddrPort) bool) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := New(o)
	s.Announce([]Room{{ID: room}}, netip.AddrPort{})
	s.Seek(room)
	addrs := make(chan netip.AddrPort, maxFound)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() {
		s.Run(ctx, func(f Found) {
			if f.Tracker {
				select {
				case addrs <- f.Addr:
				default:
				}
			}
		})
	})
	tried := make(map[netip.AddrPort]bool)
	for len(tried) < maxTries {
		select {
		case addr := <-addrs:
			if tried[addr] {
				continue
			}
			tried[addr] = true
			if try(addr) {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
	return false
}

// maxTries bounds the addresses that Find hands out.
const maxTries = 8
