// Package share keeps the library of what this machine offers: files and folders, read
// where they are. It makes their manifests, remembers them in one bbolt file, notices
// when what is on disk has changed, and then makes the manifest anew, hashing only the
// files that are not as they were.
//
// A file is as it was if its size, its time of change and its place on the disk (device
// and inode) are. That saves reading it; nothing else rests on it, for whoever serves a
// piece compares the bytes with their digest.
//
// The package serves nothing and tells nobody but its owner. Start with Library.
package share
