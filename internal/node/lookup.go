package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"dragonload/internal/catalogue"
	"dragonload/internal/manifest"
	"dragonload/internal/peer"
	"dragonload/internal/rpc"
)

const (
	// maxNamed is how many contents of a room a message names.
	maxNamed = 8

	// leastID is how many digits of an id mean the content.
	leastID = 6
)

// lookUp finds in the room's catalogue which manifest a name means.
func (n *Node) lookUp(ctx context.Context, spec *Spec) error {
	if spec.Room == "" {
		return problem("no-room", ExitRoom, fmt.Errorf("%q is a name in a room: name the room", spec.ManifestName))
	}
	m, err := n.membership(spec.Room)
	if err != nil {
		return err
	}
	name := spec.ManifestName
	found, err := m.search(ctx, catalogue.Query{Name: name, Limit: catalogue.MaxSameName})
	found = catalogue.Meant(found)
	lower := strings.ToLower(name)
	if err == nil && len(found) == 0 && len(name) >= leastID && len(name) <= 64 && strings.Trim(lower, "0123456789abcdef") == "" {
		found, err = m.search(ctx, catalogue.Query{ID: lower, Limit: maxNamed})
	}
	switch {
	case err != nil:
		return err
	case len(found) == 0:
		return m.notFound(ctx, name)
	case len(found) > 1:
		var list []string
		for _, f := range found {
			if len(list) == maxNamed {
				list = append(list, fmt.Sprintf("and %d more", len(found)-maxNamed))
				break
			}
			list = append(list, fmt.Sprintf("%x (%s, %d bytes, %s)", f.Entry.Manifest, f.Entry.Name, f.Entry.Size, heldBy(f)))
		}
		return problem("ambiguous", ExitBadOption, fmt.Errorf("several things in %s are called %q; give the id of one of them: %s", m.name, name, strings.Join(list, ", ")))
	}
	spec.ManifestID, spec.ManifestName = hex.EncodeToString(found[0].Entry.Manifest[:]), ""
	return nil
}

func heldBy(f catalogue.Found) string {
	var names []string
	for _, h := range f.By {
		names = append(names, fmt.Sprintf("%d:%s", h.Number, h.Name)) // as ls shows them
	}
	text := "held by " + strings.Join(names, ", ")
	if more := f.Holders - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// notFound names what comes near to a name that nothing has.
func (m *membership) notFound(ctx context.Context, name string) error {
	text := fmt.Sprintf("nothing in %s is called %q", m.name, name)
	var near []string
	tries := [][]string{{name}}
	for _, word := range catalogue.Words(name) {
		tries = append(tries, []string{word})
		if r := []rune(word); len(r) > 3 {
			tries = append(tries, []string{string(r[:3])})
		}
	}
	for _, words := range tries {
		found, err := m.search(ctx, catalogue.Query{Words: words, Limit: maxNamed})
		if err != nil {
			break // that there is nothing of the name is known all the same
		}
		for _, f := range found {
			if !slices.Contains(near, f.Entry.Name) && len(near) < maxNamed {
				near = append(near, f.Entry.Name)
			}
		}
		if len(near) > 0 {
			break
		}
	}
	if len(near) > 0 {
		text += "; there is " + strings.Join(near, ", ")
	}
	return problem("not-in-room", ExitNotFound, errors.New(text))
}

// search asks the room's trackers, and finds each manifest once.
func (m *membership) search(ctx context.Context, q catalogue.Query) ([]catalogue.Found, error) {
	var found []catalogue.Found
	err := m.ask(ctx, func(ctx context.Context, t *rpc.Tracker) error {
		page, err := t.Search(ctx, q)
		found = catalogue.Distinct(page.Found)
		return err
	})
	return found, err
}

// ask asks the trackers of the room one after the other until one answers: those that it
// knows, those that take their place, and those that are found meanwhile.
func (m *membership) ask(ctx context.Context, do func(context.Context, *rpc.Tracker) error) error {
	err := m.askAll(ctx, do)
	var known *Error
	switch {
	case err == nil, errors.As(err, &known), refuses(err):
		return err
	case ctx.Err() != nil:
		return AsError(ctx.Err())
	}
	return problem("no-tracker", ExitNetwork, fmt.Errorf("no tracker of the room %s answers, and nobody else knows what its members have: %w; try again when one does", m.name, err))
}

func (m *membership) askAll(ctx context.Context, do func(context.Context, *rpc.Tracker) error) error {
	lost := func(err error) bool { return outcome(err) == catalogue.Failed && ctx.Err() == nil }
	if found, _ := m.foundSoFar(); len(found) > 0 && m.reachable(false)[0] == found[0] {
		if err := m.askOf(ctx, found, do); !lost(err) {
			return err
		}
	}
	cut, err := m.askKnown(ctx, do)
	if !lost(err) {
		return err
	}
	if found := m.awaitTracker(ctx, lookFor); len(found) > 0 {
		err = m.askOf(ctx, found, do)
	}
	if cut && lost(err) {
		err = m.askOf(ctx, m.knownTrackers(), do) // it may only have been slow
	}
	return err
}

// learnManifest gets the manifest of a download that knows only its id: from a member that
// holds the content.
func (d *download) learnManifest(ctx context.Context) error {
	if d.want.torrent.Load() != nil {
		return nil
	}
	var holders []catalogue.Holder
	err := d.room.ask(ctx, func(ctx context.Context, t *rpc.Tracker) (err error) {
		holders, err = t.Holders(ctx, d.want.id, 0)
		return err
	})
	if err != nil {
		return err
	}
	var last error
	asked := 0
	for _, h := range holders {
		if h.ID == d.room.self || h.Addr == "" {
			continue
		}
		asked++
		data, err := d.peers.Manifest(ctx, h.Addr, h.ID, d.want.id)
		if err == nil {
			err = d.want.read(data, d.spec.Select)
		}
		var e *Error
		switch {
		case err == nil:
			d.want.giver = h.ID
			return nil
		case ctx.Err() != nil:
			return AsError(ctx.Err())
		case errors.As(err, &e) && !errors.Is(err, manifest.ErrTorrent):
			return err // what is to be selected
		case errors.Is(err, peer.ErrBroken), errors.Is(err, peer.ErrSilent):
			d.room.unreachable(h.ID)
		}
		d.log.Info("a manifest was not got from a member", "peer", h.ID, "addr", h.Addr, "err", err)
		if last == nil || errors.Is(err, manifest.ErrTorrent) {
			last = err
		}
	}
	switch {
	case asked == 0:
		return problem("not-in-room", ExitNotFound, fmt.Errorf("no member of %s holds %x now; try again when one is there, or see dragonload ls", d.room.name, d.want.id))
	case errors.Is(last, manifest.ErrTorrent):
		return problem("bad-manifest", ExitBadAnswer, last)
	}
	return problem("manifest-away", ExitNetwork, fmt.Errorf("none of the %d members that hold %x gives its manifest: %w; try again", asked, d.want.id, last))
}
