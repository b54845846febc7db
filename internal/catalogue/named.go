package catalogue

import "slices"

// Naming returns what was found with these of its holders named too, who are known
// better: where they are reached, say.
func (f Found) Naming(holders []Holder) Found {
	by := make([]*Holder, 0, len(f.By)+len(holders))
	for k := range holders {
		by = append(by, &holders[k])
	}
	for _, h := range f.By {
		if !slices.ContainsFunc(by, func(other *Holder) bool { return other.ID == h.ID }) {
			by = append(by, h)
		}
	}
	f.By = by
	return f
}
