package node_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dragonload/internal/node"
	"dragonload/internal/origin/origintest"
)

// Each row of originCases is an origin that misbehaves in the way that package
// origintest describes under the name, and what must come of it: "saved", or the code
// and exit code of the failure. It runs alone and in a room of four members, with and
// without a checksum that the user gives, in virtual time over a network in memory.
//
// Whatever comes of it: what has the final name is one version of the file, whole; else
// there is nothing under that name, and an error says why.
type originCase struct {
	name    string
	want    string
	summed  string        // with a checksum, if that differs from want
	inRoom  string        // in a room, if that differs from want
	blind   bool          // nobody can tell without a checksum that the bytes are not the file's
	size    int64         // of the file, if it matters
	rate    int64         // bytes a second on each connection, if it matters
	most    int           // requests at most, if that is not maxAsked
	copies  int64         // copies of the file that the origin sends at most, if that is not maxCopies
	within  time.Duration // in a room it is over by then
	warning string        // a code that the user must be told
	level   string        // what the file rests on, alone and without a checksum; "" for origin
}

const (
	caseSize = 1<<20 + 7

	// What an origin has to bear at most: requests from one member and from four, copies
	// of the file from all together.
	maxAsked  = 60
	roomAsked = 160
	maxCopies = 3
	// Of an origin whose every answer is bad each of four members has one, before the room
	// knows that none of them can get the file.
	roomCopies = 4
	// Nobody's word is enough to blame the digest that a user gave (ADR 10): each of four
	// reads what it has not read yet, three copies after that of the room, and before it
	// came what was read of another version.
	doubtedCopies = 5
)

// What comes of most rows.
const (
	badAnswer   = "origin-bad-answer 22"
	badRedirect = "origin-bad-redirect 22"
	broken      = "origin-network 6"
	refusedTLS  = "origin-tls 6"
	wrongSum    = "checksum 32"
	nothing     = "no-progress 2"
	oddStatus   = "origin-status 22"

	// nobody is what a member of a room is told that met no error itself.
	nobody = "|origin 6"
)

