package xds

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/mesh"
)

func certificateARN(name string) string {
	return "arn:aws:acm:us-east-1:" + account + ":certificate/" + name
}

const authorityARN = "arn:aws:acm-pca:us-east-1:" + account + ":certificate-authority/root"

// secure has the named nodes of a view serve TLS with a certificate of ACM each,
// which is called as they are.
func secure(v *mesh.View, nodes ...string) *mesh.View {
	v.Certificates = map[string]*mesh.Certificate{}
	v.Authorities = map[string]*mesh.Authority{authorityARN: {ARN: authorityARN, Roots: "root", Revision: 1}}
	for _, name := range nodes {
		v.VirtualNodes[name].Spec.Listeners[0].TLS = &appmesh.ListenerTls{Mode: appmesh.ListenerTlsModeStrict,
			Certificate: &appmesh.ListenerTlsCertificate{ACM: &appmesh.ListenerTlsAcmCertificate{CertificateArn: certificateARN(name)}}}
		renew(v, name, 1)
	}
	return v
}

// renew puts another certificate of a node into a view.
func renew(v *mesh.View, name string, revision int64) {
	arn := certificateARN(name)
	v.Certificates[arn] = &mesh.Certificate{ARN: arn, Revision: revision, Chain: fmt.Sprintf("chain of %s at %d", name, revision),
		Key: api.NewSecret(fmt.Sprintf("key of %s at %d", name, revision)), Roots: "root", Root: authorityARN, Names: []string{name + ".local"}}
}

// renewed is a view in which the certificate of a node has been renewed, with
// the same records.
func renewed(v *mesh.View, name string) *mesh.View {
	next := *v
	next.Revision++
	next.Certificates = maps.Clone(v.Certificates)
	renew(&next, name, next.Revision)
	return &next
}

// secrets reads the secrets of an answer: what they are made of, by name.
func (a answer) secrets(t testing.TB) map[string]string {
	t.Helper()
	if a.kind != "secret" {
		t.Fatalf("%s came, not secrets", a)
	}
	found := map[string]string{}
	for _, body := range a.bodies {
		var s tlsv3.Secret
		if err := proto.Unmarshal(body.GetValue(), &s); err != nil {
			t.Fatal(err)
		}
		if c := s.GetTlsCertificate(); c != nil {
			found[s.Name] = string(c.GetCertificateChain().GetInlineBytes()) + ", " + string(c.GetPrivateKey().GetInlineBytes())
		} else {
			found[s.Name] = string(s.GetValidationContext().GetTrustedCa().GetInlineBytes())
		}
	}
	return found
}

// all accepts all clusters and listeners.
func (c *client) all() {
	c.t.Helper()
	c.clusters()
	c.send(req{kind: "listener"})
	c.ack(c.next())
}

// TestNobodyGetsAnothersSecret asks, as the proxy of each node, for every secret
// of the mesh and for names that are made up: what comes is what the node's own
// spec names.
func TestNobodyGetsAnothersSecret(t *testing.T) {
	source := newMemory()
	source.views[demo] = secure(view(demo, 10, "node a: svc", "node b", "node c", "service svc: b"), "a", "b")
	r := startServer(t, source)
	names := []string{"a", "b", "*.example", "../a", "file-certificate:chain=%2Fa&key=%2Fb", "spiffe://demo.fairlead", "", "x y", strings.Repeat("n", 2000),
		certificateARN("a"), certificateARN("b"), certificateARN("c"), certificateARN("a") + "/", certificateARN("A"), certificateARN(""), "arn:aws:acm:*",
		mesh.IssuerSecret(certificateARN("a")), mesh.IssuerSecret(certificateARN("b")), mesh.TrustSecret([]string{authorityARN}), authorityARN}
	want := map[string]map[string]string{
		"a": {certificateARN("a"): "chain of a at 1, key of a at 1", mesh.IssuerSecret(certificateARN("b")): "root"},
		"b": {certificateARN("b"): "chain of b at 1, key of b at 1"},
		"c": {},
	}
	for _, p := range []Protocol{Delta, StateOfTheWorld} {
		for node, its := range want {
			c := r.as(p, "mesh/demo/virtualNode/"+node, nil)
			c.all()
			c.send(req{kind: "secret", names: names})
			a := c.next()
			if got := a.secrets(t); !maps.Equal(got, its) {
				t.Errorf("%s: %s gets %v, want %v", p, node, got, its)
			}
			if p == Delta && len(a.removed) != len(names)-len(its) {
				t.Errorf("%s is told that %d names are not there, of %d", node, len(a.removed), len(names))
			}
			c.ack(a, names...)
			// The wildcard has the same.
			all := r.as(p, "mesh/demo/virtualNode/"+node, nil)
			all.send(req{kind: "secret", names: []string{"*"}})
			if got := all.next().secrets(t); !maps.Equal(got, its) {
				t.Errorf("%s: by the wildcard %s gets %v, want %v", p, node, got, its)
			}
		}
	}
}

