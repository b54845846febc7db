package rpc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"dragonload/internal/piece"
	nodev1 "dragonload/internal/rpc/gen/dragonload/node/v1"
)

// fakeNode is a LocalNode whose downloads are told what to do by their URL.
type fakeNode struct {
	paused chan struct{} // a download was paused
	flood  int
}

func (n *fakeNode) Download(ctx context.Context, spec *nodev1.Spec, send func(*nodev1.DownloadEvent)) error {
	send(&nodev1.DownloadEvent{Event: &nodev1.DownloadEvent_Start{Start: &nodev1.Start{Url: spec.GetUrl()}}})
	switch spec.GetUrl() {
	case "progress":
		for i := range n.flood {
			send(&nodev1.DownloadEvent{Event: &nodev1.DownloadEvent_Progress{Progress: &nodev1.Progress{Have: int64(i)}}})
		}
	case "warnings":
		for range n.flood {
			send(&nodev1.DownloadEvent{Event: &nodev1.DownloadEvent_Warning{Warning: &nodev1.Problem{Message: strings.Repeat("x", 1000)}}})
		}
		<-ctx.Done()
		close(n.paused)
		return ctx.Err()
	case "wait":
		<-ctx.Done()
		close(n.paused)
		return ctx.Err()
	case "error":
		return errors.New("open /secret/path: no")
	}
	send(&nodev1.DownloadEvent{Event: &nodev1.DownloadEvent_Ended{Ended: &nodev1.Ended{}}})
	return nil
}

func (n *fakeNode) Status(context.Context) (*nodev1.StatusResponse, error) {
	return &nodev1.StatusResponse{Version: "test"}, nil
}

func (n *fakeNode) ReloadRooms(context.Context) error { return nil }

func (n *fakeNode) LeaveRoom(_ context.Context, name string) error {
	if name != "lab" {
		return ErrStoreAway
	}
	return nil
}

