package node_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dragonload/internal/node"
)

// keeper is a machine of a room that keeps serving, as `up` does, and can be started again.
type keeper struct {
	t *testing.T
	m machine
	*node.Node
	stop func()
}

func (b *lab) keeper(name string) *keeper {
	k := &keeper{t: b.t, m: b.join(name)}
	k.start()
	return k
}

func (k *keeper) start() {
	o := k.m.options()
	o.KeepServing, o.Serve = true, true
	k.Node, k.stop = startStoppable(k.t, o)
}

func (k *keeper) restart() {
	k.stop()
	k.start()
}

// Who asks for a URL that another machine has fetched before gets it from there, after one
// small look at the origin, though that machine was restarted meanwhile.
func TestHeld_aFinishedURLIsServedAfterARestart(t *testing.T) {
	t.Parallel()
	s, b := newSite(t, 5<<20), newLab(t)
	b.run()
	k := b.keeper("keeper")
	s.check(t, download(t, t.Context(), k.Node, s.roomSpec(t)).result(t))
	k.restart()
	sent := s.sent.Load()
	for _, name := range []string{"today", "tomorrow"} {
		saved := download(t, t.Context(), start(t, b.join(name).options()), s.roomSpec(t)).result(t)
		s.check(t, saved)
		if saved.PeerBytes < saved.Size*9/10 {
			t.Errorf("%s got %d bytes from the origin and %d from members", name, saved.OriginBytes, saved.PeerBytes)
		}
	}
	if again := s.sent.Load() - sent; again > 2*(256<<10)+s.sent.Load()/100 {
		t.Errorf("the origin has sent %d bytes more", again)
	}
}

// A version that the origin has no more is of no use to anybody, and does no harm.
func TestHeld_anOlderVersionIsNotMixedIn(t *testing.T) {
	t.Parallel()
	s, b := newSite(t, 3<<20), newLab(t)
	b.run()
	k := b.keeper("keeper")
	old := download(t, t.Context(), k.Node, s.roomSpec(t)).result(t)
	k.restart()
	before := s.data
	s.set(func() {
		s.etag = `"v2"`
		s.data = append([]byte("new"), before[:len(before)-7]...)
	})
	s.check(t, download(t, t.Context(), start(t, b.join("today").options()), s.roomSpec(t)).result(t))
	if got, err := os.ReadFile(old.Path); err != nil || string(got) != string(before) {
		t.Errorf("the finished file has %d bytes, %v", len(got), err)
	}
}

// Nor does one that has it keep newcomers on that version while its node runs on.
func TestHeld_anOlderVersionInARunningPoolIsGivenUp(t *testing.T) {
	t.Parallel()
	s, b := newSite(t, 3<<20), newLab(t)
	b.run()
	k := b.keeper("keeper")
	s.check(t, download(t, t.Context(), k.Node, s.roomSpec(t)).result(t))
	for _, etag := range []string{`"v2"`, `"v3"`} {
		before := s.data
		s.set(func() {
			s.etag = etag
			s.data = append([]byte(etag), before[:len(before)-len(etag)]...)
		})
		s.check(t, download(t, t.Context(), start(t, b.join("after "+etag[1:3]).options()), s.roomSpec(t)).result(t))
	}
}

// A file that its user has written to, moved away or put into another room's place is not
// served.
func TestHeld_aFileThatHasChangedIsNotServed(t *testing.T) {
	t.Parallel()
	s, b := newSite(t, 3<<20), newLab(t)
	b.run()
	k := b.keeper("keeper")
	saved := download(t, t.Context(), k.Node, s.roomSpec(t)).result(t)
	k.stop()
	if err := os.WriteFile(saved.Path, make([]byte, len(s.data)), 0o600); err != nil {
		t.Fatal(err)
	}
	k.start()
	sent := s.sent.Load()
	s.check(t, download(t, t.Context(), start(t, b.join("today").options()), s.roomSpec(t)).result(t))
	if again := s.sent.Load() - sent; again < int64(len(s.data)) {
		t.Errorf("the origin has sent %d bytes", again)
	}
	if left, err := os.ReadDir(filepath.Join(k.m.dir, "held")); err != nil || len(left) != 0 {
		t.Errorf("%d files are remembered, %v", len(left), err)
	}
}

