package catalogue

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"dragonload/internal/piece"
)

// The benchmarks are of a room as large as a room may be: 10 000 members with ten entries
// each, each entry a folder with up to 40 names, in all as many bytes of names as there
// is place for.

var vocabulary = func() []string {
	rng := rand.New(rand.NewPCG(1, 1))
	words := make([]string, 20_000)
	for n := range words {
		var b strings.Builder
		for range 3 + rng.IntN(8) {
			b.WriteByte("etaoinshrdlucmfwypvbgkqjxz"[min(rng.IntN(26), rng.IntN(26))])
		}
		words[n] = b.String()
	}
	return words
}()

// phrase draws words as they come in names: few of them often, most of them seldom.
func phrase(rng *rand.Rand, zipf *rand.Zipf) string {
	return vocabulary[zipf.Uint64()] + "_" + vocabulary[zipf.Uint64()] + " " + fmt.Sprint(rng.IntN(1_000_000))
}

func roomEntry(rng *rand.Rand, zipf *rand.Zipf, n int) Entry {
	e := Entry{Name: phrase(rng, zipf) + []string{".iso", ".mkv", "", ".zip"}[rng.IntN(4)], Folder: true, Size: rng.Int64N(1 << 40), Files: 40}
	binary.BigEndian.PutUint64(e.Manifest[:], rng.Uint64())
	binary.BigEndian.PutUint32(e.Manifest[8:], uint32(n))
	for text := 640; text > 0; {
		name := phrase(rng, zipf) + []string{".jpg", ".txt", ".flac"}[rng.IntN(3)]
		text -= len(name) + 1
		e.Names = append(e.Names, name)
	}
	return e
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func fullRoom(b *testing.B) (x *Index, bytes uint64, text int) {
	b.Helper()
	before := heap()
	rng := rand.New(rand.NewPCG(2, 2))
	zipf := rand.NewZipf(rng, 1.1, 4, uint64(len(vocabulary)-1))
	x = NewIndex()
	for n := range MaxHolders {
		id := piece.NodeID{byte(n), byte(n >> 8)}
		h := Holder{ID: id, Number: uint32(n), Name: fmt.Sprint("host-", n), Addr: fmt.Sprintf("10.0.%d.%d:4100", n>>8, n&255), Seen: "10.0.0.1"}
		if err := x.SetHolder(h, 1, time.Time{}); err != nil {
			b.Fatal(err)
		}
		for k := range MaxEntries / MaxHolders {
			batch := Batch{From: 1, To: 2, Add: []Entry{roomEntry(rng, zipf, n*10+k)}}
			if x.Fits(id, &batch) != nil {
				batch.Add[0].Names = nil
			}
			if err := x.Put(id, batch.Add[0]); err != nil {
				b.Fatal(err)
			}
		}
	}
	holders, entries, text := x.Size()
	if holders != MaxHolders || entries != MaxEntries {
		b.Fatalf("a room of %d holders and %d entries", holders, entries)
	}
	return x, heap() - before, text
}

// BenchmarkRoom fills the room, and tells how much memory it takes.
func BenchmarkRoom(b *testing.B) {
	for b.Loop() {
		x, bytes, text := fullRoom(b)
		b.ReportMetric(float64(bytes), "heap-bytes")
		b.ReportMetric(float64(text), "name-bytes")
		runtime.KeepAlive(x)
	}
}

// BenchmarkRoomOfRareWords is the same where no two names have a word in common, which
// takes the most memory.
func BenchmarkRoomOfRareWords(b *testing.B) {
	for b.Loop() {
		before := heap()
		x := NewIndex()
		n := uint64(0)
		for k := range MaxText / MaxNodeText {
			id := piece.NodeID{byte(k)}
			if err := x.SetHolder(Holder{ID: id}, 1, time.Time{}); err != nil {
				b.Fatal(err)
			}
			for {
				e := Entry{Manifest: [32]byte{1}, Name: "x"}
				binary.BigEndian.PutUint64(e.Manifest[1:], n)
				for len(e.Names) < MaxNames {
					var name strings.Builder
					for range 4 {
						n++
						fmt.Fprintf(&name, "%s ", strconv.FormatUint(n*7919, 36))
					}
					e.Names = append(e.Names, strings.TrimSuffix(name.String(), " "))
				}
				if x.Fits(id, &Batch{From: 1, To: 2, Add: []Entry{e}}) != nil {
					break
				}
				if err := x.Put(id, e); err != nil {
					b.Fatal(err)
				}
			}
		}
		_, _, text := x.Size()
		b.ReportMetric(float64(heap()-before), "heap-bytes")
		b.ReportMetric(float64(text), "name-bytes")
		runtime.KeepAlive(x)
	}
}

// BenchmarkSearch searches the full room for what is in few entries, in many, and in all.
// slowest-ms is the slowest search of its kind.
func BenchmarkSearch(b *testing.B) {
	x, _, _ := fullRoom(b)
	now := time.Now()
	common := vocabulary[0]
	for _, c := range []struct {
		name string
		q    Query
	}{
		{"all", Query{}},
		{"first100", Query{Limit: 100}},
		{"word", Query{Words: []string{vocabulary[15_000]}}},
		{"commonWord", Query{Words: []string{common}, Limit: 1000}},
		{"commonWordAll", Query{Words: []string{common}}},
		{"oneLetter", Query{Words: []string{"e"}, Limit: 1000}},
		{"oneDigit", Query{Words: []string{"1"}}},
		{"fiveWords", Query{Words: []string{"e", "t", "jpg", "a", "1"}}},
		{"nothing", Query{Words: []string{common, "zzzzzz"}}},
		{"name", Query{Name: "host"}},
		{"id", Query{ID: "a0"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var took []time.Duration
			found := 0
			for b.Loop() {
				began := time.Now()
				found = len(x.Search(c.q, now).Found)
				took = append(took, time.Since(began))
			}
			sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
			b.ReportMetric(float64(found), "found")
			b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "slowest-ms")
		})
	}
}

