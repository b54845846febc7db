package rpc

import (
	"context"
	"crypto/tls"
	"fmt"

	"connectrpc.com/connect"

	poolv1 "dragonload/internal/rpc/gen/dragonload/pool/v1"
	roomv1 "dragonload/internal/rpc/gen/dragonload/room/v1"

	"dragonload/internal/piece"
	"dragonload/internal/room"
)

// DecodeRemovals reads a list of removals from a message, nil if it has none. Who signed
// it is the caller's to check (room.Keyring.Learn).
func DecodeRemovals(raw []byte) (*room.Removals, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	l, err := room.ParseRemovals(raw)
	if err != nil {
		return nil, malformed("removals", err)
	}
	return l, nil
}

// EncodeRemovals returns the message with which a tracker tells a list of removals.
func EncodeRemovals(l *room.Removals) *poolv1.SessionResponse {
	return &poolv1.SessionResponse{Message: &poolv1.SessionResponse_Removals{Removals: l.Encode()}}
}

// SendRemovals is Send for a list of removals; it may be sent before the Announce.
func (s *Session) SendRemovals(l *room.Removals) bool {
	return s.put(&poolv1.SessionRequest{Message: &poolv1.SessionRequest_Removals{Removals: l.Encode()}})
}

// OnRemovals has f called with each list of removals that the tracker tells in a
// session, before what comes after it is received. It is called before t is used.
func (t *Tracker) OnRemovals(f func(*room.Removals)) { t.removals = f }

// CutIf closes the connection at once, with all its sessions, if the member at its other
// end is one that was removed: any member may host a tracker.
func (t *Tracker) CutIf(removed func(piece.NodeID) bool) {
	if id, ok := t.Member(); ok && removed(id) {
		_ = t.conn.Load().NetConn().Close() // net/http meets the end of it
	}
}

// Member returns which member is at the other end of the connection, once there is one.
func (t *Tracker) Member() (id piece.NodeID, ok bool) {
	conn := t.conn.Load()
	if conn == nil {
		return id, false
	}
	id, _, _, err := room.Member(conn.ConnectionState())
	return id, err == nil
}

// Cut closes the connection at once, with all its sessions; the next call makes another.
func (t *Tracker) Cut() { t.CutIf(func(piece.NodeID) bool { return true }) }

// Standing asks the tracker at addr whether this machine was removed from a room, after
// a refusal that does not say so: TLS has one alert for all who are no members. cfg pins
// the room's authority (room.Room.JoinTLS), csr is a certificate request of this
// machine's key. It returns the list of removals that the key is on, else nil.
func Standing(ctx context.Context, addr string, cfg *tls.Config, dial DialFunc, id [32]byte, csr []byte) (*room.Removals, error) {
	client, done, err := newJoinClient(addr, cfg, dial)
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := client.Standing(ctx, connect.NewRequest(&roomv1.StandingRequest{Room: id[:], Csr: csr}))
	if err != nil {
		return nil, fmt.Errorf("ask %s whether this machine was removed: %w", addr, FromWire(err))
	}
	l, err := DecodeRemovals(answer.Msg.GetRemovals())
	if err != nil {
		return nil, fmt.Errorf("ask %s whether this machine was removed: %w", addr, err)
	}
	return l, nil
}
