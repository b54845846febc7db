package origin

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"dragonload/internal/origin/origintest"
	"dragonload/internal/piece"
)

// 68: whatever the origin says, the name is one file in the folder.
func TestName_comesThroughTheResolver(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ path, field, want string }{
		{"/dir/f.bin", "", "f.bin"},
		{"/dir/f.bin?x=1", "attachment", "f.bin"},
		{"/", "", "download"},
		{"/dir/", "", "download"},
		{"/a%20b.txt", "", "a b.txt"},
		{"/%2e%2e%2fetc", "", "download"},
		{"/a%2Fb", "", "download"},
		{"/-rf", "", "download"},
		{"/" + strings.Repeat("x", 251), "", "download"},
		{"/.profile", "", ".profile"},
		{"/f", `attachment; filename="good name.iso"`, "good name.iso"},
		{"/f", "attachment; filename=plain.iso", "plain.iso"},
		{"/f", "inline; Filename = plain.iso ; x=y;", "plain.iso"},
		{"/f", `attachment; filename="plain.iso"; filename*=UTF-8''sch%C3%B6n.iso`, "schön.iso"},
		{"/f", `attachment; filename*=iso-8859-1'de'sch%F6n.iso`, "schön.iso"},
		{"/f", `attachment; filename="plain.iso"; filename*=klingon''x`, "plain.iso"},
		{"/f", `attachment; filename="a\"b"`, "f"},
		{"/f", `attachment; filename="../../x"`, "f"},
		{"/f", `attachment; filename="/etc/passwd"`, "f"},
		{"/f", `attachment; filename="..\\x"`, "f"},
		{"/f", `attachment; filename*=UTF-8''%2e%2e%2fx`, "f"},
		{"/f", `attachment; filename*=UTF-8''%E2%80%AEfdp.exe`, "f"},
		{"/f", `attachment; filename*=UTF-8''a%0Ab`, "f"},
		{"/f", `attachment; filename=CON.txt`, "f"},
		{"/f", `attachment; filename=.bashrc`, "f"},
		{"/f", `attachment; filename="-rf"`, "f"},
		{"/f", `attachment; filename=a; filename=b`, "f"},
		{"/f", `attachment; filename="open`, "f"},
		{"/f", `attachment; filename=two words`, "f"},
		{"/f", `; filename=x`, "f"},
		{"/f", `attachment; filename="` + strings.Repeat("x", 5000) + `"`, "f"},
		{"/f", `attachment; filename=""`, "f"},
	} {
		u, err := url.Parse("http://host" + test.path)
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{}
		if test.field != "" {
			h.Set("Content-Disposition", test.field)
		}
		x := &exchange{client: &Client{url: u}, url: u, resp: &http.Response{Header: h}}
		got, refused := x.nameOf()
		if got != test.want {
			t.Errorf("%s with %s is named %q, want %q", test.path, test.field, got, test.want)
		}
		if silent := refused == ""; silent != (got != "f") {
			t.Errorf("%s with %s: refused is %q", test.path, test.field, refused)
		}
		for _, r := range refused {
			if r < ' ' || r > '~' || len(refused) > 200 {
				t.Errorf("%s: what a terminal is to show is %q", test.field, refused)
				break
			}
		}
	}
}

func TestName_ofTheTargetWhereTheURLHasNone(t *testing.T) {
	t.Parallel()
	server := origintest.New(t, func(c *origintest.Conn, r *origintest.Request) bool {
		if r.Target == "/" {
			c.Send(302, "Location: /files/real.iso", nil)
		} else {
			c.Part(r, file, etag)
		}
		return true
	})
	c := newClient(t, server.URL+"/")
	a, err := probe(t, c, 100)
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	if a.Name != "real.iso" || c.Name() != "download" {
		t.Errorf("named %q and %q", a.Name, c.Name())
	}
}

func TestReprDigest_readsStructuredFields(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"sha-256=:AQI=:":                              "\x01\x02",
		"md5=:AA==:, sha-256=:AQI=:":                  "\x01\x02",
		"sha-256=:AQI=:;q=1; w=\"a,b\"  ,  unixsum=3": "\x01\x02",
		"a=\"x, sha-256=:AA==:\", sha-256=:AQI=:":     "\x01\x02",
		"sha-256=:AA==:, sha-256=:AQI=:":              "\x01\x02",
		"sha-256=AQI=":                                "",
		"sha-256=:AQI=":                               "",
		"sha-256=:AQI:":                               "",
		"SHA-256=:AQI=:":                              "",
		"sha-256=:AQI=:,":                             "",
		"sha-256 =:AQI=:":                             "",
		"":                                            "",
	} {
		if got := string(parseReprDigest(s)["sha-256"]); got != want {
			t.Errorf("%s: %x, want %x", s, got, want)
		}
	}
}

func (r contentRange) String() string {
	size := "*"
	if r.total >= 0 {
		size = strconv.FormatInt(r.total, 10)
	}
	if r.first < 0 {
		return "bytes */" + size
	}
	return fmt.Sprintf("bytes %d-%d/%s", r.first, r.last, size)
}

