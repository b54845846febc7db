package sim

import (
	"math"
	"math/rand/v2"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// Worlds of a manifest: everybody knows what the content is before it begins. Some hold
// all of it from the beginning and share it, the others get it, or some of its files, from
// those, from each other and from web seeds, which are the origin of such a world; where
// there are none no member has a line to it.

// ofManifest reports whether a world is one.
func (w *World) ofManifest() bool { return w.Files > 0 }

// layout cuts the world's content.
func (w *World) layout() piece.Layout {
	if !w.ofManifest() {
		return piece.LayoutFor(w.Size)
	}
	l, err := piece.LayoutOf(w.pieceLength(), w.sizes())
	if err != nil {
		panic(err) // valid has seen to it
	}
	return l
}

func (w *World) pieceLength() int64 {
	if w.PieceLength == 0 {
		return piece.LengthFor(w.Size)
	}
	return w.PieceLength
}

// sizes draws the files: their sizes lie up to three orders of magnitude apart, and one in
// ten is empty or next to nothing, unless all are to be alike.
func (w *World) sizes() []int64 {
	sizes := make([]int64, w.Files)
	if w.Alike {
		for k := range sizes {
			sizes[k] = w.Size*int64(k+1)/int64(w.Files) - w.Size*int64(k)/int64(w.Files)
		}
		return sizes
	}
	rng := rand.New(rand.NewPCG(w.Seed, 0x66696c6573))
	weights, sum := make([]float64, w.Files), 0.0
	for k := range weights {
		weights[k] = math.Exp(rng.Float64() * math.Log(1000))
		if rng.IntN(10) == 0 {
			weights[k] = 0
		}
		sum += weights[k]
	}
	left := w.Size
	for k := range sizes {
		sizes[k] = min(int64(weights[k]/max(sum, 1)*float64(w.Size)), left)
		if weights[k] == 0 {
			sizes[k] = min(rng.Int64N(3), left)
		}
		left -= sizes[k]
	}
	sizes[len(sizes)-1] += left
	return sizes
}

// manifest is what every node of the world is given; nil in a world of a URL.
func (r *run) manifest() *swarm.Manifest {
	if !r.world.ofManifest() {
		return nil
	}
	c := r.origin.current
	return &swarm.Manifest{Pin: c.pin, Layout: c.layout, Digests: c.digests}
}

// selection is what a member wants, nil if all.
func (r *run) selection(m *member) *piece.Bitfield {
	inPlace := m.Holds && m.index%2 == 1 // what its user keeps there is not to be written to
	if !r.world.ofManifest() || m.Selects == 0 && !inPlace {
		return nil
	}
	l := r.origin.current.layout
	wanted := piece.NewBitfield(l.Count())
	if inPlace {
		return &wanted
	}
	for file := range l.Files() {
		if (uint64(file)*0x9e3779b97f4a7c15^uint64(m.index)*0xbf58476d1ce4e5b9)>>33%uint64(m.Selects) == 0 {
			_, e := l.File(file)
			for i := e.First; i < e.End(); i++ {
				wanted.Set(i)
			}
		}
	}
	return &wanted
}

// fill puts everything on the disk of a member that shares from the beginning.
func (r *run) fill(m *member) {
	c := r.origin.current
	m.disk.begin(c.pin, 0)
	m.disk.content = c
	m.disk.have = everything(c.layout.Count())
}

// complete reports whether a member has what it wants.
func (m *member) complete() bool {
	d := &m.disk
	if !d.set || m.wanted == nil {
		return d.set && d.have.All()
	}
	for e := range m.wanted.Extents {
		if i, ok := d.have.NextUnset(e.First); ok && i < e.End() {
			return false
		}
	}
	return true
}

// changeShare makes a file that a member has one of other bytes: what it was is no longer
// held. The driver notices, and tells the Node.
func (r *run) changeShare(m *member) {
	p, d := m.proc, &m.disk
	if p == nil || p.gone || p.paused || !d.set || !m.whole || d.have.Count() == 0 {
		return
	}
	i, ok := d.have.Next(piece.Index(r.rng.IntN(d.have.Len())))
	if !ok {
		i, _ = d.have.Next(0)
	}
	l := d.content.layout
	_, e := l.File(l.FileOf(i))
	m.changed = true
	r.mark(ShareChanged)
	r.step(p, swarm.PiecesLost{Extents: []piece.Extent{e}})
	for i := e.First; i < e.End() && r.err == nil && !p.gone; i++ {
		if d.have.Has(i) {
			r.violate(p, "keeps piece %d of a file that has changed", i)
		}
	}
}

// spoils reports whether the web seed's bytes of a piece are not those of the manifest.
func (o *Origin) spoils(i piece.Index) bool {
	return o.WrongOneIn > 0 && uint64(i)*0x9e3779b97f4a7c15>>33%uint64(o.WrongOneIn) == 0
}

// manifestBound is World.Bound for a manifest: the first copy comes from those who hold it
// and from the web seeds, the others from everybody.
func (w *World) manifestBound() time.Duration {
	size := float64(w.Size)
	var lines, first, sent, wanting, slowest float64
	for _, m := range w.Members {
		sent += float64(m.LANUp)
		if m.Holds {
			first += float64(m.LANUp)
			continue
		}
		wanting++
		lines += float64(m.WAN)
		slowest = max(slowest, size/(float64(m.LANDown)+min(float64(m.WAN), float64(w.Origin.Up))))
	}
	seeds := min(lines, float64(w.Origin.Up))
	bound := max(size/max(first+seeds, 1), slowest, wanting*size/(sent+seeds))
	return time.Duration(bound * 1e9)
}

// manifest draws such a world: 2 to 60 members, seldom 200, with 1 to 600 files.
func (d *drawing) manifest(w *World) {
	n := int(d.logarithmic(2, 60))
	if d.oneIn(10) {
		n = int(d.logarithmic(60, 200))
	}
	w.Files = int(d.logarithmic(1, 600))
	w.PieceLength = piece.LeafSize << d.rng.IntN(5)
	w.Size = int64(float64(w.Files) * d.logarithmic(1, 1<<20))
	w.Size = min(w.Size, 1500*w.PieceLength)
	if count := w.Files + int(w.Size/w.PieceLength); n*count > manyPieces {
		n = max(manyPieces/count, 2)
	}
	d.span = time.Duration(d.logarithmic(3e9, 60e9))
	d.pace = max(float64(w.Size)/d.span.Seconds(), 64<<10)
	w.LANDelay = time.Duration(d.logarithmic(50e3, 2e6))
	w.ControlDelay = time.Duration(d.logarithmic(100e3, 30e6))
	d.members(w, n)
	w.Origin.Up = max(d.rate(d.logarithmic(0.2, 5)), int64(n)*minChunk)
	seeded, selective := d.oneIn(2), d.oneIn(3)
	holders := 1 + d.rng.IntN(max(n/2, 1))
	if seeded && d.oneIn(3) {
		holders = 0
	}
	if seeded && holders > 0 && d.oneIn(4) {
		w.Origin.WrongOneIn = int(d.logarithmic(1, 100))
	}
	for k := range w.Members {
		m := &w.Members[k]
		m.Helper, m.Holds = false, k < holders
		if !seeded {
			m.WAN, m.Barred = 0, false
		}
		if m.Holds {
			m.LeavesWhenWhole = false
		} else if selective && d.oneIn(2) {
			m.Selects = 2 + d.rng.IntN(4)
		}
	}
	w.Members[0].Join = d.between(0, 200*time.Millisecond)
	if !d.oneIn(5) {
		d.manifestFaults(w, seeded)
	}
}

// manifestFaults draws what goes wrong there. Member 0 keeps what it has, and is never
// away for long: nobody else may have it.
func (d *drawing) manifestFaults(w *World, seeded bool) {
	if d.oneIn(4) {
		w.PeerLosses = int(d.logarithmic(1000, 50_000))
	}
	if d.oneIn(4) {
		w.Jitter = time.Duration(d.logarithmic(100e3, 50e6))
	}
	if d.oneIn(4) && len(w.Members) > 3 {
		m := &w.Members[1+d.rng.IntN(len(w.Members)-1)]
		switch d.rng.IntN(5) {
		case 0:
			m.LiesOneIn = int(d.logarithmic(1, 100))
		case 1:
			m.Withholds = true
		case 2:
			m.Freeloads = true
		case 3:
			m.Floods = true
		case 4:
			m.Replays = true
		}
	}
	for range 1 + d.rng.IntN(6) {
		before := len(w.Faults)
		switch kind := FaultKind(d.rng.IntN(int(faultKinds))); kind {
		case OriginChanges, OriginFlaps, HostDies:
			// A manifest has one version; the tracker's death alone finds who hosts.
		case ShareChanges:
			d.add(w, Fault{Kind: kind, At: d.between(50*time.Millisecond, d.span), Member: d.rng.IntN(len(w.Members))})
		default:
			d.fault(w, kind)
		}
		if len(w.Faults) > before {
			w.soften(seeded)
		}
	}
}

// soften takes what nobody could bear from the faults of a manifest's world.
func (w *World) soften(seeded bool) {
	kept := w.Faults[:0]
	for _, f := range w.Faults {
		if f.Kind == TrackerDies && !seeded {
			f.For = max(f.For, time.Second) // nobody could be found any more
		}
		if f.Kind.ofMember() && f.Member == 0 {
			switch f.Kind {
			case Wipe, Damage, BitFlip, ShareChanges, DiskFull, SyncFails:
				continue
			case Kill, Stale:
				f.For = min(max(f.For, time.Second), 20*time.Second)
			}
		}
		kept = append(kept, f)
	}
	w.Faults = kept
}
