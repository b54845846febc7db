package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dragonload/internal/node"
	"dragonload/internal/tracker/etcdstate"
)

func newTracker(std streams) *cobra.Command {
	var listen, advertise, state, logFile string
	var etcd etcdFlags
	var discover discoveryFlag
	var verbose int
	cmd := &cobra.Command{
		Use:   "tracker",
		Short: "run a standing tracker only",
		Long: `Runs the tracker of the rooms made here until it is stopped. Prints one line
"ready ADDR:PORT ..." when it accepts work.

With --etcd any number of trackers, each with a state folder of its own, serve the
same rooms on an existing etcd cluster: a room that is made at one of them is served
by all, and one that is left at one (room leave) is given up by all. Give their
addresses to room create as one name, or with --also. Each download in a room is
worked on by one of them; if that one is gone, another goes on within five seconds.
While the cluster does not answer downloads go on, and nobody can join or be removed.
Whoever can read the cluster can let machines into the rooms: protect it, with TLS and
a user of its own.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			listen, advertise, err := cfg.addresses(listen, advertise)
			if err != nil {
				return err
			}
			dir, err := filepath.Abs(state)
			if state == "" {
				dir, err = cfg.stateDir()
			}
			if err != nil {
				return err
			}
			log, closeLog, err := openLog(verbose, logFile, std.err)
			if err != nil {
				return err
			}
			defer closeLog()
			o := machineOptions{stateDir: dir, listen: listen, advertise: advertise, log: log, discovery: discover.on(cfg)}
			if o.etcd, err = etcd.options(listen, advertise, log); err != nil {
				return err
			}
			err = runDaemon(cmd.Context(), o, "", std.out)
			if errors.Is(err, node.ErrRunning) {
				return failf(exitOther, "%w; stop that one first, or give another folder with --state", err)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&listen, "listen", "", "`ADDR:PORT` for members (default: every address, port "+defaultPort+")")
	f.StringVar(&advertise, "advertise", "", "`HOST:PORT` where members reach this tracker, if it differs")
	f.StringVar(&state, "state", "", "`DIR` for keys, rooms and what must not be forgotten")
	etcd.register(cmd)
	discover.register(cmd, "do not announce this tracker to the members of its rooms in the network around")
	f.CountVarP(&verbose, "verbose", "v", "log to standard error; twice for every step")
	f.StringVar(&logFile, "log-file", "", "log to `FILE` too")
	return cmd
}

// etcdFlags say where the cluster is that trackers share.
type etcdFlags struct {
	endpoints                             []string
	caCert, cert, key, user, password, at string
}

func (e *etcdFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&e.endpoints, "etcd", nil, "share the rooms with other trackers on the etcd cluster at `URL,...`")
	f.StringVar(&e.caCert, "etcd-cacert", "", "trust the certificates in the PEM `FILE` for it")
	f.StringVar(&e.cert, "etcd-cert", "", "show the cluster the certificate in the PEM `FILE`")
	f.StringVar(&e.key, "etcd-key", "", "its private key, in the PEM `FILE`")
	f.StringVar(&e.user, "etcd-user", "", "`NAME` of a user of the cluster")
	f.StringVar(&e.password, "etcd-password-file", "", "the user's password, in `FILE`")
	f.StringVar(&e.at, "etcd-prefix", "/dragonload/", "`KEY` that all keys begin with")
}

// sharedState is the cluster that this tracker is one replica of, and where members
// reach this one.
type sharedState struct {
	options etcdstate.Options
	addr    string
}

// options returns what the flags say, nil for no cluster.
func (e *etcdFlags) options(listen, advertise string, log *slog.Logger) (*sharedState, error) {
	if len(e.endpoints) == 0 {
		if e.caCert+e.cert+e.key+e.user+e.password != "" {
			return nil, usagef("the flags of a cluster need --etcd URL,...")
		}
		return nil, nil
	}
	s := &sharedState{addr: advertise, options: etcdstate.Options{Endpoints: e.endpoints, Username: e.user, Prefix: e.at, Log: log}}
	secure := false
	for _, endpoint := range e.endpoints {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
			return nil, usagef("--etcd %q is not http://HOST:PORT or https://HOST:PORT; a user is named with --etcd-user", endpoint)
		}
		secure = secure || u.Scheme == "https"
	}
	if !strings.HasPrefix(e.at, "/") || !strings.HasSuffix(e.at, "/") {
		return nil, usagef("--etcd-prefix %q does not begin and end with /", e.at)
	}
	if s.addr == "" {
		host, _, err := net.SplitHostPort(listen)
		ip := net.ParseIP(host)
		if err != nil || host == "" || ip != nil && ip.IsUnspecified() {
			return nil, usagef("with --etcd other trackers send members to this one: say where they reach it with --advertise HOST:PORT")
		}
		s.addr = listen
	}
	var err error
	if s.options.Password, err = e.secret(); err != nil {
		return nil, err
	}
	if !secure {
		if e.caCert+e.cert+e.key != "" {
			return nil, usagef("certificates for etcd need https:// in --etcd")
		}
		return s, nil
	}
	s.options.TLS, err = e.tls()
	return s, err
}

func (e *etcdFlags) secret() (string, error) {
	if (e.user == "") != (e.password == "") {
		return "", usagef("--etcd-user and --etcd-password-file go together")
	}
	if e.password == "" {
		return "", nil
	}
	data, err := readBounded(e.password, 4<<10)
	if err != nil {
		return "", usagef("read the password for etcd: %w", err)
	}
	return strings.TrimRight(string(data), "\r\n"), nil
}

func (e *etcdFlags) tls() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.caCert != "" {
		data, err := readBounded(e.caCert, 1<<20)
		if err != nil {
			return nil, usagef("read --etcd-cacert: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(data) {
			return nil, usagef("--etcd-cacert %s holds no certificate in PEM", e.caCert)
		}
	}
	if (e.cert == "") != (e.key == "") {
		return nil, usagef("--etcd-cert and --etcd-key go together")
	}
	if e.cert != "" {
		pair, err := tls.LoadX509KeyPair(e.cert, e.key)
		if err != nil {
			return nil, usagef("read --etcd-cert %s and --etcd-key %s: %w", e.cert, e.key, err)
		}
		if until := pair.Leaf.NotAfter; time.Now().After(until) {
			return nil, usagef("the certificate in --etcd-cert %s was good until %s UTC and this machine's clock says %s UTC: renew it, or set the clock",
				e.cert, until.UTC().Format(time.DateTime), time.Now().UTC().Format(time.DateTime))
		}
		// Read for each connection: it may have been renewed.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(e.cert, e.key)
			return &pair, err
		}
	}
	return cfg, nil
}
