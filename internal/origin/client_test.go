package origin

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"dragonload/internal/origin/origintest"
	"dragonload/internal/piece"
)

func TestNew_refusesBadOptionsWithoutSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, o := range map[string]Options{
		"no URL":           {},
		"scheme":           {URL: "ftp://user:SECRET@host/f"},
		"no host":          {URL: "http:///SECRET"},
		"port":             {URL: "http://user:SE/CRET@host/"},
		"space":            {URL: "http://user:SECRET@ho st/"},
		"header name":      {URL: "http://h/", Header: http.Header{"a b": {"SECRET"}}},
		"header value":     {URL: "http://h/", Header: http.Header{"X-Key": {"SECRET\r\nX: y"}}},
		"own header":       {URL: "http://h/", Header: http.Header{"range": {"bytes=0-SECRET"}}},
		"if-range":         {URL: "http://h/", Header: http.Header{"If-Range": {"SECRET"}}},
		"no netrc":         {URL: "http://h/", Netrc: filepath.Join(dir, "none")},
		"bad netrc":        {URL: "http://h/", Netrc: file("netrc", "machine h login me SECRET")},
		"bad cookies":      {URL: "http://h/", Cookies: file("cookies", "h\tSECRET")},
		"proxy scheme":     {URL: "http://h/", Proxy: "gopher://u:SECRET@p:1"},
		"proxy":            {URL: "http://h/", Proxy: "http://u:SECRET@p:x"},
		"no certificate":   {URL: "http://h/", CACert: filepath.Join(dir, "none")},
		"not certificates": {URL: "http://h/", CACert: file("pem", "SECRET")},
	} {
		if c, err := New(o); err == nil {
			c.Close()
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), "CRET") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRedacted_dropsSecrets(t *testing.T) {
	t.Parallel()
	c := newClient(t, "https://me:SECRET@host:8443/a%20b/c.bin?token=SECRET#SECRET")
	if got, want := c.Redacted(), "https://host:8443/a%20b/c.bin"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSilent_endsWaitsForHeaderAndBody(t *testing.T) {
	t.Parallel()
	short := func(o *Options) { o.Timeout = 50 * time.Millisecond }
	t.Run("50 mute", func(t *testing.T) {
		t.Parallel()
		server := origintest.New(t, func(c *origintest.Conn, _ *origintest.Request) bool { c.Hang(); return false })
		_, err := probe(t, newClient(t, server.URL+"/f", short), 100)
		if kindOf(t, err) != Silent {
			t.Error(err)
		}
		checkMessage(t, err)
	})
	t.Run("48 stall", func(t *testing.T) {
		t.Parallel()
		server := origintest.New(t, func(c *origintest.Conn, _ *origintest.Request) bool {
			c.Header(206, etag+"\nContent-Length: 100\nContent-Range: bytes 0-99/1000")
			_, _ = c.Write(file[:40])
			c.Hang()
			return false
		})
		a, err := probe(t, newClient(t, server.URL+"/f", short), 100)
		if err != nil {
			t.Fatal(err)
		}
		got, err := read(t, a)
		if kindOf(t, err) != Silent || !bytes.Equal(got, file[:40]) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
	t.Run("slow reader is no silence", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			clientEnd, serverEnd := net.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer serverEnd.Close()
				buf := make([]byte, 4096)
				_, _ = serverEnd.Read(buf)
				_, _ = io.WriteString(serverEnd, "HTTP/1.1 206 Partial Content\r\nETag: \"v1\"\r\nContent-Length: 4\r\nContent-Range: bytes 0-3/8\r\n\r\n")
				_, _ = io.WriteString(serverEnd, "ab")
				_, _ = io.WriteString(serverEnd, "cd")
			}()
			c := newClient(t, "http://origin/f", func(o *Options) {
				o.Timeout = time.Second
				o.DialContext = func(context.Context, string, string) (net.Conn, error) { return clientEnd, nil }
			})
			a, err := c.Probe(t.Context(), 4)
			if err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 2)
			_, err = io.ReadFull(a.Body, buf)
			time.Sleep(time.Hour) // of the bubble's clock
			if rest, err2 := io.ReadAll(a.Body); err != nil || err2 != nil || string(rest) != "cd" {
				t.Errorf("%q, %v, %v", rest, err, err2)
			}
			a.Body.Close()
			c.Close()
			<-done
		})
	})
}

