package room

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// renameNoReplace gives from the name to unless that is taken. A file system that
// cannot do that in one step is asked for a hard link, which Android in turn forbids.
func renameNoReplace(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	if err := os.Link(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}
