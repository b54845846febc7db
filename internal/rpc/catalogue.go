package rpc

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"dragonload/internal/catalogue"
	"dragonload/internal/piece"
	"dragonload/internal/room"
	roomv1 "dragonload/internal/rpc/gen/dragonload/room/v1"
)

// pageFound is how many results of a search go into one message.
const pageFound = 1000

// Publish tells the tracker of a change of what this member holds, and where members
// reach it: addr may lack the host, which the tracker sees. ErrPublishAnew,
// ErrCatalogueFull, ErrUnreachable.
func (t *Tracker) Publish(ctx context.Context, addr string, b catalogue.Batch) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	x := &roomv1.PublishRequest{Addr: addr, From: b.From, To: b.To}
	for i := range b.Add {
		x.Add = append(x.Add, encodeEntry(&b.Add[i]))
	}
	for _, m := range b.Remove {
		x.Remove = append(x.Remove, append([]byte(nil), m[:]...))
	}
	if _, err := t.shelf.Publish(ctx, connect.NewRequest(x)); err != nil {
		return fmt.Errorf("publish at tracker %s: %w", t.addr, t.explain(ctx, FromWire(err)))
	}
	return nil
}

// RenewLease tells the tracker that this member is there still. ErrPublishAnew if it does
// not know what the member has published up to version.
func (t *Tracker) RenewLease(ctx context.Context, version uint64) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := t.shelf.RenewLease(ctx, connect.NewRequest(&roomv1.RenewLeaseRequest{Version: version})); err != nil {
		return fmt.Errorf("renew what is published at tracker %s: %w", t.addr, t.explain(ctx, FromWire(err)))
	}
	return nil
}

// Withdraw takes out all that this member publishes.
func (t *Tracker) Withdraw(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := t.shelf.Withdraw(ctx, connect.NewRequest(&roomv1.WithdrawRequest{})); err != nil {
		return fmt.Errorf("withdraw what is published at tracker %s: %w", t.addr, FromWire(err))
	}
	return nil
}

// Search asks the tracker for what the room's members hold.
func (t *Tracker) Search(ctx context.Context, q catalogue.Query) (catalogue.Page, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	page, err := t.search(ctx, q)
	if err != nil {
		return catalogue.Page{}, fmt.Errorf("search at tracker %s: %w", t.addr, err)
	}
	return page, nil
}

func (t *Tracker) search(ctx context.Context, q catalogue.Query) (page catalogue.Page, err error) {
	if err := q.Validate(); err != nil {
		return page, err
	}
	if q.Limit <= 0 || q.Limit > catalogue.MaxEntries {
		q.Limit = catalogue.MaxEntries
	}
	x := &roomv1.SearchRequest{Words: q.Words, Name: q.Name, Id: q.ID, Limit: uint32(q.Limit)}
	stream, err := t.shelf.Search(ctx, connect.NewRequest(x))
	if err != nil {
		return page, t.explain(ctx, FromWire(err))
	}
	defer func() { _ = stream.Close() }() // it is over; there is nobody to tell
	for stream.Receive() {
		if len(page.Found)+len(stream.Msg().GetFound()) > q.Limit {
			return page, malformed("page", errors.New("more than was asked for"))
		}
		for _, f := range stream.Msg().GetFound() {
			found, err := decodeFound(f)
			if err != nil {
				return page, malformed("found", err)
			}
			page.Found = append(page.Found, found)
		}
		page.More = stream.Msg().GetMore()
	}
	if err := stream.Err(); err != nil {
		return page, t.explain(ctx, FromWire(err))
	}
	return page, nil
}

// Holders asks the tracker who holds a manifest: at most limit members (0:
// catalogue.MaxHandout), in the order in which they are best asked. A holder without an
// address is the machine of this tracker.
func (t *Tracker) Holders(ctx context.Context, manifest [32]byte, limit int) ([]catalogue.Holder, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	x := &roomv1.HoldersRequest{Manifest: manifest[:], Limit: uint32(max(limit, 0))}
	answer, err := t.shelf.Holders(ctx, connect.NewRequest(x))
	if err != nil {
		return nil, fmt.Errorf("ask tracker %s for holders: %w", t.addr, t.explain(ctx, FromWire(err)))
	}
	holders, err := decodeHolders(answer.Msg.GetHolders(), catalogue.MaxHandout)
	if err != nil {
		return nil, fmt.Errorf("ask tracker %s for holders: %w", t.addr, malformed("holders", err))
	}
	for i := range holders {
		if holders[i].Addr == "" {
			holders[i].Addr = t.addr
		}
	}
	return holders, nil
}

// ReportUnreachable tells the tracker of a holder that does not answer this member; the
// tracker tries it at once, which takes some seconds. gone means that the tracker names
// it no more.
func (t *Tracker) ReportUnreachable(ctx context.Context, holder piece.NodeID) (gone bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := t.shelf.ReportUnreachable(ctx, connect.NewRequest(&roomv1.ReportUnreachableRequest{Holder: holder[:]}))
	if err != nil {
		return false, fmt.Errorf("report to tracker %s: %w", t.addr, t.explain(ctx, FromWire(err)))
	}
	return answer.Msg.GetGone(), nil
}