// A dial that never ends is left after ConnectTimeout.
func TestNetwork_connectTimeout(t *testing.T) {
	t.Parallel()
	c := newClient(t, "http://127.0.0.1/f", func(o *Options) {
		o.ConnectTimeout = 30 * time.Millisecond
		o.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})
	_, err := probe(t, c, 100)
	if kindOf(t, err) != Network || !strings.Contains(err.Error(), "no connection within") {
		t.Error(err)
	}
}

func TestNetwork_resetKeepsWhatCame(t *testing.T) {
	t.Parallel()
	big := origintest.File(300_000)
	server := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
		c.Header(206, etag+"\nContent-Length: 300000\nContent-Range: bytes 0-299999/300000")
		_, _ = c.Write(big[:100_000])
		c.Reset()
		return false
	})
	a, err := probe(t, newClient(t, server.URL+"/f"), 1<<20)
	if err != nil {
		if kindOf(t, err) != Network { // the reset may overtake the header
			t.Fatal(err)
		}
		return
	}
	got, err := read(t, a)
	var e *Error
	if !errors.As(err, &e) || e.Kind != Network || !e.Busy() || !bytes.Equal(got, big[:len(got)]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestDialFailures_haveTheirKinds(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	_, err = probe(t, newClient(t, "http://"+addr+"/f"), 100)
	if kindOf(t, err) != Refused {
		t.Error(err)
	}
	for dns, temporary := range map[*net.DNSError]bool{
		{Err: "no such host", Name: "nowhere.invalid", IsNotFound: true}:        false,
		{Err: "server misbehaving", Name: "nowhere.invalid", IsTemporary: true}: true,
	} {
		_, err = probe(t, newClient(t, "http://nowhere.invalid/f", func(o *Options) {
			o.DialContext = func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: dns}
			}
		}), 100)
		var e *Error
		if !errors.As(err, &e) || e.Kind != Resolve || e.Temporary != temporary {
			t.Errorf("%+v", e)
		}
	}
}

func TestCancelled_byContextCloseAndBodyClose(t *testing.T) {
	t.Parallel()
	stalled := func(c *origintest.Conn, _ *origintest.Request) bool {
		c.Header(206, etag+"\nContent-Length: 100\nContent-Range: bytes 0-99/1000")
		_, _ = c.Write(file[:40])
		c.Hang()
		return false
	}
	server := origintest.New(t, stalled)
	begin := func(c *Client, ctx context.Context) *Answer {
		a, err := c.Probe(ctx, 100)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(a.Body, make([]byte, 40)); err != nil {
			t.Fatal(err)
		}
		return a
	}
	c := newClient(t, server.URL+"/f")
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	a := begin(c, ctx)
	cancel(why)
	if _, err := a.Body.Read(make([]byte, 1)); kindOf(t, err) != Cancelled || !errors.Is(err, why) {
		t.Errorf("by context: %v", err)
	}
	a = begin(c, t.Context())
	a.Body.Close()
	if _, err := a.Body.Read(make([]byte, 1)); kindOf(t, err) != Cancelled {
		t.Errorf("by body: %v", err)
	}
	a = begin(c, t.Context())
	c.Close()
	if _, err := a.Body.Read(make([]byte, 1)); kindOf(t, err) != Cancelled || !errors.Is(err, ErrClosed) {
		t.Errorf("by client: %v", err)
	}
	if _, err := c.Probe(t.Context(), 100); kindOf(t, err) != Cancelled || !errors.Is(err, ErrClosed) {
		t.Errorf("after close: %v", err)
	}
}

