package node_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dragonload/internal/node"
)

// mirrorOf starts another server for the file of s, with a validator of its own.
func mirrorOf(t *testing.T, s *site) *site {
	m := newSite(t, len(s.data))
	m.etag = `"mirror"`
	return m
}

func (s *site) mirroredBy(t *testing.T, mirrors ...*site) node.Spec {
	spec := s.spec(t)
	for _, m := range mirrors {
		spec.Mirrors = append(spec.Mirrors, node.Mirror{URL: m.url()})
	}
	return spec
}

// ranged reports whether a request asks for a byte at or after from.
func reaches(r *http.Request, from int) bool {
	var first, last int
	n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
	return n < 2 || last >= from
}

// withTail makes m the only one of s and m that gives the tail of the file, until it has
// done so.
func withTail(s, m *site) {
	tail := len(s.data) - 200<<10
	var given atomic.Bool
	handle := func(of *site, gives func() bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if reaches(r, tail) && !gives() {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			w.Header().Set("ETag", of.etag)
			http.ServeContent(w, r, "", of.time(), bytes.NewReader(of.data))
			if of == m && reaches(r, len(s.data)-1) {
				given.Store(true)
			}
		}
	}
	s.set(func() { s.handle = handle(s, given.Load) })
	m.set(func() { m.handle = handle(m, func() bool { return true }) })
}

// One wrong byte that no sample is likely to meet shows in the digest of the whole file;
// then the mirror is found by its pieces.
func TestMirror_withOneFlippedByte(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		known   bool // the user gives the digest
		stated  bool // the origin states it
		checked string
	}{{"known", true, false, "checksum"}, {"stated", false, true, "origin-digest"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 4<<20)
			m := mirrorOf(t, s)
			m.data[len(m.data)-1] ^= 1
			withTail(s, m)
			if c.stated {
				inner := s.handle
				s.handle = func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Repr-Digest", "sha-256=:"+base64Sum(s.data)+":")
					inner(w, r)
				}
			}
			spec := s.mirroredBy(t, m)
			if c.known {
				spec.Checksums = []node.Checksum{{Algorithm: "sha-256", Hex: sum(s.data)}}
			}
			r := download(t, t.Context(), start(t, node.Options{}), spec)
			saved := r.result(t)
			s.check(t, saved)
			if saved.Checked != c.checked {
				t.Errorf("checked=%s, want %s", saved.Checked, c.checked)
			}
			if w := r.warning("mirror-differs"); !strings.Contains(w, m.url()) || strings.Contains(w, s.url()) || !strings.Contains(w, "that another address has") {
				t.Errorf("the mirror is not named in %q; it told %s", w, r.story())
			}
		})
	}
}

// With the digests of pieces the wrong byte shows as soon as its piece is here, though
// nothing else tells what the file is.
func TestMirror_isHeldToTheDigestsOfPieces(t *testing.T) {
	t.Parallel()
	for _, who := range []string{"mirror", "URL"} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 4<<20)
			m := mirrorOf(t, s)
			good := bytes.Clone(s.data)
			spec := s.mirroredBy(t, m)
			for rest := good; len(rest) > 0; rest = rest[64<<10:] {
				one := sha256.Sum256(rest[:64<<10])
				spec.PieceSums = append(spec.PieceSums, one[:]...)
			}
			spec.PieceLength = 64 << 10
			liar := m
			if who == "URL" {
				liar = s
				s.data[0] ^= 1
			} else {
				m.data[len(m.data)-1] ^= 1
				withTail(s, m)
			}
			r := download(t, t.Context(), start(t, node.Options{}), spec)
			saved := r.result(t)
			if saved.SHA256 != sum(good) {
				t.Errorf("saved %s, want %s", saved.SHA256, sum(good))
			}
			if w := r.warning("mirror-differs"); !strings.HasPrefix(w, liar.url()+" is dropped") || !strings.Contains(w, "that the Metalink names") {
				t.Errorf("%s is not named in %q; it told %s", liar.url(), w, r.story())
			}
		})
	}
}

