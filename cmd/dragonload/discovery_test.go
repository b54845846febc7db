package main

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"

	"dragonload/internal/room"
	"dragonload/internal/rpc"
)

// Nobody is at the address that the room's tracker is said to have, and the system does not
// notice: who is found meanwhile is asked.
func TestAskSeeking(t *testing.T) {
	t.Parallel()
	folder, err := room.OpenFolder(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := folder.Create("lab", "192.0.2.10:4100", folder.Identity())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		slow, found bool
		want        string
	}{
		"at the known address": {want: "192.0.2.10:4100"},
		"at the found one":     {slow: true, found: true, want: "192.0.2.20:4100"},
		"at none":              {slow: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*lookFor)
			defer cancel()
			got := ""
			err := askSeeking(ctx, folder, r, func(ctx context.Context, _ *room.Room, use func(string) bool) bool {
				if c.found {
					return use("192.0.2.20:4100")
				}
				<-ctx.Done()
				return false
			}, func(ctx context.Context, tracker *rpc.Tracker) error {
				if c.slow && tracker.Addr() == "192.0.2.10:4100" {
					<-ctx.Done()
					return ctx.Err()
				}
				got = tracker.Addr()
				return nil
			})
			if got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("%s: answered by %q, %v", name, got, err)
			}
		})
	}
}
