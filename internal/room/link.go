package room

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A link leads to a content in a room, or into a room:
//
//	dragon://HOST:PORT/get/MANIFESTID?name=…&size=…&room=…&also=HOST:PORT
//	dragon://HOST:PORT/get?url=…&name=…&size=…&room=…&also=HOST:PORT
//	dragon://HOST:PORT/join/NAME?also=HOST:PORT#SECRET      an Invite
//
// HOST:PORT, and each also, is where the room's tracker is reached.

const (
	maxLinkText = 8 << 10
	maxLinkURL  = 4 << 10
	maxLinkName = 255
	// maxLinkSize is more than any content has; all of it is exact in every language.
	maxLinkSize = 1 << 53

	// linkChars are those of URIs (RFC 3986, section 2), but for some that mean something
	// to shells: they can be escaped.
	linkChars = hostChars + "~:/?#[]@&+,=%"
)

// ErrLinkSyntax says that something is no link.
var ErrLinkSyntax = errors.New("not a link")

// Link is what a dragon:// link says. It comes from anybody: everything in it is a claim.
type Link struct {
	Addrs []string // host:port of the room's trackers, 1 to MaxTrackers
	Room  string   // the room's name, "" if not said

	// Either a manifest's id, or a URL of http or https.
	ID  [32]byte
	URL string

	Name string // what it is called, "" if not said; never the name of a file
	Size int64  // bytes, -1 if not said

	// Invite is set, and then nothing above but Addrs and Room, if the link is one.
	Invite *Invite
}

// IsLink reports whether s is meant to be a link.
func IsLink(s string) bool {
	return len(s) >= len("dragon:") && strings.EqualFold(s[:len("dragon:")], "dragon:")
}

// ContentLink returns the link to a content of the room by its manifest's id; size is -1 if
// it is not known.
func (r *Room) ContentLink(id [32]byte, name string, size int64) Link {
	return Link{Addrs: slices.Clone(r.Trackers), Room: r.Name, ID: id, Name: linkName(name), Size: size}
}

// linkName returns a name as a link can say it.
func linkName(name string) string {
	name = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return '_'
		}
		return r
	}, name)
	for len(name) > maxLinkName {
		_, n := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-n]
	}
	return name
}

// String writes the link; that of an invite without its secret.
func (l Link) String() string {
	if l.Invite != nil {
		return l.Invite.Redacted()
	}
	if len(l.Addrs) == 0 {
		return invitePrefix
	}
	var keys []string
	add := func(key, value string) { keys = append(keys, key+"="+escapeValue(value)) }
	path := "/get"
	if l.URL != "" {
		add("url", l.URL)
	} else {
		path += "/" + hex.EncodeToString(l.ID[:])
	}
	if l.Name != "" {
		add("name", l.Name)
	}
	if l.Size >= 0 {
		add("size", strconv.FormatInt(l.Size, 10))
	}
	if l.Room != "" {
		add("room", l.Room)
	}
	for _, addr := range l.Addrs[1:] {
		add("also", addr)
	}
	text := invitePrefix + l.Addrs[0] + path
	if len(keys) > 0 {
		text += "?" + strings.Join(keys, "&")
	}
	return text
}

// escapeValue writes a value so that it holds none but letters, digits and "-._~%".
func escapeValue(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// ParseLink reads a link of any kind. It is strict: there is one way of meaning a thing, and
// what it does not know is refused. Every error is ErrLinkSyntax, or for an invite
// ErrInviteSyntax, and quotes no secret.
func ParseLink(s string) (Link, error) {
	s = strings.TrimSpace(s)
	switch {
	case len(s) > maxLinkText:
		return Link{}, badLink("it has more than %d characters", maxLinkText)
	case !strings.HasPrefix(s, invitePrefix):
		return Link{}, badLink("it must begin with %s", invitePrefix)
	case !consistsOf(s, linkChars):
		return Link{}, badLink("a character in it cannot be in a link")
	}
	link, fragment, hasFragment := strings.Cut(s[len(invitePrefix):], "#")
	link, query, hasQuery := strings.Cut(link, "?")
	addr, path, _ := strings.Cut(link, "/")
	if strings.HasPrefix(path, "join/") {
		i, err := ParseInvite(s)
		if err != nil {
			return Link{}, err
		}
		return Link{Addrs: i.Addrs, Room: i.Room, Size: -1, Invite: &i}, nil
	}
	if hasFragment || fragment != "" {
		return Link{}, badLink("only an invite has a part after #")
	}
	l := Link{Addrs: []string{addr}, Size: -1}
	id, hasID := strings.CutPrefix(path, "get/")
	switch {
	case hasID:
		raw, err := hex.DecodeString(id)
		if err != nil || len(raw) != len(l.ID) || [32]byte(raw) == l.ID {
			return Link{}, badLink("the id of a manifest has %d hexadecimal digits", 2*len(l.ID))
		}
		l.ID = [32]byte(raw)
	case path != "get":
		return Link{}, badLink("it must look like dragon://HOST:PORT/get/MANIFESTID, dragon://HOST:PORT/get?url=URL or dragon://HOST:PORT/join/NAME#SECRET")
	}
	if err := l.readKeys(query, hasQuery); err != nil {
		return Link{}, err
	}
	if hasID == (l.URL != "") {
		return Link{}, badLink("it must name the id of a manifest, or a url, and not both")
	}
	for _, addr := range l.Addrs {
		if err := CheckAddr(addr); err != nil {
			return Link{}, badLink("%w", err)
		}
	}
	return l, nil
}

func badLink(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrLinkSyntax, fmt.Errorf(format, args...))
}

// readKeys reads what stands behind the question mark.
func (l *Link) readKeys(query string, asked bool) error {
	if !asked {
		return nil
	}
	seen := make(map[string]bool)
	for pair := range strings.SplitSeq(query, "&") {
		key, escaped, _ := strings.Cut(pair, "=")
		value, err := url.QueryUnescape(escaped)
		if err != nil || value == "" {
			return badLink("the value of %q cannot be read", key)
		}
		if seen[key] && key != "also" {
			return badLink("%s is said twice", key)
		}
		seen[key] = true
		switch key {
		case "name":
			if value != linkName(value) {
				return badLink("its name has more than %d bytes, or characters that do not print", maxLinkName)
			}
			l.Name = value
		case "size":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n < 0 || n > maxLinkSize || strconv.FormatInt(n, 10) != value {
				return badLink("its size is no number of bytes")
			}
			l.Size = n
		case "room":
			if err := CheckName(value); err != nil {
				return badLink("%w", err)
			}
			l.Room = value
		case "url":
			if err := checkLinkURL(value); err != nil {
				return err
			}
			l.URL = value
		case "also":
			if l.Addrs = append(l.Addrs, value); len(l.Addrs) > MaxTrackers {
				return badLink("it has more than %d addresses", MaxTrackers)
			}
		default:
			return badLink("unknown key %q", key)
		}
	}
	return nil
}

// checkLinkURL: a link never brings a password along.
func checkLinkURL(value string) error {
	u, err := url.Parse(value)
	switch {
	case len(value) > maxLinkURL:
		return badLink("its url has more than %d characters", maxLinkURL)
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "":
		return badLink("its url is no http or https URL")
	case u.User != nil:
		return badLink("its url has a user name in it")
	case u.Fragment != "" || strings.Contains(value, "#"):
		return badLink("its url has a part after #")
	case strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }):
		return badLink("its url has characters that must be escaped")
	}
	return nil
}
