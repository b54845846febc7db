package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"dragonload/internal/peer"
	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
	"dragonload/internal/store"
	"dragonload/internal/swarm"
)

// JournalFile is the journal's name in the state folder.
const JournalFile = "downloads.db"

// DefaultListen is where members reach a node whose user names no address.
const DefaultListen = ":4100"

// Options say what a Node works with. StateDir is needed; without Rooms, Keyring and
// Identity the node works alone.
type Options struct {
	StateDir   string   // made if it is not there
	PartialDir string   // folder for files in progress; "" keeps them beside their targets
	Own        []string // files and folders of the program beside StateDir: nothing of them is ever shared
	Version    string   // of the program, for Status

	Rooms    *room.Folder
	Keyring  *room.Keyring
	Identity *room.Identity

	// Listen is where members reach this node; "" means DefaultListen, or any port if
	// that one is taken. Advertise is what members are told, host:port; "" leaves the
	// host to the tracker, which sees it.
	Listen, Advertise string
	// HasLeft, if not nil, reports whether the machine is not at Advertise any more: it is told
	// nobody then. It is called often.
	HasLeft func(address string) bool

	// LeaveRoom is called before a room that was made here is left; with an error it is not.
	LeaveRoom func(context.Context, *room.Room) error
	// Tracker is the tracker of the rooms made here, and takes the place of other rooms'
	// trackers while those are away; nil if this node is none.
	Tracker Tracker

	// Serve opens the listener in Run already, not with the first download in a room.
	Serve bool
	// KeepServing keeps finished downloads in their pools until Run ends.
	KeepServing bool
	// Local offers the local API to other processes.
	Local bool

	// Lend, if not nil, says which rooms' pools are helped though their files are not
	// wanted here.
	Lend *LendOptions

	// Discovery finds members in the network around while no tracker of their room answers;
	// nil: nobody is sought.
	Discovery Discovery

	// Network is the system's if it is nil.
	Network Network
	// OpenFiles is how many files and connections this process may have open; 0: as the
	// system says.
	OpenFiles int

	UploadLimit int64      // bytes per second to all members together; 0: no limit
	Stdout      io.Writer  // for downloads with Output "-"
	Disk        store.Disk // nil: that of the operating system
	Log         *slog.Logger
}

// Tracker serves the connections that members (ALPN h2) and newcomers (ALPN
// dragonload-join/1) make to a tracker on the node's port, until ctx ends.
type Tracker interface {
	Serve(ctx context.Context, control, join net.Listener) error
	// Members returns all who were ever in a room.
	Members(ctx context.Context, room [32]byte) ([]rpc.Member, error)

	// Host takes the tracker's place for a pool, Unhost gives it up: no session about
	// the pool goes on. Host reports false if there are too many.
	Host(room [32]byte, pool swarm.PoolID) bool
	Unhost(room [32]byte, pool swarm.PoolID)
}

// Node carries out the downloads of one state folder. Its methods may be called
// concurrently.
type Node struct {
	opts    Options
	log     *slog.Logger
	epoch   time.Time
	journal *store.Journal
	buffers *buffers
	network Network
	handles *handles
	moment  func() moment // looks at the clocks

	life context.Context // ends with Run
	stop context.CancelFunc
	work sync.WaitGroup // everything but the downloads
	// offers ends before life: what was published is taken out while this node, which may be
	// the tracker itself, can still be reached.
	offers    context.Context
	endOffers context.CancelFunc
	tasks     sync.WaitGroup // the downloads

	announcing sync.Mutex
	sharing    sharing
	serving    servings

	mu       sync.Mutex // guards what follows
	ended    bool
	listener net.Listener // nil until members can reach this node
	data     *peer.Server // on it
	members  map[[32]byte]*membership
	running  []*download
	pools    map[poolKey]*download
	lending  *lending // nil unless this node lends
}

type poolKey struct {
	room [32]byte
	pool swarm.PoolID
}

