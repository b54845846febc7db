package sim

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkTrackerStep and BenchmarkNodeStep measure what one Step costs in an office
// of so many members: a run from its beginning, until b.N steps or its end.
func BenchmarkTrackerStep(b *testing.B) { benchmarkSteps(b, true) }

func BenchmarkNodeStep(b *testing.B) { benchmarkSteps(b, false) }

func benchmarkSteps(b *testing.B, tracker bool) {
	for _, members := range []int{10, 100, 1_000, 10_000} {
		b.Run(fmt.Sprintf("members=%d", members), func(b *testing.B) {
			var steps uint64
			var took time.Duration
			for b.Loop() {
				r := newRun(Uniform(members, 64<<20, 1))
				r.limit = 3_000_000
				start := time.Now()
				r.clock = func() time.Duration { return time.Since(start) }
				result := r.play()
				if result.Err != nil {
					b.Fatal(result.Err)
				}
				if tracker {
					steps, took = steps+result.TrackerSteps, took+result.TrackerTime
				} else {
					steps, took = steps+result.NodeSteps, took+result.NodeTime
				}
			}
			b.ReportMetric(float64(took.Nanoseconds())/float64(steps), "ns/step")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkUniform plays the office of the issue: 1 000 members, 2 000 pieces.
func BenchmarkUniform(b *testing.B) {
	for b.Loop() {
		result := Run(Uniform(1_000, 2_000<<20, 1))
		if result.Err != nil {
			b.Fatal(result.Err)
		}
		b.ReportMetric(result.Ratio(), "ratio")
		b.ReportMetric(result.Copies(), "copies")
		b.Log(result)
	}
}
