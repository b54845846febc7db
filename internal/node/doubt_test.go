package node_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"dragonload/internal/node"
	"dragonload/internal/peer/peertest"
	"dragonload/internal/piece"
)

const poisoned = piece.Index(17)

// poison is what a cheat does that lies about one piece alone, and has bytes to match.
// served counts how often the piece went out.
func poison(served *atomic.Int64) peertest.Options {
	layout := piece.Pin{Size: 4 << 20}.Layout()
	return peertest.Options{
		Bytes: func(i piece.Index, right []byte) []byte {
			if i == poisoned {
				served.Add(1)
				clear(right)
			}
			return right
		},
		State: func(i piece.Index, right piece.Digest) []piece.Digest {
			if i == poisoned {
				right = layout.Sum(i, make([]byte, layout.Length(i)))
			}
			return []piece.Digest{right}
		},
	}
}

// Whoever has the right checksum ends with the right file, though a member has poisoned
// the pool: the wrong part is found, replaced, and its stater told of.
func TestFault33RightChecksumPoisonedPool(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"checksum", "origin-digest"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 4<<20)
			s.set(func() {
				s.perConn = 2 << 20
				s.handle = func(w http.ResponseWriter, r *http.Request) {
					if auditsPoison(r) { // as it happens once in a while
						w = cut{w}
					}
					if name == "origin-digest" {
						w.Header().Set("Repr-Digest", "sha-256=:"+base64Sum(s.data)+":")
					}
					s.file(w, r)
				}
			})
			b := newLab(t)
			n := b.run()
			var served atomic.Int64
			b.cheat(s, poison(&served))
			spec := s.roomSpec(t)
			if name == "checksum" {
				spec.Checksums = []node.Checksum{{Algorithm: "sha-256", Hex: sum(s.data)}}
			}
			r := download(t, t.Context(), n, spec)
			saved := r.result(t)
			s.check(t, saved)
			if served.Load() == 0 {
				t.Fatal("the poisoned piece was not asked for")
			}
			if saved.Checked != name {
				t.Errorf("checked=%s, want %s", saved.Checked, name)
			}
			codes := r.warnings()
			if !slices.Contains(codes, "parts-doubted") || !slices.Contains(codes, "wrong-statement") {
				t.Errorf("got warnings %v, want parts-doubted and wrong-statement among them", codes)
			}
			if sent := s.sent.Load(); sent > 2*int64(len(s.data)) {
				t.Errorf("the origin sent %d bytes of a file of %d", sent, len(s.data))
			}
		})
	}
}

// Two who have poisoned the same part alike second each other: that must not make a right
// checksum look wrong.
func TestFault33RightChecksumPoisonedByTwo(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4<<20)
	s.set(func() {
		s.perConn = 2 << 20
		s.handle = func(w http.ResponseWriter, r *http.Request) {
			if auditsPoison(r) {
				w = cut{w}
			}
			s.file(w, r)
		}
	})
	b := newLab(t)
	n := b.run()
	var served atomic.Int64
	b.cheat(s, poison(&served))
	b.cheat(s, poison(&served))
	spec := s.roomSpec(t)
	spec.Checksums = []node.Checksum{{Algorithm: "sha-256", Hex: sum(s.data)}}
	r := download(t, t.Context(), n, spec)
	saved := r.result(t)
	s.check(t, saved)
	if served.Load() == 0 {
		t.Fatal("the poisoned piece was not asked for")
	}
	if saved.Checked != "checksum" {
		t.Errorf("checked=%s, want checksum", saved.Checked)
	}
	if codes := r.warnings(); !slices.Contains(codes, "parts-doubted") || !slices.Contains(codes, "wrong-statement") {
		t.Errorf("got warnings %v, want parts-doubted and wrong-statement among them", codes)
	}
	if sent := s.sent.Load(); sent > 2*int64(len(s.data)) {
		t.Errorf("the origin sent %d bytes of a file of %d", sent, len(s.data))
	}
}

// cut sends no body.
type cut struct{ http.ResponseWriter }

