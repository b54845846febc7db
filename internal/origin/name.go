package origin

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"dragonload/internal/manifest"
)

const (
	// fallbackName is the name of a file for which neither origin nor URL has one.
	fallbackName = "download"
	// maxName leaves room for ".part" behind the name of a file.
	maxName = manifest.MaxName - len(".part")
)

// Name returns the file's name by its URL alone, for whoever gets it without an answer
// of the origin; Answer.Name knows better.
func (c *Client) Name() string {
	if name, ok := nameInURL(c.url); ok {
		return name
	}
	return fallbackName
}

// nameOf returns the name of the file in an answer: from Content-Disposition, else from
// the URL that was asked for, else from the one that answered. A name that the name
// resolver refuses is passed over; if Content-Disposition has it, refused says so.
func (x *exchange) nameOf() (name, refused string) {
	name, refused = nameIn(x.resp.Header.Values("Content-Disposition"))
	if name != "" {
		return name, ""
	}
	if name, ok := nameInURL(x.client.url); ok {
		return name, refused
	}
	if name, ok := nameInURL(x.url); ok && name[0] != '.' {
		return name, refused
	}
	return fallbackName, refused
}

// nameIn returns the name in an answer's Content-Disposition fields, or else why the one
// that they seem to hold is not taken.
func nameIn(fields []string) (name, refused string) {
	whole := strings.Join(fields, ", ")
	if !strings.Contains(strings.ToLower(whole), "filename") {
		return "", ""
	}
	if len(fields) > 1 {
		return "", fmt.Sprintf("there are %d Content-Disposition fields: %s", len(fields), shown(whole))
	}
	d, ok := parseDisposition(whole)
	switch _, err := manifest.CleanName(d.name); {
	case !ok:
		return "", "no name can be read in its Content-Disposition: " + shown(whole)
	case err != nil:
		return "", err.Error()
	case len(d.name) > maxName:
		return "", fmt.Sprintf("%s is longer than %d bytes", shown(d.name), maxName)
	case d.name[0] == '.':
		// That is for users to choose: a server could plant a start-up file.
		return "", shown(d.name) + " begins with a dot"
	}
	return d.name, ""
}

// shown quotes what an origin sent, so that it cannot harm a terminal, and cuts it off.
func shown(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "..."
	}
	return fmt.Sprintf("%+q", s)
}

func nameInURL(u *url.URL) (string, bool) {
	p := u.EscapedPath()
	// Decoded after the cut, so that %2F in a name does not make it a path.
	name, err := url.PathUnescape(p[strings.LastIndexByte(p, '/')+1:])
	if err != nil {
		return "", false
	}
	return usable(name)
}

func usable(name string) (string, bool) {
	name, err := manifest.CleanName(name)
	return name, err == nil && len(name) <= maxName
}

// disposition is a Content-Disposition field as far as it matters here.
type disposition struct{ name string }

// parseDisposition reads a field as RFC 6266 has it. filename* (RFC 8187) goes before
// filename. A field that is malformed anywhere, has a parameter twice or an empty name, names
// nothing; it is the servers' most mangled one, and the URL has a name too.
func parseDisposition(s string) (disposition, bool) {
	none := disposition{}
	if len(s) > 8<<10 || !utf8.ValidString(s) {
		return none, false
	}
	p := &parser{s: strings.Trim(s, " \t")}
	if p.take(isToken) == "" {
		return none, false
	}
	params := map[string]string{}
	for {
		p.take(isBlank)
		if p.s == "" {
			break
		}
		if !p.skip(';') {
			return none, false
		}
		p.take(isBlank)
		if p.s == "" {
			break // a semicolon at the end is common and harmless
		}
		key := strings.ToLower(p.take(isToken))
		p.take(isBlank)
		if key == "" || !p.skip('=') {
			return none, false
		}
		p.take(isBlank)
		var value string
		if strings.HasPrefix(p.s, `"`) {
			var ok bool
			if value, ok = p.quoted(); !ok {
				return none, false
			}
		} else if value = p.take(isToken); value == "" {
			return none, false
		}
		if _, twice := params[key]; twice {
			return none, false
		}
		params[key] = value
	}
	if extended, found := params["filename*"]; found {
		if name, ok := parseExtended(extended); ok {
			return disposition{name}, name != ""
		}
	}
	name := params["filename"]
	return disposition{name}, name != ""
}

// parseExtended reads charset'language'percent-encoded, in UTF-8 or ISO-8859-1.
func parseExtended(s string) (string, bool) {
	charset, rest, found := strings.Cut(s, "'")
	if !found {
		return "", false
	}
	_, encoded, found := strings.Cut(rest, "'")
	if !found || strings.Contains(encoded, "'") {
		return "", false
	}
	raw, err := url.PathUnescape(encoded)
	if err != nil {
		return "", false
	}
	switch strings.ToLower(charset) {
	case "utf-8":
		return raw, utf8.ValidString(raw)
	case "iso-8859-1":
		latin := make([]rune, len(raw))
		for i := range len(raw) {
			latin[i] = rune(raw[i])
		}
		return string(latin), true
	}
	return "", false
}

// refusedEncoding returns the Content-Encoding of an answer that has one; the file's
// own bytes are wanted, and nothing is ever unpacked here.
func refusedEncoding(h http.Header) bool {
	for _, field := range h.Values("Content-Encoding") {
		for coding := range strings.SplitSeq(field, ",") {
			if c := strings.TrimSpace(coding); c != "" && !strings.EqualFold(c, "identity") {
				return true
			}
		}
	}
	return false
}
