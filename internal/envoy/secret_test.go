package envoy

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/mesh/meshgen"
)

// TestSecretsAreThoseNamed holds the secrets of every proxy of random meshes to
// the specs: a key goes to the proxies of an endpoint whose own listener names
// the certificate, and to nobody else.
func TestSecretsAreThoseNamed(t *testing.T) {
	keys, none := 0, 0
	for seed := range uint64(60) {
		view := meshgen.View(rand.New(rand.NewPCG(seed, 5)), int(seed%15)+1)
		graph := mesh.Build(view)
		b := NewBuilder()
		for _, e := range graph.Sorted() {
			config, _, err := b.Build(graph, e.ID, Shape{})
			if err != nil {
				t.Fatal(err)
			}
			named := namedBy(view, e.ID)
			var got []string
			for _, r := range config.Resources[Secret] {
				s := decode(r).(*tlsv3.Secret)
				if s.Name != r.Name || s.GetTlsCertificate() == nil && s.GetValidationContext() == nil {
					t.Fatalf("%s is %s", r.Name, s.Name)
				}
				if c := s.GetTlsCertificate(); c != nil {
					got = append(got, r.Name)
					held := view.Certificates[r.Name]
					if string(c.CertificateChain.GetInlineBytes()) != held.Chain || string(c.PrivateKey.GetInlineBytes()) != held.Key.Reveal() {
						t.Errorf("%s has another content", r.Name)
					}
				}
			}
			if !slices.Equal(got, named) {
				t.Errorf("seed %d: %s gets the keys of %v, its spec names %v", seed, e.ID, got, named)
			}
			if keys += len(got); len(got) == 0 {
				none++
			}
		}
	}
	if keys < 50 || none < 50 {
		t.Errorf("%d keys, %d endpoints without any: this tests little", keys, none)
	}
}

// namedBy are the certificates that the spec of an endpoint takes from ACM.
func namedBy(view *mesh.View, id mesh.ID) []string {
	named := map[string]bool{}
	if id.Kind == mesh.KindVirtualNode {
		for _, l := range view.VirtualNodes[id.Name].Spec.Listeners {
			if l.TLS != nil && l.TLS.Mode != appmesh.ListenerTlsModeDisabled && l.TLS.Certificate.ACM != nil {
				named[l.TLS.Certificate.ACM.CertificateArn] = true
			}
		}
	} else {
		for _, l := range view.VirtualGateways[id.Name].Spec.Listeners {
			if l.TLS != nil && l.TLS.Mode != appmesh.VirtualGatewayListenerTlsModeDisabled && l.TLS.Certificate.ACM != nil {
				named[l.TLS.Certificate.ACM.CertificateArn] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(named))
}

// TestRenewalTouchesOneSecret renews one certificate of a mesh: the proxies that
// hold it get one other resource, in which nothing but that differs; everybody
// else keeps the very same Config content.
func TestRenewalTouchesOneSecret(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 6))
	view := meshgen.View(rng, 30)
	graph, b := mesh.Build(view), NewBuilder()
	before := map[mesh.ID]*Config{}
	for _, e := range graph.Sorted() {
		before[e.ID], _, _ = b.Build(graph, e.ID, Shape{})
	}
	next := meshgen.Renew(rng, view)
	renewed := ""
	for arn, c := range next.Certificates {
		if c != view.Certificates[arn] {
			renewed = arn
		}
	}
	graph, ok := graph.Renewed(next)
	if !ok {
		t.Fatal("a renewal is built anew")
	}
	holders := 0
	for id, was := range before {
		is, _, err := b.Build(graph, id, Shape{})
		if err != nil {
			t.Fatal(err)
		}
		if is.Revision != next.Revision {
			t.Errorf("%s is at %d, not %d", id, is.Revision, next.Revision)
		}
		for kind := range is.Resources {
			for i, r := range is.Resources[kind] {
				if old := was.Resources[kind][i]; r != old && r.Name != renewed {
					t.Errorf("%s: %s was built anew", id, r)
				} else if r != old {
					holders++
				}
			}
		}
	}
	if holders == 0 || holders == len(before) {
		t.Errorf("%d of %d endpoints hold it", holders, len(before))
	}
}