// New takes the state folder: the error is ErrRunning if another process has it. The
// caller calls Run next.
func New(o Options) (*Node, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Stdout == nil {
		o.Stdout = io.Discard
	}
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state folder: %w", err)
	}
	journal, err := store.OpenJournal(filepath.Join(o.StateDir, JournalFile), store.JournalOptions{Disk: o.Disk})
	if errors.Is(err, store.ErrLocked) {
		return nil, fmt.Errorf("%s: %w", o.StateDir, ErrRunning)
	}
	if err != nil {
		return nil, err
	}
	// Nobody goes on with what was meant for the standard output of a run that was killed.
	if err := journal.Sweep(o.StateDir, stdoutPrefix); err != nil {
		o.Log.Warn("remove what a killed run left", "err", err)
	}
	n := &Node{
		opts: o, log: o.Log, epoch: time.Now(), journal: journal, buffers: newBuffers(),
		members: make(map[[32]byte]*membership),
		network: o.Network, moment: newMoment,
		pools: make(map[poolKey]*download),
	}
	n.sharing.dirty = make(chan struct{}, 1)
	if n.network == nil {
		n.network = systemNetwork{}
	}
	if o.OpenFiles == 0 {
		o.OpenFiles = openLimit()
	}
	n.handles = newHandles(o.OpenFiles, n.shortOfHandles)
	n.life, n.stop = context.WithCancel(context.Background())
	n.offers, n.endOffers = context.WithCancel(n.life)
	if o.Keyring != nil && o.Rooms != nil {
		o.Keyring.Watch(n.shutOut)
	}
	return n, nil
}

// now is the machines' clock: nanoseconds of the monotonic clock since New. It is
// never 0, which the machines take for "not yet".
func (n *Node) now() swarm.Instant { return swarm.Instant(time.Since(n.epoch)) + 1 }

func (n *Node) self() (id piece.NodeID) {
	if n.opts.Identity != nil {
		id = n.opts.Identity.ID
	}
	return id
}

// Run serves until ctx ends; then it pauses the downloads that still run, waits for
// everything that belongs to the node, and gives the state folder back. ready is
// called once, when the node can be reached. It may be called once.
func (n *Node) Run(ctx context.Context, ready func()) error {
	err := n.begin()
	if err == nil {
		if ready != nil {
			ready()
		}
		<-ctx.Done()
	}
	n.mu.Lock()
	n.ended = true
	for _, d := range n.running {
		d.stop()
	}
	n.mu.Unlock()
	n.tasks.Wait()
	n.withdraw()
	n.stop()
	n.work.Wait()
	if cerr := n.endShares(); err == nil {
		err = cerr
	}
	if cerr := n.journal.Close(); err == nil {
		err = cerr
	}
	return err
}

func (n *Node) begin() error {
	n.work.Go(n.watchSleep)
	if d := n.opts.Discovery; d != nil {
		n.work.Go(func() { d.Run(n.life, n.found) })
	}
	if n.opts.Serve {
		if err := n.listen(); err != nil {
			return err
		}
		n.announceRooms()
	}
	if n.opts.Lend != nil {
		if err := n.beginLending(); err != nil {
			return err
		}
	}
	if n.opts.KeepServing {
		if err := n.beginSharing(); err != nil {
			return err
		}
		n.serveHeld()
	}
	if !n.opts.Local {
		return nil
	}
	local, err := rpc.ListenLocal(n.opts.StateDir, localNode{n}, n.handles.local, n.log)
	if err != nil {
		return err
	}
	n.work.Go(func() {
		if err := local.Serve(n.life); err != nil {
			n.log.Error("the local API has ended", "err", err)
		}
	})
	return nil
}

// Download runs one download to its end: it returns nil when the file is saved and
// nobody needs this node for it any more, or, with KeepServing, when it is saved.
// When ctx ends before that the work is kept and the error says so. Every error is an
// *Error, and was told as the Failed event. emit is called in order and must not
// block.
func (n *Node) Download(ctx context.Context, spec Spec, emit func(Event)) error {
	watcher := &watcher{emit: emit, saved: make(chan struct{})}
	var d *download
	var err error
	if spec.ManifestName != "" {
		err = n.lookUp(ctx, &spec)
	}
	if err == nil {
		d, err = n.enter(spec, watcher.tell)
	}
	if err != nil {
		e := AsError(err)
		emit(Event{Time: time.Now(), Failed: &e.Problem})
		return e
	}
	done := make(chan error, 1)
	go func() { // ends with the download, which Run waits for
		defer n.tasks.Done()
		err := d.run()
		n.leave(d)
		d.tellEnd()
		done <- err
	}()
	saved := watcher.saved
	if !n.opts.KeepServing {
		saved = nil
	}
	select {
	case err := <-done:
		return err
	case <-saved:
		watcher.detach()
		return nil
	case <-ctx.Done():
		d.stop()
		return <-done
	}
}

