package node

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dragonload/internal/manifest"
	"dragonload/internal/piece"
	"dragonload/internal/store"
)

// A download of a room that was finished is remembered in the folder "held" of the state
// folder, and a node that keeps serving takes part in its pool again when it starts: so who
// asks for the same URL tomorrow gets the bytes from the machines of the room. What is
// remembered is soft: without it the file is only not served.
//
// There are two files for each, named by the room and the pool: NAME.json says what it is,
// NAME.body has the digests of the pieces, or the manifest.

const (
	heldFolder  = "held"
	heldVersion = 1

	// maxHeld is how many finished downloads are remembered, the newest; maxReopened how
	// many of them a node serves that starts again.
	maxHeld     = 1000
	maxReopened = 64

	// maxHeldHeader bounds what says what a download was of.
	maxHeldHeader = 256 << 10
)

// held is a finished download of a room.
type held struct {
	Version     int
	Room        string // id, in hexadecimal digits
	Path        string
	URL         string   `json:",omitempty"` // without user-info; or else it is of a manifest
	Select      []string `json:",omitempty"`
	Size        int64
	Kind        piece.ValidatorKind `json:",omitempty"` // these three: of a URL
	Validator   string              `json:",omitempty"`
	Incarnation uint64              `json:",omitempty"`
	Listed      bool                `json:",omitempty"` // of a URL: it is offered by its content, too
	Finished    time.Time
	Body        string // SHA-256 of what is in the other file

	digests []piece.Digest // of a URL
	body    []byte
}

func (h *held) pin() piece.Pin {
	return piece.Pin{Size: h.Size, Kind: h.Kind, Validator: h.Validator}
}

// heldName is what the files of a pool are called.
func heldName(key poolKey) string {
	sum := sha256.Sum256(append(key.room[:], key.pool[:]...))
	return hex.EncodeToString(sum[:16])
}

// remember notes that a download was finished, so that it can be served after a restart.
func (d *download) remember(g *generation, saved *Saved) {
	h, body := d.heldAs(g, saved)
	if h == nil {
		return
	}
	if h.Listed && d.node.opts.KeepServing {
		d.list(saved.Path, g.layout, h.digests, h.Finished)
	}
	folder := filepath.Join(d.node.opts.StateDir, heldFolder)
	name := filepath.Join(folder, heldName(poolKey{d.room.id, d.pool}))
	sum := sha256.Sum256(body)
	h.Body = hex.EncodeToString(sum[:])
	header, err := json.Marshal(h)
	if err == nil && len(header) > maxHeldHeader {
		return
	}
	if err == nil {
		err = os.MkdirAll(folder, 0o700)
	}
	if err == nil {
		err = replaceFile(name+".body", body)
	}
	if err == nil {
		err = replaceFile(name+".json", header)
	}
	if err != nil {
		d.log.Warn("a finished download will not be served after a restart", "path", saved.Path, "err", err)
	}
}

// heldAs returns what is to be remembered of a download, nil if nothing is.
func (d *download) heldAs(g *generation, saved *Saved) (*held, []byte) {
	if d.room == nil || d.stdout() || saved.Checked == "unproven" {
		return nil, nil
	}
	h := &held{Version: heldVersion, Room: hex.EncodeToString(d.room.id[:]), Path: saved.Path, Finished: time.Now()}
	if d.want != nil {
		h.Select = d.spec.Select
		var text bytes.Buffer
		if err := d.manifestToTell().Write(&text); err != nil {
			return nil, nil
		}
		return h, text.Bytes()
	}
	if !g.pin.Combinable() || g.pin.Kind == piece.Mirror {
		return d.heldByContent(h, g)
	}
	h.URL, h.Size, h.Kind, h.Validator = withoutUser(d.spec.URL), g.pin.Size, g.pin.Kind, g.pin.Validator
	h.Listed = d.isListable()
	h.digests = g.file.Digests()
	var body []byte
	for _, digest := range h.digests {
		body = append(body, digest[:]...)
	}
	return h, body
}

