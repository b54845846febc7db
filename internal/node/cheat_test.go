package node_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dragonload/internal/node"
	"dragonload/internal/peer"
	"dragonload/internal/peer/peertest"
	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
	"dragonload/internal/swarm"

	"golang.org/x/time/rate"
)

// A cheat among honest members: each of these ends with the right file, whatever it does.

// cheating is one cheat in a lab.
type cheating struct {
	*peertest.Cheat
	t    *testing.T
	lab  *lab
	m    machine
	addr string
	pin  piece.Pin
	pool swarm.PoolID
}

// cheat makes a machine reachable whose node does what o says, and tells the tracker that
// it is there and, unless it is mute, holds everything.
func (b *lab) cheat(s *site, o peertest.Options) *cheating {
	b.t.Helper()
	c := &cheating{t: b.t, lab: b, m: b.join("cheat")}
	c.pin = piece.Pin{Size: int64(len(s.data)), Kind: piece.StrongETag, Validator: s.etag}
	c.pool = b.creator.Pool(s.url())
	o.Key, o.Pool, o.Pin, o.Data = c.m.folder.Identity().Key, c.pool, c.pin, s.data
	if r, ok := c.m.keyring.Get(b.creator.ID); ok && o.Certificate == nil {
		o.Certificate = r.Cert.Leaf.Raw
	}
	if bytes.Equal(o.Certificate, ended) {
		o.Certificate = b.endedCertificate(c.m)
	}
	c.Cheat = peertest.New(o)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	c.addr = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	split := room.Split(listener, c.m.keyring.ServerTLS(room.ALPNData, room.ALPNHaves), room.SplitOptions{Wrap: peer.Coalesce}, room.ALPNData, room.ALPNHaves)
	var work sync.WaitGroup
	work.Go(func() { c.Run(ctx, split.Listener(room.ALPNData), split.Listener(room.ALPNHaves)) })
	b.t.Cleanup(func() {
		cancel()
		split.Close()
		work.Wait()
	})
	c.announce(!o.Mute)
	return c
}

// session opens a session with the tracker.
func (c *cheating) session() (*rpc.Session, func()) {
	c.t.Helper()
	cfg, err := c.m.keyring.ClientTLS(c.lab.creator.ID, room.ALPNControl, piece.NodeID{})
	if err != nil {
		c.t.Fatal(err)
	}
	to, err := rpc.NewTracker(c.lab.addr, cfg, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	live, err := to.Open(c.t.Context(), c.pool)
	if err != nil {
		c.t.Fatal(err)
	}
	return live, func() {
		live.Close()
		to.Close()
	}
}

// endedCertificate is one that the room gave the machine, and that is no longer valid.
func (b *lab) endedCertificate(m machine) []byte {
	b.t.Helper()
	csr, err := b.invite.Request(m.folder.Identity(), "cheat")
	if err != nil {
		b.t.Fatal(err)
	}
	chain, err := b.creator.Admit(b.t.Context(), b.invite.Token, csr, time.Now().Add(-60*24*time.Hour), b.state)
	if err != nil {
		b.t.Fatal(err)
	}
	leaf, _ := pem.Decode(chain)
	cert, err := x509.ParseCertificate(leaf.Bytes)
	if err != nil || !cert.NotAfter.Before(time.Now()) {
		b.t.Fatalf("a certificate that has not ended: %v, %v", cert, err)
	}
	return leaf.Bytes
}

// ended, as a Cheat's certificate, stands for its own that has ended.
var ended = []byte("ended")

// announce tells the tracker of it, and gives it signs of life.
func (c *cheating) announce(whole bool) {
	live, end := c.session()
	ctx, cancel := context.WithCancel(context.Background())
	a := swarm.Announce{Addr: c.addr}
	if whole {
		have := piece.NewBitfield(c.pin.Layout().Count())
		for i := range piece.Index(have.Len()) {
			have.Set(i)
		}
		a.Pinned, a.Fresh, a.Pin, a.Have = true, true, c.pin, have
	}
	live.Send(a)
	if _, err := live.Receive(ctx); err != nil { // Welcome
		c.t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			if _, err := live.Receive(ctx); err != nil {
				return
			}
		}
	})
	work.Go(func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				live.Send(swarm.Report{Whole: whole})
			case <-ctx.Done():
				return
			}
		}
	})
	c.t.Cleanup(func() {
		cancel()
		end()
		work.Wait()
	})
}

