package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dragonload/internal/manifest"
)

// exportFlags are the flags of export.
type exportFlags struct {
	metalink             bool
	torrent, hybrid      bool
	output               string
	urls                 []string
	withQuery, overwrite bool

	room   string
	shared *sharedContent // what is exported if that is a share
}

func newExport(std streams) *cobra.Command {
	var e exportFlags
	cmd := &cobra.Command{
		Use:   "export FILE|ID --metalink|--torrent [--hybrid]",
		Short: "write a manifest of a download or a share for other programs",
		Long: `Writes a Metalink 4 of a finished download (its name and size, its SHA-256, that of
each piece, and the addresses that it came from), or a torrent of BitTorrent v2
with these addresses as web seeds; with --hybrid one that programs of version 1,
as aria2, take too (of a folder aria2 takes none: it asks web seeds for the padding
between files). The file is read and compared with what was downloaded. Of a
file that was not downloaded here --url says where it can be had; a torrent can
also be of a folder, whose --url ends with a slash: the folder's name and those of
its files are put behind it.

What is shared from here is named by its path or by at least six digits of its id. Its
torrent needs no --url, and is that which members have. So is the --torrent of what only
other members of a room hold, named by such digits or, with --room, by its name.

User names and passwords are never written. An address with a query, which may be
secret, is left out unless --with-query is given.`,
		Args: exactArgs("a FILE or an ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, state, err := openState(cmd)
			if err != nil {
				return err
			}
			what := args[0]
			if len(e.urls) == 0 || isShareID(what) {
				if e.shared, err = findShared(cmd.Context(), state, what); err != nil {
					return err
				}
			}
			if e.shared == nil && len(e.urls) == 0 && (e.room != "" || e.torrent && !e.hybrid && isShareID(what)) {
				return e.fromRoom(cmd, what, std)
			}
			if e.shared != nil {
				what = e.shared.share.Spec.Path
			}
			if err := e.check(what); err != nil {
				return err
			}
			return e.run(cmd.Context(), what, state, std)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&e.metalink, "metalink", false, "as Metalink 4")
	f.BoolVar(&e.torrent, "torrent", false, "as a torrent of BitTorrent v2")
	f.BoolVar(&e.hybrid, "hybrid", false, "with --torrent: for programs of version 1, too")
	f.StringVarP(&e.output, "output", "o", "-", "name of the manifest's `FILE`; - is standard output")
	f.StringArrayVar(&e.urls, "url", nil, "name this `URL` in place of those that the file came from; may be repeated")
	f.StringVar(&e.room, "room", "", "with --torrent: what members of the `ROOM` hold under that name or id")
	f.BoolVar(&e.withQuery, "with-query", false, "name addresses with their query, which may be secret")
	f.BoolVar(&e.overwrite, "overwrite", false, "replace a file that has the manifest's name")
	return cmd
}

// check finds what is wrong with the command line alone.
func (e *exportFlags) check(arg string) error {
	info, err := os.Stat(arg)
	switch {
	case err != nil && isInvite(arg):
		return usagef("links to content cannot be exported; name the file itself, or the id of a share")
	case err != nil && isShareID(arg) && (e.metalink || e.hybrid):
		return failf(exitNotFound, "%s is not shared from here, and all of it is read for a Metalink or a hybrid torrent; get it first, and name what came", safeText(arg))
	case err != nil && isShareID(arg):
		return errNoShare(arg)
	case errors.Is(err, fs.ErrNotExist):
		return failf(exitNotFound, "there is no file %s; export needs one that is finished", safeText(arg))
	case err != nil:
		return failf(exitFileIO, "%w", err)
	case e.metalink == e.torrent:
		return usagef("say what to write: --metalink or --torrent")
	case e.hybrid && !e.torrent:
		return usagef("--hybrid is of a torrent; pass --torrent with it")
	case e.metalink && !info.Mode().IsRegular():
		return usagef("%s is no file; a Metalink is written of one file", safeText(arg))
	case !info.Mode().IsRegular() && !info.IsDir():
		return usagef("%s is neither a file nor a folder", safeText(arg))
	}
	for _, raw := range e.urls {
		u, err := url.Parse(raw)
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
			return usagef("--url is no http or https URL: %s", shownSource(raw))
		case info.IsDir() && !strings.HasSuffix(raw, "/"):
			return usagef("--url %s must end with a slash: the names of the folder and its files are put behind it", redacted(raw))
		case u.User != nil:
			return usagef("--url %s: a user name or password is never written into a manifest; leave it out", redacted(raw))
		}
	}
	return e.checkOutput(info)
}

