package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"dragonload/internal/origin"
	"dragonload/internal/piece"
	"dragonload/internal/rpc"
	"dragonload/internal/swarm"

	"golang.org/x/time/rate"
)

const (
	// maxLent bounds the pools that are helped at one time.
	maxLent = 4
	// lentConnections bounds what a helper has open with one origin.
	lentConnections = 4
	// lentLinger is how long a helper stays without a tracker once nobody lacks anything.
	lentLinger = 5 * time.Second
	// maxOffered bounds the offers of one room that are kept.
	maxOffered = 1024
	// keepFree is how much of the disk is left alone.
	keepFree = 512 << 20

	// One member's downloads are helped so many times at once, and again each
	// askEvery: what is blocked and what fails says something of the network here.
	askBurst  = 60
	askEvery  = 10 * time.Second
	maxAskers = 1024

	// One host is asked so many times a second at most, for all helped pools together.
	hostRate = 40
	maxHosts = 64
)

// errCacheFull: the pieces held for others have taken the room that they may take.
var errCacheFull = errors.New("there is no more room for pieces of others")

// LendOptions say how this node helps pools whose files it does not want.
type LendOptions struct {
	Rooms []string // whose pools are helped; of others nothing is

	// Allow lists by room, and under "" for all, what is fetched from besides the public
	// internet's ports 80 and 443.
	Allow map[string][]origin.Allowed
	// Proxy, if set, is what everything is fetched through; its owner says by this that
	// it refuses inner addresses itself.
	Proxy string

	Folder string // for pieces; emptied at the start
	Cache  int64  // bytes of them at most
	Rate   int64  // bytes per second from origins at most; 0: no limit

	// Tell, if not nil, is called when a pool is helped, and when that has ended; it must
	// not block.
	Tell func(LendEvent)
}

// LendEvent tells that this node helps a pool, or does no longer.
type LendEvent struct {
	Room  string
	URL   string       // without query
	Asker piece.NodeID // who asked
	// Result is "" at the beginning; else done, blocked, failed or stopped.
	Result                     string
	OriginBytes, UploadedBytes int64
}

// lending is what a node does for pools whose files it does not want.
type lending struct {
	n       *Node
	o       LendOptions
	limiter *rate.Limiter // nil: no limit

	mu       sync.Mutex // guards what follows
	used     int64      // bytes held
	running  int
	askers   map[piece.NodeID]*rate.Limiter
	hosts    map[string]*rate.Limiter
	rooms    []*lentRoom
	trackers map[netip.Addr]bool // addresses that trackers' names lead to
}

// lentRoom is a room whose pools are helped. Its fields are guarded by lending.mu.
type lentRoom struct {
	name    string
	member  *membership
	offers  []rpc.Offer // in the order in which they came
	settled map[swarm.PoolID]bool
}

// lent marks a download as one that is helped only.
type lent struct {
	l     *lending
	offer rpc.Offer
	room  string
	held  int64 // bytes; guarded by l.mu
}

// beginLending starts to lend; what it starts ends with n.life.
func (n *Node) beginLending() error {
	o := *n.opts.Lend
	l := &lending{n: n, o: o, askers: make(map[piece.NodeID]*rate.Limiter), hosts: make(map[string]*rate.Limiter), trackers: make(map[netip.Addr]bool)}
	if o.Rate > 0 {
		l.limiter = newLimiter(o.Rate)
	}
	// What an earlier run left is of no use: nothing says what it is.
	if err := os.RemoveAll(o.Folder); err != nil {
		return problem("lend-folder", ExitCannotCreate, fmt.Errorf("empty the folder for pieces of others: %w", err))
	}
	if err := os.MkdirAll(filepath.Dir(o.Folder), 0o700); err != nil {
		return problem("lend-folder", ExitCannotCreate, fmt.Errorf("make the folder for pieces of others: %w", err))
	}
	if err := os.Mkdir(o.Folder, 0o700); err != nil {
		return problem("lend-folder", ExitCannotCreate, fmt.Errorf("make the folder for pieces of others: %w", err))
	}
	for _, name := range o.Rooms {
		m, err := n.membership(name)
		if err != nil {
			return err
		}
		r := &lentRoom{name: name, member: m, settled: make(map[swarm.PoolID]bool)}
		l.rooms = append(l.rooms, r)
	}
	n.mu.Lock()
	n.lending = l
	n.mu.Unlock()
	for _, r := range l.rooms {
		n.work.Go(func() { l.keep(n.life, r) })
	}
	return nil
}

