package room

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"dragonload/internal/piece"
)

// FuzzAdmit: of an invite's token nothing can be changed; a request for a certificate that
// was not made for this room, or not signed by its key, gets none.
func FuzzAdmit(f *testing.F) {
	lab := create(f, place(f), "lab")
	good := invite(f, lab, 0, time.Hour)
	request := csr(f, good, place(f))
	// Workers make rooms of their own: what is drawn is the change.
	f.Add(uint16(0), []byte{0}, uint16(0), []byte{0}, uint16(0))
	f.Add(uint16(30), []byte{1}, uint16(0), []byte{0}, uint16(0))
	f.Add(uint16(0), []byte{0}, uint16(40), []byte{255}, uint16(0))
	f.Add(uint16(0), []byte{0}, uint16(0), []byte{0}, uint16(1))
	f.Fuzz(func(t *testing.T, at uint16, mask []byte, at2 uint16, mask2 []byte, cut uint16) {
		token, csr := changed(good.Token, at, mask, cut), changed(request, at2, mask2, 0)
		chain, err := lab.Admit(t.Context(), token, csr, time.Now(), newRegister())
		same := bytes.Equal(token, good.Token) && bytes.Equal(csr, request)
		if same != (err == nil) {
			t.Errorf("token %x with request %x: %v %s", token, csr, err, chain)
		}
		if err != nil && !errors.Is(err, ErrInviteBad) && !errors.Is(err, ErrInviteForeign) && !errors.Is(err, ErrInviteExpired) {
			t.Errorf("refused with %v, which says nothing to the joiner", err)
		}
	})
}

// changed returns data with the bits of mask flipped from at on, without its last bytes.
func changed(data []byte, at uint16, mask []byte, cut uint16) []byte {
	data = bytes.Clone(data)
	for k, m := range mask {
		data[(int(at)+k)%len(data)] ^= m
	}
	return data[:len(data)-int(cut)%len(data)]
}

// replay is a connection whose other end says what was prepared, whatever it hears.
type replay struct {
	net.Conn
	said io.Reader
}

func (r replay) Read(b []byte) (int, error)       { return r.said.Read(b) }
func (r replay) Write(b []byte) (int, error)      { return len(b), nil }
func (r replay) Close() error                     { return nil }
func (r replay) SetDeadline(time.Time) error      { return nil }
func (r replay) SetReadDeadline(time.Time) error  { return nil }
func (r replay) SetWriteDeadline(time.Time) error { return nil }

// overheard is what a client says to a server in a handshake that succeeds.
type overheard struct {
	net.Conn
	said *bytes.Buffer
}

func (o overheard) Write(b []byte) (int, error) {
	o.said.Write(b)
	return o.Conn.Write(b)
}

// FuzzHandshake: nobody gets past it who does not hold a key, not even with all that a
// member said before.
func FuzzHandshake(f *testing.F) {
	lab := create(f, place(f), "lab")
	server := keyring(lab).ServerTLS(all()...)
	var transcripts [][]byte
	for k, cfg := range []*tls.Config{lab.ClientTLS(ALPNData, piece.NodeID{}), lab.ClientTLS(ALPNControl, piece.NodeID{}), invite(f, lab, 0, time.Hour).TLS()} {
		a, b := net.Pipe()
		var said bytes.Buffer
		done := make(chan error, 1)
		go func() { done <- tls.Server(b, server).Handshake() }()
		client := tls.Client(overheard{a, &said}, cfg)
		if err := errors.Join(client.Handshake(), <-done); err != nil {
			f.Fatal(err)
		}
		a.Close()
		b.Close()
		transcripts = append(transcripts, said.Bytes())
		f.Add(uint8(k), uint16(0), []byte{}, uint16(0), []byte{})
		f.Add(uint8(k), uint16(60), []byte{1, 2, 3}, uint16(100), []byte{})
	}
	f.Add(uint8(0), uint16(0), []byte{}, uint16(1<<16-1), []byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, which uint8, at uint16, mask []byte, cut uint16, more []byte) {
		data := append(changed(transcripts[int(which)%len(transcripts)], at, mask, cut), more...)
		conn := tls.Server(replay{said: bytes.NewReader(data)}, server)
		if err := conn.HandshakeContext(t.Context()); err == nil {
			t.Errorf("%x is past the handshake", data)
		}
	})
}

// TestFault37OtherProtocolVersion: one that speaks another version of what members say to
// each other is refused, and knows why.
func TestFault37OtherProtocolVersion(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	_, addr := splitter(t, lab, SplitOptions{})
	for _, alpn := range []string{"dragonload-haves/0", "dragonload-haves/2", "dragonload-data/99"} {
		d := net.Dialer{Timeout: 10 * time.Second}
		c, err := tls.DialWithDialer(&d, "tcp", addr, lab.ClientTLS(alpn, piece.NodeID{}))
		if err == nil {
			c.Close()
		}
		if !errors.Is(RefusedBy(err), ErrVersion) {
			t.Errorf("%s: got %v, want ErrVersion", alpn, err)
		}
	}
}
