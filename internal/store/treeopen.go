package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"

	"dragonload/internal/piece"
)

// TreeOptions say what a File of a content of several files is for.
type TreeOptions struct {
	Target    string // absolute final path of the folder; the one that it lies in must exist
	Source    string // names what is downloaded, for Journal.Targets
	Overwrite bool   // go on in a folder of that name, replacing what differs in it
	Restart   bool   // throw away what is incomplete of an earlier run, at Begin

	Pin     piece.Pin      // of the manifest
	Layout  piece.Layout   // of Files
	Files   []TreeFile     // in the manifest's order
	Folders []string       // that are empty: paths as those of files
	Digests []piece.Digest // of all pieces; not changed, and not to be

	Damaged func(i piece.Index, why error) // as in Options
	Unsure  func(pieces int, why error)    // as in Options
	Log     *slog.Logger                   // nil: no log
}

// TreeFile is one file of a content.
type TreeFile struct {
	Path string // relative, clean, with slashes, and without names that escape or collide
	Size int64
	Skip bool // not wanted: neither made nor waited for
}

func (o *TreeOptions) validate() error {
	paths, sizes := make([]string, len(o.Files)), make([]int64, len(o.Files))
	for k, f := range o.Files {
		paths[k], sizes[k] = f.Path, f.Size
	}
	if err := checkFiles(o.Layout, o.Digests, paths, sizes); err != nil {
		return fmt.Errorf("open %s: %w", o.Target, err)
	}
	for _, rel := range o.Folders {
		if err := checkRelative(rel); err != nil {
			return fmt.Errorf("open %s: %w", o.Target, err)
		}
	}
	if err := o.Pin.Validate(); err != nil {
		return fmt.Errorf("open %s: %w", o.Target, err)
	}
	if p := o.Pin; p.Kind != piece.Manifest || p.Size != o.Layout.Size || p.PieceLength != o.Layout.PieceLength || int(p.Pieces) != o.Layout.Count() {
		return fmt.Errorf("open %s: %v is not of these %d pieces", o.Target, o.Pin, o.Layout.Count())
	}
	return nil
}

// Wanted returns the pieces of the files that are wanted.
func (o *TreeOptions) Wanted() piece.Bitfield {
	wanted := piece.NewBitfield(o.Layout.Count())
	for k, f := range o.Files {
		_, pieces := o.Layout.File(k)
		for i := pieces.First; i < pieces.End() && !f.Skip; i++ {
			wanted.Set(i)
		}
	}
	return wanted
}

// OpenTree opens the download of a content of several files to the folder o.Target. Until
// it is whole each file lies in the folder o.Target + ".part", and moves when all its
// pieces are on disk and journaled. The File is used as that of one file; the offsets of
// ReadAt, Copy and Layout go through all files, Begin takes o.Pin alone, and of what
// Finish returns only the path counts.
//
// What an earlier run left is looked at first: files and pieces are hashed, unless the run
// was closed in order and they have not been written to since. A folder that has the
// final name is gone on with if it is known to be of this content; else, without Overwrite,
// it is ErrExists, and so is a file in it that is in the way. Nothing on disk has
// changed until Begin.
//
// A part folder of another content is gone on with if it has something of this one: it is
// that of an earlier version then, of which the rest goes at Begin.
//
// Errors: ErrExists, ErrInUse, ErrCannotCreate, ErrReplaced.
func (j *Journal) OpenTree(ctx context.Context, o TreeOptions) (*File, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	single := Options{
		Target: o.Target, Part: o.Target + ".part", Source: o.Source, Overwrite: o.Overwrite, Restart: o.Restart,
		Damaged: o.Damaged, Unsure: o.Unsure, Log: o.Log,
	}
	if err := single.validate(); err != nil {
		return nil, err
	}
	o.Log = single.Log
	if !j.claim(single.Target, single.Part) {
		return nil, fmt.Errorf("%s: %w", o.Target, ErrInUse)
	}
	f := &File{journal: j, o: single}
	err := f.openTree(ctx, &o)
	if err != nil {
		if f.tree != nil {
			_ = f.tree.Close()
		}
		j.release(single.Target, single.Part)
		return nil, err
	}
	return f, nil
}

