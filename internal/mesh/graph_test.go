package mesh_test

import (
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/mesh/meshgen"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// TestValidMeshes builds meshes in which nothing is wrong but that services
// may share a TCP port, and authorities may lack lists of revoked certificates.
func TestValidMeshes(t *testing.T) {
	for seed := range uint64(300) {
		g := mesh.Build(meshgen.View(rand.New(rand.NewPCG(seed, 1)), int(seed%30)))
		for _, p := range g.Problems {
			if !strings.Contains(p.Message, "share port") && !strings.Contains(p.Message, "lists of revoked") {
				t.Errorf("seed %d: %s %s: %s", seed, p.ID, p.Field, p.Message)
			}
		}
		checkGraph(t, g)
	}
}

// TestBrokenMeshes takes records and members out of meshes at random: nothing
// panics, and what is built is whole.
func TestBrokenMeshes(t *testing.T) {
	problems := 0
	for seed := range uint64(1000) {
		rng := rand.New(rand.NewPCG(seed, 2))
		g := mesh.Build(wreck(rng, meshgen.View(rng, int(seed%20))))
		problems += len(g.Problems)
		checkGraph(t, g)
	}
	if problems == 0 {
		t.Error("no mesh was wrecked")
	}
}

func FuzzBuild(f *testing.F) {
	f.Add(uint64(1), uint64(5), false)
	f.Fuzz(func(t *testing.T, seed, size uint64, broken bool) {
		rng := rand.New(rand.NewPCG(seed, 3))
		view := meshgen.View(rng, int(size%40))
		if broken {
			view = wreck(rng, view)
		}
		checkGraph(t, mesh.Build(view))
	})
}

// TestBuildIsDeterministic builds twice: equal views give equal graphs.
func TestBuildIsDeterministic(t *testing.T) {
	for seed := range uint64(50) {
		view := wreck(rand.New(rand.NewPCG(seed, 4)), meshgen.View(rand.New(rand.NewPCG(seed, 5)), 12))
		if diff := cmp.Diff(describe(mesh.Build(view)), describe(mesh.Build(view))); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
	}
}

// TestOriginsAreComplete changes one record after the other: whatever differs
// in an endpoint then, the record is among its origins.
func TestOriginsAreComplete(t *testing.T) {
	for seed := range uint64(20) {
		view := meshgen.View(rand.New(rand.NewPCG(seed, 6)), 10)
		before := mesh.Build(view)
		for _, id := range ids(view) {
			changed := without(view, id)
			after := mesh.Build(changed)
			for endpoint, was := range before.Endpoints {
				is := after.Endpoints[endpoint]
				if is == nil || describeEndpoint(was) == describeEndpoint(is) {
					continue
				}
				if !slices.ContainsFunc(was.Origins, func(o mesh.Origin) bool { return o.ID == id }) {
					t.Errorf("seed %d: %s differs without %s, which is none of its origins:\n%s", seed, endpoint, id,
						cmp.Diff(describeEndpoint(was), describeEndpoint(is)))
				}
			}
		}
	}
}

// checkGraph holds what every Graph keeps, however broken the mesh.
func checkGraph(t *testing.T, g *mesh.Graph) {
	t.Helper()
	for id, e := range g.Endpoints {
		if e.ID != id || (e.Node == nil) == (e.Gateway == nil) {
			t.Fatalf("%s is not itself: %s", id, e.ID)
		}
		clusters := map[string]bool{}
		for _, edge := range e.Edges {
			checkEdge(t, g, e, edge)
			if name := edge.Cluster(g.Name.Mesh); clusters[name] {
				t.Fatalf("%s has two clusters %s", id, name)
			} else {
				clusters[name] = true
			}
		}
		for _, b := range e.Backends {
			if g.Services[b.Service.Name] != b.Service {
				t.Fatalf("%s: backend %s is not in the graph", id, b.Service.Name)
			}
			for _, edge := range b.Edges {
				if !slices.Contains(e.Edges, edge) || !slices.Contains(edge.Services, b.Service.Name) {
					t.Fatalf("%s: backend %s has an edge that is not the endpoint's", id, b.Service.Name)
				}
			}
		}
		for _, r := range e.GatewayRoutes {
			if !slices.ContainsFunc(e.Backends, func(b *mesh.Backend) bool { return b.Service == r.Service }) {
				t.Fatalf("%s: gateway route %s reaches no backend", id, r.Record.ID)
			}
		}
		if !slices.IsSortedFunc(e.Origins, func(x, y mesh.Origin) int { return x.ID.Compare(y.ID) }) {
			t.Fatalf("%s: origins are not in order", id)
		}
	}
	for _, s := range g.Services {
		if s.Node != nil && g.Endpoints[s.Node.ID] != s.Node {
			t.Fatalf("%s: its node is not in the graph", s.Name)
		}
		for _, r := range s.Routes {
			for _, target := range r.Targets {
				if g.Endpoints[target.Node.ID] != target.Node || !slices.Contains(target.Node.Listeners, target.Listener) {
					t.Fatalf("%s: a target of %s is not in the graph", s.Name, r.Record.ID)
				}
			}
		}
	}
}

func checkEdge(t *testing.T, g *mesh.Graph, e *mesh.Endpoint, edge *mesh.Edge) {
	t.Helper()
	if edge.Client != e || g.Endpoints[edge.Server.ID] != edge.Server || !slices.Contains(edge.Server.Listeners, edge.Listener) {
		t.Fatalf("%s: an edge leaves the graph", e.ID)
	}
	if len(edge.Services) == 0 || edge.Decision.Verdict == "" || edge.Decision.Rule == "" {
		t.Fatalf("%s: an edge without service or decision", e.ID)
	}
	if p := edge.Policy; p != nil && p.Enforce && len(p.Ports) == 0 && edge.Decision.Transport != tlspolicy.TLS {
		t.Fatalf("%s: plaintext under an enforcing policy", e.ID)
	}
}

// ids are the IDs of all records but the mesh's.
func ids(v *mesh.View) []mesh.ID {
	var all []mesh.ID
	for name := range v.VirtualNodes {
		all = append(all, mesh.ID{Kind: mesh.KindVirtualNode, Name: name})
	}
	for name := range v.VirtualServices {
		all = append(all, mesh.ID{Kind: mesh.KindVirtualService, Name: name})
	}
	for name := range v.VirtualRouters {
		all = append(all, mesh.ID{Kind: mesh.KindVirtualRouter, Name: name})
	}
	for name := range v.VirtualGateways {
		all = append(all, mesh.ID{Kind: mesh.KindVirtualGateway, Name: name})
	}
	for id := range v.Routes {
		all = append(all, id)
	}
	for id := range v.GatewayRoutes {
		all = append(all, id)
	}
	slices.SortFunc(all, mesh.ID.Compare)
	return all
}

// without is the view with one record taken out.
func without(v *mesh.View, id mesh.ID) *mesh.View {
	out := clone(v)
	delete(out.VirtualNodes, name(id, mesh.KindVirtualNode))
	delete(out.VirtualServices, name(id, mesh.KindVirtualService))
	delete(out.VirtualRouters, name(id, mesh.KindVirtualRouter))
	delete(out.VirtualGateways, name(id, mesh.KindVirtualGateway))
	delete(out.Routes, id)
	delete(out.GatewayRoutes, id)
	return out
}

func name(id mesh.ID, kind mesh.Kind) string {
	if id.Kind == kind {
		return id.Name
	}
	return ""
}

func clone(v *mesh.View) *mesh.View {
	out := *v
	copied := reflect.ValueOf(&out).Elem()
	for i := range copied.NumField() {
		if f := copied.Field(i); f.Kind() == reflect.Map && !f.IsNil() {
			m := reflect.MakeMap(f.Type())
			for _, k := range f.MapKeys() {
				m.SetMapIndex(k, f.MapIndex(k))
			}
			f.Set(m)
		}
	}
	return &out
}

// wreck takes out a fifth of the records, and members of the specs of others.
func wreck(rng *rand.Rand, v *mesh.View) *mesh.View {
	for _, id := range ids(v) {
		if rng.IntN(5) == 0 {
			v = without(v, id)
		}
	}
	if rng.IntN(20) == 0 {
		v.Mesh = nil
	}
	v = clone(v)
	for _, arn := range slices.Sorted(maps.Keys(v.Certificates)) {
		switch rng.IntN(5) {
		case 0:
			delete(v.Certificates, arn)
		case 1:
			v.Certificates[arn] = &mesh.Certificate{ARN: arn}
		}
	}
	for _, arn := range slices.Sorted(maps.Keys(v.Authorities)) {
		if rng.IntN(5) == 0 {
			delete(v.Authorities, arn)
		}
	}
	wreckAll(rng, v.VirtualNodes)
	wreckAll(rng, v.VirtualServices)
	wreckAll(rng, v.VirtualRouters)
	wreckAll(rng, v.VirtualGateways)
	wreckAll(rng, v.Routes)
	wreckAll(rng, v.GatewayRoutes)
	return v
}

func wreckAll[K comparable, S any](rng *rand.Rand, records map[K]*mesh.Record[S]) {
	for _, k := range sortedKeys(records) {
		switch rng.IntN(20) {
		case 0:
			records[k] = nil
		case 1:
			r := *records[k]
			r.Spec = nil
			records[k] = &r
		case 2, 3, 4:
			wreckValue(rng, reflect.ValueOf(records[k].Spec))
		}
	}
}

func sortedKeys[K comparable, V any](m map[K]V) []K {
	var keys []K
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(x, y K) int { return strings.Compare(printed(x), printed(y)) })
	return keys
}

func printed(k any) string {
	if id, ok := k.(mesh.ID); ok {
		return id.String()
	}
	return reflect.ValueOf(k).String()
}

// wreckValue sets pointers to nil, and strings to what names nothing.
func wreckValue(rng *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		if v.CanSet() && rng.IntN(8) == 0 {
			v.SetZero()
			return
		}
		wreckValue(rng, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			wreckValue(rng, v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			wreckValue(rng, v.Index(i))
		}
	case reflect.String:
		if v.CanSet() && rng.IntN(10) == 0 {
			v.SetString([]string{"", "gone", "arn:", "arn:aws:appmesh:us-east-1:1:mesh/other/virtualService/s"}[rng.IntN(4)])
		}
	}
}
