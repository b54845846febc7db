package node

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"dragonload/internal/origin"
	"dragonload/internal/peer"
	"dragonload/internal/piece"
	"dragonload/internal/store"
	"dragonload/internal/swarm"

	"golang.org/x/time/rate"
)

// errSuperseded: the download moved on to another generation; the bytes at hand do
// not belong to it.
var errSuperseded = errors.New("the download has moved on to another version of the file")

// generation is what a download is of, once the machine has fixed it. A new value is
// made for each, so that pointers tell generations apart.
type generation struct {
	pin     piece.Pin
	layout  piece.Layout
	file    *store.File
	shared  *store.Shared  // of a share, in place of file
	digests []piece.Digest // of a manifest; else nil
	resumed int64          // bytes of it that an earlier run left
}

// download is one Spec being carried out. The fields above the line belong to the
// loop; workers read those below it.
type download struct {
	machine   *swarm.Node
	private   *swarm.Tracker // plays the tracker while there is no room; else nil
	actions   []swarm.Action
	pending   []swarm.Event // caused by carrying actions out, stepped before anything else
	cancels   map[swarm.Request]context.CancelFunc
	waiters   map[swarm.Request]*waiter // requests of neighbours that wait for Serve or Refuse
	links     map[piece.NodeID]*link    // neighbours that are up
	target    string                    // final path; "" until it is known
	taken     map[string]bool           // names that AutoRename passes over: other downloads were just filling them
	file      *store.File               // nil until the target is known
	resumed   int64                     // bytes that an earlier run left
	left      piece.Pin                 // of what it left; not changed once the loop runs
	leftHave  piece.Bitfield
	moved     bool // what it left was begun with another URL; as left
	copying   bool // to standard output
	saved     *Saved
	checking  bool
	mismatch  *Error // the file is not what its digest says; nil unless that was found
	failure   *Error // set once: why the download ends without the file
	quit      bool   // the machine has ended
	harm      harm
	early     map[piece.Index]bool // found damaged before they were told of as stored
	pausedFor error                // why nothing can be stored, as told last; nil once something was
	skewed    []string             // whom the user was told of as of another version
	meter     meter
	last      Progress // as last emitted

	// ---

	node      *Node
	spec      Spec
	parsed    *url.URL // spec.URL; nil if there is a manifest instead
	want      *wanted  // what is wanted of a manifest; nil if a URL is downloaded
	lent      *lent    // not nil: the pool is helped, and the file not wanted
	serving   *serving // not nil: a share is served, and nothing downloaded
	emit      func(Event)
	log       *slog.Logger
	started   time.Time
	source    string // names the URL in the journal
	room      *membership
	pool      swarm.PoolID
	session   *session       // with the room's tracker; nil without a room
	client    *origin.Client // of the URL itself; nil if there is a manifest instead
	addresses *addresses
	lines     lines // of the only address
	peers     *peer.Client
	upload    *rate.Limiter // nil: no limit for this download
	limiter   *rate.Limiter // likewise of what comes
	told      bool          // the addresses are web seeds that a member named; not changed once the loop runs
	notAsked  string        // what is told of one that the guard keeps from being asked; as told

	stopping context.Context // ends when the user, or the node, wants the download to end
	stop     context.CancelFunc
	ctx      context.Context // ends when the loop has ended
	cancel   context.CancelFunc
	attached chan struct{} // closed when neighbours can open the pool
	over     chan struct{} // closed when everything has ended
	isSaved  atomic.Bool
	isLess   atomic.Bool              // of the saved folder some files are not as they were
	listed   atomic.Pointer[listing]  // of a finished download of a URL, as what it is offered
	filling  atomic.Pointer[string]   // where its unfinished work lies, without links; nil: not known yet
	receipt  atomic.Pointer[receipt]  // of what is finished and served on; nil: it is not
	wasShort atomic.Bool              // a connection had to wait for a place
	latest   atomic.Pointer[Progress] // as last emitted, for Status
	work     sync.WaitGroup           // every goroutine of the download
	copied   chan error               // what came of copying to standard output
	inbox    *inbox
	counts   counters
	asked    atomic.Uint64

	genMu sync.RWMutex // writers to the file hold it for reading
	gen   *generation  // guarded by genMu

	originMu  sync.Mutex
	lastError *origin.Error // guarded by originMu, as are those below
	erredLast bool          // no request has brought anything since lastError
	strikes   int           // answers in a row that broke the rules
	said      said
	heard     digests     // what further answers said of the whole file
	heardOf   *generation // that these were about
	heads     heads
	pause     *pause        // nil while pieces can be stored
	coming    chan struct{} // closed when the head of comingOf has come; nil before the first probe
	comingOf  piece.Index
}