func (w cut) Write([]byte) (int, error) {
	w.ResponseWriter.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// auditsPoison reports whether a request is for a leaf at most of the poisoned piece.
func auditsPoison(r *http.Request) bool {
	var first, last int64
	n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
	return n == 2 && last-first < piece.LeafSize && piece.Pin{Size: 4 << 20}.Layout().At(first) == poisoned
}

// An origin that gives one validator to two versions: the bytes of the earlier run are not
// said to be those that it has.
func TestChecksum_ofAFileOfTwoRuns(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4<<20)
	spec := s.spec(t)
	old := s.data
	s.set(func() {
		s.handle = func(w http.ResponseWriter, r *http.Request) {
			if reaches(r, 2<<20) {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			s.file(w, r)
		}
	})
	download(t, t.Context(), start(t, node.Options{}), spec).failure(t, node.ExitNotFound)
	s.set(func() {
		s.handle, s.data = nil, bytes.Repeat([]byte("new"), len(old)/3+1)[:len(old)]
	})
	spec.Checksums = []node.Checksum{{Algorithm: "sha-256", Hex: sum(old)}}
	e := download(t, t.Context(), start(t, node.Options{}), spec).failure(t, node.ExitChecksum)
	if !strings.Contains(e.Message, "are of an earlier run") || strings.Contains(e.Message, "all parts agree") {
		t.Errorf("it is told: %s", e.Message)
	}
}

// A wrong checksum blames nobody, and is no reason to go on for ever.
func TestFault32WrongChecksumInARoom(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4<<20)
	s.set(func() { s.perConn = 2 << 20 })
	b := newLab(t)
	nodes := []*node.Node{b.run()}
	for i := range 2 {
		nodes = append(nodes, start(t, b.join(fmt.Sprintf("member-%d", i)).options()))
	}
	var runs []*run
	var wrong node.Spec
	for i, n := range nodes {
		spec := s.roomSpec(t)
		spec.LimitRate = 4 << 20
		if i == 0 {
			spec.Checksums = []node.Checksum{{Algorithm: "sha-256", Hex: strings.Repeat("0", 64)}}
			wrong = spec
		}
		runs = append(runs, download(t, t.Context(), n, spec))
	}
	e := runs[0].failure(t, node.ExitChecksum)
	for _, want := range []string{"all parts agree with the origin", sum(s.data), strings.Repeat("0", 64), "--checksum sha-256=" + sum(s.data)} {
		if !strings.Contains(e.Message, want) {
			t.Errorf("%q does not say %q", e.Message, want)
		}
	}
	if kept, err := os.ReadFile(wrong.Dir + "/image.iso.part"); err != nil || sum(kept) != sum(s.data) {
		t.Errorf("the partial file is not what came: %v", err)
	}
	for _, r := range runs[1:] {
		s.check(t, r.result(t))
	}
	for _, r := range runs {
		for _, code := range r.warnings() {
			if code != "parts-doubted" {
				t.Errorf("warned of %s; it told %s", code, r.story())
			}
		}
	}
	if sent := s.sent.Load(); sent > 2*int64(len(s.data))+1<<20 {
		t.Errorf("the origin sent %d bytes of a file of %d", sent, len(s.data))
	}
}

// Where the origin is gone nobody can tell which part is wrong: the download ends, and
// says so.
func TestFault33PoisonedPoolWithoutItsOrigin(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4<<20)
	var gone atomic.Bool
	s.set(func() {
		s.handle = func(w http.ResponseWriter, r *http.Request) {
			if gone.Load() {
				http.NotFound(w, r)
				return
			}
			s.file(w, r)
		}
	})
	b := newLab(t)
	n := b.run()
	var served atomic.Int64
	o := poison(&served)
	bytes := o.Bytes
	o.Bytes = func(i piece.Index, right []byte) []byte {
		gone.Store(true)
		return bytes(i, right)
	}
	b.cheat(s, o)
	spec := s.roomSpec(t)
	spec.Checksums = []node.Checksum{{Algorithm: "sha-256", Hex: sum(s.data)}}
	e := download(t, t.Context(), n, spec).failure(t, node.ExitChecksum)
	if !strings.Contains(e.Message, "not all the parts that members brought were compared with the origin") {
		t.Errorf("%q does not say what is known of its parts", e.Message)
	}
}
