package store

import (
	"cmp"
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"dragonload/internal/piece"

	"go.etcd.io/bbolt"
)

// Kept is what the journal remembers of a finished download.
type Kept struct {
	Path        string
	Size        int64
	Modified    time.Time // the file's time of change when it got its name
	Finished    time.Time
	PieceLength int64
	SHA256      [32]byte
	Sums        []Sum    // other digests that were computed, by their names
	From        []string // addresses that it was fetched from, the best first; an empty user-info where a secret went with the request

	// Pin is that of the manifest that the bytes are of, if there was one; else zero. Tree
	// says that they are several files, in the folder Path: there is no SHA256 of them, and
	// Modified is that of the folder. KeptFiles tells of the files.
	Pin  piece.Pin
	Tree bool

	stamps []Stamp // for put
}

// Sum is a digest of a whole file.
type Sum struct {
	Algorithm string // sha-512, sha-1 or md5
	Sum       []byte
}

// The journal has three more buckets, whose values end in their CRC-32C as the others do.
//
//	"finished 1"        by absolute path: version (1 byte, 1); number, size, time of
//	                    change (nanoseconds since 1970), end of the download (seconds
//	                    since 1970), piece length (8 bytes each); SHA-256 (32 bytes);
//	                    how many other digests (1 byte), each two strings, its
//	                    algorithm and its bytes; how many addresses (1 byte), each a
//	                    string; of the bytes of a manifest the version is 2, and behind
//	                    all this are its info hash in hexadecimal digits (a string), the
//	                    number of pieces (4 bytes), and 1 for several files (1 byte)
//	"finished files 1"  of several files, by absolute path of the folder: the number as
//	                    in "finished 1"; for each file, in the manifest's order, its size,
//	                    -1 if it is not there, and its time of change (8 bytes each)
//	"finished slots 1"  by number modulo MaxKept (4 bytes): the path (without a CRC)
//
// Numbers are given in their order from 1. Who takes a slot removes what had it before,
// unless that has got a later number meanwhile.
var (
	keptBucket  = []byte("finished 1")
	filesBucket = []byte("finished files 1")
	slotsBucket = []byte("finished slots 1")
)

const (
	// MaxKept is how many finished downloads are remembered, the newest.
	MaxKept = 10_000

	keptVersion  = 1
	keptManifest = 2
	maxKeptPath  = 4 << 10
	maxKeptFrom  = 32
	maxKeptBytes = 8 << 10 // of all addresses of one
)

// keep returns what is to be remembered of the file that was just finished; nil if it
// is gone again, or its path too long.
func (f *File) keep(done Finished, from []string) *Kept {
	info, err := f.journal.disk.Lstat(f.o.Target)
	if err != nil || len(f.o.Target) > maxKeptPath || f.tree == nil && !info.Mode().IsRegular() || f.tree != nil && !info.IsDir() {
		return nil
	}
	k := &Kept{
		Path: f.o.Target, Size: f.p.layout.Size, Modified: info.ModTime(), Finished: time.Now(),
		PieceLength: f.p.layout.PieceLength, SHA256: done.SHA256,
	}
	if f.p.rec.pin.Kind == piece.Manifest {
		k.Pin = f.p.rec.pin
	}
	if f.tree != nil {
		k.Tree, k.stamps = true, f.tree.stamps()
	}
	for _, kind := range sumNames {
		if sum := done.Sums[kind.hash]; len(sum) > 0 {
			k.Sums = append(k.Sums, Sum{kind.name, sum})
		}
	}
	left := maxKeptBytes
	for _, u := range from {
		if left -= len(u); left >= 0 && len(k.From) < maxKeptFrom {
			k.From = append(k.From, u)
		}
	}
	return k
}

var sumNames = []struct {
	hash crypto.Hash
	name string
}{{crypto.SHA512, "sha-512"}, {crypto.SHA1, "sha-1"}, {crypto.MD5, "md5"}}

