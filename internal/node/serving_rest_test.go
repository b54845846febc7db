package node

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/share"
)

// servingAlone is a download that serves a share of a library, with neither machine nor
// room.
func servingAlone(t *testing.T) (d *download, s share.Share) {
	t.Helper()
	library, err := share.Open(share.Options{Path: filepath.Join(t.TempDir(), SharesFile)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := library.Close(); err != nil {
			t.Error(err)
		}
	})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, _, err = library.Add(t.Context(), share.Spec{Path: file, Room: "lab"}, nil); err != nil {
		t.Fatal(err)
	}
	n := &Node{}
	n.sharing.library = library
	d = &download{node: n, serving: &serving{number: s.Number}, links: make(map[piece.NodeID]*link)}
	d.stopping, d.stop = context.WithCancel(t.Context())
	return d, s
}

func TestServing_endsAMinuteAfterItsLastNeighbour(t *testing.T) {
	t.Parallel()
	d, _ := servingAlone(t)
	now := time.Now()
	look := func(in time.Duration, open bool) {
		t.Helper()
		now = now.Add(in)
		d.restServing(now)
		if (d.stopping.Err() == nil) != open {
			t.Fatalf("open: %v", !open)
		}
	}
	look(0, true)
	look(servingIdle-1, true)
	d.links[piece.NodeID{1}] = &link{}
	look(time.Hour, true)
	delete(d.links, piece.NodeID{1})
	look(time.Second, true)
	look(servingIdle-1, true)
	look(1, false)
}

func TestServing_endsWithItsShare(t *testing.T) {
	t.Parallel()
	d, s := servingAlone(t)
	d.links[piece.NodeID{1}] = &link{}
	d.restServing(time.Now())
	if d.stopping.Err() != nil {
		t.Fatal("it ended before")
	}
	if _, err := d.node.sharing.library.Remove(s.Number); err != nil {
		t.Fatal(err)
	}
	d.restServing(time.Now())
	if d.stopping.Err() == nil {
		t.Error("it goes on")
	}
}

func TestServing_isBounded(t *testing.T) {
	t.Parallel()
	d, s := servingAlone(t)
	d.node.serving.open.Store(maxServings)
	if _, err := d.node.serveOffer(&membership{}, offer{share: s}); err == nil {
		t.Error("one more is served")
	}
	if n := d.node.serving.open.Load(); n != maxServings {
		t.Errorf("%d are counted", n)
	}
}
