package node_test

import (
	"bytes"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dragonload/internal/node"

	"golang.org/x/time/rate"
)

// restingServer has the file of a world, asks once for a pause, and counts what comes
// before that is over.
type restingServer struct {
	rest
	w        *world
	etag     string
	line     *rate.Limiter // of all answers together
	answered chan struct{} // closed with the first answer that asks for it

	mu    sync.Mutex
	asked int
	quiet time.Time // since when it wants no request
	early int       // that came all the same
}

// rest says when a server asks for a pause.
type rest struct {
	wait time.Duration // how long it wants; 0: it never asks
	from int           // requests that are served before
	to   string        // not "": it redirects there
}

// inFlight is how long after the first such answer requests may still come: those that
// were on their way. In these tests nothing takes any time on its way.
const inFlight = 20 * time.Millisecond

func (w *world) resting(addr string, r rest) *restingServer {
	s := &restingServer{rest: r, w: w, etag: fmt.Sprintf("%q", addr), answered: make(chan struct{}), line: rate.NewLimiter(150<<10, 64<<10)}
	w.host(addr, s)
	return s
}

func (s *restingServer) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked++
	left := time.Duration(0)
	if now := time.Now(); s.wait > 0 && s.asked > s.from {
		if s.quiet.IsZero() {
			s.quiet = now
			close(s.answered)
		}
		left = s.quiet.Add(s.wait).Sub(now)
		if left > 0 && now.Sub(s.quiet) > inFlight {
			s.early++
			s.w.t.Logf("asked at %v for %s", now.Sub(s.quiet), r.Header.Get("Range"))
		}
	}
	s.mu.Unlock()
	if s.to != "" {
		http.Redirect(out, r, s.to, http.StatusFound)
		return
	}
	if left > 0 {
		out.Header().Set("Retry-After", fmt.Sprint(int64((left+time.Second-1)/time.Second)))
		out.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	counted := &countingWriter{ResponseWriter: out, sent: &s.w.sent, limiter: s.line, ctx: r.Context()}
	out.Header().Set("ETag", s.etag)
	http.ServeContent(counted, r, "", time.Time{}, bytes.NewReader(s.w.data))
}

func (s *restingServer) check(t *testing.T, name string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if testing.Verbose() {
		t.Logf("%s was asked %d times", name, s.asked)
	}
	if s.early > 0 || s.wait > 0 && s.quiet.IsZero() {
		t.Errorf("%s was asked %d times in all, %d times in the pause that it asked for (since %v)", name, s.asked, s.early, s.quiet)
	}
}

// What asks for a pause is asked by nobody of the room before that is over: not by those
// who come later, nor after the tracker has changed, nor by those who know it as a mirror
// of their own. The download goes on from what does not rest.
func TestResting_pausesItsServerAlone(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	for _, c := range []struct {
		name        string
		own, mirror rest
		mirrored    []int // members that know the mirror, of four; the last comes later
		trackerGoes bool
		atLeast     time.Duration
		atMost      time.Duration
	}{
		{name: "from its first answer", own: rest{wait: time.Hour}, mirrored: []int{1}, atMost: 2 * time.Minute},
		{name: "midway", own: rest{wait: time.Hour, from: 6}, mirrored: []int{1}, atMost: 2 * time.Minute},
		{name: "the newcomer alone knows the mirror", own: rest{wait: time.Hour, from: 6}, mirrored: []int{3}, atMost: 2 * time.Minute},
		{name: "everybody knows the mirror", own: rest{wait: time.Hour, from: 6}, mirrored: []int{0, 1, 2, 3}, atMost: 2 * time.Minute},
		{name: "the mirror rests", mirror: rest{wait: time.Hour, from: 3}, mirrored: []int{0, 1, 3}, atMost: 2 * time.Minute},
		{name: "the tracker goes", own: rest{wait: time.Hour, from: 6}, mirrored: []int{1}, trackerGoes: true, atMost: 2 * time.Minute},
		{name: "the tracker goes, and the newcomer knows the mirror", own: rest{wait: time.Hour, from: 6}, mirrored: []int{1, 3}, trackerGoes: true, atMost: 2 * time.Minute},
		{name: "the tracker goes while the mirror rests", mirror: rest{wait: time.Hour, from: 3}, mirrored: []int{0, 3}, trackerGoes: true, atMost: 2 * time.Minute},
		{name: "both rest", own: rest{wait: 40 * time.Second}, mirror: rest{wait: 20 * time.Second}, mirrored: []int{1, 2},
			atLeast: 20 * time.Second, atMost: 2 * time.Minute},
		{name: "where the URL leads to rests", own: rest{to: "http://mirror.test/image.iso"}, mirror: rest{wait: 30 * time.Second, from: 6}, mirrored: []int{1, 3},
			atLeast: 30 * time.Second, atMost: 2 * time.Minute},
		{name: "nobody knows a mirror", own: rest{wait: 30 * time.Second, from: 6}, atLeast: 30 * time.Second, atMost: 2 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, lan := newWorld(t, size), &around{}
				w.run()
				own, mirror := w.resting("own.test:80", c.own), w.resting("mirror.test:80", c.mirror)
				began := time.Now()
				var runs []*run
				begin := func(k int) {
					spec := w.spec(t)
					spec.URL = "http://own.test/image.iso"
					for _, m := range c.mirrored {
						if m == k {
							spec.Mirrors = []node.Mirror{{URL: "http://mirror.test/elsewhere/image.iso"}}
						}
					}
					n := w.hostAmid(w.join(fmt.Sprintf("member-%d", k)), lan)
					runs = append(runs, download(t, t.Context(), n, spec))
				}
				for k := range 3 {
					begin(k)
				}
				if own.wait > 0 {
					<-own.answered
				} else {
					<-mirror.answered
				}
				time.Sleep(500 * time.Millisecond)
				if c.trackerGoes {
					w.stop()
					time.Sleep(5 * time.Second)
				}
				begin(3)
				for _, r := range runs {
					w.ends(t, r)
				}
				if took := time.Since(began); took < c.atLeast || took > c.atMost {
					t.Errorf("it took %v, want from %v to %v", took, c.atLeast, c.atMost)
				}
				own.check(t, "the URL's server")
				mirror.check(t, "the mirror")
			})
		})
	}
}
