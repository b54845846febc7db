package share

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	pathpkg "path"
	"path/filepath"
	"strings"
)

var (
	// ErrOwn: what is to be shared is where the program keeps its own keys and records.
	ErrOwn = errors.New("dragonload keeps its own keys and records there, which are never shared")

	errLink = errors.New("its path is a link now; share it anew if that is meant")
)

// ownPlace is a file or folder of the program itself.
type ownPlace struct {
	path string      // without links
	info fs.FileInfo // nil: it is not there
}

func (o ownPlace) is(path string, info fs.FileInfo) bool {
	return strings.EqualFold(o.path, path) || o.info != nil && info != nil && os.SameFile(o.info, info)
}

// guard knows what must not get into a share that lies at top: what the program keeps for
// itself, what is being downloaded, and what is known to hold secrets of its user.
type guard struct {
	top     string
	own     []ownPlace
	filling func(path string) bool
}

// guard returns that of a share at a path, with the places as they are now.
func (l *Library) guard(top string) *guard {
	g := &guard{top: top, filling: l.o.Filling}
	for _, path := range l.o.Own {
		if straight, err := filepath.EvalSymlinks(path); err == nil {
			path = straight
		}
		info, err := os.Stat(path)
		if err != nil {
			info = nil
		}
		g.own = append(g.own, ownPlace{path, info})
	}
	return g
}

// refuse returns ErrOwn if the share is a place of the program, or lies in one.
func (g *guard) refuse() error {
	for at := g.top; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err != nil {
			info = nil
		}
		for _, o := range g.own {
			if o.is(at, info) {
				return fmt.Errorf("%w: %s", ErrOwn, o.path)
			}
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}

// leave says why something inside a folder, by its path there, is never part of the share.
func (g *guard) leave(inside string, info fs.FileInfo) string {
	path := filepath.Join(g.top, filepath.FromSlash(inside))
	for _, o := range g.own {
		if o.is(path, info) {
			return "dragonload keeps its own keys and records there"
		}
	}
	if strings.HasSuffix(inside, ".part") && g.filling(path) {
		return "it is being downloaded"
	}
	if isSecret(path) {
		return "it usually holds secrets; to share it all the same, name it itself"
	}
	return ""
}

// secrets are the names under which programs keep what only their user is to know: keys,
// passwords and tokens.
var secrets = []string{
	".ssh", ".gnupg", ".netrc", "_netrc", ".pgpass", ".git-credentials", ".aws", ".azure", ".kube", ".oci",
	".password-store", ".pki", ".pypirc", ".vault-token", ".mozilla", ".thunderbird", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519",
	".docker/config.json", ".cargo/credentials", ".cargo/credentials.toml", ".config/gcloud", ".config/gh", ".config/rclone",
	".config/chromium", ".config/google-chrome", ".local/share/keyrings", "Library/Keychains", "AppData/Roaming/gnupg",
}

// secretNames are the secrets by the last element of their names, in lower case.
var secretNames = func() map[string][]string {
	all := make(map[string][]string)
	for _, name := range secrets {
		name = strings.ToLower(name)
		all[pathpkg.Base(name)] = append(all[pathpkg.Base(name)], "/"+name)
	}
	return all
}()

// isSecret reports whether a path ends with one of these names.
func isSecret(path string) bool {
	for _, name := range secretNames[strings.ToLower(filepath.Base(path))] {
		if strings.HasSuffix(strings.ToLower(filepath.ToSlash(path)), name) {
			return true
		}
	}
	return false
}

// noLinks is a file system that follows no link to a file.
type noLinks struct {
	fs.FS
	root *os.Root
}

func (n noLinks) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(n.FS, name) }

func (n noLinks) Stat(name string) (fs.FileInfo, error) {
	return n.root.Lstat(filepath.FromSlash(name))
}

func (n noLinks) Open(name string) (fs.File, error) {
	before, err := n.Stat(name)
	if err != nil {
		return nil, err
	}
	f, err := n.FS.Open(name)
	if err != nil {
		return nil, err
	}
	if after, err := f.Stat(); err != nil || !os.SameFile(before, after) {
		return nil, errors.Join(&fs.PathError{Op: "open", Path: name, Err: errors.New("it was replaced by a link")}, err, f.Close())
	}
	return f, nil
}

// openShared returns a file system that holds the share's path and the name of it there. It
// reads nothing that is elsewhere, whatever links there are; errLink if there is one in the
// path itself, which had none when it was shared.
func openShared(at string) (in noLinks, name string, err error) {
	info, err := os.Lstat(at)
	if err != nil {
		return noLinks{}, "", err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return noLinks{}, "", errLink
	}
	folder, name := at, "."
	if !info.IsDir() {
		folder, name = filepath.Split(at)
	}
	if err := isStraight(at); err != nil {
		return noLinks{}, "", err
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return noLinks{}, "", err
	}
	in = noLinks{root.FS(), root}
	// Once more, for the path may have become another between looking and opening.
	opened, err := root.Stat(".")
	if err == nil {
		err = isStraight(at)
	}
	if err == nil {
		if info, err = os.Lstat(filepath.Clean(folder)); err == nil && !os.SameFile(info, opened) {
			err = errLink
		}
	}
	if err != nil {
		return noLinks{}, "", errors.Join(err, root.Close())
	}
	return in, name, nil
}

// isStraight returns errLink if there is a link in a path.
func isStraight(at string) error {
	straight, err := filepath.EvalSymlinks(at)
	if err != nil {
		return err
	}
	if straight != filepath.Clean(at) {
		return errLink
	}
	return nil
}