// checkOutput finds out whether there can be a manifest of the name that is asked for;
// info is of what is exported, nil if that is not here.
func (e *exportFlags) checkOutput(info fs.FileInfo) error {
	if e.output == "-" {
		return nil
	}
	there, err := os.Stat(e.output)
	if there == nil {
		return e.foldersThere(err)
	}
	switch {
	case there.IsDir():
		return usagef("-o %s is a folder; name the file", safeText(e.output))
	case info != nil && os.SameFile(info, there):
		return usagef("-o %s is the file that is to be exported", safeText(e.output))
	case !e.overwrite:
		return failf(exitExists, "%s exists; pass --overwrite to replace it", safeText(e.output))
	}
	return nil
}

// fromRoom writes the torrent of what other members hold.
func (e *exportFlags) fromRoom(cmd *cobra.Command, what string, std streams) error {
	switch {
	case e.metalink || e.hybrid:
		return usagef("%s is not here, and all of it is read for a Metalink or a hybrid torrent; get it first", safeText(what))
	case !e.torrent:
		return usagef("say what to write: --metalink or --torrent")
	}
	if err := e.checkTerminal(std); err != nil {
		return err
	}
	if err := e.checkOutput(nil); err != nil {
		return err
	}
	held, err := findInRoom(cmd, e.room, what)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	// Its web seeds are a member's word; who has the file in hand is taken to vouch for them.
	if err := held.torrent.Bare().Write(&text); err != nil {
		return failf(exitOther, "%w", err)
	}
	return e.write(text.Bytes(), std.out)
}

// checkTerminal refuses to write a torrent to a terminal.
func (e *exportFlags) checkTerminal(std streams) error {
	if out := fileOf(std.out); e.torrent && e.output == "-" && out != nil && isTerminal(out) {
		return usagef("a torrent is no text for a terminal; name a file with -o")
	}
	return nil
}

// foldersThere reports, of a name that cannot be looked at for err, what else than that
// it is free keeps a file from getting it.
func (e *exportFlags) foldersThere(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		_, err = os.Stat(filepath.Dir(e.output))
	}
	if err != nil {
		return failf(exitCreate, "%w", err)
	}
	return nil
}

func (e *exportFlags) run(ctx context.Context, arg, stateDir string, std streams) error {
	if err := e.checkTerminal(std); err != nil {
		return err
	}
	path, err := filepath.Abs(arg)
	if err != nil {
		return failf(exitOther, "%w", err)
	}
	if e.shared != nil {
		text, err := e.describeShared(ctx, std.err)
		if err != nil {
			return err
		}
		return e.write(text, std.out)
	}
	from, want := e.urls, []byte(nil)
	if len(from) == 0 {
		kept, found, err := finishedRecord(ctx, stateDir, path)
		switch {
		case err != nil:
			return err
		case !found:
			return usagef("nothing is known of a download of %s; say where it can be had: --url URL", safeText(path))
		}
		from, want = withoutUsers(kept.From), kept.SHA256[:]
	}
	urls := e.shown(from, std.err)
	if len(urls) == 0 {
		return usagef("there is no address of %s to be written; give --with-query if theirs are no secret, or others with --url", safeText(path))
	}
	describe := describeMetalink
	if e.torrent {
		describe = e.describeTorrent
	}
	text, err := describe(ctx, path, urls, want, std.err)
	if err != nil {
		return err
	}
	return e.write(text, std.out)
}

