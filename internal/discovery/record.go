package discovery

import (
	"encoding/hex"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	serviceName = "_dragonload._tcp.local."
	// everyService asks which services there are (RFC 6763, section 9).
	everyService = "_services._dns-sd._udp.local."

	// recordTTL is that of all records; the names do not live long.
	recordTTL = 120

	// maxMessage is the longest packet of multicast DNS (RFC 6762, section 17). Those that
	// are sent have less than minMTU.
	maxMessage = 9000
	minMTU     = 1280

	// Of a packet so many questions, records and addresses are looked at.
	maxQuestions = 16
	maxRecords   = 64
	maxAddrs     = 4
	// maxKnown bounds the known answers in a question.
	maxKnown = 16

	idSize = 8

	// cacheFlush and unicastAnswer are the bit that multicast DNS adds to classes.
	cacheFlush    = 1 << 15
	unicastAnswer = 1 << 15
)

// names are those of one announcement, random.
type names struct{ id string }

func newNames(random io.Reader) (names, error) {
	var id [idSize]byte
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return names{}, err
	}
	return names{hex.EncodeToString(id[:])}, nil
}

func (n names) instance() string { return n.id + "." + serviceName }
func (n names) host() string     { return n.id + ".local." }

// announcement is what one node says of itself in one packet. Its addresses are those of
// the network that the packet is sent to.
type announcement struct {
	id     string
	gone   bool // a goodbye
	addrs  []netip.Addr
	beacon beacon
}

// message is what is of interest in a packet.
type message struct {
	question      string   // asked for what this package announces: its name, "" if not
	known         []string // ids that who asks knows already
	announcements []announcement
}

// encodeQuestion asks for everybody but those that are known.
func encodeQuestion(known []string) ([]byte, error) {
	b := dnsmessage.NewBuilder(make([]byte, 0, 512), dnsmessage.Header{})
	b.EnableCompression()
	service := dnsmessage.MustNewName(serviceName)
	err := errors.Join(b.StartQuestions(),
		b.Question(dnsmessage.Question{Name: service, Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET}),
		b.StartAnswers())
	for _, id := range known[:min(len(known), maxKnown)] {
		err = errors.Join(err, b.PTRResource(
			dnsmessage.ResourceHeader{Name: service, Class: dnsmessage.ClassINET, TTL: recordTTL},
			dnsmessage.PTRResource{PTR: dnsmessage.MustNewName(names{id}.instance())}))
	}
	if err != nil {
		return nil, err
	}
	return b.Finish()
}

// encode writes an announcement; as an answer to everyService it names the service too.
func (a *announcement) encode(everything bool) ([]byte, error) {
	b := dnsmessage.NewBuilder(make([]byte, 0, minMTU), dnsmessage.Header{Response: true, Authoritative: true})
	b.EnableCompression()
	n := names{a.id}
	service, instance, host := dnsmessage.MustNewName(serviceName), dnsmessage.MustNewName(n.instance()), dnsmessage.MustNewName(n.host())
	var ttl uint32 = recordTTL
	if a.gone {
		ttl = 0
	}
	shared := func(name dnsmessage.Name) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: ttl}
	}
	own := func(name dnsmessage.Name) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET | cacheFlush, TTL: ttl}
	}
	err := b.StartAnswers()
	if everything {
		err = errors.Join(err, b.PTRResource(shared(dnsmessage.MustNewName(everyService)), dnsmessage.PTRResource{PTR: service}))
	}
	err = errors.Join(err,
		b.PTRResource(shared(service), dnsmessage.PTRResource{PTR: instance}),
		b.SRVResource(own(instance), dnsmessage.SRVResource{Port: a.beacon.port, Target: host}),
		b.TXTResource(own(instance), dnsmessage.TXTResource{TXT: a.beacon.text()}))
	for _, addr := range a.addrs[:min(len(a.addrs), maxAddrs)] {
		if addr.Is4() {
			err = errors.Join(err, b.AResource(own(host), dnsmessage.AResource{A: addr.As4()}))
		} else {
			err = errors.Join(err, b.AAAAResource(own(host), dnsmessage.AAAAResource{AAAA: addr.As16()}))
		}
	}
	if err != nil {
		return nil, err
	}
	return b.Finish()
}

// records are those of one packet that may belong to announcements, by lower-case name.
type records struct {
	ids   []string // of instances, in the order of their PTR records
	ttl   map[string]uint32
	srv   map[string]dnsmessage.SRVResource
	text  map[string][]string
	addrs map[string][]netip.Addr
}

