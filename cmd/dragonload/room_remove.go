package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dragonload/internal/node"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
)

func newRoomRemove(std streams) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME MEMBER",
		Short: "shut a member out of a room made here, for ever",
		Long: `Shuts a member out of a room that was made on this machine. MEMBER is its name or the
beginning of its id, as dragonload room members shows them. Every member that hears
of it ends its connections to the removed one and takes no new ones; invites do not
let it in again. What it has of the room's files it keeps.`,
		Args: exactArgs("the NAME of a room", "a MEMBER of it"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, r, stateDir, err := openRoom(cmd, args[0])
			if err != nil {
				return err
			}
			if !r.Created {
				return failf(exitNoAccess, "room %s was made on another machine, which alone can remove members: run dragonload room remove %s %s there", r.Name, r.Name, args[1])
			}
			if args[1] == "" {
				return usagef("MEMBER is empty; dragonload room members %s lists who is in the room", r.Name)
			}
			matches, running, err := removeMember(cmd.Context(), stateDir, r, args[1])
			if err != nil {
				return roomError(err)
			}
			return tellRemoved(std, r, args[1], matches, running)
		},
	}
}

// tellRemoved says what became of the members that a word means.
func tellRemoved(std streams, r *room.Room, word string, matches []rpc.Member, running bool) error {
	switch len(matches) {
	case 0:
		return usagef("no member %q in room %s; dragonload room members %s lists them", word, r.Name, r.Name)
	case 1:
	default:
		var who []string
		for _, m := range matches {
			who = append(who, fmt.Sprintf("%s %s", m.ID, safeText(m.Name)))
		}
		return usagef("%q means %d members of room %s (%s) and nobody was removed; name one by its id", word, len(matches), r.Name, strings.Join(who, ", "))
	}
	m, what := matches[0], "removed"
	if m.Removed {
		what = "was removed before:"
	}
	if _, err := fmt.Fprintln(std.out, strings.TrimSpace(fmt.Sprintf("%s %s %s", what, m.ID, safeText(m.Name)))); err != nil {
		return err
	}
	when := "the others hear of it when dragonload up runs here"
	if running {
		when = "the others hear of it now"
	}
	_, err := fmt.Fprintf(std.err, "%s; what the removed member has of the room's files it keeps\n", when)
	return err
}

// removeMember has the node that runs on the state folder remove a member, or does it
// itself with a node that talks to nobody. Running tells which.
func removeMember(ctx context.Context, stateDir string, r *room.Room, member string) (matches []rpc.Member, running bool, err error) {
	until := time.Now().Add(startWithin)
	for {
		client, err := rpc.DialLocal(ctx, stateDir)
		if err == nil {
			defer client.Close()
			matches, _, err := client.RemoveMember(ctx, r.Name, member)
			return matches, true, removeError(err)
		}
		if !errors.Is(err, rpc.ErrNoNode) {
			return nil, false, failf(exitOther, "%w", err)
		}
		if r.Shared {
			return nil, false, failf(exitOther, "nobody was removed: who is in room %s is known to the etcd cluster by which trackers share it; start dragonload tracker --etcd on this machine, and remove the member then", r.Name)
		}
		m, err := startMachine(ctx, machineOptions{stateDir: stateDir, log: slog.New(slog.DiscardHandler)})
		if err == nil {
			matches, _, err := m.node.RemoveMember(ctx, r.Name, member)
			return matches, false, errors.Join(removeError(err), m.close())
		}
		if !errors.Is(err, node.ErrRunning) {
			return nil, false, err
		}
		if time.Now().After(until) {
			return nil, false, failf(exitOther, "another dragonload works with the state folder %s and does not answer; stop it, or set DRAGONLOAD_STATE_DIR", stateDir)
		}
		select {
		case <-time.After(startEvery):
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		}
	}
}

// removeError gives what a node returns its exit code.
func removeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpc.ErrCreator), errors.Is(err, room.ErrCreator):
		return usagef("%w", rpc.ErrCreator)
	case errors.Is(err, rpc.ErrNoAuthority):
		return failf(exitNoAccess, "%w", err)
	case errors.Is(err, rpc.ErrStoreAway):
		return failf(exitNetwork, "nobody was removed: %w", rpc.ErrStoreAway)
	case errors.Is(err, rpc.ErrInternal):
		return failf(exitOther, "it is not certain that the member is removed (%w); do it again", err)
	}
	return failf(exitOther, "%w", err)
}