// dial connects to a member as the cheat's own node would.
func (c *cheating) dial(alpn, addr string) net.Conn {
	c.t.Helper()
	cfg, err := c.m.keyring.ClientTLS(c.lab.creator.ID, alpn, piece.NodeID{})
	if err != nil {
		c.t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	return conn
}

func wrongly(i piece.Index, _ piece.Digest) []piece.Digest {
	return []piece.Digest{{0xbad & 0xff, byte(i)}}
}

func TestRoom_honestMembersGetTheFileDespiteOneThatCheats(t *testing.T) {
	t.Parallel()
	pool := swarm.PoolID{9}
	for _, c := range []struct {
		name   string
		cheat  peertest.Options
		warned string // a code that one of them is told at least
		copies int64  // of the file that the origin may send
		served bool   // the cheat is asked for pieces
	}{
		{"wrong bytes once", peertest.Options{Bytes: peertest.WrongOnce()}, "", 4, true},
		{"wrong bytes always", peertest.Options{Bytes: peertest.Wrong}, "wrong-bytes", 4, true},
		{"wrong digests, and bytes to match them", peertest.Options{Bytes: zeros, State: ofZeros}, "wrong-statement", 5, true},
		{"wrong digests", peertest.Options{State: wrongly}, "", 4, true},
		{"two digests for a piece", peertest.Options{State: func(i piece.Index, d piece.Digest) []piece.Digest {
			return []piece.Digest{d, {1, byte(i)}}
		}}, "member-banned", 4, false},
		{"claims all, states nothing", peertest.Options{State: silent}, "", 4, false},
		{"claims all, serves nothing", peertest.Options{Send: peertest.Silence}, "", 4, true},
		{"one byte a minute", peertest.Options{Send: peertest.OneByteAMinute}, "", 4, true},
		{"breaks off", peertest.Options{Send: peertest.BreakOff}, "", 4, true},
		{"states another generation", peertest.Options{Mute: true, Generation: func(piece.Digest) piece.Digest { return piece.Digest{7} }, State: wrongly}, "", 2, false},
		{"states without a certificate", peertest.Options{Mute: true, Certificate: []byte{1}, State: wrongly}, "", 2, false},
		{"states with a certificate that has ended", peertest.Options{Mute: true, Certificate: ended, State: wrongly}, "", 2, false},
		{"a giant frame", peertest.Options{Mute: true, Attack: peertest.Frames(1, []byte{0xff, 0xff, 0xff, 0xff, 17})}, "", 2, false},
		{"a frame without a length", peertest.Options{Mute: true, Attack: peertest.Frames(1, make([]byte, 64))}, "", 2, false},
		{"a frame of an unknown kind", peertest.Options{Mute: true, Attack: peertest.Frames(1, peertest.Frame(99, pool, nil))}, "", 2, false},
		{"a frame cut midway", peertest.Options{Mute: true, Attack: peertest.Frames(1, peertest.Frame(17, pool, make([]byte, 400))[:100])}, "", 2, false},
		{"pools of other rooms", peertest.Options{Mute: true, Attack: peertest.Frames(20_000, peertest.Frame(3, pool, nil), peertest.Frame(17, pool, make([]byte, 4)))}, "", 2, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 4<<20)
			s.set(func() { s.perConn = 2 << 20 })
			b := newLab(t)
			nodes := []*node.Node{b.run()}
			for i := range 2 {
				nodes = append(nodes, start(t, b.join(fmt.Sprintf("honest-%d", i)).options()))
			}
			cheat := b.cheat(s, c.cheat)
			var runs []*run
			for _, n := range nodes {
				spec := s.roomSpec(t)
				spec.LimitRate = 4 << 20
				runs = append(runs, download(t, t.Context(), n, spec))
			}
			var codes []string
			for _, r := range runs {
				saved := r.result(t)
				s.check(t, saved)
				if saved.Checked != "audited" && saved.Checked != "origin" {
					t.Errorf("checked=%s; it told %s", saved.Checked, r.story())
				}
				codes = append(codes, r.warnings()...)
			}
			if c.warned != "" && !slices.Contains(codes, c.warned) {
				t.Errorf("got warnings %v, want %s among them", codes, c.warned)
			}
			if slices.Contains(codes, "origin-inconsistent") {
				t.Errorf("the origin is blamed: %v", codes)
			}
			if sent := s.sent.Load(); sent > c.copies*int64(len(s.data)) {
				t.Errorf("the origin sent %d bytes of a file of %d", sent, len(s.data))
			}
			if c.served && cheat.Served.Load() == 0 {
				t.Error("the cheat was not asked for anything")
			}
			if cheat.Served.Load()+cheat.Talked.Load() == 0 {
				t.Error("the cheat was not met")
			}
		})
	}
}

