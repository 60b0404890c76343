package envoy

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/mesh/meshgen"
)

// shapes are those that random meshes are built for.
var shapes = []Shape{{}, {Agent: true}, {Agent: true, Bind: "127.0.0.2", AppAddress: "127.0.0.9"}}

// TestRandomMeshes holds whatever the API takes to the rules of a config: it is
// built, it is whole, its messages keep their own bounds, a reference in a
// message is in Refs, and no matcher or validation is of a kind that must never be.
func TestRandomMeshes(t *testing.T) {
	for seed := range uint64(80) {
		view := meshgen.View(rand.New(rand.NewPCG(seed, 1)), int(seed%20)+1)
		graph := mesh.Build(view)
		b := NewBuilder()
		for _, e := range graph.Sorted() {
			for _, shape := range shapes {
				config, _, err := b.Build(graph, e.ID, shape)
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if err := config.Check(); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				for _, list := range config.Resources {
					for _, r := range list {
						if err := audit(r); err != nil {
							t.Fatalf("seed %d: %s %s: %v", seed, e.ID, r.Name, err)
						}
					}
				}
			}
		}
	}
}

// audit looks into every message of a resource.
func audit(r *Resource) error {
	m := decode(r)
	var refs []Ref
	var walk func(protoreflect.Message) error
	walk = func(m protoreflect.Message) error {
		if packed, ok := m.Interface().(*anypb.Any); ok {
			inner, err := packed.UnmarshalNew()
			if err != nil {
				return err
			}
			return walk(inner.ProtoReflect())
		}
		if v, ok := m.Interface().(validated); ok {
			if err := v.Validate(); err != nil {
				return err
			}
		}
		found, err := auditMessage(m.Interface())
		if err != nil {
			return err
		}
		refs = append(refs, found...)
		m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			switch {
			case f.IsMap() && f.MapValue().Message() != nil:
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					err = walk(v.Message())
					return err == nil
				})
			case f.IsMap():
			case f.IsList() && f.Message() != nil:
				for i := range v.List().Len() {
					if err = walk(v.List().Get(i).Message()); err != nil {
						break
					}
				}
			case f.Message() != nil:
				err = walk(v.Message())
			}
			return err == nil
		})
		return err
	}
	if err := walk(m.ProtoReflect()); err != nil {
		return err
	}
	d := draft{refs: refs}
	if diff := cmp.Diff(r.Refs, d.references()); diff != "" {
		return fmt.Errorf("Refs are not what the message names (-Refs +message):\n%s", diff)
	}
	return nil
}

// auditMessage finds what one message names, and what it must never say
// (design.md 6).
func auditMessage(m proto.Message) (refs []Ref, err error) {
	switch m := m.(type) {
	case *clusterv3.Cluster:
		if m.GetType() == clusterv3.Cluster_EDS {
			refs = append(refs, Ref{Endpoint, m.Name})
		}
	case *hcmv3.Rds:
		refs = append(refs, Ref{Route, m.RouteConfigName})
	case *tcpv3.TcpProxy:
		if m.GetCluster() != "" {
			refs = append(refs, Ref{Cluster, m.GetCluster()})
		}
	case *tcpv3.TcpProxy_WeightedCluster_ClusterWeight:
		refs = append(refs, Ref{Cluster, m.Name})
	case *routev3.RouteAction:
		if m.GetCluster() != "" {
			refs = append(refs, Ref{Cluster, m.GetCluster()})
		}
	case *routev3.WeightedCluster_ClusterWeight:
		refs = append(refs, Ref{Cluster, m.Name})
	case *tlsv3.SdsSecretConfig:
		if m.SdsConfig.GetAds() != nil {
			refs = append(refs, Ref{Secret, m.Name})
		} else if m.SdsConfig.GetInitialFetchTimeout().AsDuration() <= 0 {
			err = fmt.Errorf("secret %s holds every listener back for ever", m.Name)
		}
	case *tlsv3.CertificateValidationContext:
		if m.TrustChainVerification != tlsv3.CertificateValidationContext_VERIFY_TRUST_CHAIN {
			err = fmt.Errorf("the trust chain is %s", m.TrustChainVerification)
		}
		//lint:ignore SA1019 that the deprecated field is empty is the point
		if len(m.MatchSubjectAltNames) > 0 {
			err = fmt.Errorf("SAN matchers without a type")
		}
		for _, san := range m.MatchTypedSubjectAltNames {
			if san.SanType == tlsv3.SubjectAltNameMatcher_SAN_TYPE_UNSPECIFIED {
				err = fmt.Errorf("a SAN matcher without a type")
			}
		}
	case *tlsv3.CommonTlsContext:
		if v := m.GetValidationContext(); v != nil && v.TrustedCa == nil {
			err = fmt.Errorf("validation without a trusted CA")
		}
	case *tlsv3.DownstreamTlsContext:
		if m.CommonTlsContext.ValidationContextType != nil &&
			(!m.RequireClientCertificate.GetValue() || !m.GetDisableStatelessSessionResumption() || !m.DisableStatefulSessionResumption) {
			err = fmt.Errorf("client certificates count, but are not demanded of every session")
		}
	case *corev3.TransportSocket:
		if m.GetTypedConfig() == nil {
			err = fmt.Errorf("transport socket %s without typed_config", m.Name)
		}
	case *listenerv3.ListenerFilter:
		if m.GetTypedConfig() == nil {
			err = fmt.Errorf("listener filter %s without typed_config", m.Name)
		}
	}
	return refs, err
}

