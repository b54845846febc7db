package etcdstate_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"dragonload/internal/swarm"
	"dragonload/internal/tracker/etcdstate"
)

// owners is a replica's, running until the test or stop ends it.
type owners struct {
	*etcdstate.Owners
	stop func()
	lost chan swarm.PoolID
}

func runOwners(t *testing.T, s *etcdstate.State, addr string) *owners {
	t.Helper()
	o := &owners{lost: make(chan swarm.PoolID, 8)}
	o.Owners = s.NewOwners(addr, func(pool swarm.PoolID) { o.lost <- pool })
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { o.Run(ctx) })
	o.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(o.stop)
	return o
}

func (o *owners) claim(t *testing.T, pool swarm.PoolID, want string) {
	t.Helper()
	if elsewhere, err := o.Claim(t.Context(), pool); err != nil || elsewhere != want {
		t.Errorf("a claim of pool %x says %q, %v; want %q", pool[:1], elsewhere, err, want)
	}
}

func idle() bool { return true }

func TestOwners_oneReplicaAtATime(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	first, second := open(t, c, "/site/"), open(t, c, "/site/")
	defer first.Close()
	defer second.Close()
	a, b := runOwners(t, first, "a.example:4100"), runOwners(t, second, "b.example:4100")
	one, two := swarm.PoolID{1}, swarm.PoolID{2}
	a.claim(t, one, "")
	a.claim(t, one, "")
	b.claim(t, one, "a.example:4100")
	b.claim(t, two, "")
	a.claim(t, two, "b.example:4100")

	a.Release(t.Context(), one, func() bool { return false }) // somebody came meanwhile
	b.claim(t, one, "a.example:4100")
	b.Release(t.Context(), one, idle) // which is not its own
	b.claim(t, one, "a.example:4100")
	a.Release(t.Context(), one, idle)
	b.claim(t, one, "")
	a.claim(t, one, "b.example:4100")

	// A clean end gives back at once, another replica's claims stay.
	a.claim(t, swarm.PoolID{3}, "")
	b.stop()
	a.claim(t, one, "")
	a.claim(t, two, "")
	again := runOwners(t, second, "b.example:4100")
	again.claim(t, swarm.PoolID{3}, "a.example:4100")
}

// TestOwners_aReplicaThatIsGone loses its pools when its lease ends, and takes up its own
// again if it is started before that.
func TestOwners_aReplicaThatIsGone(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	second := open(t, c, "/site/")
	defer second.Close()
	b := runOwners(t, second, "b.example:4100")
	pool := swarm.PoolID{1}
	for range 2 { // the second one begins before the first one's lease has ended
		gone := open(t, c, "/site/")
		lone := gone.NewOwners("a.example:4100", nil) // nobody keeps its lease
		if elsewhere, err := lone.Claim(t.Context(), pool); elsewhere != "" || err != nil {
			t.Fatalf("%q, %v", elsewhere, err)
		}
		if err := gone.Close(); err != nil {
			t.Fatal(err)
		}
	}
	b.claim(t, pool, "a.example:4100")
	began := time.Now()
	for {
		elsewhere, err := b.Claim(t.Context(), pool)
		if err != nil {
			t.Fatal(err)
		}
		if elsewhere == "" {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatal("the pool of a replica that is gone is not taken over")
		}
	}
	t.Logf("taken over after %v", time.Since(began))
}

// TestOwners_goOnWithoutEtcd has the cluster lose its majority: pools and new ones are
// worked on, and whose they are is settled when it is back.
func TestOwners_goOnWithoutEtcd(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	first, second := open(t, c, "/site/"), open(t, c, "/site/")
	defer first.Close()
	defer second.Close()
	a, b := runOwners(t, first, "a.example:4100"), runOwners(t, second, "b.example:4100")
	one, two := swarm.PoolID{1}, swarm.PoolID{2}
	a.claim(t, one, "")
	c.servers[0].kill()
	c.servers[1].kill()
	a.claim(t, one, "")
	a.claim(t, two, "")
	b.claim(t, two, "")
	for _, s := range c.servers[:2] {
		for k, arg := range s.args {
			if arg == "new" {
				s.args[k] = "existing"
			}
		}
		s.start(t)
	}
	c.await(t)
	// One of the two leaves pool 2 to the other.
	late := time.After(time.Minute)
	select {
	case pool := <-a.lost:
		if pool != two {
			t.Errorf("pool %x is lost", pool[:1])
		}
		b.claim(t, two, "")
		a.claim(t, two, "b.example:4100")
	case pool := <-b.lost:
		if pool != two {
			t.Errorf("pool %x is lost", pool[:1])
		}
		a.claim(t, two, "")
		b.claim(t, two, "a.example:4100")
	case <-late:
		t.Fatal("two replicas go on with one pool")
	}
}
