package swarm

import (
	"time"

	"dragonload/internal/piece"
)

// Mass joins are paced: a tracker takes newcomers in at a bounded rate, so that thousands
// at once neither flood it nor the members whose addresses they are given. The others
// are told when to come back, one after the other and each a little off, and nothing of
// them is kept: neither time nor memory grows with those who wait.
const (
	// queueJitter is the most by which a place in the queue is moved.
	queueJitter = 500 * time.Millisecond

	// maxQueue is the longest that anybody is told to wait. The queue does not grow beyond,
	// so that one who floods it keeps newcomers out no longer than that; those for whom
	// it was too short by then come again and again.
	maxQueue = time.Minute

	// queueSlack is how much later than told a member may come back.
	queueSlack = time.Second

	// shortQueue is told to those who have waited and have come a little too early.
	shortQueue = 250 * time.Millisecond
)

// admission is the queue of a Tracker.
type admission struct {
	paid Instant // until when places are taken, a place each 1/JoinRate (GCRA: ITU-T I.371)
	tail Instant // when the last one in the queue is to come back
}

// admit reports whether a member may come in now; if not it is told when. Members that
// come back with a running download of this pool are always let in: they work, and
// what they hold is needed. Who has a manifest and nothing of its content is a newcomer.
func (t *Tracker) admit(p *pool, id piece.NodeID, a Announce) bool {
	ofManifest := a.Pinned && a.Pin.Kind == piece.Manifest
	if !(ofManifest && a.newcomer()) && a.Pinned && a.Fresh && (!p.pinned || a.Pin == p.pin && a.Incarnation == p.incarnation) || p.members[id] != nil {
		return true
	}
	q := &t.admission
	each := time.Second / time.Duration(t.opts.JoinRate)
	from := max(q.paid, t.now)
	free := from.Sub(t.now) <= each*time.Duration(t.opts.JoinBurst-1)
	if free && (a.Queued || q.tail <= t.now) {
		q.paid = from.Add(each)
		return true
	}
	wait := shortQueue
	if !a.Queued {
		q.tail = min(max(q.tail, t.now.Add(each*time.Duration(t.opts.JoinBurst)/2)).Add(each), t.now.Add(maxQueue-queueJitter))
		wait = q.tail.Sub(t.now)
	}
	wait += time.Duration(t.rng.Int64N(int64(queueJitter)))
	p.meetsUntil = max(p.meetsUntil, t.now.Add(wait+queueSlack)) // the others have somebody to stay for
	t.out = append(t.out, TellMember{Pool: p.id, Member: id, Message: ComeBack{In: wait}})
	return false
}
