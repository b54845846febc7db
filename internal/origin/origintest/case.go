package origintest

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Case is one way to misbehave.
type Case struct {
	// Number is that of the list in the project's study of threats, 0 for those beyond it.
	Number int
	Name   string
	What   string // exactly what it does, in one line

	change func(g *Origin, r *Request, t turn, a *reply)
	raw    func(g *Origin, c *Conn, r *Request, t turn) bool
	second bool   // there is a second server
	tls    string // kind of certificate; "" for plain HTTP
}

// Find returns the case of a name.
func Find(name string) (Case, bool) {
	for _, c := range Cases() {
		if c.Name == name {
			return c, true
		}
	}
	return Case{}, false
}

// Cases returns all cases.
func Cases() []Case {
	var all []Case
	for _, group := range [][]Case{rangeCases, versionCases, bodyCases, patienceCases, wireCases, tlsCases, redirectCases, fileCases} {
		all = append(all, group...)
	}
	return all
}

// ranged makes a change that concerns answers to requests for ranges only.
func ranged(change func(g *Origin, r *Request, t turn, a *reply)) func(*Origin, *Request, turn, *reply) {
	return func(g *Origin, r *Request, t turn, a *reply) {
		if a.status == http.StatusPartialContent {
			change(g, r, t, a)
		}
	}
}

// contentRange makes every 206 say something else of what it holds.
func contentRange(say func(a, b, s int64) string) func(*Origin, *Request, turn, *reply) {
	return ranged(func(g *Origin, _ *Request, _ turn, a *reply) {
		a.set("Content-Range", say(a.from, a.from+a.n-1, g.o.Content.Size))
	})
}

func noRange(_ *Origin, _ *Request, _ turn, a *reply) {
	a.whole()
	a.drop("Accept-Ranges")
}