var originCases = []originCase{
	{name: "honest", want: "saved"},
	{name: "honest", want: "saved", size: 1},
	{name: "honest", want: "saved", size: 64<<10 - 1},
	{name: "honest", want: "saved", size: 64 << 10},
	{name: "honest", want: "saved", size: 64<<10 + 1},
	{name: "no-range", want: "saved", warning: "one-stream"},
	{name: "ranges-none", want: "saved", warning: "one-stream"},
	{name: "lying-accept", want: "saved", warning: "one-stream"},
	{name: "ranges-end", want: "saved", warning: "one-stream"},
	{name: "ranges-flap", want: "saved"},
	{name: "shy-ranges", want: "saved"},
	{name: "wrong-start", want: badAnswer},
	{name: "shifted-body", want: "saved", summed: wrongSum, blind: true},
	{name: "short-range", want: "saved"},
	{name: "capped-range", want: "saved", most: 300},
	{name: "halved-range", want: "saved", most: 400},
	{name: "no-content-range", want: badAnswer},
	{name: "star-total", want: "saved"},
	{name: "wrong-total", want: "saved"},
	{name: "inverted", want: badAnswer},
	{name: "overflow", want: badAnswer},
	{name: "bad-unit-items", want: badAnswer},
	{name: "bad-unit-equals", want: badAnswer},
	{name: "bad-unit-none", want: badAnswer},
	{name: "signed-range", want: badAnswer},
	{name: "range-twice", want: badAnswer},
	{name: "multipart", want: badAnswer},
	{name: "multipart-one", want: badAnswer},
	{name: "multipart-behind", want: badAnswer},
	{name: "wide-range", want: badAnswer},
	{name: "length-mismatch", want: badAnswer},
	{name: "unasked-range", want: badAnswer},
	{name: "whole-with-range", want: "saved"},
	{name: "part-as-whole", want: badAnswer},
	{name: "false-416", want: "saved"},
	{name: "shrunk-416", want: "saved"}, // it still gives the whole file to who asks for that
	{name: "garbled-416", want: "origin-server-error 22"},
	{name: "cut-416", want: "saved"},
	{name: "head-lies", want: "saved"},

	{name: "etag-switch", want: "saved", summed: wrongSum, warning: "origin-changed"},
	{name: "silent-switch", want: "saved"},
	{name: "weak-etag", want: "saved"},
	{name: "fresh-date", want: "saved"},
	{name: "old-date", want: "saved"},
	{name: "etag-random", want: "saved", warning: "origin-changed", copies: 4},
	{name: "if-range-deaf", want: "saved", summed: wrongSum, warning: "origin-changed"},
	{name: "precondition-412", want: badAnswer},
	{name: "precondition-304", want: badAnswer},
	{name: "etag-lost", want: badAnswer},
	{name: "etag-weakens", want: badAnswer},
	{name: "etag-twice", want: "saved"},
	{name: "etag-keeps-date-moves", want: "saved"},
	// Members that ask for the first time later see one digest only, the wrong one.
	{name: "etag-keeps-digest-moves", want: badAnswer, inRoom: badAnswer + "|origin-digest 22|saved"},
	{name: "login-midway", want: badAnswer},
	{name: "login-redirect", want: badAnswer},
	{name: "digest-good", want: "saved", level: "origin-digest"},
	{name: "digest-alone", want: "saved", level: "origin-digest"},
	{name: "digest-bad", want: "origin-digest 22"},
	{name: "digest-weak", want: "saved"},
	{name: "digest-garbled", want: "saved"},

	{name: "gzip-range", want: badAnswer},
	{name: "gzip-whole", want: badAnswer},
	{name: "identity-encoding", want: "saved"},
	{name: "cut-length", want: "saved", most: 300},
	{name: "cut-whole", want: broken, inRoom: broken + nobody},
	{name: "cut-whole-nameless", want: broken, inRoom: broken + nobody, warning: "begun-anew"},
	{name: "cut-whole-once", want: "saved", warning: "begun-anew"},
	{name: "cut-chunks", want: broken, inRoom: broken + nobody},
	{name: "chunked-range", want: "saved"},
	{name: "chunked-long", want: badAnswer},
	{name: "chunked-short", want: badAnswer},
	{name: "length-and-chunks", want: "saved"},
	{name: "two-lengths", want: badAnswer},
	{name: "length-list", want: badAnswer},
	{name: "length-plus", want: badAnswer},
	{name: "length-negative", want: badAnswer},
	{name: "length-huge", want: badAnswer},
	{name: "long-body", want: badAnswer},
	{name: "close-delimited-range", want: "saved"},
	{name: "close-delimited-cut", want: "saved", most: 300},
	{name: "chunk-bomb-size", want: broken, inRoom: broken + nobody},
	{name: "chunk-bomb-extension", want: badAnswer},
	{name: "te-xchunked", want: badAnswer},
	{name: "te-chunked-twice", want: badAnswer},
	{name: "te-gzip-chunked", want: badAnswer},
	{name: "trailing-garbage", want: "saved"},
	{name: "poisoned-connection", want: "saved"},
	{name: "http10", want: "saved", level: "unproven"},
	{name: "http10-chunked", want: badAnswer, inRoom: badAnswer + nobody},
	{name: "http10-chunked-length", want: badAnswer, inRoom: badAnswer + nobody, copies: 5},
	{name: "http10-cut", want: "saved", summed: wrongSum, blind: true, level: "unproven"},
	{name: "tls-http10", want: "saved", level: "unproven"},
	{name: "tls-http10-cut", want: broken, inRoom: broken + nobody},
	{name: "tls-http10-cut-once", want: "saved", level: "unproven"},

	{name: "429-seconds", want: "saved", copies: 4},
	{name: "429-once", want: "saved"},
	{name: "429-twice", want: "saved"},
	{name: "429-at-once", want: "saved"},
	{name: "503-date", want: "saved"},
	{name: "503-date-past", want: "saved"},
	{name: "503-date-skewed", want: "saved"},
	{name: "503-forever", want: nothing},
	{name: "503-midway", want: nothing},
	{name: "retry-after-huge", want: nothing},
	{name: "retry-after-garbage", want: "saved"},
	// Every answer brings a little: all of it comes in the end, if not within the time
	// after which a member gives up.
	{name: "stall", want: nothing, inRoom: nothing + "|saved", most: 6000, copies: 6},
	// One member's source stalls; the others could serve, and it is left within 5 s.
	{name: "stall-once", want: "saved", within: 7 * time.Second},
	{name: "drip-once", want: "saved", within: 7 * time.Second},
	{name: "drip", want: nothing, most: 600},
	{name: "mute", want: nothing},
	{name: "slow-header", want: nothing},
	{name: "reset", want: "saved"},
	{name: "reset-at-once", want: broken},
	{name: "close-at-once", want: broken},

	{name: "folded-header", want: "saved"},
	{name: "space-before-colon", want: badAnswer},
	{name: "nul-in-header", want: badAnswer},
	{name: "bare-feeds", want: "saved"},
	{name: "huge-header", want: badAnswer},
	{name: "many-headers", want: badAnswer},
	{name: "continue-flood", want: badAnswer},
	{name: "continue-few", want: "saved"},
	{name: "http09", want: badAnswer},
	{name: "other-protocol", want: badAnswer},
	{name: "status-000", want: oddStatus},
	{name: "status-999", want: oddStatus},
	{name: "status-words", want: badAnswer},
	{name: "http-3000", want: badAnswer},
	{name: "switching", want: oddStatus},
	{name: "204", want: oddStatus},
	{name: "205", want: oddStatus},
	{name: "203", want: oddStatus},
	{name: "300", want: oddStatus},
	{name: "404", want: "origin-not-found 3"},
	{name: "403", want: "origin-forbidden 24"},
	{name: "407", want: "origin-forbidden 24"},
	{name: "418", want: oddStatus},
	{name: "403-midway", want: "origin-forbidden 24"},
	{name: "404-beside", want: "saved"},
	{name: "400-beside", want: "saved"},
	{name: "404-midway", want: "origin-not-found 3"},

	{name: "tls-good", want: "saved"},
	{name: "tls-expired", want: refusedTLS},
	{name: "tls-early", want: refusedTLS},
	{name: "tls-wrong-name", want: refusedTLS},
	{name: "tls-self-signed", want: refusedTLS},
	{name: "tls-unknown-ca", want: refusedTLS},
	{name: "tls-client-certificate", want: refusedTLS},
	// As much as comes before it expires is kept; what is missing then is waited for.
	{name: "tls-expires-midway", want: refusedTLS, rate: 16 << 10},

	{name: "redirect-good", want: "saved"},
	{name: "redirect-relative", want: "saved"},
	{name: "redirect-loop", want: badRedirect},
	{name: "redirect-25", want: badRedirect},
	{name: "redirect-endless", want: badRedirect},
	{name: "cred-watch", want: "saved"},
	{name: "odd-scheme-file", want: badRedirect},
	{name: "odd-scheme-ftp", want: badRedirect},
	{name: "odd-scheme-data", want: badRedirect},
	{name: "redirect-userinfo", want: badRedirect},
	{name: "redirect-nowhere", want: badRedirect},
	{name: "redirect-twice", want: badRedirect},
	{name: "redirect-downgrade", want: badRedirect},
	{name: "redirect-changes", want: "saved"},

	{name: "cookie-gate", want: "saved"},
	{name: "cookie-gate-waits", want: "saved"},
	{name: "404-waits", want: "origin-not-found 3"},
	{name: "evil-name-path", want: "saved"},
	{name: "evil-name-dots", want: "saved"},
	{name: "evil-name-device", want: "saved"},
	{name: "evil-name-bidi", want: "saved"},
	{name: "evil-name-long", want: "saved"},
	{name: "evil-name-newline", want: "saved"},
	{name: "evil-name-start-up", want: "saved"},
	{name: "evil-name-absolute", want: "saved"},
	{name: "length-bomb", want: badAnswer},
	{name: "length-bomb-2^60", want: badAnswer},
	{name: "length-bomb-2^50", want: badAnswer},
	{name: "length-bomb-whole", want: badAnswer},
	{name: "empty", want: "saved"},
	{name: "empty-416-once", want: "saved"},
	{name: "empty-416-midway", want: "saved"},
	{name: "empty-416-ranges", want: "saved", warning: "one-stream"},
	{name: "empty-whole", want: "saved"},
}

