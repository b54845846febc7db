package tracker_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"dragonload/internal/catalogue"
	"dragonload/internal/piece"
	"dragonload/internal/tracker"
)

// benchEntry is a folder with ten names inside, of words of which some are common.
func benchEntry(rng *rand.Rand) catalogue.Entry {
	word := func() string { return fmt.Sprintf("w%dx", min(rng.IntN(20_000), rng.IntN(20_000), rng.IntN(20_000))) }
	e := catalogue.Entry{Name: word() + " " + word(), Folder: true, Size: rng.Int64N(1 << 40), Files: 10}
	for k := 0; k < 32; k += 8 {
		binary.BigEndian.PutUint64(e.Manifest[k:], rng.Uint64())
	}
	for range 10 {
		e.Names = append(e.Names, fmt.Sprintf("%s_%s_%06d.jpg", word(), word(), rng.IntN(1_000_000)))
	}
	return e
}

// benchRoom is a site whose room has as many entries as it may have but for those of one
// member, of 10 000 members.
func benchRoom(b *testing.B) *site {
	b.Helper()
	now := time.Now()
	state := tracker.NewMemoryAt(func() time.Time { return now }) // no lease ends
	s := newSite(b, tracker.Options{State: state})
	rng := rand.New(rand.NewPCG(1, 2))
	const members = catalogue.MaxHolders - 1
	for n := range members {
		batch := catalogue.Batch{To: 1}
		for range (catalogue.MaxEntries - 10_000) / members {
			batch.Add = append(batch.Add, benchEntry(rng))
		}
		id := piece.NodeID{byte(n), byte(n >> 8), 1}
		h := catalogue.Holder{ID: id, Number: uint32(n), Name: fmt.Sprint("host-", n), Addr: "10.0.0.1:4100", Seen: "10.0.0.1"}
		if err := state.Publish(b.Context(), s.home.room.ID, h, batch); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

// BenchmarkPublish has a member publish 10 000 entries, over TLS and HTTP/2, to a tracker
// whose room is full but for these, and take them out again. tracker-heap-bytes is what the
// process has in use then, the member's own part included.
func BenchmarkPublish(b *testing.B) {
	s := benchRoom(b)
	c := s.client(s.join(s.home.room, "anna"))
	rng := rand.New(rand.NewPCG(3, 4))
	entries := make([]catalogue.Entry, 10_000)
	for n := range entries {
		entries[n] = benchEntry(rng)
	}
	for b.Loop() {
		p := catalogue.NewPublisher(rng)
		if left := p.Set(entries); len(left) > 0 {
			b.Fatal(left)
		}
		for {
			now := time.Now()
			call, _ := p.Next(now)
			if call == nil {
				break
			}
			if err := c.Publish(b.Context(), ":4100", call.Batch); err != nil {
				b.Fatal(err)
			}
			p.Done(now, call, catalogue.Taken)
		}
		if p.Told() != len(entries) {
			b.Fatal(p.Told())
		}
		b.StopTimer()
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc), "tracker-heap-bytes")
		if err := c.Withdraw(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
