package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"dragonload/internal/catalogue"
	"dragonload/internal/manifest"
	"dragonload/internal/peer"
	"dragonload/internal/rpc"
	nodev1 "dragonload/internal/rpc/gen/dragonload/node/v1"
	"dragonload/internal/share"
	"dragonload/internal/swarm"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// SharesFile is the name of the library of shares in the state folder.
const SharesFile = "shares.db"

// maxSkipped bounds what is told of things that are left out of one share.
const maxSkipped = 100

// sharing is what this node offers to its rooms. The library is opened when it is first
// needed, and for a node that keeps serving at its start.
type sharing struct {
	mu      sync.Mutex // guards what follows
	library *share.Library
	ended   bool
	// Which manifest the pool of a room is of, of what is offered; nil: to be made anew.
	pools map[poolKey]share.Share

	dirty chan struct{} // holds one when what is held is to be published anew
}

// offer is what a pool is opened of when a neighbour asks for it.
type offer struct {
	share  share.Share
	listed *listing // a finished download, in place of a share
}

// shares returns the library, opening it if need be. From then on it is kept as the
// disk is until the node ends.
func (n *Node) shares() (*share.Library, error) {
	s := &n.sharing
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.library != nil || s.ended {
		if s.ended {
			return nil, ErrEnding
		}
		return s.library, nil
	}
	library, err := share.Open(share.Options{
		Path: filepath.Join(n.opts.StateDir, SharesFile), CreatedBy: createdBy(n.opts.Version),
		Own: append([]string{n.opts.StateDir}, n.opts.Own...), Filling: n.isFilling,
		Changed: n.sharesChanged, Log: n.log,
	})
	if err != nil {
		return nil, fmt.Errorf("open the list of shares: %w", err)
	}
	s.library = library
	n.work.Go(func() { library.Run(n.life) })
	n.work.Go(func() { n.keepPublished(library) })
	n.publishSoon()
	return library, nil
}

// beginSharing opens the library and takes part in the rooms that something is offered to.
func (n *Node) beginSharing() error {
	library, err := n.shares()
	if err != nil {
		return err
	}
	rooms := make(map[string]bool)
	for _, s := range library.List() {
		if rooms[s.Spec.Room] {
			continue
		}
		rooms[s.Spec.Room] = true
		if _, err := n.membership(s.Spec.Room); err != nil {
			n.log.Warn("what is shared with this room is not offered", "room", s.Spec.Room, "err", err)
		}
	}
	return nil
}

// isFilling reports whether what lies at a path is the unfinished work of a download that is
// under way.
func (n *Node) isFilling(path string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range n.running {
		if part := d.filling.Load(); part != nil && *part == path && !d.isSaved.Load() {
			return true
		}
	}
	return false
}

func createdBy(version string) string {
	if version == "" {
		return "dragonload"
	}
	return "dragonload/" + version
}

// endShares lets go of the library; nothing of the node works any more.
func (n *Node) endShares() error {
	s := &n.sharing
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	if s.library == nil {
		return nil
	}
	return s.library.Close()
}

// opened returns the library if it is open.
func (n *Node) opened() *share.Library {
	s := &n.sharing
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.library
}

// sharesChanged is called by the library when something else is offered.
func (n *Node) sharesChanged() {
	s := &n.sharing
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pools = nil
	n.publishSoon()
}

// offered returns what is offered under the name of a pool.
func (n *Node) offered(roomID [32]byte, pool swarm.PoolID) (offer, bool) {
	if s, ok := n.shared(roomID, pool); ok {
		return offer{share: s}, true
	}
	l, ok := n.listedAs(roomID, pool)
	return offer{listed: l}, ok
}

func (n *Node) shared(roomID [32]byte, pool swarm.PoolID) (share.Share, bool) {
	s := &n.sharing
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.library == nil {
		return share.Share{}, false
	}
	if s.pools == nil {
		s.pools = n.poolsOf(s.library.List())
	}
	one, ok := s.pools[poolKey{roomID, pool}]
	return one, ok
}

