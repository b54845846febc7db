package origin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"dragonload/internal/origin/origintest"
)

// trap is a server of a test that counts who connects to it.
func trap(t *testing.T) *origintest.Server {
	t.Helper()
	return origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
		c.Part(r, file, etag)
		return true
	})
}

func portOf(t *testing.T, server *origintest.Server) string {
	t.Helper()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}

func allow(t *testing.T, entries ...string) []Allowed {
	t.Helper()
	var all []Allowed
	for _, s := range entries {
		a, err := ParseAllowed(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
	return all
}

// permits records the connections that a guard would have permitted and refuses those
// that would leave this machine.
type permits struct {
	mu  sync.Mutex
	all []netip.AddrPort
}

var errLeaves = errors.New("the test stays on this machine")

func (p *permits) lastly(at netip.AddrPort) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, at)
	if !at.Addr().Unmap().IsLoopback() {
		return errLeaves
	}
	return nil
}

// guarded fetches the first bytes of url the way a helper does, and returns the error.
func guarded(t *testing.T, url string, g *Guard) *Error {
	t.Helper()
	c, err := New(Options{URL: url, Guard: g})
	if errors.Is(err, ErrBlocked) {
		return &Error{Kind: Blocked, Err: err}
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, err := fetch(t, c, pinned(1000), 0, 100)
	if err == nil {
		_, err = read(t, a)
	}
	var e *Error
	if err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	return e
}

func TestGuard_blocksEverySpellingOfAnInnerAddress(t *testing.T) {
	t.Parallel()
	server := trap(t)
	port := portOf(t, server)
	hosts := []string{
		"127.0.0.1", "127.1", "127.0.1", "127.1.2.3", "2130706433", "0x7f000001", "0x7f.0.0.1", "0X7F.0.0.1",
		"0177.0.0.1", "017700000001", "127.0.0.01", "00127.0.0.1", "127.0.0.1.", "0", "0.0.0.0", "127.0.0.1%00", "127.0.0.1%2f",
		"[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]",
		"[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::127.0.0.1]", "[64:ff9b:1:7f00:0:100::]",
		"[2002:7f00:1::]", "[2002:7f00:1::1]", "[2001:0:7f00:1::]", "[2001::80ff:fffe]", "[::ffff:0:127.0.0.1]",
		"[2001:db8::5efe:127.0.0.1]", "[fe80::1%25lo]", "[fe80::1%25eth0]", "[::1%25lo]", "[v1.127]",
		"localhost", "LOCALHOST", "localhost.", "１２７.0.0.1", "127。0。0。1", "①②⑦.0.0.1", "127.0.0.1\u3002",
		"user@127.0.0.1", "user:pass@localhost", "%31%32%37.0.0.1",
		"169.254.169.254", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[fd00:ec2::254]", "100.100.100.200",
		"168.63.129.16", "192.0.0.192", "10.0.0.1", "172.16.0.1", "192.168.1.1", "[fd00::1]", "[fe80::1]", "[fec0::1]",
		"100.64.0.1", "198.18.0.1", "192.0.2.1", "255.255.255.255", "224.0.0.1", "[ff02::1]", "240.0.0.1", "[100::1]",
		"[5f00::1]", "[3fff::1]", "[2001:2::1]", "[4000::1]", "[64:ff9b::10.0.0.1]",
	}
	for _, host := range hosts {
		for _, form := range []string{"http://%s:%s/f", "https://%s:%s/f", "http://%s/f"} {
			spelled := fmt.Sprintf(form, host, port)
			if strings.Count(form, "%s") == 1 {
				spelled = fmt.Sprintf(form, host)
			}
			seen := &permits{}
			c, err := New(Options{URL: spelled, Guard: &Guard{lastly: seen.lastly}})
			if err == nil {
				_, err = fetch(t, c, pinned(1000), 0, 100)
				var e *Error
				if !errors.As(err, &e) || e.Kind != Blocked {
					t.Errorf("%s: %v, want blocked", spelled, err)
				}
				c.Close()
			}
			if len(seen.all) > 0 {
				t.Errorf("%s: would have connected to %v", spelled, seen.all)
			}
		}
	}
	if n := server.Dialled(); n > 0 {
		t.Errorf("%d connections came to the target", n)
	}
}

func TestGuard_ownerAllowsOneAddressAndPort(t *testing.T) {
	t.Parallel()
	server := trap(t)
	port := portOf(t, server)
	for entry, ok := range map[string]bool{
		"127.0.0.1:" + port:   true,
		"127.0.0.0/8:" + port: false, // addresses of this machine must be named one by one
		"0.0.0.0/0:" + port:   false,
		"127.0.0.2:" + port:   false,
		"127.0.0.1:1":         false,
	} {
		before := server.Dialled()
		e := guarded(t, server.URL+"/f", &Guard{Allow: allow(t, entry)})
		if ok != (e == nil) || !ok && e.Kind != Blocked {
			t.Errorf("with %s: %v", entry, e)
		}
		if !ok && server.Dialled() != before {
			t.Errorf("with %s: a connection came", entry)
		}
	}
	member := func(a netip.Addr) bool { return a == netip.MustParseAddr("203.0.114.9") }
	g := &Guard{Member: member, Allow: allow(t, "203.0.114.0/24:8080")}
	for at, want := range map[string]realm{
		"203.0.114.9:80": forbidden, "203.0.114.9:8080": forbidden, "[::ffff:203.0.114.9]:80": forbidden,
		"[64:ff9b::203.0.114.9]:80": forbidden, "203.0.114.10:8080": outside, "203.0.114.10:81": forbidden,
	} {
		if got := g.realm(netip.MustParseAddrPort(at)); got != want {
			t.Errorf("%s: realm %d, want %d", at, got, want)
		}
	}
}

// A neighbour with a public address is of the LAN: the owner's list alone admits it.
func TestGuard_neighboursWithPublicAddresses(t *testing.T) {
	t.Parallel()
	network := func(cidr string) net.Addr {
		ip, n, err := net.ParseCIDR(cidr)
		if err != nil {
			t.Fatal(err)
		}
		return &net.IPNet{IP: ip, Mask: n.Mask}
	}
	own := func() ([]net.Addr, error) {
		return []net.Addr{network("203.0.114.7/24"), network("2a02:1:2:3::7/64"), network("198.41.0.4/32")}, nil
	}
	listed := allow(t, "203.0.114.0/25:80", "[2a02:1:2:3::/64]:8080")
	for at, want := range map[string][2]realm{ // without and with the list
		"203.0.114.9:80":            {forbidden, inside},
		"203.0.114.200:443":         {forbidden, forbidden},
		"203.0.114.7:80":            {forbidden, forbidden}, // this machine itself
		"[::ffff:203.0.114.9]:80":   {forbidden, inside},
		"[64:ff9b::203.0.114.9]:80": {forbidden, inside},
		"203.0.115.9:80":            {outside, outside},
		"198.41.0.5:80":             {outside, outside},
		"[2a02:1:2:3::9]:80":        {forbidden, forbidden},
		"[2a02:1:2:3::9]:8080":      {forbidden, inside},
		"[2a02:1:2:4::9]:80":        {outside, outside},
	} {
		for k, list := range [][]Allowed{nil, listed} {
			g := &Guard{Allow: list, own: own}
			if got := g.realm(netip.MustParseAddrPort(at)); got != want[k] {
				t.Errorf("%s with %v: realm %d, want %d", at, list, got, want[k])
			}
		}
	}
	unknown := &Guard{own: func() ([]net.Addr, error) { return nil, errors.New("nobody knows") }}
	if got := unknown.realm(netip.MustParseAddrPort("8.8.8.8:80")); got != forbidden {
		t.Errorf("where this machine is cannot be told: realm %d", got)
	}
}

func TestGuard_redirectNeverLeadsInside(t *testing.T) {
	t.Parallel()
	target := trap(t)
	port := portOf(t, target)
	for _, to := range []string{
		"http://127.0.0.1:" + port + "/f", "http://localhost:" + port + "/f", "http://[::ffff:127.0.0.1]:" + port + "/f",
		"http://2130706433:" + port + "/f", "http://[64:ff9b::7f00:1]:" + port + "/f", "//127.0.0.1:" + port + "/f",
		"http://169.254.169.254/latest", "http://[::ffff:169.254.169.254]/", "http://10.0.0.1/", "http://192.168.0.1/", "file:///etc/passwd",
		"http://u@127.0.0.1:" + port + "/", "ftp://127.0.0.1:" + port + "/",
	} {
		first := origintest.New(t, func(c *origintest.Conn, _ *origintest.Request) bool {
			c.Send(302, "Location: "+to, nil)
			return true
		})
		e := guarded(t, first.URL+"/f", &Guard{Allow: allow(t, strings.TrimPrefix(first.URL, "http://"))})
		if e == nil || e.Kind != Blocked && e.Kind != BadRedirect {
			t.Errorf("to %s: %v", to, e)
		}
	}
	if n := target.Dialled(); n > 0 {
		t.Errorf("%d connections came to the target", n)
	}
}

// A chain that has been at a public address gets to nothing that only the owner's list
// admits: not by a redirect, not by a later request to where the redirects ended.
func TestGuard_chainFromOutsideStaysOutside(t *testing.T) {
	t.Parallel()
	target := trap(t)
	names := &nameServer{answer: func(int) [4]byte { return [4]byte{203, 0, 114, 1} }}
	seen := &permits{}
	g := &Guard{resolver: names.resolver(), lastly: seen.lastly, Allow: allow(t, strings.TrimPrefix(target.URL, "http://"))}
	c, err := New(Options{URL: "http://public.example/f", Guard: g})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	end, err := url.Parse(target.URL + "/f")
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.via, c.far = end, true
	c.mu.Unlock()
	if _, err = fetch(t, c, pinned(1000), 0, 100); err == nil || target.Dialled() != 0 {
		t.Errorf("%v after %d connections, want an error and none", err, target.Dialled())
	}

	x := &exchange{client: c}
	for at, want := range map[string]bool{"8.8.8.8:80": true, strings.TrimPrefix(target.URL, "http://"): false} {
		x.outside.Store(false)
		x.look(remote{at: at})
		if x.outside.Load() != want {
			t.Errorf("outside after %s: %t", at, !want)
		}
	}
	x.outside.Store(true)
	x.look(remote{at: strings.TrimPrefix(target.URL, "http://")})
	if !x.outside.Load() {
		t.Error("the chain has forgotten that it was outside")
	}
}

type remote struct {
	net.Conn
	at string
}

func (r remote) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(r.at)) }