func (k *Kept) encode(number uint64) []byte {
	b := []byte{keptVersion}
	if k.Pin.Kind == piece.Manifest {
		b[0] = keptManifest
	}
	for _, n := range []uint64{number, uint64(k.Size), uint64(k.Modified.UnixNano()), uint64(k.Finished.Unix()), uint64(k.PieceLength)} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = append(b, k.SHA256[:]...)
	b = append(b, byte(len(k.Sums)))
	for _, s := range k.Sums {
		b = appendText(b, s.Algorithm)
		b = appendText(b, string(s.Sum))
	}
	b = append(b, byte(len(k.From)))
	for _, u := range k.From {
		b = appendText(b, u)
	}
	if k.Pin.Kind == piece.Manifest {
		b = appendText(b, k.Pin.Validator)
		b = binary.BigEndian.AppendUint32(b, k.Pin.Pieces)
		b = append(b, flag(k.Tree))
	}
	return seal(b)
}

func decodeKept(path string, value []byte) (k Kept, number uint64, err error) {
	b, err := unseal(value)
	if err != nil {
		return Kept{}, 0, err
	}
	r := fields{b: b}
	version := r.take(1)[0]
	if version != keptVersion && version != keptManifest {
		return Kept{}, 0, fmt.Errorf("record of version %d", version)
	}
	number = r.number()
	k = Kept{Path: path, Size: int64(r.number())}
	k.Modified = time.Unix(0, int64(r.number()))
	k.Finished = time.Unix(int64(r.number()), 0)
	k.PieceLength = int64(r.number())
	copy(k.SHA256[:], r.take(32))
	for range r.take(1)[0] {
		k.Sums = append(k.Sums, Sum{r.text(), []byte(r.text())})
	}
	for range r.take(1)[0] {
		k.From = append(k.From, r.text())
	}
	if version == keptManifest {
		k.Pin = piece.Pin{Size: k.Size, Kind: piece.Manifest, Validator: r.text(), PieceLength: k.PieceLength}
		k.Pin.Pieces = binary.BigEndian.Uint32(r.take(4))
		k.Tree = r.take(1)[0] == 1
	}
	if err := r.end(); err != nil {
		return Kept{}, 0, err
	}
	if version == keptManifest {
		return k, number, k.Pin.Validate()
	}
	return k, number, piece.Layout{Size: k.Size, PieceLength: k.PieceLength}.Validate()
}

// settle forgets the download to a target, which is finished, and remembers k instead;
// both in one transaction.
func (j *Journal) settle(target string, k *Kept) error {
	return j.wrapError("write", j.change(func() error {
		return j.db.Update(func(tx *bbolt.Tx) error {
			if all := tx.Bucket(downloadsBucket); all != nil && all.Bucket([]byte(target)) != nil {
				if err := all.DeleteBucket([]byte(target)); err != nil {
					return err
				}
			}
			if k == nil {
				return nil
			}
			return k.put(tx)
		})
	}))
}

func (k *Kept) put(tx *bbolt.Tx) error {
	kept, err := tx.CreateBucketIfNotExists(keptBucket)
	if err != nil {
		return err
	}
	slots, err := tx.CreateBucketIfNotExists(slotsBucket)
	if err != nil {
		return err
	}
	files, err := tx.CreateBucketIfNotExists(filesBucket)
	if err != nil {
		return err
	}
	number, err := kept.NextSequence()
	if err != nil {
		return err
	}
	slot := binary.BigEndian.AppendUint32(nil, uint32(number%MaxKept))
	if old := slices.Clone(slots.Get(slot)); old != nil {
		_, has, err := decodeKept(string(old), kept.Get(old))
		if err != nil || has%MaxKept == number%MaxKept {
			if err := errors.Join(kept.Delete(old), files.Delete(old)); err != nil {
				return err
			}
		}
	}
	if err := slots.Put(slot, []byte(k.Path)); err != nil {
		return err
	}
	if k.Tree {
		if err := files.Put([]byte(k.Path), encodeStamps(number, k.stamps)); err != nil {
			return err
		}
	} else if err := files.Delete([]byte(k.Path)); err != nil {
		return err
	}
	return kept.Put([]byte(k.Path), k.encode(number))
}

// Kept returns what is remembered of the finished download of one file that was saved at
// path. It says nothing of what is there now.
func (j *Journal) Kept(path string) (k Kept, found bool, err error) {
	if k, found, err = j.kept(path); k.Tree {
		return Kept{}, false, err
	}
	return k, found, err
}

// KeptPin returns the pin of the manifest that the finished content at path, a file or a
// folder, is of; found is false if none was finished there, and the pin zero if it is of a URL.
func (j *Journal) KeptPin(path string) (pin piece.Pin, found bool, err error) {
	k, found, err := j.kept(path)
	return k.Pin, found, err
}