func TestConnections_areKeptAndBounded(t *testing.T) {
	t.Parallel()
	server := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
		c.Part(r, file, etag)
		return true
	})
	c := newClient(t, server.URL+"/f", func(o *Options) { o.MaxConnections = 1 })
	for i := range int64(5) {
		a, err := fetch(t, c, pinned(1000), i*100, i*100+100)
		if err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := c.Fetch(ctx, pinned(1000), piece.Range{Start: 0, End: 1}); kindOf(t, err) != Cancelled {
				t.Errorf("second request beside the first: %v", err)
			}
		}
		if _, err := read(t, a); err != nil {
			t.Fatal(err)
		}
	}
	if n := server.Dialled(); n != 1 {
		t.Errorf("%d connections for five requests, want 1", n)
	}
}

func TestLimiter_isChargedPerByte(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clientEnd, serverEnd := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer serverEnd.Close()
			_, _ = serverEnd.Read(make([]byte, 4096))
			_, _ = io.WriteString(serverEnd, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
			_, _ = serverEnd.Write(make([]byte, 100_000))
		}()
		c := newClient(t, "http://origin/f", func(o *Options) {
			o.Limiter = rate.NewLimiter(10_000, 1000)
			o.DialContext = func(context.Context, string, string) (net.Conn, error) { return clientEnd, nil }
		})
		start := time.Now()
		a, err := c.Probe(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, a.Body)
		if took := time.Since(start).Seconds(); err != nil || n != 100_000 || took < 9.8 || took > 10 {
			t.Errorf("%d bytes in %v s, %v; want 100000 in 9.9", n, took, err)
		}
		a.Body.Close()
		c.Close()
		<-done
	})
}

