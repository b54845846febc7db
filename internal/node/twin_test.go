package node_test

import (
	"slices"
	"testing"

	"dragonload/internal/node"

	"golang.org/x/time/rate"
)

// Two machines with one key, as when one was cloned from the other: both get the file,
// nobody is blamed, and their users are told.
func TestRoom_twinsBothFinishAndAreTold(t *testing.T) {
	t.Parallel()
	s := newSite(t, 6<<20)
	s.set(func() { s.perConn = rate.Limit(192 << 10) })
	b := newLab(t)
	up := b.run()
	original := b.join("original")
	clone := original.options()
	clone.StateDir = t.TempDir() // the lock of a folder on another machine is another one
	var codes []string
	var runs []*run
	for _, n := range []*node.Node{up, start(t, original.options()), start(t, clone)} {
		runs = append(runs, download(t, t.Context(), n, s.roomSpec(t)))
	}
	for _, r := range runs {
		s.check(t, r.result(t))
		codes = append(codes, r.warnings()...)
	}
	if !slices.Contains(codes, "key-in-use") {
		t.Errorf("got warnings %v, want key-in-use among them", codes)
	}
	for _, code := range codes {
		switch code {
		case "member-banned", "member-shut-out", "wrong-bytes", "wrong-statement", "origin-inconsistent":
			t.Errorf("somebody is blamed: %s", code)
		}
	}
}
