package manifest

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"dragonload/internal/piece"
)

const testPiece = 64 << 10

// tree is a file tree; a file in it is its bytes.
type tree map[string]any

// metainfo makes a metainfo file by hand, with its own, slow tree of hashes.
type metainfo struct {
	info, outer map[string]any
}

func newMetainfo(name string, files tree) metainfo {
	layers := map[string]any{}
	return metainfo{
		info: map[string]any{
			"file tree": slowTree(files, layers), "meta version": int64(2), "name": name, "piece length": int64(testPiece),
		},
		outer: map[string]any{"piece layers": layers},
	}
}

func slowTree(files tree, layers map[string]any) map[string]any {
	out := map[string]any{}
	for name, v := range files {
		switch v := v.(type) {
		case tree:
			out[name] = slowTree(v, layers)
		case []byte:
			properties := map[string]any{"length": int64(len(v))}
			if len(v) > 0 {
				root, layer := slowMerkle(v)
				properties["pieces root"] = root
				if layer != nil {
					layers[string(root)] = layer
				}
			}
			out[name] = map[string]any{"": properties}
		}
	}
	return out
}

// slowMerkle is BEP 52's tree as its text says it: all leaves, then all layers.
func slowMerkle(data []byte) (root, layer []byte) {
	var row [][]byte
	long := len(data) > testPiece
	for rest := data; len(rest) > 0; rest = rest[min(16<<10, len(rest)):] {
		sum := sha256.Sum256(rest[:min(16<<10, len(rest))])
		row = append(row, sum[:])
	}
	for len(row)&(len(row)-1) != 0 {
		row = append(row, make([]byte, 32))
	}
	for width := 16 << 10; len(row) > 1; width *= 2 {
		if width == testPiece && long {
			layer = bytes.Join(row[:(len(data)+testPiece-1)/testPiece], nil)
		}
		var above [][]byte
		for i := 0; i < len(row); i += 2 {
			sum := sha256.Sum256(append(bytes.Clone(row[i]), row[i+1]...))
			above = append(above, sum[:])
		}
		row = above
	}
	return row[0], layer
}

func (m metainfo) bytes() []byte {
	outer := maps.Clone(m.outer)
	outer["info"] = m.info
	return appendBencode(nil, outer)
}

// with returns a copy with some keys of the info dictionary changed; nil removes one.
func (m metainfo) with(changes map[string]any) metainfo {
	info := maps.Clone(m.info)
	maps.Copy(info, changes)
	maps.DeleteFunc(info, func(_ string, v any) bool { return v == nil })
	return metainfo{info, m.outer}
}

// outside returns a copy with some of the outer keys changed; nil removes one.
func (m metainfo) outside(changes map[string]any) metainfo {
	outer := maps.Clone(m.outer)
	maps.Copy(outer, changes)
	maps.DeleteFunc(outer, func(_ string, v any) bool { return v == nil })
	return metainfo{m.info, outer}
}

func noise(n int) []byte {
	out := make([]byte, 0, n+32)
	for sum := sha256.Sum256(fmt.Append(nil, n)); len(out) < n; sum = sha256.Sum256(sum[:]) {
		out = append(out, sum[:]...)
	}
	return out[:n]
}

func someFiles() tree {
	return tree{
		"a": tree{"c": noise(testPiece), "deep": tree{"er": noise(1)}}, "a.b": noise(3*testPiece + 5),
		"empty": []byte{}, "none": tree{}, "same": noise(3*testPiece + 5), "z": noise(40000),
	}
}

func TestReadTorrent_doesNotBeginWithAFileTooLong(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "long.torrent"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 40); err != nil {
		t.Skip(err)
	}
	if _, err := ReadTorrent(f); !errors.Is(err, ErrTorrent) || !strings.Contains(err.Error(), "longer than 64 MiB") {
		t.Errorf("got %v", err)
	}
	if at, err := f.Seek(0, io.SeekCurrent); at != 0 || err != nil {
		t.Errorf("%d bytes were read", at)
	}
}

