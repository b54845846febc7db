package swarm_test

import (
	"testing"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// world answers what a victim asks of the origin; it shows digest for each piece.
type world struct {
	*victim
	digest func(piece.Index) piece.Digest
	read   map[piece.Index]int // times that each piece was read
	out    []swarm.Action      // all that was ordered
}

func newWorld(names ...string) *world {
	w := &world{victim: newVictim(), digest: digestOf, read: make(map[piece.Index]int)}
	w.play(swarm.TrackerUp{})
	for _, name := range names {
		w.play(swarm.PeerUp{Peer: id(name)})
	}
	w.play(swarm.TrackerSaid{Message: swarm.Pinned{Pin: hostilePin}})
	for _, name := range names {
		w.play(said(name, holdsNothing))
	}
	return w
}

// holdsNothing is what a neighbour says first.
var holdsNothing = swarm.Holds{Generation: hostilePin.Generation(0), Have: piece.NewBitfield(hostilePin.Layout().Count())}

// play steps the node and answers what it asks of the origin.
func (w *world) play(events ...swarm.Event) { w.carry(w.hear(events...)) }

func (w *world) wait(d time.Duration) {
	for ; d > 0; d -= 50 * time.Millisecond {
		w.carry(w.after(50 * time.Millisecond))
	}
}

func (w *world) carry(out []swarm.Action) {
	w.out = append(w.out, out...)
	for _, f := range only[swarm.FetchOrigin](out) {
		for i := f.Extent.First; i < f.Extent.End(); i++ {
			w.read[i]++
			w.play(swarm.OriginStored{Request: f.Request, Piece: i, Digest: w.digest(i)})
		}
		w.play(swarm.OriginEnded{Request: f.Request})
	}
}

func (w *world) hungUpOn(name string) bool {
	for _, h := range only[swarm.HangUp](w.out) {
		if h.Peer == id(name) {
			return true
		}
	}
	return false
}

func (w *world) warned(code swarm.WarnCode) (count int) {
	for _, x := range only[swarm.Warn](w.out) {
		if x.Code == code {
			count++
		}
	}
	return count
}

// toldAll returns the messages of one kind that went to neighbours.
func toldAll[M swarm.ToPeer](out []swarm.Action) (found []M) {
	for _, tell := range only[swarm.TellPeer](out) {
		if m, ok := tell.Message.(M); ok {
			found = append(found, m)
		}
	}
	return found
}

func accusation(i piece.Index, accused, accuser swarm.Statement) swarm.Accuse {
	return swarm.Accuse{Piece: i, Accused: accused, Accuser: accuser}
}

func TestNode_bansWhomItsOwnReadingsConvict(t *testing.T) {
	t.Parallel()
	w := newWorld("A", "B", "C")
	w.play(said("B", accusation(7, stated("A", wrongDigest, 6, 7), stated("B", digestOf, 7))))
	if w.read[7] != 0 && w.hungUpOn("A") {
		t.Fatal("bans on hearsay")
	}
	w.wait(4 * time.Second)
	if w.hungUpOn("A") {
		t.Fatal("bans one that has had no time to answer")
	}
	w.wait(4 * time.Second)
	if w.read[7] != 4 {
		t.Errorf("reads the piece %d times, want 4: with B's word that makes five readings alike", w.read[7])
	}
	if !w.hungUpOn("A") || w.warned(swarm.WarnBanned) != 1 || w.hungUpOn("B") {
		t.Errorf("hung up on A %v, on B %v, %d bans", w.hungUpOn("A"), w.hungUpOn("B"), w.warned(swarm.WarnBanned))
	}
	w.play(swarm.PeerDown{Peer: id("A")})
	before := len(only[swarm.Dial](w.out))
	w.play(swarm.TrackerSaid{Message: swarm.Handout{Peers: []swarm.PeerAddr{{ID: id("A"), Addr: "a:1"}}}}, swarm.PeerUp{Peer: id("A")})
	w.play(swarm.Asked{Request: 1 << 63, Peer: id("A"), Pieces: []piece.Index{7}})
	w.wait(10 * time.Second)
	if len(only[swarm.Dial](w.out)) != before || len(only[swarm.HangUp](w.out)) != 2 || len(only[swarm.Serve](w.out)) != 0 {
		t.Error("dials, bears or serves one that it has banned")
	}
	for _, a := range toldAll[swarm.Accuse](w.out) {
		if a.Accused.By != id("A") || a.Accuser.By != id("M") || a.Accuser.Digests[0] != digestOf(7) {
			t.Errorf("accuses %v by the word of %v", a.Accused.By, a.Accuser.By)
		}
	}
	if n := len(toldAll[swarm.Accuse](w.out)); n != 3 {
		t.Errorf("tells %d of its neighbours what it has found, want each once", n)
	}
}

func TestNode_bansNobodyWhereTheOriginIsInconsistent(t *testing.T) {
	t.Parallel()
	for name, events := range map[string][]swarm.Event{
		"the reading agrees with the accused": {said("B", accusation(7, stated("A", digestOf, 7), stated("B", wrongDigest, 7)))},
		"another has read what is accused": {
			said("B", accusation(7, stated("A", wrongDigest, 7), stated("B", digestOf, 7))), said("C", stated("C", wrongDigest, 7)),
		},
		"the accused stands by its word": {
			said("B", accusation(7, stated("A", wrongDigest, 7), stated("B", digestOf, 7))),
			said("A", accusation(7, stated("B", digestOf, 7), stated("A", wrongDigest, 7))),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld("A", "B", "C")
			w.play(events...)
			w.wait(10 * time.Second)
			if n := len(only[swarm.HangUp](w.out)); n != 0 || w.warned(swarm.WarnBanned) != 0 {
				t.Errorf("hangs up on %d members and bans %d", n, w.warned(swarm.WarnBanned))
			}
			if w.warned(swarm.WarnInconsistent) != 1 {
				t.Errorf("warns %d times that the origin is inconsistent", w.warned(swarm.WarnInconsistent))
			}
		})
	}
}

