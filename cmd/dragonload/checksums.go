package main

import (
	"bytes"
	"encoding/hex"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"dragonload/internal/node"
)

// algorithms by the names that --checksum knows, with the length of the digest in
// bytes.
var algorithms = map[string]int{"sha-256": 32, "sha-512": 64, "sha-1": 20, "md5": 16}

// provingAlgorithms are those by which a file is known to be the one that is meant; the
// others are checks against errors.
var provingAlgorithms = map[string]bool{"sha-256": true, "sha-512": true}

// otherSpellings of algorithms that users write.
var otherSpellings = map[string]string{"sha256": "sha-256", "sha512": "sha-512", "sha1": "sha-1"}

// checksums are the values of --checksum: digests for the one source, and lists that
// name files.
type checksums struct {
	digests []node.Checksum
	lists   []checksumList
	one     bool // there is one source, which a list of one line must mean
}

type checksumList struct {
	path    string
	entries []checksumEntry
}

type checksumEntry struct {
	name string
	sum  node.Checksum
}

func readChecksums(flags []string, sources int) (checksums, error) {
	c := checksums{one: sources == 1}
	for _, value := range flags {
		path, isList := strings.CutPrefix(value, "@")
		algorithm := ""
		if !isList {
			var rest string
			var ok bool
			algorithm, rest, ok = strings.Cut(value, "=")
			if !ok {
				return c, usagef("--checksum %s: write ALGORITHM=HEX, as in sha-256=HEX, or @FILE", safeText(value))
			}
			var err error
			if algorithm, err = knownAlgorithm(algorithm); err != nil {
				return c, err
			}
			if path, isList = strings.CutPrefix(rest, "@"); !isList {
				sum, ok := digest(algorithm, rest)
				if !ok {
					return c, usagef("--checksum %s: %s is not %d hexadecimal digits", algorithm, safeText(rest), 2*algorithms[algorithm])
				}
				c.digests = append(c.digests, sum)
				continue
			}
		}
		list, err := readChecksumList(path, algorithm)
		if err != nil {
			return c, err
		}
		c.lists = append(c.lists, list)
	}
	if sources > 1 && len(c.digests) > 0 {
		return c, usagef("--checksum gives the digest of one file, and there are %d SOURCEs; use --checksum @FILE", sources)
	}
	return c, nil
}

func knownAlgorithm(name string) (string, error) {
	lower := strings.ToLower(name)
	if spelled := otherSpellings[lower]; spelled != "" {
		lower = spelled
	}
	if algorithms[lower] == 0 {
		return "", usagef("--checksum: algorithm %s is not known%s", safeText(name), didYouMean("", nearest(lower, sortedKeys(algorithms))))
	}
	return lower, nil
}

func digest(algorithm, text string) (node.Checksum, bool) {
	text = strings.ToLower(text)
	raw, err := hex.DecodeString(text)
	return node.Checksum{Algorithm: algorithm, Hex: text}, err == nil && len(raw) == algorithms[algorithm]
}

