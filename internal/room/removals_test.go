package room

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"dragonload/internal/piece"
)

// The vector of docs/formats.md.
const (
	vectorSeed = "0101010101010101010101010101010101010101010101010101010101010101"
	vectorList = "01" +
		"0202020202020202020202020202020202020202020202020202020202020202" +
		"0000000000000003" + "00000002" +
		"0303030303030303030303030303030303030303030303030303030303030303" + "0000000065920080" +
		"0404040404040404040404040404040404040404040404040404040404040404" + "0000000065920081"
	vectorSignature = "0579b77441f5d5cd565ae0796e0352984fe453316c56c33732a20044565e84cf" +
		"6134096e543152e4196240d92548c4dfd7ae19da0d3da928338b6ff90319f205"
)

func vector(t testing.TB) (a *Authority, list []byte) {
	t.Helper()
	seed, err := hex.DecodeString(vectorSeed)
	if err != nil {
		t.Fatal(err)
	}
	a = &Authority{
		ID:   [32]byte(bytes.Repeat([]byte{2}, 32)),
		Cert: &x509.Certificate{PublicKey: ed25519.NewKeyFromSeed(seed).Public()},
	}
	if list, err = hex.DecodeString(vectorList + vectorSignature); err != nil {
		t.Fatal(err)
	}
	return a, list
}

