package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"

	"dragonload/internal/piece"
)

// beginTree makes what was found the present state and has the part folder made. With
// anew, or Options.Restart, only files that have their names already are kept.
func (f *File) beginTree(pin piece.Pin, anew bool) error {
	t := f.tree
	switch {
	case pin != t.o.Pin:
		return fmt.Errorf("begin %s: %v is not %v", f.o.Target, pin, t.o.Pin)
	case f.p != nil && anew:
		f.forgetIncomplete()
		return nil
	case f.p != nil:
		return nil
	}
	l := f.left
	if anew || l.anew {
		for k, where := range t.places {
			if _, pieces := t.o.Layout.File(k); where != named {
				l.claims.drop(pieces)
				for i := pieces.First; i < pieces.End(); i++ {
					l.unread.Unset(i)
				}
			}
		}
	}
	p := newPartial(f.journal, &f.o, f.folder, l.rec, t)
	p.tree = t
	f.adoptTree(p, l)
	stored := int64(0) // of what is missing, room that is taken already
	for k, where := range t.places {
		if info, err := t.branch.lstat(t.partPath(k)); where == inPart && err == nil {
			_, pieces := t.o.Layout.File(k)
			stored += max(0, allocated(info)-l.claims.bytesOf(t.o.Layout, pieces))
		}
	}
	if err := f.journal.checkRoom(f.o.Part, p.missingBytes(), stored); err != nil {
		return err
	}
	if err := f.makePart(p, l); err != nil {
		return err
	}
	return f.takeUp(p, p.recorded)
}

// adoptTree takes over what was found, before the workers start.
func (f *File) adoptTree(p *partial, l *leftover) {
	t := f.tree
	p.recorded, p.unnamed = l.recorded, true
	p.have, p.origin, p.digests = l.claims.have, l.claims.origin, t.o.Digests
	for k, file := range t.o.Files {
		_, pieces := t.o.Layout.File(k)
		for i := pieces.First; i < pieces.End() && file.Skip; i++ {
			if p.unwanted.Set(i); !p.have.Has(i) {
				p.spare++
			}
		}
	}
	p.old, p.doubtful = p.have.Clone(), l.unread
	if !l.found {
		p.durable = p.have.Clone()
	} else {
		// Nobody knows whether what the journal does not know of was synced.
		p.unsynced = p.have.Clone()
		p.unsyncedBytes = l.claims.bytes(t.o.Layout)
		for k, where := range t.places {
			if where != nowhere {
				t.dirty[k] = struct{}{}
			}
		}
	}
	for k, where := range t.places {
		if where == inPart {
			t.touched[k] = struct{}{}
		}
	}
	if l.dropped > 0 || l.found {
		p.outdateAll()
	}
	if len(t.touched) > 0 {
		p.wakeSyncer()
	}
}

// makePart makes the part folder, locks it and has it say what it is of.
func (f *File) makePart(p *partial, l *leftover) error {
	t, top := f.tree, f.tree.branch.top
	if l.anew {
		if l.recorded {
			if err := f.journal.remove(f.o.Target); err != nil {
				return err
			}
			p.recorded = false
			p.outdateAll()
		}
		if err := t.remove(true); err != nil {
			return f.journal.createError(f.o.Part, err)
		}
		for k, where := range t.places {
			if where == inPart {
				t.places[k] = nowhere
			}
		}
	}
	if l.former {
		if err := f.journal.remove(f.o.Target); err != nil {
			return err
		}
		p.recorded = false
		p.outdateAll()
	}
	if !p.recorded {
		if err := f.journal.mark(&f.o); err != nil {
			return f.journal.createError(f.journal.path, err)
		}
	}
	if err := top.Mkdir(t.part, partMode); err != nil && (!errors.Is(err, fs.ErrExist) || !l.part) {
		return f.journal.createError(f.o.Part, err)
	}
	part, err := top.Folder(t.part)
	if err != nil {
		return f.journal.createError(f.o.Part, err)
	}
	if !part.Lock() {
		return errors.Join(fmt.Errorf("%s: %w", f.o.Part, ErrInUse), part.Close())
	}
	t.mu.Lock()
	t.lock = part
	t.mu.Unlock()
	if l.former {
		// Before the folder says what it is of now, or a stop would leave it there for ever.
		if err := errors.Join(t.removeStale(), t.trim()); err != nil {
			return f.journal.createError(f.o.Part, err)
		}
	}
	if err := t.writeTrail(part, &p.rec); err != nil {
		return f.journal.createError(f.o.Part, err)
	}
	return t.removeTwins()
}

