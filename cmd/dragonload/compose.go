package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime/debug"
	"sync"

	"dragonload/internal/node"
	"dragonload/internal/room"
	"dragonload/internal/swarm"
	"dragonload/internal/tracker"
	"dragonload/internal/tracker/boltstate"
)

// trackerFile is where the tracker of the rooms made here keeps what it must not
// forget, in the state folder.
const trackerFile = "tracker.db"

// machineOptions say how a node and the tracker beside it are put together.
type machineOptions struct {
	stateDir, partialDir string
	listen, advertise    string
	invited              bool   // advertise is what invites say, not what the user says
	room                 string // that this process works in; "" if none, or if it is not known yet
	serve                bool   // from the start, and not with the first download in a room
	daemon               bool   // all rooms, and what is finished, until the end
	discovery            bool   // members are looked for in the network around
	uploadLimit          int64
	lend                 *node.LendOptions // nil for no help to others
	etcd                 *sharedState      // that this tracker is a replica in; nil: it is the only one
	stdout               io.Writer
	log                  *slog.Logger
}

// machine is a node and, on the same listener, the tracker of the rooms made here, which
// in other rooms takes the tracker's place while it is away.
type machine struct {
	node    *node.Node
	keyring *room.Keyring
	state   tracker.State // that must be closed; nil without rooms made here
	held    catalogues    // nil without a tracker, and where they do not tell their size

	cancel     context.CancelFunc
	ended      chan struct{} // closed when the node has, with nodeErr
	nodeErr    error
	running    sync.WaitGroup // the tracker
	trackerErr error
}

// A node's live heap is small, a few MiB and the pieces under way. With nothing but what is live
// to go by, it would be collected so often that a tenth of the CPU time of a room on a small
// machine went into that; with a percentage of it that avoids this, a flood from a hostile member,
// which makes live and dead memory, would make the process grow by 100 MiB. So the collector is given
// a ballast: memory that counts and is never touched, so that the system never provides it. It
// collects when as much has come since the last time as is live and the ballast has together. (R. Hyland, Twitch, "Go
// memory ballast", 2019.) From softLimit on memory counts for more.
const (
	ballastSize = 8 << 20
	softLimit   = ballastSize + 96<<20
)

var ballast = sync.OnceValue(func() []byte { return make([]byte, ballastSize) })

// startMachine takes the state folder (the error is node.ErrRunning if another process
// has it) and returns when work is accepted. close must be called.
func startMachine(ctx context.Context, o machineOptions) (*machine, error) {
	ballast()
	debug.SetMemoryLimit(softLimit)
	folder, err := openFolder(o.stateDir)
	if err != nil {
		return nil, err
	}
	m := &machine{keyring: &room.Keyring{}, ended: make(chan struct{})}
	rooms, err := folder.List()
	if err != nil {
		o.log.Error("a room cannot be read and is left out", "err", err)
	}
	madeHere := o.daemon
	for _, r := range rooms {
		m.keyring.Add(r)
		madeHere = madeHere || r.Created
		if r.Created {
			o.meet(ctx, r)
		}
	}
	options := node.Options{
		StateDir: o.stateDir, PartialDir: o.partialDir, Own: ownPlaces(), Version: version(),
		Rooms: folder, Keyring: m.keyring, Identity: folder.Identity(),
		Listen: o.listen, Advertise: o.advertise,
		Serve: o.serve, KeepServing: o.daemon, Local: true,
		UploadLimit: o.uploadLimit, Lend: o.lend, Stdout: o.stdout, Log: o.log,
	}
	if o.invited {
		options.HasLeft = func(address string) bool { return hasLeft(address, net.InterfaceAddrs) }
	}
	if o.discovery {
		options.Discovery = newDiscovery(o.log)
	}
	// Of the rooms made here this node is the tracker; in all others it can take the
	// place of one that is away, for which it needs to remember nothing.
	var service *tracker.Service
	var shared *replica
	if madeHere || len(rooms) > 0 {
		serve := tracker.Options{State: tracker.NewMemory(), Rooms: m.keyring, Self: folder.Identity().ID, Host: ownAddress, Log: o.log}
		switch {
		case o.etcd != nil:
			if shared, err = joinCluster(ctx, o.etcd, folder, m.keyring, o.log); err != nil {
				return nil, err
			}
			shared.owners = shared.state.NewOwners(o.etcd.addr, func(pool swarm.PoolID) { service.Lost(pool) })
			m.state, serve.State, serve.Owners = shared.state, shared.state, shared.owners
			options.LeaveRoom = shared.leave
		case madeHere:
			state, err := boltstate.Open(filepath.Join(o.stateDir, trackerFile))
			if errors.Is(err, tracker.ErrLocked) {
				return nil, fmt.Errorf("%s: %w", o.stateDir, node.ErrRunning)
			}
			if err != nil {
				return nil, failf(exitFileIO, "%w", err)
			}
			m.state, serve.State = state, state
		}
		m.held, _ = serve.State.(catalogues)
		service = tracker.NewService(serve)
		options.Tracker = service
	}
	if m.node, err = node.New(options); err != nil {
		return nil, errors.Join(err, m.closeState())
	}
	if err := m.start(service, shared); err != nil {
		return nil, err
	}
	return m, nil
}