// TestKeysAreNotPrinted puts a known key into a Config and looks for it in
// whatever prints one.
func TestKeysAreNotPrinted(t *testing.T) {
	view := meshgen.View(rand.New(rand.NewPCG(3, 5)), 10)
	graph, b := mesh.Build(view), NewBuilder()
	for _, e := range graph.Sorted() {
		config, problems, err := b.Build(graph, e.ID, Shape{})
		if err != nil {
			t.Fatal(err)
		}
		if len(config.Resources[Secret]) == 0 {
			continue
		}
		var out strings.Builder
		for _, log := range []*slog.Logger{slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil))} {
			log.Info("", "config", config, "resource", config.Resources[Secret][0], "value", *config.Resources[Secret][0], "view", view.Certificates)
		}
		encoded, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		r := config.Resources[Secret][0]
		fmt.Fprintf(&out, "%s %v %+v %#v %q %x %d", r, *r, r, r, r, r, *r)
		fmt.Fprintf(&out, "%v %+v %#v %v %+v %v %s", config, config, *config, view.Certificates, graph.Certificates, problems, encoded)
		for arn, c := range view.Certificates {
			key := c.Key.Reveal()
			for _, form := range []string{key[:len(key)-1], hex.EncodeToString([]byte(key)), base64.StdEncoding.EncodeToString([]byte(key))[:16],
				strings.Trim(fmt.Sprint([]byte(key)), "[]")} {
				if strings.Contains(out.String(), form) {
					t.Errorf("the key of %s is printed", arn)
				}
			}
		}
	}
}

// TestRenewedKeysAreForgotten renews a hundred times: a Builder remembers one
// content of each secret.
func TestRenewedKeysAreForgotten(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 6))
	view := meshgen.View(rng, 20)
	graph, b := mesh.Build(view), NewBuilder()
	names := map[string]bool{}
	for range 100 {
		for _, e := range graph.Sorted() {
			config, _, err := b.Build(graph, e.ID, Shape{})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range config.Resources[Secret] {
				names[r.Name] = true
			}
		}
		view = meshgen.Renew(rng, view)
		graph, _ = graph.Renewed(view)
	}
	if len(b.secrets) != len(names) {
		t.Errorf("%d secrets are remembered, %d have names", len(b.secrets), len(names))
	}
	for key := range b.resources {
		if key.ref.Type == Secret {
			t.Errorf("%v is remembered among the resources", key.ref)
		}
	}
}

// BenchmarkRenewal renews a certificate that 100 of 1,000 endpoints use, and
// brings all of them up to date.
func BenchmarkRenewal(b *testing.B) {
	view := largeMesh(1000)
	view.Certificates = map[string]*mesh.Certificate{}
	i := 0
	for _, name := range slices.Sorted(maps.Keys(view.VirtualNodes)) {
		arn := fmt.Sprintf("%s%d", certificatePrefix, min(i/100, 1))
		i++
		view.Certificates[arn] = &mesh.Certificate{ARN: arn, Chain: "chain", Roots: "root"}
		r := *view.VirtualNodes[name]
		spec := *r.Spec
		spec.Listeners = []appmesh.Listener{{PortMapping: spec.Listeners[0].PortMapping, TLS: &appmesh.ListenerTls{
			Mode:        appmesh.ListenerTlsModeStrict,
			Certificate: &appmesh.ListenerTlsCertificate{ACM: &appmesh.ListenerTlsAcmCertificate{CertificateArn: arn}},
		}}}
		r.Spec = &spec
		view.VirtualNodes[name] = &r
	}
	graph, builder := mesh.Build(view), NewBuilder()
	endpoints := graph.Sorted()
	pass := func() {
		for _, e := range endpoints {
			if _, _, err := builder.Build(graph, e.ID, Shape{}); err != nil {
				b.Fatal(err)
			}
		}
	}
	pass()
	for b.Loop() {
		next := *view
		next.Revision++
		next.Certificates = maps.Clone(view.Certificates)
		c := *next.Certificates[certificatePrefix+"0"]
		c.Revision, c.Chain = next.Revision, fmt.Sprint("chain ", next.Revision)
		next.Certificates[c.ARN] = &c
		view = &next
		var ok bool
		if graph, ok = graph.Renewed(view); !ok {
			b.Fatal("no renewal")
		}
		pass()
	}
}
