//go:build unix && !linux

package room

import "os"

// renameNoReplace gives from the name to unless that is taken.
func renameNoReplace(from, to string) error {
	if err := os.Link(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}