// kept is Kept also of several files.
func (j *Journal) kept(path string) (k Kept, found bool, err error) {
	err = j.guard(func() error {
		return j.db.View(func(tx *bbolt.Tx) error {
			kept := tx.Bucket(keptBucket)
			if kept == nil {
				return nil
			}
			value := kept.Get([]byte(path))
			if value == nil {
				return nil
			}
			var err error
			k, _, err = decodeKept(path, value)
			found = err == nil // a record that cannot be read is none
			return nil
		})
	})
	if err != nil {
		return Kept{}, false, fmt.Errorf("read journal %s: %w", j.path, err)
	}
	return k, found, nil
}

func encodeStamps(number uint64, stamps []Stamp) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 12+16*len(stamps)), number)
	for _, s := range stamps {
		b = binary.BigEndian.AppendUint64(b, uint64(s.Size))
		b = binary.BigEndian.AppendUint64(b, uint64(s.Modified))
	}
	return seal(b)
}

func decodeStamps(value []byte) (stamps []Stamp, number uint64, err error) {
	b, err := unseal(value)
	if err != nil || len(b)%16 != 8 {
		return nil, 0, errTorn
	}
	number = binary.BigEndian.Uint64(b)
	stamps = make([]Stamp, len(b)/16)
	for k := range stamps {
		at := b[8+16*k:]
		stamps[k] = Stamp{Size: int64(binary.BigEndian.Uint64(at)), Modified: int64(binary.BigEndian.Uint64(at[8:]))}
		if stamps[k].Size < -1 || stamps[k].Size > piece.MaxSize {
			return nil, 0, errTorn
		}
	}
	return stamps, number, nil
}

// KeptFiles returns the stamps that the files of the finished content in the folder at
// path had when it was finished, in the manifest's order; the size of those that were not
// wanted is -1. What it says is nothing of what is there now: Shared compares.
func (j *Journal) KeptFiles(path string) (stamps []Stamp, found bool, err error) {
	err = j.guard(func() error {
		return j.db.View(func(tx *bbolt.Tx) error {
			kept, files := tx.Bucket(keptBucket), tx.Bucket(filesBucket)
			if kept == nil || files == nil {
				return nil
			}
			// A record that cannot be read is none.
			_, number, torn := decodeKept(path, kept.Get([]byte(path)))
			all, of, torn2 := decodeStamps(files.Get([]byte(path)))
			if found = torn == nil && torn2 == nil && of == number; found {
				stamps = all
			}
			return nil
		})
	})
	if err != nil {
		return nil, false, fmt.Errorf("read journal %s: %w", j.path, err)
	}
	return stamps, found, nil
}

// KeptManifests returns the finished downloads that were of a manifest, those finished first
// in front: what a node that starts again can go on serving.
func (j *Journal) KeptManifests() ([]Kept, error) {
	type numbered struct {
		Kept
		number uint64
	}
	var all []numbered
	err := j.guard(func() error {
		return j.db.View(func(tx *bbolt.Tx) error {
			kept := tx.Bucket(keptBucket)
			if kept == nil {
				return nil
			}
			return kept.ForEach(func(path, value []byte) error {
				k, number, err := decodeKept(string(path), value)
				if err == nil && k.Pin.Kind == piece.Manifest {
					all = append(all, numbered{k, number})
				}
				return nil
			})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read journal %s: %w", j.path, err)
	}
	slices.SortFunc(all, func(a, b numbered) int { return cmp.Compare(a.number, b.number) })
	out := make([]Kept, len(all))
	for i, k := range all {
		out[i] = k.Kept
	}
	return out, nil
}

// fields reads the values of a record one after the other. After the first that is not
// there, all are zero.
type fields struct {
	b   []byte
	err error
}

func (r *fields) take(n uint64) []byte {
	if r.err != nil || n > uint64(len(r.b)) {
		r.err = errors.New("record is cut short")
		return make([]byte, min(n, maxPath))
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *fields) text() string {
	n, w := binary.Uvarint(r.b)
	if w <= 0 || n > maxPath {
		r.err = errors.New("record with a bad string")
		return ""
	}
	r.b = r.b[w:]
	return string(r.take(n))
}

func (r *fields) number() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

// end returns what was wrong, also that something is left.
func (r *fields) end() error {
	if r.err == nil && len(r.b) != 0 {
		r.err = errors.New("record with something behind its end")
	}
	return r.err
}

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}
