package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
)

func newRoom(std streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "room",
		Short: "make, join and look at rooms",
		Args:  cobra.ArbitraryArgs,
		RunE:  onlySubcommands,
	}
	cmd.AddCommand(newRoomCreate(std), newRoomInvite(std), newRoomJoin(std), newRoomList(std), newRoomMembers(std), newRoomRemove(std), newRoomLeave(std))
	return cmd
}

// openRooms returns the rooms of the state folder that the configuration of cmd names.
func openRooms(cmd *cobra.Command) (cfg *config, folder *room.Folder, stateDir string, err error) {
	if cfg, err = loadConfig(cmd); err != nil {
		return nil, nil, "", err
	}
	folder, stateDir, err = cfg.openRooms()
	return cfg, folder, stateDir, err
}

// openRooms returns the rooms of the state folder.
func (c *config) openRooms() (folder *room.Folder, stateDir string, err error) {
	if stateDir, err = c.stateDir(); err != nil {
		return nil, "", err
	}
	folder, err = openFolder(stateDir)
	return folder, stateDir, err
}

// openFolder opens the rooms of a state folder.
func openFolder(stateDir string) (*room.Folder, error) {
	folder, err := room.OpenFolder(stateDir)
	if err != nil {
		return nil, failf(exitFileIO, "%w", err)
	}
	return folder, nil
}

// openRoom opens the rooms and finds one of them.
func openRoom(cmd *cobra.Command, name string) (folder *room.Folder, r *room.Room, stateDir string, err error) {
	if _, folder, stateDir, err = openRooms(cmd); err != nil {
		return nil, nil, "", err
	}
	if r, err = folder.Get(name); err != nil {
		return nil, nil, "", roomError(err)
	}
	return folder, r, stateDir, nil
}

// roomError gives what package room returns its exit code.
func roomError(err error) error {
	var known *failure
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.Is(err, room.ErrNoRoom):
		return wordf("no-room", exitNoAccess, "%w", err)
	case errors.Is(err, room.ErrExists), errors.Is(err, room.ErrName), errors.Is(err, room.ErrInviteSyntax):
		return usagef("%w", err)
	case errors.Is(err, room.ErrInviteBad), errors.Is(err, room.ErrInviteExpired), errors.Is(err, room.ErrInviteUsed),
		errors.Is(err, room.ErrInviteForeign), errors.Is(err, room.ErrRemoved), errors.Is(err, room.ErrNoAuthority), errors.Is(err, room.ErrNotMember):
		return failf(exitNoAccess, "%w", err)
	}
	return failf(exitOther, "%w", err)
}

// tellNode makes a node that runs on the state folder look at its rooms again. That
// there is none is no error.
func tellNode(ctx context.Context, stateDir string) error {
	client, err := rpc.DialLocal(ctx, stateDir)
	if errors.Is(err, rpc.ErrNoNode) {
		return nil
	}
	if err == nil {
		defer client.Close()
		err = client.ReloadRooms(ctx)
	}
	if err != nil {
		return failf(exitOther, "done, but the running dragonload has not heard of it: %w; start it again", err)
	}
	return nil
}

