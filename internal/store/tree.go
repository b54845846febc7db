package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"dragonload/internal/piece"
)

// place is where a file of a tree is.
type place uint8

const (
	nowhere place = iota
	inPart        // in the folder of what is incomplete
	named         // whole, under its final name
)

// folderMode is what the user's umask leaves of the mode of new folders. Those of
// incomplete files lie in one that is its owner's alone.
const (
	folderMode = fs.FileMode(0o777)
	partMode   = fs.FileMode(0o700)
)

// tree is the bytes of a content of several files, as one Handle: those of each are in a
// file of its own, below the folder NAME.part, or NAME once it is whole. No path leaves
// the folder in which both lie, and none leads through a link.
type tree struct {
	o          *TreeOptions
	branch     *branch // of the folder in which both lie
	part, name string
	trail      string // name of what in part says whose it is
	fresh      string // that what is to take its place has for a moment
	handles    *cache[int, *treeHandle]
	volume     bool // many files are synced by one call

	mu       sync.Mutex
	lock     Folder // NAME.part, locked; nil before Begin, and when it goes
	ended    bool   // every file has its name, and NAME.part is going
	places   []place
	inodes   []uint64            // of incomplete files; 0 where the system does not tell
	modified []int64             // of named files, nanoseconds since 1970
	dirty    map[int]struct{}    // files that were written since the last sync
	folders  map[string]struct{} // likewise folders in which names have changed
	made     map[string]struct{} // folders that this run has made names for, and those above
	failed   error               // of a file that had to be synced before its time
	touched  map[int]struct{}    // files of which pieces have become durable
	blocked  map[int]error       // files that cannot have their names
	rested   map[int]int64       // incomplete files that are not open: when they were written to last
	suspects map[int]struct{}    // incomplete files that somebody else may have written to
}

func newTree(o *TreeOptions, top Folder) *tree {
	trail := freeName(o.Files, ".dragonload")
	return &tree{
		o: o, branch: newBranch(top), part: filepath.Base(o.Target) + ".part", name: filepath.Base(o.Target),
		trail: trail, fresh: freeName(o.Files, trail+"-new"),
		handles: newCache[int, *treeHandle](maxHandles, idleFiles), volume: top.SyncsVolume(),
		places: make([]place, len(o.Files)), inodes: make([]uint64, len(o.Files)), modified: make([]int64, len(o.Files)),
		dirty: make(map[int]struct{}), folders: make(map[string]struct{}), made: make(map[string]struct{}),
		touched: make(map[int]struct{}), blocked: make(map[int]error),
		rested: make(map[int]int64), suspects: make(map[int]struct{}),
	}
}

// treeHandle is an open file of a tree.
type treeHandle struct {
	Handle
	tree *tree
	file int
}

// Close syncs what will not be synced with the whole volume: an error of writing it back
// must not get lost with the handle.
func (h *treeHandle) Close() error {
	t := h.tree
	t.mu.Lock()
	_, dirty := t.dirty[h.file]
	t.mu.Unlock()
	if dirty && !t.volume {
		if err := h.Datasync(); err != nil {
			t.mu.Lock()
			t.failed = err
			t.mu.Unlock()
		}
	}
	touched, _ := h.Handle.Touched()
	info, err := h.Handle.Stat()
	t.mu.Lock()
	if t.places[h.file] == inPart && err == nil {
		t.rested[h.file] = info.ModTime().UnixNano()
		if touched {
			t.suspects[h.file] = struct{}{}
		}
	}
	t.mu.Unlock()
	return h.Handle.Close()
}

// meddled reports whether somebody else may have written to file k, which is incomplete,
// since that was asked last. Of one that is not open move tells that.
func (t *tree) meddled(k int) bool {
	t.mu.Lock()
	_, suspect := t.suspects[k]
	delete(t.suspects, k)
	_, rests := t.rested[k]
	t.mu.Unlock()
	if suspect || rests {
		return suspect
	}
	it, err := t.open(k, false)
	if err != nil {
		return false // which shows when it is to get its name
	}
	defer func() { _ = t.handles.give(it) }()
	touched, _ := it.value.Handle.Touched()
	return touched
}

// partPath and namedPath return where file k is while it is incomplete, and then.
func (t *tree) partPath(k int) string  { return path.Join(t.part, t.o.Files[k].Path) }
func (t *tree) namedPath(k int) string { return path.Join(t.name, t.o.Files[k].Path) }

