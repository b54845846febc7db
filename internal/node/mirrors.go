package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"dragonload/internal/origin"
	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/swarm"
)

const (
	// MaxMirrors is how many mirrors a download may have; with more it is refused.
	MaxMirrors = 15

	// stalledAfter is after what silence an address is left for another one.
	stalledAfter = 3 * time.Second

	// leastFlow is what an address must bring in that time: a byte now and then is nothing.
	leastFlow = 12 << 10

	// slowAfter is how long a request may run before it is compared with what another
	// address would need for the rest.
	slowAfter = 2 * time.Second

	// maxResting bounds the servers that are known to rest.
	maxResting = 64

	watchEvery = 250 * time.Millisecond

	// requestFor is how long a request to an address of known speed should last: what
	// it asks for is not to be had elsewhere meanwhile.
	requestFor = time.Second

	// firstBytes is asked of an address whose speed is not known.
	firstBytes = 512 << 10

	// An address that failed rests, from restFirst to restLongest, at least restLasting
	// if waiting is not likely to mend it or it brings next to nothing: to find that out again
	// holds something up.
	restFirst   = time.Second
	restLasting = 30 * time.Second
	restLongest = time.Minute
)

// errLeft ends a request whose rest another address brings sooner.
var errLeft = errors.New("left for another address")

// address is one place where the download's bytes can be had: the URL itself or one of
// its mirrors. What is not fixed is guarded by addresses.mu.
type address struct {
	client *origin.Client
	name   string // for messages
	url    string // without user-info
	number int    // 0 is the URL itself
	source swarm.SourceID

	pin     piece.Pin // of the version that it has; zero until it has said so
	sampled bool      // its bytes were compared with those of another address
	gone    bool      // its bytes are not those of the file
	against uint32    // then: the bits of the addresses that it was compared with
	open    int       // requests under way
	rate    float64   // bytes per second over all of its connections; 0 until measured
	resting time.Time // it is not asked before if another one can serve
	strikes int       // failures in a row
	told    bool      // the user has heard that it fails
	last    *origin.Error
	brought int64 // bytes since its last audit
	auditAt int64 // the next one comes when it has brought this many

	seed seed // where there is a manifest
}

func (a *address) bit() uint32 { return 1 << a.number }

// addresses are all places of one download. With one address, unless the pool's pin came
// from a mirror, nothing of it is used: see plain.
type addresses struct {
	mu    sync.Mutex
	all   []*address
	of    *generation                  // what the rest is about
	from  []uint32                     // for each piece, the bits of the addresses that its bytes came from
	used  uint32                       // all of them together
	same  int                          // comparisons that found no difference
	quiet map[swarm.SourceID]time.Time // until when servers want no requests; at most maxResting
	lost  int                          // addresses that were dropped because their whole file is another
}

// newAddresses makes a client for the URL, as base describes it, and for each mirror. What
// is secret goes to the URL's own origin only: its headers are not given to a mirror
// elsewhere, and of a netrc file a mirror gets what stands there under its own name.
func newAddresses(base origin.Options, mirrors []Mirror) (*addresses, error) {
	s := &addresses{}
	if len(mirrors) > MaxMirrors {
		return nil, fmt.Errorf("the download has %d mirrors, and at most %d can be used", len(mirrors), MaxMirrors)
	}
	own, err := url.Parse(base.URL)
	if err != nil {
		return nil, errors.New("the source is not a valid URL")
	}
	options := []origin.Options{base}
	for _, m := range mirrors {
		o := base
		o.URL, o.Proxy, o.Header, o.NetrcNamed = m.URL, m.Proxy, nil, true
		if u, err := url.Parse(m.URL); err == nil && u.Scheme == own.Scheme && u.Host == own.Host {
			o.Header = base.Header.Clone()
		}
		options = append(options, o)
	}
	for k, o := range options {
		client, err := origin.New(o)
		if err != nil {
			s.close()
			return nil, err
		}
		s.all = append(s.all, &address{client: client, name: client.Redacted(), url: withoutUser(o.URL), number: k})
	}
	return s, nil
}

