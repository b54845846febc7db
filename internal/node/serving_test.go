package node_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"dragonload/internal/catalogue"
	"dragonload/internal/node"
	nodev1 "dragonload/internal/rpc/gen/dragonload/node/v1"
	"dragonload/internal/share"
)

// onDisk writes a parcel's files into a new folder and returns that.
func (p *parcel) onDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for path, f := range p.files {
		at := filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "parcel")
}

// sharing starts a member that shares a parcel.
func (b *lab) sharing(p *parcel, name string) (n *node.Node, s share.Share) {
	b.t.Helper()
	m := b.join(name)
	o := m.options()
	o.KeepServing, o.Serve = true, true
	n = start(b.t, o)
	s, err := n.Share(b.t.Context(), share.Spec{Path: p.onDisk(b.t), Room: "lab"}, func(*nodev1.ShareEvent) {})
	if err != nil {
		b.t.Fatal(err)
	}
	if s.Manifest != p.torrent.InfoHash() {
		b.t.Fatalf("the manifest is %v, not %s", s.Manifest, p.id())
	}
	return n, s
}

// awaitFound waits until a node finds something in the room.
func (b *lab) awaitFound(n *node.Node, name string) {
	b.t.Helper()
	for end := time.Now().Add(waitLimit); ; time.Sleep(5 * time.Millisecond) {
		page, err := n.Search(b.t.Context(), "lab", catalogue.Query{Name: name})
		if err == nil && len(page.Found) > 0 {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("%s is not in the catalogue: %v", name, err)
		}
	}
}

// byID is a download of what members hold.
func (p *parcel) byID(t *testing.T, globs ...string) node.Spec {
	spec := p.spec(t, "lab")
	spec.Manifest, spec.Mirrors = nil, nil
	spec.ManifestID, spec.Select = p.id(), globs
	return spec
}

func TestShare_isServedFromWhereItLies(t *testing.T) {
	t.Parallel()

	p, b := someParcel(t), newLab(t)
	b.run()
	holder, _ := b.sharing(p, "holder")
	b.awaitFound(holder, "parcel")
	first, second := start(t, b.join("one").options()), start(t, b.join("two").options())
	r1 := download(t, t.Context(), first, p.byID(t))
	r2 := download(t, t.Context(), second, p.byID(t, "sub"))
	p.check(t, r1.result(t), "")
	p.check(t, r2.result(t), "sub")
}

func TestShare_neverServesWhatHasChanged(t *testing.T) {
	t.Parallel()

	p, b := someParcel(t), newLab(t)
	b.run()
	holder, s := b.sharing(p, "holder")
	b.awaitFound(holder, "parcel")
	// With the size and time that it had: only its bytes tell.
	at := filepath.Join(s.Spec.Path, "big.bin")
	info, err := os.Stat(at)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(at, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("changed"), 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(at, time.Time{}, info.ModTime()); err != nil {
		t.Fatal(err)
	}
	getter := start(t, b.join("getter").options())
	spec := p.byID(t)
	spec.GiveUpAfter = time.Second
	download(t, t.Context(), getter, spec).failure(t, node.ExitTimeout)
	// By its name it is had, as it was or as what has changed makes it.
	spec = p.byID(t, "sub")
	spec.ManifestID, spec.ManifestName = "", "parcel"
	saved := download(t, t.Context(), getter, spec).result(t)
	saved.Manifest, saved.SHA256 = p.id(), p.id()
	p.check(t, saved, "sub")
}

// Whoever has the manifest still finds nobody who has the bytes.
func TestShare_endsWithUnshare(t *testing.T) {
	t.Parallel()
	p, b := someParcel(t), newLab(t)
	b.run()
	holder, s := b.sharing(p, "holder")
	b.awaitFound(holder, "parcel")
	getter := start(t, b.join("getter").options())
	p.check(t, download(t, t.Context(), getter, p.byID(t, "sub")).result(t), "sub")
	for _, word := range []string{"nothing", p.id()[:5]} {
		if gone, err := holder.Unshare(word, ""); err != nil || len(gone) > 0 {
			t.Errorf("%q ends %v: %v", word, gone, err)
		}
	}
	if gone, err := holder.Unshare(s.Spec.Path, "lab"); err != nil || len(gone) != 1 {
		t.Fatalf("ended %v: %v", gone, err)
	}
	spec := p.spec(t, "lab")
	spec.Mirrors, spec.GiveUpAfter = nil, time.Second
	download(t, t.Context(), getter, spec).failure(t, node.ExitTimeout)
}

func TestShare_isOfferedAgainAfterARestart(t *testing.T) {
	t.Parallel()
	p, b := someParcel(t), newLab(t)
	b.run()
	m := b.join("holder")
	o := m.options()
	o.KeepServing, o.Serve, o.StateDir = true, true, stateDir(t)
	first, stop := startStoppable(t, o)
	if _, err := first.Share(t.Context(), share.Spec{Path: p.onDisk(t), Room: "lab"}, func(*nodev1.ShareEvent) {}); err != nil {
		t.Fatal(err)
	}
	stop()
	start(t, o)
	getter := start(t, b.join("getter").options())
	b.awaitFound(getter, "parcel")
	p.check(t, download(t, t.Context(), getter, p.byID(t)).result(t), "")
}
