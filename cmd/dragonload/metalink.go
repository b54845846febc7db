package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"dragonload/internal/manifest"
	"dragonload/internal/node"
	"dragonload/internal/piece"
)

// isMetalink reports whether a SOURCE or FILE is a Metalink, by its name.
func isMetalink(name string) bool {
	return !strings.Contains(name, "://") && hasSuffix(strings.ToLower(name), ".meta4", ".metalink")
}

func readMetalink(path string) (*manifest.Metalink, error) {
	return readManifest(path, manifest.ReadMetalink, manifest.ErrMetalink)
}

// readManifest reads a file that holds a manifest; refused is the error of one that
// cannot be used.
func readManifest[M any](path string, read func(io.Reader) (*M, error), refused error) (*M, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, failf(exitNotFound, "there is no file %s", safeText(path))
	case err != nil:
		return nil, failf(exitFileIO, "%w", err)
	}
	defer f.Close()
	m, err := read(f)
	switch {
	case errors.Is(err, refused):
		return nil, failf(exitBadAnswer, "%s: %w", safeText(path), err)
	case err != nil:
		return nil, failf(exitFileIO, "read %s: %w", safeText(path), err)
	}
	return m, nil
}

func inspectMetalink(path string, out io.Writer) error {
	m, err := readMetalink(path)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "metalink of %s\n", counted(len(m.Files), "file"))
	if m.Generator != "" {
		fmt.Fprintf(out, "written   by %s\n", safeText(m.Generator))
	}
	if !m.Published.IsZero() {
		fmt.Fprintf(out, "published %s\n", m.Published.UTC().Format(time.RFC3339))
	}
	for _, f := range m.Files {
		fmt.Fprintf(out, "file      %s\n", safeText(f.Name))
		if f.Size >= 0 {
			fmt.Fprintf(out, "size      %d bytes (%s)\n", f.Size, formatBytes(f.Size))
		} else {
			fmt.Fprintf(out, "size      not said\n")
		}
		for _, h := range f.Hashes {
			weak := ""
			if h.Algorithm == "md5" || h.Algorithm == "sha-1" {
				weak = " (shows errors only)"
			}
			fmt.Fprintf(out, "%-9s %x%s\n", h.Algorithm, h.Sum, weak)
		}
		if len(f.Pieces) > 0 {
			fmt.Fprintf(out, "pieces    sha-256 of %d, of %s each\n", len(f.Pieces), formatBytes(f.PieceLength))
		}
		for _, u := range f.URLs {
			fmt.Fprintf(out, "url       %s\n", safeText(redacted(u)))
		}
	}
	return nil
}

// checksumsOf returns the digests that a Metalink gives of a file.
func checksumsOf(f *manifest.MetalinkFile) []node.Checksum {
	var sums []node.Checksum
	for _, h := range f.Hashes {
		sums = append(sums, node.Checksum{Algorithm: h.Algorithm, Hex: hex.EncodeToString(h.Sum)})
	}
	return sums
}

// piecesOf returns the digests that a Metalink gives of a file's pieces, if they are of
// a length that the download's pieces can be checked by.
func piecesOf(f *manifest.MetalinkFile) (length int64, sums []byte) {
	if n := f.PieceLength; n < piece.MinLength || n&(n-1) != 0 || len(f.Pieces) > node.MaxPieceSums {
		return 0, nil
	}
	for _, sum := range f.Pieces {
		sums = append(sums, sum[:]...)
	}
	return f.PieceLength, sums
}

// makeFolders makes the folders that the names in Metalinks go through. None of them is
// made outside dir, wherever a symbolic link in it may lead.
func makeFolders(dir, output string, sources []source) error {
	for _, s := range sources {
		if s.file == nil || output != "" || !strings.Contains(s.file.Name, "/") {
			continue
		}
		root, err := os.OpenRoot(dir)
		if err == nil {
			err = root.MkdirAll(filepath.FromSlash(path.Dir(s.file.Name)), 0o777)
			err = errors.Join(err, root.Close())
		}
		if err != nil {
			return failf(exitCreate, "make the folder of %s: %w", safeText(s.file.Name), err)
		}
	}
	return nil
}
