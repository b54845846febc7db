package tracker

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/rpc"
	poolv1 "dragonload/internal/rpc/gen/dragonload/pool/v1"
	"dragonload/internal/swarm"
)

// A member that is told to come back has nothing more to say in that session, and its place
// there is free: what it says all the same moves nobody back in the queue.
func TestShard_memberThatIsToldToComeBackIsHeardInItsNextSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		machine := swarm.NewTracker(swarm.TrackerOptions{JoinRate: 1, JoinBurst: 1}, rand.New(rand.NewPCG(1, 1)))
		sh := newShard(machine, newBoard(), time.Now(), slog.New(slog.DiscardHandler))
		open := func(n byte) *session {
			return &session{member: piece.NodeID{n}, out: make(chan *poolv1.SessionResponse, 9), cut: func(error) {}}
		}
		announce := swarm.Announce{Addr: "h:1", Fetches: true, Wants: true}
		first, second := open(1), open(2)
		sh.take(heard{session: first, message: announce})
		if x := <-first.out; x.GetWelcome() == nil {
			t.Fatalf("the first is told %v", x)
		}
		sh.take(heard{session: second, message: announce})
		x := <-second.out
		if x.GetComeBack() == nil {
			t.Fatalf("the second is told %v", x)
		}
		for range 100 {
			sh.take(heard{session: second, message: announce})
		}
		sh.take(heard{session: second})
		if len(second.out) > 0 || len(sh.sessions) != 1 {
			t.Errorf("%d answers more, %d sessions", len(second.out), len(sh.sessions))
		}
		time.Sleep(time.Duration(x.GetComeBack().GetInMs()) * time.Millisecond)
		again := open(2)
		announce.Queued = true
		sh.take(heard{session: again, message: announce})
		if x := <-again.out; x.GetWelcome() == nil {
			t.Errorf("told %v after having queued", x)
		}
	})
}

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
