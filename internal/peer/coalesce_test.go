package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"dragonload/internal/piece"
)

// recorder is a connection that keeps what is written to it.
type recorder struct {
	net.Conn
	mu     sync.Mutex
	all    bytes.Buffer
	writes []int
	err    error
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0, r.err
	}
	r.writes = append(r.writes, len(p))
	return r.all.Write(p)
}

func TestCoalesce_passesThroughUnlessItCollects(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	c := Coalesce(r).(*coalescer)
	c.Write([]byte("a"))
	c.Write([]byte("bc"))
	c.begin(time.Now())
	c.Write([]byte("d"))
	c.Write([]byte("ef"))
	if got := r.all.String(); got != "abc" {
		t.Errorf("while collecting, %q is written", got)
	}
	c.end()
	c.Write([]byte("g"))
	if got := fmt.Sprint(r.writes); r.all.String() != "abcdefg" || got != "[1 2 3 1]" {
		t.Errorf("%q in writes of %s", r.all.String(), got)
	}
	if c.buf != nil {
		t.Error("a buffer is held while nothing is collected")
	}
}

func TestCoalesce_writesSixteenRecordsAtATime(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	c := Coalesce(r).(*coalescer)
	c.begin(time.Now())
	record := make([]byte, 16<<10+22)
	for range 40 {
		c.Write(record)
	}
	c.Write(make([]byte, coalesceSize+1)) // larger than the buffer: not copied
	c.end()
	full := 16 * len(record)
	if got, want := fmt.Sprint(r.writes), fmt.Sprint([]int{full, full, 8 * len(record), coalesceSize + 1}); got != want {
		t.Errorf("writes of %s, want %s", got, want)
	}
}

func TestCoalesce_keepsTheOrderOfConcurrentWriters(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	c := Coalesce(r).(*coalescer)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for k := range 2000 {
				c.Write([]byte{byte(w), byte(k), byte(k >> 8)})
			}
		})
	}
	wg.Go(func() {
		for range 500 {
			c.begin(time.Now())
			c.flush()
			c.waiting()
			c.end()
		}
	})
	wg.Wait()
	c.end()
	next := [4]int{}
	for all := r.all.Bytes(); len(all) > 0; all = all[3:] {
		if w, k := all[0], int(all[1])|int(all[2])<<8; k != next[w] {
			t.Fatalf("write %d of writer %d came as number %d", k, w, next[w])
		}
		next[all[0]]++
	}
	if next != [4]int{2000, 2000, 2000, 2000} {
		t.Errorf("%v writes came", next)
	}
}

func TestCoalesce_tellsOfAFailedWriteEverAfter(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	r := &recorder{err: broken}
	c := Coalesce(r).(*coalescer)
	c.begin(time.Now())
	if _, err := c.Write([]byte("a")); err != nil {
		t.Errorf("a write that is collected: %v", err)
	}
	if err := c.flush(); !errors.Is(err, broken) {
		t.Errorf("flush: %v", err)
	}
	if _, err := c.Write([]byte("a")); !errors.Is(err, broken) {
		t.Errorf("a later write: %v", err)
	}
	if err := c.end(); !errors.Is(err, broken) || c.buf != nil {
		t.Errorf("end: %v", err)
	}
}

// Whatever way a request goes, the layer holds no buffer and collects nothing after
// it, and the next answer on the connection arrives.
func TestCoalesce_isEmptyAfterEveryRequest(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var layers []*coalescer
	layer := func(c net.Conn) net.Conn {
		mu.Lock()
		defer mu.Unlock()
		layers = append(layers, Coalesce(c).(*coalescer))
		return layers[len(layers)-1]
	}
	f, n := newFile(4<<20, 16<<10), newLoopback(t, newParty(t), layer)
	f.data[100*16<<10] ^= 1
	stop := serve(t, f, n, ServerOptions{})
	c := newTestClient(t, n, newParty(t), ClientOptions{})
	var all []piece.Index
	for i := range piece.Index(100) {
		all = append(all, i)
	}
	for range 3 {
		for _, list := range [][]piece.Index{{1}, {1, 2, 3, 4}, all[:16], all[:17], all} {
			if err := collect(t, c, n, f, list...); err != nil { // bodies of a multiple of 16 KiB
				t.Fatal(err)
			}
		}
		if err := collect(t, c, n, f, 100, 1); !errors.Is(err, ErrNotHeld) {
			t.Fatal(err)
		}
		if err := collect(t, c, n, f, 1, 100); !errors.Is(err, ErrBroken) {
			t.Fatal(err)
		}
		stopped := errors.New("stopped")
		err := c.Fetch(context.Background(), "there", n.server.id, testPool, f.layout, all, nil, func(piece.Index, []byte) error { return stopped })
		if !errors.Is(err, stopped) {
			t.Fatal(err)
		}
		gone := connect(t, n, newParty(t))
		io.WriteString(gone, "GET "+poolPath+"/pieces/0-99 HTTP/1.1\r\nHost: x\r\n\r\n")
		abort(gone)
	}
	stop()
	mu.Lock()
	defer mu.Unlock()
	for _, l := range layers {
		if l.on || l.buf != nil {
			t.Errorf("on: %v, holds a buffer: %v", l.on, l.buf != nil)
		}
	}
}
