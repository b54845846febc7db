package node_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"dragonload/internal/node"
	"dragonload/internal/rpc"
	nodev1 "dragonload/internal/rpc/gen/dragonload/node/v1"
)

// These tests run a node without a room against an origin on loopback.

func TestDownload_savesTheWholeFile(t *testing.T) {
	t.Parallel()
	s := newSite(t, 5<<20+123)
	n := start(t, node.Options{})
	r := download(t, t.Context(), n, s.spec(t))
	saved := r.result(t)
	s.check(t, saved)
	if saved.Checked != "origin" || saved.Reread || saved.PeerBytes != 0 {
		t.Errorf("got %+v, want checked=origin, nothing read again, nothing from peers", saved)
	}
	if sent := s.sent.Load(); sent > int64(len(s.data))*102/100 || saved.OriginBytes < int64(len(s.data)) {
		t.Errorf("the origin sent %d bytes and %d were counted, for a file of %d", sent, saved.OriginBytes, len(s.data))
	}
	if filepath.Base(saved.Path) != "image.iso" {
		t.Errorf("saved as %s, want the name of the URL", saved.Path)
	}
	start := r.started()
	if start == nil || start.Size != int64(len(s.data)) || start.Path != saved.Path || strings.Contains(start.URL, "?") {
		t.Errorf("got start %+v", start)
	}
}

func TestDownload_smallAndEmptyFiles(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 16 << 10, 64<<10 + 1} {
		s := newSite(t, size)
		n := start(t, node.Options{})
		s.check(t, download(t, t.Context(), n, s.spec(t)).result(t))
	}
}

