package node_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"dragonload/internal/node"
	"dragonload/internal/tracker"
)

// host starts a member's node that can take the tracker's place, as every node of the
// program can. The returned function ends it.
func (b *lab) host(m machine) (*node.Node, func()) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	service := tracker.NewService(tracker.Options{
		State: b.telling(tracker.NewMemory()), Rooms: m.keyring, Self: m.folder.Identity().ID, Log: testLog(b.t), Seed: 1,
	})
	var running sync.WaitGroup
	running.Go(func() {
		if err := service.Run(ctx); err != nil {
			b.t.Errorf("the tracker's service ended with %v", err)
		}
	})
	o := m.options()
	o.Tracker = service
	n, stop := startStoppable(b.t, o)
	end := sync.OnceFunc(func() {
		cancel()
		stop()
		running.Wait()
	})
	b.t.Cleanup(end)
	return n, end
}

// told returns the message of the first warning with a code, "" if there is none.
func (r *run) told(code string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ev := range r.events {
		if ev.Warning != nil && ev.Warning.Code == code {
			return ev.Warning.Message
		}
	}
	return ""
}

// waitTold waits for a warning, or for the download's end.
func (r *run) waitTold(t *testing.T, code string) string {
	t.Helper()
	limit := time.After(waitLimit)
	for r.told(code) == "" {
		select {
		case <-r.progress:
		case <-r.ended:
			return r.told(code)
		case <-limit:
			t.Fatalf("no warning %s; it told %s", code, r.story())
		}
	}
	return r.told(code)
}

// TestSuccessor_takesTheTrackersPlace ends the machine of the tracker, which works on
// the download too, at several moments. The others finish; they have one of them for
// their tracker, all the same one, and little is fetched twice.
func TestSuccessor_takesTheTrackersPlace(t *testing.T) {
	t.Parallel()
	const size = 16 << 20
	for _, at := range []int64{1 << 20, size / 4, size / 2} {
		t.Run(fmt.Sprintf("after %d MiB", at>>20), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, size)
			s.set(func() { s.perConn = 256 << 10 })
			b := newLab(t)
			up := b.run()
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			first := download(t, ctx, up, s.roomSpec(t))
			var runs []*run
			names := map[string]bool{"this machine": true}
			for i := range 3 {
				name := fmt.Sprintf("member-%d", i)
				names[name] = true
				n, _ := b.host(b.join(name))
				runs = append(runs, download(t, t.Context(), n, s.roomSpec(t)))
			}
			first.until(t, at)
			b.stop()
			first.wait(t)
			hosts, others := 0, map[string]bool{}
			for _, r := range runs {
				who, _, ok := strings.Cut(strings.TrimPrefix(r.waitTold(t, "tracker-moved"), "the tracker is away; "), " takes")
				switch {
				case !ok || !names[who]:
					t.Errorf("got %q for the warning tracker-moved; it told %s", who, r.story())
				case who == "this machine":
					hosts++
				default:
					others[who] = true
				}
				if r.told("tracker-away") == "" {
					t.Errorf("no warning tracker-away; it told %s", r.story())
				}
			}
			if hosts != 1 || len(others) != 1 {
				t.Errorf("%d members take the tracker's place, and the others have %v", hosts, others)
			}
			for _, r := range runs {
				s.check(t, r.result(t))
			}
			if sent := s.sent.Load(); sent > size*125/100 {
				t.Errorf("the origin sent %d bytes of a file of %d", sent, size)
			}
		})
	}
}

// TestSuccessor_givesThePlaceBack lets the tracker come back, at the same address and with
// nothing of what it knew.
func TestSuccessor_givesThePlaceBack(t *testing.T) {
	t.Parallel()
	s := newSite(t, 16<<20)
	s.set(func() { s.perConn = 128 << 10 })
	b := newLab(t)
	b.run()
	var runs []*run
	for i := range 2 {
		n, _ := b.host(b.join(fmt.Sprintf("member-%d", i)))
		runs = append(runs, download(t, t.Context(), n, s.roomSpec(t)))
	}
	runs[0].until(t, 1<<20)
	b.stop()
	for _, r := range runs {
		r.waitTold(t, "tracker-moved")
	}
	s.set(func() { s.perConn = 1 << 20 })
	b.run()
	for _, r := range runs {
		if r.waitTold(t, "tracker-back") == "" {
			t.Errorf("the room's own tracker was not found again; it told %s", r.story())
		}
		s.check(t, r.result(t))
	}
}
