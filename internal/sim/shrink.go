package sim

import (
	"slices"

	"dragonload/internal/piece"
)

// Shrink makes a world that breaks a promise smaller while it still breaks one: it
// takes faults away one by one, then what is wrong all along, then members, then
// pieces, and begins again until nothing more can go. It plays the world up to tries
// times.
func Shrink(w World, tries int) World {
	s := &shrinking{tries: tries}
	w = w.clone()
	w.Drawn = false
	for again := true; again && s.tries > 0; {
		again = s.faults(&w)
		again = s.habits(&w) || again
		again = s.members(&w) || again
		again = s.size(&w) || again
	}
	return w
}

type shrinking struct{ tries int }

// breaks plays a smaller world and takes it over if it still breaks a promise.
func (s *shrinking) breaks(w *World, c World) bool {
	if s.tries <= 0 || c.valid() != nil {
		return false
	}
	s.tries--
	if Run(c).Err == nil {
		return false
	}
	*w = c
	return true
}

func (w *World) clone() World {
	c := *w
	c.Log = nil
	c.Members = slices.Clone(w.Members)
	c.Faults = slices.Clone(w.Faults)
	return c
}

func (s *shrinking) faults(w *World) (smaller bool) {
	for k := 0; k < len(w.Faults); {
		c := w.clone()
		c.Faults = slices.Delete(c.Faults, k, k+1)
		if s.breaks(w, c) {
			smaller = true
		} else {
			k++
		}
	}
	return smaller
}

// habits takes away what is wrong all along.
func (s *shrinking) habits(w *World) (smaller bool) {
	plain := func(change func(c *World)) {
		c := w.clone()
		change(&c)
		if !same(w, &c) && s.breaks(w, c) {
			smaller = true
		}
	}
	plain(func(c *World) { c.PeerLosses = 0 })
	plain(func(c *World) { c.OriginLosses = 0 })
	plain(func(c *World) { c.Jitter = 0 })
	plain(func(c *World) { c.Origin.MaxRequests = 0 })
	plain(func(c *World) { c.Origin.TwoFaces = false })
	plain(func(c *World) {
		for k := range c.Members {
			c.Members[k].Mirror = false
		}
	})
	plain(func(c *World) { c.Origin.WrongOneIn = 0 })
	plain(func(c *World) { c.Files = (c.Files + 1) / 2 })
	plain(func(c *World) { c.Origin.Unsized = false })
	plain(func(c *World) { c.Origin.NoValidator = false })
	plain(func(c *World) { c.Origin.OneStream = c.Origin.NoValidator })
	for k := range w.Members {
		m := w.Members[k]
		usual := Member{WAN: m.WAN, LANUp: m.LANUp, LANDown: m.LANDown, WANDelay: m.WANDelay, Holds: m.Holds}
		if m == usual {
			continue
		}
		plain(func(c *World) { c.Members[k] = usual })
		plain(func(c *World) { c.Members[k].Drift, c.Members[k].Join, c.Members[k].LeavesWhenWhole = 0, 0, false })
	}
	return smaller
}

func same(a, b *World) bool {
	return slices.Equal(a.Members, b.Members) && a.Origin == b.Origin && a.Files == b.Files &&
		a.PeerLosses == b.PeerLosses && a.OriginLosses == b.OriginLosses && a.Jitter == b.Jitter
}

// members takes away half of them, a quarter, and so on down to one at a time; those
// that a fault concerns stay.
func (s *shrinking) members(w *World) (smaller bool) {
	for n := len(w.Members) / 2; n > 0; n /= 2 {
		for k := len(w.Members) - n; k > 0; {
			if c, ok := w.without(k, n); ok && s.breaks(w, c) {
				smaller = true
			}
			k = min(k, len(w.Members)) - n
		}
	}
	return smaller
}

// without returns the world without the members from k to k+n-1.
func (w *World) without(k, n int) (World, bool) {
	c := w.clone()
	c.Members = slices.Delete(c.Members, k, k+n)
	moved := func(i int) int {
		if i >= k+n {
			return i - n
		}
		return i
	}
	for j := range c.Members {
		switch m := &c.Members[j]; {
		case m.Twin-1 >= k+n:
			m.Twin -= n
		case m.Twin-1 >= k:
			return c, false
		}
	}
	for j := range c.Faults {
		f := &c.Faults[j]
		if f.Kind.ofMember() && f.Member >= k && f.Member < k+n || f.Kind == Clog && f.Other >= k && f.Other < k+n {
			return c, false
		}
		f.Member, f.Other = min(moved(f.Member), len(c.Members)-1), moved(f.Other)
		if f.Sides.Len() > 0 {
			sides := piece.NewBitfield(len(c.Members) + 1)
			for i := range len(w.Members) + 1 {
				if f.Sides.Has(uint32(i)) && (i < k || i >= k+n) {
					sides.Set(uint32(moved(i)))
				}
			}
			f.Sides = sides
		}
	}
	return c, true
}

// ofMember reports whether a fault of this kind happens to one member.
func (k FaultKind) ofMember() bool {
	switch k {
	case Leave, Kill, Wipe, Damage, SlowLine, SlowLAN, Clog, Reset, HalfOpen, Pause, ClockJumps, ClockStops, DiskFull, SyncFails, Stale, BitFlip, ShareChanges:
		return true
	}
	return false
}

func (s *shrinking) size(w *World) (smaller bool) {
	for w.Size > piece.MinLength {
		c := w.clone()
		c.Size = w.Size / 2
		if !s.breaks(w, c) {
			break
		}
		smaller = true
	}
	return smaller
}