// BenchmarkSearchWhilePublishing is the slowest of searches while another goroutine
// publishes without a pause.
func BenchmarkSearchWhilePublishing(b *testing.B) {
	x, _, _ := fullRoom(b)
	now := time.Now()
	stop, done := make(chan struct{}), make(chan struct{})
	rng := rand.New(rand.NewPCG(3, 3))
	zipf := rand.NewZipf(rng, 1.1, 4, uint64(len(vocabulary)-1))
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			id := piece.NodeID{byte(n), byte(n >> 8 % 39)}
			e := roomEntry(rng, zipf, n)
			if x.Put(id, e) == nil {
				x.Remove(id, e.Manifest)
			}
		}
	}()
	var slowest time.Duration
	for b.Loop() {
		began := time.Now()
		x.Search(Query{Words: []string{vocabulary[3], "jpg"}, Limit: 1000}, now)
		slowest = max(slowest, time.Since(began))
	}
	close(stop)
	<-done
	b.ReportMetric(float64(slowest.Microseconds())/1000, "slowest-ms")
}

// BenchmarkPut publishes 10 000 entries into the full room and takes them out again, as a
// member that starts and ends.
func BenchmarkPut(b *testing.B) {
	x, _, _ := fullRoom(b)
	rng := rand.New(rand.NewPCG(4, 4))
	zipf := rand.NewZipf(rng, 1.1, 4, uint64(len(vocabulary)-1))
	id := piece.NodeID{1}
	entries := make([]Entry, 10_000)
	for n := range entries {
		entries[n] = roomEntry(rng, zipf, n)
	}
	for b.Loop() {
		for _, e := range entries {
			if err := x.Put(id, e); err != nil {
				b.Fatal(err)
			}
		}
		for _, e := range entries {
			x.Remove(id, e.Manifest)
		}
	}
}

// BenchmarkHolders draws from 10 000 holders of one manifest.
func BenchmarkHolders(b *testing.B) {
	x := NewIndex()
	e := Entry{Manifest: [32]byte{1}, Name: "popular"}
	for n := range MaxHolders {
		id := piece.NodeID{byte(n), byte(n >> 8)}
		if err := x.SetHolder(Holder{ID: id}, 1, time.Time{}); err != nil {
			b.Fatal(err)
		}
		if err := x.Put(id, e); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if got := len(x.Holders(e.Manifest, piece.NodeID{}, 0, time.Time{})); got != MaxHandout {
			b.Fatal(got)
		}
	}
}