// rangeCases: what an origin says and sends where a range was asked for.
var rangeCases = []Case{
	{Number: 1, Name: "honest", What: "206 with Content-Range a-b/S, exact Content-Length, strong ETag",
		change: func(*Origin, *Request, turn, *reply) {}},
	{Number: 2, Name: "no-range", What: "always 200 with the whole body, no Accept-Ranges", change: noRange},
	{Number: 3, Name: "ranges-none", What: "as no-range, with Accept-Ranges: none",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.whole(); a.set("Accept-Ranges", "none") }},
	{Number: 4, Name: "lying-accept", What: "Accept-Ranges: bytes, and 200 with the whole body to a range",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.whole() }},
	{Name: "ranges-end", What: "200 with the whole body after the third answer, same strong ETag",
		change: func(_ *Origin, _ *Request, t turn, a *reply) {
			if t.n >= 3 {
				a.whole()
			}
		}},
	{Name: "ranges-flap", What: "200 with the whole body on every third answer, same strong ETag",
		change: func(_ *Origin, _ *Request, t turn, a *reply) {
			if t.n%3 == 2 {
				a.whole()
			}
		}},
	{Number: 5, Name: "shy-ranges", What: "no Accept-Ranges anywhere, yet 206 works",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.drop("Accept-Ranges") }},
	{Number: 7, Name: "wrong-start", What: "206 with bytes 0 on, and says so, whatever was asked",
		change: ranged(func(g *Origin, _ *Request, _ turn, a *reply) {
			if a.from > 0 {
				a.part(0, a.n-1)
			}
		})},
	{Number: 8, Name: "shifted-body", What: "206 with the right Content-Range and a body from a+1",
		change: ranged(func(g *Origin, _ *Request, _ turn, a *reply) {
			last := make([]byte, a.n)
			_, _ = a.content.ReadAt(last, a.from+1)
			a.data = last
		})},
	{Number: 10, Name: "short-range", What: "206 with a to b-5, consistent headers",
		change: ranged(func(_ *Origin, _ *Request, _ turn, a *reply) {
			if a.n > 5 {
				a.part(a.from, a.from+a.n-6)
			}
		})},
	{Name: "capped-range", What: "206 with at most 16 KiB of what was asked for, consistent headers",
		change: ranged(func(_ *Origin, _ *Request, _ turn, a *reply) { a.part(a.from, a.from+min(a.n, 16<<10)-1) })},
	{Name: "halved-range", What: "206 with the first half of what was asked for, consistent headers",
		change: ranged(func(_ *Origin, _ *Request, _ turn, a *reply) { a.part(a.from, a.from+(a.n+1)/2-1) })},
	{Number: 12, Name: "no-content-range", What: "206 without Content-Range",
		change: ranged(func(_ *Origin, _ *Request, _ turn, a *reply) { a.drop("Content-Range") })},
	{Number: 13, Name: "star-total", What: "Content-Range a-b/* after the first answer",
		change: ranged(func(_ *Origin, _ *Request, t turn, a *reply) {
			if t.n > 0 {
				a.set("Content-Range", fmt.Sprintf("bytes %d-%d/*", a.from, a.from+a.n-1))
			}
		})},
	{Number: 14, Name: "wrong-total", What: "Content-Range a-b/(S+1) on every third answer",
		change: ranged(func(g *Origin, _ *Request, t turn, a *reply) {
			if t.n%3 == 2 {
				a.set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", a.from, a.from+a.n-1, g.o.Content.Size+1))
			}
		})},
	{Number: 15, Name: "inverted", What: "Content-Range b-a/S",
		change: contentRange(func(a, b, s int64) string { return fmt.Sprintf("bytes %d-%d/%d", b, a, s) })},
	{Number: 16, Name: "overflow", What: "Content-Range 0-18446744073709551615/18446744073709551616",
		change: contentRange(func(_, _, _ int64) string { return "bytes 0-18446744073709551615/18446744073709551616" })},
	{Number: 17, Name: "bad-unit-items", What: "Content-Range: items a-b/S",
		change: contentRange(func(a, b, s int64) string { return fmt.Sprintf("items %d-%d/%d", a, b, s) })},
	{Number: 17, Name: "bad-unit-equals", What: "Content-Range: bytes=a-b/S",
		change: contentRange(func(a, b, s int64) string { return fmt.Sprintf("bytes=%d-%d/%d", a, b, s) })},
	{Number: 17, Name: "bad-unit-none", What: "Content-Range: a-b/S without a unit",
		change: contentRange(func(a, b, s int64) string { return fmt.Sprintf("%d-%d/%d", a, b, s) })},
	{Name: "signed-range", What: "Content-Range: bytes +a-+b/+S",
		change: contentRange(func(a, b, s int64) string { return fmt.Sprintf("bytes +%d-+%d/+%d", a, b, s) })},
	{Name: "range-twice", What: "206 with two Content-Range fields that differ, the right one first",
		change: ranged(func(_ *Origin, _ *Request, _ turn, a *reply) {
			a.add("Content-Range", fmt.Sprintf("bytes %d-%d/%d", a.from+1, a.from+a.n, a.content.Size))
		})},
	{Name: "multipart", What: "206 multipart/byteranges with two parts where one range was asked for",
		change: ranged(func(_ *Origin, _ *Request, _ turn, a *reply) {
			part := make([]byte, a.n)
			_, _ = a.content.ReadAt(part, a.from)
			var b strings.Builder
			for _, half := range [][2]int64{{0, a.n / 2}, {a.n / 2, a.n}} {
				if half[0] < half[1] {
					fmt.Fprintf(&b, "\r\n--cut\r\nContent-Range: bytes %d-%d/%d\r\n\r\n%s", a.from+half[0], a.from+half[1]-1, a.content.Size, part[half[0]:half[1]])
				}
			}
			b.WriteString("\r\n--cut--\r\n")
			a.data = []byte(b.String())
			a.drop("Content-Range")
			a.set("Content-Type", "multipart/byteranges; boundary=cut")
			a.set("Content-Length", fmt.Sprint(len(a.data)))
		})},
	{Name: "multipart-one", What: "206 multipart/byteranges that also has the Content-Range that was asked for",
		change: ranged(func(_ *Origin, _ *Request, _ turn, a *reply) {
			a.set("Content-Type", "multipart/byteranges; boundary=cut")
		})},
	{Name: "multipart-behind", What: "206 with two Content-Type fields, multipart/byteranges the second one",
		change: ranged(func(_ *Origin, _ *Request, _ turn, a *reply) {
			a.add("Content-Type", "multipart/byteranges; boundary=cut")
		})},
	{Name: "wide-range", What: "206 with ten bytes more than were asked for, consistent headers",
		change: ranged(func(_ *Origin, _ *Request, _ turn, a *reply) {
			a.part(a.from, min(a.from+a.n+9, a.content.Size-1))
		})},
	{Name: "length-mismatch", What: "206 whose Content-Length and body are one byte less than its Content-Range",
		change: ranged(func(_ *Origin, _ *Request, _ turn, a *reply) {
			if a.n > 1 {
				a.n--
				a.set("Content-Length", fmt.Sprint(a.n))
			}
		})},
	{Name: "unasked-range", What: "weak ETag, and 206 with the first half to a request without Range",
		change: func(g *Origin, r *Request, _ turn, a *reply) {
			if !r.Ranged {
				a.part(0, g.o.Content.Size/2)
			}
			a.set("ETag", `W/"a"`)
		}},
	{Name: "whole-with-range", What: "200 with the whole body and a Content-Range that says so",
		change: func(g *Origin, _ *Request, _ turn, a *reply) {
			a.whole()
			a.set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", g.o.Content.Size-1, g.o.Content.Size))
		}},
	{Name: "part-as-whole", What: "200 with only the bytes asked for and their Content-Range",
		change: ranged(func(_ *Origin, _ *Request, _ turn, a *reply) { a.status = http.StatusOK })},
	{Number: 20, Name: "false-416", What: "416 with */S for a valid range, every fourth time",
		change: ranged(func(g *Origin, _ *Request, t turn, a *reply) {
			if t.n%4 == 3 {
				a.fail(http.StatusRequestedRangeNotSatisfiable, "")
				a.set("Content-Range", fmt.Sprintf("bytes */%d", g.o.Content.Size))
			}
		})},
	{Number: 21, Name: "shrunk-416", What: "416 with */(S/2) for every range after the first half was asked for",
		change: ranged(func(g *Origin, _ *Request, t turn, a *reply) {
			if t.asked >= g.o.Content.Size/2 {
				a.fail(http.StatusRequestedRangeNotSatisfiable, "")
				a.set("Content-Range", fmt.Sprintf("bytes */%d", g.o.Content.Size/2))
			}
		})},
	{Name: "garbled-416", What: "416 with bytes a-b/S, always, from the second answer on",
		change: ranged(func(g *Origin, _ *Request, t turn, a *reply) {
			if t.n > 0 {
				first, n := a.from, a.n
				a.fail(http.StatusRequestedRangeNotSatisfiable, "no such range")
				a.set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, first+n-1, g.o.Content.Size))
			}
		})},
	{Name: "cut-416", What: "416 with a Content-Length of a gigabyte and no body, every fourth time",
		change: ranged(func(g *Origin, _ *Request, t turn, a *reply) {
			if t.n%4 == 3 {
				a.fail(http.StatusRequestedRangeNotSatisfiable, "")
				a.set("Content-Range", fmt.Sprintf("bytes */%d", g.o.Content.Size))
				a.set("Content-Length", fmt.Sprint(1<<30))
				a.close = true
			}
		})},
	{Number: 56, Name: "head-lies", What: "HEAD answers 405", change: func(*Origin, *Request, turn, *reply) {}},
}

