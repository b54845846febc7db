package origin

import (
	"cmp"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"

	"dragonload/internal/piece"
)

// version is what the header of an answer says about which version of the file it
// belongs to. A field that is missing, malformed, contradicted by a second one or too
// long is empty.
type version struct {
	etag     string // strong
	sha256   string // of the whole file, in the form of Repr-Digest
	sha512   string
	modified string // Last-Modified
	settled  bool   // modified is strong by this answer's own Date

	// These are the digests of a Digest field (RFC 3230). Some servers put that of the
	// part there that they send, so that it neither identifies a version nor speaks
	// against one; a digest that is the same in every answer is as good as Repr-Digest.
	legacy256, legacy512 string // in the form of Repr-Digest
}

func versionOf(h http.Header) version {
	var v version
	if s, ok := only(h, "ETag"); ok && isStrongETag(s) {
		v.etag = s
	}
	digests := parseReprDigest(strings.Join(h.Values("Repr-Digest"), ", "))
	if d := digests["sha-256"]; len(d) == sha256.Size {
		v.sha256 = formatReprDigest("sha-256", d)
	}
	if d := digests["sha-512"]; len(d) == sha512.Size {
		v.sha512 = formatReprDigest("sha-512", d)
	}
	legacy := parseDigest(h.Values("Digest"))
	v.legacy256, v.legacy512 = legacy["sha-256"], legacy["sha-512"]
	if s, ok := only(h, "Last-Modified"); ok {
		if at, err := http.ParseTime(s); err == nil {
			v.modified = s
			if s, ok := only(h, "Date"); ok {
				date, err := http.ParseTime(s)
				v.settled = err == nil && date.Sub(at) >= time.Second // RFC 9110, 8.8.2.2
			}
		}
	}
	return v
}

// only returns the value of a field, if all its occurrences are alike.
func only(h http.Header, name string) (string, bool) {
	values := h.Values(name)
	if len(values) == 0 {
		return "", false
	}
	for _, v := range values[1:] {
		if v != values[0] {
			return "", false
		}
	}
	s := strings.TrimSpace(values[0])
	return s, s != "" && len(s) <= piece.MaxValidator
}

// isStrongETag reports whether s is a strong entity tag as RFC 9110, 8.8.3 has it. One
// that is empty says nothing and counts as none.
func isStrongETag(s string) bool {
	if len(s) < 3 || s[0] != '"' || s[len(s)-1] != '"' {
		return false
	}
	for _, c := range []byte(s[1 : len(s)-1]) {
		if c < 0x21 || c == '"' || c == 0x7f {
			return false
		}
	}
	return true
}

// pin returns the pin of the version for a file of size bytes.
func (v version) pin(size int64) piece.Pin {
	p := piece.Pin{Size: size}
	switch {
	case v.etag != "":
		p.Kind, p.Validator = piece.StrongETag, v.etag
	case v.sha256 != "":
		p.Kind, p.Validator = piece.ReprDigest, v.sha256
	case v.sha512 != "":
		p.Kind, p.Validator = piece.ReprDigest, v.sha512
	case v.settled:
		p.Kind, p.Validator = piece.LastModified, v.modified
	}
	return p
}

// likeness is how an answer's version compares with a pin.
type likeness uint8

const (
	same likeness = iota
	different
	silent    // it lacks the pin's validator
	confusing // the pin's validator is right, and the digest of the whole is another
)

// compare says whether v is the version of pin. first, which may be nil, is what the
// first answer said beyond the pin: it decides where the pin's own validator is missing.
func (v version) compare(pin piece.Pin, first *known) likeness {
	var own string
	switch pin.Kind {
	case piece.StrongETag:
		own = v.etag
	case piece.ReprDigest:
		own = v.sha256
		if strings.HasPrefix(pin.Validator, "sha-512=") {
			own = v.sha512
		}
	case piece.LastModified:
		own = v.modified
	}
	contradicts := func(then, now string) bool { return then != "" && now != "" && then != now }
	var was version
	if first != nil && first.pin == pin {
		was = first.version
	}
	digest := contradicts(was.sha256, v.sha256) || contradicts(was.sha512, v.sha512)
	switch {
	case own == pin.Validator && !digest:
		return same
	case own == pin.Validator:
		return confusing
	case own != "":
		return different
	case digest || contradicts(was.etag, v.etag) || contradicts(was.modified, v.modified):
		return different
	}
	return silent
}

// known is what the last accepted answer said: it explains later ones that differ.
type known struct {
	pin     piece.Pin
	version version
	html    bool
}

// isHTML reports whether an answer is a page for a browser.
func isHTML(h http.Header) bool {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && (kind == "text/html" || kind == "application/xhtml+xml")
}

// looksLikeLogin reports whether an answer that is not the pinned version is a page
// where there was a file: a login or a captive portal.
func (c *Client) looksLikeLogin(h http.Header) bool {
	if !isHTML(h) {
		return false
	}
	if k := c.known(); k != nil {
		return !k.html
	}
	ext := strings.ToLower(path.Ext(c.url.Path))
	return ext != ".html" && ext != ".htm" && ext != ".xhtml"
}

