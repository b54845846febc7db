package catalogue

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"dragonload/internal/piece"
)

// Index is the catalogue of one room in memory: what its members hold, and the search in
// it. Its methods may be called concurrently, but two goroutines do not change at once what
// one member publishes; each change of one entry takes effect at one moment. What a member holds counts until the time that it was given is over; then
// nobody sees it any more, and Tidy forgets it.
type Index struct {
	mu       sync.RWMutex // guards what follows
	holders  map[piece.NodeID]*holder
	contents []*content // by number; nil where a number is free
	free     []uint32
	words    dictionary
	byName   ordered[*content]
	byID     ordered[*content] // of their manifests
	entries  int
	text     int
}

// holder is a member and what it holds.
type holder struct {
	said    *Holder // never changed, but replaced
	version uint64
	until   time.Time // zero: no end
	entries map[[32]byte]*content
	text    int
}

func (h *holder) live(now time.Time) bool { return h.until.IsZero() || now.Before(h.until) }

// content is what one or more members say of a manifest. What a search of all looks at
// comes first.
type content struct {
	number uint32
	held   []holding
	alone  [1]holding // what held is in while there is one holder
	entry  *Entry     // that says so, without Names, Partial and Received
	folded string     // its name
	claim
}

// claim is what is said. It is compared with ==.
type claim struct {
	manifest        [32]byte
	name, inside    string // inside are the names inside, each with a separator after it
	size            int64
	files           uint32
	folder, private bool
}

const separator = "/" // is in no name

type holding struct {
	by                *holder
	partial, received bool
}

// NewIndex returns the catalogue of a room in which nobody holds anything.
func NewIndex() *Index {
	return &Index{
		holders: make(map[piece.NodeID]*holder),
		words:   newDictionary(),
		byName: ordered[*content]{compare: func(at, bt **content) int {
			a, b := *at, *bt
			if order := strings.Compare(a.folded, b.folded); order != 0 {
				return order
			}
			return cmp.Or(strings.Compare(a.name, b.name), bytes.Compare(a.manifest[:], b.manifest[:]), cmp.Compare(a.number, b.number))
		}},
		byID: ordered[*content]{compare: func(at, bt **content) int {
			a, b := *at, *bt
			return cmp.Or(bytes.Compare(a.manifest[:], b.manifest[:]), cmp.Compare(a.number, b.number))
		}},
	}
}

func claimOf(e *Entry) claim {
	var inside strings.Builder
	for _, name := range e.Names {
		inside.WriteString(name)
		inside.WriteString(separator)
	}
	return claim{
		manifest: e.Manifest, name: e.Name, inside: inside.String(),
		size: e.Size, files: e.Files, folder: e.Folder, private: e.Private,
	}
}

func (c *claim) text() int { return len(c.name) + len(c.inside) }

// words returns the words by which a claim is found, each once.
func (c *claim) words() []string {
	words := appendWords(appendWords(nil, Fold(c.name)), Fold(c.inside))
	slices.Sort(words)
	return slices.Compact(words)
}

// Size returns how much there is: holders, entries, and bytes of their names.
func (x *Index) Size() (holders, entries, text int) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.holders), x.entries, x.text
}

// SetHolder makes a member known, or what is said of it other, as of a version of what it
// publishes and until a time (zero: for ever). ErrFull if there are MaxHolders.
func (x *Index) SetHolder(h Holder, version uint64, until time.Time) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	old := x.holders[h.ID]
	if old == nil {
		if len(x.holders) >= MaxHolders {
			return fmt.Errorf("%w: %d members publish in the room", ErrFull, MaxHolders)
		}
		old = &holder{entries: make(map[[32]byte]*content)}
		x.holders[h.ID] = old
	}
	h.Partial = false
	old.said, old.version, old.until = &h, version, until
	return nil
}

// Version returns what SetHolder and Renew have said last of a member; false if it is not
// known, or its time is over.
func (x *Index) Version(id piece.NodeID, now time.Time) (uint64, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	h := x.holders[id]
	if h == nil || !h.live(now) {
		return 0, false
	}
	return h.version, true
}

// Renew gives a member time until then, if it is known with this version.
func (x *Index) Renew(id piece.NodeID, version uint64, now, until time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.holders[id]
	if h == nil || !h.live(now) || h.version != version {
		return false
	}
	h.until = until
	return true
}