func TestReadTorrent_readsFilesInTheOrderOfTheTree(t *testing.T) {
	t.Parallel()
	m := newMetainfo("d", someFiles()).outside(map[string]any{
		"announce": "http://tracker.example/", "created by": "somebody",
		"url-list": []any{"http://one.example/", "ftp://no.example/", "https://two.example/x/"},
	})
	got, err := ReadTorrent(bytes.NewReader(m.bytes()))
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for i, f := range got.Files {
		paths = append(paths, fmt.Sprint(f.Path, " ", f.Size, " ", len(f.Pieces)))
		if data := someFiles()[f.Path]; f.Path == "a.b" {
			for k, d := range f.Pieces {
				l := got.Layout(i)
				r := l.Range(piece.Index(k))
				if want := l.Sum(piece.Index(k), data.([]byte)[r.Start:r.End]); d != want {
					t.Errorf("piece %d of %s: %v, want %v", k, f.Path, d, want)
				}
			}
		}
	}
	if want := []string{"a/c 65536 1", "a/deep/er 1 1", "a.b 196613 4", "empty 0 0", "same 196613 4", "z 40000 1"}; !reflect.DeepEqual(paths, want) {
		t.Errorf("got files %q, want %q", paths, want)
	}
	if !got.Folder || got.Name != "d" || got.Hybrid || got.Private || got.PieceLength != testPiece || got.CreatedBy != "somebody" || got.PieceCount() != 11 {
		t.Errorf("got %+v", got)
	}
	if want := []string{"http://one.example/", "https://two.example/x/"}; !reflect.DeepEqual(got.WebSeeds, want) {
		t.Errorf("got web seeds %q, want %q", got.WebSeeds, want)
	}
	if want := []string{"none"}; !reflect.DeepEqual(got.Folders, want) {
		t.Errorf("got empty folders %q, want %q", got.Folders, want)
	}
	if want := sha256.Sum256(appendBencode(nil, m.info)); got.InfoHash() != want {
		t.Errorf("got info hash %x, want %x", got.InfoHash(), want)
	}
}

func TestReadTorrent_keepsWhatItDoesNotKnowInTheInfoHash(t *testing.T) {
	t.Parallel()
	m := newMetainfo("x", tree{"x": noise(5)}).with(map[string]any{"source": "somewhere", "private": int64(1)})
	got, err := ReadTorrent(bytes.NewReader(m.bytes()))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := got.Write(&out); err != nil {
		t.Fatal(err)
	}
	again, err := ReadTorrent(&out)
	if err != nil {
		t.Fatal(err)
	}
	if want := sha256.Sum256(appendBencode(nil, m.info)); again.InfoHash() != want || !again.Private || again.Folder {
		t.Errorf("got %x, %+v, want %x", again.InfoHash(), again, want)
	}
	if _, ok := again.InfoHashV1(); ok {
		t.Error("a torrent of version 2 has an info hash of version 1")
	}
}

func TestReadTorrent_tellsAFolderOfOneFileByItsName(t *testing.T) {
	t.Parallel()
	for name, folder := range map[string]bool{"x": false, "said": true, "X": true} {
		got, err := ReadTorrent(bytes.NewReader(newMetainfo(name, tree{"x": noise(5)}).bytes()))
		if err != nil || got.Folder != folder || got.Name != name || got.Files[0].Path != "x" {
			t.Errorf("got %+v, %v of a file x under the name %s", got, err, name)
		}
	}
}

// version1 adds what version 1 says of the files of someFiles, in the given order.
func version1(files ...any) map[string]any {
	return map[string]any{"files": files, "pieces": strings.Repeat("x", sha1.Size*11)}
}

func v1File(length int, path ...any) map[string]any {
	return map[string]any{"length": int64(length), "path": path}
}

func v1Pad(length int) map[string]any {
	return map[string]any{"length": int64(length), "attr": "p", "path": []any{".pad", fmt.Sprint(length)}}
}

func goodVersion1() []any {
	const long = 3*testPiece + 5
	return []any{
		v1File(testPiece, "a", "c"), v1File(1, "a", "deep", "er"), v1Pad(testPiece - 1), v1File(long, "a.b"), v1Pad(testPiece - 5),
		v1File(0, "empty"), v1File(long, "same"), v1Pad(testPiece - 5), v1File(40000, "z"),
	}
}

