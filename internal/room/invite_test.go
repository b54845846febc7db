package room

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestInvite_goesThroughItsLink(t *testing.T) {
	t.Parallel()
	r := create(t, place(t), "lab")
	several := *r
	several.Trackers = []string{"10.0.0.1:4100", "[2001:db8::1]:4100", "host.example:1"}
	for _, r := range []*Room{r, &several} {
		for _, uses := range []int{0, 1, MaxUses} {
			i := invite(t, r, uses, 24*time.Hour)
			got, err := ParseInvite(" " + i.String() + "\n")
			if err != nil || !reflect.DeepEqual(got, i) {
				t.Errorf("%v\n%v\n%v", i.String(), got.String(), err)
			}
			if got.Uses != uses || got.RoomID != r.ID || time.Until(got.Expires).Round(time.Hour) != 24*time.Hour {
				t.Errorf("says %d uses until %v", got.Uses, got.Expires)
			}
		}
	}
	escaped := strings.Replace(invite(t, &several, 1, time.Hour).String(), "[2001:db8::1]:4100", "%5B2001%3Adb8%3A%3A1%5D%3A4100", 1)
	if got, err := ParseInvite(escaped); err != nil || got.Addrs[1] != "[2001:db8::1]:4100" {
		t.Errorf("%s: %v, %v", escaped, got.Addrs, err)
	}
}

func TestNewInvite_isBounded(t *testing.T) {
	t.Parallel()
	r := create(t, place(t), "lab")
	for _, c := range []struct {
		uses    int
		expires time.Duration
	}{{-1, time.Hour}, {MaxUses + 1, time.Hour}, {1, 0}, {1, -time.Hour}, {1, MaxInviteLife + time.Second}} {
		if i, err := r.NewInvite(c.uses, c.expires, time.Now()); err == nil {
			t.Errorf("%d uses for %v gave %v", c.uses, c.expires, i)
		}
	}
}

func TestParseInvite_isStrict(t *testing.T) {
	t.Parallel()
	good := invite(t, create(t, place(t), "lab"), 1, time.Hour).String()
	secret := good[strings.IndexByte(good, '#')+1:]
	link := good[:len(good)-len(secret)]
	for name, s := range map[string]string{
		"empty":               "",
		"other scheme":        "https" + strings.TrimPrefix(good, "dragon"),
		"no secret":           strings.TrimSuffix(link, "#"),
		"empty secret":        link,
		"short secret":        good[:len(good)-1],
		"long secret":         good + "A",
		"damaged secret":      link + "*" + secret[1:],
		"newer version":       link + "Ag" + secret[2:],
		"line end in it":      link + secret[:10] + "\n" + secret[10:],
		"padding":             good + "=",
		"unknown key":         strings.Replace(good, "#", "?cmd=x#", 1),
		"empty query":         strings.Replace(good, "#", "?#", 1),
		"bad further address": strings.Replace(good, "#", "?also=x#", 1),
		"bad escape":          strings.Replace(good, "#", "?also=%zz#", 1),
		"too many addresses":  strings.Replace(good, "#", "?also=h:1"+strings.Repeat("&also=h:1", MaxTrackers)+"#", 1),
		"bad name":            strings.Replace(good, "/lab", "/..", 1),
		"path after the name": strings.Replace(good, "/lab", "/lab/x", 1),
		"user-info":           strings.Replace(good, "dragon://", "dragon://a:b@", 1),
		"no port":             strings.Replace(good, ":4100", "", 1),
		"content link":        strings.Replace(good, "/join/", "/get/", 1),
		"huge":                good + strings.Repeat("A", 1<<20),
	} {
		i, err := ParseInvite(s)
		if !errors.Is(err, ErrInviteSyntax) {
			t.Errorf("%s: %v, %v, want ErrInviteSyntax", name, i, err)
		} else if strings.Contains(err.Error(), secret[12:30]) {
			t.Errorf("%s: the error quotes the secret: %v", name, err)
		}
	}
}

func FuzzParseInvite(f *testing.F) {
	r := create(f, place(f), "lab")
	f.Add(invite(f, r, 0, time.Hour).String())
	r.Trackers = []string{"[::1]:1", "10.0.0.1:4100", "x:65535"}
	f.Add(invite(f, r, 3, time.Hour).String())
	f.Add("dragon://h:1/join/a?also=h:2#")
	f.Fuzz(func(t *testing.T, s string) {
		i, err := ParseInvite(s)
		if err != nil {
			if !errors.Is(err, ErrInviteSyntax) {
				t.Errorf("%q: %v is not ErrInviteSyntax", s, err)
			}
			return
		}
		if len(i.Addrs) > MaxTrackers || len(i.Token) != tokenSize {
			t.Errorf("%q: %d addresses, %d bytes", s, len(i.Addrs), len(i.Token))
		}
		again, err := ParseInvite(i.String())
		if err != nil || !reflect.DeepEqual(again, i) {
			t.Errorf("%q became %q: %v", s, i.String(), err)
		}
	})
}
