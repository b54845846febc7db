package catalogue

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestOrdered_isASortedList puts in and takes out by chance, and in order, and compares
// with a plain sorted slice.
func TestOrdered_isASortedList(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 0))
		o := ordered[int]{compare: func(a, b *int) int { return cmp.Compare(*a, *b) }}
		var plain []int
		span := []int{300, 5000, 100000}[seed%3]
		for step := range 4000 {
			x := rng.IntN(span)
			if seed%4 == 1 {
				x = step // ascending
			}
			at, there := slices.BinarySearch(plain, x)
			b, i, found := o.find(&x)
			if found != there {
				t.Fatalf("seed %d, step %d: found %d: %v", seed, step, x, found)
			}
			switch {
			case !there:
				plain = slices.Insert(plain, at, x)
				if got := *o.insert(b, i, x); got != x {
					t.Fatalf("seed %d, step %d: %d is where %d was put", seed, step, got, x)
				}
			case step > 2000 || rng.IntN(3) == 0:
				plain = slices.Delete(plain, at, at+1)
				o.remove(b, i)
			}
			if step > 3000 && len(plain) > 0 { // shrink
				k := rng.IntN(len(plain))
				b, i, _ := o.find(&plain[k])
				o.remove(b, i)
				plain = slices.Delete(plain, k, k+1)
			}
		}
		var got []int
		for x := range o.all() {
			got = append(got, *x)
		}
		if !slices.Equal(got, plain) {
			t.Fatalf("seed %d: it holds %d things, want %d", seed, len(got), len(plain))
		}
		for _, block := range o.blocks {
			if len(block) == 0 || len(block) > blockSize {
				t.Errorf("seed %d: a block of %d", seed, len(block))
			}
		}
		x := rng.IntN(span)
		at, _ := slices.BinarySearch(plain, x)
		got = got[:0]
		for y := range o.from(&x) {
			got = append(got, *y)
		}
		if !slices.Equal(got, plain[at:]) {
			t.Errorf("seed %d: from %d: %d things, want %d", seed, x, len(got), len(plain)-at)
		}
	}
}

// TestSet_isASet goes over the border between its two forms again and again.
func TestSet_isASet(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 1))
	var s set
	plain := make(map[uint32]bool)
	for step := range 40000 {
		n := uint32(rng.IntN(3000))
		if growing := step/8000%2 == 0; growing != (rng.IntN(8) == 0) {
			if s.add(n) == plain[n] {
				t.Fatalf("step %d: add %d", step, n)
			}
			plain[n] = true
		} else {
			s.remove(n)
			delete(plain, n)
		}
		if s.n != len(plain) {
			t.Fatalf("step %d: %d numbers, want %d", step, s.n, len(plain))
		}
		if step%1000 == 0 {
			var all bitmap
			s.into(&all)
			if all.count() != len(plain) {
				t.Fatalf("step %d: %d bits, want %d", step, all.count(), len(plain))
			}
			for n := range all.each {
				if !plain[n] {
					t.Fatalf("step %d: %d is in it", step, n)
				}
			}
		}
	}
}
