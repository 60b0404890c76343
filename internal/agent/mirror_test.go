package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/xds"
)

// feeder plays the server to a mirror.
type feeder struct {
	*mirror
	t *testing.T
	n int
}

func newFeeder(t *testing.T) *feeder {
	return &feeder{mirror: newMirror(mesh.Name{Mesh: "m"}, mesh.ID{Kind: mesh.KindVirtualNode, Name: "n"}), t: t}
}

// send is one message; names with a minus are removals.
func (f *feeder) send(kind envoy.Type, resources []*envoy.Resource, removed ...string) {
	f.t.Helper()
	f.n++
	m := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: kind.URL(), Nonce: fmt.Sprint(f.n), RemovedResources: removed}
	for _, r := range resources {
		var packed anypb.Any
		if err := proto.Unmarshal(r.Any, &packed); err != nil {
			f.t.Fatal(err)
		}
		m.Resources = append(m.Resources, &discoveryv3.Resource{Name: r.Name, Version: r.Version, Resource: &packed})
	}
	if err := f.receive(m); err != nil {
		f.t.Fatal(err)
	}
}

func (f *feeder) manifest(m xds.Manifest) {
	f.t.Helper()
	packed := pack(f.t, m.Struct())
	if err := f.receive(&discoveryv3.DeltaDiscoveryResponse{TypeUrl: xds.ManifestURL, Resources: []*discoveryv3.Resource{{Name: "manifest", Resource: packed}}}); err != nil {
		f.t.Fatal(err)
	}
}

// names are what is published: "cluster a", "route r", ….
func (f *feeder) names() []string {
	var names []string
	if f.published == nil {
		return nil
	}
	for t, list := range f.published.Resources {
		for _, r := range list {
			names = append(names, envoy.Type(t).String()+" "+r.Name)
		}
	}
	return names
}

// settle has Envoy take all of what is published, n of each type.
func (f *feeder) settle() {
	var holds [envoy.NumTypes]int
	for t, list := range f.published.Resources {
		holds[t] = len(list)
	}
	f.envoySettled(f.published, holds)
}

func (f *feeder) answered(want ...string) {
	f.t.Helper()
	var got []string
	for _, a := range f.answers() {
		got = append(got, strings.TrimSuffix(a.kind.String()+" "+a.nonce+" "+a.nack, " "))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		f.t.Errorf("answers:\n%s", diff)
	}
}

func edsCluster(t *testing.T, name string) *envoy.Resource {
	return resource(t, envoy.Cluster, name, &clusterv3.Cluster{Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: overADS}})
}

func endpoints(t *testing.T, name string) *envoy.Resource {
	return resource(t, envoy.Endpoint, name, &endpointv3.ClusterLoadAssignment{ClusterName: name})
}

// routesTo is a table that sends everything to a cluster.
func routesTo(t *testing.T, name, to string) *envoy.Resource {
	return resource(t, envoy.Route, name, &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"},
		Routes: []*routev3.Route{{Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: to}}}}}}}})
}

// TestPublishedWhole: nothing is published that names what is not there, and the
// ACK of a message waits for Envoy.
func TestPublishedWhole(t *testing.T) {
	f := newFeeder(t)
	f.manifest(xds.Manifest{Lineage: lineage, Revision: 1})
	f.send(envoy.Cluster, []*envoy.Resource{edsCluster(t, "a")})
	if f.publish() || !slices.Equal(f.wanted(envoy.Endpoint), []string{"a"}) {
		t.Errorf("a cluster without its endpoints is published: %v; wanted %v", f.names(), f.wanted(envoy.Endpoint))
	}
	f.send(envoy.Endpoint, []*envoy.Resource{endpoints(t, "a")})
	if !f.publish() || f.configured() {
		t.Errorf("published %v, configured %v", f.names(), f.configured())
	}
	f.answered()
	f.settle()
	f.answered("cluster 1", "endpoint 2")

	f.send(envoy.Listener, []*envoy.Resource{listener(t, "l", "127.0.0.1", 1, "r", nil)})
	if f.publish() || f.configured() {
		t.Errorf("a listener without its routes is published, or counts: %v, configured %v", f.names(), f.configured())
	}
	f.send(envoy.Route, []*envoy.Resource{routesTo(t, "r", "b")})
	if f.publish() || f.configured() {
		t.Errorf("a route to a cluster that is not there is published: %v", f.names())
	}
	f.send(envoy.Cluster, []*envoy.Resource{edsCluster(t, "b")})
	f.send(envoy.Endpoint, []*envoy.Resource{endpoints(t, "b")})
	if !f.publish() || !f.configured() {
		t.Errorf("published %v", f.names())
	}
	if diff := cmp.Diff([]string{"cluster a", "cluster b", "endpoint a", "endpoint b", "listener l", "route r"}, f.names()); diff != "" {
		t.Error(diff)
	}
	f.answered()
	f.envoyGone()
	f.answered()
	f.settle()
	f.answered("listener 3", "route 4", "cluster 5", "endpoint 6")

	// What nothing names is dropped without a word of the server.
	f.send(envoy.Listener, nil, "l")
	f.send(envoy.Cluster, nil, "a")
	f.publish()
	if diff := cmp.Diff([]string{"cluster b", "endpoint b"}, f.names()); diff != "" {
		t.Error(diff)
	}
	if len(f.wanted(envoy.Route)) > 0 {
		t.Errorf("still wanted: %v", f.wanted(envoy.Route))
	}
	// The same again changes nothing and is answered at once.
	f.settle()
	f.answered("listener 7", "cluster 8")
	before := f.published
	f.send(envoy.Cluster, []*envoy.Resource{edsCluster(t, "b")})
	if f.publish() || f.published != before {
		t.Error("the same again is published")
	}
	f.answered("cluster 9")
}

