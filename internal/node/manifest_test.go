package node_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"dragonload/internal/catalogue"
	"dragonload/internal/manifest"
	"dragonload/internal/node"
	"dragonload/internal/peer/peertest"
	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
	"dragonload/internal/store"
)

// parcel is a content with a manifest, and a web seed that has it.
type parcel struct {
	*httptest.Server
	torrent *manifest.Torrent
	files   fstest.MapFS
	sent    atomic.Int64
	handle  atomic.Pointer[http.HandlerFunc] // in place of the files, if set
}

// newParcel makes a folder called "parcel" of these files.
func newParcel(t *testing.T, files map[string][]byte) *parcel {
	t.Helper()
	p := &parcel{files: fstest.MapFS{}}
	for path, data := range files {
		p.files["parcel/"+path] = &fstest.MapFile{Data: data}
	}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &countingWriter{ResponseWriter: w, sent: &p.sent, ctx: r.Context()}
		if h := p.handle.Load(); h != nil {
			(*h)(out, r)
			return
		}
		http.FileServerFS(p.files).ServeHTTP(out, r)
	}))
	t.Cleanup(p.Close)
	var err error
	if p.torrent, _, err = manifest.BuildTorrent(t.Context(), p.files, "parcel", manifest.BuildOptions{}); err != nil {
		t.Fatal(err)
	}
	return p
}

func someParcel(t *testing.T) *parcel {
	return newParcel(t, map[string][]byte{
		"big.bin": fileOf(3<<20 + 5), "sub/small": fileOf(100), "sub/more/two pieces": fileOf(70 << 10), "empty": nil,
	})
}

func (p *parcel) id() string {
	hash := p.torrent.InfoHash()
	return hex.EncodeToString(hash[:])
}

func (p *parcel) metainfo(t *testing.T) []byte {
	t.Helper()
	var text bytes.Buffer
	if err := p.torrent.Bare().Write(&text); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}

// spec is of what p is, from its web seed and members if there is a room.
func (p *parcel) spec(t *testing.T, room string) node.Spec {
	return node.Spec{
		Manifest: p.metainfo(t), Mirrors: []node.Mirror{{URL: p.URL + "/"}}, Room: room, Dir: t.TempDir(),
		Timeout: 20 * time.Second, ConnectTimeout: 10 * time.Second, GiveUpAfter: time.Minute, Linger: 30 * time.Second,
	}
}

// check compares what was saved with the files whose paths begin like this.
func (p *parcel) check(t *testing.T, saved *node.Saved, prefix string) {
	t.Helper()
	for path, f := range p.files {
		path = strings.TrimPrefix(path, "parcel/")
		got, err := os.ReadFile(filepath.Join(saved.Path, path))
		switch wanted := strings.HasPrefix(path, prefix); {
		case wanted && (err != nil || !bytes.Equal(got, f.Data)):
			t.Errorf("%s: %d bytes, %v", path, len(got), err)
		case !wanted && err == nil:
			t.Errorf("%s is there", path)
		}
	}
	if saved.Checked != "checksum" || saved.Manifest != p.id() || saved.SHA256 != p.id() {
		t.Errorf("saved as %+v", saved)
	}
}

