//go:build linux || darwin

package store

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	noFollow    = unix.O_NOFOLLOW
	notBlocking = unix.O_NONBLOCK // a pipe that took a file's place must not hold us
)

// fileMode is what the user's umask makes of a new file. It can only be read by
// setting it, so that is done while no other goroutine can create files.
var fileMode = func() fs.FileMode {
	umask := unix.Umask(0o077)
	unix.Umask(umask)
	return 0o666 &^ fs.FileMode(umask)
}()

// lock takes the advisory lock on f and reports false if another process has it. A
// file system without locks counts as free.
func lock(f *os.File) bool {
	conn, err := f.SyscallConn()
	if err != nil {
		return true
	}
	free := true
	_ = conn.Control(func(fd uintptr) {
		free = unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) != unix.EWOULDBLOCK
	})
	return free
}

// unlock gives a lock back that would outlive f: a mapping of the file holds it too.
func unlock(f *os.File) {
	if conn, err := f.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { _ = unix.Flock(int(fd), unix.LOCK_UN) })
	}
}

// freeSpace returns how many bytes an ordinary user may still write in folder.
func freeSpace(folder string) (int64, bool) {
	var s unix.Statfs_t
	if unix.Statfs(folder, &s) != nil {
		return 0, false
	}
	return freeBytes(&s), true
}

// allocated returns how many bytes of the disk a file takes, holes left out.
func allocated(info fs.FileInfo) int64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Blocks * 512
	}
	return info.Size()
}

func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

func isReadOnly(err error) bool { return errors.Is(err, unix.EROFS) }

func isOtherDisk(err error) bool { return errors.Is(err, unix.EXDEV) }

// syncFolder makes the names in folder durable. File systems that have no such step
// say so, and that is no error.
func syncFolder(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer d.Close()
	return syncOpenFolder(d)
}

func syncOpenFolder(d *os.File) error {
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}

// withFolders runs call on two open folders, again while a signal interrupts it.
func withFolders(a, b *os.File, call func(a, b int) error) error {
	first, err := a.SyscallConn()
	if err != nil {
		return err
	}
	second, err := b.SyscallConn()
	if err != nil {
		return err
	}
	var inner, failed error
	err = first.Control(func(x uintptr) {
		inner = second.Control(func(y uintptr) {
			for failed = unix.EINTR; errors.Is(failed, unix.EINTR); {
				failed = call(int(x), int(y))
			}
		})
	})
	return cmp.Or(err, inner, failed)
}

// openLimit returns how many files the process may have open.
func openLimit() uint64 {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) != nil {
		return 1024
	}
	return min(r.Cur, 1<<20)
}
