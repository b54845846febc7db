package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"dragonload/internal/manifest"
)

func TestPublicSeeds(t *testing.T) {
	file := &manifest.Torrent{Name: "a", Files: []manifest.TorrentFile{{Path: "a", Size: 1}}}
	folder := &manifest.Torrent{Name: "a", Folder: true, Files: []manifest.TorrentFile{{Path: "b", Size: 1}}}
	for _, c := range []struct {
		of   *manifest.Torrent
		url  string
		told bool
	}{
		{file, "http://example.org/a", true},
		{file, "https://example.org/files/", true},
		{folder, "https://example.org/files/", true},
		{file, "http://u:p@example.org/a", false},
		{file, "http://@example.org/a", false}, // as the journal marks what was got with a secret
		{file, "http://example.org/a?key=secret", false},
		{file, "http://example.org/a?", false},
		{file, "http://example.org/a#part", false},
		{file, "ftp://example.org/a", false},
		{file, "http://example.org/" + strings.Repeat("a", 10_000), false},
		{file, "http:///a", false},
		{file, "", false},
		{&manifest.Torrent{Name: "a", Private: true, Files: file.Files}, "http://example.org/a", false},
	} {
		if got := publicSeeds(c.of, []string{c.url}); (len(got) > 0) != c.told {
			t.Errorf("%.80q: told %v", c.url, got)
		}
	}
	var many []string
	for k := range 100 {
		many = append(many, fmt.Sprintf("http://example.org/%d", k/2))
	}
	if got := publicSeeds(file, many); len(got) != maxTold || len(slices.Compact(got)) != maxTold {
		t.Errorf("of 50 addresses, each twice, %v are told", got)
	}
}

func TestPublicURL(t *testing.T) {
	for url, told := range map[string]bool{
		"http://example.org/a.iso": true, "http://example.org/latest/": false, "http://example.org": false, "http://u@example.org/a": false,
	} {
		if got := publicURL(url); (len(got) > 0) != told {
			t.Errorf("%s: told %v", url, got)
		}
	}
}
