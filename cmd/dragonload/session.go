package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"dragonload/internal/node"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
)

// session is what get works with: the node that runs on the state folder already, or
// one in this process.
type session struct {
	downloader downloader
	room       string // the name, also if --room was an invite
	stays      bool   // the node does not end with its downloads
	close      func() error
}

type sessionOptions struct {
	stateDir, partialDir string
	room                 string // name or invite; "" to work alone
	listen, advertise    string
	// Whether the command line itself asks for these addresses, which the node that
	// runs must then have.
	listenDemanded, advertiseDemanded bool
	discovery                         bool
	// A node that is started here stays until it is told to stop, and serves whatever it
	// has.
	stays       bool
	uploadLimit int64
	stdout      io.Writer
	log         *slog.Logger
}

// startWithin is how long get waits for a node that has the state folder but does not
// answer yet.
const (
	startWithin = 5 * time.Second
	startEvery  = 20 * time.Millisecond
)

// openSession finds the node that runs, or starts one.
func openSession(ctx context.Context, o sessionOptions) (*session, error) {
	if o.room != "" {
		folder, err := room.OpenFolder(o.stateDir)
		if err != nil {
			return nil, failf(exitFileIO, "%w", err)
		}
		if isInvite(o.room) {
			r, err := joinRoom(ctx, folder, o.stateDir, o.room, 0, o.discovery)
			if err != nil {
				return nil, err
			}
			o.room = r.Name
		}
		if _, err := folder.Get(o.room); err != nil {
			return nil, roomError(err)
		}
	}
	until := time.Now().Add(startWithin)
	for {
		client, err := rpc.DialLocal(ctx, o.stateDir)
		if err == nil {
			return o.remoteSession(ctx, client)
		}
		if !errors.Is(err, rpc.ErrNoNode) {
			return nil, failf(exitOther, "%w", err)
		}
		m, err := startMachine(ctx, machineOptions{
			stateDir: o.stateDir, partialDir: o.partialDir, listen: o.listen, advertise: o.advertise,
			room: o.room, discovery: o.discovery, serve: o.stays, daemon: o.stays, uploadLimit: o.uploadLimit, stdout: o.stdout, log: o.log,
		})
		if err == nil {
			return o.ownSession(ctx, m), nil
		}
		if !errors.Is(err, node.ErrRunning) {
			return nil, err
		}
		if time.Now().After(until) {
			return nil, failf(exitOther, "another dragonload works with the state folder %s and does not answer; stop it, or set DRAGONLOAD_STATE_DIR", o.stateDir)
		}
		select {
		case <-time.After(startEvery):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (o sessionOptions) ownSession(ctx context.Context, m *machine) *session {
	return &session{downloader: m, room: o.room, stays: o.stays, close: func() error {
		if o.stays {
			return m.close()
		}
		// Another get may have handed its work to this process; a signal ends that too.
		idle := m.node.Idle(ctx)
		if ctx.Err() != nil {
			idle = nil
		}
		return errors.Join(idle, m.close())
	}}
}
