package tracker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"dragonload/internal/room"
	"dragonload/internal/rpc"
	roomv1 "dragonload/internal/rpc/gen/dragonload/room/v1"
	"dragonload/internal/rpc/gen/dragonload/room/v1/roomv1connect"
)

// maxJoinMessage bounds what somebody who is no member yet may send, in bytes.
const maxJoinMessage = 16 << 10

// JoinHandler serves those who want to become members, over connections that were made
// with ALPN dragonload-join/1. It answers nothing else.
func (s *Service) JoinHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(roomv1connect.NewJoinServiceHandler(joinHandler{s},
		rpc.HandlerOptions(), connect.WithReadMaxBytes(maxJoinMessage)))
	return mux
}

type joinHandler struct{ s *Service }

// Join admits a machine with an invite.
func (h joinHandler) Join(ctx context.Context, req *connect.Request[roomv1.JoinRequest]) (*connect.Response[roomv1.JoinResponse], error) {
	answer, err := h.s.admit(ctx, req.Msg)
	if err != nil {
		h.s.opts.Log.Info("join refused", "from", req.Peer().Addr, "err", err)
		return nil, rpc.ToWire(refused(err))
	}
	return connect.NewResponse(answer), nil
}

func (s *Service) admit(ctx context.Context, x *roomv1.JoinRequest) (*roomv1.JoinResponse, error) {
	if len(x.GetRoom()) != 32 || len(x.GetToken()) > rpc.MaxToken || len(x.GetCsr()) > rpc.MaxCSR {
		return nil, rpc.ErrMalformed
	}
	r, ok := s.served([32]byte(x.GetRoom()))
	if !ok {
		if s.hosted.any([32]byte(x.GetRoom())) {
			return nil, rpc.ErrTrackerAway
		}
		return nil, rpc.ErrRoomUnknown
	}
	chain, err := r.Admit(ctx, x.GetToken(), x.GetCsr(), time.Now(), s.opts.State)
	if err != nil {
		return nil, err
	}
	return &roomv1.JoinResponse{Chain: chain, Trackers: r.Trackers, Removals: r.Removals.Encode()}, nil
}

// Standing tells the holder of a key that it was removed, with the list that says so.
func (h joinHandler) Standing(_ context.Context, req *connect.Request[roomv1.StandingRequest]) (*connect.Response[roomv1.StandingResponse], error) {
	x := req.Msg
	if len(x.GetRoom()) != 32 || len(x.GetCsr()) > rpc.MaxCSR {
		return nil, rpc.ToWire(rpc.ErrMalformed)
	}
	r, ok := h.s.served([32]byte(x.GetRoom()))
	if !ok {
		return nil, rpc.ToWire(rpc.ErrRoomUnknown)
	}
	removed, err := r.Standing(x.GetCsr())
	if err != nil {
		h.s.opts.Log.Debug("question for a standing refused", "from", req.Peer().Addr, "err", err)
		return nil, rpc.ToWire(rpc.ErrMalformed)
	}
	return connect.NewResponse(&roomv1.StandingResponse{Removals: removed.Encode()}), nil
}

// refused puts what package room refuses for into the words of the control plane.
func refused(err error) error {
	for _, m := range []struct{ in, out error }{
		{room.ErrInviteBad, rpc.ErrInviteBad},
		{room.ErrInviteExpired, rpc.ErrInviteExpired},
		{room.ErrInviteUsed, rpc.ErrInviteUsed},
		{room.ErrInviteForeign, rpc.ErrInviteForeign},
		{room.ErrRemoved, rpc.ErrRemoved},
		{room.ErrFull, rpc.ErrRoomFull},
		{ErrAway, rpc.ErrStoreAway}, // before what it makes impossible
		{room.ErrNotStored, rpc.ErrCannotStore},
		{room.ErrNoAuthority, rpc.ErrNoAuthority},
		{room.ErrNotMember, rpc.ErrNotMember},
	} {
		if errors.Is(err, m.in) {
			return fmt.Errorf("%w: %w", m.out, err)
		}
	}
	return err
}
