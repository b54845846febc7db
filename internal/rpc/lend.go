package rpc

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"connectrpc.com/connect"

	"dragonload/internal/piece"
	poolv1 "dragonload/internal/rpc/gen/dragonload/pool/v1"
	"dragonload/internal/swarm"
)

// MaxSource bounds a URL that is told to those who lend, in bytes.
const MaxSource = 4096

// CheckSource checks a URL that is told to those who lend.
func CheckSource(source string) error {
	u, err := url.Parse(source)
	switch {
	case len(source) > MaxSource:
		return fmt.Errorf("URL of %d bytes", len(source))
	case err != nil, u.Host == "", u.Scheme != "http" && u.Scheme != "https", u.User != nil, u.Fragment != "":
		return errors.New("not a plain http or https URL") // the cause would quote it
	}
	return nil
}

// Offer is a pool of the room that welcomes help, or no longer does.
type Offer struct {
	Pool      swarm.PoolID
	Withdrawn bool // only Pool is set
	URL       string
	Asker     piece.NodeID // who told the URL
}

// EncodeOffer returns the response that carries o.
func EncodeOffer(o Offer) *poolv1.LendResponse {
	if o.Withdrawn {
		return &poolv1.LendResponse{Message: &poolv1.LendResponse_Withdrawn{Withdrawn: &poolv1.Withdrawn{Pool: o.Pool[:]}}}
	}
	return &poolv1.LendResponse{Message: &poolv1.LendResponse_Offer{Offer: &poolv1.Offer{Pool: o.Pool[:], Url: o.URL, Asker: o.Asker[:]}}}
}

func decodeOffer(x *poolv1.LendResponse) (o Offer, err error) {
	switch x := x.GetMessage().(type) {
	case *poolv1.LendResponse_Withdrawn:
		o.Withdrawn = true
		o.Pool, err = decodeID(x.Withdrawn.GetPool())
	case *poolv1.LendResponse_Offer:
		if o.Pool, err = decodeID(x.Offer.GetPool()); err == nil {
			o.Asker, err = decodeID(x.Offer.GetAsker())
		}
		if o.URL = x.Offer.GetUrl(); err == nil {
			err = CheckSource(o.URL)
		}
	default:
		err = errors.New("no message that is known here")
	}
	if err != nil {
		return Offer{}, malformed("offer", err)
	}
	return o, nil
}

// Lend tells the tracker that this member lends its line in the room, until ctx ends or
// the tracker ends it, which is the error. take is called with each offer; ready once
// before, when the tracker has answered, which may take 10 s.
func (t *Tracker) Lend(ctx context.Context, ready func(), take func(Offer)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(callTimeout, func() { cancel(context.DeadlineExceeded) })
	defer late.Stop()
	stream, err := t.pools.Lend(ctx, connect.NewRequest(&poolv1.LendRequest{}))
	if err != nil {
		return fmt.Errorf("lend to tracker %s: %w", t.addr, t.explain(ctx, FromWire(err)))
	}
	defer func() { _ = stream.Close() }() // the stream is over; there is nobody to tell
	for first := true; stream.Receive(); first = false {
		if first {
			if stream.Msg().GetMessage() != nil {
				return malformed("first response", errors.New("not empty"))
			}
			late.Stop()
			ready()
			continue
		}
		offer, err := decodeOffer(stream.Msg())
		if err != nil {
			return err
		}
		take(offer)
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err := stream.Err(); err != nil {
		return fmt.Errorf("lend to tracker %s: %w", t.addr, t.explain(ctx, FromWire(err)))
	}
	return fmt.Errorf("lend to tracker %s: it ended the stream", t.addr)
}
