//go:build unix

package room

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// checkPrivate refuses a file or folder of the state that somebody else owns or that
// has more permissions than allowed.
func checkPrivate(path string, allowed os.FileMode) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	own, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(own.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to another user (uid %d); run as that user, or name a state folder of your own in DRAGONLOAD_STATE_DIR", path, own.Uid)
	}
	if mode := info.Mode().Perm(); mode&^allowed != 0 {
		return fmt.Errorf("%s has mode %04o, so that others can reach the keys in it; put it right with: chmod %o %q", path, mode, allowed, path)
	}
	return nil
}

// syncDir makes the names in a folder durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	err = d.Sync()
	// Some network file systems cannot sync a folder and say so in this way.
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil
	}
	return errors.Join(err, d.Close())
}
