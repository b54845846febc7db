package peer

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// statement returns a signed statement of n pieces.
func statement(t testing.TB, n int) swarm.Statement {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := swarm.Statement{By: piece.NodeID(public), Generation: piece.Digest{1}}
	for i := range n {
		s.Pieces = append(s.Pieces, piece.Index(3*i))
		s.Digests = append(s.Digests, piece.Digest{byte(i), 7})
	}
	s.Signature = ed25519.Sign(private, s.Message())
	return s
}

// parse reads one frame from the start of data.
func parse(data []byte) (f frame, length int, err error) {
	if len(data) < frameStart {
		return f, 0, fmt.Errorf("short")
	}
	k, pool, n, err := frameHead(data)
	if err != nil || len(data) < frameStart+n {
		return f, 0, fmt.Errorf("short: %w", err)
	}
	f, err = decodePayload(k, pool, data[frameStart:frameStart+n])
	return f, frameStart + n, err
}

// encode writes a frame.
func encode(f frame) ([]byte, error) {
	switch f.kind {
	case kindHello:
		return appendHello(nil, f.addr)
	case kindPing, kindOpen, kindLeave:
		return appendSign(nil, f.kind, f.pool), nil
	case kindRemovals:
		return appendRemovals(nil, f.list)
	}
	return appendMessage(nil, f.pool, f.message)
}

func messages(t testing.TB) map[string]swarm.ToPeer {
	t.Helper()
	have := piece.NewBitfield(77)
	have.Set(0)
	have.Set(76)
	return map[string]swarm.ToPeer{
		"holds":           swarm.Holds{Generation: piece.Digest{9}, Have: have},
		"holds nothing":   swarm.Holds{Have: piece.NewBitfield(0)},
		"holds much":      swarm.Holds{Have: piece.NewBitfield(piece.MaxCount)},
		"haves":           swarm.Haves{Extents: []piece.Extent{{First: 5, Count: 2}, {First: 0, Count: 1}}},
		"haves all":       swarm.Haves{Extents: []piece.Extent{{First: 0, Count: piece.MaxCount}}},
		"statement":       statement(t, 1),
		"long statement":  statement(t, swarm.MaxStated),
		"accuse":          swarm.Accuse{Piece: 3, Accused: statement(t, 2), Accuser: statement(t, swarm.MaxStated)},
		"ask":             swarm.AskStatements{Extents: []piece.Extent{{First: piece.MaxCount - 1, Count: 1}}},
		"claim":           swarm.Claim{Extents: []piece.Extent{{First: 1, Count: 1}}},
		"relay":           swarm.Relay{Extents: []piece.Extent{{First: 7, Count: 8}}},
		"claims no more":  swarm.Claim{},
		"successor":       swarm.Successor{Tracker: swarm.PeerAddr{ID: piece.NodeID{3}, Addr: "host.example:4100"}, Live: true},
		"would take":      swarm.Successor{Tracker: swarm.PeerAddr{ID: piece.NodeID{3}, Addr: ":4100"}},
		"has lost it":     swarm.Successor{},
		"asks for naught": swarm.AskStatements{},
	}
}

func TestFrame_bringsEveryMessage(t *testing.T) {
	t.Parallel()
	for name, m := range messages(t) {
		data, err := appendMessage(nil, testPool, m)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if f, n, err := parse(data); err != nil || n != len(data) || f.pool != testPool || !reflect.DeepEqual(f.message, m) {
			t.Errorf("%s: %T in %d of %d bytes: %v", name, f.message, n, len(data), err)
		}
	}
}

// A message that package swarm sends and this package does not know would end every
// stream on which it is sent.
func TestFrame_knowsEveryMessageOfSwarm(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("../swarm/message.go")
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool)
	for _, m := range messages(t) {
		known[reflect.TypeOf(m).Name()] = true
	}
	found := regexp.MustCompile(`func \((\w+)\) toPeer\(\)`).FindAllSubmatch(source, -1)
	for _, f := range found {
		if !known[string(f[1])] {
			t.Errorf("swarm.%s is not among the messages that are tested", f[1])
		}
	}
	if len(found) != len(known) {
		t.Errorf("%d messages in package swarm, %d here", len(found), len(known))
	}
}

