package node

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"dragonload/internal/catalogue"
	"dragonload/internal/piece"
	"dragonload/internal/rpc"
)

// withdrawWithin bounds telling a tracker that this node ends.
const withdrawWithin = time.Second

// shelf is what this node offers in a room, and the places where it says so: the room's
// own trackers, and each member that takes their place for a download of this node.
type shelf struct {
	m *membership

	mu      sync.Mutex // guards what follows
	entries []catalogue.Entry
	places  map[piece.NodeID]*place // the room's own trackers under the zero id
}

// place is one tracker, or several that share a State. One goroutine keeps it told.
type place struct {
	shelf    *shelf
	trackers []*rpc.Tracker // open connections to a member; none for the room's own; guarded by shelf.mu
	fresh    chan struct{}  // a token: the entries are other ones
	moved    chan struct{}  // a token: ask soon what the tracker knows
	cancel   context.CancelFunc
	ended    chan struct{}

	mu      sync.Mutex // guards what follows
	told    int        // entries that the tracker knows
	problem error      // what it has refused last; nil once it takes what it is told
}

// Offer makes entries all that this node holds for others in a room, which other nodes
// then find; the node publishes what differs from before, and renews it for as long as
// it runs. The entries are the node's from now on. What is no possible entry, and what
// is more than a member may publish, is left out, from the end.
func (n *Node) Offer(roomName string, entries []catalogue.Entry) error {
	m, err := n.membership(roomName)
	if err != nil {
		return err
	}
	s := m.shelf
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended {
		return ErrEnding
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = entries
	if s.places[piece.NodeID{}] == nil && len(entries) > 0 {
		s.open(piece.NodeID{})
	}
	for _, p := range s.places {
		token(p.fresh)
	}
	return nil
}

// Offered returns how many entries the room's own trackers know of this node, and what
// they have refused last, nil if nothing is in the way.
func (n *Node) Offered(roomName string) (entries int, problem error) {
	m, err := n.membership(roomName)
	if err != nil {
		return 0, err
	}
	m.shelf.mu.Lock()
	p := m.shelf.places[piece.NodeID{}]
	m.shelf.mu.Unlock()
	if p == nil {
		return 0, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told, p.problem
}

// Search asks the room for what its members hold: its own trackers, or members that take
// their place.
func (n *Node) Search(ctx context.Context, roomName string, q catalogue.Query) (page catalogue.Page, err error) {
	err = n.askRoom(ctx, roomName, func(ctx context.Context, t *rpc.Tracker) (err error) {
		page, err = t.Search(ctx, q)
		return err
	})
	return page, err
}

// Holders asks the room who holds a manifest: at most limit members (0:
// catalogue.MaxHandout), drawn anew each time, in the order in which they are best asked.
func (n *Node) Holders(ctx context.Context, roomName string, manifest [32]byte, limit int) (holders []catalogue.Holder, err error) {
	err = n.askRoom(ctx, roomName, func(ctx context.Context, t *rpc.Tracker) (err error) {
		holders, err = t.Holders(ctx, manifest, limit)
		return err
	})
	return holders, err
}

// ReportUnreachable tells the room's tracker of a holder that does not answer. The tracker
// tries it itself; gone means that it names it no more.
func (n *Node) ReportUnreachable(ctx context.Context, roomName string, holder piece.NodeID) (gone bool, err error) {
	err = n.askRoom(ctx, roomName, func(ctx context.Context, t *rpc.Tracker) (err error) {
		gone, err = t.ReportUnreachable(ctx, holder)
		return err
	})
	return gone, err
}

func (n *Node) askRoom(ctx context.Context, roomName string, do func(context.Context, *rpc.Tracker) error) error {
	m, err := n.membership(roomName)
	if err != nil {
		return err
	}
	return m.ask(ctx, do)
}

// askOf asks the first of some trackers that answers. What one of them refuses, the others
// would too, unless it is itself that cannot answer.
func (m *membership) askOf(ctx context.Context, trackers []*rpc.Tracker, do func(context.Context, *rpc.Tracker) error) error {
	all := errors.New("it has none")
	for _, t := range trackers {
		err := do(ctx, t)
		if err == nil {
			m.answered(t)
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		if m.missed(t) { // it was only found, and what it refuses says nothing of the room
			all = err
			continue
		}
		if refused := accessProblem(err); refused != nil {
			return m.whyRefused(ctx, t.Addr(), refused)
		}
		if refuses(err) {
			return err
		}
		all = err
	}
	return all
}

// refuses reports whether an error is what a tracker answers that could have done what it
// was asked.
func refuses(err error) bool {
	var refused *rpc.Refusal
	return errors.As(err, &refused) && !slices.Contains([]*rpc.Refusal{
		rpc.ErrStopping, rpc.ErrInternal, rpc.ErrRoomUnknown, rpc.ErrTrackerAway, rpc.ErrCannotStore, rpc.ErrStoreAway,
	}, refused)
}

func newShelf(m *membership) *shelf { return &shelf{m: m, places: make(map[piece.NodeID]*place)} }

// open makes a place and starts to keep it told. s.mu is held, and the node has not ended.
func (s *shelf) open(id piece.NodeID) *place {
	ctx, cancel := context.WithCancel(s.m.node.offers)
	p := &place{shelf: s, fresh: make(chan struct{}, 1), moved: make(chan struct{}, 1), cancel: cancel, ended: make(chan struct{})}
	s.places[id] = p
	token(p.fresh)
	s.m.node.work.Go(func() {
		defer close(p.ended)
		defer cancel()
		p.keep(ctx)
	})
	return p
}

// add makes a member that takes the tracker's place one of those that are told, for as
// long as this node has a connection to it: until the function that is returned is
// called, which then waits until that is over. A download of the node runs meanwhile.
func (s *shelf) add(member piece.NodeID, t *rpc.Tracker) (remove func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.places[member]
	if p == nil {
		p = s.open(member)
	}
	p.trackers = append(p.trackers, t)
	return func() {
		s.mu.Lock()
		if len(p.trackers) > 1 {
			p.trackers = slices.DeleteFunc(slices.Clone(p.trackers), func(other *rpc.Tracker) bool { return other == t })
			token(p.moved)
			s.mu.Unlock()
			return
		}
		delete(s.places, member)
		s.mu.Unlock()
		p.cancel()
		<-p.ended
	}
}

// successors returns the members that take the tracker's place.
func (s *shelf) successors() (trackers []*rpc.Tracker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.places {
		if len(p.trackers) > 0 {
			trackers = append(trackers, p.trackers[0])
		}
	}
	return trackers
}

// reconnect has every place asked soon what it knows.
func (s *shelf) reconnect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.places {
		token(p.moved)
	}
}

// withdraw takes out of every room's catalogue what this node has published there.
func (n *Node) withdraw() {
	n.endOffers()
	n.mu.Lock()
	members := slices.Collect(maps.Values(n.members))
	n.mu.Unlock()
	for _, m := range members {
		m.shelf.wait()
	}
}

// wait waits until every place has ended, once the node offers nothing more.
func (s *shelf) wait() {
	s.mu.Lock()
	places := slices.Collect(maps.Values(s.places))
	s.mu.Unlock()
	for _, p := range places {
		<-p.ended
	}
}

// token puts a token where there is none.
func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// keep carries out what a catalogue.Publisher decides, until ctx ends; then it takes out
// what was published.
func (p *place) keep(ctx context.Context) {
	log := p.shelf.m.node.log.With("room", p.shelf.m.name)
	publisher := catalogue.NewPublisher(rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		call, at := publisher.Next(time.Now())
		if call != nil {
			err := p.call(ctx, call)
			publisher.Done(time.Now(), call, outcome(err))
			p.note(publisher.Told(), err)
			if ctx.Err() == nil && err != nil {
				log.Info("what this machine shares is not up to date at the room's tracker", "err", err)
			}
		}
		var due <-chan time.Time
		switch {
		case call != nil:
			timer.Reset(0) // whatever has come meanwhile is looked at too
			due = timer.C
		case !at.IsZero():
			timer.Reset(time.Until(at))
			due = timer.C
		}
		select {
		case <-p.fresh:
			p.shelf.mu.Lock()
			entries := p.shelf.entries
			p.shelf.mu.Unlock()
			if left := publisher.Set(entries); len(left) > 0 {
				log.Warn("not all that is shared can be listed", "left out", len(left), "of", len(entries), "one of them", left[0].Name)
			}
		case <-p.moved:
			publisher.Moved(time.Now())
		case <-due:
		case <-ctx.Done():
			p.withdraw(ctx, publisher)
			return
		}
	}
}

func (p *place) withdraw(ctx context.Context, publisher *catalogue.Publisher) {
	call := publisher.Withdraw()
	if call == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawWithin)
	defer cancel()
	if err := p.call(ctx, call); err != nil {
		p.shelf.m.node.log.Info("the room's tracker was not told that this machine ends", "err", err)
	}
}

// note keeps what is to be told of the place.
func (p *place) note(told int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = told
	var refused *rpc.Refusal
	switch {
	case err == nil:
		p.problem = nil
	case errors.As(err, &refused) && refused != rpc.ErrPublishAnew:
		p.problem = err
	}
}

// call makes one call.
func (p *place) call(ctx context.Context, call *catalogue.Call) error {
	m := p.shelf.m
	p.shelf.mu.Lock()
	trackers := p.trackers
	p.shelf.mu.Unlock()
	if len(trackers) == 0 {
		trackers = m.reachable(false)
	}
	err := m.askOf(ctx, trackers, func(ctx context.Context, t *rpc.Tracker) error {
		switch call.Kind {
		case catalogue.CallPublish:
			return t.Publish(ctx, m.node.advertised(), call.Batch)
		case catalogue.CallRenew:
			return t.RenewLease(ctx, call.Version)
		default:
			return t.Withdraw(ctx)
		}
	})
	if outcome(err) == catalogue.Failed {
		m.seek() // it may be elsewhere the next time
	}
	return err
}

// outcome says what a Publisher is to make of an answer.
func outcome(err error) catalogue.Outcome {
	var known *Error
	switch {
	case err == nil:
		return catalogue.Taken
	case errors.Is(err, rpc.ErrPublishAnew):
		return catalogue.Unknown
	case errors.Is(err, rpc.ErrCatalogueFull):
		return catalogue.Full
	case refuses(err), errors.As(err, &known): // an *Error: there is no access to the room
		return catalogue.Refused
	}
	return catalogue.Failed
}
