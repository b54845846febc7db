package store

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// datasync is a full one: on Apple's systems fsync alone leaves data in the drive.
func datasync(f *os.File) error { return f.Sync() }

// dropCache is left to the system: a new handle is all that it offers.
func dropCache(*os.File) {}

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

func freeBytes(s *unix.Statfs_t) int64 { return int64(s.Bavail * uint64(s.Bsize)) }