func newRoomCreate(std streams) *cobra.Command {
	var advertise string
	var also []string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "make a room; prints an invite into it",
		Long: `Makes a room whose authority and tracker is this machine, and prints an invite for
the others, alone on one line. An invite is a secret: who has it can join.

The others reach the tracker, run by dragonload up or by dragonload get in the
room, at --advertise.`,
		Args: exactArgs("a NAME for the room"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, folder, stateDir, err := openRooms(cmd)
			if err != nil {
				return err
			}
			if err := checkAddress("--advertise", advertise); err != nil {
				return err
			}
			for _, address := range also {
				if err := checkAddress("--also", address); err != nil {
					return err
				}
			}
			r, err := folder.Create(args[0], createAddress(advertise, cfg), folder.Identity(), also...)
			if err != nil {
				return roomError(err)
			}
			invite, err := r.NewInvite(0, inviteLife, time.Now())
			if err != nil {
				return roomError(err)
			}
			if _, err := fmt.Fprintln(std.out, invite.String()); err != nil {
				return failf(exitFileIO, "print the invite: %w; dragonload room invite %s prints another", err, r.Name)
			}
			return tellNode(cmd.Context(), stateDir)
		},
	}
	cmd.Flags().StringVar(&advertise, "advertise", "", "`HOST:PORT` where members reach this machine (default: its address, port "+defaultPort+")")
	cmd.Flags().StringArrayVar(&also, "also", nil, "`HOST:PORT` of another tracker of the room (see dragonload tracker --help); may be repeated")
	return cmd
}

// inviteLife is how long an invite is good if its maker does not say.
const inviteLife = 24 * time.Hour

// createAddress is where members will reach the tracker of a new room: what the
// user says, else the port that this machine listens on, else the default one.
func createAddress(flag string, cfg *config) string {
	if address := firstOf(flag, cfg.Advertise); address != "" {
		return address
	}
	host, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil || port == "0" {
		port = defaultPort
	}
	if err != nil || host == "" || isUnspecified(host) {
		host = ownAddress()
	}
	return net.JoinHostPort(host, port)
}

func newRoomInvite(std streams) *cobra.Command {
	var uses int
	var expires durationValue
	cmd := &cobra.Command{
		Use:   "invite NAME",
		Short: "print another invite into a room made here",
		Args:  exactArgs("the NAME of a room"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, folder, _, err := openRooms(cmd)
			if err != nil {
				return err
			}
			if life := time.Duration(expires); life < time.Second || life > room.MaxInviteLife {
				return usagef("--expires must be from 1s to %d days", int(room.MaxInviteLife.Hours()/24))
			}
			r, err := folder.Get(args[0])
			if err != nil {
				return roomError(err)
			}
			invite, err := r.NewInvite(uses, time.Duration(expires), time.Now())
			if err != nil {
				return roomError(err)
			}
			_, err = fmt.Fprintln(std.out, invite.String())
			return err
		},
	}
	cmd.Flags().Var(&countValue{n: &uses, min: 0, max: room.MaxUses}, "uses", "how many machines may join with it (default 0: any number)")
	cmd.Flags().Var(setDuration(&expires, inviteLife), "expires", "how long it is good")
	return cmd
}

// joinEvery is the time between two tries of room join --wait.
const joinEvery = 50 * time.Millisecond

func newRoomJoin(std streams) *cobra.Command {
	var wait durationValue
	var discover discoveryFlag
	cmd := &cobra.Command{
		Use:   "join INVITE|-|@FILE",
		Short: "join a room; - reads the invite from standard input",
		Args:  exactArgs("an INVITE, - or @FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := inviteText(args[0], std)
			if err != nil {
				return err
			}
			cfg, folder, stateDir, err := openRooms(cmd)
			if err != nil {
				return err
			}
			r, err := joinRoom(cmd.Context(), folder, stateDir, text, time.Duration(wait), discover.on(cfg))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(std.out, "joined %s\n", r.Name)
			return err
		},
	}
	cmd.Flags().Var(&wait, "wait", "try again for this long while no tracker of the room answers")
	discover.register(cmd, "do not look for the room's tracker in the network around where the invite's address does not answer")
	return cmd
}

