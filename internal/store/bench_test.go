package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"dragonload/internal/piece"
)

// BenchmarkWrite stores a file of 256 MiB in pieces of 128 KiB and of 4 MiB, by one
// writer and by four, in order and in random order, and waits for its hash: what a
// download costs beyond its network and the digests of its pieces.
func BenchmarkWrite(b *testing.B) {
	const size = 256 << 20
	data := make([]byte, size)
	r := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < len(data); i += 8 {
		v := r.Uint64()
		for k := range 8 {
			data[i+k] = byte(v >> (8 * k))
		}
	}
	for _, length := range []int64{128 << 10, 4 << 20} {
		layout := piece.Layout{Size: size, PieceLength: length}
		digests := make([]piece.Digest, layout.Count())
		for i := range digests {
			p := layout.Range(piece.Index(i))
			digests[i] = layout.Sum(piece.Index(i), data[p.Start:p.End])
		}
		for _, writers := range []int{1, 4} {
			for _, order := range []string{"in-order", "random"} {
				name := fmt.Sprintf("piece=%dKiB/writers=%d/%s", length>>10, writers, order)
				b.Run(name, func(b *testing.B) {
					b.SetBytes(size)
					at := cpuTime()
					for range b.N {
						benchmarkOne(b, layout, data, digests, writers, order == "random")
					}
					b.ReportMetric((cpuTime()-at).Seconds()/float64(b.N)*(1<<30)/size, "cpu-s/GiB")
				})
			}
		}
	}
}

func benchmarkOne(b *testing.B, layout piece.Layout, data []byte, digests []piece.Digest, writers int, random bool) {
	b.StopTimer()
	dir := b.TempDir()
	j, err := OpenJournal(filepath.Join(dir, "state", "journal.db"), JournalOptions{})
	if err != nil {
		b.Fatal(err)
	}
	o := Options{Target: filepath.Join(dir, "file"), Source: "s"}
	if err := o.validate(); err != nil {
		b.Fatal(err)
	}
	handle, err := j.disk.Create(o.Part)
	if err != nil {
		b.Fatal(err)
	}
	folder, err := os.Stat(dir)
	if err != nil {
		b.Fatal(err)
	}
	f := &File{journal: j, o: o}
	f.install(newPartial(j, &f.o, folder, record{part: o.Part, source: "s", pin: piece.Pin{Size: layout.Size}, layout: layout}, handle))
	order := make([]int, layout.Count())
	for i := range order {
		order[i] = i
	}
	if random {
		rand.New(rand.NewPCG(3, 4)).Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
	}
	b.StartTimer()

	var next atomic.Int64
	var work sync.WaitGroup
	for range writers {
		work.Go(func() {
			for {
				k := int(next.Add(1)) - 1
				if k >= len(order) {
					return
				}
				i := piece.Index(order[k])
				p := layout.Range(i)
				if err := f.Write(i, data[p.Start:p.End], digests[i], true); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	work.Wait()
	if _, err := f.Sums(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	if err := f.Discard(); err != nil {
		b.Fatal(err)
	}
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	b.StartTimer()
}

// BenchmarkTree stores, syncs and names 10 000 files of 4 KiB in 100 folders, in random
// order, by one writer: what a folder of small files costs beyond its network.
func BenchmarkTree(b *testing.B) {
	const count, size = 10_000, 4 << 10
	files, sizes := make([]TreeFile, count), make([]int64, count)
	for k := range files {
		files[k], sizes[k] = TreeFile{Path: fmt.Sprintf("album %02d/picture %04d.jpg", k/100, k), Size: size}, size
	}
	layout, err := piece.LayoutOf(64<<10, sizes)
	if err != nil {
		b.Fatal(err)
	}
	data := randomBytes(size, 1)
	digests := make([]piece.Digest, count)
	for i := range digests {
		digests[i] = layout.Sum(piece.Index(i), data)
	}
	order := rand.New(rand.NewPCG(3, 4)).Perm(count)
	at := cpuTime()
	for range b.N {
		b.StopTimer()
		dir := b.TempDir()
		j, err := OpenJournal(filepath.Join(dir, "state", "journal.db"), JournalOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		f, err := j.OpenTree(b.Context(), TreeOptions{
			Target: filepath.Join(dir, "tree"), Source: "s", Pin: piece.ManifestPin([32]byte{1}, layout),
			Layout: layout, Files: files, Digests: digests,
		})
		if err == nil {
			err = f.Begin(piece.ManifestPin([32]byte{1}, layout), 0, false)
		}
		if err != nil {
			b.Fatal(err)
		}
		for _, i := range order {
			if err := f.Write(piece.Index(i), data, digests[i], false); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := f.Finish(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := errors.Join(f.Close(), j.Close()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.N)*count/b.Elapsed().Seconds(), "files/s")
	b.ReportMetric((cpuTime()-at).Seconds()/float64(b.N), "cpu-s")
}

// BenchmarkShared serves the pieces of 10 000 files of 4 KiB from where they lie, in random
// order.
func BenchmarkShared(b *testing.B) {
	const count = 10_000
	files := make([]TreeFile, count)
	for k := range files {
		files[k] = TreeFile{Path: fmt.Sprintf("album %02d/picture %04d.jpg", k/100, k), Size: 4 << 10}
	}
	s := newGrove(b, files).shared(nil)
	order := rand.New(rand.NewPCG(3, 4)).Perm(count)
	buf := make([]byte, 4<<10)
	n := 0
	for b.Loop() {
		if _, err := s.ReadPiece(piece.Index(order[n%count]), buf); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "files/s")
}
