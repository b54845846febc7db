package tracker_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/rpc"
	"dragonload/internal/swarm"
	"dragonload/internal/tracker"
)

// lends opens a lender's stream and returns its offers.
func (s *site) lends(c *rpc.Tracker) (offers <-chan rpc.Offer, stop func() error) {
	s.t.Helper()
	took := make(chan rpc.Offer, 16)
	ready := make(chan struct{})
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(s.t.Context())
	go func() { ended <- c.Lend(ctx, func() { close(ready) }, func(o rpc.Offer) { took <- o }) }()
	select {
	case <-ready:
	case err := <-ended:
		s.t.Fatalf("lend: %v", err)
	}
	stop = func() error { cancel(); return <-ended }
	s.t.Cleanup(cancel)
	return took, stop
}

func offered(t *testing.T, offers <-chan rpc.Offer) rpc.Offer {
	t.Helper()
	select {
	case o := <-offers:
		return o
	case <-time.After(10 * time.Second):
		t.Fatal("no offer within 10 s")
		return rpc.Offer{}
	}
}

// A pool is offered to who lends in its room once it is pinned and a member may tell its
// URL; the URL is asked for only then, and the pool is withdrawn when it is complete.
func TestService_offersPoolsToWhoLends(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	helper := s.join(s.home.room, "helper")
	other := s.create(newFolder(t), "other")
	stranger := s.join(other, "stranger")
	asker := s.client(s.home)
	pool := swarm.PoolID(sha256.Sum256([]byte("pool")))
	pin := piece.Pin{Size: 1 << 20, Kind: piece.StrongETag, Validator: "1"}

	session := s.open(asker, pool)
	lendable := announce
	lendable.Lendable, lendable.Pinned, lendable.Fresh, lendable.Pin = true, true, true, pin
	lendable.Have = piece.NewBitfield(pin.Layout().Count())
	session.Send(lendable)
	next[swarm.Pinned](t, session)
	beat(t, session)

	secret := s.open(asker, swarm.PoolID{1})
	hidden := lendable
	hidden.Lendable = false
	secret.Send(hidden)
	next[swarm.Pinned](t, secret)

	strange, _ := s.lends(s.client(stranger))
	lender := s.client(helper)
	offers, stop := s.lends(lender)
	next[swarm.AskSource](t, session)
	session.Send(swarm.Source{URL: "http://origin.example/file"})
	got := offered(t, offers)
	want := rpc.Offer{Pool: pool, URL: "http://origin.example/file", Asker: s.home.folder.Identity().ID}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// The URL was forgotten with the last one who lends: the next one makes it asked again.
	offers, _ = s.lends(lender)
	next[swarm.AskSource](t, session)
	session.Send(swarm.Source{URL: "http://origin.example/file"})
	if got := offered(t, offers); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	session.Send(swarm.Report{Stored: []piece.Extent{pin.Layout().All()}, Whole: true})
	if got := offered(t, offers); got != (rpc.Offer{Pool: pool, Withdrawn: true}) {
		t.Errorf("got %+v, want it withdrawn", got)
	}
	if n := len(strange) + len(offers); n > 0 {
		t.Errorf("%d offers more, of another room or a secret pool", n)
	}
}

func TestService_endsLendersWhenItStops(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	c := s.client(s.home)
	ended := make(chan error, 1)
	ready := make(chan struct{})
	go func() { ended <- c.Lend(t.Context(), func() { close(ready) }, func(rpc.Offer) {}) }()
	<-ready
	s.stop()
	if err := <-ended; !errors.Is(err, rpc.ErrStopping) {
		t.Errorf("%v, want %v", err, rpc.ErrStopping)
	}
}

// A member that was removed lends no more; the others lend on.
func TestService_removalEndsLending(t *testing.T) {
	t.Parallel()
	s := newSite(t, tracker.Options{})
	bad, good := s.join(s.home.room, "bad"), s.join(s.home.room, "good")
	lend := func(h host) <-chan error {
		c := s.client(h)
		ended, ready := make(chan error, 1), make(chan struct{})
		go func() { ended <- c.Lend(t.Context(), func() { close(ready) }, func(rpc.Offer) {}) }()
		<-ready
		return ended
	}
	lost, kept := lend(bad), lend(good)
	s.shutOut(bad)
	if err := <-lost; !errors.Is(err, rpc.ErrRemoved) {
		t.Errorf("%v, want %v", err, rpc.ErrRemoved)
	}
	select {
	case err := <-kept:
		t.Errorf("the other one ended too: %v", err)
	default:
	}
}
