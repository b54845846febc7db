package tracker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"dragonload/internal/room"
	"dragonload/internal/rpc"
	roomv1 "dragonload/internal/rpc/gen/dragonload/room/v1"
)

type roomHandler struct{ s *Service }

// Renew gives a member a fresh certificate.
func (h roomHandler) Renew(ctx context.Context, req *connect.Request[roomv1.RenewRequest]) (*connect.Response[roomv1.RenewResponse], error) {
	c := callerOf(ctx)
	if c.successor {
		return nil, rpc.ToWire(rpc.ErrTrackerAway)
	}
	if len(req.Msg.GetCsr()) > rpc.MaxCSR {
		return nil, rpc.ToWire(rpc.ErrMalformed)
	}
	chain, err := c.room.Renew(req.Msg.GetCsr(), c.leaf, time.Now())
	if err != nil {
		h.s.opts.Log.Info("renewal refused", "member", c.id, "err", err)
		return nil, rpc.ToWire(refused(err))
	}
	return connect.NewResponse(&roomv1.RenewResponse{Chain: chain, Trackers: c.room.Trackers, Removals: c.room.Removals.Encode()}), nil
}

// Members lists the caller's room.
func (h roomHandler) Members(ctx context.Context, _ *connect.Request[roomv1.MembersRequest]) (*connect.Response[roomv1.MembersResponse], error) {
	c := callerOf(ctx)
	if c.successor {
		return nil, rpc.ToWire(rpc.ErrTrackerAway)
	}
	known, err := h.s.Members(ctx, c.room.ID)
	if err != nil {
		level := slog.LevelError
		if errors.Is(err, rpc.ErrStoreAway) { // which is told already
			level = slog.LevelDebug
		}
		h.s.opts.Log.Log(ctx, level, "list members", "room", c.room.Name, "err", err)
		return nil, rpc.ToWire(err)
	}
	answer := &roomv1.MembersResponse{}
	for _, m := range known {
		x := &roomv1.Member{Number: m.Number, Name: m.Name, Id: append([]byte(nil), m.ID[:]...), Online: m.Online, Removed: m.Removed}
		if !m.LastSeen.IsZero() {
			x.LastSeen = timestamppb.New(m.LastSeen)
		}
		answer.Members = append(answer.Members, x)
	}
	return connect.NewResponse(answer), nil
}

// Members returns all who were ever in a room, those who were removed included.
func (s *Service) Members(ctx context.Context, id [32]byte) ([]rpc.Member, error) {
	known, err := s.opts.State.Members(ctx, id)
	if err != nil {
		return nil, refused(err)
	}
	now := time.Now()
	members := make([]rpc.Member, 0, len(known))
	for _, m := range known {
		one := rpc.Member{Number: m.Number, Name: m.Name, ID: m.Key, Removed: m.Removed}
		one.Online, one.LastSeen = s.present.look(member{id, m.Key}, now)
		members = append(members, one)
	}
	return members, nil
}

// introduce gives a member its number and remembers its name, at its first call since
// the service has started. A member that has a number is let in though nothing can be
// stored, and introduced at a later call: leases and handouts need no disk. So is every
// member while the State does not answer: that it has a certificate is enough.
func (s *Service) introduce(ctx context.Context, c *caller) error {
	if !s.present.isNew(c.member) {
		return nil
	}
	_, err := s.opts.State.Number(ctx, c.room.ID, c.id)
	switch {
	case err == nil:
	case errors.Is(err, ErrAway):
		return nil
	case errors.Is(err, room.ErrRemoved), errors.Is(err, room.ErrFull), ctx.Err() != nil:
		return fmt.Errorf("number member %v: %w", c.id, err)
	default:
		return fmt.Errorf("number member %v: %w: %w", c.id, room.ErrNotStored, err)
	}
	err = s.remember(ctx, c)
	switch {
	case err == nil:
		s.present.introduced(c.member)
	case errors.Is(err, room.ErrRemoved), errors.Is(err, room.ErrFull), ctx.Err() != nil:
		return err
	default:
		s.opts.Log.Error("what a member told could not be stored; it is served all the same", "err", err)
	}
	return nil
}

// remember keeps what is known of a member besides its number.
func (s *Service) remember(ctx context.Context, c *caller) error {
	// A State that was set back has forgotten which invite it came with.
	if use, ok := room.UseOf(c.leaf); ok && time.Now().Before(use.Expires) {
		err := s.opts.State.UseInvite(ctx, c.room.ID, use.Invite, c.id, use.Uses, use.Expires)
		if errors.Is(err, room.ErrInviteUsed) {
			s.opts.Log.Warn("an invite was used by more than it is for: the tracker's state was set back", "room", c.room.Name, "member", c.id)
		} else if err != nil {
			return fmt.Errorf("count the invite of member %v: %w", c.id, err)
		}
	}
	if err := s.opts.State.SetName(ctx, c.room.ID, c.id, c.name); err != nil {
		return fmt.Errorf("remember the name of member %v: %w", c.id, err)
	}
	return nil
}
