package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"dragonload/internal/peer"
	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
)

// Package peer carries lists of removals without reading them; their bounds are one.
const _, _ = uint(peer.MaxRemovals - room.MaxRemovalsSize), uint(room.MaxRemovalsSize - peer.MaxRemovals)

const (
	// minIDDigits is how many digits of an id must be given for it to be one.
	minIDDigits = 4
	// standingWithin bounds asking why this node is refused.
	standingWithin = 5 * time.Second
)

// shutOut acts on a room's new list of removals: it is kept, told to who is connected,
// and who is on it loses every connection.
func (n *Node) shutOut(r *room.Room) error {
	n.mu.Lock()
	m, data := n.members[r.ID], n.data
	n.mu.Unlock()
	if data != nil {
		for _, one := range r.Removals.List {
			data.Cut(r.ID, one.Key)
		}
	}
	if m != nil {
		m.shutOut(r.Removals)
	}
	err := n.opts.Rooms.SaveRemovals(r)
	if err != nil {
		n.log.Error("a removal is not durable on this machine", "room", r.Name, "err", err)
	}
	return err
}

// shutOut cuts the members on a list, and passes it on.
func (m *membership) shutOut(list *room.Removals) {
	m.mu.Lock()
	defer m.mu.Unlock()
	told := list.Encode()
	for id, l := range m.links {
		if l.stream != nil {
			// Also to who is on it: the signature makes it believe that it is.
			l.stream.Removals(told)
		}
		if !list.Has(id) {
			continue
		}
		delete(m.links, id)
		for pool, w := range l.pools {
			m.laneDown(l, pool, w)
		}
		l.end()
	}
	for _, t := range slices.Concat(m.trackers, m.foundTrackers, m.replicas) {
		t.CutIf(list.Has)
	}
	for id := range m.addrs {
		if list.Has(id) {
			delete(m.addrs, id)
			delete(m.proven, id)
		}
	}
	for _, d := range m.pools {
		if list.Has(m.self) {
			d.abort(errRemoved)
			continue
		}
		for _, one := range list.List {
			d.peers.Cut(one.Key)
		}
		d.inbox.do(func() {
			if d.session != nil && d.session.live != nil {
				d.session.live.SendRemovals(list)
			}
		})
	}
}

// errRemoved ends the downloads of a member that was shut out.
var errRemoved = problem("removed", ExitRoom, rpc.ErrRemoved)

// removals returns the room's list as it is known now.
func (m *membership) removals() *room.Removals {
	if r, ok := m.node.opts.Keyring.Get(m.id); ok {
		return r.Removals
	}
	return nil
}

// hear takes in a list that a tracker or a neighbour has told; the watchers of the
// keyring, this node among them, act on it. An error means that what was told is none.
func (m *membership) hear(list *room.Removals) error {
	if list.Room != m.id {
		return errors.New("list of removals of another room")
	}
	news, err := m.node.opts.Keyring.Learn(list)
	if news {
		m.node.log.Info("members were removed", "room", m.name, "epoch", list.Epoch)
		return nil // shutOut has told what could not be done
	}
	return err
}

// heard is hear for what came over a stream.
func (m *membership) heard(raw []byte) error {
	list, err := room.ParseRemovals(raw)
	if err != nil {
		return err
	}
	return m.hear(list)
}

// whyRefused finds out whether this node was removed, after a tracker has refused it as
// one that is no member: TLS does not tell why. The list that says so is kept.
func (m *membership) whyRefused(ctx context.Context, addr string, refused *Error) *Error {
	r, ok := m.node.opts.Keyring.Get(m.id)
	if !ok {
		return refused
	}
	ctx, cancel := context.WithTimeout(ctx, standingWithin)
	defer cancel()
	csr, err := r.Request()
	if err != nil {
		return refused
	}
	list, err := rpc.Standing(ctx, addr, r.JoinTLS(), nil, m.id, csr)
	if err == nil && list != nil {
		err = m.hear(list)
	}
	if err != nil {
		m.node.log.Debug("why this node is refused is not known", "room", m.name, "err", err)
	}
	if m.removals().Has(m.self) {
		return errRemoved
	}
	return refused
}

// RemoveMember shuts out of a room made here whom a word means: a name, an id, or the
// beginning of one. It does nothing unless that is one member; Removed of that one says
// that it was so before. It returns when the removal is durable.
func (n *Node) RemoveMember(ctx context.Context, name, word string) (matches []rpc.Member, epoch uint64, err error) {
	if n.opts.Rooms == nil || n.opts.Keyring == nil {
		return nil, 0, rpc.ErrNoAuthority
	}
	r, err := n.opts.Rooms.Get(name)
	if err != nil {
		return nil, 0, err
	}
	if !r.Created || n.opts.Tracker == nil {
		return nil, 0, rpc.ErrNoAuthority
	}
	n.opts.Keyring.Add(r)
	known, err := n.opts.Tracker.Members(ctx, r.ID)
	if err != nil {
		return nil, 0, err
	}
	if matches = meant(known, word); len(matches) != 1 {
		return matches, 0, nil
	}
	list, err := n.opts.Keyring.ShutOut(r.ID, matches[0].ID)
	switch {
	case errors.Is(err, room.ErrCreator):
		return nil, 0, rpc.ErrCreator
	case errors.Is(err, room.ErrManyRemoved):
		return nil, 0, rpc.ErrManyRemoved
	case err != nil:
		return nil, 0, fmt.Errorf("remove %s: %w", matches[0].ID, err)
	}
	return matches, list.Epoch, nil
}

// meant returns the members that a word means. A name means those who are members
// still, if any is.
func meant(known []rpc.Member, word string) []rpc.Member {
	digits := strings.ToLower(word)
	var named, gone, byID []rpc.Member
	for _, m := range known {
		id := hex.EncodeToString(m.ID[:])
		switch {
		case id == digits:
			return []rpc.Member{m}
		case m.Name == word && m.Removed:
			gone = append(gone, m)
		case m.Name == word:
			named = append(named, m)
		case len(digits) >= minIDDigits && strings.HasPrefix(id, digits):
			byID = append(byID, m)
		}
	}
	if raw, err := hex.DecodeString(digits); err == nil && len(raw) == len(piece.NodeID{}) {
		return []rpc.Member{{ID: piece.NodeID(raw)}} // before it ever comes
	}
	if all := append(named, byID...); len(all) > 0 {
		return all
	}
	return gone
}

// isRemoved reports whether a peer was shut out.
func (m *membership) isRemoved(id piece.NodeID) bool { return m.node.opts.Keyring.Removed(m.id, id) }
