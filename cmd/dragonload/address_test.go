package main

import (
	"net"
	"testing"
)

func TestHasLeft(t *testing.T) {
	t.Parallel()
	own := func() ([]net.Addr, error) {
		var addrs []net.Addr
		for _, s := range []string{"127.0.0.1/8", "192.168.1.20/24", "fd00::20/64", "192.0.2.20/24"} {
			ip, n, err := net.ParseCIDR(s)
			if err != nil {
				return nil, err
			}
			addrs = append(addrs, &net.IPNet{IP: ip, Mask: n.Mask})
		}
		return addrs, nil
	}
	for address, want := range map[string]bool{
		"192.168.1.20:4100": false, "192.168.1.10:4100": true, "10.0.0.1:4100": true,
		"192.0.2.20:4100": false, "192.0.2.10:4100": true, "[2001:db8::1]:4100": true,
		"[fd00::20]:4100": false, "[fd00::10]:4100": true, "169.254.1.1:4100": true, "[fe80::1%eth0]:4100": true,
		"127.0.0.1:4100": false, "8.8.8.8:4100": false, "tracker.example:4100": false,
	} {
		if got := hasLeft(address, own); got != want {
			t.Errorf("hasLeft(%s) = %v", address, got)
		}
	}
	if hasLeft("10.0.0.1:4100", func() ([]net.Addr, error) { return nil, net.ErrClosed }) {
		t.Error("an address was given up though the machine's are not known")
	}
}