// withoutUser returns a URL without user-info and fragment; "" if it is none.
func withoutUser(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	return u.String()
}

// good returns the addresses where the file was found, the best first: of several those
// that brought some of it, or were compared, and were not dropped.
func (s *addresses) good() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var urls []string
	for _, a := range s.all {
		if len(s.all) == 1 || !a.gone && (s.used&a.bit() != 0 || a.sampled && a.pin != (piece.Pin{})) {
			urls = append(urls, a.kept(a.url))
		}
	}
	return urls
}

// kept is how the journal notes an address where the file, or part of it, was found: where
// the request held a secret, with an empty name of a user.
func (a *address) kept(at string) string {
	if u, err := url.Parse(at); err == nil && a.client.HasSecrets() {
		u.User = url.User("")
		return u.String()
	}
	return at
}

func (s *addresses) close() {
	for _, a := range s.all {
		a.client.Close()
	}
}

// plain reports whether g has one address, whose every answer is held to g's pin.
func (s *addresses) plain(g *generation) bool {
	return len(s.all) == 1 && (g == nil || g.pin.Kind != piece.Mirror && g.pin.Kind != piece.Manifest)
}

// earlier, in place of an address's bit, says that an earlier run left a piece.
const earlier uint32 = 1 << 31

// begin starts the books for g, of which an earlier run left the pieces old. What an
// address has said of its own version stays good.
func (s *addresses) begin(g *generation, old *piece.Bitfield) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plain(g) || s.of == g {
		return
	}
	s.of, s.from, s.used, s.same = g, make([]uint32, g.layout.Count()), 0, 0
	for e := range old.Extents {
		for i := e.First; i < e.End(); i++ {
			s.from[i] = earlier
		}
	}
	for _, a := range s.all {
		a.gone, a.sampled = false, false
		if a.number == 0 && g.pin.Kind != piece.Mirror {
			a.pin, a.sampled = g.pin, true
		} else if a.pin.Size != g.pin.Size {
			a.pin = piece.Pin{}
		}
	}
}

// take chooses the address for the next request and counts it as open there: the one
// whose share of its measured speed would be the largest, and one at a time what was
// not measured yet. If all rest, it is the one that has rested longest; nil if all are
// gone.
func (s *addresses) take(now time.Time) *address {
	s.mu.Lock()
	defer s.mu.Unlock()
	best := s.choose(now, nil)
	if best == nil {
		for _, a := range s.all {
			if !a.gone && (best == nil || a.resting.Before(best.resting)) {
				best = a
			}
		}
	}
	if best != nil {
		best.open++
	}
	return best
}

// choose returns the address that a request had best go to, except but; nil if none can
// serve now. s.mu is held.
func (s *addresses) choose(now time.Time, but *address) *address {
	var best *address
	var bestShare float64
	for _, a := range s.all {
		if a == but || a.gone || now.Before(a.resting) {
			continue
		}
		if a.rate == 0 {
			if a.open == 0 {
				return a
			}
			if best == nil {
				best = a
			}
			continue
		}
		if share := a.rate / float64(a.open+1); best == nil || share > bestShare {
			best, bestShare = a, share
		}
	}
	return best
}

// done ends a request to a that brought bytes in took, begun bytes before it included.
func (s *addresses) done(a *address, bytes int64, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bytes > 0 && took > 0 && (bytes >= 64<<10 || a.rate == 0) {
		r := float64(bytes) / took.Seconds() * float64(a.open)
		if a.rate > 0 {
			r = (a.rate + r) / 2
		}
		a.rate = r
	}
	a.open--
	a.brought += bytes
}

// rests reports whether a had best not be asked now, for another address can serve.
func (s *addresses) rests(a *address) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	return now.Before(a.resting) && s.choose(now, a) != nil
}