func (t *tree) placeOf(k int) place {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.places[k]
}

func (t *tree) setPlace(k int, where place) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.places[k] = where
}

func (t *tree) anyNamed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Contains(t.places, named)
}

// touch notes that piece i has become durable.
func (t *tree) touch(i piece.Index) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.touched[t.o.Layout.FileOf(i)] = struct{}{}
}

// open takes the handle of file k, which is made if it is to be written and is nowhere.
func (t *tree) open(k int, write bool) (*cached[int, *treeHandle], error) {
	return t.handles.take(k, func() (*treeHandle, error) {
		var h Handle
		var err error
		switch t.placeOf(k) {
		case named:
			h, err = t.branch.open(t.namedPath(k), false)
		case inPart:
			h, err = t.reopen(k)
		default:
			if !write {
				return nil, fs.ErrNotExist
			}
			h, err = t.create(k)
		}
		if err != nil {
			return nil, err
		}
		// A file of one piece is open for as long as that is written.
		if _, pieces := t.o.Layout.File(k); pieces.Count > 1 && t.placeOf(k) == inPart {
			h.Watch()
		}
		return &treeHandle{h, t, k}, nil
	})
}

// reopen opens file k in the part folder, if it is the one that was written to.
func (t *tree) reopen(k int) (Handle, error) {
	h, err := t.branch.open(t.partPath(k), true)
	if err != nil {
		return nil, err
	}
	info, err := h.Stat()
	if err == nil && !t.sameInode(k, info) {
		err = t.replaced(t.partPath(k))
	}
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	t.mu.Lock()
	if then, rested := t.rested[k]; rested && then != info.ModTime().UnixNano() {
		t.suspects[k] = struct{}{}
	}
	delete(t.rested, k)
	t.mu.Unlock()
	return h, nil
}

// sameInode reports whether info can be of file k in the part folder.
func (t *tree) sameInode(k int, info fs.FileInfo) bool {
	_, inode := changeOf(info)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.inodes[k] == inode
}

func (t *tree) replaced(rel string) error {
	return fmt.Errorf("%w: %s is not what was begun; move it away and run the same command again", ErrReplaced, t.path(rel))
}

// begun notes that file k is in the part folder, and is this one.
func (t *tree) begun(k int, info fs.FileInfo) {
	_, inode := changeOf(info)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.places[k], t.inodes[k] = inPart, inode
}

// gone reports whether file k should be in the part folder and is not.
func (t *tree) gone(k int) bool {
	if t.placeOf(k) != inPart {
		return false
	}
	_, err := t.branch.lstat(t.partPath(k))
	return errors.Is(err, fs.ErrNotExist)
}

// create makes file k in the part folder.
func (t *tree) create(k int) (Handle, error) {
	rel := t.partPath(k)
	var h Handle
	try := func() error {
		return t.branch.in(rel, folderMode, func(f Folder, name string) (err error) {
			h, err = f.Create(name, fileMode)
			return err
		})
	}
	err := try()
	if errors.Is(err, fs.ErrNotExist) {
		// Somebody has removed a folder that was open.
		_ = t.branch.folders.clear()
		err = try()
	}
	if errors.Is(err, fs.ErrExist) {
		err = t.replaced(rel)
	}
	if err != nil {
		return nil, err
	}
	info, err := h.Stat()
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	t.begun(k, info)
	t.changed(rel)
	return h, nil
}

// changed notes that the folder of rel has got, or lost, a name, and maybe those above.
func (t *tree) changed(rel string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	folder := path.Dir(rel)
	t.folders[folder] = struct{}{}
	for ; folder != "."; folder = path.Dir(folder) {
		if _, known := t.made[folder]; known {
			return
		}
		t.made[folder] = struct{}{}
		t.folders[path.Dir(folder)] = struct{}{}
	}
}

// path is how the user knows what is at rel.
func (t *tree) path(rel string) string {
	return filepath.Join(filepath.Dir(t.o.Target), filepath.FromSlash(rel))
}

