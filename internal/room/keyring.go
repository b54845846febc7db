package room

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"

	"dragonload/internal/piece"
)

// Keyring is the set of rooms that a running node is in. All methods may be called by
// many goroutines at once. The zero Keyring is empty and ready.
type Keyring struct {
	// Removed reports whether a member was shut out of a room. It is asked in every
	// handshake in both directions and must be quick; nil is nobody. It is set before
	// the Keyring is used.
	Removed func(room [32]byte, key piece.NodeID) bool

	mu    sync.RWMutex
	rooms map[string]*keyringRoom // by serverName
}

// keyringRoom is a room with what its server side shows, made once.
type keyringRoom struct {
	*Room
	join tls.Certificate // with the authority's, which a joining node cannot have yet
}

// Add puts a room into the set, in place of one with the same id: what a renewed
// certificate needs. Connections that are open stay.
func (k *Keyring) Add(r *Room) {
	entry := &keyringRoom{Room: r, join: r.Cert}
	entry.join.Certificate = [][]byte{r.Cert.Certificate[0], r.Authority.Cert.Raw}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.rooms == nil {
		k.rooms = make(map[string]*keyringRoom)
	}
	k.rooms[serverName(r.ID)] = entry
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
