package etcdstate

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"dragonload/internal/catalogue"
	"dragonload/internal/piece"
	"dragonload/internal/room"
)

// The key of a member that publishes ends with a separator, those of its entries begin
// with it; so it comes before them, and one prefix covers all that hangs on its lease.

func (s *State) catalogueKey() string { return s.prefix + "catalogue/" }

func (s *State) holderKey(id [32]byte, node piece.NodeID) string {
	return s.catalogueKey() + hex.EncodeToString(id[:]) + "/" + hex.EncodeToString(node[:]) + "/"
}

func (s *State) entryKey(id [32]byte, node piece.NodeID, manifest [32]byte) string {
	return s.holderKey(id, node) + hex.EncodeToString(manifest[:])
}

// published is the value of a member's own key.
type published struct {
	Lease   clientv3.LeaseID
	Version uint64 // 0 while its first batch is on its way
	Number  uint32
	Name    string
	Addr    string
	Seen    string
}

// of reads what a member has published; known is false if that is nothing.
func of(o one) (p published, known bool, err error) {
	if o.revision == 0 {
		return p, false, nil
	}
	if err := json.Unmarshal(o.value, &p); err != nil {
		return p, false, fmt.Errorf("etcd holds a damaged record at %s: %w", o.key, err)
	}
	return p, true, nil
}

func encode(v any) (string, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encode for etcd: %w", err)
	}
	return string(data), nil
}

// publisher reads a member, which must not be shut out, and what it has published.
func (s *State) publisher(ctx context.Context, id [32]byte, node piece.NodeID) (at []one, p published, known bool, err error) {
	if at, err = s.read(ctx, s.memberKey(id, node), s.holderKey(id, node)); err != nil {
		return nil, p, false, err
	}
	m, _, err := decodeMember(at[0])
	if err == nil && m.Removed {
		err = room.ErrRemoved
	}
	if err == nil {
		p, known, err = of(at[1])
	}
	return at, p, known, err
}

var spread = maphash.MakeSeed()

// lock is held while a member's batch is taken in by this replica.
func (s *State) lock(node piece.NodeID) *sync.Mutex {
	return &s.members[maphash.Bytes(spread, node[:])%uint64(len(s.members))]
}

// Publish implements tracker.State.
func (s *State) Publish(ctx context.Context, id [32]byte, from catalogue.Holder, b catalogue.Batch) error {
	if err := b.Validate(); err != nil {
		return err
	}
	mine := s.lock(from.ID)
	mine.Lock()
	defer mine.Unlock()
	if err := s.view.index(id).Fits(from.ID, &b); err != nil {
		return err
	}
	u := &update{s: s, room: id, from: from, b: &b}
	if err := s.try(ctx, u.begin); err != nil {
		return err
	}
	for u.next < len(u.changes) {
		if err := s.try(ctx, u.proceed); err != nil {
			return err
		}
	}
	if err := s.try(ctx, u.finish); err != nil {
		return err
	}
	s.view.await(ctx, u.revision)
	return nil
}

// update carries one batch into etcd, in several transactions if it is large. Each rests
// on the member not being shut out, and on its own record being as the first one left it.
type update struct {
	s    *State
	room [32]byte
	from catalogue.Holder
	b    *catalogue.Batch

	lease    clientv3.LeaseID
	rest     []one // the member, and what it has published
	changes  []change
	next     int   // of them
	revision int64 // of the last transaction
}

type change struct {
	op   clientv3.Op
	size int
}

func (u *update) begin(ctx context.Context) (bool, error) {
	s := u.s
	at, p, known, err := s.publisher(ctx, u.room, u.from.ID)
	if err != nil {
		return false, err
	}
	u.rest = at
	if u.b.From != 0 {
		if !known || p.Version != u.b.From {
			return false, catalogue.ErrUnknown
		}
		u.lease = p.Lease
		if _, err = s.client.KeepAliveOnce(ctx, u.lease); errors.Is(err, rpctypes.ErrLeaseNotFound) {
			err = catalogue.ErrUnknown
		}
		if err != nil {
			return false, err
		}
		return true, u.list()
	}
	return u.anew(ctx, p, known)
}

// anew forgets what the member has published, and begins with nothing.
func (u *update) anew(ctx context.Context, p published, known bool) (bool, error) {
	s := u.s
	if known {
		if done, _, err := s.commit(ctx, u.rest, clientv3.OpDelete(u.rest[1].key, clientv3.WithPrefix())); err != nil || !done {
			return false, err
		}
		s.revoke(ctx, p.Lease)
		return false, nil // and from the start, without it
	}
	lease, err := s.client.Grant(ctx, int64(catalogue.TTL.Seconds()))
	if err != nil {
		return false, err
	}
	u.lease = lease.ID
	value, err := encode(u.record(0))
	if err != nil {
		return false, err
	}
	done, revision, err := s.commit(ctx, u.rest, clientv3.OpPut(u.rest[1].key, value, clientv3.WithLease(u.lease)))
	if err != nil || !done {
		s.revoke(ctx, u.lease)
		return false, err
	}
	u.rest[1].revision = revision
	return true, u.list()
}

func (u *update) record(version uint64) published {
	return published{Lease: u.lease, Version: version, Number: u.from.Number, Name: u.from.Name, Addr: u.from.Addr, Seen: u.from.Seen}
}

