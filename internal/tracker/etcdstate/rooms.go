package etcdstate

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"dragonload/internal/room"
)

// ShareRoom lets the other replicas serve a room that was made at this one: its authority
// goes to etcd, with its key. Who can read the cluster can let members into the room. It
// does nothing if the room is there.
func (s *State) ShareRoom(ctx context.Context, r *room.Room) error {
	shared, err := r.Share()
	if err != nil {
		return err
	}
	value, err := encode(shared)
	if err != nil {
		return err
	}
	key := s.prefix + "rooms/" + hex.EncodeToString(r.ID[:])
	return s.try(ctx, func(ctx context.Context) (bool, error) {
		_, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).Then(clientv3.OpPut(key, value)).Commit()
		return true, err
	})
}

// SharedRooms returns all rooms that replicas serve.
func (s *State) SharedRooms(ctx context.Context) ([]room.Shared, error) {
	var rooms []room.Shared
	_, err := s.pages(ctx, s.prefix+"rooms/", func(key string, value []byte) error {
		var r room.Shared
		if err := json.Unmarshal(value, &r); err != nil {
			return fmt.Errorf("etcd holds a damaged room at %s: %w", key, err)
		}
		rooms = append(rooms, r)
		return nil
	})
	return rooms, err
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
