package catalogue

import (
	"cmp"
	"slices"
	"strings"
)

// dictionary knows in which contents each word is. A content comes with all of its words,
// and goes with all of them.
type dictionary struct {
	words   ordered[word]
	letters [36]set // the contents that have a word with this first letter, or digit
}

// word is a word and the contents that have it. Most are in one, which needs no set.
type word struct {
	start uint64 // its first bytes as a number, so that few texts are looked at to find it
	rest  string // what comes after them
	one   uint32
	more  *set // nil: one alone
}

// inStart is how many bytes of a word are in its start. There is no zero byte in a word.
const inStart = 8

func newWord(text string, id uint32) word {
	w := word{one: id}
	for i := range min(len(text), inStart) {
		w.start |= uint64(text[i]) << (64 - 8*(i+1))
	}
	w.rest = text[min(len(text), inStart):]
	return w
}

// begins reports whether a word begins with length bytes that are those of prefix.
func (w *word) begins(prefix *word, length int) bool {
	if length < inStart {
		return (w.start^prefix.start)>>(64-8*length) == 0
	}
	return w.start == prefix.start && strings.HasPrefix(w.rest, prefix.rest)
}

func newDictionary() dictionary {
	return dictionary{words: ordered[word]{compare: func(a, b *word) int {
		if a.start != b.start {
			return cmp.Compare(a.start, b.start)
		}
		return strings.Compare(a.rest, b.rest)
	}}}
}

// letter returns the set for a prefix of one letter or digit, nil for any other prefix.
func (d *dictionary) letter(prefix string) *set {
	if len(prefix) != 1 {
		return nil
	}
	switch c := prefix[0]; {
	case 'a' <= c && c <= 'z':
		return &d.letters[c-'a']
	case '0' <= c && c <= '9':
		return &d.letters[26+c-'0']
	}
	return nil
}

func (d *dictionary) add(id uint32, words []string) {
	for _, text := range words {
		d.addWord(text, id)
		if s := d.letter(text[:1]); s != nil {
			s.add(id)
		}
	}
}

func (d *dictionary) addWord(text string, id uint32) {
	first := newWord(text, id)
	b, i, found := d.words.find(&first)
	if !found {
		first.rest = strings.Clone(first.rest) // it is a part of what a whole entry says
		d.words.insert(b, i, first)
		return
	}
	w := &d.words.blocks[b][i]
	if w.more == nil {
		if w.one == id {
			return
		}
		w.more = &set{}
		w.more.add(w.one)
	}
	w.more.add(id)
}

func (d *dictionary) remove(id uint32, words []string) {
	for _, text := range words {
		d.removeWord(text, id)
		if s := d.letter(text[:1]); s != nil {
			s.remove(id)
		}
	}
}

func (d *dictionary) removeWord(text string, id uint32) {
	old := newWord(text, 0)
	b, i, found := d.words.find(&old)
	if !found {
		return
	}
	w := &d.words.blocks[b][i]
	switch {
	case w.more == nil && w.one == id:
		d.words.remove(b, i)
	case w.more != nil:
		if w.more.remove(id); w.more.n == 0 {
			d.words.remove(b, i)
		}
	}
}

// having returns the contents that have words which begin with all of these; it is the
// caller's. There is at least one of these, and numbers are below contents.
func (d *dictionary) having(prefixes []string, contents int) bitmap {
	var result bitmap
	for k, prefix := range prefixes {
		has := make(bitmap, (contents+63)/64)
		d.with(prefix, &has)
		if k == 0 {
			result = has
		} else {
			result = result.and(has)
		}
		if result.count() == 0 {
			break
		}
	}
	return result
}

// with adds the contents that have a word which begins with a prefix.
func (d *dictionary) with(prefix string, to *bitmap) {
	if s := d.letter(prefix); s != nil {
		s.into(to)
		return
	}
	first := newWord(prefix, 0)
	for w := range d.words.from(&first) {
		switch {
		case !w.begins(&first, len(prefix)):
			return
		case w.more == nil:
			to.add(w.one)
		default:
			w.more.into(to)
		}
	}
}

// searched returns the words to look for: each once, none that another begins with, long
// ones first, for they are in few contents.
func searched(texts []string) []string {
	var words []string
	for _, text := range texts {
		words = append(words, Words(text)...)
	}
	slices.SortFunc(words, func(a, b string) int { return len(b) - len(a) })
	var kept []string
	for _, w := range words {
		if !slices.ContainsFunc(kept, func(k string) bool { return strings.HasPrefix(k, w) }) {
			kept = append(kept, w)
		}
	}
	return kept
}