// inviteText returns the invite that an argument is, or where it is to be read from.
func inviteText(arg string, std streams) (string, error) {
	const limit = 64 << 10
	var data []byte
	var err error
	path, isFile := strings.CutPrefix(arg, "@")
	switch {
	case arg == "-":
		data, err = readAtMost(std.in, "standard input", limit)
	case isFile:
		data, err = readBounded(path, limit)
	default:
		return arg, nil
	}
	if err != nil {
		return "", usagef("read the invite: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// inviteError is what is said of a text that cannot be read: an invite that is damaged or
// cut off gives no access, anything else is no argument for an invite.
func inviteError(text string, err error) error {
	if isInvite(text) && strings.Contains(text, "/join/") {
		return failf(exitNoAccess, "%w; ask for a new one, and take all of it", err)
	}
	return usagef("%w", err)
}

// joinRoom joins the room of an invite at the first of its trackers that answers; with
// look also at one that is only found in the network around.
func joinRoom(ctx context.Context, folder *room.Folder, stateDir, text string, wait time.Duration, look bool) (*room.Room, error) {
	invite, err := room.ParseInvite(text)
	if err != nil {
		return nil, inviteError(text, err)
	}
	// Whether it has just ended is for the authority to say, by its own clock.
	if time.Now().After(invite.Expires.Add(room.ClockTolerance)) {
		return nil, failf(exitNoAccess, "%w; it ended on %s UTC and this machine's clock says %s UTC", room.ErrInviteExpired,
			invite.Expires.UTC().Format(time.DateTime), time.Now().UTC().Format(time.DateTime))
	}
	host, _ := os.Hostname() // without one the member is called "node"
	csr, err := invite.Request(folder.Identity(), host)
	if err != nil {
		return nil, failf(exitOther, "%w", err)
	}
	until := time.Now().Add(wait)
	var lookAt time.Time
	if wait > seekAfter {
		lookAt = time.Now().Add(seekAfter) // a tracker that is just starting answers before that
	}
	for {
		joined, err := askToJoin(ctx, invite, csr)
		if err != nil && noAccess(err) == nil && look && ctx.Err() == nil && !time.Now().Before(lookAt) {
			lookAt = time.Now().Add(lookEvery)
			if found, addr, tried := findToJoin(ctx, invite, csr); addr != "" {
				joined, err = found, nil
				invite.Addrs = withAddress(invite.Addrs, addr)
			} else if tried != nil {
				err = tried
			}
		}
		if err == nil {
			r, err := enterRoom(folder, invite, joined)
			if err != nil {
				return nil, roomError(err)
			}
			return r, tellNode(ctx, stateDir)
		}
		if access := noAccess(err); access != nil {
			return nil, failf(exitNoAccess, "join room %s: %w", invite.Room, access)
		}
		if ctx.Err() != nil {
			return nil, failf(exitStopped, "stopped before a tracker of room %s answered", invite.Room)
		}
		if time.Now().Add(joinEvery).After(until) {
			if errors.Is(err, rpc.ErrStoreAway) || errors.Is(err, rpc.ErrCannotStore) {
				return nil, failf(exitNetwork, "join room %s: %w", invite.Room, err)
			}
			return nil, failf(exitNetwork, "no tracker of room %s answers at %s (%w); is dragonload up running there, and can this machine reach it?",
				invite.Room, strings.Join(invite.Addrs, ", "), err)
		}
		select {
		case <-time.After(joinEvery):
		case <-ctx.Done():
		}
	}
}

// enterRoom stores the room that this machine was let into.
func enterRoom(folder *room.Folder, invite room.Invite, joined rpc.Membership) (*room.Room, error) {
	r, err := folder.Join(invite, joined.Chain, time.Now())
	if err != nil || joined.Removals == nil {
		return r, err
	}
	if err := r.Authority.CheckRemovals(joined.Removals); err != nil {
		return nil, fmt.Errorf("join room %s: %w", r.Name, err)
	}
	known := *r
	known.Removals = joined.Removals
	return &known, folder.SaveRemovals(&known)
}

// noAccess returns what in err says that trying again cannot help; nil if it can.
func noAccess(err error) error {
	var refusal *rpc.Refusal
	if errors.As(err, &refusal) && refusal.Access() {
		return refusal
	}
	if errors.Is(err, room.ErrInviteForeign) || errors.Is(room.RefusedBy(err), room.ErrInviteForeign) {
		return fmt.Errorf("%w than the one that answers at its address; ask for a new one", room.ErrInviteForeign)
	}
	if errors.Is(err, room.ErrClock) {
		return err
	}
	return nil
}

// askToJoin asks each tracker of the invite once. A refusal by one that knows the
// room holds for all.
func askToJoin(ctx context.Context, invite room.Invite, csr []byte) (rpc.Membership, error) {
	var last error
	for _, addr := range invite.Addrs {
		joined, err := rpc.Join(ctx, addr, invite.TLS(), nil, rpc.JoinRequest{Room: invite.RoomID, Token: invite.Token, CSR: csr})
		if err == nil {
			return joined, nil
		}
		var refusal *rpc.Refusal
		if last == nil || noAccess(err) != nil || errors.As(err, &refusal) {
			last = err // one that answers tells more than one that does not
		}
		if refusal != nil && refusal.Access() {
			return rpc.Membership{}, err
		}
	}
	return rpc.Membership{}, last
}

func newRoomList(std streams) *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "list the rooms that this machine is in",
		Args:  exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, folder, _, err := openRooms(cmd)
			if err != nil {
				return err
			}
			rooms, err := folder.List()
			for _, r := range rooms {
				role := "member"
				if r.Created {
					role = "made here"
				}
				if invalid := r.Valid(time.Now()); errors.Is(invalid, room.ErrRemoved) {
					role = "removed"
				} else if invalid != nil {
					role = "certificate over, join again"
				}
				fmt.Fprintf(std.out, "%-20s  %s  %-9s  tracker %s\n", r.Name, hex.EncodeToString(r.ID[:4]), role, strings.Join(r.Trackers, ", "))
			}
			if err != nil {
				return failf(exitFileIO, "%w", err)
			}
			return nil
		},
	}
}

