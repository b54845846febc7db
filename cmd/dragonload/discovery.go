package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"dragonload/internal/discovery"
	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
)

const (
	// lookFor is how long one look for a room's tracker in the network around lasts: those
	// that are there answer within an eighth of a second.
	lookFor = 700 * time.Millisecond
	// seekAfter is how long the known addresses have to answer before others are looked for.
	seekAfter = 250 * time.Millisecond
	// lookEvery is the time between two looks of room join --wait.
	lookEvery = 5 * time.Second
)

// discoveryFlag is --no-discovery.
type discoveryFlag struct{ off bool }

func (d *discoveryFlag) register(cmd *cobra.Command, what string) {
	cmd.Flags().BoolVar(&d.off, "no-discovery", false, what)
}

// on reports whether the network around may be asked for members: neither the command
// line nor the configuration forbids it.
func (d *discoveryFlag) on(cfg *config) bool { return !d.off && cfg.Discovery != "off" }

// findToJoin asks for admission what announces itself in the network around as the tracker
// of the invite's room, which has another address than the invite says. Whoever admits
// holds the room's authority, so its address is right; it is "" if nobody does, and
// refused says whether somebody would not.
func findToJoin(ctx context.Context, invite room.Invite, csr []byte) (joined rpc.Membership, addr string, refused error) {
	look, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	discovery.Find(look, invite.RoomID, discovery.Options{}, func(at netip.AddrPort) bool {
		answer, err := rpc.Join(ctx, at.String(), invite.TLS(), nil, rpc.JoinRequest{Room: invite.RoomID, Token: invite.Token, CSR: csr})
		if err == nil {
			joined, addr = answer, at.String()
		} else if noAccess(err) != nil && !errors.Is(err, room.ErrInviteForeign) && room.RefusedBy(err) == nil {
			refused = err
		}
		return err == nil
	})
	return joined, addr, refused
}

// discovered looks for trackers of a room in the network around, until use has had its answer
// from one.
func discovered(ctx context.Context, r *room.Room, use func(addr string) bool) bool {
	return discovery.Find(ctx, r.ID, discovery.Options{}, func(at netip.AddrPort) bool { return use(at.String()) })
}

// askSeeking asks at the addresses that the room's trackers are said to have and, if there is
// no answer soon, meanwhile at those that find has: a system may take many seconds to notice
// that nobody is at an address.
func askSeeking(ctx context.Context, folder *room.Folder, r *room.Room, find func(context.Context, *room.Room, func(string) bool) bool,
	ask func(context.Context, *rpc.Tracker) error,
) error {
	known, cut := context.WithCancel(ctx)
	defer cut()
	failed := make(chan error, 1)
	go func() { failed <- askKnown(known, folder, r, ask) }()
	var err error
	over := false
	soon := time.NewTimer(seekAfter)
	defer soon.Stop()
	select {
	case err = <-failed:
		if over = true; err == nil || codeOf(err) == exitNoAccess {
			return err
		}
	case <-soon.C:
	}
	look, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	found := find(look, r, func(addr string) bool {
		if slices.Contains(r.Trackers, addr) {
			return false
		}
		tracker, bad := rpc.NewTracker(addr, r.ClientTLS(room.ALPNControl, piece.NodeID{}), nil)
		if bad != nil {
			return false
		}
		defer tracker.Close()
		if !over { // both write what they have heard to one place
			cut()
			over = true
			if err = <-failed; err == nil {
				return true
			}
		}
		return ask(ctx, tracker) == nil
	})
	switch {
	case found:
		return nil
	case !over:
		return <-failed
	case known.Err() != nil && ctx.Err() == nil && codeOf(err) != exitNoAccess:
		return askKnown(ctx, folder, r, ask) // it may only have been slow
	}
	return err
}

// withAddress returns the addresses of a room's trackers with one more, before the others.
func withAddress(addrs []string, addr string) []string {
	list := append([]string{addr}, slices.DeleteFunc(slices.Clone(addrs), func(a string) bool { return a == addr })...)
	return list[:min(len(list), room.MaxTrackers)]
}

// newDiscovery returns what finds members for a node.
func newDiscovery(log *slog.Logger) *discovery.Service {
	return discovery.New(discovery.Options{Log: log})
}
