package origin

import (
	"bytes"
	"crypto/tls"
	"testing"
	"time"

	"dragonload/internal/origin/origintest"
)

func TestUnproven_endsWithTheAlertOfTLS(t *testing.T) {
	t.Parallel()
	ca, leaf := authority(t)
	record := []byte{23, 3, 3, 0, 100, 1, 2, 3} // the beginning of one with 100 bytes
	for _, test := range []struct {
		name  string
		end   func(c *tls.Conn) // before the connection is closed
		whole bool
	}{
		{"alert", func(c *tls.Conn) { c.CloseWrite() }, true},
		{"between records", func(*tls.Conn) {}, false},
		{"within a record", func(c *tls.Conn) { c.NetConn().Write(record) }, false},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(test.name+" "+tls.VersionName(version), func(t *testing.T) {
				t.Parallel()
				config := leaf("127.0.0.1", time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
				config.MaxVersion = version
				server := origintest.NewTLS(t, config, func(c *origintest.Conn, _ *origintest.Request) bool {
					c.Header(200, "Connection: close")
					c.Write(file)
					test.end(c.Conn.(*tls.Conn))
					return false
				})
				a, err := newClient(t, server.URL+"/f", func(o *Options) { o.CACert = ca }).Probe(t.Context(), 0)
				if err != nil {
					t.Fatal(err)
				}
				if !a.Unproven {
					t.Error("a body without a length is taken for a proven one")
				}
				got, err := read(t, a)
				if !bytes.Equal(got, file) {
					t.Errorf("%d bytes, want %d", len(got), len(file))
				}
				switch {
				case test.whole && err != nil:
					t.Errorf("a body that was closed as TLS wants: %v", err)
				case !test.whole && err == nil:
					t.Error("a body that was cut off is taken for whole")
				case !test.whole && kindOf(t, err) != Network:
					t.Error(err)
				}
			})
		}
	}
}
