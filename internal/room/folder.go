package room

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Files of a room, in STATE/rooms/NAME.
const (
	roomsFolder   = "rooms"
	roomFile      = "room.json"
	authorityFile = "ca.pem"
	authorityKey  = "ca.key" // at the room's creator only
	certFile      = "cert.pem"
	removalsFile  = "removals" // if anybody was ever removed

	// leftPrefix begins the name of what is noted in the folder of rooms about one that is
	// shared and was left: its id follows.
	leftPrefix = ".left-"

	roomFormat = 1
)

// maxRooms bounds how many rooms one node is in.
const maxRooms = 1000

// Folder is the rooms of one state folder. Other processes may change them at any
// moment; each call looks at the disk anew.
type Folder struct {
	dir      string // STATE/rooms
	identity *Identity
}

// roomRecord is room.json.
type roomRecord struct {
	Format   int      `json:"format"`
	Name     string   `json:"name"`
	ID       string   `json:"id"` // hexadecimal
	Trackers []string `json:"trackers"`
	Created  bool     `json:"created"`
	Shared   bool     `json:"shared,omitempty"`
}

// OpenFolder opens the rooms of a state folder, making it and its identity at first
// use; see LoadIdentity for what is refused.
func OpenFolder(stateDir string) (*Folder, error) {
	id, err := LoadIdentity(stateDir)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(stateDir, roomsFolder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of rooms: %w", err)
	}
	if err := checkPrivate(dir, 0o700); err != nil {
		return nil, err
	}
	return &Folder{dir: dir, identity: id}, nil
}

// Identity returns who this node is.
func (f *Folder) Identity() *Identity { return f.identity }

// List returns the rooms by name. With an error about some room the others are
// returned all the same.
func (f *Folder) List() ([]*Room, error) {
	names, err := f.names()
	if err != nil {
		return nil, err
	}
	var rooms []*Room
	var damaged []error
	for _, name := range names {
		r, err := f.load(name)
		switch {
		case err == nil:
			rooms = append(rooms, r)
		case !errors.Is(err, fs.ErrNotExist): // else left since the names were read
			damaged = append(damaged, err)
		}
	}
	return rooms, errors.Join(damaged...)
}

