package sim

import (
	"math"
	"math/rand/v2"
	"time"

	"dragonload/internal/piece"
)

// Draw makes a world from a seed: 2 to 200 members, 1 to 5 000 pieces, rates over two
// orders of magnitude, and some of everything that can go wrong (drawfaults.go). One
// world in eight is without faults, and one in eight has the tracker's death alone, for
// what is promised of those. One in six is of a manifest (manifest.go).
func Draw(seed uint64) World {
	d := &drawing{rng: rand.New(rand.NewPCG(seed, 0x64726177))}
	w := World{Seed: seed, Drawn: true}
	if kind := rand.New(rand.NewPCG(seed, 0x6b696e64)); kind.IntN(6) == 0 {
		d.manifest(&w)
		w.quiet(d)
		return w
	}
	n := int(d.logarithmic(2, 200))
	w.Size = d.size()
	if count := piece.LayoutFor(w.Size).Count(); n*count > manyPieces && !d.oneIn(50) {
		n = max(manyPieces/count, 2)
	}
	if d.oneIn(250) { // a crowd comes for a small file
		n = int(d.logarithmic(1000, 2000))
		w.Size = 1 + d.rng.Int64N(6*piece.MinLength)
	}
	// All rates follow from how long the origin's bytes take, so that small and large
	// files are alike in everything but their pieces.
	span := time.Duration(d.logarithmic(3e9, 60e9))
	d.pace = max(float64(w.Size)/span.Seconds(), 64<<10)
	d.span = span
	w.LANDelay = time.Duration(d.logarithmic(50e3, 2e6))
	w.ControlDelay = time.Duration(d.logarithmic(100e3, 30e6))
	d.members(&w, n)
	d.origin(&w)
	switch kind := d.rng.IntN(8); {
	case kind == 0:
	case kind == 1:
		d.fault(&w, TrackerDies)
	case kind == 2:
		d.succession(&w)
	default:
		d.faults(&w)
		more := drawing{rng: rand.New(rand.NewPCG(seed, 0x6d6f7265)), pace: d.pace, span: d.span}
		more.later(&w)
	}
	d.mirrors(&w)
	w.quiet(d)
	return w
}

// quiet sets when all faults are over, but those of the rest.
func (w *World) quiet(d *drawing) {
	for _, f := range w.Faults {
		w.QuietFrom = max(w.QuietFrom, f.At+f.For+f.Wait)
	}
	if len(w.Faults) > 0 && d.oneIn(5) {
		d.rest(w)
	}
	if w.PeerLosses+w.OriginLosses > 0 {
		w.QuietFrom = max(w.QuietFrom, 2*d.span)
	}
}

// manyPieces is how many pieces most worlds have at most, all members together: time is
// better spent on more worlds.
const manyPieces = 20_000

type drawing struct {
	rng  *rand.Rand
	pace float64 // bytes/s at which the file would take span
	span time.Duration
}

// logarithmic draws a number whose order of magnitude is uniform.
func (d *drawing) logarithmic(low, high float64) float64 {
	return low * math.Exp(d.rng.Float64()*math.Log(high/low))
}

func (d *drawing) oneIn(n int) bool { return d.rng.IntN(n) == 0 }

func (d *drawing) between(low, high time.Duration) time.Duration {
	return low + time.Duration(d.rng.Int64N(int64(high-low)+1))
}

// size draws the file's size by the number of its pieces.
func (d *drawing) size() int64 {
	pieces := int64(d.logarithmic(1, 1500))
	length := int64(piece.MinLength)
	switch {
	case d.oneIn(12): // longer pieces come with between 1 025 and 2 048 of them
		pieces = 1025 + d.rng.Int64N(1024)
		length <<= d.rng.IntN(9)
	case d.oneIn(40):
		pieces, length = 2049+d.rng.Int64N(2952), piece.MaxLength
	}
	return (pieces-1)*length + 1 + d.rng.Int64N(length)
}

func (d *drawing) rate(perPace float64) int64 {
	return int64(max(d.pace*perPace, 8<<10))
}

func (d *drawing) members(w *World, n int) {
	mixed := d.oneIn(2)
	lan := d.logarithmic(0.5, 30)
	late := d.oneIn(3)
	for range n {
		share := 1.0
		if mixed {
			share = d.logarithmic(0.1, 10)
		}
		m := Member{
			WAN:      d.rate(share / float64(n)),
			WANDelay: time.Duration(d.logarithmic(1e6, 80e6)),
			Join:     d.between(0, 200*time.Millisecond),
		}
		m.LANUp = d.rate(lan)
		m.LANDown = m.LANUp
		if mixed {
			m.LANUp = d.rate(lan * d.logarithmic(0.3, 3))
			m.LANDown = d.rate(lan * d.logarithmic(0.3, 3))
		}
		if late && d.oneIn(3) {
			m.Join = d.between(0, d.span)
		}
		switch {
		case d.oneIn(20):
			m.WAN = 0
		case d.oneIn(20):
			m.Barred = true
		case d.oneIn(20):
			m.Helper = true
		case d.oneIn(20):
			m.LeavesWhenWhole = true
		}
		w.Members = append(w.Members, m)
	}
	// Somebody who stays wants the file and can fetch it.
	w.Members[0].WAN = max(w.Members[0].WAN, d.rate(1/float64(n)))
	w.Members[0].Barred = false
	w.Members[0].Helper, w.Members[0].LeavesWhenWhole = false, false
}

func (d *drawing) origin(w *World) {
	w.Origin.Up = max(d.rate(d.logarithmic(0.2, 5)), int64(len(w.Members))*minChunk)
	switch {
	case d.oneIn(16):
		w.Origin.OneStream = true
	case d.oneIn(16):
		w.Origin.OneStream, w.Origin.NoValidator = true, true
		w.Origin.Unsized = d.oneIn(2)
	}
	if d.oneIn(8) {
		w.Origin.MaxRequests = len(w.Members) + 1 + d.rng.IntN(len(w.Members))
	}
	if w.Origin.OneStream {
		// One line carries everything; let it take no longer than the rest does.
		for k := range w.Members {
			if m := &w.Members[k]; m.WAN > 0 {
				m.WAN = max(m.WAN, d.rate(0.3))
			}
		}
	}
}