// poolsOf finds the pools of all that is shared now.
func (n *Node) poolsOf(all []share.Share) map[poolKey]share.Share {
	pools := make(map[poolKey]share.Share)
	for _, r := range n.opts.Keyring.Rooms() {
		for _, one := range all {
			if one.State == share.Offered && one.Spec.Room == r.Name {
				pools[poolKey{r.ID, r.ManifestPool(one.Manifest)}] = one
			}
		}
	}
	return pools
}

// shareManifest returns the manifest of what is offered, for members.
func (n *Node) shareManifest(roomID [32]byte, pool swarm.PoolID) (peer.Manifest, error) {
	o, ok := n.offered(roomID, pool)
	if ok && o.listed != nil {
		return encodeManifest(o.listed.torrent)
	}
	library := n.opened()
	if !ok || library == nil {
		return peer.Manifest{}, peer.ErrNotHeld
	}
	t, err := library.Torrent(o.share)
	if err != nil {
		return peer.Manifest{}, err
	}
	if t.InfoHash() != o.share.Manifest {
		return peer.Manifest{}, peer.ErrNotHeld // it changed just now
	}
	return encodeManifest(t)
}

// encodeManifest is a manifest as members are told it: with web seeds that are no secret, and
// without who made it.
func encodeManifest(t *manifest.Torrent) (peer.Manifest, error) {
	told := t.Bare()
	told.WebSeeds = publicSeeds(t, t.WebSeeds)
	var data bytes.Buffer
	if err := told.Write(&data); err != nil {
		return peer.Manifest{}, err
	}
	return peer.Manifest{Data: data.Bytes(), Info: t.InfoLength()}, nil
}

// Share offers a file or folder to a room and tells how far it has come. Every error is
// an *Error.
func (n *Node) Share(ctx context.Context, spec share.Spec, tell func(*nodev1.ShareEvent)) (share.Share, error) {
	if _, err := n.membership(spec.Room); err != nil {
		return share.Share{}, AsError(err)
	}
	library, err := n.shares()
	if err != nil {
		return share.Share{}, AsError(err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(n.life, func() { cancel(ErrEnding) })()
	if !spec.Private {
		spec.WebSeeds = n.webSeedsOf(spec.Path)
	}
	s, skipped, err := library.Add(ctx, spec, func(done, total int64) {
		tell(&nodev1.ShareEvent{Event: &nodev1.ShareEvent_Hashed{Hashed: &nodev1.Hashed{Done: done, Total: total}}})
	})
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return share.Share{}, shareProblem(spec.Path, err)
	}
	for k, one := range skipped {
		if k == maxSkipped {
			one = manifest.Skipped{Path: fmt.Sprintf("and %d more things", len(skipped)-k), Why: "the log names them"}
		}
		tell(&nodev1.ShareEvent{Event: &nodev1.ShareEvent_Skipped{Skipped: &nodev1.Skipped{Path: one.Path, Why: one.Why}}})
		if k == maxSkipped {
			break
		}
	}
	return s, nil
}

// webSeedsOf returns where a file came from, if it is one that was downloaded and is as it
// was then. What has a query, which may be secret, and what was got with a secret is left out.
func (n *Node) webSeedsOf(path string) (urls []string) {
	straight, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil
	}
	info, err := os.Stat(straight)
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	kept, found, err := n.journal.Kept(straight)
	if err != nil || !found || kept.Size != info.Size() || !kept.Modified.Equal(info.ModTime()) {
		return nil
	}
	for _, raw := range kept.From {
		if isPublic(raw) {
			urls = append(urls, raw)
		}
	}
	return urls
}

