package manifest

import (
	"bytes"
	"testing"
)

func TestSeedURL_isWhereBEP19HasIt(t *testing.T) {
	t.Parallel()
	read := func(m metainfo) *Torrent {
		got, err := ReadTorrent(bytes.NewReader(m.bytes()))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	single := read(newMetainfo("a b#c.iso", tree{"a b#c.iso": noise(5)}))
	folder := read(newMetainfo("the d", tree{"x": tree{"50% é+;&=@,'.bin": noise(5)}, "z": noise(6)}))
	alone := read(newMetainfo("d", tree{"f": noise(5)}))
	oneInFolder := read(newMetainfo("d", tree{"sub": tree{"f": noise(5)}}))
	for _, c := range []struct {
		torrent *Torrent
		seed    string
		file    int
		want    string // "": refused
	}{
		{single, "http://x.example/other.iso", 0, "http://x.example/other.iso"},
		{single, "http://x.example/get?f=1%202", 0, "http://x.example/get?f=1%202"},
		{single, "http://x.example/dir/", 0, "http://x.example/dir/a%20b%23c.iso"},
		{single, "http://x.example", 0, "http://x.example/a%20b%23c.iso"},
		{single, "http://x.example/dir/?q", 0, ""},
		{folder, "http://x.example", 0, "http://x.example/the%20d/x/50%25%20%C3%A9+%3B&=@%2C%27.bin"},
		{folder, "https://x.example:81/pub", 1, "https://x.example:81/pub/the%20d/z"},
		{folder, "https://x.example:81/pub/", 1, "https://x.example:81/pub/the%20d/z"},
		{folder, "https://x.example/a%2Fb/", 1, "https://x.example/a%2Fb/the%20d/z"},
		{folder, "https://u:p@x.example/#part", 1, "https://u:p@x.example/the%20d/z"},
		{folder, "https://x.example/?dir=", 1, ""},
		{alone, "http://x.example/d/", 0, "http://x.example/d/f"}, // as libtorrent does
		{alone, "http://x.example/other.iso", 0, "http://x.example/other.iso"},
		{oneInFolder, "http://x.example/y", 0, "http://x.example/y/d/sub/f"},
		{folder, "ftp://x.example/", 1, ""},
		{folder, "http:///z", 1, ""},
		{folder, "%", 1, ""},
	} {
		got, err := c.torrent.SeedURL(c.seed, c.file)
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s, file %d: %s, %v; want %s", c.seed, c.file, got, err, c.want)
		}
	}
}
