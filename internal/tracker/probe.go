package tracker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"dragonload/internal/catalogue"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
)

const (
	// probeWithin is how long a holder may take to answer.
	probeWithin = 3 * time.Second
	// maxProbes bounds the probes that are made at one time.
	maxProbes = 8
	// probeAgain is how long what a probe has found is not asked again.
	probeAgain = 5 * time.Second
	// awayFor is how long a holder that did not answer is probed before it may publish.
	awayFor = 2 * time.Minute
	// forgiveAgain is how long what a probe has found is not asked again for a holder that
	// publishes: it may just have come back.
	forgiveAgain = time.Second
	// maxLost bounds the members whose connections have ended that are looked after at one
	// time; what more of them publish ends with its lease.
	maxLost = 256
	// maxProbed bounds the probes that are remembered.
	maxProbed = 4096
)

// errNotProbed: nothing is known of where the holder is that may be dialled.
var errNotProbed = errors.New("the address is not one that is dialled")

// prober finds out whether holders can be reached. It dials only where a holder has
// announced itself that it is, one probe of it at a time.
type prober struct {
	s     *Service
	slots chan struct{} // holds one for each probe that is made

	life   context.Context // ends with the service
	cancel context.CancelFunc
	work   sync.WaitGroup // one for each of lost

	mu     sync.Mutex // guards what follows
	probed map[member]*probe
	losing int
	ended  bool
}

// probe is one probe of a holder, under way or over.
type probe struct {
	addr string
	done chan struct{} // closed when it is over; then err and at are set
	at   time.Time
	err  error
}

func newProber(s *Service) *prober {
	p := &prober{s: s, slots: make(chan struct{}, maxProbes), probed: make(map[member]*probe)}
	p.life, p.cancel = context.WithCancel(context.Background())
	return p
}

// stop ends the probes, and waits for those that nobody else waits for.
func (p *prober) stop() {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.cancel()
	p.work.Wait()
}

// lost looks after a member whose last connection has ended: if it publishes, it has not
// said that it goes, and it is dropped at once if it does not answer.
func (p *prober) lost(m member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || p.losing >= maxLost {
		return
	}
	p.losing++
	p.work.Go(func() {
		_, err := p.report(p.life, m)
		if err != nil && p.life.Err() == nil {
			p.s.opts.Log.Warn("it is not known whether a member that has gone still answers", "member", m.id, "err", err)
		}
		p.mu.Lock()
		p.losing--
		p.mu.Unlock()
	})
}

// report probes a holder that somebody could not reach, and drops it if it does not
// answer. gone means that it publishes nothing, any more.
func (p *prober) report(ctx context.Context, m member) (gone bool, err error) {
	h, known, err := p.s.opts.State.Holder(ctx, m.room, m.id)
	if err != nil || !known {
		return err == nil, err
	}
	err = p.probe(ctx, m, h, probeAgain)
	switch {
	case p.life.Err() != nil:
		return false, rpc.ErrStopping // what was found says nothing
	case err == nil, errors.Is(err, errNotProbed):
		return false, nil
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	}
	p.s.opts.Log.Info("a holder does not answer and is no longer named", "member", m.id, "addr", h.Addr, "err", err)
	_, err = p.s.opts.State.Drop(ctx, m.room, m.id, h.Addr)
	return err == nil, err
}

// forgive reports whether a member may publish where it says that it is: whoever did not
// answer there lately must do so first.
func (p *prober) forgive(ctx context.Context, m member, h catalogue.Holder) bool {
	p.mu.Lock()
	last := p.probed[m]
	p.mu.Unlock()
	if last == nil || last.addr != h.Addr {
		return true
	}
	select {
	case <-last.done:
	case <-ctx.Done():
		return false
	}
	if last.err == nil || time.Since(last.at) > awayFor {
		return true
	}
	again := time.NewTimer(time.Until(last.at.Add(forgiveAgain)))
	defer again.Stop()
	select {
	case <-again.C:
	case <-ctx.Done():
		return false
	}
	err := p.probe(ctx, m, h, forgiveAgain)
	return err == nil || errors.Is(err, errNotProbed)
}

// probe dials a holder, unless that is being done, or was done within again. The error says
// that it does not answer.
func (p *prober) probe(ctx context.Context, m member, h catalogue.Holder, again time.Duration) error {
	p.mu.Lock()
	one := p.probed[m]
	if one == nil || one.addr != h.Addr || one.over() && time.Since(one.at) >= again {
		if one != nil && !one.over() {
			// It has moved meanwhile; two probes of one member are not made at once.
			p.mu.Unlock()
			return errNotProbed
		}
		p.forget()
		one = &probe{addr: h.Addr, done: make(chan struct{})}
		p.probed[m] = one
		p.mu.Unlock()
		p.make(one, m, h)
		return one.err
	}
	p.mu.Unlock()
	select {
	case <-one.done:
		return one.err
	case <-ctx.Done():
		return errNotProbed
	}
}

