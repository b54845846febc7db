package manifest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"dragonload/internal/piece"
)

const hex32 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"

// document puts the inside of one file element into a Metalink.
func document(inside string) string {
	return `<?xml version="1.0" encoding="UTF-8"?><metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="a.iso">` + inside + `</file></metalink>`
}

func TestReadMetalink_readsWhatTheStandardShows(t *testing.T) {
	t.Parallel()
	m, err := ReadMetalink(strings.NewReader(`<?xml version="1.0" encoding="UTF-8"?>
<!-- a comment -->
<metalink xmlns="urn:ietf:params:xml:ns:metalink" xmlns:other="urn:other">
  <generator>somebody/1</generator>
  <published>2026-05-15T12:23:23Z</published>
  <origin dynamic="true">http://example.com/a.meta4</origin>
  <other:thing><file name="not this one"/></other:thing>
  <file name="cd/a.iso">
    <identity>A</identity><language>en</language>
    <size>7</size>
    <hash type="md5">b1946ac92492d2347c6235b4d2611184</hash>
    <hash type="sha-256">` + strings.ToUpper(hex32) + `</hash>
    <hash type="whirlpool">00</hash>
    <pieces type="sha-1" length="4"><hash>zz</hash></pieces>
    <pieces type="sha-256" length="4"><hash>` + hex32 + `</hash><hash> ` + hex32 + ` </hash></pieces>
    <url location="de" priority="5">https://five.example/a.iso</url>
    <url>http://last.example/a.iso?x=1&amp;y=2</url>
    <url priority="1">http://one.example/a.iso</url>
    <url priority="2">ftp://two.example/a.iso</url>
    <url priority="7">http://one.example/a.iso</url>
    <metaurl mediatype="torrent" priority="1">http://example.com/a.torrent</metaurl>
    <signature mediatype="application/pgp-signature">x</signature>
  </file>
  <file name="b"/>
</metalink>
`))
	if err != nil {
		t.Fatal(err)
	}
	if m.Generator != "somebody/1" || m.Published.Year() != 2026 || len(m.Files) != 2 {
		t.Errorf("got %+v", m)
	}
	f := m.Files[0]
	if f.Name != "cd/a.iso" || f.Size != 7 || f.PieceLength != 4 || len(f.Pieces) != 2 || fmt.Sprintf("%x", f.Pieces[1]) != hex32 {
		t.Errorf("got %+v", f)
	}
	if len(f.Hashes) != 2 || f.Hashes[0].Algorithm != "sha-256" || f.Hashes[1].Algorithm != "md5" {
		t.Errorf("got hashes %v, want sha-256 before md5 and no other", f.Hashes)
	}
	if want := []string{"http://one.example/a.iso", "https://five.example/a.iso", "http://last.example/a.iso?x=1&y=2"}; !reflect.DeepEqual(f.URLs, want) {
		t.Errorf("got addresses %q, want %q", f.URLs, want)
	}
	if b := m.Files[1]; b.Size != piece.UnknownSize || b.URLs != nil || b.Pieces != nil {
		t.Errorf("got %+v, want nothing but the name", b)
	}
}