func TestHeld_aManifestIsServedAfterARestart(t *testing.T) {
	t.Parallel()
	p, b := someParcel(t), newLab(t)
	b.run()
	k := b.keeper("keeper")
	part := p.spec(t, "lab")
	part.Select = []string{"sub"}
	p.check(t, download(t, t.Context(), k.Node, part).result(t), "sub")
	k.restart()
	sent := p.sent.Load()
	spec := p.spec(t, "lab")
	saved := download(t, t.Context(), start(t, b.join("today").options()), spec).result(t)
	p.check(t, saved, "")
	small := int64(100 + 70<<10)
	if saved.PeerBytes < small || p.sent.Load()-sent > p.torrent.Size-small+64<<10 {
		t.Errorf("%d bytes from members, %d more from the web seed", saved.PeerBytes, p.sent.Load()-sent)
	}
}

// A finished folder of which one file has changed, before the restart or after it, serves
// the others.
func TestHeld_aFolderIsServedButForFilesThatHaveChanged(t *testing.T) {
	t.Parallel()
	p, b := someParcel(t), newLab(t)
	b.run()
	k := b.keeper("keeper")
	folder := download(t, t.Context(), k.Node, p.spec(t, "lab")).result(t).Path
	write := func(path string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, path), []byte("its user's"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	big, small := int64(3<<20+5), int64(100)
	for _, c := range []struct {
		name   string
		change func()
		peers  int64 // at most
	}{
		{"before", func() { write("sub/more/two pieces"); k.restart() }, big + small},
		{"after", func() { write("sub/small") }, big},
	} {
		c.change()
		saved := download(t, t.Context(), start(t, b.join(c.name).options()), p.spec(t, "lab")).result(t)
		p.check(t, saved, "")
		if saved.PeerBytes > c.peers {
			t.Errorf("%s the restart: %d bytes came from members", c.name, saved.PeerBytes)
		}
	}
	spec := p.spec(t, "lab")
	spec.Mirrors, spec.Select = nil, []string{"big.bin"}
	saved := download(t, t.Context(), start(t, b.join("last").options()), spec).result(t)
	p.check(t, saved, "big.bin")
	if saved.PeerBytes != big {
		t.Errorf("%d bytes came from members, who alone have them", saved.PeerBytes)
	}
}

// Records that make no sense are removed, and hold nobody up.
func TestHeld_damagedRecordsAreForgotten(t *testing.T) {
	t.Parallel()
	s, b := newSite(t, 1<<20), newLab(t)
	b.run()
	k := b.keeper("keeper")
	download(t, t.Context(), k.Node, s.roomSpec(t)).result(t)
	k.stop()
	folder := filepath.Join(k.m.dir, "held")
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 2 {
		t.Fatalf("%d files are remembered, %v", len(entries), err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".body") {
			if err := os.WriteFile(filepath.Join(folder, e.Name()), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(folder, "x.json"), []byte(`{"Version":1,"Path":"`+strings.Repeat("/", 1000)+`"`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, ".new-1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	k.start()
	if took := time.Since(began); took > waitLimit {
		t.Errorf("the start took %v", took)
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) != 0 {
		t.Errorf("%d files are left, %v", len(left), err)
	}
}

// What overwrites a finished folder, with as many files of the same sizes, takes its place: the
// old content is offered no more, and not after a restart either.
func TestHeld_whatOverwritesAFolderTakesItsPlace(t *testing.T) {
	t.Parallel()
	old, b := someParcel(t), newLab(t)
	files := map[string][]byte{}
	for path, file := range old.files {
		data := bytes.Clone(file.Data)
		for i := range data {
			data[i]++
		}
		files[strings.TrimPrefix(path, "parcel/")] = data
	}
	anew := newParcel(t, files)
	b.run()
	k := b.keeper("keeper")
	spec := old.spec(t, "lab")
	old.check(t, download(t, t.Context(), k.Node, spec).result(t), "")
	over := anew.spec(t, "lab")
	over.Dir = spec.Dir
	var e *node.Error
	if err := k.Download(t.Context(), over, func(node.Event) {}); !errors.As(err, &e) || e.Code != "file-exists" {
		t.Errorf("unasked: %v", err)
	}
	over.Overwrite = true
	anew.check(t, download(t, t.Context(), k.Node, over).result(t), "")
	k.restart()
	today := start(t, b.join("today").options())
	anew.check(t, download(t, t.Context(), today, anew.spec(t, "lab")).result(t), "")
	if left, err := os.ReadDir(filepath.Join(k.m.dir, "held")); err != nil || len(left) != 2 {
		t.Errorf("%d files are remembered, %v", len(left), err)
	}
	hash := old.torrent.InfoHash()
	if holders, err := today.Holders(t.Context(), "lab", hash, 0); err != nil || len(holders) != 0 {
		t.Errorf("the old content is held by %v, %v", holders, err)
	}
}
