package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"dragonload/internal/room"
	"dragonload/internal/rpc"
	"dragonload/internal/tracker"
	"dragonload/internal/tracker/etcdstate"
)

const (
	// shareEvery is how often replicas look for rooms and removals of each other.
	shareEvery = 2 * time.Second
	// shareWithin bounds one look.
	shareWithin = 10 * time.Second
)

// replica shares rooms with the other trackers of a cluster.
type replica struct {
	state   *etcdstate.State
	owners  *etcdstate.Owners
	folder  *room.Folder
	keyring *room.Keyring
	log     *slog.Logger

	mu     sync.Mutex        // guards what follows, and is held while rooms are shared
	shared map[[32]byte]bool // rooms that are in the cluster and here
	told   map[[32]byte]bool // rooms of the cluster that cannot be served here, as the log says
	// removals is the revision up to which the lists of all shared rooms are known; 0: of one
	// they may not be.
	removals int64
	epochs   map[[32]byte]uint64 // of the lists in the cluster, as far as they are known
}

// joinCluster connects to the cluster and takes in its rooms.
func joinCluster(ctx context.Context, o *sharedState, folder *room.Folder, keyring *room.Keyring, log *slog.Logger) (*replica, error) {
	state, err := etcdstate.Open(ctx, o.options)
	if err != nil {
		code := exitOther
		switch {
		case errors.Is(err, tracker.ErrAway):
			code = exitNetwork
		case errors.Is(err, etcdstate.ErrRefused):
			code = exitForbidden
		}
		return nil, failf(code, "share rooms by etcd: %w", err)
	}
	r := &replica{state: state, folder: folder, keyring: keyring, log: log, shared: make(map[[32]byte]bool), told: make(map[[32]byte]bool), epochs: make(map[[32]byte]uint64)}
	if _, err := r.share(ctx); err != nil {
		return nil, errors.Join(failf(exitOther, "%w", err), state.Close())
	}
	return r, nil
}

// run keeps the rooms the same at all replicas until ctx ends; changed is called when
// there are others than before.
func (r *replica) run(ctx context.Context, changed func() error) {
	tick := time.NewTicker(shareEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			one, cancel := context.WithTimeout(ctx, shareWithin)
			news, err := r.share(one)
			cancel()
			if news {
				err = errors.Join(err, changed())
			}
			if err != nil && ctx.Err() == nil && !errors.Is(err, tracker.ErrAway) { // which is told already
				r.log.Warn("the rooms of the cluster are not known at the moment", "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// leave has all replicas give up a room that is about to be left here.
func (r *replica) leave(ctx context.Context, one *room.Room) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.state.LeaveRoom(ctx, one.ID)
	if errors.Is(err, tracker.ErrAway) {
		return fmt.Errorf("%w: %w", rpc.ErrStoreAway, err)
	}
	return err
}

// share puts rooms that were made here into the cluster, takes in those that others
// made, gives up those that were left at one of them, and learns who was removed. news:
// the rooms are others than before.
func (r *replica) share(ctx context.Context) (news bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.tellLeft(ctx); err != nil {
		return false, err
	}
	all, left, err := r.state.SharedRooms(ctx)
	if err != nil {
		return false, err
	}
	for _, one := range r.keyring.Rooms() {
		switch {
		case !one.Created:
		case left[one.ID]:
			news = true
			err = errors.Join(err, r.giveUp(ctx, one))
		case !r.shared[one.ID]:
			err = errors.Join(err, r.put(ctx, one))
		}
	}
	for _, one := range all {
		if !r.shared[one.ID] && !left[one.ID] {
			news = r.adopt(one) || news
		}
	}
	return news, errors.Join(err, r.learn(ctx))
}

// tellLeft has the others give up rooms that were left here while no tracker ran.
func (r *replica) tellLeft(ctx context.Context) error {
	ids, err := r.folder.Left()
	for _, id := range ids {
		if err == nil {
			err = r.state.LeaveRoom(ctx, id)
		}
		if err == nil {
			err = r.folder.ForgetLeft(id)
		}
	}
	return err
}

// giveUp forgets a room that was left at another replica.
func (r *replica) giveUp(ctx context.Context, one *room.Room) error {
	r.log.Info("a room was left at another tracker of the cluster and is given up here", "room", one.Name)
	if err := r.folder.Leave(one.Name); err != nil && !errors.Is(err, room.ErrNoRoom) {
		return err
	}
	r.keyring.Remove(one.ID)
	delete(r.shared, one.ID)
	return r.tellLeft(ctx) // also of what this one has noted there since
}

// put shares a room that was made here.
func (r *replica) put(ctx context.Context, one *room.Room) error {
	if err := r.state.ShareRoom(ctx, one); err != nil {
		return err
	}
	marked, err := r.folder.MarkShared(one)
	if err != nil {
		return err
	}
	r.keyring.Add(marked)
	r.shared[one.ID] = true
	return nil
}

// adopt takes in a room that another replica has made.
func (r *replica) adopt(one room.Shared) bool {
	adopted, err := r.folder.Adopt(one, time.Now())
	if err != nil {
		if !r.told[one.ID] {
			r.log.Error("a room of the cluster is not served here", "room", one.Name, "err", err)
		}
		r.told[one.ID] = true
		return false
	}
	r.keyring.Add(adopted)
	r.shared[one.ID] = true
	r.removals = 0
	return true
}

// learn takes in who was removed at other replicas, and tells them of removals that they
// have missed: etcd was away when they were made.
func (r *replica) learn(ctx context.Context) error {
	lists, at, err := r.state.SharedRemovals(ctx, r.removals)
	if err != nil {
		return err
	}
	r.removals = at
	for _, list := range lists {
		// That of a room that is not here yet is read again when it is.
		if _, err := r.keyring.Learn(list); err != nil && !errors.Is(err, room.ErrNoRoom) {
			r.log.Error("a list of removals in the cluster is none", "room", hex.EncodeToString(list.Room[:]), "err", err)
		}
		r.epochs[list.Room] = list.Epoch
	}
	for _, one := range r.keyring.Rooms() {
		if one.Created && one.Removals.Number() > r.epochs[one.ID] {
			if err := r.state.SetRemovals(ctx, one.Removals); err != nil {
				return err
			}
			r.epochs[one.ID] = one.Removals.Epoch
		}
	}
	return nil
}
