package etcdstate

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"dragonload/internal/swarm"
	"dragonload/internal/tracker"
)

const (
	// ownerTTL is how long a replica owns its pools without a word of it. Its members come
	// back to another one meanwhile, and are in work again within five seconds.
	ownerTTL = 3 * time.Second
	// ownerEvery is how often it gives one.
	ownerEvery = ownerTTL / 3
)

// Owners is a tracker.Owners. It says which replica works on which pool: one at a time, the first that is asked
// for it, until it gives the pool back or is gone. While etcd is away a replica goes on
// with its pools, and with new ones too: two trackers of one pool cost some doubled
// bytes, and one of them leaves it when etcd is back.
type Owners struct {
	s    *State
	addr string // where members reach this replica, host:port
	lost func(pool swarm.PoolID)

	mu     sync.Mutex // guards what follows
	lease  clientv3.LeaseID
	pools  map[swarm.PoolID]bool // that this replica works on; true: its claim is in etcd
	proved time.Time             // when the lease was last known to hold
}

var _ tracker.Owners = (*Owners)(nil)

// NewOwners returns the owners as the replica that members reach at addr sees them. lost
// is told of pools of its own that turn out to be another's. Run is running until the
// replica ends.
func (s *State) NewOwners(addr string, lost func(pool swarm.PoolID)) *Owners {
	return &Owners{s: s, addr: addr, lost: lost, pools: make(map[swarm.PoolID]bool)}
}

func (o *Owners) key(pool swarm.PoolID) string {
	return o.s.prefix + "owners/" + hex.EncodeToString(pool[:])
}

// Claim implements tracker.Owners.
func (o *Owners) Claim(ctx context.Context, pool swarm.PoolID) (elsewhere string, err error) {
	o.mu.Lock()
	claimed := o.pools[pool]
	o.mu.Unlock()
	if claimed {
		return "", nil
	}
	elsewhere, err = o.claim(ctx, pool)
	switch {
	case errors.Is(err, ErrAway):
		o.set(pool, false)
		return "", nil
	case err != nil:
		return "", fmt.Errorf("claim a pool: %w", err)
	case elsewhere == "":
		o.set(pool, true)
	}
	return elsewhere, nil
}

func (o *Owners) set(pool swarm.PoolID, claimed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pools[pool] = claimed
}

func (o *Owners) claim(ctx context.Context, pool swarm.PoolID) (elsewhere string, err error) {
	err = o.s.soon(ctx, func(ctx context.Context) (bool, error) {
		lease, err := o.held(ctx)
		if err != nil {
			return false, err
		}
		at, err := o.s.read(ctx, o.key(pool))
		if err != nil {
			return false, err
		}
		// What this replica claimed before it was started again is its own.
		if elsewhere = string(at[0].value); at[0].revision != 0 && elsewhere != o.addr {
			return true, nil
		}
		elsewhere = ""
		done, _, err := o.s.commit(ctx, at, clientv3.OpPut(at[0].key, o.addr, clientv3.WithLease(lease)))
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			o.drop(lease)
			return false, nil
		}
		return done, err
	})
	return elsewhere, err
}

// held returns this replica's lease, which it grants itself if there is none.
func (o *Owners) held(ctx context.Context) (clientv3.LeaseID, error) {
	o.mu.Lock()
	lease := o.lease
	o.mu.Unlock()
	if lease != 0 {
		return lease, nil
	}
	granted, err := o.s.client.Grant(ctx, int64(ownerTTL.Seconds()))
	if err != nil {
		return 0, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lease == 0 {
		o.lease, o.proved = granted.ID, time.Now()
	} // else another call was faster; this one ends by itself
	return o.lease, nil
}

// drop forgets a lease that has ended, and that what hung on it is claimed.
func (o *Owners) drop(lease clientv3.LeaseID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lease == lease {
		o.lease = 0
		for pool := range o.pools {
			o.pools[pool] = false
		}
	}
}

// Release implements tracker.Owners.
func (o *Owners) Release(ctx context.Context, pool swarm.PoolID, idle func() bool) {
	o.mu.Lock()
	_, mine := o.pools[pool]
	if mine = mine && idle(); mine {
		delete(o.pools, pool) // so that a Claim from now on asks etcd
	}
	o.mu.Unlock()
	if !mine {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tryWithin)
	defer cancel()
	at, err := o.s.read(ctx, o.key(pool))
	if err == nil && string(at[0].value) == o.addr {
		_, _, err = o.s.commit(ctx, at, clientv3.OpDelete(at[0].key))
	}
	if err != nil {
		o.s.log.Debug("a pool could not be given back; its claim ends with this replica", "err", err)
	}
}

// Run keeps this replica's claims until ctx ends, and gives them back then.
func (o *Owners) Run(ctx context.Context) {
	tick := time.NewTicker(ownerEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			o.keep(ctx)
		case <-ctx.Done():
			o.mu.Lock()
			lease := o.lease
			o.mu.Unlock()
			if lease != 0 {
				last, cancel := context.WithTimeout(context.WithoutCancel(ctx), tryWithin)
				o.s.revoke(last, lease)
				cancel()
			}
			return
		}
	}
}

// keep renews the lease, and claims what is not claimed, or not any more.
func (o *Owners) keep(ctx context.Context) {
	o.mu.Lock()
	lease := o.lease
	o.mu.Unlock()
	if lease != 0 {
		one, cancel := context.WithTimeout(ctx, ownerEvery)
		_, err := o.s.client.KeepAliveOnce(one, lease)
		cancel()
		o.mu.Lock()
		if err == nil {
			o.proved = time.Now()
		}
		over := errors.Is(err, rpctypes.ErrLeaseNotFound) || time.Since(o.proved) > ownerTTL
		o.mu.Unlock()
		if over {
			o.drop(lease)
		}
	}
	var open []swarm.PoolID
	o.mu.Lock()
	for pool, claimed := range o.pools {
		if !claimed {
			open = append(open, pool)
		}
	}
	o.mu.Unlock()
	for _, pool := range open {
		elsewhere, err := o.claim(ctx, pool)
		switch {
		case err != nil:
			return // etcd is still away
		case elsewhere == "":
			o.set(pool, true)
		default:
			o.mu.Lock()
			delete(o.pools, pool)
			o.mu.Unlock()
			o.lost(pool)
		}
	}
}