// zeros are bytes that match what ofZeros states.
func zeros(_ piece.Index, right []byte) []byte { clear(right); return right }

func ofZeros(_ piece.Index, _ piece.Digest) []piece.Digest {
	layout := piece.Pin{Size: 4 << 20}.Layout()
	return []piece.Digest{layout.Sum(0, make([]byte, layout.Length(0)))}
}

// A liar whose downloads take long enough is shut out by name, by all who have confirmed it.
func TestRoom_aLiarIsShutOutByName(t *testing.T) {
	t.Parallel()
	s := newSite(t, 8<<20)
	s.set(func() { s.perConn = rate.Limit(96 << 10) })
	b := newLab(t)
	nodes := []*node.Node{b.run()}
	for i := range 2 {
		nodes = append(nodes, start(t, b.join(fmt.Sprintf("honest-%d", i)).options()))
	}
	b.cheat(s, peertest.Options{Bytes: zeros, State: ofZeros})
	var runs []*run
	for _, n := range nodes {
		runs = append(runs, download(t, t.Context(), n, s.roomSpec(t)))
	}
	banned := 0
	for _, r := range runs {
		s.check(t, r.result(t))
		for _, ev := range r.events {
			if ev.Warning != nil && ev.Warning.Code == "member-banned" {
				banned++
				if !strings.Contains(ev.Warning.Message, "cheat") {
					t.Errorf("%q does not name the member", ev.Warning.Message)
				}
			}
		}
	}
	if banned < 2 {
		t.Errorf("%d members have shut the liar out, want all who had time to", banned)
	}
}

// A liar that answers every accusation cannot be told from the one honest member to whom the
// origin shows another face, so nobody shuts it out. Nor does anybody ask it for ever.
func TestRoom_aLiarThatAnswersEveryAccusation(t *testing.T) {
	t.Parallel()
	s := newSite(t, 8<<20)
	s.set(func() { s.perConn = rate.Limit(96 << 10) })
	b := newLab(t)
	nodes := []*node.Node{b.run()}
	for i := range 2 {
		nodes = append(nodes, start(t, b.join(fmt.Sprintf("honest-%d", i)).options()))
	}
	var lied sync.Map // pieces that it was asked for
	cheat := b.cheat(s, peertest.Options{Denies: true, State: ofZeros, Bytes: func(i piece.Index, right []byte) []byte {
		asked, _ := lied.LoadOrStore(i, new(atomic.Int64))
		asked.(*atomic.Int64).Add(1)
		return zeros(i, right)
	}})
	var runs []*run
	for _, n := range nodes {
		runs = append(runs, download(t, t.Context(), n, s.roomSpec(t)))
	}
	var codes []string
	for _, r := range runs {
		s.check(t, r.result(t))
		codes = append(codes, r.warnings()...)
	}
	if slices.Contains(codes, "member-banned") || !slices.Contains(codes, "wrong-statement") {
		t.Errorf("got warnings %v, want wrong-statement and no ban", codes)
	}
	if cheat.Denied.Load() == 0 {
		t.Fatal("no accusation was answered")
	}
	// Each asks it for a piece once while it is believed, and after that until three pieces
	// are known to be wrong, with two requests under way by then.
	most := int64(len(nodes)) * (1 + 3 + 2)
	lied.Range(func(i, asked any) bool {
		if n := asked.(*atomic.Int64).Load(); n > most {
			t.Errorf("it was asked for piece %v %d times, want at most %d", i, n, most)
		}
		return true
	})
	if sent := s.sent.Load(); sent > 4*int64(len(s.data)) {
		t.Errorf("the origin sent %d bytes of a file of %d", sent, len(s.data))
	}
}

