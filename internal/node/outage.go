package node

import (
	"fmt"
	"time"

	"dragonload/internal/swarm"
)

// outage is what the user is told while the origin is away or a part of the file is to be
// found nowhere: since when, what is here, and what the pool holds.
func (d *download) outage(code swarm.WarnCode) *Problem {
	p := warning(swarm.Warn{Code: code}, "")
	g := d.generation()
	if g == nil {
		return p
	}
	have, pieces := d.machine.Have().Count(), g.layout.Count()
	here := percent(d.held(g, d.machine.Have()), d.size(g))
	switch {
	case code == swarm.WarnPartNowhere && pieces-have == 1:
		p.Message = fmt.Sprintf("%s is here; one part is nowhere in the pool, and the origin does not give it; everything is kept, and it is fetched as soon as the origin or a member brings it", here)
	case code == swarm.WarnPartNowhere:
		p.Message = fmt.Sprintf("%s is here; %d parts are nowhere in the pool, and the origin does not give them; everything is kept, and they are fetched as soon as the origin or a member brings them", here, pieces-have)
	default:
		since := time.Now().Add(-d.machine.OriginAway()).Format("15:04")
		p.Message = fmt.Sprintf("the origin has been unavailable since %s; %s is here", since, here)
		switch pool := d.machine.InPool(); {
		case d.room == nil:
		case pool == pieces:
			p.Message += ", and the rest comes from members"
		default:
			p.Message += fmt.Sprintf(", the pool holds %s", percent(int64(pool), int64(pieces)))
		}
		p.Message += "; it is asked again by itself, and what came is kept"
	}
	d.originMu.Lock()
	defer d.originMu.Unlock()
	if d.lastError != nil {
		p.Message += "; last: " + d.lastError.Error()
	}
	return p
}

// percent never says 100 % of what is not all there.
func percent(part, of int64) string {
	tenths := int64(1000)
	if of > 0 {
		tenths = int64(float64(part) / float64(of) * 1000)
	}
	if part < of {
		tenths = min(tenths, 999)
	}
	if tenths%10 == 0 {
		return fmt.Sprintf("%d %%", tenths/10)
	}
	return fmt.Sprintf("%d.%d %%", tenths/10, tenths%10)
}
