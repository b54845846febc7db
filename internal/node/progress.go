package node

import (
	"sync/atomic"
	"time"
)

const (
	progressEvery = 250 * time.Millisecond // at most this often
	rateSamples   = 12                     // so rates are over the last 3 s
)

// counters count bytes. Workers add to them, the loop reads them; nothing is decided
// by them.
type counters struct {
	origin   atomic.Int64 // body bytes read from the origin, duplicates included
	peer     atomic.Int64 // bytes of pieces that neighbours sent
	uploaded atomic.Int64 // bytes of pieces sent to neighbours
	spooled  atomic.Int64 // bytes of a stream whose size is not known yet
}

// meter turns counters into rates over the last few seconds.
type meter struct {
	samples [rateSamples]sample
	n       int
}

type sample struct {
	at                     time.Time
	origin, peer, uploaded int64
}

// rates records s and returns the bytes per second since the oldest sample kept.
func (m *meter) rates(s sample) (origin, peer, uploaded int64) {
	if m.n == 0 {
		// Everything counts from the first sample on.
		m.samples[0], m.n = s, 1
		return 0, 0, 0
	}
	oldest := m.samples[max(0, m.n-rateSamples)%rateSamples]
	m.samples[m.n%rateSamples] = s
	m.n++
	over := s.at.Sub(oldest.at).Seconds()
	if over <= 0 {
		return 0, 0, 0
	}
	per := func(now, then int64) int64 { return int64(float64(now-then) / over) }
	return per(s.origin, oldest.origin), per(s.peer, oldest.peer), per(s.uploaded, oldest.uploaded)
}

// eta is the time that the missing bytes take at rate; negative while unknown.
func eta(missing, rate int64) time.Duration {
	const year = 365 * 24 * time.Hour
	if missing <= 0 {
		return 0
	}
	if rate <= 0 || missing/rate > int64(year/time.Second) {
		return -1
	}
	return time.Duration(float64(missing) / float64(rate) * float64(time.Second))
}