// list fills in what is to be changed.
func (u *update) list() error {
	u.changes, u.next = nil, 0
	if u.b.From != 0 {
		for _, manifest := range u.b.Remove {
			u.changes = append(u.changes, change{clientv3.OpDelete(u.s.entryKey(u.room, u.from.ID, manifest)), 256})
		}
	}
	added := make(map[[32]byte]int)
	for i := range u.b.Add {
		e := &u.b.Add[i]
		value, err := encode(e)
		if err != nil {
			return err
		}
		put := change{clientv3.OpPut(u.s.entryKey(u.room, u.from.ID, e.Manifest), value, clientv3.WithLease(u.lease)), 256 + len(value)}
		if at, twice := added[e.Manifest]; twice {
			u.changes[at] = put
			continue
		}
		added[e.Manifest] = len(u.changes)
		u.changes = append(u.changes, put)
	}
	return nil
}

// proceed makes as many changes as fit into one transaction.
func (u *update) proceed(ctx context.Context) (bool, error) {
	var ops []clientv3.Op
	size, end := 0, u.next
	touched := make(map[string]bool)
	for ; end < len(u.changes) && len(ops) < opsAtOnce && (len(ops) == 0 || size+u.changes[end].size <= bytesAtOnce); end++ {
		c := u.changes[end]
		key := string(c.op.KeyBytes())
		if touched[key] {
			break // etcd takes no two changes of one key at once
		}
		touched[key] = true
		ops = append(ops, c.op)
		size += c.size
	}
	done, revision, err := u.s.commit(ctx, u.rest, ops...)
	if err != nil {
		return false, err
	}
	if !done {
		return false, u.overtaken(ctx)
	}
	u.next, u.revision = end, revision
	return true, nil
}

// finish tells which version is there now.
func (u *update) finish(ctx context.Context) (bool, error) {
	value, err := encode(u.record(u.b.To))
	if err != nil {
		return false, err
	}
	done, revision, err := u.s.commit(ctx, u.rest, clientv3.OpPut(u.rest[1].key, value, clientv3.WithLease(u.lease)))
	if err != nil {
		return false, err
	}
	if done {
		u.revision = revision
		return true, nil
	}
	// A try that was not answered may have done it.
	at, err := u.s.read(ctx, u.rest[1].key)
	if err != nil {
		return false, err
	}
	if p, _, err := of(at[0]); err == nil && p == u.record(u.b.To) {
		u.revision = at[0].revision
		return true, nil
	}
	return false, u.overtaken(ctx)
}

// overtaken says why a transaction did not find what it rests on.
func (u *update) overtaken(ctx context.Context) error {
	at, err := u.s.read(ctx, u.rest[0].key)
	if err != nil {
		return err
	}
	m, _, err := decodeMember(at[0])
	switch {
	case err != nil:
		return err
	case m.Removed:
		return room.ErrRemoved
	case at[0].revision != u.rest[0].revision:
		u.rest[0] = at[0] // it has a number or another name now
		return nil
	}
	return catalogue.ErrUnknown // another replica has taken in something of the member's
}

// revoke ends a lease, with what still hangs on it; if it fails the lease ends by itself.
func (s *State) revoke(ctx context.Context, lease clientv3.LeaseID) {
	if _, err := s.client.Revoke(ctx, lease); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		s.log.Debug("a lease in etcd could not be ended", "err", err)
	}
}

// Renew implements tracker.State. It writes nothing.
func (s *State) Renew(ctx context.Context, id [32]byte, node piece.NodeID, version uint64) (known bool, err error) {
	err = s.try(ctx, func(ctx context.Context) (bool, error) {
		_, p, there, err := s.publisher(ctx, id, node)
		if err != nil || !there || p.Version != version {
			return true, err
		}
		_, err = s.client.KeepAliveOnce(ctx, p.Lease)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return true, nil
		}
		known = err == nil
		return true, err
	})
	return known, err
}

// Withdraw implements tracker.State.
func (s *State) Withdraw(ctx context.Context, id [32]byte, node piece.NodeID) error {
	_, err := s.forget(ctx, id, node, func(published) bool { return true })
	return err
}

// Drop implements tracker.State.
func (s *State) Drop(ctx context.Context, id [32]byte, node piece.NodeID, addr string) (bool, error) {
	return s.forget(ctx, id, node, func(p published) bool { return p.Addr == addr })
}

// forget takes out what a member publishes, if that is right.
func (s *State) forget(ctx context.Context, id [32]byte, node piece.NodeID, right func(published) bool) (forgot bool, err error) {
	mine := s.lock(node)
	mine.Lock()
	defer mine.Unlock()
	revision := int64(0)
	err = s.try(ctx, func(ctx context.Context) (bool, error) {
		at, err := s.read(ctx, s.holderKey(id, node))
		if err != nil {
			return false, err
		}
		p, known, err := of(at[0])
		if err != nil || !known || !right(p) {
			return true, err
		}
		done, r, err := s.commit(ctx, at, clientv3.OpDelete(at[0].key, clientv3.WithPrefix()))
		if done {
			forgot, revision = true, r
			s.revoke(ctx, p.Lease)
		}
		return done, err
	})
	s.view.await(ctx, revision)
	return forgot, err
}
