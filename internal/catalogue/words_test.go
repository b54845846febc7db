package catalogue

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestWords_splits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want string
	}{
		{"IMG_2024-05 (1).JPG", "img 2024 05 1 jpg"},
		{"Ångström.Ünï", "angstrom uni"},
		{"ＦＵＬＬ ｗｉｄｔｈ", "full width"},
		{"Straße STRASSE ẞ", "strasse strasse ss"},
		{"İstanbul ıstanbul", "istanbul istanbul"},
		{"東京2024タワー", "東 京 2024 タ ワ ー"},
		{"가나다 라", Fold("가나다") + " " + Fold("라")},
		{"हिन्दी", Fold("हिन्दी")}, // with its marks
		{"ﬁle ½", "file 1 2"},
		{"", ""},
		{"--.—", ""},
	} {
		if got := strings.Join(Words(c.text), " "); got != c.want {
			t.Errorf("words of %q are %q, want %q", c.text, got, c.want)
		}
	}
}

// FuzzWords: words are parts of the folded text, their own words, and the same however the
// text's case is.
func FuzzWords(f *testing.F) {
	f.Add("Holiday Photos 2024")
	f.Add("Café İı ẞ ﬁ 東京タワー \xff")
	f.Fuzz(func(t *testing.T, text string) {
		words := Words(text)
		for _, w := range words {
			if w == "" || !strings.Contains(Fold(text), w) {
				t.Errorf("%q has the word %q", text, w)
			}
			if again := Words(w); utf8.ValidString(text) && !slices.Equal(again, []string{w}) {
				t.Errorf("the word %q has the words %q", w, again)
			}
		}
		if upper := Words(strings.ToUpper(text)); utf8.ValidString(text) && isPlain(text) && !slices.Equal(upper, words) {
			t.Errorf("%q has the words %q, in upper case %q", text, words, upper)
		}
	})
}

func isPlain(s string) bool {
	for _, c := range []byte(s) {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
