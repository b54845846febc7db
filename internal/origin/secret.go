package origin

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/http/httpguts"
)

// secrets are what the user gave for the URL's own origin. They are sent to that one,
// also when redirects come back to it, and to no other: not to another port of the same
// host, not to a sub-domain, whatever the cookie file says.
type secrets struct {
	origin        string
	host          string // a Host header of the user's
	header        http.Header
	user, pass    string
	authorization bool // user and pass are set
	cookies       []fileCookie
}

// ownHeaders are the headers that this package alone sets: with others it would read
// its answers wrongly.
var ownHeaders = map[string]bool{
	"Range": true, "If-Range": true, "If-Match": true, "If-None-Match": true, "If-Modified-Since": true,
	"If-Unmodified-Since": true, "Accept-Encoding": true, "Connection": true, "Content-Length": true,
	"Transfer-Encoding": true, "Te": true, "Trailer": true, "Upgrade": true, "Expect": true, "Keep-Alive": true,
	"Proxy-Authorization": true, "Proxy-Connection": true,
}

func loadSecrets(o Options, u *url.URL) (secrets, error) {
	s := secrets{origin: originOf(u), header: http.Header{}}
	for name, values := range o.Header {
		key := textproto.CanonicalMIMEHeaderKey(name)
		if !httpguts.ValidHeaderFieldName(name) {
			return s, fmt.Errorf("%+q is not the name of a header", name)
		}
		if ownHeaders[key] {
			return s, fmt.Errorf("the header %s is set by dragonload itself", key)
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return s, fmt.Errorf("the value of header %s has characters that no header may have", key)
			}
		}
		if key == "Host" {
			if len(values) != 1 || !httpguts.ValidHostHeader(values[0]) {
				return s, errors.New("the header Host does not hold one host")
			}
			s.host = values[0]
			continue
		}
		s.header[key] = append(s.header[key], values...)
	}
	if u.User != nil {
		s.user = u.User.Username()
		s.pass, _ = u.User.Password()
		s.authorization = true
	}
	if o.Netrc != "" {
		text, err := readFile(o.Netrc)
		if err != nil {
			return s, fmt.Errorf("read netrc file: %w", err)
		}
		user, pass, found, err := parseNetrc(string(text), u.Hostname(), o.NetrcNamed)
		if err != nil {
			return s, fmt.Errorf("netrc file %s: %w", o.Netrc, err)
		}
		if found && !s.authorization {
			s.user, s.pass, s.authorization = user, pass, true
		}
	}
	if o.Cookies != "" {
		text, err := readFile(o.Cookies)
		if err != nil {
			return s, fmt.Errorf("read cookie file: %w", err)
		}
		if s.cookies, err = parseCookieFile(string(text), u); err != nil {
			return s, fmt.Errorf("cookie file %s: %w", o.Cookies, err)
		}
	}
	return s, nil
}

// add puts the secrets into a request if they belong to where it goes. An
// Authorization header of the user's goes before user-info, that before netrc.
func (s *secrets) add(req *http.Request) {
	if originOf(req.URL) != s.origin {
		return
	}
	for name, values := range s.header {
		req.Header[name] = append([]string(nil), values...)
	}
	if s.host != "" {
		req.Host = s.host
	}
	if s.authorization && len(req.Header["Authorization"]) == 0 {
		req.SetBasicAuth(s.user, s.pass)
	}
	pairs := req.Header["Cookie"]
	now := time.Now()
	for _, c := range s.cookies {
		if (c.expires.IsZero() || now.Before(c.expires)) && pathMatches(requestPath(req.URL), c.path) {
			pairs = append(pairs, c.name+"="+c.value)
		}
	}
	if len(pairs) > 0 {
		req.Header.Set("Cookie", strings.Join(pairs, "; "))
	}
}

