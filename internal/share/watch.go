package share

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"dragonload/internal/manifest"

	"github.com/fsnotify/fsnotify"
)

// Run compares what is remembered with what is on disk, and from then on keeps it so,
// until ctx ends.
func (l *Library) Run(ctx context.Context) {
	for _, s := range l.List() {
		if e := l.entry(s.Number); e != nil && s.State == Checking && ctx.Err() == nil {
			l.look(ctx, e)
		}
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		e, wait := l.due(time.Now())
		if e != nil {
			l.look(ctx, e)
			continue
		}
		timer.Reset(wait)
		select {
		case ev := <-l.watcher.events():
			l.noticed(ev)
		case err := <-l.watcher.errors():
			l.log.Warn("watching shares", "err", err)
			l.touchAll() // events may have been lost
		case <-l.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

func (l *Library) entry(number uint64) *entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.entries[number]
}

// due returns a share that is to be looked at now, or else how long none is.
func (l *Library) due(now time.Time) (*entry, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wait := time.Hour
	for _, e := range l.entries {
		at := e.next
		if !e.touched.IsZero() {
			quiet := e.touched.Add(l.o.Quiet)
			if late := e.since.Add(10 * l.o.Quiet); late.Before(quiet) {
				quiet = late
			}
			if at.IsZero() || quiet.Before(at) {
				at = quiet
			}
		}
		if at.IsZero() {
			at = now.Add(l.o.Rescan)
			e.next = at
		}
		if left := at.Sub(now); left <= 0 {
			return e, 0
		} else if left < wait {
			wait = left
		}
	}
	return nil, wait
}

// look compares a share with what is on disk and makes its manifest anew if that is
// another.
func (l *Library) look(ctx context.Context, e *entry) {
	if e.lock(ctx) != nil {
		return
	}
	defer e.unlock()
	l.mu.Lock()
	next, quietAfter := e.share, time.Time{}
	if !e.touched.IsZero() || next.State == Offered {
		quietAfter = time.Now().Add(-l.o.Quiet)
	}
	e.since, e.touched = time.Time{}, time.Time{} // what happens from now on counts anew
	doubted, id := e.doubted, next.Manifest
	e.doubted = nil
	l.mu.Unlock()
	began := time.Now()
	defer func() { l.again(e, time.Since(began)) }()

	s := &scan{library: l, number: next.Number, spec: next.Spec, was: next.Manifest, quiet: quietAfter}
	same, err := false, error(nil)
	if old, readErr := l.loadSurvey(next.Number); readErr == nil {
		l.watcher.all(&next, old)
		same, err = l.unchanged(ctx, next.Spec.Path, old)
		s.doubt(old, doubted)
	}
	if err == nil && same && len(s.doubted) == 0 {
		if next.State != Offered {
			next.State, next.Problem = Offered, ""
			l.set(e, next, false)
		}
		return
	}
	skipped, err := l.make(ctx, e, s, nil)
	for _, one := range skipped {
		l.log.Info("left out of a share", "share", next.Spec.Path, "path", one.Path, "why", one.Why)
	}
	if err != nil {
		l.stillDoubted(e, id, doubted)
	}
	switch {
	case err == nil || ctx.Err() != nil || errors.Is(err, ErrNoShare):
		return
	case missing(err, next.Spec.Path):
		next.State, next.Problem = Missing, "nothing is at its path any more"
	case s.busy, errors.Is(err, manifest.ErrFileChanged):
		l.touch(e)
		return
	default:
		next.State, next.Problem = Broken, whyBroken(err)
	}
	if was := e.share; was.State != next.State || was.Problem != next.Problem {
		l.log.Warn("a share is not offered now", "share", next.Spec.Path, "why", next.Problem)
	}
	l.set(e, next, false)
}

// stillDoubted keeps what was to be hashed again, and could not be, for the next look.
func (l *Library) stillDoubted(e *entry, m Manifest, files []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.share.Manifest == m {
		e.doubted = append(e.doubted, files...)
	}
}

// whyBroken is what is told of a share that no manifest can be made of.
func whyBroken(err error) string {
	if errors.Is(err, fs.ErrPermission) {
		return "it cannot be read; let the user that dragonload runs as read it"
	}
	return err.Error()
}

// again says when a share is looked at next without cause: looking takes at most a
// twentieth of the time.
func (l *Library) again(e *entry, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	every := l.o.Rescan
	if !l.watcher.whole(e.share.Number) || e.share.State != Offered {
		every /= 10
	}
	e.next = time.Now().Add(max(every, 20*took))
}

func (l *Library) touch(e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.touched = time.Now()
	if e.since.IsZero() {
		e.since = e.touched
	}
}

func (l *Library) touchAll() {
	for _, s := range l.List() {
		if e := l.entry(s.Number); e != nil {
			l.touch(e)
		}
	}
}

// noticed marks the shares that an event is about.
func (l *Library) noticed(ev fsnotify.Event) {
	if ev.Op == fsnotify.Chmod {
		return
	}
	for _, number := range l.watcher.about(ev) {
		if e := l.entry(number); e != nil {
			l.touch(e)
		}
	}
}

// watcher has the system tell what happens in the folders of shares.
type watcher struct {
	log    *slog.Logger
	opened func()                    // called once events can come
	add    func(folder string) error // has the system watch a folder; needs mu

	mu  sync.Mutex        // guards what follows
	sys *fsnotify.Watcher // nil before the first folder is watched
	// Which shares a folder is watched for, and for which name in it; "": for all.
	folders map[string]map[uint64]string
	partly  map[uint64]bool // shares of which some folders are not watched
	warned  bool
}

func newWatcher(log *slog.Logger, opened func()) *watcher {
	w := &watcher{log: log, opened: opened, folders: make(map[string]map[uint64]string), partly: make(map[uint64]bool)}
	w.add = w.addToSystem
	return w
}

func (w *watcher) addToSystem(folder string) error {
	if w.sys == nil {
		sys, err := fsnotify.NewWatcher()
		if err != nil {
			return err
		}
		w.sys = sys
		w.opened()
	}
	return w.sys.Add(folder)
}

// events returns where the system tells what happens; nil while nothing is watched.
func (w *watcher) events() <-chan fsnotify.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sys == nil {
		return nil
	}
	return w.sys.Events
}

func (w *watcher) errors() <-chan error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sys == nil {
		return nil
	}
	return w.sys.Errors
}

