package room

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

var linkID = [32]byte{0xab, 31: 0xcd}

const linkIDText = "ab000000000000000000000000000000000000000000000000000000000000cd"

func TestParseLink_readsWhatStringWrites(t *testing.T) {
	t.Parallel()
	r := &Room{Name: "lab", Trackers: []string{"192.0.2.10:4100", "[2001:db8::1]:4100", "desk.local:4100"}}
	for _, l := range []Link{
		r.ContentLink(linkID, "Ferien 2026 ☀.tar", 4<<30),
		r.ContentLink(linkID, "a&b=c#d?e/f%20g'h\"i`$(j)", 0),
		r.ContentLink(linkID, "", -1),
		{Addrs: r.Trackers, Room: "lab", URL: "https://example.org/a%20b.iso?x=1&y=2", Size: -1},
		{Addrs: []string{"h:1"}, ID: linkID, Size: -1},
	} {
		got, err := ParseLink(l.String())
		if err != nil || !reflect.DeepEqual(got, l) {
			t.Errorf("%s\nis read as %+v, %v\nwant       %+v", l, got, err, l)
		}
		if strings.ContainsAny(l.String(), " '\"`$()\\<>|;\n") {
			t.Errorf("%s has a character that a shell knows", l)
		}
	}
	if l := r.ContentLink(linkID, strings.Repeat("ü", 200)+"\x00\u202e\xff", 1); len(l.Name) > maxLinkName {
		t.Errorf("a name of %d bytes", len(l.Name))
	} else if _, err := ParseLink(l.String()); err != nil {
		t.Error(err)
	}
}

func TestParseLink_invites(t *testing.T) {
	t.Parallel()
	i := Invite{Room: "lab", Addrs: []string{"h:1"}, RoomID: linkID, Expires: time.Unix(5, 0), Token: make([]byte, tokenSize)}
	i.Token[0] = inviteVersion
	copy(i.Token[atRoom:], linkID[:])
	l, err := ParseLink(i.String())
	if err != nil || l.Invite == nil || l.Room != "lab" || l.Addrs[0] != "h:1" || l.URL != "" {
		t.Errorf("got %+v, %v", l, err)
	}
	if s := l.String(); strings.Contains(s, "AA") {
		t.Errorf("%s tells the secret", s)
	}
	if _, err := ParseLink("dragon://h:1/join/lab#AAAA"); !errors.Is(err, ErrInviteSyntax) {
		t.Errorf("got %v", err)
	}
}

func TestParseLink_takesNothingElse(t *testing.T) {
	t.Parallel()
	good := "dragon://h:1/get/" + linkIDText
	if _, err := ParseLink(good + "?name=x&size=7&room=lab&also=i:2"); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		"", "dragon:", "dragon://", "dragon://h:1", "dragon://h:1/", "dragon://h:1/get", "dragon://h:1/get/", "dragon://h:1/get?",
		"http://h:1/get/" + linkIDText, "DRAGON://h:1/get/" + linkIDText, "dragon:h:1/get/" + linkIDText,
		"dragon://h/get/" + linkIDText, "dragon://u@h:1/get/" + linkIDText, "dragon://h:0/get/" + linkIDText, "dragon:///get/" + linkIDText,
		"dragon://0.0.0.0:1/get/" + linkIDText, "dragon://h:01/get/" + linkIDText, "dragon://-h;x:1/get/" + linkIDText,
		good + "/", good + "/..", good + "#x", good + "#", good + "0", good[:len(good)-1], good[:len(good)-1] + "g",
		"dragon://h:1/get/" + strings.Repeat("0", 64), "dragon://h:1/put/" + linkIDText, "dragon://h:1//get/" + linkIDText,
		good + "?", good + "?name=", good + "?name", good + "?name=a&name=b", good + "?name=%0a", good + "?name=%zz", good + "?name=%ff", good + "?name=%E2%80%AE",
		good + "?name=" + strings.Repeat("a", maxLinkName+1),
		good + "?size=-1", good + "?size=+1", good + "?size=01", good + "?size=1e3", good + "?size=99999999999999999999",
		good + "?room=../x", good + "?room=A", good + "?also=h", good + "?run=rm", good + "?url=http%3A%2F%2Fx%2F",
		good + "?also=a:1&also=b:1&also=c:1&also=d:1&also=e:1&also=f:1&also=g:1&also=h:1",
		good + " --yes", good + "\n", good[:20] + "\x00" + good[21:], good + "?name='x'", good + "?name=`x`", good + "?name=\"x\"", good + "?name=$(x)", good + "?name=$x", good + "?name=a;b", good + "?name=*", good + "?name=!x", good + "?name=ü",
		"dragon://h:1/get?url=ftp%3A%2F%2Fx%2F", "dragon://h:1/get?url=file%3A%2F%2F%2Fetc%2Fpasswd", "dragon://h:1/get?url=http%3A%2F%2F%2Fx",
		"dragon://h:1/get?url=http%3A%2F%2Fu%3Ap%40x%2F", "dragon://h:1/get?url=http%3A%2F%2Fx%2F%23f", "dragon://h:1/get?url=http%3A%2F%2Fx%2F%20", "dragon://h:1/get?url=-o",
		"dragon://h:1/get?url=http%3A%2F%2Fx%2F" + strings.Repeat("a", maxLinkURL), "dragon://h:1/get?name=x",
		good + "?name=" + strings.Repeat("%41", maxLinkText),
	} {
		if s == good+"\n" {
			continue // space around it is none of it
		}
		if l, err := ParseLink(s); err == nil {
			t.Errorf("%q is taken as %+v", s, l)
		} else if !errors.Is(err, ErrLinkSyntax) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// FuzzParseLink: what is taken is in bounds, and written again means the same.
func FuzzParseLink(f *testing.F) {
	r := &Room{Name: "lab", Trackers: []string{"192.0.2.10:4100", "[2001:db8::1]:4100"}}
	f.Add(r.ContentLink(linkID, "a b", 7).String())
	f.Add(Link{Addrs: r.Trackers, URL: "https://example.org/a?b=c", Size: 5}.String())
	f.Add("dragon://h:1/join/lab?also=h:2#AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLink(s)
		if err != nil {
			if !errors.Is(err, ErrLinkSyntax) && !errors.Is(err, ErrInviteSyntax) {
				t.Fatalf("error %v", err)
			}
			return
		}
		if l.Invite != nil {
			return
		}
		if len(l.Addrs) > MaxTrackers || len(l.Name) > maxLinkName || len(l.URL) > maxLinkURL || l.Size > maxLinkSize || (l.ID == [32]byte{}) == (l.URL == "") {
			t.Fatalf("out of bounds: %+v", l)
		}
		again, err := ParseLink(l.String())
		if err != nil || !reflect.DeepEqual(again, l) {
			t.Fatalf("%q is written as %q, which is read as %+v, %v", s, l, again, err)
		}
	})
}