// newDownload checks the spec and opens what is needed before the first step. With lent
// the pool is helped only.
func (n *Node) newDownload(spec Spec, lent *lent, emit func(Event)) (*download, error) {
	want, err := readWanted(spec)
	if err != nil {
		return nil, err
	}
	var u *url.URL
	var source string
	if want != nil {
		source = want.source()
	} else if u, err = url.Parse(spec.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, problem("bad-url", ExitBadOption, fmt.Errorf("%q is not an http or https URL", redact(spec.URL)))
	} else {
		source = sourceOf(u)
	}
	d := &download{
		node: n, spec: spec, parsed: u, want: want, lent: lent, emit: emit, started: time.Now(),
		source:  source,
		cancels: make(map[swarm.Request]context.CancelFunc),
		waiters: make(map[swarm.Request]*waiter),
		links:   make(map[piece.NodeID]*link),
		early:   make(map[piece.Index]bool),
		taken:   make(map[string]bool),
		inbox:   newInbox(),
		copied:  make(chan error, 1),
		over:    make(chan struct{}),

		attached: make(chan struct{}),
	}
	d.log = n.log.With("download", d.source[:8])
	d.stopping, d.stop = context.WithCancel(context.Background())
	d.ctx, d.cancel = context.WithCancel(context.Background())
	if err := checkChecksums(spec.Checksums); err != nil {
		return nil, err
	}
	if err := checkConfirm(spec); err != nil {
		return nil, err
	}
	if spec.LimitRate > 0 {
		d.limiter = newLimiter(spec.LimitRate)
	}
	if spec.LimitUpload > 0 {
		d.upload = newLimiter(spec.LimitUpload)
	}
	if spec.Room != "" {
		if d.room, err = n.membership(spec.Room); err != nil {
			return nil, err
		}
		if want != nil {
			d.pool = d.room.manifestPool(want.id)
		} else {
			d.pool = d.room.pool(spec.URL)
		}
		d.peers = d.room.newPeerClient(d.limiter)
	}
	o := origin.Options{
		URL: spec.URL, Header: spec.Header, UserAgent: spec.UserAgent, Netrc: spec.Netrc, NetrcNamed: spec.NetrcNamed, Cookies: spec.Cookies,
		Proxy: spec.Proxy, CACert: spec.CACert, Timeout: spec.Timeout, ConnectTimeout: spec.ConnectTimeout,
		Limiter: d.limiter, MaxConnections: spec.MaxConnections, Log: d.log, WrapDial: n.handles.origin.bound,
	}
	o.Rests = d.restsOf
	if n.opts.Network != nil {
		o.DialContext = n.network.Dial
	}
	if lent != nil {
		o = lent.clientOptions(d)
	}
	if want != nil {
		d.addresses, err = newSeeds(o, spec.Mirrors)
	} else {
		d.addresses, err = newAddresses(o, spec.Mirrors)
	}
	if err != nil {
		return nil, problem("bad-option", ExitBadOption, err)
	}
	for _, a := range d.addresses.all {
		a.source = d.sourceID(a.url)
	}
	if want == nil {
		d.client = d.addresses.all[0].client
	}
	return d, nil
}

// minRate is how many bytes a second, over the time after which a download gives up,
// count as something coming at all: an origin that sends a byte now and then would
// keep its clients for years.
const minRate = 100

