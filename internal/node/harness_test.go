package node_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dragonload/internal/node"

	"golang.org/x/time/rate"
)

// waitLimit bounds every wait of these tests.
const waitLimit = 60 * time.Second

// fileOf returns n bytes that are the same in every run and compress badly.
func fileOf(n int) []byte {
	data := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(data)
	return data
}

// site is an origin with one file.
type site struct {
	*httptest.Server
	data []byte
	etag string
	sent atomic.Int64 // body bytes

	mu       sync.Mutex
	handle   http.HandlerFunc // in place of the file, if set
	perConn  rate.Limit       // bytes per second of each answer; 0: no limit
	requests atomic.Int64
	serving  sync.WaitGroup // answers under way
}

func newSite(t *testing.T, size int) *site {
	s := &site{data: fileOf(size), etag: `"v1"`}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *site) url() string { return s.URL + "/files/image.iso" }

func (s *site) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *site) serve(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	s.serving.Add(1)
	defer s.serving.Done()
	s.mu.Lock()
	handle, limit, etag, data := s.handle, s.perConn, s.etag, s.data
	s.mu.Unlock()
	out := &countingWriter{ResponseWriter: w, sent: &s.sent, ctx: r.Context()}
	if limit > 0 {
		out.limiter = rate.NewLimiter(limit, 64<<10)
	}
	if handle != nil {
		handle(out, r)
		return
	}
	serveFile(out, r, etag, data)
}

// file is what a handler set for the site answers with where it serves the file as is.
func (s *site) file(w http.ResponseWriter, r *http.Request) { serveFile(w, r, s.etag, s.data) }

func serveFile(w http.ResponseWriter, r *http.Request, etag string, data []byte) {
	if etag != "" {
		w.Header().Set("ETag", etag)
	}
	http.ServeContent(w, r, "image.iso", time.Time{}, bytes.NewReader(data))
}

// countingWriter counts, and slows, what an origin sends.
type countingWriter struct {
	http.ResponseWriter
	sent    *atomic.Int64
	limiter *rate.Limiter
	ctx     context.Context
}

func (w *countingWriter) Write(b []byte) (int, error) {
	if w.limiter == nil {
		n, err := w.ResponseWriter.Write(b)
		w.sent.Add(int64(n))
		return n, err
	}
	done := 0
	for len(b) > 0 {
		k := min(len(b), 32<<10)
		if err := w.limiter.WaitN(w.ctx, k); err != nil {
			return done, err
		}
		n, err := w.ResponseWriter.Write(b[:k])
		w.sent.Add(int64(n))
		done += n
		if err != nil {
			return done, err
		}
		b = b[k:]
	}
	return done, nil
}

func (w *countingWriter) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

// start runs a node until the test ends.
func start(t *testing.T, o node.Options) *node.Node {
	t.Helper()
	n, _ := startStoppable(t, o)
	return n
}

func startStoppable(t *testing.T, o node.Options) (*node.Node, func()) {
	t.Helper()
	if o.StateDir == "" {
		o.StateDir = stateDir(t)
	}
	if o.Log == nil {
		o.Log = testLog(t)
	}
	n, err := node.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- n.Run(ctx, func() { close(ready) }) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the node ended with %v", err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("the node ended with %v", err)
	}
	return n, stop
}

func stateDir(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func testLog(t *testing.T) *slog.Logger {
	if !testing.Verbose() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(logWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug})).With("test", t.Name())
}

// logWriter writes to standard error: a log after the test's end must not panic.
type logWriter struct{ t *testing.T }

func (w logWriter) Write(b []byte) (int, error) { return os.Stderr.Write(b) }

// run is a download and what it has told.
type run struct {
	mu       sync.Mutex
	events   []node.Event
	progress chan node.Progress // those that fit
	news     chan struct{}      // something was told
	saved    chan struct{}
	ended    chan struct{}
	err      error
}

// download starts one; its end is waited for by the test's end.
func download(t *testing.T, ctx context.Context, n *node.Node, spec node.Spec) *run {
	t.Helper()
	r := &run{news: make(chan struct{}, 1), progress: make(chan node.Progress, 1000), saved: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.err = n.Download(ctx, spec, r.tell)
	}()
	return r
}

func (r *run) tell(ev node.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, ev)
	select {
	case r.news <- struct{}{}:
	default:
	}
	if ev.Progress != nil {
		select {
		case r.progress <- *ev.Progress:
		default:
		}
	}
	if ev.Saved != nil {
		close(r.saved)
	}
}

