package sim

import (
	"slices"
	"time"

	"dragonload/internal/piece"
)

// faults draws several faults, and what is wrong all along.
func (d *drawing) faults(w *World) {
	if d.oneIn(4) {
		w.PeerLosses = int(d.logarithmic(1000, 50_000))
	}
	if d.oneIn(4) {
		w.OriginLosses = int(d.logarithmic(1000, 50_000))
	}
	if d.oneIn(4) {
		w.Jitter = time.Duration(d.logarithmic(100e3, 50e6))
	}
	if d.oneIn(4) {
		for k := range w.Members {
			w.Members[k].Drift = d.rng.Int64N(2*maxDrift+1) - maxDrift
		}
	}
	if d.oneIn(4) && len(w.Members) > 2 {
		d.cheats(w)
	}
	if d.oneIn(12) && !w.Origin.NoValidator && w.Origin.MaxRequests == 0 && len(w.Members)*piece.LayoutFor(w.Size).Count() <= manyPieces/8 {
		w.Origin.TwoFaces = true
	}
	if d.oneIn(16) {
		d.swizzle(w)
	}
	for range 1 + d.rng.IntN(6) {
		d.fault(w, FaultKind(d.rng.IntN(int(HostDies)))) // who hosts dies in succession
	}
}

// succession lets the tracker die and then, one after the other, members that have taken
// its place; or the room falls apart meanwhile and each part has a tracker of its own.
func (d *drawing) succession(w *World) {
	d.fault(w, TrackerDies)
	if len(w.Faults) == 0 {
		return
	}
	at := w.Faults[0].At + d.between(time.Second, 3*time.Second)
	if d.oneIn(2) {
		w.Faults[0].For = 0
		f := Fault{Kind: Partition, At: at, For: d.between(5*time.Second, 15*time.Second), Sides: piece.NewBitfield(len(w.Members) + 1)}
		for k := range len(w.Members) {
			if d.oneIn(2) {
				f.Sides.Set(uint32(k))
			}
		}
		d.add(w, f)
		return
	}
	for range 1 + d.rng.IntN(3) {
		// Member 0 may be among them, so all come back.
		d.add(w, Fault{Kind: HostDies, At: at, For: d.between(time.Second, 8*time.Second), Silent: d.oneIn(2)})
		at += d.between(500*time.Millisecond, 6*time.Second)
	}
}

// cheats makes a few members ones that cheat, each in its own way, or all in one.
func (d *drawing) cheats(w *World) {
	way := -1
	if d.oneIn(2) {
		way = d.rng.IntN(7)
	}
	for range 1 + d.rng.IntN(1+min(2, len(w.Members)/4)) {
		m := &w.Members[1+d.rng.IntN(len(w.Members)-1)]
		how := way
		if how < 0 {
			how = d.rng.IntN(7)
		}
		switch how {
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
		case 5:
			m.Equivocates = true
		case 6: // two or three of them collude
			m.Forgery, m.LiesEvery = 1, 1+int(w.Size)%50
		}
	}
}

// later draws what was thought of later, so that older seeds without it keep their worlds.
func (d *drawing) later(w *World) {
	if n := len(w.Members); n > 3 && d.oneIn(20) {
		if m := &w.Members[1+d.rng.IntN(n-1)]; !m.cheats() && !m.Helper {
			m.Forgery, m.LiesEvery = 1, 1+d.rng.IntN(20)
		}
	}
	forged := false
	for k := range w.Members {
		m := &w.Members[k]
		forged = forged || m.Forgery > 0
		m.Denies = m.Forgery > 0 && d.oneIn(2)
		m.Returns = m.cheats() && d.oneIn(4)
	}
	if !w.Origin.NoValidator && !w.Origin.TwoFaces && !w.has(OriginChanges) && !w.has(OriginFlaps) {
		d.digests(w, forged)
	}
	if k := 1 + d.rng.IntN(len(w.Members)); d.oneIn(10) && k < len(w.Members) && !w.Origin.Unsized {
		of := d.rng.IntN(k)
		if a, b := &w.Members[of], &w.Members[k]; !a.cheats() && !b.cheats() && a.Helper == b.Helper {
			b.Twin = 1 + of
		}
	}
}

// digests gives members the digest of the whole file, where somebody forges bytes of it, or
// a wrong one.
func (d *drawing) digests(w *World, forged bool) {
	know, misled := forged && d.oneIn(2), d.oneIn(16)
	for k := range w.Members {
		switch m := &w.Members[k]; {
		case m.cheats() || m.Helper:
		case misled && k > 0 && d.oneIn(len(w.Members)/3+1):
			m.Misled = true
		case know:
			m.Knows = d.oneIn(2)
		}
	}
}

// maxDrift is by how many parts in a million clocks are wrong: far more than quartz is.
const maxDrift = 20_000

// swizzle isolates some members one after the other, and lets them come back in
// another order (FoundationDB calls it swizzle-clogging).
func (d *drawing) swizzle(w *World) {
	n := len(w.Members)
	if w.Origin.Unsized {
		return
	}
	at := d.between(0, d.span)
	for _, k := range d.rng.Perm(n)[:1+d.rng.IntN(min(n, 8))] {
		f := Fault{Kind: Partition, At: at + d.between(0, 5*time.Second), For: d.between(5*time.Second, 15*time.Second)}
		f.Sides = piece.NewBitfield(n + 1)
		f.Sides.Set(uint32(k))
		d.add(w, f)
	}
}

func (d *drawing) add(w *World, f Fault) {
	w.Faults = append(w.Faults, f)
	slices.SortStableFunc(w.Faults, func(a, b Fault) int { return int(a.At - b.At) })
}

