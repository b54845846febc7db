package node

import (
	"context"
	"errors"
	"fmt"
	"os"

	"dragonload/internal/room"
	"dragonload/internal/rpc"
	nodev1 "dragonload/internal/rpc/gen/dragonload/node/v1"
)

// localNode answers the local API.
type localNode struct{ n *Node }

func (l localNode) Download(ctx context.Context, spec *nodev1.Spec, send func(*nodev1.DownloadEvent)) error {
	s, err := DecodeSpec(spec)
	if err == nil && s.Output == "-" {
		err = errors.New("standard output is the caller's")
	}
	if err != nil {
		return fmt.Errorf("%w: %w", rpc.ErrMalformed, err)
	}
	err = l.n.Download(ctx, s, func(ev Event) { send(EncodeEvent(ev)) })
	if errors.Is(err, ErrEnding) {
		return rpc.ErrStopping
	}
	return nil // a failure was told as an event
}

func (l localNode) Status(context.Context) (*nodev1.StatusResponse, error) {
	n := l.n
	status := &nodev1.StatusResponse{Version: n.opts.Version, Pid: int64(os.Getpid()), Advertise: n.advertised(), Stays: n.opts.KeepServing}
	if addr := n.Addr(); addr != nil {
		status.Listen = addr.String()
	}
	if n.opts.Rooms != nil {
		// A damaged room does not hide the others.
		rooms, err := n.opts.Rooms.List()
		if err != nil {
			n.log.Warn("read rooms", "err", err)
		}
		for _, r := range rooms {
			status.Rooms = append(status.Rooms, &nodev1.Room{
				Name: r.Name, Id: r.ID[:], Trackers: r.Trackers, Created: r.Created, Connected: n.connected(r.ID),
			})
		}
	}
	if n.opts.Lend != nil {
		status.Lends = n.opts.Lend.Rooms
	}
	n.mu.Lock()
	running := append([]*download(nil), n.running...)
	n.mu.Unlock()
	for _, d := range running {
		one := &nodev1.Download{Url: d.shown(), Room: d.spec.Room}
		if d.lent != nil {
			one.LentTo = d.lent.offer.Asker[:]
		}
		if p := d.latest.Load(); p != nil {
			one.Progress = EncodeProgress(*p)
		}
		status.Downloads = append(status.Downloads, one)
	}
	return status, nil
}

// connected reports whether a download of this node is in a session with a tracker of
// the room.
func (n *Node) connected(roomID [32]byte) bool {
	n.mu.Lock()
	m := n.members[roomID]
	n.mu.Unlock()
	return m != nil && m.sessions.Load() > 0
}

func (l localNode) Finished(_ context.Context, path string) (*nodev1.Finished, error) {
	k, found, err := l.n.journal.Kept(path)
	if err != nil || !found {
		return nil, err
	}
	return EncodeKept(k), nil
}

func (l localNode) Unfinished(_ context.Context, path string) (*nodev1.Unfinished, error) {
	return Unfinished(l.n.journal, path)
}

func (l localNode) ReloadRooms(context.Context) error { return l.n.ReloadRooms() }

func (l localNode) LeaveRoom(ctx context.Context, name string) error { return l.n.LeaveRoom(ctx, name) }

// LeaveRoom forgets a room, one that was made here at all trackers that share it.
func (n *Node) LeaveRoom(ctx context.Context, name string) error {
	if n.opts.Rooms == nil || n.opts.Keyring == nil {
		return room.ErrNoRoom
	}
	// A room that cannot be read can be left all the same.
	if r, err := n.opts.Rooms.Get(name); err == nil && r.Created && n.opts.LeaveRoom != nil {
		if err := n.opts.LeaveRoom(ctx, r); err != nil {
			return fmt.Errorf("leave room %s: %w", name, err)
		}
	}
	if err := n.opts.Rooms.Leave(name); err != nil {
		return err
	}
	return n.ReloadRooms()
}

func (l localNode) RemoveMember(ctx context.Context, name, member string) ([]rpc.Member, uint64, error) {
	return l.n.RemoveMember(ctx, name, member)
}

// ReloadRooms makes the rooms of the state folder those that connections are accepted
// in. Downloads that run in a room that was left go on until they meet a refusal.
func (n *Node) ReloadRooms() error {
	if n.opts.Rooms == nil || n.opts.Keyring == nil {
		return nil
	}
	rooms, err := n.opts.Rooms.List()
	here := make(map[[32]byte]bool)
	for _, r := range rooms {
		here[r.ID] = true
		n.opts.Keyring.Add(r)
	}
	if err != nil {
		return err
	}
	for _, r := range n.opts.Keyring.Rooms() {
		if !here[r.ID] {
			n.opts.Keyring.Remove(r.ID)
		}
	}
	n.announceRooms()
	n.sharesChanged()
	return nil
}
