package node

import (
	"slices"
	"strings"
	"time"

	"dragonload/internal/catalogue"
	"dragonload/internal/manifest"
	"dragonload/internal/share"
)

// entries remembers what is published of each share, so that a change of one does not
// read the manifests of all. It belongs to the goroutine that publishes.
type entries map[uint64]catalogue.Entry

// publishSoon has what this node holds published anew.
func (n *Node) publishSoon() {
	select {
	case n.sharing.dirty <- struct{}{}:
	default:
	}
}

// keepPublished publishes what this node holds for others in its rooms, whenever that
// has changed, until the node ends.
func (n *Node) keepPublished(library *share.Library) {
	known := make(entries)
	rooms := make(map[string]bool) // in which something was published
	tick := time.NewTicker(listedEvery)
	defer tick.Stop()
	for {
		select {
		case <-n.sharing.dirty:
		case <-tick.C:
			n.checkListed()
			continue
		case <-n.life.Done():
			return
		}
		held := n.held(library, known)
		for name := range rooms {
			if _, still := held[name]; !still {
				held[name] = nil
			}
		}
		for name, list := range held {
			if err := n.Offer(name, list); err != nil {
				n.log.Warn("what is shared with this room is not published", "room", name, "err", err)
				continue
			}
			rooms[name] = true
		}
	}
}

// held returns what this node holds for others, by room: its shares, what it has
// downloaded, or does, by a manifest, and what it has downloaded from URLs.
func (n *Node) held(library *share.Library, known entries) map[string][]catalogue.Entry {
	held := make(map[string][]catalogue.Entry)
	// What lies here twice is one content, and one that is shared is held whole.
	type content struct {
		room     string
		manifest [32]byte
	}
	has := make(map[content]bool)
	hold := func(room string, e catalogue.Entry) {
		if c := (content{room, e.Manifest}); !has[c] {
			has[c] = true
			held[room] = append(held[room], e)
		}
	}
	there := make(map[uint64]bool)
	for _, s := range library.List() {
		if there[s.Number] = true; s.State != share.Offered {
			continue
		}
		e, ok := known[s.Number]
		if !ok || e.Manifest != s.Manifest || e.Private != s.Spec.Private {
			t, err := library.Torrent(s)
			if err != nil || t.InfoHash() != s.Manifest {
				n.log.Debug("a share is not published for now", "share", s.Spec.Path, "err", err)
				continue
			}
			e = entryOf(t)
			known[s.Number] = e
		}
		hold(s.Spec.Room, e)
	}
	for number := range known {
		if !there[number] {
			delete(known, number)
		}
	}
	n.mu.Lock()
	running := slices.Clone(n.running)
	n.mu.Unlock()
	for _, d := range running {
		if l := d.listed.Load(); l != nil {
			e := entryOf(l.torrent)
			e.Received = true
			hold(l.room.name, e)
		}
		if d.want == nil || d.room == nil || d.serving != nil && d.serving.held == nil || d.lent != nil || d.stdout() {
			continue
		}
		if t := d.want.torrent.Load(); t != nil {
			e := entryOf(t)
			e.Received = true
			e.Partial = d.want.pieces != nil || !d.isSaved.Load() || d.isLess.Load()
			hold(d.room.name, e)
		}
	}
	return held
}

// entryOf is what the catalogue is told of a content.
func entryOf(t *manifest.Torrent) catalogue.Entry {
	paths := make([][]string, 0, len(t.Files)+len(t.Folders))
	for _, f := range t.Files {
		paths = append(paths, strings.Split(f.Path, "/"))
	}
	return catalogue.Entry{
		Manifest: t.InfoHash(), Name: t.Name, Folder: t.Folder, Size: t.Size, Files: uint32(len(t.Files)),
		Names: catalogue.NamesOf(t.Name, paths), Private: t.Private,
	}
}
