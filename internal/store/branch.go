package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// maxFolders and maxHandles bound how much a content of several files keeps open.
const (
	maxFolders = 64
	maxHandles = 128
)

// branch reaches what is below a folder, by relative paths with slashes, and keeps the
// folders on the way open for a while.
type branch struct {
	top     Folder
	folders *cache[string, Folder]
}

func newBranch(top Folder) *branch {
	return &branch{top: top, folders: newCache[string, Folder](maxFolders, idleFolders)}
}

func (b *branch) Close() error { return errors.Join(b.folders.clear(), b.top.Close()) }

// folder opens the folder at rel; with mode, it and those on the way are made if they
// are missing. done ends its use.
func (b *branch) folder(rel string, mode fs.FileMode) (f Folder, done func(), err error) {
	if rel == "." {
		return b.top, func() {}, nil
	}
	it, err := b.folders.take(rel, func() (Folder, error) {
		above, done, err := b.folder(path.Dir(rel), mode)
		if err != nil {
			return nil, err
		}
		defer done()
		name := path.Base(rel)
		f, err := above.Folder(name)
		if mode == 0 || !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
		if err := above.Mkdir(name, mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		return above.Folder(name)
	})
	if err != nil {
		return nil, nil, err
	}
	return it.value, func() { _ = b.folders.give(it) }, nil
}

// in calls do with the folder that rel lies in, and its name there.
func (b *branch) in(rel string, mode fs.FileMode, do func(f Folder, name string) error) error {
	f, done, err := b.folder(path.Dir(rel), mode)
	if err != nil {
		return err
	}
	defer done()
	return do(f, path.Base(rel))
}

func (b *branch) lstat(rel string) (info fs.FileInfo, err error) {
	err = b.in(rel, 0, func(f Folder, name string) error {
		info, err = f.Lstat(name)
		return err
	})
	return info, err
}

func (b *branch) open(rel string, write bool) (h Handle, err error) {
	err = b.in(rel, 0, func(f Folder, name string) error {
		h, err = f.Open(name, write)
		return err
	})
	return h, err
}

// checkRelative refuses paths that are not the relative, clean, local ones with slashes
// that a manifest's name resolver makes.
func checkRelative(rel string) error {
	for name := range strings.SplitSeq(rel, "/") {
		if err := single(name); err != nil {
			return fmt.Errorf("path %q: %w", rel, err)
		}
	}
	return nil
}
