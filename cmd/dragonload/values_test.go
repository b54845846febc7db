package main

import (
	"testing"
	"time"
)

func TestParseSize_takesSuffixesOf1024(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "500K": 500 << 10, "500k": 500 << 10, "1.5M": 3 << 19, "2G": 2 << 30, ".5K": 512,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "K", "-1", "+1", "1Q", "1KB", "1e3", "0x10", "inf", "NaN", "1..2", "99999999999G"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", text, got)
		}
	}
}

func TestParseDuration_takesUnitsAndPlainSeconds(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"20s": 20 * time.Second, "10m": 10 * time.Minute, "1h30m": 90 * time.Minute, "20": 20 * time.Second,
		"0.5": 500 * time.Millisecond, "0": 0, "7d": 7 * 24 * time.Hour, "250ms": 250 * time.Millisecond,
	} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("parseDuration(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "s", "-1", "-1s", "1 h", "1e9", "soon", "99999999999", "1e300h"} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("parseDuration(%q) = %v, want an error", text, got)
		}
	}
}

func TestDurationValue_printsShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 20 * time.Second: "20s", 10 * time.Minute: "10m", 24 * time.Hour: "24h", 90 * time.Minute: "1h30m",
	} {
		v := durationValue(d)
		if got := v.String(); got != want {
			t.Errorf("%v is shown as %q, want %q", d, got, want)
		}
	}
}

func TestNearest_findsWhatWasMeant(t *testing.T) {
	known := []string{"output", "dir", "max-connections", "checksum", "timeout", "connect-timeout"}
	for word, want := range map[string]string{
		"ouptut": "output", "max-con": "max-connections", "checksums": "checksum", "timeot": "timeout", "zzzzzzzz": "",
		"": "", "CHECKSUM": "checksum",
	} {
		if got := nearest(word, known); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestSafeText_letsNothingSteerATerminal(t *testing.T) {
	for text, want := range map[string]string{
		"plain name.iso": "plain name.iso", "größe": "größe", "a\x1b[2Jb": "a\ufffd[2Jb", "a\u202eb": "a\ufffdb",
		"two\nlines": "two lines", "bad\xff": "bad\ufffd", "\x9b": "\ufffd",
	} {
		if got := safeText(text); got != want {
			t.Errorf("safeText(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestFormatBytes_keepsThreeDigits(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.00 KiB", 12 << 20: "12.0 MiB", 128 << 20: "128 MiB", 1023 << 20: "1.00 GiB", 5 << 30: "5.00 GiB",
	} {
		if got := formatBytes(n); got != want {
			t.Errorf("formatBytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestFormatETA(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-1: "-:--", 0: "0:00", 65 * time.Second: "1:05", 2*time.Hour + 3*time.Second: "2:00:03", 200 * time.Hour: "8d",
	} {
		if got := formatETA(d); got != want {
			t.Errorf("formatETA(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestRedacted_hasNoSecret(t *testing.T) {
	if got, want := redacted("https://user:pass@host:8080/a%20b/c?token=x#y"), "https://host:8080/a%20b/c"; got != want {
		t.Errorf("redacted: %q, want %q", got, want)
	}
	if got, want := redacted("http://user:pass@[/"), "the URL"; got != want {
		t.Errorf("redacted: %q, want %q", got, want)
	}
}
