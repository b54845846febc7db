package swarm_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

var rewrite = flag.Bool("rewrite", false, "write what the machines answer into the scenario files; commit only what you can explain")

// TestScenarios plays the files under testdata. A line that begins with ">" is an
// event; the indented lines after it are what the machine answered. Lines that begin
// with "#" say what is going on. The words are explained in testdata/README.md.
func TestScenarios(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, name := range files {
		t.Run(filepath.ToSlash(strings.TrimSuffix(strings.TrimPrefix(name, "testdata"+string(filepath.Separator)), ".txt")), func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var player interface{ play(line string) []string }
			if filepath.Base(filepath.Dir(name)) == "node" {
				player = newNodePlayer(t)
			} else {
				player = newTrackerPlayer(t)
			}
			var got strings.Builder
			for line := range strings.Lines(string(want)) {
				line = strings.TrimRight(line, "\n")
				switch {
				case strings.HasPrefix(line, ">"):
					fmt.Fprintln(&got, line)
					for _, a := range player.play(strings.TrimSpace(line[1:])) {
						fmt.Fprintln(&got, "    "+a)
					}
				case strings.HasPrefix(line, "    "):
				default:
					fmt.Fprintln(&got, line)
				}
			}
			if *rewrite {
				if err := os.WriteFile(name, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got.String() != string(want) {
				t.Errorf("%s: the machine answers otherwise (go test ./internal/swarm -run TestScenarios -rewrite shows the difference in git diff); now it is\n%s", name, got.String())
			}
		})
	}
}

// clock is the virtual time of a scenario. It begins at one second, so that no moment
// is the zero Instant.
type clock struct{ now swarm.Instant }

func (c *clock) advance(to swarm.Instant, deadline func() (swarm.Instant, bool), step func()) {
	for {
		at, ok := deadline()
		if !ok || at > to {
			break
		}
		c.now = max(c.now, at)
		step()
	}
	c.now = to
}

// args are the words of an event line: plain ones in order, and key=value ones.
type args struct {
	t     *testing.T
	line  string
	words []string
	keys  map[string]string
}

func parse(t *testing.T, line string) args {
	a := args{t: t, line: line, keys: map[string]string{}}
	for _, w := range strings.Fields(line) {
		if k, v, ok := strings.Cut(w, "="); ok {
			a.keys[k] = v
		} else {
			a.words = append(a.words, w)
		}
	}
	return a
}

func (a *args) word() string {
	if len(a.words) == 0 {
		a.t.Fatalf("%q ends too soon", a.line)
	}
	w := a.words[0]
	a.words = a.words[1:]
	return w
}

func (a *args) has(word string) bool {
	for _, w := range a.words {
		if w == word {
			return true
		}
	}
	return false
}

func (a *args) bytes(s string) int64 {
	units := map[byte]int64{'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30}
	scale := int64(1)
	if s != "" && units[s[len(s)-1]] > 0 {
		scale, s = units[s[len(s)-1]], s[:len(s)-1]
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		a.t.Fatalf("%q: %v", a.line, err)
	}
	return n * scale
}

func (a *args) duration(key string) time.Duration {
	if a.keys[key] == "" {
		return 0
	}
	d, err := time.ParseDuration(a.keys[key])
	if err != nil {
		a.t.Fatalf("%q: %v", a.line, err)
	}
	return d
}

// extents reads runs like 0-3,7.
func (a *args) extents(s string) (out []piece.Extent) {
	if s == "" {
		return nil
	}
	for _, run := range strings.Split(s, ",") {
		first, last, ok := strings.Cut(run, "-")
		if !ok {
			last = first
		}
		f, err1 := strconv.Atoi(first)
		l, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil || l < f {
			a.t.Fatalf("%q: bad run %q", a.line, run)
		}
		out = append(out, piece.Extent{First: uint32(f), Count: uint32(l - f + 1)})
	}
	return out
}

func each(extents []piece.Extent) (out []piece.Index) {
	for _, e := range extents {
		for i := e.First; i < e.End(); i++ {
			out = append(out, i)
		}
	}
	return out
}

// layout is that of the files of a manifest, whose pieces have 64 KiB.
func (a *args) layout() piece.Layout {
	var sizes []int64
	for _, size := range strings.Split(a.keys["files"], ",") {
		sizes = append(sizes, a.bytes(size))
	}
	l, err := piece.LayoutOf(64<<10, sizes)
	if err != nil {
		a.t.Fatalf("%q: %v", a.line, err)
	}
	return l
}

func (a *args) pin() piece.Pin {
	if a.keys["files"] != "" {
		return piece.ManifestPin([32]byte{0xab}, a.layout())
	}
	p := piece.Pin{Size: a.bytes(a.keys["size"])}
	if tag := a.keys["etag"]; tag != "" {
		p.Kind, p.Validator = piece.StrongETag, tag
	}
	return p
}

func (a *args) have(pin piece.Pin) piece.Bitfield { return a.set(pin, a.keys["have"]) }

func (a *args) set(pin piece.Pin, pieces string) piece.Bitfield {
	b := piece.NewBitfield(pin.Layout().Count())
	for _, i := range each(a.extents(pieces)) {
		b.Set(i)
	}
	return b
}

func (a *args) failure() swarm.Failure {
	switch {
	case a.has("passing"):
		return swarm.Passing
	case a.has("lasting"):
		return swarm.Lasting
	}
	return swarm.NoFailure
}

// id makes the node id of a member called by a letter.
func id(name string) (n piece.NodeID) { copy(n[:], name); return n }

// source makes the name of a server out of a word, "" for the one without a name.
func source(word string) (s swarm.SourceID) { copy(s[:], word); return s }

func ofSource(s swarm.SourceID) string {
	if s == (swarm.SourceID{}) {
		return ""
	}
	return ", server " + strings.TrimRight(string(s[:]), "\x00")
}

func (a *args) sources() (out []swarm.SourceID) {
	for word := range strings.SplitSeq(a.keys["servers"], ",") {
		if word != "" {
			out = append(out, source(word))
		}
	}
	return out
}

func (a *args) members(key string) (out []piece.NodeID) {
	for word := range strings.SplitSeq(a.keys[key], ",") {
		if word != "" {
			out = append(out, id(word))
		}
	}
	return out
}

func names(ids []piece.NodeID) string {
	var words []string
	for _, one := range ids {
		words = append(words, name(one))
	}
	return strings.Join(words, ",")
}

func name(id piece.NodeID) string { return strings.TrimRight(string(id[:]), "\x00") }

func runs(extents []piece.Extent) string {
	if len(extents) == 0 {
		return "nothing"
	}
	var parts []string
	for _, e := range extents {
		parts = append(parts, e.String())
	}
	return strings.Join(parts, ",")
}

func indexes(pieces []piece.Index) string {
	var s piece.Extents
	for _, i := range pieces {
		s.Add(piece.Extent{First: i, Count: 1})
	}
	return runs(s.Runs())
}

func bits(b *piece.Bitfield) string {
	var out []piece.Extent
	for e := range b.Extents {
		out = append(out, e)
	}
	return runs(out)
}

// digestOf is the digest that the scenarios' origin has for a piece.
func digestOf(i piece.Index) piece.Digest { return piece.Digest{1, byte(i), byte(i >> 8)} }

// wrongDigest is what a lying member states.
func wrongDigest(i piece.Index) piece.Digest { return piece.Digest{2, byte(i), byte(i >> 8)} }

// trackerPlayer plays a scenario for a Tracker with one pool.
type trackerPlayer struct {
	t *testing.T
	clock
	tracker *swarm.Tracker
}

func newTrackerPlayer(t *testing.T) *trackerPlayer {
	return &trackerPlayer{t: t, clock: clock{swarm.Instant(time.Second)}, tracker: swarm.NewTracker(swarm.TrackerOptions{}, rand.New(rand.NewPCG(1, 2)))}
}

func (p *trackerPlayer) play(line string) (out []string) {
	a := parse(p.t, line)
	step := func(ev swarm.TrackerEvent) {
		for _, act := range p.tracker.Step(p.now, ev, nil) {
			out = append(out, p.show(act))
		}
	}
	verb := a.word()
	if verb == "wait" {
		p.advance(p.now.Add(a.duration("for")), p.tracker.Deadline, func() { step(nil) })
		return out
	}
	member := id(a.word())
	said := func(m swarm.ToTracker) { step(swarm.MemberSaid{Member: member, Message: m}) }
	switch verb {
	case "announce":
		m := swarm.Announce{Addr: name(member) + ":4100", Fetches: !a.has("helpless"), Wants: !a.has("helper")}
		m.Confirm = int(a.bytes("0" + a.keys["confirm"]))
		m.Sources = a.sources()
		if a.keys["files"] != "" {
			m.Pinned, m.Fresh, m.Pin = true, true, a.pin()
			m.Have, m.Leased = a.have(m.Pin), a.extents(a.keys["leased"])
			if wanted, ok := a.keys["wanted"]; ok {
				m.Wanted = a.set(m.Pin, wanted)
			}
		}
		if a.keys["size"] != "" {
			m.Pinned, m.Fresh, m.Pin = true, a.has("fresh"), a.pin()
			m.Have, m.Leased = a.have(m.Pin), a.extents(a.keys["leased"])
		}
		said(m)
	case "probed":
		said(swarm.Probed{Pin: a.pin(), Stream: a.has("stream"), Extent: a.extents(a.keys["covers"])[0]})
	case "report":
		said(swarm.Report{
			Stored: a.extents(a.keys["stored"]), Lost: a.extents(a.keys["lost"]), Rate: a.bytes("0" + a.keys["rate"]), Unasked: uint32(a.bytes("0" + a.keys["unasked"])),
			Moved: a.bytes("0" + a.keys["moved"]), Whole: a.has("whole"), Streaming: a.has("streaming"), WantPeers: a.has("lonely"), Stuck: a.has("stuck"),
			Read: a.extents(a.keys["read"]), Unconfirmed: a.extents(a.keys["unconfirmed"]), Shuns: a.members("shuns"),
		})
	case "returned":
		said(swarm.Returned{Extents: a.extents(a.keys["pieces"]), Failure: a.failure(), Wait: a.duration("wait"), Source: source(a.keys["source"])})
	case "conflict":
		said(swarm.Conflict{Pin: a.pin()})
	case "leave":
		said(swarm.Leave{})
	case "moved":
		said(swarm.Leave{Moved: true})
	case "gone":
		step(swarm.MemberGone{Member: member})
	default:
		p.t.Fatalf("%q: no such event", line)
	}
	return out
}

func (p *trackerPlayer) show(act swarm.TrackerAction) string {
	switch act := act.(type) {
	case swarm.TellMember:
		return name(act.Member) + ": " + showToNode(act.Message)
	case swarm.CutMember:
		return name(act.Member) + ": cut off"
	}
	return fmt.Sprintf("%T", act)
}

func showToNode(m swarm.ToNode) string {
	switch m := m.(type) {
	case swarm.Welcome:
		return fmt.Sprintf("welcome as number %d, report every %v", m.Number, m.Interval)
	case swarm.Probe:
		return "probe"
	case swarm.Pinned:
		s := fmt.Sprintf("pinned to %v", m.Pin)
		if m.Stream {
			s += ", one stream"
		}
		return s
	case swarm.Lease:
		return "lease " + runs(m.Extents)
	case swarm.Revoke:
		return fmt.Sprintf("revoke %d", m.Pieces)
	case swarm.Drop:
		return "drop " + runs(m.Extents)
	case swarm.Handout:
		var peers []string
		for _, p := range m.Peers {
			peers = append(peers, name(p.ID))
		}
		return "meet " + strings.Join(peers, " ")
	case swarm.Hold:
		return fmt.Sprintf("hold for %v", m.For) + ofSource(m.Source)
	case swarm.Readers:
		return fmt.Sprintf("%d are to read each piece, %d can", m.Wanted, m.There)
	case swarm.Complete:
		return "complete"
	case swarm.GiveUp:
		return "give up"
	}
	return fmt.Sprintf("%T", m)
}

// nodePlayer plays a scenario for a Node called "me".
type nodePlayer struct {
	t *testing.T
	clock
	node *swarm.Node
	opts swarm.NodeOptions
	seed uint64
}

func newNodePlayer(t *testing.T) *nodePlayer {
	return &nodePlayer{t: t, clock: clock{swarm.Instant(time.Second)}, opts: swarm.NodeOptions{
		Self: id("me"), Addr: "me:4100", Fetches: true, Wants: true, Linger: time.Minute,
		Sign: func([]byte) []byte { return []byte("signed") }, Hosts: true,
	}, seed: 1}
}

func (p *nodePlayer) play(line string) (out []string) {
	a := parse(p.t, line)
	verb := a.word()
	if verb == "resume" {
		pin := a.pin()
		have := a.have(pin)
		r := &swarm.Resume{Pin: pin, Have: have, Origin: have.Clone()}
		for i := range piece.Index(have.Len()) {
			r.Digests = append(r.Digests, digestOf(i))
		}
		p.opts.Resume = r
		return nil
	}
	if verb == "manifest" {
		m := &swarm.Manifest{Pin: a.pin(), Layout: a.layout()}
		for i := range piece.Index(m.Layout.Count()) {
			m.Digests = append(m.Digests, digestOf(i))
		}
		p.opts.Manifest, p.opts.Fetches, p.opts.KeepServing = m, a.has("seeded") || a.has("told"), a.has("serves")
		p.opts.LastResort = a.has("told")
		if a.keys["have"] != "" {
			p.opts.Resume = &swarm.Resume{Pin: m.Pin, Have: a.have(m.Pin)}
		}
		if wanted, ok := a.keys["wanted"]; ok {
			b := a.set(m.Pin, wanted)
			p.opts.Wanted = &b
		}
		return nil
	}
	if verb == "knows" {
		p.opts.Sources = a.sources()
		return nil
	}
	if verb == "confirm" {
		p.opts.Confirm = int(a.bytes(a.word()))
		return nil
	}
	if p.node == nil {
		p.node = swarm.NewNode(p.opts, rand.New(rand.NewPCG(p.seed, 1)))
	}
	step := func(ev swarm.Event) {
		for _, act := range p.node.Step(p.now, ev, nil) {
			out = append(out, showAction(act))
		}
	}
	switch verb {
	case "wait":
		p.advance(p.now.Add(a.duration("for")), p.node.Deadline, func() { step(nil) })
	case "tracker":
		p.tracker(a, step)
	case "origin":
		p.origin(a, step)
	case "peer":
		p.peer(a, step)
	case "asked":
		req := swarm.Request(a.bytes(a.word()))
		step(swarm.Asked{Request: req, Peer: id(a.word()), Pieces: each(a.extents(a.word()))})
	case "served":
		step(swarm.Served{Request: swarm.Request(a.bytes(a.word())), Bytes: 1 << 16})
	case "audited":
		ev := swarm.Audited{Request: swarm.Request(a.bytes(a.word()))}
		if a.has("differs") {
			ev.Result = swarm.AuditDiffers
		}
		if a.keys["etag"] != "" {
			pin := a.pin()
			ev.Result, ev.Changed = swarm.AuditFailed, &pin
		}
		step(ev)
	case "lost":
		step(swarm.PiecesLost{Extents: a.extents(a.word())})
	case "unreadable":
		step(swarm.Unreadable{Piece: piece.Index(a.bytes(a.word()))})
	case "mismatched":
		step(swarm.Mismatched{})
	case "finished":
		step(swarm.Finished{})
	case "woke":
		step(swarm.Woke{})
	case "stop":
		step(swarm.Stopping{})
	default:
		p.t.Fatalf("%q: no such event", line)
	}
	return out
}

func (p *nodePlayer) tracker(a args, step func(swarm.Event)) {
	said := func(m swarm.ToNode) { step(swarm.TrackerSaid{Message: m}) }
	switch what := a.word(); what {
	case "up":
		step(swarm.TrackerUp{})
	case "down":
		step(swarm.TrackerDown{})
	case "welcome":
		said(swarm.Welcome{Number: 1, Interval: 100 * time.Millisecond})
	case "probe":
		said(swarm.Probe{})
	case "pinned":
		said(swarm.Pinned{Pin: a.pin(), Stream: a.has("stream")})
	case "lease":
		said(swarm.Lease{Extents: a.extents(a.word())})
	case "revoke":
		said(swarm.Revoke{Pieces: uint32(a.bytes(a.word()))})
	case "drop":
		said(swarm.Drop{Extents: a.extents(a.word())})
	case "meet":
		var h swarm.Handout
		for _, w := range a.words {
			h.Peers = append(h.Peers, swarm.PeerAddr{ID: id(w), Addr: w + ":4100"})
		}
		said(h)
	case "hold":
		said(swarm.Hold{For: a.duration("for"), Source: source(a.keys["source"])})
	case "readers":
		said(swarm.Readers{Wanted: int(a.bytes(a.word())), There: int(a.bytes(a.keys["there"]))})
	case "complete":
		said(swarm.Complete{})
	case "give-up":
		said(swarm.GiveUp{})
	case "come-back":
		said(swarm.ComeBack{In: a.duration("in")})
	case "taken-by":
		step(swarm.TrackerUp{Member: id(a.word())})
	case "missed":
		step(swarm.TrackerMissed{Member: id(a.word())})
	default:
		p.t.Fatalf("%q: a tracker does not say %q", a.line, what)
	}
}

func (p *nodePlayer) origin(a args, step func(swarm.Event)) {
	what := a.word()
	if what == "pauses" {
		step(swarm.OriginPauses{Source: source(a.keys["source"]), Wait: a.duration("for")})
		return
	}
	req := swarm.Request(a.bytes(a.word()))
	switch what {
	case "answered":
		ev := swarm.OriginAnswered{Request: req, Pin: a.pin(), Stream: a.has("stream"), Bytes: a.bytes(a.keys["bytes"])}
		if start := a.keys["start"]; start != "" {
			ev.Start = a.bytes(start)
		}
		step(ev)
	case "stored":
		for _, i := range each(a.extents(a.word())) {
			digest := digestOf(i)
			if a.has("wrongly") {
				digest = wrongDigest(i)
			}
			step(swarm.OriginStored{Request: req, Piece: i, Digest: digest})
		}
	case "moved":
		step(swarm.OriginMoved{Request: req, Bytes: a.bytes(a.word())})
	case "ended":
		ev := swarm.OriginEnded{Request: req, Failure: a.failure(), Busy: a.has("busy"), Left: a.has("left"), Wait: a.duration("wait"), Source: source(a.keys["source"]), Wrong: each(a.extents(a.keys["wrong"]))}
		if a.keys["etag"] != "" {
			pin := a.pin()
			ev.Changed = &pin
		}
		step(ev)
	default:
		p.t.Fatalf("%q: an origin does not do that", a.line)
	}
}

func (p *nodePlayer) peer(a args, step func(swarm.Event)) {
	who := a.word()
	if n, err := strconv.Atoi(who); err == nil { // a request's number
		req := swarm.Request(n)
		switch what := a.word(); what {
		case "stored":
			for _, i := range each(a.extents(a.word())) {
				step(swarm.PeerStored{Request: req, Piece: i})
			}
		case "moved":
			step(swarm.PeerMoved{Request: req})
		case "ended":
			step(swarm.PeerEnded{Request: req, Failed: a.has("failed"), Wrong: each(a.extents(a.keys["wrong"]))})
		default:
			p.t.Fatalf("%q: a request does not do that", a.line)
		}
		return
	}
	said := func(m swarm.ToPeer) { step(swarm.PeerSaid{Peer: id(who), Message: m}) }
	switch what := a.word(); what {
	case "up":
		step(swarm.PeerUp{Peer: id(who), Addr: who + ":4100"})
	case "down":
		step(swarm.PeerDown{Peer: id(who)})
	case "holds":
		pin := a.pin()
		said(swarm.Holds{Generation: pin.Generation(0), Have: a.have(pin)})
	case "has":
		said(swarm.Haves{Extents: a.extents(a.word())})
	case "states":
		pieces := each(a.extents(a.word()))
		pin := a.pin()
		s := swarm.Statement{By: id(who), Generation: pin.Generation(0), Pieces: pieces, Signature: []byte("signed")}
		for _, i := range pieces {
			if a.has("wrongly") {
				s.Digests = append(s.Digests, wrongDigest(i))
			} else {
				s.Digests = append(s.Digests, digestOf(i))
			}
		}
		said(s)
	case "accuses":
		accused := id(a.word())
		i := each(a.extents(a.word()))
		pin := a.pin()
		said(swarm.Accuse{
			Piece:   i[0],
			Accused: swarm.Statement{By: accused, Generation: pin.Generation(0), Pieces: i, Digests: []piece.Digest{wrongDigest(i[0])}},
			Accuser: swarm.Statement{By: id(who), Generation: pin.Generation(0), Pieces: i, Digests: []piece.Digest{digestOf(i[0])}},
		})
	case "asks-statements":
		said(swarm.AskStatements{Extents: a.extents(a.word())})
	case "claims":
		said(swarm.Claim{Extents: a.extents(a.word())})
	case "lost-tracker":
		said(swarm.Successor{})
	case "has-tracker":
		said(swarm.Successor{Live: true})
	case "would-take", "follows":
		member := a.word()
		said(swarm.Successor{Tracker: swarm.PeerAddr{ID: id(member), Addr: member + ":4100"}, Live: what == "follows"})
	default:
		p.t.Fatalf("%q: a peer does not do that", a.line)
	}
}

func showAction(act swarm.Action) string {
	switch act := act.(type) {
	case swarm.TellTracker:
		return "tracker: " + showToTracker(act.Message)
	case swarm.SeekTracker:
		if act.Peer.ID == (piece.NodeID{}) {
			return "try the room's own tracker"
		}
		return "open a session with " + name(act.Peer.ID)
	case swarm.QueueTracker:
		return fmt.Sprintf("queue for %v", act.In)
	case swarm.HostTracker:
		if act.On {
			return "host the tracker"
		}
		return "host the tracker no more"
	case swarm.Dial:
		return "dial " + name(act.Peer.ID)
	case swarm.HangUp:
		return "hang up on " + name(act.Peer)
	case swarm.TellPeer:
		return name(act.Peer) + ": " + showToPeer(act.Message)
	case swarm.ProbeOrigin:
		if act.Start > 0 {
			return fmt.Sprintf("[%d] probe the origin for %d bytes from %d on", act.Request, act.Bytes, act.Start)
		}
		return fmt.Sprintf("[%d] probe the origin for %d bytes", act.Request, act.Bytes)
	case swarm.SetGeneration:
		s := fmt.Sprintf("set the generation to %v", act.Pin)
		if act.Anew {
			s += ", anew"
		}
		return s
	case swarm.FetchOrigin:
		return fmt.Sprintf("[%d] fetch %v from the origin", act.Request, act.Extent)
	case swarm.CancelOrigin:
		return fmt.Sprintf("[%d] cancel", act.Request)
	case swarm.FetchPeer:
		return fmt.Sprintf("[%d] fetch %s from %s", act.Request, indexes(act.Pieces), name(act.Peer))
	case swarm.Serve:
		return fmt.Sprintf("serve %d", act.Request)
	case swarm.Refuse:
		return fmt.Sprintf("refuse %d", act.Request)
	case swarm.AuditLeaf:
		return fmt.Sprintf("[%d] audit %d bytes of piece %d", act.Request, act.Range.Len(), act.Piece)
	case swarm.Forget:
		return fmt.Sprintf("forget piece %d", act.Piece)
	case swarm.Finish:
		if act.Basis.Checksum {
			return "finish: as the manifest says"
		}
		s := fmt.Sprintf("finish: own only %v, %d audits", act.Basis.OwnOnly, act.Basis.Audited)
		if act.Basis.Confirmed > 0 {
			s += fmt.Sprintf(", stated alike by %d", act.Basis.Confirmed)
		}
		return s
	case swarm.Warn:
		if act.For > 0 {
			return fmt.Sprintf("warn: %s %v", act.Code, act.For)
		}
		return strings.TrimSpace(fmt.Sprintf("warn: %s %s", act.Code, name(act.Peer)))
	case swarm.Fail:
		return fmt.Sprintf("fail: %s", act.Code)
	case swarm.Quit:
		return "quit"
	}
	return fmt.Sprintf("%T", act)
}

func showToTracker(m swarm.ToTracker) string {
	switch m := m.(type) {
	case swarm.Announce:
		s := "announce"
		if m.Queued {
			s += " after queuing"
		}
		if m.Pinned {
			s += fmt.Sprintf(" %v, fresh %v, have %s, leased %s", m.Pin, m.Fresh, bits(&m.Have), runs(m.Leased))
		}
		for _, k := range m.Sources {
			s += ofSource(k)
		}
		if m.Wanted.Len() > 0 {
			s += ", wants " + bits(&m.Wanted)
		}
		if !m.Fetches {
			s += ", has no origin"
		}
		return s
	case swarm.Probed:
		return fmt.Sprintf("probed %v, stream %v, covers %v", m.Pin, m.Stream, m.Extent)
	case swarm.Report:
		s := fmt.Sprintf("report stored %s, %d unasked", runs(m.Stored), m.Unasked)
		if len(m.Lost) > 0 {
			s += ", lost " + runs(m.Lost)
		}
		if len(m.Read) > 0 {
			s += ", read " + runs(m.Read)
		}
		if len(m.Unconfirmed) > 0 {
			s += ", unconfirmed " + runs(m.Unconfirmed)
		}
		if m.Whole {
			s += ", whole"
		}
		if m.Stuck {
			s += ", stuck"
		}
		if len(m.Shuns) > 0 {
			s += ", shuns " + names(m.Shuns)
		}
		if m.Streaming {
			s += ", streaming"
		}
		return s
	case swarm.Returned:
		return fmt.Sprintf("returned %s, failure %d, wait %v", runs(m.Extents), m.Failure, m.Wait) + ofSource(m.Source)
	case swarm.Conflict:
		return fmt.Sprintf("conflict %v", m.Pin)
	case swarm.Leave:
		return "leave"
	}
	return fmt.Sprintf("%T", m)
}

func showToPeer(m swarm.ToPeer) string {
	switch m := m.(type) {
	case swarm.Holds:
		return "holds " + bits(&m.Have)
	case swarm.Haves:
		return "has " + runs(m.Extents)
	case swarm.Statement:
		return fmt.Sprintf("%s states %s", name(m.By), indexes(m.Pieces))
	case swarm.Accuse:
		return fmt.Sprintf("%s accuses %s of piece %d", name(m.Accuser.By), name(m.Accused.By), m.Piece)
	case swarm.AskStatements:
		return "asks statements " + runs(m.Extents)
	case swarm.Claim:
		return "claims " + runs(m.Extents)
	case swarm.Relay:
		return "relays claims of " + runs(m.Extents)
	case swarm.Successor:
		switch who := name(m.Tracker.ID); {
		case who == "" && m.Live:
			return "has the room's own tracker"
		case who == "":
			return "has lost the tracker"
		case m.Live:
			return "has " + who + " for its tracker"
		default:
			return "would take " + who + " for its tracker"
		}
	}
	return fmt.Sprintf("%T", m)
}