func TestNode_takesNobodysWordWhereMembersReadDifferently(t *testing.T) {
	t.Parallel()
	w := newWorld("A", "B", "C")
	w.play(said("B", stated("B", digestOf, 0, 1, 2)), said("B", holds(hostilePin)))
	for _, f := range only[swarm.FetchPeer](w.out) {
		for _, i := range f.Pieces {
			w.play(swarm.PeerStored{Request: f.Request, Piece: i})
		}
		w.play(swarm.PeerEnded{Request: f.Request})
	}
	w.play(said("B", accusation(7, stated("A", wrongDigest, 7), stated("B", digestOf, 7))), said("C", stated("C", wrongDigest, 7)))
	w.wait(time.Minute)
	finish := only[swarm.Finish](w.out)
	if len(finish) != 1 || !finish[0].Basis.OwnOnly {
		t.Fatalf("finishes with %+v, want every byte read here", finish)
	}
	if w.read[7] < 2 {
		t.Errorf("reads the disputed piece %d times, want it read again at the end", w.read[7])
	}
}

func TestNode_givesUpWhereTheOriginContradictsItself(t *testing.T) {
	t.Parallel()
	w := newWorld("A", "B")
	reads := 0
	w.digest = func(i piece.Index) piece.Digest { reads++; return piece.Digest{1, byte(i), byte(reads)} }
	w.play(said("B", accusation(7, stated("A", wrongDigest, 7), stated("B", digestOf, 7))))
	w.wait(time.Minute)
	if fails := only[swarm.Fail](w.out); len(fails) != 1 || fails[0].Code != swarm.FailInconsistent {
		t.Errorf("fails with %v", fails)
	}
	if w.warned(swarm.WarnBanned) != 0 {
		t.Error("bans a member for what the origin does")
	}
}

func TestNode_knowsALiarByItsOwnSignatures(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		run  uint64
		bans int
	}{{"in one run", 0, 1}, {"in two runs", 5, 0}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld("A", "B", "C")
			other := stated("A", digestOf, 3, 4)
			other.Run = c.run
			w.play(said("B", accusation(4, stated("A", wrongDigest, 4), other)))
			if w.warned(swarm.WarnBanned) != c.bans || len(toldAll[swarm.Accuse](w.out)) != 3*c.bans {
				t.Errorf("%d bans, tells it %d times", w.warned(swarm.WarnBanned), len(toldAll[swarm.Accuse](w.out)))
			}
			if len(w.read) != 0 {
				t.Errorf("reads %v, which proves nothing more", w.read)
			}
		})
	}
	t.Run("in passing", func(t *testing.T) {
		t.Parallel()
		w := newWorld("A", "B", "C")
		w.play(said("B", stated("A", wrongDigest, 4)), said("C", stated("A", digestOf, 3, 4)))
		if w.warned(swarm.WarnBanned) != 1 || !w.hungUpOn("A") {
			t.Error("does not ban A, of which it has heard two digests for one piece")
		}
	})
}

