package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// pair returns the two ends of a connection in memory.
func pair() (net.Conn, net.Conn) { return net.Pipe() }

// watch counts what is written to a connection.
type watch struct {
	net.Conn
	mu     sync.Mutex
	writes [][]byte
}

func (w *watch) Write(p []byte) (int, error) {
	w.mu.Lock()
	w.writes = append(w.writes, bytes.Clone(p))
	w.mu.Unlock()
	return w.Conn.Write(p)
}

func (w *watch) written() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.writes)
}

// next receives, and fails the test if that takes an error.
func next(t testing.TB, s *Stream) Received {
	t.Helper()
	r, err := s.Receive(context.Background())
	if err != nil {
		t.Fatalf("Receive: %v", err)
	}
	return r
}

// drain receives until the stream ends and returns why it did.
func drain(s *Stream) error {
	for {
		if _, err := s.Receive(context.Background()); !errors.Is(err, nil) {
			return err
		}
	}
}

func TestStream_bringsEveryMessageInOrder(t *testing.T) {
	t.Parallel()
	n := newLoopback(t, newParty(t), Coalesce)
	defer n.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := n.Accept()
		accepted <- c
	}()
	a := NewStream(connect(t, n, newParty(t)), StreamOptions{Addr: "a.example:1"})
	defer a.Close()
	b := NewStream(<-accepted, StreamOptions{Addr: ":2"})
	defer b.Close()

	other := swarm.PoolID{1}
	sent := messages(t)
	delete(sent, "haves all") // it would be merged with the other
	order := slices.Sorted(maps.Keys(sent))
	a.Open(testPool)
	for _, name := range order {
		a.Send(testPool, sent[name])
	}
	a.Leave(other)
	if r := next(t, b); r.Pool != testPool || !r.Opened || r.Left || r.Message != nil || r.Addr != "a.example:1" {
		t.Errorf("first came %+v", r)
	}
	sent["haves"] = swarm.Haves{Extents: []piece.Extent{{First: 0, Count: 1}, {First: 5, Count: 2}}} // in order
	for _, name := range order {
		r := next(t, b)
		want, _ := appendMessage(nil, testPool, sent[name])
		if got, err := appendMessage(nil, r.Pool, r.Message); err != nil || !bytes.Equal(got, want) || r.Opened || r.Left {
			t.Errorf("for %s came %T: %v", name, r.Message, err)
		}
	}
	if r := next(t, b); r.Pool != other || !r.Left {
		t.Errorf("last came %+v", r)
	}
	b.Send(testPool, swarm.Claim{})
	if r := next(t, a); r.Addr != ":2" {
		t.Errorf("the other way came %+v", r)
	}
	a.Close()
	if err := drain(b); !errors.Is(err, io.EOF) {
		t.Errorf("after Close the other side got %v", err)
	}
	if err := drain(a); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close this side got %v", err)
	}
}

func TestStream_showsLifeEachSecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca, cb := pair()
		w := &watch{Conn: ca}
		a, b := NewStream(w, StreamOptions{}), NewStream(cb, StreamOptions{})
		var wg sync.WaitGroup
		for _, s := range []*Stream{a, b} {
			wg.Go(func() {
				if err := drain(s); !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
					t.Errorf("Receive: %v", err)
				}
			})
		}
		time.Sleep(time.Hour + 500*time.Millisecond)
		synctest.Wait()
		if got := w.written(); got != 3601 { // the hello is one
			t.Errorf("%d writes in an hour", got)
		}
		a.Close()
		b.Close()
		wg.Wait()
	})
}

func TestStream_endsThreeSecondsAfterTheLastSignOfLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca, cb := pair()
		defer cb.Close()
		s := NewStream(ca, StreamOptions{})
		defer s.Close()
		go io.Copy(io.Discard, cb)
		got := make(chan error, 1)
		go func() { got <- drain(s) }()
		hello, _ := appendHello(nil, "")
		cb.Write(hello)
		for range 10 {
			time.Sleep(2900 * time.Millisecond)
			cb.Write(appendSign(nil, kindPing, swarm.PoolID{}))
		}
		last := time.Now()
		if err := <-got; !errors.Is(err, ErrSilent) || time.Since(last) != deadAfter {
			t.Errorf("after %v: %v", time.Since(last), err)
		}
	})
}

