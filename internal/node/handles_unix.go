//go:build unix

package node

import "syscall"

// openLimit returns how many files and connections this process may have open; 0 where
// that is not known.
func openLimit() int {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil {
		return 0
	}
	return int(min(uint64(l.Cur), mostHandles)) //nolint:unconvert // its type differs between systems
}