// shareProblem is AsError for what came of making a manifest.
func shareProblem(path string, err error) *Error {
	var disk *fs.PathError
	switch {
	case errors.Is(err, context.Canceled):
		return problem("stopped", ExitStopped, errors.New("stopped; nothing was shared"))
	case errors.Is(err, ErrEnding):
		return AsError(err)
	case errors.Is(err, fs.ErrNotExist):
		return problem("not-found", ExitNotFound, fmt.Errorf("there is nothing at %s; name a file or a folder", path))
	case errors.Is(err, manifest.ErrFileChanged):
		return problem("file", ExitFile, fmt.Errorf("%s: %w; share it when nobody writes to it", path, err))
	case errors.Is(err, fs.ErrPermission):
		return problem("file", ExitFile, fmt.Errorf("%s cannot be shared: %w; let the user that dragonload runs as read it (chmod u+rX)", path, err))
	case errors.As(err, &disk):
		return problem("file", ExitFile, fmt.Errorf("%s cannot be shared: %w", path, err))
	}
	return problem("bad-share", ExitBadOption, fmt.Errorf("%s cannot be shared: %w", path, err))
}

// Share implements rpc.LocalNode.
func (l localNode) Share(ctx context.Context, req *nodev1.ShareRequest, send func(*nodev1.ShareEvent)) error {
	spec := share.Spec{Path: req.GetPath(), Room: req.GetRoom(), Name: req.GetName(), Private: req.GetPrivate()}
	if !filepath.IsAbs(spec.Path) {
		return fmt.Errorf("%w: a share of a path that is not absolute", rpc.ErrMalformed)
	}
	s, err := l.n.Share(ctx, spec, send)
	if errors.Is(err, ErrEnding) {
		return rpc.ErrStopping
	}
	if err != nil {
		send(&nodev1.ShareEvent{Event: &nodev1.ShareEvent_Failed{Failed: encodeProblem(&AsError(err).Problem)}})
		return nil
	}
	send(&nodev1.ShareEvent{Event: &nodev1.ShareEvent_Shared{Shared: EncodeShared(s)}})
	return nil
}

// Unshare implements rpc.LocalNode.
func (l localNode) Unshare(_ context.Context, what, room string) ([]*nodev1.Shared, error) {
	matches, err := l.n.Unshare(what, room)
	return encodeShares(matches), err
}

// Unshare ends the share that a word means, a path or digits of an id, in a room or, if
// that is "", wherever it is; with several, or none, nothing has happened.
func (n *Node) Unshare(what, room string) ([]share.Share, error) {
	library, err := n.shares()
	if err != nil {
		return nil, err
	}
	matches := MatchShares(library, what, room)
	received := n.matchReceived(what, room, matches)
	switch {
	case len(matches)+len(received) != 1:
		for _, r := range received {
			matches = append(matches, r.share)
		}
	case len(received) == 1:
		matches = []share.Share{received[0].share}
		n.forgetReceived(received[0])
	default:
		if _, err := library.Remove(matches[0].Number); err != nil {
			return nil, err
		}
		n.endServing(matches[0].Number)
		for _, r := range n.received() { // it was downloaded here, too
			if s := &r.share; s.Spec.Room == matches[0].Spec.Room && (s.Spec.Path == matches[0].Spec.Path || s.Manifest == matches[0].Manifest) {
				n.forgetReceived(r)
			}
		}
	}
	return matches, nil
}

// MatchShares returns the shares that a word means in a room, or in any if that is "".
func MatchShares(library *share.Library, what, room string) []share.Share {
	var matches []share.Share
	for _, s := range library.Match(what) {
		if room == "" || s.Spec.Room == room {
			matches = append(matches, s)
		}
	}
	return matches
}

// Shares implements rpc.LocalNode.
func (l localNode) Shares(context.Context) ([]*nodev1.Shared, error) {
	library, err := l.n.shares()
	if err != nil {
		return nil, err
	}
	return encodeShares(l.n.withReceived(library.List())), nil
}