func newRoomMembers(std streams) *cobra.Command {
	var discover discoveryFlag
	cmd := &cobra.Command{
		Use:   "members NAME",
		Short: "list who is in a room",
		Args:  exactArgs("the NAME of a room"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, folder, _, err := openRooms(cmd)
			if err != nil {
				return err
			}
			r, err := folder.Get(args[0])
			if err != nil {
				return roomError(err)
			}
			var members []rpc.Member
			err = askTracker(cmd.Context(), folder, r, discover.on(cfg), func(ctx context.Context, t *rpc.Tracker) (err error) {
				members, err = t.Members(cmd.Context())
				return err
			})
			if err != nil {
				return err
			}
			self := folder.Identity().ID
			for _, m := range members {
				state := "away"
				switch {
				case m.Removed:
					state = "removed"
				case m.Online:
					state = "online"
				case !m.LastSeen.IsZero():
					state = "away since " + m.LastSeen.Local().Format(time.DateTime)
				}
				if m.ID == self {
					state += ", this machine"
				}
				fmt.Fprintf(std.out, "%4d  %s  %-20s  %s\n", m.Number, m.ID, safeText(m.Name), state)
			}
			return nil
		},
	}
	discover.register(cmd, "do not look for the room's tracker in the network around where its address does not answer")
	return cmd
}

// askTracker asks the first tracker that answers; with look also one that is only found in
// the network around.
func askTracker(ctx context.Context, folder *room.Folder, r *room.Room, look bool, ask func(context.Context, *rpc.Tracker) error) error {
	if !look {
		return askKnown(ctx, folder, r, ask)
	}
	return askSeeking(ctx, folder, r, discovered, ask)
}

