package catalogue

import (
	"slices"
	"strings"
)

// dictionary knows in which contents each word is.
type dictionary struct {
	words ordered[word]
}

// word is a word and the contents that have it. Most are in one, which needs no set.
type word struct {
	text string
	one  uint32
	more *set // nil: one alone
}

func newDictionary() dictionary {
	return dictionary{ordered[word]{compare: func(a, b word) int { return strings.Compare(a.text, b.text) }}}
}

func (d *dictionary) add(text string, id uint32) {
	b, i, found := d.words.find(word{text: text})
	if !found {
		// A copy: text is a part of what a whole entry says.
		d.words.insert(b, i, word{text: strings.Clone(text), one: id})
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

func (d *dictionary) remove(text string, id uint32) {
	b, i, found := d.words.find(word{text: text})
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
// caller's. There is at least one of these.
func (d *dictionary) having(prefixes []string) bitmap {
	var result bitmap
	for k, prefix := range prefixes {
		var has bitmap
		for w := range d.words.from(word{text: prefix}) {
			if !strings.HasPrefix(w.text, prefix) {
				break
			}
			if w.more == nil {
				has.add(w.one)
			} else {
				w.more.into(&has)
			}
		}
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
