package node

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"dragonload/internal/origin"
)

// A file with one address has no other place to go to where a connection stalls or drips,
// but it has other connections: one that brings next to nothing, or far less than the
// others at the same time, is left for a new one. What it was to bring goes back to the
// tracker, and so perhaps to another member. (Several addresses: see watch in mirrors.go.)

const (
	// farSlower is how many times slower than another a connection is that is left.
	farSlower = 16

	// longRequest is what a request must have brought to say how fast its connection is.
	longRequest = 64 << 10

	// A connection costs the origin what is still on its way when it is left. So many may
	// be left at once, one more after each leaveEvery and each request that went well, and
	// firstLeft while none has shown that the origin can do better.
	maxLeft    = 8
	leaveEvery = 5 * time.Second
	firstLeft  = 2

	// Where manyLeft were left, each within habitTime of the one before, that is this
	// origin's habit, and hastyAfter is enough to tell.
	manyLeft   = 3
	habitTime  = 30 * time.Second
	hastyAfter = time.Second
)

// lines is what the requests to a download's only address show of its connections.
type lines struct {
	mu     sync.Mutex
	rates  map[*flow]float64 // bytes per second over the last while, of requests under way
	usual  float64           // of those that have ended, the later ones counting more; 0: of none
	at     time.Time         // when the last of these ended
	header time.Duration     // the longest time until an answer began
	begun  bool              // one has
	left   int               // how many were left, less one for each leaveEvery
	blind  int               // how many of them while usual was 0
	leftAt time.Time         // when left was last counted down
	row    int               // how many were left in a row, see manyLeft
	rowAt  time.Time         // the last of them
}

// begins notes that an answer has begun; the request for it went out at began.
func (l *lines) begins(began time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.header, l.begun = max(l.header, time.Since(began)), true
}

// ends takes in how fast a request was, unless it was left.
func (l *lines) ends(f *flow, since time.Time, left bool) {
	bytes, now := f.total.Load(), time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.rates, f)
	if left || bytes < longRequest {
		return
	}
	rate := float64(bytes) / max(now.Sub(since), time.Millisecond).Seconds()
	if l.usual > 0 {
		rate = (3*l.usual + rate) / 4
	}
	l.usual, l.at = rate, now
	l.left = max(l.left-1, 0)
}

// window is over what time a request is looked at.
func (l *lines) window() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.row >= manyLeft && time.Since(l.rowAt) < habitTime {
		return hastyAfter
	}
	return stalledAfter
}

// patience is how long an answer may take to begin: some origins take long for each.
func (l *lines) patience() (wait time.Duration, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return stalledAfter + 2*l.header, l.begun
}

// slow takes in what a request has brought in the last window and reports whether to
// leave it, with rest bytes still to come. With limited the user may want it slow.
func (l *lines) slow(f *flow, brought, rest int64, window time.Duration, limited bool) bool {
	const least = leastFlow / float64(stalledAfter/time.Second)
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	rate := float64(brought) / window.Seconds()
	if l.rates == nil {
		l.rates = make(map[*flow]float64)
	}
	l.rates[f] = rate
	best := 0.0 // of the others, in the same time
	for other, r := range l.rates {
		if other != f {
			best = max(best, r)
		}
	}
	if now.Sub(l.at) < stalledAfter {
		best = max(best, l.usual)
	}
	little := rate < least
	switch {
	case best >= farSlower*max(rate, 1):
		// The rest must be worth a new connection.
		return float64(rest)/max(rate, 1) > 2+2*float64(rest)/best && l.mayLeave(now)
	case !little || limited && l.usual == 0:
		return false
	case l.usual == 0:
		if l.blind >= firstLeft || !l.mayLeave(now) {
			return false
		}
		l.blind++
		return true
	}
	return l.usual >= farSlower*max(rate, least) && l.mayLeave(now)
}

// mayLeave counts a connection that is to be left, if not too many were; it needs mu.
func (l *lines) mayLeave(now time.Time) bool {
	if l.leftAt.IsZero() {
		l.leftAt = now
	}
	over := int(now.Sub(l.leftAt) / leaveEvery)
	l.leftAt = l.leftAt.Add(time.Duration(over) * leaveEvery)
	l.left = max(l.left-over, 0)
	if l.left >= maxLeft {
		return false
	}
	l.left++
	if now.Sub(l.rowAt) > habitTime {
		l.row = 0
	}
	l.row, l.rowAt = l.row+1, now
	return true
}

// late reports whether to leave a request whose answer has not begun.
func (l *lines) late(began time.Time) bool {
	wait, known := l.patience()
	if !known || time.Since(began) < wait {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mayLeave(time.Now())
}

// attended is a request to the only address, watched for as long as it lasts. (A context in
// a struct: it is the request's.)
type attended struct {
	d     *download
	flow  *flow
	want  atomic.Int64
	began time.Time
	ctx   context.Context // the request's
	leave context.CancelCauseFunc
	ended chan struct{}

	answered atomic.Pointer[time.Time] // when its answer began; nil before
}

// attend begins to watch a request, whose context leave ends; it asks for want bytes. end
// must be called.
func (d *download) attend(ctx context.Context, leave context.CancelCauseFunc, f *flow, want int64) *attended {
	a := &attended{d: d, flow: f, began: time.Now(), ctx: ctx, leave: leave, ended: make(chan struct{})}
	a.want.Store(want)
	d.work.Go(func() {
		defer close(a.ended)
		a.watch()
	})
	return a
}

// begins says that the answer has begun.
func (a *attended) begins(answer *origin.Answer) {
	now := time.Now()
	a.answered.Store(&now)
	a.d.lines.begins(a.began)
	if n := answer.Range.Len(); n > 0 {
		a.want.Store(n)
	}
}

// end ends the watching. It returns errLeft in place of err if the request was left.
func (a *attended) end(err error) error {
	left := errors.Is(context.Cause(a.ctx), errLeft)
	a.leave(nil)
	<-a.ended
	since := a.began
	if t := a.answered.Load(); t != nil {
		since = *t
	}
	a.d.lines.ends(a.flow, since, left)
	if err == nil || !left {
		return err
	}
	// With HTTP/2 too the next request is to have a connection of its own.
	a.d.client.CloseIdle()
	return errLeft
}

// watch leaves the request when that is better.
func (a *attended) watch() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	limited := a.d.spec.LimitRate > 0 && a.d.spec.LimitRate < 100*leastFlow
	var past [stalledAfter / watchEvery]int64 // what had come at each of the last ticks
	for k := 0; ; {
		select {
		case <-a.ctx.Done():
			return
		case <-tick.C:
		}
		total := a.flow.total.Load()
		switch {
		case a.answered.Load() == nil:
			if a.d.lines.late(a.began) {
				a.leave(errLeft)
				return
			}
			continue
		case !a.flow.reading.Load():
			k = 0 // it is not the origin that is waited for
			continue
		}
		window := a.d.lines.window()
		ticks := int(window / watchEvery)
		before := past[(k+len(past)-ticks)%len(past)]
		past[k%len(past)] = total
		if k++; k > ticks && a.d.lines.slow(a.flow, total-before, a.want.Load()-total, window, limited) {
			a.leave(errLeft)
			return
		}
	}
}
