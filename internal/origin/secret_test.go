package origin

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dragonload/internal/origin/origintest"
)

// canary is in every secret of these tests.
const canary = "SECRET"

// withSecrets returns options with every kind of secret.
func withSecrets(t *testing.T, host string) func(*Options) {
	t.Helper()
	dir := t.TempDir()
	cookies := filepath.Join(dir, "cookies")
	text := fmt.Sprintf("# Netscape HTTP Cookie File\n%s\tTRUE\t/\tFALSE\t0\tsession\tSECRETcookie\n#HttpOnly_%s\tFALSE\t/\tFALSE\t4102444800\tother\tSECRETother\n", host, host)
	if err := os.WriteFile(cookies, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(o *Options) {
		o.URL = strings.Replace(o.URL, "http://", "http://me:SECRETpass@", 1)
		o.Header = http.Header{"X-Api-Key": {"SECRETkey"}, "Referer": {"http://SECRETreferer/"}}
		o.Cookies = cookies
	}
}

func seen(r *origintest.Request) bool {
	for _, values := range r.Header {
		for _, v := range values {
			if strings.Contains(v, canary) {
				return true
			}
		}
	}
	return r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" || r.Header.Get("Referer") != ""
}

// 58 and 63: the redirect is followed with its Range and without anything secret, and
// what the target sets as a cookie goes back to the target alone.
func TestRedirect_takesNoSecretsAlong(t *testing.T) {
	t.Parallel()
	target := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
		if seen(r) && r.Number == 0 {
			t.Errorf("the target saw %v", r.Header)
		}
		if r.Number > 0 && r.Header.Get("Cookie") != "mirror=1" {
			t.Errorf("the target got the cookie %q", r.Header.Get("Cookie"))
		}
		c.Part(r, file, etag+"\nSet-Cookie: mirror=1; Domain=127.0.0.1")
		return true
	})
	first := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
		if r.Header.Get("X-Api-Key") != "SECRETkey" || r.Header.Get("Cookie") != "session=SECRETcookie; other=SECRETother" ||
			!strings.HasPrefix(r.Header.Get("Authorization"), "Basic ") || r.Header.Get("Referer") == "" {
			t.Errorf("the origin got %v", r.Header)
		}
		c.Send(302, "Location: "+target.URL+"/moved?sig=1", []byte("moved"))
		return true
	})
	c := newClient(t, first.URL+"/f.bin", withSecrets(t, "127.0.0.1"))
	a, err := probe(t, c, 100)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, a); err != nil || !bytes.Equal(got, file[:100]) || a.Name != "f.bin" {
		t.Errorf("%d bytes, %v, name %s", len(got), err, a.Name)
	}
	if a, err = fetch(t, c, a.Pin, 100, 200); err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, a); err != nil || !bytes.Equal(got, file[100:200]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if n, m := len(first.Requests()), len(target.Requests()); n != 1 || m != 2 {
		t.Errorf("%d requests to the origin and %d to the target, want 1 and 2", n, m)
	}
}

// When the end of the redirects no longer serves, the same call goes back to the URL.
func TestRedirect_shortCutEndsWhenItFails(t *testing.T) {
	t.Parallel()
	target := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
		if strings.HasPrefix(r.Target, "/1") && r.Number > 0 {
			c.Send(403, "", nil)
		} else {
			c.Part(r, file, etag)
		}
		return true
	})
	first := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
		c.Send(307, fmt.Sprintf("Location: %s/%d", target.URL, r.Number+1), nil)
		return true
	})
	c := newClient(t, first.URL+"/f")
	for i := range int64(3) {
		a, err := fetch(t, c, pinned(1000), i*10, i*10+10)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
	}
	if n, m := len(first.Requests()), len(target.Requests()); n != 2 || m != 4 {
		t.Errorf("%d requests to the origin and %d to the target, want 2 and 4", n, m)
	}
}

