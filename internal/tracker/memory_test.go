package tracker_test

import (
	"testing"

	"dragonload/internal/tracker"
	"dragonload/internal/tracker/statetest"
)

func TestMemory_passesTheSuite(t *testing.T) {
	t.Parallel()
	statetest.Run(t, false, func(*testing.T, string) tracker.State { return tracker.NewMemory() })
}
