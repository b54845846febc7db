package node

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"dragonload/internal/manifest"
	"dragonload/internal/store"
)

// stdoutPrefix begins the names, in the state folder, of what goes to standard output.
const stdoutPrefix = "stdout-"

// maxRenames bounds the numbers that AutoRename tries.
const maxRenames = 10_000

// earlyTarget returns the final path if it is known before anything has been asked of
// the origin: the user named the file, or an earlier run left work on it.
func (d *download) earlyTarget() (string, bool, error) {
	switch {
	case d.stdout():
		return filepath.Join(d.node.opts.StateDir, fmt.Sprintf("%s%s-%d", stdoutPrefix, d.source[:16], os.Getpid())), true, nil
	case d.spec.Output != "":
		target, err := d.unused(d.spec.Output)
		return target, err == nil, err
	}
	targets, err := d.node.journal.Targets(d.source)
	if err != nil {
		return "", false, storeProblem(err)
	}
	for _, target := range targets {
		if filepath.Dir(target) == filepath.Clean(d.spec.Dir) && !d.evades(target) {
			return target, true, nil
		}
	}
	if target, ok := d.orphan(); ok && !d.evades(target) {
		return target, true, nil
	}
	if target, ok := d.movedTarget(); ok {
		return target, true, nil
	}
	if d.want != nil { // there is nobody to ask for another name
		target, err := d.lateTarget()
		return target, err == nil, err
	}
	return "", false, nil
}

// movedTarget returns the target of an unfinished download of another URL that this one
// would be called after too: a signed URL has another query each time. Whether it is the
// same file its version shows.
func (d *download) movedTarget() (string, bool) {
	if d.want != nil || d.lent != nil || d.serving != nil || d.spec.AutoRename || d.spec.Overwrite || d.spec.Restart {
		return "", false
	}
	target := filepath.Join(d.spec.Dir, nameFromURL(d.spec.URL))
	r, held, err := d.node.journal.Record(target)
	return target, err == nil && held && r.Target == target && !r.Tree
}

// orphan returns the target of a partial file that says itself that it is of this
// download: the journal that knew of it is lost.
func (d *download) orphan() (string, bool) {
	if d.isFolder() {
		return "", false // the store finds it beside the target
	}
	folder := d.node.opts.PartialDir
	if folder == "" {
		folder = d.spec.Dir
	}
	for _, part := range d.node.journal.Partials(folder, d.source) {
		target := strings.TrimSuffix(part, ".part")
		if d.node.opts.PartialDir != "" {
			name := filepath.Base(target)
			target = filepath.Join(d.spec.Dir, name[:max(0, strings.LastIndexByte(name, '-'))])
			if d.node.partOf(target) != part {
				continue
			}
		}
		return target, true
	}
	return "", false
}

// lateTarget returns the final path from the name that the origin gave, or else from
// the URL.
func (d *download) lateTarget() (string, error) {
	d.originMu.Lock()
	name := d.said.name
	d.originMu.Unlock()
	switch {
	case d.want != nil:
		name = d.want.torrent.Load().Name // has passed the name resolver
	case name == "":
		name = nameFromURL(d.spec.URL)
	}
	return d.unused(filepath.Join(d.spec.Dir, name))
}

// tellRefusedName says which name of the origin's was not taken, and what the file is
// called instead, where the origin was to name it.
func (d *download) tellRefusedName() {
	d.originMu.Lock()
	refused := d.said.refused
	d.originMu.Unlock()
	if refused == "" || d.want != nil {
		return
	}
	d.warn("name-refused", fmt.Sprintf("the name that the origin gives the file is not taken, for %s; the file is called %s (-o gives it another name)",
		refused, strconv.Quote(filepath.Base(d.target))))
}

// nameFromURL returns the last segment of the URL's path, if it may be a name.
func nameFromURL(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "download"
	}
	// Cut before it is decoded: an encoded slash separates nothing.
	segment, err := url.PathUnescape(path.Base(strings.TrimRight(u.EscapedPath(), "/")))
	if err != nil {
		return "download"
	}
	if name, err := manifest.CleanName(segment); err == nil {
		return name
	}
	return "download"
}

// renames reports whether the download takes another name where its own is taken.
func (d *download) renames() bool { return d.spec.AutoRename && !d.spec.Overwrite }

// evades reports whether the download is to have another name because a file has this
// one: work that an earlier run left on it stays there.
func (d *download) evades(target string) bool {
	if !d.renames() {
		return false
	}
	if d.taken[target] {
		return true
	}
	if d.isFolder() {
		// What is whole of an unfinished folder has its name already.
		if r, held, err := d.node.journal.Record(target); err == nil && held && d.isOfThis(r) {
			return false
		}
	}
	_, err := os.Lstat(target)
	return !errors.Is(err, fs.ErrNotExist)
}

// isOfThis reports whether an unfinished download is of what this one is of.
func (d *download) isOfThis(r store.Record) bool {
	if d.isFolder() {
		return r.Tree && r.Pin == d.want.pin()
	}
	return r.Source == d.source
}

// unused returns target, or with AutoRename the first of target, name.1, name.2, ...
// that does not exist or that an earlier run works on.
func (d *download) unused(target string) (string, error) {
	if !d.renames() {
		return target, nil
	}
	for k := range maxRenames {
		candidate := target
		if k > 0 {
			candidate = fmt.Sprintf("%s.%d", target, k)
		}
		if d.evades(candidate) {
			continue
		}
		record, held, err := d.node.journal.Record(candidate)
		if err != nil {
			return "", storeProblem(err)
		}
		if !held || d.isOfThis(record) {
			return candidate, nil
		}
	}
	return "", &Error{Problem: Problem{Code: "file-exists", Exit: ExitExists,
		Message: fmt.Sprintf("%s and %d numbered names after it exist; name another file with --output", target, maxRenames-1)}}
}

// partOf returns the path of the file that holds target while it is in progress; ""
// leaves it to the store, which puts it beside the target.
func (n *Node) partOf(target string) string {
	if n.opts.PartialDir == "" {
		return ""
	}
	// Targets of the same name in different folders must not meet there.
	sum := sha256.Sum256([]byte(target))
	return filepath.Join(n.opts.PartialDir, fmt.Sprintf("%s-%x.part", filepath.Base(target), sum[:4]))
}
