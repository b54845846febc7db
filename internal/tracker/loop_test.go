package tracker

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/rpc"
	poolv1 "dragonload/internal/rpc/gen/dragonload/pool/v1"
	"dragonload/internal/swarm"
)

// A session whose member does not read is cut when its queue is full, in the middle of
// carrying out what the machine ordered, and the machine hears of it at once.
func TestShard_memberThatDoesNotReadIsCutAndItsWorkGoesToOthers(t *testing.T) {
	t.Parallel()
	sh := newShard(swarm.NewTracker(swarm.TrackerOptions{}, rand.New(rand.NewPCG(1, 1))), newBoard(), time.Now(), slog.New(slog.DiscardHandler))
	var cause error
	slow := &session{
		member: piece.NodeID{1},
		out:    make(chan *poolv1.SessionResponse, 1), // room for Welcome, not for Probe
		cut:    func(err error) { cause = err },
	}
	sh.take(heard{session: slow, message: swarm.Announce{Addr: "h:1", Fetches: true, Wants: true}})
	if !errors.Is(cause, rpc.ErrTooMany) {
		t.Fatalf("cut with %v, want ErrTooMany", cause)
	}
	// What its reader still hands over is of no interest any more.
	sh.take(heard{session: slow, message: swarm.Report{}})
	sh.take(heard{session: slow})
	other := &session{member: piece.NodeID{2}, out: make(chan *poolv1.SessionResponse, 9), cut: func(error) {}}
	sh.take(heard{session: other, message: swarm.Announce{Addr: "h:2", Fetches: true, Wants: true}})
	close(other.out)
	probed := false
	for x := range other.out {
		if x.GetHandout() != nil {
			t.Error("the member that was cut is handed out")
		}
		probed = probed || x.GetProbe() != nil
	}
	if !probed {
		t.Error("the other member was not asked to probe")
	}
}