// heldByContent is heldAs for a file of whose version nobody can tell later that it is the
// origin's: it is a content like any other.
func (d *download) heldByContent(h *held, g *generation) (*held, []byte) {
	if !d.isListable() {
		return nil, nil
	}
	h.digests = g.file.Digests()
	t, err := manifest.OfFile(filepath.Base(h.Path), g.layout, h.digests, createdBy(d.node.opts.Version), publicURL(d.spec.URL)...)
	if err != nil {
		return nil, nil
	}
	var text bytes.Buffer
	if err := t.Write(&text); err != nil {
		return nil, nil
	}
	h.Listed = true
	return h, text.Bytes()
}

// replaceFile writes a file of mode 0600 that is there with all of its bytes or not at all.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the error above is the one that matters
	}
	return err
}

// serveHeld takes part again in the pools of what was finished in earlier runs, the newest
// first, and forgets what is not there any more.
func (n *Node) serveHeld() {
	if n.opts.Keyring == nil || n.opts.Rooms == nil {
		return
	}
	reopened := 0
	for k, name := range n.heldNames() {
		if k >= maxHeld {
			n.forgetHeld(name)
			continue
		}
		if reopened == maxReopened {
			continue
		}
		h, err := n.readHeld(name)
		if err == nil {
			err = n.reopen(h)
		}
		var e *Error
		switch {
		case err == nil:
			reopened++
		case errors.Is(err, errNotHeld):
			n.log.Info("a finished download is served no more", "file", name, "err", err)
			n.forgetHeld(name)
		case errors.As(err, &e):
			n.log.Info("a finished download is not served now", "file", name, "err", err)
		default:
			n.log.Warn("a finished download is not served", "file", name, "err", err)
		}
	}
	if reopened > 0 {
		n.publishSoon()
	}
}

// errNotHeld: what was finished is not there any more as it was, or its record cannot be used.
var errNotHeld = errors.New("it is not there as it was")

// heldNames returns the names of what is remembered, the newest first. What an
// interrupted write left is removed.
func (n *Node) heldNames() []string {
	folder := filepath.Join(n.opts.StateDir, heldFolder)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil
	}
	times := make(map[string]time.Time)
	var names []string
	for _, e := range entries {
		name, isHeader := strings.CutSuffix(e.Name(), ".json")
		info, err := e.Info()
		switch {
		case err != nil || !info.Mode().IsRegular():
		case strings.HasPrefix(name, ".new-"):
			_ = os.Remove(filepath.Join(folder, name)) // tried again at the next start
		case isHeader:
			times[name] = info.ModTime()
			names = append(names, name)
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return times[b].Compare(times[a]) })
	return names
}

func (n *Node) forgetHeld(name string) {
	for _, suffix := range []string{".json", ".body"} {
		if err := os.Remove(filepath.Join(n.opts.StateDir, heldFolder, name+suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			n.log.Warn("forget a finished download", "err", err)
		}
	}
}

// readHeld reads what is remembered under a name; errNotHeld if that makes no sense.
func (n *Node) readHeld(name string) (*held, error) {
	base := filepath.Join(n.opts.StateDir, heldFolder, name)
	header, err := readAtMost(base+".json", maxHeldHeader)
	if err != nil {
		return nil, err
	}
	h := &held{}
	if err := json.Unmarshal(header, h); err != nil || h.Version != heldVersion || !filepath.IsAbs(h.Path) {
		return nil, fmt.Errorf("%w: its record is damaged", errNotHeld)
	}
	if h.body, err = readAtMost(base+".body", manifest.MaxTorrent); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotHeld, err)
	}
	if sum := sha256.Sum256(h.body); hex.EncodeToString(sum[:]) != h.Body {
		return nil, fmt.Errorf("%w: its record is damaged", errNotHeld)
	}
	if h.URL == "" {
		return h, nil
	}
	pin := h.pin()
	if pin.Validate() != nil || !pin.Combinable() || pin.Layout().Count()*len(piece.Digest{}) != len(h.body) {
		return nil, fmt.Errorf("%w: its record is damaged", errNotHeld)
	}
	for body := h.body; len(body) > 0; body = body[len(piece.Digest{}):] {
		h.digests = append(h.digests, piece.Digest(body[:len(piece.Digest{})]))
	}
	h.body = nil
	return h, nil
}

