package manifest

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestSelect_choosesFilesByGlobs(t *testing.T) {
	t.Parallel()
	data := noise(1)
	got, err := ReadTorrent(bytes.NewReader(newMetainfo("d", tree{
		"a.iso": data, "b": tree{"a.iso": data, "c": tree{"a.txt": data, "x[1].bin": data}}, "c": tree{"z.ISO": data},
	}).bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		globs string
		want  string // "": refused
	}{
		{"", "a.iso b/a.iso b/c/a.txt b/c/x[1].bin c/z.ISO"},
		{"*.iso", "a.iso b/a.iso"},
		{"/*.iso", "a.iso"},
		{"b/*.iso", "b/a.iso"},
		{"*/*.iso", "b/a.iso"},
		{"b", "b/a.iso b/c/a.txt b/c/x[1].bin"},
		{"b/", "b/a.iso b/c/a.txt b/c/x[1].bin"},
		{"c", "b/c/a.txt b/c/x[1].bin c/z.ISO"},
		{"/c", "c/z.ISO"},
		{"b/**", "b/a.iso b/c/a.txt b/c/x[1].bin"},
		{"**/a.*", "a.iso b/a.iso b/c/a.txt"},
		{"b/**/a.*", "b/a.iso b/c/a.txt"},
		{"?.txt", "b/c/a.txt"},
		{`x\[1\].bin`, "b/c/x[1].bin"},
		{"a.txt *.ISO", "b/c/a.txt c/z.ISO"},
		{"**", "a.iso b/a.iso b/c/a.txt b/c/x[1].bin c/z.ISO"},
		{"a.is", ""}, {"a.txt none", ""}, {"[", ""}, {"b//a.iso", ""}, {"/", ""}, {"a.iso/x", ""}, {`x\`, ""}, {"../d/a.iso", ""},
	} {
		chosen, err := got.Select(strings.Fields(c.globs))
		var paths []string
		for i, is := range chosen {
			if is {
				paths = append(paths, got.Files[i].Path)
			}
		}
		var none *NoMatchError
		if !reflect.DeepEqual(paths, strings.Fields(c.want)) && c.want != "" || (c.want == "") != errors.As(err, &none) {
			t.Errorf("%q: %q, %v; want %q", c.globs, paths, err, c.want)
		}
	}
	deep := strings.Repeat("a/", 100) + "a"
	if fits(strings.Split(strings.Repeat("**/a/", 50)+"b", "/"), strings.Split(deep, "/")) {
		t.Error("a b was found among a's")
	}
}
