package etcdstate_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"dragonload/internal/tracker/etcdstate"
)

// authority signs certificates for the servers and clients of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "site"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.key, a.cert = sign(t, template, template, nil)
	a.pool.AddCert(a.cert)
	return a
}

func sign(t *testing.T, template, parent *x509.Certificate, by *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if by == nil {
		by = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert
}

// issue signs a certificate for an address, good until a moment.
func (a *authority) issue(t *testing.T, until time.Time, ip string) tls.Certificate {
	t.Helper()
	key, cert := sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "it"}, NotBefore: until.Add(-2 * time.Hour), NotAfter: until,
		IPAddresses: []net.IP{net.ParseIP(ip)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, a.key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// write puts a certificate and its key into files.
func write(t *testing.T, dir string, c tls.Certificate) (cert, key string) {
	t.Helper()
	raw, err := x509.MarshalECPrivateKey(c.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, key: {Type: "EC PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// refuses opens a state, which must not work, and looks for words in what is said of it.
func refuses(t *testing.T, o etcdstate.Options, kind error, words ...string) {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	s, err := etcdstate.Open(t.Context(), o)
	if err == nil {
		s.Close()
		t.Errorf("it is opened, want %q", words)
		return
	}
	for _, word := range words {
		if !errors.Is(err, kind) || !strings.Contains(err.Error(), word) {
			t.Errorf("it says %q, want %q in it, and %v", err, word, kind)
		}
	}
}

// refusal is what a state is opened with, and what is said then.
type refusal struct {
	o    etcdstate.Options
	says []string
}

// refuseAll tries all at once: each takes the seconds that a cluster may need to answer.
func refuseAll(t *testing.T, all map[string]refusal) {
	t.Helper()
	var trying sync.WaitGroup
	for name, one := range all {
		trying.Go(func() {
			refuses(t, one.o, etcdstate.ErrAway, one.says...)
			t.Logf("tried: %s", name)
		})
	}
	trying.Wait()
}

// TestOpen_saysWhatIsWrongWithTLS has a server that takes clients of its authority only.
func TestOpen_saysWhatIsWrongWithTLS(t *testing.T) {
	t.Parallel()
	own, other := newAuthority(t), newAuthority(t)
	later, before := time.Now().Add(time.Hour), time.Now().Add(-time.Minute)
	dir := t.TempDir()
	trusted := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(trusted, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := write(t, dir, own.issue(t, later, "127.0.0.1"))
	c := startSecure(t, "--cert-file", cert, "--key-file", key, "--client-cert-auth", "--trusted-ca-file", trusted)
	secure := func(roots *authority, client tls.Certificate) etcdstate.Options {
		return etcdstate.Options{Endpoints: c.endpoints()[:1], TLS: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots.pool, Certificates: []tls.Certificate{client}}}
	}
	good := own.issue(t, later, "127.0.0.1")
	o := secure(own, good)
	o.Log = slog.New(slog.DiscardHandler)
	o.Endpoints = append([]string{"https://127.0.0.1:1", "https://nosuch.invalid:2379"}, o.Endpoints...)
	s, err := etcdstate.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	refuseAll(t, map[string]refusal{
		"another authority":            {secure(other, good), []string{"--etcd-cacert"}},
		"no certificate":               {secure(own, tls.Certificate{}), []string{"--etcd-cert"}},
		"certificate of another":       {secure(own, other.issue(t, later, "127.0.0.1")), []string{"does not take this machine's certificate"}},
		"certificate that is over":     {secure(own, own.issue(t, before, "127.0.0.1")), []string{"good now"}},
		"no TLS where there should be": {etcdstate.Options{Endpoints: []string{strings.Replace(c.servers[0].client, "https", "http", 1)}}, []string{"https://"}},
	})
}

// TestOpen_saysWhatIsWrongWithServers has none that is etcd.
func TestOpen_saysWhatIsWrongWithServers(t *testing.T) {
	t.Parallel()
	own := newAuthority(t)
	served := func(certificate tls.Certificate) etcdstate.Options {
		s := httptest.NewUnstartedServer(http.NotFoundHandler())
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
		s.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
		s.StartTLS()
		t.Cleanup(s.Close)
		return etcdstate.Options{Endpoints: []string{s.URL}, TLS: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: own.pool}}
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	refuseAll(t, map[string]refusal{
		"nobody":          {etcdstate.Options{Endpoints: []string{"http://127.0.0.1:1", "http://nosuch.invalid:1"}}, []string{"http://127.0.0.1:1: nothing listens there", "no machine of this name"}},
		"expired":         {served(own.issue(t, time.Now().Add(-time.Minute), "127.0.0.1")), []string{"this machine's clock says"}},
		"another address": {served(own.issue(t, time.Now().Add(time.Hour), "192.0.2.1")), []string{"not for this address", "192.0.2.1"}},
		"another program": {etcdstate.Options{Endpoints: []string{plain.URL}}, []string{"is not etcd"}},
		"no TLS":          {etcdstate.Options{Endpoints: []string{"https" + strings.TrimPrefix(plain.URL, "http")}}, []string{"write http://"}},
	})
}

// TestOpen_saysWhatIsWrongWithTheUser has a cluster with users, one of whom may use only
// keys of another program.
func TestOpen_saysWhatIsWrongWithTheUser(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	with := func(user, password string) etcdstate.Options {
		return etcdstate.Options{Endpoints: c.endpoints(), Username: user, Password: password}
	}
	root, err := clientv3.New(clientv3.Config{Endpoints: c.endpoints(), Logger: zap.NewNop(), DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	ctx := t.Context()
	may := func(user, role, prefix string) {
		t.Helper()
		_, err := root.UserAdd(ctx, user, "secret")
		_, again := root.RoleAdd(ctx, role)
		_, grant := root.RoleGrantPermission(ctx, role, prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermReadWrite))
		_, user2 := root.UserGrantRole(ctx, user, role)
		if err := errors.Join(err, again, grant, user2); err != nil {
			t.Fatal(err)
		}
	}
	may("root", "root", "/")
	may("dl", "site", "/dragonload/")
	may("other", "elsewhere", "/elsewhere/")
	if _, err := root.AuthEnable(ctx); err != nil {
		t.Fatal(err)
	}
	refuses(t, with("", ""), etcdstate.ErrRefused, "wants a user", "--etcd-user")
	refuses(t, with("dl", "wrong"), etcdstate.ErrRefused, `no user "dl" with this password`, "--etcd-password-file")
	refuses(t, with("other", "secret"), etcdstate.ErrRefused, `user "other" may not read and write all keys that begin with /dragonload/`, "grant-permission")
	o := with("dl", "secret")
	o.Log = slog.New(slog.DiscardHandler)
	s, err := etcdstate.Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n, err := s.Number(ctx, lab, member(1)); n != 1 || err != nil {
		t.Errorf("number %d, %v", n, err)
	}
}
