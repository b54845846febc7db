package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http/httpproxy"

	"dragonload/internal/manifest"
	"dragonload/internal/node"
	"dragonload/internal/room"
)

// getFlags are the flags of get as the command line and the configuration gave them.
type getFlags struct {
	output, dir, inputFile     string
	room                       string
	alone                      bool
	maxConnections             int
	headers                    []string
	headerFile, netrc, cookies string
	checksums, mirrors         []string
	selects                    []string
	limitRate, limitUpload     rateValue
	timeout, connectTimeout    durationValue
	maxTries                   int
	giveUpAfter, linger        durationValue
	listen, advertise          string
	discover                   discoveryFlag
	cacert, proxy, userAgent   string
	resume, restart            bool
	overwrite, autoRename      bool
	lendQuery                  bool
	seedAllow                  []string
	noSeeds                    bool
	confirm                    int
	json, quiet                bool
	verbose                    int
	logFile                    string
}

// bounds of what a user's files may hold
const (
	maxListSize   = 64 << 20
	maxSecretSize = 1 << 20
)

func (g *getFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVarP(&g.output, "output", "o", "", "name of the finished `FILE` (one SOURCE); - streams to standard output")
	f.StringVarP(&g.dir, "dir", "d", "", "folder `DIR` for the file (default: the present one)")
	f.StringVarP(&g.inputFile, "input-file", "i", "", "read SOURCEs from `FILE`, one a line; - is standard input")
	f.StringVar(&g.room, "room", "", "work in this room, a `NAME|INVITE`; an invite joins first")
	f.BoolVar(&g.alone, "alone", false, "work without a room")
	f.VarP(&countValue{n: &g.maxConnections, min: 1, max: 64}, "max-connections", "x", "connections to one origin (default: adaptive, up to 8)")
	f.StringArrayVarP(&g.headers, "header", "H", nil, "`'Name: value'` for the origin alone; may be repeated")
	f.StringVar(&g.headerFile, "header-file", "", "read headers from `FILE`, one a line, away from the command line")
	f.StringVar(&g.netrc, "netrc", "", "user names and passwords from ~/.netrc, or from --netrc=`FILE`")
	f.Lookup("netrc").NoOptDefVal = "~/.netrc"
	f.StringVar(&g.cookies, "cookies", "", "cookies from `FILE` in the format of Netscape")
	f.StringArrayVar(&g.checksums, "checksum", nil, "the file must have this digest: `ALGORITHM=HEX` (sha-256, sha-512, sha-1, md5) or @FILE as sha256sum writes")
	f.StringArrayVar(&g.mirrors, "mirror", nil, "another address, a `URL`, of the same bytes (one SOURCE); may be repeated, up to "+strconv.Itoa(node.MaxMirrors)+" times")
	f.StringArrayVar(&g.selects, "select", nil, "of a folder only the files that `GLOB` fits: '*.iso', 'sub/*', 'sub'; may be repeated")
	f.Var(&g.limitRate, "limit-rate", "bytes per second at most, from the origin and members together")
	f.Var(&g.limitUpload, "limit-upload", "bytes per second to members at most")
	f.Var(&onlyValue{only: "1", typ: "N"}, "origin-copies", "budget of origin bytes in file sizes; only 1 in this version (with --confirm K about K all the same)")
	f.Var(&countValue{n: &g.confirm, min: 1, max: 8, typ: "K"}, "confirm", "members that must read each part from the origin and state it alike, up to 8; the origin then sends about K copies (default 1, with audits)")
	f.Var(setDuration(&g.timeout, 20*time.Second), "timeout", "leave a source that sends nothing for this long")
	f.Var(setDuration(&g.connectTimeout, 10*time.Second), "connect-timeout", "leave an address that does not answer for this long")
	f.VarP(&countValue{n: &g.maxTries, min: 0, max: 1 << 30}, "max-tries", "m", "tries per origin (default 0: no limit)")
	f.Var(setDuration(&g.giveUpAfter, 10*time.Minute), "give-up-after", "end with 2, the work kept, after this long without a new byte")
	f.Var(setDuration(&g.linger, 60*time.Second), "linger", "serve members that still need the file for at most this long")
	f.BoolVar(&g.lendQuery, "lend-query", false, "let members that lend their line know the address though it has a query, which may be secret")
	f.StringArrayVar(&g.seedAllow, "seed-allow", nil, "ask web seeds that members name at this `ADDR:PORT` or PREFIX:PORT too, and not only at public addresses at 80 and 443; may be repeated")
	f.BoolVar(&g.noSeeds, "no-seeds", false, "ask no web seeds that members name")
	f.StringVar(&g.listen, "listen", "", "`ADDR:PORT` where members reach this node (default: every address, port "+defaultPort+" or a free one)")
	f.StringVar(&g.advertise, "advertise", "", "`HOST:PORT` that members are told, if it differs")
	g.discover.register(cmd, "do not look for the room's members in the network around while its tracker is away")
	f.StringVar(&g.cacert, "cacert", "", "trust the certificates of this PEM `FILE` besides the system's")
	f.StringVar(&g.proxy, "proxy", "", "`URL` of a proxy for the origin, or none (default: as the environment says)")
	f.StringVar(&g.userAgent, "user-agent", "", "name `S` to tell the origin")
	f.BoolVarP(&g.resume, "continue", "c", false, "go on with what an earlier run left: the default; said aloud, an origin that cannot resume is an error")
	f.BoolVar(&g.restart, "restart", false, "throw away what an earlier run left")
	f.BoolVar(&g.overwrite, "overwrite", false, "replace a file that has the final name")
	f.BoolVar(&g.autoRename, "auto-rename", false, "save as name.1 (name.2, ...) if a file has the final name")
	f.BoolVar(&g.json, "json", false, "events as JSON lines on standard output")
	f.BoolVarP(&g.quiet, "quiet", "q", false, "no progress and no warnings")
	f.CountVarP(&g.verbose, "verbose", "v", "log to standard error; twice for every step")
	f.StringVar(&g.logFile, "log-file", "", "log to `FILE` too")
}

