package etcdstate

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/tracker"
)

// keepUses is how long the uses of an invite are kept after it has expired: longer than
// any clock that is set back again.
const keepUses = 30 * 24 * time.Hour

// removeAtOnce is how many members are shut out in one transaction, with three
// operations each.
const removeAtOnce = opsAtOnce / 3

func encodeMember(m tracker.Member) string {
	value := binary.BigEndian.AppendUint32(nil, m.Number)
	removed := byte(0)
	if m.Removed {
		removed = 1
	}
	return string(append(append(value, removed), tracker.CutName(m.Name)...))
}

func decodeMember(o one) (m tracker.Member, known bool, err error) {
	if o.revision == 0 {
		return m, false, nil
	}
	key, err := hex.DecodeString(o.key[strings.LastIndexByte(o.key, '/')+1:])
	if v := o.value; err != nil || len(key) != len(m.Key) || len(v) < 5 || len(v) > 5+tracker.MaxMemberName || v[4] > 1 {
		return m, false, fmt.Errorf("etcd holds a damaged record of a member at %s", o.key)
	}
	copy(m.Key[:], key)
	m.Number, m.Removed, m.Name = binary.BigEndian.Uint32(o.value), o.value[4] == 1, string(o.value[5:])
	return m, true, nil
}

// number reads a counter; 0 where there is none.
func number(o one) uint32 {
	if len(o.value) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(o.value)
}

// admission is what gives a key a number, unless it has one: what it rests on and what it
// changes.
type admission struct {
	member tracker.Member
	known  bool
	rest   []one
	change []clientv3.Op
}

// admit reads whether a key has a number, and else which it would get.
func admit(of, last one) (a admission, err error) {
	a.member, a.known, err = decodeMember(of)
	switch {
	case err != nil:
		return a, err
	case a.member.Removed:
		return a, room.ErrRemoved
	case a.known:
		a.rest = []one{of}
		return a, nil
	case number(last) >= room.MaxMembers:
		return a, room.ErrFull
	}
	a.member.Number = number(last) + 1
	a.rest = []one{of, last}
	a.change = []clientv3.Op{
		clientv3.OpPut(of.key, encodeMember(a.member)),
		clientv3.OpPut(last.key, string(binary.BigEndian.AppendUint32(nil, a.member.Number))),
	}
	return a, nil
}

// UseInvite implements room.Admitter. A use that is counted already costs no write.
func (s *State) UseInvite(ctx context.Context, id [32]byte, invite [16]byte, key piece.NodeID, uses int, expires time.Time) error {
	return s.try(ctx, func(ctx context.Context) (bool, error) {
		at, err := s.read(ctx, s.memberKey(id, key), s.lastKey(id), s.useKey(id, invite, key), s.usedKey(id, invite))
		if err != nil {
			return false, err
		}
		own, used := at[2], at[3]
		a, err := admit(at[0], at[1])
		if err != nil {
			return false, err
		}
		if uses > 0 && own.revision == 0 {
			if number(used) >= uint32(uses) {
				return false, room.ErrInviteUsed
			}
			until := binary.BigEndian.AppendUint64(nil, uint64(expires.Unix()))
			count := binary.BigEndian.AppendUint32(nil, number(used)+1)
			a.rest = append(a.rest, own, used)
			a.change = append(a.change, clientv3.OpPut(own.key, string(until)), clientv3.OpPut(used.key, string(append(count, until...))))
		}
		if len(a.change) == 0 {
			return true, nil
		}
		done, _, err := s.commit(ctx, a.rest, a.change...)
		return done, err
	})
}

// Removed implements room.Admitter.
func (s *State) Removed(ctx context.Context, id [32]byte, key piece.NodeID) (removed bool, err error) {
	err = s.soon(ctx, func(ctx context.Context) (bool, error) {
		at, err := s.read(ctx, s.memberKey(id, key))
		if err != nil {
			return false, err
		}
		m, _, err := decodeMember(at[0])
		removed = m.Removed
		return true, err
	})
	return removed, err
}

// Number implements tracker.State. A member that has its number costs no write.
func (s *State) Number(ctx context.Context, id [32]byte, key piece.NodeID) (number uint32, err error) {
	err = s.soon(ctx, func(ctx context.Context) (bool, error) {
		at, err := s.read(ctx, s.memberKey(id, key), s.lastKey(id))
		if err != nil {
			return false, err
		}
		a, err := admit(at[0], at[1])
		if err != nil {
			return false, err
		}
		if number = a.member.Number; a.known {
			return true, nil
		}
		done, _, err := s.commit(ctx, a.rest, a.change...)
		return done, err
	})
	if err != nil {
		return 0, err
	}
	return number, nil
}

