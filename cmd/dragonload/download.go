package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"time"

	"dragonload/internal/manifest"
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
	before := sameNames(specs)
	named := make([]chan struct{}, len(specs)) // closed when the file has its name, or will have none
	for i := range named {
		named[i] = make(chan struct{})
	}
	var all sync.WaitGroup
	for i, spec := range specs {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			over := sync.OnceFunc(func() { close(named[i]) })
			defer over()
			if before[i] >= 0 {
				<-named[before[i]] // it has a slot, and ends with the context
			}
			errs[i] = downloadOne(ctx, d, i, spec, ends{r, over})
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

// sameNames returns, for each download, the last one before it that is to have the same
// name, as far as that is known beforehand; else -1. The first on the command line gets
// the name.
func sameNames(specs []node.Spec) []int {
	before, last := make([]int, len(specs)), map[string]int{}
	for i, spec := range specs {
		before[i] = -1
		path := spec.Output
		if name := firstOf(urlName(spec.URL), spec.ManifestName); path == "" && name != "" {
			path = filepath.Join(spec.Dir, name)
		}
		if path == "" || path == "-" {
			continue
		}
		if k, same := last[path]; same {
			before[i] = k
		}
		last[path] = i
	}
	return before
}

// ends tells when a file has got its name or will not get one, besides telling the user.
type ends struct {
	to   reporter
	over func()
}

func (e ends) event(index int, ev node.Event) {
	e.to.event(index, ev)
	if ev.Saved != nil || ev.Failed != nil {
		e.over()
	}
}

// refusedName returns the name that a URL gives and that could not be a file's on every
// system, if a download has got the name in place of it.
func refusedName(spec node.Spec, path string) (string, bool) {
	name := urlName(spec.URL)
	if spec.Output != "" || name == "" || !placeholder.MatchString(filepath.Base(path)) {
		return "", false
	}
	_, err := manifest.CleanName(name)
	return name, err != nil
}

var placeholder = regexp.MustCompile(`^download(\.[0-9]+)?$`)

func downloadOne(ctx context.Context, d downloader, index int, spec node.Spec, r reporter) error {
	if ctx.Err() != nil {
		// Not begun: the user hears of it once, if at all, for those that ran told it.
		return &failure{code: exitStopped, err: context.Cause(ctx), shown: index > 0}
	}
	var saved bool
	var failed *node.Problem
	warn := func(code, message string) {
		r.event(index, node.Event{Time: time.Now(), Warning: &node.Problem{Code: code, Message: message}})
	}
	err := d.Download(ctx, spec, func(ev node.Event) {
		switch {
		case ev.Saved != nil:
			saved = true
		case ev.Failed != nil:
			failed = ev.Failed
		}
		r.event(index, ev)
		if ev.Start == nil {
			return
		}
		if name, refused := refusedName(spec, ev.Start.Path); refused {
			warn("name-refused", fmt.Sprintf("the URL names the file %s, which some system could not hold; it is called %s (-o gives it another name)",
				strconv.Quote(name), filepath.Base(ev.Start.Path)))
		}
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