// leastRate is minRate, or none where the user wants it slow.
func leastRate(limit int64) int64 {
	if limit > 0 && limit < 10*minRate {
		return 0
	}
	return minRate
}

// newLimiter returns a limiter of perSecond bytes whose bursts last a fifth of a
// second, and at least as long as one read.
func newLimiter(perSecond int64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(perSecond), int(max(perSecond/5, 64<<10)))
}

// sourceOf names a URL in the journal without keeping it: user-info, which may be
// secret, and the fragment are left out.
func sourceOf(u *url.URL) string {
	plain := *u
	plain.User, plain.Fragment, plain.RawFragment = nil, "", ""
	sum := sha256.Sum256([]byte("dragonload source 1\x00" + plain.String()))
	return hex.EncodeToString(sum[:])
}

// redact takes user-info and query out of what may be a URL.
func redact(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "that"
	}
	u.User, u.RawQuery, u.Fragment, u.RawFragment = nil, "", "", ""
	return u.String()
}

// prepare opens the file if its name is known already, and makes the machine.
func (d *download) prepare(ctx context.Context) error {
	opts := swarm.NodeOptions{
		MaxConnections: d.node.handles.originConnections(d.spec.MaxConnections),
		Fetches:        true,
		Wants:          d.lent == nil,
		GiveUpAfter:    d.spec.GiveUpAfter,
		Linger:         d.spec.Linger,
		MaxTries:       d.spec.MaxTries,
		MinRate:        leastRate(d.spec.LimitRate),
		Confirm:        d.spec.Confirm,
		KeepServing:    d.node.opts.KeepServing && d.room != nil && !d.stdout() && d.lent == nil,
	}
	if id := d.node.opts.Identity; id != nil {
		opts.Self = id.ID
		opts.Run = rand.Uint64()
		opts.Sign = func(message []byte) []byte { return ed25519.Sign(id.Key, message) }
	}
	if d.room != nil {
		opts.Addr = d.node.advertised()
		opts.Source = d.lendable()
		opts.Pool, opts.Hosts = d.pool, d.node.opts.Tracker != nil
	}
	if d.want != nil {
		if err := d.learnManifest(ctx); err != nil {
			return err
		}
		if d.isFolder() && d.stdout() {
			return problem("bad-option", ExitBadOption, fmt.Errorf("%s is a folder, which does not go to standard output", d.want))
		}
		if err := d.takeTold(ctx); err != nil {
			return err
		}
		opts.Manifest, opts.Wanted = d.want.forMachine(), d.want.pieces
		opts.Fetches, opts.LastResort = len(d.addresses.all) > 0, d.told
	}
	opts.Sources = d.sources()
	if d.serving != nil {
		d.prepareServing(&opts)
	} else if err := d.openTarget(ctx, d.earlyTarget, d.want == nil && d.lent == nil && !d.stdout()); err != nil {
		return err
	}
	if d.file != nil {
		if r, ok := d.file.Resumed(); ok {
			d.left, d.leftHave, d.moved = r.Pin, r.Have.Clone(), r.Moved
			opts.Resume = &swarm.Resume{Pin: r.Pin, Incarnation: r.Incarnation, Have: r.Have, Digests: r.Digests, Origin: r.Origin}
			layout := r.Pin.Layout()
			if d.want != nil {
				layout = d.want.layout
			}
			if r.Pin.Size >= 0 {
				d.resumed = heldBytes(layout, &r.Have)
			}
			d.tellResumed(r, layout)
		}
	}
	if d.isFolder() && d.serving == nil && !d.spec.Restart {
		if err := d.gather(ctx, &opts); err != nil {
			return err
		}
	}
	d.machine = swarm.NewNode(opts, newRand())
	if d.room == nil {
		d.private = swarm.NewTracker(swarm.TrackerOptions{Patience: -1}, newRand())
	}
	return nil
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) }

