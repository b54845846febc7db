package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dragonload/internal/node"
	"dragonload/internal/room"
	"dragonload/internal/tracker/etcdstate"
)

func newTracker(std streams) *cobra.Command {
	var listen, advertise, state, logFile string
	var etcd etcdFlags
	var verbose int
	cmd := &cobra.Command{
		Use:   "tracker",
		Short: "run a standing tracker only",
		Long: `Runs the tracker of the rooms made here until it is stopped. Prints one line
"ready ADDR:PORT ..." when it accepts work.

With --etcd any number of trackers, each with a state folder of its own, serve the
same rooms on an existing etcd cluster: a room that is made at one of them is served
by all. Give their addresses to room create as one name, or with --also. Each download in a room is worked on by one of them; if that one is gone,
another goes on within five seconds. Whoever can read the cluster can let machines
into the rooms: protect it, with TLS and a user of its own.`,
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
			o := machineOptions{stateDir: dir, listen: listen, advertise: advertise, log: log}
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
			return nil, usagef("read the certificate for etcd: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

const (
	// shareEvery is how often replicas look for rooms and removals of each other.
	shareEvery = 2 * time.Second
	// shareWithin bounds one look.
	shareWithin = 10 * time.Second
)

// replica shares rooms with the other trackers of a cluster.
type replica struct {
	state   *etcdstate.State
	owners  *etcdstate.Owners
	folder  *room.Folder
	keyring *room.Keyring
	log     *slog.Logger
	shared  []string // names of rooms that are in the cluster and here
	// removals is the revision up to which the lists of all these are known; 0: of one they
	// may not be.
	removals int64
}

// joinCluster connects to the cluster and takes in its rooms.
func joinCluster(ctx context.Context, o *sharedState, folder *room.Folder, keyring *room.Keyring, log *slog.Logger) (*replica, error) {
	state, err := etcdstate.Open(ctx, o.options)
	if err != nil {
		return nil, failf(exitNetwork, "%w; see that it runs and that this machine may use it", err)
	}
	r := &replica{state: state, folder: folder, keyring: keyring, log: log}
	if err := r.share(ctx); err != nil {
		return nil, errors.Join(failf(exitOther, "%w", err), state.Close())
	}
	return r, nil
}

// run keeps the rooms the same at all replicas until ctx ends.
func (r *replica) run(ctx context.Context) {
	tick := time.NewTicker(shareEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			one, cancel := context.WithTimeout(ctx, shareWithin)
			err := r.share(one)
			cancel()
			if err != nil && ctx.Err() == nil {
				r.log.Warn("the rooms of the cluster are not known at the moment", "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// share puts rooms that were made here into the cluster, takes in those that others
// made, and learns who was removed.
func (r *replica) share(ctx context.Context) error {
	for _, one := range r.keyring.Rooms() {
		if one.Created && !slices.Contains(r.shared, one.Name) {
			if err := r.state.ShareRoom(ctx, one); err != nil {
				return err
			}
		}
	}
	all, err := r.state.SharedRooms(ctx)
	if err != nil {
		return err
	}
	for _, one := range all {
		if slices.Contains(r.shared, one.Name) {
			continue
		}
		adopted, err := r.folder.Adopt(one, time.Now())
		if err != nil {
			r.log.Error("a room of the cluster is not served here", "room", one.Name, "err", err)
			continue
		}
		r.keyring.Add(adopted)
		r.shared = append(r.shared, one.Name)
		r.removals = 0
	}
	lists, at, err := r.state.SharedRemovals(ctx, r.removals)
	if err != nil {
		return err
	}
	r.removals = at
	for _, list := range lists {
		// That of a room that is not here yet is read again when it is.
		if _, err := r.keyring.Learn(list); err != nil && !errors.Is(err, room.ErrNoRoom) {
			r.log.Error("a list of removals in the cluster is none", "room", hex.EncodeToString(list.Room[:]), "err", err)
		}
	}
	return nil
}
