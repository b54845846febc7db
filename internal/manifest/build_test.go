package manifest

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"dragonload/internal/piece"
)

// onDisk writes a tree into a new folder.
func onDisk(t testing.TB, files tree) string {
	t.Helper()
	dir := t.TempDir()
	var put func(dir string, files tree)
	put = func(dir string, files tree) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, v := range files {
			if sub, ok := v.(tree); ok {
				put(filepath.Join(dir, name), sub)
			} else if err := os.WriteFile(filepath.Join(dir, name), v.([]byte), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(dir, files)
	return dir
}

func build(t testing.TB, files tree, o BuildOptions) *Torrent {
	t.Helper()
	got, skipped, err := BuildTorrent(context.Background(), os.DirFS(onDisk(t, files)), ".", o)
	if err != nil || skipped != nil {
		t.Fatal(err, skipped)
	}
	return got
}

func TestBuildTorrent_writesWhatTheSlowTwinWrites(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{1, 3} {
		got := build(t, someFiles(), BuildOptions{Name: "d", PieceLength: testPiece, Workers: workers})
		var out bytes.Buffer
		if err := got.Write(&out); err != nil {
			t.Fatal(err)
		}
		if want := newMetainfo("d", someFiles()).bytes(); !bytes.Equal(out.Bytes(), want) {
			t.Errorf("got\n%q\nwant\n%q", out.Bytes(), want)
		}
	}
}

// The vector of docs/formats.md: an info hash that changes makes every share another.
func TestBuildTorrent_keepsItsInfoHash(t *testing.T) {
	t.Parallel()
	files := tree{"a": tree{"hello": []byte("hello\n")}, "empty": []byte{}, "zeros": make([]byte, 100_000)}
	got := build(t, files, BuildOptions{Name: "d"})
	if hash := fmt.Sprintf("%x", got.InfoHash()); hash != "053d457ccc88409acf9e0e4585b3811b09eda7e89bd02316cc69e54ea29f7109" {
		t.Errorf("version 2: %s", hash)
	}
	got = build(t, files, BuildOptions{Name: "d", Hybrid: true})
	v1, _ := got.InfoHashV1()
	if hash := fmt.Sprintf("%x", got.InfoHash()); hash != "9b56e1e7b49dcb617af55a398399e781dd09eb0bf3e1927c0e621bce24898365" {
		t.Errorf("hybrid: %s", hash)
	}
	if hash := fmt.Sprintf("%x", v1); hash != "74dd3553725927040e9f9b39e632107064b7da10" {
		t.Errorf("hybrid, version 1: %s", hash)
	}
}

// slowVersion1 hashes the pieces of version 1 over all files joined with their padding.
func slowVersion1(files ...[]byte) []byte {
	var all, sums []byte
	for i, f := range files {
		all = append(all, f...)
		for i < len(files)-1 && len(all)%testPiece != 0 {
			all = append(all, 0)
		}
	}
	for part := range slices.Chunk(all, testPiece) {
		sum := sha1.Sum(part)
		sums = append(sums, sum[:]...)
	}
	return sums
}

func TestBuildTorrent_hashesBothVersionsOfAHybrid(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		files tree
		order [][]byte
		list  any
	}{
		{"d", someFiles(), [][]byte{noise(testPiece), noise(1), noise(3*testPiece + 5), noise(3*testPiece + 5), noise(40000)}, goodVersion1()},
		{"d", tree{"x": noise(5)}, [][]byte{noise(5)}, []any{v1File(5, "x")}},
	} {
		got := build(t, c.files, BuildOptions{Name: c.name, PieceLength: testPiece, Hybrid: true})
		info := newMetainfo(c.name, c.files).with(map[string]any{"files": c.list, "pieces": slowVersion1(c.order...)}).info
		if want := appendBencode(nil, info); !bytes.Equal(got.info, want) {
			t.Errorf("got\n%q\nwant\n%q", got.info, want)
		}
	}
}

func TestBuildTorrent_ofAFileIsThatFile(t *testing.T) {
	t.Parallel()
	dir := onDisk(t, tree{"sub": tree{"x.iso": noise(3*testPiece + 1)}})
	got, _, err := BuildTorrent(context.Background(), os.DirFS(dir), "sub/x.iso", BuildOptions{Hybrid: true, Private: true, CreatedBy: "us", WebSeeds: []string{"https://a.example/x"}})
	if err != nil {
		t.Fatal(err)
	}
	if got.Folder || got.Name != "x.iso" || got.Files[0].Path != "x.iso" || got.Size != 3*testPiece+1 || !got.Hybrid || !got.Private || got.CreatedBy != "us" || len(got.WebSeeds) != 1 {
		t.Errorf("got %+v", got)
	}
	want := newMetainfo("x.iso", tree{"x.iso": noise(3*testPiece + 1)}).with(map[string]any{
		"length": int64(3*testPiece + 1), "pieces": slowVersion1(noise(3*testPiece + 1)), "private": int64(1),
	}).info
	if !bytes.Equal(got.info, appendBencode(nil, want)) {
		t.Errorf("got %q, want %q", got.info, appendBencode(nil, want))
	}
	named, _, err := BuildTorrent(context.Background(), os.DirFS(dir), "sub/x.iso", BuildOptions{Name: "y"})
	if err != nil || named.Name != "y" || named.Files[0].Path != "y" {
		t.Errorf("got %+v, %v", named, err)
	}
}

// TestOfFile_isWhatIsBuiltByReading gives the digests of files of less than one piece, of
// one, and of more.
func TestOfFile_isWhatIsBuiltByReading(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 100_000, testPiece, 3*testPiece + 5} {
		data := bytes.Repeat([]byte("dragon!"), size/7+1)[:size]
		dir := onDisk(t, tree{"film.mkv": data})
		want, _, err := BuildTorrent(t.Context(), os.DirFS(dir), "film.mkv", BuildOptions{PieceLength: testPiece})
		if err != nil {
			t.Fatal(err)
		}
		l := piece.Layout{Size: int64(size), PieceLength: testPiece}
		digests := want.Files[0].Pieces
		got, err := OfFile("film.mkv", l, digests, "")
		if err != nil || got.InfoHash() != want.InfoHash() || !reflect.DeepEqual(got.Digests(), digests) || got.Size != int64(size) {
			t.Errorf("of %d bytes: %v, %x instead of %x", size, err, got.InfoHash(), want.InfoHash())
		}
		for name, c := range map[string]struct {
			name    string
			digests []piece.Digest
		}{"another count": {"film.mkv", append(digests, piece.Digest{})}, "a path": {"a/film.mkv", digests}} {
			if _, err := OfFile(c.name, l, c.digests, ""); err == nil {
				t.Errorf("of %d bytes, with %s: it is made", size, name)
			}
		}
	}
	if _, err := OfFile("empty", piece.Layout{PieceLength: testPiece}, nil, ""); err == nil {
		t.Error("it is made of an empty file")
	}
}