// TestMemory changes random meshes step by step: a Builder that remembers says
// the same as one that does not, and what did not change keeps its pointers.
func TestMemory(t *testing.T) {
	renewals := 0
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 2))
		view := meshgen.View(rng, 12)
		kept := NewBuilder()
		last := map[string]*Config{}
		graph := mesh.Build(view)
		for step := range 20 {
			view = change(rng, view)
			if renewed, ok := graph.Renewed(view); ok {
				graph = renewed
				renewals++
			} else {
				graph = mesh.Build(view)
			}
			pointers := map[contentKey]*Resource{}
			for _, e := range graph.Sorted() {
				for _, shape := range shapes {
					got, problems, err := kept.Build(graph, e.ID, shape)
					if err != nil {
						t.Fatal(err)
					}
					want, wantProblems, err := NewBuilder().Build(graph, e.ID, shape)
					if err != nil {
						t.Fatal(err)
					}
					if diff := sameConfig(want, got); diff != "" {
						t.Fatalf("seed %d step %d %s: %s", seed, step, e.ID, diff)
					}
					if diff := cmp.Diff(wantProblems, problems); diff != "" {
						t.Fatalf("seed %d step %d %s problems (-fresh +kept):\n%s", seed, step, e.ID, diff)
					}
					key := fmt.Sprint(e.ID, shape)
					checkPointers(t, last[key], got, pointers)
					last[key] = got
				}
			}
		}
	}
	if renewals < 10 {
		t.Errorf("only %d of the changes were renewals", renewals)
	}
}

// change is the view with one record written anew, or taken out.
func change(rng *rand.Rand, old *mesh.View) *mesh.View {
	copied := *old
	view := &copied
	view.VirtualNodes, view.VirtualServices = maps.Clone(old.VirtualNodes), maps.Clone(old.VirtualServices)
	view.Routes, view.Certificates, view.Authorities = maps.Clone(old.Routes), maps.Clone(old.Certificates), maps.Clone(old.Authorities)
	view.Revision++
	other := meshgen.View(rng, 12)
	switch rng.IntN(10) {
	case 0:
		name := pick(rng, view.VirtualNodes)
		if fresh, ok := other.VirtualNodes[name]; ok {
			r := *fresh
			r.Revision = view.Revision
			view.VirtualNodes[name] = &r
		}
	case 1:
		delete(view.VirtualServices, pick(rng, view.VirtualServices))
	case 2:
		maps.DeleteFunc(view.Routes, func(mesh.ID, *mesh.Record[routeSpec]) bool { return rng.IntN(10) == 0 })
	case 3:
		for name, fresh := range other.VirtualServices {
			r := *fresh
			r.Revision = view.Revision
			view.VirtualServices[name] = &r
			break
		}
	case 4:
		r := *view.Mesh
		r.Spec, r.Revision = other.Mesh.Spec, view.Revision
		view.Mesh = &r
	case 5:
		delete(view.VirtualNodes, pick(rng, view.VirtualNodes))
	case 6:
		delete(view.Certificates, pick(rng, view.Certificates))
	case 7:
		arn := pick(rng, view.Authorities)
		view.Authorities[arn] = &mesh.Authority{ARN: arn, Revision: view.Revision, Roots: "a root", CRLs: "lists"}
	default:
		return meshgen.Renew(rng, old)
	}
	return view
}

func pick[V any](rng *rand.Rand, m map[string]V) string {
	names := slices.Sorted(maps.Keys(m))
	if len(names) == 0 {
		return ""
	}
	return names[rng.IntN(len(names))]
}

