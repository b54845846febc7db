package room

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxFile bounds what is read of any file of a state folder but the list of removals;
// the longest, room.json, has a few hundred bytes.
const maxFile = 64 << 10

// readFile reads a small file.
func readFile(path string) ([]byte, error) { return readAtMost(path, maxFile) }

func readAtMost(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return data, nil
}

// writeTemp stores data in a new file of mode 0600 in dir and syncs it.
func writeTemp(dir string, data []byte) (path string, err error) {
	f, err := os.CreateTemp(dir, ".new-*") // 0600 by its contract
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// replaceFile puts data under path, whole or not at all, durable on return.
func replaceFile(path string, data []byte) error {
	temp, err := writeTemp(filepath.Dir(path), data)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(filepath.Dir(path))
}

// createFile is replaceFile for a path that does not exist yet; of several that try
// at once one succeeds, the others get fs.ErrExist, and nobody ever sees half a file.
func createFile(path string, data []byte) error {
	temp, err := writeTemp(filepath.Dir(path), data)
	if err != nil {
		return err
	}
	if err := renameNoReplace(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(filepath.Dir(path))
}

// fillDir makes files in a folder that nobody looks into yet, durable on return. All are
// written before the first is synced, so that they may go to the disk together.
func fillDir(dir string, files map[string][]byte) (err error) {
	var open []*os.File
	defer func() {
		for _, f := range open {
			err = errors.Join(err, f.Close())
		}
	}()
	for name, data := range files {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		open = append(open, f)
		if _, err := f.Write(data); err != nil {
			return err
		}
	}
	for _, f := range open {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return syncDir(dir)
}
