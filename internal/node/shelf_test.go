package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"dragonload/internal/catalogue"
	"dragonload/internal/node"
	"dragonload/internal/piece"
	"dragonload/internal/rpc"
	"dragonload/internal/tracker"
)

// heard is what a tracker has taken in of the catalogue.
type heard struct {
	at   *tracker.Memory
	from piece.NodeID
	what string
}

// telling is a State that tells of what it takes in.
type telling struct {
	*tracker.Memory
	heard chan heard
}

func (b *lab) telling(state *tracker.Memory) tracker.State {
	if b.heard == nil {
		return state
	}
	return telling{state, b.heard}
}

func (s telling) Publish(ctx context.Context, room [32]byte, from catalogue.Holder, batch catalogue.Batch) error {
	err := s.Memory.Publish(ctx, room, from, batch)
	if err == nil {
		s.heard <- heard{s.Memory, from.ID, "publish"}
	}
	return err
}

func (s telling) Withdraw(ctx context.Context, room [32]byte, id piece.NodeID) error {
	err := s.Memory.Withdraw(ctx, room, id)
	if err == nil {
		s.heard <- heard{s.Memory, id, "withdraw"}
	}
	return err
}

func (s telling) Drop(ctx context.Context, room [32]byte, id piece.NodeID, addr string) (bool, error) {
	dropped, err := s.Memory.Drop(ctx, room, id, addr)
	if dropped {
		s.heard <- heard{s.Memory, id, "drop"}
	}
	return dropped, err
}

// wait waits until a tracker has heard something.
func (b *lab) wait(is func(heard) bool) {
	b.t.Helper()
	limit := time.After(waitLimit)
	for {
		select {
		case h := <-b.heard:
			if is(h) {
				return
			}
		case <-limit:
			b.t.Fatal("no tracker has heard what it should")
		}
	}
}

func (b *lab) listens() { b.heard = make(chan heard, 1000) }

// finds checks what a node finds in the room: "NAME×HOLDERS of MEMBER".
func finds(t *testing.T, n *node.Node, word string, want ...string) {
	t.Helper()
	page, err := n.Search(t.Context(), "lab", catalogue.Query{Words: []string{word}})
	if err != nil {
		t.Errorf("search %s: %v", word, err)
	}
	var got []string
	for _, f := range page.Found {
		got = append(got, fmt.Sprintf("%s×%d of %s", f.Entry.Name, f.Holders, f.By[0].Name))
	}
	if !slices.Equal(got, want) {
		t.Errorf("search %s found %q, want %q", word, got, want)
	}
}

func offer(names ...string) (entries []catalogue.Entry) {
	for n, name := range names {
		entries = append(entries, catalogue.Entry{Manifest: [32]byte{byte(n + 1)}, Name: name, Files: 1})
	}
	return entries
}

// TestShelf_membersFindWhatIsOffered offers, changes what is offered, and ends.
func TestShelf_membersFindWhatIsOffered(t *testing.T) {
	t.Parallel()
	b := newLab(t)
	b.listens()
	up := b.run()
	ma, mb := b.join("anna"), b.join("bert")
	na, stop := startStoppable(t, ma.options())
	nb, stopB := startStoppable(t, mb.options())
	defer stopB()
	anna := ma.folder.Identity().ID
	by := func(what string) func(heard) bool {
		return func(h heard) bool { return h.from == anna && h.what == what }
	}

	if err := na.Offer("lab", offer("Holiday Photos", "film.mkv")); err != nil {
		t.Fatal(err)
	}
	b.wait(by("publish"))
	finds(t, nb, "holiday", "Holiday Photos×1 of anna")
	finds(t, up, "film", "film.mkv×1 of anna")
	if err := nb.Offer("lab", offer("Holiday Photos")); err != nil {
		t.Fatal(err)
	}
	b.wait(func(h heard) bool { return h.from != anna })
	holders, err := nb.Holders(t.Context(), "lab", [32]byte{1}, 0)
	if err != nil || len(holders) != 1 || holders[0].ID != anna || holders[0].Addr != na.Addr().String() || holders[0].Number == 0 {
		t.Errorf("holders for bert: %+v, %v", holders, err)
	}
	// anna answers where she says, so nobody's word takes her out.
	if gone, err := nb.ReportUnreachable(t.Context(), "lab", anna); gone || err != nil {
		t.Errorf("report of a holder that answers: %v, %v", gone, err)
	}
	if entries, problem := na.Offered("lab"); problem != nil || entries > 2 {
		t.Errorf("anna's entries: %d, %v", entries, problem)
	}

	if err := na.Offer("lab", offer("Holiday Photos")); err != nil {
		t.Fatal(err)
	}
	b.wait(by("publish"))
	finds(t, nb, "film")
	stop()
	b.wait(by("withdraw"))
	finds(t, nb, "holiday", "Holiday Photos×1 of bert")
	if err := na.Offer("lab", nil); !errors.Is(err, node.ErrEnding) {
		t.Errorf("offer of a node that has ended: %v", err)
	}
}

