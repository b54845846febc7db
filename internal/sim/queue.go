package sim

import "dragonload/internal/swarm"

// happening is something that takes place at a moment of virtual time. The parts of
// the simulator implement it on conversions of their own pointers, so that what
// happens most often costs no allocation.
type happening interface{ happen(r *run) }

type entry struct {
	at   swarm.Instant
	seq  uint64 // breaks ties: what was pushed first happens first
	what happening
}

// queue is a binary heap of what is going to happen.
type queue struct {
	heap []entry
	seq  uint64
}

func (q *queue) less(i, j int) bool {
	a, b := &q.heap[i], &q.heap[j]
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

func (q *queue) push(at swarm.Instant, what happening) {
	q.heap = append(q.heap, entry{at, q.seq, what})
	q.seq++
	for i := len(q.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !q.less(i, up) {
			break
		}
		q.heap[i], q.heap[up] = q.heap[up], q.heap[i]
		i = up
	}
}

func (q *queue) pop() (entry, bool) {
	if len(q.heap) == 0 {
		return entry{}, false
	}
	first := q.heap[0]
	last := len(q.heap) - 1
	q.heap[0] = q.heap[last]
	q.heap[last] = entry{}
	q.heap = q.heap[:last]
	for i := 0; ; {
		least := i
		if l := 2*i + 1; l < last && q.less(l, least) {
			least = l
		}
		if r := 2*i + 2; r < last && q.less(r, least) {
			least = r
		}
		if least == i {
			return first, true
		}
		q.heap[i], q.heap[least] = q.heap[least], q.heap[i]
		i = least
	}
}
