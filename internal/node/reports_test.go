package node

import (
	"testing"
	"time"

	"dragonload/internal/piece"
)

// TestReports_areFewAndNotMadeTwice is asked for many reports, of many members and of one.
func TestReports_areFewAndNotMadeTwice(t *testing.T) {
	t.Parallel()
	var r reports
	id := func(n int) piece.NodeID { return piece.NodeID{byte(n), byte(n >> 8)} }
	now := time.Unix(1000, 0)
	if !r.add(id(0), now) || r.add(id(0), now) || r.add(id(1), now) {
		t.Error("not the first one alone has somebody send them")
	}
	for n := range 2 * maxReports {
		r.add(id(n), now)
	}
	count := 0
	for _, ok := r.next(); ok; _, ok = r.next() {
		count++
	}
	if count != maxReports {
		t.Errorf("%d reports are made, want %d", count, maxReports)
	}
	if r.add(id(0), now.Add(reportAgain-1)) || !r.add(id(0), now.Add(reportAgain)) {
		t.Error("a member is not reported again after a while, or before it")
	}
	if got, ok := r.next(); !ok || got != id(0) {
		t.Errorf("the next is %v, %v", got, ok)
	}
	for n := range 2 * maxReported {
		r.add(id(n+1000), now.Add(reportAgain))
		r.next()
	}
	if len(r.made) > maxReported {
		t.Errorf("%d are remembered", len(r.made))
	}
	if !r.add(id(1), now.Add(2*reportAgain)) && !r.sending {
		t.Error("nothing is reported any more")
	}
}
