package origin

import "net/netip"

// special are the addresses that are not of the public internet, or serve a purpose
// there that no file is fetched for: every prefix of IANA's two registries, whatever
// they say of its reachability, but for what nat64 and publicIPv6 say. They are
// prefixes and no methods of net/netip: those call many of these global.
//
//	https://www.iana.org/assignments/iana-ipv4-special-registry  (as of 2026-09-17)
//	https://www.iana.org/assignments/iana-ipv6-special-registry  (as of 2026-09-17)
//
// Prefixes that lie within another one of the list are not repeated.
var special = prefixes(
	// IPv4
	"0.0.0.0/8",       // "this network", RFC 791
	"10.0.0.0/8",      // private use, RFC 1918
	"100.64.0.0/10",   // shared address space, RFC 6598
	"127.0.0.0/8",     // loopback, RFC 1122
	"169.254.0.0/16",  // link local, RFC 3927
	"172.16.0.0/12",   // private use, RFC 1918
	"192.0.0.0/24",    // IETF protocol assignments, RFC 6890; DS-Lite, NAT64 discovery and others in it
	"192.0.2.0/24",    // documentation, RFC 5737
	"192.31.196.0/24", // AS112-v4, RFC 7535
	"192.52.193.0/24", // AMT, RFC 7450
	"192.88.99.0/24",  // 6to4 relay anycast, deprecated, RFC 7526
	"192.168.0.0/16",  // private use, RFC 1918
	"192.175.48.0/24", // direct delegation AS112 service, RFC 7534
	"198.18.0.0/15",   // benchmarking, RFC 2544
	"198.51.100.0/24", // documentation, RFC 5737
	"203.0.113.0/24",  // documentation, RFC 5737
	"240.0.0.0/4",     // reserved, RFC 1112; limited broadcast in it, RFC 8190

	// IPv6
	"::/128",            // unspecified, RFC 4291
	"::1/128",           // loopback, RFC 4291
	"::ffff:0:0/96",     // IPv4-mapped, RFC 4291; judged as IPv4 before this list is asked
	"64:ff9b:1::/48",    // local-use IPv4/IPv6 translation, RFC 8215
	"100::/64",          // discard only, RFC 6666
	"100:0:0:1::/64",    // dummy prefix, RFC 9780
	"2001::/23",         // IETF protocol assignments, RFC 2928; Teredo, benchmarking, ORCHID and others in it
	"2001:db8::/32",     // documentation, RFC 3849
	"2002::/16",         // 6to4, RFC 3056
	"2620:4f:8000::/48", // direct delegation AS112 service, RFC 7534
	"3fff::/20",         // documentation, RFC 9637
	"5f00::/16",         // segment routing SIDs, RFC 9602
	"fc00::/7",          // unique local, RFC 4193
	"fe80::/10",         // link local, RFC 4291

	// Not in these registries: multicast (RFC 5771, RFC 4291), site local (RFC 3879).
	"224.0.0.0/4",
	"ff00::/8",
	"fec0::/10",
)

var (
	// publicIPv6 is the only part of IPv6 that IANA gives out for global unicast.
	// https://www.iana.org/assignments/ipv6-address-space
	publicIPv6 = netip.MustParsePrefix("2000::/3")

	// nat64 is in the registry and missing above: in networks without IPv4 every IPv4
	// origin has an address there, and it is as good as the one in it (RFC 6052).
	nat64 = netip.MustParsePrefix("64:ff9b::/96")

	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48")
	compatible = netip.MustParsePrefix("::/96")           // IPv4-compatible, RFC 4291, 2.5.5.1
	translated = netip.MustParsePrefix("::ffff:0:0:0/96") // IPv4-translated, RFC 2765, 2.1
	sixToFour  = netip.MustParsePrefix("2002::/16")
	teredo     = netip.MustParsePrefix("2001::/32")
)

// metadata are the addresses at which clouds tell their machines secrets.
var metadata = map[netip.Addr]bool{
	netip.MustParseAddr("169.254.169.254"): true, // AWS, Azure, Google, Oracle, OpenStack and more
	netip.MustParseAddr("169.254.170.2"):   true, // AWS, credentials of containers
	netip.MustParseAddr("169.254.170.23"):  true, // AWS, credentials of pods
	netip.MustParseAddr("169.254.0.23"):    true, // Tencent
	netip.MustParseAddr("168.63.129.16"):   true, // Azure; a public address
	netip.MustParseAddr("100.100.100.200"): true, // Alibaba
	netip.MustParseAddr("192.0.0.192"):     true, // Oracle
	netip.MustParseAddr("fd00:ec2::254"):   true, // AWS
	netip.MustParseAddr("fd00:ec2::23"):    true, // AWS, credentials of pods
	netip.MustParseAddr("fd20:ce::254"):    true, // Google
	netip.MustParseAddr("fd00:42::42"):     true, // Scaleway
	netip.MustParseAddr("fe80::a9fe:a9fe"): true, // OpenStack
}

func prefixes(all ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(all))
	for i, s := range all {
		list[i] = netip.MustParsePrefix(s)
	}
	return list
}