// A name that was public when it was first asked for and leads to loopback, or to an
// allowed LAN address after a redirect, when it is connected to.
func TestGuard_rebinding(t *testing.T) {
	t.Parallel()
	target := trap(t)
	port := portOf(t, target)
	answers := [][4]byte{{203, 0, 114, 1}, {127, 0, 0, 1}}
	names := &nameServer{answer: func(n int) [4]byte { return answers[min(n, 1)] }}
	seen := &permits{}
	// The port is listed, so that only the address is what blocks.
	g := &Guard{resolver: names.resolver(), lastly: seen.lastly, Allow: allow(t, "203.0.114.1:"+port)}
	c, err := New(Options{URL: "http://rebind.example:" + port + "/f", Guard: g})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	var kinds []Kind
	for range 3 {
		_, err := fetch(t, c, pinned(1000), 0, 100)
		kinds = append(kinds, kindOf(t, err))
	}
	if kinds[0] == Blocked || kinds[1] != Blocked || kinds[2] != Blocked {
		t.Errorf("got %v, want the first not blocked, then blocked", kinds)
	}
	want := []netip.AddrPort{netip.MustParseAddrPort("203.0.114.1:" + port)}
	if !slices.Equal(seen.all, want) || target.Dialled() != 0 {
		t.Errorf("would have connected to %v, and %d connections came", seen.all, target.Dialled())
	}
}