// TestRenewalReachesItsHoldersAlone renews a certificate: the proxies that hold
// it get that one secret, everybody else not a byte.
func TestRenewalReachesItsHoldersAlone(t *testing.T) {
	source := newMemory()
	now := secure(view(demo, 10, "node a: svc", "node b", "node c: svc", "service svc: b"), "a", "b")
	source.views[demo] = now
	r := startServer(t, source)
	for _, p := range []Protocol{Delta, StateOfTheWorld} {
		a, b, c := r.as(p, "mesh/demo/virtualNode/a", nil), r.as(p, "mesh/demo/virtualNode/b", nil), r.as(p, "mesh/demo/virtualNode/c", nil)
		a.all()
		b.all()
		c.all()
		held := map[*client]string{a: certificateARN("a"), b: certificateARN("b"), c: mesh.IssuerSecret(certificateARN("b"))}
		for proxy, name := range held {
			proxy.send(req{kind: "secret", names: []string{name}})
			proxy.ack(proxy.next(), name)
		}
		now = renewed(now, "b")
		source.set(demo, now)
		got := b.next()
		want := map[string]string{certificateARN("b"): fmt.Sprintf("chain of b at %[1]d, key of b at %[1]d", now.Revision)}
		if s := got.secrets(t); !maps.Equal(s, want) {
			t.Errorf("%s: got %v, want %v", p, s, want)
		}
		b.ack(got, certificateARN("b"))
		a.silent()
		b.silent()
		c.silent() // what b's certificate chains to is the same
	}
}

// TestRejectedSecretStands rejects a renewed certificate: the one before stands,
// the next renewal is tried, and nothing tells the key.
func TestRejectedSecretStands(t *testing.T) {
	source := newMemory()
	now := secure(view(demo, 10, "node b"), "b")
	source.views[demo] = now
	r := startServer(t, source)
	b := r.as(Delta, "mesh/demo/virtualNode/b", nil)
	b.all()
	b.send(req{kind: "secret", names: []string{certificateARN("b")}})
	b.ack(b.next())
	now = renewed(now, "b")
	source.set(demo, now)
	b.nack(b.next(), "Failed to load private key from <inline>")
	eventually(t, "the rejection", func() bool {
		rejected := r.server.Proxies()[0].Types[envoy.Secret].Rejected
		return len(rejected) == 1 && rejected[0].Name == certificateARN("b") && rejected[0].Standing != "" && rejected[0].Origin.String() == certificateARN("b")
	})
	b.silent()
	if shown := fmt.Sprintf("%+v", r.server.Proxies()); strings.Contains(shown, "key of b") {
		t.Errorf("the status has the key: %s", shown)
	}
	source.set(demo, renewed(now, "b"))
	if got := b.next().secrets(t)[certificateARN("b")]; got != "chain of b at 12, key of b at 12" {
		t.Errorf("then came %q", got)
	}
}

