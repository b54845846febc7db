package catalogue

import (
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// Where a call fails, the next one comes after firstPause, then after twice that, up to
	// lastPause, which leaves a lease time enough to be renewed.
	firstPause = time.Second
	lastPause  = 15 * time.Second
	// What a tracker refuses, or knows no more soon after it was told, is told again after
	// refusedPause, then after twice that, up to longPause.
	refusedPause = 5 * time.Second
	longPause    = 5 * time.Minute
	// settled: whoever has kept what it was told for so long has a new start.
	settled = 2 * time.Minute
	// movedWithin: after a change of trackers members renew within so long, not all at once.
	movedWithin = time.Second
)

// Publisher decides what a member tells one tracker, or several that share a State, of
// what it holds: changes as they come, renewals, and everything anew where the tracker
// does not know it. It does nothing itself: its user asks Next, makes the call, says in
// Done how it went, and asks again.
type Publisher struct {
	rng  *rand.Rand
	last uint64 // version that was used last

	want  []*Entry // what the member holds; nobody changes the entries
	dirty bool     // it may differ from what was told

	version uint64 // as which the tracker knows what was told; 0: it knows nothing
	told    map[[32]byte]*Entry
	doubt   *Call // a Publish of which it is not known whether it took effect

	at       time.Time // when the next call may be made, but for changes
	hold     time.Time // no call at all before
	full     time.Time // nothing is added before
	fails    int       // calls in a row that did not reach the tracker
	refusals int       // times in a row that it refused, or knew nothing
	anewAt   time.Time // when all was published last
}

// Call is what a member tells a tracker.
type Call struct {
	Kind    CallKind
	Batch   Batch  // to publish
	Version uint64 // to renew
}

// CallKind says which of the calls it is.
type CallKind uint8

// The calls.
const (
	CallPublish CallKind = iota + 1
	CallRenew
	CallWithdraw
)

// Outcome is how a call went.
type Outcome uint8

// The outcomes.
const (
	Taken   Outcome = iota // it took effect
	Unknown                // the tracker does not know what the call goes on from
	Full                   // there is no place for what was published
	Refused                // the tracker does not want it now
	Failed                 // it is not known whether it took effect
)

// NewPublisher returns a Publisher of a member that holds nothing.
func NewPublisher(rng *rand.Rand) *Publisher {
	return &Publisher{rng: rng, last: rng.Uint64(), told: make(map[[32]byte]*Entry)}
}

// Set says what the member holds from now on. It returns those that are not published:
// what is no possible entry, what comes twice, and, from the end, what is more than a
// member may publish. The entries are the Publisher's from now on.
func (p *Publisher) Set(entries []Entry) (left []Entry) {
	p.want = make([]*Entry, 0, min(len(entries), MaxNodeEntries))
	seen := make(map[[32]byte]bool, len(entries))
	text := 0
	for i := range entries {
		e := &entries[i]
		if seen[e.Manifest] || len(p.want) == MaxNodeEntries || text+e.Text() > MaxNodeText || e.Validate() != nil {
			left = append(left, *e)
			continue
		}
		seen[e.Manifest] = true
		text += e.Text()
		p.want = append(p.want, e)
	}
	p.dirty = true
	p.full = time.Time{}
	return left
}

// Moved says that another tracker answers now, or the same one after a time in which
// nothing was heard of it: it is asked soon what it knows.
func (p *Publisher) Moved(now time.Time) {
	p.fails, p.hold = 0, time.Time{}
	if soon := now.Add(p.rngUpTo(movedWithin)); p.version != 0 && soon.Before(p.at) {
		p.at = soon
	}
}

// rngUpTo draws a time shorter than d.
func (p *Publisher) rngUpTo(d time.Duration) time.Duration {
	return time.Duration(p.rng.Int64N(int64(d)))
}

// Next returns the call that is to be made now, or nil and the moment at which to ask
// again; zero: when Set or Moved was called.
func (p *Publisher) Next(now time.Time) (*Call, time.Time) {
	switch {
	case now.Before(p.hold):
		return nil, p.hold
	case p.doubt != nil:
		return &Call{Kind: CallRenew, Version: p.doubt.Batch.To}, time.Time{}
	}
	if !p.full.IsZero() && !now.Before(p.full) {
		p.full, p.dirty = time.Time{}, true
	}
	if p.dirty {
		if call := p.change(now); call != nil {
			return call, time.Time{}
		}
		p.dirty = false
	}
	switch {
	case p.version == 0:
		return nil, p.full
	case now.Before(p.at) && !p.full.IsZero() && p.full.Before(p.at):
		return nil, p.full
	case now.Before(p.at):
		return nil, p.at
	}
	return &Call{Kind: CallRenew, Version: p.version}, time.Time{}
}

