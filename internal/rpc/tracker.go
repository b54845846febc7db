package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/rpc/gen/dragonload/pool/v1/poolv1connect"
	roomv1 "dragonload/internal/rpc/gen/dragonload/room/v1"
	"dragonload/internal/rpc/gen/dragonload/room/v1/roomv1connect"
)

// MaxMembers bounds the members of a room that a tracker may name.
const MaxMembers = 1 << 16

// maxMembersMessage has room for MaxMembers of them.
const maxMembersMessage = 16 << 20

// maxTrackers bounds the trackers of a room.
const maxTrackers = 8

// callTimeout bounds what a tracker is asked besides sessions.
const callTimeout = 10 * time.Second

// Tracker is a member's connection to one tracker of one room. All sessions and calls
// share one HTTP/2 connection, which is made when it is first needed and made anew
// after it broke. Its methods may be called concurrently.
type Tracker struct {
	addr      string
	dial      DialFunc // of TLS connections
	transport *http.Transport
	pools     poolv1connect.PoolServiceClient
	rooms     roomv1connect.RoomServiceClient
	shelf     roomv1connect.CatalogueServiceClient
	removals  func(*room.Removals)     // nil: nobody wants to know
	conn      atomic.Pointer[tls.Conn] // the one connection, once it was made
}

// NewTracker returns the connection to the tracker at addr, host:port. cfg is that of
// the room, with the member's certificate and ALPN h2. dial may be nil.
func NewTracker(addr string, cfg *tls.Config, dial DialFunc) (*Tracker, error) {
	if err := CheckAddr(addr); err != nil {
		return nil, err
	}
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	secure := dialTLS(dial, cfg)
	t := &Tracker{addr: addr, dial: secure}
	t.transport = &http.Transport{
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := secure(ctx, network, addr)
			if made, ok := conn.(*tls.Conn); ok && err == nil {
				t.conn.Store(made)
			}
			return conn, err
		},
		Protocols:          &protocols,
		DisableCompression: true,
		// A member with many pools waits for a free stream rather than open a second
		// connection: the tracker counts connections.
		HTTP2: Ping(&http.HTTP2Config{StrictMaxConcurrentRequests: true}),
	}
	client := &http.Client{Transport: t.transport, CheckRedirect: noRedirect}
	t.pools = poolv1connect.NewPoolServiceClient(client, "https://"+addr, clientOptions())
	t.rooms = roomv1connect.NewRoomServiceClient(client, "https://"+addr,
		clientOptions(), connect.WithReadMaxBytes(maxMembersMessage))
	t.shelf = roomv1connect.NewCatalogueServiceClient(client, "https://"+addr, clientOptions())
	return t, nil
}

// Addr returns the address that t was made with.
func (t *Tracker) Addr() string { return t.addr }

// Close lets go of the connection once no session uses it; sessions are the caller's
// to close before.
func (t *Tracker) Close() { t.transport.CloseIdleConnections() }

// explain finds out why a connection could not be used, where net/http does not say: in
// TLS 1.3 a server refuses a certificate after the client has done its part, and of the
// alert that it sends HTTP/2 keeps only that it failed. So the first byte is read here
// once more, from a connection made for that.
func (t *Tracker) explain(ctx context.Context, err error) error {
	var known *net.OpError
	if errors.As(err, &known) || connect.CodeOf(err) != connect.CodeUnavailable {
		return err
	}
	conn, again := t.dial(ctx, "tcp", t.addr)
	if again != nil {
		return again
	}
	defer conn.Close()
	if conn.SetReadDeadline(time.Now().Add(time.Second)) != nil {
		return err
	}
	_, again = conn.Read(make([]byte, 1))
	if errors.As(again, &known) && known.Op == "remote error" {
		return again
	}
	return err
}

// Member is one member of a room as its tracker sees it.
type Member struct {
	Number   uint32
	Name     string
	ID       piece.NodeID
	Online   bool      // connected to this tracker now
	Removed  bool      // shut out
	LastSeen time.Time // zero if not since the tracker has started
}

// Members lists the room.
func (t *Tracker) Members(ctx context.Context) ([]Member, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := t.rooms.Members(ctx, connect.NewRequest(&roomv1.MembersRequest{}))
	if err != nil {
		return nil, fmt.Errorf("ask tracker %s for members: %w", t.addr, t.explain(ctx, FromWire(err)))
	}
	if n := len(answer.Msg.GetMembers()); n > MaxMembers {
		return nil, fmt.Errorf("ask tracker %s for members: %w", t.addr, malformed("members", fmt.Errorf("%d of them", n)))
	}
	var members []Member
	for _, x := range answer.Msg.GetMembers() {
		id, err := decodeID(x.GetId())
		if err != nil {
			return nil, fmt.Errorf("ask tracker %s for members: %w", t.addr, malformed("member", err))
		}
		m := Member{Number: x.GetNumber(), Name: x.GetName(), ID: id, Online: x.GetOnline(), Removed: x.GetRemoved()}
		if seen := x.GetLastSeen(); seen.IsValid() {
			m.LastSeen = seen.AsTime()
		}
		members = append(members, m)
	}
	return members, nil
}

// Renew asks for a fresh certificate for the key of the member that t calls as. csr is
// a certificate request, DER, signed by that key.
func (t *Tracker) Renew(ctx context.Context, csr []byte) (Membership, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := t.rooms.Renew(ctx, connect.NewRequest(&roomv1.RenewRequest{Csr: csr}))
	if err != nil {
		return Membership{}, fmt.Errorf("renew certificate at tracker %s: %w", t.addr, t.explain(ctx, FromWire(err)))
	}
	m, err := decodeMembership(answer.Msg.GetChain(), answer.Msg.GetTrackers(), answer.Msg.GetRemovals())
	if err != nil {
		return Membership{}, fmt.Errorf("renew certificate at tracker %s: %w", t.addr, err)
	}
	return m, nil
}