// openTarget opens the file at the path that find names, if it names one. The names that
// origins give are known late, and two downloads may come upon one at the same time: the
// first to open it has it, and with AutoRename the other finds itself a further one.
func (d *download) openTarget(ctx context.Context, find func() (string, bool, error), moved bool) error {
	for {
		target, ok, err := find()
		if !ok || err != nil {
			return err
		}
		err = d.open(ctx, target, moved)
		if !errors.Is(err, store.ErrInUse) || !d.renames() || d.taken[target] {
			return err
		}
		d.taken[target] = true
	}
}

// open opens the file at target. What an earlier run left without being closed is
// hashed again here, which takes its time. With moved that may be of another URL, if the
// version turns out to be the same.
func (d *download) open(ctx context.Context, target string, moved bool) error {
	o := store.Options{
		Target: target, Part: d.node.partOf(target), Source: d.source, Overwrite: d.spec.Overwrite, Restart: d.spec.Restart, Moved: moved,
		Hashes: hashesOf(d.spec.Checksums), Log: d.log,
		Damaged: d.damaged, Unsure: d.unsure,
	}
	if d.lent != nil {
		o.Part, o.Cache = target+".part", true
	}
	if d.stdout() {
		o.Overwrite, o.Restart = true, true
	}
	var file *store.File
	err := d.giveWay(target)
	if err != nil {
		return storeProblem(err)
	}
	if d.isFolder() {
		tree := d.want.tree()
		tree.Target, tree.Source, tree.Overwrite, tree.Restart = target, d.source, o.Overwrite, o.Restart
		tree.Damaged, tree.Unsure, tree.Log = o.Damaged, o.Unsure, o.Log
		file, err = d.node.journal.OpenTree(ctx, tree)
	} else {
		file, err = d.node.journal.Open(ctx, o)
	}
	if err != nil {
		return storeProblem(err)
	}
	d.target, d.file = target, file
	part := d.keptIn()
	if folder, err := filepath.EvalSymlinks(filepath.Dir(part)); err == nil {
		part = filepath.Join(folder, filepath.Base(part))
	}
	d.filling.Store(&part)
	return nil
}

func (d *download) stdout() bool { return d.spec.Output == "-" }

// begin carries out SetGeneration. Workers that still bring bytes of an older
// generation find that theirs is no longer the present one.
func (d *download) begin(a swarm.SetGeneration) error {
	if d.serving != nil {
		d.beginServing(a)
		return nil
	}
	if d.file == nil {
		late := func() (string, bool, error) {
			target, err := d.lateTarget()
			return target, err == nil, err
		}
		if err := d.openTarget(d.ctx, late, false); err != nil {
			return err
		}
		defer d.tellRefusedName()
	}
	if a.Anew && d.copying {
		return &Error{Problem: Problem{Code: "origin-changes", Exit: ExitChanged,
			Message: "the file changed at the origin after part of it had gone to standard output; run the command again"}}
	}
	d.originMu.Lock()
	stream := d.said.stream
	d.originMu.Unlock()
	if d.spec.Continue && d.resumed > 0 && (stream || a.Anew && !a.Pin.Combinable()) {
		return &Error{Problem: Problem{Code: "cannot-resume", Exit: ExitNoResume,
			Message: fmt.Sprintf("the origin cannot go on with the %d bytes that %s.part holds; leave --continue out to begin anew", d.resumed, d.target)}}
	}
	d.genMu.Lock()
	defer d.genMu.Unlock()
	if d.gen != nil && d.gen.pin == a.Pin && !a.Anew {
		return nil
	}
	if err := d.file.Begin(a.Pin, a.Incarnation, a.Anew); err != nil {
		return storeProblem(err)
	}
	if a.Anew {
		d.resumed = 0
		d.dropHeads()
	}
	d.gen = &generation{pin: a.Pin, layout: d.file.Layout(), file: d.file, resumed: d.resumed}
	start := &Start{Path: d.shownPath(), Size: a.Pin.Size, Resumed: d.resumed, Validator: a.Pin.Validator}
	if d.want != nil {
		d.gen.digests = d.want.digests
		start.Size, start.Validator = d.want.bytes, ""
		start.Manifest, start.Files = hex.EncodeToString(d.want.id[:]), d.want.count
	} else {
		start.URL = d.client.Redacted()
	}
	old := piece.NewBitfield(d.gen.layout.Count())
	if !a.Anew && d.left == a.Pin && d.leftHave.Len() == old.Len() {
		old = d.leftHave
	}
	d.addresses.begin(d.gen, &old)
	d.emitNow(Event{Start: start})
	if d.stdout() && !d.copying {
		d.copying = true
		d.work.Go(func() {
			err := d.file.Copy(d.ctx, d.node.opts.Stdout)
			if err != nil && d.ctx.Err() == nil {
				d.abort(problem("standard-output", ExitFile, fmt.Errorf("write to standard output: %w", err)))
			}
			d.copied <- err
		})
	}
	return nil
}

