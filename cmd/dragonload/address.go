package main

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// defaultPort is where members and the tracker meet.
const defaultPort = "4100"

// checkAddress reports an address of a flag that is not HOST:PORT; "" is fine.
func checkAddress(flag, address string) error {
	if address == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return usagef("%s %s is no address; write it as in 192.168.1.5:4100 or :4100", flag, safeText(address))
	}
	if flag == "--advertise" && (host == "" || port == "0" || isUnspecified(host)) {
		return usagef("%s %s: members need a host and a port to connect to, as in 192.168.1.5:4100", flag, safeText(address))
	}
	return nil
}

func isUnspecified(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsUnspecified()
}

// testNets are for examples (RFC 5737, RFC 3849): nobody's on the internet, as private ones.
var testNets = []netip.Prefix{
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32"),
}

// hasLeft reports whether address, once this machine's, is that of its network at another
// time: a private one that it does not have now. A public one may be its router's.
func hasLeft(address string, interfaces func() ([]net.Addr, error)) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false // a name
	}
	ip = ip.Unmap().WithZone("")
	private := ip.IsPrivate() || ip.IsLinkLocalUnicast() || slices.ContainsFunc(testNets, func(n netip.Prefix) bool { return n.Contains(ip) })
	own, err := interfaces()
	return private && err == nil && !slices.ContainsFunc(own, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(ip.AsSlice())
	})
}

// ownAddress returns the first address of this machine that others on its network
// can use, IPv4 before IPv6, "127.0.0.1" if there is none.
func ownAddress() string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "127.0.0.1"
	}
	six := ""
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || !n.IP.IsGlobalUnicast() {
			continue
		}
		if n.IP.To4() != nil {
			return n.IP.String()
		}
		if six == "" {
			six = n.IP.String()
		}
	}
	if six != "" {
		return six
	}
	return "127.0.0.1"
}