// fault adds one fault of a kind.
func (d *drawing) fault(w *World, kind FaultKind) {
	if w.Origin.Unsized && kind.separates() {
		// Until the whole of a stream has come that does not tell its length, nobody can
		// tell others what it is of: without a tracker each member reads one of its own,
		// and how long that takes has no useful bound.
		return
	}
	f := Fault{Kind: kind, At: d.between(50*time.Millisecond, d.span), Member: d.rng.IntN(len(w.Members)), Silent: d.oneIn(2)}
	if d.oneIn(4) {
		f.At = d.between(0, 2*time.Second) // the beginning is where most has to go right
	}
	f.For = d.between(200*time.Millisecond, max(d.span/2, time.Second))
	var drawn bool
	switch {
	case kind >= OriginBusy && kind <= OriginChanges || kind >= OriginStalls && kind <= OriginFlaps:
		drawn = d.ofOrigin(w, &f)
	case kind == Partition || kind == OneWay || kind == Clog || kind >= TrackerSlow || kind == TrackerDies:
		drawn = d.ofNetwork(w, &f)
	default:
		drawn = d.ofMember(w, &f)
	}
	if drawn {
		d.add(w, f)
	}
}

// separates reports whether members may lose the tracker by this.
func (k FaultKind) separates() bool {
	switch k {
	case Partition, OneWay, Clog, Reset, HalfOpen, Pause, TrackerDies, TrackerSlow, TrackerLies, TrackerForgets, ClockJumps, ClockStops:
		return true
	}
	return false
}

func (d *drawing) ofMember(w *World, f *Fault) bool {
	switch f.Kind {
	case Leave:
		f.Member, f.For = 1+d.rng.IntN(len(w.Members)-1), 0 // member 0 stays
	case Kill, Wipe, Stale, DiskFull, SyncFails:
		f.Midway = f.Kind == Kill && d.oneIn(2)
		// Not drawn, so that older seeds keep their worlds.
		f.Torn = f.Silent && (f.Kind == Kill || f.Kind == Stale) && f.At/time.Millisecond%2 == 0
		switch {
		case d.oneIn(12):
			f.For = d.between(time.Hour, 5*time.Hour)
		case d.oneIn(4):
			f.For = time.Millisecond
		case f.Member != 0 && d.oneIn(2):
			f.For = 0
		}
	case SlowLine, SlowLAN:
		f.Factor = int64(d.logarithmic(2, 50))
	case Pause:
		f.For = time.Duration(d.logarithmic(50e6, 40e9))
	case ClockJumps:
		f.For, f.Leap = 0, d.between(-10*time.Second, 60*time.Second)
	case ClockStops:
		f.For = d.between(100*time.Millisecond, 10*time.Second)
	default:
		f.For = 0
	}
	return true
}

func (d *drawing) ofNetwork(w *World, f *Fault) bool {
	n := len(w.Members)
	switch f.Kind {
	case Partition, OneWay:
		if w.has(Partition) || w.has(OneWay) {
			return false // one at a time: the budget counts the parts of one
		}
		f.For = d.between(500*time.Millisecond, 15*time.Second)
		f.Sides = piece.NewBitfield(n + 1)
		aside := d.rng.IntN(n + 1)
		if d.oneIn(2) {
			f.Sides.Set(uint32(aside)) // one member, or the tracker
			break
		}
		for k := range n + 1 {
			if d.oneIn(2) {
				f.Sides.Set(uint32(k))
			}
		}
	case Clog:
		f.Other = d.rng.IntN(n + 1)
		return f.Other != f.Member
	case TrackerDies:
		if d.oneIn(2) {
			f.For = 0
		}
	case TrackerLies:
		f.For = d.between(500*time.Millisecond, 10*time.Second)
	case TrackerSlow:
		f.Wait = time.Duration(d.logarithmic(50e6, 2e9))
	default:
		f.For = 0
	}
	return true
}

func (d *drawing) ofOrigin(w *World, f *Fault) bool {
	switch f.Kind {
	case OriginBusy:
		f.For = d.between(100*time.Millisecond, 5*time.Second)
		f.Wait = time.Duration(d.rng.IntN(5)) * time.Second
	case OriginChanges, OriginFlaps:
		if w.Origin.NoValidator || w.has(f.Kind) || !d.oneIn(3) {
			return false
		}
		if f.Kind == OriginChanges {
			f.For = 0
		} else {
			f.For = d.between(200*time.Millisecond, 10*time.Second)
		}
	case OriginStalls:
		f.For = time.Duration(d.logarithmic(500e6, 40e9))
	case OriginDrips:
		f.Factor = int64(d.logarithmic(2, 50))
	case OriginTruncates, OriginRefuses:
		f.For = d.between(100*time.Millisecond, 3*time.Second)
	default:
		f.For = 0
	}
	return true
}

// rest makes some members ones whose troubles are never mended. The others, of whom
// member 0 is one, are the core, which must finish all the same.
func (d *drawing) rest(w *World) {
	n := len(w.Members)
	for range 1 + d.rng.IntN(max(n/2, 1)) {
		m := 1 + d.rng.IntN(n-1)
		if w.Members[m].Rest {
			continue
		}
		w.Members[m].Rest = true
		f := Fault{Kind: Kill, At: d.between(0, d.span), Member: m, Silent: true}
		switch {
		case d.oneIn(3):
			f.Kind = Pause
		case d.oneIn(3) && !w.Origin.Unsized:
			f.Kind, f.Sides = Partition, piece.NewBitfield(n+1)
			f.Sides.Set(uint32(m))
		}
		d.add(w, f)
	}
}
