package iam

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/internal/mesh"
)

const (
	ours   = "000000000000"
	theirs = "111111111111"
)

func TestAuthorizeStream(t *testing.T) {
	const arn = "arn:aws:appmesh:us-east-1:"
	node := func(name string) mesh.ID { return mesh.ID{Kind: mesh.KindVirtualNode, Name: name} }
	for _, test := range []struct {
		name, bound, nodeID string
		mesh                mesh.Name
		id                  mesh.ID
		err                 error
	}{
		{"its own", "mesh/m/virtualNode/n", "mesh/m/virtualNode/n", mesh.Name{Owner: ours, Mesh: "m"}, node("n"), nil},
		{"its own, by ARN", "mesh/m/virtualNode/n", arn + ours + ":mesh/m/virtualNode/n", mesh.Name{Owner: ours, Mesh: "m"}, node("n"), nil},
		{"bound by ARN", arn + ours + ":mesh/m/virtualNode/n", "mesh/m/virtualNode/n", mesh.Name{Owner: ours, Mesh: "m"}, node("n"), nil},
		{"a gateway", "mesh/m/virtualGateway/g", "mesh/m/virtualGateway/g", mesh.Name{Owner: ours, Mesh: "m"}, mesh.ID{Kind: mesh.KindVirtualGateway, Name: "g"}, nil},
		{"a name with a slash", "mesh/m/virtualNode/a/b", "mesh/m/virtualNode/a/b", mesh.Name{Owner: ours, Mesh: "m"}, node("a/b"), nil},
		{"in another's mesh", "mesh/m@" + theirs + "/virtualNode/n", arn + ours + ":mesh/m@" + theirs + "/virtualNode/n", mesh.Name{Owner: theirs, Mesh: "m"}, node("n"), nil},
		{"its own account named", "mesh/m/virtualNode/n", "mesh/m@" + ours + "/virtualNode/n", mesh.Name{Owner: ours, Mesh: "m"}, node("n"), nil},

		{"another node", "mesh/m/virtualNode/n", "mesh/m/virtualNode/o", mesh.Name{}, mesh.ID{}, ErrDenied},
		{"another mesh", "mesh/m/virtualNode/n", "mesh/o/virtualNode/n", mesh.Name{}, mesh.ID{}, ErrDenied},
		{"another kind", "mesh/m/virtualNode/n", "mesh/m/virtualGateway/n", mesh.Name{}, mesh.ID{}, ErrDenied},
		{"another account", "mesh/m/virtualNode/n", arn + theirs + ":mesh/m/virtualNode/n", mesh.Name{}, mesh.ID{}, ErrDenied},
		{"another owner of the mesh", "mesh/m/virtualNode/n", "mesh/m@" + theirs + "/virtualNode/n", mesh.Name{}, mesh.ID{}, ErrDenied},
		{"another case", "mesh/m/virtualNode/n", "mesh/m/virtualNode/N", mesh.Name{}, mesh.ID{}, ErrDenied},
		{"a key that is bound to nothing", "", "mesh/m/virtualNode/n", mesh.Name{}, mesh.ID{}, ErrDenied},

		{"empty", "mesh/m/virtualNode/n", "", mesh.Name{}, mesh.ID{}, ErrInvalidResource},
		{"three parts", "mesh/m/virtualNode/n", "mesh/m/virtualNode", mesh.Name{}, mesh.ID{}, ErrInvalidResource},
		{"empty name", "mesh/m/virtualNode/", "mesh/m/virtualNode/", mesh.Name{}, mesh.ID{}, ErrInvalidResource},
		{"empty mesh", "mesh//virtualNode/n", "mesh//virtualNode/n", mesh.Name{}, mesh.ID{}, ErrInvalidResource},
		{"no endpoint", "mesh/m/virtualRouter/r", "mesh/m/virtualRouter/r", mesh.Name{}, mesh.ID{}, ErrInvalidResource},
		{"not App Mesh", "mesh/m/virtualNode/n", "arn:aws:acm:us-east-1:" + ours + ":mesh/m/virtualNode/n", mesh.Name{}, mesh.ID{}, ErrInvalidResource},
		{"short ARN", "mesh/m/virtualNode/n", "arn:aws:appmesh", mesh.Name{}, mesh.ID{}, ErrInvalidResource},
		{"not an account", "mesh/m/virtualNode/n", "mesh/m@me/virtualNode/n", mesh.Name{}, mesh.ID{}, ErrInvalidResource},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := Principal{Account: ours, Kind: Proxy, AccessKeyID: "k", Resource: test.bound}
			name, id, err := AuthorizeStream(p, test.nodeID)
			if name != test.mesh || id != test.id || !errors.Is(err, test.err) {
				t.Errorf("got %v %v, %v", name, id, err)
			}
			if _, _, err := AuthorizeStream(Principal{Account: ours, Kind: Root}, test.nodeID); err == nil {
				t.Error("the root key opens a stream")
			}
			if _, _, err := AuthorizeStream(Principal{}, test.nodeID); err == nil {
				t.Error("nobody opens a stream")
			}
		})
	}
	_, _, err := AuthorizeStream(Principal{Account: ours, Kind: Root}, arn+ours+":mesh/m/virtualNode/n")
	want := "User: arn:aws:iam::000000000000:root is not authorized to perform: appmesh:StreamAggregatedResources on resource: arn:aws:appmesh:us-east-1:000000000000:mesh/m/virtualNode/n because the root key opens no stream; make a key for this proxy with: fairlead proxy credentials create mesh/m/virtualNode/n"
	if !errors.Is(err, ErrDenied) || err.Error() != want {
		t.Errorf("the root key: %v", err)
	}
}

