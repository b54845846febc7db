package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"dragonload/internal/node"
	"dragonload/internal/rpc"
	"dragonload/internal/store"
)

// finishedRecord returns what is remembered of the download that was saved at path, by
// the node that runs here or else in the journal.
func finishedRecord(ctx context.Context, stateDir, path string) (store.Kept, bool, error) {
	client, err := rpc.DialLocal(ctx, stateDir)
	if errors.Is(err, rpc.ErrNoNode) {
		return finishedInJournal(stateDir, path)
	}
	if err != nil {
		return store.Kept{}, false, failf(exitOther, "%w", err)
	}
	defer client.Close()
	return askFinished(ctx, client, path)
}

// askFinished asks the node of another process.
func askFinished(ctx context.Context, client *rpc.LocalClient, path string) (store.Kept, bool, error) {
	for _, p := range namesOf(path) {
		x, err := client.Finished(ctx, p)
		if err != nil {
			return store.Kept{}, false, failf(exitOther, "%w", err)
		}
		if x == nil {
			continue
		}
		k, err := node.DecodeKept(p, x)
		if err != nil {
			return store.Kept{}, false, failf(exitOther, "ask the running node: %w", err)
		}
		return k, true, nil
	}
	return store.Kept{}, false, nil
}

func finishedInJournal(stateDir, path string) (k store.Kept, found bool, err error) {
	err = withJournal(stateDir, path, func(journal *store.Journal) (err error) {
		for _, p := range namesOf(path) {
			if k, found, err = journal.Kept(p); found || err != nil {
				break
			}
		}
		return err
	})
	return k, found, err
}

// namesOf returns a path as it was given and, if links lead there, as it is.
func namesOf(path string) []string {
	straight, err := filepath.EvalSymlinks(path)
	if err != nil || straight == path {
		return []string{path}
	}
	return []string{path, straight}
}

func inspectFinished(k store.Kept, out io.Writer) {
	fmt.Fprintf(out, "finished download %s\n", safeText(k.Path))
	fmt.Fprintf(out, "size      %d bytes (%s)\n", k.Size, formatBytes(k.Size))
	fmt.Fprintf(out, "saved     %s\n", k.Finished.UTC().Format(time.RFC3339))
	fmt.Fprintf(out, "sha-256   %x\n", k.SHA256)
	for _, s := range k.Sums {
		fmt.Fprintf(out, "%-9s %x\n", safeText(s.Algorithm), s.Sum)
	}
	for _, u := range k.From {
		fmt.Fprintf(out, "url       %s\n", safeText(redacted(u)))
	}
	state := "size and time of change are as they were"
	switch info, err := os.Stat(k.Path); {
	case err != nil:
		state = "the file is not there any more"
	case info.Size() != k.Size:
		state = fmt.Sprintf("it was changed since, it has %d bytes", info.Size())
	case !info.ModTime().Equal(k.Modified):
		state = "its time of change is another one since; dragonload export compares its bytes"
	}
	fmt.Fprintf(out, "now       %s\n", state)
}
