package lab

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// town is some machines at one switch, each a network namespace, with a folder of its own.
type town struct {
	t   *testing.T
	bin string
	dir string
	tag string
}

func newTown(t *testing.T, bin string, hosts ...string) *town {
	t.Helper()
	w := &town{t: t, bin: bin, dir: t.TempDir(), tag: fmt.Sprintf("dld%d", os.Getpid())}
	all := append([]string{"sw"}, hosts...)
	t.Cleanup(func() {
		for _, h := range all {
			exec.Command("ip", "netns", "del", w.ns(h)).Run()
		}
	})
	for _, h := range all {
		w.ip("netns", "add", w.ns(h))
		w.ip("-n", w.ns(h), "link", "set", "lo", "up")
	}
	w.ip("-n", w.ns("sw"), "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
	w.ip("-n", w.ns("sw"), "link", "set", "br0", "up")
	for _, h := range hosts {
		w.ip("link", "add", "lan", "netns", w.ns(h), "type", "veth", "peer", "name", "p-"+h, "netns", w.ns("sw"))
		w.ip("-n", w.ns("sw"), "link", "set", "p-"+h, "master", "br0", "up")
		w.ip("-n", w.ns(h), "link", "set", "lan", "up")
	}
	return w
}

func (w *town) ns(host string) string { return w.tag + "-" + host }

func (w *town) ip(args ...string) {
	w.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		w.t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// moves gives a machine an address instead of the one that it has.
func (w *town) moves(host, addr string) {
	w.t.Helper()
	w.ip("-n", w.ns(host), "addr", "flush", "dev", "lan")
	w.ip("-n", w.ns(host), "addr", "add", addr+"/24", "dev", "lan")
}

// command is one of dragonload on a machine.
func (w *town) command(ctx context.Context, host string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", w.ns(host), w.bin}, args...)...)
	cmd.Env = append(os.Environ(), "DRAGONLOAD_STATE_DIR="+filepath.Join(w.dir, host), "HOME="+w.dir)
	return cmd
}

// does runs one to its end and returns what it prints.
func (w *town) does(host string, args ...string) string {
	w.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := w.command(w.t.Context(), host, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		w.t.Fatalf("%s: dragonload %s: %v\n%s", host, strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(stdout.String())
}

// up runs the daemon of a machine until the returned function ends it, as by kill -9.
func (w *town) up(host string) (kill func()) { return w.daemon(host, "up") }

// daemon is up for any command that says when it is ready.
func (w *town) daemon(host string, args ...string) (kill func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := w.command(ctx, host, args...)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		cancel()
		cmd.Wait()
	})
	w.t.Cleanup(kill)
	if line, err := bufio.NewReader(out).ReadString('\n'); !strings.HasPrefix(line, "ready") {
		w.t.Fatalf("%s on %s says %q, %v", args[0], host, line, err)
	}
	return kill
}

// origin serves a file of some size on a machine and returns its URL, and what counts the
// bytes of bodies that were sent.
func (w *town) origin(host, addr string, size int) (url string, data []byte, sent func() int64) {
	w.t.Helper()
	data = make([]byte, size)
	rand.NewChaCha8([32]byte{7}).Read(data)
	root := filepath.Join(w.dir, "root")
	log := filepath.Join(w.dir, "access.log")
	conf := filepath.Join(w.dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off; user root; worker_processes 1; pid %[1]s/nginx.pid; error_log %[1]s/nginx.err;
events { worker_connections 256; }
http { default_type application/octet-stream; log_format b '$body_bytes_sent'; access_log %[2]s b;
  server { listen %[3]s:80; root %[4]s; limit_rate 2m; } }
`, w.dir, log, addr, root)
	if err := os.MkdirAll(root, 0o755); err != nil {
		w.t.Fatal(err)
	}
	for file, content := range map[string][]byte{filepath.Join(root, "file.bin"): data, conf: []byte(text)} {
		if err := os.WriteFile(file, content, 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "ip", "netns", "exec", w.ns(host), "nginx", "-c", conf)
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		cancel()
		cmd.Wait()
	})
	url = "http://" + net.JoinHostPort(addr, "80") + "/file.bin"
	// It answers when it has begun; curl asks until then.
	wait := exec.CommandContext(w.t.Context(), "ip", "netns", "exec", w.ns(host), "curl", "-sfI", "--retry", "50", "--retry-delay", "0", "--retry-connrefused", "--retry-max-time", "20", url)
	if out, err := wait.CombinedOutput(); err != nil {
		w.t.Fatalf("nginx does not answer: %v\n%s", err, out)
	}
	return url, data, func() (sum int64) {
		lines, _ := os.ReadFile(log)
		for line := range strings.Lines(string(lines)) {
			n, _ := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
			sum += n
		}
		return sum
	}
}

// TestDiscovery_membersMeetAtNewAddresses makes a room on one machine, lets two others in,
// gives all of them other addresses and ends the first: what the invites say is all wrong.
// The two still get a file together, from one copy of the origin's; and while the first
// is there at its new address, a fourth joins with the old invite.
func TestDiscovery_membersMeetAtNewAddresses(t *testing.T) {
	const size = 16 << 20
	w := newTown(t, build(t), "o", "a", "b", "c", "d")
	for host, addr := range map[string]string{"o": "10.9.0.1", "a": "10.9.0.2", "b": "10.9.0.3", "c": "10.9.0.4", "d": "10.9.0.5"} {
		w.moves(host, addr)
	}
	url, data, sent := w.origin("o", "10.9.0.1", size)
	invite := w.does("a", "room", "create", "lab")
	kill := w.up("a")
	w.does("b", "room", "join", invite)
	w.does("c", "room", "join", invite)

	w.moves("a", "10.9.0.77")
	w.does("d", "room", "join", "--wait", "40s", invite)
	if members := w.does("d", "room", "members", "lab"); !strings.Contains(members, "online, this machine") {
		t.Errorf("the room has the members\n%s", members)
	}

	w.moves("b", "10.9.0.88")
	w.moves("c", "10.9.0.99")
	kill()
	before := sent()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var getting sync.WaitGroup
	for _, host := range []string{"b", "c"} {
		getting.Go(func() {
			file := filepath.Join(w.dir, host+".bin")
			out, err := w.command(ctx, host, "get", "--room", "lab", "--json", "-o", file, url).CombinedOutput()
			got, _ := os.ReadFile(file)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("get on %s: %v, %d bytes\n%s", host, err, len(got), out)
			}
			if !regexp.MustCompile(`"code":"tracker-moved"`).Match(out) {
				t.Errorf("on %s nobody took the tracker's place\n%s", host, out)
			}
		})
	}
	getting.Wait()
	if copies := float64(sent()-before) / size; copies > 1.15 {
		t.Errorf("the origin sent %.3f copies, at most 1.15 were to be", copies)
	} else {
		t.Logf("the origin sent %.3f copies", copies)
	}
}

// TestDiscovery_findsAStandingTracker has one move to another address than the invite says.
func TestDiscovery_findsAStandingTracker(t *testing.T) {
	w := newTown(t, build(t), "a", "b")
	w.moves("a", "10.9.0.2")
	w.moves("b", "10.9.0.3")
	invite := w.does("a", "room", "create", "lab")
	w.moves("a", "10.9.0.77")
	w.daemon("a", "tracker")
	w.does("b", "room", "join", "--wait", "40s", invite)
	if members := w.does("b", "room", "members", "lab"); !strings.Contains(members, "online, this machine") {
		t.Errorf("the room has the members\n%s", members)
	}
}
