package piece

import (
	"fmt"
	"slices"
	"sort"
)

// Extent is a run of Count consecutive pieces from First on.
type Extent struct {
	First Index
	Count uint32
}

// End returns the index after the last piece of e.
func (e Extent) End() Index { return e.First + e.Count }

// Has reports whether piece i is in e.
func (e Extent) Has(i Index) bool { return i >= e.First && i-e.First < e.Count }

// Valid reports whether e is not empty and lies inside a file of count pieces; it
// is what extents from outside are asked before anything else is done with them.
func (e Extent) Valid(count int) bool {
	return e.Count > 0 && uint64(e.First)+uint64(e.Count) <= uint64(count)
}

// CheckExtents returns an error unless extents from outside are all Valid and name no more
// pieces than the file has: then at least one is named more than once.
func CheckExtents(extents []Extent, count int) error {
	left := uint64(count)
	for _, e := range extents {
		if !e.Valid(count) || uint64(e.Count) > left {
			return fmt.Errorf("%d pieces from %d on in a file of %d, or pieces named more than once", e.Count, e.First, count)
		}
		left -= uint64(e.Count)
	}
	return nil
}

func (e Extent) String() string {
	if e.Count == 1 {
		return fmt.Sprint(e.First)
	}
	return fmt.Sprintf("%d-%d", e.First, e.End()-1)
}

// Extents is a set of pieces kept as its runs: sorted, disjoint and never touching.
// The zero value is the empty set.
type Extents struct {
	runs  []Extent
	count int
}

// Count returns the number of pieces in the set.
func (s *Extents) Count() int { return s.count }

// Runs returns the runs of the set in ascending order. The slice belongs to s and is
// valid until s changes.
func (s *Extents) Runs() []Extent { return s.runs }

// Has reports whether piece i is in the set.
func (s *Extents) Has(i Index) bool {
	k := s.search(i)
	return k < len(s.runs) && s.runs[k].Has(i)
}

// search returns the position of the first run that ends after i.
func (s *Extents) search(i Index) int {
	return sort.Search(len(s.runs), func(k int) bool { return s.runs[k].End() > i })
}

// Add puts the pieces of e into the set; those already there stay there once.
func (s *Extents) Add(e Extent) {
	if e.Count == 0 {
		return
	}
	first, end := e.First, e.End()
	// lo is the first run that touches or overlaps e, hi the first that lies beyond it.
	lo := sort.Search(len(s.runs), func(k int) bool { return s.runs[k].End() >= first })
	hi := lo
	for hi < len(s.runs) && s.runs[hi].First <= end {
		first, end = min(first, s.runs[hi].First), max(end, s.runs[hi].End())
		s.count -= int(s.runs[hi].Count)
		hi++
	}
	merged := Extent{First: first, Count: end - first}
	s.count += int(merged.Count)
	s.runs = slices.Replace(s.runs, lo, hi, merged)
}

// Remove takes the pieces of e out of the set; those not in it are no matter.
func (s *Extents) Remove(e Extent) {
	if e.Count == 0 {
		return
	}
	lo := s.search(e.First)
	hi := lo
	var rest [2]Extent
	keep := rest[:0]
	for hi < len(s.runs) && s.runs[hi].First < e.End() {
		r := s.runs[hi]
		s.count -= int(r.Count)
		if r.First < e.First {
			keep = append(keep, Extent{r.First, e.First - r.First})
		}
		if r.End() > e.End() {
			keep = append(keep, Extent{e.End(), r.End() - e.End()})
		}
		hi++
	}
	for _, k := range keep {
		s.count += int(k.Count)
	}
	s.runs = slices.Replace(s.runs, lo, hi, keep...)
}

// TakeFirst removes up to n pieces from the first run and returns them as one extent.
func (s *Extents) TakeFirst(n uint32) (Extent, bool) {
	if len(s.runs) == 0 || n == 0 {
		return Extent{}, false
	}
	e := Extent{First: s.runs[0].First, Count: min(n, s.runs[0].Count)}
	s.Remove(e)
	return e, true
}

// TakeLast removes up to n pieces from the end of the last run and returns them.
func (s *Extents) TakeLast(n uint32) (Extent, bool) {
	if len(s.runs) == 0 || n == 0 {
		return Extent{}, false
	}
	last := s.runs[len(s.runs)-1]
	n = min(n, last.Count)
	e := Extent{First: last.End() - n, Count: n}
	s.Remove(e)
	return e, true
}

// Clear empties the set.
func (s *Extents) Clear() { s.runs, s.count = s.runs[:0], 0 }
