package origintest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"time"
)

// tlsCases: whose certificate an origin shows.
var tlsCases = []Case{
	{Name: "tls-good", What: "a good certificate of an authority that is trusted", tls: "good", change: func(*Origin, *Request, turn, *reply) {}},
	{Number: 54, Name: "tls-expired", What: "a certificate that expired yesterday", tls: "expired", change: func(*Origin, *Request, turn, *reply) {}},
	{Name: "tls-early", What: "a certificate that is valid from tomorrow", tls: "early", change: func(*Origin, *Request, turn, *reply) {}},
	{Number: 54, Name: "tls-wrong-name", What: "a certificate for another name", tls: "name", change: func(*Origin, *Request, turn, *reply) {}},
	{Number: 54, Name: "tls-self-signed", What: "a certificate that signs itself", tls: "self", change: func(*Origin, *Request, turn, *reply) {}},
	{Number: 54, Name: "tls-unknown-ca", What: "a certificate of an authority that nobody trusts", tls: "unknown", change: func(*Origin, *Request, turn, *reply) {}},
	{Name: "tls-client-certificate", What: "a good certificate, and nobody is let in who shows none", tls: "client", change: func(*Origin, *Request, turn, *reply) {}},
	{Number: 54, Name: "tls-expires-midway", What: "a certificate that expires while the file is fetched, a new connection for each answer", tls: "midway",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.set("Connection", "close"); a.close = true }},
}

// certificates returns the TLS configuration of a case, nil for plain HTTP, and the
// authority that a client should trust, in PEM form.
func (c Case) certificates(o Options) (config *tls.Config, ca []byte, err error) {
	if c.tls == "" {
		return nil, nil, nil
	}
	now := time.Now()
	from, to := now.Add(-time.Hour), now.Add(24*time.Hour)
	switch c.tls {
	case "expired":
		from, to = now.Add(-48*time.Hour), now.Add(-24*time.Hour)
	case "early":
		from = now.Add(23 * time.Hour)
	case "midway":
		to = now.Add(expires)
	}
	host, _, err := net.SplitHostPort(o.Hosts[0])
	if err != nil {
		return nil, nil, err
	}
	if c.tls == "name" {
		host = "elsewhere.test"
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(48 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, NotBefore: from, NotAfter: to,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		leaf.IPAddresses = []net.IP{ip}
	} else {
		leaf.DNSNames = []string{host}
	}
	parent, signer := authority, caKey
	if c.tls == "self" {
		parent, signer = leaf, key
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, nil, err
	}
	root, err := x509.CreateCertificate(rand.Reader, authority, authority, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, nil, err
	}
	config = &tls.Config{
		MinVersion:             tls.VersionTLS12,
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		SessionTicketsDisabled: true,
	}
	if c.tls == "client" {
		config.ClientAuth = tls.RequireAnyClientCert
	}
	if c.tls == "unknown" {
		return config, nil, nil
	}
	return config, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root}), nil
}
