package rpc

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	nodev1 "dragonload/internal/rpc/gen/dragonload/node/v1"
	"dragonload/internal/rpc/gen/dragonload/node/v1/nodev1connect"
)

// LocalClient talks to the node that runs on a state folder. Its methods may be called
// concurrently.
type LocalClient struct {
	transport *http.Transport
	node      nodev1connect.NodeServiceClient
}

// DialLocal finds the node that runs on a state folder and makes sure that it is the
// one which wrote node.json there. It returns ErrNoNode if there is none; waiting for
// one that is starting is the caller's.
func DialLocal(ctx context.Context, stateDir string) (*LocalClient, error) {
	l, err := readLocal(stateDir)
	if err != nil {
		return nil, err
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	transport := &http.Transport{
		DialContext:        (&net.Dialer{Timeout: dialTimeout}).DialContext,
		Protocols:          &protocols,
		DisableCompression: true,
		IdleConnTimeout:    time.Minute,
	}
	if err := checkProof(ctx, transport, l); err != nil {
		transport.CloseIdleConnections()
		return nil, err
	}
	client := &http.Client{Transport: bearer{transport, l.Token}, CheckRedirect: noRedirect}
	return &LocalClient{
		transport: transport,
		node:      nodev1connect.NewNodeServiceClient(client, "http://"+l.Addr, clientOptions()),
	}, nil
}

func checkProof(ctx context.Context, transport http.RoundTripper, l local) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var raw [32]byte
	rand.Read(raw[:])
	nonce := hex.EncodeToString(raw[:])
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.Addr+provePath+"?nonce="+nonce, nil)
	if err != nil {
		return fmt.Errorf("ask local API: %w", err)
	}
	answer, err := transport.RoundTrip(req)
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("ask local API: %w", err)
		}
		// Nothing listens there any more, or something that is no node.
		return fmt.Errorf("%w: %w", ErrNoNode, err)
	}
	defer answer.Body.Close()
	proof, err := io.ReadAll(io.LimitReader(answer.Body, 128))
	if err != nil || subtle.ConstantTimeCompare(proof, []byte(l.prove(nonce))) != 1 {
		return fmt.Errorf("%w: another program has its port", ErrNoNode)
	}
	return nil
}

// bearer adds the token to each request.
type bearer struct {
	next  http.RoundTripper
	token string
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(r)
}

// Close lets go of idle connections.
func (c *LocalClient) Close() { c.transport.CloseIdleConnections() }

// Download hands a download to the node and calls event with each of its events, in
// order. It returns when the node has no more to tell, or event returned an error, or
// ctx is over; the last two pause the download.
func (c *LocalClient) Download(ctx context.Context, spec *nodev1.Spec, event func(*nodev1.DownloadEvent) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.node.Download(ctx, connect.NewRequest(&nodev1.DownloadRequest{Spec: spec}))
	if err != nil {
		return fmt.Errorf("hand download to the running node: %w", FromWire(err))
	}
	// The end of ctx has already ended the stream then, in whatever order.
	defer func() { _ = stream.Close() }()
	defer cancel()
	for stream.Receive() {
		if err := event(stream.Msg()); err != nil {
			return err
		}
	}
	if err = stream.Err(); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("follow download in the running node: %w", FromWire(err))
	}
	return nil
}

// Status tells what the node is and does.
func (c *LocalClient) Status(ctx context.Context) (*nodev1.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := c.node.Status(ctx, connect.NewRequest(&nodev1.StatusRequest{}))
	if err != nil {
		return nil, fmt.Errorf("ask the running node: %w", FromWire(err))
	}
	return answer.Msg, nil
}

// Finished tells what the node remembers of the download that was saved at path; nil if
// nothing.
func (c *LocalClient) Finished(ctx context.Context, path string) (*nodev1.Finished, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := c.node.Finished(ctx, connect.NewRequest(&nodev1.FinishedRequest{Path: path}))
	if err != nil {
		return nil, fmt.Errorf("ask the running node: %w", FromWire(err))
	}
	return answer.Msg.GetFinished(), nil
}

// Unfinished tells what the node has recorded of the unfinished download to path, or whose
// partial file path is; nil if nothing.
func (c *LocalClient) Unfinished(ctx context.Context, path string) (*nodev1.Unfinished, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := c.node.Unfinished(ctx, connect.NewRequest(&nodev1.UnfinishedRequest{Path: path}))
	if err != nil {
		return nil, fmt.Errorf("ask the running node: %w", FromWire(err))
	}
	return answer.Msg.GetUnfinished(), nil
}

// ReloadRooms makes the node look at its state folder again.
func (c *LocalClient) ReloadRooms(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := c.node.ReloadRooms(ctx, connect.NewRequest(&nodev1.ReloadRoomsRequest{})); err != nil {
		return fmt.Errorf("tell the running node of rooms: %w", FromWire(err))
	}
	return nil
}

// LeaveRoom has the node forget a room.
func (c *LocalClient) LeaveRoom(ctx context.Context, room string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := c.node.LeaveRoom(ctx, connect.NewRequest(&nodev1.LeaveRoomRequest{Room: room})); err != nil {
		return fmt.Errorf("have the running node leave room %s: %w", room, FromWire(err))
	}
	return nil
}

// RemoveMember shuts a member out of a room made here, if exactly one is meant by a name
// or id: that is the only match then. With several, or none, nothing has happened.
func (c *LocalClient) RemoveMember(ctx context.Context, room, member string) (matches []Member, epoch uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := c.node.RemoveMember(ctx, connect.NewRequest(&nodev1.RemoveMemberRequest{Room: room, Member: member}))
	if err != nil {
		return nil, 0, fmt.Errorf("have the running node remove a member: %w", FromWire(err))
	}
	for _, x := range answer.Msg.GetMatches() {
		id, err := decodeID(x.GetId())
		if err != nil {
			return nil, 0, fmt.Errorf("have the running node remove a member: %w", malformed("member", err))
		}
		matches = append(matches, Member{ID: id, Name: x.GetName(), Removed: x.GetRemoved()})
	}
	return matches, answer.Msg.GetEpoch(), nil
}