func TestDownload_namesComeFromOptionsThenOriginThenURL(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1000)
	s.set(func() {
		s.handle = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"v1"`)
			w.Header().Set("Content-Disposition", `attachment; filename="given.bin"`)
			http.ServeContent(w, r, "", s.time(), bytes.NewReader(s.data))
		}
	})
	n := start(t, node.Options{})
	spec := s.spec(t)
	if saved := download(t, t.Context(), n, spec).result(t); saved.Path != filepath.Join(spec.Dir, "given.bin") {
		t.Errorf("saved as %s, want given.bin", saved.Path)
	}
	spec.AutoRename = true
	if saved := download(t, t.Context(), n, spec).result(t); saved.Path != filepath.Join(spec.Dir, "given.bin.1") {
		t.Errorf("saved as %s, want given.bin.1", saved.Path)
	}
	spec.AutoRename = false
	download(t, t.Context(), n, spec).failure(t, node.ExitExists)
	spec.Output = filepath.Join(spec.Dir, "mine")
	if saved := download(t, t.Context(), n, spec).result(t); saved.Path != spec.Output {
		t.Errorf("saved as %s, want %s", saved.Path, spec.Output)
	}
	download(t, t.Context(), n, spec).failure(t, node.ExitExists)
	spec.Overwrite = true
	s.check(t, download(t, t.Context(), n, spec).result(t))
}

func TestDownload_failuresHaveTheirExitCodes(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1000)
	n := start(t, node.Options{})
	for status, exit := range map[int]int{404: node.ExitNotFound, 410: node.ExitNotFound, 403: node.ExitUnauthorized, 401: node.ExitUnauthorized, 418: node.ExitBadAnswer} {
		s.set(func() { s.handle = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) } })
		e := download(t, t.Context(), n, s.spec(t)).failure(t, exit)
		if strings.Contains(e.Message, "secret") {
			t.Errorf("status %d: %q tells a secret", status, e.Message)
		}
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	spec := s.spec(t)
	spec.URL = "http://user:secret@" + l.Addr().String() + "/file?secret"
	if e := download(t, t.Context(), n, spec).failure(t, node.ExitNetwork); strings.Contains(e.Message, "secret") {
		t.Errorf("%q tells a secret", e.Message)
	}
	spec.URL = "gopher://host/secret?secret"
	download(t, t.Context(), n, spec).failure(t, node.ExitBadOption)
	spec = s.spec(t)
	spec.Checksums = []node.Checksum{{Algorithm: "crc32", Hex: "00"}}
	download(t, t.Context(), n, spec).failure(t, node.ExitBadOption)
	spec = s.spec(t)
	spec.Output = filepath.Join(spec.Dir, "no", "such", "folder")
	download(t, t.Context(), n, spec).failure(t, node.ExitCannotCreate)
	spec = s.spec(t)
	spec.Room = "lab"
	download(t, t.Context(), n, spec).failure(t, node.ExitRoom)
}

func TestDownload_checksums(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1<<20)
	n := start(t, node.Options{})
	spec := s.spec(t)
	spec.Checksums = []node.Checksum{{Algorithm: "sha-256", Hex: strings.Repeat("0", 64)}}
	e := download(t, t.Context(), n, spec).failure(t, node.ExitChecksum)
	target := filepath.Join(spec.Dir, "image.iso")
	if !strings.Contains(e.Message, sum(s.data)) || !strings.Contains(e.Message, target+".part") || !strings.Contains(e.Message, "--restart") {
		t.Errorf("%q does not tell what came, where it is kept and what to do", e.Message)
	}
	if _, err := os.Lstat(target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is something under the final name: %v", err)
	}
	if kept, err := os.ReadFile(target + ".part"); err != nil || !bytes.Equal(kept, s.data) {
		t.Errorf("the partial file is not what came: %v", err)
	}

	// The way out: the right checksum takes what was kept.
	before := s.sent.Load()
	spec.Checksums = []node.Checksum{{Algorithm: "sha-256", Hex: sum(s.data)}}
	saved := download(t, t.Context(), n, spec).result(t)
	s.check(t, saved)
	if saved.Checked != "checksum" {
		t.Errorf("checked=%s, want checksum", saved.Checked)
	}
	if again := s.sent.Load() - before; again > int64(len(s.data))/2 {
		t.Errorf("the origin sent %d bytes again", again)
	}
}

// A file has appeared under the name on which an earlier run left work.
func TestDownload_autoRenameEvadesAlsoWithWorkKept(t *testing.T) {
	t.Parallel()
	s := newSite(t, 8<<20)
	s.set(func() { s.perConn = 8 << 20 })
	n := start(t, node.Options{})
	spec := s.spec(t)
	ctx, pause := context.WithCancel(t.Context())
	r := download(t, ctx, n, spec)
	for p := range r.progress {
		if p.Have > 0 {
			break
		}
	}
	pause()
	r.failure(t, node.ExitStopped)
	target := filepath.Join(spec.Dir, "image.iso")
	if err := os.WriteFile(target, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	download(t, t.Context(), n, spec).failure(t, node.ExitExists)

	s.set(func() { s.perConn = 0 })
	spec.AutoRename = true
	saved := download(t, t.Context(), n, spec).result(t)
	s.check(t, saved)
	if saved.Path != target+".1" {
		t.Errorf("saved as %s, want %s.1", saved.Path, target)
	}
	if held, err := os.ReadFile(target); err != nil || string(held) != "mine" {
		t.Errorf("the file that was there holds %q, %v", held, err)
	}
}

func TestDownload_goesOnWhereItWasPaused(t *testing.T) {
	t.Parallel()
	s := newSite(t, 8<<20)
	s.set(func() { s.perConn = 8 << 20 })
	state := stateDir(t)
	spec := s.spec(t)

	ctx, pause := context.WithCancel(t.Context())
	n := start(t, node.Options{StateDir: state})
	r := download(t, ctx, n, spec)
	for p := range r.progress {
		if p.Have > 2<<20 {
			break
		}
	}
	pause()
	r.failure(t, node.ExitStopped)
	if _, err := os.Lstat(filepath.Join(spec.Dir, "image.iso")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is something under the final name: %v", err)
	}

	s.set(func() { s.perConn = 0 })
	s.serving.Wait() // what it was still sending counts as sent before
	before := s.sent.Load()
	r = download(t, t.Context(), n, spec)
	s.check(t, r.result(t))
	if start := r.started(); start == nil || start.Resumed < 2<<20 {
		t.Errorf("got start %+v, want what was there resumed", start)
	}
	if again, missing := s.sent.Load()-before, int64(len(s.data))-r.started().Resumed; again > missing {
		t.Errorf("the origin sent %d bytes after the pause, where %d were missing", again, missing)
	}
}

func TestDownload_followsAChangeAtTheOrigin(t *testing.T) {
	t.Parallel()
	s := newSite(t, 8<<20)
	s.set(func() { s.perConn = 8 << 20 })
	n := start(t, node.Options{})
	ctx, pause := context.WithCancel(t.Context())
	spec := s.spec(t)
	r := download(t, ctx, n, spec)
	for p := range r.progress {
		if p.Have > 1<<20 {
			break
		}
	}
	pause()
	r.failure(t, node.ExitStopped)

	s.set(func() {
		s.perConn, s.etag = 0, `"v2"`
		s.data = slices.Concat(s.data[1<<20:], s.data[:1<<20])
	})
	r = download(t, t.Context(), n, spec)
	s.check(t, r.result(t))
	if codes := r.warnings(); !slices.Contains(codes, "origin-changed") {
		t.Errorf("got warnings %v, want origin-changed among them", codes)
	}
}

func TestDownload_streamOfUnknownLength(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3<<20+5)
	s.set(func() { s.handle = s.chunked })
	n := start(t, node.Options{})
	r := download(t, t.Context(), n, s.spec(t))
	saved := r.result(t)
	s.check(t, saved)
	if saved.Checked != "unproven" {
		t.Errorf("checked=%s, want unproven: neither length nor digest was given", saved.Checked)
	}
	if sent := s.sent.Load(); sent != int64(len(s.data)) {
		t.Errorf("the origin sent %d bytes for a file of %d", sent, len(s.data))
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(saved.Path), ".dragonload*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDownload_originWithoutRanges(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3<<20+5)
	s.set(func() {
		s.handle = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "3145733")
			io.Copy(w, bytes.NewReader(s.data))
		}
	})
	n := start(t, node.Options{})
	r := download(t, t.Context(), n, s.spec(t))
	s.check(t, r.result(t))
	if codes := r.warnings(); !slices.Contains(codes, "one-stream") {
		t.Errorf("got warnings %v, want one-stream among them", codes)
	}
}

func TestDownload_toStandardOutput(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3<<20+5)
	var out bytes.Buffer
	state := stateDir(t)
	n := start(t, node.Options{StateDir: state, Stdout: &out})
	spec := s.spec(t)
	spec.Output = "-"
	saved := download(t, t.Context(), n, spec).result(t)
	if saved.Path != "-" || !bytes.Equal(out.Bytes(), s.data) {
		t.Errorf("saved %s, %d bytes came out, want - and the origin's %d", saved.Path, out.Len(), len(s.data))
	}
	if left, _ := filepath.Glob(filepath.Join(state, "stdout*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDownload_originDigest(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1<<20)
	digest := "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" // of no bytes at all
	s.set(func() {
		s.handle = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"v1"`)
			w.Header().Set("Repr-Digest", "sha-256=:"+digest+":")
			http.ServeContent(w, r, "", s.time(), bytes.NewReader(s.data))
		}
	})
	n := start(t, node.Options{})
	e := download(t, t.Context(), n, s.spec(t)).failure(t, node.ExitBadAnswer)
	if e.Code != "origin-digest" {
		t.Errorf("got code %s, want origin-digest", e.Code)
	}
	s.set(func() { digest = base64Sum(s.data) })
	saved := download(t, t.Context(), n, s.spec(t)).result(t)
	if saved.Checked != "origin-digest" {
		t.Errorf("checked=%s, want origin-digest", saved.Checked)
	}
}