func TestReadTorrent_readsHybrids(t *testing.T) {
	t.Parallel()
	folder := newMetainfo("d", someFiles())
	single := newMetainfo("x", tree{"x": noise(2*testPiece + 1)})
	for _, c := range []struct {
		m      metainfo
		folder bool
	}{
		{folder.with(version1(goodVersion1()...)), true},
		{folder.with(version1(append(goodVersion1(), v1Pad(testPiece-40000))...)), true},
		{single.with(map[string]any{"length": int64(2*testPiece + 1), "pieces": strings.Repeat("x", 60)}), false},
		{single.with(map[string]any{"name": "d", "files": []any{v1File(2*testPiece+1, "x")}, "pieces": strings.Repeat("x", 60)}), true},
	} {
		got, err := ReadTorrent(bytes.NewReader(c.m.bytes()))
		if err != nil {
			t.Error(err)
			continue
		}
		if hash, ok := got.InfoHashV1(); !ok || hash != sha1.Sum(appendBencode(nil, c.m.info)) || got.Folder != c.folder {
			t.Errorf("got %x, %v, %+v", hash, ok, got)
		}
	}
}

func TestReadTorrent_refusesWhatContradictsOrHarms(t *testing.T) {
	t.Parallel()
	good := newMetainfo("d", someFiles())
	single := newMetainfo("x", tree{"x": noise(5)})
	long := newMetainfo("x", tree{"x": noise(3 * testPiece)})
	file := func(properties map[string]any) metainfo {
		return single.with(map[string]any{"file tree": map[string]any{"x": map[string]any{"": properties}}})
	}
	files := func(v tree) metainfo { return newMetainfo("d", v) }
	v1 := func(change func(files []any) []any) metainfo { return good.with(version1(change(goodVersion1())...)) }
	layers := func(v any) metainfo { return long.outside(map[string]any{"piece layers": v}) }
	var root string
	var layer []byte
	for k, v := range long.outer["piece layers"].(map[string]any) {
		root, layer = k, v.([]byte)
	}
	wrong := bytes.Clone(layer)
	wrong[40] ^= 1
	deep := tree{"x": noise(1)}
	for range maxPathDepth {
		deep = tree{"x": deep}
	}
	many := metainfo{info: maps.Clone(single.info), outer: single.outer}
	many.info["file tree"] = map[string]any{"x": map[string]any{"": map[string]any{"length": int64(piece.MaxSize), "pieces root": noise(32)}}}
	for _, c := range []struct {
		document metainfo
		says     string
	}{
		{single.with(map[string]any{"meta version": nil}), "does not say of which version"},
		{single.with(map[string]any{"meta version": nil, "pieces": "", "length": int64(5)}), "version 1 alone"},
		{single.with(map[string]any{"meta version": int64(3)}), "version that is not 2"},
		{single.with(map[string]any{"meta version": "2"}), "version that is not 2"},
		{single.with(map[string]any{"piece length": nil}), "no piece length"},
		{single.with(map[string]any{"piece length": int64(0)}), "piece length 0 is not a power of two"},
		{single.with(map[string]any{"piece length": int64(8 << 10)}), "is not a power of two"},
		{single.with(map[string]any{"piece length": int64(65537)}), "is not a power of two"},
		{single.with(map[string]any{"piece length": int64(128 << 20)}), "is not a power of two"},
		{single.with(map[string]any{"piece length": int64(-65536)}), "is not a power of two"},
		{single.with(map[string]any{"name": nil}), "no name"},
		{single.with(map[string]any{"name": int64(1)}), "no name"},
		{single.with(map[string]any{"name": "../x"}), "usable as a file name"},
		{single.with(map[string]any{"private": "yes"}), "private is no number"},
		{single.with(map[string]any{"file tree": nil}), "no file tree"},
		{single.with(map[string]any{"file tree": "x"}), "no dictionary"},
		{single.with(map[string]any{"file tree": map[string]any{}}), "names no file"},
		{single.with(map[string]any{"file tree": map[string]any{"": map[string]any{"length": int64(0)}}}), "a file without a name"},
		{files(tree{"none": tree{}}), "names no file"},
		{files(tree{"..": noise(1)}), "usable as a file name"},
		{files(tree{"a/b": noise(1)}), "usable as a file name"},
		{files(tree{`a\b`: noise(1)}), "usable as a file name"},
		{files(tree{"a": tree{"CON.txt": noise(1)}}), "usable as a file name"},
		{files(tree{"a\u202eb": noise(1)}), "usable as a file name"},
		{files(tree{"e\u0301": noise(1)}), "usable as a file name"},
		{files(tree{"\xff": noise(1)}), "usable as a file name"},
		{files(tree{strings.Repeat("x", 256): noise(1)}), "usable as a file name"},
		{files(tree{"README": noise(1), "readme": noise(2)}), "not told apart"},
		{files(tree{"Ä": noise(1), "ä": tree{"x": noise(2)}}), "not told apart"},
		{files(tree{"a": tree{}, "A": tree{}, "x": noise(1)}), "not told apart"},
		{files(deep), "levels"},
		{single.with(map[string]any{"file tree": map[string]any{"x": map[string]any{"": map[string]any{"length": int64(0)}, "y": map[string]any{}}}}), "a file and a folder"},
		{file(map[string]any{}), "no number of bytes"},
		{file(map[string]any{"length": "5"}), "no number of bytes"},
		{file(map[string]any{"length": int64(-1)}), "no number of bytes"},
		{file(map[string]any{"length": int64(piece.MaxSize + 1)}), "no number of bytes"},
		{file(map[string]any{"length": int64(5)}), "pieces root"},
		{file(map[string]any{"length": int64(5), "pieces root": "short"}), "pieces root"},
		{file(map[string]any{"length": int64(0), "pieces root": noise(32)}), "pieces root"},
		{file(map[string]any{"length": int64(5), "pieces root": noise(32), "attr": "xl"}), "a link or padding"},
		{file(map[string]any{"length": int64(0), "symlink path": []any{"etc"}}), "a link or padding"},
		{many, "more than 2097152 pieces"},
		{layers(nil), "missing or of another length"},
		{layers(map[string]any{}), "missing or of another length"},
		{layers(map[string]any{root: layer[:64]}), "missing or of another length"},
		{layers(map[string]any{root: append(bytes.Clone(layer), layer[:32]...)}), "missing or of another length"},
		{layers(map[string]any{root: wrong}), "does not match"},
		{layers(map[string]any{root: layer, string(noise(32)): layer}), "belong to no file"},
		{layers(map[string]any{"x": layer}), "not lists of digests"},
		{layers(map[string]any{root: []any{}}), "not lists of digests"},
		{layers("x"), "no dictionary"},
		{single.with(map[string]any{"pieces": "x"}), "not all that belong together"},
		{single.with(map[string]any{"length": int64(5)}), "not all that belong together"},
		{single.with(map[string]any{"length": int64(5), "files": []any{}, "pieces": ""}), "not all that belong together"},
		{single.with(map[string]any{"length": int64(6), "pieces": strings.Repeat("x", 20)}), "single file is another"},
		{single.with(map[string]any{"length": int64(5), "pieces": strings.Repeat("x", 20), "name": "y"}), "single file is another"},
		{single.with(map[string]any{"length": int64(5), "pieces": strings.Repeat("x", 19)}), "1 hashes"},
		{good.with(map[string]any{"length": int64(5), "pieces": ""}), "single file is another"},
		{v1(func(f []any) []any { return f[:8] }), `"z" is not there`},
		{v1(func(f []any) []any { return append(f, v1File(1, "more")) }), "more files in version 1"},
		{v1(func(f []any) []any { f[0], f[1] = f[1], f[0]; return f }), "is another file"},
		{v1(func(f []any) []any { f[0] = v1File(testPiece, "a", "d"); return f }), "is another file"},
		{v1(func(f []any) []any { f[0] = v1File(testPiece, "a"); return f }), "is another file"},
		{v1(func(f []any) []any { f[0] = v1File(testPiece, "a", "c", "d"); return f }), "is another file"},
		{v1(func(f []any) []any { f[0] = v1File(testPiece); return f }), "is another file"},
		{v1(func(f []any) []any { f[0] = v1File(testPiece-1, "a", "c"); return f }), "is another file"},
		{v1(func(f []any) []any { f[2] = v1Pad(testPiece - 2); return f }), "does not start with a piece"},
		{v1(func(f []any) []any { f[2] = v1Pad(2*testPiece - 1); return f }), "a piece or more"},
		{v1(func(f []any) []any { f[2] = v1Pad(-1); return f }), "no number of bytes"},
		{v1(func(f []any) []any { return append([]any{v1Pad(5)}, f...) }), "does not start with a piece"},
		{v1(func(f []any) []any { return append(f, v1Pad(5)) }), "does not end with a piece"},
		{v1(func(f []any) []any { return append(f, "x") }), "is none"},
		{good.with(map[string]any{"files": goodVersion1(), "pieces": strings.Repeat("x", 20*10)}), "11 hashes"},
		{single.outside(map[string]any{"url-list": int64(1)}), "no addresses"},
		{single.outside(map[string]any{"url-list": []any{int64(1)}}), "no addresses"},
		{single.outside(map[string]any{"url-list": "http://a b:c/%zz"}), "cannot be read as a URL"},
		{single.outside(map[string]any{"url-list": "http://a/" + strings.Repeat("x", 8<<10)}), "longer than"},
		{single.outside(map[string]any{"url-list": slicesRepeat("http://a/", 1001)}), "more than 1000"},
	} {
		got, err := ReadTorrent(bytes.NewReader(c.document.bytes()))
		if !errors.Is(err, ErrTorrent) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("got %v, %v, want a refusal that says %q", got, err, c.says)
		}
	}
}