// Holder returns what is known of a member.
func (x *Index) Holder(id piece.NodeID, now time.Time) (Holder, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	h := x.holders[id]
	if h == nil || !h.live(now) {
		return Holder{}, false
	}
	return *h.said, true
}

// Fits reports whether a member may publish a batch: nil, or an ErrFull that says why
// not. A batch from version 0 comes in place of all that the member has published.
func (x *Index) Fits(id piece.NodeID, b *Batch) error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	entries, text := 0, 0
	h := x.holders[id]
	if h != nil {
		entries, text = len(h.entries), h.text
	}
	mine, myText := entries, text
	if b.From == 0 {
		entries, text = 0, 0
	}
	for _, manifest := range b.Remove {
		if b.From != 0 && h != nil && h.entries[manifest] != nil {
			entries--
			text -= h.entries[manifest].text()
		}
	}
	for i := range b.Add {
		if h == nil || b.From == 0 || h.entries[b.Add[i].Manifest] == nil {
			entries++
		} else {
			text -= h.entries[b.Add[i].Manifest].text()
		}
		text += b.Add[i].Text()
	}
	switch {
	case h == nil && len(x.holders) >= MaxHolders:
		return fmt.Errorf("%w: %d members publish in the room", ErrFull, MaxHolders)
	case entries > MaxNodeEntries:
		return fmt.Errorf("%w: the member would have %d entries, of at most %d", ErrFull, entries, MaxNodeEntries)
	case text > MaxNodeText:
		return fmt.Errorf("%w: the member's entries would have %d bytes of names, of at most %d", ErrFull, text, MaxNodeText)
	case x.entries-mine+entries > MaxEntries:
		return fmt.Errorf("%w: the room would have more than %d entries", ErrFull, MaxEntries)
	case x.text-myText+text > MaxText:
		return fmt.Errorf("%w: the room's entries would have more than %d bytes of names", ErrFull, MaxText)
	}
	return nil
}