// TestNamesThatDoNotExist: the server's word that a name does not exist is
// enough; Envoy is then served without it.
func TestNamesThatDoNotExist(t *testing.T) {
	f := newFeeder(t)
	f.send(envoy.Cluster, []*envoy.Resource{edsCluster(t, "a")})
	f.send(envoy.Endpoint, nil, "a")
	if !f.publish() || len(f.published.Resources[envoy.Cluster][0].Refs) > 0 {
		t.Errorf("published %v", f.names())
	}
	f.send(envoy.Endpoint, []*envoy.Resource{endpoints(t, "a")})
	if !f.publish() || len(f.published.Resources[envoy.Cluster][0].Refs) != 1 {
		t.Errorf("published %v", f.names())
	}
	if err := xds.Check(f.published); err != nil {
		t.Error(err)
	}
}

// TestRejectionsTravel: Envoy's words on each resource of a message, in its own
// form; what stood is what is served.
func TestRejectionsTravel(t *testing.T) {
	f := newFeeder(t)
	good := cluster(t, "a", 1)
	f.send(envoy.Cluster, []*envoy.Resource{good, cluster(t, "b", 1)})
	f.publish()
	f.settle()
	f.answered("cluster 1")
	f.send(envoy.Cluster, []*envoy.Resource{cluster(t, "a", 2), cluster(t, "c", 2), cluster(t, "d", 1)})
	f.publish()
	standing := f.received[envoy.Cluster]
	f.envoyRejected(xds.Rejection{Resource: standing["a"].resource, Message: "too many", Standing: good})
	f.envoyRejected(xds.Rejection{Resource: standing["c"].resource, Message: "also too many"})
	f.publish()
	if f.published.Resources[envoy.Cluster][0].Version != good.Version {
		t.Error("what Envoy rejected is served to the next Envoy")
	}
	var holds [envoy.NumTypes]int
	holds[envoy.Cluster] = 3 // a as it was, b, d
	f.envoySettled(f.published, holds)
	f.answered("cluster 2 Error adding/updating cluster(s) a: too many, c: also too many")
	want := map[string]string{"a": good.Version, "b": standing["b"].resource.Version, "d": standing["d"].resource.Version}
	if diff := cmp.Diff(want, f.versions(envoy.Cluster)); diff != "" {
		t.Errorf("what the server is told that we hold:\n%s", diff)
	}
	f.send(envoy.Cluster, []*envoy.Resource{cluster(t, "a", 1), cluster(t, "c", 1)})
	f.publish()
	f.settle()
	f.answered("cluster 3")
}

// TestSecretsThatEnvoyMayLack: the server is told of secrets only what Envoy holds, since
// that decides when an old root may go.
func TestSecretsThatEnvoyMayLack(t *testing.T) {
	f := newFeeder(t)
	f.send(envoy.Cluster, nil)
	f.send(envoy.Listener, []*envoy.Resource{listener(t, "l", "127.0.0.1", 1, "r", &tlsv3.SdsSecretConfig{Name: "s", SdsConfig: overADS})})
	f.send(envoy.Route, []*envoy.Resource{table(t, "r", "hello")})
	packed := pack(t, &tlsv3.Secret{Name: "s"})
	encoded, err := proto.Marshal(packed)
	if err != nil {
		t.Fatal(err)
	}
	told := func(want string) {
		t.Helper()
		if got := f.versions(envoy.Secret)["s"]; got != want {
			t.Errorf("the server is told that %q is held, want %q", got, want)
		}
	}
	for _, version := range []string{"1", "2"} {
		f.send(envoy.Secret, []*envoy.Resource{{Ref: envoy.Ref{Type: envoy.Secret, Name: "s"}, Version: version, Any: encoded}})
		f.publish()
		f.connected() // again, before Envoy has answered
		told("")
		f.settle()
		told(version)
	}
}

