package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dragonload/internal/node"
	"dragonload/internal/rpc"
	nodev1 "dragonload/internal/rpc/gen/dragonload/node/v1"
)

// remoteNode hands downloads to the node of another process by its local API.
type remoteNode struct {
	client   *rpc.LocalClient
	stateDir string
	stdout   io.Writer
}

// remoteWorker makes sure that the node which runs is one that the command line
// could have started itself.
func (o sessionOptions) remoteWorker(ctx context.Context, client *rpc.LocalClient) (*worker, error) {
	ok := false
	defer func() {
		if !ok {
			client.Close()
		}
	}()
	status, err := client.Status(ctx)
	switch {
	case errors.Is(err, rpc.ErrStopping), err == nil && o.ended != 0 && status.GetPid() == o.ended:
		return nil, errNodeEnded
	case err != nil && ctx.Err() == nil && !errors.As(err, new(*rpc.Refusal)):
		return nil, errNodeEnded // it has broken off, or does not answer: openWorker waits for what comes next
	case err != nil:
		return nil, failf(exitOther, "%w", err)
	}
	for _, f := range []struct {
		flag, want, got string
		demanded        bool
	}{
		{"--listen", o.listen, status.GetListen(), o.listenDemanded},
		{"--advertise", o.advertise, status.GetAdvertise(), o.advertiseDemanded},
	} {
		if f.demanded && f.want != "" && !sameAddress(f.want, f.got) {
			return nil, usagef("%s %s: a dragonload with the process id %d works here already, with %s; leave the flag out, or stop that one first",
				f.flag, f.want, status.GetPid(), firstOf(f.got, "none"))
		}
	}
	known := slices.ContainsFunc(status.GetRooms(), func(r *nodev1.Room) bool { return r.GetName() == o.room })
	if o.room != "" && !known {
		if err := client.ReloadRooms(ctx); err != nil {
			return nil, failf(exitOther, "%w", err)
		}
	}
	ok = true
	return &worker{
		pid:        status.GetPid(),
		downloader: &remoteNode{client: client, stateDir: o.stateDir, stdout: o.stdout},
		stays:      status.GetStays(),
		close:      func() error { client.Close(); return nil },
	}, nil
}

// sameAddress reports whether a node that listens on got does what --listen want
// asks: an empty host is every address, port 0 any port.
func sameAddress(want, got string) bool {
	cut := func(address string) (host, port string) {
		port = portOf(address)
		host = strings.Trim(strings.TrimSuffix(address, ":"+port), "[]")
		if isUnspecified(host) {
			host = ""
		}
		return host, port
	}
	wantHost, wantPort := cut(want)
	gotHost, gotPort := cut(got)
	return wantHost == gotHost && (wantPort == gotPort || wantPort == "0" && gotPort != "")
}

func (r *remoteNode) Download(ctx context.Context, spec node.Spec, tell func(node.Event)) error {
	if spec.Output == "-" {
		return r.stream(ctx, spec, tell)
	}
	var failed *node.Problem
	path := spec.Output
	err := r.client.Download(ctx, node.EncodeSpec(spec), func(x *nodev1.DownloadEvent) error {
		ev := node.DecodeEvent(x)
		switch {
		case ev.Failed != nil && ev.Failed.Code == "ending" && ctx.Err() == nil:
			return errNodeEnded
		case ev.Failed != nil:
			failed = ev.Failed
		case ev.Start != nil:
			path = ev.Start.Path
		case ev.Progress != nil:
			path = ev.Progress.Path
		}
		tell(ev)
		return nil
	})
	switch {
	case err != nil && ctx.Err() != nil:
		r.awaitPause(ctx, path)
	case errors.Is(err, errNodeEnded):
		return err
	case err != nil && failed == nil && (errors.Is(err, rpc.ErrStopping) || !r.answers(ctx)):
		return errNodeEnded
	case err != nil && failed == nil:
		return failf(exitOther, "%w; what has come is kept, and the same command goes on from there", err)
	}
	return err
}

// answers reports whether the node is still there.
func (r *remoteNode) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, pauseWithin)
	defer cancel()
	_, err := r.client.Status(ctx)
	return err == nil
}

const (
	pauseWithin = 3 * time.Second
	pauseEvery  = 20 * time.Millisecond
)

// awaitPause waits until the node has let go of the file, so that the same command
// can go on at once.
func (r *remoteNode) awaitPause(ctx context.Context, path string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pauseWithin)
	defer cancel()
	for path != "" {
		status, err := r.client.Status(ctx)
		if err != nil || !slices.ContainsFunc(status.GetDownloads(), func(d *nodev1.Download) bool { return d.GetProgress().GetPath() == path }) {
			return
		}
		select {
		case <-time.After(pauseEvery):
		case <-ctx.Done():
			return
		}
	}
}

// stream lets the node make a file in the state folder and copies that, for standard
// output is this process's.
func (r *remoteNode) stream(ctx context.Context, spec node.Spec, tell func(node.Event)) error {
	dir, err := os.MkdirTemp(r.stateDir, "stdout-")
	if err != nil {
		return failf(exitCreate, "make a folder for what goes to standard output: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // what went wrong with it the user can do nothing about
	spec.Output = filepath.Join(dir, "content")
	var saved *node.Event
	err = r.Download(ctx, spec, func(ev node.Event) {
		switch {
		case ev.Saved != nil:
			saved = &ev // told when the copy is whole
			return
		case ev.Start != nil:
			ev.Start.Path = "-"
		case ev.Progress != nil:
			ev.Progress.Path = "-"
		}
		tell(ev)
	})
	if err != nil {
		return err
	}
	if saved == nil {
		return nil // the failure was told
	}
	if err := copyFile(r.stdout, spec.Output); err != nil {
		problem := &node.Problem{Code: "file", Exit: int(exitFileIO), Message: fmt.Sprintf("copy to standard output: %v", err)}
		tell(node.Event{Time: time.Now(), Failed: problem})
		return errors.New(problem.Message)
	}
	saved.Saved.Path = "-"
	tell(*saved)
	return nil
}

func copyFile(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}
