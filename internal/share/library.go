package share

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"dragonload/internal/manifest"
)

var (
	// ErrLocked: another process has the library open.
	ErrLocked = errors.New("another process keeps the shares of this state folder")
	// ErrNoShare: there is no such share.
	ErrNoShare = errors.New("there is no such share")
	// ErrChanged: what is shared is another content now.
	ErrChanged = errors.New("it has changed")
)

// MaxShares bounds the shares of one library.
const MaxShares = 100_000

// Manifest identifies a content: its info hash.
type Manifest [32]byte

func (m Manifest) String() string { return hex.EncodeToString(m[:]) }

// Spec says what is to be shared.
type Spec struct {
	Path    string // absolute
	Room    string // whom it is offered to
	Name    string // that it is offered under; "": the last element of Path
	Private bool   // no addresses of web seeds are in its manifest, and other programs are told not to spread it
	// WebSeeds are addresses of http or https that a single file can be had from, too.
	WebSeeds []string
}

func (s Spec) webSeeds(folder bool) []string {
	if s.Private || folder {
		return nil
	}
	return s.WebSeeds
}

// State says how things stand with a share.
type State uint8

// The states of a share.
const (
	Checking State = iota // not yet compared with what is on disk
	Offered               // as its manifest says
	Missing               // nothing is at its path
	Broken                // no manifest can be made of what is there now
	Received              // not shared: got from others, and served to more of them
)

func (s State) String() string {
	return [...]string{"checking", "offered", "missing", "broken", "received"}[s]
}

// Share is a file or folder that is offered.
type Share struct {
	Number      uint64 // for as long as it is shared
	Spec        Spec
	Manifest    Manifest // of what was found last
	Size        int64
	Files       int
	PieceLength int64
	Added       time.Time
	State       State
	Problem     string // why it is Broken or Missing; of one that is Offered, what else is not well
}

// Options say how a Library works. Path is needed; zero values of the others mean the
// defaults.
type Options struct {
	Path      string // of the database; its folder must be there
	CreatedBy string // written into manifests

	// Quiet is how long nothing must happen to a share before it is looked at: 1 s. Ten
	// times that it waits at most, and then leaves out what is still being written.
	Quiet time.Duration
	// Rescan is how often a share is looked at although nothing was noticed: 10 min. One
	// that cannot be watched is looked at ten times as often.
	Rescan  time.Duration
	Workers int // that hash at once; as many as there are cores

	// Own are files and folders of the program itself: nothing of them is ever shared.
	Own []string
	// Filling reports whether a file or folder of this path is a download's that is under
	// way; nil: none is. It is asked of names that end with ".part".
	Filling func(path string) bool

	// Changed is called after what is offered has changed. It must not block and not call
	// the library.
	Changed func()
	Log     *slog.Logger
}

// Library is what this machine offers. Its methods may be called concurrently.
type Library struct {
	o       Options
	log     *slog.Logger
	db      *database
	watcher *watcher
	wake    chan struct{} // holds one when the keeper has to look at its list anew
	now     func() time.Time

	mu      sync.Mutex // guards what follows
	entries map[uint64]*entry
	offered map[Manifest][]*entry
	last    uint64 // number that was given
}

// entry is a share and what the keeper knows of it. turn is held by who looks at it on
// disk; the rest is guarded by the library's mu.
type entry struct {
	turn  chan struct{}
	share Share
	gone  bool

	// Since when something happens to it, and when something did last; zero: nothing
	// since it was looked at.
	since, touched time.Time
	next           time.Time // when it is looked at in any case
	doubted        []int     // files, in the manifest's order, whose bytes are to be hashed again
}