func (o *probe) over() bool {
	select {
	case <-o.done:
		return true
	default:
		return false
	}
}

// forget makes room for one more probe. p.mu is held.
func (p *prober) forget() {
	if len(p.probed) < maxProbed {
		return
	}
	for m, one := range p.probed {
		if one.over() && (one.err == nil || time.Since(one.at) > awayFor) {
			delete(p.probed, m)
		}
	}
	for m, one := range p.probed {
		if len(p.probed) < maxProbed {
			return
		}
		if one.over() {
			delete(p.probed, m)
		}
	}
}

// make carries a probe out. Who has asked for it may lose patience; others wait for it too.
func (p *prober) make(one *probe, m member, h catalogue.Holder) {
	defer close(one.done)
	ctx, cancel := context.WithTimeout(p.life, probeWithin)
	defer cancel()
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
		one.err = p.dial(ctx, m, h)
	case <-ctx.Done():
		one.err = fmt.Errorf("%w: too many at once", errNotProbed)
	}
	one.at = time.Now()
}

// dial makes a connection to a holder as another member would, and closes it again.
func (p *prober) dial(ctx context.Context, m member, h catalogue.Holder) error {
	r, ok := p.s.opts.Rooms.Get(m.room)
	if !ok || h.Addr == "" {
		return errNotProbed
	}
	targets, err := targetsOf(ctx, h)
	if err != nil {
		return err
	}
	cfg := r.ClientTLS(room.ALPNData, m.id)
	var errs []error
	for _, addr := range targets {
		err := p.handshake(ctx, addr, cfg)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (p *prober) handshake(ctx context.Context, addr string, cfg *tls.Config) error {
	raw, err := p.s.opts.Dial(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer raw.Close()
	return tls.Client(raw, cfg).HandshakeContext(ctx)
}

// maxTargets bounds the addresses of one holder that are dialled.
const maxTargets = 4

// targetsOf returns the addresses at which a holder may be dialled. It has announced a
// host and a port. Where the host is, or leads to, the address that its word came from,
// that is one; others are if nothing but an ordinary machine of the network is there: no
// member makes the tracker dial the tracker's own machine, or what only its own link knows.
func targetsOf(ctx context.Context, h catalogue.Holder) ([]string, error) {
	if err := rpc.CheckAddr(h.Addr); err != nil {
		return nil, errNotProbed
	}
	host, port, err := net.SplitHostPort(h.Addr)
	if err != nil {
		return nil, errNotProbed
	}
	seen, _ := netip.ParseAddr(h.Seen)
	addrs := make([]netip.Addr, 0, 1)
	if literal, err := netip.ParseAddr(host); err == nil {
		addrs = append(addrs, literal)
	} else if addrs, err = net.DefaultResolver.LookupNetIP(ctx, "ip", host); err != nil {
		return nil, fmt.Errorf("look up %s: %w", host, err)
	}
	var targets []string
	for _, a := range addrs {
		a = a.Unmap()
		if (a == seen.Unmap() || ordinary(a) && !isOwn(a)) && len(targets) < maxTargets {
			targets = append(targets, net.JoinHostPort(a.String(), port))
		}
	}
	if len(targets) == 0 {
		return nil, errNotProbed
	}
	return targets, nil
}

// ordinary reports whether machines of a network have such an address.
func ordinary(a netip.Addr) bool {
	return a.IsGlobalUnicast() && a.Zone() == "" && !metadata[a] // private ones are global here; loopback and link-local are not
}

// isOwn reports whether an address is one of this machine.
func isOwn(a netip.Addr) bool {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, o := range own {
		if prefix, err := netip.ParsePrefix(o.String()); err == nil && prefix.Addr().Unmap() == a {
			return true
		}
	}
	return false
}

// metadata are addresses of the services that tell a cloud's machines their secrets, where
// those are not link-local.
var metadata = map[netip.Addr]bool{
	netip.MustParseAddr("100.100.100.200"): true, // Alibaba Cloud
	netip.MustParseAddr("168.63.129.16"):   true, // Azure
	netip.MustParseAddr("fd00:ec2::254"):   true, // AWS
	netip.MustParseAddr("192.0.0.192"):     true, // Oracle Cloud
}
