package etcdstate_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// cluster is a real etcd cluster of three servers on loopback.
type cluster struct {
	servers [3]*server
}

// server is one of them.
type server struct {
	name, client, peer, dir string
	args                    []string
	cmd                     *exec.Cmd
	said                    bytes.Buffer
	ended                   chan struct{}
}

// startCluster starts a cluster and waits until it answers. The test is skipped where
// etcd is not installed.
func startCluster(t testing.TB) *cluster {
	t.Helper()
	path, err := exec.LookPath("etcd")
	if err != nil {
		t.Skip("etcd is not installed (Debian: etcd-server): a real cluster is not tried")
	}
	c := &cluster{}
	var all []string
	for i := range c.servers {
		s := &server{name: fmt.Sprintf("e%d", i), dir: filepath.Join(t.TempDir(), "data")}
		s.client, s.peer = "http://"+freeAddr(t), "http://"+freeAddr(t)
		all = append(all, s.name+"="+s.peer)
		c.servers[i] = s
	}
	for _, s := range c.servers {
		s.args = []string{
			path, "--name", s.name, "--data-dir", s.dir,
			"--listen-client-urls", s.client, "--advertise-client-urls", s.client,
			"--listen-peer-urls", s.peer, "--initial-advertise-peer-urls", s.peer,
			"--initial-cluster", strings.Join(all, ","), "--initial-cluster-state", "new", "--initial-cluster-token", t.Name(),
			"--logger", "zap", "--log-level", "error",
		}
		s.start(t)
	}
	t.Cleanup(func() {
		for _, s := range c.servers {
			s.kill()
		}
	})
	c.await(t)
	return c
}

// startSecure starts one server that speaks TLS with clients, as the flags say. It is ready
// when it listens for them.
func startSecure(t testing.TB, flags ...string) *cluster {
	t.Helper()
	path, err := exec.LookPath("etcd")
	if err != nil {
		t.Skip("etcd is not installed (Debian: etcd-server): a real server is not tried")
	}
	s := &server{name: "e0", dir: filepath.Join(t.TempDir(), "data"), client: "https://" + freeAddr(t), peer: "http://" + freeAddr(t)}
	s.args = append([]string{
		path, "--name", s.name, "--data-dir", s.dir, "--listen-client-urls", s.client, "--advertise-client-urls", s.client,
		"--listen-peer-urls", s.peer, "--initial-advertise-peer-urls", s.peer, "--initial-cluster", s.name + "=" + s.peer,
		"--logger", "zap", "--log-level", "error",
	}, flags...)
	s.start(t)
	t.Cleanup(s.kill)
	return &cluster{servers: [3]*server{s, {client: s.client}, {client: s.client}}}
}

// freeAddr returns an address on loopback that nobody listens on at the moment.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *server) start(t testing.TB) {
	t.Helper()
	s.said.Reset()
	s.cmd = exec.CommandContext(context.Background(), s.args[0], s.args[1:]...)
	s.cmd.Env = append(os.Environ(), "ETCD_UNSUPPORTED_ARCH=")
	s.cmd.Stderr = &s.said
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd, ended := s.cmd, make(chan struct{})
	s.ended = ended
	go func() {
		defer close(ended)
		_ = cmd.Wait() // killed, or ended by itself: said tells
	}()
}

// kill ends a server with kill -9.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.ended
	s.cmd = nil
}

func (c *cluster) endpoints() []string {
	var urls []string
	for _, s := range c.servers {
		urls = append(urls, s.client)
	}
	return urls
}

// await returns when each server that runs answers, and is as far as the others.
func (c *cluster) await(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, s := range c.servers {
		if s.cmd == nil {
			continue
		}
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{s.client}, Logger: zap.NewNop(), DialTimeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		for {
			one, cancelOne := context.WithTimeout(ctx, 5*time.Second)
			_, err := client.Put(one, "/ready", s.name)
			if err == nil {
				_, err = client.Get(one, "/ready") // which waits for what it lacks
			}
			cancelOne()
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("a server of the cluster does not answer: %v\n%s", err, s.said.String())
			}
		}
	}
}

// put writes a key behind the back of who keeps its state in the cluster.
func (c *cluster) put(t testing.TB, key, value string) {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: c.endpoints(), Logger: zap.NewNop(), DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Put(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
}