// What this node's own audit has found is not yet a ban: another member has to confirm it.
func TestNode_waitsForAThirdBeforeItBans(t *testing.T) {
	t.Parallel()
	w := newWorld("A", "B")
	w.play(said("A", stated("A", wrongDigest, 0, 1, 2, 3)), said("A", swarm.Haves{Extents: []piece.Extent{{Count: 4}}}))
	w.play(said("A", swarm.Holds{Generation: hostilePin.Generation(0), Have: single(0)}))
	asked := only[swarm.FetchPeer](w.out)
	if len(asked) != 1 {
		t.Fatalf("asks %v", asked)
	}
	w.play(swarm.PeerStored{Request: asked[0].Request, Piece: 0}, swarm.PeerEnded{Request: asked[0].Request})
	w.wait(time.Second)
	audits := only[swarm.AuditLeaf](w.out)
	if len(audits) != 1 {
		t.Fatalf("audits %v", audits)
	}
	w.play(swarm.Audited{Request: audits[0].Request, Result: swarm.AuditDiffers})
	w.wait(5 * time.Second)
	if w.hungUpOn("A") || w.warned(swarm.WarnWrongStatement) != 1 || len(toldAll[swarm.Accuse](w.out)) != 2 {
		t.Fatalf("hung up %v, %d warnings, %d accusations", w.hungUpOn("A"), w.warned(swarm.WarnWrongStatement), len(toldAll[swarm.Accuse](w.out)))
	}
	if w.read[0] == 0 {
		t.Fatal("accuses without having read the piece")
	}
	w.play(said("B", stated("B", digestOf, 0)))
	w.wait(10 * time.Second)
	if !w.hungUpOn("A") {
		t.Error("does not ban A, though B has read the same")
	}
}

func TestNode_readsTheDisputedPieceOfTwoStatementsItself(t *testing.T) {
	t.Parallel()
	w := newWorld("A", "B", "C")
	w.play(said("A", stated("A", wrongDigest, 9)), said("B", stated("B", digestOf, 9)))
	w.wait(10 * time.Second)
	if w.read[9] == 0 || !w.hungUpOn("A") || w.hungUpOn("B") {
		t.Errorf("read %v, hung up on A %v, on B %v", w.read, w.hungUpOn("A"), w.hungUpOn("B"))
	}
}

// An origin that shows one member another face than all others makes it look like a liar.
// It is not asked to read anything: it stands by what it has read.
func TestNode_standsByItsWord(t *testing.T) {
	t.Parallel()
	w := newWorld("A", "B", "C")
	w.digest = wrongDigest
	w.play(swarm.TrackerSaid{Message: swarm.Lease{Extents: []piece.Extent{{First: 7, Count: 1}}}})
	w.wait(time.Second)
	var mine swarm.Statement
	for _, s := range toldAll[swarm.Statement](w.out) {
		mine = s
	}
	if len(mine.Pieces) != 1 || mine.Pieces[0] != 7 || mine.By != id("M") {
		t.Fatalf("states %v", mine)
	}
	w.out = nil
	for _, name := range []string{"A", "B", "A"} {
		w.play(said(name, accusation(7, mine, stated(name, digestOf, 7))))
	}
	told := only[swarm.TellPeer](w.out)
	if len(told) != 2 || told[0].Peer != id("A") || told[1].Peer != id("B") {
		t.Fatalf("answers with %v, want one word to A and one to B", told)
	}
	for _, answer := range toldAll[swarm.Accuse](w.out) {
		if answer.Accuser.By != id("M") || answer.Accuser.Digests[0] != wrongDigest(7) || answer.Accused.Digests[0] != digestOf(7) {
			t.Errorf("answers with %v", answer)
		}
	}
	// What it never stated it does not stand by.
	w.out = nil
	w.play(said("C", accusation(8, stated("M", wrongDigest, 8), stated("C", digestOf, 8))))
	if n := len(toldAll[swarm.Accuse](w.out)); n != 0 {
		t.Errorf("stands by what it has not stated, %d times", n)
	}
}