// readChecksumList reads what sha256sum and its like write: "HEX  name", "HEX *name" or,
// with --tag, "SHA256 (name) = HEX"; what openssl dgst writes, "SHA2-256(name)= HEX"; and
// what md5 -r writes, with one blank. A line that begins with a backslash has an escaped
// name. Of a list with a PGP signature around it the text is read, not the signature.
// algorithm "" means: the one whose digests have this length.
func readChecksumList(path, algorithm string) (checksumList, error) {
	list := checksumList{path: path}
	data, err := readBounded(path, maxListSize)
	if err != nil {
		return list, usagef("--checksum: %w", err)
	}
	for _, l := range unsigned(listLines(bytes.TrimPrefix(data, []byte("\ufeff")))) {
		text, escaped := strings.CutPrefix(strings.TrimSpace(l.text), "\\")
		sum, name, ok := parseChecksumLine(text, algorithm)
		if !ok {
			return list, usagef("--checksum: %s, line %d, is not as sha256sum writes it: HEX, two spaces, name", path, l.number)
		}
		if escaped {
			name = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\r`, "\r").Replace(name)
		}
		list.entries = append(list.entries, checksumEntry{name: name, sum: sum})
	}
	if len(list.entries) == 0 {
		return list, usagef("--checksum: %s names no file", path)
	}
	return list, nil
}

// unsigned returns the text of a list in a PGP frame, which is whatever else is there
// without one.
func unsigned(lines []textLine) []textLine {
	if len(lines) == 0 || lines[0].text != "-----BEGIN PGP SIGNED MESSAGE-----" {
		return lines
	}
	var text []textLine
	for _, l := range lines[1:] {
		if l.text == "-----BEGIN PGP SIGNATURE-----" {
			break
		}
		if len(text) == 0 && strings.HasPrefix(l.text, "Hash: ") {
			continue
		}
		l.text = strings.TrimPrefix(l.text, "- ")
		text = append(text, l)
	}
	return text
}

func parseChecksumLine(text, algorithm string) (sum node.Checksum, name string, ok bool) {
	if tag, tail, tagged := strings.Cut(text, "("); tagged && otherTag(strings.TrimSuffix(tag, " ")) != "" {
		tag = otherTag(strings.TrimSuffix(tag, " "))
		// The name may hold ") = " itself; the digest cannot.
		end, hexDigits := strings.LastIndex(tail, ") = "), 4
		if end < 0 {
			end, hexDigits = strings.LastIndex(tail, ")= "), 3
		}
		if end < 0 || (algorithm != "" && algorithm != tag) {
			return sum, "", false
		}
		sum, ok = digest(tag, tail[end+hexDigits:])
		return sum, tail[:end], ok
	}
	hexDigits := text
	if blank := strings.IndexAny(text, " \t"); blank >= 0 {
		hexDigits, name = text[:blank], text[blank+1:]
		if name == "" {
			return sum, "", false
		}
		if text[blank] == ' ' && (name[0] == ' ' || name[0] == '*') {
			name = name[1:]
		}
	}
	if algorithm == "" {
		for candidate, size := range algorithms {
			if len(hexDigits) == 2*size {
				algorithm = candidate
			}
		}
	}
	if algorithm == "" {
		return sum, "", false
	}
	sum, ok = digest(algorithm, hexDigits)
	return sum, name, ok
}

func otherTag(tag string) string {
	lower := strings.ToLower(tag)
	if spelled := otherSpellings[lower]; spelled != "" {
		return spelled
	}
	switch lower {
	case "md5":
		return lower
	case "sha2-256", "sha2-512": // as openssl 3 has it
		return "sha-" + strings.TrimPrefix(lower, "sha2-")
	}
	return ""
}

// of returns the digests of one source. In a list that names several files it is the
// line with the name of the output or, without such a one, of the URL.
func (c checksums) of(source, output string) ([]node.Checksum, error) {
	sums := append([]node.Checksum(nil), c.digests...)
	name := urlName(source)
	if output != "" && output != "-" {
		name = filepath.Base(output)
	}
	for _, list := range c.lists {
		named := list.named(name)
		if len(named) == 0 {
			named = list.named(urlName(source))
		}
		if len(named) == 0 && len(list.entries) == 1 && c.one {
			named = list.entries
		}
		if len(named) == 0 {
			return nil, usagef("--checksum: %s has no line for %q; name the output with -o as the list does", list.path, name)
		}
		for k, e := range named {
			for _, before := range named[:k] {
				if before.sum.Algorithm == e.sum.Algorithm && before.sum != e.sum {
					return nil, usagef("--checksum: %s has two lines for %q, %s and %s, with different digests; give the right one as %s=HEX",
						list.path, name, safeText(before.name), safeText(e.name), e.sum.Algorithm)
				}
			}
			if !slices.Contains(sums, e.sum) {
				sums = append(sums, e.sum)
			}
		}
	}
	return sums, nil
}

// named returns the lines whose file has this name, in whatever folder.
func (l checksumList) named(name string) []checksumEntry {
	var found []checksumEntry
	for _, e := range l.entries {
		if path.Base(filepath.ToSlash(e.name)) == name {
			found = append(found, e)
		}
	}
	return found
}