// another reports whether another address than a can serve now.
func (s *addresses) another(a *address) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.choose(time.Now(), a) != nil
}

// succeeded: a has brought something.
func (s *addresses) succeeded(a *address) {
	s.mu.Lock()
	a.strikes = 0
	s.mu.Unlock()
}

// share returns how many bytes a should be asked for at once.
func (s *addresses) share(a *address) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.rate == 0 {
		return firstBytes
	}
	return int64(a.rate / float64(a.open) * requestFor.Seconds())
}

// failed takes in what went wrong at a. It returns what the user is to be told, if that
// is news and there is another address, and whether another address can serve now.
func (s *addresses) failed(a *address, err *origin.Error, now time.Time) (news string, elsewhere bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err.Kind != origin.Short {
		a.last = err
		a.strikes++
		rest := min(restFirst<<min(a.strikes-1, 10), restLongest)
		if !err.Kind.Passing() && err.Kind != origin.Changed || err.Kind == origin.Silent {
			rest = max(rest, restLasting)
		}
		a.resting = now.Add(max(rest, err.RetryAfter))
		if len(s.all) > 1 && !a.told {
			a.told, news = true, err.Error()
		}
	}
	return news, s.choose(now, nil) != nil
}

// hold keeps requests back from a server that has asked for a pause, be it this member or
// another one: under whatever address it is known here.
func (s *addresses) hold(source swarm.SourceID, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	until := now.Add(wait)
	for other, over := range s.quiet {
		if !now.Before(over) {
			delete(s.quiet, other)
		}
	}
	if s.quiet == nil {
		s.quiet = make(map[swarm.SourceID]time.Time)
	}
	if _, known := s.quiet[source]; known || len(s.quiet) < maxResting {
		s.quiet[source] = later(s.quiet[source], until)
	}
	for _, a := range s.all {
		if a.source != source {
			continue
		}
		a.client.Hold(wait)
		a.resting = later(a.resting, until)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// restsFor returns for how long a server still wants no requests.
func (s *addresses) restsFor(source swarm.SourceID) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Until(s.quiet[source])
}

// pauseTold takes in the pause that an answer of a asks for, and returns it; 0 if it asks for
// none. Where a redirect led to another server, it is that one that rests as well, for
// whoever comes to it another way.
func (d *download) pauseTold(a *address, o *origin.Error) time.Duration {
	wait := told(o)
	if wait <= 0 {
		return 0
	}
	d.addresses.hold(a.source, wait)
	if end := d.sourceID(o.Server); o.Server != "" && end != a.source {
		d.addresses.hold(end, wait)
		d.inbox.post(swarm.OriginPauses{Source: end, Wait: wait})
	}
	return wait
}

// told returns for how long an answer of the origin asks to wait. The error of a request
// that was not sent, because it was known, tells nothing.
func told(o *origin.Error) time.Duration {
	if o.Status == 0 {
		return 0
	}
	return o.RetryAfter
}

// sources names the servers of d, the URL's own first.
func (d *download) sources() (all []swarm.SourceID) {
	for _, a := range d.addresses.all {
		if !slices.Contains(all, a.source) {
			all = append(all, a.source)
		}
	}
	return all
}

// restsOf returns for how long a server still wants no requests of this download.
func (d *download) restsOf(server string) time.Duration {
	return d.addresses.restsFor(d.sourceID(server))
}

// sourceID names the server of a URL, in a room as all of its members do.
func (d *download) sourceID(url string) swarm.SourceID {
	if d.room != nil {
		return d.room.source(url)
	}
	sum := sha256.Sum256([]byte(room.ServerOf(url)))
	return swarm.SourceID(sum[:])
}

// hopeless reports whether waiting is not likely to mend any address that is left;
// before says that not a byte has come in this run.
func (s *addresses) hopeless(before bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(s.all, func(a *address) bool { return !a.hopeless(before) })
}

func (a *address) hopeless(before bool) bool {
	switch {
	case a.gone:
		return true
	case a.last == nil || a.strikes == 0:
		return false
	}
	switch a.last.Kind {
	case origin.Resolve, origin.Refused, origin.TLS:
		return before && a.strikes > len(firstTries)
	case origin.Forbidden, origin.BadAnswer, origin.NoRange, origin.BadRedirect:
		return a.strikes >= maxStrikes || before && a.last.Kind == origin.Forbidden
	case origin.Changed:
		return false
	}
	return !a.last.Kind.Passing()
}

// lastError returns why there is no address left: the URL's own reason before those of
// mirrors.
func (s *addresses) lastError() *origin.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.all {
		if a.last != nil {
			return a.last
		}
	}
	return nil
}