func TestStream_endsWithoutAHelloInFiveSeconds(t *testing.T) {
	t.Parallel()
	for name, trickle := range map[string]bool{"silent": false, "byte by byte": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ca, cb := pair()
				s := NewStream(ca, StreamOptions{})
				defer s.Close()
				go io.Copy(io.Discard, cb)
				start := time.Now()
				got := make(chan error, 1)
				var at time.Duration
				go func() {
					err := drain(s)
					at = time.Since(start)
					got <- err
				}()
				hello, _ := appendHello(nil, "some.host:1")
				for _, b := range hello {
					if trickle {
						time.Sleep(400 * time.Millisecond)
						cb.Write([]byte{b})
					}
				}
				if err := <-got; !errors.Is(err, ErrSilent) || at != helloWithin {
					t.Errorf("after %v: %v", at, err)
				}
			})
		})
	}
}

// A frame that comes byte by byte does not keep its reader for ever.
func TestStream_endsIfOneFrameTakesTooLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca, cb := pair()
		s := NewStream(ca, StreamOptions{})
		defer s.Close()
		go io.Copy(io.Discard, cb)
		got := make(chan error, 1)
		start := time.Now()
		go func() { got <- drain(s) }()
		hello, _ := appendHello(nil, "")
		cb.Write(hello)
		data, _ := appendMessage(nil, testPool, swarm.Holds{Have: piece.NewBitfield(1000)})
		for _, b := range data {
			if _, err := cb.Write([]byte{b}); !errors.Is(err, nil) {
				break
			}
			time.Sleep(2 * time.Second)
		}
		if err := <-got; !errors.Is(err, ErrSilent) {
			t.Error(err)
		}
		if took := time.Since(start); took > 25*time.Second {
			t.Errorf("after %v", took)
		}
	})
}

func TestStream_mergesHavesOfOnePool(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca, cb := pair()
		w := &watch{Conn: ca}
		s := NewStream(w, StreamOptions{})
		defer s.Close()
		synctest.Wait() // the hello is being written, and nobody reads it yet
		one, two := swarm.PoolID{1}, swarm.PoolID{2}
		for i := piece.Index(0); i < 1000; i++ {
			s.Send(one, swarm.Haves{Extents: []piece.Extent{{First: i, Count: 1}}})
			s.Send(two, swarm.Haves{Extents: []piece.Extent{{First: 2 * i, Count: 1}}})
		}
		s.Send(one, swarm.Claim{}) // what comes after it must not overtake it
		s.Send(one, swarm.Haves{Extents: []piece.Extent{{First: 5000, Count: 1}}})
		r := NewStream(cb, StreamOptions{})
		defer r.Close()
		go drain(s)
		var got []string
		for range 4 {
			m := next(t, r)
			line := fmt.Sprintf("%d %T", m.Pool[0], m.Message)
			if h, ok := m.Message.(swarm.Haves); ok {
				line += fmt.Sprint(len(h.Extents), h.Extents[0])
			}
			got = append(got, line)
		}
		want := "[1 swarm.Haves1 0-999 2 swarm.Haves1000 0 1 swarm.Claim 1 swarm.Haves1 5000]"
		if fmt.Sprint(got) != want {
			t.Errorf("got  %v\nwant %s", got, want)
		}
		if n := w.written(); n != 2 {
			t.Errorf("%d writes for all that was queued and the hello", n)
		}
	})
}

// A neighbour that does not read never holds up who tells it something; in the end the
// stream to it is given up.
func TestStream_neverWaitsForItsNeighbour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca, cb := pair()
		defer cb.Close()
		s := NewStream(ca, StreamOptions{})
		start := time.Now()
		for i := range 2 * maxQueued {
			s.Send(testPool, swarm.Claim{Extents: []piece.Extent{{First: piece.Index(i), Count: 1}}})
		}
		if err := drain(s); !errors.Is(err, ErrOverflow) || time.Since(start) > 0 {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		s.Close()

		ca, cb = pair()
		defer cb.Close()
		s = NewStream(ca, StreamOptions{})
		for range maxQueuedBytes/(piece.MaxCount/8) + 1 {
			s.Send(testPool, swarm.Holds{Have: piece.NewBitfield(piece.MaxCount)})
		}
		if err := drain(s); !errors.Is(err, ErrOverflow) {
			t.Error(err)
		}
		s.Send(testPool, swarm.Claim{}) // dropped
		s.Close()
		if s.queue != nil || s.bytes != 0 {
			t.Errorf("%d messages of %d bytes are still queued", len(s.queue), s.bytes)
		}
	})
}

// One that takes bytes far too slowly is left.
func TestStream_endsIfAWriteTakesTooLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca, cb := pair()
		defer cb.Close()
		s := NewStream(ca, StreamOptions{})
		start := time.Now()
		go func() {
			hello, _ := appendHello(nil, "")
			cb.Write(hello)
			for {
				time.Sleep(time.Second)
				if _, err := cb.Write(appendSign(nil, kindPing, swarm.PoolID{})); !errors.Is(err, nil) {
					return
				}
			}
		}()
		if err := drain(s); !errors.Is(err, ErrSilent) || time.Since(start) != writeWithin {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		s.Close()
		time.Sleep(time.Minute)
	})
}