// removeTwins removes from the part folder the files that have their final names: where
// moving is two steps, a stop can come between them.
func (t *tree) removeTwins() error {
	for k, where := range t.places {
		if where != named {
			continue
		}
		err := t.branch.in(t.partPath(k), 0, func(f Folder, name string) error { return f.Remove(name) })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// drop claims the pieces no more.
func (c *claims) drop(pieces piece.Extent) {
	for i := pieces.First; i < pieces.End(); i++ {
		c.have.Unset(i)
		c.origin.Unset(i)
	}
}

func (c *claims) bytesOf(layout piece.Layout, pieces piece.Extent) int64 {
	n := int64(0)
	for i := pieces.First; i < pieces.End(); i++ {
		if c.have.Has(i) {
			n += layout.Length(i)
		}
	}
	return n
}

// forgetIncomplete forgets the pieces of files that have not their names yet.
func (f *File) forgetIncomplete() {
	for k := range f.tree.o.Files {
		if f.tree.placeOf(k) == named {
			continue
		}
		_, pieces := f.tree.o.Layout.File(k)
		for i := pieces.First; i < pieces.End(); i++ {
			f.p.forget(i)
		}
	}
}

// nameFiles gives the files whose pieces are all on disk and journaled their final names.
// It is called by the syncer, or when that has ended. A file that cannot have its name is
// an error of Finish.
func (p *partial) nameFiles() error {
	t := p.tree
	t.mu.Lock()
	touched := t.touched
	t.touched = make(map[int]struct{})
	t.mu.Unlock()
	var todo, later []int
	for _, k := range slices.Sorted(maps.Keys(touched)) {
		switch ready, again := p.ready(k); {
		case ready:
			todo = append(todo, k)
		case again:
			later = append(later, k)
		}
	}
	err := t.makeFolders(todo)
	for again := 0; err == nil && len(todo) > 0; {
		k := todo[0]
		err = t.giveName(k)
		if errors.Is(err, errMeddled) && again < 3 {
			again++
			if err = nil; !p.looksGood(k) {
				todo = todo[1:]
			}
			continue
		}
		again = 0
		if errors.Is(err, fs.ErrNotExist) {
			p.loseFile(k, err) // somebody has removed it
			err = nil
		}
		if err == nil {
			todo = todo[1:]
		}
	}
	t.mu.Lock()
	for _, k := range append(later, todo...) {
		t.touched[k] = struct{}{}
	}
	t.mu.Unlock()
	return p.journal.writeError(p.o.Target, 1, err)
}

// errMeddled: a file is not as it was when it was closed.
var errMeddled = errors.New("somebody else writes to it")

// looksGood compares all pieces of file k, which somebody else may have written to.
func (p *partial) looksGood(k int) bool {
	t := p.tree
	t.mu.Lock()
	t.suspects[k] = struct{}{}
	delete(t.rested, k)
	t.mu.Unlock()
	good, _ := p.ready(k)
	return good
}

// ready reports whether file k can have its name; again, that it is only too early to
// tell. What an earlier run left and was not read yet is compared first, and all of it if
// somebody else may have written to it.
func (p *partial) ready(k int) (ready, again bool) {
	_, pieces := p.layout.File(k)
	if pieces.Count == 0 || p.tree.placeOf(k) == named {
		return false, false
	}
	p.mu.Lock()
	if i, ok := p.durable.NextUnset(pieces.First); ok && i < pieces.End() {
		p.mu.Unlock()
		return false, false
	}
	for n := int(pieces.First / chunkPieces); n <= int((pieces.End()-1)/chunkPieces); n++ {
		if _, stale := p.stale[n]; stale {
			p.mu.Unlock()
			return false, true
		}
	}
	p.mu.Unlock()
	meddled := p.tree.meddled(k)
	p.mu.Lock()
	var doubtful []piece.Index
	for i := pieces.First; meddled && i < pieces.End(); i++ {
		p.doubtful.Set(i)
	}
	for i, ok := p.doubtful.Next(pieces.First); ok && i < pieces.End(); i, ok = p.doubtful.Next(i + 1) {
		doubtful = append(doubtful, i)
	}
	p.mu.Unlock()
	buf, lost := make([]byte, 0), false
	for _, i := range doubtful {
		if n := p.layout.Length(i); int64(len(buf)) < n {
			buf = make([]byte, n)
		}
		if err := matches(p.data, p.layout, i, buf, p.digests[i]); err != nil {
			p.lose(i, err)
			lost = true
			continue
		}
		p.mu.Lock()
		p.doubtful.Unset(i)
		p.mu.Unlock()
	}
	return !lost, false
}

// loseFile loses all pieces of a file that is not where it was.
func (p *partial) loseFile(k int, why error) {
	p.tree.setPlace(k, nowhere)
	_ = p.tree.handles.drop(k)
	_ = p.tree.branch.folders.clear()
	_, pieces := p.layout.File(k)
	for i := pieces.First; i < pieces.End(); i++ {
		p.lose(i, why)
	}
}

// giveName moves file k to where it belongs. fs.ErrNotExist if it is not where it was.
func (t *tree) giveName(k int) error {
	from, to := t.partPath(k), t.namedPath(k)
	if err := t.handles.drop(k); err != nil {
		return err
	}
	info, err := t.move(k, from, to)
	if errors.Is(err, fs.ErrNotExist) {
		// Somebody has removed a folder that was open.
		_ = t.branch.folders.clear()
		info, err = t.move(k, from, to)
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		err = t.inTheWay(to)
		fallthrough
	case errors.Is(err, ErrReplaced):
		t.mu.Lock()
		t.blocked[k] = err
		t.mu.Unlock()
		return nil
	case err != nil:
		return err
	}
	t.changed(from)
	t.changed(to)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.places[k], t.modified[k] = named, info.ModTime().UnixNano()
	delete(t.blocked, k)
	return nil
}

func (t *tree) move(k int, from, to string) (info fs.FileInfo, err error) {
	err = t.branch.in(from, 0, func(source Folder, name string) error {
		var err error
		if info, err = source.Lstat(name); err != nil {
			return err
		}
		if !info.Mode().IsRegular() || info.Size() != t.o.Files[k].Size || !t.sameInode(k, info) {
			return t.replaced(from)
		}
		t.mu.Lock()
		then, rested := t.rested[k]
		t.mu.Unlock()
		if rested && then != info.ModTime().UnixNano() {
			return fmt.Errorf("%w: %s", errMeddled, t.path(from))
		}
		return t.branch.in(to, folderMode, func(target Folder, toName string) error {
			return source.Move(name, target, toName, t.o.Overwrite)
		})
	})
	return info, err
}

func (t *tree) inTheWay(rel string) error {
	return fmt.Errorf("%s: %w; move it away, or --overwrite it; what was downloaded is kept in %s.part", t.path(rel), ErrExists, t.o.Target)
}

// finishTree is Finish of several files: those that have not their names yet get them,
// empty ones and empty folders are made, folders are synced, and the part folder goes.
func (f *File) finishTree(ctx context.Context, from []string) (Finished, error) {
	done, err := f.Sums(ctx)
	if err != nil {
		return Finished{}, fmt.Errorf("finish %s: %w", f.o.Target, err)
	}
	p := f.p
	if p.finished {
		return done, nil
	}
	p.halt()
	if err := f.nameAll(p); err != nil {
		p.start()
		return Finished{}, fmt.Errorf("finish %s: %w", f.o.Target, err)
	}
	f.journal.unmark(f.o.Target)
	if err := f.journal.settle(f.o.Target, f.keep(done, from)); err != nil {
		f.o.Log.Warn("the journal does not know that a download is finished", "target", f.o.Target, "error", err)
	}
	f.life.Lock()
	defer f.life.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finished, p.recorded = true, false
	return done, nil
}

// nameAll brings the tree to its end; the workers of p have ended.
func (f *File) nameAll(p *partial) error {
	t := f.tree
	err := p.placed()
	if err == nil {
		err = p.flush()
	}
	if err == nil {
		err = p.record(false)
	}
	if err == nil {
		t.mu.Lock()
		for k, where := range t.places {
			if where == inPart {
				t.touched[k] = struct{}{}
			}
		}
		t.mu.Unlock()
		err = p.nameFiles()
	}
	if err == nil {
		err = f.makeEmpty()
	}
	if err != nil {
		return f.journal.writeError(f.o.Target, 1, err)
	}
	if err := p.unnamedFile(); err != nil {
		return err
	}
	if err = t.Datasync(); err != nil {
		err = fmt.Errorf("sync the folders of %s: %w", f.o.Target, err)
	} else {
		t.mu.Lock()
		t.ended = true
		t.mu.Unlock()
		err = t.remove(false)
	}
	if err == nil {
		err = t.branch.top.Sync()
	}
	return f.journal.writeError(f.o.Target, 1, err)
}

// unnamedFile says why a file that is wanted has not its name.
func (p *partial) unnamedFile() error {
	t := p.tree
	p.mu.Lock()
	i, missing := p.missing(0)
	p.mu.Unlock()
	if missing {
		return &IncompleteError{Missing: i}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, file := range t.o.Files {
		if file.Skip || t.places[k] == named {
			continue
		}
		if err := t.blocked[k]; err != nil {
			return err
		}
		return fmt.Errorf("%w: %s has not got its name", ErrReplaced, t.path(t.partPath(k)))
	}
	return nil
}

// makeEmpty makes the final folder, the empty files and the empty folders.
func (f *File) makeEmpty() error {
	t := f.tree
	_, done, err := t.branch.folder(t.name, folderMode)
	if err != nil {
		return err
	}
	done()
	t.changed(t.name)
	for k, file := range t.o.Files {
		if file.Skip || file.Size > 0 || t.placeOf(k) == named {
			continue
		}
		if err := t.makeFile(k); err != nil {
			return err
		}
	}
	for _, rel := range t.o.Folders {
		rel = path.Join(t.name, rel)
		_, done, err := t.branch.folder(rel, folderMode)
		if err != nil {
			return err
		}
		done()
		t.changed(rel)
	}
	return nil
}

// makeFile makes the empty file k.
func (t *tree) makeFile(k int) error {
	rel := t.namedPath(k)
	create := func() (fs.FileInfo, error) {
		var info fs.FileInfo
		err := t.branch.in(rel, folderMode, func(folder Folder, name string) error {
			h, err := folder.Create(name, fileMode)
			if err != nil {
				return err
			}
			info, err = h.Stat()
			return errors.Join(err, h.Close())
		})
		return info, err
	}
	info, err := create()
	if errors.Is(err, fs.ErrExist) && t.o.Overwrite {
		err = t.branch.in(rel, 0, func(folder Folder, name string) error { return folder.Remove(name) })
		if err == nil {
			info, err = create()
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return t.inTheWay(rel)
	}
	if err != nil {
		return err
	}
	t.changed(rel)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.places[k], t.modified[k] = named, info.ModTime().UnixNano()
	return nil
}

// discardTree is Discard of what was not begun.
func (f *File) discardTree() error {
	var err error
	if l := f.left; l.data != nil || l.part {
		err = f.journal.remove(f.o.Target)
		if err == nil && l.part {
			err = f.tree.remove(true)
		}
	}
	_, _ = f.shut()
	return err
}
