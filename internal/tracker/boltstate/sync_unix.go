//go:build unix

package boltstate

import (
	"errors"
	"os"
	"syscall"
)

// syncDir makes the name of a new file durable.
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
