// Package dragonload holds the tests of the house itself: that its documents are true.
package dragonload

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestArchitecture_namesExist checks that every hop of "follow one piece" is where
// ARCHITECTURE.md says: the file is there, and the function or method in it.
func TestArchitecture_namesExist(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "## Follow one piece")
	section, _, _ = strings.Cut(section, "\n## ")
	if !found {
		t.Fatal("ARCHITECTURE.md has no section \"Follow one piece\"")
	}
	quoted := regexp.MustCompile("`([^`]+)`")
	hops := 0
	for line := range strings.Lines(section) {
		if !strings.HasPrefix(line, "|") {
			continue
		}
		var source string
		for _, m := range quoted.FindAllStringSubmatch(line, -1) {
			if strings.HasSuffix(m[1], ".go") {
				b, err := os.ReadFile(m[1])
				if err != nil {
					t.Errorf("%s: %v", m[1], err)
				}
				source = string(b)
				hops++
				continue
			}
			typ, method, _ := strings.Cut(m[1], ".")
			declared := regexp.MustCompile(`(?m)^func \(\w+ \*?` + typ + `\) ` + method + `\(`)
			if !declared.MatchString(source) {
				t.Errorf("no method %s in the file named before it", m[1])
			}
		}
	}
	if hops < 10 {
		t.Errorf("only %d files are named: the check looks in the wrong place", hops)
	}
}
