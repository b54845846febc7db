// Package boltstate keeps a tracker's durable facts in one bbolt file: the State of
// every node and of a single standing tracker. Every change is synced before it is
// acknowledged. The catalogue is not in the file: it lives in memory.
//
// Layout: a bucket "meta" with the key "format"; a bucket "rooms" with one bucket for
// each room, named by its id, and in that
//
//	"removals" key: the signed list, as room.Removals encodes it
//	"members"  bucket, whose sequence is the last number given:
//	           key (32) -> number (4, big endian), 1 if removed else 0 (1), name
//	"uses"     bucket: invite (16), key (32) -> when the invite expires, seconds (8)
package boltstate

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/tracker"
)

const (
	format = 1

	// lockWait is how long Open waits for another process that holds the file.
	lockWait = 100 * time.Millisecond

	// keepUses is how long the uses of an invite are kept after it has expired: longer
	// than any clock that is set back again.
	keepUses = 30 * 24 * time.Hour
)

var (
	metaBucket  = []byte("meta")
	formatKey   = []byte("format")
	roomsBucket = []byte("rooms")
	removalsKey = []byte("removals")
	members     = []byte("members")
	usesBucket  = []byte("uses")
)

// State is a tracker.State in a file.
type State struct {
	*tracker.Soft
	file   guarded
	writes group
}

var _ tracker.State = (*State)(nil)

// Open opens the file, making it with mode 0600 at first use. tracker.ErrLocked if
// another process has it.
func Open(path string) (*State, error) { return OpenAt(path, time.Now) }

// OpenAt is Open with another clock for what is soft.
func OpenAt(path string, now func() time.Time) (*State, error) {
	_, err := os.Stat(path)
	isNew := errors.Is(err, os.ErrNotExist)
	s := &State{file: guarded{path: path}}
	s.writes.write = s.file.update
	err = s.file.open()
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("open %s: %w", path, tracker.ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("open the tracker's state %s: %w", path, err)
	}
	s.Soft = tracker.NewSoft(now, s.Removed)
	err = s.file.update(func(tx *bbolt.Tx) error {
		if err := checkFormat(tx); err != nil {
			return err
		}
		return dropOldUses(tx, time.Now().Add(-keepUses))
	})
	if err == nil && isNew {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the tracker's state %s: %w", path, err), s.file.close())
	}
	return s, nil
}

func checkFormat(tx *bbolt.Tx) error {
	meta, err := tx.CreateBucketIfNotExists(metaBucket)
	if err != nil {
		return err
	}
	if _, err := tx.CreateBucketIfNotExists(roomsBucket); err != nil {
		return err
	}
	switch have := meta.Get(formatKey); {
	case have == nil:
		return meta.Put(formatKey, []byte{format})
	case !bytes.Equal(have, []byte{format}):
		return fmt.Errorf("it has format %x, this program knows %d; use the newer program", have, format)
	}
	return nil
}

// dropOldUses forgets the uses of invites that expired before a moment.
func dropOldUses(tx *bbolt.Tx, before time.Time) error {
	return tx.Bucket(roomsBucket).ForEachBucket(func(id []byte) error {
		uses := tx.Bucket(roomsBucket).Bucket(id).Bucket(usesBucket)
		if uses == nil {
			return nil
		}
		var old [][]byte
		err := uses.ForEach(func(key, expires []byte) error {
			if len(expires) == 8 && int64(binary.BigEndian.Uint64(expires)) < before.Unix() {
				old = append(old, bytes.Clone(key))
			}
			return nil
		})
		for _, key := range old {
			err = errors.Join(err, uses.Delete(key))
		}
		return err
	})
}

// look runs f on a room's bucket, nil if the room was never spoken of.
func (s *State) look(ctx context.Context, id [32]byte, f func(*bbolt.Bucket) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.file.view(func(tx *bbolt.Tx) error { return f(tx.Bucket(roomsBucket).Bucket(id[:])) })
}

// change runs f, perhaps more than once, on a room's bucket and its members; what f has
// done is durable, or undone with an error, on return.
func (s *State) change(ctx context.Context, id [32]byte, f func(r, members *bbolt.Bucket) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.writes.update(func(tx *bbolt.Tx) error {
		r, err := tx.Bucket(roomsBucket).CreateBucketIfNotExists(id[:])
		if err != nil {
			return err
		}
		m, err := r.CreateBucketIfNotExists(members)
		if err != nil {
			return err
		}
		return f(r, m)
	})
}

// find returns what a room's bucket, which may be nil, knows of a key.
func find(r *bbolt.Bucket, key piece.NodeID) (m tracker.Member, ok bool, err error) {
	if r == nil || r.Bucket(members) == nil {
		return m, false, nil
	}
	value := r.Bucket(members).Get(key[:])
	if value == nil {
		return m, false, nil
	}
	m, err = decodeMember(key[:], value)
	return m, err == nil, err
}

func decodeMember(key, value []byte) (tracker.Member, error) {
	if len(key) != 32 || len(value) < 5 || len(value) > 5+tracker.MaxMemberName || value[4] > 1 {
		return tracker.Member{}, fmt.Errorf("the tracker's state holds a damaged record of member %x", key)
	}
	return tracker.Member{
		Key:     piece.NodeID(key),
		Number:  binary.BigEndian.Uint32(value),
		Removed: value[4] == 1,
		Name:    string(value[5:]),
	}, nil
}

func putMember(members *bbolt.Bucket, m tracker.Member) error {
	value := binary.BigEndian.AppendUint32(nil, m.Number)
	if m.Removed {
		value = append(value, 1)
	} else {
		value = append(value, 0)
	}
	return members.Put(m.Key[:], append(value, tracker.CutName(m.Name)...))
}

