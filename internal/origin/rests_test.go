package origin

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A server that rests is not asked, neither at once nor where a redirect leads to it.
func TestRests_keepsRequestsFromAServer(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	end := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer end.Close()
	way := httptest.NewServer(http.RedirectHandler(end.URL+"/file", http.StatusFound))
	defer way.Close()
	for _, url := range []string{end.URL, way.URL} {
		c := newClient(t, url, func(o *Options) {
			o.Rests = func(server string) time.Duration {
				if server == end.URL {
					return time.Minute
				}
				return 0
			}
		})
		_, err := probe(t, c, 100)
		var e *Error
		if !errors.As(err, &e) || e.Kind != Throttled || e.RetryAfter != time.Minute || e.Status != 0 {
			t.Errorf("%s: got %v, want a pause of a minute", url, err)
		}
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("the server that rests was asked %d times", n)
	}
}

// Who asks for a pause is named, wherever redirects have led; a refusal for good asks for none.
func TestStatusError_namesWhoRests(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]time.Duration{
		http.StatusServiceUnavailable: 30 * time.Second, http.StatusTooManyRequests: 30 * time.Second, http.StatusForbidden: 30 * time.Second,
		http.StatusNotFound: 0, http.StatusUnauthorized: 0, http.StatusGone: 0,
	} {
		end := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Retry-After"] = []string{"2", "30", "soon"}
			w.WriteHeader(status)
		}))
		way := httptest.NewServer(http.RedirectHandler(end.URL+"/file", http.StatusFound))
		_, err := probe(t, newClient(t, way.URL), 100)
		var e *Error
		if !errors.As(err, &e) || e.RetryAfter != want || want > 0 && e.Server != end.URL || strings.Contains(e.Error(), "30s") != (want > 0) {
			t.Errorf("%d: got %v, a pause of %v at %q, want %v", status, err, e.RetryAfter, e.Server, want)
		}
		way.Close()
		end.Close()
	}
}