func TestReadTorrent_isBounded(t *testing.T) {
	t.Parallel()
	document := func(inTree string) string {
		return "d4:infod9:file treed" + inTree + "e12:meta versioni2e4:name1:d12:piece lengthi65536eee"
	}
	numbered := func(n int, value string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "7:%07d%s", i, value)
		}
		return b.String()
	}
	const levels = maxPathDepth - 1
	long := strings.Repeat("255:"+strings.Repeat("x", 255)+"d", levels) + numbered(maxTorrentPaths/(levels*255), "de") + strings.Repeat("e", levels)
	for _, c := range []struct{ document, says string }{
		{document(numbered(MaxTorrentFiles+1, "de")), "more than 1048576 files"},
		{document(long), "paths are longer than 128 MiB"},
	} {
		got, err := ReadTorrent(strings.NewReader(c.document))
		if !errors.Is(err, ErrTorrent) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%.40q: got %v, %v, want a refusal that says %q", c.document, got, err, c.says)
		}
	}
}

func slicesRepeat(s string, n int) []any {
	out := make([]any, n)
	for i := range out {
		out[i] = s
	}
	return out
}

func TestReadTorrent_refusesWhatIsNoMetainfo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ document, says string }{
		{"", "not valid bencode"},
		{"<html>", "not valid bencode"},
		{"i1e", "not valid bencode"},
		{"de", "no info dictionary"},
		{"d4:infoi1ee", "no dictionary"},
		{"d4:infodee", "of which version"},
		{"d4:infodeex", "behind the end"},
		{"d4:infod4:name1:x4:name1:yee", "in order"},
		{"d4:info" + strings.Repeat("l", 100), "nested"},
		{"67108864:" + strings.Repeat("x", MaxTorrent), "longer than 64 MiB"},
	} {
		got, err := ReadTorrent(strings.NewReader(c.document))
		if !errors.Is(err, ErrTorrent) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%.40q: got %v, %v, want a refusal that says %q", c.document, got, err, c.says)
		}
	}
	broken := errors.New("broken")
	if _, err := ReadTorrent(brokenReader{broken}); !errors.Is(err, broken) || errors.Is(err, ErrTorrent) {
		t.Errorf("got %v, want the error of reading", err)
	}
}

