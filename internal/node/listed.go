package node

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"dragonload/internal/manifest"
	"dragonload/internal/piece"
	"dragonload/internal/share"
	"dragonload/internal/store"
	"dragonload/internal/swarm"
)

// A file that was downloaded from a URL is a content like one that is shared: whoever looks
// into the room's catalogue finds it by its name, and gets it by its digests. Where it came
// from does not stand there; it is the web seed of its manifest. One whose URL or request held
// what may be a secret is not listed at all: it may not be for everybody in the room to know
// that it is here.

// listedEvery is how often the files that are listed are looked at, for nobody watches them.
const listedEvery = time.Minute

// listing is such a file.
type listing struct {
	torrent  *manifest.Torrent
	manifest [32]byte
	pool     swarm.PoolID // of its manifest
	room     *membership
	path     string
	info     os.FileInfo // of the file when it was listed
	added    time.Time
	gone     atomic.Bool // it is not there any more as it was, or not offered
}

// isListable reports whether a finished download may be listed. A name that not every system
// takes is no name of an entry.
func (d *download) isListable() bool { return d.room != nil && d.lendable() != "" }

// list offers a finished download by its content, from now until the download ends. What
// cannot be offered is not: it is served to those who know the URL all the same.
func (d *download) list(path string, layout piece.Layout, digests []piece.Digest, at time.Time) {
	l, err := d.newListing(path, layout, digests, at)
	if err != nil {
		d.log.Info("a finished download is not listed in its room", "path", path, "err", err)
		return
	}
	d.listed.Store(l)
	d.node.publishSoon()
}

func (d *download) newListing(path string, layout piece.Layout, digests []piece.Digest, at time.Time) (*listing, error) {
	info, err := d.node.unchangedFile(path)
	if err != nil {
		return nil, err
	}
	t, err := manifest.OfFile(filepath.Base(path), layout, digests, createdBy(d.node.opts.Version), publicURL(d.spec.URL)...)
	if err != nil {
		return nil, err
	}
	l := &listing{torrent: t, manifest: t.InfoHash(), room: d.room, path: path, info: info, added: at}
	l.pool = d.room.manifestPool(l.manifest)
	return l, nil
}

// unchangedFile looks at a file that was downloaded here; errNotHeld if it is not as it was
// when it got its name.
func (n *Node) unchangedFile(path string) (os.FileInfo, error) {
	kept, found, err := n.journal.Kept(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(path)
	if err != nil || !found || !info.Mode().IsRegular() || info.Size() != kept.Size || !info.ModTime().Equal(kept.Modified) {
		return nil, errNotHeld
	}
	return info, nil
}

// unlist ends that a download is listed.
func (d *download) unlist() {
	if l := d.listed.Swap(nil); l != nil {
		l.gone.Store(true)
		d.node.publishSoon()
	}
}

// listings returns what is listed, with the downloads that hold it.
func (n *Node) listings() map[*listing]*download {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make(map[*listing]*download)
	for _, d := range n.running {
		if l := d.listed.Load(); l != nil {
			all[l] = d
		}
	}
	return all
}

// checkListed takes what is listed out that is not there any more as it was.
func (n *Node) checkListed() {
	for l, d := range n.listings() {
		if _, err := l.look(); err != nil {
			d.unlist()
		}
	}
}

// look returns the file as it is now; errNotHeld if that is another one than was listed. What
// has its bytes is not told from it: each piece is compared with its digest when it is read.
func (l *listing) look() (os.FileInfo, error) {
	info, err := os.Lstat(l.path)
	if err != nil || !os.SameFile(info, l.info) || info.Size() != l.info.Size() || !info.ModTime().Equal(l.info.ModTime()) {
		return nil, fmt.Errorf("%s: %w", l.path, errNotHeld)
	}
	return info, nil
}

// listedAs returns what is listed under the name of a pool.
func (n *Node) listedAs(roomID [32]byte, pool swarm.PoolID) (*listing, bool) {
	for l := range n.listings() {
		if l.pool == pool && l.room.id == roomID {
			return l, true
		}
	}
	return nil, false
}

// asShare is what people are told of it.
func (l *listing) asShare() share.Share {
	return share.Share{
		Spec:     share.Spec{Path: l.path, Room: l.room.name, Name: l.torrent.Name},
		Manifest: l.manifest, Size: l.torrent.Size, Files: 1, PieceLength: l.torrent.PieceLength, Added: l.added, State: share.Received,
	}
}

// content is what its pool is opened with.
func (l *listing) content(n *Node) (root string, files []store.SharedFile, err error) {
	info, err := l.look()
	if err != nil {
		n.checkListed()
		return "", nil, err
	}
	return filepath.Dir(l.path), []store.SharedFile{{Path: filepath.Base(l.path), Stamp: stampNow(info)}}, nil
}
