package mesh_test

import (
	"encoding/pem"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/mesh/meshgen"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

const (
	leafARN  = "arn:aws:acm:us-east-1:000000000000:certificate/1"
	rootARN  = "arn:aws:acm-pca:us-east-1:000000000000:certificate-authority/1"
	otherARN = "arn:aws:acm-pca:us-east-1:000000000000:certificate-authority/2"
)

// root stands for a root certificate in PEM.
func root(name string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(name)}))
}

// shop is a mesh with one edge: a client under a policy, if any, and a STRICT
// server with a certificate from ACM.
func shop(policy *appmesh.ClientPolicyTls) *mesh.View {
	in := mesh.Name{Owner: "000000000000", Mesh: "m"}
	id := func(kind mesh.Kind, name string) mesh.ID { return mesh.ID{Kind: kind, Name: name} }
	server := &appmesh.VirtualNodeSpec{
		Listeners: []appmesh.Listener{{
			PortMapping: &appmesh.PortMapping{Port: 8080, Protocol: appmesh.PortProtocolHttp},
			TLS: &appmesh.ListenerTls{Mode: appmesh.ListenerTlsModeStrict, Certificate: &appmesh.ListenerTlsCertificate{
				ACM: &appmesh.ListenerTlsAcmCertificate{CertificateArn: leafARN}}},
		}},
		ServiceDiscovery: &appmesh.ServiceDiscovery{DNS: &appmesh.DnsServiceDiscovery{Hostname: "server.m.local"}},
	}
	client := &appmesh.VirtualNodeSpec{Backends: []appmesh.Backend{{VirtualService: &appmesh.VirtualServiceBackend{VirtualServiceName: "server"}}}}
	if policy != nil {
		client.BackendDefaults = &appmesh.BackendDefaults{ClientPolicy: &appmesh.ClientPolicy{TLS: policy}}
	}
	return &mesh.View{
		Mesh: &mesh.Record[appmesh.MeshSpec]{Mesh: in, ID: id(mesh.KindMesh, "m"), Spec: &appmesh.MeshSpec{}}, Revision: 3,
		VirtualNodes: map[string]*mesh.Record[appmesh.VirtualNodeSpec]{
			"server": {Mesh: in, ID: id(mesh.KindVirtualNode, "server"), Revision: 1, Spec: server},
			"client": {Mesh: in, ID: id(mesh.KindVirtualNode, "client"), Revision: 2, Spec: client},
		},
		VirtualServices: map[string]*mesh.Record[appmesh.VirtualServiceSpec]{"server": {Mesh: in, ID: id(mesh.KindVirtualService, "server"), Revision: 3,
			Spec: &appmesh.VirtualServiceSpec{Provider: &appmesh.VirtualServiceProvider{VirtualNode: &appmesh.VirtualNodeServiceProvider{VirtualNodeName: "server"}}}}},
		Certificates: map[string]*mesh.Certificate{leafARN: {ARN: leafARN, Revision: 4, Chain: "chain", Roots: root("one"), Root: rootARN, Names: []string{"*.m.local"}}},
		Authorities:  map[string]*mesh.Authority{rootARN: {ARN: rootARN, Roots: root("one")}, otherARN: {ARN: otherARN, Roots: root("two")}},
	}
}

func trusting(names []string, arns ...string) *appmesh.ClientPolicyTls {
	p := &appmesh.ClientPolicyTls{Validation: &appmesh.TlsValidationContext{Trust: &appmesh.TlsValidationContextTrust{
		ACM: &appmesh.TlsValidationContextAcmTrust{CertificateAuthorityArns: arns}}}}
	if names != nil {
		p.Validation.SubjectAlternativeNames = &appmesh.SubjectAlternativeNames{Match: &appmesh.SubjectAlternativeNameMatchers{Exact: names}}
	}
	return p
}