func TestObjection(t *testing.T) {
	for _, test := range []struct {
		about         string
		held, offered xds.Manifest
		want          string
	}{
		{"nothing held", xds.Manifest{}, xds.Manifest{}, ""},
		{"the same store, further", xds.Manifest{Lineage: "a", Revision: 1}, xds.Manifest{Lineage: "a", Revision: 2}, ""},
		{"the same revision", xds.Manifest{Lineage: "a", Revision: 1}, xds.Manifest{Lineage: "a", Revision: 1}, ""},
		{"an older one", xds.Manifest{Lineage: "a", Revision: 2}, xds.Manifest{Lineage: "a", Revision: 1}, "is at revision 1, older than this configuration (2)"},
		{"another store", xds.Manifest{Lineage: "a", Revision: 1}, xds.Manifest{Lineage: "b", Revision: 2}, "the server has another store (b)"},
		{"another store, accepted", xds.Manifest{Lineage: "a", Revision: 1}, xds.Manifest{Lineage: "b", AcceptShrink: true}, ""},
		{"a server that does not say", xds.Manifest{Lineage: "a", Revision: 1}, xds.Manifest{}, "has not said what its configuration was made from"},
	} {
		f := newFeeder(t)
		f.held, f.offered = test.held, test.offered
		if got := f.objection(); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", test.about, got, test.want)
		}
	}
}

// TestSavedWithoutKeys: neither the server's secrets nor anything that carries a
// key is kept, and what needs them is closed when it is taken up again.
func TestSavedWithoutKeys(t *testing.T) {
	f := newFeeder(t)
	f.manifest(xds.Manifest{Lineage: lineage, Revision: 7, Origins: []string{"mesh"}})
	secret := resource(t, envoy.Secret, "s", &tlsv3.Secret{Name: "s", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: inline([]byte("CHAIN")), PrivateKey: inline([]byte("CANARY"))}}})
	f.send(envoy.Cluster, []*envoy.Resource{cluster(t, "a", 1)})
	f.send(envoy.Listener, []*envoy.Resource{listener(t, "l", "127.0.0.1", 1, "r", &tlsv3.SdsSecretConfig{Name: "s", SdsConfig: overADS})})
	f.send(envoy.Route, []*envoy.Resource{routesTo(t, "r", "a")})
	f.send(envoy.Secret, []*envoy.Resource{secret})
	if !f.publish() {
		t.Fatal(f.missing())
	}
	dir, err := openStateDir(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.close()
	if err := dir.store(f.save("mesh/m/virtualNode/n")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(dir.file())
	if err != nil || strings.Contains(string(text), "CANARY") || strings.Contains(string(text), "Q0FOQVJZ") {
		t.Errorf("the key is on the disk (%v)", err)
	}
	if _, err := dir.load("mesh/m/virtualNode/other"); err == nil || !strings.Contains(err.Error(), "it is of mesh/m/virtualNode/n") {
		t.Errorf("another proxy's configuration: %v", err)
	}
	saved, err := dir.load("mesh/m/virtualNode/n")
	if err != nil {
		t.Fatal(err)
	}
	g := newFeeder(t)
	if err := g.restore(saved); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"cluster a", "listener l", "route r"}, g.names()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string][]envoy.Ref{"s": {{Type: envoy.Listener, Name: "l"}}}, g.withheld()); diff != "" {
		t.Errorf("closed:\n%s", diff)
	}
	if err := xds.Check(g.published); err != nil || g.held.Revision != 7 {
		t.Errorf("%v %+v", err, g.held)
	}
	if !slices.Equal(g.wanted(envoy.Secret), []string{"s"}) {
		t.Errorf("the server is not asked for %v", g.wanted(envoy.Secret))
	}
	if _, err := openStateDir(dir.path); err == nil || !strings.Contains(err.Error(), "in use by another agent") {
		t.Errorf("a second agent: %v", err)
	}
	for text, want := range map[string]string{`{"format":99}`: "format 99 is not ours", `{`: "read saved configuration", `{"format":1,"more":1}`: "read saved configuration"} {
		if err := os.WriteFile(dir.file(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := dir.load("x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestServed: a listener that was added broken does not take the others away.
func TestServed(t *testing.T) {
	var s served
	a, both := []string{"a"}, []string{"a", "b"}
	for _, step := range []struct {
		about    string
		expected []string
		problems map[string][]string
		ready    bool
		other    bool // problems that do not count
	}{
		{"at first everything counts", both, map[string][]string{"b": {"no certificate"}}, false, false},
		{"all is well", a, nil, true, false},
		{"a broken one comes", both, map[string][]string{"b": {"no certificate"}}, true, true},
		{"the one that served breaks", both, map[string][]string{"a": {"gone"}, "b": {"no certificate"}}, false, true},
		{"all is well again", both, nil, true, false},
		{"now the second one counts", both, map[string][]string{"b": {"gone"}}, false, false},
	} {
		got := s.judge(step.expected, step.problems)
		if got.ready != step.ready || len(got.problems) > 0 != step.other || got.ready != (len(got.why) == 0) {
			t.Errorf("%s: %+v", step.about, got)
		}
	}
}