// A machine that moves while its node runs is found where it is then.
func TestShelf_aMachineThatHasMovedTellsItsFormerAddressNoMore(t *testing.T) {
	t.Parallel()
	b := newLab(t)
	b.listens()
	b.run()
	ma := b.join("anna")
	anna, o := ma.folder.Identity().ID, ma.options()
	const former = "198.51.100.7:4100"
	var moved atomic.Bool
	o.Advertise, o.HasLeft = former, func(at string) bool { return at == former && moved.Load() }
	na, nb := start(t, o), start(t, b.join("bert").options())
	offered := func(want string, names ...string) {
		t.Helper()
		if err := na.Offer("lab", offer(names...)); err != nil {
			t.Fatal(err)
		}
		b.wait(func(h heard) bool { return h.from == anna && h.what == "publish" })
		holders, err := nb.Holders(t.Context(), "lab", [32]byte{1}, 0)
		if err != nil || len(holders) != 1 || holders[0].Addr != want {
			t.Errorf("holders: %+v, %v; want one at %s", holders, err, want)
		}
	}
	offered(former, "film")
	moved.Store(true)
	offered(na.Addr().String(), "film", "book")
	moved.Store(false)
	offered(former, "film")
}

// TestShelf_whoCannotBeReachedIsTold: a node whose address nobody answers at is taken out,
// and can tell its user why.
func TestShelf_whoCannotBeReachedIsTold(t *testing.T) {
	t.Parallel()
	b := newLab(t)
	b.listens()
	up := b.run()
	m := b.join("anna")
	o := m.options()
	o.Advertise = "127.0.0.1:1" // where nobody is
	logged := make(chan struct{}, 1)
	o.Log = slog.New(slog.NewTextHandler(lines{"the tracker cannot reach this machine", logged}, nil))
	n, stop := startStoppable(t, o)
	defer stop()
	if err := n.Offer("lab", offer("film.mkv")); err != nil {
		t.Fatal(err)
	}
	b.wait(func(h heard) bool { return h.what == "publish" })
	if gone, err := up.ReportUnreachable(t.Context(), "lab", m.folder.Identity().ID); !gone || err != nil {
		t.Fatalf("report: %v, %v", gone, err)
	}
	finds(t, up, "film")
	// It asks again with its next change.
	if err := n.Offer("lab", offer("film.mkv", "other.mkv")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-logged:
	case <-time.After(waitLimit):
		t.Fatal("it does not say that it cannot be reached")
	}
	if entries, problem := n.Offered("lab"); entries != 0 || !errors.Is(problem, rpc.ErrUnreachable) {
		t.Errorf("offered: %d, %v, want ErrUnreachable", entries, problem)
	}
}

// lines is a log that is told of each of its lines that has some words.
type lines struct {
	with string
	seen chan struct{}
}

func (l lines) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte(l.with)) {
		select {
		case l.seen <- struct{}{}:
		default:
		}
	}
	return len(line), nil
}

// TestShelf_outlivesTheTracker: while the room's tracker is away who holds something
// publishes it to the member that takes the tracker's place, and to the tracker again, which
// has forgotten everything, when that is back.
func TestShelf_outlivesTheTracker(t *testing.T) {
	t.Parallel()
	s := newSite(t, 16<<20)
	// Once it has sent a quarter of the file the origin answers no more until the end.
	enough := make(chan struct{})
	s.set(func() {
		s.perConn = 256 << 10
		s.handle = func(w http.ResponseWriter, r *http.Request) {
			if s.sent.Load() >= 4<<20 {
				select {
				case <-enough:
				case <-r.Context().Done():
					return
				}
			}
			s.file(w, r)
		}
	})
	b := newLab(t)
	b.listens()
	b.run()
	var nodes []*node.Node
	var runs []*run
	var anna piece.NodeID
	for _, name := range []string{"anna", "bert", "carl"} {
		m := b.join(name)
		n, _ := b.host(m)
		if name == "anna" {
			anna = m.folder.Identity().ID
		}
		nodes = append(nodes, n)
		runs = append(runs, download(t, t.Context(), n, s.roomSpec(t)))
	}
	if err := nodes[0].Offer("lab", offer("film.mkv")); err != nil {
		t.Fatal(err)
	}
	home := b.state
	b.wait(func(h heard) bool { return h.from == anna && h.at == home })
	runs[0].until(t, 1<<20)
	b.stop()
	b.wait(func(h heard) bool { return h.from == anna && h.at != home && h.what == "publish" })
	for _, r := range runs {
		r.waitTold(t, "tracker-moved")
	}
	for _, n := range nodes {
		finds(t, n, "film", "film.mkv×1 of anna")
	}

	b.state = tracker.NewMemory()
	back := b.run()
	b.wait(func(h heard) bool { return h.from == anna && h.at == b.state && h.what == "publish" })
	finds(t, back, "film", "film.mkv×1 of anna")
	close(enough)
	for _, r := range runs {
		s.check(t, r.result(t))
	}
}