// An origin with two faces makes liars of honest members. Nobody is shut out.
func TestRoom_anOriginWithTwoFacesBansNobody(t *testing.T) {
	t.Parallel()
	for name, second := range map[string]func(r *http.Request, requests int64) bool{
		"by member":  func(r *http.Request, _ int64) bool { return strings.HasPrefix(r.UserAgent(), "second") },
		"by request": func(_ *http.Request, requests int64) bool { return requests%2 == 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 4<<20)
			other := slices.Clone(s.data)
			for k := range other {
				other[k] ^= 0x33
			}
			s.set(func() {
				s.handle = func(w http.ResponseWriter, r *http.Request) {
					data := s.data
					if second(r, s.requests.Load()) {
						data = other
					}
					w.Header().Set("ETag", s.etag)
					http.ServeContent(w, r, "image.iso", time.Time{}, bytes.NewReader(data))
				}
			})
			b := newLab(t)
			nodes := []*node.Node{b.run()}
			for i := range 3 {
				nodes = append(nodes, start(t, b.join(fmt.Sprintf("honest-%d", i)).options()))
			}
			var runs []*run
			for i, n := range nodes {
				spec := s.roomSpec(t)
				spec.LimitRate = 4 << 20
				if i%2 == 1 {
					spec.UserAgent = "second"
				}
				runs = append(runs, download(t, t.Context(), n, spec))
			}
			for _, r := range runs {
				r.wait(t)
				codes := r.warnings()
				if slices.Contains(codes, "member-banned") || slices.Contains(codes, "member-shut-out") {
					t.Errorf("an honest member is shut out: %v; it told %s", codes, r.story())
				}
				if r.err != nil {
					if got := node.AsError(r.err); got.Code != "origin-inconsistent" {
						t.Errorf("ended with %v", r.err)
					}
					continue
				}
				if saved := r.result(t); name == "by member" && slices.Contains(codes, "origin-inconsistent") && saved.SHA256 != sum(s.data) && saved.SHA256 != sum(other) {
					t.Errorf("saved a file that is neither of the origin's faces, checked=%s; it told %s", saved.Checked, r.story())
				}
			}
			if sent := s.sent.Load(); sent > 12*int64(len(s.data)) {
				t.Errorf("the origin sent %d bytes of a file of %d", sent, len(s.data))
			}
		})
	}
}

// Floods take no memory: of requests for pieces, of frames, of announces.
func TestRoom_floodsTakeNoMemory(t *testing.T) {
	s := newSite(t, 4<<20)
	b := newLab(t)
	up := b.run()
	s.check(t, download(t, t.Context(), up, s.roomSpec(t)).result(t))
	cheat := b.cheat(s, peertest.Options{Mute: true})
	before := heap()
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			// Whatever it does to the connection, nothing else may happen.
			_, _ = peertest.FloodRequests(cheat.dial(room.ALPNData, b.addr), cheat.pool, 3000)
		})
	}
	for range 4 {
		work.Go(func() {
			ask := []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 64}
			flood := peertest.Frames(20_000, peertest.Frame(3, cheat.pool, nil), peertest.Frame(19, cheat.pool, ask), peertest.Frame(3, swarm.PoolID{1}, nil))
			conn := cheat.dial(room.ALPNHaves, b.addr)
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(5 * time.Second))
			flood(t.Context(), conn)
		})
		work.Go(func() {
			live, end := cheat.session()
			defer end()
			have := piece.NewBitfield(cheat.pin.Layout().Count())
			for range 2000 {
				live.Send(swarm.Announce{Addr: cheat.addr, Pinned: true, Pin: cheat.pin, Have: have, Wants: true})
			}
		})
	}
	work.Wait()
	if after := heap(); after > before+20<<20 {
		t.Errorf("the heap has grown from %d to %d MiB", before>>20, after>>20)
	}
	r := download(t, t.Context(), start(t, b.join("late").options()), s.roomSpec(t))
	s.check(t, r.result(t))
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