func (w *watcher) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sys == nil {
		return nil
	}
	return w.sys.Close()
}

// parent watches the folder that holds a share for what happens to its own name.
func (w *watcher) parent(number uint64, path string) {
	w.watch(number, filepath.Dir(path), filepath.Base(path))
}

// all watches the folders of a share as it was found last.
func (w *watcher) all(s *Share, old *survey) {
	w.parent(s.Number, s.Spec.Path)
	if info, err := os.Lstat(s.Spec.Path); err != nil || !info.IsDir() {
		return
	}
	w.watch(s.Number, s.Spec.Path, "")
	inner := func(path string) {
		for ; path != "."; path = filepath.Dir(path) {
			if w.watch(s.Number, filepath.Join(s.Spec.Path, path), "") {
				return // and with it those around it
			}
		}
	}
	for _, f := range old.files {
		inner(filepath.Dir(filepath.FromSlash(f.path)))
	}
	for _, path := range old.folders {
		inner(filepath.FromSlash(path))
	}
}

// watch watches a folder for a share: for what happens to one name in it, or to all if
// that is "". It reports whether it did already.
func (w *watcher) watch(number uint64, folder, name string) (already bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	of := w.folders[folder]
	if _, already = of[number]; already {
		return true
	}
	if of == nil {
		err := w.add(folder)
		if errors.Is(err, fs.ErrPermission) {
			return false // it cannot be read, and is left out
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			return false // it is gone; should it come back, those around it tell
		}
		if err != nil {
			w.partly[number] = true
			w.warn(folder, err)
			return false
		}
		of = make(map[uint64]string)
		w.folders[folder] = of
	}
	of[number] = name
	return false
}

// warn tells once that watching has an end. It needs w.mu.
func (w *watcher) warn(folder string, err error) {
	switch {
	case w.warned:
		w.log.Debug("a folder of a share is not watched", "folder", folder, "err", err)
		return
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EMFILE):
		w.log.Warn("the system watches no more folders; what is not watched is only looked at every minute or so (raise fs.inotify.max_user_watches and start again)", "folder", folder)
	default:
		w.log.Warn("a folder of a share is not watched and only looked at every minute or so", "folder", folder, "err", err)
	}
	w.warned = true
}

// whole reports whether everything of a share is watched.
func (w *watcher) whole(number uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.partly[number]
}

// about returns the shares that an event is about. A folder that is gone from its place
// is watched no more. One that has another place now takes with it what the system watches
// in it, under its former name: nothing of its shares is watched until they are looked at.
func (w *watcher) about(ev fsnotify.Event) []uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	var numbers []uint64
	for number, name := range w.folders[filepath.Dir(ev.Name)] {
		if name == "" || name == filepath.Base(ev.Name) {
			numbers = append(numbers, number)
		}
	}
	if of, is := w.folders[ev.Name]; is && (ev.Has(fsnotify.Remove) || ev.Has(fsnotify.Rename)) {
		for number := range of {
			numbers = append(numbers, number)
			if ev.Has(fsnotify.Rename) {
				w.release(number)
			}
		}
		w.unwatch(ev.Name)
	}
	return numbers
}

// unwatch needs w.mu.
func (w *watcher) unwatch(folder string) {
	delete(w.folders, folder)
	if w.sys != nil {
		_ = w.sys.Remove(folder) // the system may have let go of it itself
	}
}

// drop lets go of what is watched for a share alone.
func (w *watcher) drop(number uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.release(number)
}

// release needs w.mu.
func (w *watcher) release(number uint64) {
	delete(w.partly, number)
	for folder, of := range w.folders {
		if _, is := of[number]; !is {
			continue
		}
		if delete(of, number); len(of) == 0 {
			w.unwatch(folder)
		}
	}
}