// versionCases: which version of the file an origin says that it sends.
var versionCases = []Case{
	{Number: 23, Name: "etag-switch", What: `ETag "v1" and, after half of the file was asked for, "v2" and other bytes, same size`,
		change: func(g *Origin, _ *Request, t turn, a *reply) {
			if t.asked >= g.o.Content.Size/2 {
				a.unlike(g.other(), `"v2"`)
			}
		}},
	{Number: 24, Name: "silent-switch", What: "no ETag, no Last-Modified; other bytes after half of the file was asked for, same size",
		change: func(g *Origin, _ *Request, t turn, a *reply) {
			a.drop("ETag")
			if t.asked >= g.o.Content.Size/2 {
				a.unlike(g.other(), "")
			}
		}},
	{Number: 25, Name: "weak-etag", What: `ETag: W/"a"`,
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.set("ETag", `W/"a"`) }},
	{Number: 26, Name: "fresh-date", What: "no ETag, Last-Modified equals Date",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.dated(0) }},
	{Number: 27, Name: "old-date", What: "no ETag, Last-Modified a day before Date",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.dated(24 * time.Hour) }},
	{Number: 30, Name: "etag-random", What: "a new ETag in each answer",
		change: func(_ *Origin, _ *Request, t turn, a *reply) { a.set("ETag", fmt.Sprintf(`"r%d"`, t.n)) }},
	{Number: 32, Name: "if-range-deaf", What: "206 of a new version with its new ETag after the first answer, whatever conditions ask",
		change: func(g *Origin, _ *Request, t turn, a *reply) {
			if t.n > 0 {
				a.unlike(g.other(), `"v2"`)
			}
		}},
	{Number: 33, Name: "precondition-412", What: "412 after the first answer",
		change: func(_ *Origin, _ *Request, t turn, a *reply) {
			if t.n > 0 {
				a.fail(http.StatusPreconditionFailed, "no")
			}
		}},
	{Number: 33, Name: "precondition-304", What: "304 after the first answer",
		change: func(_ *Origin, _ *Request, t turn, a *reply) {
			if t.n > 0 {
				a.status, a.n = http.StatusNotModified, 0
				a.drop("Content-Length")
				a.drop("Content-Range")
			}
		}},
	{Name: "etag-lost", What: "no ETag any more after the first answer",
		change: func(_ *Origin, _ *Request, t turn, a *reply) {
			if t.n > 0 {
				a.drop("ETag")
			}
		}},
	{Name: "etag-weakens", What: `ETag "v1" becomes W/"v1" after the first answer`,
		change: func(_ *Origin, _ *Request, t turn, a *reply) {
			if t.n > 0 {
				a.set("ETag", `W/"v1"`)
			}
		}},
	{Name: "etag-twice", What: "two ETag fields that differ in each answer",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.add("ETag", `"v2"`) }},
	{Name: "etag-keeps-date-moves", What: "same ETag, another Last-Modified in each answer",
		change: func(_ *Origin, _ *Request, t turn, a *reply) {
			a.set("Date", httpDate(time.Now()))
			a.set("Last-Modified", httpDate(time.Now().Add(-time.Duration(t.n+1)*time.Hour)))
		}},
	{Name: "etag-keeps-digest-moves", What: "same ETag, another Repr-Digest after the first answer",
		change: func(g *Origin, _ *Request, t turn, a *reply) {
			content := g.o.Content
			if t.n > 0 {
				content = g.other()
			}
			a.set("Repr-Digest", reprDigest(content))
		}},
	{Name: "login-midway", What: "200 with an HTML login page after half of the file was asked for",
		change: func(g *Origin, _ *Request, t turn, a *reply) {
			if t.asked >= g.o.Content.Size/2 {
				a.fail(http.StatusOK, "<html><form>password?</form></html>")
				a.set("Content-Type", "text/html; charset=utf-8")
			}
		}},
	{Name: "login-redirect", What: "302 to an HTML login page after half of the file was asked for",
		change: func(g *Origin, r *Request, t turn, a *reply) {
			switch {
			case strings.HasPrefix(r.Target, "/login"):
				a.fail(http.StatusOK, "<html><form>password?</form></html>")
				a.set("Content-Type", "text/html")
			case t.asked >= g.o.Content.Size/2:
				a.fail(http.StatusFound, "")
				a.set("Location", "/login?next=1")
			}
		}},
	{Number: 72, Name: "digest-good", What: "Repr-Digest: sha-256, right",
		change: func(g *Origin, _ *Request, _ turn, a *reply) { a.set("Repr-Digest", reprDigest(g.o.Content)) }},
	{Name: "digest-alone", What: "Repr-Digest: sha-256, right, and no other validator",
		change: func(g *Origin, _ *Request, _ turn, a *reply) {
			a.drop("ETag")
			a.set("Repr-Digest", reprDigest(g.o.Content))
		}},
	{Number: 73, Name: "digest-bad", What: "Repr-Digest: sha-256, wrong, constant",
		change: func(g *Origin, _ *Request, _ turn, a *reply) { a.set("Repr-Digest", reprDigest(g.other())) }},
	{Number: 74, Name: "digest-weak", What: "Repr-Digest: md5 and crc32c only, both wrong",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) {
			a.set("Repr-Digest", "md5=:1B2M2Y8AsgTpgAmY7PhCfg==:, crc32c=:AAAAAA==:")
		}},
	{Name: "digest-garbled", What: "Repr-Digest: sha-256 with a value that is no digest",
		change: func(_ *Origin, _ *Request, _ turn, a *reply) { a.set("Repr-Digest", "sha-256=:!!!!:") }},
}

// dated gives a no ETag, and a Last-Modified of that age.
func (a *reply) dated(age time.Duration) {
	now := time.Now()
	a.drop("ETag")
	a.set("Date", httpDate(now))
	if age == 0 {
		a.set("Last-Modified", httpDate(now))
		return
	}
	a.set("Last-Modified", httpDate(time.Unix(900_000_000, 0)))
}

func httpDate(at time.Time) string { return at.UTC().Format(http.TimeFormat) }
