package node_test

import (
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dragonload/internal/node"
	"dragonload/internal/origin"
)

// helperOptions are those of a node that lends in the room, allowed to fetch from
// origins at, and the channel of what it tells.
func (m machine) helperOptions(t *testing.T, at ...string) (node.Options, chan node.LendEvent) {
	t.Helper()
	told := make(chan node.LendEvent, 100)
	o := m.options()
	o.Serve, o.KeepServing = true, true
	o.Lend = &node.LendOptions{
		Rooms: []string{"lab"}, Allow: map[string][]origin.Allowed{}, Folder: filepath.Join(t.TempDir(), "cache", "lend"),
		Cache: 1 << 30, Tell: func(ev node.LendEvent) { told <- ev },
	}
	for _, s := range at {
		a, err := origin.ParseAllowed(strings.TrimPrefix(s, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		o.Lend.Allow["lab"] = append(o.Lend.Allow["lab"], a)
	}
	return o, told
}

// lentEvent waits for the next thing that a helper tells.
func lentEvent(t *testing.T, told <-chan node.LendEvent) node.LendEvent {
	t.Helper()
	select {
	case ev := <-told:
		return ev
	case <-time.After(waitLimit):
		t.Fatal("the helper tells nothing")
		return node.LendEvent{}
	}
}

func TestLend_fetchesForAPoolAndLeaves(t *testing.T) {
	t.Parallel()
	s := newSite(t, 24<<20)
	s.set(func() { s.perConn = 2 << 20 })
	b := newLab(t)
	b.run()
	o, told := b.join("helper").helperOptions(t, s.URL)
	// What an earlier run left is gone before anything else.
	if err := os.MkdirAll(filepath.Join(o.Lend.Folder, "old"), 0o700); err != nil {
		t.Fatal(err)
	}
	start(t, o)
	if _, err := os.Lstat(filepath.Join(o.Lend.Folder, "old")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder was not emptied: %v", err)
	}
	if info, err := os.Lstat(o.Lend.Folder); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v, %v", info, err)
	}
	asker := b.join("asker")
	saved := download(t, t.Context(), start(t, asker.options()), s.roomSpec(t)).result(t)
	s.check(t, saved)
	if begun := lentEvent(t, told); begun.Result != "" || begun.Asker != asker.folder.Identity().ID || begun.URL != s.url() || begun.Room != "lab" {
		t.Errorf("told %+v", begun)
	}
	done := lentEvent(t, told)
	if done.Result != "done" || done.UploadedBytes == 0 || done.OriginBytes < saved.PeerBytes || saved.PeerBytes == 0 {
		t.Errorf("told %+v of a download that got %d bytes", done, saved.PeerBytes)
	}
	if sent, size := s.sent.Load(), int64(len(s.data)); sent > size*115/100 {
		t.Errorf("the origin sent %d bytes for a file of %d", sent, size)
	}
	if left, err := os.ReadDir(o.Lend.Folder); err != nil || len(left) > 0 {
		t.Errorf("the helper keeps %v, %v", left, err)
	}
}

// The asker reaches the origin through a proxy, so that every other connection that the
// origin sees is the helper's.
func TestLend_blockedHelperMakesNoConnection(t *testing.T) {
	t.Parallel()
	s := newSite(t, 8<<20)
	s.set(func() { s.perConn = 2 << 20 })
	var came, passed atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			came.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	transport := &http.Transport{DisableKeepAlives: true}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		passed.Add(1)
		r.RequestURI = ""
		answer, err := transport.RoundTrip(r)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		for name, values := range answer.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.StatusCode)
		buf := make([]byte, 64<<10)
		for {
			n, err := answer.Body.Read(buf)
			if _, failed := w.Write(buf[:n]); err != nil || failed != nil {
				return
			}
		}
	}))
	t.Cleanup(proxy.Close)

	b := newLab(t)
	b.run()
	o, told := b.join("helper").helperOptions(t)
	start(t, o)
	spec := s.roomSpec(t)
	spec.MaxConnections = 1 // long enough for the helper to be asked
	spec.URL, spec.Proxy = server.URL+"/files/image.iso", proxy.URL
	saved := download(t, t.Context(), start(t, b.join("asker").options()), spec).result(t)
	s.check(t, saved)
	if ev := lentEvent(t, told); ev.Result != "blocked" || ev.OriginBytes != 0 {
		t.Errorf("the helper tells %+v, want blocked", ev)
	}
	if came.Load() != passed.Load() || saved.PeerBytes != 0 {
		t.Errorf("%d connections came, %d of them from the asker, which got %d bytes from peers", came.Load(), passed.Load(), saved.PeerBytes)
	}
}

func TestLend_holdsNoMoreThanItMay(t *testing.T) {
	t.Parallel()
	s := newSite(t, 16<<20)
	s.set(func() { s.perConn = 2 << 20 })
	b := newLab(t)
	b.run()
	o, told := b.join("helper").helperOptions(t, s.URL)
	o.Lend.Cache = 1 << 20
	start(t, o)
	saved := download(t, t.Context(), start(t, b.join("asker").options()), s.roomSpec(t)).result(t)
	s.check(t, saved)
	lentEvent(t, told)
	done := lentEvent(t, told)
	if done.Result != "done" || done.UploadedBytes == 0 || done.UploadedBytes > 1<<20 || saved.PeerBytes > 1<<20 {
		t.Errorf("told %+v of a download that got %d bytes from it, want at most its cache of 1 MiB", done, saved.PeerBytes)
	}
}

func TestLend_givesWayToADownloadOfItsOwn(t *testing.T) {
	t.Parallel()
	s := newSite(t, 16<<20)
	s.set(func() { s.perConn = 1 << 20 })
	b := newLab(t)
	b.run()
	o, told := b.join("helper").helperOptions(t, s.URL)
	helper := start(t, o)
	asker := download(t, t.Context(), start(t, b.join("asker").options()), s.roomSpec(t))
	lentEvent(t, told)
	own := download(t, t.Context(), helper, s.roomSpec(t))
	s.check(t, own.result(t))
	s.check(t, asker.result(t))
	if ev := lentEvent(t, told); ev.Result != "stopped" {
		t.Errorf("told %+v, want stopped", ev)
	}
}

func TestLend_refusesARoomThatItIsNotIn(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	o, _ := m.helperOptions(t)
	n, err := node.New(o)
	if err != nil {
		t.Fatal(err)
	}
	var e *node.Error
	if err := n.Run(t.Context(), nil); !errors.As(err, &e) || e.Exit != node.ExitRoom {
		t.Errorf("%v, want exit %d", err, node.ExitRoom)
	}
}
