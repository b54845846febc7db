package share

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"dragonload/internal/manifest"
	"dragonload/internal/piece"

	"go.etcd.io/bbolt"
)

// identity tells whether a file is the one that was hashed.
type identity struct {
	device, inode  uint64
	size, modified int64 // bytes; nanoseconds since 1970
}

func identityOf(info fs.FileInfo) identity {
	id := identity{size: info.Size(), modified: info.ModTime().UnixNano()}
	id.device, id.inode = placeOf(info)
	return id
}

// place is the key under which the file is found whatever it is called; nil where the
// system does not say.
func (id identity) place() []byte {
	if id.inode == 0 {
		return nil
	}
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, id.device), id.inode)
}

// seen is a file as it was found.
type seen struct {
	path string // in the share, with slashes; of a single file its name
	identity
}

// survey is what a share consisted of when its manifest was made: all that is compared
// to tell whether that is still so.
type survey struct {
	files   []seen // in the manifest's order
	folders []string
	proofs  []proof // of files, as many; not part of what is compared, and stored apart
}

var errSurvey = errors.New("a survey that cannot be read")

func (s *survey) encode() []byte {
	out := binary.AppendUvarint(nil, uint64(len(s.files)))
	for _, f := range s.files {
		out = appendText(out, f.path)
		for _, n := range []uint64{f.device, f.inode, uint64(f.size), uint64(f.modified)} {
			out = binary.AppendUvarint(out, n)
		}
	}
	out = binary.AppendUvarint(out, uint64(len(s.folders)))
	for _, path := range s.folders {
		out = appendText(out, path)
	}
	return out
}

func appendText(out []byte, s string) []byte {
	return append(binary.AppendUvarint(out, uint64(len(s))), s...)
}

func decodeSurvey(data []byte) (*survey, error) {
	bad := false
	number := func() uint64 {
		n, used := binary.Uvarint(data)
		if used <= 0 {
			bad, data = true, nil
			return 0
		}
		data = data[used:]
		return n
	}
	text := func() string {
		n := number()
		if n > uint64(len(data)) {
			bad, data = true, nil
			return ""
		}
		s := string(data[:n])
		data = data[n:]
		return s
	}
	s := new(survey)
	for n := number(); n > 0 && !bad; n-- {
		f := seen{path: text()}
		f.device, f.inode, f.size, f.modified = number(), number(), int64(number()), int64(number())
		s.files = append(s.files, f)
	}
	for n := number(); n > 0 && !bad; n-- {
		s.folders = append(s.folders, text())
	}
	if bad || len(data) > 0 {
		return nil, errSurvey
	}
	return s, nil
}

// The database: a bucket for each share, and one that finds a file by its place on the
// disk, so that one which has another name now, or is in two shares, is hashed once.
var (
	sharesBucket = []byte("shares 1")
	placesBucket = []byte("places 1") // device, inode -> share, path in it
	aboutKey     = []byte("about")
	torrentKey   = []byte("torrent")
	surveyKey    = []byte("survey")
	proofsKey    = []byte("proofs") // may be missing
)

// about is the part of a share's record that is always in memory.
type about struct {
	Path        string    `json:"path"`
	Room        string    `json:"room"`
	Name        string    `json:"name"`
	Private     bool      `json:"private,omitempty"`
	WebSeeds    []string  `json:"web_seeds,omitempty"`
	Manifest    string    `json:"manifest"`
	Size        int64     `json:"size"`
	Files       int       `json:"files"`
	PieceLength int64     `json:"piece_length"`
	Added       time.Time `json:"added"`
}

func keyOf(number uint64) []byte { return binary.BigEndian.AppendUint64(nil, number) }

// readAll calls each with the number and description of every share.
func (l *Library) readAll(each func(uint64, about)) error {
	return l.db.View(func(tx *bbolt.Tx) error {
		all := tx.Bucket(sharesBucket)
		if all == nil {
			return nil
		}
		return all.ForEachBucket(func(key []byte) error {
			var a about
			err := json.Unmarshal(all.Bucket(key).Get(aboutKey), &a)
			if err == nil && len(key) == 8 {
				each(binary.BigEndian.Uint64(key), a)
			} else {
				l.log.Warn("a remembered share cannot be read and is left out", "err", err)
			}
			return nil
		})
	})
}

// save makes a share's record durable. Of its files those with a place that the
// database does not know yet are noted.
func (l *Library) save(number uint64, a about, t *manifest.Torrent, s *survey) error {
	var text bytes.Buffer
	if err := t.Write(&text); err != nil {
		return err
	}
	description, err := json.Marshal(a)
	if err != nil {
		return err
	}
	err = l.db.Update(func(tx *bbolt.Tx) error {
		all, err := tx.CreateBucketIfNotExists(sharesBucket)
		if err != nil {
			return err
		}
		b, err := all.CreateBucketIfNotExists(keyOf(number))
		if err != nil {
			return err
		}
		for _, one := range []struct{ key, value []byte }{{aboutKey, description}, {torrentKey, text.Bytes()}, {surveyKey, s.encode()}, {proofsKey, encodeProofs(s.proofs)}} {
			if err := b.Put(one.key, one.value); err != nil {
				return err
			}
		}
		return notePlaces(tx, number, s)
	})
	if err != nil {
		return fmt.Errorf("remember the share of %s: %w", a.Path, err)
	}
	return nil
}

