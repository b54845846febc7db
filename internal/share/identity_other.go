//go:build !unix

package share

import "io/fs"

// placeOf returns where on the disk a file is: nothing that can be had without opening
// it, so that its path stands for it.
func placeOf(fs.FileInfo) (device, inode uint64) { return 0, 0 }