// Put makes an entry one of a member's, in place of one with the same manifest. The
// entry was validated, and fits. ErrUnknown without the member.
func (x *Index) Put(id piece.NodeID, e Entry) error {
	c := claimOf(&e)
	x.mu.RLock()
	same := x.like(&c)
	x.mu.RUnlock()
	var words []string
	if same == nil {
		words = c.words() // the long part, while others may search
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.holders[id]
	if h == nil {
		return ErrUnknown
	}
	if same = x.like(&c); same == nil {
		if words == nil {
			words = c.words() // whoever held it has gone meanwhile
		}
		same = x.add(c, words)
	}
	if old := h.entries[c.manifest]; old != nil && old != same {
		x.leave(h, old)
	} else if old == same {
		i := slices.IndexFunc(same.held, func(of holding) bool { return of.by == h })
		same.held[i].partial, same.held[i].received = e.Partial, e.Received
		return nil
	}
	same.held = append(same.held, holding{h, e.Partial, e.Received})
	h.entries[c.manifest] = same
	h.text += c.text()
	x.entries++
	x.text += c.text()
	return nil
}

// Remove takes an entry from a member.
func (x *Index) Remove(id piece.NodeID, manifest [32]byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if h := x.holders[id]; h != nil && h.entries[manifest] != nil {
		x.leave(h, h.entries[manifest])
	}
}

// Drop takes a member out with all its entries, which nobody sees any more from the
// first moment on.
func (x *Index) Drop(id piece.NodeID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.holders[id]
	if h == nil {
		return
	}
	h.until = time.Unix(1, 0)
	for _, c := range h.entries {
		x.leave(h, c)
		// Others need not wait until all is gone.
		x.mu.Unlock()
		x.mu.Lock()
	}
	delete(x.holders, id)
}

// Tidy forgets members whose time is over, in steps, until it has met some entries.
func (x *Index) Tidy(now time.Time, entries int) {
	x.mu.RLock()
	var over []piece.NodeID
	for id, h := range x.holders {
		if !h.live(now) && entries > 0 {
			over = append(over, id)
			entries -= 1 + len(h.entries)
		}
	}
	x.mu.RUnlock()
	for _, id := range over {
		x.Drop(id)
	}
}

// like returns the content of which the same is said. x.mu is held.
func (x *Index) like(c *claim) *content {
	for at := range x.fromID(c.manifest) {
		switch {
		case (*at).manifest != c.manifest:
			return nil
		case (*at).claim == *c:
			return *at
		}
	}
	return nil
}

// fromID returns the contents from a manifest on, in the order of their ids. x.mu is held.
func (x *Index) fromID(manifest [32]byte) iter.Seq[**content] {
	first := &content{claim: claim{manifest: manifest}}
	return x.byID.from(&first)
}

// add puts a content in that nobody holds yet. x.mu is held.
func (x *Index) add(said claim, words []string) *content {
	c := &content{claim: said, folded: Fold(said.name)}
	c.held = c.alone[:0]
	c.entry = &Entry{
		Manifest: c.manifest, Name: c.name, Folder: c.folder, Size: c.size, Files: c.files, Private: c.private,
	}
	if n := len(x.free); n > 0 {
		c.number = x.free[n-1]
		x.free = x.free[:n-1]
		x.contents[c.number] = c
	} else {
		c.number = uint32(len(x.contents))
		x.contents = append(x.contents, c)
	}
	x.words.add(c.number, words)
	b, i, _ := x.byName.find(&c)
	x.byName.insert(b, i, c)
	b, i, _ = x.byID.find(&c)
	x.byID.insert(b, i, c)
	return c
}

// leave ends that a member holds a content, and the content if nobody else does. x.mu is
// held.
func (x *Index) leave(h *holder, c *content) {
	delete(h.entries, c.manifest)
	h.text -= c.text()
	x.entries--
	x.text -= c.text()
	i := slices.IndexFunc(c.held, func(of holding) bool { return of.by == h })
	last := len(c.held) - 1
	c.held[i], c.held[last] = c.held[last], holding{}
	c.held = c.held[:last]
	if last > 0 {
		return
	}
	x.words.remove(c.number, c.words())
	b, i, _ := x.byName.find(&c)
	x.byName.remove(b, i)
	b, i, _ = x.byID.find(&c)
	x.byID.remove(b, i)
	x.contents[c.number] = nil
	x.free = append(x.free, c.number)
}

// Holders returns members that hold a manifest, at most limit (0 or more than
// MaxHandout: MaxHandout) of them: those that hold all of it first, else in an order that
// is drawn anew each time, so that those who ask spread over all of them. except is left
// out.
func (x *Index) Holders(manifest [32]byte, except piece.NodeID, limit int, now time.Time) []Holder {
	if limit <= 0 || limit > MaxHandout {
		limit = MaxHandout
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	var whole, partial sample
	for at := range x.fromID(manifest) {
		if (*at).manifest != manifest {
			break
		}
		for i := range (*at).held {
			one := &(*at).held[i]
			switch {
			case one.by.said.ID == except || !one.by.live(now):
			case one.partial:
				partial.draw(one, limit)
			default:
				whole.draw(one, limit)
			}
		}
	}
	whole.shuffle()
	partial.shuffle()
	drawn := append(whole.drawn, partial.drawn...)
	holders := make([]Holder, 0, min(len(drawn), limit))
	for _, one := range drawn[:min(len(drawn), limit)] {
		h := *one.by.said
		h.Partial = one.partial
		holders = append(holders, h)
	}
	return holders
}

// sample draws some of many, each as likely as the others (Vitter, Random Sampling with a
// Reservoir, 1985, algorithm R).
type sample struct {
	drawn []*holding
	seen  int
}

func (s *sample) draw(one *holding, limit int) {
	s.seen++
	if len(s.drawn) < limit {
		s.drawn = append(s.drawn, one)
	} else if i := rand.IntN(s.seen); i < limit {
		s.drawn[i] = one
	}
}

func (s *sample) shuffle() {
	rand.Shuffle(len(s.drawn), func(i, j int) { s.drawn[i], s.drawn[j] = s.drawn[j], s.drawn[i] })
}

// idOf returns the lowest manifest that begins with hexadecimal digits.
func idOf(prefix string) (id [32]byte) {
	digits := prefix + strings.Repeat("0", len(prefix)%2)
	raw, err := hex.DecodeString(digits)
	if err == nil {
		copy(id[:], raw)
	}
	return id
}