func TestOriginCases_areAllHere(t *testing.T) {
	for _, c := range origintest.Cases() {
		if !slices.ContainsFunc(originCases, func(row originCase) bool { return row.name == c.Name }) {
			t.Errorf("there is no row for %s", c.Name)
		}
	}
}

func TestOriginCases_alone(t *testing.T) {
	t.Parallel()
	eachCase(t, func(t *testing.T, c originCase, g *origintest.Origin, network *origintest.Network, spec node.Spec) []*run {
		n := start(t, node.Options{Network: network})
		return []*run{download(t, t.Context(), n, spec)}
	})
}

func TestOriginCases_inARoomOfFour(t *testing.T) {
	t.Parallel()
	eachCase(t, func(t *testing.T, c originCase, g *origintest.Origin, network *origintest.Network, spec node.Spec) []*run {
		b := newLabAt(t, "127.0.0.1:4100", network)
		nodes := []*node.Node{b.run()}
		for i := range 3 {
			nodes = append(nodes, start(t, b.join(fmt.Sprintf("member-%d", i)).options()))
		}
		spec.Room = "lab"
		var runs []*run
		for i, n := range nodes {
			own := spec
			own.Dir = filepath.Join(spec.Dir, strconv.Itoa(i))
			if err := os.Mkdir(own.Dir, 0o755); err != nil {
				t.Fatal(err)
			}
			runs = append(runs, download(t, t.Context(), n, own))
		}
		return runs
	})
}

