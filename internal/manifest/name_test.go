package manifest

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCleanName_acceptsOrdinaryNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"a", "ubuntu-24.04.iso", "my file.zip", "Ünïcode.txt", "日本語.tar.gz", ".gitignore", "..hidden", "a..b",
		"console.txt", "com10.txt", "COM", "nul1", "lpt", "x-CON", "файл", "tar~1", "a=b&c", "100%.txt",
		strings.Repeat("x", MaxName),
	} {
		if got, err := CleanName(name); err != nil || got != name {
			t.Errorf("CleanName(%q) = %q, %v; want it unchanged", name, got, err)
		}
	}
}

func TestCleanName_refusesWhatHarmsSomewhere(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"", ".", "..", "/", "../x", "a/b", `a\b`, `..\x`, `\\server\share`, "C:", "C:x", "a:stream", "x\x00", "x\n", "x\ry",
		"\x1b[2J", "-rf", "--output=x", "CON", "con", "nul.txt", "NUL.tar.gz", "COM1", "com1.x", "COM¹", "LPT³.log", "COM1 ", "com0",
		"AUX .txt", "CONIN$", "conout$.x", "x.", "x..", "x ", " x", "x\u00a0", "a\u202eb.exe", "a\u200bb", "\ufeffx", "a\u2066b",
		"a\u2028b", "a\u00adb", "a\u3164b", "e\u0301.txt", "\xff\xfe", "a?b", "a*b", "a|b", "a<b", `a"b`, "a\uffff", "a\ue000",
		strings.Repeat("x", MaxName+1), strings.Repeat("ü", 128),
	} {
		got, err := CleanName(name)
		if !errors.Is(err, ErrName) || got != "" {
			t.Errorf("CleanName(%q) = %q, %v; want it refused", name, got, err)
			continue
		}
		for _, r := range err.Error() {
			if r < ' ' || r > '~' {
				t.Errorf("the error for %q has %q in it: %v", name, r, err)
			}
		}
	}
}

func FuzzCleanName(f *testing.F) {
	for _, seed := range []string{"a.txt", "../x", "CON.txt", "a\u202eb", "e\u0301", "x."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := CleanName(s)
		if err != nil {
			return
		}
		if name != s || len(name) > MaxName || !utf8.ValidString(name) || strings.ContainsAny(name, "/\\:\x00\n") {
			t.Errorf("CleanName(%q) = %q", s, name)
		}
		if again, err := CleanName(name); err != nil || again != name {
			t.Errorf("CleanName(%q) a second time = %q, %v", name, again, err)
		}
	})
}
