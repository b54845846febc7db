package room

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dragonload/internal/piece"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// place makes the rooms folder of one machine.
func place(t testing.TB) *Folder {
	t.Helper()
	f, err := OpenFolder(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func create(t testing.TB, f *Folder, name string) *Room {
	t.Helper()
	r, err := f.Create(name, "tracker.example:4100", f.Identity())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// join brings a new machine into a room.
func join(t testing.TB, creator *Room, a Admitter) *Room {
	t.Helper()
	f := place(t)
	i := invite(t, creator, 0, time.Hour)
	chain, err := creator.Admit(t.Context(), i.Token, csr(t, i, f), time.Now(), a)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Join(i, chain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func invite(t testing.TB, r *Room, uses int, expires time.Duration) Invite {
	t.Helper()
	i, err := r.NewInvite(uses, expires, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func csr(t testing.TB, i Invite, f *Folder) []byte {
	t.Helper()
	der, err := i.Request(f.Identity(), "host")
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// register is an Admitter that counts in memory. Package tracker's cannot be used
// here, since it imports this one.
type register struct {
	mu      sync.Mutex
	used    map[[16]byte]map[piece.NodeID]bool
	removed map[piece.NodeID]bool
	fail    error
}

func newRegister() *register {
	return &register{used: make(map[[16]byte]map[piece.NodeID]bool), removed: make(map[piece.NodeID]bool)}
}

func (r *register) UseInvite(_ context.Context, _ [32]byte, invite [16]byte, key piece.NodeID, uses int, _ time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	if r.removed[key] {
		return ErrRemoved
	}
	if r.used[invite] == nil {
		r.used[invite] = make(map[piece.NodeID]bool)
	}
	if uses > 0 && !r.used[invite][key] && len(r.used[invite]) >= uses {
		return ErrInviteUsed
	}
	r.used[invite][key] = true
	return nil
}

func (r *register) Removed(_ context.Context, _ [32]byte, key piece.NodeID) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.removed[key], nil
}

func (r *register) uses() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, keys := range r.used {
		n += len(keys)
	}
	return n
}

func TestAdmit_joinsAndJoinsAgainWithOneUse(t *testing.T) {
	t.Parallel()
	creator, a, f := create(t, place(t), "lab"), newRegister(), place(t)
	i := invite(t, creator, 1, time.Hour)
	for range 2 {
		chain, err := creator.Admit(t.Context(), i.Token, csr(t, i, f), time.Now(), a)
		if err != nil {
			t.Fatal(err)
		}
		r, err := f.Join(i, chain, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if key, name := r.Member(); key != f.Identity().ID || name != "host" || r.ID != creator.ID || r.Created {
			t.Errorf("joined as %v %q, created %v", key, name, r.Created)
		}
	}
	if a.uses() != 1 {
		t.Errorf("%d uses, want 1", a.uses())
	}
	other := place(t)
	if _, err := creator.Admit(t.Context(), i.Token, csr(t, i, other), time.Now(), a); !errors.Is(err, ErrInviteUsed) {
		t.Errorf("second key: %v, want ErrInviteUsed", err)
	}
}

func TestAdmit_refusesByKindAndSpendsNothing(t *testing.T) {
	t.Parallel()
	f := place(t)
	creator, elsewhere, joiner, a := create(t, f, "lab"), create(t, f, "home"), place(t), newRegister()
	good := invite(t, creator, 1, time.Hour)
	foreign := invite(t, elsewhere, 1, time.Hour)
	good2 := csr(t, good, joiner)
	forged := func(at int) []byte {
		token := append([]byte(nil), good.Token...)
		token[at] ^= 1
		return token
	}
	damaged := append([]byte(nil), good2...)
	damaged[len(damaged)-1] ^= 1
	now := time.Now()
	for _, c := range []struct {
		name  string
		token []byte
		csr   []byte
		now   time.Time
		want  error
	}{
		{"other room", foreign.Token, good2, now, ErrInviteForeign},
		{"longer life", forged(atExpiry + 7), good2, now, ErrInviteBad},
		{"more uses", forged(atUses + 3), good2, now, ErrInviteBad},
		{"other id", forged(atID), good2, now, ErrInviteBad},
		{"other MAC", forged(tokenSize - 1), good2, now, ErrInviteBad},
		{"cut off", good.Token[:tokenSize-1], good2, now, ErrInviteBad},
		{"empty", nil, good2, now, ErrInviteBad},
		{"expired", good.Token, good2, now.Add(time.Hour + time.Second), ErrInviteExpired},
		{"request for another room", good.Token, csr(t, foreign, joiner), now, ErrInviteBad},
		{"request signed wrongly", good.Token, damaged, now, ErrInviteBad},
		{"request of random bytes", good.Token, []byte("GET / HTTP/1.1"), now, ErrInviteBad},
		{"huge request", good.Token, make([]byte, 1<<20), now, ErrInviteBad},
	} {
		if _, err := creator.Admit(t.Context(), c.token, c.csr, c.now, a); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	a.removed[joiner.Identity().ID] = true
	if _, err := creator.Admit(t.Context(), good.Token, good2, now, a); !errors.Is(err, ErrRemoved) {
		t.Errorf("removed: %v", err)
	}
	delete(a.removed, joiner.Identity().ID)
	if a.uses() != 0 {
		t.Errorf("%d uses by refused nodes", a.uses())
	}
	a.fail = errors.New("disk gone")
	if _, err := creator.Admit(t.Context(), good.Token, good2, now, a); !errors.Is(err, a.fail) {
		t.Errorf("not durable: %v, want the error and no certificate", err)
	}
	a.fail = nil
	if _, err := creator.Admit(t.Context(), good.Token, good2, now.Add(time.Hour-time.Second), a); err != nil {
		t.Errorf("a second before the end: %v", err)
	}
}

func TestAdmit_needsTheAuthority(t *testing.T) {
	t.Parallel()
	creator, a := create(t, place(t), "lab"), newRegister()
	member := join(t, creator, a)
	i := invite(t, creator, 0, time.Hour)
	if _, err := member.Admit(t.Context(), i.Token, nil, time.Now(), a); !errors.Is(err, ErrNoAuthority) {
		t.Errorf("Admit: %v", err)
	}
	if _, err := member.NewInvite(0, time.Hour, time.Now()); !errors.Is(err, ErrNoAuthority) {
		t.Errorf("NewInvite: %v", err)
	}
}

func TestRenew_onlyForOneself(t *testing.T) {
	t.Parallel()
	creator, a := create(t, place(t), "lab"), newRegister()
	member, other := join(t, creator, a), join(t, creator, a)
	request, err := member.Request()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := creator.Renew(request, other.Cert.Leaf, time.Now()); !errors.Is(err, ErrNotMember) {
		t.Errorf("for another: %v", err)
	}
	later := time.Now().Add(25 * 24 * time.Hour)
	if !later.After(member.RenewAt()) {
		t.Errorf("not to be renewed before %v", member.RenewAt())
	}
	chain, err := creator.Renew(request, member.Cert.Leaf, later)
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := member.Accept(chain, later)
	if err != nil {
		t.Fatal(err)
	}
	afterwards := time.Now().Add(40 * 24 * time.Hour)
	if err := renewed.Valid(afterwards); err != nil {
		t.Error(err)
	}
	if err := member.Valid(afterwards); !errors.Is(err, ErrNotMember) || !strings.Contains(err.Error(), "invite") {
		t.Errorf("an old certificate after 40 days: %v", err)
	}
	if _, err := other.Accept(chain, later); err == nil {
		t.Error("a member accepted another's certificate")
	}
	stranger := create(t, place(t), "lab")
	if _, err := stranger.Accept(chain, later); !errors.Is(err, ErrNotMember) {
		t.Errorf("certificate of another room: %v", err)
	}
}

func TestPool_isTheSameForTheSameFile(t *testing.T) {
	t.Parallel()
	f := place(t)
	creator := create(t, f, "lab")
	member := join(t, creator, newRegister())
	same := []string{
		"https://example.org/a%20b?x=1",
		"HTTPS://Example.ORG:443/a%20b?x=1",
		"https://user:secret@example.org/a%20b?x=1#part",
		"https://example.org:/a%20b?x=1",
	}
	for _, u := range same {
		if member.Pool(u) != creator.Pool(same[0]) {
			t.Errorf("%s has a pool of its own", u)
		}
	}
	for _, u := range []string{"http://example.org/a%20b?x=1", "https://example.org/a%20b", "https://example.org/A%20b?x=1", "https://example.org:444/a%20b?x=1", "%"} {
		if member.Pool(u) == creator.Pool(same[0]) {
			t.Errorf("%s has the same pool", u)
		}
	}
	if creator.Pool("http://example.org:80") != creator.Pool("http://example.org/") {
		t.Error("no path and / differ")
	}
	home := create(t, f, "home")
	if home.Pool(same[0]) == creator.Pool(same[0]) {
		t.Error("two rooms have the same pool")
	}
	if hash := [32]byte{1}; member.ManifestPool(hash) != creator.ManifestPool(hash) || home.ManifestPool(hash) == creator.ManifestPool(hash) ||
		creator.ManifestPool(hash) == creator.ManifestPool([32]byte{2}) || creator.ManifestPool([32]byte{}) == creator.Pool("") {
		t.Error("the pools of manifests are not each room's own")
	}
}

func TestCheckName_acceptsOnlyFolderNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"lab", "a", "7", "x.y_z-1", strings.Repeat("a", 64), "console"} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", ".", "..", ".lab", "-lab", "Lab", "a/b", `a\b`, "a b", "é", "lab.", "con", "nul.txt", "a\x00", strings.Repeat("a", 65)} {
		if err := CheckName(name); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v, want ErrName", name, err)
		}
	}
}

func TestCheckAddr_acceptsWhatOthersCanReach(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"host:1", "10.0.0.1:4100", "[2001:db8::1]:65535", "a-b.example.org:80", "127.0.0.1:9"} {
		if err := CheckAddr(addr); err != nil {
			t.Error(err)
		}
	}
	for _, addr := range []string{"", "host", ":4100", "host:", "host:0", "host:65536", "host:+1", "host:01", "host:http", "0.0.0.0:1", "[::]:1",
		"[fe80::1%eth0]:1", "a b:1", "a@b:1", "[host]:1", "2001:db8::1:1", "224.0.0.1:1", strings.Repeat("a", 254) + ":1", "host:1/x"} {
		if CheckAddr(addr) == nil {
			t.Errorf("%q was accepted", addr)
		}
	}
}

func TestMemberName_isSafe(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"alice.local": "alice.local", "Bob's Mac": "Bobs-Mac", "": "node", "…": "node", "-x.": "x",
		"a\x1b[31m\n": "a31m", strings.Repeat("y", 300): strings.Repeat("y", 64), strings.Repeat("é", 300): "node",
	} {
		if got := MemberName(host); got != want {
			t.Errorf("%q becomes %q, want %q", host, got, want)
		}
	}
}

func TestPrinting_neverShowsSecrets(t *testing.T) {
	t.Parallel()
	f := place(t)
	r := create(t, f, "lab")
	i := invite(t, r, 1, time.Hour)
	secret := i.String()[strings.IndexByte(i.String(), '#')+1:]
	seed := fmt.Sprintf("%x", f.Identity().Key.Seed())
	caSeed := fmt.Sprintf("%x", r.caKey.Seed())
	decimal := strings.Trim(fmt.Sprintf("%d", f.Identity().Key.Seed()), "[]")
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(&out, nil))
	for _, v := range []any{i, &i, r, *r, f.Identity(), *f.Identity(), struct{ I Invite }{i}, []Invite{i}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		log.Info("x", "v", v)
	}
	fmt.Fprintln(&out, i.Redacted())
	for name, s := range map[string]string{
		"invite": secret, "invite in hex": fmt.Sprintf("%x", i.Token[atID:]), "identity": seed, "identity in decimal": decimal, "authority": caSeed,
	} {
		if strings.Contains(out.String(), s) {
			t.Errorf("the secret of the %s is printed", name)
		}
	}
	if !strings.Contains(i.Redacted(), "tracker.example:4100/join/lab") {
		t.Errorf("Redacted says too little: %s", i.Redacted())
	}
}
