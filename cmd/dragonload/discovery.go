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

// findTracker looks for the tracker of a room in the network around, until ask has had its
// answer from one.
func findTracker(ctx context.Context, r *room.Room, ask func(*rpc.Tracker) error) bool {
	look, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	return discovery.Find(look, r.ID, discovery.Options{}, func(at netip.AddrPort) bool {
		tracker, err := rpc.NewTracker(at.String(), r.ClientTLS(room.ALPNControl, piece.NodeID{}), nil)
		if err != nil {
			return false
		}
		defer tracker.Close()
		return ask(tracker) == nil
	})
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