func (f *File) openTree(ctx context.Context, o *TreeOptions) error {
	above := filepath.Dir(o.Target)
	info, err := f.journal.disk.Stat(above)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCannotCreate, err)
	}
	top, err := f.journal.disk.Folder(above)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCannotCreate, err)
	}
	f.folder, f.tree = info, newTree(o, top)
	k, err := f.journal.load(o.Target)
	if err != nil {
		return fmt.Errorf("read journal %s: %w", f.journal.path, err)
	}
	l := &leftover{
		recorded: k.exists,
		rec:      record{part: f.o.Part, source: o.Source, pin: o.Pin, layout: o.Layout, tree: true},
		claims:   newClaims(o.Layout.Count(), true),
	}
	look := &treeLook{tree: f.tree, o: o, l: l, known: k.readable && k.rec.tree && k.rec.pin == o.Pin}
	if look.known {
		l.rec.source, l.rec.clean, l.rec.modified, l.unclean = k.rec.source, k.rec.clean, k.rec.modified, !k.rec.clean
		look.claimed, look.origin = k.claims.have, k.claims.origin
	} else {
		look.claimed, look.origin = piece.NewBitfield(o.Layout.Count()), piece.NewBitfield(o.Layout.Count())
	}
	if err := look.folders(f, k); err != nil {
		return err
	}
	if err := look.files(); err != nil {
		return fmt.Errorf("look at %s: %w", o.Target, err)
	}
	if err := look.check(ctx); err != nil {
		return err
	}
	f.left, l.claims.digests = l, o.Digests
	if l.claims.have.Count() > 0 || look.known {
		l.data = f.tree
	}
	if l.dropped > 0 {
		o.Log.Warn("pieces of a folder did not match and are fetched again", "part", f.o.Part, "pieces", l.dropped)
	}
	return nil
}

// treeLook finds what there is of a tree when it is opened.
type treeLook struct {
	tree  *tree
	o     *TreeOptions
	l     *leftover
	known bool // the journal knows of the download

	claimed, origin piece.Bitfield // what the journal says
	hasPart         bool           // the part folder is there and of this content
	hasName         bool           // the final folder is there and may be gone on with
	all             bool           // whatever is in them may be of this content
	former          bool           // the part folder is of another content, maybe an earlier version
	doubted         piece.Bitfield // pieces to be hashed
}

// folders finds out whose the two folders are.
func (t *treeLook) folders(f *File, k known) error {
	top := t.tree.branch.top
	part, err := top.Lstat(t.tree.part)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("%w: %w", ErrCannotCreate, err)
	case !part.IsDir():
		return fmt.Errorf("%w: %s is not a folder; move it away and run the same command again", ErrReplaced, f.o.Part)
	default:
		if err := t.whosePart(f, k); err != nil {
			return err
		}
	}
	name, err := top.Lstat(t.tree.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", ErrCannotCreate, err)
	case !name.IsDir() && t.o.Overwrite:
		return fmt.Errorf("%w: %s is no folder", ErrCannotCreate, t.o.Target)
	}
	kept, found, err := f.journal.kept(t.o.Target)
	if err != nil {
		return err
	}
	ours := t.known || t.hasPart && (!t.former || !found) || found && kept.Pin == t.o.Pin
	if !name.IsDir() || !ours && !t.o.Overwrite {
		return fmt.Errorf("%s: %w; choose another name, or --overwrite it", t.o.Target, ErrExists)
	}
	t.hasName = true
	t.all = t.all || !t.known
	return nil
}

// whosePart finds out whether the part folder is one to go on with.
func (t *treeLook) whosePart(f *File, k known) error {
	said, ok := t.tree.readTrail()
	marked := f.journal.marked(&f.o)
	empty := false
	if part, err := t.tree.branch.top.Folder(t.tree.part); err == nil {
		names, err := part.Names()
		empty = err == nil && !slices.ContainsFunc(names, func(name string) bool { return name != t.tree.trail && name != t.tree.fresh })
		_ = part.Close()
	}
	mine := t.known || ok && said.pin == t.o.Pin || !ok && marked || empty
	begun := mine || ok || marked || k.readable && k.rec.tree && k.rec.part == f.o.Part
	switch {
	case t.o.Restart && begun:
		t.l.anew = true
	case mine:
		t.hasPart, t.l.part = true, true
		if !t.known && !empty {
			t.all, t.l.rebuilt = true, ok && !marked
		}
	case ok || k.readable && k.rec.tree && k.rec.part == f.o.Part:
		// If something in it turns out to be of this content, it is of an earlier version.
		t.former, t.hasPart, t.all = true, true, true
		t.l.part, t.l.former = true, true
	default:
		return t.notMine()
	}
	return nil
}

