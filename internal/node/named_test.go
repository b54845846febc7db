package node_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"dragonload/internal/node"
)

// sameName makes an origin of two files, /one and /two, which calls both image.iso and
// answers the first request for each only when both have been asked for.
func sameName(t *testing.T) (s *site, two []byte) {
	s = newSite(t, 300<<10)
	two = slices.Clone(s.data)
	for i := range two {
		two[i] ^= 0xff
	}
	var mu sync.Mutex
	asked, both := map[string]bool{}, make(chan struct{})
	s.handle = func(w http.ResponseWriter, r *http.Request) {
		data, etag := s.data, `"one"`
		if r.URL.Path == "/two" {
			data, etag = two, `"two"`
		}
		mu.Lock()
		if !asked[r.URL.Path] {
			if asked[r.URL.Path] = true; len(asked) == 2 {
				close(both)
			}
		}
		mu.Unlock()
		select {
		case <-both:
		case <-r.Context().Done():
			return
		}
		w.Header().Set("ETag", etag)
		w.Header().Set("Content-Disposition", `attachment; filename="image.iso"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
	return s, two
}

// Two downloads that learn from their origins, at one time, that their files have one
// name: one has it, and the other ends as with an existing file, or has a further name.
func TestNames_thatOriginsGiveTwice(t *testing.T) {
	t.Parallel()
	for _, rename := range []bool{false, true} {
		s, two := sameName(t)
		n := start(t, node.Options{})
		spec := s.spec(t)
		spec.AutoRename = rename
		var runs []*run
		for _, path := range []string{"/one", "/two"} {
			spec.URL = s.URL + path
			runs = append(runs, download(t, t.Context(), n, spec))
		}
		var failures int
		for i, r := range runs {
			r.wait(t)
			if r.err != nil {
				if e := r.failure(t, node.ExitExists); e.Code != "in-use" {
					t.Errorf("the second failed with %v, want in-use", e)
				}
				failures++
				continue
			}
			got, err := os.ReadFile(r.result(t).Path)
			if err != nil || !bytes.Equal(got, [][]byte{s.data, two}[i]) {
				t.Errorf("rename %v: what is saved for source %d is not its file (%v)", rename, i, err)
			}
		}
		if want := map[bool]int{false: 1, true: 0}[rename]; failures != want {
			t.Errorf("with AutoRename %v %d of the two failed, want %d", rename, failures, want)
		}
		names, err := filepath.Glob(filepath.Join(spec.Dir, "*"))
		want := []string{filepath.Join(spec.Dir, "image.iso")}
		if rename {
			want = append(want, want[0]+".1")
		}
		if err != nil || !slices.Equal(names, want) {
			t.Errorf("with AutoRename %v there are %v (%v), want %v", rename, names, err, want)
		}
	}
}

// A name that is refused is told, with what is used in its place, once.
func TestNames_refusedOfTheOrigin(t *testing.T) {
	t.Parallel()
	s := newSite(t, 300<<10)
	s.handle = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Disposition", `attachment; filename="../../evil"`)
		s.file(w, r)
	}
	n := start(t, node.Options{})
	told := func(spec node.Spec) (messages []string) {
		r := download(t, t.Context(), n, spec)
		s.check(t, r.result(t))
		for _, ev := range r.events {
			if ev.Warning != nil {
				messages = append(messages, ev.Warning.Code+": "+ev.Warning.Message)
			}
		}
		return messages
	}
	want := `name-refused: the name that the origin gives the file is not taken, for "../../evil" is not usable as a file name: ` +
		`it has a path separator; the file is called "image.iso" (-o gives it another name)`
	if got := told(s.spec(t)); len(got) != 1 || got[0] != want {
		t.Errorf("told %q, want %q", got, want)
	}
	spec := s.spec(t)
	spec.Output = filepath.Join(spec.Dir, "mine")
	if got := told(spec); len(got) > 0 {
		t.Errorf("told %q of a file that the user has named", got)
	}
}