// ReadAt reads over the ends of files. It reports io.EOF at the end of the content only.
func (t *tree) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	for n < len(b) {
		at := off + int64(n)
		if at >= t.o.Layout.Size {
			return n, io.EOF
		}
		k := t.o.Layout.FileOf(t.o.Layout.At(at))
		r, _ := t.o.Layout.File(k)
		chunk := b[n : n+int(min(int64(len(b)-n), r.End-at))]
		it, err := t.open(k, false)
		if err != nil {
			return n, err
		}
		m, err := it.value.ReadAt(chunk, at-r.Start)
		_ = t.handles.give(it)
		if n += m; m < len(chunk) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
	}
	return n, nil
}

// WriteAt writes a piece, which lies in one file.
func (t *tree) WriteAt(b []byte, off int64) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	k := t.o.Layout.FileOf(t.o.Layout.At(off))
	r, _ := t.o.Layout.File(k)
	if t.placeOf(k) == named {
		return t.mend(k, b, off-r.Start)
	}
	it, err := t.open(k, true)
	if err != nil {
		return 0, err
	}
	n, err := it.value.WriteAt(b, off-r.Start)
	t.mu.Lock()
	t.dirty[k] = struct{}{}
	t.mu.Unlock()
	if t.volume && int64(len(b)) == r.Len() {
		_ = t.handles.drop(k) // nothing more is written to it
	}
	_ = t.handles.give(it)
	return n, err
}

// mend writes to a file that has its final name and was damaged since; not to one that
// somebody else has written to.
func (t *tree) mend(k int, b []byte, off int64) (int, error) {
	rel := t.namedPath(k)
	info, err := t.branch.lstat(rel)
	if err != nil {
		return 0, err
	}
	t.mu.Lock()
	same := info.Mode().IsRegular() && info.Size() == t.o.Files[k].Size && info.ModTime().UnixNano() == t.modified[k]
	t.mu.Unlock()
	if !same {
		return 0, fmt.Errorf("%w: %s was changed while the rest is still coming; move it away and run the same command again", ErrReplaced, t.path(rel))
	}
	h, err := t.branch.open(rel, true)
	if err != nil {
		return 0, err
	}
	defer h.Close()
	n, err := h.WriteAt(b, off)
	if after, e := h.Stat(); e == nil {
		info = after
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dirty[k] = struct{}{}
	t.modified[k] = info.ModTime().UnixNano()
	return n, err
}

// fewFiles are synced one by one, and not with all that others have written to the volume.
const fewFiles = 16

// Datasync makes what was written durable, and the names of what was made.
func (t *tree) Datasync() error {
	t.mu.Lock()
	dirty, folders, failed := t.dirty, t.folders, t.failed
	t.dirty, t.folders, t.failed = make(map[int]struct{}), make(map[string]struct{}), nil
	t.mu.Unlock()
	err := failed
	switch {
	case err != nil:
	case t.volume && len(dirty)+len(folders) > fewFiles:
		err = t.branch.top.SyncVolume()
	default:
		err = t.syncEach(slices.Sorted(maps.Keys(dirty)), slices.Sorted(maps.Keys(folders)))
	}
	if err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		maps.Copy(t.dirty, dirty)
		maps.Copy(t.folders, folders)
	}
	return err
}

// syncNames makes durable which names there are.
func (t *tree) syncNames() error {
	t.mu.Lock()
	folders := t.folders
	t.folders = make(map[string]struct{})
	t.mu.Unlock()
	var err error
	if t.volume && len(folders) > fewFiles {
		err = t.branch.top.SyncVolume()
	} else {
		err = t.syncEach(nil, slices.Sorted(maps.Keys(folders)))
	}
	if err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		maps.Copy(t.folders, folders)
		if len(t.dirty) > 0 {
			t.failed = err // what was told here of data is not told again
		}
	}
	return err
}

// makeFolders makes the folders in which files are to have their names, and has them
// found after a power cut before anything is moved there.
func (t *tree) makeFolders(files []int) error {
	fresh := false
	for _, k := range files {
		to := t.namedPath(k)
		t.mu.Lock()
		_, known := t.made[path.Dir(to)]
		t.mu.Unlock()
		if known {
			continue
		}
		_, done, err := t.branch.folder(path.Dir(to), folderMode)
		if errors.Is(err, ErrReplaced) {
			continue // the file is told of when it is moved
		}
		if err != nil {
			return err
		}
		done()
		t.changed(to)
		fresh = true
	}
	if !fresh {
		return nil
	}
	return t.syncNames()
}

