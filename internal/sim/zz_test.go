package sim

import (
	"dragonload/internal/piece"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

type probeTick struct {
	last     int64
	lastPeer int64
	every    time.Duration
}

func (p *probeTick) happen(r *run) {
	whole, sum, min := 0, 0, 1<<30
	leased, pulls, fetches, asked := 0, 0, 0, 0
	union := piece.NewBitfield(r.origin.current.layout.Count())
	for _, m := range r.members {
		if !m.disk.set {
			min = 0
			continue
		}
		c := m.disk.have.Count()
		for e := range m.disk.have.Extents {
			for i := e.First; i < e.End(); i++ {
				union.Set(i)
			}
		}
		sum += c
		if c < min {
			min = c
		}
		if m.whole {
			whole++
		}
		if m.proc != nil {
			pulls += len(m.proc.pulls)
			fetches += len(m.proc.fetches)
			asked += len(m.proc.asked)
		}
	}
	fmt.Printf("%6.2f origin %5.1f MB (+%5.1f) audit %4.1f peers +%7.1f MB union %d whole %d min %d avg %d pulls %d fetches %d asked %d leased %d flows %d\n", time.Duration(r.now).Seconds(), float64(r.result.OriginBytes)/1e6, float64(r.result.OriginBytes-p.last)/1e6,
		float64(r.result.AuditBytes)/1e6, float64(r.result.PeerBytes-p.lastPeer)/1e6, union.Count(), whole, min, sum/len(r.members), pulls, fetches, asked, leased, r.origin.up.flows)
	p.last = r.result.OriginBytes
	p.lastPeer = r.result.PeerBytes
	if r.waiting > 0 {
		r.later(p.every, p)
	}
}

func TestZZ(t *testing.T) {
	get := func(k string, d int) int {
		if v, err := strconv.Atoi(os.Getenv(k)); err == nil {
			return v
		}
		return d
	}
	w := Uniform(get("ZM", 200), int64(get("ZS", 400))<<20, 1)
	r := newRun(w)
	r.later(0, &probeTick{every: time.Duration(get("ZE", 1000)) * time.Millisecond})
	fmt.Println(r.play())
}

func TestYY(t *testing.T) {
	for seed := uint64(1); seed < 800; seed++ {
		w := Draw(seed)
		if len(w.Faults) != 1 || w.Faults[0].Kind != TrackerDies || w.PeerLosses+w.OriginLosses > 0 {
			continue
		}
		lies := false
		for _, m := range w.Members {
			lies = lies || m.LiesOneIn > 0 || m.LeavesWhenWhole
		}
		if lies {
			continue
		}
		r := newRun(w)
		r.budget.allowed = 1 << 60
		res := r.play()
		late := 0
		for _, m := range w.Members {
			if m.Join > w.Faults[0].At {
				late++
			}
		}
		e := ""
		if res.Err != nil {
			e = res.Err.Error()
			if len(e) > 160 {
				e = e[:160]
			}
		}
		fmt.Printf("seed %d members %d late %d pieces %d at %v for %v silent %v stream %v: copies %.3f (dup pieces %.1f) ratio %.2f %s\n", seed, len(w.Members), late, res.Pieces, w.Faults[0].At.Round(time.Millisecond), w.Faults[0].For.Round(time.Millisecond), w.Faults[0].Silent, w.Origin.OneStream, res.Copies(), (res.Copies()-1)*float64(res.Pieces), res.Ratio(), e)
	}
}
