package sim

import (
	"reflect"
	"strings"
	"testing"

	"dragonload/internal/swarm"
)

// TestS11_messagesHaveNoPlaceForSecrets walks all that the machines can say to others:
// the only words in it are addresses and the origin's validators, and bytes are
// signatures. A secret of a download could get into no other field.
func TestS11_messagesHaveNoPlaceForSecrets(t *testing.T) {
	allowed := map[string]bool{
		"Announce.Addr": true, "PeerAddr.Addr": true, "Pin.Validator": true, "Statement.Signature": true,
		"Source.URL": true, // a node tells it only where nothing of it is secret, see node.download.lendable
	}
	for _, msg := range []any{
		swarm.Announce{}, swarm.Probed{}, swarm.Report{}, swarm.Returned{}, swarm.Conflict{}, swarm.Leave{},
		swarm.Welcome{}, swarm.Probe{}, swarm.Pinned{}, swarm.Lease{}, swarm.Revoke{}, swarm.Drop{}, swarm.Handout{}, swarm.Hold{},
		swarm.Complete{}, swarm.GiveUp{}, swarm.Source{}, swarm.AskSource{}, swarm.ComeBack{}, swarm.Readers{},
		swarm.Accuse{}, swarm.Successor{}, swarm.Holds{}, swarm.Haves{}, swarm.Statement{}, swarm.AskStatements{}, swarm.Claim{}, swarm.Relay{},
	} {
		walk(reflect.TypeOf(msg), func(field string) {
			if !allowed[field] {
				t.Errorf("%T can carry words in %s: say here why no secret gets into it", msg, field)
			}
		})
	}
}

// walk calls found with each exported field under a message that holds text or bytes
// of any length.
func walk(typ reflect.Type, found func(field string)) {
	for typ.Kind() == reflect.Slice || typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Array {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct {
		return
	}
	for k := range typ.NumField() {
		f := typ.Field(k)
		if !f.IsExported() {
			continue
		}
		if f.Type.Kind() == reflect.String || f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Uint8 {
			found(typ.Name() + "." + f.Name)
		}
		walk(f.Type, found)
	}
}

// TestInvariants_seeWhatIsBroken breaks by hand what no run should ever break.
func TestInvariants_seeWhatIsBroken(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(r *run, p *proc)
		want string
	}{
		{"S2", func(r *run, p *proc) {
			r.store(p, r.origin.current, 1, 0, true)
			p.m.disk.synced = p.m.disk.have.Clone()
			p.m.disk.forget(1)
			r.s2ResumesWhatWasSynced(p.m)
		}, "does not find piece 1 again"},
		{"S7", func(r *run, _ *proc) {
			r.result.OriginBytes = 2 * r.world.Size
			r.s7OriginWithinItsBudget()
		}, "the faults explain"},
		{"S8", func(r *run, p *proc) {
			r.redialNow(p)
			r.s8Heard(swarm.Returned{Wait: 5_000_000_000})
			r.pull(p, &pull{req: 1, end: 10})
		}, "the tracker has heard of"},
		{"S13", func(r *run, _ *proc) { r.err = r.s13CoreFinishes() }, "not all members have finished"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRun(Uniform(2, 4<<20, 1))
			for _, m := range r.members {
				r.start(m)
				m.disk.begin(r.origin.current.pin, 0)
				m.disk.content = r.origin.current
			}
			c.do(r, r.members[0].proc)
			if r.err == nil || !strings.Contains(r.err.Error(), c.want) {
				t.Errorf("the check says %v, want something with %q", r.err, c.want)
			}
		})
	}
}

// redialNow gives a process a session on which the tracker has answered.
func (r *run) redialNow(p *proc) {
	(*redial)(p).happen(r)
	p.session.said, p.session.answered = true, true
	p.session.down.queue = nil
}
