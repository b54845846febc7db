package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"dragonload/internal/piece"

	"go.etcd.io/bbolt"
)

// A content of several files often is the next version of one that lies beside it, finished
// or begun. What is equal in both is copied from there: nothing there is changed, and a
// piece is taken only if its bytes have the digest that it must have.

const (
	// maxBeside bounds the folders that are looked through, maxWalked what is looked at in
	// each, maxAlike the files of one size that are tried for one that has another name.
	maxBeside = 8
	maxWalked = 200_000
	maxAlike  = 4
)

// Beside returns the folders beside the target in which contents of several files were
// downloaded, the newest first, that may have something of this one.
func (f *File) Beside() ([]string, error) {
	if f.tree == nil {
		return nil, nil
	}
	all, err := f.journal.treesIn(filepath.Dir(f.o.Target))
	all = slices.DeleteFunc(all, func(name string) bool { return name == f.tree.name || name == f.tree.part })
	return all[:min(len(all), maxBeside)], err
}

// treesIn returns the names of the folders in a folder in which contents of several files
// are, finished or begun.
func (j *Journal) treesIn(folder string) ([]string, error) {
	type numbered struct {
		name   string
		number uint64
	}
	var found []numbered
	prefix := strings.TrimSuffix(folder, string(filepath.Separator)) + string(filepath.Separator)
	err := j.guard(func() error {
		return j.db.View(func(tx *bbolt.Tx) error {
			each := func(b *bbolt.Bucket, do func(path string, value []byte)) {
				if b == nil {
					return
				}
				c := b.Cursor()
				for key, value := c.Seek([]byte(prefix)); key != nil && strings.HasPrefix(string(key), prefix); key, value = c.Next() {
					if filepath.Dir(string(key)) == filepath.Clean(folder) {
						do(string(key), value)
					}
				}
			}
			each(tx.Bucket(keptBucket), func(path string, value []byte) {
				// A record that cannot be read is none.
				if k, number, err := decodeKept(path, value); err == nil && k.Tree {
					found = append(found, numbered{filepath.Base(path), number})
				}
			})
			all := tx.Bucket(downloadsBucket)
			each(all, func(path string, _ []byte) {
				r, err := decodeRecord(all.Bucket([]byte(path)).Get(recordKey))
				if err == nil && r.tree {
					name := filepath.Base(path)
					found = append(found, numbered{name + ".part", ^uint64(0)}, numbered{name, ^uint64(0)})
				}
			})
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read journal %s: %w", j.path, err)
	}
	slices.SortStableFunc(found, func(a, b numbered) int {
		switch {
		case a.number > b.number:
			return -1
		case a.number < b.number:
			return 1
		}
		return 0
	})
	var names []string
	for _, n := range found {
		if !slices.Contains(names, n.name) {
			names = append(names, n.name)
		}
	}
	return names, nil
}

// Gather copies what is missing and lies in these folders, which Beside returned. Begin was
// called. It returns how many bytes those were, and the folders that they came from.
func (f *File) Gather(ctx context.Context, folders []string) (bytes int64, from []string, err error) {
	buf := make([]byte, f.tree.o.Layout.Longest())
	for _, name := range folders {
		there := &beside{tree: f.tree, name: name, bySize: make(map[int64][]string), has: make(map[string]struct{})}
		if err := there.walk(name); err != nil {
			f.o.Log.Info("a folder beside a download is not looked through", "folder", name, "error", err)
			continue
		}
		n := int64(0)
		for k, file := range f.tree.o.Files {
			if file.Skip || file.Size == 0 || !f.lacks(k) {
				continue
			}
			m, err := f.gatherFile(ctx, there, k, buf)
			if n += m; err != nil {
				return bytes + n, from, err
			}
		}
		if n > 0 {
			bytes += n
			from = append(from, filepath.Join(filepath.Dir(f.o.Target), name))
		}
	}
	return bytes, from, nil
}

// Held returns the pieces that are stored now.
func (f *File) Held() piece.Bitfield {
	f.life.RLock()
	defer f.life.RUnlock()
	if f.p == nil {
		return piece.Bitfield{}
	}
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	return f.p.have.Clone()
}

// lacks reports whether a piece of file k is missing.
func (f *File) lacks(k int) bool {
	_, pieces := f.tree.o.Layout.File(k)
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	i, ok := f.p.have.NextUnset(pieces.First)
	return ok && i < pieces.End()
}

// beside is what is in a folder beside a tree.
type beside struct {
	tree   *tree
	name   string
	walked int
	has    map[string]struct{} // files, by their paths
	bySize map[int64][]string
}

// walk looks at what is in a folder, and below. Links are not followed.
func (b *beside) walk(rel string) error {
	folder, done, err := b.tree.branch.folder(rel, 0)
	if err != nil {
		return err
	}
	names, err := folder.Names()
	if err != nil {
		done()
		return err
	}
	slices.Sort(names)
	var below []string
	for _, name := range names {
		if b.walked++; b.walked > maxWalked {
			break
		}
		info, err := folder.Lstat(name)
		at := path.Join(rel, name)
		switch {
		case err != nil:
		case info.IsDir() && strings.Count(at, "/") < maxDepth:
			below = append(below, at)
		case info.Mode().IsRegular() && info.Size() > 0:
			b.has[at] = struct{}{}
			if same := b.bySize[info.Size()]; len(same) < maxAlike {
				b.bySize[info.Size()] = append(same, at)
			}
		}
	}
	done()
	for _, at := range below {
		if err := b.walk(at); err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// gatherFile copies what is missing of file k: from the file of its name, whatever that has
// of it, or else from one of its size.
func (f *File) gatherFile(ctx context.Context, there *beside, k int, buf []byte) (bytes int64, err error) {
	own := path.Join(there.name, f.tree.o.Files[k].Path)
	if _, ok := there.has[own]; ok {
		if bytes, err = f.copyFrom(ctx, own, k, true, buf); err != nil {
			return bytes, err
		}
	}
	for _, rel := range there.bySize[f.tree.o.Files[k].Size] {
		if rel == own || !f.lacks(k) {
			continue
		}
		n, err := f.copyFrom(ctx, rel, k, false, buf)
		if bytes += n; err != nil {
			return bytes, err
		}
	}
	return bytes, nil
}

// copyFrom copies the pieces of file k that are missing and that a file has at their places;
// unless all are to be tried, none if it has not the first of them.
func (f *File) copyFrom(ctx context.Context, rel string, k int, all bool, buf []byte) (bytes int64, err error) {
	h, err := f.tree.branch.open(rel, false)
	if err != nil {
		return 0, nil // it is not there any more, or not to be read
	}
	defer h.Close()
	layout := f.tree.o.Layout
	whole, pieces := layout.File(k)
	for i := pieces.First; i < pieces.End(); i++ {
		if err := ctx.Err(); err != nil {
			return bytes, err
		}
		if _, held := f.p.digest(i); held {
			continue
		}
		r := layout.Range(i)
		data := buf[:r.Len()]
		n, _ := h.ReadAt(data, r.Start-whole.Start)
		if n < len(data) || layout.Sum(i, data) != f.tree.o.Digests[i] {
			if !all {
				return bytes, nil
			}
			continue
		}
		if err := f.Write(i, data, f.tree.o.Digests[i], false); err != nil {
			return bytes, err
		}
		bytes += r.Len()
	}
	return bytes, nil
}