func TestDownload_originDigestsOfOtherKinds(t *testing.T) {
	t.Parallel()
	whole := func(name string, sum []byte) string { return name + base64.StdEncoding.EncodeToString(sum) }
	data := fileOf(3 << 20)
	s256, s512, wrong := sha256.Sum256(data), sha512.Sum512(data), sha512.Sum512(nil)
	for _, c := range []struct {
		name, field, value string
		checked            string // "": the file is refused
	}{
		{"sha-512", "Repr-Digest", whole("sha-512=:", s512[:]) + ":", "origin-digest"},
		{"both", "Repr-Digest", whole("sha-256=:", s256[:]) + ":, " + whole("sha-512=:", s512[:]) + ":", "origin-digest"},
		{"wrong sha-512", "Repr-Digest", whole("sha-512=:", wrong[:]) + ":", ""},
		{"only the sha-512 wrong", "Repr-Digest", whole("sha-256=:", s256[:]) + ":, " + whole("sha-512=:", wrong[:]) + ":", ""},
		{"legacy", "Digest", whole("SHA-256=", s256[:]), "origin-digest"},
		{"legacy sha-512", "Digest", "MD5=x, " + whole("sha-512=", s512[:]), "origin-digest"},
		{"legacy wrong", "Digest", whole("SHA-512=", wrong[:]), ""},
		{"legacy weak", "Digest", "MD5=sQqNsWTgdUEFt6mb5y4/5Q==", "origin"},
	} {
		s := newSite(t, len(data))
		s.set(func() {
			s.handle = func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("ETag", `"v1"`)
				w.Header().Set(c.field, c.value)
				http.ServeContent(w, r, "", s.time(), bytes.NewReader(s.data))
			}
		})
		r := download(t, t.Context(), start(t, node.Options{}), s.spec(t))
		if c.checked == "" {
			if e := r.failure(t, node.ExitBadAnswer); e.Code != "origin-digest" {
				t.Errorf("%s: got code %s, want origin-digest", c.name, e.Code)
			}
		} else if saved := r.result(t); saved.Checked != c.checked {
			t.Errorf("%s: checked=%s, want %s", c.name, saved.Checked, c.checked)
		}
	}
}

