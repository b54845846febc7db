package node

import (
	"context"
	"maps"
	"sync"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/rpc"
)

// A member that was found not to answer is reported to the room's tracker, which tries it
// itself and, if it does not answer there either, names it no more as a holder. One that
// merely has lost a connection costs the tracker one of its own.

const (
	// reportAgain is how long a member that was reported is not reported again.
	reportAgain = 30 * time.Second
	// reportPause is between two reports, whatever happens: they cost the tracker something.
	reportPause  = time.Second
	reportWithin = 10 * time.Second
	// maxReports bounds those that wait, maxReported those that are remembered.
	maxReports  = 64
	maxReported = 1024
)

// reports are the members of a room that are to be reported, one after the other.
type reports struct {
	mu      sync.Mutex // guards what follows
	made    map[piece.NodeID]time.Time
	waiting []piece.NodeID
	sending bool
}

// add notes that a member is to be reported, unless it was lately. It reports whether its
// caller is to send what waits.
func (r *reports) add(id piece.NodeID, now time.Time) (send bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, known := r.made[id]; known && now.Sub(at) < reportAgain || len(r.waiting) >= maxReports {
		return false
	}
	if len(r.made) >= maxReported {
		maps.DeleteFunc(r.made, func(_ piece.NodeID, at time.Time) bool { return now.Sub(at) >= reportAgain })
		if len(r.made) >= maxReported {
			return false
		}
	}
	if r.made == nil {
		r.made = make(map[piece.NodeID]time.Time)
	}
	r.made[id] = now
	r.waiting = append(r.waiting, id)
	send, r.sending = !r.sending, true
	return send
}

// next takes the member that has waited longest; false if there is none, and nobody sends
// any more.
func (r *reports) next() (id piece.NodeID, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sending = len(r.waiting) > 0; !r.sending {
		return id, false
	}
	id, r.waiting = r.waiting[0], r.waiting[1:]
	return id, true
}

// unreachable has a member reported that does not answer. It returns at once.
func (m *membership) unreachable(id piece.NodeID) {
	if id != m.self && m.node.life.Err() == nil && m.reports.add(id, time.Now()) {
		m.node.work.Go(func() { m.report(m.node.life) })
	}
}

// report makes the reports that wait, until there are none.
func (m *membership) report(ctx context.Context) {
	for {
		id, ok := m.reports.next()
		if !ok {
			return
		}
		within, cancel := context.WithTimeout(ctx, reportWithin)
		gone := false
		err := m.askOf(within, append(m.reachable(false), m.shelf.successors()...), func(ctx context.Context, t *rpc.Tracker) (err error) {
			gone, err = t.ReportUnreachable(ctx, id)
			return err
		})
		cancel()
		m.node.log.Debug("a member that does not answer was reported", "room", m.name, "peer", id, "gone", gone, "err", err)
		select {
		case <-time.After(reportPause):
		case <-ctx.Done():
			return
		}
	}
}

// broken reports the other end of a link whose stream has ended though a pool was open on it.
func (m *membership) broken(l *link) {
	m.mu.Lock()
	up := false
	for _, w := range l.pools {
		up = up || w.up
	}
	up = up && m.links[l.id] == l && !m.closed && !m.isRemoved(l.id)
	m.mu.Unlock()
	if up {
		m.unreachable(l.id)
	}
}
