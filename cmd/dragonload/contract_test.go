package main

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// contractFlags are the flags that the contract names for each command, with their
// short names.
var contractFlags = map[string]string{
	"get": `o/output d/dir i/input-file room alone x/max-connections H/header header-file netrc cookies checksum mirror
		limit-rate limit-upload origin-copies confirm start-at between timeout connect-timeout m/max-tries give-up-after
		linger listen advertise cacert proxy user-agent c/continue restart overwrite auto-rename json q/quiet v/verbose log-file`,
	"up":          "listen web lend",
	"room create": "advertise",
	"room invite": "uses expires",
	"room join":   "wait",
	"simulate":    "members size seed",
	"export":      "torrent hybrid metalink",
}

// contractCommands are the commands that the contract names.
const contractCommands = `get share unshare ls room up tracker status pause resume rm top inspect export doctor demo simulate
	version completion help room_create room_join room_ls room_members room_invite room_remove room_leave`

func TestContract_everyFlagIsThereOrRefusedByName(t *testing.T) {
	root := newRoot(streams{out: io.Discard, err: io.Discard})
	for command, flags := range contractFlags {
		cmd, rest, err := root.Find(strings.Fields(command))
		if err != nil || len(rest) > 0 {
			t.Fatalf("no command %s: %v", command, err)
		}
		for _, flag := range strings.Fields(flags) {
			short, long, hasShort := strings.Cut(flag, "/")
			if !hasShort {
				short, long = "", flag
			}
			f := cmd.Flags().Lookup(long)
			switch {
			case laterFlags[cmd.Name()][long]:
				if f != nil {
					t.Errorf("%s --%s is there and among those of later versions", command, long)
				}
			case f == nil || f.Hidden:
				t.Errorf("%s has no flag --%s", command, long)
			case f.Shorthand != short:
				t.Errorf("%s --%s has the short name %q, want %q", command, long, f.Shorthand, short)
			case !strings.Contains(cmd.UsageString(), "--"+long):
				t.Errorf("%s --%s is not in the help", command, long)
			}
		}
	}
}

func TestContract_everyCommandIsThereOrRefusedByName(t *testing.T) {
	root := newRoot(streams{out: io.Discard, err: io.Discard})
	root.InitDefaultHelpCmd()
	for _, name := range strings.Fields(contractCommands) {
		words := strings.Split(name, "_")
		at := root
		for _, w := range words {
			i := slices.IndexFunc(at.Commands(), func(c *cobra.Command) bool { return c.Name() == w })
			if i < 0 {
				at = nil
				break
			}
			at = at.Commands()[i]
		}
		later := laterCommand(words) != nil
		if (at != nil) == later {
			t.Errorf("%s: there is %v, refused as of a later version is %v", strings.Join(words, " "), at != nil, later)
		}
	}
}
