package store

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"strings"
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

// Begun returns the partial file that was made for a download to target, of whatever
// source, of which nothing is recorded yet.
func (j *Journal) Begun(target string) (part string, ok bool) {
	h, err := j.disk.Open(j.markPath(target), false)
	if err != nil {
		return "", false
	}
	defer h.Close()
	text := make([]byte, 3*maxPath)
	n, _ := h.ReadAt(text, 0)
	rest, ok := strings.CutPrefix(string(text[:n]), target+"\n")
	end := strings.LastIndexByte(strings.TrimSuffix(rest, "\n"), '\n') // a path may hold one, a source does not
	if !ok || end < 0 {
		return "", false
	}
	return rest[:end], true
}

func (j *Journal) begun(o *Options) bool {
	part, ok := j.Begun(o.Target)
	return ok && part == o.Part
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
