package main

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var (
	hexA = strings.Repeat("a", 64)
	hexB = strings.Repeat("b", 64)
)

// sumsOf reads a list and returns what it says of one source.
func sumsOf(t *testing.T, list, source, output string, sources int) (string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "SUMS")
	if err := os.WriteFile(path, []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := readChecksums([]string{"@" + path}, sources)
	if err != nil {
		return "", err
	}
	sums, err := c.of(source, output)
	if err != nil {
		return "", err
	}
	return sums[0].Algorithm + "=" + sums[0].Hex, nil
}

func TestChecksums_readWhatSha256sumWrites(t *testing.T) {
	const source = "https://host/dir/file%201.iso?x=y"
	for name, c := range map[string]struct{ list, output, want string }{
		"text mode":            {hexB + "  other\n" + hexA + "  file 1.iso\n", "", "sha-256=" + hexA},
		"binary mode":          {hexB + " *other\n" + hexA + " *file 1.iso\n", "", "sha-256=" + hexA},
		"tagged":               {"SHA256 (other) = " + hexB + "\nSHA256 (file 1.iso) = " + hexA + "\n", "", "sha-256=" + hexA},
		"folder in the list":   {hexB + "  other\n" + hexA + "  ./pool/file 1.iso\n", "", "sha-256=" + hexA},
		"by the output's name": {hexB + "  file 1.iso\n" + hexA + "  out\n", "/tmp/out", "sha-256=" + hexA},
		"upper case, CRLF":     {strings.ToUpper(hexA) + "  file 1.iso\r\n", "", "sha-256=" + hexA},
		"escaped name":         {hexB + "  x\n" + `\` + hexA + `  a\\b` + "\n", `/tmp/a\b`, "sha-256=" + hexA},
		"one line, other name": {hexA + "  renamed\n", "", "sha-256=" + hexA},
		"by the URL, not -o":   {hexB + "  other\n" + hexA + "  file 1.iso\n", "/tmp/out", "sha-256=" + hexA},
		"byte order mark":      {"\ufeff" + hexB + "  other\r\n" + hexA + "  file 1.iso\r\n", "", "sha-256=" + hexA},
		"md5 -r":               {hexB + " other\n" + hexA + "\tfile 1.iso\n", "", "sha-256=" + hexA},
		"openssl 3":            {"SHA2-256(other)= " + hexB + "\nSHA2-256(file 1.iso)= " + hexA + "\n", "", "sha-256=" + hexA},
		"openssl 1":            {"SHA256(other)= " + hexB + "\nSHA256(file 1.iso)= " + hexA + "\n", "", "sha-256=" + hexA},
		"signed by PGP": {"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# file 1.iso: 5 bytes\nSHA256 (file 1.iso) = " + hexA +
			"\n" + hexB + "  other\n-----BEGIN PGP SIGNATURE-----\n\niQEz\n-----END PGP SIGNATURE-----\n", "", "sha-256=" + hexA},
		"only a digest":     {hexA + "\n", "", "sha-256=" + hexA},
		"md5 by its length": {strings.Repeat("0", 32) + "  file 1.iso\n", "", "md5=" + strings.Repeat("0", 32)},
	} {
		got, err := sumsOf(t, c.list, source, c.output, 1)
		if err != nil || got != c.want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, c.want)
		}
	}
}

func TestChecksums_refuseWhatTheyCannotUse(t *testing.T) {
	for name, c := range map[string]struct {
		list    string
		sources int
		message string
	}{
		"not the name":               {hexA + "  x\n" + hexB + "  y\n", 1, "has no line for"},
		"one line for two sources":   {hexA + "  x\n", 2, "has no line for"},
		"no digest":                  {"<html>\n", 1, "line 1, is not as sha256sum writes it"},
		"too short":                  {hexA[:63] + "  file\n", 1, "line 1"},
		"signed, and no list":        {"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n<html>\n", 1, "line 4"},
		"openssl, unknown kind":      {"SHA3-256(file)= " + hexA + "\n", 1, "line 1"},
		"nothing":                    {"# empty\n", 1, "names no file"},
		"tag with a digest too long": {"SHA256 (file) = " + hexA + "00\n", 1, "line 1"},
	} {
		_, err := sumsOf(t, c.list, "https://host/file", "", c.sources)
		if err == nil || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.message)
		}
		if err != nil && codeOf(err) != exitUsage {
			t.Errorf("%s: exit code %d, want %d", name, codeOf(err), exitUsage)
		}
	}
}

// FuzzChecksumList: what is accepted of a list are digests of a known length, one a line.
func FuzzChecksumList(f *testing.F) {
	f.Add(hexA+"  a\n"+hexB+" *b\r\n# end\n", "")
	f.Add("SHA256 (a) = b) = "+hexA+"\n", "sha-256")
	f.Add(`\`+hexA+`  a\nb`, "")
	f.Fuzz(func(t *testing.T, list, algorithm string) {
		if _, known := algorithms[algorithm]; !known {
			algorithm = ""
		}
		lines := strings.Count(list, "\n") + strings.Count(list, "\r") + 1
		got := 0
		for _, l := range listLines([]byte(list)) {
			text, _ := strings.CutPrefix(strings.TrimSpace(l.text), "\\")
			sum, _, ok := parseChecksumLine(text, algorithm)
			if !ok {
				continue
			}
			got++
			if raw, err := hex.DecodeString(sum.Hex); err != nil || len(raw) != algorithms[sum.Algorithm] || algorithm != "" && sum.Algorithm != algorithm {
				t.Errorf("%q gives %+v", l.text, sum)
			}
		}
		if got > lines {
			t.Errorf("%d digests of %d lines", got, lines)
		}
	})
}