// parseReprDigest reads the digests of a Repr-Digest field (RFC 9530), a dictionary of
// byte sequences as RFC 8941 has them; nil if any of it is malformed.
func parseReprDigest(s string) map[string][]byte {
	if s == "" || len(s) > 4096 {
		return nil
	}
	digests := map[string][]byte{}
	p := &parser{s: strings.Trim(s, " ")}
	for {
		key := p.take(isKey)
		if key == "" || !(key[0] >= 'a' && key[0] <= 'z' || key[0] == '*') {
			return nil
		}
		delete(digests, key) // the last of several members with one key counts
		if p.skip('=') {
			value, ok := p.bare()
			if !ok {
				return nil
			}
			if value != nil {
				digests[key] = value
			}
		}
		for p.skip(';') {
			p.take(isBlank)
			if p.take(isKey) == "" {
				return nil
			}
			if p.skip('=') {
				if _, ok := p.bare(); !ok {
					return nil
				}
			}
		}
		p.take(isBlank)
		if p.s == "" {
			return digests
		}
		if !p.skip(',') {
			return nil
		}
		p.take(isBlank)
	}
}

func formatReprDigest(algorithm string, sum []byte) string {
	return algorithm + "=:" + base64.StdEncoding.EncodeToString(sum) + ":"
}

// reprDigest returns the bytes of what formatReprDigest wrote; nil for "".
func reprDigest(s string) []byte {
	_, sum, found := strings.Cut(s, "=:")
	if !found {
		return nil
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(sum, ":"))
	if err != nil {
		return nil
	}
	return raw
}

// ReprDigests returns the digests of the whole file that a pin names, nil where it names
// none.
func ReprDigests(pin piece.Pin) (sum256, sum512 []byte) {
	if pin.Kind != piece.ReprDigest {
		return nil, nil
	}
	sum := reprDigest(pin.Validator)
	if strings.HasPrefix(pin.Validator, "sha-512=") && len(sum) == sha512.Size {
		return nil, sum
	}
	if strings.HasPrefix(pin.Validator, "sha-256=") && len(sum) == sha256.Size {
		return sum, nil
	}
	return nil, nil
}

// digests returns the digests of the whole file that an answer names.
func (v version) digests() (sum256, sum512 []byte) {
	return reprDigest(cmp.Or(v.sha256, v.legacy256)), reprDigest(cmp.Or(v.sha512, v.legacy512))
}

// parseDigest reads the SHA-256 and SHA-512 of Digest fields, as RFC 3230 and its
// successors spelled them, and returns them in the form of Repr-Digest; what is malformed
// or named twice is left out.
func parseDigest(fields []string) map[string]string {
	sizes := map[string]int{"sha-256": sha256.Size, "sha-512": sha512.Size}
	text := strings.Join(fields, ",")
	if text == "" || len(text) > 4096 {
		return nil
	}
	digests, seen := map[string]string{}, map[string]bool{}
	for member := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(strings.Trim(member, " \t"), "=")
		name = strings.ToLower(name)
		sum, err := base64.StdEncoding.DecodeString(value)
		if seen[name] || err != nil || sizes[name] == 0 || len(sum) != sizes[name] {
			delete(digests, name)
		} else {
			digests[name] = formatReprDigest(name, sum)
		}
		seen[name] = true
	}
	return digests
}

// parser walks over a header field.
type parser struct{ s string }

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

func isKey(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("_-.*", c) >= 0
}

func isToken(c byte) bool {
	return c > ' ' && c < 0x7f && strings.IndexByte(`()<>@,;:\"/[]?={}`, c) < 0
}

// take returns and passes over the longest run of bytes that is accepts.
func (p *parser) take(is func(byte) bool) string {
	n := 0
	for n < len(p.s) && is(p.s[n]) {
		n++
	}
	run := p.s[:n]
	p.s = p.s[n:]
	return run
}

// skip passes over c if it is next.
func (p *parser) skip(c byte) bool {
	if p.s == "" || p.s[0] != c {
		return false
	}
	p.s = p.s[1:]
	return true
}

// quoted reads a string in double quotes, with \ before any character.
func (p *parser) quoted() (string, bool) {
	if !p.skip('"') {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(p.s); i++ {
		switch p.s[i] {
		case '"':
			p.s = p.s[i+1:]
			return b.String(), true
		case '\\':
			if i++; i == len(p.s) {
				return "", false
			}
		}
		b.WriteByte(p.s[i])
	}
	return "", false
}

// bare reads an item of a structured field: its bytes, if it is a byte sequence.
func (p *parser) bare() ([]byte, bool) {
	switch {
	case p.skip(':'):
		text, rest, found := strings.Cut(p.s, ":")
		raw, err := base64.StdEncoding.Strict().DecodeString(text)
		if !found || err != nil || strings.ContainsAny(text, "\r\n") {
			return nil, false
		}
		p.s = rest
		return raw, true
	case strings.HasPrefix(p.s, `"`):
		_, ok := p.quoted()
		return nil, ok
	}
	return nil, p.take(func(c byte) bool { return c > ' ' && c < 0x7f && c != ',' && c != ';' }) != ""
}
