package etcdstate

import (
	"context"

	"dragonload/internal/piece"
)

// EndLease ends the lease of what a member publishes, as its time does.
func (s *State) EndLease(ctx context.Context, id [32]byte, node piece.NodeID) error {
	_, err := s.forget(ctx, id, node, func(published) bool { return true })
	return err
}
