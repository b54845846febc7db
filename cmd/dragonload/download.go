package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"dragonload/internal/node"
)

// downloader carries out downloads: the node in this process, or the one of another
// process, by its local API. It may be used by many goroutines.
type downloader interface {
	// Download ends when the file is saved and nothing remains to be served, with the
	// context, or with the failure that the last event told.
	Download(ctx context.Context, spec node.Spec, tell func(node.Event)) error
}

// reporter tells the user what happens to downloads, which it knows by their index on
// the command line. It may be used by many goroutines and does not wait for slow
// readers of progress.
type reporter interface {
	event(index int, ev node.Event)
}

// parallelDownloads is how many run at a time, as with aria2's -j.
const parallelDownloads = 5

// downloadAll carries out all specs. It returns the error of the first in their order
// that failed; the user has been told of all.
func downloadAll(ctx context.Context, d downloader, specs []node.Spec, r reporter) error {
	errs := make([]error, len(specs))
	slots := make(chan struct{}, parallelDownloads)
	var all sync.WaitGroup
	for i, spec := range specs {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			errs[i] = downloadOne(ctx, d, i, spec, r)
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func downloadOne(ctx context.Context, d downloader, index int, spec node.Spec, r reporter) error {
	if ctx.Err() != nil {
		// Not begun: the user hears of it once, if at all, for those that ran told it.
		return &failure{code: exitStopped, err: context.Cause(ctx), shown: index > 0}
	}
	var saved bool
	var failed *node.Problem
	err := d.Download(ctx, spec, func(ev node.Event) {
		switch {
		case ev.Saved != nil:
			saved = true
		case ev.Failed != nil:
			failed = ev.Failed
		}
		r.event(index, ev)
	})
	switch {
	case saved:
		return nil // what ended after that was the serving of others
	case failed == nil && err == nil:
		err = failf(exitOther, "the download ended and said nothing of its result; start it again")
		fallthrough
	case failed == nil:
		failed = problemOf(ctx, err)
		r.event(index, node.Event{Time: time.Now(), Failed: failed})
	}
	return &failure{code: exitCode(failed.Exit), err: errors.New(failed.Message), shown: true}
}
