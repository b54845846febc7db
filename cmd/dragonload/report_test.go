package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"dragonload/internal/node"
)

func TestSavedLine_isTheContracts(t *testing.T) {
	s := node.Saved{Path: "/data/file.iso", Size: 12, SHA256: "ab", Checked: "origin", OriginBytes: 12, PeerBytes: 3, Took: 1234 * time.Millisecond}
	for path, shown := range map[string]string{
		"/data/file.iso": "/data/file.iso", "/data/two words": `"/data/two words"`, "/a\nb": `"/a\nb"`, "/größe": "/größe",
		"/a\xff": `"/a\xff"`, "/a\u202eb": `"/a\u202eb"`, "-": "-", `/q"q`: `/q"q`,
	} {
		s.Path = path
		want := "saved " + shown + "  12 bytes  sha-256=ab  checked=origin  origin=12 peers=3  1.23s\n"
		if got := savedLine(&s); got != want {
			t.Errorf("got  %swant %s", got, want)
		}
	}
}

func TestJSONEvents_haveTheContractsFields(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	for _, c := range []struct {
		ev     node.Event
		fields string
	}{
		{node.Event{Start: &node.Start{Size: -1}}, "event time download url path size resumed"},
		{node.Event{Progress: &node.Progress{ETA: -1}}, "event time download size have origin_bytes peer_bytes uploaded_bytes rate eta_s members state path"},
		{node.Event{Member: &node.MemberChange{}}, "event time download id name up"},
		{node.Event{Warning: &node.Problem{}}, "event time download code message"},
		{node.Event{Saved: &node.Saved{}}, "event time download path size sha256 checked origin_bytes peer_bytes uploaded_bytes seconds"},
		{node.Event{Failed: &node.Problem{Exit: 3}}, "event time download code message exit"},
	} {
		c.ev.Time = now
		var out bytes.Buffer
		(&jsonEvents{out: &out}).event(1, c.ev)
		var got map[string]any
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatalf("%q: %v", out.String(), err)
		}
		for _, f := range strings.Fields(c.fields) {
			if _, ok := got[f]; !ok {
				t.Errorf("%s has no field %s: %s", got["event"], f, out.String())
			}
		}
		if got["time"] != "2026-01-02T03:04:05.006Z" || got["download"] != 2.0 {
			t.Errorf("time or download: %s", out.String())
		}
	}
}

func TestPeople_printsALineEachTenSeconds(t *testing.T) {
	var out, errs bytes.Buffer
	p := newPeople([]node.Spec{{URL: "http://host/file.iso"}}, streams{out: &out, err: &errs})
	start := time.Now()
	p.event(0, node.Event{Time: start, Start: &node.Start{Path: "/d/file\x1b.iso"}})
	for s := range 25 {
		p.event(0, node.Event{Time: start.Add(time.Duration(s) * time.Second), Progress: &node.Progress{
			State: "downloading", Path: "/d/file\x1b.iso", Size: 100 << 20, Have: int64(s) << 20, OriginRate: 1 << 20, PeerRate: 2 << 20,
			PeerBytes: 1, ETA: time.Minute, Members: 3,
		}})
	}
	want := "file\ufffd.iso: 10 % of 100 MiB, origin 1.00 MiB/s, peers 2.00 MiB/s, 1:00 left, 3 members\n" +
		"file\ufffd.iso: 20 % of 100 MiB, origin 1.00 MiB/s, peers 2.00 MiB/s, 1:00 left, 3 members\n"
	if got := errs.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if out.Len() > 0 {
		t.Errorf("standard output: %q", out.String())
	}
}

// downloads is a downloader that tells what it was made to.
type downloads map[string]func(ctx context.Context, tell func(node.Event)) error

func (d downloads) Download(ctx context.Context, spec node.Spec, tell func(node.Event)) error {
	return d[spec.URL](ctx, tell)
}

func TestDownloadAll_returnsTheFirstFailureInTheirOrder(t *testing.T) {
	fail := func(exit int) func(context.Context, func(node.Event)) error {
		return func(_ context.Context, tell func(node.Event)) error {
			tell(node.Event{Failed: &node.Problem{Message: "no", Exit: exit}})
			return errors.New("no")
		}
	}
	secondIsOver := make(chan struct{})
	d := downloads{
		"saved": func(_ context.Context, tell func(node.Event)) error {
			tell(node.Event{Saved: &node.Saved{}})
			return nil
		},
		"first": func(ctx context.Context, tell func(node.Event)) error { <-secondIsOver; return fail(3)(ctx, tell) },
		"second": func(ctx context.Context, tell func(node.Event)) error {
			defer close(secondIsOver)
			return fail(24)(ctx, tell)
		},
		"lingers": func(_ context.Context, tell func(node.Event)) error {
			tell(node.Event{Saved: &node.Saved{}})
			return context.Canceled
		},
		"silent": func(context.Context, func(node.Event)) error { return nil },
	}
	for want, urls := range map[exitCode][]string{
		0: {"saved", "lingers"}, 3: {"saved", "first", "second", "silent"}, 1: {"saved", "silent"},
	} {
		var specs []node.Spec
		for _, u := range urls {
			specs = append(specs, node.Spec{URL: u})
		}
		if want == 3 {
			secondIsOver = make(chan struct{})
		}
		var out, errs bytes.Buffer
		if got := codeOf(downloadAll(t.Context(), d, specs, newPeople(specs, streams{out: &out, err: &errs}))); got != want {
			t.Errorf("%v: exit code %d, want %d", urls, got, want)
		}
	}
}

func TestDownloadAll_isStoppedByTheSignal(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	d := downloads{"waits": func(ctx context.Context, _ func(node.Event)) error {
		cancel(errStopped)
		<-ctx.Done()
		return ctx.Err()
	}}
	specs := []node.Spec{{URL: "waits"}}
	var out, errs bytes.Buffer
	err := downloadAll(ctx, d, specs, newPeople(specs, streams{out: &out, err: &errs}))
	if codeOf(err) != exitStopped || !strings.Contains(errs.String(), "is kept") {
		t.Errorf("got %v and %q, want exit code %d and what is kept", err, errs.String(), exitStopped)
	}
}
