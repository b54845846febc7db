package origin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A member that fetches for others hands out what it reads, so a URL of theirs must not
// lead it to what only it can reach. A Guard decides by the address that is connected
// to, at every dial, after the name was resolved; what a URL looks like is checked too,
// but nothing rests on that.

// ErrBlocked is the cause of every Error of Kind Blocked, and what New returns for a URL
// that a Guard refuses.
var ErrBlocked = errors.New("an address that is not fetched from for others")

// Guard says where a Client may connect to. Its methods may be called concurrently.
//
// Without Allow, that is ports 80 and 443 of addresses of the public internet, other than
// those of the networks that this machine is in itself: who is in one with a public prefix
// reaches neighbours that a firewall keeps the internet from. A chain
// of redirects that has come to such an address never leads to another kind, whatever
// Allow says.
type Guard struct {
	// Allow lists what this machine's owner allows besides. Addresses of this machine,
	// of members, and of clouds' metadata services must be named one by one: no prefix
	// of several addresses holds them.
	Allow []Allowed

	// Member reports whether an address belongs to a member or a tracker; nil for none.
	Member func(netip.Addr) bool

	// Setting is what Allow comes from, for messages; "" means lend_allow.
	Setting string

	// Proxied says that Options.Proxy itself refuses what must not be reached; without
	// it, a proxy and a Guard do not go together.
	Proxied bool

	own      func() ([]net.Addr, error) // addresses and networks of this machine; nil for the system's
	resolver *net.Resolver              // nil for the system's; tests bring their own
	lastly   func(netip.AddrPort) error // nil, or has the last word on what may be connected to; for tests
}

// Allowed is one entry of Guard.Allow.
type Allowed struct {
	Prefix netip.Prefix
	Port   uint16
}

// ParseAllowed reads ADDRESS:PORT or PREFIX:PORT, IPv6 in brackets: 192.168.1.10:8080,
// 10.0.0.0/8:80, [fd00::/8]:443.
func ParseAllowed(s string) (Allowed, error) {
	bad := fmt.Errorf("%q is not of the form 192.168.1.10:8080, 10.0.0.0/8:80 or [fd00::/8]:443", s)
	host, number, err := net.SplitHostPort(s)
	if err != nil || strings.HasPrefix(s, "[") != strings.Contains(host, ":") {
		return Allowed{}, bad
	}
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil || port == 0 || strings.HasPrefix(number, "0") {
		return Allowed{}, bad
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return Allowed{netip.PrefixFrom(addr, addr.BitLen()), uint16(port)}, nil
	}
	prefix, err := netip.ParsePrefix(host)
	if err != nil || prefix.Addr().Is4In6() || prefix != prefix.Masked() {
		return Allowed{}, bad
	}
	return Allowed{prefix, uint16(port)}, nil
}

// String returns what ParseAllowed reads.
func (a Allowed) String() string {
	host := a.Prefix.String()
	if a.Prefix.IsSingleIP() {
		host = a.Prefix.Addr().String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(a.Port)))
}

// realm is where an address lies.
type realm uint8

const (
	forbidden realm = iota
	inside          // only the owner's list admits it
	outside         // of the public internet
)

// realm judges one address and port.
func (g *Guard) realm(at netip.AddrPort) realm {
	addr := at.Addr()
	if !addr.IsValid() || addr.Zone() != "" || at.Port() == 0 {
		return forbidden
	}
	addr = addr.Unmap()
	r := g.realmOf(addr, at.Port())
	// Whoever carries such an address to the IPv4 address in it must find that one
	// permitted too.
	for _, within := range embedded(addr) {
		r = min(r, g.realmOf(within, at.Port()))
	}
	return r
}

func (g *Guard) realmOf(addr netip.Addr, port uint16) realm {
	var listed, named bool // by the owner: at all, by itself
	for _, a := range g.Allow {
		if a.Port == port && a.Prefix.Contains(addr) {
			listed = true
			named = named || a.Prefix.IsSingleIP()
		}
	}
	mine, near := g.near(addr)
	reserved := mine || addr.IsLoopback() || addr.IsUnspecified() || metadata[addr] || g.Member != nil && g.Member(addr)
	switch {
	case !named && reserved: // only an entry for the very address admits it
		return forbidden
	case !near && global(addr) && (listed || port == 80 || port == 443):
		return outside
	case listed:
		return inside
	}
	return forbidden
}

// near reports whether addr is one of this machine's own, and whether it is in a network
// that this machine is in.
func (g *Guard) near(addr netip.Addr) (mine, near bool) {
	own := g.own
	if own == nil {
		own = net.InterfaceAddrs
	}
	all, err := own()
	if err != nil {
		return true, true // it cannot be told
	}
	for _, a := range all {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == addr {
			mine = true
		}
		near = near || n.Contains(addr.AsSlice())
	}
	return mine, near
}

// global reports whether addr belongs to the public internet.
func global(addr netip.Addr) bool {
	if addr.Is6() && !publicIPv6.Contains(addr) && !nat64.Contains(addr) || metadata[addr] {
		return false
	}
	for _, s := range special {
		if s.Contains(addr) {
			return false
		}
	}
	return true
}