// The longest list of extents that there can be takes several frames; a claim, which
// replaces the one before it, keeps to one.
func TestFrame_dividesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	var every []piece.Extent
	for i := piece.Index(0); i < piece.MaxCount; i += 2 {
		every = append(every, piece.Extent{First: i, Count: 1})
	}
	data, err := appendMessage(nil, testPool, swarm.Haves{Extents: every})
	if err != nil {
		t.Fatal(err)
	}
	frames := 0
	var got []piece.Extent
	for len(data) > 0 {
		f, n, err := parse(data)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, f.message.(swarm.Haves).Extents...)
		data = data[n:]
		frames++
	}
	if frames != 9 || !slices.Equal(got, every) {
		t.Errorf("%d extents in %d frames", len(got), frames)
	}
	data, err = appendMessage(nil, testPool, swarm.Claim{Extents: every})
	if err != nil || len(data) > 4+maxFrame {
		t.Fatalf("%d bytes: %v", len(data), err)
	}
	if f, n, err := parse(data); err != nil || n != len(data) || len(f.message.(swarm.Claim).Extents) != maxRuns {
		t.Errorf("claim of %d bytes in %d: %v", n, len(data), err)
	}
}

func TestFrame_refusesWhatNobodyMaySend(t *testing.T) {
	t.Parallel()
	good := func(f frame) []byte {
		data, err := encode(f)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	changed := func(data []byte, at int, b ...byte) []byte {
		data = bytes.Clone(data)
		if at < 0 {
			at += len(data)
		}
		copy(data[at:], b)
		return data
	}
	longer := func(data []byte) []byte {
		data = append(bytes.Clone(data), 0)
		binary.BigEndian.PutUint32(data, uint32(len(data)-4))
		return data
	}
	hello := good(frame{kind: kindHello, addr: "host:1"})
	ping := appendSign(nil, kindPing, swarm.PoolID{})
	have := piece.NewBitfield(9)
	holds := good(frame{kind: kindHolds, message: swarm.Holds{Have: have}})
	haves := good(frame{kind: kindHaves, message: swarm.Haves{Extents: []piece.Extent{{First: 1, Count: 1}, {First: 2, Count: 1}}}})
	stated := good(frame{kind: kindStatement, message: statement(t, 2)})
	for name, data := range map[string][]byte{
		"unknown kind":             changed(ping, 4, 99),
		"kind zero":                changed(ping, 4, 0),
		"ping with a payload":      longer(ping),
		"ping with a pool":         changed(ping, 10, 1),
		"hello with a pool":        changed(hello, 10, 1),
		"length of nothing":        changed(ping, 0, 0, 0, 0, 0),
		"length of 4 GiB":          changed(holds, 0, 0xff, 0xff, 0xff, 0xff),
		"length beyond the kind's": changed(holds, 0, 0, 4, 0, 0x46),
		"hello of another version": changed(hello, frameStart, 0, 2),
		"hello cut":                changed(hello, frameStart+2, 7),
		"hello without a port":     changed(hello, -2, 'x'),
		"hello with a control":     changed(hello, -6, 0x1b),
		"spare bits":               changed(holds, -1, 0x01),
		"bitfield too short":       changed(holds, frameStart+35, 30),
		"bitfield of 2^32 pieces":  changed(holds, frameStart+32, 0xff, 0xff, 0xff, 0xff),
		"extent of nothing":        changed(haves, -1, 0),
		"extent beyond all":        changed(haves, -8, 0xff),
		"pieces twice and more":    changed(changed(haves, -12, 0, 0x1f, 0xff, 0xff), -4, 0, 0x1f, 0xff, 0xfe),
		"more extents than bytes":  changed(haves, frameStart, 0xff),
		"trailing byte":            longer(haves),
		"pieces not in order":      changed(stated, frameStart+138+3, 9),
		"piece beyond all":         changed(stated, -36, 0xff),
		"digests for no piece":     changed(stated, frameStart+136, 0, 0),
		"digests missing":          changed(stated, frameStart+136, 0, 3),
	} {
		if f, _, err := parse(data); err == nil {
			t.Errorf("%s: accepted as %+v", name, f)
		}
	}
}

func TestFrame_refusesToSendWhatItWouldNotAccept(t *testing.T) {
	t.Parallel()
	unordered := statement(t, 2)
	unordered.Pieces[0] = 9
	for name, m := range map[string]swarm.ToPeer{
		"none":               nil,
		"extent of nothing":  swarm.Haves{Extents: []piece.Extent{{}}},
		"extent beyond all":  swarm.Claim{Extents: []piece.Extent{{First: piece.MaxCount, Count: 1}}},
		"no statement":       swarm.Statement{},
		"unordered":          unordered,
		"bitfield too large": swarm.Holds{Have: piece.NewBitfield(piece.MaxCount + 1)},
	} {
		if data, err := appendMessage(nil, testPool, m); err == nil || len(data) != 0 {
			t.Errorf("%s: %d bytes, %v", name, len(data), err)
		}
	}
}

func TestCheckAddr_letsInOnlyHostAndPort(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"", ":80", "10.0.0.1:7070", "[fe80::1%eth0]:1", "[::1]:65535", "a_host.local:80", "host.:1"} {
		if err := checkAddr(addr); err != nil {
			t.Error(err)
		}
	}
	for _, addr := range []string{
		"host", ":", ":0", "host:", "host:0", "host:65536", "host:080", "ho st:1", "host/x:1", "-host:1", "a..b:1", "::1:80",
		"host:http", "\x1b[2J:1", strings.Repeat("a.", 130) + ":1", strings.Repeat("a", 64) + ":1", "[host]:x", "u@h:1",
	} {
		if checkAddr(addr) == nil {
			t.Errorf("%q was accepted", addr)
		}
	}
}