func TestLocal_leaveRoomCarriesWhyNot(t *testing.T) {
	t.Parallel()
	dir, _ := serveLocal(t, &fakeNode{})
	c, err := DialLocal(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.LeaveRoom(t.Context(), "lab"); err != nil {
		t.Error(err)
	}
	if err := c.LeaveRoom(t.Context(), "home"); !errors.Is(err, ErrStoreAway) {
		t.Errorf("another room: %v", err)
	}
}

func (n *fakeNode) Unfinished(context.Context, string) (*nodev1.Unfinished, error) { return nil, nil }

func (n *fakeNode) Finished(context.Context, string) (*nodev1.Finished, error) { return nil, nil }

func (n *fakeNode) Share(_ context.Context, req *nodev1.ShareRequest, send func(*nodev1.ShareEvent)) error {
	for i := range n.flood {
		send(&nodev1.ShareEvent{Event: &nodev1.ShareEvent_Hashed{Hashed: &nodev1.Hashed{Done: int64(i)}}})
	}
	send(&nodev1.ShareEvent{Event: &nodev1.ShareEvent_Shared{Shared: &nodev1.Shared{Path: req.GetPath()}}})
	return nil
}

func (n *fakeNode) Unshare(_ context.Context, what, room string) ([]*nodev1.Shared, error) {
	return []*nodev1.Shared{{Path: what, Room: room}}, nil
}

func (n *fakeNode) Shares(context.Context) ([]*nodev1.Shared, error) {
	var all []*nodev1.Shared
	for range n.flood {
		all = append(all, &nodev1.Shared{Path: strings.Repeat("x", 1000)})
	}
	return all, nil
}

func (n *fakeNode) Manifest(_ context.Context, what string) ([]*nodev1.Shared, []byte, error) {
	return []*nodev1.Shared{{Path: what}}, make([]byte, n.flood), nil
}

func (n *fakeNode) Search(_ context.Context, req *nodev1.SearchRequest) ([]*nodev1.Found, bool, error) {
	var found []*nodev1.Found
	for range 3*foundAtOnce + 1 {
		found = append(found, &nodev1.Found{Name: req.GetWords()[0]})
	}
	return found, true, nil
}

func TestLocal_carriesShares(t *testing.T) {
	t.Parallel()
	dir, _ := serveLocal(t, &fakeNode{flood: 1_000_000})
	c, err := DialLocal(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var last *nodev1.ShareEvent
	err = c.Share(t.Context(), &nodev1.ShareRequest{Path: "/a"}, func(e *nodev1.ShareEvent) error { last = e; return nil })
	if err != nil || last.GetShared().GetPath() != "/a" {
		t.Errorf("the last event of a share is %v: %v", last, err)
	}
	if gone, err := c.Unshare(t.Context(), "/a", "lab"); err != nil || len(gone) != 1 || gone[0].GetRoom() != "lab" {
		t.Errorf("unshared %v: %v", gone, err)
	}
	if found, more, err := c.Search(t.Context(), &nodev1.SearchRequest{Words: []string{"film"}}); err != nil || len(found) != 3*foundAtOnce+1 || !more || found[0].GetName() != "film" {
		t.Errorf("found %d, more %v: %v", len(found), more, err)
	}
	if _, text, err := c.Manifest(t.Context(), "/a"); err != nil || len(text) != 1_000_000 {
		t.Errorf("a manifest of %d bytes came: %v", len(text), err)
	}
	dir, _ = serveLocal(t, &fakeNode{flood: 20_000})
	many, err := DialLocal(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer many.Close()
	if all, err := many.Shares(t.Context()); err != nil || len(all) != 20_000 {
		t.Errorf("%d shares came: %v", len(all), err)
	}
}

func (n *fakeNode) RemoveMember(_ context.Context, room, member string) ([]Member, uint64, error) {
	if room != "lab" {
		return nil, 0, ErrNoAuthority
	}
	return []Member{{ID: piece.NodeID{7}, Name: member, Removed: true}}, 3, nil
}

func TestLocal_removeMemberCarriesWhoIsMeant(t *testing.T) {
	t.Parallel()
	dir, _ := serveLocal(t, &fakeNode{})
	c, err := DialLocal(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, epoch, err := c.RemoveMember(t.Context(), "lab", "host")
	if err != nil || epoch != 3 || len(got) != 1 || got[0] != (Member{ID: piece.NodeID{7}, Name: "host", Removed: true}) {
		t.Errorf("%v, epoch %d, %v", got, epoch, err)
	}
	if _, _, err := c.RemoveMember(t.Context(), "home", "host"); !errors.Is(err, ErrNoAuthority) {
		t.Errorf("another room: %v", err)
	}
}

// serveLocal runs a local API until the test ends or the returned function is called.
func serveLocal(t *testing.T, n LocalNode) (dir string, stop func()) {
	t.Helper()
	dir = t.TempDir()
	s, err := ListenLocal(dir, n, maxLocalConns, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
	t.Cleanup(stop)
	return dir, stop
}

func dialLocal(t *testing.T, dir string) *LocalClient {
	t.Helper()
	c, err := DialLocal(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestLocal_carriesADownloadToItsEnd(t *testing.T) {
	t.Parallel()
	dir, _ := serveLocal(t, &fakeNode{flood: 100_000})
	c := dialLocal(t, dir)
	var last *nodev1.DownloadEvent
	have, events := int64(-1), 0
	err := c.Download(t.Context(), &nodev1.Spec{Url: "progress"}, func(e *nodev1.DownloadEvent) error {
		last = e
		events++
		if p := e.GetProgress(); p != nil {
			if p.Have <= have {
				t.Errorf("progress %d after %d", p.Have, have)
			}
			have = p.Have
		}
		return nil
	})
	if err != nil || last.GetEnded() == nil || have != 99_999 {
		t.Errorf("ended with %v, last event %v, progress %d", err, last, have)
	}
	status, err := c.Status(t.Context())
	if err != nil || status.GetVersion() != "test" {
		t.Errorf("status %v, %v", status, err)
	}
	if err := c.ReloadRooms(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLocal_closingTheStreamPausesTheDownload(t *testing.T) {
	t.Parallel()
	n := &fakeNode{paused: make(chan struct{})}
	dir, _ := serveLocal(t, n)
	enough := errors.New("enough")
	err := dialLocal(t, dir).Download(t.Context(), &nodev1.Spec{Url: "wait"}, func(*nodev1.DownloadEvent) error { return enough })
	if !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
	<-n.paused
}

func TestLocal_stoppingTheNodeEndsItsCallsAndRemovesTheFile(t *testing.T) {
	t.Parallel()
	n := &fakeNode{paused: make(chan struct{})}
	dir, stop := serveLocal(t, n)
	c := dialLocal(t, dir)
	started := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- c.Download(context.Background(), &nodev1.Spec{Url: "wait"}, func(*nodev1.DownloadEvent) error {
			close(started)
			return nil
		})
	}()
	<-started
	stop()
	if err := <-done; err == nil {
		t.Error("the caller was not told that the download did not end")
	}
	<-n.paused
	if _, err := DialLocal(t.Context(), dir); !errors.Is(err, ErrNoNode) {
		t.Errorf("dial after the end: %v, want ErrNoNode", err)
	}
}

func TestLocal_callerThatDoesNotReadIsCutOff(t *testing.T) {
	t.Parallel()
	n := &fakeNode{paused: make(chan struct{}), flood: 20_000}
	dir, _ := serveLocal(t, n)
	release := make(chan struct{})
	done := make(chan error, 1)
	c := dialLocal(t, dir)
	go func() {
		done <- c.Download(t.Context(), &nodev1.Spec{Url: "warnings"}, func(*nodev1.DownloadEvent) error {
			<-release
			return nil
		})
	}()
	<-n.paused
	close(release)
	if err := <-done; err == nil {
		t.Error("the caller was not told")
	}
}

func TestLocal_textOfErrorsStaysBehind(t *testing.T) {
	t.Parallel()
	dir, _ := serveLocal(t, &fakeNode{})
	err := dialLocal(t, dir).Download(t.Context(), &nodev1.Spec{Url: "error"}, func(*nodev1.DownloadEvent) error { return nil })
	if !errors.Is(err, ErrInternal) || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

func TestLocal_fileIsForItsUserAlone(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("on Windows the folder's access list does it")
	}
	dir, _ := serveLocal(t, &fakeNode{})
	info, err := os.Stat(filepath.Join(dir, localFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", info.Mode(), err)
	}
}

func TestLocal_refusesWhatAWebPageCouldAsk(t *testing.T) {
	t.Parallel()
	dir, _ := serveLocal(t, &fakeNode{})
	l, err := readLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr)
	token := "Bearer " + l.Token
	for name, c := range map[string]struct {
		host, origin, token string
		status              int
	}{
		"as it should be":     {l.Addr, "", token, http.StatusOK},
		"name for loopback":   {"localhost:" + port, "", token, http.StatusMisdirectedRequest},
		"name of another":     {"evil.example:" + port, "", token, http.StatusMisdirectedRequest},
		"address of another":  {"10.0.0.1:" + port, "", token, http.StatusMisdirectedRequest},
		"no port":             {"127.0.0.1", "", token, http.StatusMisdirectedRequest},
		"page of another":     {l.Addr, "https://evil.example", token, http.StatusForbidden},
		"page of nobody":      {l.Addr, "null", token, http.StatusForbidden},
		"no token":            {l.Addr, "", "", http.StatusUnauthorized},
		"wrong token":         {l.Addr, "", "Bearer " + strings.Repeat("0", 64), http.StatusUnauthorized},
		"token without words": {l.Addr, "", l.Token, http.StatusUnauthorized},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
			"http://"+l.Addr+"/dragonload.node.v1.NodeService/Status", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		req.Header.Set("Content-Type", "application/json")
		if c.origin != "" {
			req.Header.Set("Origin", c.origin)
		}
		if c.token != "" {
			req.Header.Set("Authorization", c.token)
		}
		answer, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != c.status {
			t.Errorf("%s: status %d, want %d; %s", name, answer.StatusCode, c.status, body)
		}
		if strings.Contains(string(body), l.Token) {
			t.Errorf("%s: the answer tells the token", name)
		}
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

func TestDialLocal_sendsNoTokenToAProgramThatHasThePortNow(t *testing.T) {
	t.Parallel()
	// A node was killed; its file is still there and its port is somebody else's.
	seen := make(chan string, 10)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Get("Authorization") + r.URL.String()
		io.WriteString(w, strings.Repeat("0", 64))
	})}
	done := make(chan struct{})
	go func() {
		server.Serve(listener)
		close(done)
	}()
	defer func() { server.Close(); <-done }()
	dir := t.TempDir()
	l := newLocal(listener.Addr().String())
	if err := l.write(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := DialLocal(t.Context(), dir); !errors.Is(err, ErrNoNode) {
		t.Errorf("got %v, want ErrNoNode", err)
	}
	if got := <-seen; strings.Contains(got, l.Token) {
		t.Errorf("the token was sent: %s", got)
	}
}

func TestDialLocal_tellsWhyThereIsNoNode(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	dir := t.TempDir()
	if _, err := DialLocal(t.Context(), dir); !errors.Is(err, ErrNoNode) {
		t.Errorf("no file: %v", err)
	}
	if err := newLocal(listener.Addr().String()).write(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := DialLocal(t.Context(), dir); !errors.Is(err, ErrNoNode) {
		t.Errorf("nobody listens: %v", err)
	}
	for _, bad := range []string{"", "{", `{"addr":"10.0.0.1:1","token":"` + strings.Repeat("0", 64) + `"}`, `{"addr":"127.0.0.1:1"}`} {
		if err := os.WriteFile(filepath.Join(dir, localFile), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := DialLocal(t.Context(), dir); err == nil {
			t.Errorf("%q was believed", bad)
		}
	}
}
