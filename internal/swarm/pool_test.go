package swarm

import (
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"dragonload/internal/piece"
)

// TestPool_everyPieceIsSomewhere plays random members to a Tracker, honest and other,
// and looks after each step whether the pool's books are right: what is free, held,
// leased and in limbo is the whole file, nothing is free that somebody has, and every
// counter says what counting says.
func TestPool_everyPieceIsSomewhere(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		g := &bookkeeping{rng: rand.New(rand.NewPCG(seed, 0x706f6f6c)), now: Instant(time.Second)}
		g.tracker = NewTracker(TrackerOptions{MeshLimit: 4, Degree: 2}, rand.New(rand.NewPCG(seed, 1)))
		for step := range 400 {
			ev := g.event()
			if g.rng.IntN(4) == 0 {
				g.now = g.now.Add(time.Duration(g.rng.Int64N(int64(time.Second))))
				g.tracker.Step(g.now, nil, nil)
			}
			g.tracker.Step(g.now, ev, nil)
			if problem := g.look(); problem != "" {
				t.Fatalf("seed %d, step %d, after %T%+v: %s", seed, step, ev, ev, problem)
			}
		}
	}
}

type bookkeeping struct {
	rng     *rand.Rand
	tracker *Tracker
	now     Instant
}

const bookPieces = 24

func (g *bookkeeping) pin() piece.Pin {
	p := piece.Pin{Size: bookPieces*piece.MinLength - 5, Kind: piece.StrongETag, Validator: "1"}
	if g.rng.IntN(20) == 0 {
		p.Validator = "2"
	}
	if g.rng.IntN(40) == 0 {
		p.Size /= 2
	}
	return p
}

func (g *bookkeeping) extents() (out []piece.Extent) {
	for range g.rng.IntN(3) {
		out = append(out, piece.Extent{First: g.rng.Uint32N(bookPieces + 1), Count: g.rng.Uint32N(bookPieces/2) + 1})
	}
	return out
}

func (g *bookkeeping) event() TrackerEvent {
	who := piece.NodeID{1 + byte(g.rng.IntN(6))}
	said := func(m ToTracker) TrackerEvent { return MemberSaid{Member: who, Message: m} }
	switch g.rng.IntN(12) {
	case 0, 1:
		a := Announce{Addr: "host:1", Fetches: g.rng.IntN(8) > 0, Wants: g.rng.IntN(8) > 0}
		if g.rng.IntN(2) == 0 {
			a.Pinned, a.Fresh, a.Pin = true, g.rng.IntN(4) > 0, g.pin()
			a.Have = piece.NewBitfield(a.Pin.Layout().Count())
			for i := range a.Have.Len() {
				if g.rng.IntN(3) == 0 {
					a.Have.Set(uint32(i))
				}
			}
			a.Leased = g.extents()
			a.Stream = g.rng.IntN(16) == 0
		}
		return said(a)
	case 2:
		pin := g.pin()
		covers := piece.Extent{Count: 1 + g.rng.Uint32N(4)}
		if g.rng.IntN(16) == 0 {
			return said(Probed{Pin: pin, Stream: true, Extent: pin.Layout().All()})
		}
		return said(Probed{Pin: pin, Extent: covers})
	case 3, 4, 5, 6:
		return said(Report{Stored: g.extents(), Rate: g.rng.Int64N(1 << 22), Moved: g.rng.Int64N(2) << 20, Unasked: g.rng.Uint32N(8), Whole: g.rng.IntN(9) == 0})
	case 7:
		return said(Report{Lost: g.extents(), WantPeers: true})
	case 8, 9:
		wait := time.Duration(0)
		if g.rng.IntN(4) == 0 {
			wait = 300 * time.Millisecond
		}
		return said(Returned{Extents: g.extents(), Failure: Failure(g.rng.IntN(8) / 3 % 3), Wait: wait})
	case 10:
		return said(Leave{})
	}
	return MemberGone{Member: who}
}

// look counts what the pool has counted.
func (g *bookkeeping) look() string {
	p := g.tracker.pools[PoolID{}]
	if p == nil {
		if g.tracker.held != 0 {
			return "pieces are held by no pool"
		}
		return ""
	}
	var sum int64
	fetchers, wants, wholes := 0, 0, 0
	for _, m := range p.order {
		if m.fetches {
			sum += m.rate
			fetchers++
		}
		if m.wants {
			wants++
			if m.whole {
				wholes++
			}
		}
	}
	switch {
	case sum != p.sumRate:
		return "the rates are summed wrongly"
	case fetchers != p.fetchers || wants != p.wants || wholes != p.wholes:
		return "members are counted wrongly"
	case len(p.order) != len(p.members):
		return "members are listed twice"
	case !p.pinned:
		return ""
	}
	return g.lookAtPieces(p)
}

func (g *bookkeeping) lookAtPieces(p *pool) string {
	held := 0
	for i := range piece.Index(p.layout.Count()) {
		copies, leased := uint32(0), false
		for _, m := range p.order {
			if m.have.Has(i) {
				copies++
			}
			leased = leased || m.leased.Has(i)
		}
		if copies > 0 {
			held++
		}
		free := p.free.Has(i)
		switch {
		case copies != p.copies[i]:
			return "copies are counted wrongly"
		case free && (copies > 0 || leased || p.inLimbo(i)):
			return "a piece is free that somebody has, fetches or may have"
		case !free && copies == 0 && !leased && !p.inLimbo(i):
			return "a piece is lost: nobody has it, and nobody will be asked to fetch it"
		}
	}
	if held != p.held {
		return "held pieces are counted wrongly"
	}
	return ""
}

// TestMulDiv_isThatOfBigNumbers, and where it uses floating point, near it.
func TestMulDiv_isThatOfBigNumbers(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	number := func() int64 { return rng.Int64N(1 << (1 + rng.IntN(62))) }
	for range 100_000 {
		a, b, c := number(), number(), max(number(), 1)
		want := new(big.Int).Div(new(big.Int).Mul(big.NewInt(a), big.NewInt(b)), big.NewInt(c))
		if !want.IsInt64() || want.Int64() > 1<<62 {
			continue
		}
		got := mulDiv(a, b, c)
		off := got - want.Int64()
		if off > want.Int64()>>40+1 || -off > want.Int64()>>40+1 {
			t.Fatalf("%d*%d/%d = %d, want %d", a, b, c, got, want)
		}
	}
}