// Nothing that arrives makes decoding panic, and whatever is accepted is written again
// as the same bytes.
func FuzzFrame(f *testing.F) {
	for _, m := range messages(f) {
		if data, err := appendMessage(nil, testPool, m); err == nil && len(data) < 20<<10 {
			f.Add(data)
		}
	}
	hello, _ := appendHello(nil, "host.example:4711")
	f.Add(hello)
	f.Add(appendSign(nil, kindPing, swarm.PoolID{}))
	f.Add(appendSign(nil, kindOpen, testPool))
	f.Add(appendSign(nil, kindLeave, testPool))
	if list, err := appendRemovals(nil, make([]byte, minRemovals)); err == nil {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, n, err := parse(data)
		if err != nil {
			return
		}
		again, err := encode(got)
		if err != nil || !bytes.Equal(again, data[:n]) {
			t.Errorf("%x is written again as %x: %v", data[:n], again, err)
		}
	})
}

// FuzzStatement: the signature of a statement covers all of it.
func FuzzStatement(f *testing.F) {
	good := statement(f, 3)
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) // the same in every worker
	good.By = piece.NodeID(key.Public().(ed25519.PublicKey))
	good.Signature = ed25519.Sign(key, good.Message())
	data, err := appendMessage(nil, testPool, good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, changed []byte) {
		got, n, err := parse(changed)
		m, ok := got.message.(swarm.Statement)
		if err != nil || !ok || m.By != good.By || bytes.Equal(changed[frameStart:n], data[frameStart:]) {
			return
		}
		if ed25519.Verify(m.By[:], m.Message(), m.Signature) {
			t.Errorf("%x has the signature of %x", changed, data)
		}
	})
}

// TestFault37StreamOfAnotherVersion: the first frame names the version.
func TestFault37StreamOfAnotherVersion(t *testing.T) {
	t.Parallel()
	hello, err := appendHello(nil, "host:1")
	if err != nil {
		t.Fatal(err)
	}
	hello[frameStart+1] = 2
	if _, _, err := parse(hello); !errors.Is(err, ErrVersion) {
		t.Errorf("got %v, want ErrVersion", err)
	}
}