// Without a digest nobody can know: it must not be claimed that the origin was read.
func TestMirror_whatRestsOnTwoVersionsIsNotOfOne(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4<<20)
	m := mirrorOf(t, s)
	withTail(s, m)
	saved := download(t, t.Context(), start(t, node.Options{}), s.mirroredBy(t, m)).result(t)
	s.check(t, saved)
	if saved.Checked != "audited" {
		t.Errorf("checked=%s, want audited: the mirror was compared", saved.Checked)
	}
}

func (r *run) warning(code string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ev := range r.events {
		if ev.Warning != nil && ev.Warning.Code == code {
			return ev.Warning.Message
		}
	}
	return ""
}

func TestMirror_theFasterOneBringsMore(t *testing.T) {
	t.Parallel()
	s := newSite(t, 16<<20)
	m := mirrorOf(t, s)
	s.set(func() { s.perConn = 512 << 10 })
	m.set(func() { m.perConn = 8 << 20 })
	saved := download(t, t.Context(), start(t, node.Options{}), s.mirroredBy(t, m)).result(t)
	s.check(t, saved)
	if slow, fast := s.sent.Load(), m.sent.Load(); fast < 3*slow {
		t.Errorf("the slow address sent %d bytes and the fast one %d", slow, fast)
	}
}

// An address that goes silent is left though its own time is not over.
func TestMirror_standsInForOneThatStalls(t *testing.T) {
	t.Parallel()
	s := newSite(t, 8<<20)
	m := mirrorOf(t, s)
	m.set(func() { m.perConn = 4 << 20 })
	s.set(func() {
		s.handle = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", s.etag)
			if reaches(r, 2<<20) {
				w.Header().Set("Content-Length", "0")
				<-r.Context().Done()
				return
			}
			http.ServeContent(w, r, "", s.time(), bytes.NewReader(s.data))
		}
	})
	spec := s.mirroredBy(t, m)
	spec.Timeout = time.Hour
	s.check(t, download(t, t.Context(), start(t, node.Options{}), spec).result(t))
}

// An origin that asked for a pause gets it while its mirrors serve.
func TestMirror_servesWhileTheOriginWantsPeace(t *testing.T) {
	t.Parallel()
	s := newSite(t, 8<<20)
	m := mirrorOf(t, s)
	var told, after atomic.Int64
	s.set(func() {
		s.handle = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", s.etag)
			if reaches(r, 1<<20) || told.Load() > 0 {
				after.Store(told.Load())
				told.Add(1)
				w.Header().Set("Retry-After", "3600")
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			http.ServeContent(w, r, "", s.time(), bytes.NewReader(s.data))
		}
	})
	r := download(t, t.Context(), start(t, node.Options{}), s.mirroredBy(t, m))
	s.check(t, r.result(t))
	// Requests that were under way when the first answer came may be among them.
	if after.Load() > 8 || m.sent.Load() < 6<<20 {
		t.Errorf("the origin was asked %d times after it had wanted a pause; the mirror sent %d bytes", after.Load(), m.sent.Load())
	}
}

// Headers are for the URL's own origin.
func TestMirror_getsNoSecrets(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4<<20)
	m := mirrorOf(t, s)
	var leaked atomic.Bool
	m.set(func() {
		m.handle = func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Token") != "" || r.Header.Get("Authorization") != "" {
				leaked.Store(true)
			}
			w.Header().Set("ETag", m.etag)
			http.ServeContent(w, r, "", m.time(), bytes.NewReader(m.data))
		}
	})
	spec := s.mirroredBy(t, m)
	spec.URL = strings.Replace(spec.URL, "http://", "http://user:hunter2@", 1)
	spec.Header = http.Header{"X-Token": {"hunter2"}}
	s.set(func() { s.perConn = 1 << 20 })
	s.check(t, download(t, t.Context(), start(t, node.Options{}), spec).result(t))
	if m.sent.Load() == 0 || leaked.Load() {
		t.Errorf("the mirror sent %d bytes; it got secrets: %v", m.sent.Load(), leaked.Load())
	}
}

func TestMirror_ofAnotherSizeThanTheManifest(t *testing.T) {
	t.Parallel()
	s, m := newSite(t, 1<<20), newSite(t, 1<<20-1)
	spec := m.mirroredBy(t, s)
	spec.Size = 1 << 20
	r := download(t, t.Context(), start(t, node.Options{}), spec)
	s.check(t, r.result(t))
	if w := r.warning("mirror-differs"); !strings.Contains(w, m.url()) {
		t.Errorf("the URL with another size is not named in %q", w)
	}
	alone := m.spec(t)
	alone.Size = 1 << 20
	if e := download(t, t.Context(), start(t, node.Options{}), alone).failure(t, node.ExitBadAnswer); !strings.Contains(e.Message, "1048575 bytes, the file has 1048576") {
		t.Errorf("got %q", e.Message)
	}
}