func setDuration(v *durationValue, d time.Duration) *durationValue {
	*v = durationValue(d)
	return v
}

// check finds what contradicts within the flags alone.
func (g *getFlags) check() error {
	switch {
	case g.alone && g.room != "":
		return usagef("--alone and --room contradict each other; give one of them")
	case g.alone && g.confirm > 1:
		return usagef("--confirm %d needs %d members, and --alone works without any; leave one of them out", g.confirm, g.confirm)
	case g.restart && g.resume:
		return usagef("--restart and --continue contradict each other; give one of them")
	case g.overwrite && g.autoRename:
		return usagef("--overwrite and --auto-rename contradict each other; give one of them")
	case g.timeout == 0 || g.connectTimeout == 0 || g.giveUpAfter == 0:
		return usagef("--timeout, --connect-timeout and --give-up-after must be above 0")
	case g.output == "-" && g.dir != "":
		return usagef("-o - writes to standard output, so there is no use for --dir")
	case g.output == "-" && (g.overwrite || g.autoRename):
		return usagef("-o - writes to standard output, so there is no file to replace or rename")
	}
	if err := g.checkSeeds(); err != nil {
		return err
	}
	for flag, address := range map[string]string{"--listen": g.listen, "--advertise": g.advertise} {
		if err := checkAddress(flag, address); err != nil {
			return err
		}
	}
	return nil
}

// source is one file to download.
type source struct {
	url     string
	mirrors []string               // a Metalink's, then the user's own
	own     int                    // how many are the user's own
	file    *manifest.MetalinkFile // what a Metalink says of it, or nil
	link    *room.Link             // that led to it, or nil

	// Instead of a URL: a manifest, or its id.
	torrent *manifest.Torrent
	id      string
	name    string // in a room
}

