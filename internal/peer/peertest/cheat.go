// Package peertest is a member of a room that does not keep to the rules: it speaks the
// real protocols over real connections, and lies, withholds, breaks off or floods. The
// tests of package node put one among honest members.
package peertest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dragonload/internal/peer"
	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// Options say who a Cheat is and what it does. Nil functions mean what an honest member
// does.
type Options struct {
	Key         ed25519.PrivateKey
	Certificate []byte // DER; shown for its statements
	Pool        swarm.PoolID
	Pin         piece.Pin
	Data        []byte // what the origin has

	// Bytes returns what is sent for a piece; right may be changed.
	Bytes func(i piece.Index, right []byte) []byte
	// Send writes the body of an answer. It may take its time, until ctx ends.
	Send func(ctx context.Context, w http.ResponseWriter, body []byte)
	// Manifest answers requests for manifests; without it there are none.
	Manifest func(ctx context.Context, w http.ResponseWriter)
	// State returns what is stated of a piece: as many digests as it likes, none too.
	State func(i piece.Index, right piece.Digest) []piece.Digest
	// Generation changes what a statement is about.
	Generation func(piece.Digest) piece.Digest
	// Mute keeps it from claiming that it holds everything.
	Mute bool
	// Denies answers every accusation, and says after it once more that it holds everything.
	Denies bool
	// Attack is what it does on a stream instead of talking; raw is the connection, on
	// which nothing has been said.
	Attack func(ctx context.Context, raw net.Conn)
}

// Cheat is such a member.
type Cheat struct {
	o      Options
	layout piece.Layout

	Served atomic.Int64 // requests for pieces
	Talked atomic.Int64 // streams on which it has said what it had to say
	Denied atomic.Int64 // accusations that it has answered
}

// New returns a Cheat that does nothing yet.
func New(o Options) *Cheat { return &Cheat{o: o, layout: o.Pin.Layout()} }

