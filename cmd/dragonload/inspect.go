package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dragonload/internal/node"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
	nodev1 "dragonload/internal/rpc/gen/dragonload/node/v1"
	"dragonload/internal/store"
)

func newInspect(std streams) *cobra.Command {
	var roomName string
	cmd := &cobra.Command{
		Use:   "inspect FILE|ID|NAME|INVITE",
		Short: "what a download, a share, a torrent, a Metalink or an invite holds",
		Long: `Of a torrent (.torrent, of version 2 or hybrid): its info hash, its files and the
roots of their hash trees, its web seeds. Of a Metalink (.meta4): its files, their
digests and addresses. Of a finished download: its digests, and the addresses that it
came from. Of a partial one, named by its .part file or by its final name: how much of
it is here, of which version of which size. Of a share, named by its path or by at least
six digits of its id: how it stands, and its manifest. Of what another member of a room
holds, named by such digits or, with --room, by its name: its manifest, with its files, got
from there. Of an invite: the room, where its trackers
are, how often and how long it may be used; never its secret.`,
		Args: exactArgs("a FILE or an INVITE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if arg := args[0]; arg == "-" || strings.HasPrefix(arg, "@") || isInvite(arg) {
				text, err := inviteText(arg, std)
				if err != nil {
					return err
				}
				if link, err := room.ParseLink(text); err == nil && link.Invite == nil {
					return usagef("%s is a link to content; dragonload open shows what it asks for, and asks before it does that", shownSource(text))
				}
				return inspectInvite(text, std.out)
			}
			if isMetalink(args[0]) {
				return inspectMetalink(args[0], std.out)
			}
			if isTorrent(args[0]) {
				return inspectTorrent(args[0], std.out)
			}
			_, state, err := openState(cmd)
			if err != nil {
				return err
			}
			shared, err := findShared(cmd.Context(), state, args[0])
			if err != nil {
				return err
			}
			if shared != nil {
				shared.tell(std.out)
				return nil
			}
			if isShareID(args[0]) || roomName != "" {
				held, err := findInRoom(cmd, roomName, args[0])
				if err != nil {
					return err
				}
				held.tell(std.out)
				return nil
			}
			path, err := filepath.Abs(args[0])
			if err != nil {
				return failf(exitOther, "%w", err)
			}
			if text, ok := inviteIn(path, std); ok {
				return inspectInvite(text, std.out)
			}
			return inspectFile(cmd.Context(), state, path, std.out)
		},
	}
	cmd.Flags().StringVar(&roomName, "room", "", "what members of the `ROOM` hold under that name or id")
	return cmd
}

// inviteIn returns the invite that a small file holds, if that is all that it holds.
func inviteIn(path string, std streams) (text string, ok bool) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > 64<<10 {
		return "", false
	}
	text, err = inviteText("@"+path, std)
	return text, err == nil && isInvite(text)
}

func inspectInvite(text string, out io.Writer) error {
	invite, err := room.ParseInvite(text)
	if err != nil {
		return usagef("%w", err)
	}
	uses := "any number of machines"
	if invite.Uses > 0 {
		uses = counted(invite.Uses, "machine")
	}
	expires := invite.Expires.UTC().Format(time.RFC3339)
	if left := time.Until(invite.Expires); left > 0 {
		expires += ", in " + left.Round(time.Second).String()
	} else {
		expires += ", it is over"
	}
	fmt.Fprintf(out, "invite into room %s\n", invite.Room)
	fmt.Fprintf(out, "room id   %x\n", invite.RoomID)
	fmt.Fprintf(out, "trackers  %s\n", strings.Join(invite.Addrs, ", "))
	fmt.Fprintf(out, "for       %s\n", uses)
	fmt.Fprintf(out, "expires   %s\n", expires)
	return nil
}

