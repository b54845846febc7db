package store

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

const (
	noFollow    = 0
	notBlocking = 0
	fileMode    = fs.FileMode(0o666)
)

func datasync(f *os.File) error { return f.Sync() }

// dropCache is left to the system: a new handle is all that it offers.
func dropCache(*os.File) {}

// lock: Windows itself lets nobody rename or remove a file that is open.
func lock(*os.File) bool { return true }

func unlock(*os.File) {}

// scatter keeps the system from filling with zeros what lies before a write. A
// file system that cannot do it fills; that is slow, not wrong.
func scatter(f *os.File) {
	var n uint32
	_ = windows.DeviceIoControl(windows.Handle(f.Fd()), windows.FSCTL_SET_SPARSE, nil, 0, nil, 0, &n, nil)
}

// renameNew renames a file to a name that must be free, in one step. The error is
// errors.ErrUnsupported if the system or its file system has no such step.
func renameNew(from, to string) error {
	old, err := windows.UTF16PtrFromString(from)
	if err != nil {
		return err
	}
	name, err := windows.UTF16PtrFromString(to)
	if err != nil {
		return err
	}
	err = windows.MoveFileEx(old, name, windows.MOVEFILE_WRITE_THROUGH)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, windows.ERROR_PATH_NOT_FOUND):
		return errors.ErrUnsupported // a path too long for this call, not for package os
	}
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
}

// freeSpace returns how many bytes this user may still write in folder.
func freeSpace(folder string) (int64, bool) {
	name, err := windows.UTF16PtrFromString(folder)
	if err != nil {
		return 0, false
	}
	var free uint64
	if windows.GetDiskFreeSpaceEx(name, &free, nil, nil) != nil {
		return 0, false
	}
	return int64(min(free, 1<<62)), true
}

// allocated counts holes too, so that nothing is refused that may fit.
func allocated(info fs.FileInfo) int64 { return info.Size() }

func isFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

func isReadOnly(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }

func isOtherDisk(err error) bool { return errors.Is(err, windows.ERROR_NOT_SAME_DEVICE) }

// syncFolder: NTFS journals names; MOVEFILE_WRITE_THROUGH has waited for it.
func syncFolder(string) error { return nil }

func syncOpenFolder(*os.File) error { return nil }

func moveAt(*os.File, string, *os.File, string, bool) error { return errors.ErrUnsupported }

// syncsVolume: nothing here syncs a whole volume and waits for it.
func syncsVolume(*os.File) bool { return false }

func syncVolume(*os.File) error { return errors.ErrUnsupported }

func changeOf(fs.FileInfo) (changed int64, inode uint64) { return 0, 0 }

// openLimit: no limit is known.
func openLimit() uint64 { return 1 << 14 }
