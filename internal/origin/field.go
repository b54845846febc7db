package origin

import (
	"net/http"
	"strings"
	"time"

	"dragonload/internal/piece"
)

// contentRange is a Content-Range field: the bytes first to last, both included, of a
// file of total bytes. In an answer that is not a range (416) first and last are -1; a
// total that the origin does not know is piece.UnknownSize.
type contentRange struct{ first, last, total int64 }

// parseContentRange reads a field strictly as RFC 9110, 14.4 has it, with numbers up to
// piece.MaxSize; what is inconsistent in itself is refused.
func parseContentRange(s string) (contentRange, bool) {
	const unit = "bytes "
	none := contentRange{}
	if len(s) < len(unit) || !strings.EqualFold(s[:len(unit)], unit) {
		return none, false
	}
	span, size, found := strings.Cut(s[len(unit):], "/")
	if !found {
		return none, false
	}
	r := contentRange{first: -1, last: -1, total: piece.UnknownSize}
	var ok bool
	if size != "*" {
		if r.total, ok = parseSize(size); !ok {
			return none, false
		}
	}
	if span == "*" {
		return r, r.total >= 0
	}
	first, last, found := strings.Cut(span, "-")
	if !found {
		return none, false
	}
	if r.first, ok = parseSize(first); !ok {
		return none, false
	}
	if r.last, ok = parseSize(last); !ok {
		return none, false
	}
	if r.last < r.first || r.total >= 0 && r.last >= r.total {
		return none, false
	}
	return r, true
}

// len returns the number of bytes in the range.
func (r contentRange) len() int64 { return r.last - r.first + 1 }

// parseSize reads digits, and nothing but digits, up to piece.MaxSize. (The parsers of
// strconv take a sign.)
func parseSize(s string) (int64, bool) {
	if s == "" || len(s) > 32 {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		if n = n*10 + int64(s[i]-'0'); n > piece.MaxSize {
			return 0, false
		}
	}
	return n, true
}

// maxRetryAfter caps how long an origin may keep us waiting with one answer.
const maxRetryAfter = time.Hour

// retryAfter returns how long an answer asks to wait, and whether it does. A date is
// judged by the answer's own Date, so that the origin's clock may be wrong by any
// amount; now stands in for a Date that is missing. Of several times the longest counts.
func retryAfter(h http.Header, now time.Time) (wait time.Duration, named bool) {
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	for _, field := range h.Values("Retry-After") {
		if d, ok := parseRetryAfter(field, now); ok {
			wait, named = max(wait, d), true
		}
	}
	return wait, named
}

func parseRetryAfter(s string, now time.Time) (time.Duration, bool) {
	s = strings.TrimSpace(s)
	if s != "" && strings.Trim(s, "0123456789") == "" {
		n, ok := parseSize(s)
		if !ok || n > int64(maxRetryAfter/time.Second) {
			return maxRetryAfter, true
		}
		return time.Duration(n) * time.Second, true
	}
	if n, negative := strings.CutPrefix(s, "-"); negative && n != "" && strings.Trim(n, "0123456789") == "" {
		return 0, true
	}
	at, err := http.ParseTime(s)
	if err != nil {
		return 0, false
	}
	return min(max(at.Sub(now), 0), maxRetryAfter), true
}