// Run serves pieces on the connections of data and talks on those of haves until ctx
// ends, and returns when everything of it has ended.
func (c *Cheat) Run(ctx context.Context, data, haves net.Listener) {
	server := &http.Server{
		Handler:           http.HandlerFunc(c.serve),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	var work sync.WaitGroup
	work.Go(func() { _ = server.Serve(data) }) // ends with an error always
	work.Go(func() {
		for {
			conn, err := haves.Accept()
			if err != nil {
				return
			}
			work.Go(func() { c.Talk(ctx, conn) })
		}
	})
	<-ctx.Done()
	_ = server.Close()
	haves.Close()
	work.Wait()
}

// serve answers a request for pieces; the form is that of docs/formats.md.
func (c *Cheat) serve(w http.ResponseWriter, r *http.Request) {
	c.Served.Add(1)
	if strings.HasPrefix(r.URL.Path, "/v1/manifests/") && c.o.Manifest != nil {
		c.o.Manifest(r.Context(), w)
		return
	}
	pieces, err := c.list(r.URL.Path)
	if err != nil {
		http.Error(w, "", http.StatusNotFound)
		return
	}
	var body []byte
	for _, i := range pieces {
		one := bytes.Clone(c.bytes(i))
		if c.o.Bytes != nil {
			one = c.o.Bytes(i, one)
		}
		body = append(body, one...)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if c.o.Send != nil {
		c.o.Send(r.Context(), w, body)
		return
	}
	_, _ = w.Write(body) // whether it arrives is the honest side's matter
}

func (c *Cheat) bytes(i piece.Index) []byte {
	r := c.layout.Range(i)
	return c.o.Data[r.Start:r.End]
}

func (c *Cheat) list(path string) (pieces []piece.Index, err error) {
	_, list, ok := strings.Cut(path, "/pieces/")
	if !ok {
		return nil, errors.New("no list")
	}
	for item := range strings.SplitSeq(list, ",") {
		first, last, run := strings.Cut(item, "-")
		if !run {
			last = first
		}
		f, err1 := strconv.Atoi(first)
		l, err2 := strconv.Atoi(last)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		for i := f; i <= l && i < c.layout.Count(); i++ {
			pieces = append(pieces, piece.Index(i))
		}
	}
	return pieces, nil
}

// Talk speaks on one stream of haves until it ends.
func (c *Cheat) Talk(ctx context.Context, conn net.Conn) {
	if c.o.Attack != nil {
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		defer stop()
		defer conn.Close()
		c.o.Attack(ctx, conn)
		c.Talked.Add(1)
		return
	}
	stream := peer.NewStream(conn, peer.StreamOptions{Members: identity{c}})
	defer func() { _ = stream.Close() }() // nobody is told how it ended
	for {
		said, err := stream.Receive(ctx)
		if err != nil {
			return
		}
		if said.Opened && said.Pool == c.o.Pool {
			stream.Open(c.o.Pool)
			stream.Send(c.o.Pool, c.holds())
			for _, s := range c.Statements() {
				stream.Send(c.o.Pool, s)
			}
			c.Talked.Add(1)
		}
		if a, ok := said.Message.(swarm.Accuse); ok && c.o.Denies && a.Accused.By == c.id() {
			stream.Send(c.o.Pool, swarm.Accuse{Piece: a.Piece, Accused: a.Accuser, Accuser: a.Accused})
			stream.Send(c.o.Pool, c.holds())
			c.Denied.Add(1)
		}
	}
}

// holds is what it says that it holds.
func (c *Cheat) holds() swarm.Holds {
	have := piece.NewBitfield(c.layout.Count())
	for i := range piece.Index(have.Len()) {
		if !c.o.Mute {
			have.Set(i)
		}
	}
	return swarm.Holds{Generation: c.o.Pin.Generation(0), Have: have}
}

// Statements returns what it states, signed.
func (c *Cheat) Statements() (out []swarm.Statement) {
	sets := make(map[int]*swarm.Statement) // the n-th holds each piece's n-th digest
	flush := func(n int) {
		if s := sets[n]; s != nil && len(s.Pieces) > 0 {
			s.Signature = ed25519.Sign(c.o.Key, s.Message())
			out = append(out, *s)
		}
		delete(sets, n)
	}
	most := 0
	for i := range piece.Index(c.layout.Count()) {
		digests := []piece.Digest{c.layout.Sum(i, c.bytes(i))}
		if c.o.State != nil {
			digests = c.o.State(i, digests[0])
		}
		for n, d := range digests {
			if sets[n] == nil {
				g := c.o.Pin.Generation(0)
				if c.o.Generation != nil {
					g = c.o.Generation(g)
				}
				sets[n] = &swarm.Statement{By: c.id(), Generation: g, Run: 1}
			}
			s := sets[n]
			s.Pieces, s.Digests = append(s.Pieces, i), append(s.Digests, d)
			if len(s.Pieces) == swarm.MaxStated {
				flush(n)
			}
		}
		most = max(most, len(digests))
	}
	for n := range most {
		flush(n)
	}
	return out
}

func (c *Cheat) id() piece.NodeID { return piece.NodeID(c.o.Key.Public().(ed25519.PublicKey)) }

// identity shows the Cheat's certificate and believes everybody.
type identity struct{ c *Cheat }

func (identity) Has(piece.NodeID) bool { return true }
func (identity) Learn([]byte)          {}
func (i identity) Certificate(id piece.NodeID) []byte {
	if id == i.c.id() {
		return i.c.o.Certificate
	}
	return nil
}

// What a Cheat may do in its Options.

// Wrong are bytes that are not those of the piece.
func Wrong(_ piece.Index, right []byte) []byte {
	for k := range right {
		right[k] ^= 0x55
	}
	return right
}

// WrongOnce are wrong bytes for the first piece that is asked for.
func WrongOnce() func(piece.Index, []byte) []byte {
	var done atomic.Bool
	return func(i piece.Index, right []byte) []byte {
		if done.Swap(true) {
			return right
		}
		return Wrong(i, right)
	}
}

// Silence sends nothing.
func Silence(ctx context.Context, _ http.ResponseWriter, _ []byte) { <-ctx.Done() }

// OneByteAMinute does what it says.
func OneByteAMinute(ctx context.Context, w http.ResponseWriter, body []byte) {
	for len(body) > 0 {
		if _, err := w.Write(body[:1]); err != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
		body = body[1:]
		select {
		case <-time.After(time.Minute):
		case <-ctx.Done():
			return
		}
	}
}

// BreakOff sends half of an answer.
func BreakOff(_ context.Context, w http.ResponseWriter, body []byte) {
	_, _ = w.Write(body[:len(body)/2])
	panic(http.ErrAbortHandler)
}

// ManifestOf answers with these bytes, said to be a manifest whose info dictionary is so
// long.
func ManifestOf(data []byte, info int) func(context.Context, http.ResponseWriter) {
	return func(_ context.Context, w http.ResponseWriter) {
		w.Header().Set("Info-Length", strconv.Itoa(info))
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data) // whether it arrives is the honest side's matter
	}
}

// EndlessManifest sends zeros for as long as they are taken.
func EndlessManifest(ctx context.Context, w http.ResponseWriter) {
	w.Header().Set("Info-Length", "1000")
	w.Header().Set("Content-Length", strconv.Itoa(64<<20))
	for block := make([]byte, 64<<10); ctx.Err() == nil; {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// Frames returns an attack that sends these bytes over and over, as fast as they are
// taken, at most times times; hello goes before.
func Frames(times int, frames ...[]byte) func(context.Context, net.Conn) {
	return func(ctx context.Context, raw net.Conn) {
		go drain(raw)
		if _, err := raw.Write(Frame(1, swarm.PoolID{}, []byte{0, 1, 0})); err != nil {
			return
		}
		block := bytes.Join(frames, nil)
		for range times {
			if ctx.Err() != nil {
				return
			}
			if _, err := raw.Write(block); err != nil {
				return
			}
		}
	}
}

// drain reads what the other side says, so that only what is sent matters.
func drain(raw net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		if _, err := raw.Read(buf); err != nil {
			return
		}
	}
}

// Frame is a frame of the stream of haves.
func Frame(kind byte, pool swarm.PoolID, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(pool)+len(payload)))
	b = append(b, kind)
	b = append(b, pool[:]...)
	return append(b, payload...)
}

// FloodRequests asks for pieces on a data connection, times times without waiting for the
// answers, which it reads and throws away, and returns how many bytes came.
func FloodRequests(raw net.Conn, pool swarm.PoolID, times int) (int64, error) {
	read := make(chan int64, 1)
	go func() {
		var total int64
		buf := make([]byte, 64<<10)
		for {
			n, err := raw.Read(buf)
			total += int64(n)
			if err != nil {
				read <- total
				return
			}
		}
	}()
	ask := fmt.Appendf(nil, "GET /v1/pools/%x/pieces/0 HTTP/1.1\r\nHost: member\r\n\r\n", pool[:])
	var err error
	for range times {
		if _, err = raw.Write(ask); err != nil {
			break
		}
	}
	raw.Close()
	return <-read, err
}
