package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"dragonload/internal/manifest"
)

// isTorrent reports whether a FILE is a torrent, by its name.
func isTorrent(name string) bool {
	return !strings.Contains(name, "://") && hasSuffix(strings.ToLower(name), ".torrent")
}

func readTorrent(path string) (*manifest.Torrent, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, failf(exitNotFound, "there is no file %s", safeText(path))
	case err != nil:
		return nil, failf(exitFileIO, "%w", err)
	}
	defer f.Close()
	t, err := manifest.ReadTorrent(f)
	switch {
	case errors.Is(err, manifest.ErrTorrent):
		return nil, failf(exitBadAnswer, "%s: %w", safeText(path), err)
	case err != nil:
		return nil, failf(exitFileIO, "read %s: %w", safeText(path), err)
	}
	return t, nil
}

func inspectTorrent(path string, out io.Writer) error {
	t, err := readTorrent(path)
	if err != nil {
		return err
	}
	what := "the file"
	if t.Folder {
		what = "the folder"
	}
	fmt.Fprintf(out, "torrent of %s %s\n", what, safeText(t.Name))
	if t.CreatedBy != "" {
		fmt.Fprintf(out, "written   by %s\n", safeText(t.CreatedBy))
	}
	hash, isHybrid := t.InfoHashV1()
	if isHybrid {
		fmt.Fprintf(out, "version   2 and 1 (hybrid)\n")
	} else {
		fmt.Fprintf(out, "version   2\n")
	}
	fmt.Fprintf(out, "info hash %x\n", t.InfoHash())
	if isHybrid {
		fmt.Fprintf(out, "version 1 %x\n", hash)
	}
	if t.Private {
		fmt.Fprintf(out, "private   its members are found through its tracker alone\n")
	}
	fmt.Fprintf(out, "size      %d bytes (%s) in %s\n", t.Size, formatBytes(t.Size), counted(len(t.Files), "file"))
	fmt.Fprintf(out, "pieces    %d of %s\n", t.PieceCount(), formatBytes(t.PieceLength))
	for _, u := range t.WebSeeds {
		fmt.Fprintf(out, "url       %s\n", safeText(redacted(u)))
	}
	for _, f := range t.Files {
		root := "none"
		if !f.Root.IsZero() {
			root = f.Root.String()
		}
		fmt.Fprintf(out, "file      %s  %d bytes  root=%s\n", safeText(f.Path), f.Size, root)
	}
	for _, folder := range t.Folders {
		fmt.Fprintf(out, "folder    %s  empty\n", safeText(folder))
	}
	return nil
}
