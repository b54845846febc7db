package room

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"dragonload/internal/piece"
)

// Keyring is the set of rooms that a running node is in. All methods may be called by
// many goroutines at once. The zero Keyring is empty and ready.
type Keyring struct {
	// changing is held while a room is put in or a list of removals taken in, until the
	// watchers have heard of it: they hear of lists in the order of their epochs.
	changing sync.Mutex
	watchers []func(*Room) error // guarded by changing

	mu    sync.RWMutex
	rooms map[string]*keyringRoom // by serverName
}

// keyringRoom is a room with what its server side shows, made once.
type keyringRoom struct {
	*Room
	join tls.Certificate // with the authority's, which a joining node cannot have yet
}

// Watch has f called with a room whenever a newer list of removals is known of it, which
// f stores, or acts on. It is called by whoever brought the list, one call at a time,
// and after the list holds; f must not put rooms or lists into the Keyring.
func (k *Keyring) Watch(f func(*Room) error) {
	k.changing.Lock()
	defer k.changing.Unlock()
	k.watchers = append(k.watchers, f)
}

// Add puts a room into the set, in place of one with the same id: what a renewed
// certificate needs. Of two lists of removals the newer one stays, and the watchers hear
// of it. Connections that are open stay.
func (k *Keyring) Add(r *Room) {
	k.changing.Lock()
	defer k.changing.Unlock()
	old, ok := k.Get(r.ID)
	if !ok || old.Removals == nil && r.Removals == nil {
		k.put(r)
		return
	}
	both := *r
	if old.Removals != nil {
		var err error
		if both.Removals, err = r.merge(old.Removals, time.Now()); err != nil {
			both.Removals = old.Removals // the list is full, and both are
		}
	}
	k.put(&both)
	if !both.Removals.Equal(old.Removals) || !both.Removals.Equal(r.Removals) {
		_ = k.tell(&both) // who could not store it logs that, and hears of the next one
	}
}

// put makes a room the one of its id.
func (k *Keyring) put(r *Room) {
	entry := &keyringRoom{Room: r, join: r.Cert}
	entry.join.Certificate = [][]byte{r.Cert.Certificate[0], r.Authority.Cert.Raw}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.rooms == nil {
		k.rooms = make(map[string]*keyringRoom)
	}
	k.rooms[serverName(r.ID)] = entry
}

// tell tells the watchers of a room's list. It needs k.changing.
func (k *Keyring) tell(r *Room) error {
	var errs []error
	for _, f := range k.watchers {
		errs = append(errs, f(r))
	}
	return errors.Join(errs...)
}

// Learn takes in a list of removals, from wherever it came. One that is not signed by
// the authority of a room of the set is an error; one that is not new does nothing.
// From then on the members on it are refused in every handshake. If News is true, the
// watchers have heard of it, and the error is theirs.
func (k *Keyring) Learn(l *Removals) (news bool, err error) {
	k.changing.Lock()
	defer k.changing.Unlock()
	r, ok := k.Get(l.Room)
	if !ok {
		return false, ErrNoRoom
	}
	now := time.Now()
	if l.Epoch <= r.Removals.Number() && r.Removals.covers(l, now) {
		return false, nil // whoever made it
	}
	if err := r.Authority.CheckRemovals(l); err != nil {
		return false, err
	}
	both := *r
	if both.Removals, err = r.merge(l, now); err != nil || both.Removals == r.Removals {
		return false, err
	}
	k.put(&both)
	return true, k.tell(&both)
}

// ShutOut removes a member from a room made here, and returns the list that says so,
// after the watchers have stored it; an error means that it may be forgotten, so that
// it has to be done again. ErrNoAuthority, ErrCreator, ErrManyRemoved, ErrNoRoom.
func (k *Keyring) ShutOut(room [32]byte, key piece.NodeID) (*Removals, error) {
	k.changing.Lock()
	defer k.changing.Unlock()
	r, ok := k.Get(room)
	if !ok {
		return nil, ErrNoRoom
	}
	both := *r
	var err error
	if both.Removals, err = r.shutOut(key, time.Now()); err != nil {
		return nil, err
	}
	k.put(&both)
	return both.Removals, k.tell(&both)
}

// Removed reports whether a member is known to be shut out of a room.
func (k *Keyring) Removed(room [32]byte, key piece.NodeID) bool {
	r, ok := k.Get(room)
	return ok && r.Removals.Has(key)
}

// Remove takes a room out of the set; new connections in it are refused.
func (k *Keyring) Remove(room [32]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.rooms, serverName(room))
}

// Get returns a room of the set.
func (k *Keyring) Get(room [32]byte) (*Room, bool) {
	entry := k.lookup(serverName(room))
	if entry == nil || entry.ID != room {
		return nil, false
	}
	return entry.Room, true
}

// Rooms returns the rooms of the set, in the order of their names.
func (k *Keyring) Rooms() []*Room {
	k.mu.RLock()
	defer k.mu.RUnlock()
	rooms := make([]*Room, 0, len(k.rooms))
	for _, entry := range k.rooms {
		rooms = append(rooms, entry.Room)
	}
	slices.SortFunc(rooms, func(a, b *Room) int { return slices.Compare([]byte(a.Name), []byte(b.Name)) })
	return rooms
}

func (k *Keyring) lookup(serverName string) *keyringRoom {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.rooms[serverName]
}

// ClientTLS is Room.ClientTLS for a room of the set, refusing removed members.
// ErrNoRoom if the room is not in the set.
func (k *Keyring) ClientTLS(room [32]byte, alpn string, peer piece.NodeID) (*tls.Config, error) {
	r, ok := k.Get(room)
	if !ok {
		return nil, ErrNoRoom
	}
	return r.clientTLS(alpn, peer, k.Removed), nil
}

// ServerTLS returns the configuration for a listener on which these protocols are
// spoken. The client names the room in its hello; a room that is not in the set ends
// the handshake (RefusedBy), as does a client that speaks none of the protocols, or
// without the certificate of a member. Only a hello that offers ALPNJoin gets by
// without one, and then nothing else can be spoken on its connection.
func (k *Keyring) ServerTLS(protos ...string) *tls.Config {
	members := base()
	members.NextProtos = slices.DeleteFunc(slices.Clone(protos), func(p string) bool { return p == ALPNJoin })
	members.ClientAuth = tls.RequireAnyClientCert
	// Without a certificate for the name, package tls answers with "unrecognized name".
	members.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if entry := k.lookup(hello.ServerName); entry != nil {
			return &entry.Cert, nil
		}
		return nil, nil
	}
	members.VerifyConnection = func(cs tls.ConnectionState) error {
		if !slices.Contains(members.NextProtos, cs.NegotiatedProtocol) {
			return fmt.Errorf("protocol %q is not spoken here", cs.NegotiatedProtocol)
		}
		entry := k.lookup(cs.ServerName)
		if entry == nil {
			return ErrNoRoom
		}
		_, err := verifyMember(entry.Room, cs, k.Removed)
		return err
	}

	join := base()
	join.NextProtos = []string{ALPNJoin}
	join.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if entry := k.lookup(hello.ServerName); entry != nil {
			return &entry.join, nil
		}
		return nil, nil
	}
	join.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.NegotiatedProtocol != ALPNJoin {
			return errors.New("a joining node may do nothing else")
		}
		return nil
	}

	admits := slices.Contains(protos, ALPNJoin)
	choose := base()
	choose.NextProtos = slices.Clone(protos)
	choose.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if admits && slices.Contains(hello.SupportedProtos, ALPNJoin) {
			return join, nil
		}
		return members, nil
	}
	return choose
}
