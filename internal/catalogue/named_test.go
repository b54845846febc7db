package catalogue

import (
	"testing"

	"dragonload/internal/piece"
)

func TestFound_Naming(t *testing.T) {
	t.Parallel()
	f := Found{Holders: 3, By: []*Holder{{ID: piece.NodeID{1}, Name: "one"}, {ID: piece.NodeID{2}, Name: "two"}}}
	got := f.Naming([]Holder{{ID: piece.NodeID{2}, Addr: "b:1"}, {ID: piece.NodeID{3}, Addr: "c:1"}})
	if len(got.By) != 3 || got.By[0].Addr != "b:1" || got.By[1].Addr != "c:1" || got.By[2].Name != "one" || len(f.By) != 2 {
		t.Errorf("named %v", got.By)
	}
}
