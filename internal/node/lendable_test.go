package node

import (
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dragonload/internal/origin"
	"dragonload/internal/piece"
	"dragonload/internal/rpc"
	"dragonload/internal/swarm"

	"golang.org/x/time/rate"
)

func bareNode(t *testing.T) *Node {
	t.Helper()
	n, err := New(Options{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.journal.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func TestLendable_onlyWhatHoldsNoSecret(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	netrc := file("netrc", "machine h.example login u password p")
	cookies := file("cookies", "h.example\tFALSE\t/\tFALSE\t0\tname\tvalue\n")
	const plain = "http://h.example/f"
	n := bareNode(t)
	for name, c := range map[string]struct {
		spec Spec
		want string
	}{
		"plain":            {Spec{URL: plain}, plain},
		"fragment":         {Spec{URL: plain + "#part"}, plain},
		"query":            {Spec{URL: plain + "?token=x"}, ""},
		"query, permitted": {Spec{URL: plain + "?a=b", LendQuery: true}, plain + "?a=b"},
		"user-info":        {Spec{URL: "http://u:p@h.example/f", LendQuery: true}, ""},
		"user":             {Spec{URL: "http://u@h.example/f"}, ""},
		"header":           {Spec{URL: plain, Header: http.Header{"X-Token": {"x"}}, LendQuery: true}, ""},
		"host header":      {Spec{URL: plain, Header: http.Header{"Host": {"other"}}}, ""},
		"netrc":            {Spec{URL: plain, Netrc: netrc}, ""},
		"netrc of others":  {Spec{URL: "http://other.example/f", Netrc: netrc}, "http://other.example/f"},
		"cookies":          {Spec{URL: plain, Cookies: cookies}, ""},
		"too long":         {Spec{URL: plain + strings.Repeat("a", rpc.MaxSource)}, ""},
	} {
		d, err := n.newDownload(c.spec, nil, func(Event) {})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := d.lendable(); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
		d.release()
	}
}

func TestLending_boundsWhatOneMemberAsksFor(t *testing.T) {
	t.Parallel()
	l := &lending{n: bareNode(t), askers: make(map[piece.NodeID]*rate.Limiter)}
	room := &lentRoom{settled: make(map[swarm.PoolID]bool)}
	l.rooms = []*lentRoom{room}
	for i := range 2 * askBurst {
		room.offers = append(room.offers, rpc.Offer{Pool: swarm.PoolID{byte(i), 1}, Asker: piece.NodeID{1}})
	}
	room.offers = append(room.offers, rpc.Offer{Pool: swarm.PoolID{0, 2}, Asker: piece.NodeID{2}})
	taken := map[piece.NodeID]int{}
	for {
		_, o, ok := l.pick()
		if !ok {
			break
		}
		taken[o.Asker]++
		if l.running > maxLent {
			t.Fatalf("%d pools at a time", l.running)
		}
		l.running--
	}
	if got := taken[piece.NodeID{1}]; got < askBurst || got > askBurst+1 || taken[piece.NodeID{2}] != 1 {
		t.Errorf("taken %v, want %d of the first and 1 of the second", taken, askBurst)
	}
	l.running = maxLent
	room.offers = []rpc.Offer{{Pool: swarm.PoolID{3}, Asker: piece.NodeID{3}}}
	if _, o, ok := l.pick(); ok {
		t.Errorf("took %v beside %d others", o, maxLent)
	}
}

// Whatever has happened at the helper's side, others learn of it in one way.
func TestLent_tellsOthersNoReasons(t *testing.T) {
	t.Parallel()
	n := bareNode(t)
	for kind := origin.Resolve; kind <= origin.Status; kind++ {
		d, err := n.newDownload(Spec{URL: "http://h.example/f"}, nil, func(Event) {})
		if err != nil {
			t.Fatal(err)
		}
		var got []swarm.Failure
		for range maxStrikes {
			got = append(got, (&lent{}).judge(d, &origin.Error{Kind: kind}))
		}
		for k, f := range got {
			want := swarm.Passing
			if k == maxStrikes-1 && kind != origin.Changed {
				want = swarm.Lasting
			}
			if f != want {
				t.Errorf("%v, time %d: %v, want %v", kind, k+1, f, want)
			}
		}
		d.release()
	}
}

func TestMembership_knowsWhereMembersAre(t *testing.T) {
	t.Parallel()
	m := &membership{
		addrs: map[piece.NodeID]string{{1}: "203.0.114.7:4100", {2}: "[2a00:1450::7]:4100", {3}: "name.example:4100"},
		links: map[piece.NodeID]*link{{4}: {host: "203.0.114.8"}, {5}: {host: "fe80::1%eth0"}},
	}
	for addr, want := range map[string]bool{
		"203.0.114.7": true, "2a00:1450::7": true, "203.0.114.8": true, "fe80::1": true, "203.0.114.9": false,
	} {
		if got := m.isAt(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %t, want %t", addr, got, want)
		}
	}
}
