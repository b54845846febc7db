package manifest

import (
	"errors"
	"net/url"
	"strings"
)

// SeedURL returns where file i is at a web seed (BEP 19): at the seed itself if the
// torrent is of a single file and the seed does not end with a slash, else below it, under
// the names that the torrent has for the file and its folder. A folder with one file is asked
// for as others do that take it for a single file. The seed is not quoted in an
// error, for it may hold a password.
func (t *Torrent) SeedURL(seed string, i int) (string, error) {
	u, err := url.Parse(seed)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return "", errors.New("a web seed is no http or https URL")
	}
	u.Fragment, u.RawFragment = "", ""
	if t.alone() && !strings.HasSuffix(u.Path, "/") && u.Path != "" {
		return u.String(), nil
	}
	if u.RawQuery != "" || u.ForceQuery {
		return "", errors.New("a web seed of several files has a query, behind which no name of a file can stand")
	}
	names := t.Files[i].Path
	if !t.alone() {
		names = t.Name + "/" + names
	}
	plain, escaped := u.Path, u.EscapedPath()
	if !strings.HasSuffix(plain, "/") {
		plain, escaped = plain+"/", escaped+"/"
	}
	elements := strings.Split(names, "/")
	for k, name := range elements {
		elements[k] = url.PathEscape(name)
	}
	u.Path, u.RawPath = plain+names, escaped+strings.Join(elements, "/")
	return u.String(), nil
}