// syncEach syncs files and then folders; several at once, for each waits for the device.
func (t *tree) syncEach(files []int, folders []string) error {
	err := eachOf(files, func(k int) error {
		if t.placeOf(k) == named {
			return t.syncNamed(k)
		}
		it, err := t.open(k, false)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // somebody has removed it; that shows when it is to get its name
		}
		if err != nil {
			return err
		}
		defer func() { _ = t.handles.give(it) }()
		return it.value.Datasync()
	})
	if err != nil {
		return err
	}
	return eachOf(folders, func(rel string) error {
		f, done, err := t.branch.folder(rel, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it is gone, and its names with it
		}
		if err != nil {
			return err
		}
		defer done()
		return f.Sync()
	})
}

// syncNamed syncs a file that has its name; some systems want it open for writing.
func (t *tree) syncNamed(k int) error {
	h, err := t.branch.open(t.namedPath(k), true)
	if err != nil {
		h, err = t.branch.open(t.namedPath(k), false)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // its user has removed it
	}
	if err != nil {
		return err
	}
	return errors.Join(h.Datasync(), h.Close())
}

// eachOf calls do for all, eight at a time, and returns the first error.
func eachOf[T any](all []T, do func(T) error) error {
	var (
		work  sync.WaitGroup
		mu    sync.Mutex
		first error // guarded by mu, as is next
		next  int
	)
	take := func(err error) (x T, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = err
		}
		if first != nil || next == len(all) {
			return x, false
		}
		next++
		return all[next-1], true
	}
	for range min(8, len(all)) {
		work.Go(func() {
			for x, ok := take(nil); ok; x, ok = take(do(x)) {
			}
		})
	}
	work.Wait()
	return first
}

// Stat is that of the part folder.
func (t *tree) Stat() (fs.FileInfo, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lock == nil {
		return nil, fs.ErrNotExist
	}
	return t.lock.Stat()
}

// unlock closes the part folder.
func (t *tree) unlock() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	lock := t.lock
	t.lock = nil
	if lock == nil {
		return nil
	}
	return lock.Close()
}

// stamps returns those of all files, as they got their names.
func (t *tree) stamps() []Stamp {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Stamp, len(t.places))
	for k := range all {
		all[k] = Stamp{Size: -1}
		if t.places[k] == named {
			all[k] = Stamp{Size: t.o.Files[k].Size, Modified: t.modified[k]}
		}
	}
	return all
}

// samePart reports whether the part folder's name still leads to it.
func (t *tree) samePart() bool {
	t.mu.Lock()
	ended := t.ended
	t.mu.Unlock()
	if ended {
		return true
	}
	there, err := t.branch.top.Lstat(t.part)
	if err != nil {
		return false
	}
	open, err := t.Stat()
	return err == nil && os.SameFile(there, open)
}

// Truncate, Chmod, Uncached, Watch and Touched are those of a single partial file: there is
// nothing behind the bytes of these, they are made with their mode, afresh reads, and
// each is asked before it gets its name.
func (t *tree) Truncate(int64) error          { return nil }
func (t *tree) Chmod(fs.FileMode) error       { return nil }
func (t *tree) Uncached()                     {}
func (t *tree) Watch()                        {}
func (t *tree) Touched() (touched, told bool) { return false, true }

func (t *tree) Close() error {
	return errors.Join(t.handles.clear(), t.unlock(), t.branch.Close())
}

// afresh reads the files of a tree from the device, each opened anew.
type afresh struct{ *tree }

func (a *afresh) ReadAt(b []byte, off int64) (int, error) {
	k := a.o.Layout.FileOf(a.o.Layout.At(off))
	r, _ := a.o.Layout.File(k)
	rel := a.partPath(k)
	if a.placeOf(k) == named {
		rel = a.namedPath(k)
	}
	h, err := a.branch.open(rel, false)
	if err != nil {
		return 0, err
	}
	defer h.Close()
	h.Uncached()
	return h.ReadAt(b, off-r.Start)
}

func (a *afresh) Close() error { return nil }

// The part folder says itself what it is of, for a journal that is lost: in a file with
// a name that none of the content's has, which holds "dltree 1" and the record as in the
// journal.
const treeMagic = "dltree 1"

// freeName returns a name, or a longer one, that no file or folder at the content's top has.
func freeName(files []TreeFile, name string) string {
	for slices.ContainsFunc(files, func(f TreeFile) bool {
		first, _, _ := strings.Cut(f.Path, "/")
		return strings.EqualFold(first, name)
	}) {
		name += "-"
	}
	return name
}

