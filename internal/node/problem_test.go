package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"dragonload/internal/origin"
	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/store"
	"dragonload/internal/swarm"
)

func TestAsError_givesTheExitCodesOfTheContract(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		exit int
	}{
		{&store.DiskFullError{Folder: "/d", Need: 2, Free: 1}, ExitDiskFull},
		{fmt.Errorf("x: %w", store.ErrExists), ExitExists},
		{fmt.Errorf("x: %w", store.ErrCannotCreate), ExitCannotCreate},
		{store.ErrDiskFailing, ExitFile},
		{&room.NoRoomError{Name: "lab"}, ExitRoom},
		{fmt.Errorf("x: %w", context.Canceled), ExitStopped},
		{&origin.Error{Kind: origin.Resolve}, ExitUnresolved},
		{&origin.Error{Kind: origin.Refused}, ExitNetwork},
		{&origin.Error{Kind: origin.TLS}, ExitNetwork},
		{&origin.Error{Kind: origin.NotFound}, ExitNotFound},
		{&origin.Error{Kind: origin.Forbidden}, ExitUnauthorized},
		{&origin.Error{Kind: origin.BadRedirect}, ExitBadAnswer},
	} {
		if got := storeProblem(c.err); got.Exit != c.exit || got.Code == "" {
			t.Errorf("%v: got exit %d, code %q, want exit %d", c.err, got.Exit, got.Code, c.exit)
		}
	}
}

// The disk of the state folder may be another one than the target's.
func TestAsError_knowsAFullDiskWhereverItIs(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has other errors for it")
	}
	err := fmt.Errorf("store the identity: %w", &fs.PathError{Op: "write", Path: "/state/x", Err: syscall.ENOSPC})
	if got := storeProblem(err); got.Exit != ExitDiskFull || got.Code != "disk-full" || !strings.Contains(got.Message, "/state/x") {
		t.Errorf("got %+v", got)
	}
}

func TestFailProblem_tellsWhatTheMachineGaveUp(t *testing.T) {
	t.Parallel()
	last := &origin.Error{Kind: origin.NotFound, Host: "host"}
	for code, exit := range map[swarm.FailCode]int{swarm.FailOrigin: ExitNotFound, swarm.FailSilence: ExitTimeout, swarm.FailChanges: ExitChanged} {
		if got := failProblem(code, last, true, "/d/f.part", time.Minute); got.Exit != exit || !errors.Is(got, last) {
			t.Errorf("%s: got %+v, want exit %d", code, got.Problem, exit)
		}
	}
	if got := failProblem(swarm.FailOrigin, nil, false, "", 0); got.Exit == 0 || got.Message == "" {
		t.Errorf("without an error of the origin: got %+v", got.Problem)
	}
}

func TestFailProblem_tellsWhyNothingCame(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind   origin.Kind
		atLast bool
		code   string
		exit   int
	}{
		{origin.Network, true, "origin-network", ExitNetwork},
		{origin.Refused, true, "origin-refused", ExitNetwork},
		{origin.TLS, true, "origin-tls", ExitNetwork},
		{origin.Resolve, true, "origin-unresolved", ExitUnresolved},
		{origin.Network, false, "no-progress", ExitTimeout}, // bytes came since
		{origin.Silent, true, "no-progress", ExitTimeout},
		{origin.Throttled, true, "no-progress", ExitTimeout},
		{origin.Server, true, "no-progress", ExitTimeout},
	} {
		last := &origin.Error{Kind: c.kind, Host: "host"}
		got := failProblem(swarm.FailSilence, last, c.atLast, "it is kept", time.Minute)
		if got.Code != c.code || got.Exit != c.exit || !strings.Contains(got.Message, last.Error()) || !strings.Contains(got.Message, "it is kept") {
			t.Errorf("%v: got %+v, want %s %d", c.kind, got.Problem, c.code, c.exit)
		}
	}
}

func TestWarning_hasASentenceForEachCode(t *testing.T) {
	t.Parallel()
	id := piece.NodeID{0xab, 0xcd}
	for code := range warnings {
		p := warning(swarm.Warn{Code: code, Peer: id}, id.String())
		if p.Code != string(code) || strings.Contains(p.Message, "%") || p.Message == string(code) {
			t.Errorf("%s: got %+v", code, p)
		}
	}
	if p := warning(swarm.Warn{Code: swarm.WarnWrongBytes, Peer: id}, "box"); !strings.Contains(p.Message, "member box") {
		t.Errorf("%q does not name the member", p.Message)
	}
}

func TestMeter_measuresTheLastSeconds(t *testing.T) {
	t.Parallel()
	var m meter
	at := time.Unix(0, 0)
	var got int64
	for k := range int64(100) {
		got, _, _ = m.rates(sample{at: at.Add(time.Duration(k) * progressEvery), origin: min(k, 50) * 1000})
		switch {
		case k == 40 && got != 4000:
			t.Errorf("in full flow: got %d bytes per second, want 4000", got)
		case k == 70 && got != 0:
			t.Errorf("5 s after the flow has ended: got %d bytes per second, want 0", got)
		}
	}
	if d := eta(3000, 1000); d != 3*time.Second {
		t.Errorf("eta is %v, want 3s", d)
	}
	if d := eta(1<<60, 1); d >= 0 {
		t.Errorf("eta is %v, want unknown", d)
	}
}

func TestNameFromURL(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"http://h/a/b.iso?x=y":    "b.iso",
		"http://h/a/b/":           "b",
		"http://h":                "download",
		"http://h/a%2Fb":          "download",
		"http://h/..":             "download",
		"http://h/%1b%5bred.iso":  "download",
		"http://h/two%20words.gz": "two words.gz",
	} {
		if got := nameFromURL(url); got != want {
			t.Errorf("%s: got %q, want %q", url, got, want)
		}
	}
}
