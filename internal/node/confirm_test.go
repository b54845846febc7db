package node_test

import (
	"fmt"
	"testing"
	"time"

	"dragonload/internal/node"
	"dragonload/internal/peer/peertest"
	"dragonload/internal/piece"

	"golang.org/x/time/rate"
)

func silent(piece.Index, piece.Digest) []piece.Digest { return nil }

// Two of three members state each piece alike, whatever a fourth one says.
func TestRoom_aFileConfirmedByTwo(t *testing.T) {
	t.Parallel()
	for name, cheat := range map[string]*peertest.Options{
		"honest":          nil,
		"a liar":          {Bytes: zeros, State: ofZeros},
		"wrong digests":   {State: wrongly},
		"states nothing":  {State: silent},
		"sends no pieces": {Send: peertest.Silence},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 4<<20)
			s.set(func() { s.perConn = rate.Limit(1 << 20) })
			b := newLab(t)
			nodes := []*node.Node{b.run()}
			for i := range 2 {
				nodes = append(nodes, start(t, b.join(fmt.Sprintf("honest-%d", i)).options()))
			}
			if cheat != nil {
				b.cheat(s, *cheat)
			}
			var runs []*run
			for _, n := range nodes {
				spec := s.roomSpec(t)
				spec.Confirm = 2
				runs = append(runs, download(t, t.Context(), n, spec))
			}
			confirmed := 0
			for _, r := range runs {
				saved := r.result(t)
				s.check(t, saved)
				switch saved.Checked {
				case "confirmed-2":
					confirmed++
				case "origin": // it has read everything itself, which is more
				default:
					t.Errorf("checked=%s; it told %s", saved.Checked, r.story())
				}
			}
			if cheat == nil && confirmed == 0 {
				t.Error("checked=confirmed-2 for nobody")
			}
			if sent, size := s.sent.Load(), int64(len(s.data)); sent < 2*size || cheat == nil && sent > 2*size+size/4 {
				t.Errorf("the origin sent %d bytes of a file of %d, want about twice as many", sent, size)
			}
		})
	}
}

// One member alone cannot confirm its own word.
func TestRoom_nobodyElseToConfirm(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1<<20)
	b := newLab(t)
	spec := s.roomSpec(t)
	spec.Confirm, spec.GiveUpAfter = 2, 4*time.Second
	up := b.run()
	r := download(t, t.Context(), up, spec)
	if err := r.failure(t, node.ExitTimeout); err.Code != "unconfirmed" {
		t.Errorf("failed with %s: %s", err.Code, err.Message)
	}
	if codes := r.warnings(); len(codes) == 0 || codes[0] != "confirm-short" {
		t.Errorf("warned of %v, want confirm-short", codes)
	}
	// The work is kept: another one that reads the file too completes it.
	sent := s.sent.Load()
	spec.GiveUpAfter = time.Minute
	first := download(t, t.Context(), up, spec)
	second := s.roomSpec(t)
	second.Confirm = 2
	other := download(t, t.Context(), start(t, b.join("other").options()), second)
	s.check(t, first.result(t))
	s.check(t, other.result(t))
	if again := s.sent.Load() - sent; again > int64(len(s.data))*5/4 {
		t.Errorf("the origin sent %d bytes more, want the file once", again)
	}
}