// originOf returns scheme, host and port: what secrets and cookies belong to.
func originOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "80"
		if u.Scheme == "https" {
			port = "443"
		}
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// parseNetrc returns what a netrc file has for host, or, unless only what is named counts,
// under default. Words may stand in double quotes, with \ before a quote, as curl reads
// them.
func parseNetrc(text, host string, named bool) (user, pass string, found bool, err error) {
	inHost, inDefault := false, false
	for {
		word, rest, ok := netrcWord(text)
		if !ok {
			return user, pass, found, nil
		}
		if strings.HasPrefix(word, "#") { // only here: a password may begin with it
			_, text, _ = strings.Cut(text[strings.Index(text, "#"):], "\n")
			continue
		}
		text = rest
		value := func() string {
			v, rest, ok := netrcWord(text)
			if !ok && err == nil {
				err = fmt.Errorf("%s stands at the end without its value", word)
			}
			text = rest
			return v
		}
		switch word {
		case "machine":
			if found {
				return user, pass, true, err
			}
			inHost = strings.EqualFold(value(), host)
			inDefault, found = false, inHost
		case "default":
			if found {
				return user, pass, true, err
			}
			inHost, inDefault, found = false, !named, !named
		case "login":
			if v := value(); inHost || inDefault {
				user = v
			}
		case "password":
			if v := value(); inHost || inDefault {
				pass = v
			}
		case "account":
			value()
		case "macdef":
			// A macro goes on to the next empty line.
			_, text, _ = strings.Cut(text, "\n\n")
		default:
			err = errors.New("it has a word that netrc does not know")
		}
		if err != nil {
			return "", "", false, err
		}
	}
}

// netrcWord returns the first word of text and what follows it.
func netrcWord(text string) (word, rest string, ok bool) {
	text = strings.TrimLeftFunc(text, unicode.IsSpace)
	if text == "" {
		return "", "", false
	}
	if text[0] != '"' {
		end := strings.IndexFunc(text, unicode.IsSpace)
		if end < 0 {
			end = len(text)
		}
		return text[:end], text[end:], true
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '"':
			return b.String(), text[i+1:], true
		case '\\':
			if i++; i == len(text) {
				return "", "", false
			}
		}
		b.WriteByte(text[i])
	}
	return "", "", false
}

// fileCookie is a line of a cookie file.
type fileCookie struct {
	path, name, value string
	expires           time.Time // zero for the end of the session
}

// parseCookieFile returns the cookies that a file in the format of Netscape has for
// u's origin. Its errors name the line and quote nothing of it.
func parseCookieFile(text string, u *url.URL) ([]fileCookie, error) {
	var cookies []fileCookie
	host := strings.ToLower(u.Hostname())
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimRight(line, "\r\n")
		line = strings.TrimPrefix(line, "#HttpOnly_")
		if strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) == 6 {
			f = append(f, "") // an empty value whose tab an editor has dropped
		}
		if len(f) != 7 {
			return nil, fmt.Errorf("line %d has not the seven fields of a Netscape cookie file", n)
		}
		expires, err := strconv.ParseInt(f[4], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("line %d: its fifth field is not a time in seconds", n)
		}
		if !httpguts.ValidHeaderFieldName(f[5]) || !validCookieValue(f[6]) {
			return nil, fmt.Errorf("line %d has characters that no cookie may have", n)
		}
		domain := strings.ToLower(strings.TrimPrefix(f[0], "."))
		below := strings.EqualFold(f[1], "TRUE") && strings.HasSuffix(host, "."+domain)
		secureOnly := strings.EqualFold(f[3], "TRUE")
		if (host != domain && !below) || (secureOnly && u.Scheme != "https") {
			continue
		}
		c := fileCookie{path: f[2], name: f[5], value: f[6]}
		if expires > 0 {
			c.expires = time.Unix(expires, 0)
		}
		cookies = append(cookies, c)
	}
	return cookies, nil
}

func validCookieValue(v string) bool {
	return !strings.Contains(v, ";") && httpguts.ValidHeaderFieldValue(v)
}

// HasSecrets reports whether the user gave anything that belongs to the URL's own
// origin: headers, a user name and password, cookies.
func (c *Client) HasSecrets() bool {
	s := &c.secret
	return s.host != "" || len(s.header) > 0 || s.authorization || len(s.cookies) > 0
}