// Nobody is banned behind its back, and nobody who answers.
func TestNode_hearsWhomItsReadingsConvict(t *testing.T) {
	t.Parallel()
	accused := stated("A", wrongDigest, 7)
	for name, answers := range map[string]bool{"lets it stand": false, "stands by its word": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld("B", "C")
			w.play(said("B", accusation(7, accused, stated("B", digestOf, 7))))
			w.wait(20 * time.Second)
			if w.warned(swarm.WarnBanned) != 0 || w.read[7] == 0 {
				t.Fatalf("read %v, %d bans of one that could not hear of it", w.read, w.warned(swarm.WarnBanned))
			}
			w.out = nil
			w.play(swarm.PeerUp{Peer: id("A")})
			w.wait(10 * time.Second)
			if n := len(toldAll[swarm.Accuse](w.out)); n != 0 {
				t.Errorf("accuses one that has another version of the file, or none, %d times", n)
			}
			w.play(said("A", holdsNothing))
			w.wait(time.Second)
			if n := len(toldAll[swarm.Accuse](w.out)); n != 1 {
				t.Errorf("tells it %d times, want once", n)
			}
			if answers {
				w.play(said("A", accusation(7, stated("M", digestOf, 7), accused)))
			}
			w.wait(10 * time.Second)
			if banned := w.warned(swarm.WarnBanned) == 1; banned == answers {
				t.Errorf("banned: %v", banned)
			}
			if inconsistent := w.warned(swarm.WarnInconsistent) == 1; inconsistent != answers {
				t.Errorf("warned of the origin: %v", inconsistent)
			}
		})
	}
}

func TestNode_readsNothingForDisputesDuringAPause(t *testing.T) {
	t.Parallel()
	w := newWorld("A", "B")
	w.play(swarm.TrackerSaid{Message: swarm.Hold{For: 20 * time.Second}})
	w.play(said("B", accusation(7, stated("A", wrongDigest, 7), stated("B", digestOf, 7))))
	w.wait(19 * time.Second)
	if len(w.read) != 0 {
		t.Fatalf("reads %v while the origin wants a pause", w.read)
	}
	w.wait(10 * time.Second)
	if !w.hungUpOn("A") {
		t.Error("forgets the dispute over the pause")
	}
}

func TestNode_boundsWhatAccusationsCost(t *testing.T) {
	t.Parallel()
	w := newWorld("A", "B")
	for k := range 10_000 {
		i := piece.Index(k % 160)
		w.play(said("B", accusation(i, stated("P"+string(rune('a'+k%300)), wrongDigest, i), stated("Q"+string(rune('a'+k%200)), digestOf, i))))
	}
	w.wait(10 * time.Minute)
	total := 0
	for _, n := range w.read {
		total += n
	}
	if total > 64+160 {
		t.Errorf("reads %d pieces", total)
	}
	if told := len(only[swarm.TellPeer](w.out)); told > 2000 {
		t.Errorf("answers with %d messages", told)
	}
}

// Whatever the origin does, an honest node never signs two digests for one piece in one
// run: that would be proof against it.
func TestNode_statesAPieceOnceInARun(t *testing.T) {
	t.Parallel()
	w := newWorld("A", "B")
	w.play(swarm.TrackerSaid{Message: swarm.Lease{Extents: []piece.Extent{{First: 3, Count: 2}}}})
	w.wait(time.Second)
	w.digest = func(i piece.Index) piece.Digest { return piece.Digest{3, byte(i)} }
	w.play(swarm.Unreadable{Piece: 3}, swarm.TrackerSaid{Message: swarm.Lease{Extents: []piece.Extent{{First: 3, Count: 1}}}})
	w.wait(30 * time.Second)
	stated := make(map[piece.Index]piece.Digest)
	for _, s := range toldAll[swarm.Statement](w.out) {
		for k, i := range s.Pieces {
			if said, ok := stated[i]; ok && said != s.Digests[k] && s.By == id("M") {
				t.Errorf("states %v and %v of piece %d", said, s.Digests[k], i)
			}
			stated[i] = s.Digests[k]
		}
	}
	if stated[3] != digestOf(3) || w.warned(swarm.WarnInconsistent) != 1 {
		t.Errorf("states %v of the piece, warns %d times of the origin", stated[3], w.warned(swarm.WarnInconsistent))
	}
}
