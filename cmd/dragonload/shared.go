package main

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"dragonload/internal/manifest"
	"dragonload/internal/node"
	"dragonload/internal/rpc"
	nodev1 "dragonload/internal/rpc/gen/dragonload/node/v1"
	"dragonload/internal/share"
)

// sharedContent is a share and its manifest.
type sharedContent struct {
	share   share.Share
	torrent *manifest.Torrent
}

// findShared returns the share from here that a word means, a path or digits of an id;
// nil if there is none.
func findShared(ctx context.Context, state, arg string) (*sharedContent, error) {
	what, err := shareWord(arg)
	if err != nil {
		return nil, err
	}
	var matches []share.Share
	var torrent *manifest.Torrent
	err = withShares(ctx, state, func(client *rpc.LocalClient) error {
		var list []*nodev1.Shared
		list, text, err := client.Manifest(ctx, what)
		for _, x := range list {
			matches = append(matches, node.DecodeShared(x))
		}
		if len(text) > 0 && err == nil {
			torrent, err = manifest.ReadTorrent(bytes.NewReader(text))
		}
		return err
	}, func(library *share.Library) (err error) {
		if matches = library.Match(what); sameManifest(matches) {
			torrent, err = library.Torrent(matches[0])
		}
		return err
	})
	switch {
	case err != nil || len(matches) == 0:
		return nil, err
	case torrent == nil:
		return nil, usagef("%s means %s; name one by more digits", safeText(arg), counted(len(matches), "share"))
	}
	return &sharedContent{matches[0], torrent}, nil
}

// sameManifest reports whether some shares, at least one, are one content.
func sameManifest(all []share.Share) bool {
	return len(all) > 0 && all[0].Manifest == all[len(all)-1].Manifest
}

// tell writes what inspect shows of a share.
func (c *sharedContent) tell(out io.Writer) {
	s := c.share
	fmt.Fprintf(out, "share of  %s\n", safeText(s.Spec.Path))
	fmt.Fprintf(out, "room      %s\n", safeText(s.Spec.Room))
	state := s.State.String()
	if s.Problem != "" {
		state += ": " + safeText(s.Problem)
	}
	fmt.Fprintf(out, "state     %s\n", state)
	tellTorrent(c.torrent, out)
}

// describeShared returns the manifest of a share in the form that is asked for.
func (e *exportFlags) describeShared(ctx context.Context, tell io.Writer) ([]byte, error) {
	s := e.shared.share
	switch {
	case len(e.urls) > 0 && s.Spec.Private:
		return nil, usagef("%s is shared as private, so that no address outside of its room is named; leave --url out, or share it without --private", safeText(s.Spec.Path))
	case e.metalink && len(e.urls) == 0:
		return nil, usagef("a Metalink says where a file can be had; name an address of it with --url")
	case e.metalink:
		return describeMetalink(ctx, s.Spec.Path, e.urls, nil, tell)
	case e.hybrid, len(e.urls) > 0:
		return e.describeTorrent(ctx, s.Spec.Path, e.urls, nil, tell)
	}
	var text bytes.Buffer
	if err := e.shared.torrent.Write(&text); err != nil {
		return nil, failf(exitOther, "%w", err)
	}
	return text.Bytes(), nil
}
