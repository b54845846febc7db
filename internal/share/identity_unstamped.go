//go:build !linux && !darwin

package share

import "io/fs"

// changedOf: nothing here tells of a file what nobody can set.
func changedOf(fs.FileInfo) int64 { return 0 }
