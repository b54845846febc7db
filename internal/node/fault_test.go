package node_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dragonload/internal/node"
	"dragonload/internal/origin/origintest"
	"dragonload/internal/room"
	"dragonload/internal/swarm"
)

// Rows of the fault table (docs/faults.md) that need nodes, in virtual time over a network
// in memory.

// world is a room in a bubble, and an origin of which each test says how it fails.
type world struct {
	*lab
	network *origintest.Network
	data    []byte
	sent    atomic.Int64 // bytes of bodies
	asked   atomic.Int64
	refuses atomic.Pointer[func(*http.Request) bool] // answers 503
}

const worldOrigin = "origin.test:80"

func newWorld(t *testing.T, size int) *world {
	t.Helper()
	w := &world{network: new(origintest.Network), data: fileOf(size)}
	w.lab = newLabAt(t, "127.0.0.1:4100", w.network)
	w.host(worldOrigin, w)
	return w
}

// host runs another server of the world until the test ends.
func (w *world) host(addr string, handler http.Handler) {
	t := w.t
	t.Helper()
	l, err := w.network.Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l) // ends with Close
	}()
	t.Cleanup(func() {
		server.Close()
		<-ended
	})
}

func (w *world) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.asked.Add(1)
	if refuses := w.refuses.Load(); refuses != nil && (*refuses)(r) {
		http.Error(out, "not now", http.StatusServiceUnavailable)
		return
	}
	out.Header().Set("ETag", `"v1"`)
	http.ServeContent(&countingWriter{ResponseWriter: out, sent: &w.sent, ctx: r.Context()}, r, "", time.Time{}, bytes.NewReader(w.data))
}

func (w *world) refuse(f func(*http.Request) bool) { w.refuses.Store(&f) }

func (w *world) spec(t *testing.T) node.Spec {
	return node.Spec{
		URL: "http://" + worldOrigin + "/image.iso", Room: "lab", Dir: t.TempDir(),
		Timeout: 20 * time.Second, ConnectTimeout: 10 * time.Second, GiveUpAfter: 24 * time.Hour, Linger: time.Minute,
	}
}

// ends waits for a download in virtual time and compares its file.
func (w *world) ends(t *testing.T, r *run) {
	t.Helper()
	select {
	case <-r.ended:
	case <-time.After(3 * time.Hour):
		t.Fatalf("the download has not ended; it told %s", r.story())
	}
	(&site{data: w.data}).check(t, r.result(t))
}

// half waits until a download has half of the file.
func half(t *testing.T, r *run, size int) {
	t.Helper()
	r.awaits(t, func(ev node.Event) bool { return ev.Progress != nil && ev.Progress.Have >= int64(size)/2 })
}

func TestFault16SleepAndResume(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"lab", ""} {
		t.Run("room "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const size = 8 << 20
				w := newWorld(t, size)
				w.run()
				spec := w.spec(t)
				spec.Room, spec.LimitRate = name, size/20
				var slept atomic.Int64
				o := w.join("sleeper").options()
				o.Log = testLog(t)
				n, err := node.New(o)
				if err != nil {
					t.Fatal(err)
				}
				n.Asleep(func() time.Duration { return time.Duration(slept.Load()) })
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- n.Run(ctx, nil) }()
				defer func() {
					cancel()
					if err := <-ended; err != nil {
						t.Error(err)
					}
				}()
				r := download(t, t.Context(), n, spec)
				var other *run
				if name != "" {
					spec.Dir = t.TempDir()
					other = download(t, t.Context(), start(t, w.join("other").options()), spec)
				}
				half(t, r, size)
				slept.Store(int64(8 * time.Hour))
				says := r.warned(t, "resumed-after-sleep")
				if !strings.Contains(says, "resumed after sleep: nothing was done for 8h0m0s") {
					t.Errorf("said: %s", says)
				}
				w.ends(t, r)
				if other == nil && slices.Contains(r.warnings(), "tracker-away") {
					t.Errorf("a download without a room told of a tracker: %s", r.story())
				}
				if other != nil {
					w.ends(t, other)
					// Streams were closed, and made anew.
					ups := 0
					other.mu.Lock()
					for _, ev := range other.events {
						if ev.Member != nil && ev.Member.Up && ev.Member.Name == "sleeper" {
							ups++
						}
					}
					other.mu.Unlock()
					if ups < 2 {
						t.Errorf("the other member met the sleeper %d times, want once more after the sleep; it told %s", ups, other.story())
					}
				}
				if sent := w.sent.Load(); sent > size*115/100 {
					t.Errorf("the origin sent %d bytes of a file of %d", sent, size)
				}
			})
		})
	}
}