// Open opens the library. Close must be called.
func Open(o Options) (*Library, error) {
	if o.Quiet <= 0 {
		o.Quiet = time.Second
	}
	if o.Rescan <= 0 {
		o.Rescan = 10 * time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Filling == nil {
		o.Filling = func(string) bool { return false }
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	db, aside, err := openDB(o.Path)
	if err != nil {
		return nil, err
	}
	if aside != "" {
		o.Log.Warn("the list of shares was damaged; it was put aside and a new one begun", "aside", aside)
	}
	l := &Library{
		o: o, log: o.Log, db: db, wake: make(chan struct{}, 1), now: time.Now,
		entries: make(map[uint64]*entry), offered: make(map[Manifest][]*entry),
	}
	err = l.readAll(func(number uint64, a about) {
		e := &entry{turn: make(chan struct{}, 1), share: Share{
			Number: number, Spec: Spec{Path: a.Path, Room: a.Room, Name: a.Name, Private: a.Private, WebSeeds: a.WebSeeds},
			Size: a.Size, Files: a.Files, PieceLength: a.PieceLength, Added: a.Added,
		}}
		if n, err := hex.Decode(e.share.Manifest[:], []byte(a.Manifest)); err != nil || n != len(e.share.Manifest) {
			e.share.Manifest = Manifest{}
		}
		l.entries[number] = e
		l.last = max(l.last, number)
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	l.watcher = newWatcher(l.log, l.nudge)
	return l, nil
}

// Close ends the library; Run must have returned.
func (l *Library) Close() error {
	return errors.Join(l.watcher.close(), l.db.Close())
}

// List returns all shares, in the order in which they were added.
func (l *Library) List() []Share {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []Share
	for _, e := range l.entries {
		all = append(all, l.known(e))
	}
	slices.SortFunc(all, func(a, b Share) int { return cmp.Compare(a.Number, b.Number) })
	return all
}

// notWatched is what is told of a share whose changes the system does not report.
const notWatched = "the system watches no more folders, so changes are noticed after a minute or so; raise fs.inotify.max_user_watches and start again"

// known returns what is to be told of e. It needs l.mu.
func (l *Library) known(e *entry) Share {
	s := e.share
	if s.State == Offered && !l.watcher.whole(s.Number) {
		s.Problem = notWatched
	}
	return s
}

// Offered returns the share in a room that has a manifest now.
func (l *Library) Offered(m Manifest, room string) (Share, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.offered[m] {
		if e.share.Spec.Room == room {
			return e.share, true
		}
	}
	return Share{}, false
}

// Torrent returns the manifest of a share, as it is remembered.
func (l *Library) Torrent(s Share) (*manifest.Torrent, error) {
	t, _, err := l.load(s.Number)
	return t, err
}

// File is a file of a share, as it was when it was hashed.
type File struct {
	Path     string // below the folder that Content returns, with slashes
	Size     int64
	Modified int64  // nanoseconds since 1970
	Inode    uint64 // 0 where the system does not tell
	// Changed is when anything of it changed last (nanoseconds since 1970), if as long as it
	// is that and the rest the same, its bytes are those that were hashed; else 0.
	Changed int64
}

// Content returns the manifest of a share with the folder that its files lie in and the
// files, in the manifest's order. ErrChanged if it has another manifest by now.
func (l *Library) Content(s Share) (t *manifest.Torrent, folder string, files []File, err error) {
	t, found, err := l.load(s.Number)
	if err != nil {
		return nil, "", nil, err
	}
	if t.InfoHash() != s.Manifest {
		return nil, "", nil, ErrChanged
	}
	info, err := os.Lstat(s.Spec.Path)
	if err == nil {
		err = isStraight(s.Spec.Path)
	}
	if err == nil {
		err = l.guard(s.Spec.Path).refuse()
	}
	if err != nil {
		return nil, "", nil, err
	}
	for k, f := range found.files {
		files = append(files, File{f.path, f.size, f.modified, f.inode, found.proofs[k].holds(l.now())})
	}
	if !info.IsDir() {
		files[0].Path = filepath.Base(s.Spec.Path)
		return t, filepath.Dir(s.Spec.Path), files[:1], nil
	}
	return t, s.Spec.Path, files, nil
}

// Has reports whether a share is there still.
func (l *Library) Has(number uint64) bool { return l.entry(number) != nil }

// Suspect says that a file of a share, which has a manifest still, was found to be another
// than it was: it is hashed again, also where size and time are what they were.
func (l *Library) Suspect(number uint64, m Manifest, file int) {
	e := l.entry(number)
	if e == nil {
		return
	}
	l.mu.Lock()
	if e.share.Manifest == m && !slices.Contains(e.doubted, file) {
		e.doubted = append(e.doubted, file)
	}
	l.mu.Unlock()
	l.touch(e)
	l.nudge()
}

// minID is how many hexadecimal digits of a manifest's id name a share.
const minID = 6

// Match returns the shares that a word means: the path of one, or at least six digits
// of the id of its manifest.
func (l *Library) Match(word string) []Share {
	straight := word
	if s, err := filepath.EvalSymlinks(word); err == nil {
		straight = s
	}
	return slices.DeleteFunc(l.List(), func(s Share) bool {
		byID := len(word) >= minID && strings.HasPrefix(s.Manifest.String(), strings.ToLower(word))
		return !byID && s.Spec.Path != word && s.Spec.Path != straight
	})
}

// Add shares a file or folder and returns when that is remembered; progress is called
// with the bytes that are hashed, one call at a time. What is shared in that room
// already is looked at again, with the new name and privacy. What is left out of a
// folder is returned.
func (l *Library) Add(ctx context.Context, spec Spec, progress func(done, total int64)) (Share, []manifest.Skipped, error) {
	if !filepath.IsAbs(spec.Path) {
		return Share{}, nil, fmt.Errorf("%s is not an absolute path", spec.Path)
	}
	if spec.Name == "" {
		spec.Name = filepath.Base(spec.Path)
	}
	straight, err := filepath.EvalSymlinks(spec.Path)
	if err != nil {
		return Share{}, nil, err
	}
	spec.Path = straight
	if _, err := manifest.CleanName(spec.Name); err != nil {
		return Share{}, nil, err
	}
	e, fresh, err := l.reserve(spec)
	if err != nil {
		return Share{}, nil, err
	}
	if err := e.lock(ctx); err != nil {
		return Share{}, nil, err
	}
	defer e.unlock()
	s := &scan{library: l, number: e.share.Number, spec: spec}
	skipped, err := l.make(ctx, e, s, progress)
	if err != nil {
		if fresh {
			l.drop(e)
		}
		return Share{}, nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known(e), skipped, nil
}

// make looks at what is on disk, remembers it and offers it. It needs e's turn.
func (l *Library) make(ctx context.Context, e *entry, s *scan, progress func(done, total int64)) ([]manifest.Skipped, error) {
	t, skipped, err := s.build(ctx, progress)
	for tries := 1; errors.Is(err, manifest.ErrFileChanged) && tries < 3; tries++ {
		t, skipped, err = s.build(ctx, progress)
	}
	if err != nil {
		return nil, err
	}
	if id := t.InfoHash(); s.was != (Manifest{}) && s.was != id {
		s.spec.WebSeeds, t.WebSeeds = nil, nil // they have what was there before
	}
	l.mu.Lock()
	next := e.share
	gone := e.gone
	l.mu.Unlock()
	if gone {
		return nil, ErrNoShare
	}
	next.Spec, next.Manifest = s.spec, t.InfoHash()
	next.Size, next.Files, next.PieceLength = t.Size, len(t.Files), t.PieceLength
	if next.Added.IsZero() {
		next.Added = time.Now()
	}
	err = l.save(next.Number, about{
		Path: next.Spec.Path, Room: next.Spec.Room, Name: next.Spec.Name, Private: next.Spec.Private, WebSeeds: next.Spec.WebSeeds,
		Manifest: next.Manifest.String(), Size: next.Size, Files: next.Files, PieceLength: next.PieceLength, Added: next.Added,
	}, t, &s.survey)
	if err != nil {
		return nil, err
	}
	next.State, next.Problem = Offered, ""
	l.set(e, next, s.busy)
	return skipped, nil
}

// reserve finds the entry for a spec, or makes one that nobody sees yet.
func (l *Library) reserve(spec Spec) (e *entry, fresh bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e.share.Spec.Path == spec.Path && e.share.Spec.Room == spec.Room {
			return e, false, nil
		}
	}
	if len(l.entries) >= MaxShares {
		return nil, false, fmt.Errorf("%d things are shared already, and more cannot be", MaxShares)
	}
	l.last++
	return &entry{turn: make(chan struct{}, 1), share: Share{Number: l.last, Spec: spec}}, true, nil
}

// set makes next what is known of e, and tells if what is offered is another now.
func (l *Library) set(e *entry, next Share, busy bool) {
	l.mu.Lock()
	old := e.share
	if e.gone {
		l.mu.Unlock()
		return
	}
	l.withdraw(e)
	e.share = next
	l.entries[next.Number] = e
	if next.State == Offered {
		l.offered[next.Manifest] = append(l.offered[next.Manifest], e)
	}
	e.since, e.touched = time.Time{}, time.Time{}
	if busy {
		e.since, e.touched = time.Now(), time.Now()
	}
	l.mu.Unlock()
	l.nudge()
	if old.State != next.State || old.Manifest != next.Manifest || old.Spec.Name != next.Spec.Name {
		l.o.Changed()
	}
}

// withdraw takes e off the index of what is offered. It needs l.mu.
func (l *Library) withdraw(e *entry) {
	id := e.share.Manifest
	others := slices.DeleteFunc(l.offered[id], func(other *entry) bool { return other == e })
	if len(others) == 0 {
		delete(l.offered, id)
		return
	}
	l.offered[id] = others
}

// Remove ends a share. No file of it is touched.
func (l *Library) Remove(number uint64) (Share, error) {
	l.mu.Lock()
	e := l.entries[number]
	l.mu.Unlock()
	if e == nil {
		return Share{}, ErrNoShare
	}
	if err := l.forget(number); err != nil {
		return Share{}, err
	}
	l.drop(e)
	l.o.Changed()
	return e.share, nil
}

// drop lets go of an entry. A scan of it that is under way changes nothing any more.
func (l *Library) drop(e *entry) {
	l.mu.Lock()
	e.gone = true
	l.withdraw(e)
	delete(l.entries, e.share.Number)
	l.mu.Unlock()
	l.watcher.drop(e.share.Number)
	l.nudge()
}

func (l *Library) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// lock waits for e's turn.
func (e *entry) lock(ctx context.Context) error {
	select {
	case e.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (e *entry) unlock() { <-e.turn }

// missing reports whether an error says that a share's own path is not there.
func missing(err error, at string) bool {
	if !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	_, err = os.Lstat(at)
	return errors.Is(err, fs.ErrNotExist)
}
