package discovery

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var at = time.Date(2026, 11, 21, 18, 30, 0, 0, time.UTC)

// randomness is the same in every run.
func randomness() *rand.ChaCha8 { return rand.NewChaCha8([32]byte{1}) }

func roomOf(b byte) Room { return Room{ID: [32]byte{b, 1, 2, 3}} }

func keysOf(rooms ...Room) (list []keyed) {
	for _, r := range rooms {
		list = append(list, withKey(r))
	}
	return list
}

// TestBeacon_onlyMembersKnowTheRoom: who knows a room's id finds it in what was announced,
// with its role; who does not finds nothing, and nobody does once the time has passed.
func TestBeacon_onlyMembersKnowTheRoom(t *testing.T) {
	t.Parallel()
	tracked := Room{ID: roomOf(2).ID, Tracker: true}
	made, err := newBeacon(keysOf(roomOf(1), tracked), 4100, at, randomness())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		knows []Room
		now   time.Time
		port  uint16
		want  []Room
	}{
		{"a member", []Room{roomOf(1)}, at, 4100, []Room{roomOf(1)}},
		{"a member, of the tracker", []Room{roomOf(2)}, at, 4100, []Room{tracked}},
		{"a tracker, of a member", []Room{{ID: roomOf(1).ID, Tracker: true}}, at, 4100, []Room{roomOf(1)}},
		{"a member of both and of another", []Room{roomOf(3), roomOf(2), roomOf(1)}, at, 4100, []Room{tracked, roomOf(1)}},
		{"a stranger", []Room{roomOf(3)}, at, 4100, nil},
		{"an hour later", []Room{roomOf(1)}, at.Add(time.Hour), 4100, []Room{roomOf(1)}},
		{"with a clock that is an hour late", []Room{roomOf(1)}, at.Add(-time.Hour), 4100, []Room{roomOf(1)}},
		{"repeated the other hour", []Room{roomOf(1)}, at.Add(2 * time.Hour), 4100, nil},
		{"repeated with another port", []Room{roomOf(1)}, at, 4101, nil},
	} {
		b := made
		b.port = c.port
		if got := b.match(keysOf(c.knows...), c.now); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// TestBeacon_saysNothingElse: two announcements of one room have nothing in common, and
// how many rooms there are does not show.
func TestBeacon_saysNothingElse(t *testing.T) {
	t.Parallel()
	random := randomness()
	var all [][]byte
	for n := range maxTags + 4 {
		var rooms []Room
		for k := range n {
			rooms = append(rooms, roomOf(byte(k)))
		}
		b, err := newBeacon(keysOf(rooms...), 4100, at, random)
		if err != nil {
			t.Fatal(err)
		}
		if len(b.tags)%padTags != 0 || len(b.tags) == 0 || len(b.tags) > maxTags {
			t.Errorf("%d tags for %d rooms", len(b.tags), n)
		}
		if !slices.IsSortedFunc(b.tags, func(x, y [tagSize]byte) int { return bytes.Compare(x[:], y[:]) }) {
			t.Errorf("the tags of %d rooms are in the order of the rooms", n)
		}
		for _, s := range append(slicesOf(b.tags), b.salt[:]) {
			if slices.ContainsFunc(all, func(old []byte) bool { return bytes.Equal(old, s) }) {
				t.Errorf("%x was announced before", s)
			}
			all = append(all, s)
		}
		for _, s := range b.text() {
			if len(s) > 255 {
				t.Errorf("%q is too long for a TXT record", s)
			}
		}
	}
}

func TestParseBeacon(t *testing.T) {
	t.Parallel()
	made, err := newBeacon(keysOf(roomOf(1)), 4100, at, randomness())
	if err != nil {
		t.Fatal(err)
	}
	good := made.text()
	got, err := parseBeacon(append(good, "new=thing", "v=9"), 4100)
	if err != nil || got.epoch != made.epoch || got.salt != made.salt || got.port != 4100 || !slices.Equal(got.tags, made.tags) {
		t.Errorf("got %+v, %v; want %+v", got, err, made)
	}
	for name, change := range map[string]string{
		"another version": "v=2", "no version": "x=1",
		"no number": "e=soon", "a number too large": "e=99999999999999", "below zero": "e=-1",
		"short salt": "s=0102", "long salt": "s=" + string(bytes.Repeat([]byte("01"), 17)), "salt no hex": "s=" + string(bytes.Repeat([]byte("zz"), 16)),
		"no tags": "r=", "half a tag": "r=AAAA", "tags no base64": "r=!!!!!!!!!!!", "too many tags": "r=" + string(bytes.Repeat([]byte("A"), 182)),
	} {
		text := slices.Clone(good)
		for k, s := range text {
			if s[0] == change[0] || change[0] == 'x' && s[0] == 'v' {
				text[k] = change
			}
		}
		if b, err := parseBeacon(text, 4100); err == nil {
			t.Errorf("%s: taken as %+v", name, b)
		}
	}
}
