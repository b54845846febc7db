package catalogue

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Words returns the words of a text in the form in which they are compared: runs of
// letters, digits and marks, without difference of case, of accents, or of how a
// character is composed. Of scripts that put nothing between words each character is one.
// A search for several of these is a search for each.
func Words(text string) []string { return appendWords(nil, Fold(text)) }

// Fold returns a text in the form in which names are compared. What differs only in
// upper and lower case, in accents, in width or in how characters are composed is the
// same.
func Fold(s string) string {
	ascii := true
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			ascii = false
			break
		}
	}
	if ascii {
		return strings.ToLower(s)
	}
	var b strings.Builder
	b.Grow(len(s))
	for _, r := range norm.NFKD.String(s) {
		switch {
		case r >= 0x300 && r <= 0x36f: // accents
		case r == 'ß' || r == 'ẞ':
			b.WriteString("ss")
		default:
			b.WriteRune(unicode.ToLower(unicode.ToUpper(r)))
		}
	}
	return b.String()
}

// unspaced are scripts whose words are not told apart by what stands between them.
var unspaced = []*unicode.RangeTable{
	unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar,
}

// appendWords adds the words of a folded text. They are parts of it.
func appendWords(words []string, folded string) []string {
	start := -1
	for i, r := range folded {
		alone := r >= utf8.RuneSelf && unicode.In(r, unspaced...)
		in := alone || 'a' <= r && r <= 'z' || '0' <= r && r <= '9' ||
			r >= utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsMark(r))
		if start >= 0 && (!in || alone) {
			words = append(words, folded[start:i])
			start = -1
		}
		switch {
		case alone && unicode.IsMark(r):
			// It belongs to the character before, and says little without it.
		case alone:
			words = append(words, folded[i:i+utf8.RuneLen(r)])
		case in && start < 0:
			start = i
		}
	}
	if start >= 0 {
		words = append(words, folded[start:])
	}
	return words
}