func TestResourceNameIsTheInverse(t *testing.T) {
	for _, resource := range []string{"mesh/m/virtualNode/n", "mesh/m@" + theirs + "/virtualGateway/a/b"} {
		name, id, err := ParseResource(resource, ours)
		if got := ResourceName(name, id, ours); err != nil || got != resource {
			t.Errorf("%s: %s, %v", resource, got, err)
		}
	}
}

func TestAdmit(t *testing.T) {
	admit := func(p Principal, service, operation string) error {
		_, err := Admit(p, service, operation, ours)
		return err
	}
	if err := admit(Principal{Account: ours, Kind: Root}, "appmesh", "CreateMesh"); err != nil {
		t.Errorf("root: %v", err)
	}
	for _, p := range []Principal{{Account: ours, Kind: Proxy, Resource: "mesh/m/virtualNode/n"}, {}} {
		if err := admit(p, "fairlead", "ListProxies"); !errors.Is(err, ErrDenied) {
			t.Errorf("%v: %v", p, err)
		}
	}
	root, proxy := Principal{Account: ours, Kind: Root, AccessKeyID: "AKIAX"}, Principal{Account: ours, Kind: Proxy, Resource: "mesh/m/virtualNode/n"}
	session := root
	session.AccessKeyID = "ASIAX"
	for _, test := range []struct {
		p         Principal
		operation string
		want      error
	}{
		{root, "GetSessionToken", nil}, {root, "GetCallerIdentity", nil},
		{session, "GetSessionToken", ErrDenied}, {session, "GetCallerIdentity", nil},
		{proxy, "GetSessionToken", ErrDenied}, {proxy, "GetCallerIdentity", nil},
		{Principal{}, "GetSessionToken", ErrDenied}, {Principal{}, "GetCallerIdentity", ErrDenied},
	} {
		if err := admit(test.p, "sts", test.operation); !errors.Is(err, test.want) {
			t.Errorf("%v, sts:%s: %v, want %v", test.p, test.operation, err, test.want)
		}
	}
	if err := admit(session, "appmesh", "CreateMesh"); err != nil {
		t.Errorf("a session of the root key: %v", err)
	}
}

// TestSecretsDoNotPrint: whatever the way, also inside an unexported field.
func TestSecretsDoNotPrint(t *testing.T) {
	const value = "hunter2-hunter2"
	key := Key{ID: "AKID", Secret: NewSecret(value), Principal: Principal{Account: ours, Kind: Root}}
	hidden := struct{ key *Key }{&key}
	plain := struct{ secret Secret }{key.Secret}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb, key.Secret)
		fmt.Fprintf(&out, verb, key)
		fmt.Fprintf(&out, verb, &key)
		fmt.Fprintf(&out, verb, hidden)
		fmt.Fprintf(&out, verb, plain)
	}
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Info("key", "secret", key.Secret, "key", key, "hidden", hidden)
	}
	if err := json.NewEncoder(&out).Encode(map[string]any{"key": key, "secret": key.Secret}); err != nil {
		t.Fatal(err)
	}
	if s := out.String(); strings.Contains(s, value) || strings.Contains(s, fmt.Sprintf("%x", value)) {
		t.Errorf("a secret was printed:\n%s", s)
	}
	if key.Secret.Reveal() != value || !key.Secret.Equal(NewSecret(value)) || key.Secret.Equal(NewSecret("x")) || (Secret{}).Reveal() != "" {
		t.Error("a secret is not what it was")
	}
}
