package node_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"dragonload/internal/node"

	"golang.org/x/time/rate"
)

// dripping serves a file with 100 bytes a second.
func dripping(data []byte, etag string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag)
		http.ServeContent(&dripWriter{w, r}, r, "", time.Time{}, bytes.NewReader(data))
	})
}

type dripWriter struct {
	http.ResponseWriter
	r *http.Request
}

func (w *dripWriter) Write(b []byte) (int, error) {
	for n := range b {
		if n%100 == 0 {
			w.ResponseWriter.(http.Flusher).Flush()
			select {
			case <-time.After(time.Second):
			case <-w.r.Context().Done():
				return n, io.ErrClosedPipe
			}
		}
		if _, err := w.ResponseWriter.Write(b[n : n+1]); err != nil {
			return n, err
		}
	}
	return len(b), nil
}

// An address that sends a little now and then holds up nothing for long: another one
// could serve. It does not matter whether it is the URL or a mirror.
func TestMirror_leavesOneThatDrips(t *testing.T) {
	t.Parallel()
	const size, perConn = 8 << 20, 2 << 20
	for _, members := range []int{1, 3} {
		for _, who := range []string{"mirror", "URL"} {
			t.Run(fmt.Sprintf("%s of %d", who, members), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, size)
					w.run()
					good := &site{data: w.data, etag: `"good"`, perConn: rate.Limit(perConn)}
					w.host("good.test:80", http.HandlerFunc(good.serve))
					w.host("drip.test:80", dripping(w.data, `"drip"`))
					var runs []*run
					for k := range members {
						spec := w.spec(t)
						spec.URL, spec.Mirrors = "http://good.test/image.iso", []node.Mirror{{URL: "http://drip.test/image.iso"}}
						if who == "URL" {
							spec.URL, spec.Mirrors[0].URL = spec.Mirrors[0].URL, spec.URL
						}
						o := node.Options{Network: w.network}
						if members == 1 {
							spec.Room = ""
						} else {
							o = w.join(fmt.Sprintf("member-%d", k)).options()
						}
						runs = append(runs, download(t, t.Context(), start(t, o), spec))
					}
					for _, r := range runs {
						w.ends(t, r)
					}
					// One connection alone needs size/perConn, which is 4 s.
					if took := last(runs); took > size/perConn*time.Second+5*time.Second {
						t.Errorf("it took %v; it told %s", took, runs[0].story())
					}
				})
			})
		}
	}
}