// wrote notes that bytes of piece i are from the addresses in bits. It reports false if
// one of them turned out not to be of the file meanwhile.
func (s *addresses) wrote(g *generation, i piece.Index, bits uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of != g {
		return true
	}
	s.from[i] = bits
	s.used |= bits
	return !s.goneAmong(bits)
}

func (s *addresses) goneAmong(bits uint32) bool {
	for _, a := range s.all {
		if a.gone && bits&a.bit() != 0 {
			return true
		}
	}
	return false
}

// sources returns how many addresses the bytes of g came from in this run, and how many
// comparisons between them found no difference.
func (s *addresses) sources(g *generation) (count, same int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of != g {
		return 1, 0
	}
	for _, a := range s.all {
		if s.used&a.bit() != 0 {
			count++
		}
	}
	return count, s.same
}

// dropped reports whether an address was found to have other bytes than another one: then
// it is not certain whose are the file's.
func (s *addresses) dropped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.all, func(a *address) bool { return a.gone })
}

// pinOf returns the pin that a's answers are held to; zero while it is not known.
func (s *addresses) pinOf(a *address) piece.Pin {
	s.mu.Lock()
	defer s.mu.Unlock()
	return a.pin
}

// mirrorPin is the pin of a generation that a mirror was the first to name.
func mirrorPin(own piece.Pin) piece.Pin {
	if !own.Combinable() {
		return own
	}
	return piece.Pin{Size: own.Size, Kind: piece.Mirror, Validator: own.Generation(0).String()}
}