// Some origins put the digest of each part where that of the whole belongs.
func TestDownload_digestsOfPartsAreNoneOfTheWhole(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3<<20)
	s.set(func() {
		s.handle = func(w http.ResponseWriter, r *http.Request) {
			part := sha256.Sum256([]byte(r.Header.Get("Range")))
			w.Header().Set("ETag", `"v1"`)
			w.Header().Set("Digest", "SHA-256="+base64.StdEncoding.EncodeToString(part[:]))
			http.ServeContent(w, r, "", s.time(), bytes.NewReader(s.data))
		}
	})
	if saved := download(t, t.Context(), start(t, node.Options{}), s.spec(t)).result(t); saved.Checked != "origin" {
		t.Errorf("checked=%s, want origin", saved.Checked)
	}
}

func TestNew_refusesASecondNode(t *testing.T) {
	t.Parallel()
	state := stateDir(t)
	start(t, node.Options{StateDir: state})
	if _, err := node.New(node.Options{StateDir: state}); !errors.Is(err, node.ErrRunning) {
		t.Errorf("got %v, want ErrRunning", err)
	}
}

func TestLocal_carriesOutDownloadsOfOthers(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1<<20)
	state := stateDir(t)
	start(t, node.Options{StateDir: state, Local: true, Version: "7"})
	client, err := rpc.DialLocal(t.Context(), state)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var saved *node.Saved
	err = client.Download(t.Context(), node.EncodeSpec(s.spec(t)), func(ev *nodev1.DownloadEvent) error {
		if e := node.DecodeEvent(ev); e.Saved != nil {
			saved = e.Saved
		}
		return nil
	})
	if err != nil || saved == nil {
		t.Fatalf("got %+v and %v", saved, err)
	}
	s.check(t, saved)
	status, err := client.Status(t.Context())
	if err != nil || status.GetVersion() != "7" {
		t.Errorf("got status %v and %v", status, err)
	}
}

func TestDownload_fetchesNoByteTwiceWhenConnectionsBreak(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4<<20)
	var cut atomic.Int64
	s.set(func() {
		s.handle = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"v1"`)
			if r.Header.Get("Range") != "" && cut.Add(1)%3 == 1 {
				// Amid a piece: pieces of a file of this size have 64 KiB.
				w = &cutting{w, 100_000}
			}
			http.ServeContent(w, r, "", s.time(), bytes.NewReader(s.data))
		}
	})
	n := start(t, node.Options{})
	r := download(t, t.Context(), n, s.spec(t))
	saved := r.result(t)
	s.check(t, saved)
	if cut.Load() < 4 {
		t.Fatalf("the origin answered %d requests only", cut.Load())
	}
	if saved.OriginBytes > int64(len(s.data)) {
		t.Errorf("%d bytes were read for a file of %d", saved.OriginBytes, len(s.data))
	}
}

// cutting is an answer whose connection breaks after left bytes of its body.
type cutting struct {
	http.ResponseWriter
	left int
}

func (w *cutting) Write(b []byte) (int, error) {
	if w.left == 0 {
		w.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	b = b[:min(len(b), w.left)]
	n, err := w.ResponseWriter.Write(b)
	w.left -= n
	return n, err
}
