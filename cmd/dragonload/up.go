package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"dragonload/internal/node"
)

func newUp(std streams) *cobra.Command {
	var listen, advertise, logFile string
	var limitUpload rateValue
	var lend lendFlags
	var discover discoveryFlag
	var verbose int
	cmd := &cobra.Command{
		Use:   "up",
		Short: "run the node, and the tracker of the rooms made here",
		Long: `Runs until it is stopped: the node of all rooms that this machine is in, which
carries out the downloads of dragonload get and serves their pieces to members,
and the tracker of the rooms made here. Prints one line "ready ADDR:PORT ..." when
it accepts work.

With --lend ROOM it also helps downloads of that room with this machine's line: it
fetches parts of their files and hands them on. It fetches from public addresses at
ports 80 and 443 alone, and from what --lend-allow lists; nobody in the room can have
it fetch from elsewhere. Prints a line "lend ..." when it begins and "lent ..." when
it ends.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			listen, advertise, err := cfg.addresses(listen, advertise)
			if err != nil {
				return err
			}
			state, err := cfg.stateDir()
			if err != nil {
				return err
			}
			lending, err := lend.options(cfg, state, std.unheard())
			if err != nil {
				return err
			}
			log, closeLog, err := openLog(verbose, logFile, std.err)
			if err != nil {
				return err
			}
			defer closeLog()
			more := " web=off"
			if lending != nil {
				more += " lend=" + strings.Join(lending.Rooms, ",")
			}
			err = runDaemon(cmd.Context(), machineOptions{
				stateDir: state, partialDir: cfg.PartialDir, listen: listen, advertise: advertise,
				uploadLimit: int64(limitUpload), lend: lending, log: log, discovery: discover.on(cfg),
			}, more, std.out)
			if errors.Is(err, node.ErrRunning) {
				return failf(exitOther, "%w; stop that one first, or set DRAGONLOAD_STATE_DIR to another folder", err)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&listen, "listen", "", "`ADDR:PORT` for members and the tracker (default: every address, port "+defaultPort+")")
	f.StringVar(&advertise, "advertise", "", "`HOST:PORT` that members are told, if it differs")
	f.Var(&onlyValue{only: "off", typ: "ADDR:PORT|off"}, "web", "the web page; only off in this version")
	f.Var(&limitUpload, "limit-upload", "bytes per second to all members together at most")
	lend.register(cmd)
	discover.register(cmd, "neither announce this machine in the network around nor look for members there")
	f.CountVarP(&verbose, "verbose", "v", "log to standard error; twice for every step")
	f.StringVar(&logFile, "log-file", "", "log to `FILE` too")
	return cmd
}

// addresses returns where a daemon listens and what members are told, as its flags or else
// the configuration say.
func (c *config) addresses(listen, advertise string) (_, _ string, err error) {
	listen, advertise = firstOf(listen, c.Listen, ":"+defaultPort), firstOf(advertise, c.Advertise)
	if err = checkAddress("--listen", listen); err == nil {
		err = checkAddress("--advertise", advertise)
	}
	return listen, advertise, err
}

// runDaemon runs a machine that serves all rooms until ctx ends, or the node does. When it
// accepts work it prints the line that says so, with more in it.
func runDaemon(ctx context.Context, o machineOptions, more string, out io.Writer) error {
	o.serve, o.daemon = true, true
	m, err := startMachine(ctx, o)
	if err != nil {
		return err
	}
	rooms := "none"
	if names := m.roomNames(); len(names) > 0 {
		rooms = strings.Join(names, ",")
	}
	_, err = fmt.Fprintf(out, "ready %s rooms=%s%s pid=%d\n", m.node.Addr(), rooms, more, os.Getpid())
	if err == nil {
		m.wait(ctx)
	}
	if closeErr := m.close(); err == nil {
		err = closeErr
	}
	return err
}

// portOf returns the port of HOST:PORT, "" if it has none.
func portOf(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	return port
}
