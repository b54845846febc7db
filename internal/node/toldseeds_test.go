package node_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"dragonload/internal/node"
)

// tellsSeeds has a member get of a parcel what globs choose, from its web seed, and returns
// a download of all of it by whom that member tells the seed.
func tellsSeeds(t *testing.T, b *lab, p *parcel, globs ...string) node.Spec {
	t.Helper()
	o := b.join("teller").options()
	o.KeepServing, o.Serve = true, true
	teller := start(t, o)
	spec := p.spec(t, "lab")
	spec.Select = globs
	r := download(t, t.Context(), teller, spec)
	<-r.saved
	b.awaitFound(teller, "parcel")
	by := p.byID(t)
	by.SeedAllow = []string{strings.TrimPrefix(p.URL, "http://")}
	return by
}

// What nobody holds comes from the web seed that the manifest's giver knows, and from
// nobody else's place on loopback unless the user has listed that.
func TestToldSeeds_bringWhatNobodyHolds(t *testing.T) {
	t.Parallel()
	p, b := someParcel(t), newLab(t)
	b.run()
	spec := tellsSeeds(t, b, p, "sub")
	getter := start(t, b.join("getter").options())

	for _, denied := range []func(*node.Spec){
		func(s *node.Spec) { s.SeedAllow = nil },
		func(s *node.Spec) { s.SeedAllow = []string{"127.0.0.0/8:80", "0.0.0.0/0:443"} },
		func(s *node.Spec) { s.NoSeeds = true },
	} {
		before := p.sent.Load()
		spec := spec
		spec.Dir, spec.GiveUpAfter = t.TempDir(), 3*time.Second
		denied(&spec)
		download(t, t.Context(), getter, spec).failure(t, node.ExitTimeout)
		if sent := p.sent.Load(); sent != before {
			t.Errorf("the seed has sent %d bytes to who must not ask it", sent-before)
		}
	}

	saved := download(t, t.Context(), getter, spec).result(t)
	p.check(t, saved, "")
	if saved.OriginBytes < 3<<20 || saved.PeerBytes != 70<<10+100 {
		t.Errorf("saved %+v", saved)
	}
}

// A seed that brings other bytes is dropped, and the download is one without seeds then:
// it waits for a member and is not given up.
func TestToldSeeds_areNotBelieved(t *testing.T) {
	t.Parallel()
	p, b := someParcel(t), newLab(t)
	b.run()
	spec := tellsSeeds(t, b, p, "sub")
	wrong := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := p.files[strings.TrimPrefix(r.URL.Path, "/")]
		data := make([]byte, len(f.Data))
		serveFile(w, r, `"other"`, data)
	})
	p.handle.Store(&wrong)
	getter := start(t, b.join("getter").options())
	r := download(t, t.Context(), getter, spec)
	for _, code := range []string{"seed-differs", "seeds-failed"} {
		r.awaits(t, func(ev node.Event) bool { return ev.Warning != nil && ev.Warning.Code == code })
	}
	b.sharing(p, "late")
	p.check(t, r.result(t), "")
}

// A redirect leads no further than the address itself might.
func TestToldSeeds_areNotFollowedInside(t *testing.T) {
	t.Parallel()
	p, b := someParcel(t), newLab(t)
	b.run()
	spec := tellsSeeds(t, b, p, "sub")
	inner := newParcel(t, map[string][]byte{"big.bin": p.files["parcel/big.bin"].Data})
	away := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, inner.URL+r.URL.Path, http.StatusFound)
	})
	p.handle.Store(&away)
	getter := start(t, b.join("getter").options())
	r := download(t, t.Context(), getter, spec)
	r.awaits(t, func(ev node.Event) bool {
		return ev.Warning != nil && ev.Warning.Code == "seeds-failed" && strings.Contains(ev.Warning.Message, "seed_allow")
	})
	b.sharing(p, "late")
	p.check(t, r.result(t), "")
	if sent := inner.sent.Load(); sent > 0 {
		t.Errorf("the address that the redirect names has sent %d bytes", sent)
	}
}