// start runs the tracker, then the node, and waits until it can be reached.
func (m *machine) start(service *tracker.Service, shared *replica) error {
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	if shared != nil {
		m.running.Go(func() { shared.run(ctx, m.node.ReloadRooms) })
	}
	if m.held != nil {
		m.running.Go(func() { fitMemory(ctx, m.held) })
	}
	if service != nil {
		m.running.Go(func() { m.track(ctx, service, shared) })
	}
	ready := make(chan struct{})
	go func() {
		defer close(m.ended)
		m.nodeErr = m.node.Run(ctx, sync.OnceFunc(func() { close(ready) }))
	}()
	select {
	case <-ready:
		return nil
	case <-m.ended:
		if err := m.close(); err != nil {
			return err
		}
		return failf(exitOther, "the node ended as soon as it was started")
	}
}

// track runs the tracker until ctx ends.
func (m *machine) track(ctx context.Context, service *tracker.Service, shared *replica) {
	// Pools are given back after their sessions have ended, so that none is claimed again.
	owning, disown := context.WithCancel(context.WithoutCancel(ctx))
	defer disown()
	if shared != nil {
		m.running.Go(func() { shared.owners.Run(owning) })
	}
	if err := service.Run(ctx); err != nil {
		m.trackerErr = fmt.Errorf("the tracker has ended: %w", err)
	}
}

// Download carries out a download in this process.
func (m *machine) Download(ctx context.Context, spec node.Spec, tell func(node.Event)) error {
	return m.node.Download(ctx, spec, tell)
}

// wait returns when ctx ends, or the node does.
func (m *machine) wait(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-m.ended:
	}
}

// roomNames returns the rooms that this machine is in.
func (m *machine) roomNames() []string {
	var names []string
	for _, r := range m.keyring.Rooms() {
		names = append(names, r.Name)
	}
	return names
}

// close ends the node and the tracker and gives the state folder back.
func (m *machine) close() error {
	m.cancel()
	<-m.ended
	m.running.Wait()
	return errors.Join(m.nodeErr, m.trackerErr, m.closeState())
}

func (m *machine) closeState() error {
	if m.state == nil {
		return nil
	}
	return m.state.Close()
}

// meet makes the node listen where the invites into a room made here say, if the user
// has not said otherwise and the port is free. Their address is not told to members while the
// machine is at another one.
func (o *machineOptions) meet(ctx context.Context, r *room.Room) {
	if len(r.Trackers) == 0 || (r.Name != o.room && !o.daemon) {
		return
	}
	address := r.Trackers[0]
	port := portOf(address)
	if o.listen == "" {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", ":"+port)
		if err != nil {
			return
		}
		l.Close()
		o.listen = ":" + port
	}
	if o.advertise == "" && portOf(o.listen) == port {
		o.advertise, o.invited = address, true
	}
}