// admit gives a key a number unless it has one.
func admit(r, members *bbolt.Bucket, key piece.NodeID) (uint32, error) {
	m, ok, err := find(r, key)
	switch {
	case err != nil:
		return 0, err
	case m.Removed:
		return 0, room.ErrRemoved
	case ok:
		return m.Number, nil
	case members.Sequence() >= room.MaxMembers:
		return 0, room.ErrFull
	}
	number, err := members.NextSequence()
	if err != nil {
		return 0, err
	}
	return uint32(number), putMember(members, tracker.Member{Key: key, Number: uint32(number)})
}

// UseInvite implements room.Admitter. A use that is counted already costs no write.
func (s *State) UseInvite(ctx context.Context, id [32]byte, invite [16]byte, key piece.NodeID, uses int, expires time.Time) error {
	own := append(invite[:], key[:]...)
	known := false
	err := s.look(ctx, id, func(r *bbolt.Bucket) error {
		m, ok, err := find(r, key)
		if m.Removed {
			return room.ErrRemoved
		}
		known = ok && (uses == 0 || r.Bucket(usesBucket) != nil && r.Bucket(usesBucket).Get(own) != nil)
		return err
	})
	if known || err != nil {
		return err
	}
	return s.change(ctx, id, func(r, members *bbolt.Bucket) error {
		if _, err := admit(r, members, key); err != nil || uses == 0 {
			return err
		}
		used, err := r.CreateBucketIfNotExists(usesBucket)
		if err != nil {
			return err
		}
		if used.Get(own) != nil {
			return nil
		}
		count := 0
		cursor := used.Cursor()
		for k, _ := cursor.Seek(invite[:]); bytes.HasPrefix(k, invite[:]); k, _ = cursor.Next() {
			if count++; count >= uses {
				return room.ErrInviteUsed // takes the number of a newcomer back, too
			}
		}
		return used.Put(own, binary.BigEndian.AppendUint64(nil, uint64(expires.Unix())))
	})
}

// Removed implements room.Admitter.
func (s *State) Removed(ctx context.Context, id [32]byte, key piece.NodeID) (removed bool, err error) {
	err = s.look(ctx, id, func(r *bbolt.Bucket) error {
		m, _, err := find(r, key)
		removed = m.Removed
		return err
	})
	return removed, err
}

// Number implements tracker.State. A member that has its number costs no write.
func (s *State) Number(ctx context.Context, id [32]byte, key piece.NodeID) (number uint32, err error) {
	known := false
	err = s.look(ctx, id, func(r *bbolt.Bucket) error {
		m, ok, err := find(r, key)
		if m.Removed {
			return room.ErrRemoved
		}
		number, known = m.Number, ok
		return err
	})
	if known || err != nil {
		return number, err
	}
	err = s.change(ctx, id, func(r, members *bbolt.Bucket) error {
		number, err = admit(r, members, key)
		return err
	})
	if err != nil {
		return 0, err
	}
	return number, nil
}

// SetName implements tracker.State.
func (s *State) SetName(ctx context.Context, id [32]byte, key piece.NodeID, name string) error {
	same := false
	err := s.look(ctx, id, func(r *bbolt.Bucket) error {
		m, ok, err := find(r, key)
		same = !ok || m.Name == tracker.CutName(name)
		return err
	})
	if same || err != nil {
		return err
	}
	return s.change(ctx, id, func(r, members *bbolt.Bucket) error {
		m, ok, err := find(r, key)
		if err != nil || !ok {
			return err
		}
		m.Name = name
		return putMember(members, m)
	})
}

// SetRemovals implements tracker.State.
func (s *State) SetRemovals(ctx context.Context, list *room.Removals) error {
	err := s.change(ctx, list.Room, func(r, members *bbolt.Bucket) error {
		for _, one := range list.List {
			m, _, err := find(r, one.Key)
			if err != nil {
				return err
			}
			if m.Removed {
				continue
			}
			m.Key, m.Removed = one.Key, true
			if err := putMember(members, m); err != nil {
				return err
			}
		}
		if kept, err := readRemovals(r); err != nil || kept.Number() >= list.Epoch {
			return err
		}
		return r.Put(removalsKey, list.Encode())
	})
	if err == nil {
		s.ShutOut(list)
	}
	return err
}

// Removals implements tracker.State.
func (s *State) Removals(ctx context.Context, id [32]byte) (list *room.Removals, err error) {
	err = s.look(ctx, id, func(r *bbolt.Bucket) error {
		list, err = readRemovals(r)
		return err
	})
	return list, err
}

// readRemovals returns the list in a room's bucket, which may be nil.
func readRemovals(r *bbolt.Bucket) (*room.Removals, error) {
	if r == nil {
		return nil, nil
	}
	value := r.Get(removalsKey)
	if value == nil {
		return nil, nil
	}
	list, err := room.ParseRemovals(value)
	if err != nil {
		return nil, fmt.Errorf("the tracker's state holds a damaged %w", err)
	}
	return list, nil
}

// Members implements tracker.State.
func (s *State) Members(ctx context.Context, id [32]byte) ([]tracker.Member, error) {
	var all []tracker.Member
	err := s.look(ctx, id, func(r *bbolt.Bucket) error {
		if r == nil || r.Bucket(members) == nil {
			return nil
		}
		return r.Bucket(members).ForEach(func(key, value []byte) error {
			m, err := decodeMember(key, value)
			all = append(all, m)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	tracker.SortMembers(all)
	return all, nil
}

// Close closes the file and gives its lock back.
func (s *State) Close() error { return s.file.close() }