// nameServer answers each question for an A record; for others there is no record.
type nameServer struct {
	mu     sync.Mutex
	asked  int
	answer func(n int) [4]byte
}

func (s *nameServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go s.serve(theirs) // ends when the resolver closes its end
		return ours, nil
	}}
}

func (s *nameServer) serve(c net.Conn) {
	defer c.Close()
	for {
		// The pipe is no packet connection, so that the questions come as over TCP.
		var length [2]byte
		if _, err := readFull(c, length[:]); err != nil {
			return
		}
		q := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := readFull(c, q); err != nil {
			return
		}
		end := 12
		for q[end] != 0 {
			end += int(q[end]) + 1
		}
		end += 5
		kind := binary.BigEndian.Uint16(q[end-4:])
		reply := append([]byte{}, q[:end]...)
		reply[2], reply[3] = 0x81, 0x80
		binary.BigEndian.PutUint16(reply[6:], 0)
		binary.BigEndian.PutUint16(reply[10:], 0)
		if kind == 1 {
			s.mu.Lock()
			ip := s.answer(s.asked)
			s.asked++
			s.mu.Unlock()
			binary.BigEndian.PutUint16(reply[6:], 1)
			reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
			reply = append(reply, ip[:]...)
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

func readFull(c net.Conn, p []byte) (int, error) {
	n := 0
	for n < len(p) {
		k, err := c.Read(p[n:])
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func TestGuard_takesNoProxyFromTheEnvironment(t *testing.T) {
	proxy, target := trap(t), trap(t)
	for _, name := range []string{"http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	if e := guarded(t, target.URL+"/f", &Guard{}); e == nil || e.Kind != Blocked {
		t.Errorf("%v, want blocked", e)
	}
	if proxy.Dialled() != 0 || target.Dialled() != 0 {
		t.Errorf("%d connections at the proxy, %d at the target", proxy.Dialled(), target.Dialled())
	}
	if _, err := New(Options{URL: "http://h/", Guard: &Guard{}, Proxy: proxy.URL}); err == nil {
		t.Error("a proxy whose targets nobody checks is accepted")
	}
	// A proxy that the owner trusts with it gets the request, but not for an inner address.
	g := &Guard{Proxied: true}
	c, err := New(Options{URL: "http://name.example/f", Guard: g, Proxy: proxy.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if a, err := fetch(t, c, pinned(1000), 0, 100); err != nil {
		t.Error(err)
	} else if _, err := read(t, a); err != nil {
		t.Error(err)
	}
	if _, err := New(Options{URL: "http://10.0.0.1/", Guard: g, Proxy: proxy.URL}); !errors.Is(err, ErrBlocked) {
		t.Errorf("%v, want blocked", err)
	}
}

func TestGuard_sendsNothingOfAnybodysOwn(t *testing.T) {
	t.Parallel()
	server := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
		if r.Number == 0 {
			c.Send(403, "Set-Cookie: gate=1; Path=/", nil)
			return true
		}
		c.Part(r, file, etag+"\nSet-Cookie: seen=1")
		return true
	})
	at := strings.TrimPrefix(server.URL, "http://")
	c, err := New(Options{URL: server.URL + "/f", Guard: &Guard{Allow: allow(t, at)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	_, err = fetch(t, c, pinned(1000), 0, 100)
	if kindOf(t, err) != Forbidden {
		t.Error(err)
	}
	for range 2 {
		a, err := fetch(t, c, pinned(1000), 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := read(t, a); err != nil {
			t.Fatal(err)
		}
	}
	fixed := http.Header{"Host": {at}, "User-Agent": {"dragonload"}, "Accept": {"*/*"}, "Accept-Encoding": {"identity"}, "Range": {"bytes=0-99"}}
	for _, r := range server.Requests() {
		if r.Method != "GET" || fmt.Sprint(r.Header) != fmt.Sprint(fixed) {
			t.Errorf("%s with %v", r.Method, r.Header)
		}
	}
	if n := len(server.Requests()); n != 3 {
		t.Errorf("%d requests, want 3: the cookie is not tried", n)
	}

	netrc := filepath.Join(t.TempDir(), "netrc")
	for name, o := range map[string]Options{
		"header": {Header: http.Header{"X": {"y"}}}, "agent": {UserAgent: "x"}, "netrc": {Netrc: netrc}, "cookies": {Cookies: netrc},
		"dial": {DialContext: (&net.Dialer{}).DialContext},
	} {
		o.URL, o.Guard = "http://example.org/", &Guard{}
		if c, err := New(o); err == nil {
			c.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestGuard_hostsHaveOneForm(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"http://Example.ORG./f": "http://example.org/f", "http://example.org:80/f?q": "http://example.org:80/f?q",
		"http://8.8.8.8/": "http://8.8.8.8/", "http://8.8.8.8./": "http://8.8.8.8/", "https://[2A00:1450:0:0::5]/": "https://[2a00:1450::5]/",
		"http://xn--bcher-kva.example/": "http://xn--bcher-kva.example/", "http://[64:ff9b::808:808]/": "http://[64:ff9b::808:808]/",
		"http://8.8.8.8:8080/": "", "http://example.org:22/": "", "http://bücher.example/": "", "ftp://example.org/": "",
		"http://a..b/": "", "http://-a.b/": "", "http://./": "", "http://a b/": "", "http://example.org:0/": "", "http://example.org:99999/": "",
	} {
		u, err := url.Parse(given)
		if err == nil {
			u, err = (&Guard{}).admit(u)
		}
		switch {
		case want == "" && err == nil:
			t.Errorf("%s: admitted as %s", given, u)
		case want != "" && (err != nil || u.String() != want):
			t.Errorf("%s: got %v, %v, want %s", given, u, err, want)
		}
	}
}

func TestParseAllowed(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"192.168.1.10:8080", "10.0.0.0/8:80", "[fd00::1]:443", "[fd00::/8]:443"} {
		if a, err := ParseAllowed(s); err != nil || a.String() != s {
			t.Errorf("%s: got %s, %v", s, a, err)
		}
	}
	for _, s := range []string{"", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:99999", "10.0.0.1/8:80", "fd00::1:80", "name:80", "[10.0.0.1]:80", "[::ffff:0:0/96]:80", "[fe80::1%eth0]:80", "10.0.0.1:080"} {
		if a, err := ParseAllowed(s); err == nil {
			t.Errorf("%q: accepted as %s", s, a)
		}
	}
}

// slowGlobal says the same as global, of an address and the IPv4 addresses in it, by
// comparing bits as text.
func slowGlobal(addr netip.Addr) bool {
	addr = addr.Unmap()
	bits := bitsOf(addr)
	in := func(prefix string) bool {
		p := netip.MustParsePrefix(prefix)
		return p.Addr().Is4() == addr.Is4() && strings.HasPrefix(bits, bitsOf(p.Addr())[:p.Bits()])
	}
	for _, p := range special {
		if in(p.String()) {
			return false
		}
	}
	for a := range metadata {
		if a == addr {
			return false
		}
	}
	if addr.Is4() {
		return true
	}
	ipv4 := func(at int) netip.Addr {
		var b [4]byte
		for i := range 32 {
			b[i/8] |= (bits[at+i] - '0') << (7 - i%8)
		}
		return netip.AddrFrom4(b)
	}
	switch {
	case in("64:ff9b::/96"):
		return slowGlobal(ipv4(96))
	case !in("2000::/3"):
		return false
	case bits[64:96] == "00000000000000000101111011111110" || bits[64:96] == "00000010000000000101111011111110":
		return slowGlobal(ipv4(96))
	}
	return true
}

func bitsOf(addr netip.Addr) string {
	var b strings.Builder
	for _, x := range addr.AsSlice() {
		fmt.Fprintf(&b, "%08b", x)
	}
	return b.String()
}

func FuzzGuard_address(f *testing.F) {
	for _, s := range []string{
		"8.8.8.8", "127.0.0.1", "0177.1", "::ffff:10.0.0.1", "64:ff9b::1.1.1.1", "64:ff9b::10.1.1.1", "2002:808:808::", "2001::1", "fe80::1%eth0",
		"2a00::5efe:10.0.0.1", "2a00::200:5efe:8.8.8.8", "168.63.129.16", "example.org", "0x7f.1", "100.64.0.1", "::", "5f00::", "2130706433",
	} {
		f.Add(s, []byte("0123456789abcdef"))
	}
	g := &Guard{own: func() ([]net.Addr, error) { return nil, nil }}
	f.Fuzz(func(t *testing.T, text string, raw []byte) {
		addrs := []netip.Addr{}
		if a, err := netip.ParseAddr(text); err == nil {
			addrs = append(addrs, a)
		}
		if a, ok := netip.AddrFromSlice(raw); ok {
			addrs = append(addrs, a)
		}
		for _, a := range addrs {
			want := forbidden
			if a.Zone() == "" && slowGlobal(a) {
				want = outside
			}
			if got := g.realm(netip.AddrPortFrom(a, 80)); got != want {
				t.Errorf("%s: realm %d, want %d", a, got, want)
			}
			if v := a.Unmap(); want == outside && (v.IsLoopback() || v.IsPrivate() || v.IsLinkLocalUnicast() || v.IsMulticast() || v.IsUnspecified()) {
				t.Errorf("%s is taken for public", a)
			}
		}
		// A host that is admitted is a name that nobody takes for a number, or a public
		// address in its one form; what is admitted once is admitted as it is.
		u, err := url.Parse("http://" + text + "/")
		if err != nil {
			return
		}
		clean, err := g.admit(u)
		if err != nil {
			return
		}
		again, err := g.admit(clean)
		if err != nil || again.String() != clean.String() {
			t.Errorf("%q is admitted as %s and then as %v, %v", text, clean, again, err)
		}
		if a, err := netip.ParseAddr(clean.Hostname()); err == nil {
			if !slowGlobal(a) {
				t.Errorf("%q is admitted as %s", text, clean)
			}
		} else if labels := strings.Split(clean.Hostname(), "."); strings.Trim(labels[len(labels)-1][:1], "0123456789") == "" {
			t.Errorf("%q is admitted as the number-like %s", text, clean)
		}
	})
}
