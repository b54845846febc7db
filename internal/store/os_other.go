//go:build !linux && !darwin && !windows

package store

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

const (
	noFollow    = 0
	notBlocking = 0
	fileMode    = fs.FileMode(0o644)
)

func datasync(f *os.File) error { return f.Sync() }

func dropCache(*os.File) {}

func lock(*os.File) bool { return true }

func unlock(*os.File) {}

func scatter(*os.File) {}

func renameNew(from, to string) error { return errors.ErrUnsupported }

func freeSpace(string) (int64, bool) { return 0, false }

func allocated(info fs.FileInfo) int64 { return info.Size() }

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) }

func isReadOnly(err error) bool { return errors.Is(err, syscall.EROFS) }

func isOtherDisk(err error) bool { return errors.Is(err, syscall.EXDEV) }

func syncFolder(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer d.Close()
	return syncOpenFolder(d)
}

func syncOpenFolder(d *os.File) error { return d.Sync() }

func moveAt(*os.File, string, *os.File, string, bool) error { return errors.ErrUnsupported }

// syncsVolume: nothing here syncs a whole volume and waits for it.
func syncsVolume(*os.File) bool { return false }

func syncVolume(*os.File) error { return errors.ErrUnsupported }

func changeOf(fs.FileInfo) (changed int64, inode uint64) { return 0, 0 }

// openLimit: no limit is known.
func openLimit() uint64 { return 1 << 14 }
