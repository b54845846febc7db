package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/time/rate"

	"dragonload/internal/manifest"
	"dragonload/internal/node"
	"dragonload/internal/store"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"dragonload": main})
}

// underRace: these tests were built with the race detector, which would slow many
// processes side by side beyond their time limits. The scripts are about what users see;
// .ci/run has them without it.
var underRace bool

// TestScripts runs the real binary through the scripts in testdata/script. Besides
// the commands of testscript they have:
//
//	origin               starts an HTTP server for the files in srv; sets ORIGIN and HOSTPORT
//	port NAME            sets NAME to a loopback address that nothing listens on
//	dead NAME            sets NAME to one that nothing will listen on while the script runs
//	exit N CMD ARG...    runs CMD, which must end with exit code N
//	start NAME WORD CMD ARG...   starts CMD; goes on when a line of its output begins with WORD
//	halt NAME SIGNAL N   sends INT, TERM, HUP or KILL to it; it must end with N (-1: killed)
//	signal NAME SIGNAL   sends it, and waits for nothing
//	await NAME N         waits until it ends by itself, with N
//	random FILE SIZE     makes a file of SIZE bytes
//	expand FROM TO       copies a file with the script's variables filled in
//	torrent PATH FILE hybrid|v2 [URL]   writes the torrent of PATH, with a web seed
//	patch FROM TO OLD NEW   copies a file with the first OLD in it replaced
//	lock DIR             holds the state folder DIR until the script ends
func TestScripts(t *testing.T) {
	if underRace {
		t.Skip("the scripts run without the race detector: go test ./cmd/dragonload")
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			for _, name := range []string{"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "XDG_CONFIG_HOME", "NETRC"} {
				env.Setenv(name, "")
			}
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("XDG_STATE_HOME", filepath.Join(env.WorkDir, "state"))
			env.Values[jobsKey{}] = &jobs{running: map[string]*job{}}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"origin": scriptOrigin,
			"port":   scriptPort,
			"dead":   scriptDead,
			"exit":   scriptExit,
			"start":  scriptStart,
			"hear":   scriptHear,
			"halt":   scriptHalt,
			"signal": scriptSignal,
			"await":  scriptAwait,
			"random": scriptRandom,
			"expand": scriptExpand,
			"lock":   scriptLock,

			"torrent": scriptTorrent,
			"patch":   scriptPatch,
			"until":   scriptUntil,
		},
	})
}

func scriptOrigin(ts *testscript.TestScript, _ bool, _ []string) {
	ending := make(chan struct{})
	server := httptest.NewServer(&scriptServer{dir: ts.MkAbs("srv"), ending: ending})
	ts.Defer(func() {
		close(ending) // Close waits for every handler, and one that stalls may miss its client's end
		server.Close()
	})
	ts.Setenv("ORIGIN", server.URL)
	ts.Setenv("HOSTPORT", strings.TrimPrefix(server.URL, "http://"))
}

// scriptServer serves the files of a folder with a strong ETag. The first part of a
// path may ask for less:
//
//	/status/N/...     answers with that status
//	/plain/FILE       no ranges and no validator
//	/named/FILE?NAME  names the file in Content-Disposition
//	/basic/FILE       wants user u with password p
//	/header/FILE      wants the header X-Token: secret
//	/stall/FILE       sends the first half of the file and never the second
//	/slow/FILE        sends 8 MiB a second on each connection
//	/twin/FILE        as another server has it, with a validator of its own
//	/flip/FILE        with the lowest bit of its last byte changed
//	/garble/FILE      with every byte changed
//	/longer/FILE      with a byte more
//	/crawl/FILE       at 64 KiB a second
//	/digest/FILE      with its Repr-Digest
//	/tree/PATH        the file at PATH, in whatever folder of srv
//	/tail/FILE        and then sends an answer that nobody asked for
//	/agent            the User-Agent as a file
type scriptServer struct {
	dir    string
	ending <-chan struct{}
}

