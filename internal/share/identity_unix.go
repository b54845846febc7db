//go:build unix

package share

import (
	"io/fs"
	"syscall"
)

// placeOf returns where on the disk a file is.
func placeOf(info fs.FileInfo) (device, inode uint64) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Dev), uint64(s.Ino) //nolint:unconvert // of other types on other systems
	}
	return 0, 0
}
