package store

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

func datasync(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		for {
			if failed = unix.Fdatasync(int(fd)); failed != unix.EINTR {
				return
			}
		}
	})
	if err == nil && failed != nil {
		err = &os.PathError{Op: "fdatasync", Path: f.Name(), Err: failed}
	}
	return err
}

// dropCache asks the system to read f from the device from now on.
func dropCache(f *os.File) {
	if conn, err := f.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { _ = unix.Fadvise(int(fd), 0, 0, unix.FADV_DONTNEED) })
	}
}

// scatter keeps the system from reading ahead of what is asked for. In a file whose pieces
// come in any order that fills its cache with the zeros of holes: with pieces of 64 KiB it took a
// quarter of the time of reading.
func scatter(f *os.File) {
	if conn, err := f.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { _ = unix.Fadvise(int(fd), 0, 0, unix.FADV_RANDOM) })
	}
}

// renameNew renames a file to a name that must be free, in one step. The error is
// errors.ErrUnsupported if the system or its file system has no such step.
func renameNew(from, to string) error {
	var err error
	for again := true; again; again = errors.Is(err, unix.EINTR) {
		err = unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EPERM):
		return errors.ErrUnsupported
	}
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
}

// moveAt renames a file from one open folder to another, replacing or not what has the
// name there. errors.ErrUnsupported as of renameNew.
func moveAt(from *os.File, name string, to *os.File, toName string, replace bool) error {
	flags := uint(unix.RENAME_NOREPLACE)
	if replace {
		flags = 0
	}
	err := withFolders(from, to, func(from, to int) error { return unix.Renameat2(from, name, to, toName, flags) })
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EPERM):
		return errors.ErrUnsupported
	}
	return &os.LinkError{Op: "rename", Old: name, New: toName, Err: err}
}

// tellsOfVolume: from 5.8 on syncfs fails if writing anything back has failed since the
// folder was opened.
var tellsOfVolume = sync.OnceValue(func() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	release := strings.SplitN(unix.ByteSliceToString(u.Release[:]), ".", 3)
	if len(release) < 2 {
		return false
	}
	major, err := strconv.Atoi(release[0])
	minor, err2 := strconv.Atoi(strings.TrimRight(release[1], "abcdefghijklmnopqrstuvwxyz-"))
	return err == nil && err2 == nil && (major > 5 || major == 5 && minor >= 8)
})

// syncsVolume knows the file systems whose syncfs flushes the device: others, such as
// FUSE, may call good what is still on its way.
func syncsVolume(folder *os.File) bool {
	var s unix.Statfs_t
	if !tellsOfVolume() || withFolders(folder, folder, func(fd, _ int) error { return unix.Fstatfs(fd, &s) }) != nil {
		return false
	}
	switch uint32(s.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return true
	}
	return false
}

func syncVolume(folder *os.File) error {
	if err := withFolders(folder, folder, func(fd, _ int) error { return unix.Syncfs(fd) }); err != nil {
		return &os.PathError{Op: "syncfs", Path: folder.Name(), Err: err}
	}
	return nil
}

func freeBytes(s *unix.Statfs_t) int64 {
	unit := s.Frsize
	if unit <= 0 {
		unit = s.Bsize
	}
	return int64(s.Bavail * uint64(unit))
}

func changeOf(info fs.FileInfo) (changed int64, inode uint64) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Ctim.Nano(), s.Ino
	}
	return 0, 0
}
