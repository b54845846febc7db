package dragonload

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	testNamed = regexp.MustCompile("`((?:internal|cmd|bench)/[a-z/0-9]+|\\.) ((?:Test|Fuzz|Benchmark)[^` ]*)`")
	labNamed  = regexp.MustCompile("`bench/lab ([a-z][a-z-]*)`")
)

// findTest reports what is wrong with naming a test: TestX, or TestX/y/z. What comes
// after the slash is a file of package testscript or of the scenarios, or words that
// stand in quotes in the package's tests.
func findTest(dir, name string) error {
	function, sub, divided := strings.Cut(name, "/")
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("%s has no tests", dir)
	}
	var sources strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		sources.Write(text)
	}
	if !strings.Contains(sources.String(), "\nfunc "+function+"(") {
		return fmt.Errorf("%s has no %s", dir, function)
	}
	if !divided {
		return nil
	}
	for _, place := range []string{"testdata", "testdata/script"} {
		if _, err := os.Stat(filepath.Join(dir, place, sub+".txt")); err == nil {
			return nil
		}
	}
	for word := range strings.SplitSeq(sub, "/") {
		if word = strings.Trim(word, "^$"); !strings.Contains(sources.String(), `"`+word+`"`) {
			return fmt.Errorf("%s has no case %s of %s", dir, word, function)
		}
	}
	return nil
}

// findNamed looks for every test and every scenario of the lab that a text names, and
// returns how many those are.
func findNamed(t *testing.T, where, text string) (named int) {
	t.Helper()
	for _, m := range testNamed.FindAllStringSubmatch(text, -1) {
		named++
		if err := findTest(m[1], m[2]); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
	for _, m := range labNamed.FindAllStringSubmatch(text, -1) {
		named++
		if _, err := os.Stat(filepath.Join("bench/lab/scenarios", m[1]+".json")); err != nil {
			t.Errorf("%s: the lab has no scenario %s", where, m[1])
		}
	}
	return named
}

// TestFaults_eachHasItsTest checks that docs/faults.md has a row for each of the 42 faults,
// and that the tests that it names are there, or that it says why there is none.
func TestFaults_eachHasItsTest(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	messages, err := os.ReadFile("docs/messages.md")
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile("`([a-z0-9-]+)`")
	rows := regexp.MustCompile(`(?m)^\| (\d+) \| ([^|]+) \| ([^|]*) \| ([^|]*) \|$`).FindAllStringSubmatch(string(text), -1)
	const faults = 42
	if len(rows) != faults {
		t.Errorf("docs/faults.md has %d rows, not %d", len(rows), faults)
	}
	for k, row := range rows {
		where := fmt.Sprintf("docs/faults.md, row %s", row[1])
		if row[1] != fmt.Sprint(k+1) {
			t.Errorf("%s comes as number %d", where, k+1)
		}
		if findNamed(t, where, row[4]) == 0 && !strings.HasPrefix(row[4], "Not provoked") {
			t.Errorf("%s names no test and does not say why there is none", where)
		}
		for _, c := range code.FindAllStringSubmatch(row[3], -1) {
			if !strings.Contains(string(messages), "| `"+c[1]+"` |") {
				t.Errorf("%s names the code %s, which docs/messages.md does not have", where, c[1])
			}
		}
	}
}

// TestBugs_canBeReproduced checks that BUGS.md numbers its rows and names only tests that
// are there.
func TestBugs_canBeReproduced(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("BUGS.md")
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile("`(?:[A-Z_]+=\\S+ )*go test (?:-\\S+ )*\\./([a-z/0-9]+) -run '?([^ '`]+)'?[^`]*`")
	rows := regexp.MustCompile(`(?m)^\| B(\d+) \|.*\|$`).FindAllStringSubmatch(string(text), -1)
	if len(rows) == 0 {
		t.Fatal("BUGS.md has no rows")
	}
	for k, row := range rows {
		where := "BUGS.md, row B" + row[1]
		if row[1] != fmt.Sprint(k+1) {
			t.Errorf("%s comes as number %d", where, k+1)
		}
		cells := strings.Split(strings.Trim(row[0], "|"), "|")
		if len(cells) != 6 {
			t.Errorf("%s has %d cells, not 6", where, len(cells))
			continue
		}
		commands := command.FindAllStringSubmatch(cells[4], -1)
		if len(commands) == 0 {
			t.Errorf("%s has no command that reproduces it", where)
		}
		for _, m := range commands {
			for name := range strings.SplitSeq(m[2], "|") {
				if err := findTest(m[1], strings.Trim(name, "^$")); err != nil {
					t.Errorf("%s: %v", where, err)
				}
			}
		}
	}
}
