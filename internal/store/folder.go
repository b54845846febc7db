package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// Folder is an open folder of a Disk. It takes single names only, so that what is below
// is reached folder by folder, and it follows no link: what stands in a folder that
// others may write to never leads out of it.
type Folder interface {
	Stat() (fs.FileInfo, error) // of the folder itself
	Lstat(name string) (fs.FileInfo, error)
	Names() ([]string, error)

	// Folder opens the folder called name, which is not a link.
	Folder(name string) (Folder, error)
	Mkdir(name string, mode fs.FileMode) error

	// Open and Create are those of Disk. No other process is kept out of a file.
	Open(name string, write bool) (Handle, error)
	Create(name string, mode fs.FileMode) (Handle, error)

	// Remove removes a file or an empty folder.
	Remove(name string) error
	// Move gives a file another name in a folder that was opened below the same one. It
	// replaces what has that name, or else says fs.ErrExist.
	Move(name string, to Folder, toName string, replace bool) error

	// Lock keeps other processes out that ask for the lock too, until the folder is
	// closed; false if one has it.
	Lock() bool

	// Sync makes the names in the folder durable.
	Sync() error
	// SyncVolume makes durable whatever was done, since this folder was opened, on the
	// file system that it is on.
	SyncVolume() error
	// SyncsVolume reports whether SyncVolume can be relied on: whether the file system
	// has such a step, waits for the device, and the system tells of failures.
	SyncsVolume() bool

	Close() error
}

// osFolder is a Folder of the operating system. name is below top, where it was opened
// first; moves that the system has no better call for are made from there.
type osFolder struct {
	root, top *os.Root
	name      string   // relative to top
	dir       *os.File // for what os.Root has no method
}

// Folder opens the folder at path, which may be reached through links.
func (osDisk) Folder(path string) (Folder, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	dir, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &osFolder{root: root, top: root, name: ".", dir: dir}, nil
}

func (f *osFolder) Stat() (fs.FileInfo, error) { return f.dir.Stat() }

func (f *osFolder) Lstat(name string) (fs.FileInfo, error) {
	if err := single(name); err != nil {
		return nil, err
	}
	return f.root.Lstat(name)
}

func (f *osFolder) Names() ([]string, error) {
	dir, err := f.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

func (f *osFolder) Folder(name string) (Folder, error) {
	before, err := f.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.IsDir() {
		return nil, fmt.Errorf("%w: %s is not a folder", ErrReplaced, f.path(name))
	}
	root, err := f.root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	dir, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	below := &osFolder{root: root, top: f.top, name: path.Join(f.name, name), dir: dir}
	after, err := dir.Stat()
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%w: %s", ErrReplaced, f.path(name))
	}
	if err != nil {
		return nil, errors.Join(err, below.Close())
	}
	return below, nil
}

func (f *osFolder) Mkdir(name string, mode fs.FileMode) error {
	if err := single(name); err != nil {
		return err
	}
	return f.root.Mkdir(name, mode)
}

func (f *osFolder) Open(name string, write bool) (Handle, error) {
	before, err := f.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, notRegular(f.path(name))
	}
	flag := os.O_RDONLY
	if write {
		flag = os.O_RDWR
	}
	file, err := f.root.OpenFile(name, flag|notBlocking, 0)
	if err != nil {
		return nil, err
	}
	after, err := file.Stat()
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%w: %s", ErrReplaced, f.path(name))
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return &osHandle{File: file}, nil
}

func (f *osFolder) Create(name string, mode fs.FileMode) (Handle, error) {
	if err := single(name); err != nil {
		return nil, err
	}
	file, err := f.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, err
	}
	scatter(file)
	return &osHandle{File: file}, nil
}

func (f *osFolder) Remove(name string) error {
	if err := single(name); err != nil {
		return err
	}
	return f.root.Remove(name)
}

func (f *osFolder) Move(name string, to Folder, toName string, replace bool) error {
	into, ok := to.(*osFolder)
	if !ok || into.top != f.top {
		return fmt.Errorf("move %s: the folders were not opened below the same one", f.path(name))
	}
	if err := errors.Join(single(name), single(toName)); err != nil {
		return err
	}
	err := moveAt(f.dir, name, into.dir, toName, replace)
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	from, dest := path.Join(f.name, name), path.Join(into.name, toName)
	if replace {
		return f.top.Rename(from, dest)
	}
	err = f.top.Link(from, dest)
	switch {
	case err == nil:
		return f.root.Remove(name)
	case errors.Is(err, fs.ErrExist):
		return err
	}
	// No links here: over an empty file that was made for it.
	place, err := into.Create(toName, 0o600)
	if err != nil {
		return err
	}
	if err = place.Close(); err == nil {
		err = f.top.Rename(from, dest)
	}
	if err != nil {
		return errors.Join(err, into.Remove(toName))
	}
	return nil
}

func (f *osFolder) Lock() bool { return lock(f.dir) }

func (f *osFolder) Sync() error { return syncOpenFolder(f.dir) }

func (f *osFolder) SyncVolume() error { return syncVolume(f.dir) }

func (f *osFolder) SyncsVolume() bool { return syncsVolume(f.dir) }

func (f *osFolder) Close() error { return errors.Join(f.dir.Close(), f.root.Close()) }

// path is how the user knows what is called name.
func (f *osFolder) path(name string) string { return filepath.Join(f.root.Name(), name) }

func single(name string) error {
	if name == "" || name == "." || name == ".." || filepath.Base(name) != name || !filepath.IsLocal(name) {
		return fmt.Errorf("%q is not a single name", name)
	}
	return nil
}
