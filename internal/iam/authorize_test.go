package iam

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/internal/iam/policy"
)

// directory is a Keys with entities alone, as the store's cache has them.
type directory map[Ref]*Entity

func (directory) Key(context.Context, string) (Key, error) { return Key{}, ErrUnknownKey }
func (directory) SessionKey(context.Context, string, string) (Key, error) {
	return Key{}, ErrUnknownKey
}

func (d directory) Entity(r Ref) (*Entity, error) {
	if e := d[r]; e != nil {
		return e, nil
	}
	return nil, errors.New("there is none")
}

func (d directory) add(t testing.TB, e Entity) {
	t.Helper()
	if err := e.Check(); err != nil {
		t.Fatal(err)
	}
	d[e.Ref] = &e
}

// scene is a user in a group, with a policy of his own, one of the group's and a
// boundary.
func newScene(t testing.TB) (directory, Principal) {
	d := directory{}
	ref := func(kind EntityKind, name string) Ref { return Ref{kind, ours, name} }
	document := func(inside string) string { return `{"Version":"2012-10-17","Statement":{` + inside + `}}` }
	d.add(t, Entity{Ref: ref(KindPolicy, "own"), Document: document(`"Effect":"Allow","Action":"appmesh:*","Resource":"arn:aws:appmesh:*:*:mesh/${aws:username}*"`)})
	d.add(t, Entity{Ref: ref(KindPolicy, "team"), Document: document(`"Effect":"Allow","Action":"acm:*","Resource":"*"`)})
	d.add(t, Entity{Ref: ref(KindPolicy, "most"), Document: document(`"Effect":"Allow","NotAction":"acm:ExportCertificate","Resource":"*"`)})
	d.add(t, Entity{Ref: ref(KindGroup, "team"), Policies: []string{"team"}})
	d.add(t, Entity{Ref: ref(KindUser, "alice"), Policies: []string{"own"}, Groups: []string{"team"}, Boundary: "most"})
	return d, Principal{Account: ours, Kind: User, Name: "alice", ID: "AIDA1"}
}

// TestNothingIsDecidedWithoutAllThatApplies: whatever is taken away of what
// applies to a principal, it is never allowed more.
func TestNothingIsDecidedWithoutAllThatApplies(t *testing.T) {
	whole, alice := newScene(t)
	calls := []Call{
		{Action: "appmesh:DescribeMesh", Resource: "arn:aws:appmesh:us-east-1:" + ours + ":mesh/alice-1", Account: ours},
		{Action: "acm:DescribeCertificate", Resource: "arn:aws:acm:us-east-1:" + ours + ":certificate/x", Account: ours},
	}
	for _, c := range calls {
		if err := Authorize(whole, alice, c); err != nil {
			t.Errorf("%s: %v", c.Action, err)
		}
	}
	for _, c := range []Call{
		{Action: "acm:ExportCertificate", Resource: calls[1].Resource, Account: ours},
		{Action: "appmesh:DescribeMesh", Resource: "arn:aws:appmesh:us-east-1:" + ours + ":mesh/bob", Account: ours},
		{Action: "appmesh:DescribeMesh", Resource: "arn:aws:appmesh:us-east-1:" + theirs + ":mesh/alice", Account: theirs},
	} {
		if err := Authorize(whole, alice, c); !errors.Is(err, ErrDenied) {
			t.Errorf("%s on %s: %v", c.Action, c.Resource, err)
		}
	}
	for ref := range whole {
		part := directory{}
		for other, e := range whole {
			if other != ref {
				part[other] = e
			}
		}
		for _, c := range calls {
			if err := Authorize(part, alice, c); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "is gone") {
				t.Errorf("%s without %s: %v", c.Action, ref.ARN(), err)
			}
		}
	}
}

func TestEntityCheck(t *testing.T) {
	const document = `{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`
	for name, e := range map[string]Entity{
		"no account":              {Ref: Ref{KindUser, "1", "a"}},
		"no name":                 {Ref: Ref{KindUser, ours, ""}},
		"a path":                  {Ref: Ref{KindUser, ours, "a/b"}},
		"a long name":             {Ref: Ref{KindUser, ours, strings.Repeat("a", 65)}},
		"a kind of its own":       {Ref: Ref{"robot", ours, "a"}},
		"a user with a document":  {Ref: Ref{KindUser, ours, "a"}, Document: document},
		"a group with keys":       {Ref: Ref{KindGroup, ours, "a"}, Keys: []UserKey{{}}},
		"three keys":              {Ref: Ref{KindUser, ours, "a"}, Keys: make([]UserKey, 3)},
		"a policy without one":    {Ref: Ref{KindPolicy, ours, "a"}},
		"21 policies":             {Ref: Ref{KindUser, ours, "a"}, Policies: make([]string, 21)},
		"a role nobody may have":  {Ref: Ref{KindRole, ours, "a"}, MaxSession: 3600},
		"a role for long":         {Ref: Ref{KindRole, ours, "a"}, Trust: document, MaxSession: 43201},
		"a trust with a resource": {Ref: Ref{KindRole, ours, "a"}, Trust: document, MaxSession: 3600},
	} {
		if err := e.Check(); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// FuzzRefOf: an ARN that is read is written again as it was.
func FuzzRefOf(f *testing.F) {
	f.Add("arn:aws:iam::" + ours + ":user/alice")
	f.Add("arn:aws:iam::" + ours + ":role/a/b")
	f.Add("arn:aws:iam::" + ours + ":account/000000000000")
	f.Fuzz(func(t *testing.T, arn string) {
		if r, ok := RefOf(arn); ok && r.Kind != KindAccount && !strings.HasSuffix(arn, strings.TrimPrefix(r.ARN(), "arn:aws")) {
			t.Errorf("%q is read as %s", arn, r.ARN())
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	d, alice := newScene(b)
	for i := range 9 {
		name := fmt.Sprintf("more-%d", i)
		d.add(b, Entity{Ref: Ref{KindPolicy, ours, name}, Document: `{"Statement":{"Effect":"Deny","Action":"acm-pca:*","Resource":"*"}}`})
		d[Ref{KindUser, ours, "alice"}].Policies = append(d[Ref{KindUser, ours, "alice"}].Policies, name)
	}
	c := Call{Action: "appmesh:DescribeMesh", Resource: "arn:aws:appmesh:us-east-1:" + ours + ":mesh/alice-1", Account: ours, Values: policy.Values{"aws:sourceip": {"127.0.0.1"}}}
	b.ReportAllocs()
	for b.Loop() {
		if err := Authorize(d, alice, c); err != nil {
			b.Fatal(err)
		}
	}
}