// Manifest implements rpc.LocalNode.
func (l localNode) Manifest(_ context.Context, what string) ([]*nodev1.Shared, []byte, error) {
	library, err := l.n.shares()
	if err != nil {
		return nil, nil, err
	}
	matches := library.Match(what)
	var listed []received
	if !filepath.IsAbs(what) { // of a path the journal tells more
		listed = l.n.matchReceived(what, "", matches)
	}
	for _, one := range listed {
		matches = append(matches, one.share)
	}
	if len(matches) == 0 || matches[0].Manifest != matches[len(matches)-1].Manifest {
		return encodeShares(matches), nil, nil
	}
	var t *manifest.Torrent
	if len(listed) < len(matches) {
		t, err = library.Torrent(matches[0])
	} else {
		t = listed[0].torrent
	}
	if err != nil {
		return nil, nil, err
	}
	var text bytes.Buffer
	if err := t.Write(&text); err != nil {
		return nil, nil, err
	}
	return encodeShares(matches[:1]), text.Bytes(), nil
}

func encodeShares(all []share.Share) []*nodev1.Shared {
	var out []*nodev1.Shared
	for _, s := range all {
		out = append(out, EncodeShared(s))
	}
	return out
}

// EncodeShared returns a share as the local API tells of it.
func EncodeShared(s share.Share) *nodev1.Shared {
	return &nodev1.Shared{
		Path: s.Spec.Path, Room: s.Spec.Room, Name: s.Spec.Name, Private: s.Spec.Private,
		Manifest: s.Manifest[:], Size: s.Size, Files: int64(s.Files), Added: timestamppb.New(s.Added),
		State: s.State.String(), Problem: s.Problem,
	}
}

// DecodeShared reads what EncodeShared wrote, as much of it as commands show.
func DecodeShared(x *nodev1.Shared) share.Share {
	s := share.Share{
		Spec: share.Spec{Path: x.GetPath(), Room: x.GetRoom(), Name: x.GetName(), Private: x.GetPrivate()},
		Size: x.GetSize(), Files: int(x.GetFiles()), Problem: x.GetProblem(),
	}
	if t := x.GetAdded(); t.IsValid() {
		s.Added = t.AsTime()
	} else {
		s.Added = time.Time{}
	}
	copy(s.Manifest[:], x.GetManifest())
	for state := share.Checking; state <= share.Received; state++ {
		if state.String() == x.GetState() {
			s.State = state
		}
	}
	return s
}

// Search implements rpc.LocalNode.
func (l localNode) Search(ctx context.Context, req *nodev1.SearchRequest) ([]*nodev1.Found, bool, error) {
	q := catalogue.Query{Words: req.GetWords(), Limit: int(min(req.GetLimit(), catalogue.MaxEntries))}
	if err := q.Validate(); err != nil {
		return nil, false, fmt.Errorf("%w: %w", rpc.ErrMalformed, err)
	}
	page, err := l.n.Search(ctx, req.GetRoom(), q)
	if err != nil {
		return nil, false, err
	}
	var found []*nodev1.Found
	for _, f := range page.Found {
		e := f.Entry
		x := &nodev1.Found{
			Manifest: e.Manifest[:], Name: e.Name, Folder: e.Folder, Size: e.Size, Files: e.Files, Private: e.Private,
			Holders: uint32(f.Holders), Whole: uint32(f.Whole),
		}
		if req.GetHolders() {
			all, err := l.n.Holders(ctx, req.GetRoom(), e.Manifest, 0)
			if err != nil {
				return nil, false, err
			}
			f = f.Naming(all)
		}
		for _, h := range f.By {
			x.By = append(x.By, &nodev1.Holder{Id: h.ID[:], Number: h.Number, Name: h.Name, Addr: h.Addr, Partial: h.Partial})
		}
		found = append(found, x)
	}
	return found, page.More, nil
}
