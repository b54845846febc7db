package manifest

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// MaxName is the longest name, in bytes, that CleanName accepts: what the file systems
// of Linux, macOS and Windows have in common.
const MaxName = 255

// ErrName is wrapped by every error of CleanName.
var ErrName = errors.New("not usable as a file name")

// CleanName returns s if it may name a file in a folder, the same on every system: a
// single path element in Unicode's NFC form, with nothing in it that separates paths,
// names a drive, a stream or a device, hides or reorders characters on a screen, or
// reads as an option. A name is refused rather than repaired, for a repaired one may
// be another file's; the caller then takes a name from elsewhere. The error quotes s
// so that it cannot harm a terminal.
func CleanName(s string) (string, error) {
	if why := refuseName(s); why != "" {
		shown := s
		if len(shown) > 80 {
			shown = shown[:80] + "..."
		}
		return "", fmt.Errorf("%+q is %w: %s", shown, ErrName, why)
	}
	return s, nil
}

// refuseName says why s must not name a file; "" if it may.
func refuseName(s string) string {
	switch {
	case s == "":
		return "it is empty"
	case len(s) > MaxName:
		return fmt.Sprintf("it is longer than %d bytes", MaxName)
	case !utf8.ValidString(s):
		return "it is not UTF-8"
	case s == "." || s == "..":
		return "it names a folder"
	case s[0] == '-':
		return "it reads as an option"
	}
	for _, r := range s {
		switch {
		case 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9': // as most are
		case r == '/' || r == '\\':
			return "it has a path separator"
		case r == ':':
			return "it has a colon, which names a drive or a stream on Windows"
		case strings.ContainsRune(`<>"|?*`, r):
			return "it has a character that Windows forbids"
		case unicode.In(r, hidden...):
			return "it has a control or an invisible character"
		}
	}
	first, _ := utf8.DecodeRuneInString(s)
	last, _ := utf8.DecodeLastRuneInString(s)
	switch {
	case unicode.IsSpace(first) || unicode.IsSpace(last):
		return "it begins or ends with a space"
	case last == '.':
		return "it ends with a dot, which Windows drops"
	case isDevice(s):
		return "it names a device on Windows"
	case !norm.NFC.IsNormalString(s):
		return "it is not in Unicode's NFC form"
	}
	return ""
}

// hidden are the characters that a screen does not show as themselves: controls,
// format characters (bidirectional overrides, zero-width ones), line and paragraph
// separators, private and unassigned-by-design ones, and fillers that print as nothing.
var hidden = []*unicode.RangeTable{
	unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp,
	unicode.Noncharacter_Code_Point, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector,
}

// isDevice reports whether Windows opens a device instead of a file for this name: it
// looks at what stands before the first dot, without the spaces at its end.
func isDevice(s string) bool {
	base, _, _ := strings.Cut(s, ".")
	base = strings.TrimRight(base, " ")
	if len(base) > len("CONOUT$") {
		return false
	}
	base = strings.ToUpper(base)
	switch base {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$":
		return true
	}
	port, found := strings.CutPrefix(base, "COM")
	if !found {
		port, found = strings.CutPrefix(base, "LPT")
	}
	// The superscripts count as digits there: COM¹ is COM1.
	return found && utf8.RuneCountInString(port) == 1 && strings.Contains("0123456789¹²³", port)
}

// nameSet are the names in one folder, by what they have in common where upper and
// lower case are not told apart.
type nameSet map[string]string

// add puts a name into the set. It returns the name that it meets there, if any.
func (s nameSet) add(name string) (other string, meets bool) {
	key := norm.NFC.String(strings.ToLower(strings.ToUpper(name)))
	if other, meets = s[key]; !meets {
		s[key] = name
	}
	return other, meets
}