// Row 34: who begins while the tracker takes in nobody more is told about how long it
// takes, does not ask the origin by itself meanwhile, and goes on then.
func TestFault34NewcomersQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 8 << 20
		w := newWorld(t, size)
		w.limits = swarm.TrackerOptions{JoinRate: 1, JoinBurst: 1}
		w.run()
		spec := w.spec(t)
		var runs []*run
		for _, name := range []string{"a", "b", "c", "d"} {
			own := spec
			own.Dir = t.TempDir()
			runs = append(runs, download(t, t.Context(), start(t, w.join(name).options()), own))
		}
		queued := 0
		for _, r := range runs {
			w.ends(t, r)
			if s := r.savedEvent(); s.Took > 20*time.Second {
				t.Errorf("it took %v; it told %s", s.Took, r.story())
			}
			warnings := r.warnings()
			if slices.Contains(warnings, "tracker-away") || slices.Contains(warnings, "tracker-back") {
				t.Errorf("it takes the tracker for dead; it told %s", r.story())
			}
			if !slices.Contains(warnings, "queued") {
				continue
			}
			queued++
			if says := r.warned(t, "queued"); !regexp.MustCompile(`^queued, about [1-9] s: `).MatchString(says) {
				t.Errorf("said: %s", says)
			}
		}
		if queued != 3 {
			t.Errorf("%d of 4 were told that they queue, want 3", queued)
		}
		if sent := w.sent.Load(); sent > size*115/100 {
			t.Errorf("the origin sent %d bytes of a file of %d", sent, size)
		}
	})
}

// Row 29: when every piece is with some member the origin is needed no more.
func TestFault29OriginGoneMembersHaveAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 8 << 20
		w := newWorld(t, size)
		w.refuse(func(*http.Request) bool { return w.sent.Load() >= size })
		w.run()
		spec := w.spec(t)
		var runs []*run
		for _, name := range []string{"a", "b", "c"} {
			own := spec
			own.Dir = t.TempDir()
			runs = append(runs, download(t, t.Context(), start(t, w.join(name).options()), own))
		}
		for _, r := range runs {
			w.ends(t, r)
			if s := r.savedEvent(); s.Took > time.Minute {
				t.Errorf("it took %v", s.Took)
			}
		}
	})
}

// Rows 25 and 30: the origin answers 503 for hours, and one part is with nobody. The user
// is told since when, how much is here and what the pool holds; everything is kept; the
// origin is asked every few minutes; and all goes on by itself.
func TestFault25_30OriginAwayForHours(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 8 << 20
		w := newWorld(t, size)
		w.refuse(func(r *http.Request) bool {
			return strings.HasSuffix(r.Header.Get("Range"), "-8388607") // the last byte
		})
		w.run()
		spec := w.spec(t)
		var runs []*run
		for _, name := range []string{"a", "b"} {
			own := spec
			own.Dir = t.TempDir()
			runs = append(runs, download(t, t.Context(), start(t, w.join(name).options()), own))
		}
		for _, r := range runs {
			if says := r.warned(t, "part-nowhere"); !regexp.MustCompile(`^9\d\.\d % is here; (one part is|\d parts are) nowhere in the pool`).MatchString(says) {
				t.Errorf("said: %s", says)
			}
		}
		before := w.asked.Load()
		time.Sleep(2 * time.Hour) // virtual
		if asked := w.asked.Load() - before; asked > 2*2*60 || asked < 20 {
			t.Errorf("the origin was asked %d times in 2 h", asked)
		}
		told := 0
		for _, r := range runs {
			if !slices.Contains(r.warnings(), "origin-unavailable") {
				continue
			}
			told++
			if says := r.warned(t, "origin-unavailable"); !regexp.MustCompile(`^the origin has been unavailable since \d\d:\d\d; \d+(\.\d)? % is here, the pool holds \d+(\.\d)? %; .*503`).MatchString(says) {
				t.Errorf("said: %s", says)
			}
			select {
			case <-r.ended:
				t.Errorf("the download has ended: %s", r.story())
			default:
			}
		}
		if told == 0 {
			t.Errorf("nobody was told that the origin is away: %s", runs[0].story())
		}
		w.refuse(func(*http.Request) bool { return false })
		for _, r := range runs {
			w.ends(t, r)
		}
		if sent := w.sent.Load(); sent > size*115/100 {
			t.Errorf("the origin sent %d bytes of a file of %d", sent, size)
		}
	})
}

// unresolved is a network whose name server may fail, and which counts what it is asked.
type unresolved struct {
	node.Network
	fails atomic.Bool
	asked atomic.Int64
	mu    sync.Mutex
	conns []net.Conn
}

func (u *unresolved) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if addr == worldOrigin {
		u.asked.Add(1)
		if u.fails.Load() {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "server misbehaving", Name: "origin.test", IsTemporary: true}}
		}
	}
	c, err := u.Network.Dial(ctx, network, addr)
	if err == nil && addr == worldOrigin {
		u.mu.Lock()
		u.conns = append(u.conns, c)
		u.mu.Unlock()
	}
	return c, err
}

func (u *unresolved) breakAll() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range u.conns {
		c.Close()
	}
	u.conns = nil
}

