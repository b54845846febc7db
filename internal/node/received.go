package node

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dragonload/internal/manifest"
	"dragonload/internal/share"
	"dragonload/internal/store"
)

// What was downloaded here in a room is offered there as a share is, though nobody has
// shared it: it is listed beside the shares, and can be taken out like one of them.

// received is such a download, which is finished.
type received struct {
	download *download
	share    share.Share // as people are told of it
	torrent  *manifest.Torrent
}

// receipt is where a finished download lies, and since when.
type receipt struct {
	path string
	at   time.Time
}

// received returns all of them, the oldest first.
func (n *Node) received() []received {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []received
	for _, d := range n.running {
		if r, ok := d.asReceived(); ok {
			all = append(all, r)
		}
	}
	slices.SortStableFunc(all, func(a, b received) int { return a.share.Added.Compare(b.share.Added) })
	return all
}

func (d *download) asReceived() (received, bool) {
	if l := d.listed.Load(); l != nil {
		return received{d, l.asShare(), l.torrent}, true
	}
	at := d.receipt.Load()
	if at == nil || d.want == nil || d.room == nil || !d.node.opts.KeepServing {
		return received{}, false
	}
	t := d.want.torrent.Load()
	return received{d, share.Share{
		Spec:     share.Spec{Path: at.path, Room: d.room.name, Name: t.Name, Private: t.Private},
		Manifest: d.want.id, Size: d.want.bytes, Files: d.want.count, PieceLength: t.PieceLength, Added: at.at, State: share.Received,
	}, t}, true
}

// giveWay ends that what lies at a target is served, so that this download can put something
// else there. What is there stays unless it is to be overwritten.
func (d *download) giveWay(target string) error {
	n := d.node
	n.mu.Lock()
	var before []*download
	for _, other := range n.running {
		if at := other.receipt.Load(); other != d && at != nil && at.path == target {
			before = append(before, other)
		}
	}
	n.mu.Unlock()
	if len(before) > 0 && !d.spec.Overwrite {
		return fmt.Errorf("%s: %w; choose another name, or --overwrite it", target, store.ErrExists)
	}
	for _, other := range before {
		other.stop()
		<-other.over
	}
	return nil
}

// matchReceived returns what of it a word means as in share.Library.Match, in a room or in
// any if that is "", but for what is among others.
func (n *Node) matchReceived(word, room string, others []share.Share) []received {
	straight := word
	if s, err := filepath.EvalSymlinks(word); err == nil {
		straight = s
	}
	return slices.DeleteFunc(n.received(), func(r received) bool {
		s := &r.share
		byID := len(word) >= leastID && strings.HasPrefix(s.Manifest.String(), strings.ToLower(word))
		return !byID && s.Spec.Path != word && s.Spec.Path != straight || room != "" && s.Spec.Room != room || r.isAmong(others)
	})
}

// isAmong reports whether the same content is shared in the same room.
func (r received) isAmong(shares []share.Share) bool {
	return slices.ContainsFunc(shares, func(s share.Share) bool {
		return s.Manifest == r.share.Manifest && s.Spec.Room == r.share.Spec.Room
	})
}

// withReceived adds what was received to what is shared, each content of a room once.
func (n *Node) withReceived(shared []share.Share) []share.Share {
	for _, r := range n.received() {
		if !r.isAmong(shared) {
			shared = append(shared, r.share)
		}
	}
	return shared
}

// forgetReceived ends that a download is offered, by its URL too, now and after a restart.
func (n *Node) forgetReceived(r received) {
	d := r.download
	d.unlist()
	d.stop()
	<-d.over
	n.forgetHeld(heldName(poolKey{d.room.id, d.pool}))
}
