package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dragonload/internal/room"
)

// openFlags are the flags of open.
type openFlags struct {
	dir, room            string
	yes, hold            bool
	register, unregister bool
	discover             discoveryFlag
}

func newOpen(std streams) *cobra.Command {
	var f openFlags
	cmd := &cobra.Command{
		Use:   "open [flags] LINK|-|@FILE",
		Short: "do what a dragon:// link asks for, after asking you",
		Long: `Shows what a link asks for and does it if you say yes: joins the room of an invite,
or gets the content that a link names, from the members of its room or from its URL.
Without a terminal to ask on it does nothing, unless --yes is given.

With --register the links that are clicked in other programs are opened by this
dragonload, in a terminal, into --dir (default: your folder Downloads);
--unregister takes that back.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			err := runOpen(cmd, &f, args, std)
			if f.hold && err == nil {
				holdWindow(cmd.Context(), std, "dragonload: done; Enter closes this window")
			} else if f.hold {
				holdWindow(cmd.Context(), std, fmt.Sprintf("dragonload: %s\nEnter closes this window", safeText(err.Error())))
			}
			return err
		},
	}
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	fl.StringVarP(&f.dir, "dir", "d", "", "folder `DIR` for what is got (default: the present one)")
	fl.StringVar(&f.room, "room", "", "get it in the room `NAME`, whatever room the link leads to")
	f.discover.register(cmd, "do not look for the room's members in the network around")
	fl.BoolVar(&f.register, "register", false, "have this dragonload open the links of other programs")
	fl.BoolVar(&f.unregister, "unregister", false, "take that back")
	fl.BoolVar(&f.hold, "hold", false, "wait for Enter at the end, so that a window stays open")
	return cmd
}

func runOpen(cmd *cobra.Command, f *openFlags, args []string, std streams) error {
	switch {
	case f.register && f.unregister:
		return usagef("--register and --unregister contradict each other; give one of them")
	case f.register || f.unregister:
		if len(args) > 0 {
			return usagef("--register and --unregister open no link; leave %s out", shownSource(args[0]))
		}
		return f.handlers(cmd.Context(), std)
	}
	if err := exactArgs("a LINK, - or @FILE")(cmd, args); err != nil {
		return usagef("%s takes one link", cmd.CommandPath())
	}
	text, err := inviteText(args[0], std)
	if err != nil {
		return err
	}
	link, err := room.ParseLink(text)
	if err != nil {
		return inviteError(text, err)
	}
	cfg, folder, stateDir, err := openRooms(cmd)
	if err != nil {
		return err
	}
	if link.Invite != nil {
		if err := f.confirm(cmd.Context(), std, inviteQuestion(link.Invite)); err != nil {
			return err
		}
		r, err := joinRoom(cmd.Context(), folder, stateDir, text, 0, f.discover.on(cfg))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(std.out, "joined %s\n", r.Name)
		return err
	}
	in := f.room
	if in == "" {
		if in, err = roomOfLink(&link, folder); err != nil {
			return err
		}
	}
	dir, err := filepath.Abs(f.dir)
	if err != nil {
		return failf(exitOther, "present folder: %w", err)
	}
	if err := f.confirm(cmd.Context(), std, contentQuestion(&link, in, dir)); err != nil {
		return err
	}
	get := []string{"get", "--dir", dir}
	if in != "" {
		get = append(get, "--room", in)
	} else {
		get = append(get, "--alone")
	}
	if !f.discover.on(cfg) {
		get = append(get, "--no-discovery")
	}
	return execute(cmd.Context(), append(get, "--", sourceOf(&link)), std)
}

// sourceOf returns what get is asked for.
func sourceOf(l *room.Link) string {
	if l.URL != "" {
		return l.URL
	}
	return fmt.Sprintf("%x", l.ID)
}

// readLink returns what a link that is given to get leads to.
func readLink(word string) ([]source, error) {
	link, err := room.ParseLink(word)
	if err != nil {
		return nil, usagef("%w", err)
	}
	if link.Invite != nil {
		return nil, usagef("that is an invite: dragonload room join takes it, or get --room")
	}
	list, err := readSource(sourceOf(&link))
	for k := range list {
		list[k].link = &link
	}
	return list, err
}

// roomOfLinks returns the one room to which the links among the sources of a get lead; ""
// if there is none among them.
func roomOfLinks(sources []source, stateDir string) (string, error) {
	in := ""
	for k := range sources {
		if sources[k].link == nil {
			continue
		}
		folder, err := room.OpenFolder(stateDir)
		if err != nil {
			return "", failf(exitFileIO, "%w", err)
		}
		name, err := roomOfLink(sources[k].link, folder)
		if err != nil {
			return "", err
		}
		if in != "" && name != "" && name != in {
			return "", usagef("the links lead to the rooms %s and %s; get them one after the other, or name one with --room", in, name)
		}
		in = firstOf(in, name)
	}
	return in, nil
}

// roomOfLink returns the name of the room here to which a link leads: one with an address
// that the link has, else one with its name. A URL can be got in none: "".
func roomOfLink(l *room.Link, folder *room.Folder) (string, error) {
	rooms, err := folder.List()
	if err != nil && len(rooms) == 0 {
		return "", failf(exitFileIO, "%w", err)
	}
	byName := ""
	var fit []string
	for _, r := range rooms {
		if l.Room != "" && r.Name != l.Room {
			continue
		}
		if l.Room != "" {
			byName = r.Name
		}
		if shareOne(r.Trackers, l.Addrs) {
			fit = append(fit, r.Name)
		}
	}
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case len(fit) > 1:
		return "", usagef("the link may lead to each of the rooms %s; name one with --room", strings.Join(fit, ", "))
	case byName != "":
		return byName, nil
	case l.URL != "":
		return "", nil
	}
	return "", failf(exitNoAccess, "this machine is in no room that is reached at %s; ask for an invite into it (dragonload room join)", strings.Join(l.Addrs, " or "))
}

func shareOne(a, b []string) bool {
	for _, x := range a {
		for _, y := range b {
			if x == y {
				return true
			}
		}
	}
	return false
}

// inviteQuestion is what the user is asked before a room is joined.
func inviteQuestion(i *room.Invite) string {
	return fmt.Sprintf(`This link asks to join a room:
  room     %s
  tracker  %s
  valid    until %s
Its members will see this machine's name and what it downloads in the room.
`, safeText(i.Room), strings.Join(i.Addrs, ", "), i.Expires.Local().Format(time.DateTime))
}

// contentQuestion is what the user is asked before a content is got. Nothing that the link
// says is known to be true, but where the content is asked for.
func contentQuestion(l *room.Link, in, dir string) string {
	var b strings.Builder
	line := func(what, value string) { fmt.Fprintf(&b, "  %-7s  %s\n", what, value) }
	b.WriteString("This link asks to download:\n")
	if l.Name != "" {
		line("name", safeText(l.Name)+"  (says the link)")
	}
	size := "not said"
	if l.Size >= 0 {
		size = fmt.Sprintf("%s, %d bytes  (says the link)", formatBytes(l.Size), l.Size)
	}
	line("size", size)
	if l.URL != "" {
		u, err := url.Parse(l.URL)
		if err == nil {
			line("host", safeText(u.Host))
		}
		line("URL", safeText(redacted(l.URL)))
	} else {
		line("host", strings.Join(l.Addrs, ", "))
		line("id", fmt.Sprintf("%x", l.ID))
	}
	if in != "" {
		line("room", in)
	} else {
		line("room", "none: this machine downloads it alone")
	}
	line("folder", safeText(dir))
	return b.String()
}

// askWithin is how long the user has for an answer.
const askWithin = 10 * time.Minute

// confirm asks the user, on the terminal.
func (f *openFlags) confirm(ctx context.Context, std streams, question string) error {
	if f.yes {
		return nil
	}
	if !fromTerminal(std.in) {
		return usagef("a link is opened only if you say yes, and there is no terminal to ask on; pass --yes if you trust who gave it:\n%s", strings.TrimRight(question, "\n"))
	}
	out, done, err := screen(std)
	if err != nil {
		return usagef("a link is opened only if you say yes, and there is no terminal to ask on (%w); pass --yes if you trust who gave it", err)
	}
	defer done()
	fmt.Fprint(out, question+"Go on? [y/N] ")
	answer, err := readAnswer(ctx, std.in)
	if err != nil {
		return err
	}
	switch strings.ToLower(answer) {
	case "y", "yes":
		return nil
	}
	return failf(exitStopped, "nothing was done, as you said")
}

func fromTerminal(in io.Reader) bool {
	file, ok := in.(*os.File)
	return ok && isTerminal(file)
}

// screen is where the user reads: standard error, or what is behind it if that is no
// terminal.
func screen(std streams) (out io.Writer, done func(), err error) {
	if file, ok := std.err.(*os.File); ok && isTerminal(file) {
		return file, func() {}, nil
	}
	file, err := os.OpenFile(terminalFile, os.O_WRONLY, 0)
	if err != nil {
		return nil, nil, err
	}
	return file, func() { file.Close() }, nil
}

// maxAnswer bounds a line that the user types.
const maxAnswer = 256

// readAnswer reads a line from the terminal. A read of a terminal cannot be broken off
// everywhere: the goroutine ends with the process, which ends at once if nobody answers.
func readAnswer(ctx context.Context, in io.Reader) (string, error) {
	type answer struct {
		line string
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		line, err := bufio.NewReaderSize(io.LimitReader(in, maxAnswer), maxAnswer).ReadString('\n')
		answers <- answer{line, err}
	}()
	select {
	case a := <-answers:
		if a.err != nil && !errors.Is(a.err, io.EOF) {
			return "", failf(exitFileIO, "read the answer: %w", a.err)
		}
		return strings.TrimSpace(a.line), nil
	case <-time.After(askWithin):
		return "", failf(exitStopped, "nothing was done: there was no answer for %s", askWithin)
	case <-ctx.Done():
		return "", failf(exitStopped, "nothing was done")
	}
}

// holdWindow waits until the user has read.
func holdWindow(ctx context.Context, std streams, message string) {
	if !fromTerminal(std.in) {
		return
	}
	out, done, err := screen(std)
	if err != nil {
		return
	}
	defer done()
	fmt.Fprintln(out, message)
	_, _ = readAnswer(ctx, std.in) // whatever is typed closes it
}

// handlers registers this program as what opens links, or takes that back.
func (f *openFlags) handlers(ctx context.Context, std streams) error {
	if f.unregister {
		if err := unregisterLinks(ctx, std.err); err != nil {
			return failf(exitFileIO, "take back that links are opened by dragonload: %w", err)
		}
		_, err := fmt.Fprintln(std.out, "unregistered: dragon:// links are opened by this dragonload no more")
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return failf(exitOther, "find out where this program is: %w", err)
	}
	dir := f.dir
	if dir == "" {
		if dir, err = downloadsFolder(); err != nil {
			return failf(exitUsage, "no folder for what links lead to: %w; name one with --dir", err)
		}
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return failf(exitOther, "present folder: %w", err)
	}
	for _, path := range []string{program, dir} {
		if strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return usagef("%q has characters that cannot be in the command of a link", path)
		}
	}
	if err := registerLinks(ctx, program, dir, std.err); err != nil {
		return failf(exitFileIO, "have dragonload open links: %w", err)
	}
	_, err = fmt.Fprintf(std.out, "registered: dragon:// links are opened by %s into %s, after asking\n", safeText(program), safeText(dir))
	return err
}

// openCommand is the command line with which a link is opened. Behind the two dashes
// nothing is a flag, whatever a link is made of.
func openCommand(program, dir string) []string {
	return []string{program, "open", "--hold", "--dir", dir, "--"}
}

// downloadsFolder is where a browser puts what it gets.
func downloadsFolder() (string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	if dir := filepath.Join(home, "Downloads"); isFolder(dir) {
		return dir, nil
	}
	return home, nil
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
