package swarm

// indexed is a binary min-heap whose elements know their place in it, so that an
// element can be moved when its key changes, in O(log n). place returns where an
// element keeps its position plus one; 0 there means that it is not in the heap.
type indexed[T any] struct {
	items []T
	less  func(a, b T) bool
	place func(T) *int
}

// fix puts x where its key belongs, adding it if it is not in the heap.
func (h *indexed[T]) fix(x T) {
	at := *h.place(x) - 1
	if at < 0 {
		h.items = append(h.items, x)
		at = len(h.items) - 1
		*h.place(x) = at + 1
	}
	if !h.down(at) {
		h.up(at)
	}
}

// remove takes x out of the heap if it is in it.
func (h *indexed[T]) remove(x T) {
	at := *h.place(x) - 1
	if at < 0 {
		return
	}
	last := len(h.items) - 1
	h.swap(at, last)
	var zero T
	h.items[last] = zero
	h.items = h.items[:last]
	*h.place(x) = 0
	if at < last && !h.down(at) {
		h.up(at)
	}
}

// first returns the least element.
func (h *indexed[T]) first() (x T, ok bool) {
	if len(h.items) == 0 {
		return x, false
	}
	return h.items[0], true
}

func (h *indexed[T]) swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	*h.place(h.items[i]) = i + 1
	*h.place(h.items[j]) = j + 1
}

func (h *indexed[T]) up(i int) {
	for i > 0 && h.less(h.items[i], h.items[(i-1)/2]) {
		h.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

// down reports whether the element at i moved.
func (h *indexed[T]) down(i int) bool {
	start := i
	for {
		child := 2*i + 1
		if child >= len(h.items) {
			break
		}
		if child+1 < len(h.items) && h.less(h.items[child+1], h.items[child]) {
			child++
		}
		if !h.less(h.items[child], h.items[i]) {
			break
		}
		h.swap(i, child)
		i = child
	}
	return i > start
}