// What a mirror brought in an earlier run is not taken for the origin's own.
func TestMirror_workOfAnEarlierRun(t *testing.T) {
	t.Parallel()
	s := newSite(t, 8<<20)
	m := mirrorOf(t, s)
	s.set(func() { s.handle = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) } })
	m.set(func() { m.perConn = 4 << 20 })
	state := stateDir(t)
	n, stop := startStoppable(t, node.Options{StateDir: state})
	spec := s.mirroredBy(t, m)
	r := download(t, t.Context(), n, spec)
	for p := range r.progress {
		if p.Have > 2<<20 {
			break
		}
	}
	stop()
	r.failure(t, node.ExitStopped)

	s.set(func() { s.handle = nil })
	r = download(t, t.Context(), start(t, node.Options{StateDir: state}), spec)
	saved := r.result(t)
	s.check(t, saved)
	if began := r.started(); began == nil || began.Resumed < 2<<20 {
		t.Errorf("got start %+v, want what was there resumed", began)
	}
	if saved.Checked == "origin" {
		t.Error("checked=origin, though a mirror brought a part")
	}
}

// Whoever cannot get the file itself waits a moment for a member that can, in whatever order
// they begin.
func TestMirror_ofAMemberWhoComesLater(t *testing.T) {
	t.Parallel()
	for _, late := range []time.Duration{0, 100 * time.Millisecond, 250 * time.Millisecond} {
		t.Run(late.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 4<<20)
				w.run()
				w.host("gone.test:80", http.NotFoundHandler())
				var runs []*run
				for k := range 3 {
					spec := w.spec(t)
					if k == 2 {
						time.Sleep(late)
						spec.Mirrors = []node.Mirror{{URL: spec.URL}}
					}
					spec.URL = "http://gone.test/image.iso"
					runs = append(runs, download(t, t.Context(), start(t, w.join(fmt.Sprintf("member-%d", k)).options()), spec))
				}
				for _, r := range runs {
					w.ends(t, r)
				}
				if sent := w.sent.Load(); sent > 5<<20 {
					t.Errorf("the mirror sent %d bytes of a file of 4 MiB", sent)
				}
			})
		})
	}
}

// Where nobody can get it, they say so soon.
func TestMirror_ofNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4<<20)
		w.run()
		w.host("gone.test:80", http.NotFoundHandler())
		began := time.Now()
		var runs []*run
		for k := range 3 {
			spec := w.spec(t)
			spec.URL = "http://gone.test/image.iso"
			runs = append(runs, download(t, t.Context(), start(t, w.join(fmt.Sprintf("member-%d", k)).options()), spec))
		}
		for _, r := range runs {
			r.failure(t, node.ExitNotFound)
		}
		if took := time.Since(began); took > toldWithin {
			t.Errorf("it took %v", took)
		}
	})
}

// In a room each member uses its own addresses; the bytes are one generation.
func TestMirror_inARoom(t *testing.T) {
	t.Parallel()
	b := newLab(t)
	b.run()
	s := newSite(t, 8<<20)
	m := mirrorOf(t, s)
	s.set(func() { s.handle = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) } })
	m.set(func() { m.perConn = 4 << 20 })
	var runs []*run
	for k := range 3 {
		machine := b.join(fmt.Sprintf("member-%d", k))
		spec := s.spec(t)
		if k == 0 {
			spec = s.mirroredBy(t, m) // only this one can get anything
		}
		spec.Room = "lab"
		runs = append(runs, download(t, t.Context(), start(t, machine.options()), spec))
		for k == 0 && (<-runs[0].progress).Have == 0 {
			// A pool none of whose members can get the file gives up.
		}
	}
	for _, r := range runs {
		s.check(t, r.result(t))
	}
	if sent := m.sent.Load(); sent > 2*int64(len(s.data)) {
		t.Errorf("the mirror sent %d bytes of a file of %d", sent, len(s.data))
	}
}
