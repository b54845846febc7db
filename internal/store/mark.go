package store

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
)

// Until a download is in the journal, which is after its first batch, a mark in the
// state folder says whose its partial file is: a run that was killed before must not
// take its own file for somebody else's. Nothing is synced for it.

func (j *Journal) markPath(target string) string {
	sum := sha256.Sum256([]byte(target))
	return filepath.Join(filepath.Dir(j.path), fmt.Sprintf("begun-%x", sum[:8]))
}

func markText(o *Options) []byte { return []byte(o.Target + "\n" + o.Part + "\n" + o.Source + "\n") }

// mark says that the partial file of o is about to be made.
func (j *Journal) mark(o *Options) error {
	path := j.markPath(o.Target)
	_ = j.disk.Remove(path)
	h, err := j.disk.Create(path)
	if err != nil {
		return err
	}
	_, err = h.WriteAt(markText(o), 0)
	if e := h.Close(); err == nil {
		err = e
	}
	return err
}

func (j *Journal) unmark(target string) { _ = j.disk.Remove(j.markPath(target)) }

// begun reports whether the partial file of target was made for a download, of whatever
// source, of which nothing is recorded yet.
func (j *Journal) begun(target, part string) bool {
	h, err := j.disk.Open(j.markPath(target), false)
	if err != nil {
		return false
	}
	defer h.Close()
	want := []byte(target + "\n" + part + "\n")
	got := make([]byte, len(want))
	n, _ := h.ReadAt(got, 0)
	return string(got[:n]) == string(want)
}

// marked reports whether the partial file of o is known to have been made for it.
func (j *Journal) marked(o *Options) bool {
	h, err := j.disk.Open(j.markPath(o.Target), false)
	if err != nil {
		return false
	}
	defer h.Close()
	want := markText(o)
	got := make([]byte, len(want)+1)
	n, _ := h.ReadAt(got, 0)
	return string(got[:n]) == string(want)
}