func sameConfig(want, got *Config) string {
	if want.Revision != got.Revision || !slices.Equal(want.Origins, got.Origins) {
		return fmt.Sprintf("made from %v at %d, want %v at %d", got.Origins, got.Revision, want.Origins, want.Revision)
	}
	for i := range want.Resources {
		if len(want.Resources[i]) != len(got.Resources[i]) {
			return fmt.Sprintf("%d %ss, want %d", len(got.Resources[i]), Type(i), len(want.Resources[i]))
		}
		for j, w := range want.Resources[i] {
			g := got.Resources[i][j]
			if w.Ref != g.Ref || w.Version != g.Version || !bytes.Equal(w.Any, g.Any) || w.Origin != g.Origin || !slices.Equal(w.Refs, g.Refs) {
				return fmt.Sprintf("%s %s differs", w.Type, w.Name)
			}
		}
	}
	return ""
}

// checkPointers wants one pointer per content, now and since the last config.
func checkPointers(t *testing.T, last, now *Config, seen map[contentKey]*Resource) {
	t.Helper()
	for _, list := range now.Resources {
		for _, r := range list {
			key := contentKey{r.Ref, r.Version}
			if other := seen[key]; other != nil && other != r {
				t.Errorf("%s %s is two resources of one content", r.Type, r.Name)
			}
			seen[key] = r
			if last == nil {
				continue
			}
			if old := last.Resource(r.Ref); old != nil && old.Version == r.Version && old != r {
				t.Errorf("%s %s was built again without a change", r.Type, r.Name)
			}
		}
	}
}

// TestForgets checks that a Builder does not grow with the history of a mesh.
func TestForgets(t *testing.T) {
	view := meshgen.View(rand.New(rand.NewPCG(1, 3)), 10)
	b := NewBuilder()
	most := 0
	for range 200 {
		view.Revision++
		for name, r := range view.VirtualNodes {
			fresh := *r
			fresh.Revision = view.Revision
			view.VirtualNodes[name] = &fresh
		}
		graph := mesh.Build(view)
		for _, e := range graph.Sorted() {
			if _, _, err := b.Build(graph, e.ID, Shape{}); err != nil {
				t.Fatal(err)
			}
		}
		most = max(most, len(b.units))
	}
	clear(b.configs)
	perPass := NewBuilder()
	graph := mesh.Build(view)
	for _, e := range graph.Sorted() {
		if _, _, err := perPass.Build(graph, e.ID, Shape{}); err != nil {
			t.Fatal(err)
		}
	}
	if limit := 2 * (keepGenerations + 1) * len(perPass.units); most > limit {
		t.Errorf("the builder remembered %d units; a pass has %d", most, len(perPass.units))
	}
}

// TestSharedCluster: a cluster to one node under equal decisions is one
// resource for all clients.
func TestSharedCluster(t *testing.T) {
	graph := mesh.Build(largeMesh(20))
	b := NewBuilder()
	seen := map[string]*Resource{}
	for _, e := range graph.Sorted() {
		config, _, err := b.Build(graph, e.ID, Shape{})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range config.Resources[Cluster] {
			if strings.HasPrefix(r.Name, "cds_egress_") {
				if other := seen[r.Name]; other != nil && other != r {
					t.Errorf("%s is built twice", r.Name)
				}
				seen[r.Name] = r
			}
		}
	}
}

func TestCheck(t *testing.T) {
	cluster := &Resource{Ref: Ref{Cluster, "c"}}
	table := &Resource{Ref: Ref{Route, "r"}, Refs: []Ref{{Cluster, "c"}}}
	tests := []struct {
		name   string
		config Config
		want   string // part of the error
	}{
		{"whole", Config{Resources: [NumTypes][]*Resource{Cluster: {cluster}, Route: {table}}}, ""},
		{"dangling", Config{Resources: [NumTypes][]*Resource{Route: {table}}}, `names cluster "c", which is not there`},
		{"twice", Config{Resources: [NumTypes][]*Resource{Cluster: {cluster, cluster}}}, `two clusters are named "c"`},
		{"in the wrong list", Config{Resources: [NumTypes][]*Resource{Route: {cluster}}}, "is listed as a route"},
		{"out of order", Config{Resources: [NumTypes][]*Resource{Cluster: {{Ref: Ref{Cluster, "d"}}, cluster}}}, "out of order"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.config.Check()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Check() = %v, want %q", err, tt.want)
			}
		})
	}
}