// Row 40: open connections go on while the name server fails; when they break the name is
// asked for again, at ever longer intervals, until it is known again.
func TestFault40NameServerFailsMidway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 8 << 20
		w := newWorld(t, size)
		names := &unresolved{Network: w.network}
		spec := w.spec(t)
		spec.Room, spec.LimitRate = "", size/60
		r := download(t, t.Context(), start(t, node.Options{Network: names}), spec)
		r.awaits(t, func(ev node.Event) bool { return ev.Progress != nil && ev.Progress.Have > size/8 })
		names.fails.Store(true)
		sent := w.sent.Load()
		time.Sleep(5 * time.Second) // virtual
		if w.sent.Load() == sent {
			t.Error("the open connections brought nothing more")
		}
		names.breakAll()
		if says := r.warned(t, "origin-unavailable"); !strings.Contains(says, "the host name was not resolved: the name server gave no answer") {
			t.Errorf("said: %s", says)
		}
		before := names.asked.Load()
		time.Sleep(time.Hour)
		if asked := names.asked.Load() - before; asked > 120 || asked < 20 {
			t.Errorf("the name was asked for %d times in an hour", asked)
		}
		names.fails.Store(false)
		w.ends(t, r)
	})
}

// moving is the network of a machine with one address, which changes.
type moving struct {
	mu     sync.Mutex
	host   string
	conns  []net.Conn
	dialed []string
}

type takenListener struct {
	net.Listener
	m *moving
}

func (m *moving) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	m.mu.Lock()
	from := &net.TCPAddr{IP: net.ParseIP(m.host)}
	m.dialed = append(m.dialed, addr)
	m.mu.Unlock()
	return m.note((&net.Dialer{LocalAddr: from}).DialContext(ctx, network, addr))
}

func (m *moving) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, network, addr)
	return takenListener{l, m}, err
}

func (l takenListener) Accept() (net.Conn, error) { return l.m.note(l.Listener.Accept()) }

func (m *moving) note(c net.Conn, err error) (net.Conn, error) {
	if err == nil {
		m.mu.Lock()
		m.conns = append(m.conns, c)
		m.mu.Unlock()
	}
	return c, err
}

// move takes the address away, and with it all connections, and gives another.
func (m *moving) move(host string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.host = host
	for _, c := range m.conns {
		c.Close()
	}
	m.conns, m.dialed = nil, nil
}

func (m *moving) dials(prefix string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.dialed, func(addr string) bool { return strings.HasPrefix(addr, prefix) })
}

// Row 17: a member whose address changes is found at the new one, by the same identity.
func TestFault17AddressChanges(t *testing.T) {
	t.Parallel()
	if c, err := net.Listen("tcp", "127.0.0.3:0"); err != nil {
		t.Skip("this system has one address for loopback")
	} else {
		c.Close()
	}
	s := newSite(t, 8<<20)
	b := newLab(t)
	b.run()
	mover, stayer := &moving{host: "127.0.0.2"}, &moving{host: "127.0.0.1"}
	o := b.join("mover").options()
	o.Network, o.Listen = mover, ":0"
	spec := s.spec(t)
	spec.Room, spec.LimitRate = "lab", 2<<20
	r := download(t, t.Context(), start(t, o), spec)
	other := b.join("stayer").options()
	other.Network = stayer
	spec.Dir = t.TempDir()
	q := download(t, t.Context(), start(t, other), spec)
	member := func(name string) func(ev node.Event) bool {
		return func(ev node.Event) bool { return ev.Member != nil && ev.Member.Up && ev.Member.Name == name }
	}
	q.awaits(t, member("mover"))
	r.awaits(t, func(ev node.Event) bool { return ev.Progress != nil && ev.Progress.Have > 1<<20 })
	stayer.mu.Lock()
	stayer.dialed = nil
	stayer.mu.Unlock()
	mover.move("127.0.0.3")
	s.check(t, r.result(t))
	s.check(t, q.result(t))
	if !stayer.dials("127.0.0.3:") {
		t.Errorf("the mover was not looked for at its new address; it told %s", q.story())
	}
	ids := map[string]bool{}
	for _, ev := range q.events {
		if member("mover")(ev) {
			ids[ev.Member.ID] = true
		}
	}
	if len(ids) != 1 {
		t.Errorf("the mover had the identities %v", ids)
	}
}

// Row 37: a tracker that knows other calls is told of by a code, and the download goes on
// without it.
func TestFault37TrackerOfAnotherVersion(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1<<20)
	b := newLab(t)
	l, err := net.Listen("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	other := httptest.NewUnstartedServer(http.NotFoundHandler())
	other.Listener.Close()
	other.Listener = l
	other.EnableHTTP2 = true
	other.TLS = b.first.keyring.ServerTLS(room.ALPNControl)
	other.StartTLS()
	t.Cleanup(other.Close)
	spec := s.spec(t)
	spec.Room = "lab"
	r := download(t, t.Context(), start(t, b.join("member").options()), spec)
	if says := r.warned(t, "version-skew"); !strings.Contains(says, "the room's tracker speaks another version") {
		t.Errorf("said: %s", says)
	}
	s.check(t, r.result(t))
}
