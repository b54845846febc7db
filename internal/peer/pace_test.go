package peer

import (
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// A member that makes its stream anew has used up what it has used up.
func TestPaces_outliveStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var paces Paces
		member := piece.NodeID{1}
		took := func(id piece.NodeID, messages int) time.Duration {
			ca, cb := pair()
			a, b := NewStream(ca, StreamOptions{}), NewStream(cb, StreamOptions{Pace: paces.Of(id)})
			defer b.Close()
			defer a.Close()
			began := time.Now()
			for k := range messages { // fewer than may be queued
				a.Send(testPool, swarm.AskStatements{Extents: []piece.Extent{{First: piece.Index(k), Count: 1}}})
			}
			for range messages {
				next(t, b)
			}
			return time.Since(began)
		}
		const burst = messageBurst / 8 // each counts for eight
		if d := took(member, burst); d > 100*time.Millisecond {
			t.Errorf("the first %d messages took %v, want no wait", burst, d)
		}
		if d := took(member, 1000); d < 1900*time.Millisecond {
			t.Errorf("on a stream made anew %d messages took %v, want 2 s", 1000, d)
		}
		if d := took(piece.NodeID{2}, 1000); d > 100*time.Millisecond {
			t.Errorf("those of another member took %v, want no wait", d)
		}
	})
}

// Streams made anew without end are refused, and nobody else is forgotten for it.
func TestPaces_boundStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var paces Paces
		made := 0
		for paces.Stream(piece.NodeID{1}) != nil {
			made++
		}
		if made != messageBurst/weightOfStream {
			t.Errorf("%d streams at once, want %d", made, messageBurst/weightOfStream)
		}
		for k := range uint32(4 * maxPaces) {
			var id piece.NodeID
			binary.BigEndian.PutUint32(id[4:], k+1)
			paces.Of(id)
		}
		if n := len(paces.of); n > maxPaces {
			t.Errorf("%d paces are kept", n)
		}
		if paces.Stream(piece.NodeID{1}) != nil {
			t.Error("the pace of one that is over it was forgotten")
		}
		time.Sleep(time.Second)
		if paces.Stream(piece.NodeID{1}) == nil {
			t.Error("a second later it is still refused")
		}
	})
}
