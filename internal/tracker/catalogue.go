package tracker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/time/rate"

	"dragonload/internal/catalogue"
	"dragonload/internal/rpc"
	roomv1 "dragonload/internal/rpc/gen/dragonload/room/v1"
)

const (
	// A member may cost the catalogue so much a second, and at once: to publish all that
	// it may, at once, is within it.
	allowance = 2000
	allowedUp = 4 * catalogue.MaxNodeEntries
	// An entry costs 1, and 1 for each costBytes of its names.
	costBytes  = 256
	costSearch = 100
	costAsk    = 2
	costReport = 1000

	// maxSearches bounds the searches that are answered at one time; one that waits for
	// its turn for longer than searchWithin is refused.
	maxSearches  = 16
	searchWithin = 5 * time.Second
	// pageWithin is how long a member may take to read one page.
	pageWithin = 10 * time.Second
)

// shelves answers for the catalogues of the rooms that are served, and of those in which
// this node takes the tracker's place.
type shelves struct {
	s         *Service
	searching chan struct{} // holds one for each search that is answered
}

// afford takes what a call costs from the member's allowance.
func (p *presence) afford(m member, cost int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.of(m)
	if e.allowance == nil {
		e.allowance = rate.NewLimiter(allowance, allowedUp)
	}
	if !e.allowance.AllowN(time.Now(), cost) {
		return fmt.Errorf("%w: what it asks of the catalogue", rpc.ErrTooMany)
	}
	return nil
}

// caller returns who calls, if it may spend so much.
func (h shelves) caller(ctx context.Context, cost int) (*caller, error) {
	c := callerOf(ctx)
	if c.successor && c.room.Removals.Has(c.id) {
		return nil, rpc.ErrRemoved
	}
	return c, h.s.present.afford(c.member, cost)
}

// refuse puts what the State refuses into the words of the control plane.
func (h shelves) refuse(c *caller, what string, err error) error {
	switch {
	case errors.Is(err, catalogue.ErrUnknown):
		err = fmt.Errorf("%w: %w", rpc.ErrPublishAnew, err)
	case errors.Is(err, catalogue.ErrFull):
		err = fmt.Errorf("%w: %w", rpc.ErrCatalogueFull, err)
	case errors.Is(err, catalogue.ErrBad):
		err = fmt.Errorf("%w: %w", rpc.ErrMalformed, err)
	}
	err = refused(err)
	var known *rpc.Refusal
	if errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) { // the member waits no more
		h.s.opts.Log.Debug("refused", "call", what, "member", c.id, "err", err)
	} else {
		h.s.opts.Log.Error("the catalogue", "call", what, "member", c.id, "err", err)
	}
	return rpc.ToWire(err)
}

// Publish implements the service.
func (h shelves) Publish(ctx context.Context, req *connect.Request[roomv1.PublishRequest]) (*connect.Response[roomv1.PublishResponse], error) {
	b, err := rpc.DecodeBatch(req.Msg)
	if err != nil {
		return nil, rpc.ToWire(err)
	}
	cost := 1 + len(b.Add) + len(b.Remove)
	for i := range b.Add {
		cost += b.Add[i].Text() / costBytes
	}
	c, err := h.caller(ctx, cost)
	if err != nil {
		return nil, rpc.ToWire(err)
	}
	if err := h.publish(ctx, c, req.Msg.GetAddr(), b); err != nil {
		return nil, h.refuse(c, "publish", err)
	}
	return connect.NewResponse(&roomv1.PublishResponse{}), nil
}

func (h shelves) publish(ctx context.Context, c *caller, addr string, b catalogue.Batch) error {
	from := catalogue.Holder{ID: c.id, Name: CutName(c.name), Seen: c.host}
	var err error
	if from.Addr, err = h.s.reachable(addr, c); err != nil {
		return err
	}
	if from.Addr != "" {
		if err := rpc.CheckAddr(from.Addr); err != nil {
			return fmt.Errorf("%w: %w", rpc.ErrMalformed, err)
		}
	}
	if b.From == 0 && !h.s.probes.forgive(ctx, c.member, from) {
		return rpc.ErrUnreachable
	}
	if !c.successor {
		if from.Number, err = h.s.opts.State.Number(ctx, c.room.ID, c.id); err != nil {
			return err
		}
	}
	return h.s.opts.State.Publish(ctx, c.room.ID, from, b)
}