func (t *tree) writeTrail(part Folder, rec *record) error {
	head := *rec
	head.part, head.clean = "", false
	if said, ok := t.readTrail(); ok && said.pin == rec.pin {
		return nil
	}
	if err := part.Remove(t.fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	h, err := part.Create(t.fresh, 0o600)
	if err != nil {
		return err
	}
	_, err = h.WriteAt(append([]byte(treeMagic), head.encode()...), 0)
	if err == nil {
		err = h.Datasync()
	}
	if err = errors.Join(err, h.Close()); err == nil {
		err = part.Move(t.fresh, part, t.trail, true) // at no time does it say nothing
	}
	if err != nil {
		return err
	}
	// Nothing else is in the folder before it: whose that is can always be told.
	return part.Sync()
}

// readTrail returns what the part folder says that it is of.
func (t *tree) readTrail() (record, bool) {
	h, err := t.branch.open(path.Join(t.part, t.trail), false)
	if err != nil {
		return record{}, false
	}
	defer h.Close()
	b := make([]byte, maxTrailHead)
	n, _ := h.ReadAt(b, 0)
	body, ok := strings.CutPrefix(string(b[:n]), treeMagic)
	if !ok {
		return record{}, false
	}
	rec, err := decodeRecord([]byte(body))
	return rec, err == nil && rec.tree
}

// remove removes the part folder: with files and all, or if nothing but the trail and
// empty folders is in it.
func (t *tree) remove(files bool) error {
	if err := errors.Join(t.handles.clear(), t.branch.folders.clear(), t.unlock()); err != nil {
		return err
	}
	top := t.branch.top
	part, err := top.Folder(t.part)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	whole, err := emptied(part, "", func(rel string) bool { return files || rel == t.trail || rel == t.fresh }, false)
	if err = errors.Join(err, part.Close()); err != nil || !whole {
		return err
	}
	return top.Remove(t.part)
}

// removeStale removes from the part folder, durably, what an earlier version left and this
// one has not at its place.
func (t *tree) removeStale() error {
	keep := map[string]bool{t.trail: true}
	for k, where := range t.places {
		if where == inPart {
			keep[t.o.Files[k].Path] = true
		}
	}
	if err := errors.Join(t.handles.clear(), t.branch.folders.clear()); err != nil {
		return err
	}
	part, err := t.branch.top.Folder(t.part)
	if err != nil {
		return err
	}
	_, err = emptied(part, "", func(rel string) bool { return !keep[rel] }, true)
	return errors.Join(err, part.Close())
}

// trim cuts, durably, what an earlier version had more of the files in the part folder.
func (t *tree) trim() error {
	for k, where := range t.places {
		if where != inPart {
			continue
		}
		info, err := t.branch.lstat(t.partPath(k))
		if err == nil && info.Size() <= t.o.Files[k].Size {
			continue
		}
		var h Handle
		if err == nil {
			h, err = t.reopen(k)
		}
		if err != nil {
			return err
		}
		err = h.Truncate(t.o.Files[k].Size)
		if err == nil {
			err = h.Datasync()
		}
		if err = errors.Join(err, h.Close()); err != nil {
			return err
		}
	}
	return nil
}

// maxDepth bounds how deep folders are followed that others may have made.
const maxDepth = 1000

// emptied removes from a folder the files that may go, and the folders that are empty
// then; with sync, so that they do not come back. It reports whether nothing is left. rel is
// the folder's path below the first.
func emptied(f Folder, rel string, goes func(rel string) bool, sync bool) (bool, error) {
	names, err := f.Names()
	if err != nil || strings.Count(rel, "/") > maxDepth {
		return false, err
	}
	slices.Sort(names)
	whole, removed := true, false
	for _, name := range names {
		info, err := f.Lstat(name)
		if err != nil {
			return false, err
		}
		at := path.Join(rel, name)
		may := goes(at)
		if info.IsDir() {
			below, err := f.Folder(name)
			if err != nil {
				return false, err
			}
			may, err = emptied(below, at, goes, sync)
			if err = errors.Join(err, below.Close()); err != nil {
				return false, err
			}
		}
		if may {
			err, removed = f.Remove(name), true
		}
		if err != nil {
			return false, err
		}
		whole = whole && may
	}
	if sync && removed && (!whole || rel == "") {
		return whole, f.Sync()
	}
	return whole, nil
}
