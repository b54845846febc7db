package manifest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

// Programs that we did not write, libtorrent 2 and aria2, are asked what they make of
// our torrents. Where they are not installed, these tests say so and skip.

// heard is an answer of testdata/referee.py.
type heard struct {
	V1, V2, Name, Error string
	PieceLength         int64 `json:"piece_length"`
	Pieces              int
	Private             bool
	Files               [][2]any
	Seeds               []string
	Done, Wanted        int64
	Progress            float64
}

// libtorrent asks Debian's libtorrent, whose Python is at a fixed place.
func libtorrent(t *testing.T, args ...string) heard {
	t.Helper()
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import libtorrent; libtorrent.torrent_checked_alert; libtorrent.create_torrent.v2_only").Run(); err != nil {
		t.Skip("needs libtorrent 2 for Python: apt-get install python3-libtorrent")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, python, append([]string{"testdata/referee.py"}, args...)...).Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		t.Fatalf("libtorrent %q: %v\n%s", args, err, failed.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	var answer heard
	if err := json.Unmarshal(out, &answer); err != nil || answer.Error != "" {
		t.Fatalf("libtorrent %q: %s (%v)", args, out, err)
	}
	return answer
}

// oddFiles are those of someFiles without what libtorrent has no files for, and with
// lengths around the edges.
func oddFiles() tree {
	files := someFiles()
	files["edges"] = tree{}
	for _, n := range []int{1, 16<<10 - 1, 16 << 10, 16<<10 + 1, 48 << 10, testPiece - 1, testPiece, testPiece + 1, 5 * testPiece, 8*testPiece - 1} {
		files["edges"].(tree)[fmt.Sprint(n)] = noise(n)
	}
	return files
}

// exported builds the torrent of files in a folder called d, or of one file in it, and
// writes it; parent is the folder that holds d.
func exported(t *testing.T, files tree, name string, o BuildOptions) (torrent *Torrent, file, parent string) {
	t.Helper()
	parent = onDisk(t, tree{"d": files})
	o.PieceLength = testPiece
	torrent, _, err := BuildTorrent(context.Background(), os.DirFS(parent), name, o)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := torrent.Write(&out); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "out.torrent")
	if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return torrent, file, parent
}

func listed(t *Torrent) [][2]any {
	var out [][2]any
	for _, f := range t.Files {
		path := f.Path
		if !t.alone() {
			path = t.Name + "/" + path
		}
		out = append(out, [2]any{path, float64(f.Size)})
	}
	return out
}

func sameAsHeard(t *testing.T, got *Torrent, theirs heard) {
	t.Helper()
	v1 := ""
	if hash, ok := got.InfoHashV1(); ok {
		v1 = fmt.Sprintf("%x", hash)
	}
	if v2 := fmt.Sprintf("%x", got.InfoHash()); v2 != theirs.V2 || v1 != theirs.V1 {
		t.Errorf("info hashes %s and %q, libtorrent has %s and %q", v2, v1, theirs.V2, theirs.V1)
	}
	name := got.Name
	if got.alone() {
		name = got.Files[0].Path // libtorrent does not look at the other one
	}
	if name != theirs.Name || got.PieceLength != theirs.PieceLength || got.PieceCount() != theirs.Pieces || got.Private != theirs.Private {
		t.Errorf("got %q of %d pieces of %d, libtorrent has %+v", got.Name, got.PieceCount(), got.PieceLength, theirs)
	}
	if want := listed(got); !reflect.DeepEqual(theirs.Files, want) {
		t.Errorf("files\n%v, libtorrent has\n%v", want, theirs.Files)
	}
}

var interopCases = []struct {
	label, name string
	files       tree
	o           BuildOptions
}{
	{"folder v2", "d", oddFiles(), BuildOptions{}},
	{"folder hybrid", "d", oddFiles(), BuildOptions{Hybrid: true, Private: true}},
	{"file v2", "d/x", tree{"x": noise(20*testPiece + 777)}, BuildOptions{}},
	{"file hybrid", "d/x", tree{"x": noise(20*testPiece + 777)}, BuildOptions{Hybrid: true}},
	{"small file hybrid", "d/x", tree{"x": noise(20000)}, BuildOptions{Hybrid: true}},
	{"folder of one file hybrid", "d", tree{"x": noise(20000)}, BuildOptions{Hybrid: true}},
	{"folder of one file v2", "d", tree{"x": noise(20000)}, BuildOptions{}},
	{"empty files between and at the end", "d", tree{"a": noise(5), "b": []byte{}, "c": noise(6), "d": []byte{}}, BuildOptions{Hybrid: true}},
}