func TestRedirect_rule(t *testing.T) {
	t.Parallel()
	from, err := url.Parse("https://a.example/dir/f?q=1")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		location []string
		want     string // "" where it is not followed
	}{
		{[]string{"https://b.example/x?y#z"}, "https://b.example/x?y"},
		{[]string{"/x"}, "https://a.example/x"},
		{[]string{"x"}, "https://a.example/dir/x"},
		{[]string{"//b.example/x"}, "https://b.example/x"},
		{[]string{"?q=2"}, "https://a.example/dir/f?q=2"},
		{[]string{"/a b?q=a b"}, "https://a.example/a%20b?q=a%20b"},
		{[]string{"?q=\u00e9%20"}, "https://a.example/dir/f?q=%C3%A9%20"},
		{[]string{"https://b.example:65535/"}, "https://b.example:65535/"},
		{[]string{"https://b.example:65536/"}, ""},
		{[]string{"https://b.example:0/"}, ""},
		{[]string{"http://a.example/x"}, ""},
		{[]string{"file:///etc/passwd"}, ""},
		{[]string{"ftp://a.example/x"}, ""},
		{[]string{"data:text/plain,x"}, ""},
		{[]string{"https:x"}, ""},
		{[]string{"https://me:pw@b.example/x"}, ""},
		{[]string{"https://me@b.example/x"}, ""},
		{[]string{"https:///x"}, ""},
		{[]string{"https://[fe80::1%25eth0]/x"}, ""},
		{[]string{"https://b.example:port/"}, ""},
		{[]string{""}, ""},
		{nil, ""},
		{[]string{"/x", "/y"}, ""},
		{[]string{"/" + strings.Repeat("x", maxLocation)}, ""},
	} {
		next, why := follow(from, http.Header{"Location": test.location})
		switch {
		case test.want == "" && why == "":
			t.Errorf("%q is followed to %s", test.location, next)
		case test.want != "" && (why != "" || next.String() != test.want):
			t.Errorf("%q: %v, %s; want %s", test.location, next, why, test.want)
		}
	}
}

func TestRedirect_endsAtTen(t *testing.T) {
	t.Parallel()
	for _, hops := range []int{maxRedirects, maxRedirects + 1} {
		server := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
			if r.Number == hops {
				c.Part(r, file, etag)
			} else {
				c.Send(302, fmt.Sprintf("Location: /%d", r.Number), nil)
			}
			return true
		})
		_, err := probe(t, newClient(t, server.URL+"/f"), 100)
		if (err == nil) != (hops == maxRedirects) || err != nil && kindOf(t, err) != BadRedirect {
			t.Errorf("%d redirects: %v", hops, err)
		}
		if n := len(server.Requests()); n != maxRedirects+1 {
			t.Errorf("%d redirects: %d requests", hops, n)
		}
	}
}

// 65: the message of a refused redirect does not repeat what it leads to.
func TestRedirect_refusalIsQuiet(t *testing.T) {
	t.Parallel()
	server := origintest.New(t, func(c *origintest.Conn, _ *origintest.Request) bool {
		c.Send(302, "Location: http://me:token@other.example/?SECRET", nil)
		return true
	})
	_, err := probe(t, newClient(t, server.URL+"/f"), 100)
	if kindOf(t, err) != BadRedirect {
		t.Error(err)
	}
	checkMessage(t, err)
}

// 67: a cookie set by the refusal, by a redirect or by an earlier answer opens the gate.
func TestCookies_openTheGate(t *testing.T) {
	t.Parallel()
	for name, status := range map[string]int{"refusal": 403, "redirect": 302} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
				if r.Header.Get("Cookie") == "given=1; pass=yes" {
					c.Part(r, file, etag)
				} else {
					c.Send(status, "Location: /f\nSet-Cookie: pass=yes; Path=/; HttpOnly\nSet-Cookie: foreign=1; Domain=example.com", nil)
				}
				return true
			})
			c := newClient(t, server.URL+"/f", func(o *Options) { o.Header = http.Header{"Cookie": {"given=1; pass=no"}} })
			a, err := probe(t, c, 100)
			if err != nil {
				t.Fatal(err)
			}
			a.Body.Close()
			if n := len(server.Requests()); n != 2 {
				t.Errorf("%d requests, want 2", n)
			}
		})
	}
}

func TestCookies_refusalIsNotAskedForEver(t *testing.T) {
	t.Parallel()
	server := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
		c.Send(403, fmt.Sprintf("Set-Cookie: n=%d", r.Number), nil)
		return true
	})
	_, err := probe(t, newClient(t, server.URL+"/f"), 100)
	if n := len(server.Requests()); kindOf(t, err) != Forbidden || n != 2 {
		t.Errorf("%d requests, %v", n, err)
	}
}

func TestJar_isByOriginPathAndTimeAndBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	parse := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	var j jar
	set := func(u string, cookies ...string) bool {
		return j.take(parse(u), &http.Response{Header: http.Header{"Set-Cookie": cookies}}, now)
	}
	get := func(u string, at time.Time) string {
		req := &http.Request{URL: parse(u), Header: http.Header{}}
		j.add(req, at)
		return req.Header.Get("Cookie")
	}
	set("http://a.example/dir/f", "a=1", "b=2; Path=/", "c=3; Max-Age=10", `q="x"; Path=/q`)
	for u, want := range map[string]string{
		"http://a.example/dir/g":      "a=1; b=2; c=3",
		"http://A.EXAMPLE:80/dir/g":   "a=1; b=2; c=3",
		"http://a.example/directory":  "b=2",
		"http://a.example/q":          `b=2; q="x"`,
		"http://a.example:81/dir/g":   "",
		"https://a.example/dir/g":     "",
		"http://sub.a.example/dir/g":  "",
		"http://a.example.evil/dir/g": "",
	} {
		if got := get(u, now); got != want {
			t.Errorf("%s gets %q, want %q", u, got, want)
		}
	}
	if got := get("http://a.example/dir/g", now.Add(11*time.Second)); got != "a=1; b=2" {
		t.Errorf("after its time: %q", got)
	}
	if set("http://a.example/dir/f", "a=1") || !set("http://a.example/dir/f", "a=5") {
		t.Error("what is new was told wrongly")
	}
	set("http://a.example/dir/f", "a=; Max-Age=0", "b=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT")
	if got := get("http://a.example/dir/g", now); got != "c=3" {
		t.Errorf("after removal: %q", got)
	}
	for i := range 1000 {
		set("http://a.example/", fmt.Sprintf("n%d=1", i), "big="+strings.Repeat("x", maxCookie))
		set(fmt.Sprintf("http://h%d.example/", i), "x=1")
	}
	if len(j.origins) != maxJarOrigins || len(j.origins["http://a.example:80"]) != maxOriginCookie {
		t.Errorf("%d origins, %d cookies", len(j.origins), len(j.origins["http://a.example:80"]))
	}
}

func TestNetrc_givesWhatTheHostHas(t *testing.T) {
	t.Parallel()
	const text = `# a comment
machine other login x password y
machine Host.example
	login me
	password "p w\"#" account z
macdef init
 cd /

default login anonymous password #hash
`
	for host, want := range map[string][2]string{
		"host.example": {"me", `p w"#`}, "other": {"x", "y"}, "third": {"anonymous", "#hash"},
	} {
		user, pass, found, err := parseNetrc(text, host, false)
		if err != nil || !found || user != want[0] || pass != want[1] {
			t.Errorf("%s: %q %q %v %v", host, user, pass, found, err)
		}
	}
	if user, pass, found, err := parseNetrc(text, "third", true); found || user+pass != "" || err != nil {
		t.Errorf("by its name alone: %q %q %v %v", user, pass, found, err)
	}
	if user, _, found, err := parseNetrc(text, "host.example", true); !found || user != "me" || err != nil {
		t.Errorf("named: %q %v %v", user, found, err)
	}
	if _, _, found, err := parseNetrc("machine a login b", "c", false); found || err != nil {
		t.Errorf("foreign host: %v %v", found, err)
	}
	if _, _, _, err := parseNetrc("machine", "c", false); err == nil {
		t.Error("a machine without a name is accepted")
	}
}

func TestNetrc_isSentToTheOriginOnly(t *testing.T) {
	t.Parallel()
	other := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
		if seen(r) {
			t.Errorf("the target saw %v", r.Header)
		}
		c.Part(r, file, etag)
		return true
	})
	server := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
		if got := r.Header.Get("Authorization"); got != "Basic bWU6U0VDUkVU" {
			t.Errorf("the origin got %q", got)
		}
		c.Send(302, "Location: "+other.URL, nil)
		return true
	})
	netrc := filepath.Join(t.TempDir(), "netrc")
	if err := os.WriteFile(netrc, []byte("machine 127.0.0.1 login me password SECRET"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := probe(t, newClient(t, server.URL+"/f", func(o *Options) { o.Netrc = netrc }), 100)
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
}

func TestCookieFile_givesWhatTheOriginHas(t *testing.T) {
	t.Parallel()
	const text = "# Netscape HTTP Cookie File\r\n" +
		".example.com\tTRUE\t/\tFALSE\t0\ta\t1\r\n" +
		"example.com\tFALSE\t/\tFALSE\t0\tb\t2\n" +
		"www.example.com\tFALSE\t/dl\tTRUE\t0\tc\t3\n" +
		"#HttpOnly_www.example.com\tFALSE\t/\tFALSE\t1\td\t4\n" +
		"www.example.com\tFALSE\t/\tFALSE\t0\te\t\n" +
		"example.org\tTRUE\t/\tFALSE\t0\tf\t6\n"
	for rawURL, want := range map[string]string{
		"http://www.example.com/":    "a d e",
		"https://www.example.com/dl": "a c d e",
		"http://example.com/":        "a b",
		"http://notexample.com/":     "",
	} {
		u, err := url.Parse(rawURL)
		if err != nil {
			t.Fatal(err)
		}
		cookies, err := parseCookieFile(text, u)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, c := range cookies {
			names = append(names, c.name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %s, want %s", rawURL, got, want)
		}
	}
}
