// Package etcdstate keeps what trackers share in an etcd cluster, so that any number of
// replicas serve one site: the durable facts of tracker.State, the catalogue, the rooms
// with their authorities, and which replica owns which pool.
//
// Durable facts change by transactions that compare what they have read, so that replicas
// never undo each other's; etcd has synced what it acknowledges on a majority of its
// servers. What a member publishes hangs on one lease of its own: when that ends all of it
// goes, and renewing it writes nothing. Each replica keeps the catalogue in memory for
// searches by watching it. docs/formats.md has the keys.
//
// This is the only package that knows etcd, and nodes never speak to it.
package etcdstate

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/status"

	"dragonload/internal/piece"
	"dragonload/internal/tracker"
)

const (
	format = "1"

	// opWithin is how long one call may take with all its tries. A cluster that has lost
	// its leader chooses another within one to two seconds.
	opWithin = 5 * time.Second
	// tryWithin is how long one try may take: another server may answer.
	tryWithin = 2 * time.Second
	// maxPause is the longest pause between two tries.
	maxPause = 200 * time.Millisecond

	// Of a connection that is silent etcd is asked after pingAfter; it is given up after
	// pingWithin more.
	pingAfter  = 2 * time.Second
	pingWithin = 2 * time.Second

	// pageSize is how many keys are read at a time.
	pageSize = 2000
	// opsAtOnce and bytesAtOnce keep a transaction below what etcd takes by default: 128
	// operations and 1.5 MiB.
	opsAtOnce   = 100
	bytesAtOnce = 512 << 10
)

// Options say where the cluster is. Endpoints and Log must be given.
type Options struct {
	Endpoints []string    // URLs, http or https
	TLS       *tls.Config // for https; nil takes the system's authorities
	Username  string      // and Password, where the cluster wants them
	Password  string
	// Prefix is put before every key, so that several sites may share a cluster.
	Prefix string // default "/dragonload/"
	Log    *slog.Logger
}

// State is a tracker.State in an etcd cluster. Its methods wait at most a few seconds for
// a cluster that does not answer, and return ErrAway then.
type State struct {
	options Options
	client  *clientv3.Client
	prefix  string
	log     *slog.Logger
	members [64]sync.Mutex // one is held while what a member publishes changes
	view    *view
	absent  absence
	cancel  context.CancelFunc
	running sync.WaitGroup
}

var _ tracker.State = (*State)(nil)

// Open connects to the cluster and reads the catalogue. An ErrAway if no majority answers
// within a few seconds.
func Open(ctx context.Context, o Options) (*State, error) {
	if o.Prefix == "" {
		o.Prefix = "/dragonload/"
	}
	quiet()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: o.Endpoints, TLS: o.TLS, Username: o.Username, Password: o.Password,
		DialTimeout: opWithin, DialKeepAliveTime: pingAfter, DialKeepAliveTimeout: pingWithin, PermitWithoutStream: true,
		Logger: zap.NewNop(),
	})
	if err != nil {
		return nil, o.explain(ctx, fmt.Errorf("%w: %w", ErrAway, err))
	}
	running, cancel := context.WithCancel(context.Background())
	s := &State{options: o, client: client, prefix: o.Prefix, log: o.Log, cancel: cancel, absent: absence{begun: make(chan struct{}, 1)}}
	s.view = newView(s)
	if err = s.begin(ctx); err == nil {
		err = s.forgetOldUses(ctx, time.Now().Add(-keepUses))
	}
	if err == nil {
		var at int64
		if at, err = s.view.load(ctx); err == nil {
			s.running.Go(func() { s.view.follow(running, at) })
			s.running.Go(func() { s.look(running) })
			return s, nil
		}
	}
	cancel()
	if ctx.Err() == nil {
		err = o.explain(ctx, err)
	}
	_ = client.Close() // of no use any more
	return nil, err
}

// quiet keeps what gRPC logs by itself from the standard error of this process: what is
// wrong is told in words of ours.
var quiet = sync.OnceFunc(func() { grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)) })

// begin checks the format of what is there, or writes it.
func (s *State) begin(ctx context.Context) error {
	key := s.prefix + "format"
	return s.try(ctx, func(ctx context.Context) (bool, error) {
		r, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, format)).Else(clientv3.OpGet(key)).Commit()
		if err != nil || r.Succeeded {
			return true, err
		}
		if have := r.Responses[0].GetResponseRange().GetKvs(); len(have) == 1 && !bytes.Equal(have[0].Value, []byte(format)) {
			return true, fmt.Errorf("it has format %q, this program knows %s; use the newer program", have[0].Value, format)
		}
		return true, nil
	})
}

// Close ends the connection. What was published stays until its leases end.
func (s *State) Close() error {
	s.cancel()
	s.running.Wait()
	if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close the connection to etcd: %w", err)
	}
	return nil
}

// try runs f until it is done: again where f reports false, because something that it had
// read has changed meanwhile, and where the cluster did not answer. So f may have taken
// effect before, and reads anew what it goes by.
func (s *State) try(ctx context.Context, f func(ctx context.Context) (done bool, err error)) error {
	limit := opWithin
	if s.absent.is() {
		limit = soonWithin // somebody has waited that long already
	}
	return s.within(ctx, limit, f)
}

