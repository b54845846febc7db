package etcdstate

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/status"
)

// examineWithin is how long a server has to answer when it is asked why it is of no use.
const examineWithin = 2 * time.Second

// ErrRefused says that etcd answers, and does not let this tracker do what it must.
var ErrRefused = errors.New("etcd refuses this tracker")

// examine asks every server of the cluster by itself, for the gRPC client tells of a
// server that it cannot use only that time has passed. It returns what is wrong with
// those with which something is.
func (o *Options) examine(ctx context.Context) (wrong []string) {
	found := make([]error, len(o.Endpoints))
	var asking sync.WaitGroup
	for i, endpoint := range o.Endpoints {
		asking.Go(func() { found[i] = o.examineOne(ctx, endpoint) })
	}
	asking.Wait()
	for _, err := range found {
		if err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	return wrong
}

func (o *Options) examineOne(ctx context.Context, endpoint string) error {
	ctx, cancel := context.WithTimeout(ctx, examineWithin)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true}
	if o.TLS != nil {
		transport.TLSClientConfig = o.TLS.Clone()
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(endpoint, "/")+"/version", nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %s", endpoint, whyNot(err))
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(io.LimitReader(answer.Body, 4<<10))
	switch {
	case err == nil && answer.StatusCode == http.StatusOK && strings.Contains(string(said), "etcdserver"):
		return nil
	case answer.StatusCode == http.StatusBadRequest && strings.Contains(string(said), "HTTPS"):
		return fmt.Errorf("%s: it speaks TLS: write https:// instead", endpoint)
	}
	return fmt.Errorf("%s: what answers there is not etcd (status %d): give the address for clients, usually port 2379", endpoint, answer.StatusCode)
}

// whyNot says in words of ours why a server was not reached, and what helps.
func whyNot(err error) string {
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	var dns *net.DNSError
	var refused *net.OpError
	switch {
	case errors.As(err, &dns):
		return "no machine of this name is known"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: see that etcd runs, and that the port is the one for clients"
	case errors.As(err, &authority):
		return "its certificate is from an authority that this machine does not trust: name the file of its authority with --etcd-cacert"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		c := invalid.Cert
		return fmt.Sprintf("its certificate is good from %s to %s, and this machine's clock says %s UTC: give the server another one, or set the clock",
			c.NotBefore.UTC().Format(time.DateTime), c.NotAfter.UTC().Format(time.DateTime), time.Now().UTC().Format(time.DateTime))
	case errors.As(err, &host):
		return "its certificate is not for this address: use a name that is in it, or give the server another one (" + host.Error() + ")"
	case errors.As(err, &refused) && refused.Op == "remote error":
		return "it does not take this machine's certificate (" + refused.Err.Error() + "): give one that it trusts and that is good now, with --etcd-cert and --etcd-key"
	case errors.Is(err, http.ErrSchemeMismatch):
		return "it does not speak TLS: write http:// instead"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return "it closes the connection without an answer: if it speaks TLS write https:// instead"
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("it has not answered for %v: see that it runs and that no firewall is between", examineWithin)
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return err.Error()
}

// explain says why the cluster cannot be used, with what err is in words of ours.
func (o *Options) explain(ctx context.Context, err error) error {
	says := func(one error) bool { return strings.Contains(err.Error(), rpctypes.ErrorDesc(one)) }
	switch {
	case says(rpctypes.ErrAuthFailed):
		return fmt.Errorf("%w: it knows no user %q with this password: see --etcd-user and --etcd-password-file", ErrRefused, o.Username)
	case says(rpctypes.ErrUserEmpty):
		return fmt.Errorf("%w: it wants a user: give one with --etcd-user and --etcd-password-file", ErrRefused)
	case says(rpctypes.ErrPermissionDenied):
		return fmt.Errorf("%w: user %q may not read and write all keys that begin with %s: have its administrator grant that (etcdctl role grant-permission ROLE readwrite --prefix=true %s)", ErrRefused, o.Username, o.Prefix, o.Prefix)
	}
	if _, ofCall := status.FromError(err); !ofCall && !errors.Is(err, ErrAway) {
		return err // of what is in the cluster
	}
	wrong := o.examine(ctx)
	switch {
	case len(wrong) > 0:
		return fmt.Errorf("%w: %s", ErrAway, strings.Join(wrong, "; "))
	case errors.Is(err, ErrAway):
		return fmt.Errorf("%w: the servers that are named run, but too few of the others, or they do not reach each other", ErrAway)
	}
	return err
}