// change returns the next call that makes what was told what is held, nil if nothing is
// to be changed, or can be now.
func (p *Publisher) change(now time.Time) *Call {
	if len(p.want) == 0 {
		if p.version == 0 {
			return nil
		}
		return &Call{Kind: CallWithdraw}
	}
	b := Batch{From: p.version}
	held := make(map[[32]byte]bool, len(p.want))
	text, more := 0, now.Before(p.full)
	for _, e := range p.want {
		held[e.Manifest] = true
		if old := p.told[e.Manifest]; more || old != nil && old.equal(e) {
			continue
		}
		if len(b.Add) == MaxBatch || text+e.Text() > MaxBatchText {
			more = true
			continue
		}
		text += e.Text()
		b.Add = append(b.Add, *e)
	}
	for manifest := range p.told {
		if !held[manifest] && len(b.Remove) < MaxBatch {
			b.Remove = append(b.Remove, manifest)
		}
	}
	if len(b.Add)+len(b.Remove) == 0 {
		return nil
	}
	if p.last++; p.last == 0 {
		p.last++
	}
	b.To = p.last
	return &Call{Kind: CallPublish, Batch: b}
}

// Done says how a call went that Next has returned last.
func (p *Publisher) Done(now time.Time, call *Call, how Outcome) {
	if how != Failed {
		p.fails = 0
	}
	switch how {
	case Taken:
		p.taken(now, call)
	case Unknown:
		if p.doubt != nil { // so it has not taken effect
			p.doubt, p.dirty = nil, true
			return
		}
		p.version, p.doubt, p.dirty = 0, nil, true
		clear(p.told)
		if now.Sub(p.anewAt) > settled {
			p.refusals = 0
			return
		}
		p.refuse(now)
	case Full:
		p.full = now.Add(longPause + p.rngUpTo(longPause))
	case Refused:
		p.refuse(now)
	case Failed:
		if call.Kind == CallPublish {
			p.doubt = call
		}
		p.fails = min(p.fails+1, 10)
		pause := min(firstPause<<(p.fails-1), lastPause)
		p.hold = now.Add(pause/2 + p.rngUpTo(pause/2))
	}
}

// refuse puts the next call off.
func (p *Publisher) refuse(now time.Time) {
	p.refusals = min(p.refusals+1, 10)
	pause := min(refusedPause<<(p.refusals-1), longPause)
	if p.version != 0 {
		pause = min(pause, lastPause) // what is known stays so
	}
	p.hold = now.Add(pause/2 + p.rngUpTo(pause/2))
}

func (p *Publisher) taken(now time.Time, call *Call) {
	switch call.Kind {
	case CallWithdraw:
		p.version = 0
		clear(p.told)
		return
	case CallRenew:
		if p.doubt != nil {
			call, p.doubt = p.doubt, nil // it did take effect
		}
	}
	if call.Kind == CallPublish {
		b := &call.Batch
		if b.From == 0 {
			clear(p.told)
			p.anewAt = now
		}
		for _, manifest := range b.Remove {
			delete(p.told, manifest)
		}
		for i := range b.Add {
			p.told[b.Add[i].Manifest] = &b.Add[i]
		}
		p.version, p.dirty = b.To, true
	}
	if now.Sub(p.anewAt) > settled {
		p.refusals = 0
	}
	// A little earlier each time, so that members do not renew all at once.
	p.at = now.Add(RenewEvery - p.rngUpTo(RenewEvery/5))
}

// Told returns how many entries the tracker knows.
func (p *Publisher) Told() int { return len(p.told) }

// Withdraw returns the call with which the member ends, nil if the tracker knows nothing
// of it.
func (p *Publisher) Withdraw() *Call {
	if p.version == 0 && p.doubt == nil {
		return nil
	}
	return &Call{Kind: CallWithdraw}
}

func (e *Entry) equal(other *Entry) bool {
	return e.Manifest == other.Manifest && e.Name == other.Name && e.Folder == other.Folder && e.Size == other.Size &&
		e.Files == other.Files && e.Private == other.Private && e.Partial == other.Partial && e.Received == other.Received &&
		slices.Equal(e.Names, other.Names)
}