// TestVerdictsOfACM tells beforehand what becomes of an edge whose server has a
// certificate from ACM.
func TestVerdictsOfACM(t *testing.T) {
	const policyField, listenerField = "virtualNode/client spec.backendDefaults.clientPolicy.tls", "virtualNode/server spec.listeners[0].tls"
	tests := []struct {
		name     string
		policy   *appmesh.ClientPolicyTls
		change   func(*mesh.View)
		verdict  tlspolicy.Verdict
		reason   string // its beginning
		field    string
		problems int
	}{
		{"without a policy", nil, nil, tlspolicy.VerdictVerified, "the server offers TLS", listenerField, 0},
		{"trusted", trusting(nil, otherARN, rootARN), nil, tlspolicy.VerdictVerified, "the client's policy enforces TLS", policyField, 0},
		{"another root", trusting(nil, otherARN), nil, tlspolicy.VerdictBroken,
			"the server's certificate chains to " + rootARN + ", which the client's policy does not trust", policyField + ".validation.trust.acm", 0},
		{"the root under another ARN", trusting(nil, otherARN), func(v *mesh.View) {
			v.Authorities[otherARN] = &mesh.Authority{ARN: otherARN, Roots: root("two") + root("one")}
		}, tlspolicy.VerdictVerified, "the client's policy enforces TLS", policyField, 0},
		{"a root of nobody here", trusting(nil, otherARN), func(v *mesh.View) {
			v.Certificates[leafARN] = &mesh.Certificate{ARN: leafARN, Chain: "chain", Roots: root("three"), Names: []string{"*.m.local"}}
		}, tlspolicy.VerdictBroken, "the server's certificate chains to a root that is no authority here, which", policyField + ".validation.trust.acm", 0},
		{"another name", trusting([]string{"a.other.local"}, rootARN), nil, tlspolicy.VerdictBroken,
			"the server's certificate carries *.m.local, the client wants a.other.local", policyField + ".validation.subjectAlternativeNames", 0},
		{"another name, without a policy", nil, func(v *mesh.View) {
			v.Certificates[leafARN] = &mesh.Certificate{ARN: leafARN, Chain: "chain", Roots: root("one"), Root: rootARN, Names: []string{"other.local"}}
		}, tlspolicy.VerdictBroken, "the server's certificate carries other.local, the client wants server.m.local", listenerField, 0},
		{"an address, which may be in it", nil, func(v *mesh.View) { v.VirtualNodes["server"].Spec.ServiceDiscovery.DNS.Hostname = "127.0.0.1" },
			tlspolicy.VerdictVerified, "the server offers TLS", listenerField, 0},
		{"no certificate", nil, func(v *mesh.View) { delete(v.Certificates, leafARN) }, tlspolicy.VerdictBroken,
			"the server's certificate " + leafARN + " cannot be had", listenerField + ".certificate.acm.certificateArn", 1},
		{"no root", nil, func(v *mesh.View) { v.Certificates[leafARN] = &mesh.Certificate{ARN: leafARN, Chain: "chain"} }, tlspolicy.VerdictBroken,
			"the server's certificate " + leafARN + " cannot be had", listenerField + ".certificate.acm.certificateArn", 1},
		{"no authority", trusting(nil, rootARN), func(v *mesh.View) { delete(v.Authorities, rootARN) }, tlspolicy.VerdictBroken,
			"none of the authorities that the client's policy trusts can be had", policyField + ".validation.trust.acm", 1},
		{"not the authority that counts", trusting(nil, rootARN, otherARN), func(v *mesh.View) { delete(v.Authorities, rootARN) }, tlspolicy.VerdictBroken,
			"the server's certificate chains to " + rootARN + ", which the client's policy does not trust", policyField + ".validation.trust.acm", 1},
		{"one authority without lists", trusting(nil, rootARN, otherARN), func(v *mesh.View) {
			v.Authorities[rootARN] = &mesh.Authority{ARN: rootARN, Roots: root("one"), CRLs: "lists"}
		}, tlspolicy.VerdictVerified, "the client's policy enforces TLS", policyField, 1},
		{"nothing is known", trusting(nil, otherARN), func(v *mesh.View) { v.Certificates, v.Authorities = nil, nil }, tlspolicy.VerdictVerified,
			"the client's policy enforces TLS", policyField, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			view := shop(tt.policy)
			if tt.change != nil {
				tt.change(view)
			}
			g := mesh.Build(view)
			d := g.Endpoints[mesh.ID{Kind: mesh.KindVirtualNode, Name: "client"}].Edges[0].Decision
			if d.Transport != tlspolicy.TLS || d.Verdict != tt.verdict || !strings.HasPrefix(d.Reason, tt.reason) || d.Field != tt.field {
				t.Errorf("%s, %s: %s by %s, want %s: %s… by %s", d.Transport, d.Verdict, d.Reason, d.Field, tt.verdict, tt.reason, tt.field)
			}
			if len(g.Problems) != tt.problems {
				t.Errorf("problems %v, want %d", g.Problems, tt.problems)
			}
		})
	}
}