func readAtMost(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return data, err
}

// reopen serves a finished download again. errNotHeld if it is not as it was.
func (n *Node) reopen(h *held) error {
	var room string
	for _, r := range n.opts.Keyring.Rooms() {
		if hex.EncodeToString(r.ID[:]) == h.Room {
			room = r.Name
		}
	}
	if room == "" {
		return fmt.Errorf("%w: this machine is not in its room any more", errNotHeld)
	}
	d, err := n.newDownload(Spec{URL: h.URL, Room: room, Manifest: h.body, Select: h.Select}, nil, func(Event) {})
	if err != nil {
		return err
	}
	h.body = nil
	d.serving = &serving{held: h}
	d.isSaved.Store(true) // it gives way to a download of the same content
	d.receipt.Store(&receipt{h.Path, h.Finished})
	err = d.openHeld(h)
	if err == nil {
		if _, err = n.register(d); err != nil {
			err = errors.Join(err, d.serving.files.Close())
		}
	}
	if err != nil {
		d.release()
		return err
	}
	if h.Listed && h.URL != "" {
		d.list(h.Path, h.pin().Layout(), h.digests, h.Finished)
	}
	go func() { // ends with the download, which Run waits for
		defer n.tasks.Done()
		defer n.leave(d)
		if err := d.run(); err != nil {
			d.log.Info("serving a finished download has ended", "path", h.Path, "err", err)
		}
	}()
	return nil
}

// stampNow is the stamp of a file as it is now, not as it was when it was hashed.
func stampNow(info fs.FileInfo) store.Stamp {
	stamp := store.StampOf(info)
	stamp.Changed = 0
	return stamp
}

// openHeld opens the files of a finished download, if they are as they were then.
func (d *download) openHeld(h *held) error {
	o := store.SharedOptions{Disk: d.node.opts.Disk, Root: filepath.Dir(h.Path), Log: d.log}
	// What lies there may have been overwritten with something else that was downloaded, of
	// which as many files have the same sizes.
	switch kept, found, err := d.node.journal.KeptPin(h.Path); {
	case err != nil:
		return err
	case !found, kept.Kind == piece.Manifest && (d.want == nil || kept.Validator != d.want.pin().Validator):
		return errNotHeld
	}
	if d.isFolder() {
		o.Root = h.Path
		stamps, found, err := d.node.journal.KeptFiles(h.Path)
		if err != nil {
			return err
		}
		files := d.want.torrent.Load().Files
		if !found || len(stamps) != len(files) {
			return errNotHeld
		}
		pieces := piece.NewBitfield(d.want.layout.Count())
		for k, stamp := range stamps {
			_, extent := d.want.layout.File(k)
			if stamp.Size < 0 {
				o.Missing = append(o.Missing, k)
				extent.Count = 0
			}
			for i := extent.First; i < extent.End(); i++ {
				pieces.Set(i)
			}
			o.Files = append(o.Files, store.SharedFile{Path: files[k].Path, Stamp: stamp})
		}
		if d.want.pieces = nil; !pieces.All() {
			d.want.pieces = &pieces
		}
	} else {
		info, err := d.node.unchangedFile(h.Path)
		if err != nil {
			return err
		}
		o.Files = []store.SharedFile{{Path: filepath.Base(h.Path), Stamp: stampNow(info)}}
	}
	o.Layout, o.Digests = h.pin().Layout(), h.digests
	if d.want != nil {
		o.Layout, o.Digests = d.want.layout, d.want.digests
	}
	o.Changed = func(_ int, lost piece.Extent, _ error) { d.lose(lost) }
	var err error
	d.serving.files, err = store.OpenShared(o)
	if errors.Is(err, store.ErrFolderGone) {
		return fmt.Errorf("%w: %w", errNotHeld, err)
	}
	return err
}
