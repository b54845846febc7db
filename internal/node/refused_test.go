package node_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dragonload/internal/node"
	"dragonload/internal/origin/origintest"
)

// toldWithin is how long the user of a room may wait to hear that the origin refuses, in
// virtual time, in which the origin answers at once. Who cannot be reached is tried three
// times, by one member after the other.
const toldWithin = 950 * time.Millisecond

// Where nobody else has anything, what the origin refuses for good is told as soon as
// without a room, be there a tracker or not.
func TestRefusal_isToldSoon(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, host string
		status     int
		exit       int
	}{
		{"401", "says.test", http.StatusUnauthorized, node.ExitUnauthorized},
		{"403", "says.test", http.StatusForbidden, node.ExitUnauthorized},
		{"404", "says.test", http.StatusNotFound, node.ExitNotFound},
		{"410", "says.test", http.StatusGone, node.ExitNotFound},
		{"404 with Retry-After", "waits.test", http.StatusNotFound, node.ExitNotFound},
		{"certificate", "signs-itself.test", 0, node.ExitNetwork},
		{"name", "nosuch.invalid", 0, node.ExitUnresolved},
		{"connection", "nobody-listens.test", 0, node.ExitNetwork},
	} {
		for _, place := range []string{"alone", "maker of the room", "member", "two members", "member without a tracker"} {
			t.Run(c.name+"/"+place, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, 1)
					w.host("says.test:80", http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { out.WriteHeader(c.status) }))
					w.host("waits.test:80", http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) {
						out.Header().Set("Retry-After", "30")
						out.WriteHeader(c.status)
					}))
					spec := w.spec(t)
					spec.URL = "http://" + c.host + "/image.iso"
					if c.host == "signs-itself.test" {
						spec.URL = strings.Replace(spec.URL, "http:", "https:", 1)
						w.untrusted(t, c.host+":443")
					}
					w.lab.network = nameless{w.network}
					w.first.network = w.lab.network
					nodes := 1
					switch place {
					case "alone":
						spec.Room = ""
					case "member":
						w.run()
					case "two members":
						w.run()
						nodes = 2
					}
					var all []*node.Node
					for k := range nodes {
						if place == "maker of the room" {
							all = append(all, w.run())
							continue
						}
						all = append(all, start(t, w.join(fmt.Sprintf("member-%d", k)).options()))
					}
					began := time.Now()
					var runs []*run
					for _, n := range all {
						runs = append(runs, download(t, t.Context(), n, spec))
					}
					for _, r := range runs {
						r.failure(t, c.exit)
						if took := time.Since(began); took > toldWithin {
							t.Errorf("it was told after %v, want %v at most; it told %s", took, toldWithin, r.story())
						}
					}
				})
			})
		}
	}
}

// untrusted runs an https server whose certificate nobody trusts.
func (w *world) untrusted(t *testing.T, addr string) {
	t.Helper()
	kind, ok := origintest.Find("tls-self-signed")
	if !ok {
		t.Fatal("there is no such case")
	}
	g, err := origintest.Start(kind, origintest.Options{
		Content: origintest.Content{Seed: 1, Size: 1 << 10}, Listen: w.network.Listen, Hosts: [2]string{addr},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
}

// nameless is a network whose name server knows nothing of the domain invalid.
type nameless struct{ node.Network }

func (n nameless) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if host, _, _ := net.SplitHostPort(addr); strings.HasSuffix(host, ".invalid") {
		return nil, &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
	}
	return n.Network.Dial(ctx, network, addr)
}

// A member that alone is refused gets the file from those who can fetch it, or have it.
func TestRefusal_ofOneMember(t *testing.T) {
	t.Parallel()
	for _, late := range []time.Duration{0, 3 * time.Second} { // after which the others have it all
		for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone} {
			t.Run(fmt.Sprint(status, late), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, 2<<20)
					w.run()
					w.host("picky.test:80", http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
						if r.Header.Get("X-Refuse") != "" {
							out.WriteHeader(status)
							return
						}
						w.ServeHTTP(out, r)
					}))
					var runs []*run
					for k := range 3 {
						spec := w.spec(t)
						spec.URL = "http://picky.test/image.iso"
						if k == 2 {
							time.Sleep(late)
							spec.Header = http.Header{"X-Refuse": {"me"}}
						}
						o := w.join(fmt.Sprintf("member-%d", k)).options()
						o.KeepServing = true // the daemon
						runs = append(runs, download(t, t.Context(), start(t, o), spec))
					}
					for _, r := range runs {
						w.ends(t, r)
					}
				})
			})
		}
	}
}
