package tracker_test

import (
	"testing"

	"dragonload/internal/tracker"
	"dragonload/internal/tracker/statetest"
)

func TestMemory_passesTheSuite(t *testing.T) {
	t.Parallel()
	statetest.Run(t, false, func(_ *testing.T, _ string, c *statetest.Clock) tracker.State { return tracker.NewMemoryAt(c.Now) })
}