// String is what the user calls the source, without secrets.
func (s *source) String() string {
	switch {
	case s.torrent != nil:
		return safeText(s.torrent.Name)
	case s.url == "":
		return safeText(s.id + s.name)
	}
	return redacted(s.url)
}

// boundMirrors holds the mirrors of a source to as many as can be used. A user who
// names more is refused; the writer of a Metalink cannot know, so that the best of it
// are taken, and the user is told.
func (s *source) boundMirrors(tell io.Writer) error {
	over := len(s.mirrors) - node.MaxMirrors
	theirs := len(s.mirrors) - s.own
	switch {
	case over <= 0:
	case over > theirs:
		return usagef("%s has %d mirrors, and at most %d can be used; leave the others out", s, s.own, node.MaxMirrors)
	case s.torrent != nil:
		s.mirrors = slices.Delete(s.mirrors, theirs-over, theirs)
		fmt.Fprintf(tell, "dragonload: of the %d web seeds of %s the first %d are used\n", theirs, s, theirs-over)
	default:
		s.mirrors = slices.Delete(s.mirrors, theirs-over, theirs)
		fmt.Fprintf(tell, "dragonload: of the %d addresses of %s in the Metalink the best %d are used\n", theirs+1, safeText(s.file.Name), theirs+1-over)
	}
	return nil
}

// hiddenName returns what a Metalink or a torrent calls what is downloaded, and whether it
// would be hidden in the folder that it comes to, where start-up files and keys are.
func (s *source) hiddenName() (name string, hidden bool) {
	switch {
	case s.file != nil:
		name = s.file.Name
	case s.torrent != nil:
		name = s.torrent.Name
	}
	return name, strings.HasPrefix(name, ".")
}