func TestBuildTorrent_skipsLinksAndSaysSo(t *testing.T) {
	t.Parallel()
	dir := onDisk(t, tree{"a": noise(1), "sub": tree{"b": noise(2)}})
	for link, to := range map[string]string{"link": "a", "sub/up": "..", "sub/gone": "nowhere"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Skipf("no symbolic links here: %v", err)
		}
	}
	got, skipped, err := BuildTorrent(context.Background(), os.DirFS(dir), ".", BuildOptions{Name: "d"})
	if err != nil || len(got.Files) != 2 {
		t.Fatalf("got %+v, %v", got, err)
	}
	const why = "it is a symbolic link"
	if want := []Skipped{{"link", why}, {"sub/gone", why}, {"sub/up", why}}; !reflect.DeepEqual(skipped, want) {
		t.Errorf("skipped %v, want %v", skipped, want)
	}
}

func TestBuildTorrent_refusesWhatOthersCouldNotHold(t *testing.T) {
	t.Parallel()
	deep := fstest.MapFS{strings.Repeat("d/", maxPathDepth) + "x": {Data: noise(1)}}
	for _, c := range []struct {
		files fstest.MapFS
		at    string
		o     BuildOptions
		says  string
	}{
		{fstest.MapFS{"d/a:b": {}}, "d", BuildOptions{}, "rename it"},
		{fstest.MapFS{"d/README": {}, "d/readme": {}}, "d", BuildOptions{}, "rename one"},
		{fstest.MapFS{"d/x": {}}, ".", BuildOptions{}, "usable as a file name"},
		{fstest.MapFS{"d/x": {}}, "e", BuildOptions{}, "not exist"},
		{fstest.MapFS{"d/e": {Mode: fs.ModeDir}}, "d", BuildOptions{}, "holds no file"},
		{fstest.MapFS{"p": {Mode: fs.ModeNamedPipe}}, "p", BuildOptions{}, "neither a file nor a folder"},
		{deep, "d", BuildOptions{Name: "ok"}, ""},
		{deep, ".", BuildOptions{Name: "d"}, "folders deep"},
		{fstest.MapFS{"d/.pad/x": {}}, "d", BuildOptions{Hybrid: true}, "padding"},
		{fstest.MapFS{"d/.pad/x": {}}, "d", BuildOptions{}, ""},
		{fstest.MapFS{"x": {}}, "x", BuildOptions{PieceLength: 16 << 10}, "power of two"},
		{fstest.MapFS{"x": {}}, "x", BuildOptions{PieceLength: 32 << 20}, "power of two"},
		{fstest.MapFS{"x": {}}, "x", BuildOptions{PieceLength: 65537}, "power of two"},
		{fstest.MapFS{"x": {}}, "x", BuildOptions{WebSeeds: []string{"http://u:p@a/"}}, "web seed"},
		{fstest.MapFS{"x": {}}, "x", BuildOptions{WebSeeds: []string{"ftp://a/"}}, "web seed"},
		{fstest.MapFS{"d/x": {}, "d/y": {}}, "d", BuildOptions{WebSeeds: []string{"http://a/b"}}, "slash"},
	} {
		_, _, err := BuildTorrent(context.Background(), c.files, c.at, c.o)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%v: got %v, want %q", c.files, err, c.says)
		}
	}
}

