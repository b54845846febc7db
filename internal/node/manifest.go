package node

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"

	"dragonload/internal/manifest"
	"dragonload/internal/piece"
	"dragonload/internal/store"
	"dragonload/internal/swarm"
)

// wanted is what a download of a manifest is of: the manifest, once it is known, and which
// of its files are wanted.
type wanted struct {
	id      [sha256.Size]byte // info hash
	torrent atomic.Pointer[manifest.Torrent]
	// What follows is set before the machine is made.
	layout  piece.Layout
	digests []piece.Digest
	files   []bool          // that are wanted
	count   int             // of them
	bytes   int64           // in them
	pieces  *piece.Bitfield // of them; nil: all
	giver   piece.NodeID    // who has told the manifest; zero if no member has
}

// isManifest reports whether the download is of a manifest, and not of a URL.
func (d *download) isManifest() bool { return d.want != nil }

// isFolder reports whether it is of several files, which lie in a folder.
func (d *download) isFolder() bool {
	if d.want == nil {
		return false
	}
	t := d.want.torrent.Load()
	return t != nil && t.Folder
}

// readWanted reads what the spec says of a manifest; nil if it is of a URL.
func readWanted(spec Spec) (*wanted, error) {
	if len(spec.Manifest) == 0 && spec.ManifestID == "" {
		if len(spec.Select) > 0 {
			return nil, problem("bad-option", ExitBadOption, errors.New("a URL is one file: there is nothing to select"))
		}
		return nil, nil
	}
	switch {
	case spec.URL != "" || len(spec.Manifest) > 0 && spec.ManifestID != "":
		return nil, problem("bad-option", ExitBadOption, errors.New("a download is of a URL, or of a manifest, or of its id, and of one only"))
	case spec.Confirm > 1:
		return nil, problem("bad-option", ExitBadOption, errors.New("the digests of a manifest need no members to confirm them; leave --confirm out"))
	}
	w := &wanted{}
	if spec.ManifestID == "" {
		err := w.read(spec.Manifest, spec.Select)
		if err == nil && w.torrent.Load().Folder && spec.Output == "-" {
			err = problem("bad-option", ExitBadOption, errors.New("a folder does not go to standard output"))
		}
		return w, err
	}
	if spec.Room == "" {
		return nil, problem("no-room", ExitRoom, errors.New("a manifest's id says where nothing is: name the room whose members have it"))
	}
	raw, err := hex.DecodeString(spec.ManifestID)
	if err != nil || len(raw) != len(w.id) {
		return nil, problem("bad-option", ExitBadOption, fmt.Errorf("a manifest's id has %d hexadecimal digits", 2*len(w.id)))
	}
	copy(w.id[:], raw)
	return w, nil
}

// read takes in the manifest itself.
func (w *wanted) read(metainfo []byte, globs []string) error {
	t, err := manifest.ReadTorrent(bytes.NewReader(metainfo))
	if err != nil {
		return problem("bad-manifest", ExitBadAnswer, err)
	}
	layout, err := t.LayoutAll()
	if err != nil {
		return problem("bad-manifest", ExitBadAnswer, err)
	}
	if w.files, err = t.Select(globs); err != nil {
		return noMatch(t, err)
	}
	w.id, w.layout, w.digests = t.InfoHash(), layout, t.Digests()
	pieces := piece.NewBitfield(layout.Count())
	for k, is := range w.files {
		if !is {
			continue
		}
		r, e := layout.File(k)
		w.count++
		w.bytes += r.Len()
		for i := e.First; i < e.End(); i++ {
			pieces.Set(i)
		}
	}
	if w.count < len(w.files) {
		w.pieces = &pieces
	}
	w.torrent.Store(t)
	return nil
}

// maxListed is how many files are named where a glob fits none.
const maxListed = 50

// noMatch says what a glob could have chosen.
func noMatch(t *manifest.Torrent, err error) error {
	text := err.Error() + "; there are "
	for k, f := range t.Files {
		if k == maxListed {
			text += fmt.Sprintf(" and %d more", len(t.Files)-k)
			break
		}
		if k > 0 {
			text += ", "
		}
		text += f.Path
	}
	return problem("no-match", ExitBadOption, errors.New(text))
}

// source names the content in the journal.
func (w *wanted) source() string {
	sum := sha256.Sum256(append([]byte("dragonload source 1\x00manifest\x00"), w.id[:]...))
	return hex.EncodeToString(sum[:])
}

// String is the content's name for people.
func (w *wanted) String() string {
	if t := w.torrent.Load(); t != nil {
		return t.Name
	}
	return hex.EncodeToString(w.id[:])
}

func (w *wanted) pin() piece.Pin { return piece.ManifestPin(w.id, w.layout) }

// forMachine returns the manifest as the deciding machine knows it.
func (w *wanted) forMachine() *swarm.Manifest {
	return &swarm.Manifest{Pin: w.pin(), Layout: w.layout, Digests: w.digests}
}

// size returns how many bytes are wanted of g.
func (d *download) size(g *generation) int64 {
	if d.want != nil {
		return d.want.bytes
	}
	return g.pin.Size
}

// held returns how many of them are in the pieces of have.
func (d *download) held(g *generation, have *piece.Bitfield) int64 {
	if d.want == nil || d.want.pieces == nil {
		return heldBytes(g.layout, have)
	}
	n := int64(0)
	for e := range have.Extents {
		for i := e.First; i < e.End(); i++ {
			if d.want.pieces.Has(i) {
				n += g.layout.Length(i)
			}
		}
	}
	return n
}

// tree says how the content of a folder lies on disk.
func (w *wanted) tree() store.TreeOptions {
	t := w.torrent.Load()
	o := store.TreeOptions{Pin: w.pin(), Layout: w.layout, Digests: w.digests}
	for k, f := range t.Files {
		o.Files = append(o.Files, store.TreeFile{Path: f.Path, Size: f.Size, Skip: !w.files[k]})
	}
	if w.pieces == nil {
		o.Folders = t.Folders // where parts were chosen nobody chose them
	}
	return o
}

// shown is what is downloaded, for people: a URL without secrets, or a name.
func (d *download) shown() string {
	if d.want != nil {
		return d.want.String()
	}
	return d.client.Redacted()
}
