package main

import (
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func newGet(std streams) *cobra.Command {
	var g getFlags
	cmd := &cobra.Command{
		Use:   "get [flags] SOURCE...",
		Short: "download URLs, alone or with a room",
		Long: `Downloads each SOURCE: a URL of http or https, the files of a Metalink (.meta4), the
file or folder of a torrent (version 2 or hybrid; --select takes parts of a folder),
a dragon:// link to content or, with --room, what members hold, by its name or its id.
With --mirror, from a Metalink and from the web seeds of a torrent, the bytes come
from all addresses that have them. With --room all members of the
room that get the same URL share the work: each byte leaves the origin about once.

The file grows as NAME.part and gets its name when it is whole and checked. The
same command started again goes on with what an earlier run left.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runGet(cmd, &g, args, std)
		},
	}
	g.register(cmd)
	return cmd
}

func runGet(cmd *cobra.Command, g *getFlags, args []string, std streams) error {
	ctx := cmd.Context()
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	if err := g.check(); err != nil {
		return err
	}
	sources, err := g.sources(args, std)
	if err != nil {
		return err
	}
	state, err := cfg.stateDir()
	if err != nil {
		return err
	}
	room := g.room
	if room == "" && !g.alone {
		if room, err = roomOfLinks(sources, state); err != nil {
			return err
		}
		room = firstOf(room, cfg.DefaultRoom)
	}
	if room == "" && g.confirm > 1 {
		return usagef("--confirm %d needs %d members; name their room with --room", g.confirm, g.confirm)
	}
	specs, err := g.specs(sources, room)
	if err != nil {
		return err
	}
	if g.dir != "" {
		if err := os.MkdirAll(specs[0].Dir, 0o777); err != nil {
			return failf(exitCreate, "make the folder %s: %w", specs[0].Dir, err)
		}
	}
	if err := makeFolders(specs[0].Dir, g.output, sources); err != nil {
		return err
	}

	toStdout := &copied{file: os.Stdout}
	if g.output == "-" {
		std.out = std.err // the file itself goes to standard output
	}
	people := newPeople(specs, std)
	people.copied = toStdout
	people.quiet = g.quiet || g.json
	people.silent = g.json
	defer people.close()
	log, closeLog, err := openLog(g.verbose, g.logFile, people)
	if err != nil {
		return err
	}
	defer closeLog()

	s, err := openSession(ctx, sessionOptions{
		stateDir: state, partialDir: cfg.PartialDir, room: room,
		listen: firstOf(g.listen, cfg.Listen), advertise: firstOf(g.advertise, cfg.Advertise),
		listenDemanded: cmd.Flags().Changed("listen"), advertiseDemanded: cmd.Flags().Changed("advertise"),
		discovery: g.discover.on(cfg),
		stdout:    toStdout, log: log,
	})
	if err != nil {
		return err
	}
	for i := range specs {
		specs[i].Room = s.room
	}
	if !people.quiet && g.verbose == 0 && std.err == io.Writer(os.Stderr) && canBlock(os.Stderr) {
		people.start(newBlock(os.Stderr, os.Stdout))
	}
	var tell reporter = people
	var events *jsonEvents
	if g.json {
		events = &jsonEvents{out: std.out, weak: people.weak}
		tell = several{events, people}
	}
	err = downloadAll(ctx, s, specs, tell)
	people.close()
	if closeErr := s.worker.close(); err == nil && closeErr != nil {
		err = closeErr
	}
	writeErr := people.outErr
	if events != nil {
		writeErr = events.err
	}
	if err == nil && writeErr != nil {
		err = failf(exitFileIO, "the file is saved, but telling so failed: %w", writeErr)
	}
	return err
}

// firstOf returns the first string that is not empty.
func firstOf(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}

// isInvite reports whether the value of --room is an invite and not a name.
func isInvite(s string) bool { return strings.HasPrefix(strings.ToLower(s), "dragon://") }
