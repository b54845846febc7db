package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// handle is an open partial or finished file.
type handle interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Datasync() error // what was written is on the device when it returns
	Stat() (fs.FileInfo, error)
	Chmod(fs.FileMode) error
}

type osHandle struct{ *os.File }

func (h osHandle) Datasync() error { return datasync(h.File) }

// openRegular opens the regular file at path for reading, and for writing with write.
// A link, a device or a folder of that name is ErrCannotCreate and left alone; a file
// that another process fills is ErrInUse.
func (j *Journal) openRegular(path string, write bool) (handle, error) {
	before, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file and is not touched; move it away", ErrCannotCreate, path)
	}
	flag := os.O_RDONLY
	if write {
		flag = os.O_RDWR
	}
	file, err := os.OpenFile(path, flag|noFollow, 0)
	if err != nil {
		return nil, err
	}
	after, err := file.Stat()
	switch {
	case err != nil:
	case !os.SameFile(before, after):
		err = fmt.Errorf("%w: %s", ErrReplaced, path)
	case write && !lock(file):
		err = fmt.Errorf("%s: %w", path, ErrInUse)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return j.wrapped(file), nil
}

// create makes the partial file, private to its owner and sparse; path must be free.
func (j *Journal) create(path string) (handle, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|noFollow, 0o600)
	if err != nil {
		return nil, err
	}
	lock(file)
	makeSparse(file)
	return j.wrapped(file), nil
}

func (j *Journal) wrapped(file *os.File) handle {
	if j.wrap != nil {
		return j.wrap(osHandle{file})
	}
	return osHandle{file}
}

// createError tells why the partial file at path could not be made.
func createError(path string, err error) error {
	switch {
	case errors.Is(err, ErrCannotCreate), errors.Is(err, ErrInUse), errors.Is(err, ErrDiskFull):
		return err
	case isFull(err):
		return diskFull(path, 1)
	}
	return fmt.Errorf("%w: %w", ErrCannotCreate, err)
}

// diskFull returns the error for need bytes that path's disk has no room for.
func diskFull(path string, need int64) error {
	folder := filepath.Dir(path)
	free, ok := freeSpace(folder)
	if !ok {
		free = -1
	}
	return &DiskFullError{Folder: folder, Need: need, Free: free}
}

// checkRoom reports a DiskFullError if a file of size bytes at path, of which there
// are allocated ones, will not fit.
func checkRoom(path string, size, allocated int64) error {
	folder := filepath.Dir(path)
	free, ok := freeSpace(folder)
	if need := size - allocated; ok && need > free {
		return &DiskFullError{Folder: folder, Need: need, Free: free}
	}
	return nil
}
