package catalogue_test

import (
	"testing"

	"dragonload/internal/catalogue"
)

func TestMeant_isWhatSomebodyShares(t *testing.T) {
	t.Parallel()
	of := func(manifest byte, received bool) catalogue.Found {
		return catalogue.Found{Entry: &catalogue.Entry{Manifest: [32]byte{manifest}}, Received: received}
	}
	for _, c := range []struct {
		found []catalogue.Found
		want  string
	}{
		{nil, ""},
		{[]catalogue.Found{of('a', true), of('b', true)}, "ab"},
		{[]catalogue.Found{of('a', true), of('b', false)}, "b"},
		{[]catalogue.Found{of('a', false), of('b', false)}, "ab"},
		// Got by one member and shared by another.
		{[]catalogue.Found{of('a', true), of('b', true), of('a', false)}, "a"},
	} {
		got := ""
		for _, f := range catalogue.Meant(catalogue.Distinct(c.found)) {
			got += string(f.Entry.Manifest[:1])
		}
		if got != c.want {
			t.Errorf("%q is meant, want %q", got, c.want)
		}
	}
}