// keep lends in one room until ctx ends.
func (l *lending) keep(ctx context.Context, r *lentRoom) {
	backOff := minBackOff
	for ctx.Err() == nil {
		l.resolveTrackers(ctx, r.member)
		began := time.Now()
		err := r.member.lend(ctx, func(o rpc.Offer) { l.take(r, o) })
		l.mu.Lock()
		r.offers = nil // they come again
		clear(r.settled)
		l.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		l.n.log.Info("no tracker to lend to", "room", r.name, "err", err)
		r.member.seek()
		if time.Since(began) > maxBackOff {
			backOff = minBackOff
		}
		if accessProblem(err) != nil {
			backOff = maxBackOff // the owner may join again
		}
		select {
		case <-time.After(backOff):
		case <-ctx.Done():
		}
		backOff = min(2*backOff, maxBackOff)
	}
}

// lend tells the first tracker of the room that takes it that this node lends.
func (m *membership) lend(ctx context.Context, take func(rpc.Offer)) error {
	all := errors.New("the room has no tracker")
	for _, t := range m.reachable(false) {
		taken := false
		all = t.Lend(ctx, func() { taken = true }, take)
		if taken {
			break
		}
		m.missed(t)
	}
	return all
}

// take notes an offer, or that one is gone.
func (l *lending) take(r *lentRoom, o rpc.Offer) {
	l.mu.Lock()
	for k, old := range r.offers {
		if old.Pool == o.Pool {
			r.offers = append(r.offers[:k], r.offers[k+1:]...)
			break
		}
	}
	if o.Withdrawn {
		delete(r.settled, o.Pool)
	} else if !r.settled[o.Pool] && len(r.offers) < maxOffered {
		r.offers = append(r.offers, o)
	}
	l.mu.Unlock()
	l.next()
}

// next begins to help while there is something to help and somebody may be.
func (l *lending) next() {
	for {
		r, o, ok := l.pick()
		if !ok {
			return
		}
		d, err := l.enter(r, o)
		if err != nil {
			l.ended(r.name, o, nil, err)
			continue
		}
		go func() { // ends with the download, which Run waits for
			defer l.n.tasks.Done()
			err := d.run()
			l.n.leave(d)
			l.ended(r.name, o, d, err)
			l.next()
		}()
	}
}

// pick takes the next offer.
func (l *lending) pick() (*lentRoom, rpc.Offer, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running >= maxLent {
		return nil, rpc.Offer{}, false
	}
	for _, r := range l.rooms {
		for len(r.offers) > 0 {
			o := r.offers[0]
			r.offers = r.offers[1:]
			r.settled[o.Pool] = true
			if l.mayAsk(o.Asker) {
				l.running++
				return r, o, true
			}
			l.n.log.Warn("not helped: this member asks too often", "room", r.name, "asker", o.Asker)
		}
	}
	return nil, rpc.Offer{}, false
}

// mayAsk counts what a member asks for. It needs l.mu.
func (l *lending) mayAsk(asker piece.NodeID) bool {
	limit := l.askers[asker]
	if limit == nil {
		for id, old := range l.askers {
			if len(l.askers) >= maxAskers && old.Tokens() >= askBurst {
				delete(l.askers, id) // as good as new
			}
		}
		if len(l.askers) >= maxAskers {
			return false
		}
		limit = rate.NewLimiter(rate.Every(askEvery), askBurst)
		l.askers[asker] = limit
	}
	return limit.Allow()
}