func (t *treeLook) notMine() error {
	return fmt.Errorf("%w: %s.part is not known to be of this download; pass --restart to begin anew in its place, or name another folder", ErrReplaced, t.o.Target)
}

// files finds out where each file is, and which pieces are to be hashed.
func (t *treeLook) files() error {
	t.doubted = piece.NewBitfield(t.o.Layout.Count())
	for k := range t.o.Files {
		if err := t.file(k); err != nil {
			return err
		}
	}
	return nil
}

func (t *treeLook) file(k int) error {
	size := t.o.Files[k].Size
	_, pieces := t.o.Layout.File(k)
	if t.hasName {
		info, err := t.lstat(t.tree.namedPath(k))
		if err != nil {
			return err
		}
		if info != nil {
			if info.Mode().IsRegular() && info.Size() == size {
				t.tree.places[k], t.tree.modified[k] = named, info.ModTime().UnixNano()
				t.claim(pieces, true, info)
				return nil
			}
			if err := t.inTheWay(k); err != nil {
				return err
			}
		}
	}
	if !t.hasPart {
		return nil
	}
	info, err := t.lstat(t.tree.partPath(k))
	switch {
	case err != nil || info == nil:
		return err
	case t.former && !info.Mode().IsRegular():
		return nil // it goes
	case !info.Mode().IsRegular():
		return notRegular(t.tree.path(t.tree.partPath(k)))
	}
	t.tree.begun(k, info)
	t.claim(pieces, t.all, info)
	return nil
}

// lstat returns nil if there is nothing at rel.
func (t *treeLook) lstat(rel string) (fs.FileInfo, error) {
	info, err := t.tree.branch.lstat(rel)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return info, err
}

// inTheWay says what follows when something else has the final name of file k.
func (t *treeLook) inTheWay(k int) error {
	if t.o.Overwrite || t.o.Files[k].Skip {
		return nil
	}
	return fmt.Errorf("%s: %w and is not as the manifest has it; move it away, or --overwrite it", t.tree.path(t.tree.namedPath(k)), ErrExists)
}

// claim counts the pieces of a file, all or those that the journal knows of. They are to
// be hashed, unless the last run ended in order and nobody has written to the file since.
func (t *treeLook) claim(pieces piece.Extent, all bool, info fs.FileInfo) {
	trusted := t.known && t.l.rec.clean && info.ModTime().UnixNano() <= t.l.rec.modified
	for i := pieces.First; i < pieces.End(); i++ {
		if !all && !t.claimed.Has(i) {
			continue
		}
		t.l.claims.have.Set(i)
		if t.origin.Has(i) {
			t.l.claims.origin.Set(i)
		}
		if !trusted || !t.claimed.Has(i) {
			t.doubted.Set(i)
		}
	}
}

// check hashes what is doubted, and settles which files are whole.
func (t *treeLook) check(ctx context.Context) error {
	l, count := t.l, piece.Index(t.o.Layout.Count())
	if _, err := rehash(ctx, t.tree, t.o.Layout, &l.claims, &t.doubted, t.o.Digests); err != nil {
		return fmt.Errorf("check %s: %w", t.o.Target, err)
	}
	for k := range t.o.Files {
		_, pieces := t.o.Layout.File(k)
		if t.tree.places[k] != named {
			continue
		}
		if i, ok := l.claims.have.NextUnset(pieces.First); !ok || i >= pieces.End() {
			continue
		}
		// It is no file of ours.
		if err := t.inTheWay(k); err != nil {
			return err
		}
		if err := t.tree.handles.drop(k); err != nil {
			return err
		}
		t.tree.places[k] = nowhere
		for i := pieces.First; i < pieces.End(); i++ {
			l.claims.have.Unset(i)
			l.claims.origin.Unset(i)
		}
		if info, err := t.lstat(t.tree.partPath(k)); t.hasPart && err == nil && info != nil && info.Mode().IsRegular() {
			t.tree.begun(k, info)
		}
	}
	if t.former && !t.o.Restart && l.claims.have.Count() == 0 {
		return t.notMine()
	}
	l.unread = l.claims.have.Clone()
	for i, ok := t.doubted.Next(0); ok; i, ok = t.doubted.Next(i + 1) {
		l.unread.Unset(i)
	}
	for i := range count {
		switch have, claimed := l.claims.have.Has(i), t.claimed.Has(i); {
		case claimed && !have:
			l.dropped++
			l.again += t.o.Layout.Length(i)
		case have && !claimed:
			l.found = true
		}
	}
	return nil
}