// TestRenewedSecretGoesAheadOfItsListener changes a listener's protocol together with its
// certificate: the secret that is held already comes ahead of what names it.
func TestRenewedSecretGoesAheadOfItsListener(t *testing.T) {
	source := newMemory()
	now := secure(view(demo, 10, "node b"), "b")
	source.views[demo] = now
	r := startServer(t, source)
	b := r.as(Delta, "mesh/demo/virtualNode/b", nil)
	b.all()
	b.send(req{kind: "secret", names: []string{certificateARN("b")}})
	b.ack(b.next())
	next := secure(view(demo, 11, "node b"), "b")
	next.VirtualNodes["b"].Spec.Listeners[0].TLS.Mode = appmesh.ListenerTlsModePermissive
	renew(next, "b", 11)
	source.set(demo, next)
	var order []string
	for range 2 {
		a := b.next()
		order = append(order, a.kind)
		b.ack(a)
	}
	if fmt.Sprint(order) != "[secret listener]" {
		t.Errorf("came in the order %v", order)
	}
	// And the listener brings an answer to whoever asks again.
	b.send(req{kind: "secret", names: []string{certificateARN("b")}})
	if got := b.next().secrets(t); len(got) != 1 {
		t.Errorf("asked again, got %v", got)
	}
}

// TestLostCertificateHolds takes a certificate out of the store that a spec
// still names: whoever holds it keeps it. When the spec names it no more, it goes.
func TestLostCertificateHolds(t *testing.T) {
	source := newMemory()
	source.views[demo] = secure(view(demo, 10, "node b"), "b")
	r := startServer(t, source)
	b := r.as(Delta, "mesh/demo/virtualNode/b", nil)
	b.all()
	b.send(req{kind: "secret", names: []string{certificateARN("b")}})
	b.ack(b.next())
	lost := secure(view(demo, 11, "node b"), "b")
	delete(lost.Certificates, certificateARN("b"))
	source.set(demo, lost)
	eventually(t, "the hold", func() bool {
		return strings.Contains(r.server.Proxies()[0].Held, "specs name these certificates, and the store does not have them: "+certificateARN("b"))
	})
	b.silent()
	found := secure(view(demo, 12, "node b"), "b")
	renew(found, "b", 12)
	source.set(demo, found)
	if got := b.next().secrets(t)[certificateARN("b")]; got != "chain of b at 12, key of b at 12" {
		t.Errorf("then came %q", got)
	}
	source.set(demo, view(demo, 13, "node b"))
	if a := b.next(); a.kind != "listener" {
		t.Errorf("without TLS came %s", a)
	} else {
		b.ack(a)
	}
	if a := b.next(); len(a.removed) != 1 || a.removed[0] != certificateARN("b") {
		t.Errorf("then came %s", a)
	}
}

// TestShrinkOfCertificates is the guard's rule for certificates and authorities.
func TestShrinkOfCertificates(t *testing.T) {
	one := certificateARN("one")
	held := Manifest{Lineage: "one", Revision: 30, Origins: []string{one + "@10", authorityARN + "@20"}}
	for _, c := range []struct {
		name  string
		graph mesh.Graph
		want  string
	}{
		{"as they were", mesh.Graph{
			Certificates: map[string]*mesh.Certificate{one: {Revision: 10}}, Authorities: map[string]*mesh.Authority{authorityARN: {Revision: 20}}}, ""},
		{"renewed", mesh.Graph{
			Certificates: map[string]*mesh.Certificate{one: {Revision: 40}}, Authorities: map[string]*mesh.Authority{authorityARN: {Revision: 41}}}, ""},
		{"named no more", mesh.Graph{}, ""},
		{"not there", mesh.Graph{
			Certificates: map[string]*mesh.Certificate{one: nil}, Authorities: map[string]*mesh.Authority{authorityARN: {Revision: 20}}}, "the store does not have them: " + one},
		{"the certificate before", mesh.Graph{Certificates: map[string]*mesh.Certificate{one: {Revision: 9}}}, "older records than those that the proxy's configuration was made from: " + one + " at 9, not 10"},
		{"the authority before", mesh.Graph{Authorities: map[string]*mesh.Authority{authorityARN: {Revision: 19}}}, authorityARN + " at 19, not 20"},
		// Nobody goes on trusting what is not there.
		{"no authority", mesh.Graph{Authorities: map[string]*mesh.Authority{authorityARN: nil}}, ""},
	} {
		g := shrink{lineage: "one", view: &mesh.View{Revision: 40}, graph: &c.graph, deleted: func(mesh.ID) (int64, bool) { return 0, false }}
		if got := g.refuse(held); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