func (s *State) within(ctx context.Context, limit time.Duration, f func(ctx context.Context) (done bool, err error)) error {
	all, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, maxPause) {
		one, cancelOne := context.WithTimeout(all, tryWithin)
		done, err := f(one)
		late := one.Err() != nil // a server words that in its own way
		cancelOne()
		switch {
		case err != nil && !late && !away(err):
			s.answered()
			return err
		case err == nil && done:
			s.answered()
			return nil
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-all.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err == nil {
				return ErrAway // others were always faster
			}
			s.missed()
			return fmt.Errorf("%w: %w", ErrAway, err)
		}
	}
}

// away reports whether err is one of the cluster or the connection to it, not of what
// was asked.
func away(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	for _, one := range []error{
		rpctypes.ErrNoLeader, rpctypes.ErrLeaderChanged, rpctypes.ErrNotCapable, rpctypes.ErrStopped, rpctypes.ErrTimeout,
		rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrTimeoutDueToConnectionLost, rpctypes.ErrUnhealthy, rpctypes.ErrTooManyRequests,
	} {
		if errors.Is(err, one) {
			return true
		}
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	case codes.Unknown: // so etcd 3.4 tells that a deadline of its own has passed
		return strings.Contains(err.Error(), context.DeadlineExceeded.Error())
	}
	return false
}

// Keys. Ids are in hexadecimal digits, so no id can hold a separator.

func (s *State) memberKey(room [32]byte, key piece.NodeID) string {
	return s.membersKey(room) + hex.EncodeToString(key[:])
}

func (s *State) membersKey(room [32]byte) string {
	return s.prefix + "members/" + hex.EncodeToString(room[:]) + "/"
}

func (s *State) lastKey(room [32]byte) string {
	return s.prefix + "last-number/" + hex.EncodeToString(room[:])
}

func (s *State) useKey(room [32]byte, invite [16]byte, key piece.NodeID) string {
	return s.usesKey(room, invite) + hex.EncodeToString(key[:])
}

func (s *State) usesKey(room [32]byte, invite [16]byte) string {
	return s.prefix + "uses/" + hex.EncodeToString(room[:]) + "/" + hex.EncodeToString(invite[:]) + "/"
}

func (s *State) usedKey(room [32]byte, invite [16]byte) string {
	return s.prefix + "used/" + hex.EncodeToString(room[:]) + "/" + hex.EncodeToString(invite[:])
}

func (s *State) removalsKey(room [32]byte) string {
	return s.allRemovalsKey() + hex.EncodeToString(room[:])
}

func (s *State) allRemovalsKey() string { return s.prefix + "removals/" }

// pages calls f with all keys that begin with prefix, as of one moment, and returns its
// revision.
func (s *State) pages(ctx context.Context, prefix string, f func(key string, value []byte) error) (revision int64, err error) {
	return s.pagesSince(ctx, prefix, 0, f)
}

// pagesSince is pages for those keys that have changed after a revision.
func (s *State) pagesSince(ctx context.Context, prefix string, after int64, f func(key string, value []byte) error) (revision int64, err error) {
	from, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	for {
		var r *clientv3.GetResponse
		err := s.try(ctx, func(ctx context.Context) (bool, error) {
			options := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(pageSize)}
			if after > 0 {
				options = append(options, clientv3.WithMinModRev(after+1))
			}
			if revision > 0 {
				options = append(options, clientv3.WithRev(revision))
			}
			var err error
			r, err = s.client.Get(ctx, from, options...)
			return true, err
		})
		if err != nil {
			return 0, err
		}
		if revision == 0 {
			revision = r.Header.Revision
		}
		for _, kv := range r.Kvs {
			if err := f(string(kv.Key), kv.Value); err != nil {
				return 0, err
			}
		}
		if !r.More {
			return revision, nil
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

// one is a key with its value as it was read.
type one struct {
	key      string
	value    []byte
	revision int64 // of its last change; 0: there is no such key
}

// unchanged compares that a key is as it was read.
func (o one) unchanged() clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(o.key), "=", o.revision)
}

// read reads keys as of one moment.
func (s *State) read(ctx context.Context, keys ...string) ([]one, error) {
	ops := make([]clientv3.Op, len(keys))
	for i, key := range keys {
		ops[i] = clientv3.OpGet(key)
	}
	r, err := s.client.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return nil, err
	}
	all := make([]one, len(keys))
	for i, key := range keys {
		all[i].key = key
		if kvs := r.Responses[i].GetResponseRange().GetKvs(); len(kvs) == 1 {
			all[i].value, all[i].revision = kvs[0].Value, kvs[0].ModRevision
		}
	}
	return all, nil
}

// commit makes changes if what they rest on is as it was read; false if it is not.
func (s *State) commit(ctx context.Context, rest []one, changes ...clientv3.Op) (done bool, revision int64, err error) {
	r, err := s.transact(ctx, rest, changes...)
	if err != nil {
		return false, 0, err
	}
	return r.Succeeded, r.Header.Revision, nil
}

// transact is commit for who wants to know what each change met.
func (s *State) transact(ctx context.Context, rest []one, changes ...clientv3.Op) (*clientv3.TxnResponse, error) {
	compare := make([]clientv3.Cmp, len(rest))
	for i, o := range rest {
		compare[i] = o.unchanged()
	}
	return s.client.Txn(ctx).If(compare...).Then(changes...).Commit()
}