// changing is a file system whose file's size is another when it is read.
type changing struct {
	fstest.MapFS
	late fstest.MapFS
}

func (c changing) Open(name string) (fs.File, error) {
	if _, found := c.late[name]; found {
		return c.late.Open(name)
	}
	return c.MapFS.Open(name)
}

func TestBuildTorrent_refusesAFileThatChanges(t *testing.T) {
	t.Parallel()
	was := fstest.MapFS{"d/x": {Data: noise(3 * testPiece)}, "d/y": {Data: noise(9)}}
	for name, late := range map[string]*fstest.MapFile{
		"shorter": {Data: noise(3*testPiece - 1)}, "longer": {Data: noise(3*testPiece + 1)}, "newer": {Data: noise(3 * testPiece), ModTime: time.Unix(1, 0)},
		"no file": {Data: noise(3 * testPiece), Mode: fs.ModeNamedPipe},
	} {
		_, _, err := BuildTorrent(context.Background(), changing{was, fstest.MapFS{"d/x": late}}, "d", BuildOptions{})
		if !errors.Is(err, ErrFileChanged) || !strings.Contains(err.Error(), "d/x") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestBuildTorrent_writesTheFolderOfAWebSeedWhereItCan(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{"d/my file": {Data: noise(1)}}
	got, _, err := BuildTorrent(context.Background(), files, "d/my file", BuildOptions{WebSeeds: []string{
		"http://a.example/f/my%20file", "http://b.example/other", "http://c.example/my%20file?v=1", "http://d.example/?/my%20file", "http://e.example/",
	}})
	want := []string{"http://a.example/f/", "http://b.example/other", "http://c.example/my%20file?v=1", "http://d.example/?/my%20file", "http://e.example/"}
	if err != nil || !reflect.DeepEqual(got.WebSeeds, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

func TestBuildTorrent_ofAFolderWithOneFile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		files          tree
		hybrid, folder bool
		name, seed     string
	}{
		{tree{"x": noise(5)}, false, true, "my d", "http://a.example/my%20d/"},
		{tree{"my d": noise(5)}, false, false, "my d", "http://a.example/my%20d/"},
		{tree{"x": noise(5)}, true, true, "my d", "http://a.example/"},
		{tree{"a": tree{"x": noise(5)}}, false, true, "my d", "http://a.example/"},
		{tree{"x": noise(5), "none": tree{}}, false, true, "my d", "http://a.example/"},
	} {
		got := build(t, c.files, BuildOptions{Name: "my d", Hybrid: c.hybrid, WebSeeds: []string{"http://a.example/"}})
		if got.Folder != c.folder || got.Name != c.name || got.WebSeeds[0] != c.seed {
			t.Errorf("got %+v, want %+v", got, c)
		}
		at, err := got.SeedURL(got.WebSeeds[0], 0)
		if want := "http://a.example/my%20d/" + (&url.URL{Path: got.Files[0].Path}).EscapedPath(); err != nil || at != want {
			t.Errorf("its file is asked for at %s, %v, and lies at %s", at, err, want)
		}
	}
}

func TestBuildTorrent_tellsProgressAndStops(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{"d/x": {Data: noise(9 * testPiece)}, "d/y": {Data: noise(9)}}
	var last, calls int64
	_, _, err := BuildTorrent(context.Background(), files, "d", BuildOptions{PieceLength: testPiece, Progress: func(done, total int64) {
		if done <= last || total != 9*testPiece+9 {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
		calls++
	}})
	if err != nil || last != 9*testPiece+9 || calls < 9 {
		t.Errorf("got %v, %d bytes in %d calls", err, last, calls)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var after atomic.Int64
	_, _, err = BuildTorrent(ctx, files, "d", BuildOptions{PieceLength: testPiece, Workers: 2, Progress: func(int64, int64) {
		cancel()
		after.Add(1)
	}})
	if !errors.Is(err, context.Canceled) || after.Load() > 2 {
		t.Errorf("got %v after %d more pieces", err, after.Load())
	}
}

func TestBuildTorrent_choosesThePieceLengthByTheSizeOfAll(t *testing.T) {
	t.Parallel()
	files, zeros := fstest.MapFS{}, make([]byte, 50<<20)
	for i := range 3 {
		files[fmt.Sprint("d/", i)] = &fstest.MapFile{Data: zeros}
	}
	got, _, err := BuildTorrent(context.Background(), files, "d", BuildOptions{})
	if err != nil || got.PieceLength != piece.LengthFor(150<<20) || got.PieceLength == piece.MinLength {
		t.Errorf("got %v, %v", got.PieceLength, err)
	}
}

func BenchmarkBuildTorrent(b *testing.B) {
	dir := onDisk(b, tree{"x": make([]byte, 256<<20)})
	for _, hybrid := range []bool{false, true} {
		for _, workers := range []int{1, 0} {
			b.Run(fmt.Sprintf("hybrid=%v/workers=%d", hybrid, workers), func(b *testing.B) {
				b.SetBytes(256 << 20)
				for b.Loop() {
					if _, _, err := BuildTorrent(context.Background(), os.DirFS(dir), "x", BuildOptions{Hybrid: hybrid, Workers: workers}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkBuildTorrent_smallFiles(b *testing.B) {
	files := tree{}
	for i := range 10_000 {
		files[fmt.Sprint(i)] = noise(4096)
	}
	dir := onDisk(b, files)
	for b.Loop() {
		if _, _, err := BuildTorrent(context.Background(), os.DirFS(dir), ".", BuildOptions{Name: "d"}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*10_000/b.Elapsed().Seconds(), "files/s")
}

func TestBuildTorrent_readsNoFileWhoseDigestsAreKnown(t *testing.T) {
	fsys := fstest.MapFS{
		"set/a":    {Data: bytes.Repeat([]byte("a"), 300_000)},
		"set/b":    {Data: []byte("b")},
		"set/none": {},
	}
	build := func(o BuildOptions) (*Torrent, []Skipped) {
		t.Helper()
		o.PieceLength = piece.MinLength
		got, skipped, err := BuildTorrent(t.Context(), fsys, "set", o)
		if err != nil {
			t.Fatal(err)
		}
		return got, skipped
	}
	first, _ := build(BuildOptions{})
	var done int64
	var folders []string
	fsys["set/a"] = &fstest.MapFile{Data: bytes.Repeat([]byte("x"), 300_000)}
	again, _ := build(BuildOptions{
		Progress: func(n, _ int64) { done = n },
		Enter:    func(folder string) { folders = append(folders, folder) },
		Known: func(path string, info fs.FileInfo, length int64) []piece.Digest {
			if path == "a" && info.Size() == 300_000 && length == piece.MinLength {
				return first.Files[0].Pieces
			}
			return nil
		},
	})
	if again.InfoHash() != first.InfoHash() || done != first.Size || len(folders) != 1 {
		t.Errorf("%x, %d bytes told, folders %q", again.InfoHash(), done, folders)
	}
	less, skipped := build(BuildOptions{Leave: func(path string, _ fs.FileInfo) string {
		if path == "b" {
			return "no"
		}
		return ""
	}})
	if len(less.Files) != 2 || len(skipped) != 1 || skipped[0] != (Skipped{"b", "no"}) {
		t.Errorf("left out %v of %v", skipped, less.Files)
	}
}

// locked is a file system of which one folder cannot be read.
type locked struct {
	fstest.MapFS
	folder string
}

func (l locked) ReadDir(name string) ([]fs.DirEntry, error) {
	if name == l.folder {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return l.MapFS.ReadDir(name)
}

func TestBuildTorrent_leavesOutFolders(t *testing.T) {
	files := fstest.MapFS{"set/a": {Data: []byte("a")}, "set/in/b": {Data: []byte("b")}, "set/in/deep/c": {Data: []byte("c")}}
	got, skipped, err := BuildTorrent(t.Context(), locked{files, "set/in"}, "set", BuildOptions{})
	if err != nil || len(got.Files) != 1 || len(skipped) != 1 || skipped[0] != (Skipped{"in", "the folder cannot be read: permission denied"}) {
		t.Errorf("%v, left out %v: %v", got, skipped, err)
	}
	if got, _, err := BuildTorrent(t.Context(), locked{files, "set"}, "set", BuildOptions{}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("the share itself cannot be read: %v, %v", got, err)
	}
	got, skipped, err = BuildTorrent(t.Context(), files, "set", BuildOptions{Leave: func(path string, info fs.FileInfo) string {
		if path == "in/deep" && info.IsDir() {
			return "no"
		}
		return ""
	}})
	if err != nil || len(got.Files) != 2 || len(got.Folders) != 0 || len(skipped) != 1 || skipped[0] != (Skipped{"in/deep", "no"}) {
		t.Errorf("%v, left out %v: %v", got, skipped, err)
	}
}
