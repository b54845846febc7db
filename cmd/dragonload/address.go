package main

import (
	"net"
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