// SetName implements tracker.State.
func (s *State) SetName(ctx context.Context, id [32]byte, key piece.NodeID, name string) error {
	return s.try(ctx, func(ctx context.Context) (bool, error) {
		at, err := s.read(ctx, s.memberKey(id, key))
		if err != nil {
			return false, err
		}
		m, known, err := decodeMember(at[0])
		if err != nil || !known || m.Name == tracker.CutName(name) {
			return true, err
		}
		m.Name = name
		done, _, err := s.commit(ctx, at, clientv3.OpPut(at[0].key, encodeMember(m)))
		return done, err
	})
}

// SetRemovals implements tracker.State. A long list takes several transactions, of which
// the last keeps the list: after an error some of those on it may be shut out already.
func (s *State) SetRemovals(ctx context.Context, list *room.Removals) error {
	published := int64(0)
	for from := 0; from < len(list.List); from += removeAtOnce {
		some := list.List[from:min(from+removeAtOnce, len(list.List))]
		err := s.try(ctx, func(ctx context.Context) (bool, error) {
			done, revision, err := s.shutOut(ctx, list.Room, some)
			published = max(published, revision)
			return done, err
		})
		if err != nil {
			return err
		}
	}
	err := s.try(ctx, func(ctx context.Context) (bool, error) {
		at, err := s.read(ctx, s.removalsKey(list.Room))
		if err != nil {
			return false, err
		}
		if kept, err := decodeRemovals(at[0]); err != nil || kept.Number() >= list.Epoch {
			return true, err
		}
		done, _, err := s.commit(ctx, at, clientv3.OpPut(at[0].key, string(list.Encode())))
		return done, err
	})
	if err == nil {
		s.view.await(ctx, published)
	}
	return err
}

// shutOut marks members as removed and takes out what they publish; revision is when, 0
// if they published nothing.
func (s *State) shutOut(ctx context.Context, id [32]byte, some []room.Removal) (done bool, revision int64, err error) {
	keys := make([]string, len(some))
	for i, one := range some {
		keys[i] = s.memberKey(id, one.Key)
	}
	at, err := s.read(ctx, keys...)
	if err != nil {
		return false, 0, err
	}
	var changes []clientv3.Op
	for i, one := range some {
		m, _, err := decodeMember(at[i])
		if err != nil {
			return false, 0, err
		}
		if !m.Removed {
			m.Removed = true
			changes = append(changes, clientv3.OpPut(at[i].key, encodeMember(m)))
		}
		changes = append(changes, clientv3.OpDelete(s.holderKey(id, one.Key), clientv3.WithPrefix()))
	}
	r, err := s.transact(ctx, at, changes...)
	if err != nil || !r.Succeeded {
		return false, 0, err
	}
	for _, one := range r.Responses {
		if one.GetResponseDeleteRange().GetDeleted() > 0 {
			revision = r.Header.Revision
		}
	}
	return true, revision, nil
}

func decodeRemovals(o one) (*room.Removals, error) {
	if o.revision == 0 {
		return nil, nil
	}
	list, err := room.ParseRemovals(o.value)
	if err != nil {
		return nil, fmt.Errorf("etcd holds a damaged list of removals at %s: %w", o.key, err)
	}
	return list, nil
}

// Removals implements tracker.State.
func (s *State) Removals(ctx context.Context, id [32]byte) (list *room.Removals, err error) {
	err = s.try(ctx, func(ctx context.Context) (bool, error) {
		at, err := s.read(ctx, s.removalsKey(id))
		if err != nil {
			return false, err
		}
		list, err = decodeRemovals(at[0])
		return true, err
	})
	return list, err
}

// Members implements tracker.State.
func (s *State) Members(ctx context.Context, id [32]byte) ([]tracker.Member, error) {
	var members []tracker.Member
	_, err := s.pages(ctx, s.membersKey(id), func(key string, value []byte) error {
		m, _, err := decodeMember(one{key: key, value: value, revision: 1})
		members = append(members, m)
		return err
	})
	if err != nil {
		return nil, err
	}
	tracker.SortMembers(members)
	return members, nil
}

// forgetOldUses takes out the uses of invites that expired before a moment.
func (s *State) forgetOldUses(ctx context.Context, before time.Time) error {
	var old []string
	_, err := s.pages(ctx, s.prefix+"used/", func(key string, value []byte) error {
		if len(value) == 12 && int64(binary.BigEndian.Uint64(value[4:])) < before.Unix() {
			old = append(old, key)
		}
		return nil
	})
	for _, key := range old {
		if err != nil {
			break
		}
		err = s.try(ctx, func(ctx context.Context) (bool, error) {
			invite := strings.TrimPrefix(key, s.prefix+"used/")
			_, err := s.client.Txn(ctx).Then(clientv3.OpDelete(key), clientv3.OpDelete(s.prefix+"uses/"+invite+"/", clientv3.WithPrefix())).Commit()
			return true, err
		})
	}
	return err
}
