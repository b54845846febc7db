package rpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"

	"connectrpc.com/connect"

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

// Membership is what makes a member: its certificate, and where trackers are. Whether
// the certificates are good is the caller's to check.
type Membership struct {
	Chain    []byte   // PEM: the member's certificate, then the authority's
	Trackers []string // host:port
}

func decodeMembership(chain []byte, trackers []string) (Membership, error) {
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
	return Membership{Chain: chain, Trackers: trackers}, nil
}

// Join uses an invite at one address. cfg is the invite's own configuration, which pins
// the room's authority. It asks once; trying other addresses and waiting is the
// caller's. A Refusal with Access means that no other address will do either.
func Join(ctx context.Context, addr string, cfg *tls.Config, dial DialFunc, r JoinRequest) (Membership, error) {
	if err := CheckAddr(addr); err != nil {
		return Membership{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	transport := &http.Transport{
		DialTLSContext:     dialTLS(dial, cfg),
		Protocols:          &protocols,
		DisableKeepAlives:  true,
		DisableCompression: true,
	}
	defer transport.CloseIdleConnections()
	client := roomv1connect.NewJoinServiceClient(
		&http.Client{Transport: transport, CheckRedirect: noRedirect}, "https://"+addr, clientOptions())
	answer, err := client.Join(ctx, connect.NewRequest(&roomv1.JoinRequest{
		Room:  r.Room[:],
		Token: r.Token,
		Csr:   r.CSR,
	}))
	if err != nil {
		return Membership{}, fmt.Errorf("join at %s: %w", addr, FromWire(err))
	}
	m, err := decodeMembership(answer.Msg.GetChain(), answer.Msg.GetTrackers())
	if err != nil {
		return Membership{}, fmt.Errorf("join at %s: %w", addr, err)
	}
	return m, nil
}