// enter begins to help a pool.
func (l *lending) enter(r *lentRoom, o rpc.Offer) (*download, error) {
	if r.member.pool(o.URL) != o.Pool {
		return nil, errors.New("the URL is not that of the pool")
	}
	spec := Spec{
		URL: o.URL, Room: r.name, Output: filepath.Join(l.o.Folder, hex.EncodeToString(o.Pool[:])),
		Overwrite: true, Restart: true, MaxConnections: lentConnections, Linger: lentLinger,
	}
	d, err := l.n.newDownload(spec, &lent{l: l, offer: o, room: r.name}, func(Event) {})
	if err != nil {
		return nil, err
	}
	if _, err := l.n.register(d); err != nil {
		d.release()
		return nil, err
	}
	l.n.log.Info("lends its line", "room", r.name, "asker", o.Asker, "url", d.client.Redacted())
	l.tell(LendEvent{Room: r.name, URL: d.client.Redacted(), Asker: o.Asker})
	return d, nil
}

// ended notes that help for a pool has ended, or did not begin.
func (l *lending) ended(room string, o rpc.Offer, d *download, err error) {
	ev := LendEvent{Room: room, URL: redact(o.URL), Asker: o.Asker, Result: "done"}
	var known *Error
	switch {
	case errors.Is(err, origin.ErrBlocked):
		ev.Result = "blocked"
	case errors.As(err, &known) && known.Exit == ExitStopped:
		ev.Result = "stopped"
	case err != nil:
		ev.Result = "failed"
	}
	l.mu.Lock()
	l.running--
	if d != nil {
		l.used -= d.lent.held
	}
	l.mu.Unlock()
	if d != nil {
		ev.OriginBytes, ev.UploadedBytes = d.counts.origin.Load(), d.counts.uploaded.Load()
	}
	l.n.log.Info("lends its line no more", "room", room, "asker", o.Asker, "url", ev.URL, "result", ev.Result,
		"origin", ev.OriginBytes, "uploaded", ev.UploadedBytes, "err", err)
	if !errors.Is(err, ErrEnding) && (known == nil || known.Code != "in-use") {
		l.tell(ev)
	}
}

func (l *lending) tell(ev LendEvent) {
	if l.o.Tell != nil {
		l.o.Tell(ev)
	}
}

// pace waits until the pool's host may be asked once more. Hosts that were asked long ago
// are forgotten: at most maxLent are asked now.
func (t *lent) pace(ctx context.Context, host string) error {
	l := t.l
	l.mu.Lock()
	limit := l.hosts[host]
	if limit == nil {
		for other, old := range l.hosts {
			if len(l.hosts) >= maxHosts && old.Tokens() >= hostRate {
				delete(l.hosts, other)
			}
		}
		limit = rate.NewLimiter(hostRate, hostRate)
		l.hosts[host] = limit
	}
	l.mu.Unlock()
	return limit.Wait(ctx)
}

// reserve makes room for n bytes that a helped pool's piece takes.
func (t *lent) reserve(n int64) bool {
	if !t.l.roomFor(n) {
		return false
	}
	t.l.mu.Lock()
	defer t.l.mu.Unlock()
	if t.l.used+n > t.l.o.Cache {
		return false
	}
	t.l.used += n
	t.held += n
	return true
}