// probeAny asks the URL what the file is and, if that has not answered after
// stalledAfter or has failed, its mirrors too; the first that answers counts. The other
// requests are ended. Of the errors it returns the URL's own.
func (d *download) probeAny(ctx context.Context, p swarm.ProbeOrigin) (*origin.Answer, *address, error) {
	type result struct {
		from   *address
		answer *origin.Answer
		err    error
	}
	s := d.addresses
	var order []*address
	s.mu.Lock()
	for _, a := range s.all {
		if !a.gone {
			order = append(order, a)
		}
	}
	slices.SortStableFunc(order, func(a, b *address) int {
		return boolInt(time.Now().Before(a.resting)) - boolInt(time.Now().Before(b.resting))
	})
	s.mu.Unlock()
	results := make(chan result)
	cancels := make(map[*address]context.CancelFunc)
	running := 0
	ask := func(a *address) {
		asking, cancel := context.WithCancel(ctx)
		cancels[a] = cancel
		running++
		d.work.Go(func() {
			answer, err := a.client.ProbeAt(asking, p.Start, p.Bytes)
			results <- result{a, answer, err}
		})
	}
	// settle ends what is still asked, but for the address that answered: its body ends
	// with ctx.
	settle := func(but *address) {
		for a, cancel := range cancels {
			if a != but {
				cancel()
			} else {
				context.AfterFunc(ctx, cancel)
			}
		}
		for ; running > 0; running-- {
			if r := <-results; r.err == nil {
				r.answer.Body.Close()
			}
		}
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var failure error
	for {
		select {
		case <-timer.C:
			if len(order) > 0 {
				ask(order[0])
				order = order[1:]
				timer.Reset(stalledAfter)
			}
		case r := <-results:
			running--
			if why := d.otherSize(r.answer, r.err); why != "" {
				r.answer.Body.Close()
				_ = d.dropAddress(d.generation(), r.from, 0, why)
				r.err = d.addresses.lastError()
			} else if r.err != nil && ctx.Err() == nil {
				d.addressFailed(r.from, r.err)
			}
			if r.err == nil {
				settle(r.from)
				return r.answer, r.from, nil
			}
			if failure == nil || r.from.number == 0 {
				failure = r.err
			}
			if len(order) > 0 && ctx.Err() == nil {
				timer.Reset(0)
			} else if running == 0 {
				settle(nil)
				return nil, nil, failure
			}
		}
	}
}

// translate returns the pin of the generation that an answer to a probe belongs to, once
// it is known to be of the one that there is already: a mirror's own pin is its own
// matter.
func (d *download) translate(ctx context.Context, a *address, own piece.Pin, answer *origin.Answer) (piece.Pin, error) {
	g := d.generation()
	var present piece.Pin
	switch {
	case g != nil:
		present = g.pin
	case !d.moved:
		present = d.left // what an earlier run left is gone on with, if anything
	}
	if a.number == 0 && present.Kind != piece.Mirror {
		return own, nil
	}
	s := d.addresses
	s.mu.Lock()
	a.pin = own
	s.mu.Unlock()
	switch {
	case a.number > 0 && !present.Combinable():
		return mirrorPin(own), nil
	case g == nil && own.Size == present.Size && own.Combinable() && !answer.Stream:
		return present, nil // compared before the next request
	case g == nil && a.number > 0:
		return mirrorPin(own), nil
	case g == nil:
		return own, nil
	case own.Size != g.pin.Size:
		return own, d.dropAddress(g, a, 0, fmt.Sprintf("it has %d bytes, the file has %d", own.Size, g.pin.Size))
	case answer.Stream || !own.Combinable():
		return own, d.dropAddress(g, a, 0, "it cannot be read in ranges, so that it cannot be compared")
	}
	return g.pin, d.sample(ctx, g, a)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// addressFailed takes in an error of an address and tells the user if it is news. It
// reports whether another address can serve now.
func (d *download) addressFailed(a *address, err error) (elsewhere bool) {
	var o *origin.Error
	if !errors.As(err, &o) || o.Kind == origin.Cancelled {
		return false
	}
	if wait := d.pauseTold(a, o); wait > 0 {
		d.inbox.post(swarm.OriginPauses{Source: a.source, Wait: wait})
	}
	news, elsewhere := d.addresses.failed(a, o, time.Now())
	if news != "" {
		d.inbox.do(func() {
			d.warn("mirror-failed", fmt.Sprintf("%s is left for the other addresses: %s", a.name, news))
		})
	}
	return elsewhere
}

// watched has watch run until the function that it returns is called.
func (d *download) watched(ctx context.Context, leave context.CancelCauseFunc, a *address, f *flow, want int64) (end func()) {
	ended := make(chan struct{})
	d.work.Go(func() {
		defer close(ended)
		d.watch(ctx, leave, a, f, want)
	})
	return func() {
		leave(nil)
		<-ended
	}
}

// watch ends a request to a when another address would bring the rest sooner: a is
// silent, or slow by comparison. flow counts what comes of the want bytes.
func (d *download) watch(ctx context.Context, leave context.CancelCauseFunc, a *address, f *flow, want int64) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	begun := time.Now()
	moved, movedAt := int64(0), begun
	least := int64(leastFlow)
	if d.spec.LimitRate > 0 && d.spec.LimitRate < 100*leastFlow {
		least = 1 // it may be the user's limit that slows it
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, total := time.Now(), f.total.Load()
		if total-moved >= least {
			moved, movedAt = total, now
		}
		if now.Sub(begun) < slowAfter {
			continue
		}
		s := d.addresses
		s.mu.Lock()
		other := s.choose(now, a)
		stalled := other != nil && now.Sub(movedAt) >= stalledAfter
		slow := false
		if other != nil && other.rate > 0 {
			here := float64(want-total) * now.Sub(begun).Seconds() / float64(max(total, 1))
			there := float64(want-total) / (other.rate / float64(other.open+1))
			slow = here > 2+2*there
		}
		if stalled {
			a.strikes++
			a.resting = now.Add(restLasting)
		}
		if slow || stalled {
			a.rate = float64(max(total, 1)) / now.Sub(begun).Seconds()
		}
		s.mu.Unlock()
		if slow || stalled {
			leave(errLeft)
			return
		}
	}
}

// fetchAny carries out FetchOrigin where there are several addresses: one request to the
// best of them. What that does not bring is to be asked for again.
func (d *download) fetchAny(ctx context.Context, g *generation, req swarm.FetchOrigin) {
	s := d.addresses
	a := s.take(time.Now())
	if a == nil {
		d.originEnded(ctx, req.Request, nil, 0, s.lastError())
		return
	}
	f := &flow{d: d, req: req.Request, from: a}
	begun := time.Now()
	err := d.fetchFrom(ctx, g, a, f, req)
	s.done(a, f.total.Load(), time.Since(begun))
	var o *origin.Error
	switch {
	case err == nil:
		s.succeeded(a)
		d.auditAddress(ctx, g, a)
	case ctx.Err() != nil || errors.Is(err, errLeft):
		err = nil
	case errors.Is(err, errMirrorDiffers):
		err = s.afterDrop()
	case errors.As(err, &o):
		own := a.number == 0 && g.pin.Kind != piece.Mirror
		if o.Kind == origin.Changed && !own {
			err = d.movedOn(g, a, o)
			break
		}
		elsewhere := d.addressFailed(a, o)
		switch {
		case own && o.Kind == origin.Changed:
		case elsewhere:
			err = nil
		}
	}
	d.originEnded(ctx, req.Request, f, g.layout.PieceLength, err)
}

// fetchFrom asks a for the beginning of an extent, as much as it brings in a short time.
func (d *download) fetchFrom(ctx context.Context, g *generation, a *address, f *flow, req swarm.FetchOrigin) error {
	if err := d.qualify(ctx, g, a); err != nil {
		return err
	}
	extent := req.Extent
	pieces := d.addresses.share(a) / g.layout.PieceLength
	extent.Count = uint32(min(max(pieces, 1), int64(extent.Count)))
	r := g.layout.Bytes(extent)
	r.Start += d.headLen(ctx, extent.First)

	asking, leave := context.WithCancelCause(ctx)
	defer d.watched(asking, leave, a, f, r.Len())()
	answer, err := a.client.Fetch(asking, d.addresses.pinOf(a), r)
	if err == nil {
		if a.number == 0 {
			d.hear(g, digestsOf(answer))
		}
		err = d.receive(asking, g, req.Request, f, answer.Range, answer.Body)
		answer.Body.Close()
	}
	if err != nil && errors.Is(context.Cause(asking), errLeft) {
		return errLeft
	}
	return err
}

// choosable reports whether any address can serve now.
func (s *addresses) choosable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.choose(time.Now(), nil) != nil
}

// movedOn: a mirror has another version than it had. One of another length is not the
// file; else its bytes are compared anew before they are used.
func (d *download) movedOn(g *generation, a *address, o *origin.Error) error {
	if o.Seen.Size >= 0 && o.Seen.Size != g.pin.Size {
		return d.dropAddress(g, a, 0, fmt.Sprintf("it has %d bytes now, the file has %d", o.Seen.Size, g.pin.Size))
	}
	s := d.addresses
	s.mu.Lock()
	a.pin, a.sampled = piece.Pin{}, false
	s.mu.Unlock()
	if d.addressFailed(a, o) {
		return nil
	}
	return &origin.Error{Kind: origin.Server, Host: o.Host, Status: http.StatusOK, Err: o}
}
