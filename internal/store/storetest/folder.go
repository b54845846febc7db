package storetest

import (
	"io/fs"
	"path/filepath"

	"dragonload/internal/store"
)

// Folder implements store.Disk.
func (r *Recorder) Folder(path string) (store.Folder, error) {
	f, err := r.Disk.Folder(path)
	if err != nil {
		return nil, err
	}
	return &recordedFolder{opened: f, r: r, path: r.rel(path)}, nil
}

// opened is a folder of the disk below.
type opened = store.Folder

// recordedFolder is an open folder of a Recorder.
type recordedFolder struct {
	opened
	r    *Recorder
	path string // relative to the root
}

func (f *recordedFolder) Folder(name string) (store.Folder, error) {
	below, err := f.opened.Folder(name)
	if err != nil {
		return nil, err
	}
	return &recordedFolder{opened: below, r: f.r, path: filepath.Join(f.path, name)}, nil
}

func (f *recordedFolder) Mkdir(name string, mode fs.FileMode) error {
	err := f.opened.Mkdir(name, mode)
	if err == nil {
		f.r.add(Op{Kind: Mkdir, Path: filepath.Join(f.path, name)})
	}
	return err
}

func (f *recordedFolder) Open(name string, write bool) (store.Handle, error) {
	h, err := f.opened.Open(name, write)
	if err != nil {
		return nil, err
	}
	return &recorded{Handle: h, r: f.r, file: f.r.file(filepath.Join(f.path, name))}, nil
}

func (f *recordedFolder) Create(name string, mode fs.FileMode) (store.Handle, error) {
	h, err := f.opened.Create(name, mode)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(f.path, name)
	f.r.add(Op{Kind: Create, Path: path})
	return &recorded{Handle: h, r: f.r, file: f.r.file(path)}, nil
}

func (f *recordedFolder) Remove(name string) error {
	err := f.opened.Remove(name)
	if err == nil {
		f.r.add(Op{Kind: Remove, Path: filepath.Join(f.path, name)})
	}
	return err
}

func (f *recordedFolder) Move(name string, to store.Folder, toName string, replace bool) error {
	into, ok := to.(*recordedFolder)
	if !ok {
		return f.opened.Move(name, to, toName, replace)
	}
	err := f.opened.Move(name, into.opened, toName, replace)
	if err == nil {
		f.r.add(Op{Kind: Rename, Path: filepath.Join(f.path, name), To: filepath.Join(into.path, toName)})
	}
	return err
}

func (f *recordedFolder) Sync() error {
	upto := f.r.next()
	err := f.opened.Sync()
	if err == nil {
		f.r.add(Op{Kind: SyncFolder, Path: f.path, Upto: upto})
	}
	return err
}

func (f *recordedFolder) SyncVolume() error {
	upto := f.r.next()
	err := f.opened.SyncVolume()
	if err == nil {
		f.r.add(Op{Kind: SyncAll, Upto: upto})
	}
	return err
}

// Folder implements store.Disk.
func (f *Faulty) Folder(path string) (store.Folder, error) {
	below, err := f.Disk.Folder(path)
	if err != nil {
		return nil, err
	}
	return &faultyFolder{opened: below, f: f, path: path}, nil
}

// faultyFolder is an open folder of a Faulty. A failing SyncVolume drops nothing.
type faultyFolder struct {
	opened
	f    *Faulty
	path string
}

func (f *faultyFolder) Folder(name string) (store.Folder, error) {
	below, err := f.opened.Folder(name)
	if err != nil {
		return nil, err
	}
	return &faultyFolder{opened: below, f: f.f, path: filepath.Join(f.path, name)}, nil
}

// fails is Faulty.fails for a name in the folder.
func (f *faultyFolder) fails(op, name string, sync bool) error {
	if err := f.f.fails(sync); err != nil {
		return pathError(op, filepath.Join(f.path, name), err)
	}
	return nil
}

func (f *faultyFolder) Mkdir(name string, mode fs.FileMode) error {
	if err := f.fails("mkdir", name, false); err != nil {
		return err
	}
	return f.opened.Mkdir(name, mode)
}

func (f *faultyFolder) Open(name string, write bool) (store.Handle, error) {
	h, err := f.opened.Open(name, write)
	if err != nil {
		return nil, err
	}
	return &faultyHandle{Handle: h, f: f.f, path: filepath.Join(f.path, name)}, nil
}

func (f *faultyFolder) Create(name string, mode fs.FileMode) (store.Handle, error) {
	if err := f.fails("open", name, false); err != nil {
		return nil, err
	}
	h, err := f.opened.Create(name, mode)
	if err != nil {
		return nil, err
	}
	return &faultyHandle{Handle: h, f: f.f, path: filepath.Join(f.path, name)}, nil
}

func (f *faultyFolder) Remove(name string) error {
	if err := f.fails("remove", name, false); err != nil {
		return err
	}
	return f.opened.Remove(name)
}

func (f *faultyFolder) Move(name string, to store.Folder, toName string, replace bool) error {
	if err := f.fails("rename", name, false); err != nil {
		return err
	}
	if into, ok := to.(*faultyFolder); ok {
		to = into.opened
	}
	return f.opened.Move(name, to, toName, replace)
}

func (f *faultyFolder) Sync() error {
	if err := f.fails("sync", "", false); err != nil {
		return err
	}
	return f.opened.Sync()
}

func (f *faultyFolder) SyncVolume() error {
	if err := f.fails("sync", "", true); err != nil {
		return err
	}
	return f.opened.SyncVolume()
}