// watcher passes the events of a download on until its caller has gone.
type watcher struct {
	mu    sync.Mutex
	emit  func(Event) // nil once detached; guarded by mu
	saved chan struct{}
}

func (w *watcher) tell(ev Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.emit != nil {
		w.emit(ev)
	}
	if ev.Saved != nil {
		close(w.saved)
	}
}

func (w *watcher) detach() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.emit = nil
}

// enter makes a download and notes that it runs.
func (n *Node) enter(spec Spec, emit func(Event)) (*download, error) {
	d, err := n.newDownload(spec, nil, emit)
	if err != nil {
		return nil, err
	}
	for {
		before, err := n.register(d)
		if err == nil {
			return d, nil
		}
		if before == nil {
			d.release()
			return nil, err
		}
		// The file is whole there and only served, or the pool is only helped; the new
		// download takes its place.
		before.stop()
		<-before.over
	}
}

// register notes that d runs. If another download of the pool does, that one is
// returned as well if it may give way.
func (n *Node) register(d *download) (before *download, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended {
		return nil, ErrEnding
	}
	if d.room != nil {
		key := poolKey{d.room.id, d.pool}
		if before := n.pools[key]; before != nil {
			err := &Error{Problem: Problem{Code: "in-use", Exit: ExitExists,
				Message: "this node downloads the same URL in the same room already; wait until that download has ended"}}
			if before.isSaved.Load() || before.lent != nil && d.lent == nil {
				return before, err
			}
			return nil, err
		}
		n.pools[key] = d
	}
	n.running = append(n.running, d)
	n.tasks.Add(1)
	return nil, nil
}

func (n *Node) leave(d *download) {
	d.unlist()
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, other := range n.running {
		if other == d {
			n.running = append(n.running[:k], n.running[k+1:]...)
			break
		}
	}
	if d.room != nil {
		delete(n.pools, poolKey{d.room.id, d.pool})
	}
	if d.want != nil && (d.serving == nil || d.serving.held != nil) {
		n.publishSoon()
	}
	close(d.over)
}

// find returns the download of a pool, nil if there is none here.
func (n *Node) find(roomID [32]byte, pool swarm.PoolID) *download {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pools[poolKey{roomID, pool}]
}

// Idle waits until no download runs, or ctx ends: a process that lends its node to
// others' downloads stays so long.
func (n *Node) Idle(ctx context.Context) error {
	for {
		n.mu.Lock()
		var one *download
		for _, d := range n.running {
			if d.serving == nil {
				one = d
				break
			}
		}
		n.mu.Unlock()
		if one == nil {
			return nil
		}
		select {
		case <-one.over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Addr returns the address that the node listens on for members, nil while it does
// not.
func (n *Node) Addr() net.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listener == nil {
		return nil
	}
	return n.listener.Addr()
}

// advertised is the address that members are told. With an empty host, the tracker
// puts in the one that it sees.
func (n *Node) advertised() string {
	if at := n.opts.Advertise; at != "" && (n.opts.HasLeft == nil || !n.opts.HasLeft(at)) {
		return at
	}
	return n.listensAt("")
}

// ownAddress is where this node reaches itself, "" while nobody can.
func (n *Node) ownAddress() string { return n.listensAt("127.0.0.1") }

// listensAt is where the node listens, with the host that is given if that is every
// address of the machine; "" while it does not.
func (n *Node) listensAt(every string) string {
	addr := n.Addr()
	if addr == nil {
		return ""
	}
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = every
	}
	return net.JoinHostPort(host, port)
}

// listen opens the port for members, once.
func (n *Node) listen() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listener != nil || n.opts.Keyring == nil {
		return nil
	}
	if n.ended {
		return ErrEnding
	}
	address := n.opts.Listen
	if address == "" {
		address = DefaultListen
	}
	listener, err := n.network.Listen(n.life, "tcp", address)
	if err != nil && n.opts.Listen == "" {
		listener, err = n.network.Listen(n.life, "tcp", ":0")
	}
	if err != nil {
		return problem("bad-listen", ExitBadOption, fmt.Errorf("listen for members: %w; name another address with --listen", err))
	}
	n.listener = listener
	n.accept(listener)
	return nil
}
