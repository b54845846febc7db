package swarm

import "time"

// How many members fetch from the origin at one time. Few lines may be enough to
// take all that an origin gives; with more of them every piece only takes longer, and
// a large pool would wait at its end for a piece from each. So a pool begins with
// some members and takes in more as long as they bring more, as one polite client
// does with its connections.

const (
	// startWidth members fetch at once from the beginning, in a large pool one in
	// startShare.
	startWidth = 32
	startShare = 8

	// A wider pool must bring widthGain per cent more in a widthTime, else it goes
	// back and tries again after widthPause.
	widthTime  = 500 * time.Millisecond
	widthGain  = 15
	widthPause = 15 * time.Second

	// Once more lines bring no more, pieces on their way are at most one in tailShare
	// of what is left, but tailWidth at least.
	tailShare = 4
	tailWidth = 8
)

// width is how many members of a pool have leases, and how many may.
type width struct {
	active  int
	limit   int
	refused Instant // when the limit last kept somebody from a lease
	moved   int64   // bytes from the origin since since
	since   Instant
	before  int64 // bytes per second with the limit before this one, 0 if that was not measured
	narrow  int   // the limit before this one, 0 if this one stands
	full    bool  // more lines bring no more
	trialAt Instant
}

// crowded reports whether no further member should begin to fetch now.
func (p *pool) crowded() bool {
	w := &p.width
	limit := max(w.limit, startWidth, len(p.order)/startShare)
	if w.full {
		limit = min(limit, max(p.fetchable()/tailShare, tailWidth))
	}
	return w.active >= limit
}

// refuse notes that the limit keeps somebody from a lease. Measuring begins some time
// after the first: until then more is brought each moment, whatever the limit.
func (p *pool) refuse(now Instant) {
	w := &p.width
	if w.refused == 0 {
		w.since = now.Add(p.interval() + widthTime/2)
		w.moved = 0
	}
	w.refused = now
}

// countActive keeps the number of members with leases; it follows each change of
// m.leased.
func (p *pool) countActive(m *member) {
	if active := m.leased.Count() > 0; active != m.active {
		m.active = active
		if active {
			p.width.active++
		} else {
			p.width.active--
		}
	}
}

// widen decides, from what has come from the origin, whether more members should
// fetch at once.
func (p *pool) widen(now Instant, moved int64) {
	w := &p.width
	if now < w.since {
		return // what comes now began before the last change
	}
	w.moved += moved
	elapsed := now.Sub(w.since)
	if elapsed < max(widthTime, p.interval()) {
		return
	}
	rate := mulDiv(w.moved, int64(time.Second), int64(elapsed))
	bound := w.refused >= w.since
	w.moved, w.since = 0, now
	if !bound || rate == 0 {
		return
	}
	limit := max(w.limit, startWidth, len(p.order)/startShare)
	switch {
	case w.narrow > 0 && rate < w.before+w.before*widthGain/100:
		w.limit, w.narrow, w.full = w.narrow, 0, true
		w.trialAt = now.Add(widthPause)
	case w.narrow > 0 || !w.full || now >= w.trialAt && p.workTime(p.fetchable(), rate) > widthPause:
		factor := 2
		if w.narrow > 0 && rate > w.before*3/2 {
			factor = 4
		}
		w.narrow, w.before, w.limit, w.full = limit, rate, limit*factor, false
		w.since = now.Add(p.interval() + widthTime/2)
	}
}
