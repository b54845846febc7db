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