func TestInterop_libtorrentTakesOurTorrents(t *testing.T) {
	t.Parallel()
	for _, c := range interopCases {
		t.Run(c.label, func(t *testing.T) {
			t.Parallel()
			torrent, file, parent := exported(t, c.files, c.name, c.o)
			sameAsHeard(t, torrent, libtorrent(t, "load", file))
			if torrent.alone() {
				parent = filepath.Join(parent, "d")
			}
			if got := libtorrent(t, "recheck", file, parent); got.Progress != 1 || got.Done != torrent.Size {
				t.Errorf("libtorrent finds %d of %d bytes of the very files", got.Done, torrent.Size)
			}
		})
	}
}

func TestInterop_libtorrentFindsAChangedByte(t *testing.T) {
	t.Parallel()
	_, file, parent := exported(t, tree{"x": noise(4 * testPiece)}, "d/x", BuildOptions{})
	changed := noise(4 * testPiece)
	changed[testPiece] ^= 1
	if err := os.WriteFile(filepath.Join(parent, "d", "x"), changed, 0o644); err != nil {
		t.Fatal(err)
	}
	// So the test above is able to fail.
	if got := libtorrent(t, "recheck", file, filepath.Join(parent, "d")); got.Progress == 1 {
		t.Error("libtorrent takes a file with a wrong byte for whole")
	}
}

func TestInterop_weReadTorrentsOfLibtorrent(t *testing.T) {
	t.Parallel()
	for _, c := range interopCases {
		if c.o.Private {
			continue
		}
		t.Run(c.label, func(t *testing.T) {
			t.Parallel()
			ours, _, parent := exported(t, c.files, c.name, c.o)
			kind, out := "v2", filepath.Join(t.TempDir(), "theirs.torrent")
			if c.o.Hybrid {
				kind = "hybrid"
			}
			theirs := libtorrent(t, "create", filepath.Join(parent, filepath.FromSlash(c.name)), out, kind)
			f, err := os.Open(out)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got, err := ReadTorrent(f)
			if err != nil {
				t.Fatal(err)
			}
			sameAsHeard(t, got, theirs)
			if !reflect.DeepEqual(got.Files, ours.Files) {
				t.Errorf("libtorrent's torrent has\n%v, ours\n%v", got.Files, ours.Files)
			}
		})
	}
}

// webSeed serves a folder on loopback.
func webSeed(t *testing.T, dir string) string {
	t.Helper()
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(server.Close)
	return server.URL
}

func sameFiles(t *testing.T, dir string, files tree) {
	t.Helper()
	for name, v := range files {
		path := filepath.Join(dir, name)
		switch v := v.(type) {
		case tree:
			sameFiles(t, path, v)
		case []byte:
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, v) {
				t.Errorf("%s has %d bytes that are not those of the web seed (%v)", path, len(got), err)
			}
		}
	}
}

func TestInterop_libtorrentFetchesFromTheWebSeed(t *testing.T) {
	t.Parallel()
	for _, hybrid := range []bool{false, true} {
		t.Run(fmt.Sprintf("hybrid=%v", hybrid), func(t *testing.T) {
			t.Parallel()
			files := tree{"a": tree{"x": noise(3*testPiece + 5)}, "b": noise(100), "c": noise(testPiece)}
			seed := webSeed(t, onDisk(t, tree{"d": files}))
			_, file, _ := exported(t, files, "d", BuildOptions{Hybrid: hybrid, WebSeeds: []string{seed + "/"}})
			into := t.TempDir()
			libtorrent(t, "fetch", file, into)
			sameFiles(t, filepath.Join(into, "d"), files)

			single := tree{"x.iso": noise(20*testPiece + 777)}
			seed = webSeed(t, onDisk(t, single))
			_, file, _ = exported(t, single, "d/x.iso", BuildOptions{Hybrid: hybrid, WebSeeds: []string{seed + "/x.iso"}})
			into = t.TempDir()
			libtorrent(t, "fetch", file, into)
			sameFiles(t, into, single)
		})
	}
}

func TestInterop_aria2FetchesAHybridFromTheWebSeed(t *testing.T) {
	t.Parallel()
	aria2, err := exec.LookPath("aria2c")
	if err != nil {
		t.Skip("needs aria2: apt-get install aria2")
	}
	files := tree{"x.iso": noise(20*testPiece + 777)}
	seed := webSeed(t, onDisk(t, files))
	_, file, _ := exported(t, files, "d/x.iso", BuildOptions{Hybrid: true, WebSeeds: []string{seed + "/x.iso"}})
	into := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, aria2, "--no-conf", "--dir="+into, "--seed-time=0", "--interface=127.0.0.1", "--bt-stop-timeout=60",
		"--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--enable-peer-exchange=false", "--check-integrity=true", file).CombinedOutput()
	if err != nil {
		t.Fatalf("aria2c: %v\n%s", err, out)
	}
	sameFiles(t, into, files)
}