func inspectFile(ctx context.Context, stateDir, path string, out io.Writer) error {
	target := strings.TrimSuffix(path, ".part")
	if client, err := rpc.DialLocal(ctx, stateDir); err == nil {
		defer client.Close()
		if found, err := inspectRunning(ctx, client, target, out); found || err != nil {
			return err
		}
		x, err := client.Unfinished(ctx, path)
		if err != nil {
			return failf(exitOther, "%w", err)
		}
		if x != nil {
			tellUnfinished(x, out)
			return nil
		}
	} else if !errors.Is(err, rpc.ErrNoNode) {
		return failf(exitOther, "%w", err)
	} else {
		var x *nodev1.Unfinished
		err := withJournal(stateDir, path, func(journal *store.Journal) (err error) {
			x, err = node.Unfinished(journal, path)
			return err
		})
		if err != nil {
			return err
		}
		if x != nil {
			tellUnfinished(x, out)
			return nil
		}
	}
	if k, found, err := finishedRecord(ctx, stateDir, path); err != nil {
		return err
	} else if found {
		inspectFinished(k, out)
		return nil
	}
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		return failf(exitNotFound, "%s is no download that the journal in %s knows; a file under its final name is whole", path, stateDir)
	}
	return failf(exitNotFound, "there is no partial download %s; name the .part file or the final name", path)
}

// tellUnfinished writes what is recorded of an unfinished download.
func tellUnfinished(x *nodev1.Unfinished, out io.Writer) {
	fmt.Fprintf(out, "partial download of %s\n", safeText(x.GetTarget()))
	fmt.Fprintf(out, "file      %s\n", safeText(x.GetPart()))
	if x.GetBegun() {
		fmt.Fprintf(out, "held      nothing yet: it was just begun, and ended before the first piece was safe on the disk\n")
		fmt.Fprintf(out, "next      the same command begins it again\n")
		return
	}
	if x.GetSize() >= 0 {
		fmt.Fprintf(out, "size      %d bytes (%s)\n", x.GetSize(), formatBytes(x.GetSize()))
	} else {
		fmt.Fprintf(out, "size      not known, for the origin did not tell\n")
	}
	fmt.Fprintf(out, "held      %d of %d pieces of %s, %d bytes\n", x.GetHeldPieces(), x.GetPieces(), formatBytes(x.GetPieceLength()), x.GetHeldBytes())
	fmt.Fprintf(out, "origin    %d pieces of these were read from the origin by this machine\n", x.GetOriginPieces())
	fmt.Fprintf(out, "version   %s\n", safeText(x.GetVersion()))
	checked := "each held piece matched its digest when it was written"
	if !x.GetClean() {
		checked = "the last run did not end in order; the next one hashes what is held again"
	}
	fmt.Fprintf(out, "checked   %s\n", checked)
}

// inspectRunning tells of a download that the node of another process works on.
func inspectRunning(ctx context.Context, client *rpc.LocalClient, target string, out io.Writer) (found bool, err error) {
	status, err := client.Status(ctx)
	if err != nil {
		return false, failf(exitOther, "%w", err)
	}
	for _, d := range status.GetDownloads() {
		p := d.GetProgress()
		if p.GetPath() != target {
			continue
		}
		fmt.Fprintf(out, "download of %s, which the process %d works on\n", safeText(target), status.GetPid())
		fmt.Fprintf(out, "url       %s\n", safeText(d.GetUrl()))
		if d.GetRoom() != "" {
			fmt.Fprintf(out, "room      %s, %s\n", safeText(d.GetRoom()), counted(int(p.GetMembers()), "member"))
		}
		fmt.Fprintf(out, "state     %s\n", safeText(p.GetState()))
		fmt.Fprintf(out, "held      %d of %d bytes\n", p.GetHave(), p.GetSize())
		return true, nil
	}
	return false, nil
}

// withJournal opens the journal of a state folder for read. If there is none, nothing
// is done.
func withJournal(stateDir, target string, read func(*store.Journal) error) error {
	file := filepath.Join(stateDir, node.JournalFile)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return nil // opening it would make it
	}
	journal, err := store.OpenJournal(file, store.JournalOptions{})
	if errors.Is(err, store.ErrLocked) {
		return failf(exitOther, "the dragonload that runs here keeps the journal to itself, and does not work on %s now; stop it and ask again", safeText(target))
	}
	if err != nil {
		return failf(exitFileIO, "%w", err)
	}
	if err = errors.Join(read(journal), journal.Close()); err != nil {
		return failf(exitFileIO, "%w", err)
	}
	return nil
}
