package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Disk is everything that the store asks of the file system. Tests put one in its
// place that records, fails, or loses what a power cut may lose (storetest).
type Disk interface {
	Lstat(path string) (fs.FileInfo, error)
	Stat(path string) (fs.FileInfo, error)

	// Open opens the regular file at path, which is not a link, for reading, and for
	// writing with write. ErrInUse if another process fills it.
	Open(path string, write bool) (Handle, error)
	// Create makes a new file for its owner alone and opens it; path must be free.
	Create(path string) (Handle, error)

	Remove(path string) error
	Rename(from, to string) error          // replaces what has the name to
	RenameExclusive(from, to string) error // fs.ErrExist if there is something
	SyncFolder(folder string) error        // makes the names in it durable

	// Folder opens a folder, for what is to stay below it.
	Folder(path string) (Folder, error)

	// Free returns how many bytes may still be written in folder, if that is known.
	Free(folder string) (int64, bool)

	// Journal runs change, which opens or changes the database file at path and
	// syncs it by its own means: the pages first, then what makes them valid.
	Journal(path string, change func() error) error
}

// Handle is an open partial or finished file.
type Handle interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Datasync() error // what was written, and the size, are on the device when it returns
	Uncached()       // reads come from the device from now on, as far as the system lets
	// Watch has it noticed from now on who else writes to the file. Touched reports whether
	// somebody has, since then or since the last call; told is false where that cannot be told.
	Watch()
	Touched() (touched, told bool)
	Stat() (fs.FileInfo, error)
	Chmod(mode fs.FileMode) error
}

// OS is the Disk of the operating system.
var OS Disk = osDisk{}

type osDisk struct{}

// osHandle is a file of the operating system.
type osHandle struct {
	*os.File
	watch watch
}

// writeSize is how much is handed to the system at a time. For longer writes it takes its cache in
// longer runs of memory, which a virtual machine has often given back to its host and has to
// get again: 1 GiB then took 1.1 to 1.8 s of processor time, and 0.3 s in such small ones.
const writeSize = 16 << 10

// WriteAt writes b in small portions.
func (h *osHandle) WriteAt(b []byte, off int64) (n int, err error) {
	for {
		part := b[n:min(n+writeSize, len(b))]
		wrote, err := h.File.WriteAt(part, off+int64(n))
		if n += wrote; err != nil || n == len(b) {
			return n, err
		}
	}
}

func (h *osHandle) Datasync() error { return datasync(h.File) }
func (h *osHandle) Uncached()       { dropCache(h.File) }

// Watch implements Handle.
func (h *osHandle) Watch() { h.watch = watchFile(h.File) }

// Touched implements Handle.
func (h *osHandle) Touched() (touched, told bool) { return h.watch.touched() }

// Close implements Handle.
func (h *osHandle) Close() error {
	h.watch.end()
	return h.File.Close()
}

func (osDisk) Lstat(path string) (fs.FileInfo, error) { return os.Lstat(path) }
func (osDisk) Stat(path string) (fs.FileInfo, error)  { return os.Stat(path) }
func (osDisk) Remove(path string) error               { return os.Remove(path) }
func (osDisk) Rename(from, to string) error           { return os.Rename(from, to) }
func (osDisk) RenameExclusive(from, to string) error  { return renameExclusive(from, to) }
func (osDisk) SyncFolder(folder string) error         { return syncFolder(folder) }
func (osDisk) Free(folder string) (int64, bool)       { return freeSpace(folder) }

func (osDisk) Journal(_ string, change func() error) error { return change() }

func (osDisk) Open(path string, write bool) (Handle, error) {
	before, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, notRegular(path)
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
	return &osHandle{File: file}, nil
}

// Create makes the file sparse too, so that pieces can be written in any order.
func (osDisk) Create(path string) (Handle, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|noFollow, 0o600)
	if err != nil {
		return nil, err
	}
	lock(file)
	scatter(file)
	return &osHandle{File: file}, nil
}

// notRegular refuses a link, a device or a folder that has the partial file's name.
func notRegular(path string) error {
	return fmt.Errorf("%w: %s is a link or a folder, not the file that was begun; move it away and run the same command again", ErrReplaced, path)
}

// createError tells why the file at path could not be made or opened for writing.
func (j *Journal) createError(path string, err error) error {
	switch {
	case errors.Is(err, ErrReplaced), errors.Is(err, ErrInUse), Passing(err):
		return err
	case isFull(err):
		return j.diskFull(path, 1)
	case isReadOnly(err):
		return readOnly(path)
	}
	return fmt.Errorf("%w: %w; look at the permissions of %s, or choose another folder with -d", ErrCannotCreate, err, filepath.Dir(path))
}

// diskFull returns the error for need bytes that path's disk has no room for.
func (j *Journal) diskFull(path string, need int64) error {
	folder := filepath.Dir(path)
	free, ok := j.disk.Free(folder)
	if !ok {
		free = -1
	}
	return &DiskFullError{Folder: folder, Need: need, Free: free}
}

// checkRoom reports a DiskFullError if a file of size bytes at path, of which there
// are allocated ones, will not fit.
func (j *Journal) checkRoom(path string, size, allocated int64) error {
	folder := filepath.Dir(path)
	free, ok := j.disk.Free(folder)
	if need := size - allocated; ok && need > free {
		return &DiskFullError{Folder: folder, Need: need, Free: free}
	}
	return nil
}

// writeError gives an error of writing the file at path, that still needs room for
// missing bytes, the name that callers branch on.
func (j *Journal) writeError(path string, missing int64, err error) error {
	switch {
	case isFull(err):
		return j.diskFull(path, missing)
	case isReadOnly(err):
		return readOnly(path)
	}
	return err
}

func readOnly(path string) error {
	return fmt.Errorf("%w: nothing can be written in %s; mount it for writing", ErrReadOnly, filepath.Dir(path))
}

// Free returns how many bytes an ordinary user may still write in folder, and
// whether that is known.
func (j *Journal) Free(folder string) (int64, bool) { return j.disk.Free(folder) }
