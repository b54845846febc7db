package catalogue

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"dragonload/internal/manifest"
	"dragonload/internal/piece"
)

// Bounds of a room's catalogue. With them it takes less than 1 GiB of memory, whatever
// its members publish.
const (
	MaxHolders     = 10_000  // members that publish at one time
	MaxEntries     = 100_000 // entries of all of them
	MaxNodeEntries = 25_000  // entries of one of them
	MaxText        = 64 << 20
	MaxNodeText    = 16 << 20 // bytes of names, of one member; MaxText: of all

	MaxNames     = 512      // names inside one entry
	MaxEntryText = 16 << 10 // bytes of names of one entry, its own included
	MaxFiles     = 1 << 31  // what an entry may say that it holds

	// MaxBatch and MaxBatchText bound what is published at once.
	MaxBatch     = 1000
	MaxBatchText = 1 << 20

	// TTL is how long what a member publishes counts without a word of it; it renews it
	// every RenewEvery.
	TTL        = 60 * time.Second
	RenewEvery = 20 * time.Second

	// MaxHandout bounds the holders that one who asks is told of.
	MaxHandout = 50
)

var (
	// ErrUnknown: what a member publishes goes on from something that is not known (any
	// more), so it has to publish all of its entries anew.
	ErrUnknown = errors.New("the catalogue does not know what this member has published")
	// ErrFull: the room or the member has as many entries as it can have.
	ErrFull = errors.New("the catalogue is full")
	// ErrBad is wrapped by what is refused for its form.
	ErrBad = errors.New("not a possible entry of a catalogue")
)

// Entry is what one member says that it holds.
type Entry struct {
	Manifest [32]byte // the manifest's id, which is its info hash
	Name     string   // of the file or folder; a name by manifest.CleanName
	Folder   bool
	Size     int64  // bytes of all its files
	Files    uint32 // how many there are

	// Names are found by a search beside Name: those of files and folders inside. What
	// an answer holds has none.
	Names []string

	// Private: the manifest names no address outside of the room.
	Private bool
	// Partial: the member does not hold all of it yet.
	Partial bool
	// Received: the member has got it from others, and does not share it itself.
	Received bool
}

// Text returns how many bytes of names an entry has.
func (e *Entry) Text() int {
	n := len(e.Name)
	for _, name := range e.Names {
		n += len(name) + 1
	}
	return n
}

// Validate reports what is wrong with an entry; the error wraps ErrBad.
func (e *Entry) Validate() error {
	if err := e.validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrBad, err)
	}
	return nil
}

func (e *Entry) validate() error {
	if _, err := manifest.CleanName(e.Name); err != nil {
		return err
	}
	switch {
	case e.Manifest == [32]byte{}:
		return errors.New("it names no manifest")
	case e.Size < 0 || e.Size > piece.MaxSize:
		return fmt.Errorf("a size of %d", e.Size)
	case e.Files > MaxFiles:
		return fmt.Errorf("%d files", e.Files)
	case len(e.Names) > MaxNames:
		return fmt.Errorf("%d names inside", len(e.Names))
	case e.Text() > MaxEntryText:
		return fmt.Errorf("%d bytes of names", e.Text())
	}
	for _, name := range e.Names {
		if _, err := manifest.CleanName(name); err != nil {
			return err
		}
	}
	return nil
}

// NamesOf returns as many of the names in paths, which are lists of path elements, as an
// entry of this name may have: each once, folders' names before those of files, for
// there are fewer of them and they say more.
func NamesOf(name string, paths [][]string) []string {
	var names []string
	seen := map[string]bool{name: true}
	left := MaxEntryText - len(name)
	take := func(s string) {
		if seen[s] || len(names) == MaxNames || len(s)+1 > left {
			return
		}
		if _, err := manifest.CleanName(s); err != nil {
			return
		}
		seen[s] = true
		left -= len(s) + 1
		names = append(names, s)
	}
	for _, path := range paths {
		for _, folder := range path[:max(len(path)-1, 0)] {
			take(folder)
		}
	}
	for _, path := range paths {
		if len(path) > 0 {
			take(path[len(path)-1])
		}
	}
	return names
}

// Holder is a member that holds something.
type Holder struct {
	ID      piece.NodeID
	Number  uint32 // in the room, as the tracker gives it; 0 where a successor answers
	Name    string // as on its certificate
	Addr    string // host:port where members reach it
	Partial bool   // it does not hold all of what it was asked about

	// Seen is the host from which it has published, for the tracker's own use.
	Seen string
}

// Batch is a change of what a member publishes. It is made of what is known of the
// member as version From, and makes version To of it; From 0: all that is known of the
// member is forgotten first. Versions are the publisher's, and never 0.
type Batch struct {
	From, To uint64
	Add      []Entry    // in place of entries with the same manifest
	Remove   [][32]byte // manifests
}

// Validate reports what is wrong with a batch; the error wraps ErrBad.
func (b *Batch) Validate() error {
	switch {
	case b.To == 0:
		return fmt.Errorf("%w: no version", ErrBad)
	case len(b.Add) > MaxBatch || len(b.Remove) > MaxBatch:
		return fmt.Errorf("%w: %d of them added and %d removed at once", ErrBad, len(b.Add), len(b.Remove))
	}
	text := 0
	for i := range b.Add {
		if err := b.Add[i].Validate(); err != nil {
			return err
		}
		text += b.Add[i].Text()
	}
	if text > MaxBatchText {
		return fmt.Errorf("%w: %d bytes of names at once", ErrBad, text)
	}
	return nil
}

// Query asks for entries; what has a value must hold. The zero Query asks for all.
type Query struct {
	// Words: each is the beginning of a word in the entry's name or the names inside,
	// in any case. They are split like names (see Words).
	Words []string
	// Name is the whole name of the entry, in any case.
	Name string
	// ID is how the id of its manifest begins, in lower-case hexadecimal digits.
	ID string

	Limit int // of results; 0 or more than MaxEntries: MaxEntries
}

// MaxQuery bounds the texts of a query, in bytes.
const MaxQuery = 1 << 10

// Validate reports what is wrong with a query; the error wraps ErrBad.
func (q *Query) Validate() error {
	n := len(q.Name)
	for _, word := range q.Words {
		n += len(word) + 1
	}
	switch {
	case n > MaxQuery:
		return fmt.Errorf("%w: a search for %d bytes", ErrBad, n)
	case len(q.ID) > 64 || strings.Trim(q.ID, "0123456789abcdef") != "":
		return fmt.Errorf("%w: a search for an id that is none", ErrBad)
	}
	return nil
}

// Page is what a Query finds, by name.
type Page struct {
	Found []Found
	More  bool // there is more than was asked for
}

// Found is a manifest with what its holders say of it. It is shared; nobody changes it.
type Found struct {
	Entry   *Entry // without Names, Partial and Received
	Holders int
	Whole   int       // how many of them hold all of it
	By      []*Holder // some of them, at most MaxNamed; without Partial
	// Received: nobody shares it, all who hold it have got it from others.
	Received bool
}

// MaxNamed bounds the holders that a Found names.
const MaxNamed = 4