func notePlaces(tx *bbolt.Tx, number uint64, s *survey) error {
	places, err := tx.CreateBucketIfNotExists(placesBucket)
	if err != nil {
		return err
	}
	for _, f := range s.files {
		place := f.place()
		if place == nil {
			continue
		}
		owner := append(keyOf(number), f.path...)
		if bytes.Equal(places.Get(place), owner) {
			continue
		}
		if err := places.Put(place, owner); err != nil {
			return err
		}
	}
	return nil
}

// forget removes a share's record.
func (l *Library) forget(number uint64) error {
	err := l.db.Update(func(tx *bbolt.Tx) error {
		all := tx.Bucket(sharesBucket)
		if all == nil || all.Bucket(keyOf(number)) == nil {
			return nil
		}
		if err := forgetPlaces(tx, number, all.Bucket(keyOf(number)).Get(surveyKey)); err != nil {
			return err
		}
		return all.DeleteBucket(keyOf(number))
	})
	if err != nil {
		return fmt.Errorf("forget a share: %w", err)
	}
	return nil
}

// forgetPlaces takes out what was noted for a share. Of a survey that cannot be read it
// stays, and is never believed: what a place leads to is compared with the file.
func forgetPlaces(tx *bbolt.Tx, number uint64, text []byte) error {
	places := tx.Bucket(placesBucket)
	s, err := decodeSurvey(text)
	if places == nil || errors.Is(err, errSurvey) {
		return nil
	}
	for _, f := range s.files {
		place := f.place()
		if place == nil || !bytes.HasPrefix(places.Get(place), keyOf(number)) {
			continue
		}
		if err := places.Delete(place); err != nil {
			return err
		}
	}
	return nil
}

// load returns what is remembered of a share.
func (l *Library) load(number uint64) (t *manifest.Torrent, s *survey, err error) {
	var torrent []byte
	err = l.db.View(func(tx *bbolt.Tx) error {
		all := tx.Bucket(sharesBucket)
		if all == nil || all.Bucket(keyOf(number)) == nil {
			return errors.New("there is no such share")
		}
		b := all.Bucket(keyOf(number))
		torrent = bytes.Clone(b.Get(torrentKey))
		if s, err = decodeSurvey(b.Get(surveyKey)); err == nil {
			s.proofs = decodeProofs(b.Get(proofsKey), len(s.files))
		}
		return err
	})
	if err == nil {
		t, err = manifest.ReadTorrent(bytes.NewReader(torrent))
	}
	if err == nil && len(t.Files) != len(s.files) {
		err = errSurvey
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read a remembered share: %w", err)
	}
	return t, s, nil
}

// loadSurvey is load without the manifest.
func (l *Library) loadSurvey(number uint64) (s *survey, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		all := tx.Bucket(sharesBucket)
		if all == nil || all.Bucket(keyOf(number)) == nil {
			return errSurvey
		}
		s, err = decodeSurvey(all.Bucket(keyOf(number)).Get(surveyKey))
		return err
	})
	return s, err
}

// owner returns the share and the path in it of the file with an identity's place, if
// one is noted.
func (l *Library) owner(id identity) (number uint64, path string, ok bool) {
	place := id.place()
	if place == nil {
		return 0, "", false
	}
	err := l.db.View(func(tx *bbolt.Tx) error {
		if places := tx.Bucket(placesBucket); places != nil {
			if value := places.Get(place); len(value) > 8 {
				number, path, ok = binary.BigEndian.Uint64(value), string(value[8:]), true
			}
		}
		return nil
	})
	return number, path, ok && err == nil
}

// memory finds the digests of files that were hashed before. It belongs to one scan.
type memory struct {
	library *Library
	loaded  map[uint64]*remembered // nil: cannot be read
}

type remembered struct {
	torrent *manifest.Torrent
	files   map[string]int // path -> index in the torrent, in ids and in proofs
	ids     []seen
	proofs  []proof
}

// maxRemembered bounds the manifests that one scan holds to look files up in.
const maxRemembered = 4

// digests returns the digests of a file's pieces, nil if they are not known, with what
// proves that they still are.
func (m *memory) digests(own uint64, path string, id identity, length int64) ([]piece.Digest, proof) {
	if d, p := m.from(own, path, id, length); d != nil {
		return d, p
	}
	if number, there, ok := m.library.owner(id); ok {
		return m.from(number, there, id, length)
	}
	return nil, proof{}
}

func (m *memory) from(number uint64, path string, id identity, length int64) ([]piece.Digest, proof) {
	r, tried := m.loaded[number]
	if !tried {
		if len(m.loaded) >= maxRemembered {
			clear(m.loaded)
		}
		r = m.library.remembered(number)
		m.loaded[number] = r
	}
	if r == nil {
		return nil, proof{}
	}
	at, found := r.files[path]
	if !found || r.ids[at].identity != id {
		return nil, proof{}
	}
	from := r.torrent.Layout(at)
	if length < from.PieceLength || len(r.torrent.Files[at].Pieces) != from.Count() {
		return nil, proof{}
	}
	return from.Coarsen(r.torrent.Files[at].Pieces, length), r.proofs[at]
}

// remembered is load for memory; nil if there is nothing.
func (l *Library) remembered(number uint64) *remembered {
	if number == 0 {
		return nil
	}
	t, s, err := l.load(number)
	if err != nil {
		return nil
	}
	r := &remembered{torrent: t, files: make(map[string]int, len(s.files)), ids: s.files, proofs: s.proofs}
	for k, f := range s.files {
		r.files[f.path] = k
	}
	return r
}