func (f *Folder) names() ([]string, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, fmt.Errorf("read the folder of rooms: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && CheckName(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Get returns one room; a *NoRoomError (ErrNoRoom) if this node is not in it.
func (f *Folder) Get(name string) (*Room, error) {
	if CheckName(name) != nil {
		return nil, f.noRoom(name)
	}
	r, err := f.load(name)
	if errors.Is(err, fs.ErrNotExist) {
		if _, statErr := os.Stat(filepath.Join(f.dir, name)); errors.Is(statErr, fs.ErrNotExist) {
			return nil, f.noRoom(name)
		}
	}
	return r, err
}

func (f *Folder) noRoom(name string) error {
	names, _ := f.names() // only for a hint
	return &NoRoomError{Name: name, Near: nearest(name, names)}
}

// load reads a room. The creator's own certificate is renewed on the way, since
// nobody else could: a creator that was off for a month is a member again at once.
func (f *Folder) load(name string) (*Room, error) {
	r, err := f.read(name)
	if err != nil {
		return nil, fmt.Errorf("room %s: %w", name, err)
	}
	now := time.Now()
	if r.caKey == nil || now.Before(r.RenewAt()) {
		return r, nil
	}
	csr, err := r.Request()
	if err != nil {
		return nil, err
	}
	chain, err := r.Renew(csr, r.Cert.Leaf, now)
	if err != nil {
		return nil, err
	}
	if r, err = r.Accept(chain, now); err != nil {
		return nil, err
	}
	return r, f.Save(r)
}

func (f *Folder) read(name string) (*Room, error) {
	dir := filepath.Join(f.dir, name)
	data, err := readFile(filepath.Join(dir, roomFile))
	if err != nil {
		return nil, err
	}
	var record roomRecord
	if err := json.Unmarshal(data, &record); err != nil {
		return nil, fmt.Errorf("read %s: %w", roomFile, err)
	}
	if record.Format != roomFormat {
		return nil, fmt.Errorf("%s has format %d, this program knows %d; use the newer program", roomFile, record.Format, roomFormat)
	}
	chain, err := readFile(filepath.Join(dir, certFile))
	if err != nil {
		return nil, err
	}
	authority, err := readFile(filepath.Join(dir, authorityFile))
	if err != nil {
		return nil, err
	}
	leaf, a, err := parseChain(append(chain, authority...))
	if err != nil {
		return nil, err
	}
	if hex.EncodeToString(a.ID[:]) != record.ID || a.Cert.Subject.CommonName != name || record.Name != name {
		return nil, fmt.Errorf("%s and %s are of different rooms", roomFile, authorityFile)
	}
	cert, err := tlsCertificate(leaf, f.identity)
	if err != nil {
		return nil, err
	}
	r := &Room{
		Name: name, ID: a.ID, Trackers: record.Trackers, Created: record.Created, Shared: record.Shared,
		Authority: a, Cert: cert, identity: f.identity,
	}
	if r.Removals, err = readRemovals(dir, a); err != nil {
		return nil, err
	}
	if r.Created {
		if r.caKey, err = readKey(filepath.Join(dir, authorityKey)); err != nil {
			return nil, err
		}
		if !r.caKey.Public().(ed25519.PublicKey).Equal(a.Cert.PublicKey) {
			return nil, fmt.Errorf("%s does not belong to %s", authorityKey, authorityFile)
		}
	}
	return r, nil
}

// Create makes a room whose authority and tracker is this node, reached by the others
// at advertise (host:port); also are addresses of other trackers of the room. ErrExists
// if the name is taken here, ErrName if it is no name.
func (f *Folder) Create(name, advertise string, id *Identity, also ...string) (*Room, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	trackers := append([]string{advertise}, also...)
	if len(trackers) > MaxTrackers {
		return nil, fmt.Errorf("%d addresses of trackers, of at most %d", len(trackers), MaxTrackers)
	}
	for _, addr := range trackers {
		if err := CheckAddr(addr); err != nil {
			return nil, fmt.Errorf("the tracker's address: %w", err)
		}
	}
	now := time.Now()
	a, caKey, err := newAuthority(name, now)
	if err != nil {
		return nil, err
	}
	host, _ := os.Hostname() // without one the member is called "node"
	leaf, err := a.sign(caKey, id.ID, MemberName(host), Use{}, now)
	if err != nil {
		return nil, err
	}
	r := &Room{Name: name, ID: a.ID, Trackers: trackers, Created: true, Authority: a, identity: id, caKey: caKey}
	if r, err = r.Accept(a.chain(leaf), now); err != nil {
		return nil, err
	}
	return r, f.add(r)
}

// Join stores the room that a tracker has admitted this node to: chain is what Admit
// returned there. Joining again renews the certificate and adds the addresses.
// ErrInviteForeign if the certificate is from another room than the invite's,
// ErrExists if a different room has the name here.
func (f *Folder) Join(invite Invite, chain []byte, now time.Time) (*Room, error) {
	leaf, a, err := parseChain(chain)
	if err != nil {
		return nil, fmt.Errorf("join room %s: %w", invite.Room, err)
	}
	if a.ID != invite.RoomID || a.Cert.Subject.CommonName != invite.Room {
		return nil, fmt.Errorf("join room %s: %w", invite.Room, ErrInviteForeign)
	}
	if _, err := a.verify(leaf, now); err != nil {
		return nil, fmt.Errorf("join room %s: %w", invite.Room, err)
	}
	cert, err := tlsCertificate(leaf, f.identity)
	if err != nil {
		return nil, fmt.Errorf("join room %s: %w", invite.Room, err)
	}
	r := &Room{Name: invite.Room, ID: a.ID, Trackers: slices.Clone(invite.Addrs), Authority: a, Cert: cert, identity: f.identity}
	err = f.add(r)
	if !errors.Is(err, ErrExists) {
		return r, err
	}
	old, err := f.Get(r.Name)
	if err != nil {
		return nil, err
	}
	if old.ID != r.ID {
		return nil, fmt.Errorf("another room called %s was joined before (dragonload room leave %s): %w", r.Name, r.Name, ErrExists)
	}
	again := *old
	again.Cert = cert
	again.Trackers = r.Trackers
	for _, addr := range old.Trackers {
		if len(again.Trackers) < MaxTrackers && !slices.Contains(again.Trackers, addr) {
			again.Trackers = append(again.Trackers, addr)
		}
	}
	return &again, f.Save(&again)
}

// Save stores the addresses and the certificate of a room that is already here;
// durable on return. ErrNoRoom if it was left in the meantime.
func (f *Folder) Save(r *Room) error {
	dir := filepath.Join(f.dir, r.Name)
	record, err := encodeRoom(r)
	if err != nil {
		return err
	}
	err = replaceFile(filepath.Join(dir, certFile), encodeCert(r.Cert.Certificate[0]))
	if err == nil {
		err = replaceFile(filepath.Join(dir, roomFile), record)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return f.noRoom(r.Name)
	}
	if err != nil {
		return fmt.Errorf("save room %s: %w", r.Name, err)
	}
	return nil
}

// readRemovals reads the list of a room's folder; nil if there is none.
func readRemovals(dir string, a *Authority) (*Removals, error) {
	data, err := readAtMost(filepath.Join(dir, removalsFile), MaxRemovalsSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l, err := ParseRemovals(data)
	if err == nil {
		err = a.CheckRemovals(l)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is damaged (%w); delete it, and the room's members give it again", filepath.Join(dir, removalsFile), err)
	}
	return l, nil
}

// SaveRemovals stores the list of removals that r has, unless a newer one is stored
// already; durable on return. ErrNoRoom if the room was left in the meantime.
func (f *Folder) SaveRemovals(r *Room) error {
	if r.Removals == nil {
		return nil
	}
	dir := filepath.Join(f.dir, r.Name)
	// One that cannot be read is replaced.
	if stored, err := readRemovals(dir, r.Authority); err == nil && stored.Number() >= r.Removals.Epoch {
		return nil
	}
	err := replaceFile(filepath.Join(dir, removalsFile), r.Removals.Encode())
	if errors.Is(err, fs.ErrNotExist) {
		return f.noRoom(r.Name)
	}
	if err != nil {
		return fmt.Errorf("save who was removed from room %s: %w", r.Name, err)
	}
	return nil
}

// add stores a room that is new here: in a folder of another name first, so that
// nobody sees half a room.
func (f *Folder) add(r *Room) (err error) {
	if names, err := f.names(); err != nil {
		return err
	} else if slices.Contains(names, r.Name) {
		return fmt.Errorf("room %s: %w", r.Name, ErrExists)
	} else if len(names) >= maxRooms {
		return fmt.Errorf("room %s: this node is in %d rooms; leave one first", r.Name, len(names))
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("store room %s: %w", r.Name, err)
		}
	}()
	temp, err := os.MkdirTemp(f.dir, ".new-*") // 0700 by its contract
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temp) }() // gone already if all went well
	record, err := encodeRoom(r)
	if err != nil {
		return err
	}
	files := map[string][]byte{
		roomFile:      record,
		authorityFile: encodeCert(r.Authority.Cert.Raw),
		certFile:      encodeCert(r.Cert.Certificate[0]),
	}
	if r.caKey != nil {
		if files[authorityKey], err = encodeKey(r.caKey); err != nil {
			return err
		}
	}
	if err := fillDir(temp, files); err != nil {
		return err
	}
	final := filepath.Join(f.dir, r.Name)
	if err := os.Rename(temp, final); err != nil {
		if _, statErr := os.Stat(final); statErr == nil { // made by another process since
			return ErrExists
		}
		return err
	}
	return syncDir(f.dir)
}