func TestRemovals_encodeAsDocumented(t *testing.T) {
	t.Parallel()
	a, data := vector(t)
	l, err := ParseRemovals(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.CheckRemovals(l); err != nil {
		t.Error(err)
	}
	three, four := piece.NodeID(bytes.Repeat([]byte{3}, 32)), piece.NodeID(bytes.Repeat([]byte{4}, 32))
	if l.Epoch != 3 || !slices.Equal(l.List, []Removal{{three, 1704067200}, {four, 1704067201}}) {
		t.Errorf("read %+v", l)
	}
	if !l.Has(three) || !l.Has(four) || l.Has(piece.NodeID{3}) || (*Removals)(nil).Has(three) {
		t.Error("Has tells the wrong keys")
	}
	if !bytes.Equal(l.Encode(), data) {
		t.Errorf("encoded as %x", l.Encode())
	}
}

// Whatever is changed, added or cut is noticed.
func TestRemovals_refuseEveryChange(t *testing.T) {
	t.Parallel()
	a, data := vector(t)
	good := func(data []byte) bool {
		l, err := ParseRemovals(data)
		return err == nil && a.CheckRemovals(l) == nil
	}
	for at := range data {
		for _, bit := range []byte{1, 0x80} {
			changed := bytes.Clone(data)
			changed[at] ^= bit
			if good(changed) {
				t.Errorf("byte %d changed by %x is accepted", at, bit)
			}
		}
	}
	for _, other := range [][]byte{nil, data[:len(data)-1], append(bytes.Clone(data), 0), bytes.Repeat(data, 2)} {
		if good(other) {
			t.Errorf("%d bytes are accepted", len(other))
		}
	}
}

func TestParseRemovals_boundsAndOrder(t *testing.T) {
	t.Parallel()
	list := func(epoch uint64, entries ...Removal) []byte {
		return (&Removals{Epoch: epoch, List: entries}).Encode()
	}
	one, two := Removal{Key: piece.NodeID{1}}, Removal{Key: piece.NodeID{2}}
	for name, data := range map[string][]byte{
		"epoch 0":      list(0, one),
		"epoch 2^63":   list(1<<63, one),
		"out of order": list(1, two, one),
		"twice":        list(1, one, one),
		"before 1970":  list(1, Removal{At: -1}),
		"far future":   list(1, Removal{At: 1<<40 + 1}),
		"too many":     list(1, make([]Removal, MaxRemovals+1)...),
	} {
		if _, err := ParseRemovals(data); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := ParseRemovals(list(1)); err != nil {
		t.Errorf("an empty list: %v", err)
	}
}

// Only what Encode gives is accepted, and a list that another key signed is not.
func FuzzParseRemovals(f *testing.F) {
	a, data := vector(f)
	f.Add(data)
	f.Add((&Removals{Epoch: 1}).Encode())
	f.Add(data[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseRemovals(b)
		if err != nil {
			return
		}
		if !bytes.Equal(l.Encode(), b) {
			t.Errorf("%x is encoded again as %x", b, l.Encode())
		}
		if !bytes.Equal(b, data) && a.CheckRemovals(l) == nil {
			t.Errorf("accepted the signature of %x", b)
		}
	})
}

func TestShutOut_isForTheAuthorityAlone(t *testing.T) {
	t.Parallel()
	f := place(t)
	lab := create(t, f, "lab")
	member := join(t, lab, newRegister())
	own, _ := member.Member()
	if _, err := keyring(member).ShutOut(lab.ID, piece.NodeID{1}); !errors.Is(err, ErrNoAuthority) {
		t.Errorf("by a member: %v", err)
	}
	k := keyring(lab)
	if _, err := k.ShutOut(lab.ID, f.Identity().ID); !errors.Is(err, ErrCreator) {
		t.Errorf("of the creator: %v", err)
	}
	if _, err := k.ShutOut([32]byte{1}, own); !errors.Is(err, ErrNoRoom) {
		t.Errorf("of another room: %v", err)
	}
	first, err := k.ShutOut(lab.ID, own)
	if err != nil {
		t.Fatal(err)
	}
	again, err := k.ShutOut(lab.ID, own)
	if err != nil || !again.Equal(first) || first.Epoch != 1 {
		t.Errorf("again: %+v, %v", again, err)
	}
	second, err := k.ShutOut(lab.ID, piece.NodeID{1})
	if err != nil || second.Epoch != 2 || !second.Has(own) || !second.Has(piece.NodeID{1}) {
		t.Errorf("the next: %+v, %v", second, err)
	}
}

// A member that hears of a newer list stores and keeps it, and no older or foreign one.
func TestLearn_theNewestListHolds(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	member := join(t, lab, newRegister())
	creator := keyring(lab)
	first, err := creator.ShutOut(lab.ID, piece.NodeID{1})
	if err != nil {
		t.Fatal(err)
	}
	second, err := creator.ShutOut(lab.ID, piece.NodeID{2})
	if err != nil {
		t.Fatal(err)
	}

	k := keyring(member)
	var heard []uint64
	k.Watch(func(r *Room) error {
		heard = append(heard, r.Removals.Epoch)
		return nil
	})
	forged := *second
	forged.Epoch = 7
	if news, err := k.Learn(&forged); news || err == nil {
		t.Errorf("forged list: %v, %v", news, err)
	}
	for _, c := range []struct {
		list *Removals
		news bool
	}{{first, true}, {first, false}, {second, true}, {first, false}} {
		if news, err := k.Learn(c.list); news != c.news || err != nil {
			t.Errorf("epoch %d: news %v, %v", c.list.Epoch, news, err)
		}
	}
	k.Add(member) // a renewed certificate, say, read when nobody had been removed
	if !slices.Equal(heard, []uint64{1, 2, 2}) {
		t.Errorf("watchers heard of epochs %v", heard)
	}
	for n, want := range map[byte]bool{1: true, 2: true, 3: false} {
		if k.Removed(lab.ID, piece.NodeID{n}) != want {
			t.Errorf("key %d: removed is not %v", n, want)
		}
	}
	if news, err := k.Learn(&Removals{Room: [32]byte{9}, Epoch: 1}); news || !errors.Is(err, ErrNoRoom) {
		t.Errorf("list of a room that it is not in: %v, %v", news, err)
	}
}

// The authority's machine was set back to an old backup: it learns the removals that it
// has forgotten from its members' lists, and those that it made again in the meantime
// stay too.
func TestLearn_authorityFromABackupSignsBothLists(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	before := keyring(lab)
	held, err := before.ShutOut(lab.ID, piece.NodeID{1})
	if err != nil {
		t.Fatal(err)
	}

	restored := keyring(lab) // lab knows of no removal
	again, err := restored.ShutOut(lab.ID, piece.NodeID{2})
	if err != nil || again.Epoch != held.Epoch {
		t.Fatal(again, err)
	}
	if news, err := restored.Learn(held); !news || err != nil {
		t.Fatalf("the members' list: %v, %v", news, err)
	}
	r, _ := restored.Get(lab.ID)
	if r.Removals.Epoch != 2 || !r.Removals.Has(piece.NodeID{1}) || !r.Removals.Has(piece.NodeID{2}) {
		t.Errorf("the list is %+v", r.Removals)
	}
	if news, err := before.Learn(r.Removals); !news || err != nil {
		t.Errorf("at a member: %v, %v", news, err)
	}
	if news, err := restored.Learn(held); news || err != nil {
		t.Errorf("once more: %v, %v", news, err)
	}
}

func TestSignRemovals_dropsOnlyTheExpiredAndOnlyIfFull(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	now := time.Now()
	full := &Removals{Room: lab.ID, Epoch: 5}
	for n := range MaxRemovals {
		full.List = append(full.List, Removal{Key: piece.NodeID{byte(n >> 8), byte(n)}, At: now.Add(-CertLifetime).Unix()})
	}
	lab.Removals = full
	if _, err := lab.shutOut(piece.NodeID{0xff, 1}, now); !errors.Is(err, ErrManyRemoved) {
		t.Errorf("all could still show a certificate: %v", err)
	}
	// A day after the last certificate that the oldest can have.
	full.List[7].At = now.Add(-keepRemoved - 2*time.Second).Unix()
	full.List[8].At = now.Add(-keepRemoved - time.Second - time.Second/2).Unix()
	next, err := lab.shutOut(piece.NodeID{0xff, 1}, now)
	if err != nil {
		t.Fatal(err)
	}
	if len(next.List) != MaxRemovals || next.Has(full.List[7].Key) || !next.Has(full.List[8].Key) || !next.Has(piece.NodeID{0xff, 1}) {
		t.Errorf("%d members are on it", len(next.List))
	}
	if parsed, err := ParseRemovals(next.Encode()); err != nil || lab.Authority.CheckRemovals(parsed) != nil {
		t.Errorf("the longest list: %v", err)
	}
}

func TestFolder_keepsRemovals(t *testing.T) {
	t.Parallel()
	f := place(t)
	lab := create(t, f, "lab")
	k := keyring(lab)
	k.Watch(f.SaveRemovals)
	list, err := k.ShutOut(lab.ID, piece.NodeID{1})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(f.dir, "lab", removalsFile)
	info, err := os.Stat(path)
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	r, err := reopen(t, f).Get("lab")
	if err != nil || !r.Removals.Equal(list) {
		t.Fatalf("read %+v, %v", r.Removals, err)
	}
	// An older one does not take its place, and a damaged one is not believed.
	if err := f.SaveRemovals(lab); err != nil {
		t.Error(err)
	}
	if r, err := f.Get("lab"); err != nil || !r.Removals.Equal(list) {
		t.Errorf("after an older one: %+v, %v", r.Removals, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[50] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Get("lab"); err == nil || !strings.Contains(err.Error(), "delete it") {
		t.Errorf("a damaged list: %v", err)
	}
	r.Removals = list
	if err := f.SaveRemovals(r); err != nil {
		t.Error(err)
	}
	if _, err := f.Get("lab"); err != nil {
		t.Errorf("after a good one: %v", err)
	}
}

func TestValid_tellsARemovedMember(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	member := join(t, lab, newRegister())
	own, _ := member.Member()
	list, err := keyring(lab).ShutOut(lab.ID, own)
	if err != nil {
		t.Fatal(err)
	}
	k := keyring(member)
	if _, err := k.Learn(list); err != nil {
		t.Fatal(err)
	}
	r, _ := k.Get(lab.ID)
	if err := r.Valid(time.Now()); !errors.Is(err, ErrRemoved) {
		t.Errorf("%v, want ErrRemoved", err)
	}
}

// What the list says holds even if the tracker's own state has forgotten it.
func TestAdmit_andRenewRefuseWhoIsOnTheList(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	i, f := invite(t, lab, 0, time.Hour), place(t)
	k := keyring(lab)
	if _, err := k.ShutOut(lab.ID, f.Identity().ID); err != nil {
		t.Fatal(err)
	}
	member := join(t, lab, newRegister())
	own, _ := member.Member()
	if _, err := k.ShutOut(lab.ID, own); err != nil {
		t.Fatal(err)
	}
	request, err := member.Request()
	if err != nil {
		t.Fatal(err)
	}
	now, _ := k.Get(lab.ID)
	if _, err := now.Admit(t.Context(), i.Token, csr(t, i, f), time.Now(), newRegister()); !errors.Is(err, ErrRemoved) {
		t.Errorf("admit: %v, want ErrRemoved", err)
	}
	if _, err := now.Renew(request, member.Cert.Leaf, time.Now()); !errors.Is(err, ErrRemoved) {
		t.Errorf("renew: %v, want ErrRemoved", err)
	}
}

// A certificate that is not valid now may be in order and the clock wrong: both times
// are told, and by how much they differ.
func TestVerify_namesTheClock(t *testing.T) {
	t.Parallel()
	lab := create(t, place(t), "lab")
	leaf := lab.Cert.Leaf
	const day = 24 * time.Hour
	for _, c := range []struct {
		now  time.Time
		want string
	}{
		{leaf.NotAfter.Add(3*365*day + time.Hour), "ended on " + leaf.NotAfter.UTC().Format(time.DateTime) + " UTC"},
		{leaf.NotAfter.Add(3*365*day + time.Hour), "differs by 3 years"},
		{leaf.NotBefore.Add(-10 * day), "begins on " + leaf.NotBefore.UTC().Format(time.DateTime) + " UTC"},
		{leaf.NotBefore.Add(-10 * day), "clock says " + leaf.NotBefore.Add(-10*day).UTC().Format(time.DateTime) + " UTC"},
		{leaf.NotBefore.Add(-10 * day), "differs by 10 days"},
		{leaf.NotBefore.Add(-7 * time.Minute), "differs by 7 minutes"},
		{leaf.NotAfter.Add(25 * time.Hour), "differs by 25 hours"},
	} {
		_, err := lab.Authority.verify(leaf, c.now)
		if !errors.Is(err, ErrClock) || !errors.Is(err, ErrNotMember) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("at %s: %v, want %q in it", c.now, err, c.want)
		}
	}
}
