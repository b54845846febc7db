package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dragonload/internal/node"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
	nodev1 "dragonload/internal/rpc/gen/dragonload/node/v1"
	"dragonload/internal/share"
)

// shareFlags are the flags of share.
type shareFlags struct {
	room, name        string
	private           bool
	list, links       bool
	listen, advertise string
	limitUpload       rateValue
	discover          discoveryFlag
	json, quiet       bool
	verbose           int
	logFile           string
}

func newShare(std streams) *cobra.Command {
	var f shareFlags
	cmd := &cobra.Command{
		Use:   "share [flags] PATH...",
		Short: "offer files and folders to a room",
		Long: `Makes a manifest of each PATH, a file or a folder with all that is in it, and offers
it to the members of a room. Nothing is copied: the bytes are served from where they
are. Changes are noticed, and offered anew; only files that changed are read again.
Links, what is neither file nor folder, and what cannot be read are left out with a
warning; so are, inside a folder, what usually holds secrets (.ssh, .gnupg, .netrc,
.aws, private keys of ssh and the like: name one itself to share it all the same) and
what is being downloaded. The folders of dragonload itself are never shared.

Beside dragonload up the command returns when everything is offered, and the daemon
serves it, after a restart too, until dragonload unshare. Without one the command
itself serves, everything that is shared from this machine, until Ctrl-C.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			switch {
			case f.list && len(args) > 0:
				return usagef("share --list takes no PATH")
			case f.list:
				return f.runList(cmd.Context(), cfg, std)
			case len(args) == 0:
				return usagef("share needs a PATH; see dragonload share --help")
			case slices.Contains(args, ""):
				return usagef("a PATH is empty; write . for the present folder")
			case f.name != "" && len(args) > 1:
				return usagef("--name is for one PATH")
			}
			return f.run(cmd, cfg, args, std)
		},
	}
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.StringVar(&f.room, "room", "", "the `ROOM` whose members it is offered to (default: default_room of the config, else the only one)")
	fl.StringVar(&f.name, "name", "", "offer it as `NAME`")
	fl.BoolVar(&f.private, "private", false, "name no addresses outside of the room in the manifest")
	fl.BoolVar(&f.list, "list", false, "only list what is shared from here")
	fl.BoolVar(&f.links, "links", false, "print a dragon:// link to each, on a line of its own")
	fl.StringVar(&f.listen, "listen", "", "`ADDR:PORT` for members")
	fl.StringVar(&f.advertise, "advertise", "", "`HOST:PORT` that members are told, if it differs")
	fl.Var(&f.limitUpload, "limit-upload", "bytes per second to all members together at most")
	f.discover.register(cmd, "do not look for members in the network around, and do not be found there")
	fl.BoolVar(&f.json, "json", false, "events as JSON lines on standard output")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no progress and no warnings")
	fl.CountVarP(&f.verbose, "verbose", "v", "log to standard error; twice for every step")
	fl.StringVar(&f.logFile, "log-file", "", "log to `FILE` too")
	return cmd
}

// chooseRoom returns the room that a command is about: the one it names, that of the
// configuration, or the only one.
func chooseRoom(named string, cfg *config, folder *room.Folder) (string, error) {
	name := firstOf(named, cfg.DefaultRoom)
	if name != "" {
		if _, err := folder.Get(name); err != nil {
			return "", roomError(err)
		}
		return name, nil
	}
	rooms, err := folder.List()
	switch {
	case len(rooms) == 1:
		return rooms[0].Name, nil
	case len(rooms) == 0 && err != nil:
		return "", roomError(err)
	case len(rooms) == 0:
		return "", wordf("no-room", exitNoAccess, "this machine is in no room; make one with dragonload room create, or join one")
	}
	return "", usagef("this machine is in %s; say which with --room", counted(len(rooms), "room"))
}

// sharedPaths makes the PATHs absolute and finds out whether something is there.
func sharedPaths(args []string) ([]string, error) {
	var paths []string
	for _, arg := range args {
		path, err := filepath.Abs(arg)
		if err != nil {
			return nil, failf(exitOther, "%w", err)
		}
		switch info, err := os.Stat(path); {
		case errors.Is(err, fs.ErrNotExist):
			return nil, failf(exitNotFound, "there is nothing at %s; name a file or a folder", safeText(arg))
		case err != nil:
			return nil, failf(exitFileIO, "%w", err)
		case !info.IsDir() && !info.Mode().IsRegular():
			return nil, usagef("%s is neither a file nor a folder", safeText(arg))
		}
		paths = append(paths, path)
	}
	return paths, nil
}

func (f *shareFlags) run(cmd *cobra.Command, cfg *config, args []string, std streams) error {
	ctx := cmd.Context()
	folder, state, err := cfg.openRooms()
	if err != nil {
		return err
	}
	roomName, err := chooseRoom(f.room, cfg, folder)
	if err != nil {
		return err
	}
	paths, err := sharedPaths(args)
	if err != nil {
		return err
	}
	people := &people{out: std.out, err: std.err, quiet: f.quiet || f.json, silent: f.json, lastLine: make([]time.Time, len(paths))}
	for _, path := range paths {
		people.names = append(people.names, filepath.Base(path))
	}
	defer people.close()
	log, closeLog, err := openLog(f.verbose, f.logFile, people)
	if err != nil {
		return err
	}
	defer closeLog()
	s, err := openSession(ctx, sessionOptions{
		stateDir: state, partialDir: cfg.PartialDir, room: roomName, stays: true, uploadLimit: int64(f.limitUpload), discovery: f.discover.on(cfg),
		listen: firstOf(f.listen, cfg.Listen), advertise: firstOf(f.advertise, cfg.Advertise),
		listenDemanded: cmd.Flags().Changed("listen"), advertiseDemanded: cmd.Flags().Changed("advertise"), log: log,
	})
	if err != nil {
		return err
	}
	if !people.quiet && f.verbose == 0 && std.err == io.Writer(os.Stderr) && canBlock(os.Stderr) {
		people.start(newBlock(os.Stderr, os.Stdout))
	}
	err = f.shareAll(ctx, s, folder, roomName, paths, people, std)
	people.close()
	if err == nil {
		err = f.serve(ctx, s, std)
	}
	return errors.Join(err, s.worker.close())
}

// serve stays while this process is the one that serves.
func (f *shareFlags) serve(ctx context.Context, s *session, std streams) error {
	m, here := s.worker.downloader.(*machine)
	switch {
	case here:
		if !f.quiet && !f.json {
			fmt.Fprintln(std.err, "dragonload: serving what is shared; Ctrl-C ends that")
		}
		m.wait(ctx)
	case !s.worker.stays && !f.quiet:
		fmt.Fprintln(std.err, "dragonload: warning: the dragonload that runs here ends with its downloads; run dragonload up to serve what is shared for longer")
	}
	return nil
}

// shareAll shares one path after the other: hashing takes all cores for each.
func (f *shareFlags) shareAll(ctx context.Context, s *session, folder *room.Folder, roomName string, paths []string, people *people, std streams) error {
	for k, path := range paths {
		tell := &shareTeller{flags: f, index: k, path: path, people: people, folder: folder, out: std.out}
		req := &nodev1.ShareRequest{Path: path, Room: roomName, Name: f.name, Private: f.private}
		err := s.share(ctx, req, tell.event)
		if err == nil {
			err = tell.err
		}
		if (err != nil || k+1 < len(paths)) && errors.Is(context.Cause(ctx), errStopped) {
			return failf(exitStopped, "stopped; what was shared before is still shared")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// share has the session's node share something, wherever that runs.
func (s *session) share(ctx context.Context, req *nodev1.ShareRequest, event func(*nodev1.ShareEvent)) error {
	switch d := s.worker.downloader.(type) {
	case *machine:
		spec := share.Spec{Path: req.GetPath(), Room: req.GetRoom(), Name: req.GetName(), Private: req.GetPrivate()}
		done, err := d.node.Share(ctx, spec, event)
		if err == nil {
			event(&nodev1.ShareEvent{Event: &nodev1.ShareEvent_Shared{Shared: node.EncodeShared(done)}})
		}
		return err
	case *remoteNode:
		err := d.client.Share(ctx, req, func(e *nodev1.ShareEvent) error { event(e); return nil })
		if err != nil {
			return failf(exitOther, "%w", err)
		}
	}
	return nil
}

// shareTeller tells how the sharing of one path goes.
type shareTeller struct {
	flags  *shareFlags
	index  int
	path   string
	people *people
	folder *room.Folder
	out    io.Writer
	began  time.Time
	err    error // what went wrong, with the sharing or with telling
}

func (t *shareTeller) event(e *nodev1.ShareEvent) {
	now := time.Now()
	switch {
	case e.GetHashed() != nil:
		if t.began.IsZero() {
			t.began = now
		}
		h := e.GetHashed()
		p := node.Progress{State: "hashing", Path: t.path, Size: h.GetTotal(), Have: h.GetDone(), ETA: -1}
		if took := now.Sub(t.began).Seconds(); took > 0 {
			p.Rate = int64(float64(h.GetDone()) / took)
		}
		if p.Rate > 0 {
			p.ETA = time.Duration(float64(p.Size-p.Have) / float64(p.Rate) * float64(time.Second))
		}
		t.people.event(t.index, node.Event{Time: now, Progress: &p})
		t.json(map[string]any{"event": "progress", "state": p.State, "path": t.path, "size": p.Size, "have": p.Have})
	case e.GetSkipped() != nil:
		text := fmt.Sprintf("%s is left out: %s", e.GetSkipped().GetPath(), e.GetSkipped().GetWhy())
		t.warn("left-out", text)
	case e.GetFailed() != nil:
		t.err = failf(exitCode(e.GetFailed().GetExit()), "%s", e.GetFailed().GetMessage())
	case e.GetShared() != nil:
		t.people.event(t.index, node.Event{Time: now, Ended: &struct{}{}})
		s := node.DecodeShared(e.GetShared())
		if s.Problem != "" {
			t.warn("not-watched", s.Problem)
		}
		if file, alone := onlyFile(t.path, s.Files); alone {
			t.warn("folder-of-one", fmt.Sprintf("%s holds one file alone, and a manifest does not tell that from the file itself: members find it by the name %s", quotedPath(t.path), quotedPath(file)))
		}
		if t.flags.json {
			t.json(jsonShare("shared", s))
			return
		}
		line := sharedLine(s)
		if t.flags.links {
			link, err := shareLink(t.folder, s)
			if err != nil {
				t.note(err)
				return
			}
			line += link + "\n"
		}
		t.people.saved(line)
		t.note(t.people.outErr)
	}
}

// onlyFile returns the name of the one file that a shared folder of so many files holds,
// directly and beside no other folder.
func onlyFile(folder string, files int) (name string, ok bool) {
	if files != 1 {
		return "", false
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return "", false // it is a file
	}
	for _, e := range entries {
		if e.IsDir() {
			return "", false
		}
		if e.Type().IsRegular() {
			name = e.Name()
		}
	}
	return name, name != ""
}

func (t *shareTeller) warn(code, text string) {
	t.people.event(t.index, node.Event{Time: time.Now(), Warning: &node.Problem{Code: code, Message: text}})
	t.json(map[string]any{"event": "warning", "code": code, "message": text})
}

func (t *shareTeller) note(err error) {
	if err != nil && t.err == nil {
		t.err = failf(exitFileIO, "it is shared, but telling so failed: %w", err)
	}
}

func (t *shareTeller) json(event map[string]any) {
	if !t.flags.json {
		return
	}
	event["time"] = time.Now().UTC().Format(time.RFC3339Nano)
	t.note(json.NewEncoder(t.out).Encode(event))
}

func jsonShare(event string, s share.Share) map[string]any {
	m := map[string]any{
		"event": event, "path": s.Spec.Path, "size": s.Size, "files": s.Files, "manifest": s.Manifest.String(),
		"name": s.Spec.Name, "room": s.Spec.Room, "private": s.Spec.Private, "state": s.State.String(),
	}
	if s.Problem != "" {
		m["problem"] = s.Problem
	}
	return m
}

// sharedLine is the one line that tells of a share; scripts read it.
func sharedLine(s share.Share) string {
	return fmt.Sprintf("shared %s  %d bytes  %d files  manifest=%s\n", quotedPath(s.Spec.Path), s.Size, s.Files, s.Manifest)
}

// shareLink is the link to what is shared, for members of its room.
func shareLink(folder *room.Folder, s share.Share) (string, error) {
	r, err := folder.Get(s.Spec.Room)
	if err != nil {
		return "", roomError(err)
	}
	name := firstOf(s.Spec.Name, filepath.Base(s.Spec.Path))
	return r.ContentLink(s.Manifest, name, s.Size).String(), nil
}

func (f *shareFlags) runList(ctx context.Context, cfg *config, std streams) error {
	folder, state, err := cfg.openRooms()
	if err != nil {
		return err
	}
	all, err := listShares(ctx, state)
	if err != nil {
		return err
	}
	for _, s := range all {
		if f.links && !f.json {
			link, linkErr := shareLink(folder, s)
			if linkErr != nil {
				fmt.Fprintf(std.err, "dragonload: %s has no link: %v\n", quotedPath(s.Spec.Path), linkErr)
				continue
			}
			_, err = fmt.Fprintln(std.out, link)
		} else if f.json {
			err = json.NewEncoder(std.out).Encode(jsonShare("share", s))
		} else {
			line := fmt.Sprintf("%s  %s  %s  room=%s", s.Manifest, s.State, quotedPath(s.Spec.Path), s.Spec.Room)
			if s.Problem != "" {
				line += "  " + safeText(s.Problem)
			}
			_, err = fmt.Fprintln(std.out, line)
		}
		if err != nil {
			return failf(exitFileIO, "%w", err)
		}
	}
	return nil
}

// listShares asks the node that runs here, or reads what is remembered.
func listShares(ctx context.Context, state string) (all []share.Share, err error) {
	err = withShares(ctx, state, func(client *rpc.LocalClient) error {
		list, err := client.Shares(ctx)
		for _, x := range list {
			all = append(all, node.DecodeShared(x))
		}
		return err
	}, func(library *share.Library) error {
		all = library.List()
		return nil
	})
	return all, err
}

// withShares calls one of two: that which asks the node that runs on a state folder, or,
// if none does, that which works with the library itself. Of a state folder in which
// nothing was ever shared neither is called.
func withShares(ctx context.Context, state string, remote func(*rpc.LocalClient) error, own func(*share.Library) error) error {
	client, err := rpc.DialLocal(ctx, state)
	if err == nil {
		defer client.Close()
		if err := remote(client); err != nil {
			return failf(exitOther, "%w", err)
		}
		return nil
	}
	if !errors.Is(err, rpc.ErrNoNode) {
		return failf(exitOther, "%w", err)
	}
	path := filepath.Join(state, node.SharesFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil // opening it would make it
	}
	library, err := share.Open(share.Options{Path: path})
	if err != nil {
		return failf(exitOther, "%w; stop that one and try again", err)
	}
	if err = errors.Join(own(library), library.Close()); err != nil {
		return failf(exitFileIO, "%w", err)
	}
	return nil
}

func newUnshare(std streams) *cobra.Command {
	var roomName string
	cmd := &cobra.Command{
		Use:   "unshare PATH|ID",
		Short: "offer something no longer",
		Long: `Ends a share, named by its path or by at least six digits of its id. So it does with what
was got from others in a room and is served to more of them. The files stay as they are;
members that have them already keep them.`,
		Args: exactArgs("a PATH or an ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, state, err := openState(cmd)
			if err != nil {
				return err
			}
			return unshare(cmd.Context(), state, args[0], roomName, std)
		},
	}
	cmd.Flags().StringVar(&roomName, "room", "", "only what is offered to this `ROOM`")
	return cmd
}

// shareWord is what a share's user calls it, as the node takes it: digits, or a path.
func shareWord(arg string) (string, error) {
	if arg == "" {
		return "", usagef("a PATH is empty; write . for the present folder")
	}
	if isShareID(arg) {
		return arg, nil
	}
	path, err := filepath.Abs(arg)
	if err != nil {
		return "", failf(exitOther, "%w", err)
	}
	return path, nil
}

// isShareID reports whether a word is digits of an id and no name of a file.
func isShareID(arg string) bool {
	if len(arg) < 6 || len(arg) > 64 || strings.Trim(arg, "0123456789abcdefABCDEF") != "" {
		return false
	}
	_, err := os.Lstat(arg)
	return err != nil
}

func unshare(ctx context.Context, state, arg, roomName string, std streams) error {
	what, err := shareWord(arg)
	if err != nil {
		return err
	}
	var matches []share.Share
	err = withShares(ctx, state, func(client *rpc.LocalClient) error {
		list, err := client.Unshare(ctx, what, roomName)
		for _, x := range list {
			matches = append(matches, node.DecodeShared(x))
		}
		return err
	}, func(library *share.Library) error {
		matches = node.MatchShares(library, what, roomName)
		if len(matches) != 1 {
			return nil
		}
		_, err := library.Remove(matches[0].Number)
		return err
	})
	if err != nil {
		return err
	}
	return tellUnshared(arg, matches, std)
}

func errNoShare(arg string) error {
	return failf(exitNotFound, "%s is not shared from here; dragonload share --list tells what is", safeText(arg))
}

func tellUnshared(arg string, matches []share.Share, std streams) error {
	switch len(matches) {
	case 0:
		return errNoShare(arg)
	case 1:
		if _, err := fmt.Fprintf(std.out, "unshared %s  manifest=%s\n", quotedPath(matches[0].Spec.Path), matches[0].Manifest); err != nil {
			return failf(exitFileIO, "%w", err)
		}
		return nil
	}
	for _, s := range matches {
		fmt.Fprintf(std.err, "  %s  %s  room=%s\n", s.Manifest, quotedPath(s.Spec.Path), s.Spec.Room)
	}
	return usagef("%s means %d shares; name one by more digits, or its room with --room", safeText(arg), len(matches))
}