// TestRenewed: a Graph that only takes in renewed certificates is the one that
// would be built, and shares its endpoints; whatever else differs is built.
func TestRenewed(t *testing.T) {
	renewed := 0
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 7))
		view := wreck(rng, meshgen.View(rng, int(seed%12)+1))
		g := mesh.Build(view)
		for range 4 {
			view = meshgen.Renew(rng, view)
			if rng.IntN(2) == 0 {
				view.Authorities = maps.Clone(view.Authorities)
				for arn, a := range view.Authorities {
					again := *a
					again.CRLs = "new lists"
					view.Authorities[arn] = &again
				}
			}
			next, ok := g.Renewed(view)
			built := mesh.Build(view)
			if !ok {
				g = built
				continue
			}
			renewed++
			if diff := cmp.Diff(describe(built)+described(built), describe(next)+described(next)); diff != "" {
				t.Fatalf("seed %d (-built +renewed):\n%s", seed, diff)
			}
			for id, e := range g.Endpoints {
				if next.Endpoints[id] != e {
					t.Fatalf("seed %d: %s was built anew", seed, id)
				}
			}
			g = next
		}
	}
	if renewed < 50 {
		t.Errorf("only %d views were renewals", renewed)
	}
}

// described is what a Graph holds of certificates.
func described(g *mesh.Graph) string {
	return cmp.Diff(struct {
		Revision     int64
		Certificates map[string]*mesh.Certificate
		Authorities  map[string]*mesh.Authority
	}{}, struct {
		Revision     int64
		Certificates map[string]*mesh.Certificate
		Authorities  map[string]*mesh.Authority
	}{g.Revision, g.Certificates, g.Authorities})
}

// TestRenewedRefuses: what is no renewal is built.
func TestRenewedRefuses(t *testing.T) {
	for name, change := range map[string]func(*mesh.View){
		"a record":        func(v *mesh.View) { r := *v.VirtualNodes["server"]; v.VirtualNodes["server"] = &r },
		"one record less": func(v *mesh.View) { delete(v.VirtualServices, "server") },
		"the mesh":        func(v *mesh.View) { r := *v.Mesh; v.Mesh = &r },
		"a trust domain":  func(v *mesh.View) { v.TrustDomain = "elsewhere" },
		"no certificate":  func(v *mesh.View) { delete(v.Certificates, leafARN) },
		"other names": func(v *mesh.View) {
			c := *v.Certificates[leafARN]
			c.Names = []string{"x"}
			v.Certificates[leafARN] = &c
		},
		"another root": func(v *mesh.View) {
			c := *v.Certificates[leafARN]
			c.Roots += root("new")
			v.Certificates[leafARN] = &c
		},
		"no authority": func(v *mesh.View) { delete(v.Authorities, rootARN) },
		"other roots": func(v *mesh.View) {
			v.Authorities[rootARN] = &mesh.Authority{ARN: rootARN, Roots: root("two")}
		},
	} {
		view := shop(trusting(nil, rootARN))
		g := mesh.Build(view)
		other := clone(view)
		change(other)
		if _, ok := g.Renewed(other); ok {
			t.Errorf("%s: it was taken for a renewal", name)
		}
	}
}