func TestReadMetalink_refusesWhatContradictsOrHarms(t *testing.T) {
	t.Parallel()
	named := func(names ...string) string {
		s := `<metalink xmlns="urn:ietf:params:xml:ns:metalink">`
		for _, n := range names {
			s += `<file name="` + n + `"/>`
		}
		return s + `</metalink>`
	}
	for _, c := range []struct{ document, says string }{
		{``, "empty"},
		{"", "it is empty"},
		{`hello`, "it holds no XML element"},
		{`<metalink`, "not well-formed"},
		{`<html/>`, "root element"},
		{`<metalink xmlns="http://www.metalinker.org/"/>`, "old version 3"},
		{`<metalink xmlns="urn:ietf:params:xml:ns:metalink"/>`, "names no file"},
		{`<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="a">`, "not well-formed"},
		{document("") + document(""), "second root"},
		{`<!DOCTYPE x [<!ENTITY a "b">]>` + document(""), "document type"},
		{`<?xml version="1.0" encoding="ISO-8859-1"?><metalink/>`, "not XML in UTF-8"},
		{document("<size>&boom;</size>"), "not well-formed"},
		{named("../a"), "usable as a file name"},
		{named("/a"), "usable as a file name"},
		{named("a/../b"), "usable as a file name"},
		{named("a//b"), "usable as a file name"},
		{named(""), "usable as a file name"},
		{named(`a\b`), "usable as a file name"},
		{named("CON/a"), "usable as a file name"},
		{named("-rf"), "usable as a file name"},
		{named(strings.Repeat("a/", 40) + "a"), "levels"},
		{named("a", "A"), "are called"},
		{named("a/b", "A"), "a file and a folder"},
		{document("<size>-1</size>"), "no number"},
		{document("<size>+1</size>"), "no number"},
		{document("<size>1e3</size>"), "no number"},
		{document("<size></size>"), "no number"},
		{document("<size>9007199254740992</size>"), "no number"},
		{document("<size>99999999999999999999</size>"), "no number"},
		{document("<size>1</size><size>2</size>"), "two sizes"},
		{document(`<hash type="sha-256">00</hash>`), "64 hexadecimal digits"},
		{document(`<hash type="sha-256">` + hex32 + `</hash><hash type="sha-256">` + strings.Replace(hex32, "5", "6", 1) + `</hash>`), "two different hashes"},
		{document(strings.Repeat(`<hash type="sha-256">`+hex32+`</hash>`, 33)), "more than 32 hashes"},
		{document(`<size>8</size><pieces type="sha-256" length="0"><hash>` + hex32 + `</hash></pieces>`), "no length"},
		{document(`<size>9</size><pieces type="sha-256" length="4"><hash>` + hex32 + `</hash></pieces>`), "has 3 pieces"},
		{document(`<pieces type="sha-256" length="4"><hash>` + hex32 + `</hash></pieces>`), "no size"},
		{document(`<size>4</size><pieces type="sha-256" length="4"><hash>00</hash></pieces>`), "64 hexadecimal digits"},
		{document(`<url priority="0">http://a/</url>`), "priority"},
		{document(`<url priority="1000000">http://a/</url>`), "priority"},
		{document(`<url>http://user:hunter2@%zz/</url>`), "cannot be read"},
		{document(strings.Repeat("<url>http://a/</url>", 1001)), "more than 1000 addresses"},
		{document("<url>http://a/" + strings.Repeat("x", 9000) + "</url>"), "longer than"},
		{document(strings.Repeat("<x>", 40) + strings.Repeat("</x>", 40)), "nested"},
		{document(strings.Repeat(`<x xmlns="urn:x">`, 40) + strings.Repeat("</x>", 40)), "nested"},
	} {
		m, err := ReadMetalink(strings.NewReader(c.document))
		if !errors.Is(err, ErrMetalink) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%.120q: got %v, %v; want an error that says %q", c.document, m, err, c.says)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v tells a password", err)
		}
	}
}

