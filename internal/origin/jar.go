package origin

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	maxJarOrigins   = 16
	maxOriginCookie = 32
	maxCookie       = 4 << 10 // bytes of name and value
)

// jar keeps the cookies that origins set in the life of a Client, by scheme, host and
// port: a cookie goes back to exactly who set it. (The jar of net/http goes by host,
// and sends a cookie to every port and, with Domain, to sub-domains.) What does not fit
// its bounds is not kept. The zero jar is empty.
type jar struct {
	origins map[string][]jarCookie
}

type jarCookie struct {
	name, value, path string
	expires           time.Time // zero for the end of the session
}

// take keeps the cookies of an answer of u and reports whether any of them is new or
// has another value than before.
func (j *jar) take(u *url.URL, resp *http.Response, now time.Time) (news bool) {
	if len(resp.Header["Set-Cookie"]) == 0 {
		return false
	}
	origin := originOf(u)
	kept, known := j.origins[origin]
	if !known && len(j.origins) == maxJarOrigins {
		return false
	}
	for _, c := range resp.Cookies() {
		if len(c.Name)+len(c.Value) > maxCookie || !domainMatches(u.Hostname(), c.Domain) {
			continue
		}
		got := jarCookie{name: c.Name, value: c.Value, path: c.Path}
		if c.Quoted {
			got.value = `"` + c.Value + `"`
		}
		if !strings.HasPrefix(got.path, "/") {
			got.path = defaultPath(u)
		}
		gone := c.MaxAge < 0
		switch {
		case c.MaxAge > 0:
			got.expires = now.Add(time.Duration(min(c.MaxAge, 1<<31)) * time.Second)
		case c.MaxAge == 0 && !c.Expires.IsZero():
			got.expires = c.Expires
			gone = !c.Expires.After(now)
		}
		at := slices.IndexFunc(kept, func(k jarCookie) bool { return k.name == got.name && k.path == got.path })
		switch {
		case gone && at >= 0:
			kept = slices.Delete(kept, at, at+1)
		case gone:
		case at >= 0:
			news = news || kept[at].value != got.value
			kept[at] = got
		case len(kept) < maxOriginCookie:
			news = true
			kept = append(kept, got)
		}
	}
	if j.origins == nil {
		j.origins = map[string][]jarCookie{}
	}
	j.origins[origin] = kept
	return news
}

// add puts the cookies into a request that its origin has set, after those of the
// user's that have other names.
func (j *jar) add(req *http.Request, now time.Time) {
	var pairs []string
	set := map[string]bool{}
	for _, c := range j.origins[originOf(req.URL)] {
		if (c.expires.IsZero() || now.Before(c.expires)) && pathMatches(requestPath(req.URL), c.path) {
			pairs = append(pairs, c.name+"="+c.value)
			set[c.name] = true
		}
	}
	if len(pairs) == 0 {
		return
	}
	var given []string
	for _, field := range req.Header["Cookie"] {
		for pair := range strings.SplitSeq(field, ";") {
			name, _, _ := strings.Cut(strings.TrimSpace(pair), "=")
			if name != "" && !set[name] {
				given = append(given, strings.TrimSpace(pair))
			}
		}
	}
	req.Header.Set("Cookie", strings.Join(append(given, pairs...), "; "))
}

// domainMatches reports whether an answer of host may name domain in a cookie. A wider
// domain is no error, but it widens nothing here.
func domainMatches(host, domain string) bool {
	host, domain = strings.ToLower(host), strings.ToLower(strings.TrimPrefix(domain, "."))
	return domain == "" || host == domain || strings.HasSuffix(host, "."+domain)
}

func requestPath(u *url.URL) string {
	if p := u.EscapedPath(); strings.HasPrefix(p, "/") {
		return p
	}
	return "/"
}

// defaultPath and pathMatches are those of RFC 6265, 5.1.4.
func defaultPath(u *url.URL) string {
	p := requestPath(u)
	if at := strings.LastIndexByte(p, '/'); at > 0 {
		return p[:at]
	}
	return "/"
}

func pathMatches(path, prefix string) bool {
	if !strings.HasPrefix(prefix, "/") {
		prefix = "/"
	}
	return strings.HasPrefix(path, prefix) &&
		(len(path) == len(prefix) || strings.HasSuffix(prefix, "/") || path[len(prefix)] == '/')
}