// embedded returns the IPv4 addresses that a gateway or a relay may find in addr.
func embedded(addr netip.Addr) []netip.Addr {
	if !addr.Is6() {
		return nil
	}
	b := addr.As16()
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte(b[i : i+4])) }
	switch {
	case compatible.Contains(addr), translated.Contains(addr), nat64.Contains(addr):
		return []netip.Addr{at(12)}
	case localNAT64.Contains(addr):
		// The length of the gateway's own prefix is not known; octet 8 is left out
		// (RFC 6052, 2.2).
		return []netip.Addr{
			netip.AddrFrom4([4]byte{b[6], b[7], b[9], b[10]}),
			netip.AddrFrom4([4]byte{b[7], b[9], b[10], b[11]}),
			at(9), at(12),
		}
	case sixToFour.Contains(addr):
		return []netip.Addr{at(2)}
	case teredo.Contains(addr):
		// The server, and the client with all bits turned (RFC 4380, 4).
		return []netip.Addr{at(4), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})}
	case isatap(b):
		return []netip.Addr{at(12)}
	}
	return nil
}

// isatap knows the interface identifiers of RFC 5214, 6.1.
func isatap(b [16]byte) bool {
	return b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

// control is a net.Dialer's ControlContext: it runs before each connection is made,
// with the address that it will be made to. With onlyOutside, what the owner's list
// alone admits is refused.
func (g *Guard) control(onlyOutside bool) func(ctx context.Context, network, address string, _ syscall.RawConn) error {
	return func(_ context.Context, network, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil || network != "tcp4" && network != "tcp6" {
			return ErrBlocked
		}
		switch r := g.realm(at); {
		case r == forbidden, r == inside && onlyOutside:
			return fmt.Errorf("%s: %w", at, ErrBlocked)
		}
		if g.lastly != nil {
			return g.lastly(at)
		}
		return nil
	}
}

// admit checks what of a URL can be known before its name is resolved, and returns it
// with its host in the one form that there is for it.
func (g *Guard) admit(u *url.URL) (*url.URL, error) {
	host, err := plainHost(u)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBlocked, err)
	}
	clean := *u
	clean.Host = host
	if strings.Contains(host, ":") {
		clean.Host = "[" + host + "]"
	}
	port := uint64(80)
	if u.Scheme == "https" {
		port = 443
	}
	if text := u.Port(); text != "" {
		if port, err = strconv.ParseUint(text, 10, 16); err != nil {
			return nil, fmt.Errorf("%w: port %s", ErrBlocked, text)
		}
		clean.Host += ":" + text
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if at := netip.AddrPortFrom(addr, uint16(port)); g.realm(at) == forbidden {
			return nil, fmt.Errorf("%s: %w", at, ErrBlocked)
		}
		return &clean, nil
	}
	listed := port == 80 || port == 443
	for _, a := range g.Allow {
		listed = listed || uint64(a.Port) == port
	}
	if !listed {
		return nil, fmt.Errorf("%w: port %d", ErrBlocked, port)
	}
	return &clean, nil
}

// plainHost returns u's host if it is an IP address as netip writes it or a name of
// letters, digits, - and _, in lower case, without a dot at its end. Names that some
// resolvers take for a number (127.1, 0x7f000001, 2130706433) are refused, as are
// other scripts (their ASCII form is not), zones, user-info and other schemes.
func plainHost(u *url.URL) (string, error) {
	if u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Opaque != "" {
		return "", errors.New("not a plain http or https address")
	}
	host := u.Hostname()
	if strings.HasPrefix(u.Host, "[") {
		addr, err := netip.ParseAddr(host)
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", errors.New("not an IPv6 address")
		}
		return addr.String(), nil
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "" || len(name) > 253 {
		return "", errors.New("not a host name")
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" ||
			label[0] == '-' || label[len(label)-1] == '-' {
			return "", errors.New("not a host name")
		}
	}
	// No top-level domain begins with a digit, every number's last part does.
	if last := labels[len(labels)-1]; last[0] >= '0' && last[0] <= '9' {
		addr, err := netip.ParseAddr(name)
		if err != nil || !addr.Is4() || addr.String() != name {
			return "", errors.New("a number that is not an IPv4 address")
		}
	}
	return name, nil
}

// checkGuarded refuses options that a Guard does not go with: nothing of anybody's own
// is sent for others.
func (o *Options) checkGuarded() error {
	switch {
	case len(o.Header) > 0 || o.UserAgent != "" || o.Netrc != "" || o.Cookies != "":
		return errors.New("headers, netrc and cookies are not sent for others")
	case o.DialContext != nil:
		return errors.New("a guard dials by itself")
	case o.Proxy != "" && !o.Guard.Proxied:
		return errors.New("the guard cannot see what a proxy connects to; nothing is fetched through it for others unless the proxy is said to refuse inner addresses itself")
	}
	return nil
}

// blocked explains that the guard has refused to go to u.
func (g *Guard) blocked(u *url.URL, err error) *Error {
	setting := g.Setting
	if setting == "" {
		setting = "lend_allow"
	}
	return &Error{Kind: Blocked, Host: hostOf(u), Err: err, what: "blocked: it is not fetched from for others",
		hint: "if it should be, this machine's owner can list its address and port in " + setting}
}

// dialGuarded returns what dials for a transport of its own: a kept connection serves
// no other policy.
func (c *Client) dialGuarded(onlyOutside bool) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return dialGently(net.Dialer{
		Timeout: c.connectTimeout, KeepAlive: 15 * time.Second,
		Resolver: c.guard.resolver, ControlContext: c.guard.control(onlyOutside),
	})
}

// look notes through which connection the exchange goes, a kept one perhaps: from the
// public internet no redirect leads back.
func (x *exchange) look(conn net.Conn) {
	at, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil || x.client.guard.realm(at) != inside {
		x.outside.Store(true)
	}
}
