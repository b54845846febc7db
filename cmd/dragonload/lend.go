package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dragonload/internal/node"
	"dragonload/internal/origin"
)

// lendFlags are the flags of up for helping pools whose files are not wanted here.
type lendFlags struct {
	rooms []string
	allow []string
	cache rateValue
	rate  rateValue
	proxy string
}

// defaultLendCache is what pieces of others may take of the disk.
const defaultLendCache = 2 << 30

func (l *lendFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	l.cache = defaultLendCache
	f.StringArrayVar(&l.rooms, "lend", nil, "help downloads of this `ROOM` with this machine's line, without wanting the files; may be repeated")
	f.StringArrayVar(&l.allow, "lend-allow", nil, "fetch for others from this `[ROOM=]ADDR:PORT` or PREFIX:PORT too, and not only from public addresses at 80 and 443; may be repeated")
	f.Var(&l.cache, "lend-cache", "what pieces for others may take of the disk at most")
	f.Lookup("lend-cache").DefValue = "2G"
	f.Var(&l.rate, "lend-rate", "bytes per second to fetch for others at most")
	f.StringVar(&l.proxy, "lend-proxy", "", "fetch for others through the proxy at `URL`, which must itself refuse inner addresses")
}

// options returns what the node is to do for others, nil for nothing.
func (l *lendFlags) options(cfg *config, stateDir string, out io.Writer) (*node.LendOptions, error) {
	allow := make(map[string][]origin.Allowed)
	for _, s := range l.allow {
		room, at, ofOne := strings.Cut(s, "=")
		if !ofOne {
			room, at = "", s
		}
		a, err := origin.ParseAllowed(at)
		if err != nil {
			return nil, usagef("--lend-allow: %w", err)
		}
		if ofOne && !slices.Contains(l.rooms, room) {
			return nil, usagef("--lend-allow: room %q is not one that --lend names", room)
		}
		allow[room] = append(allow[room], a)
	}
	if len(l.rooms) == 0 {
		return nil, nil
	}
	if proxy, _ := cfg.tables["get"]["proxy"].(string); proxy != "" && proxy != "none" && l.proxy == "" {
		return nil, usagef("--lend: the configuration has a proxy for get, and what it connects to cannot be checked here; " +
			"if it refuses inner addresses itself, say so with --lend-proxy URL")
	}
	if l.proxy != "" {
		if err := checkProxy("--lend-proxy", l.proxy); err != nil {
			return nil, err
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, usagef("no folder for pieces of others: %w; set HOME", err)
	}
	// Each node has one of its own, which it empties.
	of := sha256.Sum256([]byte(stateDir))
	slices.Sort(l.rooms)
	return &node.LendOptions{
		Rooms: slices.Compact(l.rooms), Allow: allow, Proxy: l.proxy,
		Folder: filepath.Join(cache, "dragonload", fmt.Sprintf("lend-%x", of[:8])),
		Cache:  int64(l.cache), Rate: int64(l.rate),
		Tell: func(ev node.LendEvent) { tellLent(out, ev) },
	}, nil
}

// tellLent prints one line when a pool is helped and one when that has ended.
func tellLent(out io.Writer, ev node.LendEvent) {
	line := fmt.Sprintf("lend %s %s for=%s\n", ev.Room, quotedPath(safeText(ev.URL)), ev.Asker)
	if ev.Result != "" {
		line = fmt.Sprintf("lent %s %s for=%s result=%s origin=%d uploaded=%d\n",
			ev.Room, quotedPath(safeText(ev.URL)), ev.Asker, ev.Result, ev.OriginBytes, ev.UploadedBytes)
	}
	_, _ = io.WriteString(out, line) // that nobody reads it is no reason to end
}