// parse reads a packet. An announcement counts if all of it is in the one packet, as this
// package sends it; nothing is put together from several.
func parse(data []byte) (message, error) {
	var m message
	var p dnsmessage.Parser
	header, err := p.Start(data)
	if err != nil {
		return m, err
	}
	if header.OpCode != 0 || header.RCode != 0 {
		return m, nil
	}
	for k := 0; ; k++ {
		q, err := p.Question()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return message{}, err
		}
		if k >= maxQuestions {
			return message{}, errors.New("too many questions")
		}
		name := strings.ToLower(q.Name.String())
		if !header.Response && q.Class&^unicastAnswer == dnsmessage.ClassINET && isOurs(name) {
			m.question = name
		}
	}
	r := records{ttl: map[string]uint32{}, srv: map[string]dnsmessage.SRVResource{}, text: map[string][]string{}, addrs: map[string][]netip.Addr{}}
	if err := r.read(&p, !header.Response); err != nil {
		return message{}, err
	}
	if !header.Response {
		m.known = r.ids
		return m, nil
	}
	for _, id := range r.ids {
		if a, ok := r.announcement(id); ok {
			m.announcements = append(m.announcements, a)
		}
	}
	return m, nil
}

func isOurs(name string) bool {
	return name == serviceName || name == everyService || strings.HasSuffix(name, "."+serviceName)
}

// read takes the records in; of a question the known answers alone.
func (r *records) read(p *dnsmessage.Parser, question bool) error {
	left := maxRecords
	if err := r.section(p.AnswerHeader, p, &left); err != nil || question {
		return err
	}
	if err := p.SkipAllAuthorities(); err != nil {
		return err
	}
	return r.section(p.AdditionalHeader, p, &left)
}

func (r *records) section(header func() (dnsmessage.ResourceHeader, error), p *dnsmessage.Parser, left *int) error {
	for {
		h, err := header()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return nil
		}
		if err != nil {
			return err
		}
		if *left--; *left < 0 {
			return errors.New("too many records")
		}
		if err := r.one(h, p); err != nil {
			return err
		}
	}
}

// one takes in one record, or passes over it.
func (r *records) one(h dnsmessage.ResourceHeader, p *dnsmessage.Parser) error {
	name := strings.ToLower(h.Name.String())
	if h.Class&^cacheFlush != dnsmessage.ClassINET {
		h.Type = 0
	}
	switch h.Type {
	case dnsmessage.TypePTR:
		ptr, err := p.PTRResource()
		if err != nil {
			return err
		}
		if id, ok := idOf(strings.ToLower(ptr.PTR.String())); ok && name == serviceName && !slices.Contains(r.ids, id) {
			r.ids = append(r.ids, id)
			r.ttl[id] = h.TTL
		}
	case dnsmessage.TypeSRV:
		srv, err := p.SRVResource()
		if err != nil {
			return err
		}
		r.srv[name] = srv
	case dnsmessage.TypeTXT:
		text, err := p.TXTResource()
		if err != nil {
			return err
		}
		r.text[name] = text.TXT
	case dnsmessage.TypeA:
		a, err := p.AResource()
		if err != nil {
			return err
		}
		r.addAddr(name, netip.AddrFrom4(a.A))
	case dnsmessage.TypeAAAA:
		a, err := p.AAAAResource()
		if err != nil {
			return err
		}
		r.addAddr(name, netip.AddrFrom16(a.AAAA))
	default:
		_, err := p.UnknownResource()
		return err
	}
	return nil
}

func (r *records) addAddr(name string, addr netip.Addr) {
	if len(r.addrs[name]) < maxAddrs {
		r.addrs[name] = append(r.addrs[name], addr)
	}
}

// idOf returns the random part of an instance's name.
func idOf(instance string) (id string, ok bool) {
	id, ok = strings.CutSuffix(instance, "."+serviceName)
	raw, err := hex.DecodeString(id)
	return id, ok && err == nil && len(raw) == idSize
}

// announcement puts the records of one instance together.
func (r *records) announcement(id string) (announcement, bool) {
	n := names{id}
	if r.ttl[id] == 0 {
		return announcement{id: id, gone: true}, true
	}
	srv, ok := r.srv[n.instance()]
	if !ok || srv.Port == 0 || strings.ToLower(srv.Target.String()) != n.host() {
		return announcement{}, false
	}
	b, err := parseBeacon(r.text[n.instance()], srv.Port)
	if err != nil || len(r.addrs[n.host()]) == 0 {
		return announcement{}, false
	}
	return announcement{id: id, addrs: r.addrs[n.host()], beacon: b}, true
}
