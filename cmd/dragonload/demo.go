package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"dragonload/internal/node"
	"dragonload/internal/room"
)

// demoFlags are the measures of a demonstration.
type demoFlags struct {
	members    int
	size, line rateValue
	quiet      bool
	verbose    int
}

func newDemo(std streams) *cobra.Command {
	d := demoFlags{members: 4, size: 128 << 20, line: 4 << 20}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "the main job on one machine: an origin, a room of members, one file",
		Long: `Starts an HTTP server on 127.0.0.1 with one generated file and a room of members,
each a node of its own with its own folder, whose line to the server is capped.
All download the file together. Then every file is compared with the server's, and
the time with what the lines together allow.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := loadConfig(cmd); err != nil {
				return err
			}
			return runDemo(cmd.Context(), d, std)
		},
	}
	f := cmd.Flags()
	f.Var(&countValue{n: &d.members, min: 1, max: 32}, "members", "how many download together")
	f.Var(&d.size, "size", "size of the file")
	f.Var(&d.line, "line", "bytes per second of each member's line to the server")
	f.BoolVarP(&d.quiet, "quiet", "q", false, "no progress")
	f.CountVarP(&d.verbose, "verbose", "v", "log to standard error")
	return cmd
}

func runDemo(ctx context.Context, d demoFlags, std streams) (err error) {
	if d.size < 1<<10 || d.line < 1<<10 {
		return usagef("--size and --line must be at least 1K")
	}
	dir, err := os.MkdirTemp("", "dragonload-demo-")
	if err != nil {
		return failf(exitCreate, "make a folder for the demo: %w", err)
	}
	defer func() {
		if removeErr := os.RemoveAll(dir); err == nil && removeErr != nil {
			err = failf(exitFileIO, "the demo is over, but its folder %s remains: %w", dir, removeErr)
		}
	}()
	origin, err := newDemoOrigin(ctx, int64(d.size), d.members, int64(d.line))
	if err != nil && ctx.Err() != nil {
		return errDemoStopped
	}
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := origin.close(); err == nil && closeErr != nil {
			err = failf(exitOther, "%w", closeErr)
		}
	}()

	bound := time.Duration(float64(d.size) / (float64(d.line) * float64(d.members)) * float64(time.Second))
	fmt.Fprintf(std.out, "origin   http://%s/demo.bin, %s\n", origin.addr, formatBytes(int64(d.size)))
	fmt.Fprintf(std.out, "room     demo: %s with a line of %s/s each\n", counted(d.members, "member"), formatBytes(int64(d.line)))
	fmt.Fprintf(std.out, "bound    %.1f s for all lines together; alone each would take %.1f s\n",
		bound.Seconds(), float64(d.size)/float64(d.line))

	specs := make([]node.Spec, d.members)
	for m := range specs {
		folder := filepath.Join(dir, demoMember(m))
		if err := os.Mkdir(folder, 0o700); err != nil {
			return failf(exitCreate, "make a folder for the demo: %w", err)
		}
		specs[m] = node.Spec{
			URL: origin.url(m), Room: "demo", Dir: folder, Output: filepath.Join(folder, demoMember(m)+".bin"),
			UserAgent: "dragonload/" + version(), Timeout: 20 * time.Second, ConnectTimeout: 10 * time.Second,
			GiveUpAfter: time.Minute, Linger: time.Minute,
		}
	}
	people := newPeople(specs, std)
	people.quiet, people.silent = d.quiet, true
	defer people.close()
	log, _, err := openLog(d.verbose, "", people)
	if err != nil {
		return err
	}
	nodes, err := demoRoom(ctx, dir, d.members, log)
	if err != nil && ctx.Err() != nil {
		return errDemoStopped
	}
	if err != nil {
		return err
	}
	defer func() {
		for _, n := range nodes {
			if closeErr := n.close(); err == nil {
				err = closeErr
			}
		}
	}()
	if f, ok := std.err.(*os.File); ok && !d.quiet && d.verbose == 0 && canBlock(f) {
		people.start(newBlock(os.Stderr, os.Stdout))
	}

	told := untilStopped{ctx, people}
	results := &demoResults{saved: make([]*node.Saved, d.members), at: make([]time.Duration, d.members), start: time.Now()}
	errs := make([]error, d.members)
	var all sync.WaitGroup
	for m, n := range nodes {
		all.Go(func() { errs[m] = downloadOne(ctx, n, m, specs[m], several{results, told}) })
	}
	all.Wait()
	people.close()
	if errors.Is(context.Cause(ctx), errStopped) {
		return errDemoStopped
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return results.report(origin, bound, specs, std.out)
}

var errDemoStopped = failf(exitStopped, "stopped; nothing is kept")

// untilStopped tells nothing of failures once the user has stopped the demo: what a node
// then says is kept goes with the demo's folder.
type untilStopped struct {
	ctx context.Context
	to  reporter
}

func (u untilStopped) event(index int, ev node.Event) {
	if ev.Failed == nil || u.ctx.Err() == nil {
		u.to.event(index, ev)
	}
}

// demoResults notes when each member's file was whole.
type demoResults struct {
	start time.Time
	mu    sync.Mutex
	saved []*node.Saved
	at    []time.Duration
}

func (r *demoResults) event(index int, ev node.Event) {
	if ev.Saved == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.saved[index], r.at[index] = ev.Saved, time.Since(r.start)
}

// demoCopies is how many times the file's bytes the origin may have sent for the demo
// to be right.
const demoCopies = 1.1

// report prints what happened. It reads every file again: the demo believes only
// what is on disk.
func (r *demoResults) report(origin *demoOrigin, bound time.Duration, specs []node.Spec, out io.Writer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var last time.Duration
	wrong := 0
	for m, s := range r.saved {
		if s == nil {
			return failf(exitOther, "%s ended without its file", demoMember(m))
		}
		sum, err := fileSum(specs[m].Output)
		if err != nil {
			return failf(exitFileIO, "read the file of %s: %w", demoMember(m), err)
		}
		word := "right"
		if sum != origin.sum || s.SHA256 != origin.sum {
			word = "WRONG"
			wrong++
		}
		last = max(last, r.at[m])
		fmt.Fprintf(out, "%-8s %.2f s: %s from the origin, %s from members; sha-256 %s... is %s\n",
			strings.Replace(demoMember(m), "-", " ", 1), r.at[m].Seconds(), formatBytes(s.OriginBytes), formatBytes(s.PeerBytes), sum[:12], word)
	}
	copies := float64(origin.sent.Load()) / float64(origin.size)
	fmt.Fprintf(out, "time     %.2f s to the last member: %.2f times the bound\n", last.Seconds(), last.Seconds()/bound.Seconds())
	fmt.Fprintf(out, "origin   sent %.3f copies of the file to %s\n", copies, counted(len(r.saved), "member"))
	switch {
	case wrong > 0:
		return failf(exitChecksum, "%d of %d files are not the origin's; please report this", wrong, len(r.saved))
	case copies > demoCopies:
		return failf(exitOther, "the origin sent %.3f copies, more than %.1f; on a busy machine try again with a smaller --line", copies, demoCopies)
	}
	return nil
}

func fileSum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// freePort returns an address of loopback that nothing listens on now.
func freePort(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// demoRoom makes one room with a node for each member, each with a state folder of
// its own below dir. The first made the room and is its tracker.
func demoRoom(ctx context.Context, dir string, members int, log *slog.Logger) (nodes []*machine, err error) {
	defer func() {
		if err != nil {
			for _, n := range nodes {
				err = errors.Join(err, n.close())
			}
			nodes = nil
		}
	}()
	address, err := freePort(ctx)
	if err != nil {
		return nil, failf(exitNetwork, "%w", err)
	}
	var invite room.Invite
	for m := range members {
		state := filepath.Join(dir, "state-"+demoMember(m))
		folder, err := room.OpenFolder(state)
		if err != nil {
			return nodes, failf(exitOther, "%w", err)
		}
		listen := "127.0.0.1:0"
		if m == 0 {
			r, err := folder.Create("demo", address, folder.Identity())
			if err != nil {
				return nodes, roomError(err)
			}
			if invite, err = r.NewInvite(0, time.Hour, time.Now()); err != nil {
				return nodes, roomError(err)
			}
			listen = address
		} else if _, err := joinRoom(ctx, folder, state, invite.String(), 5*time.Second, false); err != nil {
			return nodes, err
		}
		n, err := startMachine(ctx, machineOptions{stateDir: state, listen: listen, serve: true, log: log.With("node", m+1)})
		if err != nil {
			return nodes, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}
