package rpc

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
)

// FuzzLocal_guard: whatever headers a call of the local API has, it gets nowhere without
// the token, under another name than loopback's, or from a web page.
func FuzzLocal_guard(f *testing.F) {
	s := &LocalServer{local: newLocal("127.0.0.1:4000"), log: slog.New(slog.DiscardHandler)}
	reached := false
	handler := s.guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	f.Add("127.0.0.1:4000", "", "", "Bearer "+s.local.Token, "POST", "/dragonload.node.v1.NodeService/Status")
	f.Add("localhost:4000", "http://localhost:4000", "same-origin", "Bearer", "GET", provePath)
	f.Add("[::1]:4000", "null", "none", "Bearer  "+s.local.Token, "OPTIONS", "/../prove")
	f.Add("127.0.0.1.evil.example:4000", "", "cross-site", "bearer "+s.local.Token, "POST", "//prove")
	f.Fuzz(func(t *testing.T, host, origin, site, token, method, path string) {
		r := httptest.NewRequest(http.MethodPost, "/", http.NoBody)
		r.Method, r.Host, r.URL.Path = method, host, path
		for name, value := range map[string]string{"Origin": origin, "Sec-Fetch-Site": site, "Authorization": token} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		reached = false
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if !reached {
			return
		}
		if path != provePath && token != "Bearer "+s.local.Token || origin != "" || !loopback(host) {
			t.Errorf("host %q, origin %q, token %q was let through to %q", host, origin, token, path)
		}
	})
}
