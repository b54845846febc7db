package catalogue

import (
	"encoding/hex"
	"slices"
	"strings"
	"time"
)

// Search answers a query, which was validated.
func (x *Index) Search(q Query, now time.Time) Page {
	limit := q.Limit
	if limit <= 0 || limit > MaxEntries {
		limit = MaxEntries
	}
	words := searched(q.Words)
	if len(words) == 0 && len(strings.Join(q.Words, "")) > 0 {
		return Page{} // a search for what no word holds
	}
	r := result{limit: limit, now: now}
	x.mu.RLock()
	defer x.mu.RUnlock()
	var having bitmap
	if len(words) > 0 {
		having = x.words.having(words, len(x.contents))
	}
	fits := func(c *content) bool { return len(words) == 0 || having.has(c.number) }
	matches := having.count()
	switch {
	case len(words) > 0 && matches == 0:
	case q.ID != "" || q.Name != "":
		some := slices.DeleteFunc(x.named(&q), func(c *content) bool { return !fits(c) })
		r.takeSorted(x, some)
	case len(words) > 0 && matches < len(x.contents)/8:
		some := make([]*content, 0, matches)
		for number := range having.each {
			some = append(some, x.contents[number])
		}
		r.takeSorted(x, some)
	default:
		if r.expect(matches); len(words) == 0 {
			r.expect(len(x.contents))
		}
		for c := range x.byName.all() {
			if fits(*c) && !r.take(*c) {
				break
			}
		}
	}
	return r.page
}

// named returns the contents that have the name and the beginning of an id of a query; it
// has at least one of these. x.mu is held.
func (x *Index) named(q *Query) []*content {
	folded := Fold(q.Name)
	is := func(c *content) bool {
		return (q.Name == "" || c.folded == folded) && strings.HasPrefix(hex.EncodeToString(c.manifest[:]), q.ID)
	}
	var some []*content
	switch {
	case q.ID != "":
		for c := range x.fromID(idOf(q.ID)) {
			if !strings.HasPrefix(hex.EncodeToString((*c).manifest[:]), q.ID) {
				break
			}
			some = append(some, *c)
		}
	default:
		first := &content{folded: folded}
		for c := range x.byName.from(&first) {
			if (*c).folded != folded {
				break
			}
			some = append(some, *c)
		}
	}
	return slices.DeleteFunc(some, func(c *content) bool { return !is(c) })
}

// result collects a page.
type result struct {
	page  Page
	limit int
	now   time.Time
	by    []*Holder // for the next results to take theirs from
}

// expect makes room for about so many results.
func (r *result) expect(n int) { r.page.Found = make([]Found, 0, min(n, r.limit)) }

// takeSorted takes contents by name. They are the caller's, which are put into order.
func (r *result) takeSorted(x *Index, some []*content) {
	slices.SortFunc(some, func(a, b *content) int { return x.byName.compare(&a, &b) })
	r.expect(len(some))
	for _, c := range some {
		if !r.take(c) {
			return
		}
	}
}

// take adds a content if somebody holds it. It reports whether there is place for more.
func (r *result) take(c *content) bool {
	if cap(r.by)-len(r.by) < MaxNamed {
		r.by = make([]*Holder, 0, 1024)
	}
	f, by := Found{Received: true}, r.by[len(r.by):]
	for i := range c.held {
		one := &c.held[i]
		if !one.by.live(r.now) {
			continue
		}
		if f.Holders++; !one.partial {
			f.Whole++
		}
		f.Received = f.Received && one.received
		if len(by) < MaxNamed {
			by = append(by, one.by.said)
		}
	}
	f.By = by[:len(by):len(by)]
	switch {
	case f.Holders == 0:
		return true
	case len(r.page.Found) == r.limit:
		r.page.More = true
		return false
	}
	f.Entry = c.entry
	r.by = r.by[:len(r.by)+len(by)]
	r.page.Found = append(r.page.Found, f)
	return true
}