// String returns the field in the form that says any name.
func (d disposition) String() string {
	var b strings.Builder
	b.WriteString("attachment; filename*=UTF-8''")
	for i := range len(d.name) {
		fmt.Fprintf(&b, "%%%02X", d.name[i])
	}
	return b.String()
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{
		"bytes 0-99/1000", "bytes 0-0/1", "bytes */1000", "bytes 0-99/*", "bytes */*", "Bytes 1-2/3", "bytes 0-99/0099",
		"bytes 0-18446744073709551615/18446744073709551616", "bytes 9007199254740990-9007199254740990/9007199254740991",
		"bytes=0-1/2", "items 0-1/2", "bytes 2-1/3", "bytes 0-+1/3", "bytes  0-1/2", "bytes 0-1/2,", "bytes -1-0/1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, ok := parseContentRange(s)
		if !ok {
			return
		}
		if r.first >= 0 && (r.last < r.first || r.last > piece.MaxSize || r.total >= 0 && r.last >= r.total || r.len() <= 0) {
			t.Errorf("%q is read as %+v", s, r)
		}
		if again, ok := parseContentRange(r.String()); !ok || again != r {
			t.Errorf("%q prints as %q, which is read as %+v", s, r, again)
		}
	})
}

func TestParseDigest(t *testing.T) {
	t.Parallel()
	a, b := strings.Repeat("A", 43)+"=", strings.Repeat("A", 86)+"=="
	for _, c := range []struct {
		fields []string
		want   map[string]string
	}{
		{[]string{"SHA-256=" + a}, map[string]string{"sha-256": "sha-256=:" + a + ":"}},
		{[]string{"md5=x,sha-256=" + a + " ,\tsha-512=" + b}, map[string]string{"sha-256": "sha-256=:" + a + ":", "sha-512": "sha-512=:" + b + ":"}},
		{[]string{"sha-256=" + a, "sha-512=" + b}, map[string]string{"sha-256": "sha-256=:" + a + ":", "sha-512": "sha-512=:" + b + ":"}},
		{[]string{"sha-256=" + a, "SHA-256=" + a}, map[string]string{}},
		{[]string{"sha-256=" + b, "sha-512=:" + b + ":", "sha-256"}, map[string]string{}},
		{[]string{strings.Repeat("x", 5000)}, nil},
		{nil, nil},
	} {
		if got := parseDigest(c.fields); !maps.Equal(got, c.want) {
			t.Errorf("%q: got %v, want %v", c.fields, got, c.want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"7", "0", "-5", "99999999999999999999", "Fri, 02 Jan 2026 00:00:10 GMT", "soon", "+5", "1.5", "", " 3 "} {
		f.Add(s)
	}
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		wait, ok := parseRetryAfter(s, now)
		if !ok {
			return
		}
		if wait < 0 || wait > maxRetryAfter {
			t.Errorf("%q is read as %v", s, wait)
		}
		again, ok := parseRetryAfter(now.Add(wait).Format(http.TimeFormat), now)
		if !ok || again != wait.Truncate(time.Second) {
			t.Errorf("%q is read as %v, and as a date as %v", s, wait, again)
		}
	})
}

func FuzzContentDisposition(f *testing.F) {
	for _, s := range []string{
		"attachment", "attachment; filename=x", `attachment; filename="a b"`, "attachment; filename*=UTF-8''%C3%B6",
		"attachment; filename*=iso-8859-1''%F6", `inline; filename="a\"b"; x=y;`, "attachment; filename*=UTF-8''%", ";", `a;filename="`,
		`x; filename="a; b@c"`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := parseDisposition(s)
		if !ok || len(d.name) > 1000 {
			return
		}
		if again, ok := parseDisposition(d.String()); !ok || again != d {
			t.Errorf("%q is read as %q and printed as %q, which is read as %q", s, d.name, d, again.name)
		}
	})
}

func FuzzVersion(f *testing.F) {
	f.Add(`"v1"`, "sha-256=:AQI=:", "Thu, 01 Jan 2026 00:00:00 GMT", "Fri, 02 Jan 2026 00:00:00 GMT")
	f.Add(`W/"v1"`, "md5=:AA==:", "Thu, 01 Jan 2026 00:00:00 GMT", "Thu, 01 Jan 2026 00:00:00 GMT")
	f.Add("v1", "sha-512=:"+strings.Repeat("A", 86)+"==:", "yesterday", "")
	f.Add(`""`, "sha-256=:"+strings.Repeat("A", 43)+"=:, x;y", "", "")
	f.Fuzz(func(t *testing.T, etag, digest, modified, date string) {
		v := versionOf(http.Header{"Etag": {etag}, "Repr-Digest": {digest}, "Last-Modified": {modified}, "Date": {date}})
		pin := v.pin(1000)
		if err := pin.Validate(); err != nil {
			t.Fatal(err)
		}
		if pin.Kind == piece.NoValidator {
			return
		}
		if like := v.compare(pin, nil); like != same {
			t.Errorf("%+v is not its own pin %v", v, pin)
		}
		again := versionOf(http.Header{"Etag": {v.etag}, "Repr-Digest": {v.sha256, v.sha512}, "Last-Modified": {v.modified}, "Date": {date}})
		if v.sha256 == "" {
			again = versionOf(http.Header{"Etag": {v.etag}, "Repr-Digest": {v.sha512}, "Last-Modified": {v.modified}, "Date": {date}})
		} else if v.sha512 == "" {
			again = versionOf(http.Header{"Etag": {v.etag}, "Repr-Digest": {v.sha256}, "Last-Modified": {v.modified}, "Date": {date}})
		}
		if again != v {
			t.Errorf("%+v printed is read as %+v", v, again)
		}
		if d := reprDigest(v.sha256); v.sha256 != "" && (len(d) != 32 || formatReprDigest("sha-256", d) != v.sha256) {
			t.Errorf("digest %s is %x", v.sha256, d)
		}
		if bytes.ContainsAny([]byte(pin.Validator), "\r\n") {
			t.Errorf("validator %q", pin.Validator)
		}
	})
}
