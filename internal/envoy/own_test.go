package envoy

import (
	"bytes"
	"strings"
	"testing"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

// ownView is a node that wants certificates of its clients, all of Fairlead's own
// SDS.
func ownView(hostname, trust string, revision int64) *mesh.View {
	spec := &appmesh.VirtualNodeSpec{
		ServiceDiscovery: &appmesh.ServiceDiscovery{DNS: &appmesh.DnsServiceDiscovery{Hostname: hostname}},
		Listeners: []appmesh.Listener{{PortMapping: &appmesh.PortMapping{Port: 8080, Protocol: "http"}, TLS: &appmesh.ListenerTls{Mode: "STRICT",
			Certificate: &appmesh.ListenerTlsCertificate{SDS: &appmesh.ListenerTlsSdsCertificate{SecretName: "spiffe://m.fairlead/a"}},
			Validation:  &appmesh.ListenerTlsValidationContext{Trust: &appmesh.ListenerTlsValidationContextTrust{SDS: &appmesh.TlsValidationContextSdsTrust{SecretName: trust}}}}}},
	}
	name := mesh.Name{Owner: "000000000000", Mesh: "m"}
	id := mesh.ID{Kind: mesh.KindVirtualNode, Name: "a"}
	return &mesh.View{
		Mesh: &mesh.Record[appmesh.MeshSpec]{Mesh: name, ID: mesh.ID{Kind: mesh.KindMesh, Name: "m"}, Revision: 1}, Revision: revision,
		VirtualNodes: map[string]*mesh.Record[appmesh.VirtualNodeSpec]{"a": {Mesh: name, ID: id, Revision: revision, Spec: spec}},
		Certificates: map[string]*mesh.Certificate{},
		Own:          &mesh.Authority{ARN: "arn:aws:acm-pca:us-east-1:000000000000:certificate-authority/1", Revision: 1, Roots: "root", CRLs: "lists"},
	}
}

// TestOwnSecrets: who serves what of the mesh's own SDS depends on what the proxy
// has beside it; without the authority, or with another name for its trust, the
// listener is closed and not open in plaintext.
func TestOwnSecrets(t *testing.T) {
	id, own := mesh.ID{Kind: mesh.KindVirtualNode, Name: "a"}, mesh.OwnCertificate{URI: "spiffe://m.fairlead/a", DNS: "a.local"}.SecretName()
	const trust = "spiffe://m.fairlead"
	b := NewBuilder()
	for _, test := range []struct {
		name        string
		shape       Shape
		view        *mesh.View
		certificate string // in the listener; empty: it is closed
		sent        bool   // the server sends the trust
	}{
		{"an agent", Shape{Agent: true}, ownView("a.local", trust, 1), own, true},
		{"an agent and a provider", Shape{Agent: true, Provider: true}, ownView("a.local", trust, 2), "spiffe://m.fairlead/a", false},
		{"no agent", Shape{}, ownView("a.local", trust, 3), "spiffe://m.fairlead/a", true},
		{"another discovery name", Shape{Agent: true}, ownView("b.local", trust, 4), mesh.OwnCertificate{URI: "spiffe://m.fairlead/a", DNS: "b.local"}.SecretName(), true},
		{"another name for the trust", Shape{Agent: true}, ownView("a.local", trust+"/x", 5), "", false},
		{"no authority", Shape{Agent: true}, func() *mesh.View { v := ownView("a.local", trust, 6); v.Own = nil; return v }(), "", false},
	} {
		config, problems, err := b.Build(mesh.Build(test.view), id, test.shape)
		if err != nil {
			t.Fatal(err)
		}
		secrets := config.Resources[Secret]
		if test.sent != (len(secrets) == 1 && secrets[0].Name == trust && bytes.Contains(secrets[0].Any, []byte("lists"))) {
			t.Errorf("%s: the server sends %v", test.name, secrets)
		}
		var listener []byte
		for _, l := range config.Resources[Listener] {
			listener = append(listener, l.Any...)
		}
		switch {
		case test.certificate == "":
			if len(problems) == 0 || bytes.Contains(listener, []byte("ingress_8080")) {
				t.Errorf("%s: %v, listener %q", test.name, problems, listener)
			}
		case !bytes.Contains(listener, []byte(test.certificate)) || !bytes.Contains(listener, []byte("TransportSocket")) && !strings.Contains(string(listener), tlsSocket):
			t.Errorf("%s: the listener does not name %s: %q", test.name, test.certificate, listener)
		}
	}
}
