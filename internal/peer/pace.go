package peer

import (
	"sync"
	"time"

	"dragonload/internal/piece"

	"golang.org/x/time/rate"
)

const (
	// A neighbour may say messagesPerSecond things, messageBurst at once; those that cost
	// more to check or to act on count for several. What comes faster waits unread.
	messagesPerSecond = 4000
	messageBurst      = 4 * maxQueued

	// weightOfStream is what making a stream counts for.
	weightOfStream = 64

	// maxPaces is how many paces are kept before those are forgotten that bound nobody.
	maxPaces = 1024
)

// Pace bounds what one member says, on whichever of its streams.
type Pace struct{ limit *rate.Limiter }

func newPace() *Pace { return &Pace{rate.NewLimiter(messagesPerSecond, messageBurst)} }

// Paces are those of the members of a room: one that makes its stream anew goes on at the
// pace that it has reached. The zero value is ready for use, by any goroutine.
type Paces struct {
	mu sync.Mutex
	of map[piece.NodeID]*Pace
}

// Stream returns the pace of a member that has opened a stream; nil if it does so too often.
func (p *Paces) Stream(id piece.NodeID) *Pace {
	pace := p.Of(id)
	if !pace.limit.AllowN(time.Now(), weightOfStream) {
		return nil
	}
	return pace
}

// Of returns the pace of a member.
func (p *Paces) Of(id piece.NodeID) *Pace {
	p.mu.Lock()
	defer p.mu.Unlock()
	pace := p.of[id]
	if pace != nil {
		return pace
	}
	if len(p.of) >= maxPaces {
		for other, pace := range p.of {
			if pace.limit.Tokens() >= messageBurst {
				delete(p.of, other)
			}
		}
	}
	if p.of == nil {
		p.of = make(map[piece.NodeID]*Pace)
	}
	pace = newPace()
	p.of[id] = pace
	return pace
}