// errAnother is what a file is told that is not the one that was downloaded.
func errAnother(path string, sum, want []byte) error {
	return failf(exitChecksum, "%s is not what was downloaded: its sha-256 is %x, that of the download was %x; get it again, or say with --url where the present one can be had",
		safeText(path), sum, want)
}

// describeMetalink returns the Metalink of a file, whose SHA-256 is want if that is not
// nil.
func describeMetalink(ctx context.Context, path string, urls []string, want []byte, _ io.Writer) ([]byte, error) {
	f, err := readForMetalink(ctx, path)
	if err != nil {
		return nil, err
	}
	if sum := f.Hashes[0].Sum; want != nil && !bytes.Equal(sum, want) {
		return nil, errAnother(path, sum, want)
	}
	f.URLs = urls
	m := &manifest.Metalink{
		Generator: "dragonload/" + version(), Published: time.Now(), Files: []manifest.MetalinkFile{f},
	}
	var text bytes.Buffer
	if err := m.Write(&text); err != nil {
		return nil, usagef("%s: %w", safeText(path), err)
	}
	return text.Bytes(), nil
}

// shown returns the addresses that may be written, and tells of the others. Those that
// the user has named for this are written as they are.
func (e *exportFlags) shown(from []string, tell io.Writer) []string {
	if len(e.urls) > 0 || e.withQuery {
		return from
	}
	var urls []string
	for _, raw := range from {
		if u, err := url.Parse(raw); err != nil || u.RawQuery != "" || u.ForceQuery {
			fmt.Fprintf(tell, "dragonload: %s is left out: it has a query, which may be secret; --with-query writes it\n", safeText(redacted(raw)))
			continue
		}
		urls = append(urls, raw)
	}
	return urls
}

// withoutUsers takes user-info out of addresses: an empty one says that a secret went along.
func withoutUsers(urls []string) []string {
	var plain []string
	for _, raw := range urls {
		if u, err := url.Parse(raw); err == nil {
			u.User = nil
			raw = u.String()
		}
		plain = append(plain, raw)
	}
	return plain
}

// readForMetalink reads a file that must stay as it is meanwhile.
func readForMetalink(ctx context.Context, path string) (manifest.MetalinkFile, error) {
	file, err := os.Open(path)
	if err != nil {
		return manifest.MetalinkFile{}, failf(exitFileIO, "%w", err)
	}
	defer file.Close()
	before, err := file.Stat()
	if err != nil {
		return manifest.MetalinkFile{}, failf(exitFileIO, "%w", err)
	}
	f, err := manifest.MetalinkFileOf(filepath.Base(path), untilDone{ctx, file}, before.Size())
	if err == nil {
		var after fs.FileInfo
		if after, err = file.Stat(); err == nil && !after.ModTime().Equal(before.ModTime()) {
			err = manifest.ErrFileChanged
		}
	}
	switch {
	case err == nil:
		return f, nil
	case ctx.Err() != nil:
		return f, context.Cause(ctx)
	case errors.Is(err, manifest.ErrName):
		return f, usagef("%s: other systems cannot hold a file of that name: %w; rename it first", safeText(path), err)
	}
	return f, failf(exitFileIO, "read %s: %w; try again when nobody writes to it", safeText(path), err)
}

// untilDone is a reader that ends with a context.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(b)
}

// write puts a manifest where the user wants it: whole, or not at all.
func (e *exportFlags) write(text []byte, out io.Writer) error {
	if e.output == "-" {
		if _, err := out.Write(text); err != nil {
			return failf(exitFileIO, "write to standard output: %w", err)
		}
		return nil
	}
	name := e.output
	if e.overwrite {
		name += ".new" // is renamed when it is whole
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	switch {
	case errors.Is(err, fs.ErrExist):
		return failf(exitExists, "%s exists; remove it, or pass another name with -o", safeText(name))
	case err != nil:
		return failf(exitCreate, "%w", err)
	}
	_, err = f.Write(text)
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil && e.overwrite {
		err = os.Rename(name, e.output)
	}
	if err != nil {
		return failf(exitFileIO, "%w", errors.Join(err, os.Remove(name)))
	}
	return nil
}