// authority makes a certificate authority and a function that signs leaves with it.
func authority(t *testing.T) (pemFile string, leaf func(host string, from, to time.Time) *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pemFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(pemFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return pemFile, func(host string, from, to time.Time) *tls.Config {
		cert := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: from, NotAfter: to}
		if ip := net.ParseIP(host); ip != nil {
			cert.IPAddresses = []net.IP{ip}
		} else {
			cert.DNSNames = []string{host}
		}
		der, err := x509.CreateCertificate(rand.Reader, cert, ca, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	}
}

func TestTLS_isVerifiedAlways(t *testing.T) {
	t.Parallel()
	ca, leaf := authority(t)
	otherCA, _ := authority(t)
	now := time.Now()
	good := func() *tls.Config { return leaf("127.0.0.1", now.Add(-time.Hour), now.Add(time.Hour)) }
	old := good()
	old.MaxVersion = tls.VersionTLS11
	old.MinVersion = tls.VersionTLS10
	picky := good()
	picky.ClientAuth = tls.RequireAnyClientCert
	pickyOf12 := picky.Clone()
	pickyOf12.MaxVersion = tls.VersionTLS12
	for _, test := range []struct {
		name   string
		config *tls.Config
		ca     string
		says   string // "" for success
	}{
		{"private authority", good(), ca, ""},
		{"unknown authority", good(), "", "--cacert"},
		{"other authority", good(), otherCA, "--cacert"},
		{"expired", leaf("127.0.0.1", now.Add(-2*time.Hour), now.Add(-time.Hour)), ca, "its certificate expired on "},
		{"wrong name", leaf("example.com", now.Add(-time.Hour), now.Add(time.Hour)), ca, "another name"},
		{"TLS 1.1", old, ca, "TLS 1.2"},
		{"certificate of the client", picky, ca, "a certificate of its own, and dragonload shows none"},
		{"certificate of the client, TLS 1.2", pickyOf12, ca, "may want a certificate of its clients"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := origintest.NewTLS(t, test.config, func(c *origintest.Conn, r *origintest.Request) bool {
				c.Part(r, file, etag)
				return true
			})
			c := newClient(t, server.URL+"/f", func(o *Options) { o.CACert = test.ca })
			a, err := probe(t, c, 100)
			if test.says != "" {
				if err == nil || kindOf(t, err) != TLS || !strings.Contains(err.Error(), test.says) {
					t.Errorf("got %v, want a TLS error that says %q", err, test.says)
				}
				checkMessage(t, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, err := read(t, a); err != nil || !bytes.Equal(got, file[:100]) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

func TestTLS_plainServerIsNamed(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler()) // answers the handshake with a 400
	t.Cleanup(server.Close)
	_, err := probe(t, newClient(t, strings.Replace(server.URL, "http:", "https:", 1)+"/f"), 100)
	if kindOf(t, err) != TLS || !strings.Contains(err.Error(), "does not speak TLS") {
		t.Error(err)
	}
}

func TestHTTP2_isUsedWhereOffered(t *testing.T) {
	t.Parallel()
	big := origintest.File(1 << 20)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("asked by %s", r.Proto)
		}
		w.Header().Set("ETag", `"v1"`)
		http.ServeContent(w, r, "f", time.Time{}, bytes.NewReader(big))
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}
	if err := os.WriteFile(ca, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, server.URL+"/f", func(o *Options) { o.CACert = ca })
	a, err := fetch(t, c, pinned(1<<20), 1000, 900_000)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, a); err != nil || !bytes.Equal(got, big[1000:900_000]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	c.Close()
}

func TestProxy_isUsedAndItsRefusalNamed(t *testing.T) {
	t.Parallel()
	proxy := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
		switch {
		case r.Method == "CONNECT":
			c.Send(407, "", nil)
			return false
		case r.Header.Get("Proxy-Authorization") == "":
			t.Error("no Proxy-Authorization")
		case !strings.HasPrefix(r.Target, "http://origin.invalid/f"):
			t.Errorf("asked for %s", r.Target)
		}
		c.Part(r, file, etag)
		return true
	})
	with := func(o *Options) { o.Proxy = strings.Replace(proxy.URL, "http://", "http://me:SECRET@", 1) }
	a, err := probe(t, newClient(t, "http://origin.invalid/f", with), 100)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, a); err != nil || !bytes.Equal(got, file[:100]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	_, err = probe(t, newClient(t, "https://origin.invalid/f", with), 100)
	if kindOf(t, err) != Forbidden || strings.Contains(err.Error(), "SECRET") || !strings.Contains(err.Error(), "proxy") {
		t.Error(err)
	}
	for _, scheme := range []string{"http", "socks5"} {
		_, err = probe(t, newClient(t, "http://origin.invalid/f", func(o *Options) { o.Proxy = scheme + "://me:SECRET@127.0.0.1:1" }), 100)
		if kindOf(t, err) != Refused || strings.Contains(err.Error(), "SECRET") || !strings.Contains(err.Error(), "127.0.0.1:1") {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}

func TestProxy_thatRefusesToConnectIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	for status, kind := range map[int]Kind{
		400: Status, 401: Status, 403: Status, 404: Status, 405: Status, 416: Status, 451: Status, 501: Status,
		407: Forbidden, 408: Network, 429: Network, 500: Network, 502: Network, 503: Network, 504: Network,
	} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			proxy := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
				c.Send(status, "", nil)
				return false
			})
			_, err := probe(t, newClient(t, "https://origin.invalid/f", func(o *Options) { o.Proxy = proxy.URL }), 100)
			if kindOf(t, err) != kind {
				t.Errorf("%v: %v, want %v", err, kindOf(t, err), kind)
			}
			if !strings.Contains(err.Error(), "the proxy "+strings.TrimPrefix(proxy.URL, "http://")) || !strings.Contains(err.Error(), strconv.Itoa(status)) {
				t.Errorf("%q names not the proxy and its answer", err)
			}
		})
	}
}
