package share

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"dragonload/internal/manifest"
	"dragonload/internal/piece"
)

// scan is one look at what a share consists of.
type scan struct {
	library *Library
	number  uint64 // of the share; 0 for one that is new
	spec    Spec
	was     Manifest // of what its web seeds have; zero: of whatever is there
	// Files that changed after this are still being written, and left out; zero: none is.
	quiet time.Time
	// Files, as they were when they were hashed, whose bytes have been found to be others.
	doubted map[identity]bool

	busy   bool // some were left out
	survey survey
	found  map[string]identity
	proofs map[string]proof
}

// build makes the manifest.
func (s *scan) build(ctx context.Context, progress func(done, total int64)) (*manifest.Torrent, []manifest.Skipped, error) {
	s.library.watcher.parent(s.number, s.spec.Path)
	in, name, err := openShared(s.spec.Path)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = in.root.Close() }() // was only read
	guard := s.library.guard(s.spec.Path)
	if err := guard.refuse(); err != nil {
		return nil, nil, err
	}
	memory := &memory{library: s.library, loaded: make(map[uint64]*remembered)}
	s.found, s.proofs, s.survey, s.busy = make(map[string]identity), make(map[string]proof), survey{}, false
	t, skipped, err := manifest.BuildTorrent(ctx, in, name, manifest.BuildOptions{
		Name: s.spec.Name, Private: s.spec.Private, WebSeeds: s.spec.webSeeds(name == "."),
		CreatedBy: s.library.o.CreatedBy, Workers: s.library.o.Workers, Progress: progress,
		Enter: func(folder string) {
			s.library.watcher.watch(s.number, filepath.Join(s.spec.Path, filepath.FromSlash(folder)), "")
		},
		Leave: func(at string, info fs.FileInfo) string {
			if why := guard.leave(at, info); why != "" || info.IsDir() {
				return why
			}
			return s.leave(in.root, at, info)
		},
		Known: func(file string, info fs.FileInfo, length int64) []piece.Digest {
			id := identityOf(info)
			s.found[file] = id
			var digests []piece.Digest
			var proved proof
			if !s.doubted[id] {
				digests, proved = memory.digests(s.number, file, id, length)
			}
			if digests == nil {
				proved = proofOf(info, s.library.now()) // it is hashed from now on
			}
			s.proofs[file] = proved
			return digests
		},
	})
	if err != nil {
		return nil, nil, err
	}
	for _, f := range t.Files {
		s.survey.files = append(s.survey.files, seen{f.Path, s.found[f.Path]})
		s.survey.proofs = append(s.survey.proofs, s.proofs[f.Path])
	}
	s.survey.folders = t.Folders
	return t, skipped, nil
}

// doubt has files of a survey hashed again.
func (s *scan) doubt(old *survey, files []int) {
	for _, k := range files {
		if k >= 0 && k < len(old.files) {
			if s.doubted == nil {
				s.doubted = make(map[identity]bool)
			}
			s.doubted[old.files[k].identity] = true
		}
	}
}

// leave says why a file of a folder is left out for now.
func (s *scan) leave(root *os.Root, file string, info fs.FileInfo) string {
	if !s.quiet.IsZero() && info.ModTime().After(s.quiet) {
		s.busy = true
		return "it is still being written"
	}
	if id := identityOf(info); id.inode != 0 {
		if _, _, known := s.library.owner(id); known {
			return "" // it could be read once, and if that is no longer so building says it
		}
	}
	f, err := root.Open(filepath.FromSlash(file))
	if err == nil {
		// Opening is not all: a folder of another system may fail at the first byte.
		if _, err = f.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
			err = nil
		}
		f.Close()
	}
	if err != nil {
		return "it cannot be read: " + plain(err)
	}
	return ""
}

// plain is an error without the path, which stands beside it.
func plain(err error) string {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err.Error()
	}
	return err.Error()
}

// unchanged reports whether what is on disk is still what a survey says. It reads no
// file.
func (l *Library) unchanged(ctx context.Context, at string, old *survey) (bool, error) {
	in, name, err := openShared(at)
	if err != nil {
		return false, err
	}
	defer func() { _ = in.root.Close() }() // was only read
	guard := l.guard(at)
	if err := guard.refuse(); err != nil {
		return false, err
	}
	if name != "." {
		info, err := in.Stat(name)
		if err != nil || !info.Mode().IsRegular() || len(old.files) != 1 || len(old.folders) > 0 {
			return false, err
		}
		return old.files[0].identity == identityOf(info), nil
	}
	now := new(survey)
	if err := now.look(ctx, in, guard, "."); err != nil {
		return false, err
	}
	return slices.Equal(now.files, old.files) && slices.Equal(now.folders, old.folders), nil
}

// look adds what is in a folder, in the manifest's order. As there, what is in a folder that
// cannot be read is left out.
func (s *survey) look(ctx context.Context, fsys fs.FS, g *guard, at string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := fs.ReadDir(fsys, at)
	if err != nil {
		if at != "." && !errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	held := 0
	for _, e := range entries {
		if !e.IsDir() && e.Type() != 0 {
			continue
		}
		to := path.Join(at, e.Name())
		info, err := e.Info()
		if err != nil {
			return err
		}
		left := g.leave(to, info) != ""
		switch {
		case e.IsDir() && left:
			continue
		case e.IsDir():
			err = s.look(ctx, fsys, g, to)
		case !left:
			s.files = append(s.files, seen{to, identityOf(info)})
		}
		if err != nil {
			return err
		}
		held++
	}
	if held == 0 && at != "." {
		s.folders = append(s.folders, at)
	}
	return nil
}
