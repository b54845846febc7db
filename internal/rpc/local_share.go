package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect"

	nodev1 "dragonload/internal/rpc/gen/dragonload/node/v1"
)

// What one message tells of: contents, shares, bytes of a manifest.
const (
	foundAtOnce    = 100
	sharesAtOnce   = 100
	manifestAtOnce = 256 << 10
)

func (h localHandler) Share(ctx context.Context, req *connect.Request[nodev1.ShareRequest], stream *connect.ServerStream[nodev1.ShareEvent]) error {
	err := follow(ctx, stream, func(ctx context.Context, send func(*nodev1.ShareEvent)) error {
		return h.s.node.Share(ctx, req.Msg, send)
	})
	return h.answer("share", err)
}

func (h localHandler) Unshare(ctx context.Context, req *connect.Request[nodev1.UnshareRequest]) (*connect.Response[nodev1.UnshareResponse], error) {
	matches, err := h.s.node.Unshare(ctx, req.Msg.GetWhat(), req.Msg.GetRoom())
	if err != nil {
		return nil, h.answer("unshare", err)
	}
	return connect.NewResponse(&nodev1.UnshareResponse{Matches: matches}), nil
}

func (h localHandler) Shares(ctx context.Context, _ *connect.Request[nodev1.SharesRequest], stream *connect.ServerStream[nodev1.SharesResponse]) error {
	all, err := h.s.node.Shares(ctx)
	for len(all) > 0 && err == nil {
		n := min(len(all), sharesAtOnce)
		err = stream.Send(&nodev1.SharesResponse{Shares: all[:n]})
		all = all[n:]
	}
	return h.answer("shares", err)
}

func (h localHandler) Manifest(ctx context.Context, req *connect.Request[nodev1.ManifestRequest], stream *connect.ServerStream[nodev1.ManifestResponse]) error {
	matches, text, err := h.s.node.Manifest(ctx, req.Msg.GetWhat())
	if err == nil {
		err = stream.Send(&nodev1.ManifestResponse{Matches: matches})
	}
	for len(text) > 0 && err == nil {
		n := min(len(text), manifestAtOnce)
		err = stream.Send(&nodev1.ManifestResponse{Manifest: text[:n]})
		text = text[n:]
	}
	return h.answer("manifest", err)
}

func (h localHandler) Search(ctx context.Context, req *connect.Request[nodev1.SearchRequest], stream *connect.ServerStream[nodev1.SearchResponse]) error {
	found, more, err := h.s.node.Search(ctx, req.Msg)
	for len(found) > foundAtOnce && err == nil {
		err = stream.Send(&nodev1.SearchResponse{Found: found[:foundAtOnce]})
		found = found[foundAtOnce:]
	}
	if err == nil {
		err = stream.Send(&nodev1.SearchResponse{Found: found, More: more})
	}
	return h.answer("search", err)
}

// Share has the node offer a file or folder, and calls event with each of its events, in
// order. It returns when the node has no more to tell, or event returned an error, or
// ctx is over; the last two end the hashing.
func (c *LocalClient) Share(ctx context.Context, req *nodev1.ShareRequest, event func(*nodev1.ShareEvent) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.node.Share(ctx, connect.NewRequest(req))
	if err != nil {
		return fmt.Errorf("hand the share to the running node: %w", FromWire(err))
	}
	defer func() { _ = stream.Close() }() // as in Download
	defer cancel()
	for stream.Receive() {
		if err := event(stream.Msg()); err != nil {
			return err
		}
	}
	if err = stream.Err(); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("share in the running node: %w", FromWire(err))
	}
	return nil
}

// Unshare ends the share that what means (a path, or digits of its id), in a room or, if
// that is "", wherever it is; only if it is one: with several, or none, nothing has
// happened.
func (c *LocalClient) Unshare(ctx context.Context, what, room string) ([]*nodev1.Shared, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := c.node.Unshare(ctx, connect.NewRequest(&nodev1.UnshareRequest{What: what, Room: room}))
	if err != nil {
		return nil, fmt.Errorf("have the running node end a share: %w", FromWire(err))
	}
	return answer.Msg.GetMatches(), nil
}

// Shares tells what the node offers.
func (c *LocalClient) Shares(ctx context.Context) ([]*nodev1.Shared, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	stream, err := c.node.Shares(ctx, connect.NewRequest(&nodev1.SharesRequest{}))
	if err != nil {
		return nil, fmt.Errorf("ask the running node for its shares: %w", FromWire(err))
	}
	defer func() { _ = stream.Close() }() // as in Download
	var all []*nodev1.Shared
	for stream.Receive() {
		all = append(all, stream.Msg().GetShares()...)
	}
	if err := stream.Err(); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("ask the running node for its shares: %w", FromWire(err))
	}
	return all, nil
}

// Manifest returns the metainfo file of the share that what means, if that is one.
func (c *LocalClient) Manifest(ctx context.Context, what string) ([]*nodev1.Shared, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	stream, err := c.node.Manifest(ctx, connect.NewRequest(&nodev1.ManifestRequest{What: what}))
	if err != nil {
		return nil, nil, fmt.Errorf("ask the running node for a manifest: %w", FromWire(err))
	}
	defer func() { _ = stream.Close() }() // as in Download
	var matches []*nodev1.Shared
	var text []byte
	for stream.Receive() {
		matches = append(matches, stream.Msg().GetMatches()...)
		text = append(text, stream.Msg().GetManifest()...)
	}
	if err := stream.Err(); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("ask the running node for a manifest: %w", FromWire(err))
	}
	return matches, text, nil
}

// Search has the node ask a room for what its members hold.
func (c *LocalClient) Search(ctx context.Context, req *nodev1.SearchRequest) (found []*nodev1.Found, more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*callTimeout) // the node asks others
	defer cancel()
	stream, err := c.node.Search(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, false, fmt.Errorf("search by the running node: %w", FromWire(err))
	}
	defer func() { _ = stream.Close() }() // as in Download
	for stream.Receive() {
		found = append(found, stream.Msg().GetFound()...)
		more = stream.Msg().GetMore()
	}
	if err := stream.Err(); err != nil && !errors.Is(err, io.EOF) {
		return nil, false, fmt.Errorf("search by the running node: %w", FromWire(err))
	}
	return found, more, nil
}
