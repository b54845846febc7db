package share

import (
	"io/fs"
	"syscall"
)

// changedOf returns when anything of a file changed last (nanoseconds since 1970), which
// nobody can set; 0 where the system does not say.
func changedOf(info fs.FileInfo) int64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Ctim.Nano()
	}
	return 0
}
