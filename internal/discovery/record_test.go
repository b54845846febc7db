package discovery

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func announcementOf(t testing.TB, gone bool) announcement {
	t.Helper()
	b, err := newBeacon(keysOf(roomOf(1)), 4100, at, randomness())
	if err != nil {
		t.Fatal(err)
	}
	return announcement{id: "0011223344556677", gone: gone, beacon: b,
		addrs: []netip.Addr{netip.MustParseAddr("192.168.1.7"), netip.MustParseAddr("fd00::7")}}
}

func TestAnnouncement_isReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	for _, everything := range []bool{false, true} {
		a := announcementOf(t, false)
		data, err := a.encode(everything)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > minMTU {
			t.Errorf("%d bytes are too many for one packet", len(data))
		}
		m, err := parse(data)
		if err != nil || len(m.announcements) != 1 || m.question != "" {
			t.Fatalf("got %+v, %v", m, err)
		}
		got := m.announcements[0]
		if got.id != a.id || got.gone || !slices.Equal(got.addrs, a.addrs) || got.beacon.salt != a.beacon.salt || got.beacon.port != 4100 {
			t.Errorf("got %+v, want %+v", got, a)
		}
	}
	bye := announcementOf(t, true)
	data, err := bye.encode(false)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := parse(data); err != nil || len(m.announcements) != 1 || !m.announcements[0].gone {
		t.Errorf("a goodbye was read as %+v, %v", m, err)
	}
}

// TestAnnouncement_isWhatOthersRead holds the packet to what any reader of DNS-SD expects,
// by the decoder of another package, and to holding no name of the machine or the room.
func TestAnnouncement_isWhatOthersRead(t *testing.T) {
	t.Parallel()
	a := announcementOf(t, false)
	data, err := a.encode(true)
	if err != nil {
		t.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(data); err != nil {
		t.Fatal(err)
	}
	if !m.Response || !m.Authoritative || m.ID != 0 || len(m.Questions) != 0 || len(m.Answers) != 6 {
		t.Errorf("got the message %+v", m)
	}
	flush := []bool{false, false, true, true, true, true}
	types := []dnsmessage.Type{dnsmessage.TypePTR, dnsmessage.TypePTR, dnsmessage.TypeSRV, dnsmessage.TypeTXT, dnsmessage.TypeA, dnsmessage.TypeAAAA}
	for k, r := range m.Answers {
		if r.Header.Type != types[k] || (r.Header.Class&cacheFlush != 0) != flush[k] || r.Header.TTL != recordTTL {
			t.Errorf("record %d is %+v", k, r.Header)
		}
	}
	if room := roomOf(1).ID; bytes.Contains(data, room[:8]) || bytes.Contains(data, []byte(hex.EncodeToString(room[:8]))) {
		t.Error("the room's id is announced")
	}
}

// TestParse_takesNothingElse changes an announcement in ways that must make it none.
func TestParse_takesNothingElse(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*dnsmessage.Message){
		"a question":        func(m *dnsmessage.Message) { m.Response = false },
		"an error":          func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeServerFailure },
		"another operation": func(m *dnsmessage.Message) { m.OpCode = 5 },
		"no PTR":            func(m *dnsmessage.Message) { m.Answers = m.Answers[1:] },
		"no SRV":            func(m *dnsmessage.Message) { m.Answers = slices.Delete(m.Answers, 1, 2) },
		"no TXT":            func(m *dnsmessage.Message) { m.Answers = slices.Delete(m.Answers, 2, 3) },
		"no address":        func(m *dnsmessage.Message) { m.Answers = m.Answers[:3] },
		"another class":     func(m *dnsmessage.Message) { m.Answers[0].Header.Class = dnsmessage.ClassCHAOS },
		"another service":   func(m *dnsmessage.Message) { m.Answers[0].Header.Name = dnsmessage.MustNewName("_http._tcp.local.") },
		"port 0":            func(m *dnsmessage.Message) { m.Answers[1].Body.(*dnsmessage.SRVResource).Port = 0 },
		"another's address": func(m *dnsmessage.Message) {
			m.Answers[1].Body.(*dnsmessage.SRVResource).Target = dnsmessage.MustNewName("printer.local.")
		},
		"a name of ours not": func(m *dnsmessage.Message) {
			m.Answers[0].Body.(*dnsmessage.PTRResource).PTR = dnsmessage.MustNewName("My Box." + serviceName)
		},
		"too many records": func(m *dnsmessage.Message) {
			for range maxRecords {
				m.Additionals = append(m.Additionals, m.Answers[4])
			}
		},
		"too many questions": func(m *dnsmessage.Message) {
			for range maxQuestions + 1 {
				m.Questions = append(m.Questions, dnsmessage.Question{Name: dnsmessage.MustNewName("a."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET})
			}
		},
	} {
		a := announcementOf(t, false)
		data, err := a.encode(false)
		if err != nil {
			t.Fatal(err)
		}
		var m dnsmessage.Message
		if err := m.Unpack(data); err != nil {
			t.Fatal(err)
		}
		change(&m)
		if data, err = m.Pack(); err != nil {
			t.Fatal(err)
		}
		if got, err := parse(data); len(got.announcements) != 0 {
			t.Errorf("%s: taken as %+v, %v", name, got, err)
		}
	}
}

func TestQuestion_isReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	known := []string{"0011223344556677", "8899aabbccddeeff"}
	data, err := encodeQuestion(known)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := parse(data); err != nil || m.question != serviceName || !slices.Equal(m.known, known) || len(m.announcements) != 0 {
		t.Errorf("got %+v, %v", m, err)
	}
	for _, c := range []struct {
		name  string
		class dnsmessage.Class
		want  string
	}{
		{serviceName, dnsmessage.ClassINET | unicastAnswer, serviceName},
		{strings.ToUpper(serviceName), dnsmessage.ClassINET, serviceName},
		{everyService, dnsmessage.ClassINET, everyService},
		{"0011223344556677." + serviceName, dnsmessage.ClassINET, "0011223344556677." + serviceName},
		{"_http._tcp.local.", dnsmessage.ClassINET, ""},
		{serviceName, dnsmessage.ClassCHAOS, ""},
	} {
		q := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(c.name), Type: dnsmessage.TypePTR, Class: c.class}}}
		data, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if m, err := parse(data); err != nil || m.question != c.want {
			t.Errorf("%s, class %d: got %+v, %v", c.name, c.class, m, err)
		}
	}
}

// FuzzParse: no packet does more than its size allows, and what is taken is in bounds.
func FuzzParse(f *testing.F) {
	for _, gone := range []bool{false, true} {
		a := announcementOf(f, gone)
		data, err := a.encode(true)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	if data, err := encodeQuestion([]string{"0011223344556677"}); err == nil {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parse(data)
		if err != nil {
			return
		}
		if len(m.announcements) > maxRecords || len(m.known) > maxRecords {
			t.Fatalf("%d announcements, %d known", len(m.announcements), len(m.known))
		}
		for _, a := range m.announcements {
			if len(a.addrs) > maxAddrs || len(a.beacon.tags) > maxTags || !a.gone && a.beacon.port == 0 {
				t.Fatalf("got %+v", a)
			}
		}
	})
}