// eachCase runs every row, with and without a checksum, and looks at what came of it.
// underRace: the tests were built with the race detector.
var underRace bool

func eachCase(t *testing.T, begin func(*testing.T, originCase, *origintest.Origin, *origintest.Network, node.Spec) []*run) {
	if underRace {
		t.Skip("the table runs without the race detector: go test ./internal/node -run TestOriginCases")
	}
	for _, c := range originCases {
		for _, summed := range []bool{false, true} {
			name := c.name
			if c.size != 0 {
				name += "-" + strconv.FormatInt(c.size, 10)
			}
			if summed {
				name += "/checksum"
			}
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { c.run(t, summed, begin) })
			})
		}
	}
}

func (c originCase) run(t *testing.T, summed bool, begin func(*testing.T, originCase, *origintest.Origin, *origintest.Network, node.Spec) []*run) {
	what, found := origintest.Find(c.name)
	if !found {
		t.Fatalf("no case of package origintest has the name %s", c.name)
	}
	network := new(origintest.Network)
	size := int64(caseSize)
	if c.size != 0 {
		size = c.size
	}
	rate := int64(1 << 20)
	if c.rate != 0 {
		rate = c.rate
	}
	g, err := origintest.Start(what, origintest.Options{
		Content: origintest.Content{Seed: 1, Size: size}, Rate: rate,
		Listen: network.Listen, Hosts: [2]string{"origin.test:80", "other.test:8080"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	spec := node.Spec{
		URL: g.FileURL(nil), Dir: t.TempDir(), Timeout: 20 * time.Second, ConnectTimeout: 10 * time.Second,
		GiveUpAfter: 10 * time.Minute, Linger: time.Minute,
	}
	if g.CA != nil {
		spec.CACert = filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(spec.CACert, g.CA, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	right := g.Versions()[0].Bytes()
	if c.name == "empty" || c.name == "empty-whole" {
		right = nil
	}
	if summed {
		spec.Checksums = []node.Checksum{{Algorithm: "sha-256", Hex: hexSum(right)}}
	}
	began := time.Now()
	runs := begin(t, c, g, network, spec)
	for _, r := range runs {
		c.judge(t, r, g, len(runs), summed)
	}
	took := time.Since(began)
	if c.within > 0 && len(runs) > 1 && last(runs) > c.within {
		t.Errorf("the file was whole after %v, want it within %v", last(runs), c.within)
	}
	if took > 15*time.Minute && c.most == 0 {
		t.Errorf("it took %v", took)
	}
	most, copies := maxAsked, int64(maxCopies)
	if len(runs) > 1 {
		most, copies = roomAsked, roomCopies
	}
	if c.most != 0 {
		most = c.most
	}
	if len(runs) > 1 && summed && c.summed == wrongSum && c.warning == "origin-changed" {
		copies = doubtedCopies
	}
	if c.copies != 0 {
		copies = c.copies
	}
	if n := len(g.Requests()); n > most {
		t.Errorf("the origin had %d requests, want at most %d", n, most)
	}
	if sent := g.Sent(); sent > copies*size+64<<10 {
		t.Errorf("the origin sent %d bytes of a file of %d, want at most %d copies", sent, size, copies)
	}
	if n := g.Early(); n > 0 {
		t.Errorf("%d requests came while the origin wanted none:%s", n, asked(g))
	}
	for _, r := range g.Requests() {
		if r.Method != "GET" {
			t.Errorf("the origin was asked with %s", r.Method)
		}
	}
	for _, r := range runs {
		// Wrong bytes must blame nobody in the room: all are honest.
		for _, code := range r.warnings() {
			if code == "wrong-statement" || code == "wrong-bytes" {
				t.Errorf("an honest member was blamed: %s", r.story())
			}
		}
	}
}

// judge looks at how one member's download ended.
func (c originCase) judge(t *testing.T, r *run, g *origintest.Origin, members int, summed bool) {
	t.Helper()
	select {
	case <-r.ended:
	case <-time.After(3 * time.Hour):
		t.Fatalf("the download has not ended; it told %s", r.story())
	}
	want := c.want
	if members > 1 && c.inRoom != "" {
		want = c.inRoom
	}
	if summed && c.summed != "" {
		want = c.summed
	}
	var failed *node.Error
	saved := r.savedEvent()
	got := "saved"
	if r.err != nil {
		if !errors.As(r.err, &failed) {
			t.Fatalf("the download ended with %v, want a *node.Error", r.err)
		}
		got = fmt.Sprintf("%s %d", failed.Code, failed.Exit)
	}
	if !slices.Contains(strings.Split(want, "|"), got) {
		t.Errorf("%s: got %s (%v), want %s; it told %s", g.Case.What, got, r.err, want, r.story())
	}
	if saved == nil {
		if r.err == nil {
			t.Error("the download ended well, but without its file")
		}
		if s := r.started(); s != nil {
			if _, err := os.Lstat(s.Path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("there is something under the final name: %v", err)
			}
		}
		return
	}
	text, err := os.ReadFile(saved.Path)
	if err != nil {
		t.Fatal(err)
	}
	right := slices.ContainsFunc(g.Versions(), func(v origintest.Content) bool { return bytes.Equal(text, v.Bytes()) })
	if c.name == "empty" || c.name == "empty-whole" {
		right = len(text) == 0
	}
	if !right && (!c.blind || summed) {
		t.Errorf("%s: the %d bytes saved are not those of one version of the file; it told %s", g.Case.What, len(text), r.story())
	}
	if summed && saved.Checked != "checksum" {
		t.Errorf("checked=%s, want checksum", saved.Checked)
	}
	if !summed && members == 1 {
		level := c.level
		if level == "" {
			level = "origin"
		}
		if saved.Checked != level {
			t.Errorf("checked=%s, want %s", saved.Checked, level)
		}
	}
	if c.warning != "" && !slices.Contains(r.warnings(), c.warning) && members == 1 {
		t.Errorf("got warnings %v, want %s among them", r.warnings(), c.warning)
	}
	if rel, err := filepath.Rel(filepath.Dir(saved.Path), saved.Path); err != nil || filepath.Base(rel) != rel {
		t.Errorf("saved as %s", saved.Path)
	}
}

func (r *run) savedEvent() *node.Saved {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ev := range r.events {
		if ev.Saved != nil {
			return ev.Saved
		}
	}
	return nil
}

// last returns how long the slowest of the downloads took for its file.
func last(runs []*run) (took time.Duration) {
	for _, r := range runs {
		if saved := r.savedEvent(); saved != nil {
			took = max(took, saved.Took)
		}
	}
	return took
}

// asked lists what the origin was asked for, and when.
func asked(g *origintest.Origin) string {
	var b strings.Builder
	for _, r := range g.Requests() {
		fmt.Fprintf(&b, "\n  %s %s", r.At.Format("04:05.000"), r.Header.Get("Range"))
	}
	return b.String()
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
