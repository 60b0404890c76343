package mesh_test

import (
	"slices"
	"testing"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
)

// TestOwnCertificates is the table of who may have which certificate of
// Fairlead's own SDS: what an endpoint's own spec names in the trust domain, under
// its own discovery name, and nothing under another endpoint's reserved name.
func TestOwnCertificates(t *testing.T) {
	listener := func(secret string) *appmesh.ListenerTls {
		return &appmesh.ListenerTls{Mode: "STRICT", Certificate: &appmesh.ListenerTlsCertificate{SDS: &appmesh.ListenerTlsSdsCertificate{SecretName: secret}},
			Validation: &appmesh.ListenerTlsValidationContext{Trust: &appmesh.ListenerTlsValidationContextTrust{SDS: &appmesh.TlsValidationContextSdsTrust{SecretName: "spiffe://apps.fairlead/as-trust"}}}}
	}
	policy := func(secret string) *appmesh.ClientPolicy {
		return &appmesh.ClientPolicy{TLS: &appmesh.ClientPolicyTls{Certificate: &appmesh.ClientTlsCertificate{SDS: &appmesh.ListenerTlsSdsCertificate{SecretName: secret}}}}
	}
	for _, test := range []struct {
		name, domain              string
		listener, defaults, named string // secrets
		want                      []string
	}{
		{"a listener's", "", "spiffe://apps.fairlead/web", "", "", []string{"spiffe://apps.fairlead/web"}},
		{"of the client policies", "", "", "spiffe://apps.fairlead/a", "spiffe://apps.fairlead/b", []string{"spiffe://apps.fairlead/a", "spiffe://apps.fairlead/b"}},
		{"one for all", "", "spiffe://apps.fairlead/web", "spiffe://apps.fairlead/web", "spiffe://apps.fairlead/web", []string{"spiffe://apps.fairlead/web"}},
		{"its own reserved name", "", "spiffe://apps.fairlead/mesh/Apps/virtualNode/web", "", "", []string{"spiffe://apps.fairlead/mesh/Apps/virtualNode/web"}},
		{"another's reserved name", "", "spiffe://apps.fairlead/mesh/Apps/virtualNode/api", "", "", nil},
		{"a name below its own", "", "spiffe://apps.fairlead/mesh/Apps/virtualNode/web/x", "", "", nil},
		{"the same of another mesh", "", "spiffe://apps.fairlead/mesh/other/virtualNode/web", "", "", nil},
		{"the trust bundle", "", "spiffe://apps.fairlead", "", "", nil},
		{"the root of the domain", "", "spiffe://apps.fairlead/", "", "", []string{"spiffe://apps.fairlead/"}}, // which no certificate can carry
		{"another domain", "", "spiffe://elsewhere.example/web", "", "", nil},
		{"a domain that begins so", "", "spiffe://apps.fairlead.example/web", "", "", nil},
		{"no SPIFFE ID", "", "web", "", "", nil},
		{"the server's domain", "corp.example", "spiffe://corp.example/web", "spiffe://apps.fairlead/web", "", []string{"spiffe://corp.example/web"}},
	} {
		spec := &appmesh.VirtualNodeSpec{ServiceDiscovery: &appmesh.ServiceDiscovery{DNS: &appmesh.DnsServiceDiscovery{Hostname: "web.local."}}}
		if test.listener != "" {
			spec.Listeners = []appmesh.Listener{{PortMapping: &appmesh.PortMapping{Port: 80, Protocol: "http"}, TLS: listener(test.listener)}}
		}
		if test.defaults != "" {
			spec.BackendDefaults = &appmesh.BackendDefaults{ClientPolicy: policy(test.defaults)}
		}
		if test.named != "" {
			spec.Backends = []appmesh.Backend{{VirtualService: &appmesh.VirtualServiceBackend{VirtualServiceName: "api.local", ClientPolicy: policy(test.named)}}}
		}
		view := &mesh.View{
			Mesh:         &mesh.Record[appmesh.MeshSpec]{Mesh: mesh.Name{Owner: "000000000000", Mesh: "Apps"}},
			TrustDomain:  test.domain,
			VirtualNodes: map[string]*mesh.Record[appmesh.VirtualNodeSpec]{"web": {Spec: spec}, "api": {Spec: &appmesh.VirtualNodeSpec{}}},
		}
		var got []string
		for _, c := range view.OwnCertificates(mesh.ID{Kind: mesh.KindVirtualNode, Name: "web"}) {
			if got = append(got, c.URI); c.DNS != "web.local" {
				t.Errorf("%s: DNS name %q", test.name, c.DNS)
			}
			if back, ok := mesh.ParseOwnCertificate(c.SecretName()); !ok || back != c || !mesh.IsOwnCertificate(c.SecretName()) {
				t.Errorf("%s: %q is read as %v", test.name, c.SecretName(), back)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
		for _, other := range []mesh.ID{{Kind: mesh.KindVirtualNode, Name: "api"}, {Kind: mesh.KindVirtualGateway, Name: "web"}, {Kind: mesh.KindVirtualNode, Name: "nobody"}} {
			if got := view.OwnCertificates(other); len(got) > 0 {
				t.Errorf("%s: %s may have %v", test.name, other, got)
			}
		}
	}
}

// TestOwnIsRenewed: new lists of the mesh's authority change nothing but the
// trust; a new root, and one that comes or goes, is built anew.
func TestOwnIsRenewed(t *testing.T) {
	view := &mesh.View{
		Mesh: &mesh.Record[appmesh.MeshSpec]{Mesh: mesh.Name{Owner: "000000000000", Mesh: "apps"}},
		Own:  &mesh.Authority{ARN: "arn", Revision: 1, Roots: "root", CRLs: "one"},
	}
	graph := mesh.Build(view)
	for _, test := range []struct {
		own     *mesh.Authority
		renewed bool
	}{
		{&mesh.Authority{ARN: "arn", Revision: 1, Roots: "root", CRLs: "two"}, true},
		{&mesh.Authority{ARN: "arn", Revision: 1, Roots: "root"}, true},
		{&mesh.Authority{ARN: "arn", Revision: 2, Roots: "root, other", CRLs: "one"}, false},
		{nil, false},
	} {
		next := *view
		next.Own, next.Revision = test.own, 7
		got, ok := graph.Renewed(&next)
		if ok != test.renewed {
			t.Errorf("%+v: renewed %t", test.own, ok)
		}
		if ok && (got.Own != test.own || got.TrustDomain != "apps.fairlead") {
			t.Errorf("%+v: %+v", test.own, got.Own)
		}
		if built := mesh.Build(&next); built.Own != test.own {
			t.Errorf("built with %+v", built.Own)
		}
	}
}
