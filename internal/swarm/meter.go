package swarm

import "time"

// meter measures a rate over the time in which something was under way, so that an
// idle line does not look slow. Older bytes count half after each window.
type meter struct {
	window time.Duration
	bytes  int64
	busy   time.Duration
	since  Instant // up to when busy counts, while active > 0
	active int
}

// start and stop bracket one thing under way; they may overlap.
func (m *meter) start(now Instant) {
	m.settle(now)
	m.active++
}

func (m *meter) stop(now Instant) {
	m.settle(now)
	m.active--
}

// reset forgets what was measured; what is under way stays so.
func (m *meter) reset(now Instant) { m.bytes, m.busy, m.since = 0, 0, now }

func (m *meter) add(now Instant, bytes int64) {
	m.bytes += bytes
	m.settle(now)
}

func (m *meter) settle(now Instant) {
	if m.active > 0 {
		m.busy += now.Sub(m.since)
	}
	m.since = now
	for m.busy > 2*m.window {
		m.busy /= 2
		m.bytes /= 2
	}
}

// rate returns bytes per second, or 0 while too little was seen to tell.
func (m *meter) rate(now Instant) int64 {
	m.settle(now)
	if m.busy < m.window/20 || m.bytes == 0 {
		return 0
	}
	return max(mulDiv(m.bytes, int64(time.Second), int64(m.busy)), 1)
}