// publish has a machine tell the room's tracker what it holds, and where it is reached.
func (b *lab) publish(m machine, addr string, entries ...catalogue.Entry) {
	b.t.Helper()
	cfg, err := m.keyring.ClientTLS(b.creator.ID, room.ALPNControl, piece.NodeID{})
	if err != nil {
		b.t.Fatal(err)
	}
	to, err := rpc.NewTracker(b.addr, cfg, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(to.Close)
	if err := to.Publish(b.t.Context(), addr, catalogue.Batch{To: 1, Add: entries}); err != nil {
		b.t.Fatal(err)
	}
}

func (p *parcel) entry(name string) catalogue.Entry {
	return catalogue.Entry{Manifest: p.torrent.InfoHash(), Name: name, Folder: true, Size: p.torrent.Size, Files: uint32(len(p.torrent.Files))}
}

func TestManifest_comesOnceFromItsWebSeedToAllMembers(t *testing.T) {
	t.Parallel()
	p, b := someParcel(t), newLab(t)
	b.run()
	first, second := start(t, b.join("one").options()), start(t, b.join("two").options())
	r1 := download(t, t.Context(), first, p.spec(t, "lab"))
	r2 := download(t, t.Context(), second, p.spec(t, "lab"))
	p.check(t, r1.result(t), "")
	p.check(t, r2.result(t), "")
	if sent := p.sent.Load(); sent > p.torrent.Size*5/4 {
		t.Errorf("the web seed has sent %d bytes of %d", sent, p.torrent.Size)
	}
}

func TestManifest_isGotByNameOrIDFromMembersAlone(t *testing.T) {
	t.Parallel()
	p, b := someParcel(t), newLab(t)
	b.run()
	holder := b.join("holder")
	o := holder.options()
	o.KeepServing = true
	n := start(t, o)
	p.check(t, download(t, t.Context(), n, p.spec(t, "lab")).result(t), "")
	b.publish(holder, n.Addr().String(), p.entry("The Parcel"))
	sent := p.sent.Load()

	for k, change := range []func(*node.Spec){
		func(s *node.Spec) { s.ManifestName = "the parcel" },
		func(s *node.Spec) { s.ManifestName = p.id()[:8] },
		func(s *node.Spec) { s.ManifestID, s.Select = p.id(), []string{"sub"} },
	} {
		spec := p.spec(t, "lab")
		spec.Manifest, spec.Mirrors = nil, nil
		change(&spec)
		saved := download(t, t.Context(), start(t, b.join(fmt.Sprintf("getter%d", k)).options()), spec).result(t)
		p.check(t, saved, strings.Join(spec.Select, ""))
		if saved.OriginBytes != 0 || saved.PeerBytes < saved.Size {
			t.Errorf("%d bytes from the origin, %d from members", saved.OriginBytes, saved.PeerBytes)
		}
	}
	if p.sent.Load() != sent {
		t.Error("the web seed was asked")
	}
}

func TestManifest_tellsWhatANameMayMean(t *testing.T) {
	t.Parallel()
	one, two := newParcel(t, map[string][]byte{"a": fileOf(1)}), newParcel(t, map[string][]byte{"a": fileOf(2)})
	b := newLab(t)
	b.run()
	other := two.entry("Holiday photos 2024")
	other.Manifest = [32]byte{1}
	b.publish(b.join("ann"), "127.0.0.1:1", one.entry("films"), other)
	b.publish(b.join("bob"), "127.0.0.1:1", two.entry("films"))
	n := start(t, b.join("getter").options())
	for _, c := range []struct {
		spec node.Spec
		exit int
		want []string
	}{
		{node.Spec{ManifestName: "films"}, node.ExitBadOption, []string{one.id(), two.id(), ":ann", ":bob"}},
		{node.Spec{ManifestName: "holiday pictures"}, node.ExitNotFound, []string{`"holiday pictures"`, "there is Holiday photos 2024"}},
		{node.Spec{ManifestName: "xyz"}, node.ExitNotFound, []string{"nothing in lab"}},
		{node.Spec{ManifestID: strings.Repeat("7", 64)}, node.ExitNotFound, []string{"no member of lab holds"}},
		{node.Spec{ManifestID: one.id()}, node.ExitNetwork, []string{"none of the 1 members that hold"}},
	} {
		c.spec.Room, c.spec.Dir = "lab", t.TempDir()
		e := download(t, t.Context(), n, c.spec).failure(t, c.exit)
		for _, text := range c.want {
			if !strings.Contains(e.Message, text) {
				t.Errorf("%s%s: %q does not say %q", c.spec.ManifestName, c.spec.ManifestID, e.Message, text)
			}
		}
	}
}

// Members that hold a manifest and do not give it, or give another one, are passed over.
func TestManifest_isNotBelievedBeforeItIsChecked(t *testing.T) {
	t.Parallel()
	p, other, b := someParcel(t), newParcel(t, map[string][]byte{"a": fileOf(1)}), newLab(t)
	b.run()
	wrong := bytes.Clone(p.metainfo(t))
	wrong[len(wrong)-10] ^= 1 // in the piece layers, which the hash does not cover
	s := newSite(t, 100)
	for _, o := range []peertest.Options{
		{Manifest: peertest.ManifestOf(other.metainfo(t), other.torrent.InfoLength())},
		{Manifest: peertest.ManifestOf(wrong, p.torrent.InfoLength())},
		{Manifest: peertest.EndlessManifest},
		{},
	} {
		o.Mute = true
		c := b.cheat(s, o)
		b.publish(c.m, c.addr, p.entry("parcel"))
	}
	spec := p.spec(t, "lab")
	spec.Manifest, spec.Mirrors, spec.ManifestID = nil, nil, p.id()
	getter := start(t, b.join("getter").options())
	e := download(t, t.Context(), getter, spec).failure(t, node.ExitBadAnswer)
	if !strings.Contains(e.Message, "piece layer") {
		t.Errorf("it says %q", e.Message)
	}

	honest := b.join("honest")
	o := honest.options()
	o.KeepServing = true
	n := start(t, o)
	p.check(t, download(t, t.Context(), n, p.spec(t, "lab")).result(t), "")
	b.publish(honest, n.Addr().String(), p.entry("parcel"))
	p.check(t, download(t, t.Context(), getter, spec).result(t), "")
}

// What a stopped download left is gone on with, and more files can be chosen then.
func TestManifest_goesOnWithWhatIsThere(t *testing.T) {
	t.Parallel()
	p := someParcel(t)
	release := make(chan struct{})
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/big.bin") {
			w = &stalling{w, 1 << 20, r.Context(), release}
		}
		http.FileServerFS(p.files).ServeHTTP(w, r)
	})
	p.handle.Store(&slow)
	n := start(t, node.Options{})
	spec := p.spec(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	r := download(t, ctx, n, spec)
	r.awaits(t, func(ev node.Event) bool { return ev.Progress != nil && ev.Progress.Have >= 512<<10 })
	cancel()
	r.failure(t, node.ExitStopped)
	close(release)
	p.handle.Store(nil)
	saved := download(t, t.Context(), n, spec).result(t)
	p.check(t, saved, "")
	if saved.OriginBytes > p.torrent.Size-256<<10 {
		t.Errorf("%d bytes were fetched again", saved.OriginBytes)
	}
}