// sources returns the files that the command line and --input-file name, in order.
func (g *getFlags) sources(args []string, std streams) ([]source, error) {
	var list []source
	for _, word := range args {
		more, err := readSource(word)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	if g.inputFile != "" {
		var data []byte
		var err error
		if g.inputFile == "-" {
			data, err = readAtMost(std.in, "standard input", maxListSize)
		} else {
			data, err = readBounded(g.inputFile, maxListSize)
		}
		if err != nil {
			return nil, usagef("--input-file: %w", err)
		}
		for _, l := range listLines(data) {
			if l.text[0] == ' ' || l.text[0] == '\t' {
				return nil, usagef("--input-file, line %d: options of single sources are not in this version yet", l.number)
			}
			// Behind the first address there may be others of the same file.
			words := strings.FieldsFunc(l.text, func(r rune) bool { return r == '\t' })
			more, err := readSource(strings.TrimSpace(words[0]))
			if err != nil {
				return nil, err
			}
			if len(words) > 1 && (len(more) != 1 || more[0].file != nil || more[0].url == "") {
				return nil, usagef("--input-file, line %d: other addresses belong behind the URL of one file", l.number)
			}
			for _, mirror := range words[1:] {
				if err := checkMirror(strings.TrimSpace(mirror)); err != nil {
					return nil, err
				}
				more[0].mirrors = append(more[0].mirrors, strings.TrimSpace(mirror))
				more[0].own++
			}
			list = append(list, more...)
		}
	}
	switch {
	case len(list) == 0 && g.inputFile != "":
		return nil, usagef("--input-file %s names no SOURCE", g.inputFile)
	case len(list) == 0:
		return nil, usagef("get needs a SOURCE, a URL for example; see dragonload get --help")
	case len(list) > 1 && g.output != "":
		return nil, usagef("-o names one file, and there are %d SOURCEs; use --dir", len(list))
	case len(list) > 1 && len(g.mirrors) > 0:
		return nil, usagef("--mirror gives another address of one file, and there are %d SOURCEs; write them behind its URL in a list (-i), after a tab", len(list))
	}
	for _, mirror := range g.mirrors {
		if err := checkMirror(mirror); err != nil {
			return nil, err
		}
		list[0].mirrors = append(list[0].mirrors, mirror)
		list[0].own++
	}
	tell := std.err
	if g.quiet {
		tell = io.Discard
	}
	for k := range list {
		if name, hidden := list[k].hiddenName(); hidden && g.output == "" {
			return nil, failf(exitBadAnswer, "the name %s begins with a dot, as those of files that start or open other things do, and nobody but you gives such a name here; "+
				"give it with -o, or another one", safeText(name))
		}
		if err := list[k].boundMirrors(tell); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// readSource returns the file that a SOURCE names, or those that a Metalink does.
func readSource(word string) ([]source, error) {
	switch {
	case room.IsLink(word):
		return readLink(word)
	case isTorrent(word):
		s, err := torrentSource(word)
		return []source{s}, err
	case isManifestID(word):
		return []source{{id: word}}, nil
	case isName(word):
		return []source{{name: word}}, nil
	case !isMetalink(word):
		return []source{{url: word}}, checkSource(word)
	}
	m, err := readMetalink(word)
	if err != nil {
		return nil, err
	}
	var list []source
	for _, f := range m.Files {
		if len(f.URLs) == 0 {
			return nil, failf(exitBadAnswer, "%s names no http or https address of %s", safeText(word), safeText(f.Name))
		}
		list = append(list, source{url: f.URLs[0], mirrors: f.URLs[1:], file: &f})
	}
	return list, nil
}

func checkMirror(mirror string) error {
	u, err := url.Parse(mirror)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return usagef("a mirror is no http or https URL: %s", shownSource(mirror))
	}
	return nil
}

func checkSource(source string) error {
	u, err := url.Parse(source)
	lower := strings.ToLower(source)
	switch {
	case source == "":
		return usagef("a SOURCE is empty; write a URL")
	case strings.HasPrefix(lower, "magnet:"):
		return usagef("%s: magnet links name no place that dragonload can ask; give a torrent file, or the id of a manifest in a room", shownSource(source))
	case err != nil:
		return usagef("a SOURCE is no URL that can be read; check its %% signs, host and port")
	case u.Scheme == "http" || u.Scheme == "https":
		if u.Hostname() == "" {
			return usagef("%s has no host; write https://HOST/PATH", redacted(source))
		}
		if port := u.Port(); port != "" {
			if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
				return usagef("%s names a port that cannot be; ports are 1 to 65535", redacted(source))
			}
		}
		return nil
	case strings.Contains(source, "://"):
		return usagef("%s://: dragonload speaks http and https", safeText(u.Scheme))
	}
	return usagef("%s is no URL; write https:// in front of it", shownSource(source))
}

// shownSource is a SOURCE that is no URL, without what would be user-info, query and
// fragment if it were one, which may be secret.
func shownSource(source string) string {
	if i := strings.IndexAny(source, "?#"); i >= 0 {
		source = source[:i]
	}
	return strings.TrimSuffix(safeText(source[strings.LastIndexByte(source, '@')+1:]), ":")
}

func hasSuffix(s string, suffixes ...string) bool {
	for _, suffix := range suffixes {
		if strings.HasSuffix(s, suffix) {
			return true
		}
	}
	return false
}

// specs returns one Spec for each source. It reads the files that the flags name, but
// makes and changes none.
func (g *getFlags) specs(sources []source, room string) ([]node.Spec, error) {
	dir, err := filepath.Abs(g.dir)
	if err != nil {
		return nil, failf(exitOther, "present folder: %w", err)
	}
	output := g.output
	if output != "" && output != "-" {
		if sources[0].mayBeFolder() {
			output = strings.TrimRight(filepath.ToSlash(output), "/")
		}
		if hasSuffix(output, "/", string(filepath.Separator)) {
			return nil, usagef("-o %s names a folder; use --dir", safeText(output))
		}
		if !filepath.IsAbs(output) {
			output = filepath.Join(dir, output)
		}
		if info, err := os.Stat(output); err == nil && info.IsDir() && !sources[0].mayBeFolder() {
			return nil, usagef("-o %s is a folder; use --dir", safeText(g.output))
		}
	}
	header, err := g.header()
	if err != nil {
		return nil, err
	}
	netrc, err := g.secretFile("--netrc", netrcPath(g.netrc))
	if err != nil {
		return nil, err
	}
	cookies, err := g.secretFile("--cookies", g.cookies)
	if err != nil {
		return nil, err
	}
	cacert, err := g.secretFile("--cacert", g.cacert)
	if err != nil {
		return nil, err
	}
	agent := g.userAgent
	if agent == "" {
		agent = "dragonload/" + version()
	}
	if !httpguts.ValidHeaderFieldValue(agent) {
		return nil, usagef("--user-agent holds characters that HTTP does not allow")
	}
	lists, err := readChecksums(g.checksums, len(sources))
	if err != nil {
		return nil, err
	}
	var all []node.Spec
	for _, source := range sources {
		if err := g.checkManifest(&source, room); err != nil {
			return nil, err
		}
		var address, proxy string
		if source.url != "" {
			u, through, err := g.address("SOURCE", source.url)
			if err != nil {
				return nil, err
			}
			address, proxy = u.String(), through
		}
		output := output
		if source.file != nil && output == "" {
			output = filepath.Join(dir, filepath.FromSlash(source.file.Name))
		}
		name := source.url
		if source.torrent != nil {
			name = "/" + url.PathEscape(source.torrent.Name)
		}
		sums, err := lists.of(name, output)
		if err != nil {
			return nil, err
		}
		mirrors, err := g.mirrorSpecs(source.mirrors)
		if err != nil {
			return nil, err
		}
		var size, pieceLength int64
		var pieceSums []byte
		if source.file != nil {
			pieceLength, pieceSums = piecesOf(source.file)
			size = max(source.file.Size, 0)
			sums = append(sums, checksumsOf(source.file)...)
		}
		spec := node.Spec{
			URL: address, Room: room, Dir: dir, Output: output, Mirrors: mirrors, Size: size, PieceLength: pieceLength, PieceSums: pieceSums,
			Overwrite: g.overwrite, AutoRename: g.autoRename, Restart: g.restart, Continue: g.resume,
			MaxConnections: g.maxConnections, Header: header.Clone(), Netrc: netrc, NetrcNamed: source.file != nil, Cookies: cookies,
			UserAgent: agent, Proxy: proxy, CACert: cacert, Checksums: sums,
			LimitRate: int64(g.limitRate), LimitUpload: int64(g.limitUpload),
			Timeout: time.Duration(g.timeout), ConnectTimeout: time.Duration(g.connectTimeout),
			LendQuery: g.lendQuery, Confirm: g.confirm, SeedAllow: g.seedAllow, NoSeeds: g.noSeeds || g.proxied(),
			MaxTries: g.maxTries, GiveUpAfter: time.Duration(g.giveUpAfter), Linger: time.Duration(g.linger),
		}
		if err := source.ask(&spec, g.selects); err != nil {
			return nil, err
		}
		all = append(all, spec)
	}
	return all, nil
}

// address reads a URL, without the fragment, which no server is sent, and finds the proxy
// on the way to it. What is what the user calls it.
func (g *getFlags) address(what, raw string) (u *url.URL, proxy string, err error) {
	if u, err = url.Parse(raw); err != nil {
		return nil, "", usagef("a %s is no URL that can be read", what)
	}
	u.Fragment, u.RawFragment = "", ""
	proxy, err = g.proxyFor(u)
	return u, proxy, err
}

func (g *getFlags) mirrorSpecs(urls []string) ([]node.Mirror, error) {
	var mirrors []node.Mirror
	for _, raw := range urls {
		u, proxy, err := g.address("mirror", raw)
		if err != nil {
			return nil, err
		}
		mirrors = append(mirrors, node.Mirror{URL: u.String(), Proxy: proxy})
	}
	return mirrors, nil
}

// ownHeaders are set by dragonload itself: with others the bytes that come would not
// be those of the file, or not those that were asked for.
var ownHeaders = map[string]bool{
	"Range": true, "If-Range": true, "If-Match": true, "If-None-Match": true, "If-Modified-Since": true,
	"If-Unmodified-Since": true, "Accept-Encoding": true, "Connection": true, "Content-Length": true,
	"Transfer-Encoding": true, "Te": true, "Trailer": true, "Upgrade": true, "Expect": true, "Host": true,
}

// header puts the headers of the flags together. Messages never hold a value: it is
// a secret often enough.
func (g *getFlags) header() (http.Header, error) {
	header := http.Header{}
	add := func(where, line string) error {
		name, value, ok := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch {
		case !ok:
			return usagef("%s has no colon; write 'Name: value'", where)
		case !httpguts.ValidHeaderFieldName(name):
			return usagef("%s has a name that HTTP does not allow; write 'Name: value'", where)
		case !httpguts.ValidHeaderFieldValue(value):
			return usagef("%s (%s) has a value that HTTP does not allow", where, name)
		case ownHeaders[http.CanonicalHeaderKey(name)]:
			return usagef("%s: dragonload sets %s itself", where, name)
		}
		header.Add(name, value)
		return nil
	}
	for _, line := range g.headers {
		if err := add("--header", line); err != nil {
			return nil, err
		}
	}
	if g.headerFile != "" {
		data, err := readBounded(g.headerFile, maxSecretSize)
		if err != nil {
			return nil, usagef("--header-file: %w", err)
		}
		data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
		for _, l := range listLines(data) {
			if err := add("--header-file, line "+strconv.Itoa(l.number), l.text); err != nil {
				return nil, err
			}
		}
	}
	return header, nil
}

// secretFile returns the absolute path of a file that must be there.
func (*getFlags) secretFile(flag, path string) (string, error) {
	if path == "" {
		return "", nil
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", failf(exitOther, "%s: %w", flag, err)
	}
	if _, err := readBounded(path, maxSecretSize); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return "", usagef("%s: there is no file %s", flag, path)
		}
		return "", usagef("%s: %w", flag, err)
	}
	return path, nil
}

