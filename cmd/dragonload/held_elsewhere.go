package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dragonload/internal/catalogue"
	"dragonload/internal/manifest"
	"dragonload/internal/peer"
	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
)

const (
	// maxAskedHolders is how many holders are asked for a manifest, one after the other.
	maxAskedHolders = 8
	// dialHolder bounds connecting to one.
	dialHolder = 3 * time.Second
)

// roomContent is what members of a room hold, and its manifest.
type roomContent struct {
	room    string
	holders int
	torrent *manifest.Torrent
}

// findInRoom gets from a holder the manifest of what a word means in a room: digits of an
// id or, if the room is named, a name.
func findInRoom(cmd *cobra.Command, named, word string) (*roomContent, error) {
	cfg, folder, _, err := openRooms(cmd)
	if err != nil {
		return nil, err
	}
	if rooms, err := folder.List(); named == "" && err == nil && len(rooms) == 0 {
		return nil, errNoShare(word)
	}
	name, err := chooseRoom(named, cfg, folder)
	if err != nil {
		return nil, err
	}
	r, err := folder.Get(name)
	if err != nil {
		return nil, roomError(err)
	}
	var found []catalogue.Found
	var holders []catalogue.Holder
	ctx := cmd.Context()
	err = askTracker(ctx, folder, r, cfg.Discovery != "off", func(ctx context.Context, tracker *rpc.Tracker) (err error) {
		if found, err = searchOne(ctx, tracker, word); err == nil && len(found) == 1 {
			holders, err = tracker.Holders(ctx, found[0].Entry.Manifest, 0)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, failf(exitNotFound, "%s is not shared from here, and nothing in %s has that name or id; dragonload ls lists what members hold", safeText(word), name)
	case len(found) > 1:
		return nil, usagef("several things in %s are called %s; give the id of one of them, as dragonload ls shows it", name, safeText(word))
	}
	torrent, err := manifestOf(ctx, r, found[0].Entry, holders)
	if err != nil {
		return nil, err
	}
	return &roomContent{room: name, holders: found[0].Holders, torrent: torrent}, nil
}

// searchOne finds what a word means, each content once: what is shared under it as a name,
// else what only was received, else what has it as the first digits of its id.
func searchOne(ctx context.Context, tracker *rpc.Tracker, word string) ([]catalogue.Found, error) {
	queries := []catalogue.Query{{Name: word, Limit: catalogue.MaxSameName}}
	if isShareID(word) {
		queries = append(queries, catalogue.Query{ID: strings.ToLower(word), Limit: 2})
	}
	for _, q := range queries {
		page, err := tracker.Search(ctx, q)
		if err != nil {
			return nil, err
		}
		if found := catalogue.Meant(catalogue.Distinct(page.Found)); len(found) > 0 {
			return found, nil
		}
	}
	return nil, nil
}

// manifestOf asks holders of a content for its manifest until one gives it.
func manifestOf(ctx context.Context, r *room.Room, e *catalogue.Entry, holders []catalogue.Holder) (*manifest.Torrent, error) {
	dial := func(ctx context.Context, addr string, id piece.NodeID) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialHolder)
		defer cancel()
		conn, err := rpc.DialTLS(ctx, new(net.Dialer).DialContext, r.ClientTLS(room.ALPNData, id), addr)
		if err != nil {
			return nil, err // not a nil *tls.Conn
		}
		return conn, nil
	}
	client := peer.NewClient(dial, peer.ClientOptions{Log: slog.New(slog.DiscardHandler)})
	defer client.Close()
	asked := 0
	var last error
	for _, h := range holders {
		if h.Addr == "" {
			continue
		}
		if asked++; asked > maxAskedHolders {
			break
		}
		text, err := client.Manifest(ctx, h.Addr, h.ID, e.Manifest)
		var t *manifest.Torrent
		if err == nil {
			t, err = manifest.ReadTorrent(bytes.NewReader(text))
		}
		if err == nil {
			return t, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		last = err
	}
	if last == nil {
		return nil, failf(exitNotFound, "no member of %s that can be reached holds %s now; try again when one is there", r.Name, safeText(e.Name))
	}
	return nil, failf(exitNetwork, "no member of %s that holds %s gives its manifest: %w; try again", r.Name, safeText(e.Name), last)
}

// tell writes what inspect shows of it.
func (c *roomContent) tell(out io.Writer) {
	fmt.Fprintf(out, "held in   %s\n", safeText(c.room))
	fmt.Fprintf(out, "holders   %d\n", c.holders)
	tellTorrent(c.torrent, out)
}
