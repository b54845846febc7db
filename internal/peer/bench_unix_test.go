//go:build unix

package peer

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// prepared is a Content in memory that hashes nothing.
type prepared struct {
	layout piece.Layout
	data   []byte
}

func (p *prepared) Admit(context.Context, [32]byte, piece.NodeID, swarm.PoolID, []piece.Index) (Content, func(int64), error) {
	return preparedContent{p}, func(int64) {}, nil
}

func (p *prepared) Layout([32]byte, piece.NodeID, swarm.PoolID) (piece.Layout, error) {
	return p.layout, nil
}

func (*prepared) Manifest([32]byte, piece.NodeID, [32]byte) (Manifest, error) {
	return Manifest{}, ErrNotHeld
}

type preparedContent struct{ *prepared }

func (p preparedContent) Layout() piece.Layout { return p.layout }

func (p preparedContent) ReadPiece(_ piece.Index, buf []byte) ([]byte, error) {
	return buf[:copy(buf, p.data)], nil
}

func cpuSeconds(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// BenchmarkFetch measures the CPU time of both sides together for a GiB over loopback,
// hashing and disks left out: with and without the layer that coalesces records, by
// this package's client and, for comparison, by http.Transport.
func BenchmarkFetch(b *testing.B) {
	type request struct {
		length int64
		pieces int
	}
	for _, r := range []request{{64 << 10, 4}, {64 << 10, 16}, {1 << 20, 1}, {4 << 20, 1}} {
		for _, conns := range []int{1, 2} {
			for _, c := range []struct {
				name      string
				layer     func(net.Conn) net.Conn
				transport bool
			}{{"coalesced", Coalesce, false}, {"plain", nil, false}, {"coalesced-http.Transport", Coalesce, true}} {
				b.Run(fmt.Sprintf("%dx%dKiB/conns=%d/%s", r.pieces, r.length>>10, conns, c.name), func(b *testing.B) {
					benchmarkFetch(b, r.length, r.pieces, conns, c.layer, c.transport)
				})
			}
		}
	}
}

func benchmarkFetch(b *testing.B, length int64, pieces, conns int, layer func(net.Conn) net.Conn, transport bool) {
	p := &prepared{layout: piece.Layout{Size: length * 1024, PieceLength: length}, data: bytes.Repeat([]byte("x"), int(length))}
	n := newLoopback(b, newParty(b), layer)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- NewServer(p, ServerOptions{Identify: identify}).Serve(ctx, n) }()
	dial := n.dialAs(newParty(b))
	c := NewClient(dial, ClientOptions{})
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	stock := &http.Transport{
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return dial(ctx, addr, n.server.id) },
		Protocols:      protocols, ReadBufferSize: 64 << 10, MaxIdleConnsPerHost: conns, DisableCompression: true,
	}
	var list []piece.Index
	for i := range pieces {
		list = append(list, piece.Index(3*i))
	}
	get := func() error {
		if !transport {
			return c.Fetch(ctx, "there", n.server.id, testPool, p.layout, list, nil, func(piece.Index, []byte) error { return nil })
		}
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://there"+string(appendPath(nil, testPool, list)), nil)
		resp, err := stock.RoundTrip(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		buf := takeBuffer(length)
		defer giveBuffer(buf)
		for range pieces {
			if _, err := io.ReadFull(resp.Body, *buf); err != nil {
				return err
			}
		}
		_, err = io.Copy(io.Discard, bufio.NewReader(resp.Body))
		return err
	}
	if err := get(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(length * int64(pieces))
	before := cpuSeconds(b)
	b.ResetTimer()
	work := make(chan struct{})
	var wg sync.WaitGroup
	for range conns {
		wg.Go(func() {
			for range work {
				if err := get(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
	b.StopTimer()
	gib := float64(length) * float64(pieces) * float64(b.N) / (1 << 30)
	b.ReportMetric((cpuSeconds(b)-before)/gib, "cpu-s/GiB")
	stock.CloseIdleConnections()
	c.Close()
	cancel()
	<-served
}
