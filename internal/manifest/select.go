package manifest

import (
	"fmt"
	"path"
	"strings"
)

// A NoMatchError is about a glob that selects nothing.
type NoMatchError struct {
	Glob string
	Bad  bool // it is no glob
}

func (e *NoMatchError) Error() string {
	if e.Bad {
		return fmt.Sprintf("%q is no pattern: it has a [ without its ], or ends with a \\", e.Glob)
	}
	return fmt.Sprintf("nothing is called %q there", e.Glob)
}

// Select returns which files the globs choose. * and ? stand for characters of one name,
// ** for any number of folders. A glob without a slash is about names at any depth, one
// with a slash about paths from the torrent's folder on; one that fits a folder chooses all
// in it. Without globs all files are chosen. The error is a *NoMatchError.
func (t *Torrent) Select(globs []string) ([]bool, error) {
	chosen := make([]bool, len(t.Files))
	for _, glob := range globs {
		pattern := strings.Split(strings.Trim(glob, "/"), "/")
		if !strings.Contains(glob, "/") {
			pattern = []string{"**", glob}
		}
		for _, element := range pattern {
			if _, err := path.Match(element, ""); err != nil || element == "" {
				return nil, &NoMatchError{Glob: glob, Bad: true}
			}
		}
		found := false
		for i, f := range t.Files {
			if fits(pattern, strings.Split(f.Path, "/")) {
				chosen[i], found = true, true
			}
		}
		if !found {
			return nil, &NoMatchError{Glob: glob}
		}
	}
	if len(globs) == 0 {
		for i := range chosen {
			chosen[i] = true
		}
	}
	return chosen, nil
}

// fits reports whether pattern matches the names from the first on, all of them or those of
// a folder above. Each column of the table is done once, so that many ** cost no more than
// the length of both.
func fits(pattern, names []string) bool {
	// at[k]: pattern[:p] matches names[:k].
	at := make([]bool, len(names)+1)
	at[0] = true
	for _, element := range pattern {
		next := make([]bool, len(names)+1)
		for k := range at {
			switch {
			case element == "**":
				next[k] = at[k] || k > 0 && next[k-1]
			case k > 0 && at[k-1]:
				next[k], _ = path.Match(element, names[k-1]) // the pattern was looked at before
			}
		}
		at = next
	}
	for k := 1; k < len(at); k++ {
		if at[k] {
			return true
		}
	}
	return false
}
