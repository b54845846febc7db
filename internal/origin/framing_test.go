package origin

import (
	"strings"
	"testing"
)

func TestFraming_knowsAWholeBodyInChunks(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]bool{
		"0\r\n\r\n":                                      true,
		"5\r\nhello\r\n0\r\n\r\n":                        true,
		"5\nhello\n0\n\n":                                false, // net/http ends lines of data with CR LF alone, and so does everybody
		"A;x=y\r\n0123456789\r\n0\r\n\r\n":               true,
		"1 \r\n0\r\n1\r\n\n\r\n00\r\nX: y\r\nZ:\r\n\r\n": true,
		"":                                  false,
		"0":                                 false,
		"0\r\n":                             false,
		"0\r\n\r\n\r\n":                     false, // something follows
		"5\r\nhello":                        false,
		"5\r\nhello\r\n":                    false,
		"5\r\nhello!\r\n0\r\n\r\n":          false,
		"\r\n0\r\n\r\n":                     false,
		"-1\r\n0\r\n\r\n":                   false,
		"0x1\r\na\r\n0\r\n\r\n":             false,
		"fffffffffffffff\r\nhello":          false,
		"ffffffffffffffff\r\n\r\n0\r\n\r\n": false,
		"1\r\n2\r\n3\r\n4\r\n":              false, // a list of numbers
	} {
		for step := 1; step <= len(body)+1; step++ {
			var f framing
			for rest := body; rest != ""; {
				n := min(step, len(rest))
				f.take([]byte(rest[:n]))
				rest = rest[n:]
			}
			if f.whole() != want {
				t.Errorf("%q read %d bytes at a time: %v, want %v", strings.ReplaceAll(body, "\r", "~"), step, f.whole(), want)
			}
		}
	}
}
