package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	port = 5353
	// maxIfaces bounds the networks that are looked at.
	maxIfaces = 16
)

var (
	group4 = &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: port}
	group6 = &net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: port}
)

// socket sends to the group of multicast DNS and receives what is sent to it.
type socket interface {
	// receive returns one packet, and in which network it came, 0 if that is not known.
	receive(b []byte) (n int, from netip.AddrPort, index int, err error)
	send(b []byte, index int) error
	close() error
}

// interfaces returns the networks in which others may be.
func interfaces() ([]iface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var list []iface
	for _, i := range all {
		const want = net.FlagUp | net.FlagMulticast
		if i.Flags&want != want || i.Flags&(net.FlagLoopback|net.FlagPointToPoint) != 0 || len(list) == maxIfaces {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it has just gone
		}
		one := iface{index: i.Index, name: i.Name}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				if p, err := netip.ParsePrefix(n.String()); err == nil {
					one.nets = append(one.nets, p)
				}
			}
		}
		if len(one.nets) > 0 {
			list = append(list, one)
		}
	}
	return list, nil
}

// openSockets opens what there can be: one for each version of IP. Other programs on this
// machine may use the port as well.
func openSockets(ctx context.Context, ifaces []iface) ([]socket, error) {
	var list []socket
	s4, err4 := open4(ctx, ifaces)
	if err4 == nil {
		list = append(list, s4)
	}
	s6, err6 := open6(ctx, ifaces)
	if err6 == nil {
		list = append(list, s6)
	}
	if len(list) == 0 {
		return nil, errors.Join(err4, err6)
	}
	return list, nil
}

type socket4 struct{ c *ipv4.PacketConn }

// open4: package net makes a port that is listened to at a multicast address one that
// several programs can have, and listens at all addresses then.
func open4(ctx context.Context, ifaces []iface) (socket, error) {
	conn, err := new(net.ListenConfig).ListenPacket(ctx, "udp4", fmt.Sprintf("224.0.0.0:%d", port))
	if err != nil {
		return nil, err
	}
	c := ipv4.NewPacketConn(conn)
	joined := 0
	for _, i := range ifaces {
		if c.JoinGroup(&net.Interface{Index: i.index, Name: i.name}, group4) == nil {
			joined++
		}
	}
	// Where the system cannot tell the network, the sender's address does.
	_ = c.SetControlMessage(ipv4.FlagInterface, true)
	err = errors.Join(c.SetMulticastTTL(255), c.SetMulticastLoopback(true))
	if joined == 0 {
		err = errors.Join(err, errors.New("no network here takes IPv4 multicast"))
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &socket4{c}, nil
}

func (s *socket4) receive(b []byte) (int, netip.AddrPort, int, error) {
	n, cm, from, err := s.c.ReadFrom(b)
	index := 0
	if cm != nil {
		index = cm.IfIndex
	}
	return n, addrPort(from), index, err
}

func (s *socket4) send(b []byte, index int) error {
	if err := s.c.SetMulticastInterface(&net.Interface{Index: index}); err != nil {
		return err
	}
	_, err := s.c.WriteTo(b, nil, group4)
	return err
}

func (s *socket4) close() error { return s.c.Close() }

type socket6 struct{ c *ipv6.PacketConn }

func open6(ctx context.Context, ifaces []iface) (socket, error) {
	conn, err := new(net.ListenConfig).ListenPacket(ctx, "udp6", fmt.Sprintf("[ff02::]:%d", port))
	if err != nil {
		return nil, err
	}
	c := ipv6.NewPacketConn(conn)
	joined := 0
	for _, i := range ifaces {
		if c.JoinGroup(&net.Interface{Index: i.index, Name: i.name}, group6) == nil {
			joined++
		}
	}
	_ = c.SetControlMessage(ipv6.FlagInterface, true) // as for IPv4
	err = errors.Join(c.SetMulticastHopLimit(255), c.SetMulticastLoopback(true))
	if joined == 0 {
		err = errors.Join(err, errors.New("no network here takes IPv6 multicast"))
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &socket6{c}, nil
}

func (s *socket6) receive(b []byte) (int, netip.AddrPort, int, error) {
	n, cm, from, err := s.c.ReadFrom(b)
	index := 0
	if cm != nil {
		index = cm.IfIndex
	}
	return n, addrPort(from), index, err
}

func (s *socket6) send(b []byte, index int) error {
	if err := s.c.SetMulticastInterface(&net.Interface{Index: index}); err != nil {
		return err
	}
	_, err := s.c.WriteTo(b, nil, group6)
	return err
}

func (s *socket6) close() error { return s.c.Close() }

func addrPort(a net.Addr) netip.AddrPort {
	if u, ok := a.(*net.UDPAddr); ok {
		p := u.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return netip.AddrPort{}
}