func encodeEntry(e *catalogue.Entry) *roomv1.Entry {
	return &roomv1.Entry{
		Manifest: append([]byte(nil), e.Manifest[:]...), Name: e.Name, Folder: e.Folder, Size: uint64(e.Size), Files: e.Files,
		Names: e.Names, Private: e.Private, Partial: e.Partial, Received: e.Received,
	}
}

// decodeEntry reads an entry, which its user validates.
func decodeEntry(x *roomv1.Entry) (e catalogue.Entry, err error) {
	e = catalogue.Entry{
		Name: x.GetName(), Folder: x.GetFolder(), Files: x.GetFiles(), Names: x.GetNames(), Private: x.GetPrivate(), Partial: x.GetPartial(),
		Received: x.GetReceived(),
	}
	if e.Manifest, err = decodeID(x.GetManifest()); err != nil {
		return e, err
	}
	e.Size, err = decodeBytes(x.GetSize())
	return e, err
}

// DecodeBatch reads and validates what a member publishes.
func DecodeBatch(x *roomv1.PublishRequest) (b catalogue.Batch, err error) {
	b.From, b.To = x.GetFrom(), x.GetTo()
	if len(x.GetAdd()) > catalogue.MaxBatch || len(x.GetRemove()) > catalogue.MaxBatch {
		return b, malformed("batch", errors.New("too much at once"))
	}
	for _, one := range x.GetAdd() {
		e, err := decodeEntry(one)
		if err != nil {
			return b, malformed("entry", err)
		}
		b.Add = append(b.Add, e)
	}
	for _, raw := range x.GetRemove() {
		manifest, err := decodeID(raw)
		if err != nil {
			return b, malformed("manifest", err)
		}
		b.Remove = append(b.Remove, manifest)
	}
	if err := b.Validate(); err != nil {
		return b, malformed("batch", err)
	}
	return b, nil
}

// DecodeQuery reads and validates what a member searches.
func DecodeQuery(x *roomv1.SearchRequest) (q catalogue.Query, err error) {
	q = catalogue.Query{Words: x.GetWords(), Name: x.GetName(), ID: x.GetId(), Limit: int(min(x.GetLimit(), catalogue.MaxEntries))}
	if err = q.Validate(); err != nil {
		return q, malformed("search", err)
	}
	return q, nil
}

// EncodePage returns the messages that carry a page: at least one.
func EncodePage(p catalogue.Page) []*roomv1.SearchResponse {
	var messages []*roomv1.SearchResponse
	for {
		n := min(len(p.Found), pageFound)
		x := &roomv1.SearchResponse{}
		for _, f := range p.Found[:n] {
			found := &roomv1.Found{Entry: encodeEntry(f.Entry), Holders: uint32(f.Holders), Whole: uint32(f.Whole)}
			found.Entry.Received = f.Received
			for _, h := range f.By {
				found.By = append(found.By, &roomv1.Holder{Id: append([]byte(nil), h.ID[:]...), Number: h.Number, Name: h.Name})
			}
			x.Found = append(x.Found, found)
		}
		messages = append(messages, x)
		if p.Found = p.Found[n:]; len(p.Found) == 0 {
			x.More = p.More
			return messages
		}
	}
}

func decodeFound(x *roomv1.Found) (f catalogue.Found, err error) {
	e, err := decodeEntry(x.GetEntry())
	if err == nil {
		err = e.Validate()
	}
	if err != nil {
		return f, err
	}
	holders, err := decodeHolders(x.GetBy(), catalogue.MaxNamed)
	if err != nil {
		return f, err
	}
	received := e.Received
	e.Names, e.Partial, e.Received = nil, false, false
	f = catalogue.Found{Entry: &e, Holders: int(x.GetHolders()), Whole: int(x.GetWhole()), Received: received}
	if f.Holders < 1 || f.Holders > catalogue.MaxHolders || f.Whole > f.Holders {
		return f, fmt.Errorf("%d holders, %d of all of it", f.Holders, f.Whole)
	}
	for i := range holders {
		f.By = append(f.By, &holders[i])
	}
	return f, nil
}

// EncodeHolders returns the message that names holders.
func EncodeHolders(holders []catalogue.Holder) *roomv1.HoldersResponse {
	x := &roomv1.HoldersResponse{}
	for _, h := range holders {
		x.Holders = append(x.Holders, &roomv1.Holder{Id: append([]byte(nil), h.ID[:]...), Number: h.Number, Name: h.Name, Addr: h.Addr, Partial: h.Partial})
	}
	return x
}

func decodeHolders(list []*roomv1.Holder, most int) ([]catalogue.Holder, error) {
	if len(list) > most {
		return nil, fmt.Errorf("%d holders", len(list))
	}
	holders := make([]catalogue.Holder, 0, len(list))
	for _, x := range list {
		id, err := decodeID(x.GetId())
		if err != nil {
			return nil, err
		}
		if addr := x.GetAddr(); addr != "" {
			if err := CheckAddr(addr); err != nil {
				return nil, err
			}
		}
		holders = append(holders, catalogue.Holder{
			ID: id, Number: x.GetNumber(), Name: room.MemberName(x.GetName()), Addr: x.GetAddr(), Partial: x.GetPartial(),
		})
	}
	return holders, nil
}
