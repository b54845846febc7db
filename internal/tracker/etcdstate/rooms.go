package etcdstate

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"dragonload/internal/room"
)

// ShareRoom lets the other replicas serve a room that was made at this one: its authority
// goes to etcd, with its key. Who can read the cluster can let members into the room. It
// does nothing if the room is there, or was left.
func (s *State) ShareRoom(ctx context.Context, r *room.Room) error {
	shared, err := r.Share()
	if err != nil {
		return err
	}
	value, err := encode(shared)
	if err != nil {
		return err
	}
	return s.try(ctx, func(ctx context.Context) (bool, error) {
		absent := func(key string) clientv3.Cmp { return clientv3.Compare(clientv3.CreateRevision(key), "=", 0) }
		_, err := s.client.Txn(ctx).If(absent(s.roomKey(r.ID)), absent(s.leftKey(r.ID))).Then(clientv3.OpPut(s.roomKey(r.ID), value)).Commit()
		return true, err
	})
}

func (s *State) roomKey(id [32]byte) string { return s.prefix + "rooms/" + hex.EncodeToString(id[:]) }
func (s *State) leftKey(id [32]byte) string { return s.prefix + "left/" + hex.EncodeToString(id[:]) }

// LeaveRoom has all replicas give up a room: its authority goes, and all that is known of
// it but that it was left, so that no replica that was away brings it back. It is
// durable on return. That the room is not there is no error.
func (s *State) LeaveRoom(ctx context.Context, id [32]byte) error {
	of := hex.EncodeToString(id[:])
	changes := []clientv3.Op{clientv3.OpPut(s.leftKey(id), ""), clientv3.OpDelete(s.roomKey(id)), clientv3.OpDelete(s.lastKey(id)), clientv3.OpDelete(s.removalsKey(id))}
	for _, below := range []string{"members/", "uses/", "used/", "catalogue/"} {
		changes = append(changes, clientv3.OpDelete(s.prefix+below+of+"/", clientv3.WithPrefix()))
	}
	return s.try(ctx, func(ctx context.Context) (bool, error) {
		_, err := s.client.Txn(ctx).Then(changes...).Commit()
		return true, err
	})
}

// SharedRooms returns all rooms that replicas serve, and those that they have left.
func (s *State) SharedRooms(ctx context.Context) (rooms []room.Shared, left map[[32]byte]bool, err error) {
	_, err = s.pages(ctx, s.prefix+"rooms/", func(key string, value []byte) error {
		var r room.Shared
		if err := json.Unmarshal(value, &r); err != nil || !decodeID(strings.TrimPrefix(key, s.prefix+"rooms/"), r.ID[:]) {
			return fmt.Errorf("etcd holds a damaged room at %s: %w", key, err)
		}
		rooms = append(rooms, r)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	// Read later, so that a room that is left meanwhile is known to be.
	left = make(map[[32]byte]bool)
	_, err = s.pages(ctx, s.prefix+"left/", func(key string, _ []byte) error {
		var id [32]byte
		if decodeID(strings.TrimPrefix(key, s.prefix+"left/"), id[:]) {
			left[id] = true
		}
		return nil
	})
	return rooms, left, err
}

// SharedRemovals returns the lists of removals of all rooms that were kept after a revision,
// 0 for all, and the revision that they are as of: what is asked for next. A list that
// cannot be read is left out.
func (s *State) SharedRemovals(ctx context.Context, after int64) (lists []*room.Removals, at int64, err error) {
	at, err = s.pagesSince(ctx, s.allRemovalsKey(), after, func(key string, value []byte) error {
		list, err := decodeRemovals(one{key: key, value: value, revision: 1})
		if err != nil {
			s.log.Error("a list of removals in the cluster is none", "err", err)
			return nil
		}
		lists = append(lists, list)
		return nil
	})
	return lists, at, err
}
