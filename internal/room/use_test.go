package room

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"
)

// A certificate names the counted use of an invite that it was given for, renewed ones too.
func TestUseOf_goesThroughEveryCertificate(t *testing.T) {
	t.Parallel()
	lab, f := create(t, place(t), "lab"), place(t)
	i := invite(t, lab, 3, time.Hour)
	chain, err := lab.Admit(t.Context(), i.Token, csr(t, i, f), time.Now(), newRegister())
	if err != nil {
		t.Fatal(err)
	}
	member, err := f.Join(i, chain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	want := Use{Invite: inviteID(i.Token), Uses: 3, Expires: i.Expires}
	if got, ok := UseOf(member.Cert.Leaf); !ok || got != want {
		t.Errorf("the certificate names %+v, %v, want %+v", got, ok, want)
	}
	request, err := member.Request()
	if err != nil {
		t.Fatal(err)
	}
	if chain, err = lab.Renew(request, member.Cert.Leaf, time.Now()); err != nil {
		t.Fatal(err)
	}
	if member, err = member.Accept(chain, time.Now()); err != nil {
		t.Fatal(err)
	}
	if got, ok := UseOf(member.Cert.Leaf); !ok || got != want {
		t.Errorf("the renewed one names %+v, %v", got, ok)
	}
	if got, ok := UseOf(lab.Cert.Leaf); ok {
		t.Errorf("the creator's names %+v", got)
	}
	if got, ok := UseOf(join(t, lab, newRegister()).Cert.Leaf); ok {
		t.Errorf("that of an invite for any number names %+v", got)
	}
}

func TestUseOf_believesNothingElse(t *testing.T) {
	t.Parallel()
	good, err := Use{Uses: 1, Expires: time.Unix(1, 0)}.extensions()
	if err != nil {
		t.Fatal(err)
	}
	value := good[0].Value
	for name, bad := range map[string][]byte{
		"empty": nil, "cut": value[:len(value)-1], "longer": append(value[:len(value):len(value)], 0),
		"no octet string": append([]byte{2}, value[1:]...), "short": {4, 1, 0},
		"no use":               func() []byte { b := append([]byte(nil), value...); b[2+19] = 0; return b }(),
		"an end out of bounds": func() []byte { b := append([]byte(nil), value...); b[2+20] = 0xff; return b }(),
	} {
		leaf := &x509.Certificate{Extensions: []pkix.Extension{{Id: useID, Value: bad}}}
		if got, ok := UseOf(leaf); ok {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
	if _, ok := UseOf(&x509.Certificate{Extensions: good}); !ok {
		t.Error("a good one is not read")
	}
}