type brokenReader struct{ err error }

func (r brokenReader) Read([]byte) (int, error) { return 0, r.err }

// FuzzReadTorrent checks that what is accepted keeps every bound, and is the same when
// it is written and read again.
func FuzzReadTorrent(f *testing.F) {
	folder := newMetainfo("d", someFiles()).outside(map[string]any{"url-list": []any{"http://a.example/"}, "created by": "x"})
	single := newMetainfo("x", tree{"x": noise(2*testPiece + 1)})
	for _, seed := range []metainfo{
		folder, folder.with(version1(goodVersion1()...)), single,
		single.with(map[string]any{"length": int64(2*testPiece + 1), "pieces": strings.Repeat("x", 60), "private": int64(1)}),
		newMetainfo("d", tree{"a": tree{"b": tree{"c": noise(1)}}, "e": []byte{}}),
	} {
		f.Add(seed.bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ReadTorrent(bytes.NewReader(data))
		if err != nil {
			if !errors.Is(err, ErrTorrent) {
				t.Errorf("error of another kind: %v", err)
			}
			return
		}
		checkBounds(t, got)
		value, err := decodeBencode(got.info)
		if err != nil || !bytes.Equal(appendBencode(nil, value), got.info) {
			t.Errorf("the info dictionary is another when it is written again (%v)", err)
		}
		var out bytes.Buffer
		if err := got.Write(&out); err != nil {
			t.Fatal(err)
		}
		again, err := ReadTorrent(&out)
		if err != nil || !reflect.DeepEqual(again, got) || again.InfoHash() != got.InfoHash() {
			t.Errorf("written and read again: %+v, %v, want %+v", again, err, got)
		}
	})
}

