package rpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"

	"connectrpc.com/connect"

	"dragonload/internal/room"
	roomv1 "dragonload/internal/rpc/gen/dragonload/room/v1"
	"dragonload/internal/rpc/gen/dragonload/room/v1/roomv1connect"
)

// Bounds of what a JoinRequest and its answer may hold, in bytes.
const (
	MaxToken = 256
	MaxCSR   = 4096
	maxChain = 16 << 10
)

// JoinRequest is what a machine shows to become a member.
type JoinRequest struct {
	Room  [32]byte // as the invite names it
	Token []byte   // the invite's; secret
	CSR   []byte   // certificate request, DER, signed by the key that is to be a member
}

// Membership is what makes a member: its certificate, and where trackers are, and who was
// removed. Whether the certificates and the list are good is the caller's to check.
type Membership struct {
	Chain    []byte   // PEM: the member's certificate, then the authority's
	Trackers []string // host:port
	Removals *room.Removals
}

func decodeMembership(chain []byte, trackers []string, removals []byte) (Membership, error) {
	if len(chain) > maxChain {
		return Membership{}, malformed("certificates", fmt.Errorf("%d bytes", len(chain)))
	}
	if len(trackers) > maxTrackers {
		return Membership{}, malformed("trackers", fmt.Errorf("%d of them", len(trackers)))
	}
	for _, a := range trackers {
		if err := CheckAddr(a); err != nil {
			return Membership{}, malformed("trackers", err)
		}
	}
	l, err := DecodeRemovals(removals)
	return Membership{Chain: chain, Trackers: trackers, Removals: l}, err
}

// Join uses an invite at one address. cfg is the invite's own configuration, which pins
// the room's authority. It asks once; trying other addresses and waiting is the
// caller's. A Refusal with Access means that no other address will do either.
func Join(ctx context.Context, addr string, cfg *tls.Config, dial DialFunc, r JoinRequest) (Membership, error) {
	client, done, err := newJoinClient(addr, cfg, dial)
	if err != nil {
		return Membership{}, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := client.Join(ctx, connect.NewRequest(&roomv1.JoinRequest{
		Room:  r.Room[:],
		Token: r.Token,
		Csr:   r.CSR,
	}))
	if err != nil {
		return Membership{}, fmt.Errorf("join at %s: %w", addr, FromWire(err))
	}
	m, err := decodeMembership(answer.Msg.GetChain(), answer.Msg.GetTrackers(), answer.Msg.GetRemovals())
	if err != nil {
		return Membership{}, fmt.Errorf("join at %s: %w", addr, err)
	}
	return m, nil
}

// newJoinClient returns a client for the one service that is open to those who are no
// members; done lets go of its connections.
func newJoinClient(addr string, cfg *tls.Config, dial DialFunc) (client roomv1connect.JoinServiceClient, done func(), err error) {
	if err := CheckAddr(addr); err != nil {
		return nil, nil, err
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	transport := &http.Transport{
		DialTLSContext:     dialTLS(dial, cfg),
		Protocols:          &protocols,
		DisableKeepAlives:  true,
		DisableCompression: true,
	}
	client = roomv1connect.NewJoinServiceClient(
		&http.Client{Transport: transport, CheckRedirect: noRedirect}, "https://"+addr, clientOptions())
	return client, transport.CloseIdleConnections, nil
}
