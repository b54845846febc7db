package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"dragonload/internal/manifest"
)

// isTorrent reports whether a FILE is a torrent, by its name.
func isTorrent(name string) bool {
	return !strings.Contains(name, "://") && hasSuffix(strings.ToLower(name), ".torrent")
}

func readTorrent(path string) (*manifest.Torrent, error) {
	return readManifest(path, manifest.ReadTorrent, manifest.ErrTorrent)
}

func inspectTorrent(path string, out io.Writer) error {
	t, err := readTorrent(path)
	if err == nil {
		tellTorrent(t, out)
	}
	return err
}

func tellTorrent(t *manifest.Torrent, out io.Writer) {
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
}

// describeTorrent returns the torrent of a file, whose SHA-256 is want if that is not
// nil, or of a folder.
func (e *exportFlags) describeTorrent(ctx context.Context, path string, urls []string, want []byte, tell io.Writer) ([]byte, error) {
	before, err := os.Stat(path)
	if err != nil {
		return nil, failf(exitFileIO, "%w", err)
	}
	if want != nil {
		sum, err := sha256Of(ctx, path)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(sum, want) {
			return nil, errAnother(path, sum, want)
		}
	}
	o := manifest.BuildOptions{Name: filepath.Base(path), Hybrid: e.hybrid, WebSeeds: urls, CreatedBy: "dragonload/" + version()}
	if e.shared != nil {
		o.Name, o.Private = e.shared.share.Spec.Name, e.shared.share.Spec.Private
	}
	t, skipped, err := buildTorrent(ctx, path, before.IsDir(), o)
	if err == nil && want != nil {
		// What was hashed twice must have been the same.
		var after fs.FileInfo
		if after, err = os.Stat(path); err == nil && (after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime())) {
			err = manifest.ErrFileChanged
		}
	}
	var disk *fs.PathError
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, manifest.ErrFileChanged), errors.As(err, &disk):
		return nil, failf(exitFileIO, "%s: %w; try again when nobody writes to it", safeText(path), err)
	case err != nil:
		return nil, usagef("%s: no torrent can be made of it: %w", safeText(path), err)
	}
	for _, s := range skipped {
		fmt.Fprintf(tell, "dragonload: %s is left out: %s\n", safeText(s.Path), s.Why)
	}
	var text bytes.Buffer
	if err := t.Write(&text); err != nil {
		return nil, failf(exitOther, "%w", err)
	}
	return text.Bytes(), nil
}

// buildTorrent reads nothing but what is in the folder, or beside the file.
func buildTorrent(ctx context.Context, path string, isFolder bool, o manifest.BuildOptions) (*manifest.Torrent, []manifest.Skipped, error) {
	folder, name := filepath.Split(path)
	if isFolder {
		folder, name = path, "."
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = root.Close() }() // was only read
	return manifest.BuildTorrent(ctx, root.FS(), name, o)
}

func sha256Of(ctx context.Context, path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, failf(exitFileIO, "%w", err)
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, untilDone{ctx, file}); ctx.Err() != nil {
		return nil, context.Cause(ctx)
	} else if err != nil {
		return nil, failf(exitFileIO, "read %s: %w", safeText(path), err)
	}
	return sum.Sum(nil), nil
}