// roomFor reports whether n more bytes may be held now.
func (l *lending) roomFor(n int64) bool {
	if free, known := l.n.journal.Free(l.o.Folder); known && free-n < keepFree {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used+n <= l.o.Cache
}

// clientOptions are those of the client that fetches for a helped pool: nothing of
// anybody's own goes with its requests, and the guard says where they may go.
func (t *lent) clientOptions(d *download) origin.Options {
	o := t.l.o
	allow := append([]origin.Allowed(nil), o.Allow[""]...)
	return origin.Options{
		URL: d.spec.URL, Proxy: o.Proxy, MaxConnections: lentConnections, Limiter: t.l.limiter, Log: d.log,
		WrapDial: d.node.handles.origin.bound,
		Rests:    d.restsOf,
		Guard:    &origin.Guard{Allow: append(allow, o.Allow[t.room]...), Member: t.l.isMember, Proxied: o.Proxy != ""},
	}
}

// judge says how a request for a helped pool has failed. Others learn of one way only,
// whatever the reason: what is refused, silent or not there on this side is not theirs
// to know. That the guard has blocked it ends the help at once.
func (t *lent) judge(d *download, o *origin.Error) swarm.Failure {
	if o.Kind == origin.Blocked || o.Kind != origin.Changed && d.struck(true) >= maxStrikes {
		return swarm.Lasting
	}
	return swarm.Passing
}

// helpNoMore ends the help for a pool that nothing can be fetched for, unless what was
// is still served.
func (d *download) helpNoMore(why *origin.Error) {
	if d.quit || d.machine.Have().Count() > 0 {
		return
	}
	if why != nil {
		d.fail(originProblem(why))
	} else {
		d.fail(problem("disk-full", ExitDiskFull, errCacheFull))
	}
	d.drain()
}

// isMember reports whether addr is where a member or a tracker is reached.
func (l *lending) isMember(addr netip.Addr) bool {
	l.mu.Lock()
	found := l.trackers[addr]
	l.mu.Unlock()
	return found || l.n.isMember(addr)
}

// isMember reports whether a member or a tracker of a room is known to be at addr.
func (n *Node) isMember(addr netip.Addr) bool {
	n.mu.Lock()
	members := make([]*membership, 0, len(n.members))
	for _, m := range n.members {
		members = append(members, m)
	}
	n.mu.Unlock()
	for _, m := range members {
		if m.isAt(addr) {
			return true
		}
	}
	return false
}

// isAt reports whether a member or a tracker of the room is known to be at addr.
func (m *membership) isAt(addr netip.Addr) bool {
	is := func(host string) bool {
		a, err := netip.ParseAddr(host)
		return err == nil && a.WithZone("").Unmap() == addr
	}
	at := func(hostport string) bool {
		host, _, err := net.SplitHostPort(hostport)
		return err == nil && is(host)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.trackers {
		if at(t.Addr()) {
			return true
		}
	}
	for _, known := range m.addrs {
		if at(known) {
			return true
		}
	}
	for _, l := range m.links {
		if is(l.host) {
			return true
		}
	}
	return false
}

// resolveTrackers keeps the addresses that the names of a room's trackers lead to now.
func (l *lending) resolveTrackers(ctx context.Context, m *membership) {
	addrs := m.resolveTrackers(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range addrs {
		l.trackers[a] = true
	}
}

// resolveTrackers returns the addresses that the names of the room's trackers lead to now.
func (m *membership) resolveTrackers(ctx context.Context) (all []netip.Addr) {
	m.mu.Lock()
	trackers := m.trackers
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	for _, t := range trackers {
		host, _, err := net.SplitHostPort(t.Addr())
		if err != nil {
			continue
		}
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			continue // then it is not reached either
		}
		for _, a := range addrs {
			all = append(all, a.Unmap())
		}
	}
	return all
}

// lendable returns the URL if members of the room that lend their line may know it: it
// holds no secret, and neither does anything that goes with it.
func (d *download) lendable() string {
	if d.isManifest() {
		return ""
	}
	u := *d.parsed
	if d.lent != nil || d.client.HasSecrets() || u.User != nil || u.RawQuery != "" && !d.spec.LendQuery {
		return ""
	}
	u.Fragment, u.RawFragment = "", ""
	if rpc.CheckSource(u.String()) != nil {
		return ""
	}
	return u.String()
}