// generation returns the present one, nil before the first.
func (d *download) generation() *generation {
	d.genMu.RLock()
	defer d.genMu.RUnlock()
	return d.gen
}

// awaitGeneration returns the generation of pin, once the machine has seen the
// OriginAnswered that the caller has posted; errSuperseded if that did not make it
// the present one.
func (d *download) awaitGeneration(ctx context.Context, pin piece.Pin) (*generation, error) {
	seen := make(chan struct{})
	d.inbox.do(func() { close(seen) })
	select {
	case <-seen:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	g := d.generation()
	if g == nil || g.pin != pin {
		return nil, errSuperseded
	}
	return g, nil
}

// write stores a piece whose bytes match digest, unless g is no longer the present
// generation. While nothing can be stored it waits, and the caller with it.
func (d *download) write(ctx context.Context, g *generation, i piece.Index, data []byte, digest piece.Digest, fromOrigin bool) error {
	for {
		err := d.writeNow(g, i, data, digest, fromOrigin)
		if !store.Passing(err) {
			return err
		}
		if err := d.hold(ctx, g.file, err); err != nil {
			return err
		}
	}
}

func (d *download) writeNow(g *generation, i piece.Index, data []byte, digest piece.Digest, fromOrigin bool) error {
	d.genMu.RLock()
	defer d.genMu.RUnlock()
	if d.gen != g {
		return errSuperseded
	}
	if d.lent != nil {
		if !d.lent.reserve(int64(len(data))) {
			return errCacheFull
		}
		if err := g.file.Write(i, data, digest, fromOrigin); err != nil {
			d.log.Warn("a piece of others was not stored", "err", err)
			return errCacheFull
		}
		return nil
	}
	return g.file.Write(i, data, digest, fromOrigin)
}

// heldBytes returns how many bytes the pieces of have are.
func heldBytes(l piece.Layout, have *piece.Bitfield) int64 {
	n := int64(0)
	for e := range have.Extents {
		n += l.Bytes(e).Len()
	}
	return n
}

// shownPath is the path as its user knows it.
func (d *download) shownPath() string {
	if d.stdout() {
		return "-"
	}
	return d.target
}

// kept tells what becomes of unfinished work.
func (d *download) kept() string {
	switch {
	case d.stdout():
		return "nothing is kept of what goes to standard output"
	case d.generation() == nil && d.resumed == 0:
		return "there is nothing to keep yet"
	case errors.Is(d.pausedFor, store.ErrFolderGone):
		return fmt.Sprintf("what came so far is in %s, wherever its folder is now", filepath.Base(d.keptIn()))
	}
	return "what came so far is kept in " + d.keptIn()
}

// keptIn names the file in which unfinished work is kept.
func (d *download) keptIn() string {
	if part := d.node.partOf(d.target); part != "" && !d.isFolder() {
		return part
	}
	return d.target + ".part"
}

func (d *download) emitNow(ev Event) {
	ev.Time = time.Now()
	d.emit(ev)
}

func (d *download) warn(code, message string) {
	d.emitNow(Event{Warning: &Problem{Code: code, Message: message}})
}