func checkBounds(t *testing.T, got *Torrent) {
	t.Helper()
	if _, err := CleanName(got.Name); err != nil {
		t.Error(err)
	}
	if l := got.PieceLength; l < piece.LeafSize || l > 64<<20 || l&(l-1) != 0 {
		t.Errorf("piece length %d", l)
	}
	if len(got.Files) == 0 || len(got.Files) > MaxTorrentFiles || got.PieceCount() > piece.MaxCount || len(got.WebSeeds) > maxTorrentURLs {
		t.Errorf("%d files, %d pieces, %d web seeds", len(got.Files), got.PieceCount(), len(got.WebSeeds))
	}
	var size int64
	names := make(map[string]bool)
	for i, f := range got.Files {
		if err := cleanPath(f.Path); err != nil || f.Size < 0 || f.Size > piece.MaxSize {
			t.Errorf("file %q of %d bytes, %v", f.Path, f.Size, err)
		}
		folded := strings.ToLower(f.Path)
		if names[folded] {
			t.Errorf("two files are called %q", f.Path)
		}
		names[folded] = true
		if size += f.Size; len(f.Pieces) != got.Layout(i).Count() {
			t.Errorf("%q has %d digests for %d pieces", f.Path, len(f.Pieces), got.Layout(i).Count())
		}
		if f.Size > 0 && got.Layout(i).Root(f.Pieces) != f.Root {
			t.Errorf("the pieces of %q do not match its root", f.Path)
		}
	}
	if size != got.Size || size > piece.MaxSize {
		t.Errorf("%d bytes in all, want %d", got.Size, size)
	}
}

// What members send each other is made by the info hash alone, whatever stood around it.
func TestBare_hasNothingThatTheInfoHashDoesNotVouchFor(t *testing.T) {
	t.Parallel()
	m := newMetainfo("d", someFiles())
	plain := m.bytes()
	got, err := ReadTorrent(bytes.NewReader(m.outside(map[string]any{"url-list": "http://one.example/", "created by": "somebody", "aaa": int64(1)}).bytes()))
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := got.Bare().Write(&text); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text.Bytes(), plain) {
		t.Errorf("got %q, want %q", text.Bytes(), plain)
	}
	info, found := bytes.CutPrefix(text.Bytes(), []byte("d4:info"))
	if !found || sha256.Sum256(info[:got.InfoLength()]) != got.InfoHash() {
		t.Error("the info dictionary is not where it should be")
	}
	if len(got.WebSeeds) != 1 || got.CreatedBy == "" {
		t.Error("Bare has changed the torrent itself")
	}
}

func TestTorrent_laysItsFilesOutOneAfterTheOther(t *testing.T) {
	t.Parallel()
	files := someFiles()
	got, err := ReadTorrent(bytes.NewReader(newMetainfo("d", files).bytes()))
	if err != nil {
		t.Fatal(err)
	}
	layout, err := got.LayoutAll()
	if err != nil {
		t.Fatal(err)
	}
	digests := got.Digests()
	if layout.Count() != len(digests) || layout.Size != got.Size || layout.Files() != len(got.Files) {
		t.Fatalf("%d pieces, %d digests, %d bytes, %d files", layout.Count(), len(digests), layout.Size, layout.Files())
	}
	for k, f := range got.Files {
		bytesOf, pieces := layout.File(k)
		for i := pieces.First; i < pieces.End(); i++ {
			r := layout.Range(i)
			if sum := layout.Sum(i, contentOf(t, files, f.Path)[r.Start-bytesOf.Start:r.End-bytesOf.Start]); sum != digests[i] {
				t.Errorf("%s, piece %d: %v, want %v", f.Path, i, sum, digests[i])
			}
		}
	}
}

func contentOf(t *testing.T, files tree, path string) []byte {
	t.Helper()
	for name := range strings.SplitSeq(path, "/") {
		switch entry := files[name].(type) {
		case []byte:
			return entry
		case tree:
			files = entry
		}
	}
	t.Fatalf("there is no %s", path)
	return nil
}