func TestStream_refusesASendThatCannotBeDone(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]swarm.ToPeer{
		"haves": swarm.Haves{Extents: []piece.Extent{{First: piece.MaxCount, Count: 1}}}, "nothing": nil,
	} {
		ca, cb := pair()
		s := NewStream(ca, StreamOptions{Addr: "nonsense"})
		s.Send(testPool, m)
		if err := drain(s); err == nil || errors.Is(err, ErrBroken) {
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
		cb.Close()
	}
}

func TestStream_sendsWhatIsQueuedBeforeItCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca, cb := pair()
		a, b := NewStream(ca, StreamOptions{}), NewStream(cb, StreamOptions{})
		defer b.Close()
		b.Open(testPool)
		next(t, a) // b has said what it has to say
		last := statement(t, 200)
		for range 100 {
			a.Send(testPool, last)
		}
		go drain(a)
		go a.Close()
		for range 100 {
			next(t, b)
		}
		if err := drain(b); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
}

func TestStream_closesWithinASecondWhoeverReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca, cb := pair()
		defer cb.Close()
		s := NewStream(ca, StreamOptions{})
		got := make(chan error, 1)
		go func() { got <- drain(s) }()
		start := time.Now()
		s.Close()
		s.Close()
		if took := time.Since(start); took > closeWithin {
			t.Errorf("Close took %v", took)
		}
		if err := <-got; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Receive: %v", err)
		}
	})
}

func TestStream_endsWithTheContextOfReceive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca, cb := pair()
		a, b := NewStream(ca, StreamOptions{}), NewStream(cb, StreamOptions{})
		defer a.Close()
		defer b.Close()
		go drain(b)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if _, err := a.Receive(ctx); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

func TestStream_endsAtAWrongSignature(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*swarm.Statement){
		"signature":  func(s *swarm.Statement) { s.Signature[5] ^= 1 },
		"digest":     func(s *swarm.Statement) { s.Digests[1][0] ^= 1 },
		"piece":      func(s *swarm.Statement) { s.Pieces[1]++ },
		"generation": func(s *swarm.Statement) { s.Generation[0] ^= 1 },
		"signer":     func(s *swarm.Statement) { s.By = statement(t, 1).By },
	} {
		ca, cb := pair()
		a, b := NewStream(ca, StreamOptions{}), NewStream(cb, StreamOptions{})
		go drain(a)
		good, bad := statement(t, 3), statement(t, 3)
		change(&bad)
		a.Send(testPool, good)
		a.Send(testPool, bad)
		next(t, b)
		if r, err := b.Receive(context.Background()); !errors.Is(err, ErrBroken) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		a.Close()
		b.Close()
	}
}

// Truncated, reordered and random bytes end the stream they came on, and nothing else
// happens.
func TestStream_endsAtBytesThatAreNotFrames(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 3))
	good, _ := appendHello(nil, "some.host:1")
	good = appendSign(good, kindOpen, testPool)
	good, _ = appendMessage(good, testPool, statement(t, 5))
	good, _ = appendMessage(good, testPool, swarm.Haves{Extents: []piece.Extent{{First: 1, Count: 1}}})
	huge := bytes.Clone(good)
	binary.BigEndian.PutUint32(huge[len(huge)-4-8-4-33:], 0xffff_fff0)
	again, _ := appendHello(bytes.Clone(good), "")
	cases := [][]byte{huge, again, good[:len(good)-1], appendSign(nil, kindPing, swarm.PoolID{})}
	for range 200 {
		bad := bytes.Clone(good)
		switch rng.IntN(3) {
		case 0:
			bad = bad[:rng.IntN(len(bad))]
		case 1:
			rng.Shuffle(len(bad), func(a, b int) { bad[a], bad[b] = bad[b], bad[a] })
		case 2:
			for i := range bad {
				bad[i] = byte(rng.Uint32())
			}
		}
		cases = append(cases, bad)
	}
	for _, bad := range cases {
		ca, cb := pair()
		s := NewStream(ca, StreamOptions{})
		go io.Copy(io.Discard, cb)
		go func() {
			cb.Write(bad)
			cb.Close()
		}()
		if err := drain(s); !errors.Is(err, ErrBroken) && !errors.Is(err, io.EOF) {
			t.Errorf("%x: %v", bad, err)
		}
		s.Close()
	}
}
