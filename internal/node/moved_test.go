package node_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"dragonload/internal/node"
)

// A signed URL has another query each time: what was begun with one is gone on with by the
// next, if that has the very version that was recorded, and is left alone if not.
func TestDownload_goesOnWithAnotherURLOfTheSameVersion(t *testing.T) {
	t.Parallel()
	for name, named := range map[string]bool{"named by the user": true, "named by the URL": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for where, room := range map[string]string{"alone": "", "in a room": "lab"} {
				t.Run(where, func(t *testing.T) {
					t.Parallel()
					s, n, spec := begunElsewhere(t, room, named)
					before := s.sent.Load()
					spec.URL = s.url() + "?signature=2"
					r := download(t, t.Context(), n, spec)
					s.check(t, r.result(t))
					kept := r.started().Resumed
					if kept < 2<<20 {
						t.Errorf("%d bytes were gone on with, want 2 MiB at least", kept)
					}
					if again, missing := s.sent.Load()-before, int64(len(s.data))-kept; again > missing+missing/50+64<<10 {
						t.Errorf("the origin sent %d bytes more, want %d", again, missing)
					}
				})
			}
		})
	}
}

func TestDownload_leavesThePartialFileOfAnotherURL(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*site){
		"of another version":  func(s *site) { s.etag = `"v2"` },
		"of a weak validator": func(s *site) { s.etag = `W/"v1"` },
		"without a validator": func(s *site) { s.etag = "" },
		"of another size":     func(s *site) { s.data = s.data[:len(s.data)-1] },
		"without ranges":      func(s *site) { s.handle = s.chunked },
		"of another, and -c":  func(s *site) { s.etag = `"v2"` },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, n, spec := begunElsewhere(t, "", true)
			part, err := os.ReadFile(spec.Output + ".part")
			if err != nil {
				t.Fatal(err)
			}
			s.set(func() { change(s) })
			spec.URL = s.url() + "?signature=2"
			spec.Continue = strings.Contains(name, "-c")
			r := download(t, t.Context(), n, spec)
			e := r.failure(t, node.ExitCannotCreate)
			if e.Code != "other-address" || !strings.Contains(e.Message, "holds a download of another address") || !strings.Contains(e.Message, "--restart") {
				t.Errorf("got %s: %s", e.Code, e.Message)
			}
			if slices.Contains(r.warnings(), "origin-changed") || slices.Contains(r.warnings(), "begun-anew") {
				t.Errorf("the user was told that something was dropped: %s", r.story())
			}
			if now, err := os.ReadFile(spec.Output + ".part"); err != nil || string(now) != string(part) {
				t.Errorf("the partial file was changed: %v", err)
			}
			spec.Restart, spec.Continue = true, false
			s.check(t, download(t, t.Context(), n, spec).result(t))
		})
	}
}

// begunElsewhere returns a download that was stopped midway, begun with another URL than
// s.url, and the node that it was begun on.
func begunElsewhere(t *testing.T, room string, named bool) (*site, *node.Node, node.Spec) {
	t.Helper()
	s := newSite(t, 8<<20)
	var n *node.Node
	if room != "" {
		n = newLab(t).run()
	} else {
		n = start(t, node.Options{})
	}
	spec := s.spec(t)
	spec.URL, spec.Room = s.url()+"?signature=1", room
	if named {
		spec.Output = spec.Dir + "/mine.iso"
	}
	s.set(func() { s.perConn = 4 << 20 })
	ctx, stop := context.WithCancel(t.Context())
	r := download(t, ctx, n, spec)
	r.awaits(t, func(ev node.Event) bool { return ev.Progress != nil && ev.Progress.Have >= 2<<20 })
	stop()
	r.failure(t, node.ExitStopped)
	s.set(func() { s.perConn = 0 })
	s.serving.Wait()
	return s, n, spec
}