// askKnown asks at the addresses that the room's trackers are said to have.
func askKnown(ctx context.Context, folder *room.Folder, r *room.Room, ask func(context.Context, *rpc.Tracker) error) error {
	if err := r.Valid(time.Now()); errors.Is(err, room.ErrRemoved) {
		return roomError(err)
	}
	var last error
	for _, addr := range r.Trackers {
		tracker, err := rpc.NewTracker(addr, r.ClientTLS(room.ALPNControl, piece.NodeID{}), nil)
		if err != nil {
			return failf(exitOther, "%w", err)
		}
		err = ask(ctx, tracker)
		tracker.Close()
		if err == nil {
			return nil
		}
		if errors.Is(room.RefusedBy(err), room.ErrNotMember) && wasRemoved(ctx, folder, r, addr) {
			return failf(exitNoAccess, "room %s: %w", r.Name, rpc.ErrRemoved)
		}
		var refusal *rpc.Refusal
		if errors.Is(err, rpc.ErrRemoved) {
			return failf(exitNoAccess, "room %s: %w", r.Name, err)
		}
		if errors.As(err, &refusal) && refusal.Access() || room.RefusedBy(err) != nil {
			return failf(exitNoAccess, "room %s: %w; join it again with a new invite", r.Name, err)
		}
		if last == nil || errors.Is(err, rpc.ErrStoreAway) {
			last = err
		}
	}
	if errors.Is(last, rpc.ErrStoreAway) {
		return failf(exitNetwork, "room %s: %w", r.Name, last)
	}
	return failf(exitNetwork, "no tracker of room %s answers at %s (%w); start dragonload up there", r.Name, strings.Join(r.Trackers, ", "), last)
}

// wasRemoved asks a tracker that has refused this machine whether it was removed, and
// keeps the list that says so.
func wasRemoved(ctx context.Context, folder *room.Folder, r *room.Room, addr string) bool {
	csr, err := r.Request()
	if err != nil {
		return false
	}
	list, err := rpc.Standing(ctx, addr, r.JoinTLS(), nil, r.ID, csr)
	if err != nil || list == nil || r.Authority.CheckRemovals(list) != nil || !list.Has(folder.Identity().ID) {
		return false
	}
	known := *r
	known.Removals = list
	_ = folder.SaveRemovals(&known) // else it is asked again
	return true
}

func newRoomLeave(std streams) *cobra.Command {
	return &cobra.Command{
		Use:   "leave NAME",
		Short: "leave a room; of a room made here the authority is lost",
		Long: `Leaves a room. Of a room that was made here the authority is lost: nobody can join it
any more. Trackers that share it on an etcd cluster (dragonload tracker --etcd) all give
it up.`,
		Args: exactArgs("the NAME of a room"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, folder, stateDir, err := openRooms(cmd)
			if err != nil {
				return err
			}
			told, err := leaveRoom(cmd.Context(), folder, stateDir, args[0])
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(std.out, "left %s\n", args[0]); err != nil {
				return err
			}
			if !told {
				fmt.Fprintf(std.err, "the other trackers of room %s go on with it until dragonload tracker --etcd runs here again\n", args[0])
			}
			return nil
		},
	}
}

// leaveRoom has the node that runs on the state folder leave a room, or does it itself.
// told is false if other trackers that share the room have not heard of it yet.
func leaveRoom(ctx context.Context, folder *room.Folder, stateDir, name string) (told bool, err error) {
	r, err := folder.Get(name)
	if errors.Is(err, room.ErrNoRoom) {
		return false, roomError(err)
	} // one that cannot be read can be left all the same
	client, err := rpc.DialLocal(ctx, stateDir)
	if errors.Is(err, rpc.ErrNoNode) {
		return r == nil || !r.Shared, roomError(folder.Leave(name))
	}
	if err == nil {
		defer client.Close()
		err = client.LeaveRoom(ctx, name)
	}
	switch {
	case errors.Is(err, rpc.ErrStoreAway):
		return false, failf(exitNetwork, "room %s is as it was: its trackers cannot reach the etcd cluster that they share, where all of them have to hear of it; leave it when they can", name)
	case err != nil:
		return false, failf(exitOther, "%w", err)
	}
	return true, nil
}
