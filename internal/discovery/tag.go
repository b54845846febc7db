package discovery

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	tagSize  = 8
	saltSize = 16

	// maxTags bounds the rooms that one node announces and listens for: as many tags are
	// in one announcement.
	maxTags = 16
	// padTags: so many tags, or a multiple, are announced, the rest being random, so
	// that the number of rooms does not tell one node from the others.
	padTags = 4

	// epochLength is how long a tag is good, and as long again: then what was recorded
	// somewhere makes nobody show anywhere else that he is in the room.
	epochLength = time.Hour
)

// Room is a room that is announced and listened for.
type Room struct {
	ID      [32]byte
	Tracker bool // this node is its tracker
}

// keyed is a room with its key.
type keyed struct {
	Room
	key []byte
}

func withKey(r Room) keyed {
	key, err := hkdf.Key(sha256.New, r.ID[:], nil, "dragonload dns-sd", sha256.Size)
	if err != nil {
		panic(fmt.Sprintf("discovery: HKDF for %d bytes: %v", sha256.Size, err)) // it refuses lengths alone
	}
	return keyed{r, key}
}

// beacon is what an announcement says of rooms.
type beacon struct {
	epoch uint64 // hours since 1970
	salt  [saltSize]byte
	port  uint16 // where the node listens; the tags are for this port
	tags  [][tagSize]byte
}

func epochOf(now time.Time) uint64 {
	return uint64(max(now.Unix(), 0)) / uint64(epochLength/time.Second)
}

// newBeacon makes what this node announces of the first maxTags rooms.
func newBeacon(rooms []keyed, port uint16, now time.Time, random io.Reader) (beacon, error) {
	b := beacon{epoch: epochOf(now), port: port}
	if _, err := io.ReadFull(random, b.salt[:]); err != nil {
		return beacon{}, err
	}
	for _, r := range rooms[:min(len(rooms), maxTags)] {
		b.tags = append(b.tags, b.tag(r.key, r.Tracker))
	}
	for len(b.tags) == 0 || len(b.tags)%padTags != 0 {
		var one [tagSize]byte
		if _, err := io.ReadFull(random, one[:]); err != nil {
			return beacon{}, err
		}
		b.tags = append(b.tags, one)
	}
	slices.SortFunc(b.tags, func(x, y [tagSize]byte) int { return bytes.Compare(x[:], y[:]) })
	return b, nil
}

// tag is the mark of one room: HMAC-SHA-256 of the role, the epoch, the port and the
// salt, cut to 8 bytes. A wrong one that fits by chance costs a try of an address.
func (b *beacon) tag(key []byte, tracker bool) [tagSize]byte {
	var fixed [11]byte
	fixed[0] = 'm'
	if tracker {
		fixed[0] = 't'
	}
	binary.BigEndian.PutUint64(fixed[1:], b.epoch)
	binary.BigEndian.PutUint16(fixed[9:], b.port)
	mac := hmac.New(sha256.New, key)
	mac.Write(fixed[:])
	mac.Write(b.salt[:])
	return [tagSize]byte(mac.Sum(nil))
}

// match returns those of rooms that a beacon is for; Tracker says whether its node is
// the tracker.
func (b *beacon) match(rooms []keyed, now time.Time) (found []Room) {
	if here := epochOf(now); b.epoch+1 < here || b.epoch > here+1 {
		return nil
	}
	for _, r := range rooms {
		for _, tracker := range []bool{true, false} {
			if slices.Contains(b.tags, b.tag(r.key, tracker)) {
				found = append(found, Room{ID: r.ID, Tracker: tracker})
				break
			}
		}
	}
	return found
}

// The TXT record: v is the version of this format, e the epoch, s the salt in
// hexadecimal, r the tags one after the other in base64url without padding.
const beaconVersion = "1"

func (b *beacon) text() []string {
	return []string{
		"v=" + beaconVersion,
		"e=" + strconv.FormatUint(b.epoch, 10),
		"s=" + hex.EncodeToString(b.salt[:]),
		"r=" + base64.RawURLEncoding.EncodeToString(bytes.Join(slicesOf(b.tags), nil)),
	}
}

func slicesOf(tags [][tagSize]byte) (list [][]byte) {
	for k := range tags {
		list = append(list, tags[k][:])
	}
	return list
}

var errBeacon = errors.New("the TXT record is not of this version of dragonload")

// parseBeacon reads a TXT record; keys that it does not know are for later versions.
func parseBeacon(text []string, port uint16) (beacon, error) {
	b := beacon{port: port}
	value := map[string]string{}
	for _, s := range text {
		k, v, _ := strings.Cut(s, "=")
		if _, twice := value[k]; !twice {
			value[k] = v
		}
	}
	epoch, err := strconv.ParseUint(value["e"], 10, 40)
	if err != nil || value["v"] != beaconVersion {
		return beacon{}, errBeacon
	}
	b.epoch = epoch
	salt, err := hex.DecodeString(value["s"])
	if err != nil || len(salt) != saltSize {
		return beacon{}, errBeacon
	}
	copy(b.salt[:], salt)
	tags, err := base64.RawURLEncoding.Strict().DecodeString(value["r"])
	if err != nil || len(tags) == 0 || len(tags)%tagSize != 0 || len(tags) > maxTags*tagSize {
		return beacon{}, errBeacon
	}
	for one := range slices.Chunk(tags, tagSize) {
		b.tags = append(b.tags, [tagSize]byte(one))
	}
	return b, nil
}
