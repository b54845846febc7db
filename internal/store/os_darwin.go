package store

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// datasync is a full one: on Apple's systems fsync alone leaves data in the drive.
func datasync(f *os.File) error { return f.Sync() }

// dropCache is left to the system: a new handle is all that it offers.
func dropCache(*os.File) {}

func scatter(*os.File) {}

// renameNew renames a file to a name that must be free, in one step. The error is
// errors.ErrUnsupported if the system or its file system has no such step.
func renameNew(from, to string) error {
	err := unix.RenamexNp(from, to, unix.RENAME_EXCL)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOTSUP):
		return errors.ErrUnsupported
	}
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
}

// moveAt renames a file from one open folder to another, replacing or not what has the
// name there. errors.ErrUnsupported as of renameNew.
func moveAt(from *os.File, name string, to *os.File, toName string, replace bool) error {
	flags := uint32(unix.RENAME_EXCL)
	if replace {
		flags = 0
	}
	err := withFolders(from, to, func(from, to int) error { return unix.RenameatxNp(from, name, to, toName, flags) })
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOTSUP):
		return errors.ErrUnsupported
	}
	return &os.LinkError{Op: "rename", Old: name, New: toName, Err: err}
}

// syncsVolume: nothing here syncs a whole volume and waits for it.
func syncsVolume(*os.File) bool { return false }

func syncVolume(*os.File) error { return errors.ErrUnsupported }

func freeBytes(s *unix.Statfs_t) int64 { return int64(s.Bavail * uint64(s.Bsize)) }

func changeOf(info fs.FileInfo) (changed int64, inode uint64) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Ctimespec.Nano(), s.Ino
	}
	return 0, 0
}