// Leave forgets a room: its certificate and, at its creator, its authority's key,
// without which nobody can be admitted any more. Of a room that is shared it notes that
// for the other replicas: see Left. ErrNoRoom if it is not here.
func (f *Folder) Leave(name string) error {
	if CheckName(name) != nil {
		return f.noRoom(name)
	}
	if r, err := f.read(name); err == nil && r.Shared {
		if err := f.noteLeft(r.ID); err != nil {
			return fmt.Errorf("leave room %s: %w", name, err)
		}
	}
	// Renamed first: the room goes as a whole, even if this process ends here.
	temp, err := os.MkdirTemp(f.dir, ".gone-*")
	if err != nil {
		return fmt.Errorf("leave room %s: %w", name, err)
	}
	defer func() { _ = os.RemoveAll(temp) }() // gone already if all went well
	err = os.Rename(filepath.Join(f.dir, name), filepath.Join(temp, name))
	if errors.Is(err, fs.ErrNotExist) {
		return f.noRoom(name)
	}
	if err = errors.Join(err, syncDir(f.dir)); err != nil {
		return fmt.Errorf("leave room %s: %w", name, err)
	}
	if err := os.RemoveAll(temp); err != nil {
		return fmt.Errorf("leave room %s: it is left, but its files remain in %s: %w", name, temp, err)
	}
	return nil
}

func encodeRoom(r *Room) ([]byte, error) {
	data, err := json.MarshalIndent(roomRecord{
		Format: roomFormat, Name: r.Name, ID: hex.EncodeToString(r.ID[:]),
		Trackers: r.Trackers, Created: r.Created, Shared: r.Shared,
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode room %s: %w", r.Name, err)
	}
	return append(data, '\n'), nil
}