func (s *scriptServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch kind {
	case "status":
		code, _, _ := strings.Cut(rest, "/")
		n, _ := strconv.Atoi(code)
		w.WriteHeader(n)
		return
	case "agent":
		w.Header().Set("ETag", `"agent"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(r.UserAgent()))
		return
	case "tree":
		http.FileServerFS(os.DirFS(s.dir)).ServeHTTP(w, withPath(r, "/"+rest))
		return
	case "named":
		w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", r.URL.RawQuery))
	case "basic":
		if user, password, _ := r.BasicAuth(); user != "u" || password != "p" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
	case "header":
		if r.Header.Get("X-Token") != "secret" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
	case "plain", "tail", "stall", "twin", "flip", "garble", "longer", "slow", "crawl", "digest":
	default:
		kind = ""
		rest = strings.TrimPrefix(r.URL.Path, "/")
	}
	data, err := os.ReadFile(filepath.Join(s.dir, filepath.Base(rest)))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	switch kind {
	case "flip":
		data[len(data)-1] ^= 1
	case "garble":
		for i := range data {
			data[i] ^= 0x55
		}
	case "longer":
		data = append(data, 0)
	case "crawl":
		w = &slowWriter{w, r.Context(), rate.NewLimiter(64<<10, 16<<10)}
	case "digest":
		sum := sha256.Sum256(data)
		w.Header().Set("Repr-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":")
	case "plain":
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data)
		return
	case "tail":
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nETag: \"tail\"\r\nContent-Length: %d\r\n\r\n%sHTTP/1.1 200 unasked\r\n\r\n", len(data), data)
		_, _ = c.Read(make([]byte, 1)) // until the client has closed
		return
	case "slow":
		kind = ""
		w = &slowWriter{w, r.Context(), rate.NewLimiter(8<<20, 64<<10)}
	case "stall":
		kind = ""
		var start int
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &start)
		w = &stallWriter{ResponseWriter: w, left: max(len(data)/2-start, 0), done: r.Context().Done(), ending: s.ending}
	}
	w.Header().Set("ETag", fmt.Sprintf(`"%s%d"`, kind, len(data)))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// withPath is a request for another path.
func withPath(r *http.Request, path string) *http.Request {
	other := r.Clone(r.Context())
	other.URL.Path, other.URL.RawPath = path, ""
	return other
}

// slowWriter sends no faster than its limiter lets it.
type slowWriter struct {
	http.ResponseWriter
	ctx     context.Context
	limiter *rate.Limiter
}

func (s *slowWriter) Write(p []byte) (int, error) {
	for at := 0; at < len(p); {
		n := min(len(p)-at, 16<<10)
		if err := s.limiter.WaitN(s.ctx, n); err != nil {
			return at, err
		}
		k, err := s.ResponseWriter.Write(p[at : at+n])
		if at += k; err != nil {
			return at, err
		}
	}
	return len(p), nil
}

// stallWriter sends a part and then waits for the client to give up.
type stallWriter struct {
	http.ResponseWriter
	left         int
	done, ending <-chan struct{}
}

func (s *stallWriter) Write(p []byte) (int, error) {
	n, err := s.ResponseWriter.Write(p[:min(len(p), s.left)])
	s.left -= n
	if s.left == 0 {
		http.NewResponseController(s.ResponseWriter).Flush()
		select {
		case <-s.done:
		case <-s.ending:
		}
		return n, io.ErrClosedPipe
	}
	return n, err
}

func scriptPort(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Check(l.Close())
	ts.Setenv(args[0], l.Addr().String())
}

// scriptDead keeps a port as the near end of a connection, so that no other process gets
// it for a listener.
func scriptDead(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	held, err := net.Dial("tcp", l.Addr().String())
	ts.Check(err)
	ts.Defer(func() {
		held.Close()
		l.Close()
	})
	ts.Setenv(args[0], held.LocalAddr().String())
}

func scriptExit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit N CMD ARG...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		got = failed.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

func scriptTorrent(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	built, _, err := manifest.BuildTorrent(context.Background(), os.DirFS(filepath.Dir(path)), filepath.Base(path),
		manifest.BuildOptions{Hybrid: args[2] == "hybrid", CreatedBy: "somebody/1", WebSeeds: args[3:]})
	ts.Check(err)
	var out bytes.Buffer
	ts.Check(built.Write(&out))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), out.Bytes(), 0o666))
}

func scriptPatch(ts *testscript.TestScript, _ bool, args []string) {
	before := ts.ReadFile(args[0])
	after := strings.Replace(before, strings.ReplaceAll(args[2], `\n`, "\n"), args[3], 1)
	if after == before {
		ts.Fatalf("%s holds no %q", args[0], args[2])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(after), 0o666))
}

func scriptRandom(ts *testscript.TestScript, _ bool, args []string) {
	size, err := parseSize(args[1])
	ts.Check(err)
	data, err := io.ReadAll((&demoOrigin{size: size}).file())
	ts.Check(err)
	path := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o777))
	ts.Check(os.WriteFile(path, data, 0o666))
}

// scriptExpand copies a file with the script's variables filled in.
func scriptExpand(ts *testscript.TestScript, _ bool, args []string) {
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o666))
}

func scriptLock(ts *testscript.TestScript, _ bool, args []string) {
	journal, err := store.OpenJournal(filepath.Join(ts.MkAbs(args[0]), node.JournalFile), store.JournalOptions{})
	ts.Check(err)
	ts.Defer(func() { ts.Check(journal.Close()) })
}

// jobs are the processes that a script has started.
type (
	jobsKey struct{}
	jobs    struct {
		running map[string]*job
	}
	job struct {
		cmd    *exec.Cmd
		ended  chan struct{} // closed when the process and its output have
		stdout bytes.Buffer  // complete once ended is closed
		stderr bytes.Buffer

		mu    sync.Mutex
		lines []string      // of standard output so far
		more  chan struct{} // closed when there is another
	}
)

const scriptDeadline = 60 * time.Second

func scriptStart(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: start NAME WORD CMD ARG...")
	}
	path, err := lookPath(ts.Getenv("PATH"), args[2])
	ts.Check(err)
	j := &job{cmd: exec.Command(path, args[3:]...), ended: make(chan struct{}), more: make(chan struct{})}
	j.cmd.Dir = ts.MkAbs(".")
	j.cmd.Env = scriptEnv(ts)
	j.cmd.Stderr = &j.stderr
	out, err := j.cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(j.cmd.Start())
	seen := make(chan struct{})
	go func() {
		defer close(j.ended)
		lines := bufio.NewScanner(out)
		once := sync.OnceFunc(func() { close(seen) })
		for lines.Scan() {
			fmt.Fprintln(&j.stdout, lines.Text())
			j.mu.Lock()
			j.lines = append(j.lines, lines.Text())
			close(j.more)
			j.more = make(chan struct{})
			j.mu.Unlock()
			if strings.HasPrefix(lines.Text(), args[1]) {
				once()
			}
		}
		j.cmd.Wait()
	}()
	ts.Defer(func() {
		j.cmd.Process.Kill()
		<-j.ended
	})
	jobsOf(ts).running[args[0]] = j
	select {
	case <-seen:
	case <-j.ended:
		ts.Fatalf("%s ended: %s%s", args[0], j.stdout.String(), j.stderr.String())
	case <-time.After(scriptDeadline):
		ts.Fatalf("%s has not printed %q", args[0], args[1])
	}
}

// scriptHear waits until what was started has printed a line that matches.
func scriptHear(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: hear NAME PATTERN")
	}
	pattern, err := regexp.Compile(args[1])
	ts.Check(err)
	j := jobsOf(ts).running[args[0]]
	late := time.After(scriptDeadline)
	for over := false; ; {
		j.mu.Lock()
		heard, more := slices.ContainsFunc(j.lines, pattern.MatchString), j.more
		j.mu.Unlock()
		switch {
		case heard:
			return
		case over:
			ts.Fatalf("%s has ended without %q", args[0], args[1])
		}
		select {
		case <-more:
		case <-j.ended:
			over = true
		case <-late:
			ts.Fatalf("%s has not printed %q", args[0], args[1])
		}
	}
}

func scriptSignal(ts *testscript.TestScript, _ bool, args []string) {
	signals := map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM, "KILL": os.Kill, "HUP": syscall.SIGHUP}
	ts.Check(jobsOf(ts).running[args[0]].cmd.Process.Signal(signals[args[1]]))
}

func scriptHalt(ts *testscript.TestScript, _ bool, args []string) {
	scriptSignal(ts, false, args[:2])
	scriptAwait(ts, false, []string{args[0], args[2]})
}

// scriptUntil runs a command again and again until its standard output matches, or with !
// until it succeeds and its output does not: what
// another process does shows in no other way.
func scriptUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until PATTERN [!] CMD ARG...")
	}
	not := args[1] == "!"
	if not {
		args = append(args[:1:1], args[2:]...)
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for end := time.Now().Add(scriptDeadline); ; {
		err := ts.Exec(args[1], args[2:]...)
		if out := ts.ReadFile("stdout"); pattern.MatchString(out) != not && (err == nil || !not) {
			return
		} else if time.Now().After(end) {
			ts.Fatalf("%s never matched; at last: %s (%v)", args[0], out, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func scriptAwait(ts *testscript.TestScript, _ bool, args []string) {
	j := jobsOf(ts).running[args[0]]
	select {
	case <-j.ended:
	case <-time.After(scriptDeadline):
		ts.Fatalf("%s has not ended", args[0])
	}
	ts.Stdout().Write(j.stdout.Bytes())
	ts.Stderr().Write(j.stderr.Bytes())
	if got := j.cmd.ProcessState.ExitCode(); strconv.Itoa(got) != args[1] {
		ts.Fatalf("%s ended with %d, want %s: %s", args[0], got, args[1], j.stderr.String())
	}
}

func jobsOf(ts *testscript.TestScript) *jobs { return ts.Value(jobsKey{}).(*jobs) }

// scriptEnv is the script's environment for a process that the script's own commands
// did not start.
func scriptEnv(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "DRAGONLOAD_STATE_DIR", "DRAGONLOAD_CONFIG"} {
		if v := ts.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

func lookPath(path, name string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		if full := filepath.Join(dir, name); dir != "" {
			if _, err := os.Stat(full); err == nil {
				return full, nil
			}
		}
	}
	return "", fmt.Errorf("no program %s", name)
}
