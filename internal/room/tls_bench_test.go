package room

import (
	"crypto/tls"
	"net"
	"testing"

	"dragonload/internal/piece"
)

// BenchmarkHandshake is one connection between two members over loopback, both sides
// on the same machine.
func BenchmarkHandshake(b *testing.B) {
	creator := create(b, place(b), "lab")
	member := join(b, creator, newRegister())
	for _, bench := range []struct {
		name   string
		curves []tls.CurveID
	}{
		{"x25519", []tls.CurveID{tls.X25519}},
		{"x25519mlkem768", []tls.CurveID{tls.X25519MLKEM768, tls.X25519}},
		{"p256", []tls.CurveID{tls.CurveP256}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			var k Keyring
			k.Add(creator)
			server := k.ServerTLS(ALPNData)
			choose := server.GetConfigForClient
			server.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
				c, err := choose(h)
				c = c.Clone()
				c.CurvePreferences = bench.curves
				return c, err
			}
			client := member.ClientTLS(ALPNData, piece.NodeID{})
			client.CurvePreferences = bench.curves
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			split := Split(l, server, SplitOptions{}, ALPNData)
			defer split.Close()
			b.ReportAllocs()
			for b.Loop() {
				c, err := tls.Dial("tcp", l.Addr().String(), client)
				if err != nil {
					b.Fatal(err)
				}
				s, err := split.Listener(ALPNData).Accept()
				if err != nil {
					b.Fatal(err)
				}
				c.Close()
				s.Close()
			}
		})
	}
}
