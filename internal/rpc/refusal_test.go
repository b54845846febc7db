package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"
)

func TestRefusals_keepTheirMeaningAndLeaveTheDetailBehind(t *testing.T) {
	t.Parallel()
	for word, want := range refusals {
		wire := ToWire(fmt.Errorf("open /secret/path: %w", want))
		if strings.Contains(wire.Error(), "secret") {
			t.Errorf("%s: %q crosses", word, wire)
		}
		if got := FromWire(wire); !errors.Is(got, want) {
			t.Errorf("%s: came back as %v", word, got)
		}
	}
}

func TestToWire_ofAnErrorOfOursTellsNothing(t *testing.T) {
	t.Parallel()
	got := ToWire(errors.New("open /secret/path: permission denied"))
	if !errors.Is(FromWire(got), ErrInternal) || strings.Contains(got.Error(), "secret") {
		t.Errorf("got %v", got)
	}
	if connect.CodeOf(ToWire(context.Canceled)) != connect.CodeCanceled || ToWire(nil) != nil {
		t.Error("the end of a call is not an error of its own")
	}
}

func TestFromWire_doesNotBelieveAWordWithAnotherCode(t *testing.T) {
	t.Parallel()
	err := FromWire(connect.NewWireError(connect.CodeUnavailable, errors.New("invite-used")))
	if errors.Is(err, ErrInviteUsed) || strings.Contains(err.Error(), "invite-used") {
		t.Errorf("got %v", err)
	}
}