func TestReadMetalink_isBounded(t *testing.T) {
	t.Parallel()
	comment := io.MultiReader(strings.NewReader(`<metalink xmlns="urn:ietf:params:xml:ns:metalink"><!--`), &repeated{"<blank/> and ", 0})
	if _, err := ReadMetalink(comment); !errors.Is(err, ErrMetalink) || !strings.Contains(err.Error(), "longer than 1024 KiB") {
		t.Errorf("got %v, want it refused for its comment", err)
	}
	endless := io.MultiReader(strings.NewReader(`<metalink xmlns="urn:ietf:params:xml:ns:metalink">`), &repeated{"<!--" + strings.Repeat("x", 1<<10) + "-->", 0})
	if _, err := ReadMetalink(endless); !errors.Is(err, ErrMetalink) || !strings.Contains(err.Error(), "longer than 64 MiB") {
		t.Errorf("got %v, want it refused as too long", err)
	}
	many := io.MultiReader(strings.NewReader(`<metalink xmlns="urn:ietf:params:xml:ns:metalink">`), &repeated{`<file name="%d"/>`, 0})
	if _, err := ReadMetalink(many); !errors.Is(err, ErrMetalink) || !strings.Contains(err.Error(), "more than 16384 files") {
		t.Errorf("got %v, want it refused for its files", err)
	}
	broken := errors.New("broken")
	if _, err := ReadMetalink(io.MultiReader(strings.NewReader(`<metalink xmlns="urn:ietf:params:xml:ns:metalink">`), failing{broken})); !errors.Is(err, broken) || errors.Is(err, ErrMetalink) {
		t.Errorf("got %v, want the reader's own error", err)
	}
}

// repeated is an endless text; %d in it is a number that grows.
type repeated struct {
	text string
	n    int
}

func (r *repeated) Read(p []byte) (int, error) {
	r.n++
	return copy(p, strings.ReplaceAll(r.text, "%d", fmt.Sprint(r.n))), nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestMetalink_writesWhatItReads(t *testing.T) {
	t.Parallel()
	sum := sha256.Sum256([]byte("hello\n"))
	m := &Metalink{
		Generator: "dragonload/1", Published: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Files: []MetalinkFile{{
			Name: "dir/a & b", Size: 6, Hashes: []Hash{{"sha-256", sum[:]}}, PieceLength: 1 << 16, Pieces: [][32]byte{sum},
			URLs: []string{"https://a.example/x?y=1&z=<2>", "http://b.example/x"},
		}, {Name: "b", Size: piece.UnknownSize}},
	}
	var b bytes.Buffer
	if err := m.Write(&b); err != nil {
		t.Fatal(err)
	}
	again, err := ReadMetalink(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatalf("%v: %s", err, b.String())
	}
	if !reflect.DeepEqual(again, m) {
		t.Errorf("wrote %+v, read %+v", m, again)
	}
	if strings.Count(b.String(), "<pieces") != 1 || !strings.Contains(b.String(), `<url priority="1">https://a.example/x?y=1&amp;z=&lt;2&gt;</url>`) {
		t.Errorf("got %s", b.String())
	}
	for _, name := range []string{"../a", "", "a/./b"} {
		if err := (&Metalink{Files: []MetalinkFile{{Name: name}}}).Write(io.Discard); !errors.Is(err, ErrName) {
			t.Errorf("a file called %q: got %v, want ErrName", name, err)
		}
	}
}

func FuzzReadMetalink(f *testing.F) {
	f.Add(document(`<size>7</size><hash type="sha-256">` + hex32 + `</hash><url priority="1">http://a/</url>`))
	f.Add(document(`<size>4</size><pieces type="sha-256" length="4"><hash>` + hex32 + `</hash></pieces>`))
	f.Add(`<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="a/b"/><file name="c"/></metalink>`)
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ReadMetalink(strings.NewReader(s))
		if err != nil {
			if !errors.Is(err, ErrMetalink) {
				t.Errorf("%q: %v is not ErrMetalink", s, err)
			}
			return
		}
		for _, file := range m.Files {
			if err := cleanPath(file.Name); err != nil || file.Size > piece.MaxSize {
				t.Errorf("%q: accepted %+v: %v", s, file, err)
			}
		}
		m.Generator, m.Published = "", time.Time{}
		var b bytes.Buffer
		if err := m.Write(&b); err != nil {
			t.Fatalf("%q: cannot be written again: %v", s, err)
		}
		again, err := ReadMetalink(bytes.NewReader(b.Bytes()))
		if err != nil || len(again.Files) != len(m.Files) {
			t.Errorf("%q: written again it is %s: %v", s, b.String(), err)
		}
	})
}
