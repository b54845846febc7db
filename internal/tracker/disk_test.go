package tracker_test

import (
	"context"
	"errors"
	"io/fs"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
	"dragonload/internal/swarm"
	"dragonload/internal/tracker"
)

// cramped is a State on a disk that may be full: what is known can be read, nothing can be
// added.
type cramped struct {
	*tracker.Memory
	full atomic.Bool
}

var errDisk = &fs.PathError{Op: "write", Path: "tracker.db", Err: syscall.ENOSPC}

func (c *cramped) UseInvite(ctx context.Context, id [32]byte, invite [16]byte, key piece.NodeID, uses int, expires time.Time) error {
	if c.full.Load() {
		return errDisk
	}
	return c.Memory.UseInvite(ctx, id, invite, key, uses, expires)
}

func (c *cramped) SetName(ctx context.Context, id [32]byte, key piece.NodeID, name string) error {
	if c.full.Load() {
		return errDisk
	}
	return c.Memory.SetName(ctx, id, key, name)
}

// TestFault35DiskFull: joins are refused with a word of their own, and spend nothing; who
// is a member gets its leases and meets the others.
func TestFault35DiskFull(t *testing.T) {
	t.Parallel()
	state := &cramped{Memory: tracker.NewMemory()}
	s := newSite(t, tracker.Options{State: state})
	b := s.join(s.home.room, "b")
	first := s.open(s.client(s.home), swarm.PoolID{1})
	first.Send(announce)
	beat(t, first)
	next[swarm.Probe](t, first)
	state.full.Store(true)

	invite, err := s.home.room.NewInvite(1, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	joiner := newFolder(t).Identity()
	for range 2 {
		if _, err := s.use(invite, joiner, "c"); !errors.Is(err, rpc.ErrCannotStore) || errors.Is(err, room.ErrInviteUsed) {
			t.Errorf("a join while the disk is full: %v", err)
		}
	}
	// b has never called before: its name cannot be kept, and it is served.
	second := s.open(s.client(b), swarm.PoolID{1})
	second.Send(announce)
	beat(t, second)
	next[swarm.Handout](t, second)
	pin := piece.Pin{Size: 100 * piece.MinLength, Kind: piece.StrongETag, Validator: `"v1"`}
	first.Send(swarm.Probed{Pin: pin, Extent: piece.Extent{Count: 2}})
	next[swarm.Lease](t, second)
	if _, err := s.client(b).Members(t.Context()); err != nil {
		t.Errorf("the members: %v", err)
	}

	state.full.Store(false)
	if _, err := s.use(invite, joiner, "c"); err != nil {
		t.Errorf("a join when there is room again: %v", err)
	}
}
