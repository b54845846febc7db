// Command misbehave runs a misbehaving origin on the loopback interface, to try a
// client by hand:
//
//	go run ./internal/origin/origintest/misbehave -list
//	go run ./internal/origin/origintest/misbehave -case wrong-start -size 64M
//
// It prints the file's address and digests, then each request as it comes, until it is
// interrupted.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"dragonload/internal/origin/origintest"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "misbehave:", err)
		os.Exit(1)
	}
}

func run() error {
	list := flag.Bool("list", false, "list the cases and end")
	name := flag.String("case", "honest", "how to misbehave")
	size := flag.String("size", "67108871", "bytes of the file, or with K, M or G")
	seed := flag.Uint64("seed", 1, "of the file's bytes")
	limit := flag.String("rate", "0", "bytes a second on each connection, or with K, M or G; 0 for no limit")
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	second := flag.String("second", "127.0.0.1:0", "address of the server that redirects lead to")
	flag.Parse()
	if *list {
		for _, c := range origintest.Cases() {
			number := ""
			if c.Number != 0 {
				number = strconv.Itoa(c.Number)
			}
			fmt.Printf("%2s  %-24s %s\n", number, c.Name, c.What)
		}
		return nil
	}
	c, found := origintest.Find(*name)
	if !found {
		return fmt.Errorf("no case is called %q; -list names them all", *name)
	}
	bytes, err := parseSize(*size)
	if err != nil {
		return err
	}
	rate, err := parseSize(*limit)
	if err != nil {
		return err
	}
	content := origintest.Content{Seed: *seed, Size: bytes}
	g, err := origintest.Start(c, origintest.Options{
		Content: content, Rate: rate, Hosts: [2]string{*listen, *second},
		Listen: func(ctx context.Context, network, addr string) (net.Listener, error) {
			return (&net.ListenConfig{}).Listen(ctx, network, addr)
		},
	})
	if err != nil {
		return err
	}
	defer g.Close()
	fmt.Printf("%s: %s\n%s\n", c.Name, c.What, g.FileURL(nil))
	for k, v := range g.Versions() {
		h := sha256.New()
		_, _ = io.Copy(h, v.Reader())
		fmt.Printf("version %d: %d bytes, sha-256=%x\n", k+1, v.Size, h.Sum(nil))
	}
	if g.CA != nil {
		ca := filepath.Join(os.TempDir(), fmt.Sprintf("misbehave-%d.pem", os.Getpid()))
		if err := os.WriteFile(ca, g.CA, 0o600); err != nil {
			return err
		}
		defer os.Remove(ca)
		fmt.Println("trust it with --cacert", ca)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	watch(ctx, g)
	return nil
}

// watch prints the requests until ctx ends.
func watch(ctx context.Context, g *origintest.Origin) {
	told := [2]int{}
	servers := []*origintest.Server{g.Server, g.Second}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		for k, s := range servers {
			if s == nil {
				continue
			}
			all := s.Requests()
			for _, r := range all[told[k]:] {
				fmt.Printf("%s server %d: %s %s %s\n", r.At.Format("15:04:05.000"), k+1, r.Method, r.Target, r.Header.Get("Range"))
			}
			told[k] = len(all)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			fmt.Printf("%d body bytes sent\n", g.Sent())
			return
		}
	}
}

func parseSize(s string) (int64, error) {
	unit := int64(1)
	for suffix, n := range map[string]int64{"K": 1 << 10, "M": 1 << 20, "G": 1 << 30} {
		if digits, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = digits, n
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > (1<<50)/unit {
		return 0, errors.New("a size is a number, with K, M or G behind it if you like")
	}
	return n * unit, nil
}
