package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"dragonload/internal/manifest"
	"dragonload/internal/node"
	"dragonload/internal/origin"
)

// torrentSource returns the content of a torrent as something to get.
func torrentSource(path string) (source, error) {
	t, err := readTorrent(path)
	if err != nil {
		return source{}, err
	}
	s := source{torrent: t}
	for _, seed := range t.WebSeeds {
		// One that cannot be used for this torrent at all is passed over as those of other
		// schemes are.
		if _, err := t.SeedURL(seed, 0); err == nil {
			s.mirrors = append(s.mirrors, seed)
		}
	}
	return s, nil
}

// isManifestID reports whether a SOURCE is the info hash of a manifest.
func isManifestID(word string) bool {
	raw, err := hex.DecodeString(word)
	return err == nil && len(raw) == 32
}

// isName reports whether a SOURCE may be the name of something in a room.
func isName(word string) bool {
	_, err := manifest.CleanName(word)
	return err == nil && !isMetalink(word) && !strings.HasPrefix(strings.ToLower(word), "magnet:")
}

// mayBeFolder reports whether what is got is a folder, or that is not known yet.
func (s *source) mayBeFolder() bool {
	return s.id+s.name != "" || s.torrent != nil && s.torrent.Folder
}

// checkManifest finds what the flags ask for that a content of a manifest cannot have.
func (g *getFlags) checkManifest(s *source, room string) error {
	switch t := s.torrent; {
	case s.url != "":
		if len(g.selects) > 0 {
			return usagef("--select chooses files of a folder, and %s is one file", redacted(s.url))
		}
		return nil
	case len(g.headers) > 0 || g.headerFile != "":
		return usagef("--header is for the origin of a URL; the web seeds of a manifest get none")
	case g.confirm > 1:
		return usagef("--confirm asks members to state digests, and a manifest has them; leave it out")
	case t == nil && room == "":
		return usagef("%s is no URL; write https:// in front of one; if it is the name or the id of something in a room, name that with --room", s)
	case t == nil:
		return nil
	case t.Folder && g.output == "-":
		return usagef("-o - writes one file to standard output, and %s is a folder; name files of it with --select and a folder with --dir", safeText(t.Name))
	case t.Folder && len(g.checksums) > 0:
		return usagef("--checksum gives the digest of a file, and %s is a folder, whose manifest has the digests of all files", safeText(t.Name))
	case room == "" && len(s.mirrors) == 0 && len(g.mirrors) == 0:
		return usagef("the torrent of %s names no web seed that can be used; name a room whose members have it with --room, or an address with --mirror", safeText(t.Name))
	}
	_, err := s.torrent.Select(g.selects)
	var none *manifest.NoMatchError
	if errors.As(err, &none) {
		return usagef("--select: %w; there are %s", err, filesOf(s.torrent))
	}
	return err
}

// checkSeeds checks what is said of web seeds that members name.
func (g *getFlags) checkSeeds() error {
	switch {
	case g.noSeeds && len(g.seedAllow) > 0:
		return usagef("--no-seeds and --seed-allow contradict each other; give one of them")
	case len(g.seedAllow) > node.MaxSeedAllow:
		return usagef("--seed-allow is given %d times, and at most %d are taken; name a PREFIX:PORT", len(g.seedAllow), node.MaxSeedAllow)
	}
	for _, at := range g.seedAllow {
		if _, err := origin.ParseAllowed(at); err != nil {
			return usagef("--seed-allow: %w", err)
		}
	}
	return nil
}

// proxied reports whether the user's way out is a proxy: what that connects to cannot be
// seen here, so web seeds that members name are not asked through it, nor past it.
func (g *getFlags) proxied() bool {
	if g.proxy != "" {
		return g.proxy != "none"
	}
	env := httpproxy.FromEnvironment()
	return env.HTTPProxy != "" || env.HTTPSProxy != ""
}

// maxShownFiles is how many files are named where a glob fits none.
const maxShownFiles = 50

func filesOf(t *manifest.Torrent) string {
	var names []string
	for _, f := range t.Files[:min(len(t.Files), maxShownFiles)] {
		names = append(names, safeText(f.Path))
	}
	list := strings.Join(names, ", ")
	if more := len(t.Files) - len(names); more > 0 {
		list += " and " + counted(more, "more file")
	}
	return list
}

// ask puts into a spec what is to be had of a manifest.
func (s *source) ask(spec *node.Spec, globs []string) error {
	spec.ManifestID, spec.ManifestName, spec.Select = strings.ToLower(s.id), s.name, globs
	if s.torrent == nil {
		return nil
	}
	var text bytes.Buffer
	if err := s.torrent.Bare().Write(&text); err != nil {
		return failf(exitOther, "%w", err)
	}
	spec.Manifest = text.Bytes()
	return nil
}