// RenewLease implements the service.
func (h shelves) RenewLease(ctx context.Context, req *connect.Request[roomv1.RenewLeaseRequest]) (*connect.Response[roomv1.RenewLeaseResponse], error) {
	c, err := h.caller(ctx, costAsk)
	if err != nil {
		return nil, rpc.ToWire(err)
	}
	known, err := h.s.opts.State.Renew(ctx, c.room.ID, c.id, req.Msg.GetVersion())
	if err == nil && !known {
		err = catalogue.ErrUnknown
	}
	if err != nil {
		return nil, h.refuse(c, "renew", err)
	}
	return connect.NewResponse(&roomv1.RenewLeaseResponse{}), nil
}

// Withdraw implements the service.
func (h shelves) Withdraw(ctx context.Context, _ *connect.Request[roomv1.WithdrawRequest]) (*connect.Response[roomv1.WithdrawResponse], error) {
	c, err := h.caller(ctx, costAsk)
	if err != nil {
		return nil, rpc.ToWire(err)
	}
	if err := h.s.opts.State.Withdraw(ctx, c.room.ID, c.id); err != nil {
		return nil, h.refuse(c, "withdraw", err)
	}
	return connect.NewResponse(&roomv1.WithdrawResponse{}), nil
}

// Search implements the service.
func (h shelves) Search(ctx context.Context, req *connect.Request[roomv1.SearchRequest], stream *connect.ServerStream[roomv1.SearchResponse]) error {
	q, err := rpc.DecodeQuery(req.Msg)
	if err != nil {
		return rpc.ToWire(err)
	}
	c, err := h.caller(ctx, costSearch)
	if err != nil {
		return rpc.ToWire(err)
	}
	late := time.NewTimer(searchWithin)
	defer late.Stop()
	select {
	case h.searching <- struct{}{}:
		defer func() { <-h.searching }()
	case <-late.C:
		return rpc.ToWire(fmt.Errorf("%w: searches", rpc.ErrTooMany))
	case <-ctx.Done():
		return rpc.ToWire(context.Cause(ctx))
	}
	page, err := h.s.opts.State.Search(ctx, c.room.ID, q)
	if err != nil {
		return h.refuse(c, "search", err)
	}
	for _, x := range rpc.EncodePage(page) {
		if err := c.control.SetWriteDeadline(time.Now().Add(pageWithin)); err != nil {
			return rpc.ToWire(fmt.Errorf("set deadline: %w", err))
		}
		if err := stream.Send(x); err != nil {
			return err
		}
	}
	return nil
}

// Holders implements the service.
func (h shelves) Holders(ctx context.Context, req *connect.Request[roomv1.HoldersRequest]) (*connect.Response[roomv1.HoldersResponse], error) {
	c, err := h.caller(ctx, costAsk)
	if err != nil {
		return nil, rpc.ToWire(err)
	}
	if len(req.Msg.GetManifest()) != 32 {
		return nil, rpc.ToWire(rpc.ErrMalformed)
	}
	limit := int(min(req.Msg.GetLimit(), catalogue.MaxHandout))
	holders, err := h.s.opts.State.Holders(ctx, c.room.ID, [32]byte(req.Msg.GetManifest()), c.id, limit)
	if err != nil {
		return nil, h.refuse(c, "holders", err)
	}
	return connect.NewResponse(rpc.EncodeHolders(holders)), nil
}

// ReportUnreachable implements the service.
func (h shelves) ReportUnreachable(ctx context.Context, req *connect.Request[roomv1.ReportUnreachableRequest]) (*connect.Response[roomv1.ReportUnreachableResponse], error) {
	c, err := h.caller(ctx, costReport)
	if err != nil {
		return nil, rpc.ToWire(err)
	}
	if len(req.Msg.GetHolder()) != 32 || [32]byte(req.Msg.GetHolder()) == c.id {
		return nil, rpc.ToWire(rpc.ErrMalformed)
	}
	gone, err := h.s.probes.report(ctx, member{c.room.ID, [32]byte(req.Msg.GetHolder())})
	if err != nil {
		return nil, h.refuse(c, "report", err)
	}
	return connect.NewResponse(&roomv1.ReportUnreachableResponse{Gone: gone}), nil
}