// Files of an unfinished folder have their names already: that is no reason to begin
// another one beside it.
func TestManifest_goesOnInItsFolderWithAutoRename(t *testing.T) {
	t.Parallel()
	p := someParcel(t)
	spec := p.spec(t, "")
	spec.AutoRename = true
	state := t.TempDir()
	p.beginsAlone(t, state, filepath.Join(spec.Dir, "parcel"))
	n := start(t, node.Options{StateDir: state})
	saved := download(t, t.Context(), n, spec).result(t)
	if saved.Path != filepath.Join(spec.Dir, "parcel") {
		t.Errorf("saved as %s", saved.Path)
	}
	p.check(t, saved, "")
	// A finished one is left alone.
	saved = download(t, t.Context(), n, spec).result(t)
	if saved.Path != filepath.Join(spec.Dir, "parcel.1") {
		t.Errorf("saved as %s", saved.Path)
	}
}

// beginsAlone leaves what a node leaves that was stopped when one file had its name.
func (p *parcel) beginsAlone(t *testing.T, state, target string) {
	t.Helper()
	j, err := store.OpenJournal(filepath.Join(state, node.JournalFile), store.JournalOptions{BatchBytes: 1, BatchDelay: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	o := store.TreeOptions{Target: target, Source: "another"}
	var sizes []int64
	first := -1
	for k, f := range p.torrent.Files {
		if f.Path == "sub/small" {
			first = k
		}
		sizes = append(sizes, f.Size)
		o.Files = append(o.Files, store.TreeFile{Path: f.Path, Size: f.Size})
		o.Digests = append(o.Digests, f.Pieces...)
	}
	if o.Layout, err = piece.LayoutOf(p.torrent.PieceLength, sizes); err != nil {
		t.Fatal(err)
	}
	o.Pin = piece.ManifestPin(p.torrent.InfoHash(), o.Layout)
	f, err := j.OpenTree(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	_, pieces := o.Layout.File(first)
	err = f.Begin(o.Pin, 0, false)
	if err == nil {
		err = f.Write(pieces.First, p.files["parcel/sub/small"].Data, o.Digests[pieces.First], true)
	}
	for err == nil {
		if _, e := os.Stat(filepath.Join(target, "sub", "small")); e == nil {
			break
		}
		runtime.Gosched()
		err = t.Context().Err()
	}
	if err = errors.Join(err, f.Close(), j.Close()); err != nil {
		t.Fatal(err)
	}
}

// stalling sends so many bytes and then nothing until it is released.
type stalling struct {
	http.ResponseWriter
	left    int
	ctx     context.Context
	release chan struct{}
}

func (s *stalling) Write(b []byte) (int, error) {
	if len(b) > s.left {
		b = b[:s.left]
	}
	n, err := s.ResponseWriter.Write(b)
	if s.left -= n; s.left == 0 {
		http.NewResponseController(s.ResponseWriter).Flush()
		select {
		case <-s.ctx.Done():
		case <-s.release:
		}
		return n, http.ErrAbortHandler
	}
	return n, err
}

// writeTorrent has libtorrent write the torrent of what is at argv[1] to argv[2], with a
// web seed, of version 2 or hybrid.
const writeTorrent = `
import libtorrent as lt, os, sys
fs = lt.file_storage()
lt.add_files(fs, sys.argv[1])
made = lt.create_torrent(fs, piece_size=65536, flags=lt.create_torrent.v2_only if sys.argv[4] == "v2" else 0)
made.add_url_seed(sys.argv[3])
lt.set_piece_hashes(made, os.path.dirname(sys.argv[1]))
open(sys.argv[2], "wb").write(lt.bencode(made.generate()))
`

// What libtorrent 2 writes is downloaded from its web seed.
func TestManifest_ofLibtorrent(t *testing.T) {
	t.Parallel()
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import libtorrent; libtorrent.create_torrent.v2_only").Run(); err != nil {
		t.Skip("needs libtorrent 2 for Python: apt-get install python3-libtorrent")
	}
	p := someParcel(t)
	parent := t.TempDir()
	for path, f := range p.files {
		path = filepath.Join(parent, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, version := range []string{"v2", "hybrid"} {
		file := filepath.Join(parent, version+".torrent")
		if out, err := exec.Command(python, "-c", writeTorrent, filepath.Join(parent, "parcel"), file, p.URL+"/", version).CombinedOutput(); err != nil {
			t.Fatalf("libtorrent: %v\n%s", err, out)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := manifest.ReadTorrent(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if len(theirs.WebSeeds) != 1 || theirs.Hybrid != (version == "hybrid") {
			t.Errorf("%s: web seeds %q, hybrid %v", version, theirs.WebSeeds, theirs.Hybrid)
		}
		spec := p.spec(t, "")
		spec.Manifest, spec.Mirrors = text, []node.Mirror{{URL: theirs.WebSeeds[0]}}
		saved := download(t, t.Context(), start(t, node.Options{}), spec).result(t)
		p.torrent = theirs
		p.check(t, saved, "")
	}
}
