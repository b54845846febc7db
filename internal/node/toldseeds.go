package node

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"dragonload/internal/manifest"
	"dragonload/internal/origin"
	"dragonload/internal/rpc"
)

// Who knows web seeds of a content tells them with its manifest, so that who gets it by its
// name or id goes on when its holders leave. What holds a secret is not told, nor what
// belongs to a private share.
//
// To who is told, such an address is a stranger's: a URL that may lead it into its own
// network. A guard is before each of its requests, as for a helper; nothing of the user's
// goes with them; and the machine asks them only for what nobody holds (swarm/resort.go).

const (
	// maxTold is how many web seeds of a content are told, and taken from who tells them.
	maxTold = 8

	// toldConnections bounds what is open with one of them.
	toldConnections = 4

	// MaxSeedAllow bounds Spec.SeedAllow.
	MaxSeedAllow = 100
)

// publicSeeds returns those addresses that may be told to, or taken from, members.
func publicSeeds(t *manifest.Torrent, urls []string) (public []string) {
	if t.Private {
		return nil
	}
	for _, raw := range urls {
		if !isPublic(raw) || slices.Contains(public, raw) {
			continue
		}
		if _, err := t.SeedURL(raw, 0); err != nil {
			continue
		}
		if public = append(public, raw); len(public) == maxTold {
			break
		}
	}
	return public
}

// publicURL is publicSeeds for the address that a file was downloaded from. One that ends
// with a slash would be taken for that of a folder.
func publicURL(raw string) []string {
	if !isPublic(raw) || strings.HasSuffix(raw, "/") {
		return nil
	}
	return []string{raw}
}

// isPublic reports whether an address holds nothing that may be secret.
func isPublic(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && u.Path != "" && u.RawQuery == "" && !u.ForceQuery && rpc.CheckSource(raw) == nil
}

// manifestToTell is the manifest of a download with what members are told of its web seeds;
// nil while that is not known.
func (d *download) manifestToTell() *manifest.Torrent {
	t := d.want.torrent.Load()
	if t == nil {
		return nil
	}
	told := t.Bare()
	if d.serving != nil {
		told.WebSeeds = publicSeeds(t, t.WebSeeds) // as they were when it was finished, or shared
	} else {
		told.WebSeeds = publicSeeds(t, d.addresses.tellable())
	}
	return told
}

// tellable returns the addresses that go without secrets and have not brought other bytes.
func (s *addresses) tellable() (urls []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.all {
		if !a.gone && !a.client.HasSecrets() {
			urls = append(urls, a.url)
		}
	}
	return urls
}

// takeTold takes in the web seeds that came with the manifest of a member, unless the user
// has named others.
func (d *download) takeTold(ctx context.Context) error {
	t := d.want.torrent.Load()
	if d.spec.ManifestID == "" || d.spec.NoSeeds || len(d.addresses.all) > 0 {
		return nil
	}
	urls := publicSeeds(t, t.WebSeeds)
	if len(urls) == 0 {
		return nil
	}
	guard, err := d.seedGuard(ctx)
	if err != nil {
		return err
	}
	var all []*address
	for _, raw := range urls {
		client, err := origin.New(origin.Options{
			URL: raw, CACert: d.spec.CACert, Timeout: d.spec.Timeout, ConnectTimeout: d.spec.ConnectTimeout,
			MaxConnections: toldConnections, Limiter: d.limiter, Log: d.log, WrapDial: d.node.handles.origin.bound,
			Rests: d.restsOf, Guard: guard,
		})
		if err != nil {
			d.log.Info("a web seed that a member names is not used", "url", redact(raw), "err", err)
			d.notAsked = fmt.Sprintf("; its web seed %s is not asked: %v (--seed-allow ADDR:PORT lists what may be)", redact(raw), err)
			continue
		}
		all = append(all, &address{client: client, name: client.Redacted(), url: raw, number: len(all), source: d.sourceID(raw)})
	}
	d.addresses.mu.Lock()
	defer d.addresses.mu.Unlock()
	d.addresses.all, d.told = all, len(all) > 0
	return nil
}

// seedGuard says where web seeds that members name may lead.
func (d *download) seedGuard(ctx context.Context) (*origin.Guard, error) {
	guard := &origin.Guard{Setting: "seed_allow"}
	for _, s := range d.spec.SeedAllow {
		a, err := origin.ParseAllowed(s)
		if err != nil {
			return nil, problem("bad-option", ExitBadOption, fmt.Errorf("an address of web seeds: %w", err))
		}
		guard.Allow = append(guard.Allow, a)
	}
	trackers := d.room.resolveTrackers(ctx)
	guard.Member = func(addr netip.Addr) bool { return slices.Contains(trackers, addr) || d.node.isMember(addr) }
	return guard, nil
}

// toldFailed tells the user that no web seed that members named is of use.
func (d *download) toldFailed(why *origin.Error) {
	d.inbox.do(func() {
		text := "the web seeds that members name are of no use"
		if why != nil {
			text += ": " + why.Error()
		}
		d.warn("seeds-failed", text+"; what is lacking comes from members")
	})
}
