package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"dragonload/internal/node"
	"dragonload/internal/rpc"
)

// session is what get works with: the node that runs on the state folder already, or
// one in this process. When the node of another process ends, it is replaced.
type session struct {
	options sessionOptions
	room    string // the name, also if --room was an invite

	mu     sync.Mutex // held while the worker is being replaced
	worker *worker
}

// worker is a node that carries out downloads.
type worker struct {
	downloader downloader
	stays      bool  // the node does not end with its downloads
	pid        int64 // of the other process; 0 if it is in this one
	close      func() error
}

type sessionOptions struct {
	stateDir, partialDir string
	room                 string // name or invite; "" to work alone
	listen, advertise    string
	// Whether the command line itself asks for these addresses, which the node that
	// runs must then have.
	listenDemanded, advertiseDemanded bool
	ended                             int64 // process id of a node that is ending; 0 for none
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

	// returnWithin is how long the next node is waited for when an up has ended: one that is
	// started again should find the state folder free.
	returnWithin = 1500 * time.Millisecond
)

// errNodeEnded: the node of another process has ended before the download had.
var errNodeEnded = errors.New("the dragonload that worked on it has ended; what has come is kept, and the same command goes on from there")

// openSession finds the node that runs, or starts one.
func openSession(ctx context.Context, o sessionOptions) (*session, error) {
	if o.room != "" {
		folder, err := openFolder(o.stateDir)
		if err != nil {
			return nil, err
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
	w, err := o.openWorker(ctx)
	if err != nil {
		return nil, err
	}
	return &session{options: o, room: o.room, worker: w}, nil
}

// openWorker finds the node that runs, or starts one.
func (o sessionOptions) openWorker(ctx context.Context) (*worker, error) {
	until := time.Now().Add(startWithin)
	for {
		w, err := o.remote(ctx)
		if err == nil {
			o.log.Info("the dragonload that runs here takes the work, and logs what becomes of it", "pid", w.pid, "state", o.stateDir)
			return w, nil
		}
		if !errors.Is(err, rpc.ErrNoNode) && !errors.Is(err, errNodeEnded) {
			return nil, err
		}
		m, err := startMachine(ctx, machineOptions{
			stateDir: o.stateDir, partialDir: o.partialDir, listen: o.listen, advertise: o.advertise,
			room: o.room, discovery: o.discovery, serve: o.stays, daemon: o.stays, uploadLimit: o.uploadLimit, stdout: o.stdout, log: o.log,
		})
		if err == nil {
			return o.ownWorker(ctx, m), nil
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

// remote finds the node that runs; rpc.ErrNoNode and errNodeEnded mean that there is none
// any more, or yet.
func (o sessionOptions) remote(ctx context.Context) (*worker, error) {
	client, err := rpc.DialLocal(ctx, o.stateDir)
	if err != nil {
		return nil, failf(exitOther, "%w", err)
	}
	return o.remoteWorker(ctx, client)
}

func (o sessionOptions) ownWorker(ctx context.Context, m *machine) *worker {
	return &worker{downloader: m, stays: o.stays, close: func() error {
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

// Download carries out a download, if need be with one node after the other.
func (s *session) Download(ctx context.Context, spec node.Spec, tell func(node.Event)) error {
	for {
		s.mu.Lock()
		w := s.worker
		s.mu.Unlock()
		begun, saved := false, false
		err := w.downloader.Download(ctx, spec, func(ev node.Event) {
			begun, saved = begun || ev.Start != nil, saved || ev.Saved != nil
			tell(ev)
		})
		if saved || ctx.Err() != nil || !errors.Is(err, errNodeEnded) {
			return err
		}
		if err := s.replace(ctx, w); err != nil {
			return err
		}
		warn := func(code, message string) {
			tell(node.Event{Time: time.Now(), Warning: &node.Problem{Code: code, Message: message}})
		}
		warn("taken-over", "the dragonload that worked on it has ended; this command goes on with what has come")
		spec.Restart = spec.Restart && !begun
	}
}

// replace puts another node in the place of one that has ended, unless that has happened.
func (s *session) replace(ctx context.Context, ended *worker) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.worker != ended {
		return nil
	}
	if err := ended.close(); err != nil {
		return err
	}
	o := s.options
	o.ended = ended.pid
	for until := time.Now().Add(returnWithin); ended.stays && time.Now().Before(until); {
		if w, err := o.remote(ctx); err == nil {
			o.log.Info("a dragonload that was started again takes the work", "pid", w.pid)
			s.worker = w
			return nil
		}
		select {
		case <-time.After(startEvery):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	w, err := o.openWorker(ctx)
	if err == nil {
		s.worker = w
	}
	return err
}
