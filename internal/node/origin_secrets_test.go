package node_test

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dragonload/internal/node"
	"dragonload/internal/origin/origintest"
)

// What a user gives for an origin reaches that scheme, host and port and no other,
// whatever leads there. The second server records what arrives.
func TestSecrets_stayWithTheirOrigin(t *testing.T) {
	t.Parallel()
	for name, second := range map[string]string{
		"another host":           "other.test:80",
		"another port":           "origin.test:8080",
		"a name below":           "sub.origin.test:80",
		"a name above":           "test:80",
		"same name, other case":  "ORIGIN.test:81",
		"a name that ends alike": "evil-origin.test:80",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { secretsCase(t, second) })
		})
	}
}

func secretsCase(t *testing.T, second string) {
	what, _ := origintest.Find("cred-watch")
	network := new(origintest.Network)
	g, err := origintest.Start(what, origintest.Options{
		Content: origintest.Content{Seed: 1, Size: caseSize}, Rate: 1 << 20,
		Listen: network.Listen, Hosts: [2]string{"origin.test:80", second},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	cookies := filepath.Join(t.TempDir(), "cookies")
	text := ".origin.test\tTRUE\t/\tFALSE\t0\tgiven\tsecret\n"
	if err := os.WriteFile(cookies, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := node.Spec{
		URL: g.FileURL(url.UserPassword("me", "secret")), Dir: t.TempDir(), Cookies: cookies,
		Header:  http.Header{"X-Api-Key": {"secret"}, "Referer": {"http://secret.test/"}},
		Timeout: 20 * time.Second, ConnectTimeout: 10 * time.Second, GiveUpAfter: 10 * time.Minute,
	}
	r := download(t, t.Context(), start(t, node.Options{Network: network}), spec)
	r.result(t)
	if strings.Contains(r.story(), "secret") {
		t.Errorf("the download told a secret: %s", r.story())
	}
	for _, req := range g.Requests() {
		if req.Header.Get("Authorization") == "" || req.Header.Get("X-Api-Key") != "secret" || !strings.Contains(req.Header.Get("Cookie"), "given=secret") {
			t.Errorf("the origin got %v, want what the user gave for it", req.Header)
		}
	}
	arrived := g.Second.Requests()
	if len(arrived) == 0 {
		t.Fatal("the second server was not asked")
	}
	allowed := map[string]bool{"Host": true, "User-Agent": true, "Accept": true, "Accept-Encoding": true, "Range": true}
	for _, req := range arrived {
		for field, values := range req.Header {
			if !allowed[field] || strings.Contains(strings.Join(values, " "), "secret") {
				t.Errorf("the second server got %s: %v", field, values)
			}
		}
	}
}

// Of a netrc file only the URL that the user gave gets what stands under default: no
// mirror, and no address that a manifest names.
func TestSecrets_netrcDefaultIsForTheUsersURL(t *testing.T) {
	t.Parallel()
	netrc := filepath.Join(t.TempDir(), "netrc")
	if err := os.WriteFile(netrc, []byte("machine elsewhere login me password secret\ndefault login me password secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, named := range []bool{false, true} {
		s := newSite(t, 2<<20)
		m := mirrorOf(t, s)
		spec := s.mirroredBy(t, m)
		spec.Netrc, spec.NetrcNamed = netrc, named
		var ofURL, ofMirror atomic.Int64
		count := func(s *site, with *atomic.Int64) {
			s.handle = func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "" {
					with.Add(1)
				}
				s.file(w, r)
			}
		}
		count(s, &ofURL)
		count(m, &ofMirror)
		download(t, t.Context(), start(t, node.Options{}), spec).result(t)
		if (ofURL.Load() > 0) == named || ofMirror.Load() > 0 {
			t.Errorf("named by a manifest %v: %d requests to the URL and %d to the mirror hold the default", named, ofURL.Load(), ofMirror.Load())
		}
		if m.requests.Load() == 0 {
			t.Error("the mirror was not asked")
		}
	}
}

// A cookie that the first answer sets opens the gate for the requests after it, and is
// sent back to who set it alone.
func TestSecrets_cookiesOfTheFirstAnswerAreReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		what, _ := origintest.Find("cookie-gate")
		network := new(origintest.Network)
		g, err := origintest.Start(what, origintest.Options{
			Content: origintest.Content{Seed: 1, Size: caseSize}, Listen: network.Listen, Hosts: [2]string{"origin.test:80", "other.test:80"},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.Close)
		spec := node.Spec{URL: g.FileURL(nil), Dir: t.TempDir(), Timeout: 20 * time.Second, ConnectTimeout: 10 * time.Second, GiveUpAfter: time.Minute}
		download(t, t.Context(), start(t, node.Options{Network: network}), spec).result(t)
		for k, req := range g.Requests() {
			if got := req.Header.Get("Cookie"); (got == "gate=open") != (k > 0) {
				t.Errorf("request %d has the cookie %q", k, got)
			}
		}
	})
}