// awaits waits for an event.
func (r *run) awaits(t *testing.T, seen func(node.Event) bool) {
	t.Helper()
	limit := time.After(waitLimit)
	for k := 0; ; {
		r.mu.Lock()
		for ; k < len(r.events); k++ {
			if seen(r.events[k]) {
				r.mu.Unlock()
				return
			}
		}
		r.mu.Unlock()
		select {
		case <-r.news:
		case <-limit:
			t.Fatalf("the download has not told what it should; it told %s", r.story())
		}
	}
}

func (r *run) wait(t *testing.T) *run {
	t.Helper()
	select {
	case <-r.ended:
	case <-time.After(waitLimit):
		t.Fatalf("the download has not ended; it told %s", r.story())
	}
	return r
}

// result returns the Saved event of a download that must succeed.
func (r *run) result(t *testing.T) *node.Saved {
	t.Helper()
	r.wait(t)
	if r.err != nil {
		t.Fatalf("download: %v; it told %s", r.err, r.story())
	}
	for _, ev := range r.events {
		if ev.Saved != nil {
			return ev.Saved
		}
	}
	t.Fatalf("the download ended without Saved; it told %s", r.story())
	return nil
}

// failure returns the error of a download that must fail, after checking that the
// last event told it.
func (r *run) failure(t *testing.T, exit int) *node.Error {
	t.Helper()
	r.wait(t)
	var e *node.Error
	if !errors.As(r.err, &e) || e.Exit != exit {
		t.Fatalf("got error %v, want one of exit code %d; it told %s", r.err, exit, r.story())
	}
	last := r.events[len(r.events)-1]
	if last.Failed == nil || last.Failed.Exit != exit || last.Failed.Message == "" || last.Failed.Code == "" {
		t.Fatalf("the last event is not the failure; it told %s", r.story())
	}
	return e
}

func (r *run) warnings() (codes []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ev := range r.events {
		if ev.Warning != nil {
			codes = append(codes, ev.Warning.Code)
		}
	}
	return codes
}

func (r *run) started() *node.Start {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ev := range r.events {
		if ev.Start != nil {
			return ev.Start
		}
	}
	return nil
}

// story lists the events for a failing test.
func (r *run) story() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b bytes.Buffer
	for _, ev := range r.events {
		fmt.Fprintf(&b, "\n  %s", ev.Time.Format("05.000"))
		switch {
		case ev.Start != nil:
			fmt.Fprintf(&b, " start %+v", *ev.Start)
		case ev.Progress != nil:
			fmt.Fprintf(&b, " progress %+v", *ev.Progress)
		case ev.Member != nil:
			fmt.Fprintf(&b, " member %+v", *ev.Member)
		case ev.Warning != nil:
			fmt.Fprintf(&b, " warning %+v", *ev.Warning)
		case ev.Saved != nil:
			fmt.Fprintf(&b, " saved %+v", *ev.Saved)
		case ev.Failed != nil:
			fmt.Fprintf(&b, " failed %+v", *ev.Failed)
		case ev.Ended != nil:
			fmt.Fprint(&b, " ended")
		}
	}
	return b.String()
}

// spec returns what a user would ask for to get s into a new folder.
func (s *site) spec(t *testing.T) node.Spec {
	return node.Spec{
		URL: s.url(), Dir: t.TempDir(),
		Timeout: 20 * time.Second, ConnectTimeout: 10 * time.Second, GiveUpAfter: time.Minute, Linger: 30 * time.Second,
	}
}

// check compares a saved file with the origin's.
func (s *site) check(t *testing.T, saved *node.Saved) {
	t.Helper()
	got, err := os.ReadFile(saved.Path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, s.data) {
		t.Errorf("%s has %d bytes that are not the origin's %d", saved.Path, len(got), len(s.data))
	}
	if want := sum(s.data); saved.SHA256 != want || saved.Size != int64(len(s.data)) {
		t.Errorf("saved with sha-256 %s and size %d, want %s and %d", saved.SHA256, saved.Size, want, len(s.data))
	}
	if _, err := os.Lstat(saved.Path + ".part"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the partial file is still there: %v", err)
	}
}

func base64Sum(data []byte) string {
	digest := sha256.Sum256(data)
	return base64.StdEncoding.EncodeToString(digest[:])
}

// time is when the file was last changed.
func (s *site) time() time.Time { return time.Time{} }

func sum(data []byte) string {
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:])
}

// chunked answers with the whole file and names no length.
func (s *site) chunked(w http.ResponseWriter, _ *http.Request) {
	w.(http.Flusher).Flush()
	io.Copy(w, bytes.NewReader(s.data))
}
