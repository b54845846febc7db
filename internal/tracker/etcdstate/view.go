package etcdstate

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"dragonload/internal/catalogue"
	"dragonload/internal/piece"
)

// view is the catalogue of every room as this replica has seen it, for searches. One
// goroutine follows what changes in etcd.
type view struct {
	s *State

	mu      sync.Mutex // guards what follows
	rooms   map[[32]byte]*catalogue.Index
	applied int64         // the revision up to which rooms is true
	moved   chan struct{} // closed when applied grows, and made anew
}

func newView(s *State) *view {
	return &view{s: s, rooms: make(map[[32]byte]*catalogue.Index), moved: make(chan struct{})}
}

// index returns the catalogue of a room.
func (v *view) index(id [32]byte) *catalogue.Index {
	v.mu.Lock()
	defer v.mu.Unlock()
	return indexOf(v.rooms, id)
}

// Text returns how many bytes of names all catalogues hold, as this replica has seen them.
func (s *State) Text() int {
	s.view.mu.Lock()
	rooms := slices.Collect(maps.Values(s.view.rooms))
	s.view.mu.Unlock()
	all := 0
	for _, x := range rooms {
		_, _, text := x.Size()
		all += text
	}
	return all
}

func indexOf(rooms map[[32]byte]*catalogue.Index, id [32]byte) *catalogue.Index {
	x := rooms[id]
	if x == nil {
		x = catalogue.NewIndex()
		rooms[id] = x
	}
	return x
}

// await returns when the view holds what a transaction of this replica has changed, or
// soon all the same: what was changed is so, whether it is seen here or not.
func (v *view) await(ctx context.Context, revision int64) {
	ctx, cancel := context.WithTimeout(ctx, tryWithin)
	defer cancel()
	for {
		v.mu.Lock()
		there, moved := v.applied >= revision, v.moved
		v.mu.Unlock()
		if there {
			return
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}

func (v *view) advance(revision int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if revision > v.applied {
		v.applied = revision
		close(v.moved)
		v.moved = make(chan struct{})
	}
}

// load reads the whole catalogue, and returns its revision.
func (v *view) load(ctx context.Context) (revision int64, err error) {
	rooms := make(map[[32]byte]*catalogue.Index)
	revision, err = v.s.pages(ctx, v.s.catalogueKey(), func(key string, value []byte) error {
		v.put(rooms, key, value)
		return nil
	})
	if err != nil {
		return 0, err
	}
	v.mu.Lock()
	v.rooms = rooms
	v.mu.Unlock()
	v.advance(revision)
	return revision, nil
}

// follow keeps the view true from a revision on, until ctx ends.
func (v *view) follow(ctx context.Context, revision int64) {
	for pause := minPause; ; {
		next, err := v.watch(ctx, revision)
		if ctx.Err() != nil {
			return
		}
		level := slog.LevelDebug
		if next > revision || pause == minPause {
			revision, pause, level = max(next, revision), minPause, slog.LevelWarn // once, until it is followed again
		}
		v.s.log.Log(ctx, level, "the catalogue in etcd is not followed at the moment", "err", err)
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, opWithin)
		if errors.Is(err, errGap) {
			if at, err := v.load(ctx); err == nil {
				revision = at
			}
		}
	}
}

const minPause = 50 * time.Millisecond

// errGap: etcd has forgotten some of what changed meanwhile.
var errGap = errors.New("etcd has compacted what was to be followed")

// watch takes in what changes after a revision, and returns up to where it came.
func (v *view) watch(ctx context.Context, revision int64) (int64, error) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	changes := v.s.client.Watch(ctx, v.s.catalogueKey(), clientv3.WithPrefix(), clientv3.WithRev(revision+1))
	for r := range changes {
		if r.CompactRevision > 0 {
			return revision, errGap
		}
		if err := r.Err(); err != nil {
			return revision, err
		}
		v.mu.Lock()
		rooms := v.rooms
		for _, e := range r.Events {
			if e.Type == clientv3.EventTypeDelete {
				v.remove(rooms, string(e.Kv.Key))
			} else {
				v.put(rooms, string(e.Kv.Key), e.Kv.Value)
			}
		}
		v.mu.Unlock()
		revision = max(revision, r.Header.Revision)
		v.advance(revision)
	}
	return revision, errors.New("the watch has ended")
}

// put takes in one key. What is damaged is left out: it is soft, and comes again.
func (v *view) put(rooms map[[32]byte]*catalogue.Index, key string, value []byte) {
	id, node, manifest, whole, ok := v.split(key)
	if !ok {
		return
	}
	x := indexOf(rooms, id)
	var err error
	if whole {
		var p published
		if err = json.Unmarshal(value, &p); err == nil {
			h := catalogue.Holder{ID: node, Number: p.Number, Name: p.Name, Addr: p.Addr, Seen: p.Seen}
			err = x.SetHolder(h, p.Version, time.Time{})
		}
	} else {
		var e catalogue.Entry
		if err = json.Unmarshal(value, &e); err == nil {
			if err = e.Validate(); err == nil && e.Manifest != manifest {
				err = errors.New("it is of another manifest")
			}
		}
		if err == nil {
			err = x.Put(node, e)
		}
	}
	if err != nil {
		v.s.log.Warn("an entry of the catalogue in etcd is left out", "key", key, "err", err)
	}
}

func (v *view) remove(rooms map[[32]byte]*catalogue.Index, key string) {
	id, node, manifest, whole, ok := v.split(key)
	switch {
	case !ok:
	case whole:
		indexOf(rooms, id).Drop(node)
	default:
		indexOf(rooms, id).Remove(node, manifest)
	}
}

// split reads a key: of a member (whole), or of an entry.
func (v *view) split(key string) (id [32]byte, node piece.NodeID, manifest [32]byte, whole, ok bool) {
	parts := strings.Split(strings.TrimPrefix(key, v.s.catalogueKey()), "/")
	if len(parts) != 3 {
		return id, node, manifest, false, false
	}
	whole = parts[2] == ""
	ok = decodeID(parts[0], id[:]) && decodeID(parts[1], node[:]) && (whole || decodeID(parts[2], manifest[:]))
	return id, node, manifest, whole, ok
}

func decodeID(text string, to []byte) bool {
	if hex.DecodedLen(len(text)) != len(to) {
		return false
	}
	_, err := hex.Decode(to, []byte(text))
	return err == nil
}

// Search implements tracker.State.
func (s *State) Search(ctx context.Context, id [32]byte, q catalogue.Query) (catalogue.Page, error) {
	if err := q.Validate(); err != nil {
		return catalogue.Page{}, err
	}
	if err := ctx.Err(); err != nil {
		return catalogue.Page{}, err
	}
	return s.view.index(id).Search(q, time.Now()), nil
}

// Holders implements tracker.State.
func (s *State) Holders(ctx context.Context, id, manifest [32]byte, except piece.NodeID, limit int) ([]catalogue.Holder, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s.view.index(id).Holders(manifest, except, limit, time.Now()), nil
}

// Holder implements tracker.State.
func (s *State) Holder(ctx context.Context, id [32]byte, node piece.NodeID) (catalogue.Holder, bool, error) {
	if err := ctx.Err(); err != nil {
		return catalogue.Holder{}, false, fmt.Errorf("look for a member: %w", err)
	}
	h, known := s.view.index(id).Holder(node, time.Now())
	return h, known, nil
}