func netrcPath(path string) string {
	rest, home := strings.CutPrefix(path, "~/")
	if !home {
		return path
	}
	if rest == ".netrc" {
		if named := os.Getenv("NETRC"); named != "" {
			return named
		}
		if runtime.GOOS == "windows" {
			rest = "_netrc"
		}
	}
	dir, err := os.UserHomeDir()
	if err != nil {
		return path
	}
	return filepath.Join(dir, rest)
}

// proxyFor returns the proxy for a URL: the flag's, else the one that the environment
// names for it (http_proxy, https_proxy, no_proxy).
func (g *getFlags) proxyFor(u *url.URL) (string, error) {
	switch g.proxy {
	case "none":
		return "", nil
	case "":
		p, err := httpproxy.FromEnvironment().ProxyFunc()(u)
		if err != nil {
			return "", usagef("the proxy that the environment names is no URL; mend http_proxy, or give --proxy none")
		}
		if p == nil {
			return "", nil
		}
		return p.String(), nil
	}
	return g.proxy, checkProxy("--proxy", g.proxy)
}

// checkProxy checks a flag's URL of a proxy.
func checkProxy(flag, proxy string) error {
	p, err := url.Parse(proxy)
	if err != nil || p.Hostname() == "" {
		return usagef("%s is no URL; write http://HOST:PORT", flag)
	}
	switch p.Scheme {
	case "http", "https", "socks5", "socks5h":
		return nil
	}
	return usagef("%s: %s:// is not known; use http, https or socks5", flag, safeText(p.Scheme))
}
